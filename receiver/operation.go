package receiver

import (
	"net/http"
	"net/url"
	"reflect"
	"slices"
	"strings"

	"github.com/labstack/echo/v4"

	"github.com/locotoki/backout/receiver/config"
	"github.com/locotoki/backout/receiver/notification"
	"github.com/locotoki/backout/receiver/statuspage"
	"github.com/locotoki/backout/remediation"
	"github.com/locotoki/backout/remediation/audit"
	"github.com/locotoki/backout/remediation/view"
)

// Operation is one address with one method: what answers it, and what the OpenAPI
// document says of it. The server has no other address.
type Operation struct {
	Method string
	// Path has its parameters in braces: /api/v1/incidents/{id}.
	Path string
	// Summary says what it does; Group is the part of backout that it belongs to.
	Summary, Group string
	// Role is the weakest role that may use it, "" where no token is needed.
	Role  config.Role
	Query []Parameter
	// Body is the type of the request's JSON, nil for none. With Form it is a form.
	Body reflect.Type
	Form bool
	// Answer is the type of the JSON of an answer of 200. Without it, Media is the
	// answer's media type, "" if it has no body.
	Answer reflect.Type
	Media  string
	// Status is that of an answer that is not an error, 200 if it is 0.
	Status int
	// Refusals are the statuses of its errors. Page: a browser gets them as a page.
	Refusals []int
	Page     bool
	// Public: only the listener of the public status page has it.
	Public bool

	serve echo.HandlerFunc
}

// Parameter is one in the query of an address.
type Parameter struct {
	Name, Meaning string
	Type          reflect.Type
	Required      bool
}

// incidentStatus is what a list of incidents is filtered by.
type incidentStatus string

const (
	statusOpen   incidentStatus = "open"
	statusClosed incidentStatus = "closed"
)

// Operations describes all addresses of the server and of the public status page.
func Operations() []Operation {
	public := []Operation{
		{Method: http.MethodGet, Path: "/status", Summary: "The public status page.", Media: "text/html"},
		{Method: http.MethodGet, Path: "/status/api/v2/summary.json", Summary: "The public status in the form of Statuspage's summary.json, with open incidents.", Answer: reflect.TypeFor[statuspage.Summary]()},
	}
	for i := range public {
		public[i].Group, public[i].Public, public[i].Refusals = "public", true, []int{http.StatusNotFound, http.StatusServiceUnavailable}
	}
	return append((*Server)(nil).operations(), public...)
}

// reading describes an address that shows state.
func (s *Server) reading(path, summary string, answer reflect.Type, h handler, query ...Parameter) Operation {
	return Operation{
		Method: http.MethodGet, Path: path, Summary: summary, Group: "api", Role: config.Viewer, Query: query, Answer: answer,
		Refusals: []int{http.StatusBadRequest, http.StatusUnauthorized, http.StatusForbidden, http.StatusInternalServerError, http.StatusServiceUnavailable}, serve: s.read(h),
	}
}

// changing describes an address that changes state.
func (s *Server) changing(method, path, summary string, body, answer reflect.Type, h handler, query ...Parameter) Operation {
	o := Operation{
		Method: method, Path: path, Summary: summary, Group: "api", Role: config.Commander, Query: query, Body: body, Answer: answer,
		Refusals: []int{
			http.StatusBadRequest, http.StatusUnauthorized, http.StatusForbidden, http.StatusNotFound, http.StatusConflict,
			http.StatusRequestEntityTooLarge, http.StatusUnsupportedMediaType, http.StatusInternalServerError, http.StatusServiceUnavailable,
		},
		serve: s.change(h),
	}
	if body == nil {
		o = o.without(http.StatusRequestEntityTooLarge)
	}
	return o
}

// showing describes a page of the console.
func (s *Server) showing(path, summary string, h handler, query ...string) Operation {
	o := s.reading(path, summary, nil, h)
	o.Group, o.Media, o.Page = "console", "text/html", true
	for _, name := range query {
		o.Query = append(o.Query, Parameter{Name: name, Type: reflect.TypeFor[string]()})
	}
	return o
}

// posting describes a form of the console.
func (s *Server) posting(path, summary string, h handler) Operation {
	o := s.changing(http.MethodPost, path, summary, nil, nil, h)
	o.Group, o.Form, o.Page, o.Status, o.serve = "console", true, true, http.StatusSeeOther, s.form(h)
	return o
}

// with and without are the operation with more or fewer refusals.
func (o Operation) with(statuses ...int) Operation {
	o.Refusals = append(o.Refusals, statuses...)
	return o
}

func (o Operation) without(status int) Operation {
	var left []int
	for _, st := range o.Refusals {
		if st != status {
			left = append(left, st)
		}
	}
	o.Refusals = left
	return o
}

// operations are the server's addresses. s may be nil: then they only describe.
func (s *Server) operations() []Operation {
	text, number := reflect.TypeFor[string](), reflect.TypeFor[int64]()
	service := Parameter{Name: "service", Meaning: "Only this service.", Type: text}
	which := Parameter{Name: "service", Meaning: "The service. Required if several playbooks are loaded.", Type: text}
	limit := Parameter{Name: "limit", Meaning: "How many, 1000 at most. Default: 100.", Type: number}
	incident, rollout := reflect.TypeFor[view.IncidentView](), reflect.TypeFor[view.RolloutView]()
	reason, preflight := reflect.TypeFor[reasonRequest](), reflect.TypeFor[remediation.PreflightView]()

	all := []Operation{
		{
			Method: http.MethodPost, Path: "/api/v1/webhook/alertmanager", Group: "api", Role: config.Alertmanager,
			Summary: "Takes a notification of Alertmanager. It answers 200 once the alerts are committed.",
			Body:    reflect.TypeFor[notification.Body](), Answer: reflect.TypeFor[remediation.Accepted](),
			Refusals: []int{http.StatusBadRequest, http.StatusUnauthorized, http.StatusForbidden, http.StatusRequestEntityTooLarge, http.StatusInternalServerError, http.StatusServiceUnavailable},
			serve:    s.webhook,
		},
		s.reading("/api/v1/openapi.json", "This document.", nil, s.showOpenAPI).without(http.StatusInternalServerError).without(http.StatusServiceUnavailable),
		s.reading("/api/v1/status", "The current state of everything, with a line for each subject.", reflect.TypeFor[view.Status](), s.showStatus),
		s.reading("/api/v1/incidents", "Incidents, oldest first.", reflect.TypeFor[incidentList](), s.listIncidents,
			Parameter{Name: "status", Meaning: "Only open or closed ones.", Type: reflect.TypeFor[incidentStatus]()}, service,
			Parameter{Name: "after", Meaning: "The incident that the list continues after: next of the page before.", Type: text}, limit).with(http.StatusNotFound),
		s.reading("/api/v1/incidents/{id}", "One incident.", incident, s.showIncident).with(http.StatusNotFound),
		s.reading("/api/v1/incidents/{id}/plot", "The values of a trigger around an incident.", reflect.TypeFor[view.Plot](), s.showPlot,
			Parameter{Name: "trigger", Meaning: "The trigger. Default: the first one with an expression.", Type: text}).with(http.StatusNotFound),
		s.reading("/api/v1/incidents/{id}/brief", "What customer support is told of an open incident.", reflect.TypeFor[remediation.Brief](), s.showBrief).
			with(http.StatusNotFound, http.StatusConflict),
		s.changing(http.MethodPost, "/api/v1/incidents/{id}/restore", "Undoes an incident's steps, the last one first. Data is never restored.",
			reflect.TypeFor[restoreRequest](), incident, s.restoreIncident),
		s.changing(http.MethodPost, "/api/v1/incidents/{id}/approve", "Approves a step, or lets it run over the limit that holds it.",
			reflect.TypeFor[approveRequest](), incident, s.approveStep),
		s.changing(http.MethodPost, "/api/v1/incidents/{id}/deny", "Denies a step, which is then skipped.", reflect.TypeFor[denyRequest](), incident, s.denyStep),
	}
	for _, v := range []struct {
		verb    view.Verb
		summary string
	}{
		{view.Claim, "Takes an incident over: no further step runs until it is released."},
		{view.Release, "Gives an incident back to backout, which continues and retries failed steps."},
		{view.Close, "Closes an incident that backout cannot close by itself. Closed again, it says that the breach is over while the public status page still shows it."},
	} {
		all = append(all, s.changing(http.MethodPost, "/api/v1/incidents/{id}/"+string(v.verb), v.summary, reason, incident, s.changeIncident(v.verb)))
	}
	all = append(all,
		s.reading("/api/v1/audit", "Entries of the audit log, oldest first.", reflect.TypeFor[entryList](), s.listEntries,
			Parameter{Name: "incident", Meaning: "Only this incident.", Type: text}, service,
			Parameter{Name: "kind", Meaning: "Only this kind.", Type: reflect.TypeFor[audit.Kind]()},
			Parameter{Name: "after", Meaning: "The number of the entry that the list continues after: next of the page before.", Type: number}, limit).with(http.StatusNotFound),
		s.reading("/api/v1/audit/head", "The number and the hash of the audit log's last entry.", reflect.TypeFor[auditHead](), s.showHead),

		s.reading("/api/v1/freeze", "The freezes.", reflect.TypeFor[freezeList](), s.listFreezes),
		s.changing(http.MethodPut, "/api/v1/freeze", "Blocks further steps and promotions immediately. A running step is finished.",
			reflect.TypeFor[freezeRequest](), reflect.TypeFor[remediation.Freeze](), s.putFreeze).without(http.StatusConflict),
		s.changing(http.MethodDelete, "/api/v1/freeze", "Ends a service's freezes, or the global one.", nil, reflect.TypeFor[freezeList](), s.thaw,
			Parameter{Name: "service", Meaning: "The service. Default: the global freeze.", Type: text},
			Parameter{Name: "reason", Meaning: "Why, for the audit log.", Type: text, Required: true}).without(http.StatusConflict),

		s.changing(http.MethodPost, "/api/v1/signals/{name}", "Raises a signal: its alert fires and its plan runs.", reason, reflect.TypeFor[raisedSignal](), s.raiseSignal, which),
		s.changing(http.MethodDelete, "/api/v1/signals/{name}", "Clears a signal.", reason, reflect.TypeFor[raisedSignal](), s.clearSignal, which),

		s.reading("/api/v1/rollout", "The rollout of each service.", reflect.TypeFor[rolloutList](), s.listRollouts, service).with(http.StatusNotFound),
		s.reading("/api/v1/rollout/report", "All that is known of a service's present or last rollout.", reflect.TypeFor[view.RolloutReport](), s.showRolloutReport, which).
			with(http.StatusNotFound),
		s.changing(http.MethodPost, "/api/v1/rollout/start", "Starts a rollout, or records one that people have started.", reflect.TypeFor[startRequest](), rollout, s.startRollout),
	)
	for _, v := range rolloutVerbs {
		all = append(all, s.changing(http.MethodPost, "/api/v1/rollout/"+string(v.verb), v.summary, reflect.TypeFor[rolloutRequest](), rollout, s.changeRollout(v.verb)))
	}
	all = append(all,
		s.reading("/api/v1/preflight", "A service's last preflight, or the one that is running.", preflight, s.showPreflight, which).with(http.StatusNotFound),
		s.changing(http.MethodPost, "/api/v1/preflight", "Starts a preflight.", reflect.TypeFor[preflightRequest](), preflight, s.startPreflight),
		s.changing(http.MethodPost, "/api/v1/preflight/sign", "Signs off one item for this release.", reflect.TypeFor[signRequest](), preflight, s.signPreflight),
		s.reading("/api/v1/rehearse", "The last rehearsal of each plan, or the one that is running.", reflect.TypeFor[remediation.RehearsalView](), s.showRehearsal, which).with(http.StatusNotFound),
		s.changing(http.MethodPost, "/api/v1/rehearse", "Starts a rehearsal.", reflect.TypeFor[rehearseRequest](), reflect.TypeFor[remediation.RehearsalView](), s.startRehearsal),
		Operation{
			Method: http.MethodPost, Path: "/slack/interactions", Group: "slack", Form: true, Media: "application/json",
			Summary: "Takes what people press in Slack. Slack's signature takes the place of a token. Without slack.signing_secret_file it answers 404.",
			Refusals: []int{
				http.StatusBadRequest, http.StatusUnauthorized, http.StatusNotFound,
				http.StatusRequestEntityTooLarge, http.StatusUnsupportedMediaType, http.StatusServiceUnavailable,
			},
			serve: s.interact,
		},
		Operation{Method: http.MethodGet, Path: "/metrics", Group: "operation", Summary: "Metrics for Prometheus.", Media: "text/plain", serve: s.metrics},
		Operation{Method: http.MethodGet, Path: "/-/healthy", Group: "operation", Summary: "Reports that the process answers.", Media: "text/plain", serve: s.healthy},
		Operation{
			Method: http.MethodGet, Path: "/-/ready", Group: "operation", Summary: "Reports whether notifications can be committed.", Media: "text/plain",
			Refusals: []int{http.StatusServiceUnavailable}, serve: s.ready,
		},
		Operation{
			Method: http.MethodPost, Path: "/-/reload", Group: "operation", Role: config.Commander, Summary: "Reads the configuration and the playbooks again.",
			Answer:   reflect.TypeFor[reloaded](),
			Refusals: []int{http.StatusUnauthorized, http.StatusForbidden, http.StatusUnsupportedMediaType, http.StatusInternalServerError}, serve: s.change(s.reloadAll),
		},
	)
	return append(all, s.consoleOperations()...)
}

// consoleOperations are the pages, what they load, and the forms on them.
func (s *Server) consoleOperations() []Operation {
	export := s.showing("/audit/export", "The audit log as lines of JSON.", s.exportAudit, "service", "kind", "incident")
	export.Media = "application/x-ndjson"
	events := s.showing("/events", "Tells an open page that what it shows has changed.", s.events)
	events.Media = "text/event-stream"
	return []Operation{
		s.showing("/", "What is going on now.", s.nowPage, "done"),
		s.showing("/incidents", "The list of incidents.", s.incidentsPage, "state", "service", "text", "before").with(http.StatusNotFound),
		s.showing("/incidents/{id}", "One incident.", s.incidentPage, "done", "trigger").with(http.StatusNotFound),
		s.showing("/audit", "The audit log, newest first.", s.auditPage, "service", "kind", "incident", "from", "to", "text", "before"),
		export,
		s.showing("/rollout", "Each service's rollout.", s.rolloutPage, "done"),
		s.showing("/playbook", "A service's playbook and its rules.", s.playbookPage, "service").with(http.StatusNotFound),
		events,
		{Method: http.MethodGet, Path: "/static/{file}", Group: "console", Summary: "A file that a page loads.", Media: "*/*", Refusals: []int{http.StatusNotFound}, serve: s.static},
		s.posting("/incidents/{id}/{verb}", "The forms of an incident's page.", s.postIncident),
		s.posting("/rollout/{verb}", "The forms of a rollout.", s.postRollout),
		s.posting("/preflight/{verb}", "The forms of a preflight.", s.postPreflight),
		s.posting("/signals/{verb}", "Raises or clears a signal.", s.postSignal),
		s.posting("/playbook/backtest", "Replays the last days of a service.", s.postBacktest),
		s.posting("/freeze", "Freezes.", s.postFreeze).without(http.StatusConflict),
		s.posting("/thaw", "Ends a freeze.", s.postThaw).without(http.StatusConflict),
	}
}

// unescaped decodes the parameters of the path, which echo takes from the path as it was
// sent where anything in it is encoded without need.
func unescaped(next echo.HandlerFunc) echo.HandlerFunc {
	return func(c echo.Context) error {
		if c.Request().URL.RawPath != "" {
			values := slices.Clone(c.ParamValues())
			for i := range values {
				decoded, err := url.PathUnescape(values[i])
				if err != nil {
					return echo.ErrNotFound
				}
				values[i] = decoded
			}
			c.SetParamValues(values...)
		}
		return next(c)
	}
}

// routes makes the server answer its operations.
func (s *Server) routes() {
	for _, o := range s.operations() {
		s.echo.Add(o.Method, strings.NewReplacer("{", ":", "}", "").Replace(o.Path), unescaped(o.serve))
	}
}
