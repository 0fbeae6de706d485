package rollout

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/locotoki/backout/hint"
	"github.com/locotoki/backout/remediation"
	"github.com/locotoki/backout/remediation/gate"
	"github.com/locotoki/backout/remediation/plan"
	"github.com/locotoki/backout/remediation/view"
	"github.com/locotoki/backout/rules"
)

func hard(gate, format string, args ...any) remediation.StageGate {
	return remediation.StageGate{Gate: gate, Why: fmt.Sprintf(format, args...), Hard: true}
}

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

// common are the gates of every step forward: what no force opens, and the breaker.
func (e *Promoter) common(tx remediation.Tx, b *plan.Plan) ([]remediation.StageGate, error) {
	open, err := remediation.OpenIncident(tx, b.Service)
	if err != nil {
		return nil, err
	}
	all := []remediation.StageGate{remediation.GateOpen("mode", ""), remediation.GateOpen("incident", ""), remediation.GateOpen("freeze", ""), remediation.GateOpen("breaker", "")}
	if e.Mode != remediation.Act {
		all[0] = hard("mode", "backout runs with --mode=observe and changes no traffic")
	}
	switch {
	case open == nil:
	case open.AnsweredFalse():
		all[1] = remediation.GateOpen("incident", fmt.Sprintf("incident %s is open, but Prometheus says that none of its triggers is true", open.ID))
	default:
		all[1] = hard("incident", "incident %s is open (%s)", open.ID, open.Describe())
	}
	freezes, err := e.FreezesIn(tx)
	if err != nil {
		return nil, err
	}
	for _, f := range freezes {
		if f.Service != "" && f.Service != b.Service {
			continue
		}
		until := ""
		if f.Until != nil {
			until = ", until " + remediation.Moment(*f.Until)
		}
		all[2] = hard("freeze", "%s is frozen (%s) by %s%s: %s", cmp.Or(f.Service, "every service"), f.Scope, f.By, until, f.Reason)
	}
	switch differ, several, err := e.Disagree(tx, b.Service, e.Now()); {
	case err != nil:
		return nil, err
	case differ != "":
		all = append(all, hard("replicas", "%s", differ))
	case several:
		all = append(all, remediation.GateOpen("replicas", ""))
	}
	g, err := gate.Breaker(tx, b.Limits.Breaker, b.Service, func(remediation.Effect) bool { return true })
	if err != nil {
		return nil, err
	}
	if g.Reason != "" {
		all[3] = hard("breaker", "%s", g.Why)
	}
	return all, nil
}

// judged are the gates that Prometheus answers. What has no value does not pass
// as a criterion; as a trigger it does, since one that counts in another stage
// has none.
func (a stageSample) judged(b *plan.Plan) []remediation.StageGate {
	var all []remediation.StageGate
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
			triggers = remediation.GateClosed("triggers", "trigger %s is breaching: %s, threshold %s", t.Name, remediation.Measure(*r.Value, unit), remediation.Measure(x.Threshold, unit))
		}
	}
	if triggers.OK && unknown != nil {
		triggers = remediation.GateClosed("triggers", "cannot check whether a trigger is breaching: %s", unknown)
	}
	return append(all, triggers)
}

// fresh says whether the watchdog was heard recently, and Prometheus answers: without
// them nobody would be told of a breach.
func (e *Promoter) fresh(tx remediation.Tx, b *plan.Plan) (remediation.StageGate, error) {
	beat, err := remediation.BeatOf(tx, b.Service)
	if err != nil {
		return remediation.StageGate{}, err
	}
	age := e.Now().Sub(beat.Last)
	var blind []string // for both, where both are away: mending one would not do
	if beat.Lost || age > time.Duration(b.Watchdog.MaxAge) {
		blind = append(blind, fmt.Sprintf("no watchdog alert for %s: alerts may not reach backout", remediation.Span(age)))
	}
	if !beat.Away.IsZero() {
		blind = append(blind, fmt.Sprintf("Prometheus has not answered since %s: monitoring is lost", remediation.Moment(beat.Away)))
	}
	if len(blind) > 0 {
		return remediation.GateClosed("watchdog", "%s", strings.Join(blind, "; ")), nil
	}
	return remediation.GateOpen("watchdog", ""), nil
}

// promotable asks every gate of a promotion.
func (e *Promoter) promotable(tx remediation.Tx, b *plan.Plan, r remediation.Rollout, a stageSample) ([]remediation.StageGate, error) {
	all, err := e.common(tx, b)
	if err != nil {
		return nil, err
	}
	held := remediation.GateOpen("held", "")
	if r.Held {
		held = remediation.GateClosed("held", "%s", hint.Text("the rollout is held", "backout rollout resume"))
	}
	watchdog, err := e.fresh(tx, b)
	all = append(all, held, b.Lasted(r, e.Now()))
	return append(append(all, a.judged(b)...), watchdog), err
}

// finishable asks every gate of a rollout's end, which changes no traffic.
func (e *Promoter) finishable(tx remediation.Tx, b *plan.Plan, r remediation.Rollout, a stageSample) ([]remediation.StageGate, error) {
	common, err := e.common(tx, b)
	if err != nil {
		return nil, err
	}
	last := remediation.GateOpen("stage", "")
	if b.NextStage(r.Stage) != nil {
		last = remediation.GateClosed("stage", "stage %s is not the last stage", r.Stage)
	}
	watchdog, err := e.fresh(tx, b)
	all := []remediation.StageGate{common[1], last, b.Lasted(r, e.Now())}
	return append(append(all, a.judged(b)...), watchdog), err
}

// startable asks every gate of a rollout that backout itself starts: nobody is
// put on a release while nothing would be seen of it. It wants the proof that going back would work, and all that the playbook puts before the start.
func (e *Promoter) startable(tx remediation.Tx, b *plan.Plan, a stageSample) ([]remediation.StageGate, error) {
	all, err := e.common(tx, b)
	if err != nil {
		return nil, err
	}
	watchdog, err := e.fresh(tx, b)
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

// missing splits the gates that are shut into those that no force opens and the others.
func missing(all []remediation.StageGate) (firmly, others []remediation.StageGate) {
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

// whys joins what shut gates say.
func whys(shut []remediation.StageGate) string {
	out := make([]string, len(shut))
	for i, g := range shut {
		out[i] = g.Why
	}
	return strings.Join(out, "; ")
}

// gateNames are those of shut gates.
func gateNames(shut []remediation.StageGate) []string {
	var out []string
	for _, g := range shut {
		if !slices.Contains(out, g.Gate) {
			out = append(out, g.Gate)
		}
	}
	return out
}

// stageRows writes answers the way the audit log holds them.
func stageRows(all []remediation.StageGate) []any {
	out := make([]any, len(all))
	for i, g := range all {
		out[i] = map[string]any{"gate": g.Gate, "ok": g.OK, "why": g.Why}
	}
	return out
}
