package incident

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/locotoki/backout/hint"
	"github.com/locotoki/backout/remediation"
	"github.com/locotoki/backout/remediation/audit"
	"github.com/locotoki/backout/remediation/gate"
	"github.com/locotoki/backout/remediation/plan"
)

// startSettling begins t0: the step is verified, and its effect on the
// indicators is waited for.
func (c *change) startSettling() {
	c.Inc.ResetPolls()
	c.Inc.Unstuck()
	c.Inc.SettleFrom, c.Inc.SettlePolls, c.Inc.SettleMore, c.Inc.LastHeld = &c.Now, 0, 0, ""
	if c.Inc.Aborting() { // nothing is waited for, but by steps that the order does not list
		c.Inc.SettleFrom, c.Inc.SettleUntil = nil, nil
		if last := c.Inc.LastRun(); last != nil && !c.Inc.Abort.Lists(last) {
			until := c.Now.Add(c.Plan.SettleTime(c.Inc, last))
			c.Inc.SettleUntil = &until
		}
		c.Enter(remediation.Acting, 0)
		return
	}
	if last := c.Inc.LastRun(); last != nil {
		until := c.Now.Add(c.Plan.SettleTime(c.Inc, last))
		c.Inc.SettleUntil = &until
	}
	c.Enter(remediation.Settling, c.Plan.SettleStart(c.Inc))
}

// mostMore is how many polls past a settle time's end may leave it open whether the step
// helped: a value that goes back and forth is a person's.
const mostMore = 2 * remediation.Certain

// settle decides whether a step helped, by the recovery expressions alone.
func (e *Responder) settle(ctx context.Context, b *plan.Plan, inc *remediation.Incident) error {
	if inc.SettleFrom == nil {
		return fmt.Errorf("unknown since when it is settling")
	}
	// A trigger that attached meanwhile may need a longer window.
	if start := inc.SettleFrom.Add(b.SettleStart(inc)); start.After(e.Now()) {
		return e.change(ctx, b, inc, func(c *change) error {
			c.Inc.Wake = start
			return nil
		})
	}
	last := inc.LastRun()
	if last == nil {
		return fmt.Errorf("settling after no step")
	}
	deadline := inc.SettleFrom.Add(b.SettleTime(inc, last))
	ev, err := e.PollRecovery(ctx, b, inc)
	if err != nil {
		return err
	}
	if inc.SettleMore == 0 {
		ev.Every = 0 // nothing but the deadline makes a poll come sooner here
	}
	ev.Count(inc)
	if inc.Calm() {
		return e.change(ctx, b, inc, func(c *change) error {
			ev.Count(c.Inc)
			if err := c.settled(ev, last, "recovered"); err != nil {
				return err
			}
			return c.recover(ev)
		})
	}
	past := !e.Now().Before(deadline)
	t := inc.Breaching(1)
	flaps := t != nil || inc.CalmFor(1)
	if inc.SettleMore > 0 {
		t = inc.Breaching(remediation.Certain)
	}
	// Past its end too, the time lasts until there are enough polls to judge by: of a value
	// that has just become good, and where none came since backout was down or the clock was
	// set. From then on a breach needs as many polls in a row as a recovery: one may be noise.
	if !past || inc.SettlePolls < remediation.Certain-1 || t == nil && flaps && inc.SettleMore < mostMore {
		return e.change(ctx, b, inc, func(c *change) error {
			ev.Count(c.Inc)
			c.Inc.SettlePolls++
			c.Inc.Wake = c.Now.Add(b.Poll())
			if !past {
				c.Inc.SettleUntil, c.Inc.SettleMore = &deadline, 0
				if c.Inc.Wake.After(deadline) {
					c.Inc.Wake = deadline
				}
				return nil
			}
			c.Inc.SettleMore++
			missing := remediation.Certain // polls with the breach
			for missing > 1 && c.Inc.Breaching(remediation.Certain-missing+1) != nil {
				missing--
			}
			until := c.Now.Add(time.Duration(missing) * b.Poll())
			c.Inc.SettleUntil = &until
			return nil
		})
	}
	if t == nil {
		return e.change(ctx, b, inc, func(c *change) error {
			ev.Count(c.Inc)
			why := "the step has settled, but it is unknown whether it helped"
			if unknown := cmp.Or(ev.Unknown(c.Inc), ev.OnlyAside(c.Inc)); unknown != "" {
				why += ": " + unknown
			} else if flaps {
				why += fmt.Sprintf(": neither %d good checks in a row nor %d with the breach came since its settle time ended", remediation.Certain, remediation.Certain)
			}
			if err := c.settled(ev, last, string(remediation.HoldNoData)); err != nil {
				return err
			}
			if err := c.hold(nil, remediation.GateResult{Reason: remediation.HoldNoData, Why: why}, ev.All(c.Inc, map[string]any{})); err != nil {
				return err
			}
			return c.Page(string(remediation.HoldNoData), why)
		})
	}
	return e.tryStep(ctx, b, inc, ev, t, gateInput{Input: gate.Input{Confirmed: true}, poll: &ev, lead: func(c *change) error {
		if err := c.settled(ev, last, string(remediation.Breaching)); err != nil {
			return err
		}
		return c.escalated(ev, t, "the breach continues after "+last.ID())
	}})
}

// settled records what settling found.
func (c *change) settled(ev gate.Samples, s *remediation.Step, verdict string) error {
	return c.Audit(audit.KindSettled, remediation.ActorEngine, s, ev.All(c.Inc, map[string]any{"verdict": verdict}))
}

// escalated records why the plan is climbed; the step's own entries follow in
// the same transaction.
func (c *change) escalated(ev gate.Samples, t *remediation.TriggerState, why string) error {
	c.Inc.SettleFrom = nil
	s := c.Inc.Next()
	if s == nil {
		return nil // exhausted, which says so itself
	}
	detail, err := c.samples(ev, t, map[string]any{"why": why})
	if err != nil {
		return err
	}
	return c.Audit(audit.KindEscalated, remediation.ActorEngine, s, detail)
}

// recover rests automation: every attached trigger has stopped, or is quiet.
func (c *change) recover(ev gate.Samples) error {
	if err := c.Audit(audit.KindRecovered, remediation.ActorEngine, nil, ev.All(c.Inc, map[string]any{})); err != nil {
		return err
	}
	if err := c.follow(remediation.PublicMonitoring); err != nil {
		return err
	}
	c.Inc.VoidApprovals()
	for i := range c.Inc.Steps {
		s := &c.Inc.Steps[i]
		if s.State == remediation.StepWaiting {
			s.State = remediation.StepPending
		}
	}
	c.Inc.SettleFrom, c.Inc.FalseSince, c.Inc.BlindSince, c.Inc.LastHeld = nil, nil, nil, ""
	c.Inc.Unstuck()
	c.Inc.ResetPolls()
	c.Enter(remediation.Recovered, c.Plan.Poll())
	return nil
}

// watchRecovered looks out for a relapse, and closes the incident once no
// trigger's own expression has been true for close_after.
func (e *Responder) watchRecovered(ctx context.Context, b *plan.Plan, inc *remediation.Incident) error {
	ev, err := e.PollRecovery(ctx, b, inc)
	if err != nil {
		return err
	}
	ev.Count(inc)
	values, err := e.ReadValues(ctx, b, inc)
	if err != nil {
		return err
	}
	ev.Own = values.Values
	if t := inc.Breaching(remediation.Certain); t != nil {
		return e.tryStep(ctx, b, inc, ev, t, gateInput{Input: gate.Input{Confirmed: true}, poll: &ev, lead: func(c *change) error {
			return c.escalated(ev, t, "the breach came back after recovery")
		}})
	}
	still := values.Beyond(inc)
	return e.change(ctx, b, inc, func(c *change) error {
		ev.Count(c.Inc)
		c.Inc.Wake = c.Now.Add(b.Poll())
		unknown := ev.Unknown(c.Inc)
		if err := values.Failed(); unknown == "" && err != nil {
			unknown = err.Error()
		}
		if err := c.pageIfBlind("cannot check whether the recovery lasts", unknown, ""); err != nil {
			return err
		}
		raised, err := c.raised()
		if err != nil {
			return err
		}
		if still != nil || unknown != "" || raised != nil {
			c.Inc.FalseSince = nil
			return c.pageIfStill(still)
		}
		if c.Inc.FalseSince == nil {
			c.Inc.FalseSince = &c.Now
		}
		if c.Now.Sub(*c.Inc.FalseSince) < time.Duration(b.Limits.CloseAfter) {
			return nil
		}
		return c.close(remediation.ActorEngine, values.All(c.Inc, map[string]any{
			"reason": "recovered", "why": fmt.Sprintf("no trigger's expression has been true for %s", remediation.Span(b.Limits.CloseAfter)),
		}))
	})
}

// stillTrue is the page for a breach that goes on though its incident is over.
const stillTrue = "still_true"

// pageIfStill calls a person where the recovery expression says calm and the
// trigger's own still says breach, longer than its window explains.
func (c *change) pageIfStill(t *remediation.TriggerState) error {
	if t == nil {
		return nil
	}
	x := c.Plan.Expr.Triggers[t.Trigger]
	if c.Now.Sub(c.Inc.Since) < x.Window+x.RecoveryWindow {
		return nil
	}
	return c.Page(stillTrue, fmt.Sprintf("trigger %s's own expression is still true, although its recovery expression is not", t.Trigger))
}

// seen ends that the incident cannot be watched, and the page for it.
func (c *change) seen() {
	c.Inc.BlindSince = nil
	c.Inc.Paged = slices.DeleteFunc(c.Inc.Paged, func(p string) bool { return p == string(remediation.HoldNoData) })
}

// pageIfBlind calls a person where an incident that is recovered or closed has not been
// watched for as long as its triggers look back, and says what is unknown, why, and what to
// do: the service died, say, after a step of ours. why is "" where it is watched.
func (c *change) pageIfBlind(what, why, next string) error {
	if why == "" {
		c.seen()
		return nil
	}
	if c.Inc.BlindSince == nil {
		c.Inc.BlindSince = &c.Now
	}
	var back time.Duration
	for _, t := range c.Inc.Triggers {
		x := c.Plan.Expr.Triggers[t.Trigger]
		back = max(back, x.Window+x.RecoveryWindow)
	}
	if c.Now.Sub(*c.Inc.BlindSince) < back {
		return nil
	}
	return c.Page(string(remediation.HoldNoData), hint.Text(what+": "+why, next))
}

// exhaust hands what is left after the last step to a person.
func (c *change) exhaust(why string) error {
	c.Inc.SettleFrom = nil
	c.Enter(remediation.Exhausted, c.Plan.Poll())
	c.Inc.Why = why
	return c.Page(string(remediation.Exhausted), why)
}

func (e *Responder) watchExhausted(ctx context.Context, b *plan.Plan, inc *remediation.Incident) error {
	ev, err := e.PollRecovery(ctx, b, inc)
	if err != nil {
		return err
	}
	return e.change(ctx, b, inc, func(c *change) error {
		ev.Count(c.Inc)
		if c.Inc.Calm() && c.Inc.Broken() == nil {
			return c.recover(ev)
		}
		c.Inc.Wake = c.Now.Add(b.Poll())
		if len(c.Inc.Paged) == 0 { // a trigger attached: page again
			return c.Page(string(remediation.Exhausted), c.Inc.Why)
		}
		return nil
	})
}

// close ends the incident. A rollout whose release was changed back is rolled back.
func (c *change) close(actor string, detail map[string]any) error {
	c.Enter(remediation.Closed, 0)
	c.Inc.VoidApprovals()
	for i := range c.Inc.Steps {
		switch s := &c.Inc.Steps[i]; {
		case !s.Open():
		case s.Left:
			s.State = remediation.StepInDoubt
		default: // nobody is asked any more
			s.State = remediation.StepPending
		}
	}
	c.Inc.LastHeld = ""
	c.Inc.Closed, c.Inc.FalseSince, c.Inc.BlindSince, c.Inc.SettleFrom, c.Inc.ClaimedBy = &c.Now, nil, nil, nil, ""
	c.Inc.ResetPolls()
	c.Inc.Unstuck()
	c.Inc.Restore = nil
	if c.Inc.Aborting() {
		c.Inc.Abort.Ended = &c.Now
	}
	if err := c.Audit(audit.KindClosed, actor, nil, detail); err != nil {
		return err
	}
	if !c.Inc.ByHand { // else the public hears of it once it is so: watchClosed
		if err := c.follow(remediation.PublicResolved); err != nil {
			return err
		}
	}
	if c.Inc.Drill || !c.Inc.Changed() {
		return nil
	}
	ended := remediation.RolloutRolledBack
	if c.Inc.Abort != nil && len(c.Inc.Abort.Signals) == 0 {
		ended = remediation.RolloutAborted
	}
	return c.endRollout(ended, remediation.ActorEngine, "a step of this incident rolled the release back")
}

// measurePatience bounds how long Prometheus is asked for the worst values of an incident: the
// watch for what reopens it begins after that.
const measurePatience = 10 * time.Second

// measure asks Prometheus, once for each close, for the worst value of each trigger while the
// incident was open: the value may have been worst while a step ran, and no poll saw it. Without
// an answer the worst stays what the polls saw.
func (e *Responder) measure(ctx context.Context, b *plan.Plan, inc *remediation.Incident) error {
	worst := map[string]float64{}
	asking, cancel := context.WithTimeout(ctx, measurePatience)
	defer cancel()
	for _, t := range inc.Triggers {
		if t.Signal != "" {
			continue
		}
		p, err := e.plot(asking, inc.ID, t.Trigger)
		if at, found := p.Worst(); err == nil && found && p.Step != 0 {
			worst[t.Trigger] = at.Value
		}
	}
	if ctx.Err() != nil {
		return ctx.Err()
	}
	return e.change(ctx, b, inc, func(c *change) error {
		c.Inc.Measured = true
		for i := range c.Inc.Triggers {
			t := &c.Inc.Triggers[i]
			if v, found := worst[t.Trigger]; found {
				t.See(v)
			}
		}
		return nil
	})
}

// watchClosed looks after a closed incident while an alert of it is still active and
// a repeat of it could reopen the incident, or while the public waits for the end.
// What keeps breaching reopens it, opens a new one after a restore, or calls a person
// where a person closed it in the breach.
func (e *Responder) watchClosed(ctx context.Context, b *plan.Plan, inc *remediation.Incident) error {
	told, follows := false, false
	err := e.Store.View(ctx, func(tx remediation.Tx) error {
		active, _, err := tx.ActiveAlerts(inc.ID)
		if err != nil || inc.Drill {
			return err
		}
		if told, err = toldPublic(tx, inc); err != nil {
			return err
		}
		real := false
		later, err := tx.Incidents(remediation.IncidentFilter{Service: inc.Service, After: inc.ID, Drill: &real, Limit: 1})
		follows = active > 0 && len(later) == 0 && e.Now().Sub(*inc.Closed) <= time.Duration(b.Limits.ReopenWithin)
		return err
	})
	if err != nil {
		return err
	}
	if !told && !follows {
		return e.change(ctx, b, inc, func(c *change) error {
			c.over()
			until := c.Inc.Closed.Add(time.Duration(b.Limits.ReopenWithin))
			if c.Inc.Wake = until; len(c.Inc.Paged) == 0 || !until.After(c.Now) {
				c.Inc.Wake = time.Time{}
				c.Inc.Unstuck()
			}
			return nil
		})
	}
	ev, err := e.PollRecovery(ctx, b, inc)
	if err != nil {
		return err
	}
	values, err := e.ReadValues(ctx, b, inc)
	if err != nil {
		return err
	}
	return e.change(ctx, b, inc, func(c *change) error {
		ev.Count(c.Inc)
		c.Inc.Wake = c.Now.Add(b.Poll())
		raised, err := c.raised() // a signal is true until it is cleared
		if err != nil {
			return err
		}
		still, unknown := values.Beyond(c.Inc), ev.Unknown(c.Inc)
		if err := values.Failed(); unknown == "" && err != nil {
			unknown = err.Error()
		}
		if still != nil || c.Inc.OnlySignals() {
			unknown = "" // that it is not over is known
		}
		if told {
			err := c.pageIfBlind("the public status page shows a problem, and it is unknown whether the breach is over", unknown,
				fmt.Sprintf("if it is over, backout incident close %s --reason=WHY", c.Inc.ID))
			if err != nil {
				return err
			}
		}
		if raised == nil && still == nil && values.Failed() == nil {
			c.over()
			if follows && c.Inc.FalseSince == nil && values.Aside() == "" {
				c.Inc.FalseSince = &c.Now
			}
			if c.Inc.Calm() || c.Inc.OnlySignals() {
				return c.follow(remediation.PublicResolved)
			}
			return nil
		}
		if !follows || still == nil || c.Inc.Breaching(remediation.Certain) == nil {
			return nil
		}
		r, err := remediation.RolloutOf(c.Tx, c.Inc.Service)
		if err != nil {
			return err
		}
		follower := r.Active() && r.Started != nil && r.Started.After(*c.Inc.Closed)
		if c.Inc.Restored != "" && !c.Inc.ByHand && !follower { // the breach had stopped, and came back with what was restored
			return c.openWhatCame(remediation.Restore{})
		}
		if c.Inc.ByHand || follower {
			if c.Inc.Stuck == nil {
				c.Inc.Stuck = &c.Now
			}
			if c.Now.Sub(*c.Inc.Stuck) <= c.patience() {
				return nil
			}
			return c.Page(stillTrue, "a person closed the incident, but the breach continues: backout does nothing about it")
		}
		return c.reopenBreaching(ev, c.Inc.Breaching(remediation.Certain))
	})
}

// toldPublic reports whether the public status page shows a problem for the incident.
func toldPublic(tx remediation.Tx, inc *remediation.Incident) (bool, error) {
	p, err := tx.PublicIncident(inc.ID)
	if errors.Is(err, remediation.ErrNotFound) {
		return false, nil
	}
	return err == nil && p.Status != remediation.PublicResolved, err
}

// over ends the page of a closed incident's breach; one for its target stays until the watch
// ends.
func (c *change) over() {
	c.Inc.Stuck, c.Inc.Called = nil, false
	c.Inc.Paged = slices.DeleteFunc(c.Inc.Paged, func(p string) bool { return p == stillTrue })
}

// reopenBreaching reopens what backout closed by itself, and what is not over.
func (c *change) reopenBreaching(ev gate.Samples, t *remediation.TriggerState) error {
	detail, err := c.samples(ev, t, map[string]any{"rollout": c.Inc.Release, "why": "the breach continues, although the incident was closed"})
	if err != nil {
		return err
	}
	c.Inc.Reopen(c.Now)
	c.Inc.Wake = c.Now
	if err := c.Audit(audit.KindReopened, remediation.ActorEngine, nil, detail); err != nil {
		return err
	}
	return c.follow(remediation.PublicInvestigating)
}
