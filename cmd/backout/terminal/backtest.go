package terminal

import (
	"fmt"
	"strings"
	"time"

	"github.com/prometheus/common/model"

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
	w.WriteString(rows(backtestRows(r)))
	w.WriteString("\n" + Wrap("", stagesWords(r)))
	for i := range r.Alerts {
		w.firings(&r.Alerts[i])
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

func backtestRows(r *view.Backtest) [][]string {
	rows := [][]string{{"alert", "fired", "longest", "nearest", "no data", "judged"}}
	for i := range r.Alerts {
		a := &r.Alerts[i]
		longest, nearest := "-", "-"
		var most time.Duration
		for _, f := range a.Firings {
			most = max(most, time.Duration(f.Lasted))
			longest = remediation.Span(most)
		}
		if a.Nearest != nil && a.Nearest.Percent != nil {
			nearest = view.Share(*a.Nearest.Percent)
		}
		rows = append(rows, []string{a.Name(), fmt.Sprint(len(a.Firings)), longest, nearest, spanOrDash(a.NoData), spanOrDash(a.Judged)})
	}
	return rows
}

func spanOrDash(d model.Duration) string {
	if d == 0 {
		return "-"
	}
	return remediation.Span(d)
}

// stagesWords says where the stages come from.
func stagesWords(r *view.Backtest) string {
	words := map[view.StagesFrom]string{
		view.StagesRecorded: "The stages are those that Prometheus has recorded",
		view.StagesGiven:    "All of the time counts as the stage",
		view.StagesAssumed:  "The stages are those of --assume-rollouts",
		view.StagesUnknown:  "Prometheus has no rollout_stage of this time, so no trigger of a stage was judged, and a rollout counts as active",
	}[r.StagesFrom]
	if r.StagesFrom == view.StagesGiven && len(r.Stages) > 0 {
		return words + " " + r.Stages[0].Stage + "."
	}
	if n := len(r.Stages); n > 0 {
		words += fmt.Sprintf(": %s", remediation.Counted(n, "stay"))
	}
	return words + "."
}

// firings lists when an alert would have fired.
func (w *reportWriter) firings(a *view.BacktestAlert) {
	if len(a.Firings) == 0 {
		return
	}
	side := "below"
	if a.Above {
		side = "above"
	}
	bound := fmt.Sprintf("%s %s over %s", side, remediation.Measure(a.Threshold, a.Unit), remediation.Span(a.Window))
	if a.Indicator == "" {
		bound = "raised by a person"
	}
	w.WriteString("\n" + Wrap("", fmt.Sprintf("### %s: %s", a.Name(), bound)) + "\n")
	for _, f := range a.Firings {
		worst := "infinite"
		if f.Worst != nil {
			worst = remediation.Measure(*f.Worst, a.Unit)
		}
		still := ""
		if f.To == nil {
			still = ", still firing at the end"
		}
		if f.Incident != "" {
			still += ", " + f.Incident
		}
		w.item("%s for %s%s, worst %s", MomentShort(f.From), remediation.Span(f.Lasted), still, worst)
	}
	if a.Approximate != "" {
		w.item("each time is exact to one evaluation: %s", a.Approximate)
	}
}
