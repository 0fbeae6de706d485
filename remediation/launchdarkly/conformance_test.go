package launchdarkly

import (
	"errors"
	"net/http"
	"testing"

	"github.com/locotoki/backout/alerts"
	"github.com/locotoki/backout/remediation"
	"github.com/locotoki/backout/remediation/action/actiontest"
)

var errCut = errors.New("connection cut by the test")

// cutting is a transport whose n-th changing request meets a fault.
type cutting struct {
	n     int
	fault actiontest.Fault
	calls int
	hit   bool
}

func (c *cutting) RoundTrip(req *http.Request) (*http.Response, error) {
	if req.Method == http.MethodGet {
		return http.DefaultTransport.RoundTrip(req)
	}
	c.calls++
	if c.calls-1 != c.n {
		return http.DefaultTransport.RoundTrip(req)
	}
	c.hit = true
	if c.fault == actiontest.Before {
		return nil, errCut
	}
	res, err := http.DefaultTransport.RoundTrip(req)
	if err != nil {
		return nil, err
	}
	if err := res.Body.Close(); err != nil {
		return nil, err
	}
	if c.fault == actiontest.Hang {
		return nil, actiontest.Unanswered(req.Context())
	}
	return nil, errCut
}

func TestFlagOffConforms(t *testing.T) {
	t.Parallel()
	actiontest.Run(t, func(t *testing.T) *actiontest.Fixture {
		f := newFake(t)
		return &actiontest.Fixture{
			Risk:   alerts.Reversible,
			Action: f.action(http.DefaultTransport),
			State:  func(*testing.T) string { return f.state() },
			Effects: func(*testing.T) int {
				f.mu.Lock()
				defer f.mu.Unlock()
				return f.changes
			},
			Meddle: func(*testing.T) { f.set(true) },
			Cut: func(_ *testing.T, n int, fault actiontest.Fault) (remediation.Action, func() bool) {
				c := &cutting{n: n, fault: fault}
				return f.action(c), func() bool { return c.hit }
			},
			Secrets: []string{token},
		}
	})
}

func TestAShareConforms(t *testing.T) {
	t.Parallel()
	for name, edit := range map[string]func(f *fake){
		"of a flag that is off":              func(f *fake) { f.envs["production"].On = false },
		"of one that everybody has":          func(*fake) {},
		"of one that others have a share of": func(f *fake) { f.serve(500, "") },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			actiontest.Run(t, func(t *testing.T) *actiontest.Fixture {
				f := newFake(t)
				edit(f)
				return &actiontest.Fixture{
					Risk:   alerts.Reversible,
					Action: f.share(http.DefaultTransport, "0.25"),
					State:  func(*testing.T) string { return f.state() + f.rule() },
					Effects: func(*testing.T) int {
						f.mu.Lock()
						defer f.mu.Unlock()
						return f.changes
					},
					Meddle: func(*testing.T) { f.serve(90_000, "company") },
					Cut: func(_ *testing.T, n int, fault actiontest.Fault) (remediation.Action, func() bool) {
						c := &cutting{n: n, fault: fault}
						return f.share(c, "0.25"), func() bool { return c.hit }
					},
					Secrets: []string{token},
				}
			})
		})
	}
}
