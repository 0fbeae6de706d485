package rules

import (
	"fmt"
	"io"
	"strings"
	"text/template"

	"github.com/locotoki/backout/alerts"
	"github.com/locotoki/backout/rules/query"
)

// notes are the annotations that every alert of an indicator has; ind is nil
// for one that belongs to none.
func notes(pb *alerts.Playbook, ind *alerts.Indicator) map[string]string {
	n := map[string]string{}
	if pb.RunbookURL != "" {
		n["runbook_url"] = escape(pb.RunbookURL)
	}
	board := ""
	if ind != nil {
		board = boardOf(pb, ind)
	}
	for i := 0; board == "" && i < len(pb.Indicators); i++ {
		board = boardOf(pb, &pb.Indicators[i])
	}
	if board != "" {
		n["dashboard"] = escape(board)
	}
	return n
}

// boardOf is the address of an indicator's dashboard, or its name if the playbook
// gives no address.
func boardOf(pb *alerts.Playbook, ind *alerts.Indicator) string {
	if url := pb.Dashboards[pb.Board(ind)]; url != "" {
		return url
	}
	return ind.Dashboard
}

// escape stops Prometheus from reading the playbook's words as a template.
func escape(s string) string { return strings.ReplaceAll(s, "{{", `{{"{{"}}`) }

// measured is a template of the measured value and its bound.
func measured(u alerts.Unit, b query.Bound) string {
	if b.Confidence > 0 {
		end := "At most"
		if b.Above {
			end = "At least"
		}
		return fmt.Sprintf("%s %s, %s.", end, inUnit(u), escape(b.Words(u)))
	}
	return fmt.Sprintf("Measured %s, %s.", inUnit(u), escape(b.Words(u)))
}

// inUnit is the template of $value in a unit.
func inUnit(u alerts.Unit) string {
	switch u {
	case alerts.Ratio:
		return "{{ $value | humanizePercentage }}"
	case alerts.Percent:
		return `{{ $value | printf "%.4g" }}%`
	case alerts.Seconds:
		return "{{ $value | humanizeDuration }}"
	case alerts.Milliseconds:
		return `{{ $value | printf "%.4g" }} ms`
	case alerts.Bytes:
		return "{{ $value | humanize1024 }}B"
	case alerts.Count:
		return `{{ $value | printf "%.4g" }}`
	case alerts.PerSecond:
		return "{{ $value | humanize }} a second"
	}
	return "{{ $value | humanize }}"
}

// templateHead is what Prometheus puts before each template.
const templateHead = "{{$labels := .Labels}}{{$value := .Value}}"

// checkTemplates executes an alert's templates as Prometheus does. Neither promtool
// nor Prometheus finds a bad one at start; people would read its error text.
func checkTemplates(r rule, labels map[string]string) error {
	number := func(float64) string { return "1" }
	functions := template.FuncMap{
		"humanize": number, "humanize1024": number, "humanizeDuration": number, "humanizePercentage": number,
	}
	texts := map[string]string{}
	for k, v := range r.Annotations {
		texts["annotation "+k] = v
	}
	for k, v := range r.Labels {
		texts["label "+k] = v
	}
	for what, text := range texts {
		if !strings.Contains(text, "{{") {
			continue
		}
		t, err := template.New(what).Funcs(functions).Option("missingkey=error").Parse(templateHead + text)
		if err == nil {
			err = t.Execute(io.Discard, map[string]any{"Labels": labels, "Value": 1.5})
		}
		if err != nil {
			return fmt.Errorf("alert %s: template of %s: %w", r.Alert, what, err)
		}
	}
	return nil
}
