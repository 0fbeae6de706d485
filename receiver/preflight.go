package receiver

import (
	"net/http"
	"strings"

	"github.com/labstack/echo/v4"

	"github.com/locotoki/backout/remediation"
)

func (s *Server) showPreflight(c echo.Context, _ string) error {
	q, err := query(c, "service")
	if err != nil {
		return err
	}
	v, err := s.preflights.Preflight(c.Request().Context(), q.Get("service"))
	if err != nil {
		return err
	}
	return s.answer(c, nonNilPreflight(v))
}

// preflightRequest starts a preflight. Its service may be left out where there is one
// playbook.
type preflightRequest struct {
	Service string `json:"service,omitempty"`
	Reason  string `json:"reason,omitempty"`
}

// signRequest signs off one item. Its service may be left out where there is one playbook.
type signRequest struct {
	Service string `json:"service,omitempty"`
	Item    string `json:"item"`
	// By is who signs, the token's name if it is left out.
	By     string `json:"by,omitempty"`
	Reason string `json:"reason"`
}

// startPreflight begins one; how it goes is read by GET.
func (s *Server) startPreflight(c echo.Context, actor string) error {
	var in preflightRequest
	if err := decodeChange(c, &in); err != nil {
		return err
	}
	reason := ""
	if strings.TrimSpace(in.Reason) != "" {
		var err error
		if reason, err = checkReason(in.Reason); err != nil {
			return err
		}
	}
	v, err := s.preflights.StartPreflight(c.Request().Context(), in.Service, actor, reason)
	if err != nil {
		return err
	}
	return s.answer(c, nonNilPreflight(v))
}

// signPreflight takes a person's word for one item.
func (s *Server) signPreflight(c echo.Context, actor string) error {
	var in signRequest
	if err := decodeChange(c, &in); err != nil {
		return err
	}
	reason, err := checkReason(in.Reason)
	if err != nil {
		return err
	}
	v, err := s.preflights.SignPreflight(c.Request().Context(), remediation.SignRequest{
		Service: in.Service, Item: in.Item, By: strings.TrimSpace(in.By), Actor: actor, Reason: reason,
	})
	if err != nil {
		return err
	}
	return s.answer(c, nonNilPreflight(v))
}

func nonNilPreflight(v remediation.PreflightView) remediation.PreflightView {
	if v.Items == nil {
		v.Items = []remediation.PreflightItem{}
	}
	if v.Missing == nil {
		v.Missing = []string{}
	}
	return v
}

// preflightNow is a preflight as the rollout's page shows it.
type preflightNow struct {
	remediation.PreflightView
	// Open are the items that still need something, Done the others.
	Open, Done []remediation.PreflightItem
}

func newPreflight(v remediation.PreflightView) preflightNow {
	p := preflightNow{PreflightView: v}
	for _, it := range v.Items {
		if it.Status == remediation.Pass || it.Signed != nil {
			p.Done = append(p.Done, it)
		} else {
			p.Open = append(p.Open, it)
		}
	}
	return p
}

// postPreflight is startPreflight and signPreflight for the console's forms.
func (s *Server) postPreflight(c echo.Context, actor string) error {
	form, err := fields(c, "service", "item", "reason")
	if err != nil {
		return err
	}
	reason, err := checkReason(form.Get("reason"))
	if err != nil {
		return err
	}
	ctx, service := c.Request().Context(), form.Get("service")
	if service == "" {
		return refuse(http.StatusBadRequest, "the form names no service")
	}
	what := ""
	switch c.Param("verb") {
	case "run":
		what = "started the preflight of " + service
		_, err = s.preflights.StartPreflight(ctx, service, actor, reason)
	case "sign":
		what = "signed off " + form.Get("item") + " of " + service
		_, err = s.preflights.SignPreflight(ctx, remediation.SignRequest{Service: service, Item: form.Get("item"), Actor: actor, Reason: reason})
	default:
		return echo.ErrNotFound
	}
	if err != nil {
		return err
	}
	return s.finish(c, actor, what, reason, "/rollout")
}
