package receiver

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/prometheus/common/model"

	"github.com/locotoki/backout/remediation"
	"github.com/locotoki/backout/remediation/audit"
	"github.com/locotoki/backout/remediation/view"
)

const (
	// alertsLate is when a report asks why the alert came so late.
	alertsLate = 5 * time.Minute
	// reportText and reportJSON bound a text from elsewhere in a report.
	reportText = 500
	reportJSON = 4 << 10
)

// Markdown writes the report. files names the file of each plot beside it, in
// the order of r.Plots; where it is empty, the report says how to have them.
func (r *Report) Markdown(files []string) []byte {
	w := &markdown{}
	w.line("# Incident %s: %s", code(r.Incident.ID), code(r.Incident.Service))
	w.line("Opened on %s. Made by backout on %s from its audit log; times are UTC.", reportMoment(r.Incident.Opened), reportMoment(r.Made))
	w.line("## Summary")
	for _, s := range r.Summary {
		w.item("%s", prose(s))
	}
	w.end()
	r.writeDurations(w)
	r.writePlots(w, files)
	r.writeTimeline(w)
	r.writeActions(w)
	r.writeHolds(w)
	r.writePeople(w)
	r.writeEvidence(w)
	w.line("## Open questions")
	for _, q := range r.Questions {
		w.item("[ ] %s", prose(q))
	}
	w.end()
	return append(bytes.TrimRight(w.Bytes(), "\n"), '\n')
}

// markdown is written block by block.
type markdown struct{ bytes.Buffer }

func (w *markdown) line(format string, args ...any) { fmt.Fprintf(&w.Buffer, format+"\n\n", args...) }
func (w *markdown) item(format string, args ...any) {
	fmt.Fprintf(&w.Buffer, "- "+format+"\n", args...)
}
func (w *markdown) end() { w.WriteByte('\n') }

// table writes rows whose cells are Markdown already.
func (w *markdown) table(head string, rows [][]string) {
	names := strings.Split(head, "|")
	fmt.Fprintf(&w.Buffer, "| %s |\n|%s\n", strings.Join(names, " | "), strings.Repeat(" --- |", len(names)))
	for _, row := range rows {
		fmt.Fprintf(&w.Buffer, "| %s |\n", strings.Join(row, " | "))
	}
	w.end()
}

func (r *Report) writeDurations(w *markdown) {
	w.line("## How long it took")
	var rows [][]string
	for _, d := range r.Durations {
		took := "not known"
		if d.Took != nil {
			took = spanText(*d.Took)
		}
		rows = append(rows, []string{d.Name, took, prose(d.Note)})
	}
	w.table("from, to|took|note", rows)
}

func (r *Report) writePlots(w *markdown, files []string) {
	if len(r.Plots) == 0 {
		return
	}
	w.line("## The indicator")
	for i, p := range r.Plots {
		if i < len(files) {
			w.line("![%s](%s)", prose(cut(plotWords(p), reportText)), url.PathEscape(files[i]))
		} else {
			w.line("%s", prose(cut(plotWords(p), reportText)))
		}
		if p.Note != "" {
			w.line("About %s: %s.", code(p.Trigger), prose(p.Note))
		}
	}
	if len(files) < len(r.Plots) {
		w.line("The plot is a picture beside the report where that is written to a file: %s.",
			code("backout incident report "+r.Incident.ID+" --output="+r.Incident.ID+".md"))
	}
}

func (r *Report) writeTimeline(w *markdown) {
	w.line("## Timeline")
	var rows [][]string
	for _, e := range r.Entries {
		ev := newEvent(e)
		rows = append(rows, []string{fmt.Sprint(e.Seq), r.at(e.Time), prose(ev.Title), prose(ev.Why), code(e.Actor)})
	}
	w.table("audit|time|what|why|by", rows)
	if n := len(r.Entries); n > 0 {
		w.line("The last of these entries has the hash %s; %s checks the whole log.", code(r.Entries[n-1].Hash), code("backout audit verify"))
	}
}

func (r *Report) writeActions(w *markdown) {
	w.line("## What was done")
	if len(r.Actions) == 0 {
		w.line("Nothing.")
	}
	for _, a := range r.Actions {
		title := code(a.Step)
		if a.Undo {
			title = "Undo of " + title
		}
		w.line("### %s: %s", title, prose(dash(strings.ReplaceAll(a.Outcome, "_", " "))))
		if a.Target != "" {
			w.item("target: %s", code(a.Target))
		}
		switch {
		case a.Began != nil && a.Ended != nil:
			w.item("from %s to %s, %s", r.at(*a.Began), r.at(*a.Ended), spanText(model.Duration(a.Ended.Sub(*a.Began).Round(time.Millisecond))))
		case a.Began != nil:
			w.item("from %s on; its end is not in the log", r.at(*a.Began))
		case a.Ended != nil:
			w.item("at %s", r.at(*a.Ended))
		}
		for _, line := range []struct{ name, text string }{{"approved or asked for by", a.By}, {"why", a.Why}, {"error", a.Error}} {
			if line.text != "" {
				w.item("%s: %s", line.name, prose(line.text))
			}
		}
		w.end()
		w.block("Before", a.Before)
		w.block("After", a.After)
	}
}

// block writes a target's state as JSON.
func (w *markdown) block(name string, v any) {
	if v == nil {
		return
	}
	b, err := json.MarshalIndent(v, "", "  ")
	if err != nil {
		b = []byte(fmt.Sprint(v))
	}
	text := strings.Split(string(b), "\n")
	for i := range text {
		text[i] = remediation.Plain(text[i], reportJSON)
	}
	joined := strings.Join(text, "\n")
	if runes := []rune(joined); len(runes) > reportJSON {
		joined = string(runes[:reportJSON]) + "\n… (cut; the audit log has all of it)"
	}
	w.line("%s:", name)
	w.line("%s", fenced("json", joined))
}

func (r *Report) writeHolds(w *markdown) {
	w.line("## What was held, and why")
	if len(r.Holds) == 0 {
		w.line("Nothing.")
		return
	}
	var rows [][]string
	for _, h := range r.Holds {
		means, _ := view.HoldWords(h.Reason)
		lasted := "goes on"
		if h.Lasted != nil {
			lasted = spanText(*h.Lasted)
		}
		rows = append(rows, []string{r.at(h.Time), code(h.Step), code(string(h.Reason)) + ": " + prose(means), prose(h.Why), lasted, prose(dash(h.Until))})
	}
	w.table("time|step|reason|evidence|lasted|until", rows)
}

func (r *Report) writePeople(w *markdown) {
	w.line("## Who decided what")
	if len(r.People) == 0 {
		w.line("Nobody stepped in.")
		return
	}
	var rows [][]string
	for _, d := range r.People {
		rows = append(rows, []string{r.at(d.Time), code(d.Actor), prose(d.What), prose(d.Why)})
	}
	w.table("time|who|what|why", rows)
}

// writeEvidence lists what was measured when something was decided.
func (r *Report) writeEvidence(w *markdown) {
	var rows [][]string
	var exprs []string
	add := func(e audit.Entry, d map[string]any) {
		trigger, _ := d["trigger"].(string)
		threshold, _ := d["threshold"].(string)
		if trigger == "" || threshold == "" {
			return
		}
		value, ok := d["value"].(string)
		if !ok {
			value = "none"
		}
		verdict, _ := d["verdict"].(string)
		which := "-"
		if expr, _ := d["expr"].(string); expr != "" {
			i := slices.Index(exprs, expr)
			if i < 0 {
				i, exprs = len(exprs), append(exprs, expr)
			}
			which = fmt.Sprint(i + 1)
		}
		rows = append(rows, []string{fmt.Sprint(e.Seq), r.at(e.Time), code(string(e.Kind)), code(trigger), code(value), code(threshold), prose(dash(verdict)), which})
	}
	for _, e := range r.Entries {
		if many, ok := e.Detail["triggers"].([]any); ok {
			for _, one := range many {
				if d, ok := one.(map[string]any); ok {
					add(e, d)
				}
			}
			continue
		}
		add(e, e.Detail)
	}
	w.line("## Evidence")
	if len(rows) == 0 {
		w.line("The log holds no measured value.")
		return
	}
	w.table("audit|time|decision|trigger|value|threshold|verdict|expression", rows)
	for i, expr := range exprs {
		w.line("Expression %d:", i+1)
		w.line("%s", fenced("promql", remediation.Plain(expr, reportJSON)))
	}
}

// code shows a name or a value as it is: nothing in it is Markdown, a mention
// or an address. It may stand in a table.
func code(s string) string {
	s = strings.ReplaceAll(remediation.Plain(s, reportText), "|", `\|`)
	if strings.TrimSpace(s) == "" {
		return "-"
	}
	fence := strings.Repeat("`", longestRun(s, '`')+1)
	if strings.HasPrefix(s, "`") || strings.HasSuffix(s, "`") {
		s = " " + s + " "
	}
	return fence + s + fence
}

// fenced is a block of code that nothing in it can end.
func fenced(language, s string) string {
	fence := strings.Repeat("`", max(longestRun(s, '`')+1, 3))
	return fence + language + "\n" + s + "\n" + fence
}

func longestRun(s string, of rune) (longest int) {
	n := 0
	for _, r := range s {
		if n++; r != of {
			n = 0
		}
		longest = max(longest, n)
	}
	return longest
}

// prose is a sentence with words from elsewhere in it: what would be Markdown,
// HTML, an address or a mention shows as it is.
func prose(s string) string {
	var b strings.Builder
	text := remediation.Plain(s, reportText)
	for i, r := range text {
		switch {
		case r == '@':
			b.WriteString("`@`") // even an escaped one calls somebody
		case strings.ContainsRune("\\`*_{}[]<>#|~&!$^", r),
			r == ':' && !harmlessColon(text, i):
			b.WriteByte('\\')
			b.WriteRune(r)
		default:
			b.WriteRune(r)
		}
	}
	return b.String()
}

// harmlessColon: it begins no emoji and is in no address, as before a space or
// in a time of day.
func harmlessColon(text string, i int) bool {
	if i+1 == len(text) || text[i+1] == ' ' {
		return true
	}
	return i > 0 && isDigit(text[i-1]) && isDigit(text[i+1])
}

func isDigit(b byte) bool { return b >= '0' && b <= '9' }

// at is a moment: its time of day, with the date where that is not the
// incident's first.
func (r *Report) at(t time.Time) string {
	t = t.UTC()
	if t.Format(time.DateOnly) == r.Incident.Opened.UTC().Format(time.DateOnly) {
		return t.Format(time.TimeOnly)
	}
	return t.Format(time.DateTime)
}

func reportMoment(t time.Time) string { return t.UTC().Format("2006-01-02 15:04:05") + " UTC" }

// spanText is a duration, without what is too small to matter.
func spanText(d model.Duration) string {
	t := time.Duration(d)
	switch {
	case t >= time.Hour:
		t = t.Round(time.Minute)
	case t >= 10*time.Second:
		t = t.Round(time.Second)
	}
	return model.Duration(t).String()
}
