package store

import (
	"context"

	"github.com/locotoki/backout/remediation"
)

// verifyPage is how many entries one View of VerifyAudit reads, so that none
// stays long: SQLite cannot reuse its write-ahead log past a View.
const verifyPage = 5000

// VerifyAudit reads the whole audit log and checks its chain, its bytes and its
// columns. It returns the head; a *remediation.BrokenChainError says where the
// log is broken, with the last good entry as head.
func (s *SQLite) VerifyAudit(ctx context.Context) (seq int64, hash string, err error) {
	var chain remediation.Chain
	for more := true; more && err == nil; {
		after, _ := chain.Head()
		err = s.view(ctx, func(t *tx) error {
			return t.eachEntry(remediation.EntryFilter{After: after, Limit: verifyPage}, chain.Add)
		})
		seq, hash = chain.Head()
		more = seq > after
	}
	return seq, hash, err
}
