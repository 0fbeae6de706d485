package remediation

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/locotoki/backout/alerts"
	"github.com/locotoki/backout/remediation/audit"
)

// Restore asks for the targets of an incident's steps as they were before.
func (e *Engine) Restore(ctx context.Context, id string, r RestoreRequest) (IncidentView, error) {
	if r.Reason == "" {
		return IncidentView{}, refuse(Invalid, "a reason is required")
	}
	inc, err := e.restorable(ctx, id)
	if err != nil {
		return IncidentView{}, err
	}
	b, err := e.bookFor(ctx, inc)
	if err != nil {
		return IncidentView{}, err
	}
	ev := evidence{}
	if !r.Force && inc.Restore == nil && inc.Restored == "" {
		ev = e.pollRecovery(ctx, b, inc)
		switch t := ev.beyond(inc); {
		case t != nil && ev.blind == "":
			return IncidentView{}, refuse(Conflict, "trigger %s is breaching (%s, threshold %s); force restores all the same",
				t.Trigger, decimal(*ev.values[t.Trigger].value), decimal(ev.bound(t)))
		case ev.unknown(inc) != "":
			return IncidentView{}, refuse(Conflict, "whether the breach goes on cannot be told: %s; force restores all the same", ev.unknown(inc))
		}
	}
	var answer IncidentView
	err = e.change(ctx, b, inc, func(c *change) error {
		// Asked for again, it has the effect of once.
		if c.inc.Restore == nil && (c.inc.Restored == "" || c.inc.toRestore() != nil) {
			if err := c.beginRestore(r, ev); err != nil {
				return err
			}
		}
		answer, err = viewOf(c.tx, c.inc)
		return err
	})
	if errors.Is(err, ErrStale) {
		return IncidentView{}, refuse(Conflict, "incident %s changed meanwhile: look at it again", id)
	}
	if err != nil {
		return IncidentView{}, err
	}
	e.wakeUp()
	return answer, nil
}

// restorable returns an incident that is over, or refuses.
func (e *Engine) restorable(ctx context.Context, id string) (inc *Incident, err error) {
	err = e.store.View(ctx, func(tx Tx) error {
		inc, err = tx.Incident(id)
		if errors.Is(err, ErrNotFound) {
			return refuse(Missing, "there is no incident %s", id)
		}
		return err
	})
	switch {
	case err != nil:
		return nil, err
	case inc.Restore != nil, inc.State == Closed, inc.State == Recovered:
		return inc, nil
	case inc.running() == nil && inc.failedRestore() != nil:
		return inc, nil
	}
	return nil, refuse(Conflict, "incident %s is %s: only one that is recovered or closed can be restored", id, inc.describe())
}

// failedRestore returns a step that could not be put back, or nil.
func (inc *Incident) failedRestore() *Step {
	for i := range inc.Steps {
		if s := &inc.Steps[i]; s.State == StepFailed && s.Verified {
			return s
		}
	}
	return nil
}

// toRestore returns the step that is put back next: of those that changed their
// target, the one that ran last. What was only told, and what loses data, is not
// put back.
func (inc *Incident) toRestore() *Step {
	var last *Step
	for i := range inc.Steps {
		s := &inc.Steps[i]
		if s.Before == nil || s.Risk == alerts.Lossy || !s.Verified || s.Started == nil {
			continue
		}
		if s.State != StepDone && s.State != StepFailed && (s.State != StepIntent || !s.Undoing) {
			continue
		}
		if last == nil || s.Started.After(*last.Started) || s.Started.Equal(*last.Started) && s.Number > last.Number {
			last = s
		}
	}
	return last
}

// lossyDone returns a step that lost data, which nothing brings back, or nil.
func (inc *Incident) lossyDone() *Step {
	for i := range inc.Steps {
		if s := &inc.Steps[i]; s.Risk == alerts.Lossy && s.State == StepDone {
			return s
		}
	}
	return nil
}

// beginRestore commits that an incident is to be restored, or refuses.
func (c *change) beginRestore(r RestoreRequest, ev evidence) error {
	inc := c.inc
	s := inc.toRestore()
	switch {
	case inc.Drill:
		return refuse(Conflict, "incident %s is a drill: nothing was changed", inc.ID)
	case s == nil:
		return refuse(Conflict, "incident %s changed nothing that could be put back", inc.ID)
	}
	signals, err := c.tx.Signals()
	if err != nil {
		return err
	}
	for _, s := range signals {
		if s.Service == inc.Service && !r.Force {
			return refuse(Conflict, "signal %s is raised by %s (%s): clear it first; force restores all the same", s.Name, s.By, s.Reason)
		}
	}
	if l := inc.lossyDone(); l != nil && !r.Force {
		return refuse(Conflict, "%s has run, and data is never restored%s; the code that ran before may not work with the schema as it is: "+
			"bring the database back first, then restore with force", l.ID(), snapshotOf(c.tx, inc, l))
	}
	if err := c.nothingSince(); err != nil {
		return err
	}
	closed, err := c.restoreGates(s, r.Actor)
	if err != nil {
		return err
	}
	if closed != nil {
		until := ""
		if closed.until != nil {
			until = ", until " + closed.until.UTC().Format(time.RFC3339)
		}
		return refuse(Conflict, "%s holds the restoring (%s): %s%s", closed.gate, closed.reason, closed.why, until)
	}
	inc.Restore = &Restore{By: r.Actor, Reason: r.Reason, Began: c.now, Force: r.Force}
	all, err := c.tx.Alerts(inc.ID)
	if err != nil {
		return err
	}
	for _, a := range all {
		if a.Active {
			inc.Restore.Active = append(inc.Restore.Active, a.Fingerprint)
		}
	}
	inc.Closed, inc.Restored = nil, ""
	inc.unstuck()
	c.enter(Acting, 0)
	return c.audit(audit.KindRestored, r.Actor, nil, ev.all(inc, map[string]any{
		"reason": r.Reason, "state": "begun", "force": r.Force, "next": s.ID(),
	}))
}

// nothingSince refuses where something later stands on what would be taken away.
func (c *change) nothingSince() error {
	later, err := c.tx.Incidents(IncidentFilter{Service: c.inc.Service, After: c.inc.ID})
	if err != nil {
		return err
	}
	for _, l := range later {
		switch {
		case l.Drill:
		case l.State != Closed:
			return refuse(Conflict, "incident %s of %s is open (%s)", l.ID, l.Service, l.describe())
		case l.toRestore() != nil:
			return refuse(Conflict, "incident %s came later and changed something too: restore that first", l.ID)
		}
	}
	r, err := rolloutOf(c.tx, c.inc.Service)
	if err != nil {
		return err
	}
	if r.Promotion != nil {
		return refuse(Conflict, "%s is under way", r.Promotion.step())
	}
	if r.active() && (r.Release != c.inc.Release || c.inc.RolledBack != nil) {
		return refuse(Conflict, "another rollout has begun since: %s is at stage %s", r.Release, r.Stage)
	}
	return nil
}

// restoreGates asks the gates that hold a commander too. A commander and a reason
// stand in place of confirmation, silence, rollout and approval; and what somebody
// takes back need not wait for the cooldown, which keeps automation from repeating itself.
func (c *change) restoreGates(s *Step, actor string) (*gateResult, error) {
	limits, err := c.limits(s)
	if err != nil {
		return nil, err
	}
	freeze, err := c.frozen()
	if err != nil {
		return nil, err
	}
	target, err := c.targetFree(s)
	if err != nil {
		return nil, err
	}
	claim := c.claim()
	if c.inc.ClaimedBy == actor {
		claim = gateResult{gate: "claim"}
	}
	for _, g := range append([]gateResult{c.mode(s), freeze, claim, target}, limits...) {
		if g.reason != "" && (g.reason != HoldCooldown || g.gate == gateTarget) {
			return &g, nil
		}
	}
	return nil, nil
}

// snapshotOf says where the snapshot is that a lossy step took.
func snapshotOf(tx Tx, inc *Incident, s *Step) string {
	entries, err := tx.Entries(audit.Filter{Incident: inc.ID, Kind: audit.KindOutcome})
	if err != nil {
		return ""
	}
	for _, en := range slices.Backward(entries) {
		after, _ := en.Detail["after"].(map[string]any)
		dump, _ := after["dump"].(map[string]any)
		if path, _ := dump["path"].(string); en.Step == s.ID() && path != "" {
			return fmt.Sprintf(" (the snapshot taken before it is %s, SHA-256 %v)", path, dump["sha256"])
		}
	}
	return ""
}

// restoreTries is how often putting one step back is tried while it is not
// known what became of it.
const restoreTries = 3

// restore puts the next step back, or ends. Each step writes its own intent and
// outcome, and looks at its target first: what somebody changed since stays.
func (e *Engine) restore(ctx context.Context, b *book, inc *Incident) error {
	s := inc.toRestore()
	if s == nil {
		return e.change(ctx, b, inc, (*change).endRestore)
	}
	if !s.Undoing {
		begun, err := e.intendRestore(ctx, b, inc, s)
		if err != nil || !begun {
			return err
		}
		if inc, s, err = e.read(ctx, inc.ID, s.ID()); err != nil {
			return err
		}
	}
	op := inc.operation(s)
	undoErr := e.act(ctx, b, s, func(ctx context.Context, a Action) error {
		if r, ok := a.(Restorer); ok {
			return r.Restore(ctx, op, s.Before)
		}
		return a.Undo(ctx, op, s.Before)
	})
	if undoErr == nil {
		var look Look
		if look, undoErr = e.look(ctx, b, inc, s); undoErr == nil && look.Position == HalfWay {
			undoErr = InDoubt(fmt.Errorf("%s: its target is half-way still", s.ID()))
		}
	}
	return e.record(ctx, b, inc.ID, func(c *change) error {
		s := c.inc.step(s.ID())
		if isInDoubt(undoErr) && s.Doubts < restoreTries {
			s.Doubts++
			c.inc.Wake = c.now.Add(b.poll())
			return c.audit(audit.KindInDoubt, actorEngine, s, map[string]any{"undo": true, "error": undoErr.Error(), "target": s.Target})
		}
		return c.putBack(s, undoErr)
	})
}

// intendRestore commits that a step is about to be put back, or says why not.
func (e *Engine) intendRestore(ctx context.Context, b *book, inc *Incident, s *Step) (begun bool, err error) {
	look, lookErr := e.look(ctx, b, inc, s)
	err = e.change(ctx, b, inc, func(c *change) error {
		begun = false
		s := c.inc.step(s.ID())
		closed, err := c.restoreGates(s, c.inc.Restore.By)
		switch {
		case err != nil:
			return err
		case lookErr != nil:
			closed = &gateResult{reason: HoldTarget, why: lookErr.Error()}
		}
		if closed != nil {
			return c.hold(nil, *closed, map[string]any{"undo": true, "target": s.Target})
		}
		if look.Position == Untouched {
			s.State, s.Finished, s.Verified = StepUndone, &c.now, false
			return c.audit(audit.KindOutcome, actorEngine, s, map[string]any{
				"undo": true, "outcome": string(StepNoChange), "target": s.Target, "after": look.Snapshot,
				"why": "somebody changed the target since: it stays as it is",
			})
		}
		begun = true
		s.State, s.Undoing, s.Started, s.Finished, s.Error, s.Doubts = StepIntent, true, &c.now, nil, "", 0
		c.enter(Acting, 0)
		err = c.tx.PutEffect(Effect{Time: c.now, Service: c.inc.Service, Action: s.Action, Target: s.Target, Incident: c.inc.ID, Step: s.attempt()})
		if err != nil {
			return err
		}
		return c.audit(audit.KindIntent, c.inc.Restore.By, s, map[string]any{
			"undo": true, "reason": c.inc.Restore.Reason, "before": look.Snapshot, "after": s.Before, "target": s.Target,
		})
	})
	return begun, err
}

// putBack records what became of putting one step back.
func (c *change) putBack(s *Step, undoErr error) error {
	s.Undoing, s.Finished = false, &c.now
	detail := map[string]any{"undo": true, "target": s.Target, "after": s.Before}
	effect := EffectDone
	if s.State = StepUndone; undoErr != nil {
		s.State, s.Error, effect = StepFailed, undoErr.Error(), EffectFailed
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
		c.enter(Acting, 0)
		return nil
	}
	by := c.inc.Restore.By
	c.inc.Restore = nil
	c.inc.resetPolls()
	why := fmt.Sprintf("%s could not be put back: %s", s.ID(), s.Error)
	if err := c.audit(audit.KindRestored, by, s, map[string]any{"state": "failed", "error": s.Error}); err != nil {
		return err
	}
	if err := c.hold(nil, gateResult{reason: HoldStepFailed, why: why + "; mend it, then restore again, or close the incident"}, map[string]any{}); err != nil {
		return err
	}
	return c.page(string(HoldStepFailed), why)
}

// endRestore closes the incident, and sets the rollout where it was, held: going
// on is a commander's own decision.
func (c *change) endRestore() error {
	inc, r := c.inc, *c.inc.Restore
	rollout, err := rolloutOf(c.tx, inc.Service)
	if err != nil {
		return err
	}
	if inc.RolledBack != nil {
		rollout = *inc.RolledBack
	}
	var lost []string
	if l := inc.lossyDone(); l != nil {
		lost = append(lost, l.ID()+" stays as it is: data is never restored"+snapshotOf(c.tx, inc, l))
	}
	inc.Restore, inc.Restored, inc.RolledBack, inc.ByHand = nil, r.By, nil, r.Force
	detail := map[string]any{"state": "done", "reason": r.Reason}
	if len(lost) > 0 {
		detail["why"] = strings.Join(lost, "; ")
	}
	if err := c.audit(audit.KindRestored, r.By, nil, detail); err != nil {
		return err
	}
	if err := c.close(r.By, map[string]any{"reason": "restored", "why": r.Reason}); err != nil {
		return err
	}
	inc.RolledBack = nil
	if rollout.Release == inc.Release && rollout.Stage != StageNone && rollout.active() {
		rollout.Held, rollout.StageSince = true, &c.now
		if err := c.tx.PutRollout(rollout); err != nil {
			return err
		}
		err := c.audit(audit.KindStage, r.By, nil, map[string]any{
			"state": rollout.State, "stage": rollout.Stage, "release": rollout.Release, "held": true, "why": "restored after " + inc.ID,
		})
		if err != nil {
			return err
		}
	}
	return c.openWhatCame(r)
}

// openWhatCame opens a new incident for alerts that came while this one was
// being restored: they are about what was put back.
func (c *change) openWhatCame(r Restore) error {
	all, err := c.tx.Alerts(c.inc.ID)
	if err != nil {
		return err
	}
	var came []Alert
	for _, a := range all {
		if !a.Active || slices.Contains(r.Active, a.Fingerprint) {
			continue
		}
		a.Active = false // as if it came now
		if err := c.tx.PutAlert(a); err != nil {
			return err
		}
		came = append(came, Alert{Status: "firing", Fingerprint: a.Fingerprint, Labels: map[string]string{
			"service": a.Service, "trigger": a.Trigger,
		}})
	}
	if len(came) == 0 {
		return nil
	}
	if err := c.tx.PutIncident(c.inc); err != nil { // closed, so that another may be open
		return err
	}
	return newAccept(c.e, c.tx, nil).takeIn(came)
}
