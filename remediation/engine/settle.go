package engine

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/locotoki/backout/remediation"
	"github.com/locotoki/backout/remediation/audit"
	"github.com/locotoki/backout/remediation/plan"
)

// startSettling begins t0: the step is verified, and its effect on the
// indicators is waited for.
func (c *change) startSettling() {
	c.inc.ResetPolls()
	c.inc.Unstuck()
	c.inc.SettleFrom, c.inc.SettlePolls, c.inc.LastHeld = &c.now, 0, ""
	if c.inc.Aborting() { // nothing is waited for, but by steps that the order does not list
		c.inc.SettleFrom, c.inc.SettleUntil = nil, nil
		if last := c.inc.LastRun(); last != nil && !c.inc.Abort.Lists(last) {
			until := c.now.Add(c.b.SettleTime(c.inc, last))
			c.inc.SettleUntil = &until
		}
		c.enter(remediation.Acting, 0)
		return
	}
	if last := c.inc.LastRun(); last != nil {
		until := c.now.Add(c.b.SettleTime(c.inc, last))
		c.inc.SettleUntil = &until
	}
	c.enter(remediation.Settling, c.b.SettleStart(c.inc))
}

// settle decides whether a step helped, by the recovery expressions alone.
func (e *Engine) settle(ctx context.Context, b *plan.Plan, inc *remediation.Incident) error {
	if inc.SettleFrom == nil {
		return fmt.Errorf("settling since when is not known")
	}
	// A trigger that attached meanwhile may need a longer window.
	if start := inc.SettleFrom.Add(b.SettleStart(inc)); start.After(e.now()) {
		return e.change(ctx, b, inc, func(c *change) error {
			c.inc.Wake = start
			return nil
		})
	}
	last := inc.LastRun()
	if last == nil {
		return fmt.Errorf("settling after no step")
	}
	deadline := inc.SettleFrom.Add(b.SettleTime(inc, last))
	ev := e.pollRecovery(ctx, b, inc)
	ev.every = 0 // nothing but the deadline makes a poll come sooner here
	ev.count(inc)
	if inc.Calm() {
		return e.change(ctx, b, inc, func(c *change) error {
			ev.count(c.inc)
			if err := c.settled(ev, last, "recovered"); err != nil {
				return err
			}
			return c.recover(ev)
		})
	}
	if e.now().Before(deadline) {
		return e.change(ctx, b, inc, func(c *change) error {
			ev.count(c.inc)
			c.inc.SettlePolls++
			c.inc.SettleUntil = &deadline
			c.inc.Wake = c.now.Add(b.Poll())
			if c.inc.Wake.After(deadline) {
				c.inc.Wake = deadline
			}
			return nil
		})
	}
	t := inc.Breaching(1)
	if t != nil && inc.SettlePolls < remediation.Certain-1 {
		// The time went by without polls: backout was down, or the clock was set.
		return e.change(ctx, b, inc, func(c *change) error {
			ev.count(c.inc)
			c.inc.SettlePolls++
			c.inc.Wake = c.now.Add(b.Poll())
			return nil
		})
	}
	if t == nil {
		return e.change(ctx, b, inc, func(c *change) error {
			ev.count(c.inc)
			why := "the step has settled, and whether it helped cannot be told"
			if unknown := ev.unknown(c.inc); unknown != "" {
				why += ": " + unknown
			}
			if err := c.settled(ev, last, string(remediation.HoldNoData)); err != nil {
				return err
			}
			if err := c.hold(nil, gateResult{reason: remediation.HoldNoData, why: why}, ev.all(c.inc, map[string]any{})); err != nil {
				return err
			}
			return c.page(string(remediation.HoldNoData), why)
		})
	}
	return e.tryStep(ctx, b, inc, ev, t, question{Question: Question{Confirmed: true}, poll: &ev, lead: func(c *change) error {
		if err := c.settled(ev, last, string(remediation.Breaching)); err != nil {
			return err
		}
		return c.escalated(ev, t, "the breach goes on after "+last.ID())
	}})
}

// settled records what settling found.
func (c *change) settled(ev evidence, s *remediation.Step, verdict string) error {
	return c.audit(audit.KindSettled, actorEngine, s, ev.all(c.inc, map[string]any{"verdict": verdict}))
}

// escalated records why the ladder is climbed; the step's own entries follow in
// the same transaction.
func (c *change) escalated(ev evidence, t *remediation.TriggerState, why string) error {
	c.inc.SettleFrom = nil
	s := c.inc.Next()
	if s == nil {
		return nil // exhausted, which says so itself
	}
	detail, err := c.evidence(ev, t, map[string]any{"why": why})
	if err != nil {
		return err
	}
	return c.audit(audit.KindEscalated, actorEngine, s, detail)
}

// recover rests automation: every attached trigger has stopped, or is quiet.
func (c *change) recover(ev evidence) error {
	if err := c.audit(audit.KindRecovered, actorEngine, nil, ev.all(c.inc, map[string]any{})); err != nil {
		return err
	}
	if err := c.follow(remediation.PublicMonitoring); err != nil {
		return err
	}
	c.inc.VoidApprovals()
	for i := range c.inc.Steps {
		s := &c.inc.Steps[i]
		if s.State == remediation.StepWaiting {
			s.State = remediation.StepPending
		}
	}
	c.inc.SettleFrom, c.inc.FalseSince, c.inc.BlindSince, c.inc.LastHeld = nil, nil, nil, ""
	c.inc.Unstuck()
	c.inc.ResetPolls()
	c.enter(remediation.Recovered, c.b.Poll())
	return nil
}

// watchRecovered looks out for a relapse, and closes the incident once no
// trigger's own expression has been true for close_after.
func (e *Engine) watchRecovered(ctx context.Context, b *plan.Plan, inc *remediation.Incident) error {
	ev := e.pollRecovery(ctx, b, inc)
	ev.count(inc)
	values, err := e.readValues(ctx, b, inc)
	if err != nil {
		return err
	}
	if t := inc.Breaching(remediation.Certain); t != nil {
		return e.tryStep(ctx, b, inc, ev, t, question{Question: Question{Confirmed: true}, poll: &ev, lead: func(c *change) error {
			return c.escalated(ev, t, "the breach came back after recovery")
		}})
	}
	still := values.beyond(inc)
	return e.change(ctx, b, inc, func(c *change) error {
		ev.count(c.inc)
		c.inc.Wake = c.now.Add(b.Poll())
		unknown := ev.unknown(c.inc)
		if err := values.failed(); unknown == "" && err != nil {
			unknown = err.Error()
		}
		if err := c.pageIfBlind(unknown); err != nil {
			return err
		}
		raised, err := c.raised()
		if err != nil {
			return err
		}
		if still != nil || unknown != "" || raised != nil {
			c.inc.FalseSince = nil
			return c.pageIfStill(still)
		}
		if c.inc.FalseSince == nil {
			c.inc.FalseSince = &c.now
		}
		if c.now.Sub(*c.inc.FalseSince) < time.Duration(b.Limits.CloseAfter) {
			return nil
		}
		return c.close(actorEngine, values.all(c.inc, map[string]any{
			"reason": "recovered", "why": fmt.Sprintf("no trigger's expression has been true for %s", b.Limits.CloseAfter),
		}))
	})
}

// pageIfStill calls a human where the recovery expression says calm and the
// trigger's own still says breach, longer than its window explains.
func (c *change) pageIfStill(t *remediation.TriggerState) error {
	if t == nil {
		return nil
	}
	x := c.b.Expr.Triggers[t.Trigger]
	if c.now.Sub(c.inc.Since) < x.Window+x.RecoveryWindow {
		return nil
	}
	return c.page("still_true", fmt.Sprintf("trigger %s is still true by its own expression, though its recovery expression is calm", t.Trigger))
}

// pageIfBlind calls a human where a recovered incident has not been watched for as
// long as its triggers look back: the service died, say, after a step of ours.
func (c *change) pageIfBlind(why string) error {
	if why == "" {
		c.inc.BlindSince = nil
		c.inc.Paged = slices.DeleteFunc(c.inc.Paged, func(p string) bool { return p == string(remediation.HoldNoData) })
		return nil
	}
	if c.inc.BlindSince == nil {
		c.inc.BlindSince = &c.now
	}
	var back time.Duration
	for _, t := range c.inc.Triggers {
		x := c.b.Expr.Triggers[t.Trigger]
		back = max(back, x.Window+x.RecoveryWindow)
	}
	if c.now.Sub(*c.inc.BlindSince) < back {
		return nil
	}
	return c.page(string(remediation.HoldNoData), "whether the recovery lasts cannot be told: "+why)
}

// exhaust hands what is left after the last step to a human.
func (c *change) exhaust(why string) error {
	c.inc.SettleFrom = nil
	c.enter(remediation.Exhausted, c.b.Poll())
	c.inc.Why = why
	return c.page(string(remediation.Exhausted), why)
}

func (e *Engine) watchExhausted(ctx context.Context, b *plan.Plan, inc *remediation.Incident) error {
	ev := e.pollRecovery(ctx, b, inc)
	return e.change(ctx, b, inc, func(c *change) error {
		ev.count(c.inc)
		if c.inc.Calm() && c.inc.FailedRestore() == nil {
			return c.recover(ev)
		}
		c.inc.Wake = c.now.Add(b.Poll())
		if len(c.inc.Paged) == 0 { // a trigger attached: page again
			return c.page(string(remediation.Exhausted), c.inc.Why)
		}
		return nil
	})
}

// close ends the incident. A rollout whose release was changed back is rolled back.
func (c *change) close(actor string, detail map[string]any) error {
	c.enter(remediation.Closed, 0)
	c.inc.VoidApprovals()
	c.inc.LastHeld = ""
	c.inc.Closed, c.inc.FalseSince, c.inc.SettleFrom, c.inc.ClaimedBy = &c.now, nil, nil, ""
	c.inc.ResetPolls()
	c.inc.Unstuck()
	c.inc.Restore = nil
	if c.inc.Aborting() {
		c.inc.Abort.Ended = &c.now
	}
	if err := c.audit(audit.KindClosed, actor, nil, detail); err != nil {
		return err
	}
	if !c.inc.ByHand { // else the public hears of it once it is so: watchClosed
		if err := c.follow(remediation.PublicResolved); err != nil {
			return err
		}
	}
	if c.inc.Drill || !c.inc.Changed() {
		return nil
	}
	ended := remediation.RolloutRolledBack
	if c.inc.Abort != nil && len(c.inc.Abort.Signals) == 0 {
		ended = remediation.RolloutAborted
	}
	return c.endRollout(ended, actorEngine, "a step of this incident backed the release out")
}

// watchClosed looks after a closed incident while an alert of it is still active and
// a repeat of it could reopen the incident, or while the public waits for the end.
// What goes on breaching reopens it, or calls a human where a human closed it.
func (e *Engine) watchClosed(ctx context.Context, b *plan.Plan, inc *remediation.Incident) error {
	told, follows := false, false
	err := e.store.View(ctx, func(tx remediation.Tx) error {
		active, _, err := tx.ActiveAlerts(inc.ID)
		if err != nil || inc.Drill {
			return err
		}
		p, err := tx.PublicIncident(inc.ID)
		if err != nil && !errors.Is(err, remediation.ErrNotFound) {
			return err
		}
		told = err == nil && p.Status != remediation.PublicResolved
		real := false
		later, err := tx.Incidents(remediation.IncidentFilter{Service: inc.Service, After: inc.ID, Drill: &real, Limit: 1})
		follows = active > 0 && len(later) == 0 && e.now().Sub(*inc.Closed) <= time.Duration(b.Limits.ReopenWithin)
		return err
	})
	if err != nil {
		return err
	}
	if !told && !follows {
		return e.change(ctx, b, inc, func(c *change) error {
			c.inc.Wake = time.Time{}
			c.inc.Unstuck()
			return nil
		})
	}
	ev := e.pollRecovery(ctx, b, inc)
	values, err := e.readValues(ctx, b, inc)
	if err != nil {
		return err
	}
	return e.change(ctx, b, inc, func(c *change) error {
		ev.count(c.inc)
		c.inc.Wake = c.now.Add(b.Poll())
		raised, err := c.raised() // a signal is true until it is cleared
		if err != nil {
			return err
		}
		still := values.beyond(c.inc)
		if raised == nil && still == nil && values.failed() == nil {
			c.inc.Unstuck()
			if follows && c.inc.FalseSince == nil {
				c.inc.FalseSince = &c.now
			}
			if c.inc.Calm() || c.inc.OnlySignals() {
				return c.follow(remediation.PublicResolved)
			}
			return nil
		}
		if !follows || still == nil || c.inc.Breaching(remediation.Certain) == nil {
			return nil
		}
		r, err := rolloutOf(c.tx, c.inc.Service)
		if err != nil {
			return err
		}
		if c.inc.ByHand || c.inc.Restored != "" || r.Active() && r.Started != nil && r.Started.After(*c.inc.Closed) {
			if c.inc.Stuck == nil {
				c.inc.Stuck = &c.now
			}
			if c.now.Sub(*c.inc.Stuck) <= c.patience() {
				return nil
			}
			return c.page("still_true", "the incident was closed by a person, and the breach goes on: nothing is done about it")
		}
		return c.reopenBreaching(ev, c.inc.Breaching(remediation.Certain))
	})
}

// reopenBreaching reopens what backout closed by itself, and what is not over.
func (c *change) reopenBreaching(ev evidence, t *remediation.TriggerState) error {
	detail, err := c.evidence(ev, t, map[string]any{"rollout": c.inc.Release, "why": "the breach goes on, though the incident was closed"})
	if err != nil {
		return err
	}
	c.inc.Reopen(c.now)
	c.inc.Wake = c.now
	if err := c.audit(audit.KindReopened, actorEngine, nil, detail); err != nil {
		return err
	}
	return c.follow(remediation.PublicInvestigating)
}
