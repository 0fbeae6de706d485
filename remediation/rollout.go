package remediation

import (
	"context"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/locotoki/backout/alerts"
	"github.com/locotoki/backout/remediation/audit"
)

// DeclareRollout records a rollout that humans started: no preflight is run
// and no flag is changed.
func (e *Engine) DeclareRollout(ctx context.Context, service, release, stage, actor, reason string) (RolloutView, error) {
	if reason == "" {
		return RolloutView{}, refuse(Invalid, "a reason is required")
	}
	b, err := e.oneBook(service)
	if err != nil {
		return RolloutView{}, err
	}
	if release == "" {
		release = b.Release.Version
	}
	if stage == "" && len(b.Stages) > 0 {
		stage = b.Stages[0].Name
	}
	if b.Stage(stage) == nil {
		return RolloutView{}, refuse(Invalid, "the playbook of %s has no stage %q: its stages are %v", b.Service, stage, stageNames(b.Playbook))
	}
	now := e.now().UTC()
	r := Rollout{
		Service: b.Service, Release: release, Previous: b.Release.Previous,
		State: b.stateIn(stage), Stage: stage, Started: &now, StageSince: &now,
	}
	err = e.store.Update(ctx, func(tx Tx) error {
		old, err := rolloutOf(tx, b.Service)
		if err != nil {
			return err
		}
		if old.Promotion != nil {
			return refuse(Conflict, "%s of %s is under way", old.Promotion.step(), b.Service)
		}
		if old.active() && old.Release != release {
			return refuse(Conflict, "release %s of %s is being rolled out (stage %s)", old.Release, b.Service, old.Stage)
		}
		open, err := tx.Incidents(IncidentFilter{Service: b.Service, Open: true})
		if err != nil {
			return err
		}
		for _, inc := range open {
			if inc.State == Waiting && inc.Reason == HoldNoRollout && inc.Release == release {
				inc.Wake = now // this is what it waits for
				if err := tx.PutIncident(inc); err != nil {
					return err
				}
				continue
			}
			if !inc.Drill {
				return refuse(Conflict, "incident %s of %s is open (%s)", inc.ID, b.Service, inc.describe())
			}
		}
		if old.active() {
			r.Started, r.Held, r.Auto = old.Started, old.Held, old.Auto // the same rollout, declared to be at another stage
		}
		if err := tx.PutRollout(r); err != nil {
			return err
		}
		return e.append(tx, audit.Entry{Kind: audit.KindStage, Actor: actor, Service: b.Service, Detail: map[string]any{
			"state": r.State, "stage": stage, "release": release, "previous": r.Previous, "declared": true, "reason": reason,
		}})
	})
	if err != nil {
		return RolloutView{}, err
	}
	e.wakeUp()
	return e.rolloutView(ctx, ctx, b, r), nil
}

// oneBook returns the playbook of a service; "" is enough where there is one.
func (e *Engine) oneBook(service string) (*book, error) {
	if service != "" {
		if b := e.bookOf(service); b != nil {
			return b, nil
		}
		return nil, refuse(Missing, "no playbook for service %q is loaded", service)
	}
	all := e.allBooks()
	if len(all) != 1 {
		return nil, refuse(Invalid, "name the service: %d playbooks are loaded", len(all))
	}
	return all[0], nil
}

// Rollouts returns every service's rollout, with how its stage does.
func (e *Engine) Rollouts(ctx context.Context) ([]RolloutView, error) {
	rollouts := map[string]Rollout{}
	err := e.store.View(ctx, func(tx Tx) error {
		all, err := tx.Rollouts()
		for _, r := range all {
			rollouts[r.Service] = r
		}
		return err
	})
	if err != nil {
		return nil, err
	}
	out := []RolloutView{}
	for _, b := range e.allBooks() {
		r, ok := rollouts[b.Service]
		if !ok {
			r = Rollout{Service: b.Service, Release: b.Release.Version, Previous: b.Release.Previous, State: RolloutNone, Stage: StageNone}
		}
		out = append(out, e.rolloutView(ctx, ctx, b, r))
	}
	slices.SortFunc(out, func(a, b RolloutView) int { return compare(a.Service, b.Service) })
	return out, nil
}

// rolloutView asks Prometheus how the stage does, for as long as ask lasts, and says
// what is missing for the next one.
func (e *Engine) rolloutView(ctx, ask context.Context, b *book, r Rollout) RolloutView {
	if r.Promotion != nil { // what its action keeps for itself concerns nobody else
		p := *r.Promotion
		p.Before, p.Was = nil, nil
		r.Promotion = &p
	}
	v := RolloutView{Rollout: r, RunsView: e.runs(b.Service), Criteria: []CriterionView{}, Stages: stageNames(b.Playbook), Timeline: timelineOf(b.Playbook, r)}
	stage := b.Stage(r.Stage)
	if !r.active() || stage == nil {
		return v
	}
	v.Traffic, v.PromotableAt = stage.Traffic, b.promotableAt(r)
	a := e.askStage(ask, b, r)
	v.Criteria = a.criteria
	var proof []StageGate
	if b.nextStage(r.Stage) == nil { // what the whole rollout is judged by
		gates, views, err := e.soaked(ask, b, r.Release)
		if err != nil {
			e.log.Warn("cannot tell what a rollout's end is missing", "service", b.Service, "err", err)
		}
		proof, v.Criteria = gates, measuredBeside(v.Criteria, views)
	}
	err := e.store.View(ctx, func(tx Tx) error {
		open, err := openIncident(tx, b.Service)
		if err != nil {
			return err
		}
		if open != nil {
			v.Incident, v.BackingOut = open.ID, open.changed()
		}
		if next := b.nextStage(r.Stage); next != nil {
			v.Next = next.Name
			v.Gates, err = e.promotable(tx, b, r, a)
			return err
		}
		v.Gates, err = e.finishable(tx, b, r, a)
		v.Gates = append(v.Gates, proof...)
		return err
	})
	if err != nil {
		e.log.Warn("cannot tell what a rollout's next stage is missing", "service", b.Service, "err", err)
	}
	return v
}

func criterion(cr alerts.Criterion, r reading) CriterionView {
	v := CriterionView{Name: cr.Indicator, Value: finite(r.value)}
	switch {
	case cr.Above != nil:
		v.Threshold, v.Bound = *cr.Above, "above"
		v.OK = r.value != nil && *r.value > v.Threshold
	case cr.Below != nil:
		v.Threshold, v.Bound = *cr.Below, "below"
		v.OK = r.value != nil && *r.value < v.Threshold
	}
	return v
}

// timelineOf gives the playbook's days their dates: T is the day of the start.
func timelineOf(b *alerts.Playbook, r Rollout) []TimelineDay {
	out := []TimelineDay{}
	for _, t := range b.Timeline {
		day := TimelineDay{Day: t.Day, Activity: t.Activity, Owner: t.Owner}
		days, err := strconv.Atoi(strings.TrimPrefix(t.Day, "T"))
		if t.Day == "T" {
			days, err = 0, nil
		}
		if err == nil && r.Started != nil { // without a start there is no T
			day.Date = r.Started.UTC().AddDate(0, 0, days).Format(time.DateOnly)
		}
		out = append(out, day)
	}
	return out
}

func stageNames(pb *alerts.Playbook) []string {
	out := make([]string, len(pb.Stages))
	for i, s := range pb.Stages {
		out[i] = s.Name
	}
	return out
}
