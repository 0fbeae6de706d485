package rollout

import (
	"context"
	"fmt"
	"time"

	"github.com/locotoki/backout/remediation"
	"github.com/locotoki/backout/remediation/audit"
	"github.com/locotoki/backout/remediation/operation"
	"github.com/locotoki/backout/remediation/plan"
)

// A promotion has promotionForward to set the traffic and see it work, and
// promotionBack to undo that where it does not. A rollback waits for both at most.
const (
	promotionForward = 2 * time.Minute
	promotionBack    = time.Minute
)

// lookAtTraffic looks at what a promotion would change.
func (e *Promoter) lookAtTraffic(ctx context.Context, b *plan.Plan, flag, value, op string) (target string, look remediation.Look, err error) {
	target, action, err := b.Setter(flag, value)
	if err != nil {
		return "", remediation.Look{}, err
	}
	look, err = operation.Look(ctx, e.Gates, operation.Operation{
		ID: op, Name: remediation.ActionFlagSet, Target: target, Bind: func() (remediation.Action, error) { return action, nil },
	})
	return target, look, err
}

// promoting is one transaction on a rollout that has a promotion.
type promoting struct {
	e   *Promoter
	tx  remediation.Tx
	b   *plan.Plan
	r   remediation.Rollout
	p   *remediation.Promotion
	now time.Time
}

// onPromotion runs fn on a service's promotion as it is now, or ended where it has ended
// meanwhile. What has happened is written even while the process is being stopped.
func (e *Promoter) onPromotion(ctx context.Context, b *plan.Plan, op string, fn func(c *promoting) error, ended func(tx remediation.Tx) error) error {
	return e.Store.Update(context.WithoutCancel(ctx), func(tx remediation.Tx) error {
		r, err := remediation.RolloutOf(tx, b.Service)
		if err != nil {
			return err
		}
		if r.Promotion == nil || r.Promotion.Op != op {
			return ended(tx)
		}
		c := &promoting{e: e, tx: tx, b: b, r: r, p: r.Promotion, now: e.Now()}
		if err := fn(c); err != nil {
			return err
		}
		return tx.PutRollout(c.r)
	})
}

// audit adds an entry about the promotion.
func (c *promoting) audit(kind audit.Kind, actor string, detail map[string]any) error {
	detail["release"], detail["target"] = c.r.Release, c.p.Target
	return c.e.Append(c.tx, audit.Entry{
		Kind: kind, Actor: actor, Service: c.r.Service, Step: c.p.Step(), Action: remediation.ActionFlagSet, Detail: detail,
	})
}

// effect records what the promotion did to its target, for the limits.
func (c *promoting) effect(at time.Time, outcome remediation.EffectOutcome) error {
	return c.tx.PutEffect(remediation.Effect{
		Time: at, Service: c.r.Service, Action: remediation.ActionFlagSet, Target: c.p.Target, Incident: "rollout/" + c.r.Service, Step: c.p.Op, Outcome: outcome,
	})
}

// outcome records how the effect, or its undoing, came out; at is when the target
// was changed last, from which a warmup counts.
func (c *promoting) outcome(at time.Time, s remediation.StepState, effect remediation.EffectOutcome, detail map[string]any) error {
	if err := c.effect(at, effect); err != nil {
		return err
	}
	detail["outcome"] = string(s)
	c.tx.OnCommit(c.e.Metrics.Steps.WithLabelValues(remediation.ActionFlagSet, string(s)).Inc)
	took := c.now.Sub(c.p.Started).Seconds()
	c.tx.OnCommit(func() { c.e.Metrics.Duration.WithLabelValues(remediation.ActionFlagSet).Observe(took) })
	return c.audit(audit.KindOutcome, remediation.ActorEngine, detail)
}

// complete ends the promotion: the rollout is in its new stage.
func (c *promoting) complete() error {
	c.r.Promotion, c.r.Missing = nil, ""
	if err := c.wakeIncidents(); err != nil || !c.r.Active() {
		return err // it was ended meanwhile: the traffic is that incident's to set
	}
	c.r.Stage, c.r.StageSince = c.p.To, &c.now
	c.r.State = c.b.StateIn(c.p.To)
	traffic := c.p.Value
	if s := c.b.Stage(c.p.To); s != nil {
		traffic = s.Traffic
	}
	return c.e.stageEntry(c.tx, c.r, c.p.By, map[string]any{"reason": c.p.Reason, "from": c.p.From, "traffic": traffic})
}

// fail ends a promotion that did not come about. The rollout is held until a
// human has seen why; one that never began is as it was, unless what was set could
// not be taken back.
func (c *promoting) fail(s remediation.StepState, why string) error {
	c.r.Promotion = nil
	if err := c.wakeIncidents(); err != nil {
		return err
	}
	words := "%s was cancelled: %s"
	switch {
	case s == remediation.StepFailed:
		words = "%s failed, and the current traffic is unknown: %s"
		if c.r.Active() {
			c.r.Held = true
			if c.p.Was != nil { // users may be on the release: the incident that rolls it back must find it
				c.r.Stage, c.r.StageSince, c.r.State = c.p.To, &c.now, c.b.StateIn(c.p.To)
			}
		}
	case c.p.Was != nil && c.r.Active():
		c.r = *c.p.Was
	case s != remediation.StepPending && c.r.Active():
		c.r.Held = true
	}
	return c.e.stageEntry(c.tx, c.r, remediation.ActorEngine, map[string]any{
		"promotion": string(s), "to": c.p.To, "why": fmt.Sprintf(words, c.p.Step(), why),
	})
}

// wakeIncidents lets the incidents that wait for the promotion go on.
func (c *promoting) wakeIncidents() error {
	open, err := c.tx.Incidents(remediation.IncidentFilter{Service: c.r.Service, Open: true})
	if err != nil {
		return err
	}
	for _, inc := range open {
		if inc.State != remediation.Confirming && !inc.Aborting() && !inc.Wake.Equal(c.p.Until) {
			continue
		}
		inc.Wake = c.now
		if err := c.tx.PutIncident(inc); err != nil {
			return err
		}
	}
	return nil
}

// stageEntry records a rollout's state from now on.
func (e *Promoter) stageEntry(tx remediation.Tx, r remediation.Rollout, actor string, more map[string]any) error {
	detail := map[string]any{"state": r.State, "stage": r.Stage, "release": r.Release, "previous": r.Previous}
	if r.Held {
		detail["held"] = true
	}
	for k, v := range more {
		detail[k] = v
	}
	return e.Append(tx, audit.Entry{Kind: audit.KindStage, Actor: actor, Service: r.Service, Detail: detail})
}
