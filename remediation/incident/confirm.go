package incident

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/locotoki/backout/remediation"
	"github.com/locotoki/backout/remediation/audit"
	"github.com/locotoki/backout/remediation/gate"
	"github.com/locotoki/backout/remediation/plan"
)

// confirm asks Prometheus whether what the alerts say is still true. Before
// any step of ours has run, the triggers' own values decide; after one, their
// recovery values do.
func (e *Responder) confirm(ctx context.Context, b *plan.Plan, inc *remediation.Incident) error {
	if waits, err := e.waitsForPromotion(ctx, b, inc); waits || err != nil {
		return err
	}
	warm, err := e.warmUntil(ctx, b, inc)
	if err != nil {
		return err
	}
	if warm.After(e.Now()) {
		return e.change(ctx, b, inc, func(c *change) error {
			c.Inc.Wake = warm
			return nil
		})
	}
	if inc.Ran {
		return e.confirmByRecovery(ctx, b, inc)
	}
	early := e.startPrefetch(ctx, b, inc)
	defer early.wait()
	values, err := e.ReadValues(ctx, b, inc)
	if err != nil {
		return err
	}
	return e.confirmValues(ctx, b, inc, values, gateInput{prefetched: early})
}

// warmUntil is when the last step of ours on the service is old enough for its
// values to mean something: a recreated container is slow at first.
func (e *Responder) warmUntil(ctx context.Context, b *plan.Plan, inc *remediation.Incident) (until time.Time, err error) {
	warmup := time.Duration(b.Warmup)
	err = e.Store.View(ctx, func(tx remediation.Tx) error {
		effects, err := tx.Effects(inc.Service, e.Now().Add(-warmup-longestStep))
		for _, ef := range effects {
			if !ef.Counts() {
				continue
			}
			ended, err := endOf(tx, ef, e.Now())
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
// changed. A later try of the same step ends later, and is as good an answer. Of an
// incident that nothing is left to do about, a clock that was set moved the effect alone.
func endOf(tx remediation.Tx, ef remediation.Effect, now time.Time) (time.Time, error) {
	inc, err := tx.Incident(ef.Incident)
	if errors.Is(err, remediation.ErrNotFound) {
		return ef.Time, nil
	}
	if err != nil {
		return time.Time{}, err
	}
	id, _, _ := strings.Cut(ef.Step, "@")
	s := inc.Step(id)
	if s == nil || s.Finished == nil || s.Finished.Before(ef.Time) || s.Finished.After(now) {
		return ef.Time, nil
	}
	if s.Verified && inc.SettleFrom != nil && inc.SettleFrom.After(*s.Finished) && !inc.SettleFrom.After(now) {
		return *inc.SettleFrom, nil
	}
	return *s.Finished, nil
}

// confirmValues decides by the triggers' own values; q holds what is known
// next to them.
func (e *Responder) confirmValues(ctx context.Context, b *plan.Plan, inc *remediation.Incident, ev gate.Samples, q gateInput) error {
	if t := ev.Beyond(inc); t != nil {
		q.Confirmed = true
		return e.tryStep(ctx, b, inc, ev, t, q)
	}
	err := ev.Failed()
	if err != nil && errors.Is(err, remediation.ErrNoAnswer) && len(ev.Over) < len(ev.Values) {
		q.Unanswered = err.Error()
		return e.tryStep(ctx, b, inc, ev, nil, q)
	}
	silent := ev.Silent(inc)
	if len(silent) > 0 && q.poll == nil {
		poll, err := e.PollRecovery(ctx, b, inc)
		if err != nil {
			return err
		}
		q.poll = &poll
	}
	unknown := ""
	for _, t := range silent {
		if v := q.poll.Verdict(t); v != remediation.Quiet && v != remediation.Stopped {
			unknown = cmp.Or(q.poll.Unknown(inc), fmt.Sprintf("trigger %s has no value", t.Trigger))
			break
		}
	}
	return e.change(ctx, b, inc, func(c *change) error {
		if q.poll != nil {
			q.poll.Count(c.Inc)
		}
		ev.Note(c.Inc)
		switch {
		case err != nil || !c.Inc.Calm():
			c.Inc.FalseSince = nil
		case c.Inc.FalseSince == nil:
			c.Inc.FalseSince = &c.Now
		}
		active, _, aerr := c.Tx.ActiveAlerts(c.Inc.ID)
		switch {
		case aerr != nil:
			return aerr
		case err != nil:
			return c.hold(nil, remediation.GateResult{Reason: remediation.HoldUnconfirmed, Why: err.Error()}, ev.All(c.Inc, map[string]any{}))
		case unknown != "":
			return c.hold(nil, remediation.GateResult{Reason: remediation.HoldNoData, Why: unknown}, ev.All(c.Inc, map[string]any{}))
		case active == 0:
			return c.close(remediation.ActorEngine, ev.All(c.Inc, map[string]any{
				"reason": "unconfirmed", "why": "no trigger exceeds its threshold and no alert is active",
			}))
		case ev.Empty():
			return c.hold(nil, remediation.GateResult{Reason: remediation.HoldNoData, Why: "the triggers' expressions have no value, but an alert is active"}, ev.All(c.Inc, map[string]any{}))
		}
		why := cmp.Or(ev.Aside(), "no trigger exceeds its threshold, but an alert is active")
		return c.hold(nil, remediation.GateResult{Reason: remediation.HoldUnconfirmed, Why: why}, ev.All(c.Inc, map[string]any{}))
	})
}

func (e *Responder) confirmByRecovery(ctx context.Context, b *plan.Plan, inc *remediation.Incident) error {
	ev, err := e.PollRecovery(ctx, b, inc)
	if err != nil {
		return err
	}
	ev.Count(inc)
	if t := inc.Breaching(remediation.Certain); t != nil {
		return e.tryStep(ctx, b, inc, ev, t, gateInput{Input: gate.Input{Confirmed: true}, poll: &ev})
	}
	return e.change(ctx, b, inc, func(c *change) error {
		ev.Count(c.Inc)
		switch {
		case c.Inc.Calm() && c.Inc.Broken() == nil:
			return c.recover(ev)
		case ev.Unknown(c.Inc) != "" && c.Inc.Breaching(1) == nil:
			return c.hold(nil, remediation.GateResult{Reason: remediation.HoldNoData, Why: ev.Unknown(c.Inc)}, ev.All(c.Inc, map[string]any{}))
		}
		c.Inc.Wake = c.Now.Add(b.Poll())
		return c.pageIfStuck(cmp.Or(ev.OnlyAside(c.Inc), "the polls show neither a breach nor its end"))
	})
}

// waitFresh is how long a wait may last before its end asks for a new confirmation.
const waitFresh = 2 * time.Minute

// wait polls a held incident: it ends when the breach ends, or goes on when
// what held it has gone and the breach has not.
func (e *Responder) wait(ctx context.Context, b *plan.Plan, inc *remediation.Incident) error {
	if inc.Ran {
		return e.waitAfterStep(ctx, b, inc)
	}
	if inc.Reason == remediation.HoldUnconfirmed || inc.Reason == remediation.HoldNoData {
		return e.waitUnconfirmed(ctx, b, inc)
	}
	// Nothing has run and the breach was confirmed once.
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
	t := values.Beyond(inc)
	if inc.Calm() && t == nil && values.Failed() == nil {
		return e.change(ctx, b, inc, func(c *change) error {
			ev.Count(c.Inc)
			return c.close(remediation.ActorEngine, ev.All(c.Inc, map[string]any{"reason": "ended", "why": "the breach ended before any step ran"}))
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
	case t != nil && (!open || e.Now().Sub(inc.Since) <= waitFresh):
		// Read just now; where a gate is closed, this says which one.
		return e.tryStep(ctx, b, inc, values, t, gateInput{Input: gate.Input{Confirmed: true}, poll: &ev})
	}
	return e.change(ctx, b, inc, func(c *change) error {
		ev.Count(c.Inc)
		c.Enter(remediation.Confirming, 0)
		return nil
	})
}

// waitUnconfirmed polls an incident that was never confirmed. It ends when the
// condition turns out true, with the last alert, or, for an alert whose
// resolved never comes, once nothing has been true for close_after.
func (e *Responder) waitUnconfirmed(ctx context.Context, b *plan.Plan, inc *remediation.Incident) error {
	ev, err := e.PollRecovery(ctx, b, inc)
	if err != nil {
		return err
	}
	ev.Count(inc)
	values, err := e.ReadValues(ctx, b, inc)
	if err != nil {
		return err
	}
	if !inc.Calm() || values.Beyond(inc) != nil || values.Failed() != nil {
		return e.confirmValues(ctx, b, inc, values, gateInput{poll: &ev})
	}
	if inc.FalseSince == nil || e.Now().Sub(*inc.FalseSince) < time.Duration(b.Limits.CloseAfter) {
		return e.confirmValues(ctx, b, inc, values, gateInput{poll: &ev})
	}
	return e.change(ctx, b, inc, func(c *change) error {
		ev.Count(c.Inc)
		return c.close(remediation.ActorEngine, values.All(c.Inc, map[string]any{
			"reason": "ended", "why": fmt.Sprintf("never confirmed, and no breach for %s", remediation.Span(b.Limits.CloseAfter)),
		}))
	})
}

// waitAfterStep is wait once a step has run: only a recovery value that goes on
// breaching lets the next one run.
func (e *Responder) waitAfterStep(ctx context.Context, b *plan.Plan, inc *remediation.Incident) error {
	ev, err := e.PollRecovery(ctx, b, inc)
	if err != nil {
		return err
	}
	ev.Count(inc)
	if inc.Calm() && inc.Broken() == nil { // what is half done is a person's
		return e.change(ctx, b, inc, func(c *change) error {
			ev.Count(c.Inc)
			return c.recover(ev)
		})
	}
	if lapsed, err := e.lapse(ctx, b, inc); lapsed || err != nil {
		return err
	}
	t := inc.Breaching(remediation.Certain)
	if t == nil || inc.Reason == remediation.HoldStepFailed && (!inc.Review || inc.FailedRestore() == nil) {
		return e.keepWaiting(ctx, b, inc, ev)
	}
	// Three breaching polls are a confirmation, however long the wait was.
	return e.tryStep(ctx, b, inc, ev, t, gateInput{Input: gate.Input{Confirmed: true}, poll: &ev})
}

// gatesOpen reports whether the next step would pass all gates, were it confirmed.
func (e *Responder) gatesOpen(ctx context.Context, b *plan.Plan, inc *remediation.Incident) (open bool, err error) {
	by, _, err := e.Silenced(ctx, inc)
	if err != nil {
		return false, err
	}
	err = e.Store.View(ctx, func(tx remediation.Tx) error {
		s := inc.Next()
		if s == nil {
			open = true
			return nil
		}
		c := e.on(tx, b, inc, e.Now())
		_, closed, err := c.Gates(gate.Input{Step: s, Confirmed: true, SilencedBy: by})
		open = closed == nil
		return err
	})
	return open, err
}

func (e *Responder) keepWaiting(ctx context.Context, b *plan.Plan, inc *remediation.Incident, ev gate.Samples) error {
	var looks map[string]observedLook
	observed := inc.Reason == remediation.HoldMode && inc.Next() != nil
	var q gate.Input
	if observed {
		looks = e.lookAtAll(ctx, b, inc)
		var err error
		if q.SilencedBy, q.SilenceUnasked, err = e.Silenced(ctx, inc); err != nil {
			return err
		}
	}
	return e.change(ctx, b, inc, func(c *change) error {
		ev.Count(c.Inc)
		c.Inc.Wake = c.Now.Add(b.Poll())
		if observed { // what would be held changes while it waits
			var err error
			if c.Inc.Would, err = c.would(q, looks); err != nil {
				return err
			}
		}
		why := c.Inc.Why
		if unknown := ev.Unknown(c.Inc); unknown != "" {
			why = unknown
		}
		return c.pageIfStuck(why)
	})
}

// lapse ends an approval that nobody gave: no answer is a no.
func (e *Responder) lapse(ctx context.Context, b *plan.Plan, inc *remediation.Incident) (bool, error) {
	s := inc.Next()
	if inc.Reason != remediation.HoldApproval || s == nil || inc.Until == nil || inc.Until.After(e.Now()) ||
		s.ApprovalAsked == nil || s.ApprovalPlan != inc.PlanHash() {
		return false, nil
	}
	return true, e.change(ctx, b, inc, func(c *change) error {
		why := fmt.Sprintf("nobody answered within %s", remediation.Span(s.Approve))
		if s.Approved != "" {
			why = fmt.Sprintf("approved by %s, but could not run within %s", s.Approved, remediation.Span(s.Approve))
		}
		return c.deny(c.Inc.Next(), remediation.ActorEngine, why)
	})
}

// deny skips a step; without another one the plan is at its end.
func (c *change) deny(s *remediation.Step, actor, reason string) error {
	s.State, s.Finished = remediation.StepSkipped, &c.Now
	if err := c.Audit(audit.KindDenied, actor, s, map[string]any{"reason": reason}); err != nil {
		return err
	}
	if c.Inc.Next() == nil && !c.Inc.Aborting() {
		return c.exhaust("the last step was denied")
	}
	c.Inc.ResetPolls()
	c.Enter(remediation.Confirming, 0)
	return nil
}

// hold keeps the incident waiting, polled every S. An entry is written when the
// reason changes, not at each poll.
func (c *change) hold(s *remediation.Step, g remediation.GateResult, detail map[string]any) error {
	if c.Inc.State != remediation.Waiting {
		c.Inc.Since = c.Now
	}
	same := c.Inc.LastHeld == g.Reason && (g.Reason != remediation.HoldRateLimit && g.Reason != remediation.HoldBlastRadius || c.Inc.LastHeldGate == g.Gate)
	c.Inc.LastHeld, c.Inc.LastHeldGate = g.Reason, g.Gate
	if !c.Inc.Called && (c.Inc.State != remediation.Waiting || c.Inc.Reason != g.Reason && (!undecided(c.Inc.Reason) || !undecided(g.Reason))) {
		c.Inc.Paged = nil // what was paged for is over: something else holds now
	}
	switch g.Reason {
	case remediation.HoldApproval:
	case remediation.HoldRateLimit, remediation.HoldBlastRadius, remediation.HoldCooldown: // the same wait: only time is missing
		c.Inc.VoidRiskApprovals()
	default:
		c.Inc.VoidApprovals()
	}
	c.Inc.State, c.Inc.Reason, c.Inc.Why, c.Inc.Until = remediation.Waiting, g.Reason, g.Why, g.Until
	c.Inc.Wake = c.Now.Add(c.Plan.Poll())
	if s != nil {
		same = same && s.ID() == c.Inc.LastHeldStep
		c.Inc.LastHeldStep = s.ID()
		s.State = remediation.StepWaiting
		if g.Reason == remediation.HoldApproval && (s.ApprovalAsked == nil || s.ApprovalPlan != c.Inc.PlanHash()) {
			s.ApprovalAsked, s.ApprovalPlan, s.Approved = &c.Now, c.Inc.PlanHash(), ""
			same = false
		}
	}
	if !same {
		detail["reason"], detail["why"] = string(g.Reason), g.Why
		if g.Until != nil {
			detail["until"] = g.Until.UTC().Format(time.RFC3339)
		}
		c.Tx.OnCommit(c.e.Metrics.Holds.WithLabelValues(string(g.Reason)).Inc)
		if err := c.Audit(audit.KindHeld, remediation.ActorEngine, s, detail); err != nil {
			return err
		}
	}
	return c.pageIfStuck(g.Why)
}

// undecided reports whether a wait is for an answer of Prometheus.
func undecided(r remediation.Reason) bool {
	return r == remediation.HoldUnconfirmed || r == remediation.HoldNoData
}

// pageIfStuck calls a person, once, where the plan cannot go on by itself for
// longer than what holds it was to last, or than a trigger's window and a step's
// settling explain: a gate that nobody opens, a service that died while it waited,
// values that flap, which never confirm a breach and never end it.
func (c *change) pageIfStuck(why string) error {
	inc := c.Inc
	if inc.Stuck == nil {
		inc.Stuck = &c.Now
	}
	inc.CallAt = nil
	switch {
	case inc.Drill, inc.Called, len(inc.NeedsHuman()) > 0: // called already
		return nil
	case inc.ClaimedBy != "", inc.Reason == remediation.HoldSilenced: // a person has it
		return nil
	case inc.Reason == remediation.HoldMode && c.e.Mode != remediation.Act: // to look on is all it is there for
		return nil
	}
	until := inc.Stuck.Add(c.patience())
	if inc.Until != nil && inc.Until.After(until) {
		until = *inc.Until
	}
	if !c.Now.After(until) {
		inc.CallAt = &until
		return nil
	}
	inc.Called = true
	reason, stuck := string(inc.Reason), remediation.Span(c.Now.Sub(*inc.Stuck))
	if inc.Reason == "" || undecided(inc.Reason) {
		return c.Page(string(remediation.HoldUnconfirmed), fmt.Sprintf("unknown for %s whether there is a breach: %s", stuck, why))
	}
	return c.Page(reason, fmt.Sprintf("the plan has not continued for %s (%s): %s", stuck, reason, why))
}

// patience is how long a trigger's window and the next step's settling explain that
// nothing goes on.
func (c *change) patience() time.Duration {
	var window, settle time.Duration
	for _, t := range c.Inc.Triggers {
		window = max(window, c.Plan.Expr.Triggers[t.Trigger].Window)
	}
	if s := c.Inc.Next(); s != nil {
		settle = c.Plan.SettleTime(c.Inc, s)
	}
	return window + settle
}
