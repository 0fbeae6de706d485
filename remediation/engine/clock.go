package engine

import (
	"context"
	"fmt"
	"sync"
	"time"

	"github.com/locotoki/backout/remediation"
	"github.com/locotoki/backout/remediation/audit"
	"github.com/locotoki/backout/remediation/lease"
)

// clockStep is the least change of the wall clock that counts as someone having
// set it: less is a clock that is kept right.
const clockStep = 2 * time.Second

// clock notices that the wall clock was set, forward or back. What the store keeps
// are moments of that clock, and the engine means durations between them: after a
// step, all of them are moved by it.
type clock struct {
	mu sync.Mutex
	// last is when the clock was looked at, steadily what Options.Steady said then.
	last     time.Time
	steadily time.Duration
	// owed is what the clock was set by and the store does not know yet.
	owed time.Duration
}

func newClock() *clock { return &clock{} }

// look returns what the store's moments are to be moved by. Where times have no
// monotonic reading, as in tests, only a step back shows.
func (c *clock) look(now time.Time, steady func() time.Duration) time.Duration {
	c.mu.Lock()
	defer c.mu.Unlock()
	last, before := c.last, c.steadily
	c.last = now
	if steady != nil {
		c.steadily = steady()
	}
	if last.IsZero() {
		return c.owed
	}
	wall, went := now.Round(0).Sub(last.Round(0)), now.Sub(last)
	if steady != nil {
		went = c.steadily - before
	}
	step := wall - went
	if step == 0 && wall < 0 {
		step = wall
	}
	if step.Abs() >= clockStep {
		c.owed += step
	}
	return c.owed
}

// paid notes that the store's moments were moved.
func (c *clock) paid(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.owed -= d
}

// meetClock compares the clock with the audit log's end before the engine's first
// entry: while backout was down, only a step back shows.
func (e *Engine) meetClock(ctx context.Context) error {
	err := e.Store.View(ctx, func(tx remediation.Tx) error {
		last, err := tx.Entries(audit.Filter{Newest: true, Limit: 1})
		if err != nil || len(last) == 0 {
			return err
		}
		if ahead := last[0].Time.Sub(e.Now()); ahead >= clockStep {
			e.clock.owed = -ahead
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("read the audit log's end: %w", err)
	}
	return e.followClock(ctx, &e.clock)
}

// followClock moves the moments that the store keeps by what the wall clock was set
// by. Without that, an incident would rest for as long as the clock was set back,
// or count the time that it was set forward as time that went by.
//
// Replicas go by the store's clock, of which only the default realm's holder says that it
// was set; it begins to watch it with each lease.
func (e *Engine) followClock(ctx context.Context, c *clock) error {
	if h := lease.From(ctx); h != nil && h.Realm != remediation.RealmDefault {
		return nil
	}
	step := c.look(e.Now(), e.steady)
	if step == 0 {
		return nil
	}
	words := fmt.Sprintf("the clock was set forward by %s", remediation.Span(step))
	if step < 0 {
		words = fmt.Sprintf("the clock was set back by %s", remediation.Span(-step))
	}
	err := e.Store.Update(ctx, func(tx remediation.Tx) error {
		if err := e.shift(tx, step); err != nil {
			return err
		}
		return e.Append(tx, audit.Entry{Kind: audit.KindNotified, Actor: remediation.ActorEngine, Detail: map[string]any{
			"what": words, "why": "times of pending work were moved by the same amount",
		}})
	})
	if err != nil {
		return fmt.Errorf("%s: move the times of pending work: %w", words, err)
	}
	c.paid(step)
	e.Log.Warn("the clock was set", "by", step.String())
	return nil
}

// effectsKept is how far back effects are moved with the clock: no limit looks
// back further, but for the breaker, which only needs their order.
const effectsKept = 7 * 24 * time.Hour

// shift moves every moment from which a duration is counted.
func (e *Engine) shift(tx remediation.Tx, d time.Duration) error {
	now := e.Now()
	move := func(t *time.Time) {
		if t != nil && !t.IsZero() {
			*t = t.Add(d)
		}
	}
	ids, _, err := tx.Due(now.AddDate(100, 0, 0)) // every one that is to be looked at
	if err != nil {
		return err
	}
	for _, id := range ids {
		inc, err := tx.Incident(id)
		if err != nil {
			return err
		}
		inc.Shift(move)
		if err := tx.PutIncident(inc); err != nil {
			return err
		}
	}
	effects, err := tx.Effects("", now.Add(min(-d, 0)-effectsKept))
	if err != nil {
		return err
	}
	for _, ef := range effects {
		ef.Time = ef.Time.Add(d)
		if err := tx.PutEffect(ef); err != nil {
			return err
		}
	}
	beats, err := tx.Beats()
	if err != nil {
		return err
	}
	for _, b := range beats {
		move(&b.Last)
		move(&b.Away)
		if err := tx.PutBeat(b); err != nil {
			return err
		}
	}
	rollouts, err := tx.Rollouts()
	if err != nil {
		return err
	}
	for _, r := range rollouts {
		if !r.Active() {
			continue
		}
		move(r.StageSince)
		if p := r.Promotion; p != nil {
			move(&p.Started)
			move(&p.Until)
			move(&p.Wake)
		}
		if err := tx.PutRollout(r); err != nil {
			return err
		}
	}
	return nil
}
