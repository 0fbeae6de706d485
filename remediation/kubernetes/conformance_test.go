package kubernetes

import (
	"testing"

	"github.com/locotoki/backout/alerts"
	"github.com/locotoki/backout/deploy/kube"
	"github.com/locotoki/backout/deploy/kube/kubetest"
	"github.com/locotoki/backout/remediation"
	"github.com/locotoki/backout/remediation/action/actiontest"
)

func TestFlagOffConforms(t *testing.T) {
	for name, edit := range map[string][]func(object){
		"deployment":  {replicas(2)},
		"statefulset": {replicas(1), statefulSet},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			actiontest.Run(t, func(t *testing.T) *actiontest.Fixture {
				w := newWorld(t, edit...).ready()
				w.target.Kubernetes.GitOps = &alerts.GitOps{Flux: alerts.FluxPause}
				return w.fixture(alerts.Reversible, func(c *Client) remediation.Action { return w.flagOff(c) }, func() { w.setVariable("maybe") })
			})
		})
	}
}

func TestFlagOffOfAVariableThatIsNotSetConforms(t *testing.T) {
	t.Parallel()
	actiontest.Run(t, func(t *testing.T) *actiontest.Fixture {
		w := newWorld(t, replicas(1), env()).ready()
		return w.fixture(alerts.Reversible, func(c *Client) remediation.Action { return w.flagOff(c) }, func() { w.setVariable("maybe") })
	})
}

func TestFlagOffInAConfigMapConforms(t *testing.T) {
	t.Parallel()
	actiontest.Run(t, func(t *testing.T) *actiontest.Fixture {
		w := withConfigMap(t, kubetest.New(t)).ready()
		w.target.Kubernetes.GitOps = &alerts.GitOps{Flux: alerts.FluxPause}
		return w.fixture(alerts.Reversible, func(c *Client) remediation.Action { return w.flagOff(c) }, func() {
			if err := w.Patch(t.Context(), kube.MergePatch, w.Core("configmaps", "shop-flags"), []byte(`{"data":{"`+flagName+`":"maybe"}}`), nil); err != nil {
				t.Fatal(err)
			}
		})
	})
}

func TestImageRetagConforms(t *testing.T) {
	t.Parallel()
	actiontest.Run(t, func(t *testing.T) *actiontest.Fixture {
		w := newWorld(t, replicas(2)).ready()
		w.Node.Image("shop:other", image("VERSION=other"))
		w.Node.Image("shop:third", image("VERSION=third"))
		others := []string{"shop:other", "shop:third"}
		return w.fixture(alerts.Disruptive, func(c *Client) remediation.Action { return w.imageBack(c, "v1.0.0") }, func() {
			w.setImage(others[0])
			others[0], others[1] = others[1], others[0]
		})
	})
}
