package main

import (
	"context"
	"fmt"
	"net/http"
	"strings"
	"time"

	"github.com/alecthomas/kingpin/v2"

	"github.com/locotoki/backout/remediation"
)

func (c *commands) addRollout() {
	rollout := c.app.Command("rollout", "Which stage a service's rollout is in.")
	c.addRolloutStart(rollout)
	c.addRolloutStatus(rollout)
}

func (c *commands) addRolloutStart(parent *kingpin.CmdClause) {
	clause := parent.Command("start", "Record a rollout that humans started, or its next stage: steps other than flags need one.")
	declare := clause.Flag("declare", "Say that the rollout is under way; no flag is changed. Needed: backout starts none by itself.").Bool()
	stage := clause.Flag("stage", "The stage it is in, by its name in the playbook.").Required().String()
	release := clause.Flag("release", "The release; the playbook's where not given.").String()
	service := clause.Flag("service", "The service; needed where several playbooks are loaded.").String()
	reason := clause.Flag("reason", "Why, for the audit log.").Default("declared by hand, no reason given").String()
	server, output := c.serverFlags(clause), outputFlag(clause)
	c.add(clause, func(ctx context.Context) error {
		if !*declare {
			return wrong("start it as you do, then: backout rollout start --declare --stage="+clean(*stage),
				"backout does not start rollouts by itself; with --declare it records one that humans started")
		}
		cl, err := server.client()
		if err != nil {
			return err
		}
		body := map[string]any{
			"service": *service, "release": *release, "stage": *stage, "declare": true, "reason": *reason,
		}
		var done remediation.RolloutView
		if err := cl.ask(ctx, http.MethodPost, "api/v1/rollout/start", nil, body, &done); err != nil {
			return err
		}
		if *output == outputJSON {
			return c.printJSON(done)
		}
		return c.print(rolloutText(done, c.now()))
	})
}

func (c *commands) addRolloutStatus(parent *kingpin.CmdClause) {
	clause := parent.Command("status", "Show each service's rollout and how its stage does.")
	service := clause.Flag("service", "Of this service only.").String()
	from, output := c.sourceFlags(clause), outputFlag(clause)
	c.add(clause, func(ctx context.Context) error {
		return from.with(ctx, func(src source) error {
			all, err := src.Rollouts(ctx)
			if err != nil {
				return err
			}
			list := []remediation.RolloutView{}
			for _, r := range all {
				if *service == "" || r.Service == *service {
					list = append(list, r)
				}
			}
			if *service != "" && len(list) == 0 {
				return negative("backout rollout status", "no rollout of service %q is known", *service)
			}
			if *output == outputJSON {
				return c.printJSON(map[string]any{"rollouts": list})
			}
			var b strings.Builder
			for i, r := range list {
				if i > 0 {
					b.WriteString("\n")
				}
				b.WriteString(rolloutText(r, c.now()))
			}
			if len(list) == 0 {
				b.WriteString("No rollouts.\n")
			}
			return c.print(b.String())
		})
	})
}

// rolloutText is a rollout for humans.
func rolloutText(r remediation.RolloutView, now time.Time) string {
	var b strings.Builder
	b.WriteString(wrap("", fmt.Sprintf("%s: %s", r.Service, rolloutState(r))))
	if r.Started != nil {
		fmt.Fprintf(&b, "  started     %s (%s)\n", moment(*r.Started), distance(now, *r.Started))
	}
	if r.StageSince != nil {
		fmt.Fprintf(&b, "  this stage  since %s (%s)\n", moment(*r.StageSince), distance(now, *r.StageSince))
	}
	if r.PromotableAt != nil {
		fmt.Fprintf(&b, "  next stage  from %s on (%s)\n", moment(*r.PromotableAt), distance(now, *r.PromotableAt))
	}
	for _, cr := range r.Criteria {
		word := "not met"
		if cr.OK {
			word = "met"
		}
		if cr.Value == nil {
			word = "no value"
		}
		b.WriteString(wrap("  ", fmt.Sprintf("%s: %s (value %s, bound %s)", cr.Name, word, valueOr(cr.Value, "none"), number(cr.Threshold))))
	}
	return b.String()
}

func rolloutState(r remediation.RolloutView) string {
	held := ""
	if r.Held {
		held = ", held"
	}
	switch r.State {
	case remediation.RolloutNone:
		return "no rollout. Flags may be switched off; images and schemas are left alone"
	case remediation.RolloutActive:
		return fmt.Sprintf("release %s is being rolled out, stage %s%s; rolling back leads to %s", r.Release, r.Stage, held, orDash(r.Previous))
	case remediation.RolloutSoaking:
		return fmt.Sprintf("release %s is rolled out in full and soaks%s; rolling back leads to %s", r.Release, held, orDash(r.Previous))
	}
	return fmt.Sprintf("release %s: %s", r.Release, strings.ReplaceAll(r.State, "_", " "))
}
