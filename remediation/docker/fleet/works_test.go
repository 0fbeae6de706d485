package fleet

import (
	"context"
	"io"
	"net/http"
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
		"a container that is not up long enough, within the check's time": {answer, time.Hour, false, "does not work within 1s: shop has no health address"},
		"the same, within the step's time":                                {answer, time.Second / 2, false, "does not work within the time of the step: shop has no health address"},
		"an engine that hangs, within the check's time":                   {hang, time.Hour, true, "the engine did not answer within 1s"},
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
