package main

import (
	"context"
	"fmt"
	"net/http"
	"strings"

	"github.com/locotoki/backout/remediation"
	"github.com/locotoki/backout/remediation/view"
)

func (c *commands) addStatus() {
	clause := c.app.Command("status", "Show what a server sees now, one line per subject: mode, freezes, monitoring, what runs on each "+
		"service, open incidents, undelivered messages, the audit log. Exit status 1 if something needs a person.")
	server, output := c.serverFlags(clause), outputFlag(clause)
	c.add(clause, func(ctx context.Context) error {
		cl, err := server.client()
		if err != nil {
			return err
		}
		var s view.Status
		if err := cl.ask(ctx, http.MethodGet, "api/v1/status", nil, nil, &s); err != nil {
			return err
		}
		if *output == outputJSON {
			err = c.printJSON(s)
		} else {
			err = c.print(statusText(s, c.screen()))
		}
		if err == nil && len(s.NeedsPerson()) > 0 {
			err = errAnswered
		}
		return err
	})
}

// statusText marks what needs a person with an exclamation mark.
func statusText(s view.Status, scr screen) string {
	var b strings.Builder
	switch n := len(s.NeedsPerson()); n {
	case 0:
		b.WriteString("Nothing needs a person.\n\n")
	default:
		fmt.Fprintf(&b, "%s:\n\n", scr.paint(bad, remediation.Counted(n, "subject")+" marked ! below: a person is needed"))
	}
	head := 0
	for _, l := range s.Lines {
		head = max(head, min(width(clean(l.Subject)), 24))
	}
	for _, l := range s.Lines {
		mark := "  "
		if l.Person {
			mark = "! "
		}
		subject := cell(l.Subject, head)
		b.WriteString(hanging(mark+subject+strings.Repeat(" ", head-width(subject)+2), l.Text))
	}
	return b.String()
}
