package remediation

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"strconv"
	"strings"
	"time"

	"github.com/prometheus/common/model"

	"github.com/locotoki/backout/alerts"
	"github.com/locotoki/backout/remediation/audit"
)

// History is the Prometheus that a plot's line comes from.
type History interface {
	// QueryRange returns the values of an expression at from, from+step and so
	// on up to to; moments without a number are left out. More than one series
	// is an error.
	QueryRange(ctx context.Context, expr string, from, to time.Time, step time.Duration) ([]Point, error)
}

// Plot is one trigger's value around an incident, and what happened meanwhile.
type Plot struct {
	Incident  string      `json:"incident"`
	Trigger   string      `json:"trigger"`
	Unit      alerts.Unit `json:"unit"` // "" where the playbook is not at hand
	Threshold float64     `json:"threshold"`
	// Above: values above the threshold are beyond it; else those below.
	Above bool      `json:"above"`
	From  time.Time `json:"from"`
	To    time.Time `json:"to"`
	// Step is the distance of two points; 0 where the points are the values of
	// the audit log's evidence, which lie as they came and say nothing of the
	// time between them.
	Step model.Duration `json:"step"`
	// Note says why the points are not Prometheus's; "" where they are.
	Note   string  `json:"note"`
	Points []Point `json:"points"`
	Marks  []Mark  `json:"marks"`
}

// Point is one value; it is a finite number.
type Point struct {
	Time  time.Time `json:"time"`
	Value float64   `json:"value"`
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
	// plotLead is how much is shown before an incident at least, and plotLeadMost
	// at most, however long the trigger's window is; plotTail how much after it.
	plotLead     = 10 * time.Minute
	plotLeadMost = 2 * time.Hour
	plotTail     = 5 * time.Minute
	// ofTheLog is the note of a plot that is not Prometheus's.
	ofTheLog = "these are the values that the audit log holds"
)

// Plot implements Service. The line is Prometheus's; where that cannot be asked
// or has nothing left, the plot holds the values of the audit log's evidence.
func (e *Engine) Plot(ctx context.Context, id, trigger string) (Plot, error) {
	var p Plot
	var inc *Incident
	err := e.store.View(ctx, func(tx Tx) (err error) {
		if p, err = PlotOfLog(tx, id, trigger, e.now()); err == nil {
			inc, err = tx.Incident(id)
		}
		return err
	})
	if err != nil {
		return Plot{}, err
	}
	b, err := e.bookFor(ctx, inc)
	if err != nil {
		p.Note = fmt.Sprintf("Prometheus was not asked (%v): %s", err, ofTheLog)
		return p, nil
	}
	if t := b.Trigger(p.Trigger); t != nil {
		if ind := b.Indicator(t.Indicator); ind != nil {
			p.Unit = ind.Unit
		}
	}
	if e.history == nil {
		return p, nil
	}
	x := b.expr.Triggers[p.Trigger]
	line := p
	line.From = inc.Opened.Add(-min(max(x.Window, plotLead), plotLeadMost)).UTC()
	step := plotStep(p.To.Sub(line.From), b.poll())
	line.From = line.From.Truncate(step)
	line.Step, line.Note = model.Duration(step), ""
	line.Points, err = e.history.QueryRange(ctx, x.Value, line.From, line.To, step)
	switch {
	case ctx.Err() != nil:
		return Plot{}, fmt.Errorf("plot of %s: %w", id, ctx.Err())
	case err != nil:
		p.Note = fmt.Sprintf("Prometheus could not be asked (%v): %s", err, ofTheLog)
		return p, nil
	case len(line.Points) == 0:
		p.Note = "Prometheus has no values of this time: " + ofTheLog
		return p, nil
	}
	return line, nil
}

// plotStep is the distance of points that span d: a whole number of polls.
func plotStep(d, poll time.Duration) time.Duration {
	n := math.Ceil(float64(d) / float64(plotPoints) / float64(poll))
	return time.Duration(max(n, 1)) * poll
}

// PlotOfLog is a plot of the values that the audit log's evidence holds; trigger
// "" is the incident's first one that has an expression. A *RefusedError where
// there is no such incident or trigger.
func PlotOfLog(tx Tx, id, trigger string, now time.Time) (Plot, error) {
	inc, err := tx.Incident(id)
	if errors.Is(err, ErrNotFound) {
		return Plot{}, refuse(Missing, "there is no incident %s", id)
	}
	if err != nil {
		return Plot{}, err
	}
	t := inc.plotted(trigger)
	switch {
	case t == nil && trigger == "":
		return Plot{}, refuse(Missing, "incident %s has no trigger with an expression", id)
	case t == nil:
		return Plot{}, refuse(Missing, "incident %s has no trigger %s with an expression", id, trigger)
	}
	entries, err := tx.Entries(audit.Filter{Incident: id})
	if err != nil {
		return Plot{}, err
	}
	p := Plot{
		Incident: id, Trigger: t.Trigger, Threshold: t.Threshold, Above: t.Above,
		From: inc.Opened.Add(-plotLead).UTC(), To: now.UTC(), Points: []Point{}, Marks: []Mark{},
		Note: ofTheLog,
	}
	if inc.Closed != nil {
		if end := inc.Closed.Add(plotTail).UTC(); end.Before(p.To) {
			p.To = end
		}
	}
	for _, en := range entries {
		if v, ok := observed(en, t.Trigger); ok {
			p.Points = append(p.Points, Point{en.Time.UTC(), v})
		}
		if label := markLabel(en); label != "" {
			p.Marks = append(p.Marks, Mark{en.Time.UTC(), en.Kind, label})
		}
	}
	return p, nil
}

// plotted returns the trigger of that name, or the first, that has an expression.
func (inc *Incident) plotted(name string) *TriggerState {
	for i := range inc.Triggers {
		if t := &inc.Triggers[i]; t.Signal == "" && (name == "" || t.Trigger == name) {
			return t
		}
	}
	return nil
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
