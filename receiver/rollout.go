package receiver

import (
	"context"
	"net/http"
	"time"

	"github.com/labstack/echo/v4"

	"github.com/locotoki/backout/remediation"
	"github.com/locotoki/backout/remediation/view"
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
	rollouts := []view.RolloutView{}
	for _, r := range list {
		if service := q.Get("service"); service == "" || service == r.Service {
			rollouts = append(rollouts, nonNilRollout(r))
		}
	}
	return s.answer(c, struct {
		Rollouts []view.RolloutView `json:"rollouts"`
	}{rollouts})
}

// promotionWait is how long the answer to a change of the traffic waits for it;
// one that takes longer answers with the promotion under way.
const promotionWait = 15 * time.Second

// startRollout starts a rollout, or records one that people started.
func (s *Server) startRollout(c echo.Context, actor string) error {
	var in struct {
		Service string `json:"service"`
		Release string `json:"release"`
		Stage   string `json:"stage"`
		Declare bool   `json:"declare"`
		Auto    bool   `json:"auto"`
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
		started, err := s.service.StartRollout(c.Request().Context(), remediation.RolloutStart{
			Service: in.Service, Release: in.Release, Stage: in.Stage, Actor: actor, Reason: reason, Auto: in.Auto,
		})
		return s.answerRollout(c, started, err)
	}
	if in.Auto {
		return refuse(http.StatusBadRequest, "auto needs a rollout that backout starts; a declared rollout is promoted by hand")
	}
	done, err := s.service.DeclareRollout(c.Request().Context(), in.Service, in.Release, in.Stage, actor, reason)
	if err != nil {
		return err
	}
	return s.answer(c, nonNilRollout(done))
}

// changeRollout changes a rollout that has begun.
func (s *Server) changeRollout(verb remediation.RolloutVerb) func(echo.Context, string) error {
	return func(c echo.Context, actor string) error {
		var in struct {
			Service string `json:"service"`
			Force   bool   `json:"force"`
			Reason  string `json:"reason"`
		}
		if err := decodeChange(c, &in); err != nil {
			return err
		}
		reason, err := checkReason(in.Reason)
		if err != nil {
			return err
		}
		if in.Force && verb != remediation.RolloutPromote && verb != remediation.RolloutFinish {
			return refuse(http.StatusBadRequest, "%s cannot be forced", verb)
		}
		done, err := s.service.ChangeRollout(c.Request().Context(), remediation.RolloutChange{
			Service: in.Service, Verb: verb, Actor: actor, Reason: reason, Force: in.Force,
		})
		if verb != remediation.RolloutPromote { // an order is not kept waiting for what is in progress
			if err != nil {
				return err
			}
			return s.answer(c, nonNilRollout(done))
		}
		return s.answerRollout(c, done, err)
	}
}

// answerRollout answers a rollout as it is once its traffic is set.
func (s *Server) answerRollout(c echo.Context, r view.RolloutView, err error) error {
	if err == nil && r.Promotion != nil {
		ctx, cancel := context.WithTimeout(c.Request().Context(), promotionWait)
		defer cancel()
		r, err = s.service.WaitForPromotion(ctx, r.Service)
	}
	if err != nil {
		return err
	}
	return s.answer(c, nonNilRollout(r))
}

// rolloutVerbs are the changes of a rollout that has begun, and what a page says of
// each once it is made.
var rolloutVerbs = map[remediation.RolloutVerb]string{
	remediation.RolloutPromote: "started to promote",
	remediation.RolloutHold:    "held",
	remediation.RolloutResume:  "resumed",
	remediation.RolloutFinish:  "finished",
	remediation.RolloutAbort:   "started to abort",
}

// postRollout is changeRollout for the console's forms.
func (s *Server) postRollout(c echo.Context, actor string) error {
	form, err := fields(c, "service", "release", "reason", "force")
	if err != nil {
		return err
	}
	reason, err := checkReason(form.Get("reason"))
	if err != nil {
		return err
	}
	if c.Param("verb") == "start" {
		if form.Get("service") == "" {
			return refuse(http.StatusBadRequest, "the form names no service")
		}
		if form.Get("release") == "" { // the playbook's may be another than the button named
			return refuse(http.StatusBadRequest, "the form names no release")
		}
		started, err := s.service.StartRollout(c.Request().Context(), remediation.RolloutStart{Service: form.Get("service"), Release: form.Get("release"), Actor: actor, Reason: reason})
		if err != nil {
			return err
		}
		return s.finish(c, actor, "started the rollout of "+started.Release+" on "+started.Service, reason, "/rollout")
	}
	verb := remediation.RolloutVerb(c.Param("verb"))
	what, known := rolloutVerbs[verb]
	switch {
	case !known:
		return echo.ErrNotFound
	case form.Get("service") == "":
		return refuse(http.StatusBadRequest, "the form names no service")
	}
	done, err := s.service.ChangeRollout(c.Request().Context(), remediation.RolloutChange{
		Service: form.Get("service"), Verb: verb, Actor: actor, Reason: reason, Force: form.Get("force") == "yes",
	})
	if err != nil {
		return err
	}
	to := "/rollout"
	if verb == remediation.RolloutAbort && done.Incident != "" {
		to = "/incidents/" + done.Incident
	}
	return s.finish(c, actor, what+" the rollout of "+form.Get("service"), reason, to)
}

func nonNilRollout(r view.RolloutView) view.RolloutView {
	if r.Criteria == nil {
		r.Criteria = []view.CriterionView{}
	}
	return r
}
