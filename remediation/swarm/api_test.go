package swarm

import (
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/locotoki/backout/alerts"
	"github.com/locotoki/backout/hint"
	"github.com/locotoki/backout/remediation/jsonhttp"
)

// The answers are those of an engine: Api-Version is the newest that it speaks, and a request of a newer one is refused.
func TestAnotherVersionOfTheEngineIsNoticed(t *testing.T) {
	var newest atomic.Value
	var posted atomic.Int32
	engine := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		now := newest.Load().(string)
		w.Header().Set("Api-Version", now)
		asked, _, _ := strings.Cut(strings.TrimPrefix(r.URL.Path, "/v"), "/")
		switch {
		case r.URL.Path == "/_ping":
		case asked > now: // of the same length
			w.WriteHeader(http.StatusBadRequest)
			_, _ = fmt.Fprintf(w, `{"message": "client version %s is too new. Maximum supported API version is %s"}`, asked, now)
		default:
			if r.Method == http.MethodPost {
				posted.Add(1)
			}
			_, _ = fmt.Fprintf(w, `{"Asked": %q}`, asked)
		}
	}))
	defer engine.Close()
	c, err := New(Options{Host: strings.Replace(engine.URL, "http", "tcp", 1), Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	for _, version := range []string{"1.41", "1.45", "1.43"} { // first, upgraded, put back
		newest.Store(version)
		var got struct{ Asked string }
		if err := c.do(t.Context(), http.MethodGet, "/services/shop", nil, &got); err != nil || got.Asked != version {
			t.Errorf("an engine of %s is asked for %s: %v", version, got.Asked, err)
		}
	}
	newest.Store("1.42")
	if err := c.do(t.Context(), http.MethodPost, "/services/shop/update", nil, nil); !jsonhttp.Silent(err) || posted.Load() != 0 {
		t.Errorf("an update for another version: %v, and %d arrived", err, posted.Load())
	}
	if err := c.do(t.Context(), http.MethodPost, "/services/shop/update", nil, nil); err != nil || posted.Load() != 1 {
		t.Errorf("once more: %v, and %d arrived", err, posted.Load())
	}
	newest.Store("1.44") // an update that was done is not sent again
	if err := c.do(t.Context(), http.MethodPost, "/services/shop/update", nil, nil); err != nil || posted.Load() != 2 {
		t.Errorf("an upgrade: %v, and %d arrived", err, posted.Load())
	}
	var none *jsonhttp.Error
	engine.Close()
	if err := c.do(t.Context(), http.MethodGet, "/info", nil, nil); err == nil || errors.As(err, &none) {
		t.Errorf("no engine: %v", err)
	}
}

// answering is a client of an engine that answers each path with a text.
func answering(t *testing.T, version string, answers map[string]string) *Client {
	t.Helper()
	engine := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Api-Version", version)
		_, _ = fmt.Fprint(w, answers[strings.TrimPrefix(r.URL.Path, "/v"+version)])
	}))
	t.Cleanup(engine.Close)
	c, err := New(Options{Host: strings.Replace(engine.URL, "http", "tcp", 1), Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	return c
}

func TestAnEngineThatCountsNoTasksIsTooOld(t *testing.T) {
	c := answering(t, "1.40", map[string]string{"/services": `[{"ID": "a", "Spec": {"Name": "shop_web"}}]`})
	_, err := c.read(t.Context(), &alerts.SwarmTarget{Service: "shop_web"})
	if message, advice := hint.Of(err); !strings.Contains(message, "does not count its tasks") || !strings.Contains(advice, "Docker 20.10 or newer") {
		t.Errorf("%v", err)
	}
}

// A task counts as running once its healthcheck has passed.
func TestAnUpdateMayTakeUntilTheHealthcheckAnswers(t *testing.T) {
	for spec, want := range map[string]time.Duration{
		`{}`:                                  15 * time.Second,
		`{"Healthcheck": {"Test": ["NONE"]}}`: 15 * time.Second,
		`{"Healthcheck": {"Test": ["CMD", "true"]}}`: 45 * time.Second,
		`{"StopGracePeriod": 0, "Healthcheck": {"Test": ["CMD"], "Interval": 120000000000, "StartPeriod": 60000000000}}`: 185 * time.Second,
	} {
		s := &state{}
		if err := json.Unmarshal([]byte(spec), &s.Spec.TaskTemplate.ContainerSpec); err != nil {
			t.Fatal(err)
		}
		if got := s.between(); got != want {
			t.Errorf("%s: %s, want %s", spec, got, want)
		}
	}
}

func TestAnUpdateFailedForTheReasonOfItsNewestTask(t *testing.T) {
	failed := func(value, at, why string) string {
		return fmt.Sprintf(`{"Slot": 1, "DesiredState": "shutdown", "Spec": {"ContainerSpec": {"Env": ["FLAG=%s"]}}, "Status": {"State": "failed", "Timestamp": "2026-11-29T03:%s:00.5Z", "Err": %q}}`, value, at, why)
	}
	c := answering(t, "1.41", map[string]string{"/tasks": "[" + strings.Join([]string{
		failed("0", "10", "an earlier incident"), failed("0", "40", "exit 3"), failed("0", "20", "an earlier incident"), failed("1", "50", "another value"),
	}, ",") + "]"})
	a := &change{c: c, field: envField{flagName}}
	off, none := flagName+"=0", flagName+"=2"
	s := &state{t: alerts.SwarmTarget{Service: "shop_web"}}
	if got := a.whyFailed(t.Context(), s, &off); got != ": task shop_web.1 failed: exit 3" {
		t.Errorf("it failed%s", got)
	}
	if got := a.whyFailed(t.Context(), s, &none); got != "" {
		t.Errorf("no task of the value failed, and it says%s", got)
	}
}
