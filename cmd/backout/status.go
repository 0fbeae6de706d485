package main

import (
	"context"
	"net/http"
	"reflect"

	"github.com/locotoki/backout/cmd/backout/terminal"
	"github.com/locotoki/backout/remediation/view"
)

func (c *commands) addStatus() {
	clause := c.app.Command("status", "Show what a server sees now, one line per subject: mode, freezes, monitoring, what runs on each "+
		"service, open incidents, undelivered messages, the audit log. Exit status 1 if something needs a person.")
	server, output := c.serverFlags(clause), c.outputFlag(clause, reflect.TypeFor[view.Status]())
	c.add(clause, func(ctx context.Context) error {
		cl, err := server.client()
		if err != nil {
			return err
		}
		var s view.Status
		if err := cl.Ask(ctx, http.MethodGet, "api/v1/status", nil, nil, &s); err != nil {
			return err
		}
		return c.answer(*output, s, terminal.Status(s, c.screen()), len(s.NeedsPerson()) == 0)
	})
}
