package report

import (
	"bytes"
	_ "embed"
	"fmt"
	"html/template"
	"time"

	"github.com/locotoki/backout/remediation"
	"github.com/locotoki/backout/remediation/view"
)

//go:embed backtest.html
var backtestTemplate string

// BacktestFile writes a backtest's report as one file of HTML, with its plots.
func BacktestFile(r *view.Backtest) ([]byte, error) {
	t, err := template.New("backtest").Funcs(backtestFunctions()).Parse(backtestTemplate)
	if err != nil {
		return nil, fmt.Errorf("parse templates: %w", err)
	}
	var b bytes.Buffer
	if err := t.Execute(&b, r); err != nil {
		return nil, fmt.Errorf("write the backtest's report: %w", err)
	}
	return b.Bytes(), nil
}

// backtestFunctions are those that a report's template needs.
func backtestFunctions() template.FuncMap {
	return template.FuncMap{
		"plain":  func(s string) string { return remediation.Plain(s, 2000) },
		"plot":   func(a view.BacktestAlert) template.HTML { return BacktestPlot(a, Wide) },
		"worst":  func(a view.BacktestAlert, f view.BacktestFiring) string { return a.WorstWords(f) },
		"moment": func(t time.Time) string { return t.UTC().Format(time.DateTime) },
		"span":   remediation.SpanOf,
	}
}

// BacktestPlot draws an alert's values, and where it would have fired.
func BacktestPlot(a view.BacktestAlert, size Size) template.HTML {
	p := a.Plot
	for _, f := range a.Firings {
		if size.numbered { // who shows a plot for a phone lists the firings
			break
		}
		p.Marks = append(p.Marks, view.Mark{Time: f.From, Label: remediation.Span(f.Lasted)})
	}
	return PlotSVG(p, size)
}
