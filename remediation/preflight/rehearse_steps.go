package preflight

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/prometheus/common/model"

	"github.com/locotoki/backout/hint"
	"github.com/locotoki/backout/remediation"
	"github.com/locotoki/backout/remediation/ledger"
	"github.com/locotoki/backout/remediation/plan"
)

// rehearseStep tries what can be tried of one step, and checks the rest.
func (e *Checker) rehearseStep(ctx context.Context, b *plan.Plan, s remediation.Step) remediation.RehearsedStep {
	out := remediation.RehearsedStep{ID: s.ID(), Action: s.Action, Target: s.Target, Index: s.PlanIndex}
	prove := func(ctx context.Context) remediation.Result { return e.acceptsAnnouncement(ctx) }
	if !s.Tells {
		action, err := b.Bind(&s)
		tries, can := action.(remediation.Rehearser)
		switch {
		case err != nil:
			prove = func(context.Context) remediation.Result { return remediation.ResultOf(err) }
		case can:
			prove, out.Tried = tries.Rehearse, true
		default:
			prove = func(ctx context.Context) remediation.Result { return remediation.LookCheck(ctx, action) }
		}
	}
	var began bool
	started := e.Now()
	out.Result, began = e.runCheck(ctx, rehearse, b.Service, ledger.StepLimit(&s), remediation.PreflightCheck{ID: out.ID, Run: prove})
	out.Tried = out.Tried && began
	out.Took = model.Duration(e.Now().Sub(started).Truncate(time.Millisecond))
	if !out.Tried {
		out.Evidence = "checked, not tried: " + out.Evidence
	}
	return out
}

// acceptsAnnouncement asks every status page whether it would take what a step tells.
func (e *Checker) acceptsAnnouncement(ctx context.Context) remediation.Result {
	checks := []func(context.Context) remediation.Result{func(context.Context) remediation.Result { return remediation.Passed("the built-in page shows it") }}
	for _, ch := range e.statusPages {
		checks = append(checks, func(ctx context.Context) remediation.Result { return accepts(ctx, ch) })
	}
	return remediation.Trial(ctx, checks...)
}

// drillPlan sends a drill alert of one of a plan's triggers through Alertmanager,
// and waits until its incident has gone through the plan and is closed.
func (e *Checker) drillPlan(ctx context.Context, b *plan.Plan, plan string) (remediation.Result, []string) {
	if e.runner.sources == nil {
		return noSources(), nil
	}
	trigger := ""
	for _, t := range b.Triggers {
		if t.Plan == plan {
			trigger = t.Name
			break
		}
	}
	if trigger == "" {
		return remediation.Unknown("no trigger uses plan "+plan+", so no alert runs it", "give a trigger plan: "+plan+", if it is needed"), nil
	}
	began := time.Now()
	missing, err := e.raiseDrills(ctx, b, "rehearsal", func(name string) bool { return name == trigger })
	if err == nil && len(missing) == 0 {
		err = hint.Add(fmt.Errorf("no rule for trigger %s", trigger), "backout rules generate")
	}
	if err != nil {
		return remediation.ResultOf(err), nil
	}
	incidents, err := e.awaitDrills(ctx, missing)
	if err != nil {
		return remediation.ResultOf(err), incidents
	}
	if len(missing) > 0 {
		return e.notBack(ctx, trigger), nil
	}
	steps, err := e.awaitClosedDrills(ctx, incidents)
	if err != nil {
		return remediation.ResultOf(err), incidents
	}
	return remediation.Passed(fmt.Sprintf("a drill alert of %s came through Alertmanager as %s, whose %s were skipped after every gate was checked, within %s",
		trigger, strings.Join(incidents, ", "), remediation.Counted(steps, "step"), remediation.Span(time.Since(began)))), incidents
}

// awaitClosedDrills waits until drills are over, and counts their steps, each of
// which must have ended skipped.
func (e *Checker) awaitClosedDrills(ctx context.Context, incidents []string) (steps int, err error) {
	deadline, cancel := context.WithTimeout(ctx, e.runner.patience)
	defer cancel()
	for {
		open := ""
		err := e.Store.View(ctx, func(tx remediation.Tx) error {
			open, steps = "", 0
			for _, id := range incidents {
				inc, err := tx.Incident(id)
				if err != nil {
					return err
				}
				if inc.State != remediation.Closed {
					open = fmt.Sprintf("drill %s is %s", id, inc.Describe())
					continue
				}
				for i := range inc.Steps {
					if s := &inc.Steps[i]; s.State != remediation.StepSkipped {
						return hint.Add(fmt.Errorf("%s of drill %s ended %s instead of skipped", s.ID(), id, s.State), "backout audit list --incident=%s", id)
					}
				}
				steps += len(inc.Steps)
			}
			return nil
		})
		if err != nil || open == "" {
			return steps, err
		}
		ledger.Pause(deadline, routeEvery)
		if deadline.Err() != nil {
			return steps, errors.Join(ctx.Err(), hint.Add(fmt.Errorf("%s after %s", open, e.runner.patience), "the server's log, and backout incident list"))
		}
	}
}
