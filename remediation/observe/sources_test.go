package observe

import (
	"encoding/json"
	"errors"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/common/promslog"

	"github.com/locotoki/backout/remediation"
)

// sources are those of one server that is both, and answers as handler does.
func sources(t *testing.T, handler http.HandlerFunc) *Sources {
	t.Helper()
	srv := httptest.NewServer(handler)
	t.Cleanup(srv.Close)
	transport := &http.Transport{}
	t.Cleanup(transport.CloseIdleConnections)
	s, err := NewSources(SourcesOptions{
		Prometheus: srv.URL + "/prom", Alertmanager: srv.URL + "/am", Timeout: patience, Now: time.Now, Logger: promslog.NewNopLogger(),
		Transport: transport,
	})
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func say(t *testing.T, w http.ResponseWriter, body string) {
	t.Helper()
	w.Header().Set("Content-Type", "application/json")
	if _, err := w.Write([]byte(body)); err != nil {
		t.Logf("client went away: %v", err)
	}
}

func TestLoadedRulesAreReadAsPrometheusTellsThem(t *testing.T) {
	s := sources(t, func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path != "/prom/api/v1/rules" {
			t.Errorf("asked %s", r.URL.Path)
		}
		say(t, w, `{"status":"success","data":{"groups":[{"name":"shop","file":"f","interval":15,"rules":[
			{"type":"recording","name":"backout:alive","query":"up","labels":{"service":"shop"},"health":"ok","evaluationTime":0,"lastEvaluation":"2026-01-01T00:00:00Z"},
			{"type":"alerting","name":"Rollback","query":"x > 1","duration":90,"labels":{"trigger":"e"},"annotations":{"summary":"s"},"alerts":[],"health":"err","lastError":"no","state":"inactive","evaluationTime":0,"lastEvaluation":"2026-01-01T00:00:00Z"}]}]}}`)
	})
	all, err := s.Rules(t.Context())
	if err != nil || len(all) != 2 {
		t.Fatalf("%+v, %v", all, err)
	}
	if r := all[0]; r.Group != "shop" || r.Name != "backout:alive" || r.Alert || r.Expr != "up" || r.Labels["service"] != "shop" || r.Error != "" {
		t.Errorf("the recording is %+v", r)
	}
	if r := all[1]; !r.Alert || r.For != 90*time.Second || r.Labels["trigger"] != "e" || r.Annotations["summary"] != "s" || r.Error != "no" {
		t.Errorf("the alert is %+v", r)
	}
}

func TestTheLongestScrapeIntervalOfAJobIsTold(t *testing.T) {
	s := sources(t, func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path != "/prom/api/v1/targets" {
			t.Errorf("asked %s", r.URL.Path)
		}
		say(t, w, `{"status":"success","data":{"droppedTargets":[],"activeTargets":[
			{"discoveredLabels":{"__scrape_interval__":"15s"},"labels":{"job":"shop","instance":"a"},"lastScrape":"2026-01-01T00:00:00Z"},
			{"discoveredLabels":{"__scrape_interval__":"1m"},"labels":{"job":"node","instance":"a"},"lastScrape":"2026-01-01T00:00:00Z"},
			{"discoveredLabels":{"__scrape_interval__":"30s"},"labels":{"job":"node","instance":"b"},"lastScrape":"2026-01-01T00:00:00Z"}]}}`)
	})
	got, err := s.ScrapeIntervals(t.Context())
	if err != nil || len(got) != 2 || got["shop"] != 15*time.Second || got["node"] != time.Minute {
		t.Errorf("%v, %v", got, err)
	}
}

func TestAnotherClockIsReadFromAnAnswersDate(t *testing.T) {
	s := sources(t, func(w http.ResponseWriter, r *http.Request) {
		at := time.Now()
		if strings.HasPrefix(r.URL.Path, "/am/") {
			at = at.Add(-10 * time.Minute)
		}
		w.Header().Set("Date", at.UTC().Format(http.TimeFormat))
	})
	all := s.Clocks(t.Context())
	if len(all) != 2 || all[0].Err != nil || all[0].Ahead.Abs() > time.Minute {
		t.Errorf("prometheus's: %+v", all)
	}
	if late := all[1].Ahead + 10*time.Minute; all[1].Of != "alertmanager" || all[1].Err != nil || late.Abs() > time.Minute {
		t.Errorf("alertmanager's: %+v", all[1])
	}
}

func TestADrillAlertIsPostedAsAlertmanagerTakesIt(t *testing.T) {
	until := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	status := http.StatusOK
	s := sources(t, func(w http.ResponseWriter, r *http.Request) {
		var alerts []struct {
			Labels map[string]string
			EndsAt time.Time
		}
		if err := json.NewDecoder(r.Body).Decode(&alerts); err != nil || r.Method != http.MethodPost || r.URL.Path != "/am/api/v2/alerts" {
			t.Errorf("%s %s: %v", r.Method, r.URL.Path, err)
		}
		if len(alerts) != 1 || alerts[0].Labels["drill"] != "true" || !alerts[0].EndsAt.Equal(until) {
			t.Errorf("posted %+v", alerts)
		}
		w.WriteHeader(status)
	})
	drill := map[string]string{"alertname": "Rollback", "drill": "true"}
	if err := s.RaiseAlert(t.Context(), drill, until); err != nil {
		t.Error(err)
	}
	status = http.StatusBadRequest
	if err := s.RaiseAlert(t.Context(), drill, until); err == nil || errors.Is(err, remediation.ErrNoAnswer) || !strings.Contains(err.Error(), "400") {
		t.Errorf("refused: %v", err)
	}
}

func TestWhatDoesNotAnswerTellsNothing(t *testing.T) {
	s := sources(t, func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) })
	_, err := s.Rules(t.Context())
	_, verr := s.LabelValues(t.Context(), "x_bucket", "le")
	_, perr := s.Page(t.Context(), strings.TrimSuffix(s.alerts, "/am/api/v2/alerts")+"/d/x")
	_, ierr := s.ScrapeIntervals(t.Context())
	for _, err := range []error{err, verr, perr, ierr, s.Clocks(t.Context())[0].Err, s.RaiseAlert(t.Context(), nil, time.Now())} {
		if !errors.Is(err, remediation.ErrNoAnswer) {
			t.Errorf("error is %v", err)
		}
	}
	if _, err := s.Page(t.Context(), "file:///etc/passwd"); err == nil {
		t.Error("a file is asked for")
	}
}
