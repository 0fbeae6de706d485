package main

import (
	"context"
	"net/http"
	"reflect"
	"slices"
	"strings"
	"time"

	"github.com/alecthomas/kingpin/v2"

	"github.com/locotoki/backout/cmd/backout/client"
	"github.com/locotoki/backout/cmd/backout/flags"
	"github.com/locotoki/backout/cmd/backout/terminal"
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
	reason := flags.Reason(clause)
	server, output := c.serverFlags(clause), c.outputFlag(clause, reflect.TypeFor[remediation.RehearsalView]())
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
			b.WriteString("\n" + terminal.RehearsalEnd(r))
		}
		if *output != outputJSON { // what a start still lacks
			b.WriteString("\n")
			if p, err := cl.Preflight(ctx, v.Service); err != nil {
				b.WriteString(terminal.Wrap("", "What a start still lacks could not be asked: "+err.Error()) +
					terminal.Wrap("  ", "try: backout preflight show --service="+v.Service))
			} else {
				b.WriteString(terminal.PreflightMissing(p))
			}
		}
		return c.answerRehearsal(v, *output, b.String())
	})
}

func (c *commands) addRehearseShow(parent *kingpin.CmdClause) {
	clause := parent.Command("show", "Show the last rehearsal of each plan. Exit status 1 if one failed.")
	service := clause.Flag("service", "The service. Required if several playbooks are loaded.").String()
	server, output := c.serverFlags(clause), c.outputFlag(clause, reflect.TypeFor[remediation.RehearsalView]())
	c.add(clause, func(ctx context.Context) error {
		cl, err := server.client()
		if err != nil {
			return err
		}
		v, err := cl.Rehearsal(ctx, *service)
		if err != nil {
			return err
		}
		return c.answerRehearsal(v, *output, terminal.Rehearsal(v))
	})
}

// runRehearsal starts one and waits for its end. ctx ends only the waiting. The
// answer holds only the plans that were rehearsed.
func (c *commands) runRehearsal(ctx context.Context, cl *client.Client, body map[string]any, output string) (v remediation.RehearsalView, err error) {
	service, _ := body["service"].(string)
	var started *time.Time
	defer func() { err = continues(err, started != nil, "backout rehearse show", service) }()
	if err := cl.Ask(ctx, http.MethodPost, "api/v1/rehearse", nil, body, &v); err != nil {
		return v, err
	}
	service = v.Service
	plans, by := v.Plans, v.By
	started = v.Started
	shown := 0
	for {
		ours := v.Running && started != nil && v.Started != nil && v.Started.Equal(*started)
		if !ours {
			v.Rehearsals = rehearsalsSince(v.Rehearsals, plans, started)
		}
		if lines := terminal.Rehearsals(v.Rehearsals); output != outputJSON && shown < len(lines) {
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
		if v, err = cl.Rehearsal(ctx, service); err != nil {
			return v, err
		}
	}
	if len(v.Rehearsals) < len(plans) {
		return v, negative("backout rehearse --service="+terminal.Clean(service), "the server stopped during the rehearsal, or its playbook changed")
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
	failed := slices.ContainsFunc(v.Rehearsals, func(r remediation.Rehearsal) bool { return r.Status == remediation.Fail })
	return c.answer(output, v, text, !failed)
}
