package gate

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/locotoki/backout/alerts"
	"github.com/locotoki/backout/hint"
	"github.com/locotoki/backout/remediation"
)

// Input is the question to the gates: may this step run now?
type Input struct {
	Step *remediation.Step
	// Confirmed: the condition was seen true just now. Unanswered: Prometheus
	// gave no answer at all, with what it said instead.
	Confirmed  bool
	Unanswered string
	// SilencedBy says which alert a person has silenced, "" where none holds.
	SilencedBy string
	// SilenceUnasked says why Alertmanager could not be asked; that holds nothing.
	SilenceUnasked string
}

// Gates checks every gate for automation, in the order in which holds are reported. It
// returns all results and the first closed gate (nil: the step may run).
func (c *Change) Gates(in Input) (all []remediation.GateResult, closed *remediation.GateResult, err error) {
	if all, err = c.always(in.Step); err != nil {
		return nil, nil, err
	}
	rollout, err := c.rollout(in.Step)
	if err != nil {
		return nil, nil, err
	}
	confirmation, err := c.Confirmation(in)
	if err != nil {
		return nil, nil, err
	}
	all = slices.Insert(all, 3, Silence(in), rollout) // behind the claim, where a person has it, and before limits that could be approved in vain
	all = append(all, c.approval(in.Step), confirmation)
	return all, firstClosed(all), nil
}

// OrderGates asks the gates that hold a commander's order too: neither confirmation
// nor a silence, not the commander's own claim, and not the cooldown, which keeps
// automation from repeating itself.
func (c *Change) OrderGates(s *remediation.Step, by string) (all []remediation.GateResult, closed *remediation.GateResult, err error) {
	if all, err = c.ordered(s, by); err != nil {
		return nil, nil, err
	}
	rollout, err := c.rollout(s)
	if err != nil {
		return nil, nil, err
	}
	all = append(slices.Insert(all, 3, rollout), c.approval(s))
	return all, firstClosed(all), nil
}

// RestoreGates are OrderGates for a restore: a commander and a reason also replace the
// rollout and the approval.
func (c *Change) RestoreGates(s *remediation.Step, by string) (closed *remediation.GateResult, err error) {
	all, err := c.ordered(s, by)
	return firstClosed(all), err
}

func (c *Change) ordered(s *remediation.Step, by string) ([]remediation.GateResult, error) {
	all, err := c.always(s)
	for i := range all {
		switch {
		case all[i].Gate == "claim" && c.Inc.ClaimedBy == by:
			all[i] = remediation.GateOpen("claim", "")
		case all[i].Gate == remediation.GateRealm: // a person it is
			all[i] = remediation.GateOpen(remediation.GateRealm, "does not apply to a commander's order")
		case all[i].Gate == "cooldown":
			all[i] = remediation.GateOpen("cooldown", "does not apply to a commander's order")
		}
	}
	return all, err
}

// always asks the gates that hold every actor: mode, freeze, claim, limits, and the
// lock of the target.
func (c *Change) always(s *remediation.Step) ([]remediation.GateResult, error) {
	limits, err := c.limits(s)
	if err != nil {
		return nil, err
	}
	freeze, err := c.e.Frozen(c.Tx, c.Inc.Service, remediation.ScopeAll)
	if err != nil {
		return nil, err
	}
	target, err := c.targetFree(s)
	if err != nil {
		return nil, err
	}
	all := append(append([]remediation.GateResult{c.Mode(s), freeze, c.Claim()}, limits...), target)
	replicas, err := c.e.Agreed(c.Tx, c.Inc.Service, c.Now)
	return append(all, replicas...), err
}

func firstClosed(all []remediation.GateResult) *remediation.GateResult {
	for i := range all {
		if !all[i].OK {
			return &all[i]
		}
	}
	return nil
}

// Rows returns results in the audit log's form.
func Rows(all []remediation.GateResult) []any {
	out := make([]any, len(all))
	for i, g := range all {
		out[i] = map[string]any{"gate": g.Gate, "ok": g.OK, "why": g.Why}
	}
	return out
}

// Mode holds every step in observe mode, and a lossy step if the configuration rules it
// out.
func (c *Change) Mode(s *remediation.Step) remediation.GateResult {
	g := c.e.ActMode()
	if g.OK && s.Risk == alerts.Lossy && c.e.NoLossy != "" {
		return remediation.GateResult{Gate: g.Gate, Reason: remediation.HoldMode, Why: c.e.NoLossy}
	}
	return g
}

// Claim holds a step while someone acts by hand.
func (c *Change) Claim() remediation.GateResult {
	if c.Inc.ClaimedBy != "" {
		return remediation.GateResult{Gate: "claim", Reason: remediation.HoldClaimed, Why: "claimed by " + c.Inc.ClaimedBy + ": no step runs until the claim is released"}
	}
	return remediation.GateOpen("claim", "")
}

// Silence holds a step while all active alerts are silenced in Alertmanager.
func Silence(q Input) remediation.GateResult {
	if q.SilencedBy != "" {
		return remediation.GateResult{Gate: "silence", Reason: remediation.HoldSilenced, Why: q.SilencedBy}
	}
	return remediation.GateOpen("silence", q.SilenceUnasked)
}

// rollout: a release that is being rolled out may be backed out; without one,
// only what is reversible may run; while another is, nothing may.
func (c *Change) rollout(s *remediation.Step) (remediation.GateResult, error) {
	r, err := remediation.RolloutOf(c.Tx, c.Inc.Service)
	if err != nil {
		return remediation.GateResult{}, err
	}
	switch {
	case r.Active() && r.Release != c.Inc.Release:
		return remediation.GateResult{Gate: "rollout", Reason: remediation.HoldNoRollout,
			Why: fmt.Sprintf("release %s is being rolled out, and the alert is about %s", r.Release, c.Inc.Release)}, nil
	case r.Active(), c.Inc.RolloutActive, s.Risk == alerts.Reversible:
		return remediation.GateOpen("rollout", ""), nil
	}
	stage := ""
	if names := remediation.StageNames(c.Plan.Playbook); len(names) > 0 {
		stage = names[len(names)-1]
	}
	return remediation.GateResult{Gate: "rollout", Reason: remediation.HoldNoRollout,
		Why: hint.Text(fmt.Sprintf("no rollout of %s is active, so only reversible steps may run", c.Inc.Service), alerts.DeclareCommand(c.Inc.Service, stage))}, nil
}

// approval holds a step that needs approval until it is approved, recently and for this
// plan.
func (c *Change) approval(s *remediation.Step) remediation.GateResult {
	if s.Approve == 0 && s.Risk != alerts.Lossy {
		return remediation.GateOpen("approval", "")
	}
	asked := c.Now
	if s.ApprovalAsked != nil && s.ApprovalPlan == c.Inc.PlanHash() {
		asked = *s.ApprovalAsked
	}
	until := asked.Add(s.Approve)
	if s.Approved != "" && s.ApprovalPlan == c.Inc.PlanHash() && until.After(c.Now) {
		return remediation.GateOpen("approval", "approved by "+s.Approved)
	}
	risk := "is " + s.Risk.String()
	if s.Risk == alerts.Lossy {
		risk = "can lose data"
	}
	return remediation.GateResult{Gate: "approval", Reason: remediation.HoldApproval, Until: &until,
		Why: fmt.Sprintf("%s %s. A commander must approve it; without an answer it is skipped", s.ID(), risk)}
}

// confirmFresh is how young a notification must be for a reversible step to
// run on it alone, while Prometheus does not answer.
const confirmFresh = 2 * time.Minute

// Confirmation holds a step unless the condition was just seen to be true, or a reversible one
// may run on a young notification while Prometheus does not answer.
func (c *Change) Confirmation(q Input) (remediation.GateResult, error) {
	if q.Confirmed {
		return remediation.GateOpen("confirmation", ""), nil
	}
	closed := remediation.GateResult{Gate: "confirmation", Reason: remediation.HoldUnconfirmed, Why: "the breach is not confirmed"}
	if q.Unanswered == "" {
		return closed, nil
	}
	closed.Why = q.Unanswered
	active, seen, err := c.Tx.ActiveAlerts(c.Inc.ID)
	if err != nil {
		return remediation.GateResult{}, err
	}
	if c.Plan.Confirmation.For(q.Step.Risk) == alerts.ConfirmIfReachable && !c.Inc.Ran && active > 0 && c.Now.Sub(seen) < confirmFresh {
		return remediation.GateOpen("confirmation", fmt.Sprintf("not required for a %s step with a recent notification: %s", q.Step.Risk, q.Unanswered)), nil
	}
	return closed, nil
}

// limits counts what has been done, from the store, so that a restart forgets none.
func (c *Change) limits(s *remediation.Step) ([]remediation.GateResult, error) {
	l := c.Plan.Limits
	realm := c.RealmLimit()
	longest := max(realm.Services.Window, l.PerTarget.Window, l.PerService.Window, l.BlastRadius.Window, time.Duration(l.Cooldown))
	effects, err := c.Tx.Effects("", c.Now.Add(-longest))
	if err != nil {
		return nil, err
	}
	effects = append(effects, c.supposed...)
	broken, err := Breaker(c.Tx, l.Breaker, c.Inc.Service, remediation.Effect.Back)
	if err != nil {
		return nil, err
	}
	effects = slices.DeleteFunc(effects, func(ef remediation.Effect) bool { return !ef.Back() })
	mine := func(ef remediation.Effect) bool { return ef.Service == c.Inc.Service }
	here := func(ef remediation.Effect) bool { return mine(ef) && ef.Action == s.Action && ef.Target == s.Target }
	any := func(remediation.Effect) bool { return true }

	cooldown := remediation.GateOpen("cooldown", "")
	for _, ef := range effects {
		until := ef.Time.Add(time.Duration(l.Cooldown))
		if ef.Counts() && here(ef) && until.After(c.Now) {
			cooldown = remediation.GateResult{Gate: "cooldown", Reason: remediation.HoldCooldown, Until: &until,
				Why: fmt.Sprintf("limit cooldown %s: %s changed this target, or tried to, at %s", l.Cooldown, s.Action, remediation.Moment(ef.Time))}
		}
	}
	all := []remediation.GateResult{
		c.rate("per_target", remediation.HoldRateLimit, l.PerTarget, effects, here),
		c.rate("per_service", remediation.HoldRateLimit, l.PerService, effects, mine),
		c.rate("blast_radius", remediation.HoldBlastRadius, l.BlastRadius, effects, any),
		cooldown,
		broken,
	}
	if realm.Services.Count > 0 {
		all = slices.Insert(all, 3, c.realm(s, realm, effects))
	}
	for i, g := range all {
		if by := s.MayPass(g.Gate, c.Now); !g.OK && by != "" {
			all[i] = remediation.GateOpen(g.Gate, "approved by "+by+" over the limit")
		}
	}
	return all, nil
}

// RealmLimit is the limit of the realm that the incident's service is in; its count is 0
// where there is none.
func (c *Change) RealmLimit() (found remediation.RealmLimit) {
	realm := remediation.LimitRealm(c.Plan.Target)
	for _, l := range c.e.Limits {
		if l.Realm == realm || l.Realm == "" && found.Services.Count == 0 {
			found = l
		}
	}
	found.Realm = realm
	return found
}

// realm holds a step while as many other services of its realm as the limit allows were
// rolled back within its window. A service that was rolled back already is not counted
// again. One whose playbook was taken out counts in every realm: where it was is not known.
func (c *Change) realm(s *remediation.Step, limit remediation.RealmLimit, effects []remediation.Effect) remediation.GateResult {
	gate := remediation.GateOpen(remediation.GateRealm, "")
	last := map[string]time.Time{}
	for _, ef := range effects {
		if !ef.Counts() || !ef.Time.After(c.Now.Add(-limit.Services.Window)) {
			continue
		}
		if p := c.e.PlanOf(ef.Service); p == nil || remediation.LimitRealm(p.Target) == limit.Realm {
			last[ef.Service] = ef.Time // the oldest come first
		}
	}
	if _, mine := last[c.Inc.Service]; mine || len(last) < limit.Services.Count {
		return gate
	}
	services := slices.SortedFunc(maps.Keys(last), func(a, b string) int { return cmp.Or(last[a].Compare(last[b]), strings.Compare(a, b)) })
	until := last[services[len(services)-limit.Services.Count]].Add(limit.Services.Window)
	gate.OK, gate.Reason, gate.Until = false, remediation.HoldBlastRadius, &until
	gate.Why = hint.Text(fmt.Sprintf("limit of %s services in realm %s: reached by %s", limit.Services, limit.Realm, remediation.Few(services)),
		"a commander can let it run: "+remediation.OverCommand(c.Inc.ID, s.ID(), remediation.GateRealm))
	return gate
}

// targetFree is the lock of a target (lockOf): while a step of another incident, or
// a promotion of another service, has its intent and not yet its end, nothing else
// begins on it. The rows that say so are the lock: it is asked in the transaction
// that writes the intent, ends with what holds it, and needs no process to live.
func (c *Change) targetFree(s *remediation.Step) (remediation.GateResult, error) {
	busy, err := c.e.TargetBusy(c.Tx, s.Target, c.Inc.ID, c.Inc.Service)
	if err != nil || busy == "" {
		return remediation.GateOpen(targetGate, ""), err
	}
	return remediation.GateResult{Gate: targetGate, Reason: remediation.HoldCooldown, Why: busy + " is changing this target now"}, nil
}

// targetGate is the gate that one step or promotion at a time passes.
const targetGate = "target"

// TargetBusy says what is changing a target now, "" if nothing is; incident and service
// are the caller's.
func (e *Gates) TargetBusy(tx remediation.Tx, target, incident, service string) (string, error) {
	running, err := tx.Running()
	if err != nil {
		return "", err
	}
	lock := e.lockOf(target)
	for _, inc := range running {
		if s := inc.Running(); inc.ID != incident && e.lockOf(s.Target) == lock {
			return fmt.Sprintf("%s of incident %s (%s)", s.ID(), inc.ID, inc.Service), nil
		}
	}
	promoting, err := tx.Promoting()
	if err != nil {
		return "", err
	}
	for _, r := range promoting {
		if r.Service != service && e.lockOf(r.Promotion.Target) == lock {
			return fmt.Sprintf("%s of %s", r.Promotion.Step(), r.Service), nil
		}
	}
	return "", nil
}

func (c *Change) rate(gate string, reason remediation.Reason, r alerts.Rate, effects []remediation.Effect, counts func(remediation.Effect) bool) remediation.GateResult {
	var in []remediation.Effect
	for _, ef := range effects {
		if ef.Counts() && counts(ef) && ef.Time.After(c.Now.Add(-r.Window)) {
			in = append(in, ef)
		}
	}
	if len(in) < r.Count {
		return remediation.GateOpen(gate, "")
	}
	until := in[len(in)-r.Count].Time.Add(r.Window)
	return remediation.GateResult{Gate: gate, Reason: reason, Until: &until, Why: fmt.Sprintf("limit %s %s: reached, with %d in its window", gate, r, len(in))}
}

// Breaker closes after limit counted effects have failed in a row.
func Breaker(tx remediation.Tx, limit int, service string, counts func(remediation.Effect) bool) (remediation.GateResult, error) {
	row := 0
	err := tx.EffectsBack(service, func(ef remediation.Effect) bool {
		if counts(ef) && ef.Outcome == remediation.EffectFailed {
			row++
		}
		return !counts(ef) || ef.Outcome != remediation.EffectDone && ef.Outcome != remediation.EffectReleased
	})
	if err != nil || row < limit {
		return remediation.GateOpen("breaker", ""), err
	}
	return remediation.GateResult{Gate: "breaker", Reason: remediation.HoldBreaker,
		Why: fmt.Sprintf("limit breaker %d: %d steps failed in a row; automation stops until someone claims and releases an incident of this service", limit, row)}, nil
}

// Silenced asks Alertmanager whether a person has the active alerts. Alerts it
// does not know, and no answer, hold nothing; unasked then says so.
func (e *Gates) Silenced(ctx context.Context, inc *remediation.Incident) (by, unasked string, err error) {
	var active []string
	err = e.Store.View(ctx, func(tx remediation.Tx) error {
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
	err = e.Safely("the query to Alertmanager", func() (err error) {
		known, err = e.Alertmanager.Silenced(ctx, active)
		return err
	})
	if err != nil {
		e.Log.Warn("cannot query Alertmanager for silences; using the last status received", "incident", inc.ID, "err", err)
		return "", fmt.Sprintf("cannot query Alertmanager for silences, so the last status received counts: %v", err), nil
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
	return fmt.Sprintf("alert %s is silenced in Alertmanager, so a person is handling it", by), "", nil
}
