package remediation

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/prometheus/common/model"

	"github.com/locotoki/backout/alerts"
	"github.com/locotoki/backout/rules"
)

// SuccessState is how one of the playbook's success criteria stands.
type SuccessState string

// The states of a success criterion; the last two are those of one that no query
// measures.
const (
	SuccessMet      SuccessState = "met"
	SuccessNotMet   SuccessState = "not_met"
	SuccessNoData   SuccessState = "no_data"
	SuccessNotAsked SuccessState = "not_asked"
	SuccessSigned   SuccessState = "signed"
	SuccessUnsigned SuccessState = "unsigned"
)

// SuccessView is one success criterion of a rollout, as it stands.
type SuccessView struct {
	Area  string       `json:"area"`
	Text  string       `json:"text"`
	State SuccessState `json:"state"`
	// Why says why Prometheus gave no answer.
	Why string `json:"why"`
	// Indicator, Value, Threshold, Bound and Over are those of a measured one: Value,
	// over that time, must be on that side (above, below) of Threshold.
	Indicator string         `json:"indicator"`
	Unit      alerts.Unit    `json:"unit"`
	Value     *float64       `json:"value"`
	Threshold *float64       `json:"threshold"`
	Bound     string         `json:"bound"`
	Over      model.Duration `json:"over"`
	// Item is what is signed where nothing measures it, Owner who answers for it.
	Item   string     `json:"item"`
	Owner  string     `json:"owner"`
	Signed *Signature `json:"signed"`
}

// successPrefix is that of the items that are success criteria which people judge.
const successPrefix = "success/"

// success tells how each success criterion stands: Prometheus is asked for those
// that are measured, and people's signatures count for the others.
func (e *Engine) success(ctx context.Context, b *book, kept Preflight, release string) []SuccessView {
	out, exprs := []SuccessView{}, map[string]string{}
	peoples := itemsOf(b.Playbook, successPrefix)
	for _, area := range b.SuccessCriteria {
		for _, c := range area.Criteria {
			v := SuccessView{Area: area.Area, Text: c.Text}
			if c.Measure == nil {
				v.State, v.Item, v.Owner = SuccessUnsigned, peoples[0].ID, peoples[0].Owner
				if v.Signed = kept.signed(b.Playbook, peoples[0], release); v.Signed != nil {
					v.State = SuccessSigned
				}
				peoples = peoples[1:]
			} else {
				v.measured(b.Playbook, c.Measure)
				// A playbook that was loaded has an expression for each of them.
				if expr, err := rules.CriterionExpression(b.Playbook, c.Measure); err == nil {
					exprs[successKey(len(out))] = expr
				}
			}
			out = append(out, v)
		}
	}
	got := e.query(ctx, exprs)
	for i := range out {
		if r, ok := got[successKey(i)]; ok {
			out[i].judge(r)
		}
	}
	return out
}

func successKey(i int) string { return fmt.Sprintf("success %d", i) }

// measured notes what a criterion is compared with.
func (v *SuccessView) measured(pb *alerts.Playbook, m *alerts.Criterion) {
	v.State, v.Indicator, v.Over = SuccessNotAsked, m.Indicator, max(m.Window, m.Sustained)
	if ind := pb.Indicator(m.Indicator); ind != nil {
		v.Unit = ind.Unit
	}
	v.Threshold, v.Bound = m.Below, "below"
	if m.Above != nil {
		v.Threshold, v.Bound = m.Above, "above"
	}
}

// judge compares what Prometheus answered.
func (v *SuccessView) judge(r reading) {
	v.Value = finite(r.value)
	switch {
	case errors.Is(r.err, ErrNoAnswer):
		v.State, v.Why = SuccessNotAsked, r.err.Error()
	case r.err != nil:
		v.State, v.Why = SuccessNoData, r.err.Error()
	case v.Value == nil:
		v.State = SuccessNoData
	case v.Bound == "above" && *v.Value > *v.Threshold, v.Bound == "below" && *v.Value < *v.Threshold:
		v.State = SuccessMet
	default:
		v.State = SuccessNotMet
	}
}

// gate is a success criterion as a gate of the rollout's end.
func (v *SuccessView) gate() StageGate {
	name := "success " + v.Text
	switch v.State {
	case SuccessMet:
		return passed(name, fmt.Sprintf("%s: it is %s", v.Text, decimal(*v.Value)))
	case SuccessNotMet:
		return shut(name, "success criterion not met: %s (it is %s, and must be %s %s)", v.Text, decimal(*v.Value), v.Bound, decimal(*v.Threshold))
	case SuccessSigned:
		return passed(name, fmt.Sprintf("%s: signed by %s", v.Text, v.Signed.By))
	case SuccessUnsigned:
		return shut(name, "success criterion not signed for: %s; its owner is %s, and its item %s", v.Text, v.Owner, v.Item)
	}
	why := v.Why
	if why == "" {
		why = "it has no value"
	}
	return shut(name, "success criterion not measured: %s (%s)", v.Text, why)
}

// soaked is what a rollout's end asks beside its last stage, but for the smoke tests:
// success criteria, and people's validation after the deployment.
func (e *Engine) soaked(ctx context.Context, b *book, release string) ([]StageGate, []SuccessView, error) {
	var kept Preflight
	err := e.store.View(ctx, func(tx Tx) (err error) {
		kept, err = preflightOf(tx, b.Service)
		return err
	})
	if err != nil {
		return nil, nil, err
	}
	var all []StageGate
	views := e.success(ctx, b, kept, release)
	for _, v := range views {
		all = append(all, v.gate())
	}
	for _, it := range validation(b.Playbook) {
		if s := kept.signed(b.Playbook, it, release); s != nil {
			all = append(all, passed(it.ID, "signed by "+s.By))
		} else {
			all = append(all, shut(it.ID, "%s (%s) is not signed for; its owner is %s", it.ID, it.Name, it.Owner))
		}
	}
	return all, views, nil
}

// proof is what a rollout's end asks beside its last stage.
func (e *Engine) proof(ctx context.Context, b *book, release string) ([]StageGate, error) {
	all, _, err := e.soaked(ctx, b, release)
	return append(all, smokeGates(b.smoke(ctx))...), err
}

// measuredBeside adds the measured ones that the stage has not among its own.
func measuredBeside(own []CriterionView, views []SuccessView) []CriterionView {
	for _, v := range views {
		if v.Indicator == "" {
			continue
		}
		c := CriterionView{Name: v.Indicator, Value: v.Value, Threshold: *v.Threshold, Bound: v.Bound, OK: v.State == SuccessMet}
		known := slices.ContainsFunc(own, func(o CriterionView) bool {
			return o.Name == c.Name && o.Bound == c.Bound && o.Threshold == c.Threshold
		})
		if !known {
			own = append(own, c)
		}
	}
	return own
}

// itemsOf are people's items whose ids begin so.
func itemsOf(pb *alerts.Playbook, prefix string) []PreflightItem {
	var out []PreflightItem
	for _, it := range peoplesItems(pb) {
		if strings.HasPrefix(it.ID, prefix) {
			out = append(out, it)
		}
	}
	return out
}

// validation are the items of the phases that follow the deployment: those that the
// playbook puts on a day after the first ("Day 0 + X days", "T+9").
func validation(pb *alerts.Playbook) []PreflightItem {
	items, at := itemsOf(pb, "phase/"), 0
	var out []PreflightItem
	for _, p := range pb.Phases {
		for _, t := range p.Tasks {
			for range t.Items {
				if !before(p.When) && strings.Contains(p.When, "+") {
					out = append(out, items[at])
				}
				at++
			}
		}
	}
	return out
}
