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
	report, err := s.service.RolloutReport(c.Request().Context(), q.Get("service"))
	if err != nil {
		return err
	}
	return s.answer(c, nonNilReport(report))
}

func nonNilReport(r view.RolloutReport) view.RolloutReport {
	r.Stages, r.Holds, r.Incidents, r.Signals = listed(r.Stages), listed(r.Holds), listed(r.Incidents), listed(r.Signals)
	r.Success, r.Smoke, r.Tasks, r.Timeline = listed(r.Success), listed(r.Smoke), listed(r.Tasks), listed(r.Timeline)
	for i := range r.Stages {
		r.Stages[i].Judged, r.Stages[i].Forced = listed(r.Stages[i].Judged), listed(r.Stages[i].Forced)
	}
	for i := range r.Incidents {
		r.Incidents[i].Triggers, r.Incidents[i].Steps = listed(r.Incidents[i].Triggers), listed(r.Incidents[i].Steps)
	}
	return r
}

// listed is a list that is not null in JSON.
func listed[T any](list []T) []T {
	if list == nil {
		return []T{}
	}
	return list
}
