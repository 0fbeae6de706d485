package rollout

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/locotoki/backout/alerts"
	"github.com/locotoki/backout/hint"
	"github.com/locotoki/backout/remediation"
	"github.com/locotoki/backout/remediation/audit"
	"github.com/locotoki/backout/remediation/gate"
	"github.com/locotoki/backout/remediation/ledger"
	"github.com/locotoki/backout/remediation/plan"
	"github.com/locotoki/backout/remediation/view"
)

// StartRollout starts a rollout: it commits that the first stage's traffic is about to
// be set. WaitForPromotion returns the result.
func (e *Promoter) StartRollout(ctx context.Context, in remediation.RolloutStart) (view.RolloutView, error) {
	if in.Reason == "" {
		return view.RolloutView{}, remediation.Refuse(remediation.Invalid, "a reason is required")
	}
	b, err := e.OnePlan(in.Service)
	if err != nil {
		return view.RolloutView{}, err
	}
	release := in.Release
	if release == "" {
		release = b.Release.Version
	}
	if release != b.Release.Version {
		return view.RolloutView{}, hint.Add(remediation.Refuse(remediation.Conflict, "the playbook of %s is for release %s, not %s: its thresholds and rollback plans are for that release", b.Service, b.Release.Version, release),
			"load the playbook of %s, or leave --release out", release)
	}
	stage := b.NextStage(remediation.StageNone)
	if in.Stage != "" && b.Stage(in.Stage) != nil && b.Stage(in.Stage) != stage {
		return view.RolloutView{}, hint.Add(remediation.Refuse(remediation.Conflict, "a rollout of %s starts in stage %s", b.Service, stage.Name),
			"start there and promote, or --declare a rollout that is already further")
	}
	if in.Stage != "" {
		stage = b.Stage(in.Stage)
	}
	if stage == nil {
		return view.RolloutView{}, hint.Add(remediation.Refuse(remediation.Invalid, "the playbook of %s has no stage %q", b.Service, in.Stage), "%s", remediation.OneOf(in.Stage, remediation.StageNames(b.Playbook)))
	}
	now := e.Now().UTC()
	fresh := remediation.Rollout{
		Service: b.Service, Release: release, Previous: b.Release.Previous, Playbook: b.Hash, State: remediation.RolloutActive, Stage: remediation.StageNone,
		Started: &now, StageSince: &now, Auto: in.Auto,
	}
	a := e.sampleStage(ctx, b, remediation.Rollout{Stage: remediation.StageNone})
	return e.intendPromotion(ctx, b, stage, in.Actor, in.Reason, func(tx remediation.Tx, old remediation.Rollout) (remediation.Rollout, map[string]any, error) {
		if old.Active() {
			return remediation.Rollout{}, nil, underWay(old)
		}
		gates, err := e.startable(tx, b, a)
		if err != nil {
			return remediation.Rollout{}, nil, err
		}
		if firmly, others := missing(gates); len(firmly)+len(others) > 0 {
			return remediation.Rollout{}, nil, refuse(append(firmly, others...), "backout preflight show --service="+b.Service+", and repeat the command once nothing is missing", "release %s of %s is not started", release, b.Service)
		}
		if err := remediation.DropLapsed(tx, old); err != nil {
			return remediation.Rollout{}, nil, err
		}
		r := fresh
		old.Promotion = nil
		r.Promotion = &remediation.Promotion{Was: &old}
		return r, map[string]any{"gates": gate.Rows(gates)}, nil
	})
}

// Promote starts a rollout's promotion to its next stage.
func (e *Promoter) Promote(ctx context.Context, b *plan.Plan, in remediation.RolloutChange) (view.RolloutView, error) {
	seen, b, err := e.rolloutPlan(ctx, b)
	if err != nil {
		return view.RolloutView{}, err
	}
	if err := promotableState(b, seen); err != nil {
		return view.RolloutView{}, err
	}
	stage := b.NextStage(seen.Stage)
	a := e.sampleStage(ctx, b, seen)
	return e.intendPromotion(ctx, b, stage, in.Actor, in.Reason, func(tx remediation.Tx, r remediation.Rollout) (remediation.Rollout, map[string]any, error) {
		if err := unchanged(seen, r); err != nil {
			return remediation.Rollout{}, nil, err
		}
		gates, err := e.promotable(tx, b, r, a)
		if err != nil {
			return remediation.Rollout{}, nil, err
		}
		firmly, others := missing(gates)
		if len(firmly) > 0 || len(others) > 0 && !in.Force {
			return remediation.Rollout{}, nil, &notYet{refuse(append(firmly, others...), "", "release %s of %s is not promoted to %s", r.Release, r.Service, stage.Name), gateNames(append(firmly, others...))}
		}
		detail := map[string]any{"gates": gate.Rows(gates)}
		if len(others) > 0 {
			detail["forced"] = remediation.Anys(gateNames(others))
		}
		r.Promotion = &remediation.Promotion{}
		return r, detail, nil
	})
}

// notYet is a refusal with the names of the gates that are closed.
type notYet struct {
	error
	gates []string
}

func (n *notYet) Unwrap() error { return n.error }

// promotableState refuses where there is no next stage to go to.
func promotableState(b *plan.Plan, r remediation.Rollout) error {
	switch {
	case !r.Active():
		return noRollout(b.Service)
	case r.Promotion != nil:
		return hint.Add(remediation.Refuse(remediation.Conflict, "%s of %s is in progress", r.Promotion.Step(), b.Service), "wait for its end: backout rollout status --service=%s", b.Service)
	case b.NextStage(r.Stage) == nil && b.Stage(r.Stage) != nil:
		return hint.Add(remediation.Refuse(remediation.Conflict, "release %s of %s is in its last stage, %s", r.Release, b.Service, r.Stage), "backout rollout finish --service=%s", b.Service)
	case b.NextStage(r.Stage) == nil:
		return hint.Add(remediation.Refuse(remediation.Conflict, "the playbook of %s no longer has stage %q; its stages are %s", b.Service, r.Stage, remediation.Names(remediation.StageNames(b.Playbook), "none")),
			"backout rollout start --declare --service=%s --stage=STAGE --reason=WHY, with the stage that it is in", b.Service)
	}
	return nil
}

// unchanged refuses where a rollout is not as it was when Prometheus was asked.
func unchanged(seen, now remediation.Rollout) error {
	same := seen.State == now.State && seen.Stage == now.Stage && seen.Release == now.Release && now.Promotion == nil &&
		(seen.StageSince == nil) == (now.StageSince == nil) && (seen.StageSince == nil || seen.StageSince.Equal(*now.StageSince))
	if same {
		return nil
	}
	return hint.Add(remediation.Refuse(remediation.Conflict, "the rollout of %s has changed meanwhile", now.Service), "check it and repeat the command")
}

// onItsHost refuses where another replica acts on the host of a compose project, or none:
// what this one sees of such a target is another machine's.
func (e *Promoter) onItsHost(tx remediation.Tx, b *plan.Plan) error {
	host := b.Target.Compose.Host
	if host == "" || !e.shared {
		return nil
	}
	now, err := tx.Now()
	if err != nil {
		return err
	}
	l, err := tx.Lease(remediation.RealmOfHost(host))
	if err != nil && !errors.Is(err, remediation.ErrNotFound) {
		return err
	}
	switch {
	case !l.Until.After(now):
		return hint.Add(remediation.Refuse(remediation.Conflict, "the traffic of %s is set on the host %s, and no replica acts there now", b.Service, host),
			"start the replica whose configuration has %s in replica.hosts: backout status shows who acts", host)
	case l.Holder == e.process:
		return nil
	}
	return hint.Add(remediation.Refuse(remediation.Conflict, "the traffic of %s is set on the host %s, and another replica acts there", b.Service, host),
		"send it to that replica: backout status names it")
}

// intendPromotion commits that the traffic is about to be set for a stage, or
// refuses. begin asks the gates in the transaction, and gives the rollout with a
// Promotion to fill in.
func (e *Promoter) intendPromotion(ctx context.Context, b *plan.Plan, stage *alerts.Stage, actor, reason string,
	begin func(tx remediation.Tx, r remediation.Rollout) (remediation.Rollout, map[string]any, error),
) (view.RolloutView, error) {
	flag := b.Master()
	if flag == nil {
		return view.RolloutView{}, hint.Add(remediation.Refuse(remediation.Conflict, "the playbook of %s has no flag that controls the traffic", b.Service),
			"master: true on that flag, or set the traffic by hand: backout rollout start --declare --service=%s --reason=WHY", b.Service)
	}
	value, err := flag.ValueIn(stage)
	if err != nil {
		why, try := hint.Of(err)
		return view.RolloutView{}, hint.Add(remediation.Refuse(remediation.Conflict, "the traffic of %s cannot be set: %s", b.Service, why), "%s", try)
	}
	now := e.Now().UTC()
	op := fmt.Sprintf("rollout-%s/%s@%d", b.Service, stage.Name, now.UnixNano())
	target, look, lookErr := e.lookAtTraffic(ctx, b, flag.Name, value, op)
	var done remediation.Rollout
	e.begun.Delete(op) // two within one reading of the clock have the same name
	err = e.Store.Update(ctx, func(tx remediation.Tx) error {
		old, err := remediation.RolloutOf(tx, b.Service)
		if err != nil {
			return err
		}
		if old.Promotion != nil {
			return hint.Add(remediation.Refuse(remediation.Conflict, "%s of %s is in progress", old.Promotion.Step(), b.Service), "wait for its end: backout rollout status --service=%s", b.Service)
		}
		r, detail, err := begin(tx, old)
		if err != nil {
			return err
		}
		if err := e.onItsHost(tx, b); err != nil {
			return err
		}
		if lookErr != nil {
			return remediation.Refuse(remediation.Conflict, "the traffic cannot be set: %s", lookErr)
		}
		if busy, err := e.TargetBusy(tx, target, "", b.Service); err != nil {
			return err
		} else if busy != "" {
			return hint.Add(remediation.Refuse(remediation.Conflict, "the traffic cannot be set: %s is changing %s now", busy, target), "repeat the command once that is done")
		}
		if held, err := e.TargetHeld(tx, target, b.Service); err != nil {
			return err
		} else if held != "" {
			return remediation.Refuse(remediation.Conflict, "the traffic cannot be set: %s", held)
		}
		p := r.Promotion
		*p = remediation.Promotion{
			From: old.Stage, To: stage.Name, Flag: flag.Name, Value: value, Target: target, By: actor, Reason: reason, Op: op,
			Started: now, Until: now.Add(promotionForward + promotionBack), Wake: now, Playbook: b.Hash, Before: look.Snapshot, Was: p.Was,
			Writer: e.process,
		}
		if p.Was != nil {
			p.From = remediation.StageNone
		}
		c := &promoting{e: e, tx: tx, b: b, r: r, p: p, now: now}
		detail["reason"], detail["before"], detail["value"], detail["to"] = reason, p.Before, p.Value, p.To
		if look.Position == remediation.Wanted { // a person set it, say
			detail["outcome"], detail["why"] = string(remediation.StepNoChange), "the target is already in the wanted state"
			if err := c.audit(audit.KindOutcome, actor, detail); err != nil {
				return err
			}
			if err := c.complete(); err != nil {
				return err
			}
			done = c.r
			return tx.PutRollout(c.r)
		}
		if err := c.effect(now, remediation.EffectRunning); err != nil {
			return err
		}
		if err := c.audit(audit.KindIntent, actor, detail); err != nil {
			return err
		}
		done = c.r
		return tx.PutRollout(c.r)
	})
	if err != nil {
		return view.RolloutView{}, err
	}
	e.WakeUp()
	return e.rolloutView(ctx, ctx, b, done), nil
}

// promotionLook is the distance of two looks at a promotion that is waited for.
const promotionLook = 100 * time.Millisecond

// WaitForPromotion returns the rollout once no promotion of
// it is in progress, or as it is when ctx ends.
func (e *Promoter) WaitForPromotion(ctx context.Context, service string) (view.RolloutView, error) {
	b, err := e.OnePlan(service)
	if err != nil {
		return view.RolloutView{}, err
	}
	whole := context.WithoutCancel(ctx) // the answer is whole, however long there was to wait
	for {
		r, err := e.rolloutNow(whole, b)
		if err != nil {
			return view.RolloutView{}, err
		}
		select {
		case <-ctx.Done():
			return e.rolloutView(whole, whole, b, r), nil
		default:
		}
		if r.Promotion == nil {
			return e.rolloutView(whole, whole, b, r), nil
		}
		ledger.Pause(ctx, promotionLook)
	}
}

// rolloutPlan reads a service's rollout, and the plan that it goes by.
func (e *Promoter) rolloutPlan(ctx context.Context, loaded *plan.Plan) (r remediation.Rollout, b *plan.Plan, err error) {
	err = e.Store.View(ctx, func(tx remediation.Tx) error {
		if r, err = remediation.RolloutOf(tx, loaded.Service); err == nil {
			b, err = e.PlanOfRollout(tx, loaded, r)
		}
		return err
	})
	return r, b, err
}

// rolloutNow reads a service's rollout.
func (e *Promoter) rolloutNow(ctx context.Context, b *plan.Plan) (r remediation.Rollout, err error) {
	err = e.Store.View(ctx, func(tx remediation.Tx) error {
		r, err = remediation.RolloutOf(tx, b.Service)
		return err
	})
	return r, err
}
