package remediation

import (
	"slices"
	"time"
)

// Signal is a fact that no metric knows, which a person stands for: a vulnerability,
// bad data. While it is raised it is 1 in rollout_signal; the generated rule and
// Alertmanager bring it back as an alert, whose plan runs on the human's word.
type Signal struct {
	Service string    `json:"service"`
	Name    string    `json:"signal"`
	By      string    `json:"by"`
	Reason  string    `json:"reason"`
	Since   time.Time `json:"since"`
	// Dismissed: a person closed its incident while it was raised. Nothing begins
	// anew because of it until someone raises it again.
	Dismissed bool `json:"dismissed,omitempty"`
	// Warning says, in RaiseSignal's answer only, why its alert may not come back;
	// "" where nothing speaks against it.
	Warning string `json:"warning,omitempty"`
}

// HasSignal reports whether a signal is among the incident's triggers.
func (inc *Incident) HasSignal(name string) bool {
	return slices.ContainsFunc(inc.Triggers, func(t TriggerState) bool { return t.Signal == name })
}

// OnlySignals reports whether the incident has no trigger that Prometheus can judge: a
// person raised it, and only a person ends it.
func (inc *Incident) OnlySignals() bool {
	return len(inc.Triggers) > 0 && !slices.ContainsFunc(inc.Triggers, func(t TriggerState) bool { return t.Signal == "" })
}

// AllSkipped reports whether none of the steps that would act has run or is left to.
func (inc *Incident) AllSkipped() bool {
	skipped := false
	for _, s := range inc.Steps {
		if s.Tells {
			continue
		}
		if s.State != StepSkipped {
			return false
		}
		skipped = true
	}
	return skipped
}
