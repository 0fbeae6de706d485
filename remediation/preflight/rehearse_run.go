package preflight

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/prometheus/common/model"

	"github.com/locotoki/backout/hint"
	"github.com/locotoki/backout/remediation"
	"github.com/locotoki/backout/remediation/audit"
	"github.com/locotoki/backout/remediation/plan"
	"github.com/locotoki/backout/remediation/view"
)

// StartRehearsal begins a rehearsal: it runs in the background, as preflights do.
func (e *Checker) StartRehearsal(ctx context.Context, service, plan, actor, reason string) (remediation.RehearsalView, error) {
	b, err := e.OnePlan(service)
	if err != nil {
		return remediation.RehearsalView{}, err
	}
	run := remediation.PreflightGoing{PreflightRun: remediation.PreflightRun{By: actor, Reason: reason, Started: e.Now().UTC()}}
	if run.Plans, err = rehearsable(b, plan); err != nil {
		return remediation.RehearsalView{}, err
	}
	for _, name := range run.Plans {
		run.Left += len(b.Plan(name).Steps)
	}
	if reason == "" {
		run.Reason = "rehearsal of " + strings.Join(run.Plans, ", ")
	}
	err = e.ask(ctx, b.Service, run, func(tx remediation.Tx) error {
		if open, err := remediation.OpenIncident(tx, b.Service); err != nil || open != nil {
			if open != nil {
				err = hint.Add(remediation.Refuse(remediation.Conflict, "incident %s of %s is open (%s)", open.ID, b.Service, open.Describe()), "rehearse once it is closed: backout incident show %s", open.ID)
			}
			return err
		}
		r, err := remediation.RolloutOf(tx, b.Service)
		if err == nil && r.Promotion != nil {
			err = hint.Add(remediation.Refuse(remediation.Conflict, "the traffic of %s is being changed", b.Service), "rehearse once that is done")
		}
		return err
	})
	if err != nil {
		return remediation.RehearsalView{}, err
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
			return nil, hint.Add(remediation.Refuse(remediation.Missing, "the playbook of %s has no plan %q", b.Service, plan), "%s", remediation.OneOf(plan, names))
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
		return nil, hint.Add(remediation.Refuse(remediation.Conflict, "no trigger of %s uses a plan", b.Service), "name the plan to rehearse: --plan=NAME")
	}
	return out, nil
}

// Rehearsal is how a service's rehearsals stand.
func (e *Checker) Rehearsal(ctx context.Context, service string) (remediation.RehearsalView, error) {
	b, err := e.OnePlan(service)
	if err != nil {
		return remediation.RehearsalView{}, err
	}
	v := remediation.RehearsalView{Service: b.Service, Playbook: b.Hash, Plans: []string{}, Rehearsals: []remediation.Rehearsal{}}
	err = e.Store.View(ctx, func(tx remediation.Tx) error {
		kept, err := remediation.PreflightOf(tx, b.Service)
		if err != nil {
			return err
		}
		if run := kept.Going; run != nil && len(run.Plans) > 0 {
			v.Running, v.Left, v.Plans, v.By, v.Started = true, run.Left, run.Plans, run.By, view.UTC(&run.Started)
			v.Rehearsals = append(v.Rehearsals, run.Done...)
			return nil
		}
		all, err := tx.Rehearsals(b.Service)
		if err == nil {
			v.Rehearsals = all
		}
		return err
	})
	return v, err
}

// rehearse runs one rehearsal to its end, and records each plan as it is done.
func (e *Checker) rehearse(ctx context.Context, service string, run remediation.PreflightGoing) error {
	for _, plan := range run.Plans {
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
func (e *Checker) rehearsePlan(ctx context.Context, b *plan.Plan, run remediation.PreflightGoing, plan string) (remediation.Rehearsal, error) {
	r := remediation.Rehearsal{
		Service: b.Service, Plan: plan, Release: b.Release.Version, Playbook: b.Hash, By: run.By, Reason: run.Reason,
		Started: e.Now().UTC(), Incidents: []string{}, Steps: []remediation.RehearsedStep{},
	}
	note := func(done int) error {
		_, err := e.note(ctx, b.Service, func(g *remediation.PreflightGoing) {
			g.Left -= done
			if n := len(g.Done); n > 0 && g.Done[n-1].Plan == plan {
				g.Done = g.Done[:n-1]
			}
			g.Done = append(g.Done, r)
		})
		return err
	}
	began := e.Now()
	r.Drill.Result, _ = e.runCheck(ctx, rehearse, b.Service, checkTimeout, remediation.PreflightCheck{ID: "drill", Run: func(ctx context.Context) remediation.Result {
		f, incidents := e.drillPlan(ctx, b, plan)
		r.Incidents = append(r.Incidents, incidents...)
		return f
	}})
	r.Drill.Took = model.Duration(e.Now().Sub(began).Truncate(time.Millisecond))
	if err := note(0); err != nil {
		return r, err
	}
	steps, err := b.Ladder(plan)
	if err != nil {
		return r, err
	}
	for _, s := range steps {
		if ctx.Err() != nil {
			return r, ctx.Err()
		}
		r.Steps = append(r.Steps, e.rehearseStep(ctx, b, s))
		if err := note(1); err != nil {
			return r, err
		}
	}
	r.Finished = e.Now().UTC()
	r.Judge()
	if err := note(0); err != nil {
		return r, err
	}
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
		return remediation.Unknown("never rehearsed", remediation.RehearseCommand(b.Service, plan))
	}
	return all[i].ResultFor(b.Playbook, e.Now())
}
