package incident

import (
	"context"

	"github.com/locotoki/backout/remediation"
	"github.com/locotoki/backout/remediation/audit"
	"github.com/locotoki/backout/remediation/gate"
	"github.com/locotoki/backout/remediation/operation"
	"github.com/locotoki/backout/remediation/plan"
)

// gateInput is what leads to the next step: what its gates are asked, and what else
// is known and written with the answer.
type gateInput struct {
	gate.Input
	// trigger is the one that was seen to be true, "" for none.
	trigger string
	// only names the step to try in place of the next one; "": the next one.
	only string
	// prefetched holds answers that were asked for beforehand, nil where none were.
	prefetched *prefetch
	// poll, where there was one, is counted with whatever becomes of the question.
	poll *gate.Samples
	// lead, where not nil, writes what led to the question into the transaction
	// that answers it.
	lead func(*change) error
}

// tryStep runs the next step of the plan, or holds it and says why. The
// gates are asked first, then the target is looked at, and both are written with
// the intent, whose transaction asks the gates once more.
func (e *Responder) tryStep(ctx context.Context, b *plan.Plan, inc *remediation.Incident, ev gate.Samples, t *remediation.TriggerState, q gateInput) error {
	q.trigger = t.Name()
	if inc.Review && q.Confirmed {
		return e.review(ctx, b, inc, q)
	}
	var err error
	if q.prefetched == nil { // else confirm has just asked, and the intent's transaction does again
		if waits, err := e.waitsForPromotion(ctx, b, inc); waits || err != nil {
			return err
		}
	}
	if q.prefetched != nil {
		q.prefetched.wait()
		q.SilencedBy, q.SilenceUnasked, err = q.prefetched.silencedBy, q.prefetched.unasked, q.prefetched.silenceErr
	} else {
		q.SilencedBy, q.SilenceUnasked, err = e.Silenced(ctx, inc)
	}
	if err != nil {
		return err
	}
	if inc, err = e.TellAhead(ctx, b, inc, q.Input); err != nil {
		return err
	}
	s := inc.Next()
	if q.only != "" {
		s = inc.Step(q.only)
	}
	if s == nil && inc.Unhandled() == nil {
		return e.change(ctx, b, inc, func(c *change) error {
			if err := q.begin(c); err != nil {
				return err
			}
			return c.exhaust("the breach continues after the last step of the plan")
		})
	}
	if f := inc.Unhandled(); f != nil {
		return e.change(ctx, b, inc, func(c *change) error {
			if err := q.begin(c); err != nil {
				return err
			}
			why := f.ID() + " failed: claim and release the incident to retry"
			if err := c.hold(nil, remediation.GateResult{Reason: remediation.HoldStepFailed, Why: why}, ev.Detail(b, c.Inc.Trigger(t.Name()), map[string]any{})); err != nil {
				return err
			}
			return c.Page(string(remediation.HoldStepFailed), why)
		})
	}
	q.Step = s
	var look remediation.Look
	var lookErr error
	if q.prefetched.isFor(s) { // its target was looked at already: the transaction asks the gates
		look, lookErr = q.prefetched.look, q.prefetched.lookErr
	} else {
		held, err := e.holdIfClosed(ctx, b, inc, ev, t, q)
		if held || err != nil {
			return err
		}
		look, lookErr = e.look(ctx, b, inc, s)
		// A look may take long: a silence that was set meanwhile holds.
		if q.SilencedBy, q.SilenceUnasked, err = e.Silenced(ctx, inc); err != nil {
			return err
		}
	}
	ran := false
	err = e.change(ctx, b, inc, func(c *change) error {
		ran = false
		s := c.Inc.Step(s.ID())
		cq := q
		cq.Step = s
		if err := q.begin(c); err != nil {
			return err
		}
		ev.Note(c.Inc)
		all, closed, err := c.Gates(cq.Input)
		if err != nil {
			return err
		}
		detail, err := c.samples(ev, t, map[string]any{"gates": gate.Rows(all)})
		if err != nil {
			return err
		}
		switch {
		case closed != nil:
			return c.hold(s, *closed, detail)
		case lookErr != nil:
			return c.hold(s, remediation.GateResult{Reason: remediation.HoldTarget, Why: lookErr.Error()}, detail)
		}
		detail["before"], detail["target"] = look.Snapshot, s.Target
		if look.Position == remediation.Wanted {
			if err := c.noChange(s, detail); err != nil {
				return err
			}
			if s.Verified {
				c.startSettling()
			}
			return nil
		}
		ran = true
		return c.intend(s, look, detail)
	})
	if err != nil || !ran {
		return err
	}
	return e.runStep(ctx, b, inc.ID, s.ID())
}

// noChange ends a step whose target is in the wanted state already. Where an earlier try
// of it may have made it so, it is done, and verified next.
func (c *change) noChange(s *remediation.Step, detail map[string]any) error {
	detail["why"] = "the target is already in the wanted state"
	if s.Left {
		s.State, s.Finished, s.Left = remediation.StepDone, &c.Now, false
	} else {
		s.State, s.Started, s.Finished, s.Verified = remediation.StepNoChange, &c.Now, &c.Now, true
	}
	detail["outcome"] = string(s.State)
	c.Inc.Ran, c.Inc.LastHeld = true, ""
	c.Enter(remediation.Acting, 0)
	c.Tx.OnCommit(c.e.Metrics.Steps.WithLabelValues(s.Action, string(s.State)).Inc)
	return c.Audit(audit.KindOutcome, remediation.ActorEngine, s, detail)
}

// begin writes what is known before the question is answered.
func (q gateInput) begin(c *change) error {
	if q.poll != nil {
		q.poll.Count(c.Inc)
	}
	if q.lead != nil {
		if err := q.lead(c); err != nil {
			return err
		}
	}
	if q.Confirmed {
		if t := c.Inc.Trigger(q.trigger); t != nil {
			t.Confirmed = true
		}
		return c.follow(remediation.PublicIdentified)
	}
	return nil
}

// samples puts what a decision rests on into an audit entry's detail: the
// trigger, an alert of it, the expression and what it gave. Where no trigger was
// seen beyond its threshold, the first one stands for the question.
func (c *change) samples(ev gate.Samples, t *remediation.TriggerState, d map[string]any) (map[string]any, error) {
	t = c.Inc.Trigger(t.Name())
	if t == nil && len(c.Inc.Triggers) > 0 {
		t = &c.Inc.Triggers[0]
	}
	if t == nil {
		return d, nil
	}
	all, err := c.Tx.Alerts(c.Inc.ID)
	if err != nil {
		return nil, err
	}
	for _, a := range all {
		if a.Trigger == t.Trigger {
			if d["fingerprint"] = a.Fingerprint; a.Active {
				break
			}
		}
	}
	return ev.Detail(c.Plan, t, d), nil
}

// holdIfClosed asks the gates before the target is looked at.
func (e *Responder) holdIfClosed(ctx context.Context, b *plan.Plan, inc *remediation.Incident, ev gate.Samples, t *remediation.TriggerState, q gateInput) (held bool, err error) {
	observed := false
	err = e.Store.View(ctx, func(tx remediation.Tx) error {
		c := e.on(tx, b, inc, e.Now())
		_, closed, err := c.Gates(q.Input)
		held = closed != nil
		observed = held && closed.Reason == remediation.HoldMode
		return err
	})
	if err != nil || !held {
		return held, err
	}
	var looks map[string]observedLook
	if observed {
		looks = e.lookAtAll(ctx, b, inc)
	}
	return true, e.change(ctx, b, inc, func(c *change) error {
		cq := q
		cq.Step = c.Inc.Step(q.Step.ID())
		if err := q.begin(c); err != nil {
			return err
		}
		ev.Note(c.Inc)
		all, closed, err := c.Gates(cq.Input)
		if err != nil {
			return err
		}
		if closed == nil {
			return remediation.ErrStale // it opened meanwhile: ask again
		}
		detail, err := c.samples(ev, t, map[string]any{"gates": gate.Rows(all)})
		if err != nil {
			return err
		}
		if c.Inc.Would = nil; closed.Reason == remediation.HoldMode {
			if c.Inc.Would, err = c.would(cq.Input, looks); err != nil {
				return err
			}
			detail["would"] = remediation.Anys(c.Inc.Would)
		}
		return c.hold(cq.Step, *closed, detail)
	})
}

func (e *Responder) look(ctx context.Context, b *plan.Plan, inc *remediation.Incident, s *remediation.Step) (remediation.Look, error) {
	return operation.Look(ctx, e.Gates, operationOf(b, inc, s))
}

// intend commits that the step is about to change its target.
func (c *change) intend(s *remediation.Step, look remediation.Look, detail map[string]any) error {
	if r, err := remediation.RolloutOf(c.Tx, c.Inc.Service); err != nil {
		return err
	} else if r.Promotion != nil && r.Promotion.Until.After(c.Now) {
		return remediation.ErrStale // it is being fixed: wait for that first
	}
	s.Begin(c.Now)
	s.Undoing, s.Verified, s.Epoch = false, false, c.Epoch
	if look.Position != remediation.HalfWay || s.Before == nil { // what a failed undo left is nothing to go back to
		s.Before = look.Snapshot
	}
	c.Inc.LastHeld = ""
	c.Inc.Unstuck()
	c.Enter(remediation.Acting, 0)
	err := c.Tx.PutEffect(remediation.Effect{
		Time: c.Now, Service: c.Inc.Service, Action: s.Action, Target: s.Target, Incident: c.Inc.ID, Step: s.Attempt(),
	})
	if err != nil {
		return err
	}
	if !c.Inc.Intended {
		c.Inc.Intended = true
		reaction := c.Now.Sub(c.Inc.Fired()).Seconds()
		c.Tx.OnCommit(func() { c.e.Metrics.Reaction.Observe(reaction) })
	}
	return c.Audit(audit.KindIntent, remediation.ActorEngine, s, detail)
}
