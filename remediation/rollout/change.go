package rollout

import (
	"cmp"
	"context"
	"errors"
	"strings"
	"time"

	"github.com/locotoki/backout/hint"
	"github.com/locotoki/backout/remediation"
	"github.com/locotoki/backout/remediation/gate"
	"github.com/locotoki/backout/remediation/plan"
	"github.com/locotoki/backout/remediation/view"
)

// OnRollout changes a service's active rollout in one transaction.
func (e *Promoter) OnRollout(ctx context.Context, b *plan.Plan, fn func(tx remediation.Tx, r *remediation.Rollout) error) (view.RolloutView, error) {
	var done remediation.Rollout
	err := e.Store.Update(ctx, func(tx remediation.Tx) error {
		r, err := remediation.RolloutOf(tx, b.Service)
		if err != nil {
			return err
		}
		if !r.Active() {
			return e.noneActive(tx, b.Service)
		}
		if err := fn(tx, &r); err != nil {
			return err
		}
		done = r
		return tx.PutRollout(r)
	})
	if err != nil {
		return view.RolloutView{}, err
	}
	e.WakeUp()
	ask, cancel := context.WithTimeout(ctx, answerPatience)
	defer cancel()
	return e.rolloutView(ctx, ask, b, done), nil
}

// answerPatience is how long the answer to an order that is already given waits for
// what Prometheus has to say of the stage.
const answerPatience = 2 * time.Second

// HoldRollout keeps a rollout in its stage; triggers still work.
func (e *Promoter) HoldRollout(ctx context.Context, b *plan.Plan, in remediation.RolloutChange) (view.RolloutView, error) {
	return e.OnRollout(ctx, b, func(tx remediation.Tx, r *remediation.Rollout) error {
		if r.Held {
			return hint.Add(remediation.Refuse(remediation.Conflict, "the rollout of %s is already held", b.Service), "backout rollout resume --service=%s --reason=WHY", b.Service)
		}
		r.Held = true
		return e.stageEntry(tx, *r, in.Actor, map[string]any{"reason": in.Reason})
	})
}

// ResumeRollout ends a hold.
func (e *Promoter) ResumeRollout(ctx context.Context, b *plan.Plan, in remediation.RolloutChange) (view.RolloutView, error) {
	return e.OnRollout(ctx, b, func(tx remediation.Tx, r *remediation.Rollout) error {
		if !r.Held {
			return hint.Add(remediation.Refuse(remediation.Conflict, "the rollout of %s is not held", b.Service), "backout rollout status --service=%s shows what it waits for", b.Service)
		}
		r.Held, r.Missing = false, ""
		return e.stageEntry(tx, *r, in.Actor, map[string]any{"reason": in.Reason, "held": false})
	})
}

// FinishRollout ends a rollout that has soaked: the release stays.
func (e *Promoter) FinishRollout(ctx context.Context, b *plan.Plan, in remediation.RolloutChange) (view.RolloutView, error) {
	seen, b, err := e.rolloutPlan(ctx, b)
	if err != nil {
		return view.RolloutView{}, err
	}
	a := e.sampleStage(ctx, b, seen)
	proof, err := e.finishGates(ctx, b, seen.Release)
	if err != nil {
		return view.RolloutView{}, err
	}
	return e.OnRollout(ctx, b, func(tx remediation.Tx, r *remediation.Rollout) error {
		if r.Promotion != nil {
			return hint.Add(remediation.Refuse(remediation.Conflict, "%s of %s is in progress", r.Promotion.Step(), b.Service), "wait for its end: backout rollout status --service=%s", b.Service)
		}
		if err := unchanged(seen, *r); err != nil {
			return err
		}
		gates, err := e.finishable(tx, b, *r, a)
		if err != nil {
			return err
		}
		gates = append(gates, proof...)
		firmly, others := missing(gates)
		if len(firmly) > 0 || len(others) > 0 && !in.Force {
			try := "backout rollout status shows each part; repeat the command once they are met"
			if len(firmly) == 0 {
				try += ", or finish with --force"
			}
			return refuse(append(firmly, others...), try, "the rollout of %s is not finished", b.Service)
		}
		from, now := r.Stage, e.Now().UTC()
		r.State, r.Stage, r.StageSince, r.Held, r.Missing = remediation.RolloutDone, remediation.StageNone, &now, false, ""
		detail := map[string]any{"reason": in.Reason, "from": from, "gates": gate.Rows(gates)}
		if len(others) > 0 {
			detail["forced"] = remediation.Anys(gateNames(others))
		}
		return e.stageEntry(tx, *r, in.Actor, detail)
	})
}

// autoReason is the reason of a promotion that backout made by itself.
const autoReason = "every gate is open, and the rollout was started with --auto"

// noRollout refuses what needs an active rollout.
func noRollout(service string) error {
	return hint.Add(remediation.Refuse(remediation.Conflict, "no rollout of %s is active", service),
		"backout rollout start --service=%[1]s --reason=WHY; its last one: backout rollout status --service=%[1]s", service)
}

// underWay refuses to start a rollout next to an active one.
func underWay(r remediation.Rollout) error {
	return hint.Add(remediation.Refuse(remediation.Conflict, "release %s of %s is being rolled out (stage %s)", r.Release, r.Service, r.Stage),
		"backout rollout promote --service=%[1]s --reason=WHY goes to its next stage; finish or abort ends it; backout rollout status --service=%[1]s", r.Service)
}

// noneActive refuses what needs an active rollout, and names the incident that is in its way.
func (e *Promoter) noneActive(tx remediation.Tx, service string) error {
	inc, err := remediation.OpenIncident(tx, service)
	if err != nil || inc == nil {
		return cmp.Or(err, noRollout(service))
	}
	return hint.Add(remediation.Refuse(remediation.Conflict, "no rollout of %s is active", service), "incident %s is %s: backout incident show %s", inc.ID, inc.Describe(), inc.ID)
}

// AutoPromote promotes rollouts started with --auto once every gate is open. It records
// closed gates when they change.
func (e *Promoter) AutoPromote(ctx context.Context) error {
	var errs []error
	for _, loaded := range e.PlansHere(ctx) {
		r, err := e.rolloutNow(ctx, loaded)
		if err != nil {
			return err
		}
		if !r.Auto || r.Held || !r.Active() {
			continue
		}
		r, b, err := e.rolloutPlan(ctx, loaded)
		if err == nil {
			if promotableState(b, r) != nil || !b.Lasted(r, e.Now()).OK {
				continue
			}
			_, err = e.Promote(ctx, b, remediation.RolloutChange{Service: b.Service, Actor: remediation.ActorEngine, Reason: autoReason, Verb: remediation.RolloutPromote})
		}
		if errors.As(err, new(*remediation.RefusedError)) {
			err = e.noteMissing(ctx, loaded, r, err)
		}
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}

// noteMissing writes why a rollout was not promoted by itself, once for each reason.
func (e *Promoter) noteMissing(ctx context.Context, b *plan.Plan, seen remediation.Rollout, refusal error) error {
	names, why := "target", refusal.Error()
	var gates *notYet
	if errors.As(refusal, &gates) {
		names = strings.Join(gates.gates, ", ")
	}
	if seen.Missing == names {
		return nil
	}
	return e.Store.Update(ctx, func(tx remediation.Tx) error {
		r, err := remediation.RolloutOf(tx, b.Service)
		if err != nil || unchanged(seen, r) != nil || r.Missing == names {
			return err
		}
		r.Missing = names
		if err := tx.PutRollout(r); err != nil {
			return err
		}
		return e.stageEntry(tx, r, remediation.ActorEngine, map[string]any{"promotion": "refused", "missing": names, "why": why})
	})
}
