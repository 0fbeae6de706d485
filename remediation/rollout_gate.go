package remediation

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/prometheus/common/model"

	"github.com/locotoki/backout/rules"
)

// StageGate is what one gate says of a rollout's way forward.
type StageGate struct {
	Gate string `json:"gate"`
	OK   bool   `json:"ok"`
	Why  string `json:"why"`
	// Firm gates hold whatever force is used.
	Firm bool `json:"firm,omitempty"`
}

// passed and shut are the two answers; firm is a shut one that force does not open.
func passed(gate, why string) StageGate { return StageGate{Gate: gate, OK: true, Why: why} }

func shut(gate, format string, args ...any) StageGate {
	return StageGate{Gate: gate, Why: fmt.Sprintf(format, args...)}
}

func firm(gate, format string, args ...any) StageGate {
	return StageGate{Gate: gate, Why: fmt.Sprintf(format, args...), Firm: true}
}

// asked is what Prometheus said of a rollout's stage.
type asked struct {
	criteria []CriterionView
	triggers map[string]reading
}

// askStage asks Prometheus for the stage's criteria and for every trigger's value.
func (e *Engine) askStage(ctx context.Context, b *book, r Rollout) asked {
	exprs := map[string]string{}
	for name, x := range b.expr.Triggers {
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
			if expr, err := rules.StageExpression(b.Playbook, &stage.Success[i], e.now().Sub(*r.StageSince)); err == nil && expr != "" {
				exprs[wholeKey(i)] = expr
			}
		}
	}
	got := e.query(ctx, exprs)
	a := asked{criteria: []CriterionView{}, triggers: map[string]reading{}}
	for name := range b.expr.Triggers {
		a.triggers[name] = got["trigger "+name]
	}
	if stage != nil {
		for i, cr := range stage.Success {
			v := criterion(cr, got[criterionKey(i)])
			if whole, ok := got[wholeKey(i)]; ok {
				v = v.worse(criterion(cr, whole), e.now().Sub(*r.StageSince))
			}
			a.criteria = append(a.criteria, v)
		}
	}
	return a
}

func criterionKey(i int) string { return fmt.Sprintf("criterion %d", i) }

// wholeKey is criterionKey for the stage as a whole.
func wholeKey(i int) string { return fmt.Sprintf("criterion %d over the stage", i) }

// worse returns which of the two stands worse: a criterion over its own window, or
// over the whole of a stage that has lasted for so long.
func (v CriterionView) worse(whole CriterionView, lasted time.Duration) CriterionView {
	nearer := whole.Value == nil || v.Value != nil && (v.Bound == "below") == (*whole.Value > *v.Value) && *whole.Value != *v.Value
	if v.Value == nil || !nearer {
		return v
	}
	whole.Over = model.Duration(lasted.Round(time.Second)).String()
	return whole
}

// Words name a criterion, and over what time it is judged where that is not its own
// window.
func (v CriterionView) Words() string {
	if v.Over == "" {
		return v.Name
	}
	return v.Name + " over the stage (" + v.Over + ")"
}

// rounded is a measured value for people to read; the audit log has the exact one of
// what is done because of it.
func rounded(v float64) string { return strconv.FormatFloat(v, 'g', 6, 64) }

// common are the gates of every step forward: what no force opens, and the breaker.
func (e *Engine) common(tx Tx, b *book) ([]StageGate, error) {
	open, err := openIncident(tx, b.Service)
	if err != nil {
		return nil, err
	}
	all := []StageGate{passed("mode", ""), passed("incident", ""), passed("freeze", ""), passed("breaker", "")}
	if e.mode != Act {
		all[0] = firm("mode", "backout runs with --mode=observe: it changes no traffic")
	}
	switch {
	case open == nil:
	case open.answeredFalse():
		all[1] = passed("incident", fmt.Sprintf("incident %s is open, and Prometheus answers that no trigger of it is true", open.ID))
	default:
		all[1] = firm("incident", "incident %s is open (%s)", open.ID, open.describe())
	}
	freezes, err := e.freezes(tx)
	if err != nil {
		return nil, err
	}
	for _, f := range freezes {
		if f.Service != "" && f.Service != b.Service {
			continue
		}
		until := ""
		if f.Until != nil {
			until = ", until " + f.Until.UTC().Format(time.RFC3339)
		}
		all[2] = firm("freeze", "%s is frozen (%s) by %s%s: %s", orEvery(f.Service), f.Scope, f.By, until, f.Reason)
	}
	g, err := breaker(tx, b.Limits.Breaker, b.Service, func(Effect) bool { return true })
	if err != nil {
		return nil, err
	}
	if g.reason != "" {
		all[3] = firm("breaker", "%s", g.why)
	}
	return all, nil
}

// lasted says whether the stage has lasted for its least time.
func (b *book) lasted(r Rollout, now time.Time) StageGate {
	at := b.promotableAt(r)
	if at == nil || !at.After(now) {
		return passed("duration", "")
	}
	return shut("duration", "stage %s lasts until %s, %s more", r.Stage, at.UTC().Format(time.RFC3339), at.Sub(now).Round(time.Second))
}

// promotableAt is when a stage has lasted for its least time.
func (b *book) promotableAt(r Rollout) *time.Time {
	stage := b.Stage(r.Stage)
	if stage == nil || r.StageSince == nil || !r.active() {
		return nil
	}
	at := r.StageSince.Add(time.Duration(stage.Duration)).UTC()
	return &at
}

// judged are the gates that Prometheus answers. What has no value does not pass
// as a criterion; as a trigger it does, since one that counts in another stage
// has none.
func (a asked) judged(b *book) []StageGate {
	var all []StageGate
	for _, cr := range a.criteria {
		says := cr.Bound + " " + decimal(cr.Threshold)
		switch {
		case cr.Value == nil:
			all = append(all, shut("criterion "+cr.Name, "%s has no value, and must be %s", cr.Words(), says))
		case !cr.OK:
			all = append(all, shut("criterion "+cr.Name, "%s is %s, and must be %s", cr.Words(), rounded(*cr.Value), says))
		default:
			all = append(all, passed("criterion "+cr.Name, fmt.Sprintf("%s is %s, which is %s", cr.Words(), rounded(*cr.Value), says)))
		}
	}
	triggers := passed("triggers", "no trigger is breaching")
	var unknown error
	for _, t := range b.Triggers {
		x, known := b.expr.Triggers[t.Name]
		if !known {
			continue
		}
		r := a.triggers[t.Name]
		st := TriggerState{Threshold: x.Threshold, Above: x.Above}
		switch {
		case r.err != nil && (unknown == nil || errors.Is(r.err, ErrNoAnswer)):
			unknown = fmt.Errorf("trigger %s: %w", t.Name, r.err)
		case r.value != nil && st.beyond(*r.value) && triggers.OK:
			triggers = shut("triggers", "trigger %s is breaching: %s, threshold %s", t.Name, decimal(*r.value), decimal(x.Threshold))
		}
	}
	if triggers.OK && unknown != nil {
		triggers = shut("triggers", "whether a trigger is breaching cannot be told: %s", unknown)
	}
	return append(all, triggers)
}

// fresh says whether the watchdog was heard of late, and Prometheus answers: without
// them nobody would be told of a breach.
func (e *Engine) fresh(tx Tx, b *book) (StageGate, error) {
	beat, err := beatOf(tx, b.Service)
	if err != nil {
		return StageGate{}, err
	}
	age := e.now().Sub(beat.Last)
	var blind []string // for both, where both are away: mending one would not do
	if beat.Lost || age > time.Duration(b.Watchdog.MaxAge) {
		blind = append(blind, fmt.Sprintf("no watchdog was heard for %s: backout would not hear of a breach", age.Round(time.Second)))
	}
	if !beat.Away.IsZero() {
		blind = append(blind, fmt.Sprintf("Prometheus has not answered since %s: backout is blind", beat.Away.UTC().Format(time.RFC3339)))
	}
	if len(blind) > 0 {
		return shut("watchdog", "%s", strings.Join(blind, "; ")), nil
	}
	return passed("watchdog", ""), nil
}

// promotable asks every gate of a promotion.
func (e *Engine) promotable(tx Tx, b *book, r Rollout, a asked) ([]StageGate, error) {
	all, err := e.common(tx, b)
	if err != nil {
		return nil, err
	}
	held := passed("held", "")
	if r.Held {
		held = shut("held", "the rollout is held; backout rollout resume ends that")
	}
	watchdog, err := e.fresh(tx, b)
	all = append(all, held, b.lasted(r, e.now()))
	return append(append(all, a.judged(b)...), watchdog), err
}

// finishable asks every gate of a rollout's end, which changes no traffic.
func (e *Engine) finishable(tx Tx, b *book, r Rollout, a asked) ([]StageGate, error) {
	common, err := e.common(tx, b)
	if err != nil {
		return nil, err
	}
	last := passed("stage", "")
	if b.nextStage(r.Stage) != nil {
		last = shut("stage", "stage %s is not the last one", r.Stage)
	}
	watchdog, err := e.fresh(tx, b)
	all := []StageGate{common[1], last, b.lasted(r, e.now())}
	return append(append(all, a.judged(b)...), watchdog), err
}

// startable asks every gate of a rollout that backout itself starts: nobody is
// put on a release while nothing would be seen of it. It wants the proof that going back would work, and all that the playbook puts before the start.
func (e *Engine) startable(tx Tx, b *book, a asked) ([]StageGate, error) {
	all, err := e.common(tx, b)
	if err != nil {
		return nil, err
	}
	watchdog, err := e.fresh(tx, b)
	if err != nil {
		return nil, err
	}
	all = append(append(all, a.judged(b)...), watchdog)
	unproven, err := e.unproven(tx, b.Service, b.Release.Version)
	if err != nil {
		return nil, err
	}
	if len(unproven) == 0 {
		return append(all, passed("preflight", "")), nil
	}
	for _, why := range unproven {
		all = append(all, shut("preflight", "%s", why))
	}
	return all, nil
}

// missing splits the gates that are shut into those that no force opens and the others.
func missing(all []StageGate) (firmly, others []StageGate) {
	for _, g := range all {
		switch {
		case g.OK:
		case g.Firm:
			firmly = append(firmly, g)
		default:
			others = append(others, g)
		}
	}
	return firmly, others
}

// whys joins what shut gates say.
func whys(shut []StageGate) string {
	out := make([]string, len(shut))
	for i, g := range shut {
		out[i] = g.Why
	}
	return strings.Join(out, "; ")
}

// gateNames are those of shut gates.
func gateNames(shut []StageGate) []string {
	var out []string
	for _, g := range shut {
		if !slices.Contains(out, g.Gate) {
			out = append(out, g.Gate)
		}
	}
	return out
}

// stageRows writes answers the way the audit log holds them.
func stageRows(all []StageGate) []any {
	out := make([]any, len(all))
	for i, g := range all {
		out[i] = map[string]any{"gate": g.Gate, "ok": g.OK, "why": g.Why}
	}
	return out
}
