package terminal

import (
	"fmt"
	"strings"

	"github.com/locotoki/backout/remediation"
	"github.com/locotoki/backout/remediation/view"
)

// TextRows aligns rows of a table for a terminal. The first row is the head.
func TextRows(rows [][]string) string {
	for _, row := range rows {
		row[0] = cell(row[0], 31)
	}
	return table(rows, Screen{}, nil)
}

// MarkdownRows writes rows as Markdown has them.
func MarkdownRows(rows [][]string) string {
	var b strings.Builder
	for i, row := range rows {
		fmt.Fprintf(&b, "| %s |\n", strings.Join(row, " | "))
		if i == 0 {
			b.WriteString("|" + strings.Repeat("---|", len(row)) + "\n")
		}
	}
	return b.String()
}

// BacktestText is a backtest's report for people, within the columns but for what rows
// makes of its table.
func BacktestText(r *view.Backtest, rows func([][]string) string) string {
	w := &reportWriter{}
	w.WriteString(Wrap("", fmt.Sprintf("# Backtest of %s, release %s", r.Service, r.Release)))
	w.WriteString("\n" + Wrap("", fmt.Sprintf("%s to %s UTC (%s), evaluated every %s. No step was run. What a step would have changed is not known: "+
		"each incident is told as if none had helped.", MomentShort(r.From), MomentShort(r.To), remediation.Span(r.To.Sub(r.From)), r.Step)))
	if r.Missing != "" {
		w.WriteString("\n" + Wrap("", "INCOMPLETE: "+r.Missing))
	}
	w.head("Verdict")
	for _, v := range r.Verdict {
		w.item("%s", v)
	}
	w.head("Alerts")
	w.WriteString(rows(r.Rows()))
	w.WriteString("\n" + Wrap("", r.StagesWords()))
	for i := range r.Alerts {
		w.firings(&r.Alerts[i])
	}
	if len(r.Gaps) > 0 {
		w.head("Gaps")
	}
	for _, g := range r.Gaps {
		w.item("%s, %s for %s: %s", g.Of, MomentShort(g.From), remediation.Span(g.To.Sub(g.From)), g.Why)
	}
	w.head("Incidents")
	if len(r.Incidents) == 0 {
		w.item("none")
	}
	for _, inc := range r.Incidents {
		w.item("%s, %s, %s: %s.", inc.ID, MomentShort(inc.Opened), strings.Join(inc.Triggers, ", "), inc.Words)
	}
	return w.String()
}

// firings lists when an alert would have fired.
func (w *reportWriter) firings(a *view.BacktestAlert) {
	if len(a.Firings) == 0 {
		return
	}
	w.WriteString("\n" + Wrap("", fmt.Sprintf("### %s: %s", a.Name(), a.Bound())) + "\n")
	for _, f := range a.Firings {
		still := ""
		if f.To == nil {
			still = ", still firing at the end"
		}
		if f.Incident != "" {
			still += ", " + f.Incident
		}
		w.item("%s for %s%s, worst %s", MomentShort(f.From), remediation.Span(f.Lasted), still, a.WorstWords(f))
	}
	if note := a.Note(); note != "" {
		w.item("%s", note)
	}
}
