package remediation

import (
	"context"
	"slices"
	"time"

	"github.com/locotoki/backout/alerts"
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
		State: RolloutActive, Stage: stage, Started: &now, StageSince: &now,
	}
	err = e.store.Update(ctx, func(tx Tx) error {
		old, err := rolloutOf(tx, b.Service)
		if err != nil {
			return err
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
			r.Started, r.Held = old.Started, old.Held // the same rollout, declared to be at another stage
		}
		if err := tx.PutRollout(r); err != nil {
			return err
		}
		return e.append(tx, Entry{Kind: KindStage, Actor: actor, Service: b.Service, Detail: map[string]any{
			"state": r.State, "stage": stage, "release": release, "previous": r.Previous, "declared": true, "reason": reason,
		}})
	})
	if err != nil {
		return RolloutView{}, err
	}
	e.wakeUp()
	return e.rolloutView(ctx, b, r), nil
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
		out = append(out, e.rolloutView(ctx, b, r))
	}
	slices.SortFunc(out, func(a, b RolloutView) int { return compare(a.Service, b.Service) })
	return out, nil
}

// rolloutView asks Prometheus how the stage's success criteria stand.
func (e *Engine) rolloutView(ctx context.Context, b *book, r Rollout) RolloutView {
	v := RolloutView{Rollout: r, Criteria: []CriterionView{}}
	stage := b.Stage(r.Stage)
	if !r.active() || stage == nil {
		return v
	}
	if r.StageSince != nil {
		at := r.StageSince.Add(time.Duration(stage.Duration))
		v.PromotableAt = &at
	}
	exprs := map[string]string{}
	for _, cr := range stage.Success {
		if ind := b.Indicator(cr.Indicator); ind != nil {
			exprs[cr.Indicator] = b.Expand(ind.Query, time.Duration(cr.Window), 0)
		}
	}
	got := e.query(ctx, exprs)
	for _, cr := range stage.Success {
		v.Criteria = append(v.Criteria, criterion(cr, got[cr.Indicator]))
	}
	return v
}

func criterion(cr alerts.Criterion, r reading) CriterionView {
	v := CriterionView{Name: cr.Indicator, Value: finite(r.value)}
	switch {
	case cr.Above != nil:
		v.Threshold = *cr.Above
		v.OK = r.value != nil && *r.value > v.Threshold
	case cr.Below != nil:
		v.Threshold = *cr.Below
		v.OK = r.value != nil && *r.value < v.Threshold
	}
	return v
}

func stageNames(pb *alerts.Playbook) []string {
	out := make([]string, len(pb.Stages))
	for i, s := range pb.Stages {
		out[i] = s.Name
	}
	return out
}
