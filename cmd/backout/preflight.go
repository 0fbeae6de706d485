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

func (c *commands) addPreflight() {
	preflight := c.app.Command("preflight", "Check that a rollback would work before a rollout starts, and sign off what people must check.")
	c.addPreflightRun(preflight)
	c.addPreflightShow(preflight)
	c.addPreflightSign(preflight)
}

func (c *commands) addPreflightRun(parent *kingpin.CmdClause) {
	clause := parent.Command("run", "Run the checks on the server and show each result. Each item passes, fails or is unknown. Exit status 1 if one failed.").Default()
	service := clause.Flag("service", "The service. Required if several playbooks are loaded.").String()
	reason := flags.Reason(clause)
	server, output := c.serverFlags(clause), c.outputFlag(clause, reflect.TypeFor[remediation.PreflightView]())
	c.add(clause, func(ctx context.Context) error {
		cl, err := server.client()
		if err != nil {
			return err
		}
		v, err := c.runPreflight(ctx, cl, *service, *reason, *output)
		if err != nil {
			return err
		}
		return c.answerPreflight(v, *output, terminal.PreflightEnd(v))
	})
}

func (c *commands) addPreflightShow(parent *kingpin.CmdClause) {
	clause := parent.Command("show", "Show the last preflight and the required sign-offs. Exit status 1 if an item failed.")
	service := clause.Flag("service", "The service. Required if several playbooks are loaded.").String()
	server, output := c.serverFlags(clause), c.outputFlag(clause, reflect.TypeFor[remediation.PreflightView]())
	c.add(clause, func(ctx context.Context) error {
		cl, err := server.client()
		if err != nil {
			return err
		}
		v, err := cl.Preflight(ctx, *service)
		if err != nil {
			return err
		}
		var b strings.Builder
		for _, it := range v.Items {
			if it.Owner == "" {
				b.WriteString(terminal.PreflightItem(it))
			}
		}
		return c.answerPreflight(v, *output, b.String()+terminal.PreflightEnd(v))
	})
}

func (c *commands) addPreflightSign(parent *kingpin.CmdClause) {
	clause := parent.Command("sign", "Sign off items for this release. The audit log records each with your name. A failed item cannot be signed off.")
	items := clause.Arg("item", "Items, named as in `backout preflight show`.").Required().Strings()
	by := clause.Flag("by", "Who signs. Default: the token's name.").String()
	reason := flags.RequiredReason(clause)
	service := clause.Flag("service", "The service. Required if several playbooks are loaded.").String()
	server, output := c.serverFlags(clause), c.outputFlag(clause, reflect.TypeFor[remediation.PreflightView]())
	c.add(clause, func(ctx context.Context) error {
		cl, err := server.client()
		if err != nil {
			return err
		}
		var v remediation.PreflightView
		for _, item := range *items {
			body := map[string]any{"service": *service, "item": item, "by": *by, "reason": *reason}
			if err := cl.Ask(ctx, http.MethodPost, "api/v1/preflight/sign", nil, body, &v); err != nil {
				return err
			}
			if *output != outputJSON {
				if err := c.print("Signed: " + terminal.Clean(item) + "\n"); err != nil {
					return err
				}
			}
		}
		if *output == outputJSON {
			return c.printJSON(v)
		}
		return c.print(terminal.PreflightMissing(v))
	})
}

// runPreflight starts one and waits for its end. ctx ends only the waiting.
func (c *commands) runPreflight(ctx context.Context, cl *client.Client, service, reason, output string) (v remediation.PreflightView, err error) {
	body := map[string]any{"service": service, "reason": reason}
	var started *time.Time
	defer func() { err = continues(err, started != nil, "backout preflight show", service) }()
	if err := cl.Ask(ctx, http.MethodPost, "api/v1/preflight", nil, body, &v); err != nil {
		return v, err
	}
	service = v.Service
	started = v.Started
	shown := 0
	for {
		proofs := v.Items[:0:0]
		for _, it := range v.Items {
			if it.Owner == "" {
				proofs = append(proofs, it)
			}
		}
		for ; output != outputJSON && shown < len(proofs); shown++ {
			if err := c.print(terminal.PreflightItem(proofs[shown])); err != nil {
				return v, err
			}
		}
		if v.Started == nil || started == nil || !v.Started.Equal(*started) {
			return v, negative("backout preflight --service="+terminal.Clean(service), "the server stopped during the preflight")
		}
		if !v.Running {
			return v, nil
		}
		select {
		case <-ctx.Done():
			return v, ctx.Err()
		case <-time.After(c.every):
		}
		if v, err = cl.Preflight(ctx, service); err != nil {
			return v, err
		}
	}
}

// answerPreflight prints the answer; it is negative if an item failed.
func (c *commands) answerPreflight(v remediation.PreflightView, output, text string) error {
	failed := slices.ContainsFunc(v.Items, func(it remediation.PreflightItem) bool { return it.Status == remediation.Fail })
	return c.answer(output, v, text, !failed)
}
