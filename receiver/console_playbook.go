package receiver

import (
	"net/http"

	"github.com/labstack/echo/v4"

	"github.com/locotoki/backout/remediation/view"
)

// playbookPage shows a service's playbook as it is understood, with the rules that are
// generated from it.
func (s *Server) playbookPage(c echo.Context, _ string) error {
	q, err := query(c, "service")
	if err != nil {
		return err
	}
	o, err := s.service.Overview(c.Request().Context())
	if err != nil {
		return err
	}
	data := struct {
		frame
		Services []view.ServiceNow
		Playbook *view.PlaybookView // nil where none is loaded
	}{frame: s.frame(c, "Playbook"), Services: o.Services}
	service := q.Get("service")
	if service == "" && len(o.Services) > 0 {
		service = o.Services[0].Service
	}
	if service != "" {
		p, err := s.service.Playbook(c.Request().Context(), service)
		if err != nil {
			return err
		}
		data.Playbook = &p
	}
	return s.showPage(c, http.StatusOK, "playbook", data)
}
