package rollout

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/locotoki/backout/alerts"
	"github.com/locotoki/backout/remediation"
	"github.com/locotoki/backout/remediation/audit"
	"github.com/locotoki/backout/remediation/lease"
	"github.com/locotoki/backout/remediation/ledger"
	"github.com/locotoki/backout/remediation/operation"
	"github.com/locotoki/backout/remediation/plan"
)

// RunPromotion takes a promotion as far as it goes now: effect, outcome,
// verification. It is safe to begin again at any point, which is what a restart
// does: one that was begun before is looked at first.
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
	op := operation.Operation{
		ID: p.Op, Name: p.Step(), Target: p.Target, Before: p.Before, Epoch: p.Epoch,
		Bind: func() (remediation.Action, error) { return action, nil },
	}
	j := &journal{e: e, b: b, p: p}
	switch {
	case p.Undoing:
		return operation.Revert(ctx, e.Gates, op, j, errors.New(p.Error))
	case p.Applied:
		return operation.ResumeVerify(ctx, e.Gates, op, j)
	}
	first, err := e.beginsFirst(ctx, b, p)
	switch {
	case err != nil:
		return err
	case !first:
		return operation.Resume(ctx, e.Gates, op, j)
	}
	op.Epoch = lease.EpochOf(ctx)
	return operation.Run(ctx, e.Gates, op, j)
}

// beginsFirst reports whether nobody can have begun the effect of an intent: this process
// wrote it and has not, or a live replica did, which leaves that to the one that acts. It
// is known once, so that a second try looks first.
func (e *Promoter) beginsFirst(ctx context.Context, b *plan.Plan, p *remediation.Promotion) (first bool, err error) {
	if lease.From(ctx) == nil {
		_, before := e.begun.LoadOrStore(p.Op, true)
		return p.Writer == e.process && !before, nil
	}
	err = e.onPromotion(ctx, b, p.Op, func(c *promoting) error {
		live, err := remediation.LiveReplicas(c.tx, c.now)
		if err != nil {
			return err
		}
		first = !c.p.Begun && slices.ContainsFunc(live, func(r remediation.Replica) bool { return r.ID == c.p.Writer })
		if first {
			c.p.Begun, c.p.Epoch = true, lease.EpochOf(ctx)
		}
		return nil
	}, nothing)
	return first, err
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
		return c.fail(remediation.StepFailed, cause.Error())
	}, nothing)
}

func nothing(remediation.Tx) error { return nil }

// forward is how long a promotion's effect and verification may still take: what
// is left is for taking it back, before a rollback waits no longer.
func (e *Promoter) forward(p *remediation.Promotion) time.Duration {
	return p.Until.Add(-promotionBack).Sub(e.Now())
}

// journal commits the outcome of a promotion; its rollout's stage stays until it is
// verified.
type journal struct {
	e *Promoter
	b *plan.Plan
	p *remediation.Promotion // as it began, or was begun again
	// said: what is known too late was appended, once for the operation.
	said bool
}

// Limit implements operation.Journal.
func (j *journal) Limit(p operation.Phase) time.Duration {
	switch p {
	case operation.Undo:
		return promotionBack
	case operation.Verify: // what is not looked at has not failed
		return max(j.e.forward(j.p), ledger.LookTimeout)
	}
	return j.e.forward(j.p)
}

// record commits what has happened; seen says it for the case that another replica has
// the realm by now, or the promotion was ended: then it is appended, and changes no row.
func (j *journal) record(ctx context.Context, seen map[string]any, fn func(c *promoting) error) error {
	late := func(tx remediation.Tx) error { return j.late(ctx, tx, seen) }
	err := j.e.onPromotion(ctx, j.b, j.p.Op, fn, late)
	if !errors.Is(err, lease.ErrLost) {
		return err
	}
	return errors.Join(err, j.e.Store.Update(lease.Outside(ctx), late))
}

// late appends what is still known of a promotion that is another replica's by now, or has
// ended. Traffic that was set after its end was written holds the rollout, for a person; a
// person is called where the rollout has ended too: a rollback may have turned it off.
func (j *journal) late(ctx context.Context, tx remediation.Tx, seen map[string]any) error {
	if j.said {
		return nil
	}
	tx.OnCommit(func() { j.said = true })
	seen["target"] = j.p.Target
	if h := lease.From(ctx); h != nil {
		seen["replica"], seen["realm"], seen["epoch"] = h.Name, h.Realm, h.Epoch
	}
	err := j.e.Append(tx, audit.Entry{
		Kind: audit.KindLateOutcome, Actor: remediation.ActorEngine, Service: j.b.Service, Step: j.p.Step(), Action: remediation.ActionFlagSet, Detail: seen,
	})
	if err != nil || seen["outcome"] != string(remediation.StepDone) {
		return err
	}
	r, err := remediation.RolloutOf(tx, j.b.Service)
	over := r.State == remediation.RolloutRolledBack || r.State == remediation.RolloutAborted
	switch {
	case err != nil:
		return err
	case over:
		return j.page(tx, r)
	case !r.Active() || r.Held || r.Promotion != nil && r.Promotion.Op == j.p.Op || r.Stage == j.p.To:
		return nil
	}
	r.Held = true
	why := fmt.Sprintf("%s had ended, and its traffic was set after that", j.p.Step())
	if err := j.e.stageEntry(tx, r, remediation.ActorEngine, map[string]any{"why": why}); err != nil {
		return err
	}
	return tx.PutRollout(r)
}

// page calls a person for traffic that was set after its rollout had ended, by the incident
// that is the service's newest; a closed one pages for as long as it could be reopened.
func (j *journal) page(tx remediation.Tx, r remediation.Rollout) error {
	why := fmt.Sprintf("%s set %s to %s on %s after the rollout had ended (%s): users may be on %s again; check the flag, and turn it off by hand",
		j.p.Step(), j.p.Flag, j.p.Value, j.p.Target, strings.ReplaceAll(r.State, "_", " "), r.Release)
	drill := false
	newest, err := tx.Incidents(remediation.IncidentFilter{Service: r.Service, Drill: &drill, Newest: true, Limit: 1})
	if err != nil {
		return err
	}
	reason := string(remediation.HoldTarget)
	if len(newest) == 0 {
		return j.e.Append(tx, audit.Entry{Kind: audit.KindNotified, Actor: remediation.ActorEngine, Service: r.Service, Detail: map[string]any{
			"metric": "backout_needs_human", "reason": reason, "why": why,
		}})
	}
	inc := newest[0]
	if err := j.e.Ledger.On(tx, j.b, inc, j.e.Now()).Page(reason, why); err != nil {
		return err
	}
	return tx.PutIncident(inc)
}

// Applied implements operation.Journal.
func (j *journal) Applied(ctx context.Context, detail map[string]any) error {
	return j.record(ctx, map[string]any{"outcome": string(remediation.StepDone)}, func(c *promoting) error {
		c.p.Applied = true
		return c.outcome(c.now, remediation.StepDone, remediation.EffectDone, detail)
	})
}

// Verifying implements operation.Journal: a promotion gets its time once more where
// that went by while backout was down and no rollback waits. What was not looked at
// has not failed.
func (j *journal) Verifying(ctx context.Context) error {
	if j.e.forward(j.p) > 0 {
		return nil
	}
	return j.record(ctx, map[string]any{"outcome": string(remediation.StepDone)}, func(c *promoting) error {
		j.p.Until = c.p.Until
		open, err := remediation.OpenIncident(c.tx, c.r.Service)
		if err != nil || open != nil {
			return err
		}
		c.p.Until = c.now.Add(promotionForward + promotionBack)
		j.p.Until = c.p.Until
		return nil
	})
}

// Verified implements operation.Journal.
func (j *journal) Verified(ctx context.Context) error {
	return j.record(ctx, map[string]any{"verified": true}, func(c *promoting) error {
		open, err := remediation.OpenIncident(c.tx, c.r.Service)
		if err != nil {
			return err
		}
		if open != nil && open.Intended && !c.now.Before(c.p.Until) {
			return c.abandonTo(open, errors.New("a rollback was waiting and it took too long"))
		}
		if err := c.audit(audit.KindVerified, remediation.ActorEngine, map[string]any{"value": c.p.Value}); err != nil {
			return err
		}
		if err := c.effect(c.now, remediation.EffectDone); err != nil { // the warmup counts from here
			return err
		}
		return c.complete()
	})
}

// Undoing implements operation.Journal. Where an incident has waited long enough and
// begun to act, its steps have the target; until then, a target that was left half-way
// is fixed first.
func (j *journal) Undoing(ctx context.Context, cause error) (bool, error) {
	ours := false // nor is it once the promotion has ended
	err := j.record(ctx, map[string]any{"error": cause.Error()}, func(c *promoting) error {
		open, err := remediation.OpenIncident(c.tx, c.r.Service)
		if err != nil {
			return err
		}
		late := !c.now.Before(c.p.Until)
		if ours = open == nil || !open.Intended || !late; !ours {
			return c.abandonTo(open, cause)
		}
		// It has its whole time: an incident waits for its end, and no longer.
		if until := c.now.Add(promotionBack); until.After(c.p.Until) {
			c.p.Until = until
		}
		if c.p.Undoing {
			return nil
		}
		c.p.Undoing, c.p.Error, c.p.Epoch = true, cause.Error(), lease.EpochOf(ctx)
		return c.audit(audit.KindIntent, remediation.ActorEngine, map[string]any{"undo": true, "error": c.p.Error, "after": c.p.Before})
	})
	return ours, err
}

// Undone implements operation.Journal.
func (j *journal) Undone(ctx context.Context, undoErr error) error {
	seen := map[string]any{"undo": true, "outcome": string(remediation.StepUndone)}
	if undoErr != nil {
		seen["outcome"], seen["error"] = string(remediation.StepFailed), undoErr.Error()
	}
	return j.record(ctx, seen, func(c *promoting) error {
		detail := map[string]any{"undo": true, "error": c.p.Error}
		s, why := remediation.StepUndone, c.p.Error+"; the traffic is unchanged"
		if undoErr != nil {
			s, why = remediation.StepFailed, fmt.Sprintf("%s; it could not be undone: %s", c.p.Error, undoErr)
			detail["undo_error"] = undoErr.Error()
		}
		if err := c.outcome(c.now, s, remediation.EffectFailed, detail); err != nil {
			return err
		}
		return c.fail(s, why)
	})
}

// abandonTo ends a promotion whose target an incident's steps have.
func (c *promoting) abandonTo(inc *remediation.Incident, cause error) error {
	why := fmt.Sprintf("%s; incident %s handles its target", cause, inc.ID)
	if err := c.outcome(c.p.Started, remediation.StepFailed, remediation.EffectFailed, map[string]any{"error": cause.Error(), "why": why}); err != nil {
		return err
	}
	return c.fail(remediation.StepFailed, why)
}

// Doubted implements operation.Journal. Once its time is over, that the target cannot
// be looked at is an error: a person is called after some of them.
func (j *journal) Doubted(ctx context.Context, cause error, look remediation.Look, lookErr error) (operation.Way, error) {
	way, unseen, until := operation.Leave, false, j.p.Until
	var early *operation.TooEarlyError
	if errors.As(lookErr, &early) {
		return way, j.record(ctx, map[string]any{"error": cause.Error()}, func(c *promoting) error {
			c.p.Wake = c.now.Add(early.After)
			if c.p.Awaits == lease.EpochOf(ctx) {
				return nil
			}
			c.p.Awaits = lease.EpochOf(ctx)
			return c.audit(audit.KindInDoubt, remediation.ActorEngine, map[string]any{"why": early.Error()})
		})
	}
	err := j.record(ctx, map[string]any{"error": cause.Error(), "seen": string(look.Position)}, func(c *promoting) error {
		way, unseen, until = operation.Leave, false, j.p.Until
		open, err := remediation.OpenIncident(c.tx, c.r.Service)
		if err != nil {
			return err
		}
		late := open != nil && open.Intended && !c.now.Before(c.p.Until)
		if lookErr != nil {
			if late {
				return c.abandonTo(open, fmt.Errorf("%w: %w", cause, lookErr))
			}
			c.p.Wake = c.now.Add(j.b.Poll())
			// An open incident calls for itself. A verification may have its time anew.
			unseen = open == nil && (!c.now.Before(c.p.Until) || c.p.Applied && c.p.Doubted)
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
			return c.fail(remediation.StepPending, cause.Error()+"; nothing was changed, and it can be repeated")
		case late:
			return c.abandonTo(open, cause)
		case look.Position == remediation.HalfWay && open != nil: // more traffic is not what helps now
			way = operation.Back
			return nil
		}
		way = operation.Forward
		if open == nil && c.p.Until.Before(c.now.Add(promotionForward+promotionBack)) {
			c.p.Until = c.now.Add(promotionForward + promotionBack)
			until = c.p.Until
		}
		return nil
	})
	if err == nil && unseen {
		err = fmt.Errorf("%s of %s is in doubt, and its target cannot be inspected: %w", j.p.Step(), j.b.Service, lookErr)
	}
	j.p.Until = until
	return way, err
}
