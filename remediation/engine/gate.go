package engine

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/locotoki/backout/alerts"
	"github.com/locotoki/backout/remediation"
)

// gateResult is what one gate says of one step. Gates are closed by default: what
// cannot be asked does not pass, except where the playbook says so.
type gateResult struct {
	gate   string
	reason remediation.Reason // "" where the gate is open
	why    string
	until  *time.Time
}

// Question is what the gates are asked: may this step run now?
type Question struct {
	Step *remediation.Step
	// Confirmed: the condition was seen true just now. Unanswered: Prometheus
	// gave no answer at all, with what it said instead.
	Confirmed  bool
	Unanswered string
	// SilencedBy says which alert a human has silenced, "" where none holds.
	SilencedBy string
	// SilenceUnasked says why Alertmanager could not be asked; that holds nothing.
	SilenceUnasked string
}

// gates asks every gate, in the order in which holds are reported, and
// returns all answers and the first that is closed (nil: the step may run).
func (c *change) gates(q Question) (all []gateResult, closed *gateResult, err error) {
	limits, err := c.limits(q.Step)
	if err != nil {
		return nil, nil, err
	}
	freeze, err := c.frozen()
	if err != nil {
		return nil, nil, err
	}
	rollout, err := c.rollout(q.Step)
	if err != nil {
		return nil, nil, err
	}
	confirm, err := c.confirmation(q)
	if err != nil {
		return nil, nil, err
	}
	target, err := c.targetFree(q.Step)
	if err != nil {
		return nil, nil, err
	}
	all = append(all, c.mode(q.Step), freeze, c.claim(), silence(q))
	all = append(all, limits...)
	all = append(all, target, rollout, c.approval(q.Step), confirm)
	for i := range all {
		if all[i].reason != "" {
			return all, &all[i], nil
		}
	}
	return all, nil, nil
}

// gateRows writes answers the way the audit log holds them.
func gateRows(all []gateResult) []any {
	out := make([]any, len(all))
	for i, g := range all {
		out[i] = map[string]any{"gate": g.gate, "ok": g.reason == "", "why": g.why}
	}
	return out
}

func (c *change) mode(s *remediation.Step) gateResult {
	switch {
	case c.e.mode != remediation.Act:
		return gateResult{gate: "mode", reason: remediation.HoldMode, why: "backout runs with --mode=observe: it acts on nothing"}
	case s.Risk == alerts.Lossy && c.e.noLossy != "":
		return gateResult{gate: "mode", reason: remediation.HoldMode, why: c.e.noLossy}
	}
	return gateResult{gate: "mode"}
}

func (c *change) frozen() (gateResult, error) {
	freezes, err := c.tx.Freezes()
	if err != nil {
		return gateResult{}, err
	}
	for _, f := range freezes {
		if f.Scope != remediation.ScopeAll || (f.Service != "" && f.Service != c.inc.Service) || f.RanOut(c.now) {
			continue
		}
		return gateResult{gate: "freeze", reason: remediation.HoldFrozen, why: fmt.Sprintf("frozen by %s: %s", f.By, f.Reason), until: f.Until}, nil
	}
	return gateResult{gate: "freeze"}, nil
}

func (c *change) claim() gateResult {
	if c.inc.ClaimedBy != "" {
		return gateResult{gate: "claim", reason: remediation.HoldClaimed, why: "claimed by " + c.inc.ClaimedBy + ", who acts by hand until the claim is released"}
	}
	return gateResult{gate: "claim"}
}

func silence(q Question) gateResult {
	if q.SilencedBy != "" {
		return gateResult{gate: "silence", reason: remediation.HoldSilenced, why: q.SilencedBy}
	}
	return gateResult{gate: "silence", why: q.SilenceUnasked}
}

// rollout: a release that is being rolled out may be backed out; without one,
// only what is reversible may run; while another is, nothing may.
func (c *change) rollout(s *remediation.Step) (gateResult, error) {
	r, err := rolloutOf(c.tx, c.inc.Service)
	if err != nil {
		return gateResult{}, err
	}
	switch {
	case r.Active() && r.Release != c.inc.Release:
		return gateResult{gate: "rollout", reason: remediation.HoldNoRollout,
			why: fmt.Sprintf("release %s is being rolled out, and the alert is about %s", r.Release, c.inc.Release)}, nil
	case r.Active(), c.inc.RolloutActive, s.Risk == alerts.Reversible:
		return gateResult{gate: "rollout"}, nil
	}
	return gateResult{gate: "rollout", reason: remediation.HoldNoRollout,
		why: fmt.Sprintf("no rollout of %s is active, so only reversible steps may run: backout rollout start --declare", c.inc.Service)}, nil
}

func (c *change) approval(s *remediation.Step) gateResult {
	if s.Approve == 0 && s.Risk != alerts.Lossy {
		return gateResult{gate: "approval"}
	}
	asked := c.now
	if s.ApprovalAsked != nil && s.ApprovalPlan == c.inc.PlanHash() {
		asked = *s.ApprovalAsked
	}
	until := asked.Add(s.Approve)
	if s.Approved != "" && s.ApprovalPlan == c.inc.PlanHash() && until.After(c.now) {
		return gateResult{gate: "approval", why: "approved by " + s.Approved}
	}
	return gateResult{gate: "approval", reason: remediation.HoldApproval, until: &until,
		why: fmt.Sprintf("%s is %s: a commander must say yes, and no answer is a no", s.ID(), s.Risk)}
}

// confirmFresh is how young a notification must be for a reversible step to
// run on it alone, while Prometheus does not answer.
const confirmFresh = 2 * time.Minute

func (c *change) confirmation(q Question) (gateResult, error) {
	if q.Confirmed {
		return gateResult{gate: "confirmation"}, nil
	}
	closed := gateResult{gate: "confirmation", reason: remediation.HoldUnconfirmed, why: "the condition is not seen to be true"}
	if q.Unanswered == "" {
		return closed, nil
	}
	closed.why = q.Unanswered
	active, seen, err := c.tx.ActiveAlerts(c.inc.ID)
	if err != nil {
		return gateResult{}, err
	}
	if c.b.Confirmation.For(q.Step.Risk) == alerts.ConfirmIfReachable && !c.inc.Ran && active > 0 && c.now.Sub(seen) < confirmFresh {
		return gateResult{gate: "confirmation", why: fmt.Sprintf("not asked for a %s step: %s, and the notification is young", q.Step.Risk, q.Unanswered)}, nil
	}
	return closed, nil
}

// limits counts what has been done, from the store, so that a restart forgets none.
func (c *change) limits(s *remediation.Step) ([]gateResult, error) {
	l := c.b.Limits
	longest := max(l.PerTarget.Window, l.PerService.Window, l.BlastRadius.Window, time.Duration(l.Cooldown))
	effects, err := c.tx.Effects("", c.now.Add(-longest))
	if err != nil {
		return nil, err
	}
	broken, err := breaker(c.tx, l.Breaker, c.inc.Service, remediation.Effect.Back)
	if err != nil {
		return nil, err
	}
	effects = slices.DeleteFunc(effects, func(ef remediation.Effect) bool { return !ef.Back() })
	mine := func(ef remediation.Effect) bool { return ef.Service == c.inc.Service }
	here := func(ef remediation.Effect) bool { return mine(ef) && ef.Action == s.Action && ef.Target == s.Target }
	any := func(remediation.Effect) bool { return true }

	cooldown := gateResult{gate: "cooldown"}
	for _, ef := range effects {
		until := ef.Time.Add(time.Duration(l.Cooldown))
		if ef.Counts() && here(ef) && until.After(c.now) {
			cooldown = gateResult{gate: "cooldown", reason: remediation.HoldCooldown, until: &until,
				why: fmt.Sprintf("limit cooldown %s: %s ran on this target at %s", l.Cooldown, s.Action, ef.Time.UTC().Format(time.RFC3339))}
		}
	}
	return []gateResult{
		c.rate("per_target", remediation.HoldRateLimit, l.PerTarget, effects, here),
		c.rate("per_service", remediation.HoldRateLimit, l.PerService, effects, mine),
		c.rate("blast_radius", remediation.HoldBlastRadius, l.BlastRadius, effects, any),
		cooldown,
		broken,
	}, nil
}

// targetFree is the lock of a target (lockOf): while a step of another incident, or
// a promotion of another service, has its intent and not yet its end, nothing else
// begins on it. The rows that say so are the lock: it is asked in the transaction
// that writes the intent, ends with what holds it, and needs no process to live.
func (c *change) targetFree(s *remediation.Step) (gateResult, error) {
	busy, err := c.e.targetBusy(c.tx, s.Target, c.inc.ID, c.inc.Service)
	if err != nil || busy == "" {
		return gateResult{gate: gateTarget}, err
	}
	return gateResult{gate: gateTarget, reason: remediation.HoldCooldown, why: busy + " changes this target now"}, nil
}

// gateTarget is the gate that one step or promotion at a time passes.
const gateTarget = "target"

// targetBusy says what changes a target now, "" where nothing does; incident and
// service are who asks.
func (e *Engine) targetBusy(tx remediation.Tx, target, incident, service string) (string, error) {
	open, err := tx.Incidents(remediation.IncidentFilter{Open: true})
	if err != nil {
		return "", err
	}
	lock := e.lockOf(target)
	for _, inc := range open {
		if s := inc.Running(); s != nil && inc.ID != incident && e.lockOf(s.Target) == lock {
			return fmt.Sprintf("%s of incident %s (%s)", s.ID(), inc.ID, inc.Service), nil
		}
	}
	rollouts, err := tx.Rollouts()
	if err != nil {
		return "", err
	}
	for _, r := range rollouts {
		if r.Promotion != nil && r.Service != service && e.lockOf(r.Promotion.Target) == lock {
			return fmt.Sprintf("%s of %s", r.Promotion.Step(), r.Service), nil
		}
	}
	return "", nil
}

func (c *change) rate(gate string, reason remediation.Reason, r alerts.Rate, effects []remediation.Effect, counts func(remediation.Effect) bool) gateResult {
	var in []remediation.Effect
	for _, ef := range effects {
		if ef.Counts() && counts(ef) && ef.Time.After(c.now.Add(-r.Window)) {
			in = append(in, ef)
		}
	}
	if len(in) < r.Count {
		return gateResult{gate: gate}
	}
	until := in[len(in)-r.Count].Time.Add(r.Window)
	return gateResult{gate: gate, reason: reason, until: &until, why: fmt.Sprintf("limit %s %s: it has been reached, with %d within its window", gate, r, len(in))}
}

// breaker is closed once limit effects of those that count have failed in a row.
func breaker(tx remediation.Tx, limit int, service string, counts func(remediation.Effect) bool) (gateResult, error) {
	row := 0
	err := tx.EffectsBack(service, func(ef remediation.Effect) bool {
		if counts(ef) && ef.Outcome == remediation.EffectFailed {
			row++
		}
		return !counts(ef) || ef.Outcome != remediation.EffectDone && ef.Outcome != remediation.EffectReleased
	})
	if err != nil || row < limit {
		return gateResult{gate: "breaker"}, err
	}
	return gateResult{gate: "breaker", reason: remediation.HoldBreaker,
		why: fmt.Sprintf("limit breaker %d: %d steps failed in a row, and automation stops until somebody claims and releases an incident of this service", limit, row)}, nil
}

// silenced asks Alertmanager whether a human has the active alerts. Alerts it
// does not know, and no answer, hold nothing; unasked then says so.
func (e *Engine) silenced(ctx context.Context, inc *remediation.Incident) (by, unasked string, err error) {
	var active []string
	err = e.store.View(ctx, func(tx remediation.Tx) error {
		all, err := tx.Alerts(inc.ID)
		for _, a := range all {
			if a.Active {
				active = append(active, a.Fingerprint)
			}
		}
		return err
	})
	if err != nil || len(active) == 0 {
		return "", "", err
	}
	var known map[string]bool
	err = e.safely("the question to Alertmanager", func() (err error) {
		known, err = e.alertmanager.Silenced(ctx, active)
		return err
	})
	if err != nil {
		e.log.Warn("Alertmanager could not be asked for silences; the last status received counts", "incident", inc.ID, "err", err)
		return "", fmt.Sprintf("Alertmanager could not be asked for silences, so the last status received counts: %v", err), nil
	}
	if len(known) < len(active) {
		return "", "", nil // what it does not know, nobody silenced
	}
	for fp, silenced := range known {
		if !silenced {
			return "", "", nil // an alert that nobody silenced is reason enough
		}
		by = fp
	}
	if by == "" {
		return "", "", nil
	}
	return fmt.Sprintf("alert %s is silenced in Alertmanager: a human has it", by), "", nil
}

// rolloutOf returns a service's rollout; state none where it has none.
func rolloutOf(tx remediation.Tx, service string) (remediation.Rollout, error) {
	all, err := tx.Rollouts()
	if err != nil {
		return remediation.Rollout{}, err
	}
	for _, r := range all {
		if r.Service == service {
			return r, nil
		}
	}
	return remediation.Rollout{Service: service, State: remediation.RolloutNone, Stage: remediation.StageNone}, nil
}
