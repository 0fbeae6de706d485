package receiver

import (
	"context"
	"errors"

	"github.com/labstack/echo/v4"

	"github.com/locotoki/backout/remediation"
	"github.com/locotoki/backout/remediation/view"
)

// showBrief answers what customer support is told of an open incident.
func (s *Server) showBrief(c echo.Context, _ string) error {
	if _, err := query(c); err != nil {
		return err
	}
	b, err := s.incidents.Brief(c.Request().Context(), c.Param("id"))
	if err != nil {
		return err
	}
	return s.answer(c, b)
}

// briefOf is the brief that an incident's page shows, "" where it has none.
func (s *Server) briefOf(ctx context.Context, v view.IncidentView) string {
	if v.Drill || v.State == remediation.Closed {
		return ""
	}
	b, err := s.incidents.Brief(ctx, v.ID)
	var refused *remediation.RefusedError
	switch {
	case errors.As(err, &refused): // it was closed meanwhile
		return ""
	case err != nil:
		s.logger.Warn("cannot write the support brief", "incident", v.ID, "err", err)
		return ""
	}
	return b.Text
}
