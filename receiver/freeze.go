package receiver

import (
	"time"

	"github.com/labstack/echo/v4"

	"github.com/locotoki/backout/remediation"
)

// freezeList is all that is frozen.
type freezeList struct {
	Freezes []remediation.Freeze `json:"freezes"`
}

// freezeRequest is a freeze as GET shows it. Who and since when are the server's to say:
// By and Since are not looked at.
type freezeRequest struct {
	// Service is "" for every service.
	Service string `json:"service,omitempty"`
	// Scope says what it blocks: all, which is the default, or promotions.
	Scope string `json:"scope,omitempty"`
	// Until is when it ends by itself; without it, somebody must thaw it.
	Until  *time.Time `json:"until,omitempty"`
	By     string     `json:"by,omitempty"`
	Reason string     `json:"reason"`
	Since  time.Time  `json:"since,omitzero"`
}

func (s *Server) listFreezes(c echo.Context, _ string) error {
	if _, err := query(c); err != nil {
		return err
	}
	list, err := s.incidents.Freezes(c.Request().Context())
	if err != nil {
		return err
	}
	return s.answerFreezes(c, list)
}

// putFreeze blocks steps or promotions.
func (s *Server) putFreeze(c echo.Context, actor string) error {
	var body freezeRequest
	if err := decodeChange(c, &body); err != nil {
		return err
	}
	in := remediation.Freeze(body)
	reason, err := checkReason(in.Reason)
	if err != nil {
		return err
	}
	if in.Scope == "" {
		in.Scope = remediation.ScopeAll // the stronger of the two
	}
	in.By, in.Reason, in.Since = actor, reason, time.Time{}
	done, err := s.incidents.PutFreeze(c.Request().Context(), in)
	if err != nil {
		return err
	}
	return s.answer(c, done)
}

// thaw ends a service's freezes; service "" those that hold for every service.
func (s *Server) thaw(c echo.Context, actor string) error {
	q, err := query(c, "service", "reason")
	if err != nil {
		return err
	}
	reason, err := checkReason(q.Get("reason"))
	if err != nil {
		return err
	}
	list, err := s.incidents.Thaw(c.Request().Context(), q.Get("service"), actor, reason)
	if err != nil {
		return err
	}
	return s.answerFreezes(c, list)
}

func (s *Server) answerFreezes(c echo.Context, list []remediation.Freeze) error {
	if list == nil {
		list = []remediation.Freeze{}
	}
	return s.answer(c, freezeList{list})
}
