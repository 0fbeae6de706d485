package incident

import (
	"context"

	"github.com/locotoki/backout/remediation"
	"github.com/locotoki/backout/remediation/audit"
	"github.com/locotoki/backout/remediation/plan"
)

// review looks at what an incident has done before it goes further up the plan,
// once after it has reopened, or a new order was given: what someone has put back since, and
// what was left in doubt, is pending again, so that the gentlest step that can help
// runs first, behind all its gates; so is what a restore put back before it failed. A
// target that cannot be looked at stays as the log has it.
func (e *Responder) review(ctx context.Context, b *plan.Plan, inc *remediation.Incident, q gateInput) error {
	again, holds := map[string]remediation.Look{}, map[string]bool{}
	failedRestore := inc.FailedRestore() != nil
	for i := range inc.Steps {
		s := &inc.Steps[i]
		switch {
		case s.Tells:
		case s.State == remediation.StepInDoubt, failedRestore && s.State == remediation.StepUndone:
			again[s.ID()] = remediation.Look{}
		case s.NotPutBack():
			look, err := e.look(ctx, b, inc, s)
			if holds[s.ID()] = err != nil || look.Position == remediation.Wanted; !holds[s.ID()] {
				again[s.ID()] = look
			}
		case s.State == remediation.StepDone && s.Verified, s.State == remediation.StepNoChange:
			if look, err := e.look(ctx, b, inc, s); err == nil && look.Position != remediation.Wanted {
				again[s.ID()] = look
			}
		}
	}
	return e.change(ctx, b, inc, func(c *change) error {
		if q.poll != nil {
			q.poll.Count(c.Inc)
		}
		c.Inc.Review, c.Inc.Wake = false, c.Now
		if failedRestore && c.Inc.State == remediation.Waiting {
			c.Enter(remediation.Confirming, 0)
		}
		for i := range c.Inc.Steps {
			s := &c.Inc.Steps[i]
			if holds[s.ID()] {
				s.State, s.Error = remediation.StepDone, ""
			}
			look, ok := again[s.ID()]
			if !ok {
				continue
			}
			left := look.Position == remediation.HalfWay && s.State != remediation.StepNoChange // which changed nothing
			kind, why := audit.KindDrift, "the target is not in the state that this step left: the step is pending again"
			switch s.State {
			case remediation.StepInDoubt:
				kind, why, left = audit.KindInDoubt, "it was in doubt: the step is pending again", true
			case remediation.StepFailed, remediation.StepUndone:
				why = "a restore put it back, or failed to: the step is pending again"
			}
			s.Again(left)
			detail := map[string]any{"target": s.Target, "why": why}
			if look.Snapshot != nil {
				detail["after"] = look.Snapshot
			}
			if err := c.Audit(kind, remediation.ActorEngine, s, detail); err != nil {
				return err
			}
		}
		return nil
	})
}
