package fleet

import (
	"context"
	"net/http"
	"net/http/httptest"
	"testing"
	"time"

	"github.com/locotoki/backout/alerts"
	"github.com/locotoki/backout/remediation"
)

func TestTheServiceIsAskedUntilItAnswersAsItShould(t *testing.T) {
	asked := 0
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		if asked++; asked < 3 {
			w.WriteHeader(http.StatusServiceUnavailable)
		}
	}))
	defer server.Close()
	c := NewEngine(nil, "unix:///nowhere.sock", nil)
	slow := func(deadline time.Time) remediation.Check {
		asked = 0
		return c.insist(t.Context(), deadline, "slow", "good", func(ctx context.Context) error { return c.Probe.Smoke(ctx, alerts.SmokeCheck{URL: server.URL}) })
	}
	if got := slow(time.Now().Add(time.Minute)); got != (remediation.Check{Name: "slow", OK: true, Detail: "good"}) || asked != 3 {
		t.Errorf("asked %d times: %+v", asked, got)
	}
	if got := slow(time.Now().Add(-time.Second)); got.OK || asked != 1 {
		t.Errorf("asked %d times: %+v", asked, got)
	}
}
