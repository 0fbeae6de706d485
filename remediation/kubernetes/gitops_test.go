package kubernetes

import (
	"context"
	"net/http"
	"reflect"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/locotoki/backout/alerts"
	"github.com/locotoki/backout/deploy/kube"
	"github.com/locotoki/backout/deploy/kube/kubetest"
	"github.com/locotoki/backout/remediation"
)

// flux applies the manifest again and again by the rule of Flux's own engine, ResourceManager.ApplyAll of
// github.com/fluxcd/pkg/ssa v0.78.0, with what kustomize-controller excludes: the object in the cluster is looked at, and
// skipped by a label or annotation whatever its case; a forced dry run shows whether it has drifted; if so, it is applied by
// force.
type flux struct {
	w        *world
	manifest object
	// turns are those in which it was not skipped.
	turns, skipped atomic.Int32
}

var fluxExcludes = map[string]string{fluxAnnotation: fluxDisabled, "kustomize.toolkit.fluxcd.io/ssa": "Ignore"}

func (f *flux) apply(ctx context.Context) {
	var now, dry object
	path := f.w.Apps("deployments", "shop")
	err := f.w.Get(ctx, path, &now)
	for key, value := range fluxExcludes {
		for _, in := range []string{"labels", "annotations"} {
			if has, _ := at(now, "metadata", in, key).(string); strings.EqualFold(has, value) {
				f.skipped.Add(1)
				return
			}
		}
	}
	const forced = "?fieldManager=kustomize-controller&force=true"
	if err == nil {
		err = f.w.Patch(ctx, kube.ApplyPatch, path+forced+"&dryRun=All", f.manifest, &dry)
	}
	if err == nil && (!reflect.DeepEqual(dry["spec"], now["spec"]) || !reflect.DeepEqual(at(dry, "metadata", "labels"), at(now, "metadata", "labels")) ||
		!reflect.DeepEqual(at(dry, "metadata", "annotations"), at(now, "metadata", "annotations"))) {
		err = f.w.Patch(ctx, kube.ApplyPatch, path+forced, f.manifest, nil)
	}
	if err != nil && ctx.Err() == nil && kube.Code(err) != http.StatusNotFound {
		f.w.t.Error(err)
	}
	f.turns.Add(1)
}

// underFlux is a service that Flux applies.
func underFlux(t *testing.T) (*world, *flux) {
	t.Helper()
	var manifest object
	w := newWorld(t, func(m object) { manifest = m }).ready()
	manifest["metadata"].(object)["labels"] = object{"kustomize.toolkit.fluxcd.io/name": "shop", "kustomize.toolkit.fluxcd.io/namespace": "flux-system"}
	f := &flux{w: w, manifest: manifest}
	f.apply(t.Context())
	return w.ready(), f
}

func TestFluxIsPausedWithTheFlagAndResumedByTheRestore(t *testing.T) {
	t.Parallel()
	w, f := underFlux(t)
	w.target.Kubernetes.GitOps = &alerts.GitOps{Flux: alerts.FluxPause}
	a := w.flagOff(w.client(nil))
	if r := a.checkLasts(t.Context()); r.Status != remediation.Pass {
		t.Fatalf("%+v", r)
	}
	during(t, func() {
		before := w.apply(a, op)
		skipped := f.skipped.Load()
		w.Eventually("Flux skips it", func() error {
			if f.skipped.Load() < skipped+5 {
				return errCut
			}
			return nil
		})
		w.expectSaid("0 v2.0.0", 2)
		if err := a.Restore(t.Context(), op, before); err != nil {
			t.Error(err)
		}
		turns := f.turns.Load()
		w.Eventually("Flux has its turn again", func() error {
			if f.turns.Load() < turns+2 {
				return errCut
			}
			return nil
		})
		w.ready().expectSaid("1 v2.0.0", 2)
		if got := at(w.get(), "metadata", "annotations", fluxAnnotation); got != nil {
			t.Errorf("the pause is left: %v", got)
		}
	}, f.apply)
}

func TestAPauseThatIsNotOursStays(t *testing.T) {
	t.Parallel()
	w := newWorld(t, count(1)).ready()
	w.target.Kubernetes.GitOps = &alerts.GitOps{Flux: alerts.FluxPause}
	w.edit(`{"metadata":{"annotations":{"` + fluxAnnotation + `":"disabled"}}}`)
	a := w.flagOff(w.client(nil))
	before := w.apply(a, op)
	if err := a.Undo(t.Context(), op, before); err != nil {
		t.Fatal(err)
	}
	if got := at(w.get(), "metadata", "annotations", fluxAnnotation); got != fluxDisabled {
		t.Errorf("it is %v", got)
	}
}

func TestAnEarlierMarkReturnsWithItsValueAloneAndPausesNothing(t *testing.T) {
	const earlier = "inc-1/0-flag_set@1600000000"
	half := "0.5"
	for name, c := range map[string]struct {
		now, mark string
	}{
		"the value is put back":      {"0", earlier},
		"a person set it meanwhile":  {"0.7", ""},
		"a person set the old value": {"0.5", ""},
	} {
		var w workload
		f := envField{"shop", flagName}
		w.Metadata.Annotations = map[string]string{markAnnotation: `{"` + f.key() + `":"` + op + `","other":"o","flux":"disabled"}`} // and no pause
		w.Spec.Template.Spec.Containers = []container{{Name: "shop", Env: []variable{{Name: flagName, Value: c.now}}}}
		target := alerts.KubernetesTarget{Container: "shop", Deployment: "shop", GitOps: &alerts.GitOps{Flux: alerts.FluxPause}}
		s := seen{state: &state{place: place{t: target}, w: w}, now: &c.now, want: "0"}
		all, err := (&change{field: f}).backward(s, op, snapshot{Value: &half, To: "0", Mark: earlier})
		if err != nil || len(all) != 1 {
			t.Fatalf("%s: %v, %v", name, all, err)
		}
		want := `{"flux":"disabled","other":"o"}`
		if c.mark != "" {
			want = `{"flux":"disabled","other":"o","` + f.key() + `":"` + c.mark + `"}`
		}
		marked := ""
		for _, o := range all[0].list {
			switch {
			case strings.HasSuffix(o.Path, "~1reconcile"):
				t.Errorf("%s: Flux is paused again: %+v", name, o)
			case strings.HasSuffix(o.Path, "~1operation") && o.Op == "add":
				marked, _ = o.Value.(string)
			}
		}
		if marked != want {
			t.Errorf("%s: the marks are %s, not %s", name, marked, want)
		}
	}
}

func TestAGitOpsToolThatThePlaybookDoesNotNameFailsThePreflight(t *testing.T) {
	t.Parallel()
	w, f := underFlux(t)
	c := w.client(nil)
	for name, lasts := range map[string]func(context.Context) remediation.Result{
		"flag": w.flagOff(c).checkLasts, "image": w.imageBack(c, "v1.0.0").checkLasts,
	} {
		r := lasts(t.Context())
		if r.Status != remediation.Fail || !strings.HasPrefix(r.Evidence, "kustomize-controller owns ") || !strings.Contains(r.Next, "{flux: pause}") {
			t.Errorf("%s: %+v", name, r)
		}
	}
	w.target.Kubernetes.GitOps = &alerts.GitOps{ArgoCD: alerts.ArgoCDIgnore}
	if r := w.flagOff(c).checkLasts(t.Context()); r.Status != remediation.Fail || !strings.Contains(r.Evidence, "is for another tool") {
		t.Errorf("another tool: %+v", r)
	}
	// Where backout has changed the field, Flux does not own it any more, and would set it all the same.
	w.target.Kubernetes.GitOps = nil
	w.apply(w.flagOff(c), op)
	if r := w.flagOff(c).checkLasts(t.Context()); r.Status != remediation.Fail || !strings.HasPrefix(r.Evidence, "kustomize-controller owns ") {
		t.Errorf("after a change of ours: %+v", r)
	}
	during(t, func() {
		back := func() {
			w.Eventually("Flux sets it back", func() error {
				if w.value() != "1" {
					return errCut
				}
				return nil
			})
		}
		back()
		// It is set again each time, and the error names who sets it back.
		err := w.flagOff(c).Apply(t.Context(), op, nil)
		if err == nil { // it came to its end before Flux's next turn
			back()
			err = w.flagOff(c).Verify(t.Context(), op)
		}
		if err == nil || !strings.Contains(err.Error(), "kustomize-controller") {
			t.Errorf("against Flux: %v", err)
		}
	}, f.apply)
}

func TestAHandThatAppliesIsToldAndDoesNotFailThePreflight(t *testing.T) {
	t.Parallel()
	w := newWorld(t, count(1)).ready()
	w.setVariable("0.5")
	r := w.flagOff(w.client(nil)).checkLasts(t.Context())
	if r.Status != remediation.Pass || !strings.Contains(r.Evidence, "kubectl-edit, whose next apply sets it again") {
		t.Errorf("%+v", r)
	}
}

func TestAnApplicationOfArgoCDMustIgnoreWhatBackoutManages(t *testing.T) {
	t.Parallel()
	w := withConfigMap(t, kubetest.New(t), count(1)).ready()
	w.target.Kubernetes.GitOps = &alerts.GitOps{ArgoCD: alerts.ArgoCDIgnore}
	inMap := w.flagOff(w.client(nil))
	inEnv := *w.target.Kubernetes
	inEnv.Flags.ConfigMap = ""
	w.target.Kubernetes = &inEnv
	a := w.flagOff(w.client(nil))
	expect := func(status remediation.Status, want string) {
		t.Helper()
		if r := a.checkLasts(t.Context()); r.Status != status || !strings.Contains(r.Evidence, want) {
			t.Errorf("got %+v, want %s: %s", r, status, want)
		}
	}
	expect(remediation.CannotTell, "names its Argo CD Application")
	tracking := `{"metadata":{"annotations":{"` + argoTracking + `":"` + w.Namespace + `_shop:apps/Deployment:` + w.Namespace + `/shop"}}}`
	w.edit(tracking)
	if err := w.Patch(t.Context(), kube.MergePatch, w.Core("configmaps", "shop-flags"), []byte(tracking), nil); err != nil {
		t.Fatal(err)
	}
	expect(remediation.CannotTell, "look at application "+w.Namespace+"/shop")
	w.Put(object{
		"apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition", "metadata": object{"name": "applications.argoproj.io"},
		"spec": object{"group": "argoproj.io", "scope": "Namespaced", "names": object{"plural": "applications", "kind": "Application"}, "versions": []any{object{
			"name": "v1alpha1", "served": true, "storage": true, "schema": object{"openAPIV3Schema": object{"type": "object", "x-kubernetes-preserve-unknown-fields": true}},
		}}},
	})
	path := "/apis/argoproj.io/v1alpha1/namespaces/" + w.Namespace + "/applications"
	w.Eventually("the kind is served", func() error {
		return w.Do(t.Context(), http.MethodPost, path, object{"apiVersion": "argoproj.io/v1alpha1", "kind": "Application", "metadata": object{"name": "shop"}, "spec": object{}}, nil)
	})
	set := func(spec string) {
		t.Helper()
		if err := w.Patch(t.Context(), kube.MergePatch, path+"/shop", []byte(`{"spec":`+spec+`}`), nil); err != nil {
			t.Fatal(err)
		}
	}
	expect(remediation.Fail, "does not ignore what backout manages")
	set(`{"syncPolicy":{"syncOptions":["RespectIgnoreDifferences=true"]}}`)
	for entry, ignores := range map[string]struct{ workload, configMap bool }{
		`"group":"apps","kind":"Deployment"`:                                                 {true, false},
		`"group":"apps","kind":"Deployment","name":"shop"`:                                   {true, false},
		`"group":"apps","kind":"Deployment","name":"cart"`:                                   {false, false},
		`"group":"apps","kind":"Deployment","namespace":"` + w.Namespace + `"`:               {true, false},
		`"group":"apps","kind":"Deployment","namespace":"elsewhere"`:                         {false, false},
		`"group":"apps","kind":"StatefulSet"`:                                                {false, false},
		`"kind":"Deployment"`:                                                                {false, false},
		`"group":"argoproj.io","kind":"Deployment"`:                                          {false, false},
		`"group":"app?","kind":"Deploy*"`:                                                    {true, false},
		`"group":"*","kind":"*"`:                                                             {true, true},
		`"group":"*","kind":"*","namespace":"elsewhere"`:                                     {false, false},
		`"kind":"ConfigMap","managedFieldsManagers":["backout"]},{"group":"apps","kind":"*"`: {true, true},
		`"group":"apps","kind":"*"`:                                                          {true, false},
	} {
		set(`{"ignoreDifferences":[{` + entry + `,"managedFieldsManagers":["kubectl","backout"]}]}`)
		for _, of := range []struct {
			a    *flagChange
			want bool
		}{{a, ignores.workload}, {inMap, ignores.configMap}} {
			r := of.a.checkLasts(t.Context())
			if (r.Status == remediation.Pass) != of.want || !of.want && !strings.Contains(r.Evidence, "does not ignore what backout manages") {
				t.Errorf("%s of %s: %+v, want a pass: %t", entry, of.a.field.name(), r, of.want)
			}
		}
	}
	set(`{"ignoreDifferences":[{"group":"apps","kind":"Deployment","managedFieldsManagers":["kubectl"]}]}`)
	expect(remediation.Fail, "does not ignore what backout manages")
	set(`{"ignoreDifferences":[{"group":"apps","kind":"Deployment","managedFieldsManagers":["backout"]}]}`)
	expect(remediation.Pass, "ignores the fields")
	set(`{"syncPolicy":{"syncOptions":[]}}`)
	expect(remediation.Fail, "not when it syncs")
}

// An operator puts back what it made of its custom resource, or leaves it: its name is all that shows.
func TestAnObjectThatAnotherOneControlsDoesNotPass(t *testing.T) {
	t.Parallel()
	w := withConfigMap(t, kubetest.New(t), count(1)).ready()
	w.Put(object{"apiVersion": "v1", "kind": "ConfigMap", "metadata": object{"name": "operator"}})
	var operator object
	if err := w.Get(t.Context(), w.Core("configmaps", "operator"), &operator); err != nil {
		t.Fatal(err)
	}
	own := func(path, controller string) {
		t.Helper()
		owner := `{"metadata":{"ownerReferences":[{"apiVersion":"v1","kind":"ConfigMap","name":"operator","controller":` + controller + `,"uid":"` + at(operator, "metadata", "uid").(string) + `"}]}}`
		if err := w.Patch(t.Context(), kube.MergePatch, path, []byte(owner), nil); err != nil {
			t.Fatal(err)
		}
	}
	flag, image := w.flagOff(w.client(nil)), w.imageBack(w.client(nil), "v1.0.0")
	check := func(a interface {
		checkLasts(context.Context) remediation.Result
	}, want remediation.Status, evidence string) {
		t.Helper()
		if r := a.checkLasts(t.Context()); r.Status != want || !strings.Contains(r.Evidence, evidence) {
			t.Errorf("%+v, want %s %q", r, want, evidence)
		}
	}
	own(w.Apps("deployments", "shop"), "false")
	check(image, remediation.Pass, "")
	own(w.Core("configmaps", "shop-flags"), "true")
	check(image, remediation.Pass, "")
	check(flag, remediation.CannotTell, "configmap "+w.Namespace+"/shop-flags is controlled by ConfigMap operator: its controller may put FEATURE_A of ConfigMap shop-flags back")
	own(w.Core("configmaps", "shop-flags"), "false")
	own(w.Apps("deployments", "shop"), "true")
	check(image, remediation.CannotTell, "deployment "+w.Namespace+"/shop is controlled by ConfigMap operator: its controller may put the image of container shop back")
	check(flag, remediation.CannotTell, "deployment "+w.Namespace+"/shop is controlled by ConfigMap operator")
	w.target.Kubernetes.GitOps = &alerts.GitOps{Flux: alerts.FluxPause}
	check(w.flagOff(w.client(nil)), remediation.CannotTell, "is controlled by ConfigMap operator")
}
