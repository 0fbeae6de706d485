package receiver

import (
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
	o, err := s.service.Overview(c.Request().Context())
	if err != nil {
		return err
	}
	return s.answer(c, view.NewStatus(o))
}

// listIncidents answers {"incidents":[...]}, oldest first. Where there are more
// than the limit, "next" is the id to pass as after.
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
	switch status := q.Get("status"); status {
	case "":
	case "open":
		f.Open = true
	case "closed":
		f.Closed = true
	default:
		return refuse(http.StatusBadRequest, "status %q is neither open nor closed", status)
	}
	list, err := s.service.Incidents(c.Request().Context(), f)
	if err != nil {
		return err
	}
	answer := struct {
		Incidents []view.IncidentView `json:"incidents"`
		Next      string              `json:"next,omitempty"`
	}{Incidents: []view.IncidentView{}}
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
	inc, err := s.service.Incident(c.Request().Context(), c.Param("id"))
	if err != nil {
		return err
	}
	return s.answer(c, view.NonNil(inc))
}

// decideStep answers approve and deny.
func (s *Server) decideStep(verb view.Verb) handler {
	return func(c echo.Context, actor string) error {
		var in struct {
			Step   string `json:"step"`
			Reason string `json:"reason"`
		}
		if err := decodeChange(c, &in); err != nil {
			return err
		}
		if in.Step == "" {
			return refuse(http.StatusBadRequest, `step is required, such as "1-flag_off"`)
		}
		return s.apply(c, verb, in.Step, actor, in.Reason)
	}
}

// changeIncident answers the changes that concern an incident as a whole.
func (s *Server) changeIncident(verb view.Verb) handler {
	return func(c echo.Context, actor string) error {
		var in struct {
			Reason string `json:"reason"`
		}
		if err := decodeChange(c, &in); err != nil {
			return err
		}
		return s.apply(c, verb, "", actor, in.Reason)
	}
}

// restoreIncident begins to put back what an incident's steps changed.
func (s *Server) restoreIncident(c echo.Context, actor string) error {
	var in struct {
		Reason string `json:"reason"`
		Force  bool   `json:"force"`
	}
	if err := decodeChange(c, &in); err != nil {
		return err
	}
	reason, err := checkReason(in.Reason)
	if err != nil {
		return err
	}
	inc, err := s.service.Restore(c.Request().Context(), c.Param("id"), view.RestoreRequest{Actor: actor, Reason: reason, Force: in.Force})
	if err != nil {
		return err
	}
	return s.answer(c, view.NonNil(inc))
}

func (s *Server) apply(c echo.Context, verb view.Verb, step, actor, reason string) error {
	reason, err := checkReason(reason)
	if err != nil {
		return err
	}
	inc, err := s.service.ChangeIncident(c.Request().Context(), c.Param("id"), verb, step, actor, reason)
	if err != nil {
		return err
	}
	return s.answer(c, view.NonNil(inc))
}
