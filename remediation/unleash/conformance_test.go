package unleash

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

// fixture is the suite's, of an action that make makes.
func fixture(f *one, meddle func(), make func(http.RoundTripper) remediation.Action) *actiontest.Fixture {
	return &actiontest.Fixture{
		Risk:    alerts.Reversible,
		Action:  make(http.DefaultTransport),
		State:   func(*testing.T) string { return f.state() },
		Effects: func(*testing.T) int { return f.events() },
		Meddle:  func(*testing.T) { meddle() },
		Cut: func(_ *testing.T, n int, fault actiontest.Fault) (remediation.Action, func() bool) {
			c := &cutting{n: n, fault: fault}
			return make(c), func() bool { return c.hit }
		},
		Secrets: []string{token},
	}
}

func TestFlagOffConforms(t *testing.T) {
	t.Parallel()
	actiontest.Run(t, func(t *testing.T) *actiontest.Fixture {
		f := newFlag(t).gradual(100).turn(on)
		return fixture(f, func() { f.turn(on) }, f.off)
	})
}

func TestAShareConforms(t *testing.T) {
	t.Parallel()
	for name, prepare := range map[string]func(f *one){
		"of a flag that has no strategy":       func(*one) {},
		"of one that is off":                   func(f *one) { f.gradual(100) },
		"of one that everybody has":            func(f *one) { f.gradual(100).turn(on) },
		"of one with a disabled strategy also": func(f *one) { f.strategy(gradual, map[string]any{"disabled": true}); f.gradual(5).turn(on) },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			actiontest.Run(t, func(t *testing.T) *actiontest.Fixture {
				f := newFlag(t)
				prepare(f)
				meddle := func() {
					for _, s := range f.strategies() {
						if !s.Disabled {
							f.call(http.MethodPatch, f.path("/strategies/"+s.ID), []jsonPatch{{"replace", "/parameters/rollout", "90"}}, nil)
						}
					}
				}
				if len(f.strategies()) == 0 {
					meddle = func() {
						if list := f.strategies(); len(list) > 0 {
							f.call(http.MethodDelete, f.path("/strategies/"+list[0].ID), nil, nil)
						}
					}
				}
				return fixture(f, meddle, func(transport http.RoundTripper) remediation.Action { return f.share(transport, "0.25") })
			})
		})
	}
}

func (f *one) strategies() (list []strategy) {
	f.Helper()
	f.call(http.MethodGet, f.path("/strategies"), nil, &list)
	return list
}
