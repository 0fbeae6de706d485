package engine

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/locotoki/backout/remediation"
	"github.com/locotoki/backout/remediation/audit"
	"github.com/locotoki/backout/remediation/plan"
)

// confirm asks Prometheus whether what the alerts say is still true. Before
// any step of ours has run, the triggers' own values decide; after one, their
// recovery values do.
func (e *Engine) confirm(ctx context.Context, b *plan.Plan, inc *remediation.Incident) error {
	if waits, err := e.waitsForPromotion(ctx, b, inc); waits || err != nil {
		return err
	}
	warm, err := e.warmUntil(ctx, b, inc)
	if err != nil {
		return err
	}
	if warm.After(e.now()) {
		return e.change(ctx, b, inc, func(c *change) error {
			c.inc.Wake = warm
			return nil
		})
	}
	if inc.Ran {
		return e.confirmByRecovery(ctx, b, inc)
	}
	early := e.askEarly(ctx, b, inc)
	defer early.wait()
	values, err := e.readValues(ctx, b, inc)
	if err != nil {
		return err
	}
	return e.confirmValues(ctx, b, inc, values, question{early: early})
}

// warmUntil is when the last step of ours on the service is old enough for its
// values to mean something: a recreated container is slow at first.
func (e *Engine) warmUntil(ctx context.Context, b *plan.Plan, inc *remediation.Incident) (until time.Time, err error) {
	warmup := time.Duration(b.Warmup)
	err = e.store.View(ctx, func(tx remediation.Tx) error {
		effects, err := tx.Effects(inc.Service, e.now().Add(-warmup-longestStep))
		for _, ef := range effects {
			if !ef.Counts() {
				continue
			}
			ended, err := endOf(tx, ef)
			if err != nil {
				return err
			}
			if t := ended.Add(warmup); t.After(until) {
				until = t
			}
		}
		return err
	})
	return until, err
}

// longestStep bounds how long before its outcome an intent that matters to a
// warmup was written.
const longestStep = 2 * time.Hour

// endOf is when an effect had its outcome: until then the target was being
// changed. A later try of the same step ends later, and is as good an answer.
func endOf(tx remediation.Tx, ef remediation.Effect) (time.Time, error) {
	inc, err := tx.Incident(ef.Incident)
	if errors.Is(err, remediation.ErrNotFound) {
		return ef.Time, nil
	}
	if err != nil {
		return time.Time{}, err
	}
	id, _, _ := strings.Cut(ef.Step, "@")
	s := inc.Step(id)
	if s == nil || s.Finished == nil || s.Finished.Before(ef.Time) {
		return ef.Time, nil
	}
	if s.Verified && inc.SettleFrom != nil && inc.SettleFrom.After(*s.Finished) {
		return *inc.SettleFrom, nil
	}
	return *s.Finished, nil
}

// confirmValues decides by the triggers' own values; q holds what is known
// beside them.
func (e *Engine) confirmValues(ctx context.Context, b *plan.Plan, inc *remediation.Incident, ev evidence, q question) error {
	if t := ev.beyond(inc); t != nil {
		q.Confirmed = true
		return e.tryStep(ctx, b, inc, ev, t, q)
	}
	err := ev.failed()
	if err != nil && errors.Is(err, remediation.ErrNoAnswer) && len(ev.over) < len(ev.values) {
		q.Unanswered = err.Error()
		return e.tryStep(ctx, b, inc, ev, nil, q)
	}
	silent := ev.silent(inc)
	if len(silent) > 0 && q.poll == nil {
		poll := e.pollRecovery(ctx, b, inc)
		q.poll = &poll
	}
	unknown := ""
	for _, t := range silent {
		if v := q.poll.verdict(t); v != remediation.Quiet && v != remediation.Stopped {
			unknown = cmp.Or(q.poll.unknown(inc), fmt.Sprintf("trigger %s has no value", t.Trigger))
			break
		}
	}
	return e.change(ctx, b, inc, func(c *change) error {
		if q.poll != nil {
			q.poll.count(c.inc)
		}
		ev.note(c.inc)
		switch {
		case err != nil || !c.inc.Calm():
			c.inc.FalseSince = nil
		case c.inc.FalseSince == nil:
			c.inc.FalseSince = &c.now
		}
		active, _, aerr := c.tx.ActiveAlerts(c.inc.ID)
		switch {
		case aerr != nil:
			return aerr
		case err != nil:
			return c.hold(nil, gateResult{reason: remediation.HoldUnconfirmed, why: err.Error()}, ev.all(c.inc, map[string]any{}))
		case unknown != "":
			return c.hold(nil, gateResult{reason: remediation.HoldNoData, why: unknown}, ev.all(c.inc, map[string]any{}))
		case active == 0:
			return c.close(actorEngine, ev.all(c.inc, map[string]any{
				"reason": "unconfirmed", "why": "no trigger is beyond its threshold and no alert is active",
			}))
		case ev.empty():
			return c.hold(nil, gateResult{reason: remediation.HoldNoData, why: "the triggers' expressions have no value, and an alert is active"}, ev.all(c.inc, map[string]any{}))
		}
		why := "no trigger is beyond its threshold, and an alert is active"
		for _, over := range ev.over {
			why = over
		}
		return c.hold(nil, gateResult{reason: remediation.HoldUnconfirmed, why: why}, ev.all(c.inc, map[string]any{}))
	})
}

func (e *Engine) confirmByRecovery(ctx context.Context, b *plan.Plan, inc *remediation.Incident) error {
	ev := e.pollRecovery(ctx, b, inc)
	ev.count(inc)
	if t := inc.Breaching(remediation.Certain); t != nil {
		return e.tryStep(ctx, b, inc, ev, t, question{Question: Question{Confirmed: true}, poll: &ev})
	}
	return e.change(ctx, b, inc, func(c *change) error {
		ev.count(c.inc)
		switch {
		case c.inc.Calm() && c.inc.FailedRestore() == nil:
			return c.recover(ev)
		case ev.unknown(c.inc) != "" && c.inc.Breaching(1) == nil:
			return c.hold(nil, gateResult{reason: remediation.HoldNoData, why: ev.unknown(c.inc)}, ev.all(c.inc, map[string]any{}))
		}
		c.inc.Wake = c.now.Add(b.Poll())
		return c.pageIfStuck("the polls say neither that the breach goes on nor that it has ended")
	})
}

// waitFresh is how long a wait may last before its end asks for a new confirmation.
const waitFresh = 2 * time.Minute

// wait polls a held incident: it ends when the breach ends, or goes on when
// what held it has gone and the breach has not.
func (e *Engine) wait(ctx context.Context, b *plan.Plan, inc *remediation.Incident) error {
	if inc.Ran {
		return e.waitAfterStep(ctx, b, inc)
	}
	if inc.Reason == remediation.HoldUnconfirmed || inc.Reason == remediation.HoldNoData {
		return e.waitUnconfirmed(ctx, b, inc)
	}
	// Nothing has run and the breach was confirmed once.
	ev := e.pollRecovery(ctx, b, inc)
	ev.count(inc)
	values, err := e.readValues(ctx, b, inc)
	if err != nil {
		return err
	}
	t := values.beyond(inc)
	if inc.Calm() && t == nil && values.failed() == nil {
		return e.change(ctx, b, inc, func(c *change) error {
			ev.count(c.inc)
			return c.close(actorEngine, ev.all(c.inc, map[string]any{"reason": "ended", "why": "the breach ended before a step had run"}))
		})
	}
	if lapsed, err := e.lapse(ctx, b, inc); lapsed || err != nil {
		return err
	}
	if t != nil && t.Calm > 0 {
		// The long window still says breach and the short one no longer does.
		return e.keepWaiting(ctx, b, inc, ev)
	}
	open, err := e.gatesOpen(ctx, b, inc)
	switch {
	case err != nil:
		return err
	case t == nil && !open:
		return e.keepWaiting(ctx, b, inc, ev)
	case t != nil && (!open || e.now().Sub(inc.Since) <= waitFresh):
		// Read just now; where a gate is closed, this says which one.
		return e.tryStep(ctx, b, inc, values, t, question{Question: Question{Confirmed: true}, poll: &ev})
	}
	return e.change(ctx, b, inc, func(c *change) error {
		ev.count(c.inc)
		c.enter(remediation.Confirming, 0)
		return nil
	})
}

// waitUnconfirmed polls an incident that was never confirmed. It ends when the
// condition turns out true, with the last alert, or, for an alert whose
// resolved never comes, once nothing has been true for close_after.
func (e *Engine) waitUnconfirmed(ctx context.Context, b *plan.Plan, inc *remediation.Incident) error {
	ev := e.pollRecovery(ctx, b, inc)
	ev.count(inc)
	values, err := e.readValues(ctx, b, inc)
	if err != nil {
		return err
	}
	if !inc.Calm() || values.beyond(inc) != nil || values.failed() != nil {
		return e.confirmValues(ctx, b, inc, values, question{poll: &ev})
	}
	if inc.FalseSince == nil || e.now().Sub(*inc.FalseSince) < time.Duration(b.Limits.CloseAfter) {
		return e.confirmValues(ctx, b, inc, values, question{poll: &ev})
	}
	return e.change(ctx, b, inc, func(c *change) error {
		ev.count(c.inc)
		return c.close(actorEngine, values.all(c.inc, map[string]any{
			"reason": "ended", "why": fmt.Sprintf("never confirmed, and nothing was true for %s", b.Limits.CloseAfter),
		}))
	})
}

// waitAfterStep is wait once a step has run: only a recovery value that goes on
// breaching lets the next one run.
func (e *Engine) waitAfterStep(ctx context.Context, b *plan.Plan, inc *remediation.Incident) error {
	ev := e.pollRecovery(ctx, b, inc)
	ev.count(inc)
	if inc.Calm() && inc.FailedRestore() == nil { // what is half restored is a human's
		return e.change(ctx, b, inc, func(c *change) error {
			ev.count(c.inc)
			return c.recover(ev)
		})
	}
	if lapsed, err := e.lapse(ctx, b, inc); lapsed || err != nil {
		return err
	}
	t := inc.Breaching(remediation.Certain)
	if t == nil || inc.Reason == remediation.HoldStepFailed {
		return e.keepWaiting(ctx, b, inc, ev)
	}
	// Three breaching polls are a confirmation, however long the wait was.
	return e.tryStep(ctx, b, inc, ev, t, question{Question: Question{Confirmed: true}, poll: &ev})
}

// gatesOpen tells whether the next step would pass all gates, were it confirmed.
func (e *Engine) gatesOpen(ctx context.Context, b *plan.Plan, inc *remediation.Incident) (open bool, err error) {
	by, _, err := e.silenced(ctx, inc)
	if err != nil {
		return false, err
	}
	err = e.store.View(ctx, func(tx remediation.Tx) error {
		s := inc.Next()
		if s == nil {
			open = true
			return nil
		}
		c := e.on(tx, b, inc, e.now())
		_, closed, err := c.gates(Question{Step: s, Confirmed: true, SilencedBy: by})
		open = closed == nil
		return err
	})
	return open, err
}

func (e *Engine) keepWaiting(ctx context.Context, b *plan.Plan, inc *remediation.Incident, ev evidence) error {
	return e.change(ctx, b, inc, func(c *change) error {
		ev.count(c.inc)
		c.inc.Wake = c.now.Add(b.Poll())
		why := c.inc.Why
		if unknown := ev.unknown(c.inc); unknown != "" {
			why = unknown
		}
		return c.pageIfStuck(why)
	})
}

// lapse ends an approval that nobody gave: no answer is a no.
func (e *Engine) lapse(ctx context.Context, b *plan.Plan, inc *remediation.Incident) (bool, error) {
	s := inc.Next()
	if inc.Reason != remediation.HoldApproval || s == nil || inc.Until == nil || inc.Until.After(e.now()) ||
		s.ApprovalAsked == nil || s.ApprovalPlan != inc.PlanHash() {
		return false, nil
	}
	return true, e.change(ctx, b, inc, func(c *change) error {
		why := fmt.Sprintf("nobody answered within %s", s.Approve)
		if s.Approved != "" {
			why = fmt.Sprintf("approved by %s, and could not run within %s", s.Approved, s.Approve)
		}
		return c.deny(c.inc.Next(), actorEngine, why)
	})
}

// deny skips a step; without another one the plan is at its end.
func (c *change) deny(s *remediation.Step, actor, reason string) error {
	s.State, s.Finished = remediation.StepSkipped, &c.now
	if err := c.audit(audit.KindDenied, actor, s, map[string]any{"reason": reason}); err != nil {
		return err
	}
	if c.inc.Next() == nil && !c.inc.Aborting() {
		return c.exhaust("the last step was denied")
	}
	c.inc.ResetPolls()
	c.enter(remediation.Confirming, 0)
	return nil
}

// hold keeps the incident waiting, polled every S. An entry is written when the
// reason changes, not at each poll.
func (c *change) hold(s *remediation.Step, g gateResult, detail map[string]any) error {
	if c.inc.State != remediation.Waiting {
		c.inc.Since = c.now
	}
	same := c.inc.LastHeld == g.reason && (g.reason != remediation.HoldRateLimit || c.inc.LastHeldGate == g.gate)
	c.inc.LastHeld, c.inc.LastHeldGate = g.reason, g.gate
	if !c.inc.Called && (c.inc.State != remediation.Waiting || c.inc.Reason != g.reason && (!undecided(c.inc.Reason) || !undecided(g.reason))) {
		c.inc.Paged = nil // what was paged for is over: something else holds now
	}
	if g.reason != remediation.HoldApproval {
		c.inc.VoidApprovals()
	}
	c.inc.State, c.inc.Reason, c.inc.Why, c.inc.Until = remediation.Waiting, g.reason, g.why, g.until
	c.inc.Wake = c.now.Add(c.b.Poll())
	if s != nil {
		same = same && s.ID() == c.inc.LastHeldStep
		c.inc.LastHeldStep = s.ID()
		s.State = remediation.StepWaiting
		if g.reason == remediation.HoldApproval && (s.ApprovalAsked == nil || s.ApprovalPlan != c.inc.PlanHash()) {
			s.ApprovalAsked, s.ApprovalPlan, s.Approved = &c.now, c.inc.PlanHash(), ""
			same = false
		}
	}
	if !same {
		detail["reason"], detail["why"] = string(g.reason), g.why
		if g.until != nil {
			detail["until"] = g.until.UTC().Format(time.RFC3339)
		}
		c.tx.OnCommit(c.e.metrics.holds.WithLabelValues(string(g.reason)).Inc)
		if err := c.audit(audit.KindHeld, actorEngine, s, detail); err != nil {
			return err
		}
	}
	return c.pageIfStuck(g.why)
}

// undecided tells whether a wait is for an answer of Prometheus.
func undecided(r remediation.Reason) bool {
	return r == remediation.HoldUnconfirmed || r == remediation.HoldNoData
}

// pageIfStuck calls a human, once, where the ladder cannot go on by itself for
// longer than what holds it was to last, or than a trigger's window and a step's
// settling explain: a gate that nobody opens, a service that died while it waited,
// values that flap, which never confirm a breach and never end it.
func (c *change) pageIfStuck(why string) error {
	inc := c.inc
	if inc.Stuck == nil {
		inc.Stuck = &c.now
	}
	switch {
	case inc.Drill, inc.Called, len(inc.NeedsHuman()) > 0: // called already
		return nil
	case inc.ClaimedBy != "", inc.Reason == remediation.HoldSilenced: // a human has it
		return nil
	case inc.Reason == remediation.HoldMode && c.e.mode != remediation.Act: // to look on is all it is there for
		return nil
	}
	until := inc.Stuck.Add(c.patience())
	if inc.Until != nil && inc.Until.After(until) {
		until = *inc.Until
	}
	if !c.now.After(until) {
		return nil
	}
	inc.Called = true
	reason, stuck := string(inc.Reason), c.now.Sub(*inc.Stuck).Round(time.Second)
	if inc.Reason == "" || undecided(inc.Reason) {
		return c.page(string(remediation.HoldUnconfirmed), fmt.Sprintf("for %s it could not be told whether the breach is there: %s", stuck, why))
	}
	return c.page(reason, fmt.Sprintf("the plan has not gone on for %s (%s): %s", stuck, reason, why))
}

// patience is how long a trigger's window and the next step's settling explain that
// nothing goes on.
func (c *change) patience() time.Duration {
	var window, settle time.Duration
	for _, t := range c.inc.Triggers {
		window = max(window, c.b.Expr.Triggers[t.Trigger].Window)
	}
	if s := c.inc.Next(); s != nil {
		settle = c.b.SettleTime(c.inc, s)
	}
	return window + settle
}
