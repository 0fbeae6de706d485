package engine

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"time"

	"github.com/locotoki/backout/alerts"
	"github.com/locotoki/backout/remediation"
	"github.com/locotoki/backout/remediation/plan"
)

// unreadableError: a stored playbook cannot be carried out any more.
type unreadableError struct{ cause error }

// Error implements error.
func (e *unreadableError) Error() string { return "its playbook cannot be read: " + e.cause.Error() }

func (e *unreadableError) Unwrap() error { return e.cause }

// bookFor returns the playbook that an incident was opened with. It is an
// *unreadableError where that is gone, is not what its hash says, or cannot be
// understood any more, as after an upgrade.
func (e *Engine) bookFor(ctx context.Context, inc *remediation.Incident) (*plan.Plan, error) {
	e.mu.Lock()
	b := e.byHash[inc.PlaybookHash]
	e.mu.Unlock()
	if b != nil {
		return b, nil
	}
	var src []byte
	err := e.store.View(ctx, func(tx remediation.Tx) (err error) {
		src, err = tx.Playbook(inc.PlaybookHash)
		return err
	})
	if errors.Is(err, remediation.ErrNotFound) {
		return nil, &unreadableError{err}
	}
	if err != nil {
		return nil, fmt.Errorf("read playbook %s of incident %s: %w", inc.PlaybookHash, inc.ID, err)
	}
	if sum := sha256.Sum256(src); hex.EncodeToString(sum[:]) != inc.PlaybookHash {
		return nil, &unreadableError{fmt.Errorf("it was changed in the database: its hash is %x, and the incident was opened with %s", sum, inc.PlaybookHash)}
	}
	pb, err := alerts.Parse("playbook of "+inc.ID, src, plan.AlertKinds(e.kinds))
	if err != nil {
		return nil, &unreadableError{err}
	}
	if b, err = plan.Compile(pb, e.kinds); err != nil {
		return nil, &unreadableError{err}
	}
	e.mu.Lock()
	e.byHash[inc.PlaybookHash] = b
	e.mu.Unlock()
	return b, nil
}

// unreadable calls a human for an incident whose playbook cannot be read: it
// goes no further by itself.
func (e *Engine) unreadable(ctx context.Context, inc *remediation.Incident, cause *unreadableError) error {
	e.log.Error("an incident cannot go on by itself", "incident", inc.ID, "err", cause)
	err := e.change(ctx, plan.Empty(inc), inc, func(c *change) error {
		if c.inc.State == remediation.Closed {
			c.inc.Wake = time.Time{} // nothing is left to do
			return nil
		}
		c.inc.Wake = c.now.Add(unreadableAgain)
		c.inc.Why = cause.Error() + "; act by hand, then claim and close it"
		return c.page(pageStuck, c.inc.Why)
	})
	if errors.Is(err, remediation.ErrStale) { // it is looked at again
		return nil
	}
	return err
}

// unreadableAgain is how soon an unreadable playbook is tried again.
const unreadableAgain = time.Minute
