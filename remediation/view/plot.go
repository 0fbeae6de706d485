package view

import (
	"encoding/json"
	"errors"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/prometheus/common/model"

	"github.com/locotoki/backout/alerts"
	"github.com/locotoki/backout/remediation"
	"github.com/locotoki/backout/remediation/audit"
)

// Plot is one trigger's value around an incident, and what happened meanwhile.
type Plot struct {
	Incident string `json:"incident"`
	// Service is set where the plot is of a service as it is now, and of no incident.
	Service string      `json:"service,omitempty"`
	Trigger string      `json:"trigger"`
	Unit    alerts.Unit `json:"unit"` // "" where the playbook is not at hand
	// Estimate is a TriggerView's.
	Estimate  string  `json:"estimate,omitempty"`
	Threshold float64 `json:"threshold"`
	// Above: values above the threshold are beyond it; else those below.
	Above bool      `json:"above"`
	From  time.Time `json:"from"`
	To    time.Time `json:"to"`
	// Step is the distance of two points; 0 where the points are the values of
	// the audit log's evidence, which lie as they came and say nothing about the
	// time between them.
	Step model.Duration `json:"step"`
	// Note says why the points are not Prometheus's; "" where they are.
	Note   string              `json:"note"`
	Points []remediation.Point `json:"points"`
	Marks  []Mark              `json:"marks"`
}

// Mark is a moment of the incident: opened, a step's intent, recovered, closed.
type Mark struct {
	Time  time.Time  `json:"time"`
	Kind  audit.Kind `json:"kind"`
	Label string     `json:"label"`
}

const (
	// plotPoints is how many points a plot has at most, about.
	plotPoints = 240
	// PlotLead is how much is shown before an incident at least, plotTail how much after it.
	PlotLead = 10 * time.Minute
	// PlotLeadMost bounds PlotLead for a trigger with a long window.
	PlotLeadMost = 2 * time.Hour
	plotTail     = 5 * time.Minute
	// ServiceSpan is what a service's plot shows: the time up to now.
	ServiceSpan = 30 * time.Minute
	// OfTheLog is the note of a plot that is not Prometheus's.
	OfTheLog = "these values are from the audit log"
)

// PlotStep is the distance between points that span d: a whole number of polls.
func PlotStep(d, poll time.Duration) time.Duration {
	n := math.Ceil(float64(d) / float64(plotPoints) / float64(poll))
	return time.Duration(max(n, 1)) * poll
}

// BeyondSince is since when every value up to now is beyond the threshold, as far as the plot
// goes back; zero where the last one is not, or nothing is known of the last two steps.
func (p Plot) BeyondSince() (since time.Time) {
	next := p.To
	for _, pt := range slices.Backward(p.Points) {
		if next.Sub(pt.Time) > 2*time.Duration(p.Step) || pt.Value == p.Threshold || pt.Value > p.Threshold != p.Above {
			break
		}
		since, next = pt.Time, pt.Time
	}
	return since
}

// Worst is the worst point of an incident's time; what lies before it or after it may be another
// incident's. Of a service it is the worst of all.
func (p Plot) Worst() (worst remediation.Point, found bool) {
	var from time.Time
	to := p.To
	for _, m := range p.Marks {
		switch {
		case m.Kind == audit.KindOpened && from.IsZero():
			from = m.Time
		case m.Kind == audit.KindReopened:
			to = p.To
		case m.Kind == audit.KindClosed && to.Equal(p.To):
			to = m.Time
		}
	}
	for _, pt := range p.Points {
		if !pt.Time.Before(from) && !pt.Time.After(to) && (!found || pt.Value != worst.Value && (pt.Value > worst.Value) == p.Above) {
			worst, found = pt, true
		}
	}
	return worst, found
}

// PlotOfLog is a plot of the values that the audit log's evidence holds; trigger
// "" is the incident's first one that has an expression. A *RefusedError where
// there is no such incident or trigger.
func PlotOfLog(tx remediation.Tx, id, trigger string, now time.Time) (Plot, error) {
	inc, err := tx.Incident(id)
	if errors.Is(err, remediation.ErrNotFound) {
		return Plot{}, remediation.NoIncident(id)
	}
	if err != nil {
		return Plot{}, err
	}
	t := inc.Plotted(trigger)
	switch {
	case t == nil && trigger == "" && len(inc.Triggers) == 0 && inc.Abort != nil:
		return Plot{}, remediation.Refuse(remediation.Missing, "incident %s is an order of %s: there is no trigger to plot", id, inc.Abort.By)
	case t == nil && trigger == "":
		return Plot{}, remediation.Refuse(remediation.Missing, "incident %s has no trigger with an expression", id)
	case t == nil:
		return Plot{}, remediation.Refuse(remediation.Missing, "incident %s has no trigger %s with an expression", id, trigger)
	}
	entries, err := tx.Entries(audit.Filter{Incident: id})
	if err != nil {
		return Plot{}, err
	}
	p := Plot{
		Incident: id, Trigger: t.Trigger, Threshold: t.Threshold, Above: t.Above,
		From: inc.Opened.Add(-PlotLead).UTC(), To: now.UTC(), Points: []remediation.Point{}, Marks: []Mark{},
		Note: OfTheLog,
	}
	if inc.Closed != nil {
		if end := inc.Closed.Add(plotTail).UTC(); end.Before(p.To) {
			p.To = end
		}
	}
	for _, en := range entries {
		if v, ok := observed(en, t.Trigger); ok {
			p.Points = append(p.Points, remediation.Point{Time: en.Time.UTC(), Value: v})
		}
		if label := markLabel(en); label != "" {
			p.Marks = append(p.Marks, Mark{en.Time.UTC(), en.Kind, label})
		}
	}
	return p, nil
}

// observed returns the value that an entry's evidence holds of a trigger.
func observed(e audit.Entry, trigger string) (float64, bool) {
	if e.Detail["trigger"] == trigger {
		return decimalOf(e.Detail["value"])
	}
	rows, _ := e.Detail["triggers"].([]any)
	for _, r := range rows {
		if row, ok := r.(map[string]any); ok && row["trigger"] == trigger {
			return decimalOf(row["value"])
		}
	}
	return 0, false
}

// decimalOf reads a measured value as the log holds it; only a finite one counts.
func decimalOf(v any) (float64, bool) {
	var text string
	switch v := v.(type) {
	case string:
		text = v
	case json.Number:
		text = v.String()
	default:
		return 0, false
	}
	f, err := strconv.ParseFloat(text, 64)
	return f, err == nil && !math.IsInf(f, 0) && !math.IsNaN(f)
}

// markLabel is what a plot says at an entry's moment; "" for most entries.
func markLabel(e audit.Entry) string {
	switch e.Kind {
	case audit.KindOpened, audit.KindReopened, audit.KindRecovered, audit.KindClosed:
		return string(e.Kind)
	case audit.KindIntent:
		if e.Detail["undo"] == true {
			return strings.TrimSpace(e.Step + " undone")
		}
		return e.Step
	}
	return ""
}
