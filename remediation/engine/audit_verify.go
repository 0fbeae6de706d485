package engine

import (
	"context"
	"errors"
	"fmt"

	"github.com/locotoki/backout/remediation"
	"github.com/locotoki/backout/remediation/audit"
	"github.com/locotoki/backout/remediation/ledger"
	"github.com/locotoki/backout/remediation/view"
)

// verifyAudit reads the whole audit log and checks its chain. A
// *audit.BrokenChainError says where it is broken.
func (e *Engine) verifyAudit(ctx context.Context) (seq int64, hash string, err error) {
	seq, hash, err = audit.Verify(func(f audit.Filter) (page []audit.Entry, err error) {
		err = e.Store.View(ctx, func(tx remediation.Tx) (err error) { // a View for each page: a long one keeps the store from reusing its log
			page, err = tx.Entries(f)
			return err
		})
		return page, err
	})
	var broken *audit.BrokenChainError
	if found := errors.As(err, &broken); found || err == nil {
		e.audited.Store(&view.Audited{OK: !found, Time: e.Now().UTC()})
	} else {
		err = fmt.Errorf("verify the audit log: %w", err)
	}
	return seq, hash, err
}

// verifyAlways verifies the audit log at start and daily, until ctx ends.
func (e *Engine) verifyAlways(ctx context.Context) error {
	for ctx.Err() == nil {
		seq, hash, err := e.verifyAudit(ctx)
		switch {
		case err == nil:
			e.Log.Info("audit log verified", "head", fmt.Sprintf("%d:%s", seq, hash))
		case ctx.Err() == nil:
			e.Log.Error("audit log broken or not verifiable", "verified_to", seq, "err", err)
		}
		ledger.Pause(ctx, view.VerifyEvery)
	}
	return nil
}
