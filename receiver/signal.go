package receiver

import (
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
	done, err := s.service.RaiseSignal(c.Request().Context(), service, c.Param("name"), actor, reason)
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
	done, err := s.service.ClearSignal(c.Request().Context(), service, c.Param("name"), actor, reason)
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
	var in struct {
		Reason string `json:"reason"`
	}
	if err := decodeChange(c, &in); err != nil {
		return "", "", err
	}
	reason, err = checkReason(in.Reason)
	return q.Get("service"), reason, err
}
