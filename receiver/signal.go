package receiver

import (
	"net/http"

	"github.com/labstack/echo/v4"

	"github.com/locotoki/backout/remediation"
)

// raisedSignal is a signal as it is after a change.
type raisedSignal struct {
	remediation.Signal
	Raised bool `json:"raised"`
}

// raiseSignal says that what the signal stands for is so.
func (s *Server) raiseSignal(c echo.Context, actor string) error {
	service, reason, err := signalChange(c)
	if err != nil {
		return err
	}
	done, err := s.incidents.RaiseSignal(c.Request().Context(), service, c.Param("name"), actor, reason)
	if err != nil {
		return err
	}
	return s.answer(c, raisedSignal{done, true})
}

// clearSignal says that it is so no longer.
func (s *Server) clearSignal(c echo.Context, actor string) error {
	service, reason, err := signalChange(c)
	if err != nil {
		return err
	}
	done, err := s.incidents.ClearSignal(c.Request().Context(), service, c.Param("name"), actor, reason)
	if err != nil {
		return err
	}
	return s.answer(c, raisedSignal{done, false})
}

// signalChange reads whose signal it is, and why.
func signalChange(c echo.Context) (service, reason string, err error) {
	q, err := query(c, "service")
	if err != nil {
		return "", "", err
	}
	var in reasonRequest
	if err := decodeChange(c, &in); err != nil {
		return "", "", err
	}
	reason, err = checkReason(in.Reason)
	return q.Get("service"), reason, err
}

// postSignal is raiseSignal and clearSignal for the console's forms.
func (s *Server) postSignal(c echo.Context, actor string) error {
	form, err := fields(c, "service", "signal", "reason")
	if err != nil {
		return err
	}
	reason, err := checkReason(form.Get("reason"))
	if err != nil {
		return err
	}
	change := s.incidents.RaiseSignal
	switch c.Param("verb") {
	case "raise":
	case "clear":
		change = s.incidents.ClearSignal
	default:
		return echo.ErrNotFound
	}
	service, name := form.Get("service"), form.Get("signal")
	if service == "" || name == "" {
		return refuse(http.StatusBadRequest, "the form names no service or no signal")
	}
	done, err := change(c.Request().Context(), service, name, actor, reason)
	if err != nil {
		return err
	}
	what := "cleared signal " + name + " of " + service
	if c.Param("verb") == "raise" {
		what = "raised signal " + name + " of " + service
		if done.By != actor || done.Reason != reason { // it stays as it was raised
			what = "changed nothing: signal " + name + " of " + service + " was raised already, by " + done.By
		}
	}
	if done.Warning != "" {
		what += "; warning: " + done.Warning
	}
	return s.finish(c, actor, what, reason, "/rollout")
}
