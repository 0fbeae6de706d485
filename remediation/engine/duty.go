package engine

import (
	"context"
	"fmt"
	"time"

	"github.com/locotoki/backout/remediation"
	"github.com/locotoki/backout/remediation/audit"
	"github.com/locotoki/backout/remediation/incident"
	"github.com/locotoki/backout/remediation/ledger"
)

// duty is something that the engine does again and again, apart from what is due.
type duty struct {
	name string
	do   func(ctx context.Context) error
	// lasting ones go on until ctx ends, or begin what does: only Run has an end
	// to wait for.
	lasting bool
}

// duties are all of them. Run begins each that is not under way every housekeeping;
// Tick does those that end.
func (e *Engine) duties() []duty {
	all := []duty{
		{name: "probe Prometheus", do: e.probePrometheus},
		{name: "keep house", do: e.housekeeping},
		{name: "promote by itself", do: e.AutoPromote},
		{name: "watch targets", do: e.WatchTargets, lasting: true},
		{name: "prove", do: e.RunAll, lasting: true},
		{name: "verify the audit log", do: e.verifyAlways, lasting: true},
	}
	if e.Mode == remediation.Act {
		all = append(all, duty{name: "look ahead", do: e.precheckTargets, lasting: true})
	}
	for i, ch := range e.Outbox.Channels {
		all = append(all, duty{name: "deliver by " + ch.Name(), lasting: true, do: func(ctx context.Context) error {
			return e.DeliverTo(ctx, ch, e.Outbox.Poke[i])
		}})
	}
	return all
}

// alongside does a duty outside the engine's loop; one that is in progress is not begun
// again.
func (e *Engine) alongside(ctx context.Context, d duty) {
	key := "duty/" + d.name
	if e.busy(key) {
		return
	}
	e.wg.Add(1)
	go func() {
		defer e.wg.Done()
		defer e.free(key)
		if err := e.Safely(d.name, func() error { return d.do(ctx) }); err != nil && ctx.Err() == nil {
			e.Log.Error("housekeeping failed; retrying", "duty", d.name, "err", err)
		}
	}()
}

// Run works until ctx ends; steps that are running then are brought to their
// outcome before it returns.
func (e *Engine) Run(ctx context.Context) error {
	defer e.wg.Wait()
	e.ForgetWatches() // an earlier Run's are over
	keep := time.NewTicker(ledger.Housekeeping)
	defer keep.Stop()
	for _, d := range e.duties() {
		e.alongside(ctx, d)
	}
	for {
		jobs, next, err := e.due(ctx)
		if err != nil && ctx.Err() == nil {
			e.Log.Error("cannot read what is due; retrying", "err", err)
			next = e.Now().Add(time.Second)
		}
		for _, j := range jobs {
			e.wg.Add(1)
			go func() {
				defer e.wg.Done()
				if err := e.work(ctx, j); err != nil && ctx.Err() == nil {
					e.putOff(j.key)
				}
				e.free(j.key)
				e.WakeUp()
			}()
		}
		wait := time.Minute
		if !next.IsZero() {
			wait = max(next.Sub(e.Now()), 0)
		}
		timer := time.NewTimer(wait)
		select {
		case <-ctx.Done():
			timer.Stop()
			return nil
		case <-e.poke:
		case <-timer.C:
		case <-keep.C:
			for _, d := range e.duties() {
				e.alongside(ctx, d)
			}
		}
		timer.Stop()
	}
}

// Tick does the duties that end, advances everything that is due now, one after
// another, then delivers what is due in the outbox, and returns when something is
// due next (zero: nothing is). Run does the same by itself; Tick lets a test own
// the clock.
func (e *Engine) Tick(ctx context.Context) (next time.Time, err error) {
	for _, d := range e.duties() {
		if d.lasting {
			continue
		}
		if err := d.do(ctx); err != nil {
			return time.Time{}, err
		}
	}
	return e.Proceed(ctx)
}

// Proceed is Tick without the duties: for a past in which Prometheus always answers, no
// watchdog beats and nobody freezes, mails or promotes, there is nothing for them to do.
func (e *Engine) Proceed(ctx context.Context) (next time.Time, err error) {
	for {
		jobs, next, err := e.due(ctx)
		if err != nil {
			return time.Time{}, err
		}
		if len(jobs) == 0 {
			return e.DeliverEach(ctx, next)
		}
		for _, j := range jobs {
			if err == nil {
				err = e.work(ctx, j)
			}
			e.free(j.key)
		}
		if err != nil {
			return time.Time{}, err
		}
	}
}

// job is what is due of one incident or one promotion.
type job struct {
	key      string
	service  string // of a promotion
	incident string // its id, of an incident
	do       func(ctx context.Context) error
}

// due returns the jobs that are due and that nobody works on, each of which the
// caller must free, and when the next one is.
func (e *Engine) due(ctx context.Context) (jobs []job, next time.Time, err error) {
	if err := e.followClock(ctx); err != nil {
		return nil, time.Time{}, err
	}
	now := e.Now()
	var ids []string
	var rollouts []remediation.Rollout
	err = e.Store.View(ctx, func(tx remediation.Tx) (err error) {
		if ids, next, err = tx.Due(now); err != nil {
			return err
		}
		rollouts, err = tx.Rollouts()
		return err
	})
	if err != nil {
		return nil, time.Time{}, err
	}
	var all []job
	for _, r := range rollouts {
		switch p := r.Promotion; {
		case p == nil:
		case p.Wake.After(now):
			next = sooner(next, p.Wake)
		default:
			all = append(all, job{key: "rollout/" + r.Service, service: r.Service, do: func(ctx context.Context) error { return e.RunPromotion(ctx, r.Service) }})
		}
	}
	for _, id := range ids {
		all = append(all, job{key: id, incident: id, do: func(ctx context.Context) error { return e.Advance(ctx, id) }})
	}
	for _, j := range all {
		if again := e.offUntil(j.key); again.After(now) {
			next = sooner(next, again)
		} else if !e.busy(j.key) { // else its worker wakes us when it is done
			jobs = append(jobs, j)
		}
	}
	return jobs, next, nil
}

// sooner returns the sooner of two moments, of which the zero one is none.
func sooner(a, b time.Time) time.Time {
	if a.IsZero() || !b.IsZero() && b.Before(a) {
		return b
	}
	return a
}

// busy reports whether someone works on what key names; where nobody did, the
// caller now does, until free.
func (e *Engine) busy(key string) bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	was := e.inFlight[key]
	e.inFlight[key] = true
	return was
}

func (e *Engine) free(key string) {
	e.mu.Lock()
	defer e.mu.Unlock()
	delete(e.inFlight, key)
}

const (
	// stuckAfter is how many turns in a row must fail before a person is called.
	stuckAfter = 5
	// putOffMost bounds how long a job whose turn failed is left alone: twice as
	// long with each failure, beginning with a second.
	putOffMost = time.Minute
)

// failing is a job whose last turns failed. It is kept in memory: a store that
// takes nothing can neither count nor put off.
type failing struct {
	job
	turns int
	until time.Time
}

// work does a job. A turn that fails is counted, and at some number of them a
// person is called: nothing else would say that an incident does not get on.
func (e *Engine) work(ctx context.Context, j job) error {
	err := e.Safely(j.key, func() error { return j.do(ctx) })
	switch {
	case err == nil:
		e.mu.Lock()
		delete(e.failing, j.key)
		e.mu.Unlock()
		return nil
	case ctx.Err() != nil:
		return err
	}
	e.mu.Lock()
	f := e.failing[j.key]
	if f == nil {
		f = &failing{job: j}
		e.failing[j.key] = f
	}
	f.turns++
	turns := f.turns
	e.mu.Unlock()
	e.Log.Error("turn failed; retrying", "job", j.key, "failures", turns, "err", err)
	if turns == stuckAfter {
		if perr := e.pageStuck(ctx, j, err); perr != nil {
			e.Log.Error("cannot record that a job is stuck", "job", j.key, "err", perr)
		}
	}
	return err
}

// putOff leaves a job whose turn failed alone for a while.
func (e *Engine) putOff(key string) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if f := e.failing[key]; f != nil {
		f.until = e.Now().Add(min(time.Second<<min(f.turns-1, 6), putOffMost))
	}
}

// offUntil is until when a job is left alone, zero where it is not.
func (e *Engine) offUntil(key string) time.Time {
	e.mu.Lock()
	defer e.mu.Unlock()
	if f := e.failing[key]; f != nil {
		return f.until
	}
	return time.Time{}
}

// stuck lists the jobs that a person was called for.
func (e *Engine) stuck() (out []job) {
	e.mu.Lock()
	defer e.mu.Unlock()
	for _, f := range e.failing {
		if f.turns >= stuckAfter {
			out = append(out, f.job)
		}
	}
	return out
}

// pageStuck records that a person is called for a job that does not get on.
func (e *Engine) pageStuck(ctx context.Context, j job, cause error) error {
	why := fmt.Sprintf("%d attempts in a row failed, and backout keeps trying: %v", stuckAfter, cause)
	return e.Store.Update(ctx, func(tx remediation.Tx) error {
		if j.incident == "" {
			return e.Append(tx, audit.Entry{Kind: audit.KindNotified, Actor: remediation.ActorEngine, Service: j.service, Detail: map[string]any{
				"metric": "backout_needs_human", "reason": incident.Stuck, "why": why,
			}})
		}
		inc, err := tx.Incident(j.incident)
		if err != nil {
			return err
		}
		c := e.Ledger.On(tx, nil, inc, e.Now())
		if err := c.Page(incident.Stuck, why); err != nil {
			return err
		}
		return tx.PutIncident(inc)
	})
}
