package main

import (
	"context"
	"net/http"
	"net/url"
	"reflect"
	"strings"

	"github.com/alecthomas/kingpin/v2"

	"github.com/locotoki/backout/cmd/backout/flags"
	"github.com/locotoki/backout/cmd/backout/terminal"
	"github.com/locotoki/backout/remediation"
)

func (c *commands) addIncidentBrief(parent *kingpin.CmdClause) {
	clause := parent.Command("brief", "Write the brief for customer support about an open incident: plain text to copy, in the status page's words.")
	id := flags.Name(clause, "id", "The incident, such as inc-1.")
	server, output := c.serverFlags(clause), c.outputFlag(clause, reflect.TypeFor[remediation.Brief]())
	c.add(clause, func(ctx context.Context) error {
		cl, err := server.client()
		if err != nil {
			return err
		}
		var brief remediation.Brief
		if err := cl.Ask(ctx, http.MethodGet, "api/v1/incidents/"+url.PathEscape(*id)+"/brief", nil, nil, &brief); err != nil {
			return err
		}
		if *output == outputJSON {
			return c.printJSON(brief)
		}
		lines := strings.Split(strings.TrimRight(brief.Text, "\n"), "\n")
		for i := range lines {
			lines[i] = terminal.Clean(lines[i])
		}
		return c.print(strings.Join(lines, "\n") + "\n")
	})
}
