package kubernetes

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"net/http"
	"os"
	"os/exec"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/locotoki/backout/alerts"
	"github.com/locotoki/backout/deploy/kube"
	"github.com/locotoki/backout/deploy/kube/kubetest"
	"github.com/locotoki/backout/remediation"
)

func TestAFlagGoesOffOnEveryPodByOneNewGeneration(t *testing.T) {
	t.Parallel()
	w := newWorld(t, count(3)).ready()
	w.expectSaid("1 v2.0.0", 3)
	before := w.generation()
	snap := w.apply(w.flagOff(w.client(nil)), op)
	w.expectSaid("0 v2.0.0", 3)
	if got := w.generation(); got != before+1 || w.patches.Load() != 1 {
		t.Errorf("generation %d became %d by %d patches", before, got, w.patches.Load())
	}
	if want := `"value":"1","to":"0","ready":3`; !strings.Contains(string(snap), want) {
		t.Errorf("the snapshot is %s, want %s in it", snap, want)
	}
	if got := at(w.get(), "metadata", "annotations", markAnnotation); got != `{"shop/env/`+flagName+`":"`+op+`"}` {
		t.Errorf("the mark is %v", got)
	}
}

const killedEnv = "BACKOUT_TEST_KILLED"

// applyAndDie is backout in a process of its own, which is killed once the API server
// has answered its first patch.
func applyAndDie() {
	c, err := New(Options{Kubeconfig: os.Getenv(killedEnv), Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		panic(err)
	}
	c.wrap = func(next http.RoundTripper) http.RoundTripper {
		return tripper(func(req *http.Request) (*http.Response, error) {
			res, err := next.RoundTrip(req)
			if changes(req) && err == nil {
				_ = syscall.Kill(os.Getpid(), syscall.SIGKILL)
			}
			return res, err
		})
	}
	a, err := c.FlagOff(alerts.Target{Kubernetes: &alerts.KubernetesTarget{Context: "lab", Namespace: os.Getenv("NAMESPACE"), Deployment: "shop", Container: "shop"}},
		alerts.Flag{Name: flagName, Off: "0"})
	if err != nil {
		panic(err)
	}
	panic(fmt.Sprint("applied: ", a.Apply(context.Background(), op, nil)))
}

func TestAKillAfterThePatchIsFollowedByNoOther(t *testing.T) {
	t.Parallel()
	w := newWorld(t).ready()
	a := w.flagOff(w.client(nil))
	before := w.look(a, remediation.Untouched)
	cmd := exec.Command("/proc/self/exe")
	cmd.Env = append(os.Environ(), killedEnv+"="+w.kubeconfig, "NAMESPACE="+w.Namespace)
	if out, err := cmd.CombinedOutput(); err == nil || cmd.ProcessState.Sys().(syscall.WaitStatus).Signal() != syscall.SIGKILL {
		t.Fatalf("it was not killed: %v\n%s", err, out)
	}
	look, err := a.Look(t.Context(), op)
	if err != nil || look.Position == remediation.Untouched {
		t.Fatalf("after the kill it is %s: %v", look.Position, err)
	}
	if err := a.Apply(t.Context(), op, before); err != nil {
		t.Fatal(err)
	}
	if err := a.Verify(t.Context(), op); err != nil {
		t.Fatal(err)
	}
	if n := w.patches.Load(); n != 0 {
		t.Errorf("%d patches after the kill", n)
	}
	w.expectSaid("0 v2.0.0", 2)
	if err := a.Undo(t.Context(), op, before); err != nil {
		t.Fatal(err)
	}
	w.expectSaid("1 v2.0.0", 2)
}

func TestAFlagThatThePodsStillServeIsNotOff(t *testing.T) {
	for stuck, want := range map[string]remediation.Position{"": remediation.Wanted, "1": remediation.Untouched} {
		t.Run("serves "+stuck, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, count(1), env(object{"name": flagName, "value": "0"}, object{"name": "STUCK", "value": stuck})).ready()
			w.look(w.flagOff(w.client(nil)), want)
		})
	}
}

func TestAnImageIsBackOnceThePodsNameItsVersion(t *testing.T) {
	t.Parallel()
	w := newWorld(t, count(1)).ready()
	w.Node.Image("shop:v1.0.0", image("VERSION=v2.0.0"))
	w.setImage("shop:v1.0.0")
	w.ready()
	w.look(w.imageBack(w.client(nil), "v1.0.0"), remediation.Untouched)
}

func TestAFlagStaysOffWhenTheImageGoesBackAndEachIsUndoneAlone(t *testing.T) {
	t.Parallel()
	w := newWorld(t, count(1)).ready()
	const imageOp = "inc-1/2-image_retag@1700000001"
	c := w.client(nil)
	flag, img := w.flagOff(c), w.imageBack(c, "v1.0.0")
	flagSnap := w.apply(flag, op)
	imageSnap := w.apply(img, imageOp)
	w.expectSaid("0 v1.0.0", 1)
	if err := flag.Undo(t.Context(), op, flagSnap); err != nil {
		t.Fatal(err)
	}
	w.expectSaid("1 v1.0.0", 1)
	if err := img.Undo(t.Context(), imageOp, imageSnap); err != nil {
		t.Fatal(err)
	}
	w.expectSaid("1 v2.0.0", 1)
	if got := at(w.get(), "metadata", "annotations", markAnnotation); got != nil {
		t.Errorf("the mark %v is left", got)
	}
}

// An undo of the second operation leaves the first as it was, with its mark and Flux's pause.
func TestOfTwoOperationsOnOneFieldEachIsUndoneAlone(t *testing.T) {
	for name, make := range map[string]func(*testing.T) *world{
		"env":       func(t *testing.T) *world { return newWorld(t, count(1)) },
		"configmap": func(t *testing.T) *world { return withConfigMap(t, kubetest.New(t), count(1)) },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := make(t).ready()
			w.target.Kubernetes.GitOps = &alerts.GitOps{Flux: alerts.FluxPause}
			const firstOp = "inc-0/1-flag_off@1600000000"
			c := w.client(nil)
			w.flag.Off = "0.5"
			first, none := w.flagOff(c), w.state()
			firstSnap := w.apply(first, firstOp)
			w.flag.Off = "0"
			second, half := w.flagOff(c), w.state()
			secondSnap := w.apply(second, op)
			if err := second.Undo(t.Context(), op, secondSnap); err != nil {
				t.Fatal(err)
			}
			if got := w.state(); got != half {
				t.Errorf("after the undo of the second it is\n%s, want\n%s", got, half)
			}
			if err := first.Undo(t.Context(), firstOp, firstSnap); err != nil {
				t.Fatal(err)
			}
			if got := w.state(); got != none {
				t.Errorf("after the undo of both it is\n%s, want\n%s", got, none)
			}
		})
	}
}

func TestAChangeByAnotherBetweenLookAndPatchIsSeen(t *testing.T) {
	t.Parallel()
	w := newWorld(t).ready()
	others := []string{"0.5", "0.6"}
	c := w.client(func(req *http.Request, next http.RoundTripper) (*http.Response, error) {
		if len(others) > 0 {
			w.setVariable(others[0])
			others = others[1:]
		}
		return next.RoundTrip(req)
	})
	a := w.flagOff(c)
	before := w.look(a, remediation.Untouched)
	if err := a.Apply(t.Context(), op, before); err != nil {
		t.Fatal(err)
	}
	if n := w.patches.Load(); n != 3 {
		t.Errorf("%d patches, want two that are refused and one more", n)
	}
	w.expectSaid("0 v2.0.0", 2)
	// A third hand's value is left alone by the undo.
	w.setVariable("0.7")
	if err := a.Undo(t.Context(), op, before); err != nil {
		t.Fatal(err)
	}
	if got := w.value(); got != "0.7" {
		t.Errorf("undo made it %s", got)
	}
}

func TestReplicasThatAnotherChangesAreKept(t *testing.T) {
	t.Parallel()
	w := newWorld(t).ready()
	var once sync.Once
	c := w.client(func(req *http.Request, next http.RoundTripper) (*http.Response, error) {
		once.Do(func() {
			if err := w.Patch(t.Context(), kube.MergePatch, w.Apps("deployments", "shop")+"/scale", []byte(`{"spec":{"replicas":3}}`), nil); err != nil {
				t.Error(err)
			}
		})
		return next.RoundTrip(req)
	})
	w.apply(w.flagOff(c), op)
	w.expectSaid("0 v2.0.0", 3)
}

func TestAPromotionIsTheFlagsValue(t *testing.T) {
	t.Parallel()
	w := newWorld(t, count(1)).ready()
	w.flag.Off = "0.25"
	a := w.flagOff(w.client(nil))
	before := w.apply(a, op)
	w.expectSaid("0.25 v2.0.0", 1)
	if err := a.Undo(t.Context(), op, before); err != nil {
		t.Fatal(err)
	}
	w.expectSaid("1 v2.0.0", 1)
}

func TestAFlagInAConfigMapRollsThePodsAndOthersOfItStay(t *testing.T) {
	t.Parallel()
	w := withConfigMap(t, kubetest.New(t)).ready()
	a := w.flagOff(w.client(nil))
	before := w.apply(a, op)
	w.expectSaid("0 v2.0.0", 2)
	if got := at(w.configMap(), "data", "OTHER"); got != "x" {
		t.Errorf("OTHER is %v", got)
	}
	// Somebody turns it off by hand and rolls nothing out: the pods may have another value.
	if err := a.Restore(t.Context(), op, before); err != nil {
		t.Fatal(err)
	}
	w.expectSaid("1 v2.0.0", 2)
	w.setData("0")
	snap := w.look(a, remediation.Untouched)
	if err := a.Apply(t.Context(), op, snap); err != nil {
		t.Fatal(err)
	}
	w.expectSaid("0 v2.0.0", 2)
}

func sources(all ...any) string {
	raw, _ := json.Marshal(all) // a list of mappings of strings
	return string(raw)
}

// The kubelet takes the last source of envFrom that has a variable.
func TestTheKeyThatCountsIsChanged(t *testing.T) {
	t.Parallel()
	l := kubetest.New(t)
	for name, data := range map[string]object{"shop-overrides": {"OTHER": "y"}, "shop-other": {"FEATURE_A": "1"}} {
		l.Put(object{"apiVersion": "v1", "kind": "ConfigMap", "metadata": object{"name": name}, "data": data})
	}
	l.Put(object{"apiVersion": "v1", "kind": "Secret", "metadata": object{"name": "shop-secret"}, "stringData": object{"FEATURE_B": "1"}})
	source := func(kind, name, prefix string) any { return object{kind: object{"name": name}, "prefix": prefix} }
	w := withConfigMap(t, l, count(1))
	w.edit(`{"spec":{"template":{"spec":{"containers":[{"name":"shop","envFrom":` + sources(
		source("configMapRef", "shop-other", ""), source("configMapRef", "shop-flags", "FEATURE_"), source("configMapRef", "shop-flags", ""), source("configMapRef", "shop-flags", "FEATURE_"),
		source("configMapRef", "shop-overrides", ""), source("configMapRef", "shop-other", "X_"), source("secretRef", "shop-secret", "")) + `}]}}}}`)
	w.ready()
	// The prefix gives no key yet, so the whole name counts; then the key A does.
	a := w.flagOff(w.client(nil))
	w.apply(a, op)
	w.expectSaid("0 v2.0.0", 1)
	if err := w.Patch(t.Context(), kube.MergePatch, w.Core("configmaps", "shop-flags"), []byte(`{"data":{"A":"1"}}`), nil); err != nil {
		t.Fatal(err)
	}
	w.apply(a, "inc-2/1-flag_off@1700000001")
	w.expectSaid("0 v2.0.0", 1)
	if got := fmt.Sprint(w.configMap()["data"]); got != "map[A:0 FEATURE_A:0 OTHER:x]" {
		t.Error(got)
	}
	// What cannot be told is refused where no pod is asked: here, a ConfigMap without the right to read it.
	w.asShipped("")
	w.look(w.flagOff(w.client(nil)), remediation.Wanted)
	w.target.Probe.Flags = ""
	if _, err := w.flagOff(w.client(nil)).Look(t.Context(), op); err == nil || !strings.Contains(err.Error(), "may take "+flagName+" from ConfigMap shop-overrides") {
		t.Error(err)
	}
}

// What overrules the ConfigMap since the step refuses the next step, and not the way back of this one.
func TestAConfigMapThatIsOverruledInMidOperationIsPutBack(t *testing.T) {
	t.Parallel()
	l := kubetest.New(t)
	l.Put(object{"apiVersion": "v1", "kind": "ConfigMap", "metadata": object{"name": "shop-other"}, "data": object{flagName: "1"}})
	w := withConfigMap(t, l, count(1)).ready()
	a := w.flagOff(w.client(nil))
	before := w.apply(a, op)
	ref := func(name string) any { return object{"configMapRef": object{"name": name}} }
	w.edit(`{"spec":{"template":{"spec":{"containers":[{"name":"shop","envFrom":` + sources(ref("shop-flags"), ref("shop-other")) + `}]}}}}`)
	w.ready()
	if _, err := a.Look(t.Context(), op); err != nil {
		t.Errorf("a look as the operation that has begun: %v", err)
	}
	refused := func(what string, err error) {
		if err == nil || !strings.Contains(err.Error(), "overrules ConfigMap shop-flags") {
			t.Errorf("%s says %v", what, err)
		}
	}
	refused("verify", a.Verify(t.Context(), op))
	refused("apply", a.Apply(t.Context(), op, before))
	if err := a.Restore(t.Context(), op, before); err != nil {
		t.Fatal(err)
	}
	if got := at(w.configMap(), "data", flagName); got != "1" {
		t.Errorf("%s is %v", flagName, got)
	}
	_, err := a.Look(t.Context(), op)
	if refused("the next look", err); !remediation.IsUnfit(err) {
		t.Error("it tells that a restore failed")
	}
	reports := make(chan string, 100)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	over := make(chan error, 1)
	go func() { over <- a.Watch(ctx, func(what string) { reports <- what }) }()
	select {
	case <-reports:
	case err := <-over:
		t.Errorf("the watch ended with %v", err)
	}
}

func TestAConfigMapIsHalfWayByOurMarkAlone(t *testing.T) {
	t.Parallel()
	w := withConfigMap(t, kubetest.New(t), count(1)).ready()
	ctx, cancel := context.WithCancel(t.Context())
	a := w.flagOff(w.client(func(req *http.Request, next http.RoundTripper) (*http.Response, error) {
		if strings.Contains(req.URL.Path, "/deployments/") { // backout ends between the two patches
			cancel()
			return nil, errCut
		}
		return next.RoundTrip(req)
	}))
	before := w.look(a, remediation.Untouched)
	if err := a.Apply(ctx, op, before); !remediation.IsInDoubt(err) {
		t.Fatalf("apply says %v", err)
	}
	w.look(a, remediation.HalfWay)
	if err := w.Patch(t.Context(), kube.MergePatch, w.Core("configmaps", "shop-flags"), []byte(`{"metadata":{"annotations":null}}`), nil); err != nil {
		t.Fatal(err)
	}
	w.look(a, remediation.Untouched)
}

// Turning a flag on again for a service that was down serves nobody.
func TestAFlagIsNotTurnedOnAgainForAServiceThatWasDownUnlessAPersonAsks(t *testing.T) {
	t.Parallel()
	w := newWorld(t, count(1), func(m object) { theContainer(m)["image"] = "shop:crash" })
	w.Eventually("it crashes", func() error {
		for _, p := range w.Pods("app=shop") {
			if p.Waiting == "CrashLoopBackOff" {
				return nil
			}
		}
		return errCut
	})
	a := w.flagOff(w.client(nil))
	before := w.look(a, remediation.Untouched)
	if err := a.Apply(t.Context(), op, before); err == nil || !strings.Contains(err.Error(), "CrashLoopBackOff") {
		t.Fatalf("apply says %v", err)
	}
	if err := a.Undo(t.Context(), op, before); err != nil || w.value() != "0" {
		t.Errorf("undone, it is %s: %v", w.value(), err)
	}
	if err := a.Restore(t.Context(), op, before); err != nil || w.value() != "1" {
		t.Errorf("restored, it is %s: %v", w.value(), err)
	}
}

func TestADriftIsReportedOnceAndNotFought(t *testing.T) {
	t.Parallel()
	w := newWorld(t, count(1)).ready()
	a := w.flagOff(w.client(nil))
	w.apply(a, op)
	reports := make(chan string, 100)
	ctx, cancel := context.WithCancel(t.Context())
	over := make(chan error)
	go func() { over <- a.Watch(ctx, func(what string) { reports <- what }) }()
	w.setVariable("1")
	said := <-reports
	if want := flagName + " of container shop is 1 (managed by kubectl-edit)"; !strings.Contains(said, want) {
		t.Errorf("reported %q, want %q", said, want)
	}
	cancel()
	if err := <-over; err != nil || w.value() != "1" || len(reports) != 0 {
		t.Errorf("the watch ended with %v; the flag is %s, and %d more were reported", err, w.value(), len(reports))
	}
}

func TestAVerificationThatDoesNotReachTheAPIServerLeavesDoubt(t *testing.T) {
	t.Parallel()
	w := newWorld(t).ready()
	w.apply(w.flagOff(w.client(nil)), op)
	for passed := range 4 { // before the rollout was seen, and after it
		for name, code := range map[string]int{"away": 503, "the token was revoked": 403} {
			c, asked := w.client(nil), 0
			c.wrap = func(next http.RoundTripper) http.RoundTripper {
				return tripper(func(req *http.Request) (*http.Response, error) {
					if asked++; asked <= passed {
						return next.RoundTrip(req)
					}
					return &http.Response{StatusCode: code, Body: http.NoBody, Header: http.Header{}, Request: req}, nil
				})
			}
			ctx, cancel := context.WithTimeout(t.Context(), time.Second)
			if err := w.flagOff(c).Verify(ctx, op); asked > passed && !remediation.IsInDoubt(err) {
				t.Errorf("%s after %d answers: %v", name, passed, err)
			}
			cancel()
		}
	}
}

func TestAnAPIServerThatIsKilledInMidStepComesBackToTheSameStep(t *testing.T) {
	t.Parallel()
	w := start(t, kubetest.Own(t)).ready()
	started := make(chan error, 1)
	var once sync.Once
	c := w.client(func(req *http.Request, next http.RoundTripper) (*http.Response, error) {
		res, err := next.RoundTrip(req)
		once.Do(func() {
			if err := w.Server.Kill(); err != nil {
				t.Error(err)
			}
			go func() { started <- w.Server.Start() }()
		})
		return res, err
	})
	a := w.flagOff(c)
	before := w.look(a, remediation.Untouched)
	err := a.Apply(t.Context(), op, before)
	if err := <-started; err != nil {
		t.Fatal(err)
	}
	if remediation.IsInDoubt(err) { // it starts slowly on a machine at work; the engine looks again, too
		err = a.Apply(t.Context(), op, before)
	}
	if err != nil {
		t.Fatal(err)
	}
	if err := a.Verify(t.Context(), op); err != nil {
		t.Fatal(err)
	}
	w.expectSaid("0 v2.0.0", 2)
	if w.patches.Load() != 1 {
		t.Errorf("%d patches", w.patches.Load())
	}
}
