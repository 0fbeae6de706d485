package rollout

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/locotoki/backout/alerts"
	"github.com/locotoki/backout/remediation"
	"github.com/locotoki/backout/remediation/audit"
	"github.com/locotoki/backout/remediation/ledger"
	"github.com/locotoki/backout/remediation/plan"
)

// RunPromotion takes a promotion as far as it goes now: effect, outcome,
// verification. It is safe to begin again at any point, which is what a restart
// does: an intent that this process did not write itself is looked at first.
func (e *Promoter) RunPromotion(ctx context.Context, service string) error {
	var r remediation.Rollout
	err := e.Store.View(ctx, func(tx remediation.Tx) (err error) {
		r, err = remediation.RolloutOf(tx, service)
		return err
	})
	p := r.Promotion
	if err != nil || p == nil {
		return err
	}
	b, err := e.PlanFor(ctx, &remediation.Incident{ID: "rollout/" + service, PlaybookHash: p.Playbook})
	if err != nil {
		return e.givePromotionUp(ctx, service, p, err)
	}
	_, action, err := b.Setter(p.Flag, p.Value)
	if err != nil {
		return e.givePromotionUp(ctx, service, p, err)
	}
	// Known once, so that a second try looks first.
	_, own := e.ownIntents.LoadAndDelete(p.Op)
	switch {
	case p.Undoing:
		return e.undoPromotion(ctx, b, p, action, errors.New(p.Error))
	case p.Applied:
		return e.verifyPromotion(ctx, b, p, action)
	case !own:
		return e.doubtPromotion(ctx, b, p, action, errors.New("backout was stopped between intent and outcome"))
	}
	return e.applyPromotion(ctx, b, p, action)
}

// givePromotionUp ends a promotion whose time is over and of which there is nothing
// left to act by: its playbook cannot be read any more, or its action not be made of
// it. Until then a restart with what was there may go on with it.
func (e *Promoter) givePromotionUp(ctx context.Context, service string, p *remediation.Promotion, cause error) error {
	if e.Now().Before(p.Until) {
		return cause
	}
	b := e.PlanOf(service)
	if b == nil {
		b = &plan.Plan{Playbook: &alerts.Playbook{Service: service}}
	}
	return e.onPromotion(ctx, b, p.Op, func(c *promoting) error {
		if err := c.outcome(c.now, remediation.StepFailed, remediation.EffectFailed, map[string]any{"error": cause.Error()}); err != nil {
			return err
		}
		return c.fall(remediation.StepFailed, cause.Error())
	})
}

// limited bounds one call of a promotion's action; a stop of the process does not
// cut it short.
func (e *Promoter) limited(ctx context.Context, limit time.Duration, do func(context.Context) error) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), limit)
	defer cancel()
	return e.Safely("the action of a promotion", func() error { return do(ctx) })
}

// forward is how long a promotion's effect and verification may still take: what
// is left is for taking it back, before a rollback waits no longer.
func (e *Promoter) forward(p *remediation.Promotion) time.Duration {
	return p.Until.Add(-promotionBack).Sub(e.Now())
}

func (e *Promoter) applyPromotion(ctx context.Context, b *plan.Plan, p *remediation.Promotion, action remediation.Action) error {
	err := e.limited(ctx, e.forward(p), func(ctx context.Context) error { return action.Apply(ctx, p.Op, p.Before) })
	switch {
	case err != nil && remediation.IsInDoubt(err):
		return e.doubtPromotion(ctx, b, p, action, err)
	case err != nil:
		return e.undoPromotion(ctx, b, p, action, err)
	}
	if err := e.promotionApplied(ctx, b, p, action, map[string]any{}); err != nil {
		return err
	}
	return e.verifyPromotion(ctx, b, p, action)
}

// promotionApplied records an effect that happened.
func (e *Promoter) promotionApplied(ctx context.Context, b *plan.Plan, p *remediation.Promotion, action remediation.Action, detail map[string]any) error {
	look := func(ctx context.Context) (err error) {
		after, err := action.Look(ctx, p.Op)
		if err == nil {
			detail["after"] = after.Snapshot
		}
		return err
	}
	if err := e.limited(ctx, ledger.LookTimeout, look); err != nil {
		e.Log.Warn("a promotion's target cannot be looked at after its effect", "service", b.Service, "err", err)
	}
	return e.onPromotion(ctx, b, p.Op, func(c *promoting) error {
		c.p.Applied = true
		return c.outcome(c.now, remediation.StepDone, remediation.EffectDone, detail)
	})
}

// renew gives a promotion its time once more where that went by while backout was
// down and no rollback waits: what was not looked at has not failed.
func (e *Promoter) renew(ctx context.Context, b *plan.Plan, p *remediation.Promotion) error {
	if e.forward(p) > 0 {
		return nil
	}
	until := p.Until
	err := e.onPromotion(ctx, b, p.Op, func(c *promoting) error {
		until = c.p.Until
		open, err := remediation.OpenIncident(c.tx, c.r.Service)
		if err != nil || open != nil {
			return err
		}
		until = c.now.Add(promotionForward + promotionBack)
		c.p.Until = until
		return nil
	})
	p.Until = until
	return err
}

// verifyPromotion waits until the target is seen to work with the new value; the
// stage stays until then.
func (e *Promoter) verifyPromotion(ctx context.Context, b *plan.Plan, p *remediation.Promotion, action remediation.Action) error {
	if err := e.renew(ctx, b, p); err != nil {
		return err
	}
	err := e.limited(ctx, e.forward(p), func(ctx context.Context) error { return action.Verify(ctx, p.Op) })
	if err != nil {
		return e.undoPromotion(ctx, b, p, action, fmt.Errorf("verify: %w", err))
	}
	return e.onPromotion(ctx, b, p.Op, func(c *promoting) error {
		open, err := remediation.OpenIncident(c.tx, c.r.Service)
		if err != nil {
			return err
		}
		if open != nil && open.Intended && !c.now.Before(c.p.Until) {
			return c.leaveTo(open, errors.New("it took longer than a rollback waits"))
		}
		if err := c.audit(audit.KindVerified, remediation.ActorEngine, map[string]any{"value": c.p.Value}); err != nil {
			return err
		}
		if err := c.effect(c.now, remediation.EffectDone); err != nil { // the warmup counts from here
			return err
		}
		return c.arrive()
	})
}

// undoPromotion puts the traffic back as it was, with an intent and an outcome of
// its own. Where an incident has waited long enough and begun to act, its steps have
// the target; until then, a target that was left half-way is mended first.
func (e *Promoter) undoPromotion(ctx context.Context, b *plan.Plan, p *remediation.Promotion, action remediation.Action, cause error) error {
	left := false
	err := e.onPromotion(ctx, b, p.Op, func(c *promoting) error {
		open, err := remediation.OpenIncident(c.tx, c.r.Service)
		if err != nil {
			return err
		}
		late := !c.now.Before(c.p.Until)
		if left = open != nil && open.Intended && late; left {
			return c.leaveTo(open, cause)
		}
		// It has its whole time: an incident waits for its end, and no longer.
		if until := c.now.Add(promotionBack); until.After(c.p.Until) {
			c.p.Until = until
		}
		if c.p.Undoing {
			return nil
		}
		c.p.Undoing, c.p.Error = true, cause.Error()
		return c.audit(audit.KindIntent, remediation.ActorEngine, map[string]any{"undo": true, "error": c.p.Error, "after": c.p.Before})
	})
	if err != nil || left {
		return err
	}
	undoErr := e.limited(ctx, promotionBack, func(ctx context.Context) error { return action.Undo(ctx, p.Op, p.Before) })
	return e.onPromotion(ctx, b, p.Op, func(c *promoting) error {
		detail := map[string]any{"undo": true, "error": c.p.Error}
		s, why := remediation.StepUndone, c.p.Error+"; the traffic is as it was"
		if undoErr != nil {
			s, why = remediation.StepFailed, fmt.Sprintf("%s; and it could not be undone: %s", c.p.Error, undoErr)
			detail["undo_error"] = undoErr.Error()
		}
		if err := c.outcome(c.now, s, remediation.EffectFailed, detail); err != nil {
			return err
		}
		return c.fall(s, why)
	})
}

// leaveTo ends a promotion whose target an incident's steps have.
func (c *promoting) leaveTo(inc *remediation.Incident, cause error) error {
	why := fmt.Sprintf("%s; its target is left to incident %s", cause, inc.ID)
	if err := c.outcome(c.p.Started, remediation.StepFailed, remediation.EffectFailed, map[string]any{"error": cause.Error(), "why": why}); err != nil {
		return err
	}
	return c.fall(remediation.StepFailed, why)
}

// doubtPromotion looks at a target of which it is not known what became of it:
// it is as wanted, untouched, or half-way. Once its time is over, that it cannot be
// looked at is an error: a person is called after some of them.
func (e *Promoter) doubtPromotion(ctx context.Context, b *plan.Plan, p *remediation.Promotion, action remediation.Action, cause error) error {
	var look remediation.Look
	lookErr := e.limited(ctx, ledger.LookTimeout, func(ctx context.Context) (err error) {
		look, err = action.Look(ctx, p.Op)
		return err
	})
	forward, back, unseen, until := false, false, false, p.Until
	err := e.onPromotion(ctx, b, p.Op, func(c *promoting) error {
		forward, back, unseen, until = false, false, false, p.Until
		open, err := remediation.OpenIncident(c.tx, c.r.Service)
		if err != nil {
			return err
		}
		late := open != nil && open.Intended && !c.now.Before(c.p.Until)
		if lookErr != nil {
			if late {
				return c.leaveTo(open, fmt.Errorf("%w: %w", cause, lookErr))
			}
			c.p.Wake = c.now.Add(b.Poll())
			unseen = open == nil && !c.now.Before(c.p.Until) // an open incident calls for itself
			if c.p.Doubted {
				return nil
			}
			c.p.Doubted = true
			return c.audit(audit.KindInDoubt, remediation.ActorEngine, map[string]any{"why": cause.Error(), "error": lookErr.Error(), "reason": string(remediation.HoldTarget)})
		}
		err = c.audit(audit.KindInDoubt, remediation.ActorEngine, map[string]any{"why": cause.Error(), "seen": string(look.Position), "after": look.Snapshot})
		switch {
		case err != nil:
			return err
		case look.Position == remediation.Untouched:
			if err := c.effect(c.now, remediation.EffectUntouched); err != nil {
				return err
			}
			return c.fall(remediation.StepPending, cause.Error()+"; nothing was changed, and it may be asked for again")
		case late:
			return c.leaveTo(open, cause)
		case look.Position == remediation.HalfWay && open != nil: // more traffic is not what helps now
			back = true
			return nil
		}
		forward = true
		if open == nil && c.p.Until.Before(c.now.Add(promotionForward+promotionBack)) {
			c.p.Until = c.now.Add(promotionForward + promotionBack)
			until = c.p.Until
		}
		return nil
	})
	switch {
	case err != nil:
		return err
	case unseen:
		return fmt.Errorf("%s of %s is in doubt, and its target cannot be looked at: %w", p.Step(), b.Service, lookErr)
	case back:
		return e.undoPromotion(ctx, b, p, action, cause)
	case !forward:
		return nil
	}
	p.Until = until
	if look.Position == remediation.HalfWay {
		err := e.limited(ctx, e.forward(p), func(ctx context.Context) error { return action.Apply(ctx, p.Op, p.Before) })
		if err != nil {
			return e.undoPromotion(ctx, b, p, action, err)
		}
	}
	why := map[string]any{"why": "seen after being in doubt"}
	if err := e.promotionApplied(ctx, b, p, action, why); err != nil {
		return err
	}
	return e.verifyPromotion(ctx, b, p, action)
}
