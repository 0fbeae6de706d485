package main

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/locotoki/backout/cmd/backout/terminal"
	"github.com/locotoki/backout/remediation/view"
)

// pastPrometheus answers range queries: the error rate is 5% in two minutes of 2026-01-01
// at noon, and 0.1% else; the service is up, and the other indicators have no series.
func pastPrometheus(t *testing.T) string {
	t.Helper()
	noon := time.Date(2026, 1, 1, 12, 0, 0, 0, time.UTC).Unix()
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if err := r.ParseForm(); err != nil || r.URL.Path != "/api/v1/query_range" {
			t.Errorf("request %s: %v", r.URL, err)
		}
		start, _ := strconv.ParseFloat(r.Form.Get("start"), 64)
		end, _ := strconv.ParseFloat(r.Form.Get("end"), 64)
		step, _ := strconv.ParseFloat(r.Form.Get("step"), 64)
		expr := r.Form.Get("query")
		var values []string
		known := strings.Contains(expr, "si_requests_total") || strings.Contains(expr, "up{") || expr == "vector(1)"
		for at := int64(start); known && at <= int64(end); at += int64(step) {
			v := 1.0
			if strings.Contains(expr, "status!=") {
				if v = 0.001; at >= noon && at < noon+120 {
					v = 0.05
				}
			} else if strings.HasPrefix(expr, "time()") {
				v = 3
			}
			values = append(values, fmt.Sprintf(`[%d,"%g"]`, at, v))
		}
		series := fmt.Sprintf(`{"metric":{},"values":[%s]}`, strings.Join(values, ","))
		if len(values) == 0 {
			series = ""
		}
		w.Header().Set("Content-Type", "application/json")
		fmt.Fprintf(w, `{"status":"success","data":{"resultType":"matrix","result":[%s]}}`, series) //nolint:errcheck // the client sees it
	}))
	t.Cleanup(srv.Close)
	return srv.URL
}

func TestABacktestIsPrintedInEachForm(t *testing.T) {
	t.Parallel()
	url := pastPrometheus(t)
	env := map[string]string{"HOME": t.TempDir()}
	run := func(args ...string) string {
		t.Helper()
		r := backout(t, env, append([]string{"backtest", "--url=" + url, "--from=2026-01-01T00:00:00Z", "--to=1h"}, args...)...)
		if r.status != statusFine || r.stderr != "backout: no --playbook.file: this is the built-in example, the playbook of social-intel\n" {
			t.Fatalf("%v: status %d: %s", args, r.status, r.stderr)
		}
		return r.stdout
	}
	text := run()
	for _, want := range []string{
		"error_rate would have rolled back 1 time in", "## Incidents", "would have run 2-flag_off immediately", "ended by itself after",
		"### error_rate: above 1% over 15 min", "2026-01-01 12:00:00 for 2 min, inc-1, worst 5%", "not judged: no rollout is known",
	} {
		if !strings.Contains(strings.Join(strings.Fields(text), " "), want) {
			t.Errorf("the text does not say %q:\n%s", want, text)
		}
	}
	for line := range strings.Lines(text) {
		if utf8.RuneCountInString(strings.TrimRight(line, "\n")) > terminal.Columns {
			t.Errorf("wider than %d columns: %s", terminal.Columns, line)
		}
	}
	var report view.Backtest
	if err := json.Unmarshal([]byte(run("--output=json", "--stage=gamma")), &report); err != nil {
		t.Fatal(err)
	}
	if report.StagesFrom != view.StagesGiven || len(report.Incidents) != 1 || len(report.Incidents[0].Triggers) != 2 {
		t.Errorf("in the stage gamma: %s, %+v", report.StagesFrom, report.Incidents)
	}
	if md := run("--output=markdown"); !strings.Contains(md, "| error_rate | 1 | 2 min |") {
		t.Errorf("no table of Markdown:\n%s", md)
	}
	page := run("--output=html")
	if n := strings.Count(page, "<svg"); n != 2 || strings.Contains(page, "http-equiv") || strings.Contains(page, `src="`) || strings.Contains(page, `href="`) {
		t.Errorf("the page has %d plots, and must need nothing from elsewhere", n)
	}
	if _, err := os.Stat(filepath.Join(env["HOME"], ".cache", "backout", "backtest")); err != nil {
		t.Errorf("nothing is cached: %v", err)
	}
}

func TestABacktestRefusesWhatItCannotReplay(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	list := filepath.Join(dir, "rollouts.yaml")
	if err := os.WriteFile(list, []byte("- {stages: [{stage: omega, from: 2026-01-01T00:00:00Z}], ended: 2026-01-02T00:00:00Z}\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	env := map[string]string{"HOME": dir}
	refusing := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusUnauthorized) }))
	t.Cleanup(refusing.Close)
	for name, tc := range map[string]struct {
		env  map[string]string
		args []string
		want string
	}{
		"a stage that is none":       {env, []string{"--stage=omega"}, `has no stage "omega"`},
		"a list with a wrong stage":  {env, []string{"--assume-rollouts=" + list}, `no stage "omega"`},
		"no file":                    {env, []string{"--assume-rollouts=" + list + "x"}, "--assume-rollouts: "},
		"a time that is none":        {env, []string{"--from=yesterday"}, "--from: \"yesterday\" is neither a time nor a duration"},
		"an end before the begin":    {env, []string{"--from=1d", "--to=2d"}, "is not before"},
		"too much load":              {env, []string{"--max-load=3"}, "use a number from 0.05 to 2"},
		"an address that is none":    {env, []string{"--url=localhost"}, "not an http or https address"},
		"two playbooks":              {env, []string{"--playbook.file=../../docs/reference/playbook.yaml", "--playbook.file=../../testdata/playbooks/good/smoke-checks.yaml"}, "one playbook, and 2 are given"},
		"nowhere to keep the values": {nil, nil, "neither XDG_CACHE_HOME nor HOME is set"},
		"nobody who answers":         {env, []string{"--url=http://127.0.0.1:1"}, "try: --url=URL of a Prometheus that answers"},
		"a token that is refused":    {env, []string{"--url=" + refusing.URL}, "try: http_config or headers below prometheus: in --config.file\n"},
		"a time without evaluation":  {env, []string{"--from=2026-01-01T00:00:01Z", "--to=2026-01-01T00:00:02Z"}, "no evaluation lies between"},
		"the future":                 {env, []string{"--from=2126-01-01T00:00:00Z"}, "is in the future"},
	} {
		t.Run(name, func(t *testing.T) {
			r := backout(t, tc.env, append([]string{"backtest"}, tc.args...)...)
			if r.status != statusWrong || !strings.Contains(r.stderr, tc.want) || r.stdout != "" {
				t.Errorf("status %d, %q; want %q", r.status, r.stderr, tc.want)
			}
		})
	}
}

func TestAScenarioWithoutAPlaybookSaysThatItRunsTheExample(t *testing.T) {
	t.Parallel()
	r := backout(t, nil, "test", "../../testdata/scenarios/drill.yaml", "../../testdata/scenarios/observe.yaml")
	if r.status != statusFine || !strings.Contains(r.stderr, "backout: 2 scenarios without the key playbook: this is the built-in example, the playbook of social-intel\n") {
		t.Errorf("status %d: %s", r.status, r.stderr)
	}
}
