package main

import (
	"context"
	"fmt"
	"net/http"
	"net/url"
	"time"

	"github.com/alecthomas/kingpin/v2"
)

func (c *commands) addSignal() {
	clause := c.app.Command("signal", "Say what no metric knows: a vulnerability, bad data, a P1 error. Its plan runs on your word.")
	c.addSignalChange(clause.Command("raise", "It is so: the generated rule fires, and the steps of its plan run in their order. Lossy ones still ask for approval."),
		http.MethodPost, func(s signalAnswer) string {
			return fmt.Sprintf("Raised: %s of service %s, since %s,\n", clean(s.Signal), clean(s.Service), moment(s.Since)) +
				wrap("  ", "by "+s.By+": "+s.Reason) +
				warned(s.Warning) +
				"It comes back through Prometheus and Alertmanager within a scrape and an\nevaluation; backout incident list shows what is done about it. To take it back:\n" +
				fmt.Sprintf("  backout signal clear %s --service=%s --reason=WHY\n", clean(s.Signal), clean(s.Service))
		})
	c.addSignalChange(clause.Command("clear", "It is so no longer: steps that have not begun are cancelled, and the incident closes."),
		http.MethodDelete, func(s signalAnswer) string {
			return fmt.Sprintf("Cleared: %s of service %s.\nSteps that had not begun are cancelled.\n", clean(s.Signal), clean(s.Service))
		})
}

// signalAnswer is a signal as the API answers it.
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
	return wrap("", "warning: "+warning)
}

func (c *commands) addSignalChange(clause *kingpin.CmdClause, method string, text func(signalAnswer) string) {
	name := clause.Arg("name", "The signal's name, as a trigger of the playbook has it.").Required().String()
	service := clause.Flag("service", "The service; may be left out where there is one playbook.").String()
	reason := ownReasonFlag(clause)
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
		var done signalAnswer
		body := map[string]string{"reason": *reason}
		if err := cl.ask(ctx, method, "api/v1/signals/"+url.PathEscape(*name), q, body, &done); err != nil {
			return err
		}
		if *output == outputJSON {
			return c.printJSON(done)
		}
		return c.print(text(done))
	})
}
