package observe

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/common/promslog"

	"github.com/locotoki/backout/remediation"
)

// patience is a time limit that no test that passes comes near.
const patience = time.Minute

// fakePrometheus answers /prefix/api/v1/query as the HTTP API documents it, and
// fails the test on any request that the documentation does not allow or that
// would make the answer depend on this machine's clock.
func fakePrometheus(t *testing.T, status int, body string) string {
	t.Helper()
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path != "/prefix/api/v1/query" {
			t.Errorf("path is %s", r.URL.Path)
		}
		if r.Method != http.MethodPost || r.Header.Get("Content-Type") != "application/x-www-form-urlencoded" {
			t.Errorf("request is %s with content type %q", r.Method, r.Header.Get("Content-Type"))
		}
		if err := r.ParseForm(); err != nil {
			t.Errorf("form: %v", err)
		}
		if r.Form.Has("time") {
			t.Error("a time was sent: the server's own clock must count")
		}
		if r.Form.Get("query") != "up == 1" {
			t.Errorf("query is %q", r.Form.Get("query"))
		}
		if r.Form.Get("timeout") != "1m0s" {
			t.Errorf("evaluation timeout is %q", r.Form.Get("timeout"))
		}
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(status)
		if _, err := w.Write([]byte(body)); err != nil {
			t.Logf("client went away: %v", err)
		}
	}))
	t.Cleanup(srv.Close)
	return srv.URL + "/prefix/"
}

func newPrometheus(t *testing.T, address string, timeout time.Duration) *Prometheus {
	t.Helper()
	transport := &http.Transport{}
	t.Cleanup(transport.CloseIdleConnections)
	p, err := NewPrometheus(address, timeout, transport, promslog.NewNopLogger())
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func data(kind, result string) string {
	return fmt.Sprintf(`{"status":"success","data":{"resultType":%q,"result":%s}}`, kind, result)
}

func TestQueryReadsOneValue(t *testing.T) {
	for name, tc := range map[string]struct {
		body  string
		value float64
		ok    bool
	}{
		"scalar":                {data("scalar", `[1435781451.781,"0.25"]`), 0.25, true},
		"vector of one":         {data("vector", `[{"metric":{"a":"b"},"value":[1435781451.781,"0.25"]}]`), 0.25, true},
		"zero is a value":       {data("vector", `[{"metric":{},"value":[1435781451.781,"0"]}]`), 0, true},
		"empty vector":          {data("vector", `[]`), 0, false},
		"NaN counts as empty":   {data("vector", `[{"metric":{},"value":[1435781451.781,"NaN"]}]`), 0, false},
		"NaN scalar is empty":   {data("scalar", `[1435781451.781,"NaN"]`), 0, false},
		"infos are no warnings": {`{"status":"success","infos":["PromQL info: metric might not be a counter"],"data":{"resultType":"scalar","result":[1,"3"]}}`, 3, true},
		"2.48's infos are none": {`{"status":"success","warnings":["PromQL info: metric might not be a counter, name does not end in _total/_sum/_count/_bucket: \"errors\" (1:10)","PromQL info: input to histogram_quantile needed to be fixed for monotonicity (see https://prometheus.io/docs/prometheus/latest/querying/functions/#histogram_quantile) for metric name \"\" (1:25)"],"data":{"resultType":"scalar","result":[1,"3"]}}`, 3, true},
		"whole, says it itself": {`{"status":"success","isPartial":false,"warnings":[],"data":{"resultType":"scalar","result":[1,"3"]}}`, 3, true},
	} {
		t.Run(name, func(t *testing.T) {
			p := newPrometheus(t, fakePrometheus(t, 200, tc.body), patience)
			value, ok, err := p.Query(t.Context(), "up == 1")
			if err != nil || value != tc.value || ok != tc.ok {
				t.Errorf("got %v, %v, %v; want %v, %v", value, ok, err, tc.value, tc.ok)
			}
		})
	}
}

func TestVectorReadsAllSamples(t *testing.T) {
	for body, want := range map[string]string{
		data("vector", `[{"metric":{"i":"1"},"value":[1,"1"]},{"metric":{"i":"2"},"value":[1,"NaN"]}]`): "{i=\"1\"} => 1 @[1]\n{i=\"2\"} => NaN @[1]",
		data("scalar", `[1,"3"]`): "{} => 3 @[1]",
		data("vector", `[]`):      "",
	} {
		got, err := newPrometheus(t, fakePrometheus(t, 200, body), patience).Vector(t.Context(), "up == 1")
		if err != nil || got.String() != want {
			t.Errorf("%s: got %v, %v; want %v", body, got, err, want)
		}
	}
}

func TestQueryRefusesAnAnswerThatIsNotOneValue(t *testing.T) {
	two := `[{"metric":{"i":"1"},"value":[1,"1"]},{"metric":{"i":"2"},"value":[1,"2"]}]`
	for name, tc := range map[string]struct {
		status int
		body   string
		word   string
	}{
		"two samples":        {200, data("vector", two), "2 samples"},
		"a matrix":           {200, data("matrix", `[]`), "matrix"},
		"a string":           {200, data("string", `[1,"x"]`), "string"},
		"a native histogram": {200, data("vector", `[{"metric":{},"histogram":[1,{"count":"1","sum":"1","buckets":[]}]}]`), "histogram"},
		"a wrong query":      {400, `{"status":"error","errorType":"bad_data","error":"1:3: parse error"}`, "parse error"},
		"a failed execution": {422, `{"status":"error","errorType":"execution","error":"too many samples"}`, "too many samples"},
		"a huge answer":      {200, data("string", `[1,"`+strings.Repeat("x", maxQueryResponse)+`"]`), "larger than the limit"},
	} {
		t.Run(name, func(t *testing.T) {
			p := newPrometheus(t, fakePrometheus(t, tc.status, tc.body), patience)
			_, ok, err := p.Query(t.Context(), "up == 1")
			if err == nil || ok {
				t.Fatalf("got ok %v, error %v; want an error", ok, err)
			}
			if errors.Is(err, remediation.ErrNoAnswer) {
				t.Errorf("%v counts as no answer: a step could run unconfirmed", err)
			}
			if !strings.Contains(err.Error(), tc.word) || !strings.HasPrefix(err.Error(), "prometheus at http://") {
				t.Errorf("error %q does not name the server and %q", err, tc.word)
			}
		})
	}
}

// notAnswers are what stands before Prometheus, or half of it, says in its place.
func notAnswers() map[string]struct {
	status     int
	body, word string
} {
	return map[string]struct {
		status     int
		body, word string
	}{
		"not a Prometheus":        {404, `404 page not found`, "is this the base address"},
		"a login page":            {200, `<html>please log in</html>`, "not Prometheus's JSON"},
		"another's JSON":          {200, `{"message":"hello"}`, "not Prometheus's JSON"},
		"an empty page":           {200, ``, "not Prometheus's JSON"},
		"nothing but success":     {200, `{"status":"success"}`, "no data"},
		"moved for good":          {301, ``, "it points to http://login.example.com/path"},
		"sent to a login":         {302, ``, "it points to http://login.example.com/path"},
		"sent on by its method":   {307, ``, "it points to http://login.example.com/path"},
		"no credentials":          {401, `Unauthorized`, "http_config"},
		"no tenant":               {401, `{"status":"error","errorType":"bad_data","error":"no org id"}`, "no org id; try: http_config or headers"},
		"not allowed":             {403, `<html>`, "http_config"},
		"a proxy wants to know":   {407, `<html>`, "http_config"},
		"a proxy's bad request":   {400, `<html>`, "not Prometheus's JSON"},
		"overloaded":              {429, `slow down`, "429"},
		"a broken server":         {500, `{"status":"error","errorType":"internal","error":"tsdb"}`, "tsdb"},
		"proxy without server":    {502, `bad gateway`, "502"},
		"evaluation timed out":    {503, `{"status":"error","errorType":"timeout","error":"query timed out"}`, "query timed out"},
		"shutting down":           {503, `{"status":"error","errorType":"canceled","error":"query was canceled"}`, "canceled"},
		"proxy lost its patience": {504, `<html>`, "504"},
		"a store did not answer":  {200, `{"status":"success","warnings":["fetch series for [store-3]: refused"],"data":{"resultType":"vector","result":[]}}`, "incomplete: fetch series for [store-3]"},
		"a warning with an info":  {200, `{"status":"success","warnings":["PromQL info: metric might not be a counter","PromQL warning: encountered a mix of histograms and floats"],"data":{"resultType":"vector","result":[{"metric":{},"value":[1,"1"]}]}}`, "incomplete: PromQL warning: encountered a mix"},
		"a warning with a value":  {200, `{"status":"success","warnings":["w"],"data":{"resultType":"vector","result":[{"metric":{},"value":[1,"1"]}]}}`, "incomplete"},
		"a part of it":            {200, `{"status":"success","isPartial":true,"data":{"resultType":"vector","result":[]}}`, "isPartial"},
	}
}

func TestOnlyPrometheussOwnCompleteJSONIsAnAnswer(t *testing.T) {
	for name, tc := range notAnswers() {
		t.Run(name, func(t *testing.T) {
			s := sources(t, func(w http.ResponseWriter, _ *http.Request) {
				if tc.status/100 == 3 {
					w.Header().Set("Location", "http://login.example.com/path?secret=x")
				}
				w.WriteHeader(tc.status)
				if _, err := w.Write([]byte(tc.body)); err != nil {
					t.Logf("client went away: %v", err)
				}
			})
			_, ok, qerr := s.prometheus.Query(t.Context(), "up")
			_, rerr := s.prometheus.QueryRange(t.Context(), "up", rangeFrom, rangeFrom.Add(time.Minute), time.Second)
			_, lerr := s.LabelValues(t.Context(), "x_bucket", "le")
			_, gerr := s.Rules(t.Context())
			if ok {
				t.Error("a query has a value")
			}
			for of, err := range map[string]error{"query": qerr, "range": rerr, "labels": lerr, "rules": gerr} {
				if !errors.Is(err, remediation.ErrNoAnswer) || !strings.Contains(err.Error(), tc.word) || !strings.HasPrefix(err.Error(), "prometheus at http://") {
					t.Errorf("%s: error is %v, want no answer and %q", of, err, tc.word)
				}
				if slow := strings.Contains(tc.body, "timed out") || tc.status == http.StatusGatewayTimeout; errors.Is(err, remediation.ErrTooSlow) != slow {
					t.Errorf("%s: %v is taken for slow: %v", of, err, !slow)
				}
			}
		})
	}
}

func TestAQueryInTheAddressStandsInEveryRequest(t *testing.T) {
	asked := map[string]string{}
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if err := r.ParseForm(); err != nil {
			t.Errorf("form: %v", err)
		}
		asked[r.Method+" "+r.URL.Path] = r.Form.Get("partial_response") + r.Form.Get("query")
		if r.Method == http.MethodPost {
			w.WriteHeader(http.StatusMethodNotAllowed) // as a proxy that lets only GET through
			return
		}
		say(t, w, data("scalar", `[1,"3"]`))
	}))
	t.Cleanup(srv.Close)
	p := newPrometheus(t, srv.URL+"/prefix?partial_response=false", patience)
	if v, ok, err := p.Query(t.Context(), "up"); err != nil || !ok || v != 3 {
		t.Errorf("got %v, %v, %v", v, ok, err)
	}
	if asked["POST /prefix/api/v1/query"] != "falseup" || asked["GET /prefix/api/v1/query"] != "falseup" {
		t.Errorf("asked %v", asked)
	}
}

func TestPagesOfOthersGetNoCredentials(t *testing.T) {
	var marked []string
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Authorization") != "" {
			marked = append(marked, r.URL.Path+" "+r.Header.Get("Authorization"))
		}
		say(t, w, `{"status":"success","data":{"groups":[]}}`)
	}))
	t.Cleanup(srv.Close)
	s, err := NewSources(SourcesOptions{
		Prometheus: srv.URL, Alertmanager: srv.URL, Timeout: patience, Now: time.Now, Logger: promslog.NewNopLogger(),
		Transport: http.DefaultTransport, PrometheusTransport: marking("prom"), AlertmanagerTransport: marking("am"),
	})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.Rules(t.Context()); err != nil {
		t.Error(err)
	}
	if err := s.RaiseAlert(t.Context(), map[string]string{"a": "b"}, time.Now()); err != nil {
		t.Error(err)
	}
	if _, err := s.Page(t.Context(), srv.URL+"/runbook"); err != nil {
		t.Error(err)
	}
	if got := strings.Join(marked, ", "); got != "/api/v1/rules prom, /api/v2/alerts am" {
		t.Errorf("credentials went to %s", got)
	}
}

// marking is a transport that puts its name where credentials stand.
type marking string

func (m marking) RoundTrip(r *http.Request) (*http.Response, error) {
	r = r.Clone(r.Context())
	r.Header.Set("Authorization", string(m))
	return http.DefaultTransport.RoundTrip(r)
}

func TestASilentServerGivesNoAnswer(t *testing.T) {
	t.Run("nothing listens", func(t *testing.T) {
		srv := httptest.NewServer(http.NotFoundHandler())
		srv.Close()
		p := newPrometheus(t, srv.URL, patience)
		_, _, err := p.Query(t.Context(), "up == 1")
		if !errors.Is(err, remediation.ErrNoAnswer) || !strings.Contains(err.Error(), "refused") {
			t.Errorf("error is %v", err)
		}
	})
	t.Run("it hangs", func(t *testing.T) {
		p := newPrometheus(t, hanging(t), 50*time.Millisecond)
		_, _, err := p.Query(t.Context(), "up == 1")
		if !errors.Is(err, remediation.ErrNoAnswer) || !errors.Is(err, remediation.ErrTooSlow) || !strings.Contains(err.Error(), "longer than 50ms") {
			t.Errorf("error is %v", err)
		}
	})
	t.Run("the caller gives up", func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		p := newPrometheus(t, hanging(t), time.Minute)
		_, _, err := p.Query(ctx, "up == 1")
		if !errors.Is(err, context.Canceled) || errors.Is(err, remediation.ErrNoAnswer) {
			t.Errorf("error is %v", err)
		}
	})
}

// hanging is a server that takes requests and never answers.
func hanging(t *testing.T) string {
	t.Helper()
	end := make(chan struct{})
	srv := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { <-end }))
	t.Cleanup(srv.Close)
	t.Cleanup(func() { close(end) })
	return srv.URL
}

func TestWrongSettingsAreRefusedBeforeTheFirstRequest(t *testing.T) {
	for _, address := range []string{"", "localhost:9090", "ftp://x", "http://", "http://[::1", "/path"} {
		if _, err := NewPrometheus(address, time.Second, http.DefaultTransport, promslog.NewNopLogger()); err == nil {
			t.Errorf("prometheus takes address %q", address)
		}
		if _, err := NewAlertmanager(address, time.Second, http.DefaultTransport); err == nil {
			t.Errorf("alertmanager takes address %q", address)
		}
	}
	if _, err := NewPrometheus("http://x", 0, http.DefaultTransport, promslog.NewNopLogger()); err == nil {
		t.Error("prometheus takes a timeout of 0")
	}
	if _, err := NewAlertmanager("http://x", 0, http.DefaultTransport); err == nil {
		t.Error("alertmanager takes a timeout of 0")
	}
}

func TestErrorsDoNotShowAPassword(t *testing.T) {
	_, perr := NewPrometheus("http://user:hunter2@127.0.0.1:1", time.Second, http.DefaultTransport, promslog.NewNopLogger())
	_, aerr := NewAlertmanager("http://user:hunter2@127.0.0.1:1", time.Second, &http.Transport{})
	_, uerr := NewPrometheus("ftp://user:hunter2@x", time.Second, http.DefaultTransport, promslog.NewNopLogger())
	for _, err := range []error{perr, aerr, uerr} {
		if err == nil || strings.Contains(err.Error(), "hunter2") {
			t.Errorf("error is %v", err)
		}
	}
}
