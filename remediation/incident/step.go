package incident

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"time"

	"github.com/locotoki/backout/alerts"
	"github.com/locotoki/backout/remediation"
	"github.com/locotoki/backout/remediation/audit"
	"github.com/locotoki/backout/remediation/lease"
	"github.com/locotoki/backout/remediation/ledger"
	"github.com/locotoki/backout/remediation/operation"
	"github.com/locotoki/backout/remediation/plan"
)

// operationOf is what a step does to its target.
func operationOf(b *plan.Plan, inc *remediation.Incident, s *remediation.Step) operation.Operation {
	return operation.Operation{
		ID: inc.Operation(s), Name: s.ID(), Target: s.Target, Before: s.Before, Epoch: s.Epoch,
		Bind: func() (remediation.Action, error) { return b.Bind(s) },
	}
}

// runStep carries an intent out that was just committed.
func (e *Responder) runStep(ctx context.Context, b *plan.Plan, id, step string) error {
	inc, s, err := e.Read(ctx, id, step)
	if err != nil {
		return err
	}
	return operation.Run(ctx, e.Gates, operationOf(b, inc, s), &stepJournal{e, b, inc, s})
}

// resume goes on with a step that was cut off: by a crash, or by a stop.
func (e *Responder) resume(ctx context.Context, b *plan.Plan, inc *remediation.Incident, s *remediation.Step) error {
	op, j := operationOf(b, inc, s), &stepJournal{e, b, inc, s}
	switch {
	case s.Undoing:
		return operation.Revert(ctx, e.Gates, op, j, errors.New(s.Error))
	case s.State == remediation.StepDone:
		return operation.ResumeVerify(ctx, e.Gates, op, j)
	}
	return operation.Resume(ctx, e.Gates, op, j)
}

// stepJournal commits the outcome of a step; the incident stays acting until the
// step is verified or undone.
type stepJournal struct {
	e *Responder
	b *plan.Plan
	// inc and s are the step as the operation began, or was begun again.
	inc *remediation.Incident
	s   *remediation.Step
}

// Limit implements operation.Journal.
func (j *stepJournal) Limit(operation.Phase) time.Duration {
	return ledger.StepLimit(j.s)
}

// record commits what has happened; seen says it for the case that another replica has
// the realm by now.
func (j *stepJournal) record(ctx context.Context, seen map[string]any, fn func(c *change, s *remediation.Step) error) error {
	err := j.e.record(ctx, j.b, j.inc.ID, func(c *change) error {
		s := c.Inc.Step(j.s.ID())
		if s.State == remediation.StepInDoubt {
			return remediation.ErrStale // a person has closed the incident, and answers for it
		}
		return fn(c, s)
	})
	if errors.Is(err, lease.ErrLost) {
		return errors.Join(err, j.late(ctx, seen))
	}
	return err
}

// late appends what this replica still knows of a step whose realm it has lost. The row is
// the new holder's. A change that it does not know of needs a person.
func (j *stepJournal) late(ctx context.Context, seen map[string]any) error {
	h := lease.From(ctx)
	return j.e.record(lease.Outside(ctx), j.b, j.inc.ID, func(c *change) error {
		s := c.Inc.Step(j.s.ID())
		detail := map[string]any{"replica": h.Name, "realm": h.Realm, "epoch": h.Epoch, "target": s.Target, "state": string(s.State)}
		maps.Copy(detail, seen)
		if err := c.Audit(audit.KindLateOutcome, remediation.ActorEngine, s, detail); err != nil {
			return err
		}
		if seen["outcome"] != string(remediation.StepDone) || !s.Open() && s.State != remediation.StepSkipped && s.State != remediation.StepUndone {
			return nil
		}
		return c.Page(string(remediation.HoldTarget), fmt.Sprintf("replica %s changed %s after its realm was taken over, and %s is %s", h.Name, s.Target, s.ID(), s.State))
	})
}

// Applied implements operation.Journal.
func (j *stepJournal) Applied(ctx context.Context, detail map[string]any) error {
	return j.record(ctx, map[string]any{"outcome": string(remediation.StepDone)}, func(c *change, s *remediation.Step) error {
		s.State, s.Finished = remediation.StepDone, &c.Now
		detail["outcome"], detail["target"] = string(remediation.StepDone), s.Target
		return c.outcome(s, remediation.EffectDone, detail)
	})
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

// Verifying implements operation.Journal.
func (j *stepJournal) Verifying(context.Context) error { return nil }

// Verified implements operation.Journal.
func (j *stepJournal) Verified(ctx context.Context) error {
	return j.record(ctx, map[string]any{"verified": true}, func(c *change, s *remediation.Step) error {
		s.Verified = true
		if err := c.Audit(audit.KindVerified, remediation.ActorEngine, s, map[string]any{"target": s.Target}); err != nil {
			return err
		}
		c.startSettling()
		return nil
	})
}

// Undoing implements operation.Journal.
func (j *stepJournal) Undoing(ctx context.Context, cause error) (bool, error) {
	if j.s.Undoing {
		return true, nil
	}
	return true, j.record(ctx, map[string]any{"error": cause.Error()}, func(c *change, s *remediation.Step) error {
		c.Inc.Reason, c.Inc.Why, c.Inc.Paged = "", "", nil
		s.Undoing, s.State, s.Error, s.Epoch = true, remediation.StepIntent, cause.Error(), c.Epoch
		return c.Audit(audit.KindIntent, remediation.ActorEngine, s, map[string]any{"undo": true, "error": s.Error, "after": s.Before, "target": s.Target})
	})
}

// Undone implements operation.Journal.
func (j *stepJournal) Undone(ctx context.Context, undoErr error) error {
	var left remediation.Look
	if undoErr != nil && j.s.Risk == alerts.Lossy { // a person needs what it left, and the snapshot
		var err error
		if left, err = j.e.look(ctx, j.b, j.inc, j.s); err != nil {
			j.e.Log.Warn("cannot inspect a target after its undo", "target", j.s.Target, "err", err)
		}
	}
	return j.record(ctx, lateUndo(undoErr), func(c *change, s *remediation.Step) error {
		detail := map[string]any{"undo": true, "error": s.Error, "target": s.Target}
		s.State, s.Finished = remediation.StepUndone, &c.Now
		if undoErr != nil {
			s.State = remediation.StepFailed
			detail["undo_error"] = undoErr.Error()
			if left.Snapshot != nil {
				detail["after"] = left.Snapshot
			}
		}
		detail["outcome"] = string(s.State)
		if err := c.outcome(s, remediation.EffectFailed, detail); err != nil {
			return err
		}
		return c.afterFailure(s)
	})
}

// lateUndo is what a replica still knows of an undo.
func lateUndo(undoErr error) map[string]any {
	if undoErr != nil {
		return map[string]any{"undo": true, "outcome": string(remediation.StepFailed), "error": undoErr.Error()}
	}
	return map[string]any{"undo": true, "outcome": string(remediation.StepUndone)}
}

// afterFailure hands a failed step to a person, or, where the plan says so,
// lets the next one run if the breach is seen to go on.
func (c *change) afterFailure(s *remediation.Step) error {
	c.Inc.ResetPolls()
	s.Undoing = false
	if s.OnFailure == alerts.OnFailureNext && s.State == remediation.StepUndone && c.Inc.Next() != nil && c.Inc.Unhandled() == nil {
		c.Enter(remediation.Confirming, c.Plan.Poll())
		return nil
	}
	return c.holdFailed(s)
}

// holdFailed hands a step that failed to a person.
func (c *change) holdFailed(s *remediation.Step) error {
	why, next := "failed and was undone", "claim and release the incident to retry"
	switch {
	case s.NotPutBack() && c.Inc.OnlySignals():
		why, next = "could not be restored", "fix it and restore again, or close the incident"
	case s.NotPutBack():
		why, next = "could not be restored", "fix it and restore again, or close the incident. Claim and release it to let backout act on a breach again"
	case s.State == remediation.StepFailed:
		why = "failed and could not be undone"
	}
	why = fmt.Sprintf("%s %s: %s", s.ID(), why, s.Error)
	if err := c.hold(nil, remediation.GateResult{Reason: remediation.HoldStepFailed, Why: why + "; " + next}, map[string]any{}); err != nil {
		return err
	}
	return c.Page(string(remediation.HoldStepFailed), why)
}

// Doubted implements operation.Journal: a step that was never begun is pending again,
// behind all its gates; one that is left untouched twice has failed.
func (j *stepJournal) Doubted(ctx context.Context, cause error, look remediation.Look, lookErr error) (operation.Way, error) {
	var early *operation.TooEarlyError
	switch {
	case errors.As(lookErr, &early):
		return operation.Leave, j.lookAgain(ctx, cause, early)
	case lookErr != nil:
		return operation.Leave, j.stayInDoubt(ctx, cause, lookErr)
	case look.Position == remediation.Untouched && j.s.Doubts > 0:
		return operation.Back, nil
	}
	way := operation.Forward
	seen := map[string]any{"error": cause.Error(), "seen": string(look.Position)}
	err := j.record(ctx, seen, func(c *change, s *remediation.Step) error {
		c.Inc.Reason, c.Inc.Why, c.Inc.Paged = "", "", nil
		err := c.Audit(audit.KindInDoubt, remediation.ActorEngine, s, map[string]any{
			"why": cause.Error(), "seen": string(look.Position), "target": s.Target, "after": look.Snapshot,
		})
		if err != nil || look.Position != remediation.Untouched {
			return err
		}
		way = operation.Leave
		s.Doubts++
		s.State, s.Error = remediation.StepPending, ""
		err = c.Tx.PutEffect(remediation.Effect{
			Time: *s.Started, Service: c.Inc.Service, Action: s.Action, Target: s.Target, Incident: c.Inc.ID, Step: s.Attempt(), Outcome: remediation.EffectUntouched,
		})
		s.Started = nil
		c.Enter(remediation.Confirming, 0)
		return err
	})
	return way, err
}

// lookAgain keeps a step in doubt for as long as what an earlier holder sent may arrive, and
// says so once.
func (j *stepJournal) lookAgain(ctx context.Context, cause error, early *operation.TooEarlyError) error {
	return j.record(ctx, map[string]any{"error": cause.Error()}, func(c *change, s *remediation.Step) error {
		c.Inc.Wake = c.Now.Add(early.After)
		if s.Awaits == c.Epoch {
			return nil
		}
		s.Awaits = c.Epoch
		return c.Audit(audit.KindInDoubt, remediation.ActorEngine, s, map[string]any{"why": early.Error(), "target": s.Target})
	})
}

// stayInDoubt keeps a step whose target cannot be looked at as it is, before its outcome
// or after it, and says so once; the next look comes after a poll.
func (j *stepJournal) stayInDoubt(ctx context.Context, cause, err error) error {
	return j.record(ctx, map[string]any{"error": errors.Join(cause, err).Error()}, func(c *change, s *remediation.Step) error {
		again := c.Inc.Reason == remediation.HoldTarget
		c.Inc.State, c.Inc.Reason, c.Inc.Why = remediation.Acting, remediation.HoldTarget, err.Error()
		c.Inc.Wake = c.Now.Add(c.Plan.Poll())
		if !again {
			c.Tx.OnCommit(j.e.Metrics.Holds.WithLabelValues(string(remediation.HoldTarget)).Inc)
			err := c.Audit(audit.KindInDoubt, remediation.ActorEngine, s, map[string]any{
				"why": cause.Error(), "reason": string(remediation.HoldTarget), "error": err.Error(), "target": s.Target,
			})
			if err != nil {
				return err
			}
		}
		why := fmt.Sprintf("%s is in doubt and its target cannot be inspected", s.ID())
		if s.State == remediation.StepDone {
			why = fmt.Sprintf("%s has changed its target, and the change cannot be verified: %s", s.ID(), c.Inc.Why)
		}
		return c.Page(string(remediation.HoldTarget), why)
	})
}
