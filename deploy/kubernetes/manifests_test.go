package kubernetes_test

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/locotoki/backout/deploy/kube"
	"github.com/locotoki/backout/deploy/kube/kubetest"
	"github.com/locotoki/backout/remediation/store/storetest"
)

func TestMain(m *testing.M) { kubetest.Main(m) }

type rule struct {
	APIGroups, Resources, ResourceNames, Verbs []string
}

// granted asks the API server what a user may do in a namespace, apart from what every service account may.
func granted(t *testing.T, l *kubetest.Lab, c *kube.Client, namespace string) []rule {
	t.Helper()
	all := func(c *kube.Client) []rule {
		var review struct {
			Status struct {
				ResourceRules []rule
				Incomplete    bool
			}
		}
		err := c.Do(t.Context(), http.MethodPost, "/apis/authorization.k8s.io/v1/selfsubjectrulesreviews", object{"spec": object{"namespace": namespace}}, &review)
		if err != nil || review.Status.Incomplete {
			t.Fatalf("%+v, %v", review, err)
		}
		return review.Status.ResourceRules
	}
	everybody := all(l.ServiceAccount("default"))
	return slices.DeleteFunc(all(c), func(r rule) bool {
		return slices.ContainsFunc(everybody, func(e rule) bool { return reflect.DeepEqual(e, r) })
	})
}

// grants waits until a user may do what is wanted in the lab's namespace, and no more.
func grants(t *testing.T, l *kubetest.Lab, c *kube.Client, want ...rule) {
	t.Helper()
	l.Eventually("the binding is seen", func() error {
		if got := granted(t, l, c, l.Namespace); !reflect.DeepEqual(got, want) {
			return fmt.Errorf("granted are %+v, not %+v", got, want)
		}
		return nil
	})
}

func TestTheRoleForAStatefulSetGrantsWhatItSaysAndNoMore(t *testing.T) {
	t.Parallel()
	l := kubetest.New(t)
	backout := l.Rights("target", "components: [HERE/statefulset]")
	grants(t, l, backout,
		rule{[]string{"apps"}, []string{"statefulsets"}, []string{"shop"}, []string{"get", "patch"}},
		rule{[]string{""}, []string{"pods"}, nil, []string{"list"}},
		rule{[]string{""}, []string{"configmaps"}, []string{"shop-flags"}, []string{"get", "patch"}},
		rule{[]string{""}, []string{"pods"}, nil, []string{"delete"}})
}

func TestTheRoleGrantsWhatItSaysAndNoMore(t *testing.T) {
	t.Parallel()
	l := kubetest.New(t)
	backout := l.Rights("target", "")
	grants(t, l, backout,
		rule{[]string{"apps"}, []string{"deployments"}, []string{"shop"}, []string{"get", "patch"}},
		rule{[]string{""}, []string{"pods"}, nil, []string{"list"}},
		rule{[]string{""}, []string{"configmaps"}, []string{"shop-flags"}, []string{"get", "patch"}})
	if got := granted(t, l, backout, "default"); len(got) != 0 {
		t.Errorf("in another namespace, granted are %+v", got)
	}
	l.Node.Image("shop:v1", kubetest.Service())
	for _, name := range []string{"shop", "other"} {
		l.Put(kubetest.Deployment(name, 1, "shop:v1", map[string]string{"FLAG": "1"}))
		l.Put(object{"apiVersion": "v1", "kind": "ConfigMap", "metadata": object{"name": name + "-flags"}, "data": object{"FLAG": "1"}})
		l.Rolled("deployments", name)
	}
	annotate := []byte(`{"metadata":{"annotations":{"backout.dev/operation":"op"}}}`)
	pod := l.Pods("app=shop")[0].Name
	for _, tc := range []struct {
		method, path string
		allowed      bool
	}{
		{"GET", l.Apps("deployments", "shop"), true},
		{"PATCH " + kube.MergePatch, l.Apps("deployments", "shop"), true},
		{"GET", l.Core("pods", ""), true},
		{"GET", l.Core("configmaps", "shop-flags"), true},
		{"PATCH " + kube.MergePatch, l.Core("configmaps", "shop-flags"), true},
		{"GET", l.Apps("deployments", "other"), false},
		{"PATCH " + kube.MergePatch, l.Apps("deployments", "other"), false},
		{"GET", l.Apps("deployments", ""), false},
		{"DELETE", l.Apps("deployments", "shop"), false},
		{"PATCH " + kube.MergePatch, l.Apps("deployments", "shop") + "/scale", false},
		{"GET", l.Core("configmaps", "other-flags"), false},
		{"GET", l.Core("configmaps", ""), false},
		{"GET", l.Core("secrets", ""), false},
		{"DELETE", l.Core("pods", pod), false},
		{"POST", l.Core("pods", pod) + "/exec", false},
		{"GET", "/api/v1/namespaces/default/pods", false},
		{"GET", "/api/v1/nodes", false},
	} {
		var body any
		if strings.HasPrefix(tc.method, "PATCH") {
			body = annotate
		}
		err := backout.Do(t.Context(), tc.method, tc.path, body, nil)
		if code := kube.Code(err); tc.allowed && err != nil || !tc.allowed && code != http.StatusForbidden {
			t.Errorf("%s %s: %v", tc.method, tc.path, err)
		}
	}
}

// shipped applies the base, with more lines of a kustomization, to a lab of its own. Its pods run the program as backout.
func shipped(t *testing.T, program, more string, listen int) *kubetest.Lab {
	t.Helper()
	l := kubetest.New(t)
	l.Node.Image("registry.example.com/backout:v1", kube.Image{Program: "/usr/local/bin/backout", Root: map[string]string{"/usr/local/bin/backout": program}})
	l.Apply(`
{apiVersion: v1, kind: Secret, metadata: {name: backout-alertmanager}, stringData: {am.token: am-token-of-16-characters}}
---
{apiVersion: v1, kind: Secret, metadata: {name: backout-tokens}, stringData: {oncall.token: oncall-token-of-16-characters}}
`)
	l.Apply(l.Overlay(".", more+`
resources: [HERE]
namespace: `+l.Namespace+`
images: [{name: backout, newName: registry.example.com/backout, newTag: v1}]
patches: # pods of this node share the machine's addresses
  - target: {kind: Deployment, name: backout}
    patch: |-
      - {op: replace, path: /spec/template/spec/containers/0/args/`+fmt.Sprint(listen)+`, value: --web.listen-address=$(POD_IP):9099}
      - {op: add, path: /spec/template/spec/containers/0/env, value: [{name: POD_IP, valueFrom: {fieldRef: {fieldPath: status.podIP}}}]}
`))
	return l
}

// ready waits for so many pods of backout.
func ready(l *kubetest.Lab, n int) (pods []kubetest.Pod) {
	l.Eventually("backout is ready", func() error {
		pods = slices.DeleteFunc(l.Pods("app.kubernetes.io/name=backout"), func(p kubetest.Pod) bool { return p.Deleting })
		for _, p := range pods {
			if !p.Ready {
				return fmt.Errorf("%+v prints %s", p, l.Node.Output(p.Name))
			}
		}
		if len(pods) != n {
			return fmt.Errorf("%d pods", len(pods))
		}
		return nil
	})
	return pods
}

// acting waits until one of the pods acts in the default realm, by their own metrics.
func acting(l *kubetest.Lab, pods []kubetest.Pod) (one kubetest.Pod) {
	client := &http.Client{Timeout: 30 * time.Second, Transport: &http.Transport{DisableKeepAlives: true}}
	l.Eventually("one pod acts", func() error {
		var names []string
		for _, p := range pods {
			resp, err := client.Get("http://" + p.IP + ":9099/metrics")
			if err != nil {
				return err
			}
			body, err := io.ReadAll(resp.Body)
			if err = errors.Join(err, resp.Body.Close()); err != nil {
				return err
			}
			if strings.Contains(string(body), `backout_acts{realm=""} 1`) {
				one, names = p, append(names, p.Name)
			}
		}
		if len(names) != 1 {
			return fmt.Errorf("%q act", names)
		}
		return nil
	})
	return one
}

// The pods run as they are shipped: the API server holds them to the restricted profile, and the node runs the program in a
// root folder of its own, as the pod's user, with the pod's volumes.
func TestTheShippedPodsRunWithNoRightOfRoots(t *testing.T) {
	t.Parallel()
	program := filepath.Join(t.TempDir(), "backout")
	build := exec.Command("go", "build", "-trimpath", "-ldflags=-s -w", "-o", program, "github.com/locotoki/backout/cmd/backout") // as make build does
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("go build: %v\n%s", err, out)
	}
	t.Run("one on SQLite", func(t *testing.T) { ready(shipped(t, program, "", 4), 1) })
	t.Run("two on PostgreSQL", func(t *testing.T) {
		dsn := storetest.Postgres(t) // ends after the pods
		l := shipped(t, program, "components: [HERE/replicas]", 3)
		l.Put(object{"apiVersion": "v1", "kind": "Secret", "metadata": object{"name": "backout-database"}, "stringData": object{"dsn": dsn}})
		first := acting(l, ready(l, 2))
		if err := l.Do(t.Context(), http.MethodDelete, l.Core("pods", first.Name), nil, nil); err != nil {
			t.Fatal(err)
		}
		second := acting(l, ready(l, 2)) // the one that was there, or the one that came for the first: either may be sooner
		if second.Name == first.Name {
			t.Error("the pod that was deleted acts")
		}
		if acting(l, ready(l, 2)).Name != second.Name {
			t.Error("the pod that took over did not keep the realm")
		}
	})
}
