package remediation

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/prometheus/common/model"

	"github.com/locotoki/backout/alerts"
)

// SuccessState is the state of one of the playbook's success criteria.
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

// SuccessView is one success criterion of a rollout, with its state.
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

// Measured notes what a criterion is compared with.
func (v *SuccessView) Measured(pb *alerts.Playbook, m *alerts.Criterion) {
	v.State, v.Indicator, v.Over = SuccessNotAsked, m.Indicator, max(m.Window, m.Sustained)
	if ind := pb.Indicator(m.Indicator); ind != nil {
		v.Unit = ind.Unit
	}
	v.Threshold, v.Bound = m.Below, "below"
	if m.Above != nil {
		v.Threshold, v.Bound = m.Above, "above"
	}
}

// Judge compares what Prometheus answered.
func (v *SuccessView) Judge(r Sample) {
	v.Value = Finite(r.Value)
	switch {
	case errors.Is(r.Err, ErrNoAnswer):
		v.State, v.Why = SuccessNotAsked, r.Err.Error()
	case r.Err != nil:
		v.State, v.Why = SuccessNoData, r.Err.Error()
	case v.Value == nil:
		v.State = SuccessNoData
	case v.Bound == "above" && *v.Value > *v.Threshold, v.Bound == "below" && *v.Value < *v.Threshold:
		v.State = SuccessMet
	default:
		v.State = SuccessNotMet
	}
}

// Gate is a success criterion as a gate for finishing the rollout.
func (v *SuccessView) Gate() GateResult {
	name := "success " + v.Text
	switch v.State {
	case SuccessMet:
		return GateOpen(name, fmt.Sprintf("%s: it is %s", v.Text, Measure(*v.Value, v.Unit)))
	case SuccessNotMet:
		return GateClosed(name, "success criterion not met: %s (it is %s; it must be %s %s)", v.Text, Measure(*v.Value, v.Unit), v.Bound, Measure(*v.Threshold, v.Unit))
	case SuccessSigned:
		return GateOpen(name, fmt.Sprintf("%s: signed off by %s", v.Text, v.Signed.By))
	case SuccessUnsigned:
		return GateClosed(name, "success criterion not signed off: %s; its owner is %s, its item %s", v.Text, v.Owner, v.Item)
	}
	why := v.Why
	if why == "" {
		why = "it has no value"
	}
	return GateClosed(name, "success criterion not measured: %s (%s)", v.Text, why)
}

// ItemsOf returns people's items whose ids start with prefix.
func ItemsOf(pb *alerts.Playbook, prefix string) []PreflightItem {
	var out []PreflightItem
	for _, it := range PeoplesItems(pb) {
		if strings.HasPrefix(it.ID, prefix) {
			out = append(out, it)
		}
	}
	return out
}

// Validation are the items of the phases that block the rollout's finish.
func Validation(pb *alerts.Playbook) []PreflightItem {
	return slices.DeleteFunc(PeoplesItems(pb), func(it PreflightItem) bool { return !it.BeforeFinish })
}
