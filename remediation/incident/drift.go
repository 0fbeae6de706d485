package incident

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"

	"github.com/locotoki/backout/remediation"
	"github.com/locotoki/backout/remediation/audit"
	"github.com/locotoki/backout/remediation/ledger"
	"github.com/locotoki/backout/remediation/plan"
)

// watched is a step whose target is held as it was made.
type watched struct {
	incident *remediation.Incident
	step     remediation.Step
}

func (w watched) key() string { return w.incident.ID + "/" + w.step.ID() }

// watchedBack is how many of a service's incidents are looked through for targets
// that are held.
const watchedBack = 50

// held returns the steps of each service's incidents that hold a target, of each
// target the last one: until a later rollout of the service begins, nobody is meant
// to put it back.
func (e *Responder) held(tx remediation.Tx, plans []*plan.Plan) ([]watched, error) {
	var out []watched
	real := false
	for _, b := range plans {
		newest, err := tx.Incidents(remediation.IncidentFilter{Service: b.Service, Drill: &real, Newest: true, Limit: watchedBack})
		if err != nil {
			return nil, err
		}
		r, err := remediation.RolloutOf(tx, b.Service)
		if err != nil {
			return nil, err
		}
		taken := map[string]bool{} // by a later incident's step
		for _, inc := range slices.Backward(newest) {
			if inc.Superseded(r) {
				continue
			}
			for _, s := range inc.Steps {
				target := s.Action + "\x00" + s.Target
				if s.Tells || s.Open() || s.State == remediation.StepSkipped || taken[target] {
					continue
				}
				taken[target] = true
				if s.State == remediation.StepNoChange || s.State == remediation.StepDone && s.Verified {
					out = append(out, watched{inc, s})
				}
			}
		}
	}
	return out, nil
}

// Watches are the watches of targets in one realm.
type Watches struct {
	e *Responder
	// ends are theirs, by key.
	ends    map[string]context.CancelFunc
	workers *sync.WaitGroup
}

// NewWatches returns none yet. A caller that ends them waits for workers.
func (e *Responder) NewWatches(workers *sync.WaitGroup) *Watches {
	return &Watches{e, map[string]context.CancelFunc{}, workers}
}

// Keep starts missing watches and ends obsolete ones; they end with ctx. It runs once at
// a time.
func (w *Watches) Keep(ctx context.Context) error {
	e, running := w.e, w.ends
	var held []watched
	err := e.Store.View(ctx, func(tx remediation.Tx) (err error) {
		held, err = e.held(tx, e.PlansHere(ctx))
		return err
	})
	if err != nil {
		return err
	}
	want := map[string]bool{}
	for _, target := range held {
		want[target.key()] = true
		if running[target.key()] != nil {
			continue
		}
		b, err := e.PlanFor(ctx, target.incident)
		if err != nil && !errors.As(err, new(*ledger.UnreadableError)) { // it passes: the next duty tries again
			e.Log.Warn("target not watched yet; retrying", "incident", target.incident.ID, "step", target.step.ID(), "err", err)
			continue
		}
		var action remediation.Action
		if err == nil {
			action, err = b.Bind(&target.step)
		}
		if err != nil { // of one incident: the others' targets are watched all the same
			e.Log.Warn("cannot watch a target", "incident", target.incident.ID, "step", target.step.ID(), "err", err)
			running[target.key()] = func() {}
			continue
		}
		watcher, ok := action.(remediation.Watcher)
		if !ok {
			running[target.key()] = func() {}
			continue
		}
		wctx, cancel := context.WithCancel(ctx)
		running[target.key()] = cancel
		w.workers.Add(1)
		go func() {
			defer w.workers.Done()
			e.watch(wctx, target, watcher)
		}()
	}
	for key, cancel := range running {
		if !want[key] {
			cancel()
			delete(running, key)
		}
	}
	return nil
}

// watch reports drift until ctx ends, beginning again where the watch breaks.
func (e *Responder) watch(ctx context.Context, w watched, watcher remediation.Watcher) {
	for ctx.Err() == nil {
		err := e.Safely("the watch of "+w.step.ID(), func() error {
			return watcher.Watch(ctx, func(what string) {
				if err := e.drift(ctx, w, what); err != nil && ctx.Err() == nil {
					e.Log.Error("cannot record drift", "incident", w.incident.ID, "step", w.step.ID(), "err", err)
				}
			})
		})
		if ctx.Err() != nil {
			return
		}
		e.Log.Warn("watch of a target ended; restarting", "incident", w.incident.ID, "step", w.step.ID(), "err", err)
		ledger.Pause(ctx, ledger.Housekeeping)
	}
}

// drift records that a target is no longer as a step left it; once for each
// thing that is seen since the step ran.
func (e *Responder) drift(ctx context.Context, w watched, what string) error {
	return e.Store.Update(ctx, func(tx remediation.Tx) error {
		inc, err := tx.Incident(w.incident.ID)
		if err != nil {
			return err
		}
		s := inc.Step(w.step.ID())
		if s == nil || s.State != w.step.State {
			return nil // it is being put back: that is not drift
		}
		if r, err := remediation.RolloutOf(tx, inc.Service); err != nil || inc.Superseded(r) {
			return err // a later rollout has it
		}
		before, err := tx.Entries(audit.Filter{Incident: w.incident.ID, Kind: audit.KindDrift})
		if err != nil {
			return err
		}
		for _, en := range before {
			since := s.Finished == nil || en.Time.After(*s.Finished) // before that, it ran again
			if since && en.Step == w.step.ID() && fmt.Sprint(en.Detail["why"]) == what {
				return nil
			}
		}
		tx.OnCommit(e.Metrics.Drift.WithLabelValues(w.step.Action, w.incident.Service).Inc)
		return e.Append(tx, audit.Entry{Kind: audit.KindDrift, Actor: remediation.ActorEngine, Service: w.incident.Service, Incident: w.incident.ID,
			Step: w.step.ID(), Action: w.step.Action, Detail: map[string]any{"target": w.step.Target, "why": what}})
	})
}
