package preflight

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/locotoki/backout/hint"
	"github.com/locotoki/backout/remediation"
	"github.com/locotoki/backout/remediation/audit"
	"github.com/locotoki/backout/remediation/ledger"
	"github.com/locotoki/backout/remediation/plan"
	"github.com/locotoki/backout/remediation/view"
)

// checkTimeout bounds one check.
const checkTimeout = 3 * time.Minute

// runner is what lies around, and how long to wait for it.
type runner struct {
	sources  remediation.Sources
	patience time.Duration // with drill alerts
	// asked wakes RunPreflights.
	asked chan struct{}
}

func newRunner(around remediation.Sources, patience time.Duration) *runner {
	if patience <= 0 {
		patience = routePatience
	}
	return &runner{sources: around, patience: patience, asked: make(chan struct{}, 1)}
}

// ask puts what is to run into the service's row, unless something is there.
func (e *Checker) ask(ctx context.Context, service string, g remediation.PreflightGoing, allowed func(tx remediation.Tx) error) error {
	return e.Store.Update(ctx, func(tx remediation.Tx) error {
		if err := allowed(tx); err != nil {
			return err
		}
		kept, err := remediation.PreflightOf(tx, service)
		if err != nil {
			return err
		}
		if old := kept.Going; old != nil {
			return hint.Add(remediation.Refuse(remediation.Conflict, "%s of %s is already running for %s", old.Describe(), service, old.By), "wait for it")
		}
		kept.Going = &g
		tx.OnCommit(func() {
			select {
			case e.runner.asked <- struct{}{}:
			default:
			}
		})
		return tx.PutPreflight(kept)
	})
}

// note changes what is shown of what runs, and returns false where it runs no more.
func (e *Checker) note(ctx context.Context, service string, change func(g *remediation.PreflightGoing)) (goes bool, err error) {
	err = e.Store.Update(ctx, func(tx remediation.Tx) error {
		kept, err := remediation.PreflightOf(tx, service)
		if goes = err == nil && kept.Going != nil; !goes {
			return err
		}
		change(kept.Going)
		return tx.PutPreflight(kept)
	})
	return goes, err
}

// end says that nothing runs any more, also while the process is stopping.
func (e *Checker) end(ctx context.Context, service string) error {
	return e.Store.Update(context.WithoutCancel(ctx), func(tx remediation.Tx) error {
		kept, err := remediation.PreflightOf(tx, service)
		if err != nil || kept.Going == nil {
			return err
		}
		kept.Going = nil
		return tx.PutPreflight(kept)
	})
}

// StartPreflight begins a preflight: the checks run in the background, one service after
// the other.
func (e *Checker) StartPreflight(ctx context.Context, service, actor, reason string) (remediation.PreflightView, error) {
	b, err := e.OnePlan(service)
	if err != nil {
		return remediation.PreflightView{}, err
	}
	if reason == "" {
		reason = "preflight of " + b.Release.Version
	}
	err = e.ask(ctx, b.Service, remediation.PreflightGoing{Left: len(e.checksOf(b)), PreflightRun: remediation.PreflightRun{
		Release: b.Release.Version, Playbook: b.Hash, By: actor, Reason: reason, Started: e.Now().UTC(), Items: []remediation.PreflightItem{},
	}}, func(tx remediation.Tx) error {
		open, err := remediation.OpenIncident(tx, b.Service)
		if err == nil && open != nil { // whose steps must find neither a lock nor a container in their way
			err = hint.Add(remediation.Refuse(remediation.Conflict, "incident %s of %s is open (%s)", open.ID, b.Service, open.Describe()), "run the preflight once it is closed: backout incident show %s", open.ID)
		}
		return err
	})
	if err != nil {
		return remediation.PreflightView{}, err
	}
	return e.Preflight(ctx, b.Service)
}

// askedEvery is how often RunPreflights looks for what another replica was asked for.
const askedEvery = time.Second

// RunPreflights runs what is asked for, one after the other, until ctx ends. It starts by
// cleaning up after an earlier process that was killed.
func (e *Checker) RunPreflights(ctx context.Context) error {
	for _, b := range e.PlansHere(ctx) {
		e.sweep(ctx, b)
	}
	look := time.NewTicker(askedEvery)
	defer look.Stop()
	for ctx.Err() == nil {
		for _, b := range e.PlansHere(ctx) {
			if err := e.runAsked(ctx, b); err != nil && ctx.Err() == nil {
				e.Log.Error("cannot record a preflight or rehearsal", "service", b.Service, "err", err)
			}
		}
		select {
		case <-ctx.Done():
		case <-e.runner.asked:
		case <-look.C:
		}
	}
	return nil
}

// runAsked runs what is asked for of a service, to its end.
func (e *Checker) runAsked(ctx context.Context, b *plan.Plan) (err error) {
	var going *remediation.PreflightGoing
	err = e.Store.View(ctx, func(tx remediation.Tx) error {
		kept, err := remediation.PreflightOf(tx, b.Service)
		going = kept.Going
		return err
	})
	if err != nil || going == nil {
		return err
	}
	defer func() { err = errors.Join(err, e.end(ctx, b.Service)) }()
	if going.Begun {
		e.Log.Warn("cut off: the process that ran it has ended", "what", going.Describe(), "service", b.Service)
		return nil
	}
	goes, err := e.note(ctx, b.Service, func(g *remediation.PreflightGoing) { g.Begun = true })
	switch {
	case err != nil || !goes:
		return err
	case len(going.Plans) > 0:
		return e.rehearse(ctx, b.Service, *going)
	}
	return e.runPreflight(ctx, b.Service, going.PreflightRun)
}

// sweep takes away what checks left behind.
func (e *Checker) sweep(ctx context.Context, b *plan.Plan) {
	for _, s := range checkables(b) {
		sweeper, ok := s.action.(remediation.Sweeper)
		if !ok {
			continue
		}
		bounded, cancel := context.WithTimeout(ctx, ledger.LookTimeout)
		err := sweeper.Sweep(bounded)
		cancel()
		if err != nil && ctx.Err() == nil {
			// The next preflight says so where someone reads it.
			e.Log.Debug("cannot clean up after a preflight", "service", b.Service, "action", s.kind.Name(), "err", err)
		}
	}
}

// runPreflight runs one preflight to its end and records it.
func (e *Checker) runPreflight(ctx context.Context, service string, run remediation.PreflightRun) error {
	b := e.PlanOf(service)
	if b == nil {
		return fmt.Errorf("the playbook for service %q is no longer loaded", service)
	}
	run.Release, run.Playbook = b.Release.Version, b.Hash // a reload came in between, maybe
	for _, p := range e.checksOf(b) {
		finding, _ := e.runCheck(ctx, preflight, service, checkTimeout, p)
		if ctx.Err() != nil {
			return ctx.Err() // backout stops: what was found so far proves nothing
		}
		run.Items = append(run.Items, remediation.PreflightItem{ID: p.ID, Name: p.Name, Before: true, Result: finding})
		if _, err := e.note(ctx, service, func(g *remediation.PreflightGoing) {
			g.PreflightRun, g.Left = run, max(g.Left-1, 0)
		}); err != nil {
			return err
		}
	}
	return e.Store.Update(ctx, func(tx remediation.Tx) error {
		kept, err := remediation.PreflightOf(tx, service)
		if err != nil {
			return err
		}
		done := run
		done.Finished = e.Now().UTC()
		kept.Run, kept.Going = &done, nil
		if err := tx.PutPreflight(kept); err != nil {
			return err
		}
		return e.Append(tx, audit.Entry{Kind: audit.KindVerified, Actor: done.By, Service: service, Detail: done.Detail()})
	})
}

// command is what runs checks: a preflight, or a rehearsal, whose checks may also try a
// step and undo it.
type command string

const (
	preflight command = "backout preflight"
	rehearse  command = "backout rehearse"
)

// runCheck gives a check a time, and adds what to do where it does not say so itself; one
// that panics has no result. It does not begin while an incident is open, whose steps come
// first and must find neither a lock nor a container in their way.
func (e *Checker) runCheck(ctx context.Context, c command, service string, limit time.Duration, p remediation.PreflightCheck) (f remediation.Result, began bool) {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	again := fmt.Sprintf("%s --service=%s", c, service)
	defer func() {
		if r := recover(); r != nil {
			e.Log.Error("a check panicked", "check", p.ID, "panic", fmt.Sprint(r))
			f = remediation.Unknown("internal error during this check", "see the server's log")
		}
	}()
	var open *remediation.Incident
	err := e.Store.View(ctx, func(tx remediation.Tx) (err error) {
		open, err = remediation.OpenIncident(tx, service)
		return err
	})
	switch {
	case err != nil:
		f = remediation.ResultOf(err)
	case open != nil:
		f = remediation.Unknown(fmt.Sprintf("incident %s was opened meanwhile and comes first", open.ID), again+" once it is closed").Because(open.ID)
	default:
		began = true
		f = p.Run(ctx)
	}
	if f.Next == "" && f.Status != remediation.Pass {
		f.Next = "fix that, then " + again
	}
	switch f.Status {
	case remediation.Pass, remediation.Fail, remediation.CannotTell:
		return f, began
	}
	return remediation.Unknown(fmt.Sprintf("the check returned the unknown status %q", f.Status), ""), began
}

// Preflight is how a service's preflight stands.
func (e *Checker) Preflight(ctx context.Context, service string) (v remediation.PreflightView, err error) {
	b, err := e.OnePlan(service)
	if err != nil {
		return remediation.PreflightView{}, err
	}
	err = e.Store.View(ctx, func(tx remediation.Tx) error {
		v, err = e.preflightView(tx, b)
		return err
	})
	return v, err
}

func (e *Checker) preflightView(tx remediation.Tx, b *plan.Plan) (remediation.PreflightView, error) {
	kept, err := remediation.PreflightOf(tx, b.Service)
	if err != nil {
		return remediation.PreflightView{}, err
	}
	v := remediation.PreflightView{Service: b.Service, Release: b.Release.Version}
	run := runOf(kept.Run, b.Release.Version)
	if now := kept.Going; now != nil && len(now.Plans) == 0 {
		v.Running, v.Left, run = true, now.Left, &now.PreflightRun
	}
	if run != nil {
		v.Release, v.By, v.Started = run.Release, run.By, view.UTC(&run.Started)
		if !v.Running {
			v.Finished = view.UTC(&run.Finished)
		}
	}
	if v.Items, err = e.items(tx, b, kept, run); err != nil {
		return v, err
	}
	v.Missing, err = e.Missing(tx, b.Service, b.Release.Version)
	return v, err
}

// items are those of a run, then people's, with who signed each off where that counts now.
// The gate of a start, the API, the commands and the pages all go by them.
func (e *Checker) items(tx remediation.Tx, b *plan.Plan, kept remediation.Preflight, run *remediation.PreflightRun) ([]remediation.PreflightItem, error) {
	items, err := e.itemsSeen(tx, b, run)
	if err != nil {
		return nil, err
	}
	r, err := remediation.RolloutOf(tx, b.Service)
	for i := range items {
		kept.SignOff(b.Playbook, r, &items[i], b.Release.Version)
	}
	return items, err
}

// itemsSeen are those of a run, then people's, as they are signed off: a plan that was
// rehearsed since the run has the result of that.
func (e *Checker) itemsSeen(tx remediation.Tx, b *plan.Plan, run *remediation.PreflightRun) ([]remediation.PreflightItem, error) {
	items := []remediation.PreflightItem{}
	if run != nil {
		items = append(items, run.Items...)
		all, err := tx.Rehearsals(b.Service)
		if err != nil {
			return nil, err
		}
		for _, r := range all {
			i := slices.IndexFunc(items, func(it remediation.PreflightItem) bool { return it.ID == rehearsalItem(remediation.Slug(r.Plan)) })
			if i >= 0 && r.Finished.After(run.Started) {
				items[i].Result = r.ResultFor(b.Playbook, e.Now())
			}
		}
	}
	return append(items, remediation.PeoplesItems(b.Playbook)...), nil
}
