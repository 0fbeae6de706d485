package kubernetes

import (
	"testing"

	"github.com/locotoki/backout/alerts"
	"github.com/locotoki/backout/deploy/kube/kubetest"
	"github.com/locotoki/backout/remediation"
	"github.com/locotoki/backout/remediation/action/actiontest"
)

// suite is actiontest.Run or RunSample.
type suite func(t *testing.T, setup func(t *testing.T) *actiontest.Fixture)

// conform runs a suite on one service: each part of it finds the service as it was made.
func conform(t *testing.T, run suite, w *world, risk alerts.Risk, bind func(*Client) remediation.Action, meddle func()) {
	t.Helper()
	w.ready()
	run(t, func(t *testing.T) *actiontest.Fixture { return w.again(t).fixture(risk, bind, meddle) })
}

func TestFlagOffConforms(t *testing.T) {
	for name, c := range map[string]struct {
		run  suite
		edit []func(object)
	}{
		"deployment":  {actiontest.Run, []func(object){count(2)}},
		"statefulset": {actiontest.RunSample, []func(object){count(1), statefulSet}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, c.edit...)
			w.target.Kubernetes.GitOps = &alerts.GitOps{Flux: alerts.FluxPause}
			conform(t, c.run, w, alerts.Reversible, func(c *Client) remediation.Action { return w.flagOff(c) }, func() { w.setVariable("maybe") })
		})
	}
}

func TestFlagOffOfAVariableThatIsNotSetConforms(t *testing.T) {
	t.Parallel()
	w := newWorld(t, count(1), env())
	conform(t, actiontest.RunSample, w, alerts.Reversible, func(c *Client) remediation.Action { return w.flagOff(c) }, func() { w.setVariable("maybe") })
}

func TestFlagOffInAConfigMapConforms(t *testing.T) {
	t.Parallel()
	w := withConfigMap(t, kubetest.New(t), count(1))
	w.target.Kubernetes.GitOps = &alerts.GitOps{Flux: alerts.FluxPause}
	conform(t, actiontest.RunSample, w, alerts.Reversible, func(c *Client) remediation.Action { return w.flagOff(c) }, func() { w.setData("maybe") })
}

func TestImageRetagConforms(t *testing.T) {
	t.Parallel()
	w := newWorld(t, count(1))
	w.Node.Image("shop:other", image("VERSION=other"))
	w.Node.Image("shop:third", image("VERSION=third"))
	others := []string{"shop:other", "shop:third"}
	conform(t, actiontest.RunSample, w, alerts.Disruptive, func(c *Client) remediation.Action { return w.imageBack(c, "v1.0.0") }, func() {
		w.setImage(others[0])
		others[0], others[1] = others[1], others[0]
	})
}
