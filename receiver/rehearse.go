package receiver

import (
	"strings"

	"github.com/labstack/echo/v4"

	"github.com/locotoki/backout/remediation"
)

func (s *Server) showRehearsal(c echo.Context, _ string) error {
	q, err := query(c, "service")
	if err != nil {
		return err
	}
	v, err := s.preflights.Rehearsal(c.Request().Context(), q.Get("service"))
	if err != nil {
		return err
	}
	return s.answer(c, nonNilRehearsal(v))
}

// rehearseRequest starts a rehearsal. Its service may be left out where there is one
// playbook.
type rehearseRequest struct {
	Service string `json:"service,omitempty"`
	// Plan is every plan that a trigger uses, if it is left out.
	Plan   string `json:"plan,omitempty"`
	Reason string `json:"reason,omitempty"`
}

// startRehearsal begins one; how it goes is read by GET.
func (s *Server) startRehearsal(c echo.Context, actor string) error {
	var in rehearseRequest
	if err := decodeChange(c, &in); err != nil {
		return err
	}
	reason := ""
	if strings.TrimSpace(in.Reason) != "" {
		var err error
		if reason, err = checkReason(in.Reason); err != nil {
			return err
		}
	}
	v, err := s.preflights.StartRehearsal(c.Request().Context(), in.Service, in.Plan, actor, reason)
	if err != nil {
		return err
	}
	return s.answer(c, nonNilRehearsal(v))
}

func nonNilRehearsal(v remediation.RehearsalView) remediation.RehearsalView {
	if v.Plans == nil {
		v.Plans = []string{}
	}
	if v.Rehearsals == nil {
		v.Rehearsals = []remediation.Rehearsal{}
	}
	return v
}
