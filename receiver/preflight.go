package receiver

import (
	"strings"

	"github.com/labstack/echo/v4"

	"github.com/locotoki/backout/remediation"
)

func (s *Server) showPreflight(c echo.Context, _ string) error {
	q, err := query(c, "service")
	if err != nil {
		return err
	}
	v, err := s.service.Preflight(c.Request().Context(), q.Get("service"))
	if err != nil {
		return err
	}
	return s.answer(c, nonNilPreflight(v))
}

// startPreflight begins one; how it goes is read by GET.
func (s *Server) startPreflight(c echo.Context, actor string) error {
	var in struct {
		Service string `json:"service"`
		Reason  string `json:"reason"`
	}
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
	v, err := s.service.StartPreflight(c.Request().Context(), in.Service, actor, reason)
	if err != nil {
		return err
	}
	return s.answer(c, nonNilPreflight(v))
}

// signPreflight takes a person's word for one item.
func (s *Server) signPreflight(c echo.Context, actor string) error {
	var in struct {
		Service string `json:"service"`
		Item    string `json:"item"`
		By      string `json:"by"`
		Reason  string `json:"reason"`
	}
	if err := decodeChange(c, &in); err != nil {
		return err
	}
	reason, err := checkReason(in.Reason)
	if err != nil {
		return err
	}
	v, err := s.service.SignPreflight(c.Request().Context(), remediation.SignRequest{
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
