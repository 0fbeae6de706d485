package incident

import (
	"context"
	"fmt"

	"github.com/locotoki/backout/alerts"
	"github.com/locotoki/backout/remediation"
	"github.com/locotoki/backout/remediation/audit"
	"github.com/locotoki/backout/remediation/gate"
	"github.com/locotoki/backout/remediation/ledger"
	"github.com/locotoki/backout/remediation/plan"
)

// question is what leads to the next step: what its gates are asked, and what else
// is known and written with the answer.
type question struct {
	gate.Input
	// trigger is the one that was seen to be true, "" for none.
	trigger string
	// only names the step to try in place of the next one; "": the next one.
	only string
	// early holds answers that were asked for beforehand, nil where none were.
	early *early
	// poll, where there was one, is counted with whatever becomes of the question.
	poll *gate.Samples
	// lead, where not nil, writes what led to the question into the transaction
	// that answers it.
	lead func(*change) error
}

// tryStep runs the next step of the ladder, or holds it and says why. The
// gates are asked first, then the target is looked at, and both are written with
// the intent, whose transaction asks the gates once more.
func (e *Responder) tryStep(ctx context.Context, b *plan.Plan, inc *remediation.Incident, ev gate.Samples, t *remediation.TriggerState, q question) error {
	q.trigger = t.Name()
	if inc.Review && q.Confirmed {
		return e.review(ctx, b, inc, q)
	}
	var err error
	if q.early == nil { // else confirm has just asked, and the intent's transaction does again
		if waits, err := e.waitsForPromotion(ctx, b, inc); waits || err != nil {
			return err
		}
	}
	if q.early != nil {
		q.early.wait()
		q.SilencedBy, q.SilenceUnasked, err = q.early.silencedBy, q.early.unasked, q.early.silenceErr
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
			return c.exhaust("the breach goes on after the last step of the plan")
		})
	}
	if f := inc.Unhandled(); f != nil {
		return e.change(ctx, b, inc, func(c *change) error {
			if err := q.begin(c); err != nil {
				return err
			}
			why := f.ID() + " failed: claim and release the incident to try again"
			if err := c.hold(nil, gate.Result{Reason: remediation.HoldStepFailed, Why: why}, ev.Detail(b, c.Inc.Trigger(t.Name()), map[string]any{})); err != nil {
				return err
			}
			return c.Page(string(remediation.HoldStepFailed), why)
		})
	}
	q.Step = s
	var look remediation.Look
	var lookErr error
	if q.early.of(s) { // its target was looked at already: the transaction asks the gates
		look, lookErr = q.early.look, q.early.lookErr
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
		detail, err := c.evidence(ev, t, map[string]any{"gates": gate.Rows(all)})
		if err != nil {
			return err
		}
		switch {
		case closed != nil:
			return c.hold(s, *closed, detail)
		case lookErr != nil:
			return c.hold(s, gate.Result{Reason: remediation.HoldTarget, Why: lookErr.Error()}, detail)
		}
		detail["before"], detail["target"] = look.Snapshot, s.Target
		if look.Position == remediation.Wanted {
			detail["outcome"], detail["why"] = string(remediation.StepNoChange), "the target is already as wanted"
			s.State, s.Started, s.Finished, s.Verified = remediation.StepNoChange, &c.Now, &c.Now, true
			c.Inc.Ran, c.Inc.LastHeld = true, ""
			c.Tx.OnCommit(e.Metrics.Steps.WithLabelValues(s.Action, string(remediation.StepNoChange)).Inc)
			if err := c.Audit(audit.KindOutcome, remediation.ActorEngine, s, detail); err != nil {
				return err
			}
			c.startSettling()
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

// begin writes what is known before the question is answered.
func (q question) begin(c *change) error {
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

// evidence puts what a decision rests on into an audit entry's detail: the
// trigger, an alert of it, the expression and what it gave. Where no trigger was
// seen beyond its threshold, the first one stands for the question.
func (c *change) evidence(ev gate.Samples, t *remediation.TriggerState, d map[string]any) (map[string]any, error) {
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
func (e *Responder) holdIfClosed(ctx context.Context, b *plan.Plan, inc *remediation.Incident, ev gate.Samples, t *remediation.TriggerState, q question) (held bool, err error) {
	err = e.Store.View(ctx, func(tx remediation.Tx) error {
		c := e.on(tx, b, inc, e.Now())
		_, closed, err := c.Gates(q.Input)
		held = closed != nil
		return err
	})
	if err != nil || !held {
		return held, err
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
		detail, err := c.evidence(ev, t, map[string]any{"gates": gate.Rows(all)})
		if err != nil {
			return err
		}
		if c.Inc.Would = nil; closed.Reason == remediation.HoldMode {
			if c.Inc.Would, err = c.would(cq.Input); err != nil {
				return err
			}
			detail["would"] = remediation.Anys(c.Inc.Would)
		}
		return c.hold(cq.Step, *closed, detail)
	})
}

func (e *Responder) look(ctx context.Context, b *plan.Plan, inc *remediation.Incident, s *remediation.Step) (remediation.Look, error) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), ledger.LookTimeout)
	defer cancel()
	e.MeetTarget(s.Target)
	var look remediation.Look
	err := e.Safely("the look at the target of "+s.ID(), func() error {
		action, err := b.Bind(s)
		if err != nil {
			return err
		}
		look, err = action.Look(ctx, inc.Operation(s))
		return err
	})
	if err != nil {
		return remediation.Look{}, err
	}
	switch look.Position {
	case remediation.Wanted, remediation.Untouched, remediation.HalfWay:
		return look, nil
	}
	return remediation.Look{}, fmt.Errorf("%s: position %q is none", s.ID(), look.Position)
}

// intend commits that the step is about to change its target.
func (c *change) intend(s *remediation.Step, look remediation.Look, detail map[string]any) error {
	if r, err := remediation.RolloutOf(c.Tx, c.Inc.Service); err != nil {
		return err
	} else if r.Promotion != nil && r.Promotion.Until.After(c.Now) {
		return remediation.ErrStale // it is being mended: wait for that first
	}
	s.State, s.Started, s.Finished, s.Error = remediation.StepIntent, &c.Now, nil, ""
	s.Undoing, s.Verified = false, false
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

// act calls one method of a step's action with the step's own time limit, which
// a stop of the process does not cut short.
func (e *Responder) act(ctx context.Context, b *plan.Plan, s *remediation.Step, do func(context.Context, remediation.Action) error) error {
	limit := s.Timeout
	if limit <= 0 {
		limit = ledger.StepTimeouts[s.Risk]
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), limit)
	defer cancel()
	return e.Safely("the action of "+s.ID(), func() error {
		action, err := b.Bind(s)
		if err != nil {
			return err
		}
		return do(ctx, action)
	})
}

// runStep carries an intent out: effect, outcome, verification. It is safe to
// begin again at any point, which is what a restart does.
func (e *Responder) runStep(ctx context.Context, b *plan.Plan, id, step string) error {
	inc, s, err := e.Read(ctx, id, step)
	if err != nil {
		return err
	}
	op := inc.Operation(s)
	err = e.act(ctx, b, s, func(ctx context.Context, a remediation.Action) error { return a.Apply(ctx, op, s.Before) })
	if err != nil && remediation.IsInDoubt(err) {
		return e.resolveDoubt(ctx, b, inc, s, err)
	}
	if err != nil {
		return e.undo(ctx, b, id, step, err)
	}
	return e.applied(ctx, b, inc, s, map[string]any{})
}

// applied records an effect that happened, and goes on to its verification.
func (e *Responder) applied(ctx context.Context, b *plan.Plan, inc *remediation.Incident, s *remediation.Step, detail map[string]any) error {
	if after, err := e.look(ctx, b, inc, s); err == nil {
		detail["after"] = after.Snapshot
	}
	err := e.record(ctx, b, inc.ID, func(c *change) error {
		s := c.Inc.Step(s.ID())
		s.State, s.Finished = remediation.StepDone, &c.Now
		detail["outcome"], detail["target"] = string(remediation.StepDone), s.Target
		return c.outcome(s, remediation.EffectDone, detail)
	})
	if err != nil {
		return err
	}
	return e.verify(ctx, b, inc.ID, s.ID())
}

// outcome writes a step's outcome for the audit log, the limits and the metrics.
func (c *change) outcome(s *remediation.Step, eo remediation.EffectOutcome, detail map[string]any) error {
	err := c.Tx.PutEffect(remediation.Effect{
		Time: *s.Started, Service: c.Inc.Service, Action: s.Action, Target: s.Target, Incident: c.Inc.ID, Step: s.Attempt(), Outcome: eo,
	})
	if err != nil {
		return err
	}
	c.Inc.Ran = true
	took := c.Now.Sub(*s.Started).Seconds()
	c.Tx.OnCommit(c.e.Metrics.Steps.WithLabelValues(s.Action, string(s.State)).Inc)
	c.Tx.OnCommit(func() { c.e.Metrics.Duration.WithLabelValues(s.Action).Observe(took) })
	return c.Audit(audit.KindOutcome, remediation.ActorEngine, s, detail)
}

// verify waits until the target is seen to work; the state stays acting until
// then. What does not work is undone.
func (e *Responder) verify(ctx context.Context, b *plan.Plan, id, step string) error {
	inc, s, err := e.Read(ctx, id, step)
	if err != nil {
		return err
	}
	op := inc.Operation(s)
	err = e.act(ctx, b, s, func(ctx context.Context, a remediation.Action) error { return a.Verify(ctx, op) })
	if err != nil {
		return e.undo(ctx, b, id, step, fmt.Errorf("verify: %w", err))
	}
	return e.record(ctx, b, id, func(c *change) error {
		s := c.Inc.Step(step)
		s.Verified = true
		if err := c.Audit(audit.KindVerified, remediation.ActorEngine, s, map[string]any{"target": s.Target}); err != nil {
			return err
		}
		c.startSettling()
		return nil
	})
}

// undo puts back what a failed step found, with an intent and an outcome of
// its own.
func (e *Responder) undo(ctx context.Context, b *plan.Plan, id, step string, cause error) error {
	inc, s, err := e.Read(ctx, id, step)
	if err != nil {
		return err
	}
	if !s.Undoing {
		err := e.record(ctx, b, id, func(c *change) error {
			s := c.Inc.Step(step)
			s.Undoing, s.State, s.Error = true, remediation.StepIntent, cause.Error()
			return c.Audit(audit.KindIntent, remediation.ActorEngine, s, map[string]any{"undo": true, "error": s.Error, "after": s.Before, "target": s.Target})
		})
		if err != nil {
			return err
		}
	}
	op := inc.Operation(s)
	undoErr := e.act(ctx, b, s, func(ctx context.Context, a remediation.Action) error { return a.Undo(ctx, op, s.Before) })
	return e.record(ctx, b, id, func(c *change) error {
		s := c.Inc.Step(step)
		detail := map[string]any{"undo": true, "error": s.Error, "target": s.Target}
		s.State, s.Finished = remediation.StepUndone, &c.Now
		if undoErr != nil {
			s.State = remediation.StepFailed
			detail["undo_error"] = undoErr.Error()
		}
		detail["outcome"] = string(s.State)
		if err := c.outcome(s, remediation.EffectFailed, detail); err != nil {
			return err
		}
		return c.afterFailure(s)
	})
}

// afterFailure hands a failed step to a human, or, where the plan says so,
// lets the next one run if the breach is seen to go on.
func (c *change) afterFailure(s *remediation.Step) error {
	c.Inc.ResetPolls()
	s.Undoing = false
	if s.OnFailure == alerts.OnFailureNext && s.State == remediation.StepUndone && c.Inc.Next() != nil && c.Inc.Unhandled() == nil {
		c.Enter(remediation.Confirming, c.Plan.Poll())
		return nil
	}
	why := fmt.Sprintf("%s failed and was undone: %s", s.ID(), s.Error)
	if s.State == remediation.StepFailed {
		why = fmt.Sprintf("%s failed and could not be undone: %s", s.ID(), s.Error)
	}
	if err := c.hold(nil, gate.Result{Reason: remediation.HoldStepFailed, Why: why + "; claim and release the incident to try again"}, map[string]any{}); err != nil {
		return err
	}
	return c.Page(string(remediation.HoldStepFailed), why)
}

// resume goes on with a step that was cut off: by a crash, or by a stop.
func (e *Responder) resume(ctx context.Context, b *plan.Plan, inc *remediation.Incident, s *remediation.Step) error {
	switch {
	case s.Undoing:
		return e.undo(ctx, b, inc.ID, s.ID(), fmt.Errorf("%s", s.Error))
	case s.State == remediation.StepDone:
		return e.verify(ctx, b, inc.ID, s.ID())
	}
	return e.resolveDoubt(ctx, b, inc, s, fmt.Errorf("backout was stopped between intent and outcome"))
}

// resolveDoubt looks at the target of an intent without a known outcome, and
// never acts on it blindly.
func (e *Responder) resolveDoubt(ctx context.Context, b *plan.Plan, inc *remediation.Incident, s *remediation.Step, cause error) error {
	look, err := e.look(ctx, b, inc, s)
	if err != nil {
		return e.stayInDoubt(ctx, b, inc, s, cause, err)
	}
	if look.Position == remediation.Untouched && s.Doubts > 0 {
		return e.undo(ctx, b, inc.ID, s.ID(), cause)
	}
	err = e.record(ctx, b, inc.ID, func(c *change) error {
		s := c.Inc.Step(s.ID())
		c.Inc.Reason, c.Inc.Why, c.Inc.Paged = "", "", nil
		err := c.Audit(audit.KindInDoubt, remediation.ActorEngine, s, map[string]any{
			"why": cause.Error(), "seen": string(look.Position), "target": s.Target, "after": look.Snapshot,
		})
		if err != nil || look.Position != remediation.Untouched {
			return err
		}
		s.Doubts++
		// Nothing happened: the step is pending again, behind all its gates.
		s.State, s.Error = remediation.StepPending, ""
		err = c.Tx.PutEffect(remediation.Effect{
			Time: *s.Started, Service: c.Inc.Service, Action: s.Action, Target: s.Target, Incident: c.Inc.ID, Step: s.Attempt(), Outcome: remediation.EffectUntouched,
		})
		s.Started = nil
		c.Enter(remediation.Confirming, 0)
		return err
	})
	if err != nil {
		return err
	}
	switch look.Position {
	case remediation.Wanted:
		return e.applied(ctx, b, inc, s, map[string]any{"why": "seen after being in doubt"})
	case remediation.HalfWay:
		op := inc.Operation(s)
		err := e.act(ctx, b, s, func(ctx context.Context, a remediation.Action) error { return a.Apply(ctx, op, s.Before) })
		if err != nil {
			return e.undo(ctx, b, inc.ID, s.ID(), err)
		}
		return e.applied(ctx, b, inc, s, map[string]any{"why": "found half-way and rolled forward"})
	}
	return nil
}

// stayInDoubt keeps a step whose target cannot be looked at as it is, and says
// so once; the next look comes after S.
func (e *Responder) stayInDoubt(ctx context.Context, b *plan.Plan, inc *remediation.Incident, s *remediation.Step, cause, err error) error {
	return e.record(ctx, b, inc.ID, func(c *change) error {
		again := c.Inc.Reason == remediation.HoldTarget
		c.Inc.State, c.Inc.Reason, c.Inc.Why = remediation.Acting, remediation.HoldTarget, err.Error()
		c.Inc.Wake = c.Now.Add(c.Plan.Poll())
		if again {
			return nil
		}
		s := c.Inc.Step(s.ID())
		c.Tx.OnCommit(e.Metrics.Holds.WithLabelValues(string(remediation.HoldTarget)).Inc)
		err := c.Audit(audit.KindInDoubt, remediation.ActorEngine, s, map[string]any{
			"why": cause.Error(), "reason": string(remediation.HoldTarget), "error": err.Error(), "target": s.Target,
		})
		if err != nil {
			return err
		}
		return c.Page(string(remediation.HoldTarget), fmt.Sprintf("%s is in doubt and its target cannot be looked at", s.ID()))
	})
}
