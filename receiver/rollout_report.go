package receiver

import (
	"github.com/labstack/echo/v4"
)

// showRolloutReport answers all that is known of a service's present or last rollout.
func (s *Server) showRolloutReport(c echo.Context, _ string) error {
	q, err := query(c, "service")
	if err != nil {
		return err
	}
	report, err := s.service.RolloutReport(c.Request().Context(), q.Get("service"))
	if err != nil {
		return err
	}
	return s.answer(c, report)
}
