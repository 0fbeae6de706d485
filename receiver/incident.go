package receiver

import (
	"context"
	"net/http"

	"github.com/labstack/echo/v4"

	"github.com/locotoki/backout/remediation"
	"github.com/locotoki/backout/remediation/view"
)

// showStatus answers everything that matters now, with a line for each subject.
func (s *Server) showStatus(c echo.Context, _ string) error {
	if _, err := query(c); err != nil {
		return err
	}
	o, err := s.incidents.Overview(c.Request().Context())
	o.Replicas, o.Unheld = notNull(o.Replicas), notNull(o.Unheld)
	if err != nil {
		return err
	}
	return s.answer(c, view.NewStatus(o))
}

// incidentList is a page of incidents.
type incidentList struct {
	Incidents []view.IncidentView `json:"incidents"`
	// Next is the id to pass as after, where there are more than the limit.
	Next string `json:"next,omitempty"`
}

// listIncidents answers incidents, oldest first.
func (s *Server) listIncidents(c echo.Context, _ string) error {
	q, err := query(c, "status", "service", "after", "limit")
	if err != nil {
		return err
	}
	n, err := limit(q)
	if err != nil {
		return err
	}
	f := remediation.IncidentFilter{Service: q.Get("service"), After: q.Get("after"), Limit: n + 1}
	switch status := incidentStatus(q.Get("status")); status {
	case "":
	case statusOpen:
		f.Open = true
	case statusClosed:
		f.Closed = true
	default:
		return refuse(http.StatusBadRequest, "status %q is neither open nor closed", status)
	}
	list, err := s.incidents.Incidents(c.Request().Context(), f)
	if err != nil {
		return err
	}
	answer := incidentList{Incidents: []view.IncidentView{}}
	if len(list) > n {
		list = list[:n]
		answer.Next = list[n-1].ID
	}
	for _, inc := range list {
		answer.Incidents = append(answer.Incidents, view.NonNil(inc))
	}
	return s.answer(c, answer)
}

func (s *Server) showIncident(c echo.Context, _ string) error {
	if _, err := query(c); err != nil {
		return err
	}
	inc, err := s.incidents.Incident(c.Request().Context(), c.Param("id"))
	if err != nil {
		return err
	}
	return s.answer(c, view.NonNil(inc))
}

// denyRequest denies a step.
type denyRequest struct {
	// Step is its id, such as 3-schema_rollback.
	Step   string `json:"step"`
	Reason string `json:"reason"`
}

// approveRequest approves a step.
type approveRequest struct {
	// Step is its id, such as 3-schema_rollback.
	Step   string `json:"step"`
	Reason string `json:"reason"`
	// Over lets the step run over the limit that holds it: over_gate of the incident. It
	// answers nothing else: a step that can lose data still asks for its own approval.
	Over string `json:"over,omitempty"`
	// Question is the request that is answered, as the incident's step has it: an approval of
	// one that was made again since is refused. Without it, whatever is asked now is approved.
	Question string `json:"question,omitempty"`
}

// reasonRequest is a change that needs nothing but a reason.
type reasonRequest struct {
	// Reason is why, for the audit log.
	Reason string `json:"reason"`
}

// restoreRequest undoes an incident's steps.
type restoreRequest struct {
	Reason string `json:"reason"`
	// Force restores even if the breach continues or data was lost.
	Force bool `json:"force,omitempty"`
}

func (s *Server) approveStep(c echo.Context, actor string) error {
	var in approveRequest
	if err := decodeChange(c, &in); err != nil {
		return err
	}
	return s.decideStep(c, decision{view.Approve, in.Step, in.Over, in.Question}, actor, in.Reason)
}

func (s *Server) denyStep(c echo.Context, actor string) error {
	var in denyRequest
	if err := decodeChange(c, &in); err != nil {
		return err
	}
	return s.decideStep(c, decision{verb: view.Deny, step: in.Step}, actor, in.Reason)
}

func (s *Server) decideStep(c echo.Context, d decision, actor, reason string) error {
	if d.step == "" {
		return refuse(http.StatusBadRequest, `step is required, such as "1-flag_off"`)
	}
	return s.apply(c, d, actor, reason)
}

// changeIncident answers the changes that concern an incident as a whole.
func (s *Server) changeIncident(verb view.Verb) handler {
	return func(c echo.Context, actor string) error {
		var in reasonRequest
		if err := decodeChange(c, &in); err != nil {
			return err
		}
		return s.apply(c, decision{verb: verb}, actor, in.Reason)
	}
}

// restoreIncident begins to put back what an incident's steps changed.
func (s *Server) restoreIncident(c echo.Context, actor string) error {
	var in restoreRequest
	if err := decodeChange(c, &in); err != nil {
		return err
	}
	reason, err := checkReason(in.Reason)
	if err != nil {
		return err
	}
	inc, err := s.incidents.Restore(c.Request().Context(), c.Param("id"), view.RestoreRequest{Actor: actor, Reason: reason, Force: in.Force})
	if err != nil {
		return err
	}
	return s.answer(c, view.NonNil(inc))
}

func (s *Server) apply(c echo.Context, d decision, actor, reason string) error {
	reason, err := checkReason(reason)
	if err != nil {
		return err
	}
	inc, err := s.decide(c.Request().Context(), c.Param("id"), d, actor, reason)
	if err != nil {
		return err
	}
	return s.answer(c, view.NonNil(inc))
}

// decision is a person's change of an incident: an approval may be over a limit, or of one
// request only.
type decision struct {
	verb                 view.Verb
	step, over, question string
}

func (s *Server) decide(ctx context.Context, id string, d decision, actor, reason string) (view.IncidentView, error) {
	switch {
	case d.over != "":
		return s.incidents.ApproveOver(ctx, id, d.step, d.over, actor, reason)
	case d.question != "":
		return s.incidents.ApproveQuestion(ctx, id, d.step, d.question, actor, reason)
	}
	return s.incidents.ChangeIncident(ctx, id, d.verb, d.step, actor, reason)
}
