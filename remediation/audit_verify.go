package remediation

import (
	"context"
	"errors"
	"fmt"
	"time"
)

// verifyEvery is how often the audit log is verified while backout runs.
const verifyEvery = 24 * time.Hour

// verifyPage is how many entries are read at once: a long View keeps the store
// from reusing its log.
const verifyPage = 1000

// VerifyAudit reads the whole audit log and checks its chain. A
// *BrokenChainError says where it is broken.
func (e *Engine) VerifyAudit(ctx context.Context) (seq int64, hash string, err error) {
	var chain Chain
	for {
		after, _ := chain.Head()
		var page []Entry
		err = e.store.View(ctx, func(tx Tx) (err error) {
			page, err = tx.Entries(EntryFilter{After: after, Limit: verifyPage, Bytes: PageBytes})
			return err
		})
		for i := 0; i < len(page) && err == nil; i++ {
			err = chain.Add(page[i])
		}
		if err != nil || len(page) == 0 {
			break
		}
	}
	seq, hash = chain.Head()
	var broken *BrokenChainError
	switch {
	case errors.As(err, &broken):
		e.auditOK.Store(auditBroken)
	case err != nil:
		err = fmt.Errorf("verify the audit log: %w", err)
	default:
		e.auditOK.Store(auditWhole)
	}
	return seq, hash, err
}

// What is known of the audit log: nothing before it was verified once.
const (
	auditWhole int32 = iota + 1
	auditBroken
)

// verifyAlways verifies the audit log at start and daily, until ctx ends.
func (e *Engine) verifyAlways(ctx context.Context) error {
	for ctx.Err() == nil {
		seq, hash, err := e.VerifyAudit(ctx)
		switch {
		case err == nil:
			e.log.Info("the audit log is whole", "head", fmt.Sprintf("%d:%s", seq, hash))
		case ctx.Err() == nil:
			e.log.Error("the audit log cannot be verified or is broken", "verified_to", seq, "err", err)
		}
		pause(ctx, verifyEvery)
	}
	return nil
}
