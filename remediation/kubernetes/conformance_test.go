package kubernetes

import (
	"testing"

	"github.com/locotoki/backout/alerts"
	"github.com/locotoki/backout/deploy/kube/kubetest"
	"github.com/locotoki/backout/remediation"
	"github.com/locotoki/backout/remediation/action/actiontest"
)

// conform runs the suite on one service: each part of it finds the service as it was made.
func conform(t *testing.T, w *world, risk alerts.Risk, bind func(*Client) remediation.Action, meddle func()) {
	t.Helper()
	w.ready()
	actiontest.Run(t, func(t *testing.T) *actiontest.Fixture { return w.again(t).fixture(risk, bind, meddle) })
}

func TestFlagOffConforms(t *testing.T) {
	for name, edit := range map[string][]func(object){
		"deployment":  {count(2)},
		"statefulset": {count(1), statefulSet},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, edit...)
			w.target.Kubernetes.GitOps = &alerts.GitOps{Flux: alerts.FluxPause}
			conform(t, w, alerts.Reversible, func(c *Client) remediation.Action { return w.flagOff(c) }, func() { w.setVariable("maybe") })
		})
	}
}

func TestFlagOffOfAVariableThatIsNotSetConforms(t *testing.T) {
	t.Parallel()
	w := newWorld(t, count(1), env())
	conform(t, w, alerts.Reversible, func(c *Client) remediation.Action { return w.flagOff(c) }, func() { w.setVariable("maybe") })
}

func TestFlagOffInAConfigMapConforms(t *testing.T) {
	t.Parallel()
	w := withConfigMap(t, kubetest.New(t), count(1))
	w.target.Kubernetes.GitOps = &alerts.GitOps{Flux: alerts.FluxPause}
	conform(t, w, alerts.Reversible, func(c *Client) remediation.Action { return w.flagOff(c) }, func() { w.setData("maybe") })
}

func TestImageRetagConforms(t *testing.T) {
	t.Parallel()
	w := newWorld(t, count(1))
	w.Node.Image("shop:other", image("VERSION=other"))
	w.Node.Image("shop:third", image("VERSION=third"))
	others := []string{"shop:other", "shop:third"}
	conform(t, w, alerts.Disruptive, func(c *Client) remediation.Action { return w.imageBack(c, "v1.0.0") }, func() {
		w.setImage(others[0])
		others[0], others[1] = others[1], others[0]
	})
}
