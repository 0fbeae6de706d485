package kubernetes

import (
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/locotoki/backout/alerts"
	"github.com/locotoki/backout/deploy/kube"
	"github.com/locotoki/backout/deploy/kube/kubetest"
	"github.com/locotoki/backout/hint"
	"github.com/locotoki/backout/remediation"
	"github.com/locotoki/backout/remediation/jsonhttp"
)

func (w *world) playbook() *alerts.Playbook {
	return &alerts.Playbook{Service: "shop", Target: w.target, Flags: []alerts.Flag{w.flag}}
}

func TestWhatCannotBeChangedIsRefusedBeforeAnythingIsChanged(t *testing.T) {
	t.Parallel()
	l := kubetest.New(t)
	from := func(names ...string) func(object) {
		var all []any
		for _, name := range names {
			kind := "configMapRef"
			if name == "secret" {
				kind = "secretRef"
			}
			all = append(all, object{kind: object{"name": name}})
		}
		return func(m object) { theContainer(m)["envFrom"] = all }
	}
	fromMap := from("shop-flags")
	configMap := func(w *world) { w.target.Kubernetes.Flags.ConfigMap = "shop-flags" }
	flags := func(more object) func(*world) {
		return func(w *world) {
			configMap(w)
			o := object{"apiVersion": "v1", "kind": "ConfigMap", "metadata": object{"name": "shop-flags"}, "data": object{flagName: "1"}}
			for k, v := range more {
				o[k] = v
			}
			w.Put(o)
		}
	}
	for name, c := range map[string]struct {
		edit   []func(object)
		set    func(w *world)
		want   string
		advice string
		image  bool // the image is refused too
	}{
		"paused":      {[]func(object){func(m object) { theSpec(m)["paused"] = true }}, nil, "is paused (spec.paused)", "kubectl rollout resume", true},
		"scaled to 0": {[]func(object){count(0)}, nil, "is scaled to 0 (spec.replicas)", "kubectl scale --replicas=1", true},
		"OnDelete": {[]func(object){statefulSet, func(m object) { theSpec(m)["updateStrategy"] = object{"type": "OnDelete"} }}, nil,
			"spec.updateStrategy.type OnDelete", "set it to RollingUpdate", true},
		"partition": {[]func(object){statefulSet, func(m object) {
			theSpec(m)["updateStrategy"] = object{"type": "RollingUpdate", "rollingUpdate": object{"partition": 2}}
		}}, nil, "spec.updateStrategy.rollingUpdate.partition 2", "set it to 0", true},
		"another container": {nil, func(w *world) { w.target.Kubernetes.Container = "app" }, "has no container app", "one of shop", true},
		"another workload":  {nil, func(w *world) { w.target.Kubernetes.Deployment = "cart" }, "there is no deployment", "fix target.kubernetes", true},
		"another context":   {nil, func(w *world) { w.target.Kubernetes.Context = "prod" }, `has no context "prod"`, "one of lab", true},
		"no context":        {nil, func(w *world) { w.target.Kubernetes.Context = "" }, `has no context ""`, "one of lab", true},
		"valueFrom a field": {[]func(object){env(object{"name": flagName, "valueFrom": object{"fieldRef": object{"fieldPath": "metadata.name"}}})}, nil,
			"takes its value from elsewhere (valueFrom)", "write it as value: under env", false},
		"valueFrom a ConfigMap": {[]func(object){env(object{"name": flagName, "valueFrom": object{"configMapKeyRef": object{"name": "shop-flags", "key": flagName}}})}, nil,
			"takes its value from a ConfigMap (valueFrom)", "{flags: {configmap: shop-flags}}", false},
		"twice under env": {[]func(object){env(object{"name": flagName, "value": "1"}, object{"name": flagName, "value": "2"})}, nil,
			"is listed twice under env", "keep the last one", false},
		"an immutable ConfigMap":       {[]func(object){env(), fromMap}, flags(object{"immutable": true}), "configmap NAMESPACE/shop-flags is immutable", "remove immutable: true", false},
		"a missing ConfigMap":          {[]func(object){env(), fromMap}, configMap, "there is no configmap NAMESPACE/shop-flags", "fix target.kubernetes", false},
		"a ConfigMap that is not read": {[]func(object){env()}, flags(nil), "takes no " + flagName + " from ConfigMap shop-flags", "envFrom: [{configMapRef: {name: shop-flags}}]", false},
		"a ConfigMap that a later one overrules": {[]func(object){env(), from("shop-flags", "shop-overrides")}, func(w *world) {
			flags(nil)(w)
			w.Put(object{"apiVersion": "v1", "kind": "ConfigMap", "metadata": object{"name": "shop-overrides"}, "data": object{flagName: "1"}})
		}, "takes " + flagName + " from ConfigMap shop-overrides too, which overrules ConfigMap shop-flags", "{flags: {configmap: shop-overrides}}", false},
		"a ConfigMap that a Secret may overrule": {[]func(object){env(), from("shop-flags", "secret")}, func(w *world) {
			flags(nil)(w)
			w.target.Probe.Flags = ""
		}, "may take " + flagName + " from Secret secret, which would overrule ConfigMap shop-flags", "list ConfigMap shop-flags last", false},
		"a ConfigMap that env overrules at its end": {[]func(object){env(
			object{"name": flagName, "valueFrom": object{"configMapKeyRef": object{"name": "shop-flags", "key": flagName}}}, object{"name": flagName, "value": "1"}), fromMap},
			flags(nil), "sets " + flagName + " itself under env", "{flags: env}", false},
		"a ConfigMap that env overrules": {[]func(object){fromMap}, flags(nil), "sets " + flagName + " itself under env, which overrules ConfigMap shop-flags", "{flags: env}", false},
	} {
		t.Run(name, func(t *testing.T) { // one after the other, without waiting for its pod
			w := start(t, l.For(t), append([]func(object){count(1)}, c.edit...)...)
			defer w.remove(w.Apps(w.resource(), "shop"), w.Core("configmaps", "shop-flags"))
			before := w.generation()
			if c.set != nil {
				c.set(w)
			}
			client := w.client(nil)
			refused := func(a remediation.Action) {
				t.Helper()
				_, err := a.Look(t.Context(), op)
				for _, err := range []error{err, a.Apply(t.Context(), op, nil)} {
					message, advice := hint.Of(err)
					if want := strings.ReplaceAll(c.want, "NAMESPACE", w.Namespace); !strings.Contains(message, want) || !strings.Contains(advice, c.advice) || remediation.IsInDoubt(err) {
						t.Errorf("got %v, want %q and %q", err, want, c.advice)
					}
				}
			}
			refused(w.flagOff(client))
			if c.image {
				refused(w.imageBack(client, "v1.0.0"))
			}
			w.target.Kubernetes.Deployment, w.target.Kubernetes.Context = strings.Replace(w.target.Kubernetes.Deployment, "cart", "shop", 1), "lab"
			if got := w.generation(); got != before || w.patches.Load() != 0 {
				t.Errorf("generation %d became %d by %d patches", before, got, w.patches.Load())
			}
		})
	}
}

func TestWhatCanNeverBeBoundIsRefused(t *testing.T) {
	w := &world{t: t}
	c := w.client(nil)
	target := alerts.Target{Kubernetes: &alerts.KubernetesTarget{Namespace: "shop", Deployment: "shop", Container: "shop"}}
	for want, flag := range map[string]alerts.Flag{
		"is not an environment variable name": {Name: "a/b", Off: "0"},
		"refers to another variable":          {Name: "A", Off: "$(B)"},
	} {
		if _, err := c.FlagOff(target, flag); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%+v: %v", flag, err)
		}
	}
	for _, previous := range []string{"", "a:b", "a@b", "a/b"} {
		if _, err := c.ImageRetag(target, "", previous); err == nil || !strings.Contains(err.Error(), "not a valid tag") {
			t.Errorf("%q: %v", previous, err)
		}
	}
	if _, err := c.FlagOff(alerts.Target{}, alerts.Flag{Name: "A"}); err == nil {
		t.Error("a flag of a compose project was bound")
	}
	if _, err := c.ImageRetag(alerts.Target{}, "", "v1"); err == nil {
		t.Error("an image of a compose project was bound")
	}
}

func TestWithoutAKubeconfigAContextIsRefused(t *testing.T) {
	c := (&world{t: t}).client(nil)
	target := alerts.Target{Kubernetes: &alerts.KubernetesTarget{Context: "prod", Namespace: "shop", Deployment: "shop", Container: "shop"}}
	_, err := c.Verify(t.Context(), target, "", "v1")
	if err == nil || !strings.Contains(err.Error(), "names the context prod, and there is no kubeconfig") {
		t.Error(err)
	}
	target.Kubernetes.Context = ""
	if _, err = c.Verify(t.Context(), target, "", "v1"); err == nil || !strings.Contains(err.Error(), "run backout in the cluster") {
		t.Error(err)
	}
	open := filepath.Join(t.TempDir(), "kubeconfig")
	if err := os.WriteFile(open, nil, 0o644); err != nil { //nolint:gosec // what is refused
		t.Fatal(err)
	}
	c = (&world{t: t, kubeconfig: open}).client(nil)
	if _, err = c.Verify(t.Context(), target, "", "v1"); err == nil || !strings.Contains(err.Error(), "kubernetes.kubeconfig") {
		t.Error(err)
	}
}

// asShipped makes backout a service account with the shipped Role; patch changes it.
func (w *world) asShipped(patch string) {
	w.t.Helper()
	more := ""
	if w.resource() == "statefulsets" {
		more = "components: [HERE/statefulset]\n"
	}
	if patch != "" {
		more = "  - target: {kind: Role, name: backout}\n    patch: '" + patch + "'\n" + more
	}
	account := w.Rights("../../deploy/kubernetes/target", more)
	w.kubeconfig = w.Kubeconfig(account)
	w.Eventually("the role is in force", func() error { return account.Get(w.t.Context(), w.Apps(w.resource(), "shop"), nil) })
}

func TestTheShippedRoleSuffices(t *testing.T) {
	for name, start := range map[string]func(t *testing.T) *world{
		"env":         func(t *testing.T) *world { return newWorld(t, count(1)) },
		"statefulset": func(t *testing.T) *world { return newWorld(t, count(1), statefulSet) },
		"configmap":   func(t *testing.T) *world { return withConfigMap(t, kubetest.New(t), count(1)) },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := start(t).ready()
			w.asShipped("")
			c := w.client(nil)
			flag, img := w.flagOff(c), w.imageBack(c, "v1.0.0")
			for _, check := range append(flag.Checks(), img.Checks()...) {
				if r := check.Run(t.Context()); r.Status != remediation.Pass && check.ID != "image/runs" {
					t.Errorf("%s: %+v", check.ID, r)
				}
			}
			if r := img.Rehearse(t.Context()); r.Status != remediation.Pass || w.patches.Load() != 0 {
				t.Errorf("the rehearsal: %+v after %d patches", r, w.patches.Load())
			}
			snap := w.apply(flag, op)
			imageSnap := w.apply(img, "inc-1/2-image_retag@1")
			if err := img.Restore(t.Context(), "inc-1/2-image_retag@1", imageSnap); err != nil {
				t.Error(err)
			}
			if err := flag.Restore(t.Context(), op, snap); err != nil {
				t.Error(err)
			}
		})
	}
}

// A token that is written into the kubeconfig, or a client's certificate, is replaced there before it expires.
func TestCredentialsThatAreReplacedInTheKubeconfigAreTaken(t *testing.T) {
	t.Parallel()
	w := newWorld(t, count(1)).ready()
	raw, err := os.ReadFile(w.kubeconfig)
	if err != nil {
		t.Fatal(err)
	}
	good := string(raw)
	w.kubeconfig = filepath.Join(t.TempDir(), "kubeconfig")
	write := func(content string) {
		if err := os.WriteFile(w.kubeconfig, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write(strings.ReplaceAll(good, w.Token, "expired"))
	a := w.flagOff(w.client(nil))
	if _, err := a.Look(t.Context(), op); jsonhttp.Answered(err) != http.StatusUnauthorized || remediation.IsInDoubt(err) {
		t.Errorf("with a token that expired: %v", err)
	}
	write(good)
	w.apply(a, op)
	write(strings.ReplaceAll(good, w.Token, "expired"))
	w.look(a, remediation.Wanted) // read only once it is refused
}

// What the right to delete pods is for: the pod of an image that crashes is replaced.
func TestTheShippedRoleHealsAStatefulSet(t *testing.T) {
	t.Parallel()
	w := newWorld(t, count(1), statefulSet).ready()
	w.asShipped("- {op: add, path: /rules/3/resourceNames, value: [shop-0]}") // as the component says
	w.setImage("shop:crash")
	w.crashing()
	w.apply(w.imageBack(w.client(nil), "v1.0.0"), op)
	w.expectSaid("1 v1.0.0", 1)
}

func TestAMissingRightFailsThePreflightByItsName(t *testing.T) {
	t.Parallel()
	w := newWorld(t, count(1)).ready()
	w.asShipped("- {op: remove, path: /rules/1}")
	r := w.flagOff(w.client(nil)).checkAccepted(t.Context())
	if r.Status != remediation.Fail || r.Evidence != "backout may not list pods in namespace "+w.Namespace || r.Next == "" {
		t.Errorf("%+v", r)
	}
}

func TestWhatThePreflightSaysOfARejectedChange(t *testing.T) {
	t.Parallel()
	w := newWorld(t, count(1), func(m object) { theSpec(m)["strategy"] = object{"type": "Recreate"} }).ready()
	r := w.imageBack(w.client(nil), "v1.0.0").checkAccepted(t.Context())
	if r.Status != remediation.Pass || !strings.Contains(r.Evidence, "from shop:v2.0.0 to shop:v1.0.0 is accepted; with strategy Recreate, no pod serves for a moment") {
		t.Errorf("%+v", r)
	}
	if err := w.Patch(t.Context(), kube.MergePatch, w.Apps("deployments", "shop"), []byte(`{"metadata":{"labels":{"x":"y"}}}`), nil); err != nil {
		t.Fatal(err)
	}
	if got := at(w.get(), "spec", "template", "spec", "containers", 0, "image"); got != "shop:v2.0.0" {
		t.Errorf("a dry run changed the image to %v", got)
	}
}

// A policy against what rolls the ConfigMap out shows before an incident, not in it.
func TestThePreflightTriesBothPatchesOfAConfigMap(t *testing.T) {
	t.Parallel()
	w := withConfigMap(t, kubetest.New(t), count(1)).ready()
	a := w.flagOff(w.client(nil))
	if r := a.Rehearse(t.Context()); r.Status != remediation.Pass {
		t.Errorf("without a policy: %+v", r)
	}
	const group = "admissionregistration.k8s.io/v1"
	defer w.remove("/apis/"+group+"/validatingadmissionpolicybindings/"+w.Namespace, "/apis/"+group+"/validatingadmissionpolicies/"+w.Namespace)
	w.Put(object{"apiVersion": group, "kind": "ValidatingAdmissionPolicy", "metadata": object{"name": w.Namespace}, "spec": object{
		"matchConstraints": object{"resourceRules": []any{object{"apiGroups": []any{"apps"}, "apiVersions": []any{"v1"}, "operations": []any{"UPDATE"}, "resources": []any{"deployments"}}}},
		"validations":      []any{object{"expression": "!has(object.spec.template.metadata.annotations)", "message": "pods have no annotations here"}},
	}})
	w.Put(object{"apiVersion": group, "kind": "ValidatingAdmissionPolicyBinding", "metadata": object{"name": w.Namespace}, "spec": object{
		"policyName": w.Namespace, "validationActions": []any{"Deny"},
		"matchResources": object{"namespaceSelector": object{"matchLabels": object{"kubernetes.io/metadata.name": w.Namespace}}},
	}})
	w.Eventually("the policy fails the rehearsal", func() error {
		if r := a.Rehearse(t.Context()); r.Status != remediation.Fail || !strings.Contains(r.Evidence, "pods have no annotations here") {
			return fmt.Errorf("%+v", r)
		}
		return nil
	})
	if w.patches.Load() != 0 {
		t.Errorf("%d patches", w.patches.Load())
	}
}
