package receiver

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"time"

	"github.com/labstack/echo/v4"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/locotoki/backout/receiver/notification"
)

// acceptTimeout bounds a commit: a webhook that hangs uses up Alertmanager's
// whole group_interval, while a 503 is tried again within half a second.
const acceptTimeout = 5 * time.Second

// result is what became of a notification.
type result string

// The values of the label of backout_notifications_total.
const (
	resultAccepted     result = "accepted"
	resultMalformed    result = "malformed"
	resultTooLarge     result = "too_large"
	resultBusy         result = "busy"
	resultUnavailable  result = "unavailable"
	resultUnauthorized result = "unauthorized"
	resultForbidden    result = "forbidden"
)

// results counts notifications by result.
type results map[result]prometheus.Counter

func newResults(registry *prometheus.Registry) (results, error) {
	total := prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "backout_notifications_total",
		Help: "Notifications posted by Alertmanager, by what became of them.",
	}, []string{"result"})
	if err := registry.Register(total); err != nil {
		return nil, fmt.Errorf("register backout_notifications_total: %w", err)
	}
	counters := results{}
	for _, r := range []result{resultAccepted, resultMalformed, resultTooLarge, resultBusy, resultUnavailable, resultUnauthorized, resultForbidden} {
		counters[r] = total.WithLabelValues(string(r))
	}
	return counters, nil
}

// webhook takes a notification of Alertmanager.
func (s *Server) webhook(c echo.Context) error {
	r := c.Request()
	res, err := s.notification(c, r)
	s.results[res].Inc()
	if err != nil {
		s.logger.Warn("notification refused", "result", string(res), "remote", r.RemoteAddr, "err", err)
	}
	return err
}

func (s *Server) notification(c echo.Context, r *http.Request) (result, error) {
	access := s.access.Load()
	if _, err := access.caller(c, postNotification); err != nil {
		from := r.RemoteAddr
		if host, _, err := net.SplitHostPort(from); err == nil {
			from = host
		}
		s.notifications.NoteRefused(from, string(refusedResult(err)))
		return refusedResult(err), err
	}
	// Alertmanager sends no Origin, a browser always does: a page of another
	// site must not post alerts with a password that the browser remembers.
	if err := access.checkOrigin(r); err != nil {
		return resultForbidden, err
	}
	held, err := s.bodies.read(r)
	switch {
	case errors.Is(err, errTooLarge):
		return resultTooLarge, s.refuseBody(r, refuse(http.StatusRequestEntityTooLarge, "the body is larger than %d MiB", s.bodies.limit>>20))
	case errors.Is(err, errBusy):
		c.Response().Header().Set("Retry-After", "1")
		return resultBusy, s.refuseBody(r, refuse(http.StatusServiceUnavailable, "%v: not committed, send it again", err))
	case err != nil:
		return resultUnavailable, refuse(http.StatusServiceUnavailable, "%v: not committed, send it again", err)
	}
	defer held.release()

	ctx, cancel := context.WithTimeout(r.Context(), acceptTimeout)
	defer cancel()
	if err := held.turn(ctx); err != nil {
		c.Response().Header().Set("Retry-After", "1")
		return resultBusy, refuse(http.StatusServiceUnavailable, "%v: not committed, send it again", err)
	}
	n, odd, err := notification.Decode(held.data)
	switch {
	case errors.Is(err, notification.ErrTooMany):
		return resultTooLarge, refuse(http.StatusRequestEntityTooLarge, "%v", err)
	case err != nil:
		return resultMalformed, refuse(http.StatusBadRequest, "%v", err)
	}
	done, err := s.notifications.Accept(ctx, n)
	if err != nil {
		s.logger.Error("notification not committed", "group_key", n.GroupKey, "alerts", len(n.Alerts), "err", err)
		c.Response().Header().Set("Retry-After", "1")
		return resultUnavailable, refuse(http.StatusServiceUnavailable, "not committed, send it again")
	}
	if len(odd) > 0 {
		s.logger.Warn("malformed alerts in a notification were recorded", "group_key", n.GroupKey, "odd", len(odd), "alerts", len(n.Alerts), "first", odd[0])
	}
	if done.Incidents == nil {
		done.Incidents = []string{}
	}
	return resultAccepted, s.answer(c, done)
}

// refuseBody takes the rest of a refused body off the connection.
func (s *Server) refuseBody(r *http.Request, refusal error) error {
	if err := s.bodies.discard(r); err != nil {
		return errors.Join(refusal, err)
	}
	return refusal
}

// refusedResult is the result of a refusal by caller.
func refusedResult(err error) result {
	var he *echo.HTTPError
	if errors.As(err, &he) && he.Code == http.StatusUnauthorized {
		return resultUnauthorized
	}
	return resultForbidden
}
