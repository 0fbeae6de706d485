package docker

import (
	"context"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/docker/docker/api/types/container"

	"github.com/locotoki/backout/alerts"
	"github.com/locotoki/backout/remediation"
)

func TestANameIsTakenApartAsTheEngineDoes(t *testing.T) {
	for name, want := range map[string]reference{
		"social-intel":                             {"social-intel", "latest", ""},
		"social-intel:v1":                          {"social-intel", "v1", ""},
		"docker.io/library/social-intel":           {"social-intel", "latest", ""},
		"docker.io/team/social-intel:v1":           {"team/social-intel", "v1", ""},
		"registry.example.com:5000/social-intel":   {"registry.example.com:5000/social-intel", "latest", ""},
		"registry.example.com:5000/a/b:v1":         {"registry.example.com:5000/a/b", "v1", ""},
		"social-intel@sha256:00":                   {"social-intel", "", "sha256:00"},
		"registry.example.com:5000/a:v1@sha256:00": {"registry.example.com:5000/a", "v1", "sha256:00"},
	} {
		if got := parseReference(name); got != want {
			t.Errorf("%s: %+v, want %+v", name, got, want)
		}
	}
}

func TestTheVersionIsReadFromTextAndJSON(t *testing.T) {
	for body, want := range map[string]string{
		"v1.0.0": "v1.0.0", " v1.0.0\n": "v1.0.0", `"v1.0.0"`: "v1.0.0", `{"version": "v1.0.0", "commit": "ab"}`: "v1.0.0", `{"version":"1.0.0"}`: "1.0.0",
		"": "", "{}": "", `{"version": ""}`: "", `{"version": 1}`: "", "<html>v1.0.0</html>": "", "version v1.0.0": "", strings.Repeat("1", 200): "",
	} {
		if got, ok := versionIn([]byte(body)); ok != (want != "") || ok && got != want {
			t.Errorf("%s: %q, %t; want %q", body, got, ok, want)
		}
	}
}

func TestTheServiceIsAskedUntilItAnswersAsItShould(t *testing.T) {
	asked := 0
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/slow":
			if asked++; asked < 3 {
				w.WriteHeader(http.StatusServiceUnavailable)
			}
		case "/away":
			http.Redirect(w, r, "/", http.StatusFound)
		}
		_, _ = fmt.Fprint(w, `{"version": "1.0.0", "trends": ["hunter2"]}`)
	}))
	defer server.Close()
	c, err := New(Options{Host: "unix:///nowhere.sock", Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range []struct {
		check alerts.SmokeCheck
		want  string
	}{
		{alerts.SmokeCheck{URL: "/"}, ""},
		{alerts.SmokeCheck{URL: "/", Contains: "trends"}, ""},
		{alerts.SmokeCheck{URL: "/away", Status: 302}, ""},
		{alerts.SmokeCheck{URL: "/away"}, "answers 302, want 200"},
		{alerts.SmokeCheck{URL: "/", Status: 404}, "answers 200, want 404"},
		{alerts.SmokeCheck{URL: "/", Contains: "forecast"}, `answers 200 without "forecast" in it`},
	} {
		s.check.URL = server.URL + s.check.URL
		err := c.smoke(t.Context(), s.check)
		if s.want == "" && err != nil || s.want != "" && (err == nil || !strings.Contains(err.Error(), s.want) || strings.Contains(err.Error(), "hunter2")) {
			t.Errorf("%+v: %v, want %q", s.check, err, s.want)
		}
	}
	if err := c.namesVersion(t.Context(), server.URL, "v1.0.0"); err != nil {
		t.Error(err)
	}
	if err := c.namesVersion(t.Context(), server.URL, "v2.0.0"); err == nil || !strings.Contains(err.Error(), `reports version "1.0.0", want v2.0.0`) {
		t.Error(err)
	}
	slow := func(deadline time.Time) remediation.Check {
		asked = 0
		return c.insist(t.Context(), deadline, "slow", "good", func(ctx context.Context) error { return c.smoke(ctx, alerts.SmokeCheck{URL: server.URL + "/slow"}) })
	}
	if got := slow(time.Now().Add(time.Minute)); got != (remediation.Check{Name: "slow", OK: true, Detail: "good"}) || asked != 3 {
		t.Errorf("asked %d times: %+v", asked, got)
	}
	if got := slow(time.Now().Add(-time.Second)); got.OK || asked != 1 {
		t.Errorf("asked %d times: %+v", asked, got)
	}
}

func TestVerifyTellsWhatOfAServiceDoesNotHold(t *testing.T) {
	w := imageWorld(t, versionOne)
	w.start("1")
	c := w.client(nil)
	if err := c.Runs(t.Context(), w.target, "", "v2.0.0"); err != nil {
		t.Error(err)
	}
	if err := c.Runs(t.Context(), w.target, "", "v1.0.0"); err == nil || !strings.Contains(err.Error(), "runs image "+w.project) {
		t.Errorf("another version: %v", err)
	}
	if err := c.Runs(t.Context(), w.target, "", "v0.9.0"); err == nil || !strings.Contains(err.Error(), "there is no image "+w.project+":v0.9.0") {
		t.Errorf("a version that is not there: %v", err)
	}
	failed := func(version string) (names []string) {
		checks, err := c.Verify(t.Context(), w.target, "", version)
		if err != nil || len(checks) != 5 {
			t.Fatalf("%+v, %v", checks, err)
		}
		for _, c := range checks {
			if c.Detail == "" {
				t.Errorf("%s says nothing", c.Name)
			}
			if !c.OK {
				names = append(names, c.Name)
			}
		}
		return names
	}
	if got := failed("v2.0.0"); len(got) > 0 {
		t.Errorf("failed: %v", got)
	}
	// One restart is one too many, and waiting does not cure it.
	if err := w.target.Probe.Timeout.Set("10m"); err != nil {
		t.Fatal(err)
	}
	w.takeDown()
	w.tag("v1.0.0", crashingOne)
	w.tag("latest", crashingOne)
	w.start("1", func(_ *container.Config, h *container.HostConfig) {
		h.RestartPolicy = container.RestartPolicy{Name: container.RestartPolicyAlways}
	})
	w.eventually("it was restarted", func() bool { return w.one().RestartCount > 0 })
	if got := failed("v1.0.0"); !slices.Contains(got, checkHealth) || slices.Contains(got, checkImage) {
		t.Errorf("failed: %v", got)
	}
	if w.changes.Load() > 0 {
		t.Error("verifying changed something")
	}
}
