package incident

import (
	"context"
	"errors"
	"slices"
	"time"

	"github.com/locotoki/backout/remediation"
	"github.com/locotoki/backout/remediation/ledger"
	"github.com/locotoki/backout/remediation/plan"
)

// unreadable calls a person for an incident whose playbook cannot be read: it
// goes no further by itself.
func (e *Responder) unreadable(ctx context.Context, inc *remediation.Incident, cause *ledger.UnreadableError) error {
	e.Log.Error("incident needs a person", "incident", inc.ID, "err", cause)
	err := e.change(ctx, plan.Empty(inc), inc, func(c *change) error {
		if c.Inc.State == remediation.Closed {
			c.Inc.Wake = time.Time{} // nothing is left to do
			c.Inc.Unstuck()
			return nil
		}
		c.Inc.Wake = c.Now.Add(unreadableAgain)
		c.Inc.Why = cause.Error() + "; act by hand, then claim and close it"
		return c.Page(Stuck, c.Inc.Why)
	})
	if errors.Is(err, remediation.ErrStale) { // it is looked at again
		return nil
	}
	return err
}

// unreadableAgain is how soon an unreadable playbook is tried again.
const unreadableAgain = time.Minute

// Stuck is the reason of a page about a job that keeps failing.
const Stuck = "stuck"

// unstick takes the page back once an incident gets on again.
func (e *Responder) unstick(ctx context.Context, inc *remediation.Incident) error {
	if !slices.Contains(inc.Paged, Stuck) {
		return nil
	}
	err := e.change(ctx, nil, inc, func(c *change) error {
		c.Inc.Paged = slices.DeleteFunc(c.Inc.Paged, func(p string) bool { return p == Stuck })
		return nil
	})
	if errors.Is(err, remediation.ErrStale) { // its next turn does
		return nil
	}
	return err
}
