package observe

import (
	"errors"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/locotoki/backout/remediation"
)

var rangeFrom = time.Date(2026, 1, 2, 3, 0, 0, 0, time.UTC)

// askRange asks a server that gives body for one minute in steps of 15s.
func askRange(t *testing.T, status int, body string) ([]remediation.Point, error) {
	t.Helper()
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if err := r.ParseForm(); err != nil {
			t.Errorf("form: %v", err)
		}
		want := "/api/v1/query_range query up start 1767322800 end 1767322860 step 15 timeout 1m0s"
		got := r.URL.Path
		for _, key := range []string{"query", "start", "end", "step", "timeout"} {
			got += " " + key + " " + strings.TrimSuffix(r.Form.Get(key), ".000")
		}
		if got != want {
			t.Errorf("asked %s, want %s", got, want)
		}
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(status)
		if _, err := w.Write([]byte(body)); err != nil {
			t.Logf("client went away: %v", err)
		}
	}))
	t.Cleanup(srv.Close)
	return newPrometheus(t, srv.URL, patience).QueryRange(t.Context(), "up", rangeFrom, rangeFrom.Add(time.Minute), 15*time.Second)
}

func TestARangeIsReadWithoutWhatIsNoNumber(t *testing.T) {
	got, err := askRange(t, 200, data("matrix", `[{"metric":{"a":"b"},"values":[[1767322800,"1.5"],[1767322815,"NaN"],[1767322830,"+Inf"],[1767322845,"0"]]}]`))
	if err != nil {
		t.Fatal(err)
	}
	if len(got) != 2 || got[0] != (remediation.Point{Time: rangeFrom, Value: 1.5}) || got[1] != (remediation.Point{Time: rangeFrom.Add(45 * time.Second)}) {
		t.Errorf("got %v", got)
	}
	if got, err := askRange(t, 200, data("matrix", `[]`)); err != nil || len(got) != 0 {
		t.Errorf("of nothing: %v, %v", got, err)
	}
}

func TestARangeThatIsNotOneLineIsRefused(t *testing.T) {
	series := `{"metric":{},"values":[[1767322800,"1"]]}`
	for name, tc := range map[string]struct {
		status int
		body   string
		word   string
		silent bool
		again  bool // another range may have an answer
	}{
		"two series":          {200, data("matrix", "["+series+","+series+"]"), "2 series", false, true},
		"a vector":            {200, data("vector", `[]`), "vector", false, false},
		"native histograms":   {200, data("matrix", `[{"metric":{},"histograms":[[1,{"count":"1","sum":"1","buckets":[]}]]}]`), "histograms", false, false},
		"a wrong query":       {400, `{"status":"error","errorType":"bad_data","error":"parse error"}`, "parse error", false, false},
		"a server that stops": {503, `{"status":"error","errorType":"timeout","error":"query timed out"}`, "no answer", true, false},
		"many to many":        {422, `{"status":"error","errorType":"execution","error":"found duplicate series"}`, "duplicate series", false, true},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := askRange(t, tc.status, tc.body)
			if err == nil || !strings.Contains(err.Error(), tc.word) || errors.Is(err, remediation.ErrNoAnswer) != tc.silent || errors.Is(err, remediation.ErrExecution) != tc.again {
				t.Errorf("error is %v", err)
			}
		})
	}
}
