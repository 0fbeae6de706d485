package docker

import (
	"testing"

	"github.com/locotoki/backout/alerts"
	"github.com/locotoki/backout/remediation"
	"github.com/locotoki/backout/remediation/action/actiontest"
)

func TestImageRetagConforms(t *testing.T) {
	t.Parallel()
	actiontest.RunSample(t, func(t *testing.T) *actiontest.Fixture {
		w := imageHarness(t, versionOne)
		w.start("1", w.noted)
		return &actiontest.Fixture{
			Risk:    alerts.Disruptive,
			Action:  w.retag(nil),
			State:   func(*testing.T) string { return w.state() },
			Effects: func(*testing.T) int { return int(w.changes.Load()) },
			Meddle: func(*testing.T) {
				w.takeDown()
				w.tag("latest", versionTwo)
				w.start("0.5", w.noted)
			},
			Cut: func(_ *testing.T, n int, f actiontest.Fault) (remediation.Action, func() bool) {
				broken := &fault{n: n, kind: f}
				return w.retag(broken), func() bool { return broken.hit }
			},
			Secrets: []string{secret},
		}
	})
}
