package receiver

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"sync"
	"time"

	"github.com/labstack/echo/v4"

	"github.com/locotoki/backout/remediation/view"
)

const (
	// eventsEvery is how often a stream looks for something new.
	eventsEvery = time.Second
	// eventsBeat is how often it says that it is still there.
	eventsBeat = 15 * time.Second
	// eventsLife ends a stream, so that its reader comes again and its token is looked at.
	eventsLife = 10 * time.Minute
	// eventsMost bounds the streams that are open together.
	eventsMost = 100
)

// events tells a page that what it shows has changed. What it is, the page asks
// for itself: an event carries nothing.
func (s *Server) events(c echo.Context, _ string) error {
	if _, err := query(c); err != nil {
		return err
	}
	if s.streams.Add(1) > eventsMost {
		s.streams.Add(-1)
		return refuse(http.StatusServiceUnavailable, "too many live pages are open: reload this one by hand")
	}
	defer s.streams.Add(-1)
	ctx := c.Request().Context()
	seen, err := s.stamp(ctx, 0)
	if err != nil {
		return err
	}
	w, control := c.Response(), http.NewResponseController(c.Response())
	h := w.Header()
	h.Set("Content-Type", "text/event-stream; charset=utf-8")
	h.Set("Cache-Control", "no-store")
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("X-Accel-Buffering", "no") // a proxy that gathers answers would hold events back
	w.WriteHeader(http.StatusOK)
	// The server's time for reading a request is over long before a stream is.
	_ = control.SetReadDeadline(time.Time{})
	say := func(text string) bool {
		_ = control.SetWriteDeadline(time.Now().Add(eventsBeat))
		if _, err := fmt.Fprint(w, text); err != nil {
			return false
		}
		return control.Flush() == nil
	}
	if !say("retry: 2000\nevent: hello\ndata: " + seen + "\n\n") {
		return nil
	}
	tick, beat, life := time.NewTicker(s.eventsEvery), time.NewTicker(eventsBeat), time.NewTimer(eventsLife)
	defer tick.Stop()
	defer beat.Stop()
	defer life.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-s.ending:
			return nil
		case <-life.C:
			return nil
		case <-beat.C:
			if !say(": still here\n\n") {
				return nil
			}
		case <-tick.C:
			now, err := s.stamp(ctx, s.eventsEvery)
			if err != nil {
				return nil // the page says that it is not live, and comes again
			}
			if now == seen {
				continue
			}
			seen = now
			if !say("event: change\ndata: " + now + "\n\n") {
				return nil
			}
		}
	}
}

// lastStamp is what the streams saw last: one of them looks for all.
type lastStamp struct {
	mu    sync.Mutex
	stamp string
	at    time.Time
}

// stamp is the state's, as it was at most so long ago.
func (s *Server) stamp(ctx context.Context, age time.Duration) (string, error) {
	l := &s.lastSeen
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.stamp != "" && time.Since(l.at) < age {
		return l.stamp, nil
	}
	at := time.Now()
	o, err := s.incidents.Overview(ctx)
	if err != nil {
		return "", err
	}
	stamp, err := s.stampOf(o)
	if err == nil {
		l.stamp, l.at = stamp, at
	}
	return stamp, err
}

// stampOf is another one when anything that pages show has changed.
func (s *Server) stampOf(o view.Overview) (string, error) {
	services := append([]view.ServiceNow{}, o.Services...)
	for i := range services {
		if w := services[i].Watchdog; w != nil && o.Time.Sub(*w) <= services[i].WatchdogMaxAge {
			services[i].Watchdog = &time.Time{} // in time: its age moves on by itself
		}
		services[i].Unheard = slices.Clone(services[i].Unheard)
		for j := range services[i].Unheard { // its value comes with each refresh
			services[i].Unheard[j].Value, services[i].Unheard[j].Since = 0, time.Time{}
		}
	}
	o.Services, o.Time = services, time.Time{}
	b, err := json.Marshal(o)
	if err != nil {
		return "", fmt.Errorf("check for changes: %w", err)
	}
	sum := sha256.Sum256(fmt.Appendf(b, "%d", s.backtests.changes()))
	return hex.EncodeToString(sum[:8]), nil
}
