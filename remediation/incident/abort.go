package incident

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/locotoki/backout/hint"
	"github.com/locotoki/backout/remediation"
	"github.com/locotoki/backout/remediation/audit"
	"github.com/locotoki/backout/remediation/gate"
	"github.com/locotoki/backout/remediation/plan"
)

// AbortRollout gives the order to roll a release back, in the transaction that has
// read it: to the incident that is open, or to a new one.
func (e *Responder) AbortRollout(tx remediation.Tx, b *plan.Plan, r *remediation.Rollout, in remediation.RolloutChange) error {
	now := e.Now()
	b, err := e.PlanOfRollout(tx, b, *r)
	if err != nil {
		return err
	}
	inc, err := remediation.OpenIncident(tx, b.Service)
	if err != nil {
		return err
	}
	ib := b
	if inc == nil {
		inc = &remediation.Incident{
			Service: b.Service, Release: r.Release, PlaybookHash: b.Hash, State: remediation.Acting, Since: now, Opened: now, RolloutActive: true,
		}
		inc.Call = b.CallFor(inc)
		if err := tx.PutIncident(inc); err != nil { // gives the id
			return err
		}
		err := e.Append(tx, audit.Entry{Kind: audit.KindOpened, Actor: in.Actor, Service: b.Service, Incident: inc.ID, Detail: map[string]any{
			"abort": true, "reason": in.Reason, "rollout": inc.Release, "playbook": inc.PlaybookHash,
		}})
		if err != nil {
			return err
		}
	} else if ib, err = e.readablePlan(tx, inc); err != nil {
		return err
	}
	c := e.on(tx, ib, inc, now)
	if err := c.beginAbort(*r, in); err != nil {
		return err
	}
	return tx.PutIncident(inc)
}

// beginAbort gives an incident the order, or refuses.
func (c *change) beginAbort(r remediation.Rollout, in remediation.RolloutChange) error {
	inc := c.Inc
	switch {
	case inc.Release != r.Release:
		return hint.Add(remediation.Refuse(remediation.Conflict, "incident %s is about release %s, but %s is being rolled out", inc.ID, inc.Release, r.Release),
			"close that incident, then abort")
	case inc.Aborting() && len(inc.Abort.Signals) == 0:
		return hint.Add(remediation.Refuse(remediation.Conflict, "%s has already ordered that: incident %s is %s", inc.Abort.By, inc.ID, inc.Describe()), "backout incident show %s", inc.ID)
	case inc.Restore != nil:
		return hint.Add(remediation.Refuse(remediation.Conflict, "incident %s is being restored by %s", inc.ID, inc.Restore.By), "backout incident show %s", inc.ID)
	case inc.ClaimedBy != "" && inc.ClaimedBy != in.Actor:
		return hint.Add(remediation.Refuse(remediation.Conflict, "incident %s is claimed by %s: no step runs until the claim is released", inc.ID, inc.ClaimedBy), "backout incident release %s --reason=WHY", inc.ID)
	}
	plan := c.Plan.BackPlan()
	if plan == nil {
		return hint.Add(remediation.Refuse(remediation.Conflict, "the playbook of %s has no rollback plan", inc.Service), "roll back by hand, and give a trigger that counts in every stage a plan")
	}
	added, err := c.Plan.AddPlan(inc, plan.Name)
	if err != nil {
		return err
	}
	inc.Abort = &remediation.Abort{By: in.Actor, Reason: in.Reason, Began: c.Now}
	inc.Review = true
	for i := range inc.Steps { // what was denied is asked anew
		if s := &inc.Steps[i]; s.State == remediation.StepSkipped && !s.Tells {
			s.State, s.Finished = remediation.StepPending, nil
		}
	}
	if inc.Running() == nil { // else the step runs to its outcome first
		inc.VoidApprovals()
		inc.ResetPolls()
		inc.SettleFrom, inc.SettleUntil, inc.FalseSince, inc.LastHeld = nil, nil, nil, ""
		inc.Unstuck()
		c.Enter(remediation.Acting, 0)
	}
	err = c.Audit(audit.KindStage, in.Actor, nil, map[string]any{
		"state": r.State, "stage": r.Stage, "release": r.Release, "previous": r.Previous, "abort": "begun", "reason": in.Reason,
	})
	if err != nil || len(added) == 0 {
		return err
	}
	return c.Audit(audit.KindPlanned, in.Actor, nil, map[string]any{"plan": plan.Name, "steps": remediation.Anys(added), "playbook": inc.PlaybookHash})
}

// abort runs the next listed step, or ends the abort.
func (e *Responder) abort(ctx context.Context, b *plan.Plan, inc *remediation.Incident) error {
	waits, err := e.waitsForPromotion(ctx, b, inc)
	if waits || err != nil {
		return err
	}
	if lapsed, err := e.lapse(ctx, b, inc); lapsed || err != nil {
		return err
	}
	if inc.Review {
		return e.review(ctx, b, inc, gateInput{})
	}
	if done, err := e.gentler(ctx, b, inc); done || err != nil {
		return err
	}
	if inc, err = e.TellAhead(ctx, b, inc, gate.Input{Confirmed: true}); err != nil {
		return err
	}
	if f := inc.Unhandled(); f != nil {
		return e.change(ctx, b, inc, func(c *change) error {
			why := f.ID() + " failed: claim and release the incident to retry"
			if err := c.hold(nil, remediation.GateResult{Reason: remediation.HoldStepFailed, Why: why}, map[string]any{}); err != nil {
				return err
			}
			return c.Page(string(remediation.HoldStepFailed), why)
		})
	}
	s := inc.Next()
	if s == nil && len(inc.Abort.Signals) > 0 {
		return e.change(ctx, b, inc, (*change).endSignals)
	}
	if s == nil {
		return e.change(ctx, b, inc, (*change).endAbort)
	}
	look, lookErr, err := e.lookIfOpen(ctx, b, inc, s)
	if err != nil {
		return err
	}
	ran := false
	err = e.change(ctx, b, inc, func(c *change) error {
		ran = false
		s := c.Inc.Step(s.ID())
		all, closed, err := c.OrderGates(s, c.Inc.Abort.By)
		if err != nil {
			return err
		}
		detail := map[string]any{"gates": gate.Rows(all), "ordered_by": c.Inc.Abort.By, "reason": c.Inc.Abort.Reason}
		if len(c.Inc.Abort.Signals) > 0 {
			detail["signals"] = remediation.Anys(c.Inc.Abort.Signals)
		}
		switch {
		case closed != nil:
			return c.hold(s, *closed, detail)
		case errors.Is(lookErr, errNotLooked):
			return remediation.ErrStale // the gates opened meanwhile
		case lookErr != nil:
			return c.hold(s, remediation.GateResult{Reason: remediation.HoldTarget, Why: lookErr.Error()}, detail)
		}
		detail["before"], detail["target"] = look.Snapshot, s.Target
		if look.Position == remediation.Wanted {
			return c.noChange(s, detail)
		}
		ran = true
		return c.intend(s, look, detail)
	})
	if err != nil || !ran {
		return err
	}
	return e.runStep(ctx, b, inc.ID, s.ID())
}

// gentler runs, while a signal's step waits for its approval, a step of lower risk
// that another trigger's plan has: it needs no answer, only the breach. It reports
// whether that took the turn.
func (e *Responder) gentler(ctx context.Context, b *plan.Plan, inc *remediation.Incident) (bool, error) {
	s := inc.Next()
	if len(inc.Abort.Signals) == 0 || inc.State != remediation.Waiting || inc.Reason != remediation.HoldApproval || s == nil || s.Approved != "" || inc.Unhandled() != nil {
		return false, nil
	}
	var g *remediation.Step
	for i := range inc.Steps {
		o := &inc.Steps[i]
		if !o.Tells && o.Open() && !inc.Abort.Lists(o) && o.Risk < s.Risk && (g == nil || o.Risk < g.Risk) {
			g = o
		}
	}
	if g == nil || inc.SettleUntil != nil && inc.SettleUntil.After(e.Now()) {
		return false, nil
	}
	q := gateInput{Input: gate.Input{Step: g, Confirmed: true}, only: g.ID()}
	var ev gate.Samples
	var t *remediation.TriggerState
	var err error
	if inc.Ran {
		if ev, err = e.PollRecovery(ctx, b, inc); err != nil {
			return false, err
		}
		ev.Count(inc)
		q.poll, t = &ev, inc.Breaching(remediation.Certain)
	} else {
		if ev, err = e.ReadValues(ctx, b, inc); err != nil {
			return false, err
		}
		t = ev.Beyond(inc)
	}
	open := false
	if t != nil {
		if q.SilencedBy, q.SilenceUnasked, err = e.Silenced(ctx, inc); err != nil {
			return false, err
		}
		err = e.Store.View(ctx, func(tx remediation.Tx) error {
			_, closed, err := e.on(tx, b, inc, e.Now()).Gates(q.Input)
			open = closed == nil
			return err
		})
		if err != nil {
			return false, err
		}
	}
	if open {
		return true, e.tryStep(ctx, b, inc, ev, t, q)
	}
	if !inc.Ran {
		return false, nil
	}
	return true, e.keepWaiting(ctx, b, inc, ev)
}

// errNotLooked: a gate was closed, so that the target was not looked at.
var errNotLooked = errors.New("not checked")

// lookIfOpen looks at a step's target where its gates are open.
func (e *Responder) lookIfOpen(ctx context.Context, b *plan.Plan, inc *remediation.Incident, s *remediation.Step) (look remediation.Look, lookErr, err error) {
	open := false
	err = e.Store.View(ctx, func(tx remediation.Tx) error {
		c := e.on(tx, b, inc, e.Now())
		_, closed, err := c.OrderGates(s, c.Inc.Abort.By)
		open = closed == nil
		return err
	})
	if err != nil || !open {
		return remediation.Look{}, errNotLooked, err
	}
	look, lookErr = e.look(ctx, b, inc, s)
	return look, lookErr, nil
}

// endAbort ends the rollout: every step was verified or is skipped. Triggers that
// are attached to the same incident still need their recovery.
func (c *change) endAbort() error {
	inc := c.Inc
	if !slices.ContainsFunc(inc.Steps, func(s remediation.Step) bool {
		return !s.Tells && (s.State == remediation.StepDone || s.State == remediation.StepNoChange)
	}) {
		inc.Abort.Ended = &c.Now
		return c.exhaust("no step of the abort ran: each was denied, or nobody answered in time; the rollout is unchanged")
	}
	if err := c.endRollout(remediation.RolloutAborted, inc.Abort.By, inc.Abort.Reason); err != nil {
		return err
	}
	inc.Abort.Ended = &c.Now
	switch {
	case len(inc.Triggers) == 0:
		return c.close(inc.Abort.By, map[string]any{"reason": "aborted", "why": fmt.Sprintf("every rollback step was verified; ordered by %s: %s", inc.Abort.By, inc.Abort.Reason)})
	case inc.LastRun() != nil:
		c.startSettling()
	default:
		c.Enter(remediation.Confirming, 0)
	}
	return nil
}

// endRollout ends the active rollout of the incident's release, and keeps how it was.
func (c *change) endRollout(state, actor, why string) error {
	r, err := remediation.RolloutOf(c.Tx, c.Inc.Service)
	if err != nil || !r.Active() || r.Release != c.Inc.Release {
		return err
	}
	was := r
	was.Promotion = nil
	c.Inc.RolledBack = &was
	r.State, r.Stage, r.StageSince = state, remediation.StageNone, &c.Now
	if err := c.Tx.PutRollout(r); err != nil {
		return err
	}
	return c.Audit(audit.KindStage, actor, nil, map[string]any{"state": r.State, "stage": r.Stage, "release": r.Release, "why": why})
}

// waitsForPromotion lets an incident wait for a promotion that has its intent, at
// most for as long as that may take.
func (e *Responder) waitsForPromotion(ctx context.Context, b *plan.Plan, inc *remediation.Incident) (bool, error) {
	until, err := e.PromotionUntil(ctx, inc.Service)
	if err != nil || !until.After(e.Now()) {
		return false, err
	}
	return true, e.change(ctx, b, inc, func(c *change) error {
		r, err := remediation.RolloutOf(c.Tx, c.Inc.Service)
		switch {
		case err != nil:
			return err
		case r.Promotion == nil:
			return remediation.ErrStale // it has ended: go on
		}
		c.Inc.Wake = r.Promotion.Until // its end wakes the incident
		return nil
	})
}
