package receiver

import (
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/labstack/echo/v4"
	"github.com/prometheus/common/model"

	"github.com/locotoki/backout/hint"
	"github.com/locotoki/backout/receiver/page"
	"github.com/locotoki/backout/remediation"
	"github.com/locotoki/backout/remediation/view"
)

// fields reads a form: a field that is not known, or appears twice, is refused.
func fields(c echo.Context, known ...string) (url.Values, error) {
	form := c.Request().PostForm
	for name, list := range form {
		if name != "csrf" && name != "back" && !slices.Contains(known, name) {
			return nil, refuse(http.StatusBadRequest, "unknown field %q", name)
		}
		if len(list) > 1 {
			return nil, refuse(http.StatusBadRequest, "field %q appears twice", name)
		}
	}
	return form, nil
}

// finish leads from a change to the page that tells what it did, so that a reload
// does not make it again.
func (s *Server) finish(c echo.Context, actor, what, reason, fallback string) error {
	target := c.Request().PostFormValue("back")
	if !page.BackTo.MatchString(target) {
		target = fallback
	}
	done, err := s.csrf.flash(flash{Actor: actor, What: what, Reason: reason, At: s.now().UTC()})
	if err != nil {
		return err
	}
	h := c.Response().Header()
	h.Set("Cache-Control", "no-store")
	return c.Redirect(http.StatusSeeOther, target+"?done="+done+"#result")
}

// postIncident changes an incident as the API's address of the same name does.
func (s *Server) postIncident(c echo.Context, actor string) error {
	form, err := fields(c, "reason", "step", "over", "question", "force")
	if err != nil {
		return err
	}
	reason, err := checkReason(form.Get("reason"))
	if err != nil {
		return err
	}
	ctx, id, verb := c.Request().Context(), c.Param("id"), view.Verb(c.Param("verb"))
	d, what := decision{verb: verb}, ""
	switch verb {
	case view.Approve, view.Deny:
		if d.step = form.Get("step"); d.step == "" {
			return refuse(http.StatusBadRequest, "the form names no step")
		}
		what = map[view.Verb]string{view.Approve: "approved", view.Deny: "denied"}[verb] + " " + d.step + " of " + id
		if d.over = form.Get("over"); d.over != "" && verb == view.Deny {
			return refuse(http.StatusBadRequest, "only an approval is over a limit")
		}
		if verb == view.Approve { // a denial of an earlier request is one of this, too
			d.question = form.Get("question")
		}
	case view.Claim:
		what = "claimed " + id
	case view.Release:
		what = "released " + id + ": backout continues"
	case view.Close:
		what = "closed " + id
	case "restore":
		r := view.RestoreRequest{Actor: actor, Reason: reason, Force: form.Get("force") == "yes"}
		if _, err := s.incidents.Restore(ctx, id, r); err != nil {
			return err
		}
		return s.finish(c, actor, "started to restore what "+id+" changed", reason, "/incidents/"+id)
	default:
		return echo.ErrNotFound
	}
	inc, err := s.decide(ctx, id, d, actor, reason)
	if err != nil {
		return err
	}
	if verb == view.Claim {
		what += ": " + inc.ClaimWords()
	}
	return s.finish(c, actor, what, reason, "/incidents/"+id)
}

// postFreeze stops steps, or promotions.
func (s *Server) postFreeze(c echo.Context, actor string) error {
	form, err := fields(c, "service", "scope", "for", "reason")
	if err != nil {
		return err
	}
	reason, err := checkReason(form.Get("reason"))
	if err != nil {
		return err
	}
	// The empty name means every service, so a missing field must not give it.
	if !form.Has("service") {
		return refuse(http.StatusBadRequest, "the form names no service")
	}
	f := remediation.Freeze{Service: form.Get("service"), Scope: form.Get("scope"), By: actor, Reason: reason}
	if f.Scope == "" {
		f.Scope = remediation.ScopeAll
	}
	if text := form.Get("for"); text != "" {
		d, err := model.ParseDuration(text)
		if err != nil || d <= 0 {
			return hint.Add(refuse(http.StatusBadRequest, "invalid duration %q", text), "30m or 4h")
		}
		at := s.now().Add(time.Duration(d)).UTC()
		f.Until = &at
	}
	set, err := s.incidents.PutFreeze(c.Request().Context(), f)
	if err != nil {
		return err
	}
	what := "all steps"
	if set.Scope == remediation.ScopePromotions {
		what = "promotions"
	}
	until := "until someone thaws it"
	if set.Until != nil {
		until = "until " + set.Until.UTC().Format("2 Jan 15:04:05") + " UTC"
	}
	did := "froze"
	if set.Outlasts(f) {
		did = fmt.Sprintf("left the longer freeze by %s in force:", set.By)
	}
	did = fmt.Sprintf("%s %s of %s %s", did, what, serviceWords(set.Service), until)
	return s.finish(c, actor, did, reason, "/")
}

// postThaw ends a service's freezes.
func (s *Server) postThaw(c echo.Context, actor string) error {
	form, err := fields(c, "service", "reason")
	if err != nil {
		return err
	}
	reason, err := checkReason(form.Get("reason"))
	if err != nil {
		return err
	}
	if !form.Has("service") {
		return refuse(http.StatusBadRequest, "the form names no service")
	}
	if _, err := s.incidents.Thaw(c.Request().Context(), form.Get("service"), actor, reason); err != nil {
		return err
	}
	return s.finish(c, actor, "thawed "+serviceWords(form.Get("service")), reason, "/")
}

func serviceWords(name string) string {
	if strings.TrimSpace(name) == "" {
		return "all services"
	}
	return name
}
