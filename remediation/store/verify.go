package store

import (
	"context"
	"iter"

	"github.com/locotoki/backout/remediation"
)

// verifyPage is how many entries one View of VerifyAudit reads.
const verifyPage = 5000

// VerifyAudit reads the whole audit log and checks its chain, its bytes and its
// columns. It returns the head; a *remediation.BrokenChainError says where the
// log is broken, with the last good entry as head.
func (s *SQLite) VerifyAudit(ctx context.Context) (seq int64, hash string, err error) {
	return remediation.VerifyChain(s.entries(ctx))
}

// entries gives all entries, a page at a time, so that no View stays long.
func (s *SQLite) entries(ctx context.Context) iter.Seq2[remediation.Entry, error] {
	return func(yield func(remediation.Entry, error) bool) {
		after := int64(0)
		for {
			var page []remediation.Entry
			err := s.View(ctx, func(tx remediation.Tx) (err error) {
				page, err = tx.Entries(remediation.EntryFilter{After: after, Limit: verifyPage})
				return err
			})
			if err != nil {
				yield(remediation.Entry{}, err)
				return
			}
			if len(page) == 0 {
				return
			}
			for _, e := range page {
				if !yield(e, nil) {
					return
				}
			}
			after = page[len(page)-1].Seq
		}
	}
}
