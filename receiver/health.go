package receiver

import (
	"log/slog"
	"net/http"

	"github.com/labstack/echo/v4"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"
)

func metricsHandler(registry *prometheus.Registry, logger *slog.Logger) http.Handler {
	return promhttp.HandlerFor(registry, promhttp.HandlerOpts{
		ErrorLog: slog.NewLogLogger(logger.Handler(), slog.LevelError),
		// One broken collector must not hide the others.
		ErrorHandling:       promhttp.ContinueOnError,
		MaxRequestsInFlight: 10,
	})
}

// metrics answers the metrics of the registry.
func (s *Server) metrics(c echo.Context) error {
	s.metricsPage.ServeHTTP(c.Response(), c.Request())
	return nil
}

// healthy tells that the process answers.
func (s *Server) healthy(c echo.Context) error {
	return c.String(http.StatusOK, "backout is healthy.\n")
}

// ready tells that notifications can be committed. Everybody may ask, so the
// cause goes to the log only.
func (s *Server) ready(c echo.Context) error {
	if err := s.notifications.Ready(c.Request().Context()); err != nil {
		s.logger.Warn("not ready", "err", err)
		return refuse(http.StatusServiceUnavailable, "not ready: see the server's log")
	}
	return c.String(http.StatusOK, "backout is ready.\n")
}

// reloaded answers a reload.
type reloaded struct {
	Reloaded bool `json:"reloaded"`
}

// reloadAll reads the configuration, the tokens and the playbooks again. What
// is wrong in them is said to the caller, and the old ones stay.
func (s *Server) reloadAll(c echo.Context, actor string) error {
	if err := s.reload(c.Request().Context(), actor); err != nil {
		s.logger.Error("reload failed", "actor", actor, "err", err)
		s.write(c.Response(), http.StatusInternalServerError, problem{"nothing reloaded: " + err.Error()})
		return nil
	}
	s.logger.Info("reloaded", "actor", actor)
	return s.answer(c, reloaded{true})
}
