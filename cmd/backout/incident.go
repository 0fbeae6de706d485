package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"reflect"
	"slices"
	"time"

	"github.com/alecthomas/kingpin/v2"

	"github.com/locotoki/backout/cmd/backout/flags"
	"github.com/locotoki/backout/cmd/backout/terminal"
	"github.com/locotoki/backout/remediation"
	"github.com/locotoki/backout/remediation/view"
)

func (c *commands) addIncident() {
	incident := c.app.Command("incident", "Show and control incidents.")
	c.addIncidentList(incident)
	c.addIncidentShow(incident)
	c.addIncidentReport(incident)
	c.addIncidentBrief(incident)
	c.addIncidentVerb(incident, view.Claim, "Take an incident over. No further step runs until you release it.")
	c.addIncidentVerb(incident, view.Release, "Give an incident back to backout, which continues with the next step and retries failed ones.")
	c.addIncidentVerb(incident, view.Close, "Close an incident that backout cannot close by itself. Closed while its breach lasts, it stays on the public status page until that is over: "+
		"if backout cannot check that, close it again once it is over.")
	c.addIncidentRestore(incident)
}

// incidentPage is the answer of incident list, as of the API.
type incidentPage struct {
	Incidents []view.IncidentView `json:"incidents"`
}

func (c *commands) addIncidentList(parent *kingpin.CmdClause) {
	clause := parent.Command("list", "List incidents, oldest first.")
	status := flags.Choice(clause, "status", "open, closed or all.", "all", "open", "closed", "all")
	service := clause.Flag("service", "Only this service.").String()
	limit := flags.Whole(clause, "limit", "Number of incidents, newest ones.", 100, 1, 1_000_000)
	from, output := c.sourceFlags(clause), c.outputFlag(clause, reflect.TypeFor[incidentPage]())
	c.add(clause, func(ctx context.Context) error {
		return from.with(ctx, func(src source) error {
			list, err := src.Incidents(ctx, remediation.IncidentFilter{
				Service: *service, Open: *status == "open", Closed: *status == "closed", Limit: int(*limit), Newest: true,
			})
			if err != nil {
				return err
			}
			if *output == outputJSON {
				return c.printJSON(incidentPage{list})
			}
			return c.print(terminal.Incidents(list, c.screen()))
		})
	})
}

func (c *commands) addIncidentShow(parent *kingpin.CmdClause) {
	clause := parent.Command("show", "Show one incident: what happened, what was done, what is next, and how to stop it.")
	id := flags.Name(clause, "id", "The incident, such as inc-1.")
	follow := clause.Flag("follow", "Show it again on every change, until it closes.").Bool()
	from, output := c.sourceFlags(clause), c.outputFlag(clause, reflect.TypeFor[view.IncidentView]())
	c.add(clause, func(ctx context.Context) error {
		return from.with(ctx, func(src source) error {
			if *follow {
				return c.followIncident(ctx, src, *id, *output)
			}
			inc, err := src.Incident(ctx, *id)
			if err != nil {
				return err
			}
			return c.showIncident(inc, *output)
		})
	})
}

func (c *commands) showIncident(inc view.IncidentView, output string) error {
	if output == outputJSON {
		return c.printJSON(inc)
	}
	return c.print(terminal.Incident(inc, c.now(), c.screen()))
}

// errOver ends --follow.
var errOver = errors.New("over")

// unread is an incident without the times at which its values and its target were read, which change with each poll.
func unread(inc view.IncidentView) view.IncidentView {
	if inc.Runs != nil {
		runs := *inc.Runs
		runs.Seen = time.Time{}
		inc.Runs = &runs
	}
	inc.Triggers = slices.Clone(inc.Triggers)
	for i := range inc.Triggers {
		inc.Triggers[i].Observed = nil
	}
	return inc
}

// followIncident shows an incident whenever it changes. An unreachable server does
// not end it: that is when people need it most.
func (c *commands) followIncident(ctx context.Context, src source, id, output string) error {
	var last []byte
	look := func() error {
		inc, err := src.Incident(ctx, id)
		if err != nil {
			return err
		}
		now, err := json.Marshal(unread(inc))
		if err != nil {
			return fmt.Errorf("compare incident: %w", err)
		}
		if !bytes.Equal(now, last) {
			if err := c.showChange(inc, output, last != nil); err != nil {
				return err
			}
		}
		last = now
		if inc.State == remediation.Closed {
			return errOver
		}
		return nil
	}
	err := look()
	if err == nil {
		err = c.again(ctx, look)
	}
	if errors.Is(err, errOver) {
		return nil
	}
	return err
}

// showChange prints an incident as one of several; again: not the first.
func (c *commands) showChange(inc view.IncidentView, output string, again bool) error {
	if output == outputJSON {
		return c.printJSONLine(inc)
	}
	if again {
		if err := c.print("\n---- " + remediation.Moment(c.now()) + "\n\n"); err != nil {
			return err
		}
	}
	return c.print(terminal.Incident(inc, c.now(), c.screen()))
}

// addIncidentVerb adds a command that changes an incident.
func (c *commands) addIncidentVerb(parent *kingpin.CmdClause, verb view.Verb, help string) {
	clause := parent.Command(string(verb), help)
	id := flags.Name(clause, "id", "The incident, such as inc-1.")
	reason := flags.Reason(clause)
	server, output := c.serverFlags(clause), c.outputFlag(clause, reflect.TypeFor[view.IncidentView]())
	c.add(clause, func(ctx context.Context) error {
		return c.changeIncident(ctx, server, verb, *id, map[string]any{"reason": *reason}, *output)
	})
}

func (c *commands) addIncidentRestore(parent *kingpin.CmdClause) {
	clause := parent.Command("restore", "Undo an incident's steps, the last one first (never data). The rollout is then active again, and held.")
	id := flags.Name(clause, "id", "The incident, such as inc-1; it must be recovered or closed.")
	reason := flags.Reason(clause)
	force := clause.Flag("force", "Restore even if the breach continues or data was lost.").Bool()
	server, output := c.serverFlags(clause), c.outputFlag(clause, reflect.TypeFor[view.IncidentView]())
	c.add(clause, func(ctx context.Context) error {
		return c.changeIncident(ctx, server, "restore", *id, map[string]any{"reason": *reason, "force": *force}, *output)
	})
}

func (c *commands) addApprove() {
	c.addDecision(view.Approve, "Approve a step, or let it run over the limit that holds it.")
	c.addDecision(view.Deny, "Deny a step. It is skipped.")
}

func (c *commands) addDecision(verb view.Verb, help string) {
	clause := c.app.Command(string(verb), help)
	id := flags.Name(clause, "incident", "The incident, such as inc-1.")
	step := flags.Name(clause, "step", "The step, such as 3-schema_rollback.")
	reason := flags.RequiredReason(clause)
	over := ""
	if verb == view.Approve {
		clause.Flag("over", "Let the step run over this limit, which holds it now: backout incident show names it. A step that can lose data still asks for its own approval.").
			PlaceHolder("LIMIT").StringVar(&over)
	}
	server, output := c.serverFlags(clause), c.outputFlag(clause, reflect.TypeFor[view.IncidentView]())
	c.add(clause, func(ctx context.Context) error {
		body := map[string]any{"step": *step, "reason": *reason}
		if over != "" {
			body["over"] = over
		}
		return c.changeIncident(ctx, server, verb, *id, body, *output)
	})
}

func (c *commands) changeIncident(ctx context.Context, server serverFlags, verb view.Verb, id string, body map[string]any, output string) error {
	cl, err := server.client()
	if err != nil {
		return err
	}
	var inc view.IncidentView
	path := "api/v1/incidents/" + url.PathEscape(id) + "/" + string(verb)
	if err := cl.Ask(ctx, http.MethodPost, path, nil, body, &inc); err != nil {
		return err
	}
	if verb == view.Approve && output != outputJSON {
		step, _ := body["step"].(string)
		over, _ := body["over"].(string)
		return c.print(terminal.Approved(inc, step, over))
	}
	return c.showIncident(inc, output)
}
