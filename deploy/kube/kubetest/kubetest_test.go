package kubetest_test

import (
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/locotoki/backout/deploy/kube"
	"github.com/locotoki/backout/deploy/kube/kubetest"
)

func TestMain(m *testing.M) { kubetest.Main(m) }

const flag = "FEATURE_ANALYTICS_ENABLED"

// deploy starts two pods of shop:v1 and waits until they serve.
func deploy(t *testing.T, l *kubetest.Lab) []kubetest.Pod {
	t.Helper()
	l.Node.Image("shop:v1", kubetest.Service("VERSION=1"))
	l.Node.Image("shop:v2", kubetest.Service("VERSION=2"))
	l.Put(kubetest.Deployment("shop", 2, "shop:v1", map[string]string{flag: "1"}))
	l.Rolled("deployments", "shop")
	return l.Pods("app=shop")
}

func setFlag(t *testing.T, l *kubetest.Lab, c *kube.Client, value string) error {
	t.Helper()
	return c.Patch(t.Context(), kube.StrategicPatch, l.Apps("deployments", "shop")+"?fieldManager=backout", []byte(
		`{"spec":{"template":{"spec":{"containers":[{"name":"shop","env":[{"name":"`+flag+`","value":"`+value+`"}]}]}}}}`), nil)
}

func TestADeploymentRollsAndEachPodServesItsOwnEnvironment(t *testing.T) {
	t.Parallel()
	l := kubetest.New(t)
	before := deploy(t, l)
	addresses := map[string]bool{}
	for _, p := range before {
		addresses[p.IP] = true
		if env := l.Env(p); !slices.Contains(env, flag+"=1") || !slices.Contains(env, "VERSION=1") {
			t.Errorf("pod %s has %q", p.Name, env)
		}
	}
	if len(addresses) != 2 {
		t.Errorf("%d addresses for 2 pods", len(addresses))
	}
	if err := setFlag(t, l, l.Client, "0"); err != nil {
		t.Fatal(err)
	}
	l.Rolled("deployments", "shop")
	after := l.Pods("app=shop")
	if len(after) != 2 {
		t.Errorf("%d pods", len(after))
	}
	for _, p := range after {
		if slices.ContainsFunc(before, func(b kubetest.Pod) bool { return b.Name == p.Name }) {
			t.Errorf("pod %s was not replaced", p.Name)
		}
		if env := l.Env(p); !slices.Contains(env, flag+"=0") {
			t.Errorf("pod %s has %q", p.Name, env)
		}
	}
}

func TestAnImageThatCrashesAndOneThatIsMissingKeepTheOldPods(t *testing.T) {
	t.Parallel()
	l := kubetest.New(t)
	deploy(t, l)
	l.Node.Image("shop:crash", kubetest.Service("CRASH=1"))
	for image, reasons := range map[string][]string{
		"shop:crash":   {"CrashLoopBackOff"},
		"shop:missing": {"ErrImagePull", "ImagePullBackOff"},
	} {
		err := l.Patch(t.Context(), kube.StrategicPatch, l.Apps("deployments", "shop"), []byte(
			`{"spec":{"template":{"spec":{"containers":[{"name":"shop","image":"`+image+`"}]}}}}`), nil)
		if err != nil {
			t.Fatal(err)
		}
		l.Eventually(image, func() error {
			old, waiting := 0, ""
			for _, p := range l.Pods("app=shop") {
				if p.Image == "shop:v1" && p.Ready && !p.Deleting {
					old++
				}
				if p.Image == image {
					waiting = p.Waiting
				}
			}
			if old != 2 || !slices.Contains(reasons, waiting) {
				return fmt.Errorf("%d old pods are ready, the new one waits for %q", old, waiting)
			}
			return nil
		})
	}
	for _, p := range l.Pods("app=shop") {
		if p.Image == "shop:crash" && !strings.Contains(l.Node.Output(p.Name), "crashed") {
			t.Errorf("pod %s printed %q", p.Name, l.Node.Output(p.Name))
		}
	}
}

func TestAPodIsReadyOnlyWhileItsProbeSucceeds(t *testing.T) {
	t.Parallel()
	l := kubetest.New(t)
	l.Node.Image("shop:v1", kubetest.Service())
	l.Put(kubetest.Deployment("shop", 1, "shop:v1", map[string]string{"UNREADY": "1"}))
	l.Eventually("a pod that listens", func() error {
		pods := l.Pods("app=shop")
		if len(pods) != 1 || !strings.Contains(l.Node.Output(pods[0].Name), "listens") {
			return fmt.Errorf("%+v", pods)
		}
		return nil
	})
	if pods := l.Pods("app=shop"); pods[0].Ready {
		t.Errorf("%+v is ready", pods[0])
	}
}

func TestAVariableFromAConfigMapAndASecret(t *testing.T) {
	t.Parallel()
	l := kubetest.New(t)
	l.Node.Image("shop:v1", kubetest.Service())
	l.Apply(`
apiVersion: v1
kind: ConfigMap
metadata: {name: flags}
data: {ANALYTICS: "1"}
---
apiVersion: v1
kind: Secret
metadata: {name: keys}
stringData: {key: sesame}
`)
	d := kubetest.Deployment("shop", 1, "shop:v1", nil)
	pod := d["spec"].(map[string]any)["template"].(map[string]any)["spec"].(map[string]any)
	c := pod["containers"].([]any)[0].(map[string]any)
	c["envFrom"] = []any{map[string]any{"configMapRef": map[string]any{"name": "flags"}}}
	c["env"] = append(c["env"].([]any),
		map[string]any{"name": "KEY", "valueFrom": map[string]any{"secretKeyRef": map[string]any{"name": "keys", "key": "key"}}},
		map[string]any{"name": "BOTH", "value": "$(ANALYTICS) $(KEY) $(NONE)"})
	l.Put(d)
	l.Rolled("deployments", "shop")
	if env := l.Env(l.Pods("app=shop")[0]); !slices.Contains(env, "BOTH=1 sesame $(NONE)") {
		t.Errorf("environment %q", env)
	}
}

func TestAServiceAccountMayDoWhatItsRoleSays(t *testing.T) {
	t.Parallel()
	l := kubetest.New(t)
	deploy(t, l)
	l.Apply(`
apiVersion: v1
kind: ServiceAccount
metadata: {name: reader}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: Role
metadata: {name: reader}
rules: [{apiGroups: [apps], resources: [deployments], resourceNames: [shop], verbs: [get]}]
---
apiVersion: rbac.authorization.k8s.io/v1
kind: RoleBinding
metadata: {name: reader}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: Role, name: reader}
subjects: [{kind: ServiceAccount, name: reader}]
`)
	opened, err := kube.Open(l.Kubeconfig(l.ServiceAccount("reader")))
	if err != nil {
		t.Fatal(err)
	}
	l.Eventually("the binding is seen", func() error { return opened.Get(t.Context(), l.Apps("deployments", "shop"), nil) })
	if err := setFlag(t, l, opened, "0"); kube.Code(err) != http.StatusForbidden {
		t.Errorf("the patch answers %v", err)
	}
}

func TestAKilledAPIServerComesBackWithItsDataWhilePodsServeOn(t *testing.T) {
	t.Parallel()
	l := kubetest.Own(t)
	before := deploy(t, l)
	if err := l.Server.Kill(); err != nil {
		t.Fatal(err)
	}
	if err := setFlag(t, l, l.Client, "0"); !errors.Is(err, syscall.ECONNREFUSED) {
		t.Fatalf("a killed API server answers %v", err)
	}
	for _, p := range before {
		if env := l.Env(p); !slices.Contains(env, flag+"=1") {
			t.Errorf("pod %s has %q", p.Name, env)
		}
	}
	if err := l.Server.Start(); err != nil {
		t.Fatal(err)
	}
	l.Rolled("deployments", "shop")
	for i, p := range l.Pods("app=shop") {
		if p.Name != before[i].Name || p.Restarts != 0 {
			t.Errorf("%+v was %+v", p, before[i])
		}
	}
	if err := setFlag(t, l, l.Client, "0"); err != nil {
		t.Fatal(err)
	}
	l.Rolled("deployments", "shop")
	for _, p := range l.Pods("app=shop") {
		if env := l.Env(p); !slices.Contains(env, flag+"=0") {
			t.Errorf("pod %s has %q", p.Name, env)
		}
	}
}
