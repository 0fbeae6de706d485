package probe

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/locotoki/backout/alerts"
)

func TestTheVersionIsReadFromTextAndJSON(t *testing.T) {
	for body, want := range map[string]string{
		"v1.0.0": "v1.0.0", " v1.0.0\n": "v1.0.0", `"v1.0.0"`: "v1.0.0", `{"version": "v1.0.0", "commit": "ab"}`: "v1.0.0", `{"version":"1.0.0"}`: "1.0.0",
		"": "", "{}": "", `{"version": ""}`: "", `{"version": 1}`: "", "<html>v1.0.0</html>": "", "version v1.0.0": "", strings.Repeat("1", 200): "",
	} {
		if got, ok := Version([]byte(body)); ok != (want != "") || ok && got != want {
			t.Errorf("%s: %q, %t; want %q", body, got, ok, want)
		}
	}
}

func TestASmokeCheckTellsWhatFailedAndNotTheAnswer(t *testing.T) {
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/away" {
			http.Redirect(w, r, "/", http.StatusFound)
		}
		_, _ = fmt.Fprint(w, `{"version": "1.0.0", "trends": ["hunter2"]}`)
	}))
	defer server.Close()
	c := New()
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
		err := c.Smoke(t.Context(), s.check)
		if s.want == "" && err != nil || s.want != "" && (err == nil || !strings.Contains(err.Error(), s.want) || strings.Contains(err.Error(), "hunter2")) {
			t.Errorf("%+v: %v, want %q", s.check, err, s.want)
		}
	}
	if err := c.VersionIs(t.Context(), server.URL, "v1.0.0"); err != nil {
		t.Error(err)
	}
	if err := c.VersionIs(t.Context(), server.URL, "v2.0.0"); err == nil || !strings.Contains(err.Error(), `reports version "1.0.0", want v2.0.0`) {
		t.Error(err)
	}
}

func TestAFlagGoesUpOrDown(t *testing.T) {
	for _, c := range []struct {
		from, to string
		up       bool
	}{{"0", "1", true}, {"0", "0.1", true}, {"0.5", "0.1", false}, {"false", "true", true}, {"true", "false", false}, {"disabled", "enabled", true}, {"1", "", false}} {
		if got := Raises(c.from, c.to); got != c.up {
			t.Errorf("from %q to %q: %t", c.from, c.to, got)
		}
	}
}

func TestAFlagIsServedInAnySpellingOfItsValue(t *testing.T) {
	for _, c := range []struct {
		serves, wanted string
		same           bool
	}{
		{`"0"`, "0", true}, {`0.0`, "0", true}, {`"0.00"`, "false", true}, {`1e2`, "100", true}, {`0.10`, "0.1", true}, {`true`, "TRUE", true}, {`"off"`, "0", true}, {`false`, "0.0", true},
		{`"0.1"`, "0", false}, {`1`, "0", false}, {`1e2`, "10", false}, {`true`, "1e0", false}, {`"on"`, "0", false}, {`"v1.0"`, "v1", false}, {`"NaN"`, "0", false},
	} {
		server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = fmt.Fprintf(w, `{"FLAG": %s}`, c.serves) }))
		if err := New().FlagIs(t.Context(), server.URL, "FLAG", c.wanted); (err == nil) != c.same {
			t.Errorf("%s for %s: %v", c.serves, c.wanted, err)
		}
		server.Close()
	}
}
