package report

import (
	"bytes"
	_ "embed"
	"fmt"
	"html/template"

	"github.com/locotoki/backout/remediation"
	"github.com/locotoki/backout/remediation/view"
)

//go:embed backtest.html
var backtestTemplate string

// plottedFirings is how many firings a backtest's plot has marks of.
const plottedFirings = 12

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
		"plain":   func(s string) string { return remediation.Plain(s, 2000) },
		"plot":    func(a view.BacktestAlert) template.HTML { return BacktestPlot(a, Wide) },
		"bound":   func(a view.BacktestAlert) string { return bound(a.Plot) },
		"measure": remediation.Measure,
	}
}

// BacktestPlot draws an alert's values, and where it would have fired.
func BacktestPlot(a view.BacktestAlert, size Size) template.HTML {
	p := a.Plot
	for i, f := range a.Firings {
		if i == plottedFirings || size.numbered { // who shows a plot for a phone lists the firings
			break
		}
		p.Marks = append(p.Marks, view.Mark{Time: f.From, Label: remediation.Span(f.Lasted)})
	}
	return PlotSVG(p, size)
}
