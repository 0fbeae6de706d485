package main

import (
	"context"
	"fmt"
	"net/http"
	"net/url"
	"reflect"
	"time"

	"github.com/alecthomas/kingpin/v2"

	"github.com/locotoki/backout/cmd/backout/flags"
	"github.com/locotoki/backout/cmd/backout/terminal"
	"github.com/locotoki/backout/remediation"
)

func (c *commands) addSignal() {
	clause := c.app.Command("signal", "Report what no metric shows: a vulnerability, bad data, a P1 error. Its plan runs because you said so.")
	c.addSignalChange(clause.Command("raise", "Raise the signal: its alert fires and its plan runs. A step that loses data still needs approval."),
		http.MethodPost, func(s signalAnswer) string {
			return fmt.Sprintf("Raised: %s of service %s, since %s,\n", terminal.Clean(s.Signal), terminal.Clean(s.Service), remediation.Moment(s.Since)) +
				terminal.Wrap("  ", "by "+s.By+": "+s.Reason) +
				warned(s.Warning) +
				"It arrives through Prometheus and Alertmanager within a scrape and an\nevaluation; see backout incident list. To clear it:\n" +
				fmt.Sprintf("  backout signal clear %s --service=%s --reason=WHY\n", terminal.Clean(s.Signal), terminal.Clean(s.Service))
		})
	c.addSignalChange(clause.Command("clear", "Clear the signal: steps that have not begun are cancelled, and the incident closes."),
		http.MethodDelete, func(s signalAnswer) string {
			return fmt.Sprintf("Cleared: %s of service %s.\nSteps that had not begun are cancelled.\n", terminal.Clean(s.Signal), terminal.Clean(s.Service))
		})
}

// signalAnswer is a signal in the API's form.
type signalAnswer struct {
	Service string    `json:"service"`
	Signal  string    `json:"signal"`
	Raised  bool      `json:"raised"`
	By      string    `json:"by"`
	Reason  string    `json:"reason"`
	Since   time.Time `json:"since"`
	// Warning is why its alert may not come back.
	Warning string `json:"warning,omitempty"`
}

func warned(warning string) string {
	if warning == "" {
		return ""
	}
	return terminal.Wrap("", "warning: "+warning)
}

func (c *commands) addSignalChange(clause *kingpin.CmdClause, method string, text func(signalAnswer) string) {
	name := flags.Name(clause, "name", "The signal's name in the playbook.")
	service := clause.Flag("service", "The service. Required if several playbooks are loaded.").String()
	reason := flags.RequiredReason(clause)
	server, output := c.serverFlags(clause), c.outputFlag(clause, reflect.TypeFor[signalAnswer]())
	c.add(clause, func(ctx context.Context) error {
		cl, err := server.client()
		if err != nil {
			return err
		}
		q := url.Values{}
		if *service != "" {
			q.Set("service", *service)
		}
		var done signalAnswer
		body := map[string]string{"reason": *reason}
		if err := cl.Ask(ctx, method, "api/v1/signals/"+url.PathEscape(*name), q, body, &done); err != nil {
			return err
		}
		if *output == outputJSON {
			return c.printJSON(done)
		}
		return c.print(text(done))
	})
}
