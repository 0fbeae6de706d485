package main

import (
	"context"
	"fmt"
	"net/http"
	"net/url"
	"reflect"
	"strings"

	"github.com/locotoki/backout/cmd/backout/flags"
	"github.com/locotoki/backout/cmd/backout/terminal"
	"github.com/locotoki/backout/remediation"
)

func (c *commands) addFreeze() {
	c.addFreezeCommand()
	c.addThaw()
}

func (c *commands) addFreezeCommand() {
	clause := c.app.Command("freeze", "Block further steps and promotions immediately. A running step is finished.")
	service := clause.Flag("service", "Only this service. Default: all services.").String()
	scope := flags.Choice(clause, "scope", "all blocks steps and promotions. promotions blocks only promotions: rollbacks still run.",
		remediation.ScopeAll, remediation.ScopeAll, remediation.ScopePromotions)
	length := flags.Span(clause, "for", "How long, such as 2h. Default: until you thaw it. A longer freeze stays in force until you thaw it.")
	reason := flags.RequiredReason(clause)
	server, output := c.serverFlags(clause), c.outputFlag(clause, reflect.TypeFor[remediation.Freeze]())
	c.add(clause, func(ctx context.Context) error {
		f := remediation.Freeze{Service: *service, Scope: *scope, Reason: *reason}
		if *length > 0 {
			until := c.now().Add(*length).UTC()
			f.Until = &until
		}
		cl, err := server.client()
		if err != nil {
			return err
		}
		var done remediation.Freeze
		if err := cl.Ask(ctx, http.MethodPut, "api/v1/freeze", nil, f, &done); err != nil {
			return err
		}
		if *output == outputJSON {
			return c.printJSON(done)
		}
		head := "Frozen: "
		if f.Until != nil && (done.Until == nil || done.Until.After(*f.Until)) {
			head = "Already frozen, for longer: "
		}
		return c.print(head + terminal.Freeze(done, c.now()) + "To end it:\n  " + terminal.ThawCommand(done) + "\n")
	})
}

// frozen is the answer of thaw: what is frozen after it.
type frozen struct {
	Freezes []remediation.Freeze `json:"freezes"`
}

func (c *commands) addThaw() {
	clause := c.app.Command("thaw", "End a freeze of any scope. Held steps continue once Prometheus confirms the breach again.")
	service := clause.Flag("service", "End the freeze of this service. Default: end the global freeze.").String()
	reason := flags.RequiredReason(clause)
	server, output := c.serverFlags(clause), c.outputFlag(clause, reflect.TypeFor[frozen]())
	c.add(clause, func(ctx context.Context) error {
		cl, err := server.client()
		if err != nil {
			return err
		}
		q := url.Values{"reason": {*reason}}
		if *service != "" {
			q.Set("service", *service)
		}
		var left frozen
		if err := cl.Ask(ctx, http.MethodDelete, "api/v1/freeze", q, nil, &left); err != nil {
			return err
		}
		if *output == outputJSON {
			return c.printJSON(left)
		}
		var b strings.Builder
		fmt.Fprintf(&b, "Thawed: %s.\n", terminal.EveryOr(*service))
		if len(left.Freezes) == 0 {
			b.WriteString("Nothing is frozen now.\n")
		}
		for _, f := range left.Freezes {
			b.WriteString("Still frozen: " + terminal.Freeze(f, c.now()))
		}
		return c.print(b.String())
	})
}
