package incident

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/locotoki/backout/hint"
	"github.com/locotoki/backout/remediation"
	"github.com/locotoki/backout/remediation/audit"
	"github.com/locotoki/backout/remediation/gate"
	"github.com/locotoki/backout/remediation/operation"
	"github.com/locotoki/backout/remediation/plan"
	"github.com/locotoki/backout/remediation/view"
)

// Restore requests that the targets of an incident's steps are put back as they were
// before.
func (e *Responder) Restore(ctx context.Context, id string, r view.RestoreRequest) (view.IncidentView, error) {
	if r.Reason == "" {
		return view.IncidentView{}, remediation.Refuse(remediation.Invalid, "a reason is required")
	}
	inc, err := e.restorable(ctx, id)
	if err != nil {
		return view.IncidentView{}, err
	}
	if again := inc.Restore != nil || inc.Restored != ""; !again {
		if err := nothingToRestore(inc); err != nil {
			return view.IncidentView{}, err
		}
	}
	b, err := e.PlanFor(ctx, inc)
	if isUnreadable(err) {
		err = hint.Add(remediation.Refuse(remediation.Conflict, "incident %s: %v", id, err), "put its targets back by hand")
	}
	if err != nil {
		return view.IncidentView{}, err
	}
	ev := gate.Samples{}
	if !r.Force && inc.Restore == nil && inc.Restored == "" {
		if ev, err = e.PollRecovery(ctx, b, inc); err != nil {
			return view.IncidentView{}, err
		}
		switch t := ev.Beyond(inc); {
		case t != nil && ev.Blind == "":
			unit := b.UnitOf(t.Trigger)
			return view.IncidentView{}, hint.Add(remediation.Refuse(remediation.Conflict, "trigger %s is breaching (%s, threshold %s)",
				t.Trigger, remediation.Estimated(remediation.Measure(*ev.Values[t.Trigger].Value, unit), b.EstimateOf(t.Trigger)), remediation.Measure(ev.Bound(t), unit)), "force, to restore anyway")
		case ev.Unknown(inc) != "":
			return view.IncidentView{}, hint.Add(remediation.Refuse(remediation.Conflict, "unknown whether the breach continues: %s", ev.Unknown(inc)),
				"force, to restore anyway")
		}
	}
	var answer view.IncidentView
	err = e.change(ctx, b, inc, func(c *change) error {
		// Asked for again, it has the effect of once.
		switch {
		case c.Inc.Restore != nil && r.Force && !c.Inc.Restore.Force: // what holds it may be forced only now
			c.Inc.Restore.Force, c.Inc.Wake = true, c.Now
			if err := c.Audit(audit.KindRestored, r.Actor, nil, map[string]any{"reason": r.Reason, "state": "forced", "force": true}); err != nil {
				return err
			}
		case c.Inc.Restore == nil && (c.Inc.Restored == "" || c.Inc.ToRestore() != nil):
			if err := c.beginRestore(r, ev); err != nil {
				return err
			}
		}
		answer, err = view.OfIncident(c.Tx, c.Inc)
		answer.SetUnits(c.Plan)
		return err
	})
	if errors.Is(err, remediation.ErrStale) {
		return view.IncidentView{}, hint.Add(remediation.Refuse(remediation.Conflict, "incident %s has changed meanwhile", id), "check it and repeat the command")
	}
	if err != nil {
		return view.IncidentView{}, err
	}
	e.WakeUp()
	return answer, nil
}

// restorable returns an incident that is over, or refuses.
func (e *Responder) restorable(ctx context.Context, id string) (inc *remediation.Incident, err error) {
	err = e.Store.View(ctx, func(tx remediation.Tx) error {
		inc, err = tx.Incident(id)
		if errors.Is(err, remediation.ErrNotFound) {
			return remediation.NoIncident(id)
		}
		return err
	})
	switch {
	case err != nil:
		return nil, err
	case inc.Restore != nil, inc.State == remediation.Closed, inc.State == remediation.Recovered:
		return inc, nil
	case inc.Running() == nil && inc.FailedRestore() != nil:
		return inc, nil
	}
	return nil, hint.Add(remediation.Refuse(remediation.Conflict, "incident %s is %s: only a recovered or closed incident can be restored", id, inc.Describe()),
		"once no step runs: backout incident close %[1]s --reason=WHY, then restore it", id)
}

// nothingToRestore refuses an incident that no force can restore.
func nothingToRestore(inc *remediation.Incident) error {
	switch {
	case inc.Drill:
		return remediation.Refuse(remediation.Conflict, "incident %s is a drill: nothing was changed", inc.ID)
	case inc.ToRestore() == nil:
		return remediation.Refuse(remediation.Conflict, "incident %s changed nothing that can be restored", inc.ID)
	}
	return nil
}

// beginRestore commits that an incident is to be restored, or refuses.
func (c *change) beginRestore(r view.RestoreRequest, ev gate.Samples) error {
	inc := c.Inc
	if err := nothingToRestore(inc); err != nil {
		return err
	}
	s := inc.ToRestore()
	signals, err := c.Tx.Signals()
	if err != nil {
		return err
	}
	for _, s := range signals {
		if s.Service == inc.Service && !r.Force {
			return hint.Add(remediation.Refuse(remediation.Conflict, "signal %s is raised by %s (%s)", s.Name, s.By, s.Reason), "clear it first, or force")
		}
	}
	if l := inc.LossyRun(); l != nil && !r.Force {
		ran := "has run"
		if l.State != remediation.StepDone {
			ran = "may have run in part"
		}
		return hint.Add(remediation.Refuse(remediation.Conflict, "%s %s, and data is never restored%s; the newer code may not work with the present schema",
			l.ID(), ran, snapshotOf(c.Tx, inc, l)), "migrate the schema to the newer version, then restore with force; backout incident show %s says how to get lost rows back", inc.ID)
	}
	if err := c.nothingSince(); err != nil {
		return err
	}
	for i := range inc.Steps {
		if s := &inc.Steps[i]; s.Restorable() && !r.Force {
			if held, err := c.e.TargetHeld(c.Tx, s.Target, inc.Service); err != nil {
				return err
			} else if held != "" {
				return hint.Add(remediation.Refuse(remediation.Conflict, "%s", held), "restore once that is closed, or force")
			}
		}
	}
	closed, err := c.RestoreGates(s, r.Actor)
	if err != nil {
		return err
	}
	if closed != nil {
		until := ""
		if closed.Until != nil {
			until = ", until " + remediation.MomentFrom(c.Now, *closed.Until)
		}
		err := remediation.Refuse(remediation.Conflict, "%s holds the restoring (%s): %s%s", closed.Gate, closed.Reason, closed.Why, until)
		if closed.Reason.IsLimit() { // begun and held, it would keep the incident from acting on a new breach
			return hint.Add(err, "the same command after that")
		}
		return err
	}
	inc.Restore = &remediation.Restore{By: r.Actor, Reason: r.Reason, Began: c.Now, Force: r.Force}
	all, err := c.Tx.Alerts(inc.ID)
	if err != nil {
		return err
	}
	for _, a := range all {
		if a.Active {
			inc.Restore.Active = append(inc.Restore.Active, a.Fingerprint)
		}
	}
	inc.Closed, inc.Restored = nil, ""
	inc.Unstuck()
	c.Enter(remediation.Acting, 0)
	return c.Audit(audit.KindRestored, r.Actor, nil, ev.All(inc, map[string]any{
		"reason": r.Reason, "state": "begun", "force": r.Force, "next": s.ID(),
	}))
}

// nothingSince refuses where something later depends on what would be taken away.
func (c *change) nothingSince() error {
	later, err := c.Tx.Incidents(remediation.IncidentFilter{Service: c.Inc.Service, After: c.Inc.ID})
	if err != nil {
		return err
	}
	for _, l := range later {
		switch {
		case l.Drill:
		case l.State != remediation.Closed:
			return hint.Add(remediation.Refuse(remediation.Conflict, "incident %s of %s is open (%s)", l.ID, l.Service, l.Describe()), "backout incident show %s", l.ID)
		case l.ToRestore() != nil:
			return hint.Add(remediation.Refuse(remediation.Conflict, "incident %s is later and also changed something", l.ID), "restore that first")
		}
	}
	r, err := remediation.RolloutOf(c.Tx, c.Inc.Service)
	if err != nil {
		return err
	}
	if r.Promotion != nil {
		return hint.Add(remediation.Refuse(remediation.Conflict, "%s is in progress", r.Promotion.Step()), "restore it once that is done")
	}
	if r.Active() && (r.Release != c.Inc.Release || c.Inc.RolledBack != nil) {
		return remediation.Refuse(remediation.Conflict, "another rollout has started since: %s is at stage %s", r.Release, r.Stage)
	}
	return nil
}

// snapshotOf says where the snapshot is that a lossy step took.
func snapshotOf(tx remediation.Tx, inc *remediation.Incident, s *remediation.Step) string {
	kept, err := view.SnapshotOf(tx, inc.ID, s.ID())
	if err != nil || kept == nil {
		return ""
	}
	return fmt.Sprintf(" (the snapshot taken before it is %s, SHA-256 %s)", kept.Path, kept.SHA256)
}

// restoreTries is how often putting one step back is tried while it is not
// known what became of it.
const restoreTries = 3

// restore puts the next step back, or ends. Each step writes its own intent and
// outcome, and looks at its target first: what someone changed since stays.
func (e *Responder) restore(ctx context.Context, b *plan.Plan, inc *remediation.Incident) error {
	s := inc.ToRestore()
	if s == nil {
		return e.change(ctx, b, inc, (*change).endRestore)
	}
	op := operationOf(b, inc, s)
	op.Restore = true
	return operation.Revert(ctx, e.Gates, op, &restoring{stepJournal{e, b, inc, s}}, nil)
}

// restoring commits the outcome of putting a step back.
type restoring struct{ stepJournal }

// Undone implements operation.Journal.
func (j *restoring) Undone(ctx context.Context, undoErr error) error {
	return j.record(ctx, lateUndo(undoErr), func(c *change, s *remediation.Step) error {
		if remediation.IsInDoubt(undoErr) && s.Doubts < restoreTries {
			s.Doubts++
			c.Inc.Wake = c.Now.Add(c.Plan.Poll())
			return c.Audit(audit.KindInDoubt, remediation.ActorEngine, s, map[string]any{"undo": true, "error": undoErr.Error(), "target": s.Target})
		}
		return c.putBack(s, undoErr)
	})
}

// Undoing implements operation.Journal: it asks the gates, and leaves a target as it is
// that someone has changed since.
func (j *restoring) Undoing(ctx context.Context, _ error) (begun bool, err error) {
	if j.s.Undoing && j.s.State == remediation.StepIntent {
		return true, nil
	}
	look, lookErr := j.e.look(ctx, j.b, j.inc, j.s)
	err = j.e.change(ctx, j.b, j.inc, func(c *change) error {
		begun = false
		s := c.Inc.Step(j.s.ID())
		closed, err := c.RestoreGates(s, c.Inc.Restore.By)
		switch {
		case err != nil:
			return err
		case lookErr != nil:
			closed = &remediation.GateResult{Reason: remediation.HoldTarget, Why: lookErr.Error()}
		}
		if held, err := c.e.TargetHeld(c.Tx, s.Target, c.Inc.Service); err != nil {
			return err
		} else if held != "" && !c.Inc.Restore.Force { // it came since the restore began
			closed = &remediation.GateResult{Reason: remediation.HoldTarget, Why: held}
		}
		if closed != nil {
			return c.hold(nil, *closed, map[string]any{"undo": true, "target": s.Target})
		}
		if look.Position == remediation.Untouched {
			s.State, s.Finished, s.Verified, s.Left = remediation.StepUndone, &c.Now, false, false
			return c.Audit(audit.KindOutcome, remediation.ActorEngine, s, map[string]any{
				"undo": true, "outcome": string(remediation.StepNoChange), "target": s.Target, "after": look.Snapshot,
				"why": "someone has changed the target since: it stays as it is",
			})
		}
		begun = true
		s.Begin(c.Now)
		s.Undoing, s.Doubts, s.Epoch = true, 0, c.Epoch
		c.Enter(remediation.Acting, 0)
		err = c.Tx.PutEffect(remediation.Effect{Time: c.Now, Service: c.Inc.Service, Action: s.Action, Target: s.Target, Incident: c.Inc.ID, Step: s.Attempt()})
		if err != nil {
			return err
		}
		return c.Audit(audit.KindIntent, c.Inc.Restore.By, s, map[string]any{
			"undo": true, "reason": c.Inc.Restore.Reason, "before": look.Snapshot, "after": s.Before, "target": s.Target,
		})
	})
	return begun, err
}

// putBack records what became of putting one step back.
func (c *change) putBack(s *remediation.Step, undoErr error) error {
	s.Undoing, s.Finished = false, &c.Now
	detail := map[string]any{"undo": true, "target": s.Target, "after": s.Before}
	effect := remediation.EffectDone
	if s.State = remediation.StepUndone; undoErr != nil {
		s.State, s.Error, effect = remediation.StepFailed, undoErr.Error(), remediation.EffectFailed
		s.Verified = true // it counts as done until another restore: NotPutBack
		delete(detail, "after")
		detail["error"] = s.Error
	} else {
		s.Verified = false
	}
	detail["outcome"] = string(s.State)
	if err := c.outcome(s, effect, detail); err != nil {
		return err
	}
	if undoErr == nil {
		c.Enter(remediation.Acting, 0)
		return nil
	}
	by := c.Inc.Restore.By
	c.Inc.Restore = nil
	c.Inc.ResetPolls()
	if err := c.Audit(audit.KindRestored, by, s, map[string]any{"state": "failed", "error": s.Error}); err != nil {
		return err
	}
	return c.holdFailed(s)
}

// endRestore closes the incident, and sets the rollout where it was, held: going
// on is a commander's own decision.
func (c *change) endRestore() error {
	inc, r := c.Inc, *c.Inc.Restore
	rollout, err := remediation.RolloutOf(c.Tx, inc.Service)
	if err != nil {
		return err
	}
	if inc.RolledBack != nil {
		rollout = *inc.RolledBack
	}
	var lost []string
	if l := inc.LossyRun(); l != nil {
		lost = append(lost, l.ID()+" stays as it is: data is never restored"+snapshotOf(c.Tx, inc, l))
	}
	inc.Restore, inc.Restored, inc.RolledBack, inc.ByHand = nil, r.By, nil, r.Force
	detail := map[string]any{"state": "done", "reason": r.Reason}
	if len(lost) > 0 {
		detail["why"] = strings.Join(lost, "; ")
	}
	if err := c.Audit(audit.KindRestored, r.By, nil, detail); err != nil {
		return err
	}
	if err := c.close(r.By, map[string]any{"reason": "restored", "why": r.Reason}); err != nil {
		return err
	}
	inc.RolledBack = nil
	if rollout.Release == inc.Release && rollout.Stage != remediation.StageNone && rollout.Active() {
		rollout.Held, rollout.StageSince = true, &c.Now
		if err := c.Tx.PutRollout(rollout); err != nil {
			return err
		}
		err := c.Audit(audit.KindStage, r.By, nil, map[string]any{
			"state": rollout.State, "stage": rollout.Stage, "release": rollout.Release, "held": true, "why": "restored after " + inc.ID,
		})
		if err != nil {
			return err
		}
	}
	return c.openWhatCame(r)
}

// openWhatCame opens a new incident for the alerts of this one that were not active when its
// restore began: they are about what was put back.
func (c *change) openWhatCame(r remediation.Restore) error {
	all, err := c.Tx.Alerts(c.Inc.ID)
	if err != nil {
		return err
	}
	var came []remediation.Alert
	for _, a := range all {
		if !a.Active || slices.Contains(r.Active, a.Fingerprint) {
			continue
		}
		a.Active = false // as if it came now
		if err := c.Tx.PutAlert(a); err != nil {
			return err
		}
		came = append(came, remediation.Alert{Status: "firing", Fingerprint: a.Fingerprint, Labels: map[string]string{
			"service": a.Service, "trigger": a.Trigger,
		}})
	}
	if len(came) == 0 {
		return nil
	}
	if err := c.Tx.PutIncident(c.Inc); err != nil { // closed, so that another may be open
		return err
	}
	return newAccept(c.e, c.Tx, nil).takeIn(came)
}
