package receiver

import (
	"net/http"

	"github.com/labstack/echo/v4"

	"github.com/locotoki/backout/remediation"
)

func (s *Server) listRollouts(c echo.Context, _ string) error {
	q, err := query(c, "service")
	if err != nil {
		return err
	}
	list, err := s.service.Rollouts(c.Request().Context())
	if err != nil {
		return err
	}
	rollouts := []remediation.RolloutView{}
	for _, r := range list {
		if service := q.Get("service"); service == "" || service == r.Service {
			rollouts = append(rollouts, wholeRollout(r))
		}
	}
	return s.answer(c, struct {
		Rollouts []remediation.RolloutView `json:"rollouts"`
	}{rollouts})
}

// startRollout records a rollout that humans started.
func (s *Server) startRollout(c echo.Context, actor string) error {
	var in struct {
		Service string `json:"service"`
		Release string `json:"release"`
		Stage   string `json:"stage"`
		Declare bool   `json:"declare"`
		Reason  string `json:"reason"`
	}
	if err := decodeChange(c, &in); err != nil {
		return err
	}
	reason, err := checkReason(in.Reason)
	if err != nil {
		return err
	}
	if !in.Declare {
		return refuse(http.StatusBadRequest, `backout does not start rollouts by itself: start it, then record it here with "declare": true`)
	}
	done, err := s.service.DeclareRollout(c.Request().Context(), in.Service, in.Release, in.Stage, actor, reason)
	if err != nil {
		return err
	}
	return s.answer(c, wholeRollout(done))
}

func wholeRollout(r remediation.RolloutView) remediation.RolloutView {
	if r.Criteria == nil {
		r.Criteria = []remediation.CriterionView{}
	}
	return r
}
