package rollout

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/locotoki/backout/hint"
	"github.com/locotoki/backout/remediation"
	"github.com/locotoki/backout/remediation/gate"
	"github.com/locotoki/backout/remediation/plan"
	"github.com/locotoki/backout/remediation/view"
	"github.com/locotoki/backout/rules"
)

// stageSample is what Prometheus said of a rollout's stage.
type stageSample struct {
	criteria []view.CriterionView
	triggers map[string]remediation.Sample
}

// sampleStage asks Prometheus for the stage's criteria and for every trigger's value.
func (e *Promoter) sampleStage(ctx context.Context, b *plan.Plan, r remediation.Rollout) stageSample {
	exprs := map[string]string{}
	for name, x := range b.Expr.Triggers {
		exprs["trigger "+name] = x.Value
	}
	stage := b.Stage(r.Stage)
	if stage != nil {
		for i := range stage.Success {
			// A playbook that was loaded has an expression for each of them.
			if expr, err := rules.CriterionExpression(b.Playbook, &stage.Success[i]); err == nil {
				exprs[criterionKey(i)] = expr
			}
			if r.StageSince == nil {
				continue
			}
			if expr, err := rules.StageExpression(b.Playbook, &stage.Success[i], e.Now().Sub(*r.StageSince)); err == nil && expr != "" {
				exprs[wholeKey(i)] = expr
			}
		}
	}
	got := e.Query(ctx, exprs)
	a := stageSample{criteria: []view.CriterionView{}, triggers: map[string]remediation.Sample{}}
	for name := range b.Expr.Triggers {
		a.triggers[name] = got["trigger "+name]
	}
	if stage != nil {
		for i, cr := range stage.Success {
			v := criterion(b, cr, got[criterionKey(i)])
			if whole, ok := got[wholeKey(i)]; ok {
				v = v.Worse(criterion(b, cr, whole), e.Now().Sub(*r.StageSince))
			}
			a.criteria = append(a.criteria, v)
		}
	}
	return a
}

func criterionKey(i int) string { return fmt.Sprintf("criterion %d", i) }

// wholeKey is criterionKey for the stage as a whole.
func wholeKey(i int) string { return fmt.Sprintf("criterion %d over the stage", i) }

// common are the gates of every step forward: those that cannot be forced, and the breaker.
func (e *Promoter) common(tx remediation.Tx, b *plan.Plan) ([]remediation.GateResult, error) {
	open, err := remediation.OpenIncident(tx, b.Service)
	if err != nil {
		return nil, err
	}
	inc := remediation.GateOpen("incident", "")
	switch {
	case open == nil:
	case open.AnsweredFalse():
		inc.Why = fmt.Sprintf("incident %s is open, but Prometheus says that none of its triggers is true", open.ID)
	default:
		inc = remediation.GateClosed("incident", "incident %s is open (%s)", open.ID, open.Describe())
	}
	freeze, err := e.Frozen(tx, b.Service, remediation.ScopeAll, remediation.ScopePromotions)
	if err != nil {
		return nil, err
	}
	if freeze.Until != nil {
		freeze.Why += ", until " + remediation.Moment(*freeze.Until)
	}
	breaker, err := gate.Breaker(tx, b.Limits.Breaker, b.Service, func(remediation.Effect) bool { return true })
	if err != nil {
		return nil, err
	}
	replicas, err := e.Agreed(tx, b.Service, e.Now())
	all := append([]remediation.GateResult{e.ActMode(), inc, freeze, breaker}, replicas...)
	for i := range all {
		all[i].Hard = !all[i].OK
	}
	return all, err
}

// judged are the gates that Prometheus answers. What has no value does not pass
// as a criterion; as a trigger it does, since one that counts in another stage
// has none.
func (a stageSample) judged(b *plan.Plan) []remediation.GateResult {
	var all []remediation.GateResult
	for _, cr := range a.criteria {
		says := cr.Bound + " " + remediation.Measure(cr.Threshold, cr.Unit)
		switch {
		case cr.Value == nil:
			all = append(all, remediation.GateClosed("criterion "+cr.Name, "%s has no value, and must be %s", cr.Words(), says))
		case !cr.OK:
			all = append(all, remediation.GateClosed("criterion "+cr.Name, "%s is %s, and must be %s", cr.Words(), remediation.Measure(*cr.Value, cr.Unit), says))
		default:
			all = append(all, remediation.GateOpen("criterion "+cr.Name, fmt.Sprintf("%s is %s, which is %s", cr.Words(), remediation.Measure(*cr.Value, cr.Unit), says)))
		}
	}
	triggers := remediation.GateOpen("triggers", "no trigger is breaching")
	var unknown error
	for _, t := range b.Triggers {
		x, known := b.Expr.Triggers[t.Name]
		if !known {
			continue
		}
		r := a.triggers[t.Name]
		st := remediation.TriggerState{Threshold: x.Threshold, Above: x.Above}
		switch {
		case r.Err != nil && (unknown == nil || errors.Is(r.Err, remediation.ErrNoAnswer)):
			unknown = fmt.Errorf("trigger %s: %w", t.Name, r.Err)
		case r.Value != nil && st.Beyond(*r.Value) && triggers.OK:
			unit := b.UnitOf(t.Name)
			triggers = remediation.GateClosed("triggers", "trigger %s is breaching: %s, threshold %s", t.Name, remediation.Estimated(remediation.Measure(*r.Value, unit), b.EstimateOf(t.Name)), remediation.Measure(x.Threshold, unit))
		}
	}
	if triggers.OK && unknown != nil {
		triggers = remediation.GateClosed("triggers", "cannot check whether a trigger is breaching: %s", unknown)
	}
	return append(all, triggers)
}

// promotable asks every gate of a promotion.
func (e *Promoter) promotable(tx remediation.Tx, b *plan.Plan, r remediation.Rollout, a stageSample) ([]remediation.GateResult, error) {
	all, err := e.common(tx, b)
	if err != nil {
		return nil, err
	}
	held := remediation.GateOpen("held", "")
	if r.Held {
		why := "the rollout is held"
		if !slices.ContainsFunc(all, func(g remediation.GateResult) bool { return g.Gate == "incident" && !g.OK }) { // which ends first
			why = hint.Text(why, "backout rollout resume --service="+r.Service)
		}
		held = remediation.GateClosed("held", "%s", why)
	}
	watchdog, err := e.Watchdog(tx, b)
	all = append(all, held, e.loaded(b, r), b.Lasted(r, e.Now()))
	return append(append(all, a.judged(b)...), watchdog), err
}

// loaded is closed while another playbook is loaded than the rollout goes by: the rules in
// Prometheus may be of that one, and their alerts would not roll this release back.
func (e *Promoter) loaded(b *plan.Plan, r remediation.Rollout) remediation.GateResult {
	now := e.PlanOf(b.Service)
	if now == nil || now.Hash == b.Hash {
		return remediation.GateOpen("playbook", "")
	}
	return remediation.GateClosed("playbook", "%s", hint.Text(fmt.Sprintf("the loaded playbook is for release %s: alerts of its rules do not roll %s back", now.Release.Version, r.Release),
		"load the playbook of "+r.Release+" and its rules again"))
}

// finishable asks every gate of a rollout's end, which changes no traffic.
func (e *Promoter) finishable(tx remediation.Tx, b *plan.Plan, r remediation.Rollout, a stageSample) ([]remediation.GateResult, error) {
	common, err := e.common(tx, b)
	if err != nil {
		return nil, err
	}
	last := remediation.GateOpen("stage", "")
	if b.NextStage(r.Stage) != nil {
		last = remediation.GateClosed("stage", "stage %s is not the last stage", r.Stage)
	}
	watchdog, err := e.Watchdog(tx, b)
	all := []remediation.GateResult{common[1], last, b.Lasted(r, e.Now())}
	return append(append(all, a.judged(b)...), watchdog), err
}

// startable asks every gate of a rollout that backout itself starts: no traffic is sent
// to a release whose faults would not be seen. It needs a preflight that passed, and all
// that the playbook requires before the start.
func (e *Promoter) startable(tx remediation.Tx, b *plan.Plan, a stageSample) ([]remediation.GateResult, error) {
	all, err := e.common(tx, b)
	if err != nil {
		return nil, err
	}
	watchdog, err := e.Watchdog(tx, b)
	if err != nil {
		return nil, err
	}
	all = append(append(all, a.judged(b)...), watchdog)
	unproven, err := e.readiness.Missing(tx, b.Service, b.Release.Version)
	if err != nil {
		return nil, err
	}
	if len(unproven) == 0 {
		return append(all, remediation.GateOpen("preflight", "")), nil
	}
	for _, why := range unproven {
		all = append(all, remediation.GateClosed("preflight", "%s", why))
	}
	return all, nil
}

// missing splits the closed gates into those that cannot be forced and the others.
func missing(all []remediation.GateResult) (firmly, others []remediation.GateResult) {
	for _, g := range all {
		switch {
		case g.OK:
		case g.Hard:
			firmly = append(firmly, g)
		default:
			others = append(others, g)
		}
	}
	return firmly, others
}

// refuse is a refusal by the gates that are closed, one per line where there are several,
// with what each of them asks for, or else try.
func refuse(closed []remediation.GateResult, try, format string, args ...any) error {
	var why, tries []string
	for _, g := range closed {
		message, try := hint.Cut(g.Why)
		why = append(why, message)
		if try != "" && !slices.Contains(tries, try) {
			tries = append(tries, try)
		}
	}
	if len(tries) == 0 {
		tries = []string{try}
	}
	list := " " + strings.Join(why, "")
	if len(why) > 1 {
		list = "\n- " + strings.Join(why, "\n- ")
	}
	return hint.Add(remediation.Refuse(remediation.Conflict, "%s:%s", fmt.Sprintf(format, args...), list), "%s", strings.Join(tries, "; "))
}

// gateNames are those of closed gates.
func gateNames(closed []remediation.GateResult) []string {
	var out []string
	for _, g := range closed {
		if !slices.Contains(out, g.Gate) {
			out = append(out, g.Gate)
		}
	}
	return out
}
