// Package incident is the life of an incident: it is opened by an alert, an abort or a
// signal, confirmed, acted on step by step, watched, and closed.
//
//	firing ──> confirming ──────────────> acting ──> settling ──> recovered ──> closed
//	             │    ^                    ^  │         │  │          │            │
//	             │    └────── waiting <────│──┘         │  └> waiting │            │
//	             │   (a gate is closed,    │            │  (no data)  │            │
//	             │    a step failed)       └────────────┴─────────────┘            │
//	             │                           the breach continues                  │
//	             └> closed (unconfirmed)     no step is left: exhausted            │
//	  ^                                                                            │
//	  └──────────────────── fires again within reopen_within ──────────────────────┘
//
// Accept commits a notification and what it opens or attaches to; Advance takes an
// incident as far as it goes now, one committed change after another: confirm asks
// Prometheus, tryStep the gates, package operation changes the target, settle waits for the
// recovery values. What can hold a step is in package gate; who is told is package
// notify's business (Public), and a rollout meets an incident in their rows only.
package incident

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/locotoki/backout/remediation"
	"github.com/locotoki/backout/remediation/gate"
	"github.com/locotoki/backout/remediation/ledger"
	"github.com/locotoki/backout/remediation/plan"
	"github.com/locotoki/backout/remediation/view"
)

// Public is what incidents ask of those who tell customers: a step that tells before
// the next real step, and to go on with what was told.
type Public interface {
	TellAhead(ctx context.Context, p *plan.Plan, inc *remediation.Incident, in gate.Input) (*remediation.Incident, error)
	Follow(c *gate.Change, status remediation.PublicStatus) error
}

// Responder advances incidents.
type Responder struct {
	*gate.Gates
	Public
	plot     func(ctx context.Context, id, trigger string) (view.Plot, error)
	observed observedLooks
}

// New returns the responder behind these gates; plot shows an incident's trigger.
func New(g *gate.Gates, p Public, plot func(ctx context.Context, id, trigger string) (view.Plot, error)) *Responder {
	return &Responder{Gates: g, Public: p, plot: plot, observed: observedLooks{latest: map[string]observedLook{}}}
}

// change is a transaction on one incident, in which its life goes on.
type change struct {
	*gate.Change
	e *Responder
}

// on is a transaction on an incident that tx has read.
func (e *Responder) on(tx remediation.Tx, b *plan.Plan, inc *remediation.Incident, now time.Time) *change {
	return &change{e.On(tx, b, inc, now), e}
}

// change runs fn on the incident as it was seen (ledger.Ledger.Change).
func (e *Responder) change(ctx context.Context, b *plan.Plan, seen *remediation.Incident, fn func(c *change) error) error {
	return e.Change(ctx, b, seen, func(c *ledger.Change) error { return fn(&change{e.With(c), e}) })
}

// follow takes what the public was told on with the incident's life.
func (c *change) follow(status remediation.PublicStatus) error { return c.e.Follow(c.Change, status) }

// record runs fn on the incident as it is, for what has happened already (ledger.Ledger.Record).
func (e *Responder) record(ctx context.Context, b *plan.Plan, id string, fn func(c *change) error) error {
	return e.Record(ctx, b, id, func(c *ledger.Change) error { return fn(&change{e.With(c), e}) })
}

// Advance takes an incident as far as it goes now.
func (e *Responder) Advance(ctx context.Context, id string) error {
	for turned := false; ctx.Err() == nil; turned = true {
		var inc *remediation.Incident
		err := e.Store.View(ctx, func(tx remediation.Tx) (err error) {
			inc, err = tx.Incident(id)
			return err
		})
		if err != nil {
			return err
		}
		if inc.Wake.IsZero() || inc.Wake.After(e.Now()) {
			if turned {
				return e.unstick(ctx, inc)
			}
			return nil
		}
		b, err := e.PlanFor(ctx, inc)
		if cause := (*ledger.UnreadableError)(nil); errors.As(err, &cause) {
			return e.unreadable(ctx, inc, cause)
		}
		if err != nil {
			return err
		}
		if !e.Here(ctx, b) { // its playbook was another when it was due
			return nil
		}
		// ErrStale: someone changed it meanwhile; what was seen no longer counts.
		if err := e.turn(ctx, b, inc); err != nil && !errors.Is(err, remediation.ErrStale) {
			return fmt.Errorf("incident %s (%s): %w", id, inc.State, err)
		}
	}
	return nil
}

// turn looks at what the incident's state asks for and commits one change.
func (e *Responder) turn(ctx context.Context, b *plan.Plan, inc *remediation.Incident) error {
	if inc.Restore != nil {
		return e.restore(ctx, b, inc)
	}
	if s := inc.Running(); s != nil {
		return e.resume(ctx, b, inc, s)
	}
	if inc.Drill && inc.State != remediation.Closed {
		return e.drill(ctx, b, inc)
	}
	if inc.Aborting() && inc.State != remediation.Closed {
		return e.abort(ctx, b, inc)
	}
	if inc.OnlySignals() && inc.State != remediation.Closed {
		return e.watchSignals(ctx, b, inc)
	}
	switch inc.State {
	case remediation.Confirming:
		return e.confirm(ctx, b, inc)
	case remediation.Waiting:
		return e.wait(ctx, b, inc)
	case remediation.Settling:
		return e.settle(ctx, b, inc)
	case remediation.Recovered:
		return e.watchRecovered(ctx, b, inc)
	case remediation.Exhausted:
		return e.watchExhausted(ctx, b, inc)
	case remediation.Closed:
		if !inc.Measured && !inc.Drill {
			return e.measure(ctx, b, inc)
		}
		return e.watchClosed(ctx, b, inc)
	}
	return fmt.Errorf("no transition from state %q", inc.State)
}
