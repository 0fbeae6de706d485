package incident

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/locotoki/backout/alerts"
	"github.com/locotoki/backout/hint"
	"github.com/locotoki/backout/remediation"
	"github.com/locotoki/backout/remediation/audit"
	"github.com/locotoki/backout/remediation/ledger"
	"github.com/locotoki/backout/remediation/plan"
	"github.com/locotoki/backout/remediation/view"
)

// ChangeIncident carries out a person's decision. Every change needs a reason, and is
// one audit entry with the person's name.
func (e *Responder) ChangeIncident(ctx context.Context, id string, verb view.Verb, step, actor, reason string) (view.IncidentView, error) {
	do, ok := verbs[verb]
	if !ok {
		return view.IncidentView{}, remediation.Refuse(remediation.Invalid, "unknown incident action %q", verb)
	}
	return e.decide(ctx, id, verb, reason, func(c *change) error { return do(c, step, actor, reason) })
}

// ApproveOver lets a step run over the limit that holds it, that of the named gate: of its
// realm for as long as the limit's window, of its playbook until time would. It answers no
// other question: a step that can lose data still needs its own approval.
func (e *Responder) ApproveOver(ctx context.Context, id, step, gate, actor, reason string) (view.IncidentView, error) {
	return e.decide(ctx, id, view.Approve, reason, func(c *change) error { return c.approveOver(step, gate, actor, reason) })
}

// ApproveQuestion approves a step if the named request is the one that waits for an answer:
// who answers an earlier one has not seen the facts of this one.
func (e *Responder) ApproveQuestion(ctx context.Context, id, step, question, actor, reason string) (view.IncidentView, error) {
	return e.decide(ctx, id, view.Approve, reason, func(c *change) error {
		s, err := c.awaiting(step)
		switch {
		case err != nil:
		case s.Approved != "":
			err = hint.Add(remediation.Refuse(remediation.Conflict, "%s has already approved %s", s.Approved, step), "backout incident show %s", id)
		case s.Question() != question:
			err = hint.Add(remediation.Refuse(remediation.Conflict, "this answers an earlier request: %s was asked for again at %s", step, remediation.MomentFrom(c.Now, *s.ApprovalAsked)),
				"look at the incident again, and answer what is asked now")
		}
		if err != nil {
			return err
		}
		return c.approveStep(step, actor, reason)
	})
}

// decide commits one change of an incident.
func (e *Responder) decide(ctx context.Context, id string, verb view.Verb, reason string, do func(c *change) error) (view.IncidentView, error) {
	if reason == "" {
		return view.IncidentView{}, remediation.Refuse(remediation.Invalid, "a reason is required")
	}
	var answer view.IncidentView
	err := e.Store.Update(ctx, func(tx remediation.Tx) error {
		inc, err := tx.Incident(id)
		if errors.Is(err, remediation.ErrNotFound) {
			return remediation.NoIncident(id)
		}
		if err != nil {
			return err
		}
		b, err := e.PlanIn(tx, inc)
		if isUnreadable(err) && (verb == view.Claim || verb == view.Close) {
			b, err = plan.Empty(inc), nil
		}
		if err != nil {
			return refuseUnreadable(inc, err)
		}
		if inc.State == remediation.Closed && verb != view.Close {
			return closed(id)
		}
		c := e.on(tx, b, inc, e.Now())
		if err := do(c); err != nil {
			return err
		}
		if err := tx.PutIncident(inc); err != nil {
			return err
		}
		answer, err = view.OfIncident(tx, inc)
		answer.SetUnits(b)
		return err
	})
	if err != nil {
		return view.IncidentView{}, err
	}
	e.WakeUp()
	return answer, nil
}

// readablePlan is PlanIn for a change that a person asked for.
func (e *Responder) readablePlan(tx remediation.Tx, inc *remediation.Incident) (*plan.Plan, error) {
	b, err := e.PlanIn(tx, inc)
	return b, refuseUnreadable(inc, err)
}

func isUnreadable(err error) bool { return errors.As(err, new(*ledger.UnreadableError)) }

// refuseUnreadable makes a refusal of an open incident's playbook that cannot be read.
func refuseUnreadable(inc *remediation.Incident, err error) error {
	if isUnreadable(err) {
		return hint.Add(remediation.Refuse(remediation.Conflict, "incident %s: %v", inc.ID, err), "claim and close it")
	}
	return err
}

// closed refuses to change an incident that is over.
func closed(id string) error {
	return hint.Add(remediation.Refuse(remediation.Conflict, "incident %s is closed", id),
		"backout incident show %[1]s; to undo its steps: backout incident restore %[1]s --reason=WHY", id)
}

// verbs are the changes that a person can make.
var verbs = map[view.Verb]func(c *change, step, actor, reason string) error{
	view.Approve: (*change).approveStep,
	view.Deny:    (*change).denyStep,
	view.Claim:   (*change).claimIncident,
	view.Release: (*change).releaseIncident,
	view.Close:   (*change).closeByHand,
}

// awaiting returns the step whose approval the incident waits for: an answer that
// comes after it has left that wait is void.
func (c *change) awaiting(step string) (*remediation.Step, error) {
	s := c.Inc.Step(step)
	if s == nil {
		return nil, hint.Add(remediation.Refuse(remediation.Missing, "incident %s has no step %q", c.Inc.ID, step), "%s", c.stepsHint())
	}
	if c.Inc.State != remediation.Waiting || c.Inc.Reason != remediation.HoldApproval || c.Inc.Next() != s || s.ApprovalPlan != c.Inc.PlanHash() {
		return nil, c.overHint(remediation.Refuse(remediation.Conflict, "incident %s is not waiting for approval of %s: it is %s", c.Inc.ID, step, c.Inc.Describe()),
			"backout incident show %[1]s says what comes next; to let no further step run: backout incident claim %[1]s --reason=WHY", c.Inc.ID)
	}
	return s, nil
}

// stepsHint names the incident's steps.
func (c *change) stepsHint() string {
	ids := make([]string, len(c.Inc.Steps))
	for i := range c.Inc.Steps {
		ids[i] = c.Inc.Steps[i].ID()
	}
	return "one of its steps: " + remediation.Names(ids, "it has none yet")
}

// overHint adds how the step runs that a limit holds now, or else another hint.
func (c *change) overHint(err error, format string, args ...any) error {
	if s, limit := c.Inc.OverLimit(); s != nil {
		return hint.Add(err, "to let it run over the limit: %s", remediation.OverCommand(c.Inc.ID, s.ID(), limit))
	}
	return hint.Add(err, format, args...)
}

// unfrozen refuses an approval while a freeze holds the service: the wait for the freeze
// would discard it.
func (c *change) unfrozen(step string) error {
	all, err := c.e.FreezesIn(c.Tx)
	if err != nil {
		return err
	}
	for _, f := range all {
		if f.Scope == remediation.ScopeAll && (f.Service == "" || f.Service == c.Inc.Service) {
			what, service := "every service", ""
			if f.Service != "" {
				what, service = f.Service, " --service="+f.Service
			}
			return hint.Add(remediation.Refuse(remediation.Conflict, "%s is frozen, so the approval of %s would lapse before it runs", what, step), "backout thaw%s --reason=WHY, then approve again", service)
		}
	}
	return nil
}

func (c *change) approveStep(step, actor, reason string) error {
	s, err := c.awaiting(step)
	if err != nil {
		return err
	}
	if err := c.unfrozen(step); err != nil {
		return err
	}
	if c.Inc.Until != nil && !c.Inc.Until.After(c.Now) {
		return hint.Add(remediation.Refuse(remediation.Conflict, "the time to approve %s ended at %s", step, remediation.MomentFrom(c.Now, *c.Inc.Until)), "backout incident show %s", c.Inc.ID)
	}
	s.Approved = actor
	c.Inc.Wake = c.Now
	return c.Audit(audit.KindApproved, actor, s, map[string]any{"reason": reason, "plan": s.ApprovalPlan})
}

func (c *change) approveOver(step, gate, actor, reason string) error {
	if c.Inc.Step(step) == nil {
		return hint.Add(remediation.Refuse(remediation.Missing, "incident %s has no step %q", c.Inc.ID, step), "%s", c.stepsHint())
	}
	if known := remediation.LimitGates(); !slices.Contains(known, gate) {
		return hint.Add(remediation.Refuse(remediation.Invalid, "unknown limit %q", gate), "%s", alerts.OneOf(gate, known))
	}
	s, limit := c.Inc.OverLimit()
	if s == nil || s.ID() != step || limit != gate {
		return c.overHint(remediation.Refuse(remediation.Conflict, "the limit %s does not hold %s of %s: the incident is %s", gate, step, c.Inc.ID, c.Inc.Describe()),
			"backout incident show %s says what it waits for", c.Inc.ID)
	}
	if err := c.unfrozen(step); err != nil {
		return err
	}
	until := *c.Inc.Until
	if limit == remediation.GateRealm {
		until = c.Now.Add(c.RealmLimit().Services.Window)
	}
	s.Over = append(s.Over, remediation.Over{Gate: limit, By: actor, Until: until})
	c.Inc.Wake = c.Now
	return c.Audit(audit.KindApproved, actor, s, map[string]any{"reason": reason, "gate": limit, "plan": c.Inc.PlanHash()})
}

func (c *change) denyStep(step, actor, reason string) error {
	s, err := c.awaiting(step)
	if err != nil {
		return err
	}
	return c.deny(s, actor, reason)
}

func (c *change) claimIncident(_, actor, reason string) error {
	if c.Inc.ClaimedBy != "" {
		return hint.Add(remediation.Refuse(remediation.Conflict, "incident %s is claimed by %s", c.Inc.ID, c.Inc.ClaimedBy), "backout incident release %[1]s --reason=WHY, then claim it", c.Inc.ID)
	}
	c.Inc.ClaimedBy = actor
	return c.Audit(audit.KindClaimed, actor, nil, map[string]any{"reason": reason})
}

// releaseIncident gives a claimed incident back to automation; what failed may
// be tried again, and a row of failures is over. What could not be put back waits for a
// restore, or a breach.
func (c *change) releaseIncident(_, actor, reason string) error {
	if c.Inc.ClaimedBy == "" {
		return remediation.Refuse(remediation.Conflict, "incident %s is not claimed", c.Inc.ID)
	}
	c.Inc.ClaimedBy = ""
	c.Inc.VoidApprovals()
	if err := c.Audit(audit.KindReleased, actor, nil, map[string]any{"reason": reason}); err != nil {
		return err
	}
	err := c.Tx.PutEffect(remediation.Effect{
		Time: c.Now, Service: c.Inc.Service, Incident: c.Inc.ID, Step: "release@" + c.Now.UTC().Format(time.RFC3339Nano), Outcome: remediation.EffectReleased,
	})
	if err != nil {
		return err
	}
	for i := range c.Inc.Steps {
		if s := &c.Inc.Steps[i]; s.State == remediation.StepFailed && !s.NotPutBack() || s.State == remediation.StepUndone || s.State == remediation.StepInDoubt {
			s.Again(s.State != remediation.StepUndone)
		}
	}
	c.Inc.LastHeld = ""
	c.Inc.Unstuck()
	switch {
	case c.Inc.FailedRestore() != nil:
		c.Inc.Review = true // a breach is acted on again, behind a look at what the restore left
	case c.Inc.State == remediation.Waiting:
		c.Inc.ResetPolls()
		c.Enter(remediation.Confirming, 0)
	case c.Inc.State == remediation.Exhausted && c.Inc.Next() != nil:
		c.Inc.ResetPolls()
		c.Enter(remediation.Confirming, 0)
	}
	return nil
}

// closeByHand ends an incident for a person, who then also answers for a step in
// doubt whose target cannot be looked at. Closed again, the incident is over for the public too.
func (c *change) closeByHand(_, actor, reason string) error {
	if c.Inc.State == remediation.Closed {
		return c.sayOver(actor, reason)
	}
	if s := c.Inc.Running(); s != nil && c.Inc.Reason == remediation.HoldTarget {
		effect := remediation.EffectFailed
		if s.State == remediation.StepDone { // it had its effect, which nobody could verify
			effect = remediation.EffectDone
		}
		s.State, s.Finished, s.Undoing = remediation.StepInDoubt, &c.Now, false
		err := c.outcome(s, effect, map[string]any{"outcome": string(remediation.StepInDoubt), "why": "closed by " + actor + " while in doubt", "target": s.Target})
		if err != nil {
			return err
		}
	}
	if s := c.Inc.Running(); s != nil {
		return hint.Add(remediation.Refuse(remediation.Conflict, "incident %s is running %s", c.Inc.ID, s.ID()), "close it once the step has an outcome")
	}
	raised, err := c.raised()
	if err != nil {
		return err
	}
	measured := slices.ContainsFunc(c.Inc.Triggers, func(t remediation.TriggerState) bool { return t.Signal == "" })
	c.Inc.ByHand = raised != nil || measured && (c.Inc.State != remediation.Recovered || c.Inc.Breaching(1) != nil)
	if err := c.dismiss(); err != nil {
		return err
	}
	return c.close(actor, map[string]any{"reason": reason})
}

// sayOver tells the public on a person's word that the breach of a closed incident is over.
func (c *change) sayOver(actor, reason string) error {
	if told, err := toldPublic(c.Tx, c.Inc); err != nil {
		return err
	} else if !told {
		return closed(c.Inc.ID)
	}
	if err := c.Audit(audit.KindClosed, actor, nil, map[string]any{"reason": reason, "why": "the breach is over, and the public status page says so"}); err != nil {
		return err
	}
	c.over()
	c.seen()
	c.Inc.Wake = c.Now
	return c.follow(remediation.PublicResolved)
}

// Freezes returns the freezes in force.
func (e *Responder) Freezes(ctx context.Context) (out []remediation.Freeze, err error) {
	err = e.Store.View(ctx, func(tx remediation.Tx) error {
		out, err = e.FreezesIn(tx)
		return err
	})
	return out, err
}

// maxFreeze is the longest freeze that ends by itself. No time format of ours has a year
// after 9999.
const maxFreeze = 10 * 365 * 24 * time.Hour

// PutFreeze blocks steps, or promotions, until it ends or is thawed. A freeze that ends
// before another of the same scope leaves that one in force, and returns it.
func (e *Responder) PutFreeze(ctx context.Context, f remediation.Freeze) (remediation.Freeze, error) {
	switch {
	case f.Scope != remediation.ScopeAll && f.Scope != remediation.ScopePromotions:
		return remediation.Freeze{}, hint.Add(remediation.Refuse(remediation.Invalid, "unknown scope %q", f.Scope), "all or promotions")
	case f.Reason == "":
		return remediation.Freeze{}, remediation.Refuse(remediation.Invalid, "a reason is required")
	case f.RanOut(e.Now()):
		return remediation.Freeze{}, hint.Add(remediation.Refuse(remediation.Invalid, "until %s is in the past", remediation.MomentFrom(e.Now(), *f.Until)), "a later time")
	case f.Until != nil && f.Until.Sub(e.Now()) > maxFreeze:
		return remediation.Freeze{}, hint.Add(remediation.Refuse(remediation.Invalid, "until is more than 10 years away"), "leave it out: the freeze then lasts until you thaw it")
	}
	f.Since = e.Now().UTC()
	detail := map[string]any{"scope": f.Scope, "reason": f.Reason}
	if f.Until != nil {
		u := f.Until.UTC()
		f.Until = &u
		detail["until"] = u.Format(time.RFC3339)
	}
	inForce := f
	err := e.Store.Update(ctx, func(tx remediation.Tx) error {
		inForce = f
		if f.Service != "" && e.PlanOf(f.Service) == nil { // a reload may have left it out while an incident acts
			if open, err := remediation.OpenIncident(tx, f.Service); err != nil {
				return err
			} else if open == nil {
				return e.NoPlan(f.Service)
			}
		}
		all, err := e.FreezesIn(tx)
		if err != nil {
			return err
		}
		for _, old := range all {
			if old.Service == f.Service && old.Scope == f.Scope && old.Outlasts(f) {
				inForce = old
				detail["longer"] = fmt.Sprintf("already frozen by %s for longer: %s", old.By, old.Reason)
			}
		}
		if err := tx.PutFreeze(inForce); err != nil {
			return err
		}
		return e.Append(tx, audit.Entry{Kind: audit.KindFrozen, Actor: f.By, Service: f.Service, Detail: detail})
	})
	if err != nil {
		return remediation.Freeze{}, err
	}
	e.WakeUp()
	return inForce, nil
}

// Thaw ends a service's freezes, of every scope; "" ends those that are for
// every service.
func (e *Responder) Thaw(ctx context.Context, service, actor, reason string) (left []remediation.Freeze, err error) {
	if reason == "" {
		return nil, remediation.Refuse(remediation.Invalid, "a reason is required")
	}
	err = e.Store.Update(ctx, func(tx remediation.Tx) error {
		all, err := e.FreezesIn(tx)
		if err != nil {
			return err
		}
		found := false
		for _, f := range all {
			if f.Service != service {
				continue
			}
			found = true
			if err := e.LiftFreeze(tx, f, actor, reason); err != nil {
				return err
			}
		}
		if !found {
			return notFrozen(service, all)
		}
		left, err = e.FreezesIn(tx)
		return err
	})
	if err != nil {
		return nil, err
	}
	e.WakeUp()
	return left, nil
}

// notFrozen refuses to end a freeze that there is not, and says how one ends that there is.
func notFrozen(service string, all []remediation.Freeze) error {
	err := remediation.Refuse(remediation.Missing, "%s is not frozen", service)
	if service == "" {
		err = remediation.Refuse(remediation.Missing, "there is no global freeze")
	}
	switch {
	case len(all) == 0:
		return hint.Add(err, "backout status, which lists all freezes")
	case all[0].Service == "":
		return hint.Add(err, "backout thaw --reason=WHY")
	}
	return hint.Add(err, "backout thaw --service=%s --reason=WHY", all[0].Service)
}

// LiftFreeze ends one freeze and wakes what it held.
func (e *Responder) LiftFreeze(tx remediation.Tx, f remediation.Freeze, actor, reason string) error {
	if err := tx.DeleteFreeze(f.Service, f.Scope); err != nil {
		return err
	}
	open, err := tx.Incidents(remediation.IncidentFilter{Service: f.Service, Open: true})
	if err != nil {
		return err
	}
	for _, inc := range open {
		if inc.State != remediation.Waiting || inc.Reason != remediation.HoldFrozen {
			continue
		}
		inc.Wake = e.Now()
		if err := tx.PutIncident(inc); err != nil {
			return err
		}
	}
	return e.Append(tx, audit.Entry{Kind: audit.KindThawed, Actor: actor, Service: f.Service, Detail: map[string]any{"scope": f.Scope, "reason": reason}})
}
