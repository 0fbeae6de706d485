package remediation

import (
	"math"
	"slices"
	"strconv"
)

// Verdict is what one poll says about one trigger.
type Verdict string

// The verdicts. A trigger has stopped, or is quiet, once calmPolls polls
// running say so; a single Breaching one is enough where a deadline asks.
const (
	Breaching Verdict = "breaching" // the recovery value is beyond the threshold
	Stopped   Verdict = "stopped"   // it is within the threshold
	Quiet     Verdict = "quiet"     // it has no value, since there were no events to judge
	Blind     Verdict = "blind"     // no answer, stale samples, or calm that a target is missing from
)

// polls in a row make a verdict certain.
const Certain = 3

// Sample is Prometheus's answer to one expression: a value, nothing, or an error.
type Sample struct {
	Value *float64
	Err   error
}

// Beyond reports whether a value is beyond a trigger's threshold.
func (t *TriggerState) Beyond(v float64) bool { return t.Outside(v, t.Threshold) }

// Outside reports whether a value is beyond the threshold.
func (t *TriggerState) Outside(v, bound float64) bool {
	if t.Above {
		return v > bound
	}
	return v < bound
}

// Finite leaves infinity out, which JSON does not have; the audit log holds it as text.
func Finite(v *float64) *float64 {
	if v == nil || math.IsInf(*v, 0) {
		return nil
	}
	return v
}

// ResetPolls forgets the counters: what was polled before a step says nothing
// about what comes after it.
func (inc *Incident) ResetPolls() {
	for i := range inc.Triggers {
		t := &inc.Triggers[i]
		t.Verdict, t.Breaching, t.Calm = "", 0, 0
	}
}

// Calm reports whether every trigger with an expression has been stopped or
// quiet for long enough.
func (inc *Incident) Calm() bool { return inc.CalmFor(Certain) }

// CalmFor reports whether every trigger with an expression was stopped or quiet in the
// last n polls. Those of other stages count only where there are no others.
func (inc *Incident) CalmFor(n int) bool {
	counts := slices.ContainsFunc(inc.Triggers, func(t TriggerState) bool { return t.Signal == "" && !t.Over })
	judged := false
	for _, t := range inc.Triggers {
		if t.Signal != "" || counts && t.Over {
			continue
		}
		if t.Calm < n {
			return false
		}
		judged = true
	}
	return judged
}

// Breaching returns a trigger that was breaching in the last n polls, or nil.
func (inc *Incident) Breaching(n int) *TriggerState {
	for i := range inc.Triggers {
		if inc.Triggers[i].Breaching >= n {
			return &inc.Triggers[i]
		}
	}
	return nil
}

// Decimal writes a measured value the way the audit log holds it.
func Decimal(v float64) string { return strconv.FormatFloat(v, 'f', -1, 64) }
