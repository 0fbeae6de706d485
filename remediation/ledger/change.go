package ledger

import (
	"context"
	"fmt"
	"time"

	"github.com/locotoki/backout/remediation"
	"github.com/locotoki/backout/remediation/audit"
	"github.com/locotoki/backout/remediation/lease"
	"github.com/locotoki/backout/remediation/plan"
)

// Change runs fn on the incident as it was read; if it has changed since, it fails with
// ErrStale and writes nothing.
type Change struct {
	l    *Ledger
	Plan *plan.Plan
	Tx   remediation.Tx
	Inc  *remediation.Incident
	Now  time.Time
	// Epoch is that of the lease under which it is made, 0 for none.
	Epoch int64
}

// On is a transaction on an incident that tx has read.
func (l *Ledger) On(tx remediation.Tx, b *plan.Plan, inc *remediation.Incident, now time.Time) *Change {
	return &Change{l: l, Plan: b, Tx: tx, Inc: inc, Now: now}
}

// Change runs fn on the incident as it was seen; where it is no longer as it
// was seen, it fails with ErrStale and nothing is written.
func (l *Ledger) Change(ctx context.Context, b *plan.Plan, seen *remediation.Incident, fn func(c *Change) error) error {
	return l.Store.Update(ctx, func(tx remediation.Tx) error {
		inc, err := tx.Incident(seen.ID)
		if err != nil {
			return err
		}
		if inc.Version != seen.Version {
			return remediation.ErrStale
		}
		c := l.On(tx, b, inc, l.Now())
		c.Epoch = lease.EpochOf(ctx)
		if err := fn(c); err != nil {
			return err
		}
		return tx.PutIncident(inc)
	})
}

// Record is Change for what has already happened: it is written whatever else changed
// meanwhile, even while the process is stopping. Under a lease that is lost it fails with
// lease.ErrLost: what is to be written then goes through Late.
func (l *Ledger) Record(ctx context.Context, b *plan.Plan, id string, fn func(c *Change) error) error {
	ctx = context.WithoutCancel(ctx)
	return l.Store.Update(ctx, func(tx remediation.Tx) error {
		inc, err := tx.Incident(id)
		if err != nil {
			return err
		}
		c := l.On(tx, b, inc, l.Now())
		c.Epoch = lease.EpochOf(ctx)
		if err := fn(c); err != nil {
			return err
		}
		return tx.PutIncident(inc)
	})
}

// Audit adds an entry about the incident; s is the step it is about, or nil.
func (c *Change) Audit(kind audit.Kind, actor string, s *remediation.Step, detail map[string]any) error {
	en := audit.Entry{Kind: kind, Actor: actor, Service: c.Inc.Service, Incident: c.Inc.ID, Detail: detail}
	if s != nil {
		en.Step, en.Action = s.ID(), s.Action
	}
	return c.l.Append(c.Tx, en)
}

// Enter moves the incident to a state that is not waiting, and looks again after d.
func (c *Change) Enter(s remediation.State, d time.Duration) {
	if c.Inc.State != s {
		c.Inc.Since = c.Now
	}
	c.Inc.State, c.Inc.Reason, c.Inc.Why, c.Inc.Until = s, "", "", nil
	c.Inc.Wake = c.Now.Add(d)
}

// Page raises a reason for which a person must come, once until it is cleared:
// the metric backout_needs_human carries it, and a generated alert pages on that.
func (c *Change) Page(reason, why string) error {
	if c.Inc.State == remediation.Closed && c.Inc.Wake.IsZero() { // its watch takes the page back
		c.Inc.Wake = c.Now.Add(time.Duration(c.Plan.Limits.ReopenWithin))
	}
	for _, p := range c.Inc.Paged {
		if p == reason {
			return nil
		}
	}
	c.Inc.Paged = append(c.Inc.Paged, reason)
	return c.Audit(audit.KindNotified, remediation.ActorEngine, nil, map[string]any{
		"metric": "backout_needs_human", "reason": reason, "why": why,
	})
}

// Read returns an incident and one of its steps as they are now, even while the process
// is stopping.
func (l *Ledger) Read(ctx context.Context, id, step string) (inc *remediation.Incident, s *remediation.Step, err error) {
	err = l.Store.View(context.WithoutCancel(ctx), func(tx remediation.Tx) (err error) {
		inc, err = tx.Incident(id)
		return err
	})
	if err != nil {
		return nil, nil, err
	}
	if s = inc.Step(step); s == nil {
		return nil, nil, fmt.Errorf("incident %s has no step %s", id, step)
	}
	return inc, s, nil
}
