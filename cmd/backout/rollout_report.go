package main

import (
	"context"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/alecthomas/kingpin/v2"
	"github.com/prometheus/common/model"

	"github.com/locotoki/backout/remediation"
	"github.com/locotoki/backout/remediation/view"
)

func (c *commands) addRolloutReport(parent *kingpin.CmdClause) {
	clause := parent.Command("report", "Report on the present or the last rollout: its stages, holds, incidents and signals, how the playbook's success criteria and smoke tests stand now, "+
		"and what people have signed for.")
	service := clause.Flag("service", "The service; needed where several playbooks are loaded.").String()
	server, output := c.serverFlags(clause), outputFlag(clause)
	c.add(clause, func(ctx context.Context) error {
		cl, err := server.client()
		if err != nil {
			return err
		}
		q := url.Values{}
		if *service != "" {
			q.Set("service", *service)
		}
		var report view.RolloutReport
		if err := cl.ask(ctx, http.MethodGet, "api/v1/rollout/report", q, nil, &report); err != nil {
			return err
		}
		if *output == outputJSON {
			return c.printJSON(report)
		}
		return c.print(rolloutReportText(&report))
	})
}

// reportWriter writes a report for the terminal: headings and items as Markdown has
// them, within the columns.
type reportWriter struct{ strings.Builder }

func (w *reportWriter) head(text string) { w.WriteString("\n## " + text + "\n\n") }

func (w *reportWriter) item(format string, args ...any) {
	w.WriteString(hanging("- ", fmt.Sprintf(format, args...)))
}

func (w *reportWriter) sub(format string, args ...any) {
	w.WriteString(hanging("  - ", fmt.Sprintf(format, args...)))
}

// rolloutReportText is a rollout's report for humans.
func rolloutReportText(r *view.RolloutReport) string {
	w := &reportWriter{}
	w.WriteString(wrap("", fmt.Sprintf("# Rollout of %s: release %s", r.Service, r.Release)))
	w.WriteString("\n" + wrap("", fmt.Sprintf("Made by backout on %s from its audit log; times are UTC.", moment(r.Made))))
	w.head("Summary")
	w.item("state: %s", rolloutStateWords(r))
	if r.Started != nil {
		how := "started"
		if r.Declared {
			how = "declared"
		}
		w.item("%s %s%s", how, momentShort(*r.Started), byWhy(r.StartedBy, r.Why))
	}
	if r.Ended != nil {
		w.item("ended %s%s", momentShort(*r.Ended), byWhy(r.EndedBy, r.EndedWhy))
	}
	w.item("rolling back leads to %s", orDash(r.Previous))
	if r.Cut {
		w.item("the log holds more than a report reads: the oldest part is left out, and backout audit export has it")
	}
	w.stages(r)
	w.holds(r)
	w.incidents(r)
	w.signals(r)
	w.success(r)
	w.smoke(r)
	w.tasks(r)
	w.timeline(r)
	return w.String()
}

func rolloutStateWords(r *view.RolloutReport) string {
	state := strings.ReplaceAll(r.State, "_", " ")
	if r.Ended == nil {
		state += ", stage " + r.Stage
	}
	return state
}

// byWhy says who did something and what for.
func byWhy(by, why string) string {
	out := ""
	if by != "" {
		out = " by " + by
	}
	if why != "" {
		out += ": " + why
	}
	return out
}

// lasting is how long something went on, or that it does.
func lasting(from time.Time, to *time.Time) string {
	if to == nil {
		return "since " + momentShort(from)
	}
	return fmt.Sprintf("%s to %s (%s)", momentShort(from), momentShort(*to), spanWords(to.Sub(from)))
}

func spanWords(d time.Duration) string {
	round := time.Millisecond
	switch {
	case d >= time.Hour:
		round = time.Minute
	case d >= time.Second:
		round = time.Second
	}
	return model.Duration(d.Round(round)).String()
}

func (w *reportWriter) stages(r *view.RolloutReport) {
	w.head("Stages")
	if len(r.Stages) == 0 {
		w.item("no stage is in the audit log")
	}
	for _, s := range r.Stages {
		traffic := ""
		if s.Traffic != "" {
			traffic = " (traffic " + s.Traffic + ")"
		}
		w.item("%s%s: %s%s", s.Stage, traffic, lasting(s.From, s.To), byWhy(s.By, s.Why))
		for _, g := range s.Judged {
			if strings.HasPrefix(g.Gate, "criterion ") {
				w.sub("before it, %s", g.Why)
			}
		}
		if len(s.Forced) > 0 {
			w.sub("forced, although these were shut: %s", strings.Join(s.Forced, ", "))
		}
	}
}

func (w *reportWriter) holds(r *view.RolloutReport) {
	w.head("Holds")
	if len(r.Holds) == 0 {
		w.item("none")
	}
	for _, h := range r.Holds {
		if h.To != nil && h.To.Equal(h.From) { // a moment
			w.item("%s: %s%s", h.What, momentShort(h.From), byWhy(h.By, h.Why))
			continue
		}
		w.item("%s: %s%s", h.What, lasting(h.From, h.To), byWhy(h.By, h.Why))
	}
}

func (w *reportWriter) incidents(r *view.RolloutReport) {
	w.head("Incidents")
	if len(r.Incidents) == 0 {
		w.item("none")
	}
	for _, inc := range r.Incidents {
		of := strings.Join(inc.Triggers, ", ")
		if of == "" {
			of = "ordered by hand"
		}
		w.item("%s: %s; %s, %s", inc.ID, of, lasting(inc.Opened, inc.Closed), inc.State)
		for _, s := range inc.Steps {
			w.sub("%s: %s", s.ID, strings.ReplaceAll(string(s.State), "_", " "))
		}
		if inc.Recovered != nil {
			w.sub("recovered %s, after %s", momentShort(*inc.Recovered), spanWords(inc.Recovered.Sub(inc.Opened)))
		} else {
			w.sub("no recovery is in the audit log")
		}
	}
}

func (w *reportWriter) signals(r *view.RolloutReport) {
	w.head("Signals")
	if len(r.Signals) == 0 {
		w.item("none")
	}
	for _, s := range r.Signals {
		what := "cleared"
		if s.Raised {
			what = "raised"
		}
		w.item("%s %s %s%s", s.Signal, what, momentShort(s.Time), byWhy(s.By, s.Why))
	}
}

func (w *reportWriter) success(r *view.RolloutReport) {
	w.head("Success criteria")
	if len(r.Success) == 0 {
		w.item("the playbook has none")
	}
	for _, s := range r.Success {
		w.item("%s: %s: %s", s.Area, s.Text, successWords(s))
	}
}

// successWords say how a success criterion stands.
func successWords(s remediation.SuccessView) string {
	bound := ""
	if s.Threshold != nil {
		bound = fmt.Sprintf("must be %s %s over %s", s.Bound, remediation.Measure(*s.Threshold, s.Unit), s.Over)
	}
	value := "none"
	if s.Value != nil {
		value = remediation.Measure(*s.Value, s.Unit)
	}
	switch s.State {
	case remediation.SuccessMet:
		return fmt.Sprintf("met (%s, %s)", value, bound)
	case remediation.SuccessNotMet:
		return fmt.Sprintf("NOT MET (%s, %s)", value, bound)
	case remediation.SuccessNoData:
		return strings.TrimSuffix(fmt.Sprintf("no data (%s); %s", bound, s.Why), "; ")
	case remediation.SuccessNotAsked:
		return fmt.Sprintf("not asked: %s (%s)", s.Why, bound)
	}
	return signedWords(s.Signed, s.Owner, s.Item)
}

// signedWords say who signed for an item, or who is to.
func signedWords(s *remediation.Signature, owner, item string) string {
	if s != nil {
		return fmt.Sprintf("signed by %s %s: %s", s.By, momentShort(s.Time), s.Reason)
	}
	return fmt.Sprintf("not signed (%s); try: backout preflight sign %s --by=NAME --reason=WHY", orDash(owner), item)
}

func (w *reportWriter) smoke(r *view.RolloutReport) {
	w.head("Smoke tests")
	if len(r.Smoke) == 0 {
		w.item("the playbook has none: target.probe.smoke lists them")
	}
	for _, s := range r.Smoke {
		word := "ok"
		if !s.OK {
			word = "FAILED"
		}
		w.item("%s: %s: %s", s.Name, word, s.Detail)
	}
}

func (w *reportWriter) tasks(r *view.RolloutReport) {
	w.head("People's work after the deployment")
	if len(r.Tasks) == 0 {
		w.item("the playbook has none")
	}
	for _, t := range r.Tasks {
		w.item("%s: %s", t.Name, signedWords(t.Signed, t.Owner, t.ID))
	}
}

func (w *reportWriter) timeline(r *view.RolloutReport) {
	w.head("Timeline")
	if len(r.Timeline) == 0 {
		w.item("the playbook has none")
	}
	for _, d := range r.Timeline {
		done := "nothing is known of it"
		if d.Done != "" {
			done = "done " + d.Done + byWhy(d.By, "")
		}
		planned := ""
		if d.Date != "" {
			planned = ", planned " + d.Date
		}
		w.item("%s, %s (%s)%s: %s", d.Day, d.Activity, orDash(d.Owner), planned, done)
	}
}
