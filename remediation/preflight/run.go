package preflight

import (
	"context"
	"fmt"
	"sync"
	"time"

	"github.com/locotoki/backout/remediation"
	"github.com/locotoki/backout/remediation/audit"
	"github.com/locotoki/backout/remediation/ledger"
	"github.com/locotoki/backout/remediation/plan"
	"github.com/locotoki/backout/remediation/view"
)

// checkTimeout bounds one check.
const checkTimeout = 3 * time.Minute

// runner is the preflights and rehearsals that are asked for and those that run, by
// service: one of them at a time.
type runner struct {
	sources  remediation.Sources
	patience time.Duration // with drill alerts
	requests chan string

	mu         sync.Mutex
	runs       map[string]*preflightRun
	rehearsals map[string]*rehearsalRun
}

// preflightRun is a preflight that goes on.
type preflightRun struct {
	remediation.PreflightRun
	left int
}

func newRunner(around remediation.Sources, patience time.Duration) *runner {
	if patience <= 0 {
		patience = routePatience
	}
	return &runner{sources: around, patience: patience, requests: make(chan string, 64), runs: map[string]*preflightRun{}, rehearsals: map[string]*rehearsalRun{}}
}

// StartPreflight implements Service: the checks run in the background, one service after
// the other.
func (e *Checker) StartPreflight(ctx context.Context, service, actor, reason string) (remediation.PreflightView, error) {
	b, err := e.OnePlan(service)
	if err != nil {
		return remediation.PreflightView{}, err
	}
	var open *remediation.Incident
	err = e.Store.View(ctx, func(tx remediation.Tx) (err error) {
		open, err = remediation.OpenIncident(tx, b.Service)
		return err
	})
	if err != nil {
		return remediation.PreflightView{}, err
	}
	if open != nil { // whose steps must find neither a lock nor a container in their way
		return remediation.PreflightView{}, remediation.Refuse(remediation.Conflict, "incident %s of %s is open (%s): run the preflight once it is closed", open.ID, b.Service, open.Describe())
	}
	if reason == "" {
		reason = "preflight of " + b.Release.Version
	}
	p := e.runner
	err = p.claimFor(b.Service, func() {
		p.runs[b.Service] = &preflightRun{left: len(e.checksOf(b)), PreflightRun: remediation.PreflightRun{
			Release: b.Release.Version, Playbook: b.Hash, By: actor, Reason: reason, Started: e.Now().UTC(), Items: []remediation.PreflightItem{},
		}}
	})
	if err != nil {
		return remediation.PreflightView{}, err
	}
	select {
	case p.requests <- b.Service:
	case <-ctx.Done():
		p.end(b.Service)
		return remediation.PreflightView{}, ctx.Err()
	}
	return e.Preflight(ctx, b.Service)
}

func (p *runner) end(service string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.runs, service)
	delete(p.rehearsals, service)
}

// now returns a copy of the run that goes on, or nil.
func (p *runner) now(service string) *preflightRun {
	p.mu.Lock()
	defer p.mu.Unlock()
	run := p.runs[service]
	if run == nil {
		return nil
	}
	copied := *run
	copied.Items = append([]remediation.PreflightItem{}, run.Items...)
	return &copied
}

func (p *runner) found(run *preflightRun, item remediation.PreflightItem) {
	p.mu.Lock()
	defer p.mu.Unlock()
	run.Items = append(run.Items, item)
	run.left = max(run.left-1, 0)
}

// RunAll runs what is requested, one after the other, until ctx ends. It starts by
// cleaning up after an earlier process that was killed.
func (e *Checker) RunAll(ctx context.Context) error {
	for _, b := range e.Plans() {
		e.sweep(ctx, b)
	}
	for {
		select {
		case <-ctx.Done():
			return nil
		case service := <-e.runner.requests:
			var err error
			if run := e.runner.rehearsal(service); run != nil {
				err = e.rehearse(ctx, service, run)
			} else {
				err = e.runPreflight(ctx, service)
			}
			if err != nil && ctx.Err() == nil {
				e.Log.Error("cannot record a preflight or rehearsal", "service", service, "err", err)
			}
		}
	}
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
func (e *Checker) runPreflight(ctx context.Context, service string) error {
	defer e.runner.end(service)
	b := e.PlanOf(service)
	if b == nil {
		return fmt.Errorf("the playbook for service %q is no longer loaded", service)
	}
	e.runner.mu.Lock()
	run := e.runner.runs[service]
	run.Release, run.Playbook = b.Release.Version, b.Hash // a reload came in between, maybe
	e.runner.mu.Unlock()
	for _, p := range e.checksOf(b) {
		finding, _ := e.runCheck(ctx, preflight, service, checkTimeout, p)
		if ctx.Err() != nil {
			return ctx.Err() // backout stops: what was found so far proves nothing
		}
		e.runner.found(run, remediation.PreflightItem{ID: p.ID, Name: p.Name, Before: true, Result: finding})
	}
	return e.Store.Update(ctx, func(tx remediation.Tx) error {
		kept, err := remediation.PreflightOf(tx, service)
		if err != nil {
			return err
		}
		done := run.PreflightRun
		done.Finished = e.Now().UTC()
		kept.Run = &done
		if err := tx.PutPreflight(kept); err != nil {
			return err
		}
		return e.Append(tx, audit.Entry{Kind: audit.KindVerified, Actor: done.By, Service: service, Detail: done.Detail()})
	})
}

// command is what runs checks: a preflight, or a rehearsal, whose checks may also try a
// step and undo it.
type command struct{ name, again string }

var (
	preflight = command{"preflight", "fix that and run backout preflight again"}
	rehearse  = command{"rehearse", "fix that and run backout rehearse again"}
)

// runCheck gives a check a time, and adds what to do where it does not say so itself; one
// that panics has no result. It does not begin while an incident is open, whose steps come
// first and must find neither a lock nor a container in their way.
func (e *Checker) runCheck(ctx context.Context, c command, service string, limit time.Duration, p remediation.PreflightCheck) (f remediation.Result, began bool) {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
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
		f = remediation.Unknown(fmt.Sprintf("incident %s was opened meanwhile and comes first", open.ID), "run backout "+c.name+" again once it is closed").Because(open.ID)
	default:
		began = true
		f = p.Run(ctx)
	}
	if f.Next == "" && f.Status != remediation.Pass {
		f.Next = c.again
	}
	switch f.Status {
	case remediation.Pass, remediation.Fail, remediation.CannotTell:
		return f, began
	}
	return remediation.Unknown(fmt.Sprintf("the check returned the unknown status %q", f.Status), ""), began
}

// Preflight implements Service.
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
	// First: a run that ends while we read the store must not pass for the one before it.
	now := e.runner.now(b.Service)
	kept, err := remediation.PreflightOf(tx, b.Service)
	if err != nil {
		return remediation.PreflightView{}, err
	}
	v := remediation.PreflightView{Service: b.Service, Release: b.Release.Version, Items: []remediation.PreflightItem{}}
	run := kept.Run
	if now != nil {
		v.Running, v.Left, run = true, now.left, &now.PreflightRun
	}
	if run != nil {
		v.Release, v.By, v.Started, v.Items = run.Release, run.By, view.UTC(&run.Started), append(v.Items, run.Items...)
		if !v.Running {
			v.Finished = view.UTC(&run.Finished)
		}
	}
	v.Items = append(v.Items, remediation.PeoplesItems(b.Playbook)...)
	for i := range v.Items {
		v.Items[i].Take(kept.Signed(b.Playbook, v.Items[i], b.Release.Version))
	}
	v.Missing, err = e.Missing(tx, b.Service, b.Release.Version)
	return v, err
}
