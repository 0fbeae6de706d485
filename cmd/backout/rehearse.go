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

	"github.com/locotoki/backout/hint"
	"github.com/locotoki/backout/remediation"
)

func (c *commands) addRehearse() {
	rehearse := c.app.Command("rehearse", "Rehearse whole plans on the real targets without lasting effect. Steps that can be undone are tried and undone; the rest are checked.")
	c.addRehearseRun(rehearse)
	c.addRehearseShow(rehearse)
}

func (c *commands) addRehearseRun(parent *kingpin.CmdClause) {
	clause := parent.Command("run", "Rehearse on the server: a drill alert through Alertmanager, then each step. Exit status 1 if one failed.").Default()
	service := clause.Flag("service", "The service. Required if several playbooks are loaded.").String()
	plan := clause.Flag("plan", "The plan. Default: every plan that a trigger uses.").String()
	reason := reasonFlag(clause)
	server, output := c.serverFlags(clause), outputFlag(clause)
	c.add(clause, func(ctx context.Context) error {
		cl, err := server.client()
		if err != nil {
			return err
		}
		body := map[string]any{"service": *service, "plan": *plan, "reason": *reason}
		v, err := c.runRehearsal(ctx, cl, body, *output)
		if err != nil {
			return err
		}
		var b strings.Builder
		for _, r := range v.Rehearsals {
			b.WriteString("\n" + rehearsalEnd(r))
		}
		return c.answerRehearsal(v, *output, b.String())
	})
}

func (c *commands) addRehearseShow(parent *kingpin.CmdClause) {
	clause := parent.Command("show", "Show the last rehearsal of each plan. Exit status 1 if one failed.")
	service := clause.Flag("service", "The service. Required if several playbooks are loaded.").String()
	server, output := c.serverFlags(clause), outputFlag(clause)
	c.add(clause, func(ctx context.Context) error {
		cl, err := server.client()
		if err != nil {
			return err
		}
		v, err := cl.rehearsal(ctx, *service)
		if err != nil {
			return err
		}
		return c.answerRehearsal(v, *output, rehearsalText(v))
	})
}

func (cl *client) rehearsal(ctx context.Context, service string) (v remediation.RehearsalView, err error) {
	q := url.Values{}
	if service != "" {
		q.Set("service", service)
	}
	err = cl.ask(ctx, http.MethodGet, "api/v1/rehearse", q, nil, &v)
	return v, err
}

// Rehearsals implements source; while one runs, only its results so far are known.
func (cl *client) Rehearsals(ctx context.Context, service string) ([]remediation.Rehearsal, error) {
	v, err := cl.rehearsal(ctx, service)
	if err == nil && v.Running {
		err = negative("wait for it", "a rehearsal of %s is running", clean(v.Service))
	}
	return v.Rehearsals, err
}

// runRehearsal starts one and waits for its end. ctx ends only the waiting. The
// answer holds only the plans that were rehearsed.
func (c *commands) runRehearsal(ctx context.Context, cl *client, body map[string]any, output string) (v remediation.RehearsalView, err error) {
	if err := cl.ask(ctx, http.MethodPost, "api/v1/rehearse", nil, body, &v); err != nil {
		return v, err
	}
	service, plans, by, started := v.Service, v.Plans, v.By, v.Started
	shown := 0
	for {
		ours := v.Running && started != nil && v.Started != nil && v.Started.Equal(*started)
		if !ours {
			v.Rehearsals = rehearsalsSince(v.Rehearsals, plans, started)
		}
		if lines := rehearsalLines(v.Rehearsals); output != outputJSON && shown < len(lines) {
			if err := c.print(strings.Join(lines[shown:], "")); err != nil {
				return v, err
			}
			shown = len(lines)
		}
		if !ours {
			break
		}
		select {
		case <-ctx.Done():
			return v, ctx.Err()
		case <-time.After(c.every):
		}
		if v, err = cl.rehearsal(ctx, service); err != nil {
			return v, err
		}
	}
	if len(v.Rehearsals) < len(plans) {
		return v, negative("backout rehearse", "the server stopped during the rehearsal, or its playbook changed")
	}
	v.Running, v.Plans, v.By, v.Started = false, plans, by, started
	return v, nil
}

// rehearsalsSince are those of plans, in their order, that began at since or later
// and have ended.
func rehearsalsSince(all []remediation.Rehearsal, plans []string, since *time.Time) []remediation.Rehearsal {
	out := []remediation.Rehearsal{}
	for _, plan := range plans {
		for _, r := range all {
			if r.Plan == plan && !r.Finished.IsZero() && since != nil && !r.Started.Before(*since) {
				out = append(out, r)
			}
		}
	}
	return out
}

// answerRehearsal prints the answer; it is negative if a part failed.
func (c *commands) answerRehearsal(v remediation.RehearsalView, output, text string) error {
	var err error
	if output == outputJSON {
		err = c.printJSON(v)
	} else {
		err = c.print(text)
	}
	if err != nil {
		return err
	}
	for _, r := range v.Rehearsals {
		if r.Status == remediation.Fail {
			return errAnswered
		}
	}
	return nil
}

// rehearsalText describes the last rehearsals.
func rehearsalText(v remediation.RehearsalView) string {
	var b strings.Builder
	if v.Running {
		b.WriteString(wrap("", fmt.Sprintf("A rehearsal has been running for %s; %s left:", clean(v.By), remediation.Counted(v.Left, "step"))) + "\n")
	}
	for i, r := range v.Rehearsals {
		if i > 0 {
			b.WriteString("\n")
		}
		b.WriteString(strings.Join(rehearsalLines([]remediation.Rehearsal{r}), ""))
		if r.Finished.IsZero() {
			continue
		}
		b.WriteString("\n" + rehearsalEnd(r))
		if r.Playbook != v.Playbook {
			b.WriteString(hint.Text("The playbook has changed since", "backout rehearse") + "\n")
		}
	}
	if len(v.Rehearsals) == 0 && !v.Running {
		b.WriteString(wrap("", hint.Text(fmt.Sprintf("No plan of %s has been rehearsed yet", clean(v.Service)), "backout rehearse")))
	}
	return b.String()
}

// rehearsalLines prints the parts of rehearsals as they finish.
func rehearsalLines(all []remediation.Rehearsal) []string {
	var out []string
	for _, r := range all {
		if r.Drill.Status == "" {
			continue
		}
		out = append(out, fmt.Sprintf("Plan %s of %s, without lasting effect:\n", clean(r.Plan), clean(r.Service)), rehearsalPart("drill alert", "", r.Drill))
		for _, s := range r.Steps {
			out = append(out, rehearsalPart(s.ID, s.Target, s.RehearsedPart))
		}
	}
	return out
}

// rehearsalPart is one part for people: its result, its time, what was seen.
func rehearsalPart(name, target string, part remediation.RehearsedPart) string {
	indent := strings.Repeat(" ", 13)
	var b strings.Builder
	b.WriteString(preflightWords[part.Status] + clean(name) + ": took " + remediation.Took(part.Took) + "\n")
	if target != "" {
		b.WriteString(wrap(indent, clean(target)))
	}
	b.WriteString(wrap(indent, clean(part.Evidence)))
	if part.Next != "" && part.Status != remediation.Pass {
		b.WriteString(wrap(indent, "try: "+clean(part.Next)))
	}
	return b.String()
}

// rehearsalEnd is the result of a rehearsal.
func rehearsalEnd(r remediation.Rehearsal) string {
	count := map[remediation.Status]int{r.Drill.Status: 1}
	tried := 0
	for _, s := range r.Steps {
		count[s.Status]++
		if s.Tried {
			tried++
		}
	}
	text := fmt.Sprintf("Plan %s: %d passed, %d failed, %d unknown; %d of %s tried, the rest checked. It took %s and ended %s.",
		clean(r.Plan), count[remediation.Pass], count[remediation.Fail], count[remediation.CannotTell], tried, remediation.Counted(len(r.Steps), "step"),
		remediation.Took(model.Duration(r.Finished.Sub(r.Started))), moment(r.Finished))
	if len(r.Incidents) > 0 {
		text += " Audit entries: backout audit list --incident=" + clean(r.Incidents[0])
	}
	return wrap("", text)
}
