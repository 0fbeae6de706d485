package receiver

import (
	"context"
	"net/http"
	"slices"
	"time"

	"github.com/labstack/echo/v4"

	"github.com/locotoki/backout/remediation"
	"github.com/locotoki/backout/remediation/view"
)

// rolloutList is what every service rolls out, or rolled out last.
type rolloutList struct {
	Rollouts []view.RolloutView `json:"rollouts"`
}

func (s *Server) listRollouts(c echo.Context, _ string) error {
	q, err := query(c, "service")
	if err != nil {
		return err
	}
	list, err := s.rollouts.Rollouts(c.Request().Context())
	if err != nil {
		return err
	}
	service, known, rollouts := q.Get("service"), []string{}, []view.RolloutView{}
	for _, r := range list {
		known = append(known, r.Service)
		if service == "" || service == r.Service {
			rollouts = append(rollouts, nonNilRollout(r))
		}
	}
	if service != "" && len(rollouts) == 0 {
		return view.UnknownService(service, known)
	}
	return s.answer(c, rolloutList{rollouts})
}

// promotionWait is how long the answer to a change of the traffic waits for it;
// one that takes longer answers with the promotion under way.
const promotionWait = 15 * time.Second

// startRequest starts a rollout. Its service may be left out where there is one playbook.
type startRequest struct {
	Service string `json:"service,omitempty"`
	// Release is the playbook's if it is left out, Stage the first one.
	Release string `json:"release,omitempty"`
	Stage   string `json:"stage,omitempty"`
	// Declare records a rollout that people have started and that is in Stage.
	Declare bool `json:"declare,omitempty"`
	// Auto promotes to each next stage as soon as nothing is missing.
	Auto   bool   `json:"auto,omitempty"`
	Reason string `json:"reason"`
}

// rolloutRequest changes a rollout that has begun. Its service may be left out where
// there is one playbook.
type rolloutRequest struct {
	Service string `json:"service,omitempty"`
	// Force promotes or finishes even if something is missing; nothing else has it.
	Force  bool   `json:"force,omitempty"`
	Reason string `json:"reason"`
}

// startRollout starts a rollout, or records one that people started.
func (s *Server) startRollout(c echo.Context, actor string) error {
	var in startRequest
	if err := decodeChange(c, &in); err != nil {
		return err
	}
	reason, err := checkReason(in.Reason)
	if err != nil {
		return err
	}
	if !in.Declare {
		started, err := s.rollouts.StartRollout(c.Request().Context(), remediation.RolloutStart{
			Service: in.Service, Release: in.Release, Stage: in.Stage, Actor: actor, Reason: reason, Auto: in.Auto,
		})
		return s.answerRollout(c, started, err)
	}
	if in.Auto {
		return refuse(http.StatusBadRequest, "auto needs a rollout that backout starts; a declared rollout is promoted by hand")
	}
	done, err := s.rollouts.DeclareRollout(c.Request().Context(), in.Service, in.Release, in.Stage, actor, reason)
	if err != nil {
		return err
	}
	return s.answer(c, nonNilRollout(done))
}

// changeRollout changes a rollout that has begun.
func (s *Server) changeRollout(verb remediation.RolloutVerb) func(echo.Context, string) error {
	return func(c echo.Context, actor string) error {
		var in rolloutRequest
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
		done, err := s.rollouts.ChangeRollout(c.Request().Context(), remediation.RolloutChange{
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
		r, err = s.rollouts.WaitForPromotion(ctx, r.Service)
	}
	if err != nil {
		return err
	}
	return s.answer(c, nonNilRollout(r))
}

// rolloutVerb is a change of a rollout that has begun: what it does, and what a page
// says once it is made.
type rolloutVerb struct {
	verb          remediation.RolloutVerb
	summary, done string
}

var rolloutVerbs = []rolloutVerb{
	{remediation.RolloutPromote, "Promotes a rollout to its next stage.", "started to promote"},
	{remediation.RolloutHold, "Keeps a rollout in its stage: nothing promotes it. A breach is still rolled back.", "held"},
	{remediation.RolloutResume, "Resumes a held rollout.", "resumed"},
	{remediation.RolloutFinish, "Finishes a rollout after its last stage.", "finished"},
	{remediation.RolloutAbort, "Rolls the release back now.", "started to abort"},
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
		started, err := s.rollouts.StartRollout(c.Request().Context(), remediation.RolloutStart{Service: form.Get("service"), Release: form.Get("release"), Actor: actor, Reason: reason})
		if err != nil {
			return err
		}
		return s.finish(c, actor, "started the rollout of "+started.Release+" on "+started.Service, reason, "/rollout")
	}
	verb := remediation.RolloutVerb(c.Param("verb"))
	at := slices.IndexFunc(rolloutVerbs, func(v rolloutVerb) bool { return v.verb == verb })
	switch {
	case at < 0:
		return echo.ErrNotFound
	case form.Get("service") == "":
		return refuse(http.StatusBadRequest, "the form names no service")
	}
	done, err := s.rollouts.ChangeRollout(c.Request().Context(), remediation.RolloutChange{
		Service: form.Get("service"), Verb: verb, Actor: actor, Reason: reason, Force: form.Get("force") == "yes",
	})
	if err != nil {
		return err
	}
	to := "/rollout"
	if verb == remediation.RolloutAbort && done.Incident != "" {
		to = "/incidents/" + done.Incident
	}
	return s.finish(c, actor, rolloutVerbs[at].done+" the rollout of "+form.Get("service"), reason, to)
}

func nonNilRollout(r view.RolloutView) view.RolloutView {
	if r.Criteria == nil {
		r.Criteria = []view.CriterionView{}
	}
	return r
}
