package swarm

import (
	"testing"

	"github.com/locotoki/backout/alerts"
	"github.com/locotoki/backout/remediation"
	"github.com/locotoki/backout/remediation/action/actiontest"
)

func TestFlagOffConforms(t *testing.T) {
	t.Parallel()
	const env = "TAG=v2.0.0\nPASSWORD=hunter22\nFLAG=1\n"
	w := newWorld(t, options{replicas: 1, env: env})
	actiontest.Run(t, func(t *testing.T) *actiontest.Fixture {
		w.again(t, env)
		f := w.fixture(alerts.Reversible, func(c *Client) remediation.Action { return w.flagOff(c) }, func() { w.docker("service", "update", "--detach", "--env-add", "FLAG=maybe", w.service()) })
		f.Secrets = []string{"hunter22"}
		return f
	})
}

func TestImageRetagConforms(t *testing.T) {
	t.Parallel()
	const env = "TAG=v2.0.0\nFLAG=1\n"
	w := newWorld(t, options{replicas: 1, env: env})
	actiontest.Run(t, func(t *testing.T) *actiontest.Fixture {
		w.again(t, env)
		others := []string{shop + ":other", shop + ":third"}
		return w.fixture(alerts.Disruptive, func(c *Client) remediation.Action { return w.imageBack(c) }, func() {
			w.docker("service", "update", "--detach", "--no-resolve-image", "--image", others[0], w.service())
			others[0], others[1] = others[1], others[0]
		})
	})
}
