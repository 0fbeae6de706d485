package receiver

import (
	"github.com/labstack/echo/v4"

	"github.com/locotoki/backout/remediation/view"
)

// showRolloutReport answers all that is known of a service's present or last rollout.
func (s *Server) showRolloutReport(c echo.Context, _ string) error {
	q, err := query(c, "service")
	if err != nil {
		return err
	}
	report, err := s.rollouts.RolloutReport(c.Request().Context(), q.Get("service"))
	if err != nil {
		return err
	}
	return s.answer(c, nonNilReport(report))
}

func nonNilReport(r view.RolloutReport) view.RolloutReport {
	r.Stages, r.Holds, r.Incidents, r.Signals = notNull(r.Stages), notNull(r.Holds), notNull(r.Incidents), notNull(r.Signals)
	r.Success, r.Smoke, r.Tasks, r.Timeline = notNull(r.Success), notNull(r.Smoke), notNull(r.Tasks), notNull(r.Timeline)
	for i := range r.Stages {
		r.Stages[i].Judged, r.Stages[i].Forced = notNull(r.Stages[i].Judged), notNull(r.Stages[i].Forced)
	}
	for i := range r.Incidents {
		r.Incidents[i].Triggers, r.Incidents[i].Steps = notNull(r.Incidents[i].Triggers), notNull(r.Incidents[i].Steps)
	}
	return r
}

// notNull is a list that is not null in JSON.
func notNull[T any](list []T) []T {
	if list == nil {
		return []T{}
	}
	return list
}
