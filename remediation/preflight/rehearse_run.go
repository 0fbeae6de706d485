package preflight

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/prometheus/common/model"

	"github.com/locotoki/backout/remediation"
	"github.com/locotoki/backout/remediation/audit"
	"github.com/locotoki/backout/remediation/plan"
	"github.com/locotoki/backout/remediation/view"
)

// rehearsalRun is a rehearsal that goes on, guarded by proving's lock.
type rehearsalRun struct {
	plans      []string
	by, reason string
	started    time.Time
	left       int
	// done are the plans that were rehearsed, and the one that is.
	done []remediation.Rehearsal
}

// StartRehearsal implements Service: it runs in the background, as preflights do.
func (e *Checker) StartRehearsal(ctx context.Context, service, plan, actor, reason string) (remediation.RehearsalView, error) {
	b, err := e.OnePlan(service)
	if err != nil {
		return remediation.RehearsalView{}, err
	}
	run := &rehearsalRun{by: actor, reason: reason, started: e.Now().UTC()}
	if run.plans, err = rehearsable(b, plan); err != nil {
		return remediation.RehearsalView{}, err
	}
	for _, name := range run.plans {
		run.left += len(b.Plan(name).Steps)
	}
	if reason == "" {
		run.reason = "rehearsal of " + strings.Join(run.plans, ", ")
	}
	err = e.Store.View(ctx, func(tx remediation.Tx) error {
		if open, err := remediation.OpenIncident(tx, b.Service); err != nil || open != nil {
			if open != nil {
				err = remediation.Refuse(remediation.Conflict, "incident %s of %s is open (%s): rehearse once it is closed", open.ID, b.Service, open.Describe())
			}
			return err
		}
		r, err := remediation.RolloutOf(tx, b.Service)
		if err == nil && r.Promotion != nil {
			err = remediation.Refuse(remediation.Conflict, "the traffic of %s is being changed: rehearse once that is done", b.Service)
		}
		return err
	})
	if err != nil {
		return remediation.RehearsalView{}, err
	}
	p := e.runner
	if err := p.claimFor(b.Service, func() { p.rehearsals[b.Service] = run }); err != nil {
		return remediation.RehearsalView{}, err
	}
	select {
	case p.requests <- b.Service:
	case <-ctx.Done():
		p.end(b.Service)
		return remediation.RehearsalView{}, ctx.Err()
	}
	return e.Rehearsal(ctx, b.Service)
}

// rehearsable are the plans that a rehearsal of plan is of.
func rehearsable(b *plan.Plan, plan string) ([]string, error) {
	if plan != "" {
		if b.Plan(plan) == nil {
			var names []string
			for _, p := range b.Plans {
				names = append(names, p.Name)
			}
			return nil, remediation.Refuse(remediation.Missing, "the playbook of %s has no plan %q; it has %s", b.Service, plan, strings.Join(names, ", "))
		}
		return []string{plan}, nil
	}
	var out []string
	for _, t := range b.Triggers {
		if !slices.Contains(out, t.Plan) && b.Plan(t.Plan) != nil {
			out = append(out, t.Plan)
		}
	}
	if len(out) == 0 {
		return nil, remediation.Refuse(remediation.Conflict, "no trigger of %s uses a plan: name the plan to rehearse", b.Service)
	}
	return out, nil
}

// claimFor begins a preflight or a rehearsal of a service, if none of them runs.
func (p *runner) claimFor(service string, begin func()) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if old := p.runs[service]; old != nil {
		return remediation.Refuse(remediation.Conflict, "a preflight of %s is already running for %s: wait for it", service, old.By)
	}
	if old := p.rehearsals[service]; old != nil {
		return remediation.Refuse(remediation.Conflict, "a rehearsal of %s is already running for %s: wait for it", service, old.by)
	}
	begin()
	return nil
}

// rehearsal returns the one that is asked for or goes on, or nil.
func (p *runner) rehearsal(service string) *rehearsalRun {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.rehearsals[service]
}

// Rehearsal implements Service.
func (e *Checker) Rehearsal(ctx context.Context, service string) (remediation.RehearsalView, error) {
	b, err := e.OnePlan(service)
	if err != nil {
		return remediation.RehearsalView{}, err
	}
	v := remediation.RehearsalView{Service: b.Service, Playbook: b.Hash, Plans: []string{}, Rehearsals: []remediation.Rehearsal{}}
	if e.runner.show(&v) {
		return v, nil
	}
	err = e.Store.View(ctx, func(tx remediation.Tx) error {
		all, err := tx.Rehearsals(b.Service)
		if err == nil {
			v.Rehearsals = all
		}
		return err
	})
	return v, err
}

// show puts the rehearsal that goes on into a view, if there is one.
func (p *runner) show(v *remediation.RehearsalView) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	run := p.rehearsals[v.Service]
	if run == nil {
		return false
	}
	v.Running, v.Left, v.Plans, v.By, v.Started = true, run.left, slices.Clone(run.plans), run.by, view.UTC(&run.started)
	for _, r := range run.done {
		r.Steps = slices.Clone(r.Steps)
		v.Rehearsals = append(v.Rehearsals, r)
	}
	return true
}

// rehearse runs one rehearsal to its end, and records each plan as it is done.
func (e *Checker) rehearse(ctx context.Context, service string, run *rehearsalRun) error {
	defer e.runner.end(service)
	for _, plan := range run.plans {
		b := e.PlanOf(service)
		if b == nil || b.Plan(plan) == nil {
			return fmt.Errorf("the playbook of %q has no plan %q any more", service, plan)
		}
		r, err := e.rehearsePlan(ctx, b, run, plan)
		if err != nil {
			return err // backout stops: what was seen so far is not a rehearsal
		}
		if err := e.recordRehearsal(ctx, r); err != nil {
			return fmt.Errorf("record the rehearsal of plan %s: %w", plan, err)
		}
	}
	return nil
}

// rehearsePlan goes through one plan's drill and steps.
func (e *Checker) rehearsePlan(ctx context.Context, b *plan.Plan, run *rehearsalRun, plan string) (remediation.Rehearsal, error) {
	r := remediation.Rehearsal{
		Service: b.Service, Plan: plan, Release: b.Release.Version, Playbook: b.Hash, By: run.by, Reason: run.reason,
		Started: e.Now().UTC(), Incidents: []string{}, Steps: []remediation.RehearsedStep{},
	}
	p := e.runner
	note := func(done int) {
		p.mu.Lock()
		defer p.mu.Unlock()
		run.left -= done
		if n := len(run.done); n > 0 && run.done[n-1].Plan == plan {
			run.done = run.done[:n-1]
		}
		run.done = append(run.done, r)
	}
	began := e.Now()
	r.Drill.Result, _ = e.runCheck(ctx, rehearse, b.Service, checkTimeout, remediation.PreflightCheck{ID: "drill", Run: func(ctx context.Context) remediation.Result {
		f, incidents := e.drillPlan(ctx, b, plan)
		r.Incidents = append(r.Incidents, incidents...)
		return f
	}})
	r.Drill.Took = model.Duration(e.Now().Sub(began).Truncate(time.Millisecond))
	note(0)
	steps, err := b.Ladder(plan)
	if err != nil {
		return r, err
	}
	for _, s := range steps {
		if ctx.Err() != nil {
			return r, ctx.Err()
		}
		r.Steps = append(r.Steps, e.rehearseStep(ctx, b, s))
		note(1)
	}
	r.Finished = e.Now().UTC()
	r.Judge()
	note(0)
	return r, ctx.Err()
}

// recordRehearsal keeps a rehearsal, with its trail in the audit log: in that of its
// drill, where one came back.
func (e *Checker) recordRehearsal(ctx context.Context, r remediation.Rehearsal) error {
	return e.Store.Update(ctx, func(tx remediation.Tx) error {
		if err := tx.PutRehearsal(r); err != nil {
			return err
		}
		incident := ""
		if len(r.Incidents) > 0 {
			incident = r.Incidents[0]
		}
		common := map[string]any{"what": "rehearsal", "drill": true, "plan": r.Plan, "playbook": r.Playbook, "release": r.Release}
		write := func(step, action string, result remediation.Status, part remediation.RehearsedPart, more map[string]any) error {
			d := maps.Clone(common)
			maps.Copy(d, more)
			d["result"], d["evidence"], d["took"] = string(result), part.Evidence, part.Took.String()
			if part.Next != "" {
				d["next"] = part.Next
			}
			return e.Append(tx, audit.Entry{
				Kind: audit.KindVerified, Actor: r.By, Service: r.Service, Incident: incident, Step: step, Action: action, Detail: d,
			})
		}
		for _, s := range r.Steps {
			if err := write(s.ID, s.Action, s.Status, s.RehearsedPart, map[string]any{"target": s.Target, "tried": s.Tried}); err != nil {
				return err
			}
		}
		whole := r.Drill
		whole.Took = model.Duration(r.Finished.Sub(r.Started).Truncate(time.Millisecond))
		return write("", "", r.Status, whole, map[string]any{"reason": r.Reason, "drills": remediation.Anys(r.Incidents), "drill_result": string(r.Drill.Status)})
	})
}

// wasRehearsed judges the last rehearsal of a plan.
func (e *Checker) wasRehearsed(ctx context.Context, b *plan.Plan, plan string) remediation.Result {
	var all []remediation.Rehearsal
	err := e.Store.View(ctx, func(tx remediation.Tx) (err error) {
		all, err = tx.Rehearsals(b.Service)
		return err
	})
	if err != nil {
		return remediation.ResultOf(err)
	}
	i := slices.IndexFunc(all, func(r remediation.Rehearsal) bool { return r.Plan == plan })
	if i < 0 {
		return remediation.Unknown("never rehearsed", "backout rehearse --plan="+plan+", and then backout preflight again")
	}
	return all[i].ResultFor(b.Playbook, e.Now())
}
