package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/model/histogram"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/promql"
	"github.com/prometheus/prometheus/promql/parser"
	"github.com/prometheus/prometheus/storage"
	"github.com/prometheus/prometheus/tsdb/chunkenc"
	"github.com/prometheus/prometheus/tsdb/chunks"
	"github.com/prometheus/prometheus/util/annotations"
	"github.com/rogpeppe/go-internal/txtar"

	"github.com/locotoki/backout/docs"
	"github.com/locotoki/backout/remediation/view"
)

// exported is a series as a test's file has it: a gauge, or a counter with its mean rate.
// Counters follow the day: at noon twice as fast as in the evening.
type exported struct {
	labels  labels.Labels
	value   float64
	counter bool
	steady  bool // a counter that does not follow the day
	// From at on, for so long, it is more times as high, in seconds.
	more, from, lasts float64
	since             float64 // its first sample, in seconds
}

// at is the value at a time in seconds.
func (s exported) at(t float64) float64 {
	const day = 86400
	bad := min(max(t-s.from, 0), s.lasts)
	switch {
	case !s.counter && bad > 0 && bad < s.lasts:
		return s.value * s.more
	case !s.counter:
		return s.value
	case s.steady:
		return s.value * t
	}
	return s.value * ((s.more-1)*bad + t + 0.5*day/(2*math.Pi)*(1-math.Cos(2*math.Pi*t/day)))
}

var exportedLine = regexp.MustCompile(`^([a-zA-Z_:]+\{.*\}) ([0-9.e-]+)(/s)?(?: x([0-9.]+) at ([0-9a-z]+) for ([0-9a-z]+))?$`)

// readExported reads lines such as requests_total{job="shop",code="200"} 10/s, which
// can end with x3 at 100h for 30m: from that hour on it is three times as high.
func readExported(t *testing.T, text string) []exported {
	t.Helper()
	var all []exported
	for _, line := range strings.Split(strings.TrimSpace(text), "\n") {
		m := exportedLine.FindStringSubmatch(line)
		if m == nil {
			t.Fatalf("not a series: %s", line)
		}
		ls, err := parser.NewParser(parser.Options{}).ParseMetric(m[1])
		if err != nil {
			t.Fatalf("%s: %v", line, err)
		}
		value, err := strconv.ParseFloat(m[2], 64)
		if err != nil {
			t.Fatalf("%s: %v", line, err)
		}
		s := exported{labels: ls, value: value, counter: m[3] != "", more: 1}
		if m[4] != "" {
			var errs [3]error
			var from, lasts time.Duration
			s.more, errs[0] = strconv.ParseFloat(m[4], 64)
			from, errs[1] = time.ParseDuration(m[5])
			lasts, errs[2] = time.ParseDuration(m[6])
			if err := errors.Join(errs[:]...); err != nil {
				t.Fatalf("%s: %v", line, err)
			}
			s.from, s.lasts = from.Seconds(), lasts.Seconds()
		}
		all = append(all, s)
	}
	return all
}

const week, scraped = 7 * 24 * time.Hour, time.Minute

// selectExported is the storage's part of a query: the series with a sample each minute of the
// last week, which ends at the time week.
func selectExported(all []exported, from, to int64, matchers []*labels.Matcher) storage.SeriesSet {
	var found []storage.Series
	for _, s := range all {
		if slices.ContainsFunc(matchers, func(m *labels.Matcher) bool { return !m.Matches(s.labels.Get(m.Name)) }) {
			continue
		}
		var samples []chunks.Sample
		step := scraped.Milliseconds()
		for t := (max(from, int64(1000*s.since)) + step - 1) / step * step; t <= min(to, week.Milliseconds()); t += step {
			samples = append(samples, sampleAt{t, s.at(float64(t) / 1000)})
		}
		found = append(found, storage.NewListSeries(s.labels, samples))
	}
	return &seriesSet{series: found}
}

type seriesSet struct {
	series []storage.Series
	next   int
}

func (s *seriesSet) Next() bool                        { s.next++; return s.next <= len(s.series) }
func (s *seriesSet) At() storage.Series                { return s.series[s.next-1] }
func (s *seriesSet) Err() error                        { return nil }
func (s *seriesSet) Warnings() annotations.Annotations { return nil }

// sampleAt is a chunks.Sample of a float.
type sampleAt struct {
	t int64
	v float64
}

func (s sampleAt) T() int64                      { return s.t }
func (s sampleAt) ST() int64                     { return 0 }
func (s sampleAt) F() float64                    { return s.v }
func (s sampleAt) H() *histogram.Histogram       { return nil }
func (s sampleAt) FH() *histogram.FloatHistogram { return nil }
func (s sampleAt) Type() chunkenc.ValueType      { return chunkenc.ValFloat }
func (s sampleAt) Copy() chunks.Sample           { return s }

// fakePrometheus answers instant and range queries as Prometheus does, by its own engine,
// and refuses anything else. Like Thanos it has no targets.
func fakePrometheus(t *testing.T, all []exported) string {
	t.Helper()
	engine := promql.NewEngine(promql.EngineOpts{
		MaxSamples: 50_000_000, Timeout: time.Minute, Parser: parser.NewParser(parser.Options{}), EnableAtModifier: true, EnableNegativeOffset: true,
		NoStepSubqueryIntervalFn: func(int64) int64 { return scraped.Milliseconds() },
	})
	t.Cleanup(func() {
		if err := engine.Close(); err != nil {
			t.Error(err)
		}
	})
	series := &storage.MockQueryable{MockQuerier: &storage.MockQuerier{
		SelectMockFunction: func(_ bool, hints *storage.SelectHints, matchers ...*labels.Matcher) storage.SeriesSet {
			return selectExported(all, hints.Start, hints.End, matchers)
		},
	}}
	options := promql.NewPrometheusQueryOpts(false, 0, nil)
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/prom/api/v1/targets" {
			http.NotFound(w, r)
			return
		}
		w.Header().Set("Content-Type", "application/json")
		body, err := io.ReadAll(r.Body)
		if err != nil {
			t.Error(err)
		}
		form, err := url.ParseQuery(string(body))
		if r.Method != http.MethodPost || r.URL.RawQuery != "" || r.Header.Get("Content-Type") != "application/x-www-form-urlencoded" || err != nil || len(form["query"]) != 1 || form.Has("time") {
			t.Errorf("not a query: %s %s %v %v", r.Method, r.URL, r.Header, form)
		}
		var q promql.Query
		switch r.URL.Path {
		case "/prom/api/v1/query":
			q, err = engine.NewInstantQuery(r.Context(), series, options, form.Get("query"), time.UnixMilli(week.Milliseconds()))
		case "/prom/api/v1/query_range":
			at := func(key string) time.Time {
				seconds, err := strconv.ParseFloat(form.Get(key), 64)
				if err != nil {
					t.Errorf("%s: %v", key, err)
				}
				return time.UnixMilli(int64(seconds * 1000))
			}
			q, err = engine.NewRangeQuery(r.Context(), series, options, form.Get("query"), at("start"), at("end"), at("step").Sub(time.UnixMilli(0)))
		default:
			err = fmt.Errorf("nothing is at %s", r.URL.Path)
		}
		if err != nil {
			t.Errorf("%s: %v", form.Get("query"), err)
			w.WriteHeader(http.StatusBadRequest)
			return
		}
		defer q.Close()
		result := q.Exec(r.Context())
		if result.Err != nil {
			if r.Context().Err() == nil {
				t.Errorf("%s: %v", form.Get("query"), result.Err)
			}
			w.WriteHeader(http.StatusUnprocessableEntity)
			return
		}
		answer, err := json.Marshal(map[string]any{"status": "success", "data": answerOf(result)})
		if err != nil {
			t.Error(err)
		}
		if _, err := w.Write(answer); err != nil {
			t.Logf("client went away: %v", err)
		}
	}))
	t.Cleanup(srv.Close)
	return srv.URL + "/prom"
}

// answerOf is a result as Prometheus's API writes it.
func answerOf(r *promql.Result) map[string]any {
	metric := func(ls labels.Labels) model.Metric {
		m := model.Metric{}
		ls.Range(func(l labels.Label) { m[model.LabelName(l.Name)] = model.LabelValue(l.Value) })
		return m
	}
	vector, matrix := model.Vector{}, model.Matrix{}
	switch v := r.Value.(type) {
	case promql.Vector:
		for _, s := range v {
			vector = append(vector, &model.Sample{Metric: metric(s.Metric), Value: model.SampleValue(s.F), Timestamp: model.Time(s.T)})
		}
	case promql.Matrix:
		for _, s := range v {
			stream := &model.SampleStream{Metric: metric(s.Metric)}
			for _, p := range s.Floats {
				stream.Values = append(stream.Values, model.SamplePair{Timestamp: model.Time(p.T), Value: model.SampleValue(p.F)})
			}
			matrix = append(matrix, stream)
		}
		return map[string]any{"resultType": "matrix", "result": matrix}
	}
	return map[string]any{"resultType": "vector", "result": vector}
}

// A case of testdata/init has a compose project below project/, the arguments besides,
// the series of Prometheus (metrics, none: no --prometheus), and what init writes.
func TestInitWritesAPlaybookThatCheckAccepts(t *testing.T) {
	cases, err := filepath.Glob("../../testdata/init/*.txtar")
	if err != nil || len(cases) == 0 {
		t.Fatalf("no cases: %v", err)
	}
	schema := compileSchema(t, docs.PlaybookSchema)
	for _, name := range cases {
		t.Run(strings.TrimSuffix(filepath.Base(name), ".txtar"), func(t *testing.T) {
			archive, err := txtar.ParseFile(name)
			if err != nil {
				t.Fatal(err)
			}
			dir := t.TempDir()
			out := filepath.Join(dir, "playbook.yaml")
			args := []string{"init", "--project-dir=" + dir + "/project", "--out=" + out}
			var want, refused *txtar.File
			prometheus := ""
			for i := range archive.Files {
				switch f := &archive.Files[i]; {
				case strings.HasPrefix(f.Name, "project/"):
					file := filepath.Join(dir, f.Name)
					if err := os.MkdirAll(filepath.Dir(file), 0o700); err != nil {
						t.Fatal(err)
					}
					secretFile(t, file, string(f.Data))
				case f.Name == "args":
					args = append(args, strings.Fields(string(f.Data))...)
				case f.Name == "metrics":
					prometheus = fakePrometheus(t, readExported(t, string(f.Data)))
					args = append(args, "--prometheus="+prometheus)
				case f.Name == "playbook.yaml":
					want = f
				case f.Name == "refused":
					refused = f
				}
			}
			r := backout(t, nil, args...)
			if r.status != 0 {
				t.Fatalf("init: %d %s", r.status, r.stderr)
			}
			source, err := os.ReadFile(out)
			if err != nil {
				t.Fatal(err)
			}
			place := strings.NewReplacer(dir+"/project", "/srv/project", prometheus, "http://prometheus:9090", dir+"/", "")
			if prometheus == "" {
				place = strings.NewReplacer(dir+"/project", "/srv/project", dir+"/", "")
			}
			compareInit(t, archive, name, want, place.Replace(string(source)))

			checked := backout(t, nil, "check", "--playbook.file="+out)
			if refused != nil {
				compareInit(t, archive, name, refused, place.Replace(checked.stderr))
				if checked.status != statusWrong {
					t.Errorf("check exits %d", checked.status)
				}
				return
			}
			if checked.status != 0 || !warnsOfNobodyOnly(checked.stdout) {
				t.Errorf("check: %d\n%s%s", checked.status, checked.stdout, checked.stderr)
			}
			if err := bySchema(schema, source); err != nil {
				t.Error(err)
			}
			if prometheus != "" {
				quietWeek(t, out, prometheus)
			}
			if r := backout(t, nil, args...); r.status != statusWrong || !strings.Contains(r.stderr, "already exists") {
				t.Errorf("a second init: %d %s", r.status, r.stderr)
			}
		})
	}
}

// quietWeek fails the test if a playbook fires in the week that its bounds come from, or has a
// trigger that had no value then.
func quietWeek(t *testing.T, playbook, prometheus string) {
	t.Helper()
	var report view.Backtest
	end := time.Unix(0, 0).UTC().Add(week)
	r := backout(t, nil, "backtest", "--playbook.file="+playbook, "--url="+prometheus, "--from="+end.Add(-week+time.Hour).Format(time.RFC3339), "--to="+end.Format(time.RFC3339),
		"--output=json", "--cache-dir="+t.TempDir())
	if r.status != 0 {
		t.Fatalf("backtest: %d %s", r.status, r.stderr)
	}
	if err := json.Unmarshal([]byte(r.stdout), &report); err != nil {
		t.Fatal(err)
	}
	for _, a := range report.Alerts {
		t.Log(a.Verdict)
		if len(a.Firings) > 0 || a.Indicator != "" && len(a.Stages) == 0 && a.NoData > a.Judged/2 {
			t.Errorf("its own backtest: %s", a.Verdict)
		}
	}
	if len(report.Alerts) == 0 {
		t.Error("the backtest has no alert")
	}
}

// The cases have four programs; these are the others.
func TestInitKnowsMoreMetrics(t *testing.T) {
	dir := t.TempDir()
	secretFile(t, dir+"/compose.yaml", "services: {shop: {image: \"shop:${TAG:-v1.0.0}\", ports: [\"8080:8080\"]}}")
	for program, c := range map[string]struct{ counter, good, bad, histogram string }{
		"a Prometheus client":       {"http_requests_total", `status="200"`, `status="502"`, "http_request_duration_seconds"},
		"OpenTelemetry":             {"http_server_request_duration_seconds_count", `http_response_status_code="200"`, `http_response_status_code="500"`, "http_server_request_duration_seconds"},
		"OpenTelemetry before 1.21": {"http_server_duration_milliseconds_count", `http_status_code="200"`, `http_status_code="500"`, "http_server_duration_milliseconds"},
		"django-prometheus":         {"django_http_responses_total_by_status_total", `status="200"`, `status="500"`, "django_http_requests_latency_including_middlewares_seconds"},
		"micrometer":                {"http_server_requests_seconds_count", `status="200"`, `status="500"`, "http_server_requests_seconds"},
	} {
		t.Run(program, func(t *testing.T) {
			t.Parallel()
			lines := []string{`up{job="shop"} 1`, c.counter + `{job="shop",` + c.good + `} 99/s`, c.counter + `{job="shop",` + c.bad + `} 1/s`,
				`redis_memory_used_bytes{job="redis"} 5`, `redis_memory_max_bytes{job="redis"} 10`}
			for le, rate := range map[string]float64{"1": 10, "5": 50, "10": 97, "25": 99, "50": 99.9, "+Inf": 100} {
				lines = append(lines, fmt.Sprintf(`%s_bucket{job="shop",le=%q} %g/s`, c.histogram, le, rate))
			}
			if c.counter != c.histogram+"_count" {
				lines = append(lines, c.histogram+`_count{job="shop"} 100/s`)
			}
			out := filepath.Join(t.TempDir(), "playbook.yaml")
			r := backout(t, nil, "init", "--project-dir="+dir, "--service=shop", "--prometheus="+fakePrometheus(t, readExported(t, strings.Join(lines, "\n"))), "--out="+out)
			text, err := os.ReadFile(out)
			if r.status != 0 || err != nil {
				t.Fatalf("init: %d %s %v", r.status, r.stderr, err)
			}
			for _, want := range []string{
				"The metrics are those of " + program + ".", "target: 0.01 # guessed: in the last 7 days 99% of the values were at most 1%",
				"buckets: [1, 5, 10, 25, 50]", "max(redis_memory_used_bytes{$redis}", "were at most 50%",
			} {
				if !strings.Contains(string(text), want) {
					t.Errorf("no %q in\n%s", want, text)
				}
			}
			if r := backout(t, nil, "check", "--playbook.file="+out); r.status != 0 || !warnsOfNobodyOnly(r.stdout) {
				t.Errorf("check: %d %s%s", r.status, r.stdout, r.stderr)
			}
		})
	}
}

// Another program that has the service's port is not the service.
func TestInitFindsTheServicesOwnJob(t *testing.T) {
	dir := t.TempDir()
	secretFile(t, dir+"/compose.yaml", "services: {web: {image: \"shop:${TAG:-v1.0.0}\", ports: [\"8080:8080\"]}}")
	const cadvisor, requests = `up{job="cadvisor",instance="host:8080"} 1`, `http_requests_total{job="JOB",instance="host:8080",code="200"} 99/s`
	for name, c := range map[string]struct {
		series []string
		want   string
	}{
		"named like it, and another has its port": {
			[]string{cadvisor, `up{job="shop-web",instance="10.0.0.5:9000"} 1`, `http_requests_total{job="shop-web",code="200"} 99/s`}, "job: shop-web # guessed",
		},
		"two have its port, one of them its metrics": {[]string{cadvisor, `up{job="front",instance="host:8080"} 1`, strings.ReplaceAll(requests, "JOB", "front")}, "job: front # guessed"},
		"two are named like it, one has metrics": {
			[]string{`up{job="postgres-web",instance="a:1"} 1`, `up{job="shop-web",instance="b:1"} 1`, `http_requests_total{job="shop-web",code="200"} 99/s`}, "job: shop-web # guessed",
		},
		"only another has its port": {[]string{cadvisor}, "job: # fill in: the Prometheus job that scrapes the service; Prometheus has cadvisor"},
	} {
		r := backout(t, nil, "init", "--project-dir="+dir, "--service=web", "--prometheus="+fakePrometheus(t, readExported(t, strings.Join(c.series, "\n"))))
		if r.status != 0 || !strings.Contains(r.stdout, "\n"+c.want) {
			t.Errorf("%s: no %q in\n%s%s", name, c.want, r.stdout, r.stderr)
		}
		if !strings.Contains(r.stderr, "backout backtest --playbook.file=FILE --url=http://127.0.0.1") {
			t.Errorf("it does not name the next step: %s", r.stderr)
		}
		var d drafted
		r = backout(t, nil, "init", "--project-dir="+dir, "--service=web", "--output=json", "--prometheus="+fakePrometheus(t, readExported(t, strings.Join(c.series, "\n"))))
		if err := json.Unmarshal([]byte(r.stdout), &d); err != nil || r.stderr != "" || !strings.Contains(d.Playbook, "\n"+c.want) || d.Guessed == 0 || d.FillIn != strings.Count(d.Playbook, " # fill in: ") {
			t.Errorf("%s: as JSON: %v: %+v, %s", name, err, d, r.stderr)
		}
	}
}

// The quantile of half an hour is that of its values, and not of the three that a step of ten minutes has.
func TestInitReadsAShortHistoryFinely(t *testing.T) {
	dir := t.TempDir()
	secretFile(t, dir+"/compose.yaml", "services: {shop: {image: \"shop:${TAG:-v1.0.0}\"}}")
	draft := func(minutes float64) string {
		all := readExported(t, "up{job=\"shop\"} 1\nhttp_requests_total{job=\"shop\",code=\"200\"} 100/s\nhttp_requests_total{job=\"shop\",code=\"500\"} 0.1/s x100 at 167h41m for 4m")
		for i := range all {
			all[i].since = week.Seconds() - 60*minutes
		}
		r := backout(t, nil, "init", "--project-dir="+dir, "--service=shop", "--prometheus="+fakePrometheus(t, all))
		if r.status != 0 {
			t.Fatalf("init: %d %s", r.status, r.stderr)
		}
		return r.stdout
	}
	m := regexp.MustCompile(`in the last (\d+) min \(all there is\) 99% of the values were at most ([0-9.]+)%, the highest ([0-9.]+)%`).FindStringSubmatch(draft(25))
	if m == nil {
		t.Fatal("it names no quantile")
	}
	var v [3]float64
	for i := range v {
		f, err := strconv.ParseFloat(m[i+1], 64)
		if err != nil {
			t.Fatal(err)
		}
		v[i] = f
	}
	// A fifth of the values have the outage in their window.
	if v[0] < 23 || v[0] > 25 || v[1] < 5 || v[2] < v[1] || v[2] > 10 {
		t.Error(m[0])
	}
	if text := draft(6); strings.Contains(text, "no value of the last 7 days") || !strings.Contains(text, "min (all there is)") {
		t.Errorf("six minutes of values:\n%s", text)
	}
}

// A job that is missing is said on the terminal, not only in the file.
func TestInitSaysThatTheJobIsMissing(t *testing.T) {
	dir := t.TempDir()
	secretFile(t, dir+"/compose.yaml", "services: {shop: {image: \"shop:${TAG:-v1.0.0}\"}}")
	prometheus := fakePrometheus(t, readExported(t, `up{job="front",instance="host:8080"} 1`))
	out := filepath.Join(t.TempDir(), "playbook.yaml")
	r := backout(t, nil, "init", "--project-dir="+dir, "--service=shop", "--prometheus="+prometheus, "--job=kiosk", "--out="+out)
	if _, err := os.Stat(out); err != nil || r.status != statusNegative || !strings.Contains(r.stderr, "Prometheus has no job kiosk; it has front") || !strings.Contains(r.stderr, "try: another --job") || !strings.Contains(r.stderr, "--url="+prometheus) {
		t.Errorf("%v %d %s", err, r.status, r.stderr)
	}
	r = backout(t, nil, "init", "--project-dir="+dir, "--service=shop", "--prometheus="+prometheus)
	if r.status != 0 || !strings.Contains(r.stderr, "none of Prometheus's jobs seems to scrape the service; it has front") || !strings.Contains(r.stderr, "--job=NAME") {
		t.Errorf("%d %s", r.status, r.stderr)
	}
}

func TestInitSaysWhatIsWrong(t *testing.T) {
	dir := t.TempDir()
	secretFile(t, dir+"/compose.yaml", "services:\n  shop: {image: \"shop:${TAG:?}\"}\n  db: {image: postgres}\n")
	for name, c := range map[string]struct {
		args  []string
		words string
	}{
		"another service":  {[]string{"--project-dir=" + dir, "--service=web"}, "try: one of db, shop"},
		"no compose file":  {[]string{"--project-dir=" + t.TempDir(), "--service=web"}, "no compose file in"},
		"no folder":        {[]string{"--project-dir=" + dir + "/none", "--service=web"}, "no compose file in"},
		"no service":       {[]string{"--project-dir=" + dir}, "--service"},
		"a bad address":    {[]string{"--project-dir=" + dir, "--service=shop", "--prometheus=prometheus:9090"}, "is not an http or https address"},
		"a file that is":   {[]string{"--project-dir=" + dir, "--service=shop", "--out=" + dir + "/compose.yaml"}, "already exists"},
		"no such folder":   {[]string{"--project-dir=" + dir, "--service=shop", "--out=" + dir + "/none/x.yaml"}, "try: mkdir -p " + dir + "/none"},
		"no configuration": {[]string{"--project-dir=" + dir, "--service=shop", "--config.file=" + dir + "/none.yml"}, "read configuration"},
	} {
		r := backout(t, nil, append([]string{"init"}, c.args...)...)
		if r.status != statusWrong || !strings.Contains(r.stderr, c.words) || r.stdout != "" {
			t.Errorf("%s: %d %s%s", name, r.status, r.stdout, r.stderr)
		}
	}
	// What a variable puts into the healthcheck's query may be a secret.
	asking := t.TempDir()
	secretFile(t, asking+"/.env", "HEALTH_TOKEN=hush-hush\n")
	secretFile(t, asking+"/compose.yaml", "services:\n  shop:\n    image: shop:v1\n    ports: ['8080:8080']\n    healthcheck: {test: 'curl -f http://localhost:8080/ready?token=${HEALTH_TOKEN}'}\n")
	if r := backout(t, nil, "init", "--project-dir="+asking, "--service=shop"); r.status != 0 || strings.Contains(r.stdout+r.stderr, "hush-hush") || !strings.Contains(r.stdout, "/ready # guessed: the healthcheck's query") {
		t.Errorf("a healthcheck with a query: %d %s%s", r.status, r.stdout, r.stderr)
	}
	// Without an answer the playbook is written all the same, with guesses; the command fails.
	r := backout(t, nil, "init", "--project-dir="+dir, "--service=shop", "--prometheus=http://127.0.0.1:1?token=secret-of-thanos")
	if r.status != statusNegative || !strings.Contains(r.stderr, "Prometheus at http://127.0.0.1:1 gave no answer") || !strings.Contains(r.stderr, "try: check --prometheus") || !strings.Contains(r.stderr, "--url=URL") || !strings.Contains(r.stdout, "Prometheus gave no answer (") || strings.Contains(r.stdout+r.stderr, "secret-of-thanos") || !strings.Contains(r.stdout, "http_requests_total") {
		t.Errorf("without an answer: %d %s%s", r.status, r.stdout, r.stderr)
	}
}

// The same series in a real Prometheus give the same playbook.
func TestInitReadsARealPrometheus(t *testing.T) {
	archive, err := txtar.ParseFile("../../testdata/init/recommender.txtar")
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	var all []exported
	for _, f := range archive.Files {
		if name, ok := strings.CutPrefix(f.Name, "project/"); ok {
			secretFile(t, filepath.Join(dir, name), string(f.Data))
		} else if f.Name == "metrics" {
			all = readExported(t, string(f.Data))
		}
	}
	for i := range all {
		all[i].steady = true // so that hours are as good as a week
	}
	write := func(prometheus string) string {
		r := backout(t, nil, "init", "--project-dir="+dir, "--service=recommender", "--prometheus="+prometheus)
		if r.status != 0 {
			t.Fatalf("init: %d %s", r.status, r.stderr)
		}
		return strings.ReplaceAll(r.stdout, prometheus, "PROMETHEUS")
	}
	want := write(fakePrometheus(t, all))
	got := write(realPrometheus(t, all, "")) // which has four hours
	if strings.Contains(got, "in the last 7 days") || !strings.Contains(got, "in the last 4 h (all there is) 99%") {
		t.Error("it does not say how far back the values go")
	}
	if got = strings.NewReplacer("in the last 4 h (all there is)", "in the last 7 days", "; too little to know what is usual: run init again after a day", "").Replace(got); got != want {
		t.Errorf("with a real Prometheus:\n%s\nwith the fake one:\n%s", got, want)
	}
}

// However few samples there are, the list of targets says how often the service is scraped.
func TestInitReadsTheScrapeIntervalOfTheTargets(t *testing.T) {
	dir := t.TempDir()
	secretFile(t, filepath.Join(dir, "compose.yaml"), "services: {shop: {image: 'shop:v1'}}\n")
	prometheus := realPrometheus(t, readExported(t, `up{job="shop",instance="a:1"} 1`),
		"scrape_configs: [{job_name: shop, scrape_interval: 7s, scrape_timeout: 1s, static_configs: [{targets: ['127.0.0.1:1']}]}]")
	for deadline := time.Now().Add(time.Minute); ; <-time.After(50 * time.Millisecond) { // it takes some seconds to list them
		r := backout(t, nil, "init", "--project-dir="+dir, "--service=shop", "--prometheus="+prometheus)
		if r.status == 0 && strings.Contains(r.stdout, "\nscrape_interval: 7s\n") {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("%d %s\n%s", r.status, r.stderr, r.stdout)
		}
	}
}

// realPrometheus starts one that has scraped the series each minute of the last hours.
// Samples of the next hour are there too, since the machine may be slow.
func realPrometheus(t *testing.T, all []exported, config string) string {
	t.Helper()
	dir := t.TempDir()
	var b strings.Builder
	begin := time.Now().Add(-week).Truncate(scraped)
	for _, s := range all {
		series := s.labels.Get("__name__") + strings.ReplaceAll(s.labels.MatchLabels(false, "__name__").String(), `", `, `",`)
		for at := week - 4*time.Hour; at <= week+time.Hour; at += scraped {
			fmt.Fprintf(&b, "%s %g %d\n", series, s.at(at.Seconds()), begin.Add(at).Unix())
		}
	}
	b.WriteString("# EOF\n")
	secretFile(t, dir+"/metrics", b.String())
	secretFile(t, dir+"/prometheus.yml", config)
	run := func(name string, args ...string) *exec.Cmd {
		path, err := exec.LookPath(name)
		if err != nil {
			t.Fatalf("%s is not in PATH: run the tests by make test, which fetches it", name)
		}
		return exec.Command(path, args...)
	}
	if out, err := run("promtool", "tsdb", "create-blocks-from", "openmetrics", "--quiet", dir+"/metrics", dir+"/data").CombinedOutput(); err != nil {
		t.Fatalf("%v %s", err, out)
	}
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	address := listener.Addr().String()
	if err := listener.Close(); err != nil {
		t.Fatal(err)
	}
	var log bytes.Buffer
	server := run("prometheus", "--config.file="+dir+"/prometheus.yml", "--storage.tsdb.path="+dir+"/data", "--storage.tsdb.retention.time=30d", "--web.listen-address="+address)
	server.Stderr = &log
	if err := server.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := server.Process.Signal(syscall.SIGTERM); err != nil {
			t.Error(err)
		}
		if err := server.Wait(); err != nil || t.Failed() {
			t.Logf("prometheus: %v %s", err, log.String())
		}
	})
	for deadline := time.Now().Add(time.Minute); time.Now().Before(deadline); <-time.After(50 * time.Millisecond) {
		resp, err := http.Get("http://" + address + "/-/ready") //nolint:noctx // its time is bounded by the loop
		if err != nil {
			continue
		}
		if err := resp.Body.Close(); err != nil {
			t.Error(err)
		}
		if resp.StatusCode == http.StatusOK {
			return "http://" + address
		}
	}
	t.Fatalf("prometheus does not get ready: %s", log.String())
	return ""
}

// warnsOfNobodyOnly reports whether check's one warning is that a draft does not know who is called.
func warnsOfNobodyOnly(checked string) bool {
	return strings.Count(checked, "warning: ") == 1 && strings.Contains(checked, ": nobody is called when a rollback is held or fails")
}

func TestExamplePlaybooksAreGoodOnes(t *testing.T) {
	examples, err := filepath.Glob("../../testdata/playbooks/examples/*.yaml")
	if err != nil || len(examples) != 6 {
		t.Fatalf("%d examples: %v", len(examples), err)
	}
	promtool, err := exec.LookPath("promtool")
	if err != nil {
		t.Fatal("promtool is not in PATH: run the tests by make test, which fetches it")
	}
	for _, name := range examples {
		service := strings.TrimSuffix(filepath.Base(name), ".yaml")
		t.Run(service, func(t *testing.T) {
			t.Parallel()
			if r := backout(t, nil, "check", "--playbook.file="+name); r.status != 0 || strings.Contains(r.stdout, "warning") {
				t.Fatalf("check: %d\n%s%s", r.status, r.stdout, r.stderr)
			}
			dir := t.TempDir()
			if r := backout(t, nil, "rules", "generate", "--playbook.file="+name, "--output="+dir); r.status != 0 || strings.Contains(r.stdout, "warning") {
				t.Fatalf("rules generate: %d\n%s%s", r.status, r.stdout, r.stderr)
			}
			args := [][]string{{"check", "rules", dir + "/rules/" + service + ".rules.yml"}}
			if service == "pricing" { // the others' bounds have the same form, and take minutes
				args = append(args, []string{"test", "rules", dir + "/rules/" + service + ".test.yml"})
			}
			for _, a := range args {
				if out, err := exec.Command(promtool, a...).CombinedOutput(); err != nil {
					t.Errorf("promtool %s: %v\n%s", a, err, out)
				}
			}
		})
	}
}

func compareInit(t *testing.T, archive *txtar.Archive, name string, want *txtar.File, got string) {
	t.Helper()
	switch {
	case want == nil:
		t.Fatalf("%s has no playbook.yaml", name)
	case *update:
		want.Data = []byte(got)
		if err := os.WriteFile(name, txtar.Format(archive), 0o644); err != nil { //nolint:gosec // a golden file
			t.Fatal(err)
		}
	case string(want.Data) != got:
		t.Errorf("%s: got:\n%s\nwant:\n%s", want.Name, got, want.Data)
	}
}
