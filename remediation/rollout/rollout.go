package rollout

import (
	"context"
	"errors"
	"slices"
	"strings"
	"sync"

	"github.com/locotoki/backout/alerts"
	"github.com/locotoki/backout/hint"
	"github.com/locotoki/backout/remediation"
	"github.com/locotoki/backout/remediation/audit"
	"github.com/locotoki/backout/remediation/plan"
	"github.com/locotoki/backout/remediation/view"
)

// DeclareRollout records a rollout that people started: no preflight is run
// and no flag is changed.
func (e *Promoter) DeclareRollout(ctx context.Context, service, release, stage, actor, reason string) (view.RolloutView, error) {
	if reason == "" {
		return view.RolloutView{}, remediation.Refuse(remediation.Invalid, "a reason is required")
	}
	b, err := e.OnePlan(service)
	if err != nil {
		return view.RolloutView{}, err
	}
	if release == "" {
		release = b.Release.Version
	}
	err = e.Store.View(ctx, func(tx remediation.Tx) error {
		seen, err := remediation.RolloutOf(tx, b.Service)
		if err == nil && seen.Release == release { // the same rollout at another stage
			b, err = e.PlanOfRollout(tx, b, seen)
		}
		return err
	})
	if err != nil {
		return view.RolloutView{}, err
	}
	if stage == "" && len(b.Stages) > 0 {
		stage = b.Stages[0].Name
	}
	if b.Stage(stage) == nil {
		return view.RolloutView{}, hint.Add(remediation.Refuse(remediation.Invalid, "the playbook of %s has no stage %q", b.Service, stage), "%s", remediation.OneOf(stage, remediation.StageNames(b.Playbook)))
	}
	now := e.Now().UTC()
	r := remediation.Rollout{
		Service: b.Service, Release: release, Previous: b.Release.Previous, Playbook: b.Hash,
		State: b.StateIn(stage), Stage: stage, Started: &now, StageSince: &now,
	}
	err = e.Store.Update(ctx, func(tx remediation.Tx) error {
		old, err := remediation.RolloutOf(tx, b.Service)
		if err != nil {
			return err
		}
		if old.Promotion != nil {
			return hint.Add(remediation.Refuse(remediation.Conflict, "%s of %s is in progress", old.Promotion.Step(), b.Service), "wait for its end: backout rollout status --service=%s", b.Service)
		}
		if old.Active() && old.Release != release {
			return underWay(old)
		}
		open, err := tx.Incidents(remediation.IncidentFilter{Service: b.Service, Open: true})
		if err != nil {
			return err
		}
		for _, inc := range open {
			if inc.AnsweredFalse() {
				continue // an alert alone stops no rollout
			}
			// What it waits for, whatever else holds it, unless it has ended a rollout that it may yet restore.
			ended := inc.Restore != nil || inc.RolledBack != nil && inc.Reason != remediation.HoldNoRollout
			if inc.State == remediation.Waiting && !old.Active() && inc.Release == release && !ended {
				inc.Wake = now
				if err := tx.PutIncident(inc); err != nil {
					return err
				}
				continue
			}
			if !inc.Drill {
				return hint.Add(remediation.Refuse(remediation.Conflict, "incident %s of %s is open (%s)", inc.ID, b.Service, inc.Describe()), "backout incident show %s", inc.ID)
			}
		}
		if err := remediation.DropLapsed(tx, old); err != nil {
			return err
		}
		if old.Active() {
			r.Started, r.Held, r.Auto = old.Started, old.Held, old.Auto // the same rollout, declared to be at another stage
		}
		if err := tx.PutRollout(r); err != nil {
			return err
		}
		return e.Append(tx, audit.Entry{Kind: audit.KindStage, Actor: actor, Service: b.Service, Detail: map[string]any{
			"state": r.State, "stage": stage, "release": release, "previous": r.Previous, "declared": true, "reason": reason,
		}})
	})
	if err != nil {
		return view.RolloutView{}, err
	}
	e.WakeUp()
	return e.rolloutView(ctx, ctx, b, r), nil
}

// Rollouts returns every service's rollout, with the state of its stage.
func (e *Promoter) Rollouts(ctx context.Context) ([]view.RolloutView, error) {
	rollouts := map[string]remediation.Rollout{}
	err := e.Store.View(ctx, func(tx remediation.Tx) error {
		all, err := tx.Rollouts()
		for _, r := range all {
			rollouts[r.Service] = r
		}
		return err
	})
	if err != nil {
		return nil, err
	}
	plans := e.Plans()
	out, failed := make([]view.RolloutView, len(plans)), make([]error, len(plans))
	turn := make(chan struct{}, viewsAtOnce)
	var all sync.WaitGroup
	for i, b := range plans {
		r, ok := rollouts[b.Service]
		if !ok {
			r = remediation.Rollout{Service: b.Service, Release: b.Release.Version, Previous: b.Release.Previous, State: remediation.RolloutNone, Stage: remediation.StageNone}
		}
		turn <- struct{}{}
		all.Go(func() {
			defer func() { <-turn }()
			failed[i] = e.Safely("show the rollout of "+b.Service, func() error {
				out[i] = e.rolloutView(ctx, ctx, b, r)
				return nil
			})
		})
	}
	all.Wait()
	if err := errors.Join(failed...); err != nil {
		return nil, err
	}
	slices.SortFunc(out, func(a, b view.RolloutView) int { return strings.Compare(a.Service, b.Service) })
	return out, nil
}

// viewsAtOnce is of how many rollouts Prometheus and the target are asked at a time.
const viewsAtOnce = 16

// rolloutView asks Prometheus how the stage does, for as long as ask lasts, and says
// what is missing for the next one.
func (e *Promoter) rolloutView(ctx, ask context.Context, b *plan.Plan, r remediation.Rollout) view.RolloutView {
	if r.Promotion != nil { // what its action keeps for itself concerns nobody else
		p := *r.Promotion
		p.Before, p.Was = nil, nil
		r.Promotion = &p
	}
	err := e.Store.View(ctx, func(tx remediation.Tx) error {
		b = e.ShownPlan(tx, b, r)
		return nil
	})
	if err != nil {
		e.Log.Warn("cannot read the playbook of a rollout", "service", b.Service, "err", err)
	}
	v := view.RolloutView{Rollout: r, RunsView: e.runs(b.Service), Criteria: []view.CriterionView{}, Stages: remediation.StageNames(b.Playbook), Timeline: view.TimelineOf(b.Playbook, r)}
	stage := b.Stage(r.Stage)
	if !r.Active() || stage == nil {
		return v
	}
	v.Traffic, v.PromotableAt = stage.Traffic, b.PromotableAt(r)
	a := e.sampleStage(ask, b, r)
	v.Criteria = a.criteria
	var proof []remediation.GateResult
	if b.NextStage(r.Stage) == nil { // what the whole rollout is judged by
		gates, views, err := e.soaked(ask, b, r.Release)
		if err != nil {
			e.Log.Warn("cannot check what is missing to finish a rollout", "service", b.Service, "err", err)
		}
		proof, v.Criteria = gates, measuredBeside(v.Criteria, views)
	}
	err = e.Store.View(ctx, func(tx remediation.Tx) error {
		open, err := remediation.OpenIncident(tx, b.Service)
		if err != nil {
			return err
		}
		v.BackOut = view.BackOutOf(open)
		if next := b.NextStage(r.Stage); next != nil {
			v.Next = next.Name
			v.Gates, err = e.promotable(tx, b, r, a)
			return err
		}
		v.Gates, err = e.finishable(tx, b, r, a)
		v.Gates = append(v.Gates, proof...)
		return err
	})
	if err != nil {
		e.Log.Warn("cannot check what is missing for a rollout's next stage", "service", b.Service, "err", err)
	}
	return v
}

func criterion(b *plan.Plan, cr alerts.Criterion, r remediation.Sample) view.CriterionView {
	v := view.CriterionView{Name: cr.Indicator, Value: remediation.Finite(r.Value)}
	if ind := b.Indicator(cr.Indicator); ind != nil {
		v.Unit = ind.Unit
	}
	switch {
	case cr.Above != nil:
		v.Threshold, v.Bound = *cr.Above, "above"
		v.OK = r.Value != nil && *r.Value > v.Threshold
	case cr.Below != nil:
		v.Threshold, v.Bound = *cr.Below, "below"
		v.OK = r.Value != nil && *r.Value < v.Threshold
	}
	return v
}
