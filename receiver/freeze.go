package receiver

import (
	"time"

	"github.com/labstack/echo/v4"

	"github.com/locotoki/backout/remediation"
)

func (s *Server) listFreezes(c echo.Context, _ string) error {
	if _, err := query(c); err != nil {
		return err
	}
	list, err := s.service.Freezes(c.Request().Context())
	if err != nil {
		return err
	}
	return s.answerFreezes(c, list)
}

// putFreeze takes a freeze as GET shows it. Who and since when are the
// server's to say: what the body says of them is not looked at.
func (s *Server) putFreeze(c echo.Context, actor string) error {
	var in remediation.Freeze
	if err := decodeChange(c, &in); err != nil {
		return err
	}
	reason, err := checkReason(in.Reason)
	if err != nil {
		return err
	}
	if in.Scope == "" {
		in.Scope = remediation.ScopeAll // the stronger of the two
	}
	in.By, in.Reason, in.Since = actor, reason, time.Time{}
	done, err := s.service.PutFreeze(c.Request().Context(), in)
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
	list, err := s.service.Thaw(c.Request().Context(), q.Get("service"), actor, reason)
	if err != nil {
		return err
	}
	return s.answerFreezes(c, list)
}

func (s *Server) answerFreezes(c echo.Context, list []remediation.Freeze) error {
	if list == nil {
		list = []remediation.Freeze{}
	}
	return s.answer(c, struct {
		Freezes []remediation.Freeze `json:"freezes"`
	}{list})
}
