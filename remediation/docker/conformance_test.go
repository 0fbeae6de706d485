package docker

import (
	"errors"
	"net/http"
	"testing"

	"github.com/locotoki/backout/alerts"
	"github.com/locotoki/backout/remediation"
	"github.com/locotoki/backout/remediation/action/actiontest"
)

var errCut = errors.New("connection cut by the test")

// fault is what the n-th changing request meets.
type fault struct {
	n     int
	kind  actiontest.Fault
	calls int
	hit   bool
	// expire lets the action's time pass: a road's call has no context of its own.
	expire func()
}

func (f *fault) roundTrip(req *http.Request, next http.RoundTripper) (*http.Response, error) {
	f.calls++
	if f.calls-1 != f.n {
		return next.RoundTrip(req)
	}
	f.hit = true
	if f.kind == actiontest.Before {
		return nil, errCut
	}
	res, err := next.RoundTrip(req)
	if err != nil {
		return nil, err
	}
	if err := res.Body.Close(); err != nil {
		return nil, err
	}
	if f.kind == actiontest.Hang {
		return nil, actiontest.Unanswered(req.Context())
	}
	return nil, errCut
}

func (w *harness) fixture() *actiontest.Fixture {
	return &actiontest.Fixture{
		Risk:    alerts.Reversible,
		Action:  w.action(),
		State:   func(t *testing.T) string { return w.state() },
		Effects: func(t *testing.T) int { return int(w.changes.Load()) },
		Meddle: func(t *testing.T) {
			w.takeDown()
			w.write(".env", "PASSWORD="+secret+"\nFLAG=0.5\n")
			w.start("0.5")
		},
		Cut: func(_ *testing.T, n int, f actiontest.Fault) (remediation.Action, func() bool) {
			broken := &fault{n: n, kind: f}
			return w.actionWith(broken), func() bool { return broken.hit }
		},
		Secrets: []string{secret},
	}
}

func TestFlagOffConforms(t *testing.T) {
	t.Parallel()
	actiontest.Run(t, func(t *testing.T) *actiontest.Fixture {
		w := newHarness(t)
		w.write("docker-compose.yml", w.webFile())
		w.write(".env", "# settings\nFLAG=1 # on\nPASSWORD="+secret+"\n")
		w.start("1")
		return w.fixture()
	})
}
