package main

import (
	"context"
	"net/http"
	"net/url"
	"reflect"

	"github.com/alecthomas/kingpin/v2"

	"github.com/locotoki/backout/cmd/backout/terminal"
	"github.com/locotoki/backout/remediation/view"
)

func (c *commands) addRolloutReport(parent *kingpin.CmdClause) {
	clause := parent.Command("report", "Report on the current or last rollout: its stages, holds, incidents and signals, the current success criteria and smoke tests, "+
		"and the sign-offs.")
	service := clause.Flag("service", "The service. Required if several playbooks are loaded.").String()
	server, output := c.serverFlags(clause), c.outputFlag(clause, reflect.TypeFor[view.RolloutReport]())
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
		if err := cl.Ask(ctx, http.MethodGet, "api/v1/rollout/report", q, nil, &report); err != nil {
			return err
		}
		if *output == outputJSON {
			return c.printJSON(report)
		}
		return c.print(terminal.RolloutReport(&report))
	})
}
