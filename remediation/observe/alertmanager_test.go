package observe

import (
	"fmt"
	"maps"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
)

// testLimit is far below the real one, so that going past it is quick.
const testLimit = 1 << 16

// fakeAlertmanager answers /prefix/api/v2/alerts as its OpenAPI document has it.
func fakeAlertmanager(t *testing.T, status int, contentType, body string) *Alertmanager {
	t.Helper()
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method != http.MethodGet || r.URL.Path != "/prefix/api/v2/alerts" {
			t.Errorf("request is %s %s", r.Method, r.URL.Path)
		}
		for _, want := range []string{"active", "silenced", "inhibited", "unprocessed"} {
			if r.URL.Query().Get(want) != "true" {
				t.Errorf("%s alerts are not asked for", want)
			}
		}
		w.Header().Set("Content-Type", contentType)
		w.WriteHeader(status)
		if _, err := w.Write([]byte(body)); err != nil {
			t.Logf("client went away: %v", err)
		}
	}))
	t.Cleanup(srv.Close)
	return testAlertmanager(t, srv.URL+"/prefix")
}

func testAlertmanager(t *testing.T, address string) *Alertmanager {
	t.Helper()
	transport := &http.Transport{}
	t.Cleanup(transport.CloseIdleConnections)
	a, err := newAlertmanager(address, patience, bounded{next: transport, max: testLimit})
	if err != nil {
		t.Fatal(err)
	}
	return a
}

// gettable is one alert of the list, in the shape of 0.25; muted adds what
// newer ones have.
func gettable(fingerprint, state, silencedBy, inhibitedBy, muted string) string {
	return fmt.Sprintf(`{"annotations":{},"endsAt":"2026-01-01T00:05:00.000Z","fingerprint":%q,"receivers":[{"name":"backout"}],
		"startsAt":"2026-01-01T00:00:00.000Z","status":{"inhibitedBy":[%s],%s"silencedBy":[%s],"state":%q},
		"updatedAt":"2026-01-01T00:00:00.000Z","labels":{"alertname":"X"}}`, fingerprint, inhibitedBy, muted, silencedBy, state)
}

func TestSilencedTellsWhatAPersonSilenced(t *testing.T) {
	list := "[" + strings.Join([]string{
		gettable("aaaa", "active", "", "", ""),
		gettable("bbbb", "suppressed", `"2b1e3c"`, "", `"mutedBy":[],`),
		gettable("cccc", "suppressed", "", `"aaaa"`, ""),
		gettable("dddd", "suppressed", "", "", `"mutedBy":["nights"],`),
		gettable("eeee", "suppressed", `"2b1e3c"`, "", ""),
	}, ",") + "]\n"
	a := fakeAlertmanager(t, 200, "application/json", list)
	got, err := a.Silenced(t.Context(), []string{"aaaa", "bbbb", "cccc", "dddd", "unknown"})
	if err != nil {
		t.Fatal(err)
	}
	want := map[string]bool{"aaaa": false, "bbbb": true, "cccc": false, "dddd": false}
	if !maps.Equal(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
}

func TestNoAlertsMeansNoneIsKnown(t *testing.T) {
	got, err := fakeAlertmanager(t, 200, "application/json; charset=utf-8", "[]").Silenced(t.Context(), []string{"aaaa"})
	if err != nil || len(got) != 0 {
		t.Errorf("got %v, %v", got, err)
	}
}

func TestNoFingerprintsAskNothing(t *testing.T) {
	got, err := testAlertmanager(t, "http://127.0.0.1:1").Silenced(t.Context(), nil)
	if err != nil || len(got) != 0 {
		t.Errorf("got %v, %v", got, err)
	}
}

func TestSilencedRefusesWhatItDoesNotUnderstand(t *testing.T) {
	one := gettable("aaaa", "active", "", "", "")
	for name, tc := range map[string]struct {
		status            int
		contentType, body string
		word              string
	}{
		"an error":               {500, "application/json", `"oops"`, "500"},
		"another program":        {404, "text/plain", "404", "404"},
		"a login page":           {200, "text/html", "<html>", "not JSON"},
		"an object":              {200, "application/json", `{"alerts":[]}`, "begins with {"},
		"nothing":                {200, "application/json", "", "cannot be decoded"},
		"a list cut off":         {200, "application/json", "[" + one, "cut off"},
		"an alert cut off":       {200, "application/json", "[" + one[:40], "cannot be decoded"},
		"an alert without state": {200, "application/json", `[{"fingerprint":"aaaa"}]`, "no fingerprint or no status"},
		"too much": {
			200, "application/json",
			`[{"annotations":{"a":"` + strings.Repeat("x", testLimit) + `"}}]`, "larger than the limit",
		},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := fakeAlertmanager(t, tc.status, tc.contentType, tc.body).Silenced(t.Context(), []string{"aaaa"})
			if err == nil {
				t.Fatalf("got %v, want an error", got)
			}
			if !strings.Contains(err.Error(), tc.word) || !strings.HasPrefix(err.Error(), "alertmanager at http://") {
				t.Errorf("error %q does not name the server and %q", err, tc.word)
			}
		})
	}
}
