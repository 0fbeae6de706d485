package view

import (
	"fmt"
	"strings"

	"github.com/prometheus/common/model"

	"github.com/locotoki/backout/alerts"
	"github.com/locotoki/backout/remediation"
	"github.com/locotoki/backout/remediation/plan"
	"github.com/locotoki/backout/rules"
)

// PlaybookView is a playbook as backout understands it: defaults filled in, bounds in
// people's units.
type PlaybookView struct {
	*alerts.Playbook
	Triggers []TriggerWords
	Stages   []StageWords
	Plans    []PlanWords
	Alerts   []BoundWords
	// Rules is the file of Prometheus rules that is generated from it.
	Rules string
}

// BoundWords is an indicator with the bound that it is held to.
type BoundWords struct {
	Indicator, Description, Bound, Query string
}

// TriggerWords is a trigger in words.
type TriggerWords struct {
	alerts.Trigger
	Bound, Recovery string
	// Only are the stages in which it counts; none: always.
	Only []string
}

// StageWords is a stage in words.
type StageWords struct {
	alerts.Stage
	Share, Lasts string
	Success      []BoundWords
}

// PlanWords is a plan with its steps in order, and the triggers that start it.
type PlanWords struct {
	Name     string
	Triggers []string
	Steps    []StepWords
}

// StepWords is a step in words.
type StepWords struct {
	ID, Target, Risk string
	// Tells: it only tells people something.
	Tells                   bool
	Settle, Timeout, Answer string
	OnFailure               string
}

// NewPlaybookView reads a compiled playbook. The error is of the rules' generation.
func NewPlaybookView(b *plan.Plan) (PlaybookView, error) {
	file, err := rules.Rules(b.Playbook)
	if err != nil {
		return PlaybookView{}, fmt.Errorf("rules of playbook %s: %w", b.Service, err)
	}
	v := PlaybookView{Playbook: b.Playbook, Rules: string(file.Content)}
	unit := func(indicator string) alerts.Unit {
		if ind := b.Indicator(indicator); ind != nil {
			return ind.Unit
		}
		return ""
	}
	for _, t := range b.Triggers {
		w := TriggerWords{Trigger: t, Only: b.StagesOf(t.Name)}
		if t.Signal == "" {
			u := unit(t.Indicator)
			w.Bound = boundOver(t.Above, t.Below, u, t.Window, t.Sustained, t.MinVolume)
			above, below := t.Recovery.Above, t.Recovery.Below
			if above == nil && below == nil {
				above, below = t.Above, t.Below
			}
			w.Recovery = boundOver(above, below, u, t.Recovery.Window, 0, t.Recovery.MinVolume)
		}
		v.Triggers = append(v.Triggers, w)
	}
	for _, s := range b.Stages {
		w := StageWords{Stage: s, Share: remediation.Share(s.Traffic), Lasts: remediation.Span(s.Duration)}
		for _, cr := range s.Success {
			w.Success = append(w.Success, BoundWords{Indicator: cr.Indicator,
				Bound: boundOver(cr.Above, cr.Below, unit(cr.Indicator), cr.Window, cr.Sustained, cr.MinVolume)})
		}
		v.Stages = append(v.Stages, w)
	}
	for _, ind := range b.Indicators {
		w := BoundWords{Indicator: ind.Name, Description: ind.Description, Query: strings.TrimSpace(ind.Query)}
		if a := ind.Alert; a != nil {
			w.Bound = boundOver(a.Above, a.Below, ind.Unit, a.Window, a.Sustained, a.MinVolume)
		}
		v.Alerts = append(v.Alerts, w)
	}
	for _, p := range b.Plans {
		w := PlanWords{Name: p.Name}
		for _, t := range b.Triggers {
			if t.Plan == p.Name {
				w.Triggers = append(w.Triggers, t.Name)
			}
		}
		for i, s := range p.Steps {
			kind := b.Kinds[s.Action]
			step := StepWords{ID: fmt.Sprintf("%d-%s", i+1, s.Action), Risk: s.Risk.String(), OnFailure: string(s.OnFailure)}
			_, step.Tells = kind.(remediation.Communicator)
			step.Target = kind.Target(b.Playbook, s.Params)
			step.Settle, step.Timeout = remediation.Span(s.Settle), remediation.Span(s.Timeout)
			if s.Approval != nil {
				step.Answer = remediation.Span(s.Approval.Timeout)
			}
			w.Steps = append(w.Steps, step)
		}
		v.Plans = append(v.Plans, w)
	}
	return v, nil
}

// boundOver is a bound as one says it: "above 1% over 15 min, with 100 requests or more".
func boundOver(above, below *float64, u alerts.Unit, window, sustained model.Duration, volume float64) string {
	words := "not bounded"
	switch {
	case above != nil:
		words = "above " + remediation.Measure(*above, u)
	case below != nil:
		words = "below " + remediation.Measure(*below, u)
	}
	switch {
	case sustained > 0:
		words += " for " + remediation.Span(sustained)
	case window > 0:
		words += " over " + remediation.Span(window)
	}
	if volume > 0 {
		words += fmt.Sprintf(", with %s requests or more", remediation.Measure(volume, alerts.Count))
	}
	return words
}
