package receiver

import (
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/locotoki/backout/receiver/golden"
	"github.com/locotoki/backout/receiver/statuspage"
	"github.com/locotoki/backout/remediation"
	"github.com/locotoki/backout/remediation/view"
)

// public is the status page of a source.
func public(t testing.TB, source statuspage.Source, now func() time.Time) *statuspage.Page {
	t.Helper()
	p, err := statuspage.New(source, slog.New(slog.DiscardHandler), now)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// visit asks a page as the public does. Its statuses are described; its files and where /
// leads are as on the console's listener.
func visit(t testing.TB, h http.Handler, method, path string, header ...string) *httptest.ResponseRecorder {
	r := httptest.NewRequest(method, path, nil)
	for i := 0; i+1 < len(header); i += 2 {
		r.Header.Set(header[i], header[i+1])
	}
	w := httptest.NewRecorder()
	if strings.HasPrefix(path, "/status") {
		byContract(t, h, w, r)
	} else {
		h.ServeHTTP(w, r)
	}
	return w
}

func TestThePublicPageTellsAnIncidentInWordsForCustomersAndNothingElse(t *testing.T) {
	s := newTestService(t)
	p := public(t, s.engine, s.clock)
	goldenPage(t, "status-calm.html", visit(t, p, "GET", "/status").Body.String())
	id := s.breach()
	s.pass(time.Minute)
	body := visit(t, p, "GET", "/status").Body.String()
	goldenPage(t, "status-trouble.html", body)
	summary := visit(t, p, "GET", "/status/api/v2/summary.json").Body.String()
	golden.Compare(t, "status-summary.json", []byte(summary))
	for _, inside := range []string{id, "error_rate", "flag_off", "fp1", "3.1%", "eve", "compose:", "inc-"} {
		if strings.Contains(body, inside) || strings.Contains(summary, inside) {
			t.Errorf("the public is told %q", inside)
		}
	}
	s.reads(0, 0)
	s.pass(20 * time.Minute)
	if body = visit(t, p, "GET", "/status").Body.String(); !strings.Contains(body, "Everything works as it should.") || !strings.Contains(body, "Resolved") {
		t.Error("the page does not tell that it is over:", body)
	}
	var got struct {
		Status     struct{ Indicator string }
		Incidents  []any
		Components []struct{ Name, Status string }
	}
	if err := json.Unmarshal(visit(t, p, "GET", "/status/api/v2/summary.json").Body.Bytes(), &got); err != nil {
		t.Fatal(err)
	}
	if got.Status.Indicator != "none" || len(got.Incidents) != 0 || len(got.Components) != 2 || got.Components[0].Status != "operational" {
		t.Errorf("the summary after it: %+v", got)
	}
}

func TestThePublicListenerHasNothingOfTheConsole(t *testing.T) {
	s := newTestService(t)
	script := ""
	for name := range s.pages.Files {
		if strings.HasSuffix(name, ".js") {
			script = name
		}
	}
	p := public(t, s.engine, s.clock)
	for _, path := range []string{
		"/incidents/inc-1", "/audit", "/rollout", "/events", "/freeze", "/api/v1/incidents", "/api/v1/audit/head", "/metrics", "/-/healthy",
		"/static/" + script,
	} {
		if w := visit(t, p, "GET", path); w.Code != http.StatusNotFound {
			t.Errorf("GET %s answers %d", path, w.Code)
		}
	}
	for _, path := range []string{"/status", "/status/api/v2/summary.json", "/freeze"} {
		if w := visit(t, p, "POST", path); w.Code != http.StatusMethodNotAllowed && w.Code != http.StatusNotFound {
			t.Errorf("POST %s answers %d", path, w.Code)
		}
	}
	w := httptest.NewRecorder()
	if s.Server.ServeHTTP(w, as(request("GET", "/status", ""), "eve")); w.Code != http.StatusNotFound { // described, of the other listener
		t.Errorf("the console's listener answers /status with %d", w.Code)
	}
}

func TestThePublicPageCanBeKeptByCaches(t *testing.T) {
	s := newTestService(t)
	p := public(t, s.engine, s.clock)
	for _, path := range []string{"/status", "/status/api/v2/summary.json"} {
		first := visit(t, p, "GET", path)
		tag := first.Header().Get("ETag")
		if first.Code != http.StatusOK || tag == "" || first.Header().Get("Cache-Control") != "public, max-age=15" {
			t.Fatal(path, first.Code, first.Header())
		}
		s.pass(time.Minute)
		if again := visit(t, p, "GET", path, "If-None-Match", "W/"+tag); again.Code != http.StatusNotModified || again.Body.Len() != 0 {
			t.Errorf("%s has nothing new, and answers %d", path, again.Code)
		}
		if csp := first.Header().Get("Content-Security-Policy"); !strings.Contains(csp, "default-src 'none'") || strings.Contains(csp, "script-src") {
			t.Errorf("%s has the policy %q", path, csp)
		}
	}
	before := visit(t, p, "GET", "/status").Header().Get("ETag")
	s.breach()
	s.pass(time.Minute)
	if w := visit(t, p, "GET", "/status", "If-None-Match", before); w.Code != http.StatusOK || w.Header().Get("ETag") == before {
		t.Error("an incident is not seen behind a cache")
	}
}

func TestAStatusThatIsNotKnownIsSaidAndNotKept(t *testing.T) {
	f := &fakeService{err: errors.New("disk full of secrets")}
	w := visit(t, public(t, f, time.Now), "GET", "/status")
	if w.Code != http.StatusServiceUnavailable || w.Header().Get("Cache-Control") != "no-store" || strings.Contains(w.Body.String(), "secrets") {
		t.Error(w.Code, w.Header(), w.Body)
	}
}

func TestWithoutNamedComponentsThereIsNoStatusPage(t *testing.T) {
	p := public(t, &fakeService{}, time.Now)
	for _, path := range []string{"/status", "/status/api/v2/summary.json"} {
		if w := visit(t, p, "GET", path); w.Code != http.StatusNotFound {
			t.Errorf("%s answers %d: %s", path, w.Code, w.Body)
		}
	}
}

func TestWordsForThePublicShowAsPlainText(t *testing.T) {
	evil := `<script>alert(1)</script>` + "\u202e\x1b[31m" + strings.Repeat("x", 10_000)
	f := &fakeService{public: view.PublicPage{
		Components: []view.PublicPart{{Name: evil, Description: evil, Status: "operational"}},
		Open: []remediation.PublicIncident{{Name: evil, Impact: remediation.ImpactMajor, Status: "identified",
			Components: []remediation.PublicComponent{{Name: evil}}, Updates: []remediation.PublicUpdate{{Number: 1, Words: evil}}}},
	}}
	harmless(t, visit(t, public(t, f, time.Now), "GET", "/status").Body.String())
}

func TestThePublicPageIsServedUntilItIsToldToEnd(t *testing.T) {
	s := newTestService(t)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	ended := make(chan error, 1)
	go func() { ended <- ServePublic(ctx, public(t, s.engine, s.clock), slog.New(slog.DiscardHandler), l) }()
	r, err := http.Get("http://" + l.Addr().String() + "/status") //nolint:noctx // of a test
	if err != nil {
		t.Fatal(err)
	}
	if body := drain(t, r); r.StatusCode != http.StatusOK || !strings.Contains(body, "Everything works") {
		t.Error(r.StatusCode, body)
	}
	cancel()
	if err := <-ended; err != nil {
		t.Error(err)
	}
}
