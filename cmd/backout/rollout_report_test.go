package main

import (
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/locotoki/backout/cmd/backout/terminal"
)

// wholeReport has one of each, with words that are long, and some that a terminal obeys.
const wholeReport = `{"service":"social-intel","release":"v2.0.0","previous":"v1.0.0","state":"soaking","stage":"full","made":"2026-01-02T15:05:00Z",
 "started":"2025-12-25T15:04:05Z","ended":null,"cut":false,"ended_by":"","ended_why":"","started_by":"oncall","why":"the holidays are quiet \u001b[2J and so is the traffic of all of our larger customers","declared":false,
 "stages":[
  {"stage":"alpha","traffic":"0.01","from":"2025-12-25T15:04:05Z","to":"2025-12-26T15:04:05Z","by":"oncall","why":"canary","judged":[],"forced":[]},
  {"stage":"full","traffic":"1","from":"2025-12-26T15:04:05Z","to":null,"by":"ann","why":"in haste","judged":[
   {"gate":"criterion error_rate","ok":true,"why":"error_rate is 0.0001, which is below 0.001"},{"gate":"duration","ok":false,"why":"stage alpha lasts"}],"forced":["duration"]}],
 "holds":[{"what":"held","from":"2025-12-25T16:00:00Z","to":"2025-12-25T17:30:00Z","by":"eve","why":"waiting"},
  {"what":"promotion refused","from":"2025-12-25T18:00:00Z","to":"2025-12-25T18:00:00Z","by":"engine","why":"error_rate has no value"}],
 "incidents":[{"id":"inc-1","triggers":["error_rate"],"opened":"2025-12-27T10:00:00Z","closed":"2025-12-27T10:20:00Z","state":"closed",
  "steps":[{"id":"1-flag_off","action":"flag_off","target":"t","risk":"reversible","state":"no_change","started":null,"finished":null}],"recovered":"2025-12-27T10:04:30Z"}],
 "signals":[{"time":"2025-12-27T09:00:00Z","signal":"p1-error","raised":true,"by":"ann","why":"page"}],
 "success":[
  {"area":"performance","text":"Error rate < 0.1% sustained over 7 days","state":"not_met","unit":"ratio","value":0.002,"threshold":0.001,"bound":"below","over":"7d","indicator":"error_rate"},
  {"area":"performance","text":"p95","state":"not_asked","why":"connection refused","unit":"seconds","value":null,"threshold":0.5,"bound":"below","over":"1d","indicator":"p95"},
  {"area":"adoption","text":"Repeat usage rate > 60%","state":"unsigned","item":"success/repeat-usage-rate-60","owner":"Rollout Lead","signed":null},
  {"area":"business","text":"NPS","state":"signed","item":"success/nps","owner":"Rollout Lead","signed":{"item":"success/nps","release":"v2.0.0","by":"Ada","actor":"eve","reason":"survey 12","time":"2026-01-01T10:00:00Z"}}],
 "smoke":[{"name":"trends","ok":false,"detail":"http://127.0.0.1:9000/trends answers 500, want 200"}],
 "tasks":[{"id":"after/document-lessons-learned","name":"Document lessons learned","owner":"Rollout Lead","before":false,"result":"cannot_tell","evidence":"e","signed":null}],
 "timeline":[{"day":"T","date":"2025-12-25","activity":"1% canary deployment","owner":"DevOps","done":"2025-12-25","by":"oncall"},
  {"day":"T+10","date":"2026-01-04","activity":"Launch announcement","owner":"Marketing","done":"","by":""}]}`

func TestARolloutsReportTellsAllOfItWithinTheTerminal(t *testing.T) {
	t.Parallel()
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.String() != "/api/v1/rollout/report?service=social-intel" {
			t.Errorf("asked for %s", r.URL)
		}
		if _, err := w.Write([]byte(wholeReport)); err != nil {
			t.Error(err)
		}
	}))
	t.Cleanup(srv.Close)
	said := onTerminal(t, nil, "rollout", "report", "--service=social-intel", "--url="+srv.URL)
	if strings.ContainsRune(said, '\x1b') {
		t.Errorf("a reason reached the terminal as it is:\n%q", said)
	}
	for _, line := range strings.Split(said, "\n") {
		if terminal.Width(line) > terminal.Columns {
			t.Errorf("%d columns: %s", terminal.Width(line), line)
		}
	}
	flat := strings.Join(strings.Fields(said), " ")
	for _, want := range []string{
		"# Rollout of social-intel: release v2.0.0", "state: soaking, stage full", "started 25 Dec 2025 15:04:05 UTC by oncall: the holidays are quiet",
		"- alpha (1% of traffic): 25 Dec 2025 15:04:05 UTC to 26 Dec 2025 15:04:05 UTC (1 d) by oncall: canary",
		"- full (100% of traffic): since 26 Dec 2025 15:04:05 UTC by ann: in haste", "before it, error_rate is 0.0001, which is below 0.001",
		"forced with these gates closed: duration", "held: 25 Dec 2025 16:00:00 UTC to 25 Dec 2025 17:30:00 UTC (1 h 30 min) by eve: waiting",
		"promotion refused: 25 Dec 2025 18:00:00 UTC by engine: error_rate has no value",
		"inc-1: error_rate; 27 Dec 2025 10:00:00 UTC to 27 Dec 2025 10:20:00 UTC (20 min), closed", "1-flag_off: no change", "recovered 27 Dec 2025 10:04:30 UTC, after 4 min 30 s",
		"p1-error raised 27 Dec 2025 09:00:00 UTC by ann: page", "NOT MET (0.2%, must be below 0.1% over 7 d)", "p95: not checked: connection refused (must be below 500 ms over 1 d)",
		"not signed (Rollout Lead); try: backout preflight sign success/repeat-usage-rate-60 --service=social-intel --by=NAME --reason=WHY",
		"NPS: signed by Ada 1 Jan 2026 10:00:00 UTC: survey 12", "trends: FAILED: http://127.0.0.1:9000/trends answers 500, want 200",
		"Document lessons learned: not signed (Rollout Lead)", "T, 1% canary deployment (DevOps), planned 25 Dec 2025: done 25 Dec 2025 by oncall",
		"T+10, Launch announcement (Marketing), planned 4 Jan 2026: unknown",
	} {
		if !strings.Contains(flat, want) {
			t.Errorf("the report says nothing of %q:\n%s", want, said)
		}
	}
}
