package engine

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/locotoki/backout/remediation"
	"github.com/locotoki/backout/remediation/audit"
	"github.com/locotoki/backout/remediation/incident"
	"github.com/locotoki/backout/remediation/ledger"
	"github.com/locotoki/backout/remediation/plan"
)

// duty is something that the engine does again and again, apart from what is due.
type duty struct {
	name string
	do   func(ctx context.Context) error
	// lasting ones go on until ctx ends, or begin what does: only Run has an end
	// to wait for.
	lasting bool
	// own: each replica does it for itself. once: it is done in one realm only, whatever
	// realms there are.
	own, once bool
}

// duties are all of them but deliveries. Those who act begin each that is not under way
// every housekeeping; Tick does those that end.
func (e *Engine) duties(watches *incident.Watches) []duty {
	all := []duty{
		{name: "probe Prometheus", do: e.probePrometheus, own: true},
		{name: "verify the audit log", do: e.verifyAlways, lasting: true, own: true},
		{name: "housekeeping", do: e.housekeeping, once: true},
		{name: "drop messages of unknown channels", do: e.dropForgotten, once: true},
		{name: "promote automatically", do: e.Promoter.AutoPromote},
		{name: "watch targets", do: watches.Keep, lasting: true},
		{name: "run preflights", do: e.Checker.RunPreflights, lasting: true},
	}
	if e.Mode == remediation.Act {
		all = append(all, duty{name: "precheck targets", do: e.precheckTargets, lasting: true})
	}
	return all
}

// deliveries are the duties of an engine that has the store for itself.
func (e *Engine) deliveries() (all []duty) {
	for i, ch := range e.Outbox.Channels {
		all = append(all, duty{name: "deliver by " + ch.Name(), lasting: true, do: func(ctx context.Context) error {
			return e.Notifier.DeliverTo(ctx, ch, e.Outbox.Poke[i])
		}})
	}
	return all
}

// Run works until ctx ends; steps that are running then are brought to their
// outcome before it returns. A replica works in the realms that it holds.
func (e *Engine) Run(ctx context.Context) error {
	if e.keeper == nil {
		e.act(ctx, everywhere, func(duty) bool { return true }, e.deliveries()...)
		return nil
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		e.repeat(ctx, func(d duty) bool { return d.own })
	}()
	err := e.keeper.Run(ctx)
	<-done
	return err
}

// everywhere stands for all realms, where no other process writes the store.
const everywhere = "*"

// repeat begins duties again and again until ctx ends.
func (e *Engine) repeat(ctx context.Context, which func(duty) bool) {
	r := e.newRound("own", which)
	defer r.workers.Wait()
	keep := time.NewTicker(ledger.Housekeeping)
	defer keep.Stop()
	for {
		r.begin(ctx)
		select {
		case <-ctx.Done():
			return
		case <-keep.C:
		}
	}
}

// round is the duties of one who acts.
type round struct {
	e       *Engine
	name    string
	workers *sync.WaitGroup
	duties  []duty
}

func (e *Engine) newRound(name string, which func(duty) bool, more ...duty) *round {
	r := &round{e: e, name: name, workers: &sync.WaitGroup{}}
	all := append(e.duties(e.Responder.NewWatches(r.workers)), more...)
	r.duties = slices.DeleteFunc(all, func(d duty) bool { return !which(d) })
	return r
}

// begin does the duties alongside; one that is in progress is not begun again.
func (r *round) begin(ctx context.Context) {
	for _, d := range r.duties {
		key := "duty/" + r.name + "/" + d.name
		if r.e.busy(key) {
			continue
		}
		r.workers.Add(1)
		go func() {
			defer r.workers.Done()
			defer r.e.free(key)
			if err := r.e.Safely(d.name, func() error { return d.do(ctx) }); err != nil && ctx.Err() == nil {
				r.e.Log.Error("housekeeping failed; retrying", "duty", d.name, "err", err)
			}
		}()
	}
}

// dutiesIn are those of a realm that this replica holds.
func (e *Engine) dutiesIn(realm string) func(duty) bool {
	return func(d duty) bool { return !d.own && (!d.once || realm == remediation.RealmDefault) }
}

// act works until ctx ends on what is due in the realm of ctx, and does its duties; what is
// running then is brought to its outcome first.
func (e *Engine) act(ctx context.Context, realm string, which func(duty) bool, more ...duty) {
	r := e.newRound(realm, which, more...)
	defer r.workers.Wait()
	poke := make(chan struct{}, 1)
	e.mu.Lock()
	e.pokes[realm] = poke
	e.mu.Unlock()
	defer func() {
		e.mu.Lock()
		defer e.mu.Unlock()
		if e.pokes[realm] == poke { // else it acts here again by now
			delete(e.pokes, realm)
		}
	}()
	clock, longest := &e.clock, time.Minute
	if e.replica != nil {
		clock, longest = newClock(), pollShared
	}
	keep := time.NewTicker(ledger.Housekeeping)
	defer keep.Stop()
	begin := func() {
		if err := e.followClock(ctx, clock); err != nil { // before somebody looks how old a beat is
			e.Log.Error("cannot follow the clock; retrying", "err", err)
			return
		}
		r.begin(ctx)
	}
	begin()
	for {
		jobs, next, err := e.due(ctx, clock)
		if err != nil && ctx.Err() == nil {
			e.Log.Error("cannot read what is due; retrying", "err", err)
			next = e.Now().Add(time.Second)
		}
		for _, j := range jobs {
			r.workers.Add(1)
			go func() {
				defer r.workers.Done()
				if err := e.work(ctx, j); err != nil && ctx.Err() == nil {
					e.putOff(j.key)
				}
				e.free(j.key)
				e.WakeUp()
			}()
		}
		wait := longest
		if !next.IsZero() {
			wait = min(max(next.Sub(e.Now()), 0), longest)
		}
		timer := time.NewTimer(wait)
		select {
		case <-ctx.Done():
			timer.Stop()
			return
		case <-poke:
		case <-timer.C:
		case <-keep.C:
			begin()
		}
		timer.Stop()
	}
}

// Tick does the duties that end, advances everything that is due now, one after
// another, then delivers what is due in the outbox, and returns when something is
// due next (zero: nothing is). Run does the same by itself; Tick lets a test own
// the clock.
func (e *Engine) Tick(ctx context.Context) (next time.Time, err error) {
	if err := e.followClock(ctx, &e.clock); err != nil {
		return time.Time{}, err
	}
	for _, d := range e.duties(e.Responder.NewWatches(&e.wg)) {
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
		jobs, next, err := e.due(ctx, &e.clock)
		if err != nil {
			return time.Time{}, err
		}
		if len(jobs) == 0 {
			return e.Notifier.DeliverEach(ctx, next)
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
func (e *Engine) due(ctx context.Context, c *clock) (jobs []job, next time.Time, err error) {
	if err := e.followClock(ctx, c); err != nil {
		return nil, time.Time{}, err
	}
	now := e.Now()
	var ids []string
	var promoting []remediation.Rollout
	err = e.Store.View(ctx, func(tx remediation.Tx) (err error) {
		if ids, next, err = tx.Due(now); err != nil {
			return err
		}
		promoting, err = tx.Promoting()
		return err
	})
	if err != nil {
		return nil, time.Time{}, err
	}
	var all []job
	for _, r := range promoting {
		p := r.Promotion
		here, err := e.hereFor(ctx, &remediation.Incident{ID: "rollout/" + r.Service, PlaybookHash: p.Playbook})
		if err != nil {
			return nil, time.Time{}, err
		}
		switch {
		case !here:
		case p.Wake.After(now):
			next = sooner(next, p.Wake)
		default:
			all = append(all, job{key: "rollout/" + r.Service, service: r.Service, do: func(ctx context.Context) error { return e.Promoter.RunPromotion(ctx, r.Service) }})
		}
	}
	for _, id := range ids {
		if mine, err := e.hereNow(ctx, id); err != nil {
			return nil, time.Time{}, err
		} else if !mine {
			continue
		}
		all = append(all, job{key: id, incident: id, do: func(ctx context.Context) error { return e.Responder.Advance(ctx, id) }})
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
		if inc.State == remediation.Closed && inc.Wake.IsZero() { // its last turn was not in vain
			return nil
		}
		c := e.Ledger.On(tx, plan.Empty(inc), inc, e.Now())
		if err := c.Page(incident.Stuck, why); err != nil {
			return err
		}
		return tx.PutIncident(inc)
	})
}
