package fleet

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/docker/docker/client"

	"github.com/locotoki/backout/remediation"
)

type roundTripper func(*http.Request) (*http.Response, error)

func (f roundTripper) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }

// What is seen not to work is undone, what is not seen is verified again.
func TestOnlyAnEngineThatDoesNotAnswerLeavesADoubt(t *testing.T) {
	answer := func(r *http.Request) (*http.Response, error) { // a container that has no health address and no healthcheck
		return &http.Response{StatusCode: http.StatusOK, Header: http.Header{"Content-Type": {"application/json"}}, Request: r,
			Body: io.NopCloser(strings.NewReader(`{"Id": "c1", "Name": "/shop", "State": {"Status": "running", "Running": true}, "Config": {}}`))}, nil
	}
	hang := func(r *http.Request) (*http.Response, error) { <-r.Context().Done(); return nil, r.Context().Err() }
	for name, c := range map[string]struct {
		engine  roundTripper
		step    time.Duration // of the step; longer than the check's, or not
		inDoubt bool
		says    string
	}{
		"a container that is not up long enough, within the check's time": {answer, time.Hour, false, "does not work within 1 s: shop has no health address"},
		"the same, within the step's time":                                {answer, time.Second / 2, false, "does not work within the time of the step: shop has no health address"},
		"an engine that hangs, within the check's time":                   {hang, time.Hour, true, "the engine did not answer within 1 s"},
		"an engine that hangs, within the step's time":                    {hang, time.Second / 2, true, "the engine did not answer within the time of the step"},
		"an engine that ends":                                             {func(*http.Request) (*http.Response, error) { return nil, io.EOF }, time.Hour, true, "inspect container c1"},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				api, err := client.NewClientWithOpts(client.WithHost("http://engine"), client.WithHTTPClient(&http.Client{Transport: c.engine}), client.WithVersion("1.43"))
				if err != nil {
					t.Fatal(err)
				}
				ctx, cancel := context.WithTimeout(t.Context(), c.step)
				defer cancel()
				err = NewEngine(api, "http://engine", nil).Works(ctx, "c1", Check{Timeout: time.Second})
				if err == nil || remediation.IsInDoubt(err) != c.inDoubt || !strings.Contains(err.Error(), c.says) {
					t.Errorf("in doubt %t: %v", remediation.IsInDoubt(err), err)
				}
			})
		})
	}
}

// engineOf is an engine whose one container is starting until its healthcheck has answered, with an exit status.
func engineOf(t *testing.T, healthcheck string, answers time.Duration, exit int) *Engine {
	began := time.Now()
	api, err := client.NewClientWithOpts(client.WithHost("http://engine"), client.WithVersion("1.43"), client.WithHTTPClient(&http.Client{
		Transport: roundTripper(func(r *http.Request) (*http.Response, error) {
			health := `{"Status": "starting", "Log": []}`
			if time.Since(began) >= answers {
				if health = `{"Status": "healthy"}`; exit != 0 {
					health = fmt.Sprintf(`{"Status": "starting", "Log": [{"ExitCode": %d}]}`, exit)
				}
			}
			return &http.Response{StatusCode: http.StatusOK, Header: http.Header{"Content-Type": {"application/json"}}, Request: r, Body: io.NopCloser(strings.NewReader(
				`{"Id": "c1", "Name": "/shop", "HostConfig": {}, "State": {"Status": "running", "Running": true, "Health": ` + health + `}, "Config": {"Healthcheck": ` + healthcheck + `}}`))}, nil
		}),
	}))
	if err != nil {
		t.Fatal(err)
	}
	return NewEngine(api, "http://engine", nil)
}

// A healthcheck answers after its interval at the earliest, and the engine's default is 30 s. Before that, nothing was seen
// that could undo a change.
func TestAHealthcheckThatHasNotAnsweredUndoesNothing(t *testing.T) {
	const unset, never = 30 * time.Second, time.Hour
	for name, c := range map[string]struct {
		healthcheck string // Config.Healthcheck
		step        time.Duration
		answers     time.Duration // when the healthcheck answers first
		exit        int           // what it answers
		takes       time.Duration
		says        string // "": it works
		inDoubt     bool
	}{
		"no interval":                       {`{}`, never, unset + time.Second, 0, unset + time.Second, "", false},
		"a start period":                    {`{"StartPeriod": 60000000000}`, never, 80 * time.Second, 0, 80 * time.Second, "", false},
		"failures in the start period":      {`{"StartPeriod": 60000000000}`, never, 5 * time.Second, 7, 125 * time.Second, "does not work within 2 min 5 s: the healthcheck of shop has not passed yet (last exit status 7)", false},
		"a failure":                         {`{}`, never, unset + time.Second, 1, 65 * time.Second, "does not work within 1 min 5 s: the healthcheck of shop has not passed yet (last exit status 1)", false},
		"a failure in the check's time":     {`{"Interval": 5000000000}`, never, 5 * time.Second, 1, unset, "does not work within 30 s: the healthcheck of shop has not passed yet (last exit status 1)", false},
		"no answer ever":                    {`{}`, never, never, 0, 65 * time.Second, "the healthcheck of shop has not answered yet (interval 30 s)", true},
		"a step that ends before the first": {`{"Interval": 600000000000, "StartPeriod": 60000000000}`, time.Minute, never, 0, time.Minute, "within the time of the step: the healthcheck of shop has not answered yet (interval 10 min, start_period 1 min)", true},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				began := time.Now()
				ctx, cancel := context.WithTimeout(t.Context(), c.step)
				defer cancel()
				err := engineOf(t, c.healthcheck, c.answers, c.exit).Works(ctx, "c1", Check{Timeout: unset})
				if c.says == "" && err != nil || c.says != "" && (err == nil || !strings.Contains(err.Error(), c.says)) || remediation.IsInDoubt(err) != c.inDoubt {
					t.Errorf("in doubt %t: %v", remediation.IsInDoubt(err), err)
				}
				if took := time.Since(began); (took - c.takes).Abs() > time.Second {
					t.Errorf("it took %s, not %s", took, c.takes)
				}
			})
		})
	}
}

// The probe's health address decides where the healthcheck cannot answer in the check's time, or in what is left of the step's.
func TestTheHealthAddressDecidesBeforeASlowHealthcheck(t *testing.T) {
	shop := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}))
	t.Cleanup(shop.Close)
	for name, c := range map[string]struct {
		healthcheck   string
		timeout, step time.Duration
		answers       time.Duration
	}{
		"no interval":                           {`{}`, 30 * time.Second, time.Hour, time.Hour},
		"no interval, in a step with less time": {`{}`, time.Minute, 29 * time.Second, time.Hour},
		"one whose first answer takes its time": {`{"Interval": 100000000}`, time.Second, time.Hour, 2 * time.Second},
		"an interval shorter than the check's":  {`{"Interval": 100000000}`, time.Minute, time.Hour, time.Second},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			began := time.Now()
			ctx, cancel := context.WithTimeout(context.Background(), c.step)
			defer cancel()
			if err := engineOf(t, c.healthcheck, c.answers, 0).Works(ctx, "c1", Check{Timeout: c.timeout, Health: shop.URL}); err != nil {
				t.Error(err)
			}
			if took := time.Since(began); c.answers < time.Hour && took < c.answers {
				t.Errorf("it did not wait for the healthcheck: %s", took)
			}
		})
	}
}
