package remediation

import (
	"encoding/json"
	"fmt"
	"slices"
	"time"

	"github.com/locotoki/backout/alerts"
)

// Stricter makes a step that may still run at least as careful as another plan
// wants it: an approval that either wants, the shorter time to give it and to run,
// the longer time to settle, and a stop where either plan stops.
func (s *Step) Stricter(other alerts.Step) {
	if !s.Open() {
		return
	}
	s.Settle = max(s.Settle, time.Duration(other.Settle))
	s.Timeout = shorter(s.Timeout, time.Duration(other.Timeout))
	if other.Approval != nil {
		s.Approve = shorter(s.Approve, time.Duration(other.Approval.Timeout))
	}
	if other.OnFailure != alerts.OnFailureNext {
		s.OnFailure = other.OnFailure
	}
}

// shorter returns the shorter of two times, of which 0 is none.
func shorter(a, b time.Duration) time.Duration {
	if a == 0 || b != 0 && b < a {
		return b
	}
	return a
}

// Identity names what a step does, for those that would do the same twice: its action,
// its target and its parameters.
func Identity(s alerts.Step, target string) (string, error) {
	params, err := json.Marshal(s.Params)
	if err != nil {
		return "", fmt.Errorf("encode parameters of %s: %w", s.Action, err)
	}
	return s.Action + "\x00" + target + "\x00" + string(params), nil
}

// Next returns the step that acts next: of those that may still run, the one
// of the lowest risk, then the one added first; while a rollout is aborted, of the
// listed plans' first ones. nil: none is left. What only
// tells people something is passed over: toTell.
func (inc *Incident) Next() *Step {
	var n *Step
	for i := range inc.Steps {
		s := &inc.Steps[i]
		if s.Tells || !s.Open() || inc.Aborting() && (!inc.Abort.Lists(s) || inc.comesLater(s)) {
			continue
		}
		if n == nil || s.Risk < n.Risk {
			n = s
		}
	}
	return n
}

// comesLater reports whether a listed step of the same plan is to run before s.
func (inc *Incident) comesLater(s *Step) bool {
	return slices.ContainsFunc(inc.Steps, func(b Step) bool {
		return !b.Tells && b.Open() && inc.Abort.Lists(&b) && b.Plan == s.Plan && b.Number < s.Number
	})
}

// Open reports whether a step may still run.
func (s *Step) Open() bool { return s.State == StepPending || s.State == StepWaiting }

// ToTell returns the step that tells people something next: one whose plan has
// come to it, since no step before it is left to act. nil: there is none.
func (inc *Incident) ToTell() *Step {
	for i := range inc.Steps {
		s := &inc.Steps[i]
		if s.Tells && s.Open() && !slices.ContainsFunc(inc.Steps, func(b Step) bool {
			return b.Open() && !b.Tells && b.Plan == s.Plan && b.PlanIndex < s.PlanIndex
		}) {
			return s
		}
	}
	return nil
}

// Unhandled returns a step that failed and that neither the plan nor a person
// let the plan go past, or nil.
func (inc *Incident) Unhandled() *Step {
	next := inc.Next()
	for i := range inc.Steps {
		s := &inc.Steps[i]
		if s.State == StepFailed || s.State == StepUndone &&
			(s.OnFailure != alerts.OnFailureNext || next != nil && next.Risk == alerts.Lossy) {
			return s
		}
	}
	return nil
}

// Running returns the step whose effect or verification is in progress, or nil.
func (inc *Incident) Running() *Step {
	for i := range inc.Steps {
		s := &inc.Steps[i]
		if s.State == StepIntent || (s.State == StepDone && !s.Verified) {
			return s
		}
	}
	return nil
}

// Step returns the step with an id, or nil.
func (inc *Incident) Step(id string) *Step {
	for i := range inc.Steps {
		if inc.Steps[i].ID() == id {
			return &inc.Steps[i]
		}
	}
	return nil
}

// Changed reports whether a step of this incident changed its target, or may have.
func (inc *Incident) Changed() bool {
	return slices.ContainsFunc(inc.Steps, func(s Step) bool {
		return !s.Tells && (s.State == StepDone || s.State == StepFailed || s.State == StepInDoubt || s.Left)
	})
}

// LastRun returns the step that settled or failed last, or nil.
func (inc *Incident) LastRun() *Step {
	var last *Step
	for i := range inc.Steps {
		s := &inc.Steps[i]
		if s.Finished != nil && !s.Tells && s.State != StepSkipped && (last == nil || !s.Finished.Before(*last.Finished)) {
			last = s
		}
	}
	return last
}

// Trigger returns the attached trigger's state, or nil.
func (inc *Incident) Trigger(name string) *TriggerState {
	for i := range inc.Triggers {
		if inc.Triggers[i].Trigger == name {
			return &inc.Triggers[i]
		}
	}
	return nil
}
