package kubernetes

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/locotoki/backout/alerts"
	"github.com/locotoki/backout/remediation"
)

// The old pods serve while an image that does not start is tried and taken back.
func TestAnImageThatDoesNotStartIsUndoneInHalfAMinuteWhileOldPodsServe(t *testing.T) {
	for version, reason := range map[string]string{"crash": "CrashLoopBackOff", "missing": "ErrImagePull"} {
		t.Run(version, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t).ready()
			a := w.imageBack(w.client(nil), version)
			before := w.look(a, remediation.Untouched)
			began := time.Now()
			old := w.Pods("app=shop")
			asked, served := 0, 0
			during(t, func() {
				err := a.Apply(t.Context(), op, before)
				if err == nil || !strings.Contains(err.Error(), reason) && !strings.Contains(err.Error(), "ImagePullBackOff") || remediation.IsInDoubt(err) {
					t.Errorf("apply says %v, want %s", err, reason)
				}
				if err := a.Undo(t.Context(), op, before); err != nil {
					t.Error(err)
				}
			}, func(context.Context) {
				for _, p := range old { // a request to each, all the while
					if asked++; w.ask(p, "/version") == "v2.0.0" {
						served++
					}
				}
			})
			if took := time.Since(began); took > 30*time.Second || asked < 2*len(old) || served < asked {
				t.Errorf("it took %s, and the old pods served %d of %d requests", took, served, asked)
			}
			w.ready().expectSaid("1 v2.0.0", 2)
		})
	}
}

// A pod that was broken before is broken after the undo too: that is not its failure.
func TestAnUndoNeedsNoMorePodsThanWereReadyBefore(t *testing.T) {
	t.Parallel()
	w := newWorld(t).ready()
	w.setImage("shop:crash") // the rollout of a bad release: its one pod crashes, two old ones serve
	w.crashing()
	a := w.imageBack(w.client(nil), "missing")
	before := w.look(a, remediation.Untouched)
	if err := a.Apply(t.Context(), op, before); err == nil || !strings.Contains(err.Error(), "ImagePull") && !strings.Contains(err.Error(), "ErrImage") {
		t.Fatalf("apply says %v", err)
	}
	if err := a.Undo(t.Context(), op, before); err != nil {
		t.Error(err)
	}
	if got := at(w.get(), "spec", "template", "spec", "containers", 0, "image"); got != "shop:crash" {
		t.Errorf("the image is %v", got)
	}
	ready := 0
	for _, p := range w.Pods("app=shop") {
		if p.Image == "shop:v2.0.0" && p.Ready {
			ready++
		}
	}
	if ready != 2 {
		t.Errorf("%d pods of the version before serve: %+v", ready, w.Pods("app=shop"))
	}
}

func TestAnImageThatAnotherChangesIsLeftAlone(t *testing.T) {
	t.Parallel()
	w := newWorld(t, count(1)).ready()
	w.Node.Image("shop:third", image("VERSION=third"))
	var once sync.Once
	c := w.client(func(req *http.Request, next http.RoundTripper) (*http.Response, error) {
		once.Do(func() { w.setImage("shop:third") })
		return next.RoundTrip(req)
	})
	a := w.imageBack(c, "v1.0.0")
	before := w.look(a, remediation.Untouched)
	err := a.Apply(t.Context(), op, before)
	if err == nil || !strings.Contains(err.Error(), "was shop:v2.0.0 and is now shop:third; nothing was changed") || remediation.IsInDoubt(err) {
		t.Errorf("apply says %v", err)
	}
	w.ready().expectSaid("1 third", 1)
}

// A StatefulSet whose pods all crash, as of a sidecar: some of its members may still work, so one at a time is deleted.
func TestOneBrokenPodOfAStatefulSetIsDeletedAtATime(t *testing.T) {
	t.Parallel()
	broken := filepath.Join(t.TempDir(), "broken")
	w := newWorld(t, count(3), statefulSet, func(m object) {
		vars := theContainer(m)["env"].([]any)
		theContainer(m)["env"] = append(vars, object{"name": "CRASH_WHEN_ON", "value": broken})
	}).ready()
	if err := os.WriteFile(broken, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	w.Eventually("all pods crash", func() error {
		for _, p := range w.Pods("app=shop") {
			if p.Waiting != "CrashLoopBackOff" {
				return fmt.Errorf("%+v", p)
			}
		}
		return nil
	})
	var deleted []string
	c := w.client(func(req *http.Request, next http.RoundTripper) (*http.Response, error) {
		if req.Method == http.MethodDelete {
			pods := w.Pods("app=shop")
			for _, p := range pods {
				if slices.Contains(deleted, p.Name) && (p.Deleting || !p.Ready) {
					t.Errorf("%s is deleted while there are %+v", path.Base(req.URL.Path), pods)
				}
			}
			deleted = append(deleted, path.Base(req.URL.Path))
		}
		return next.RoundTrip(req)
	})
	w.apply(w.flagOff(c), op)
	w.expectSaid("0 v2.0.0", 3)
	// The controller replaces one itself where all run for a moment, as they do before they crash.
	if len(deleted) == 0 || !slices.IsSorted(deleted) || len(slices.Compact(slices.Clone(deleted))) != len(deleted) {
		t.Errorf("deleted %s", deleted)
	}
}

func TestOnlyThePodThatAStatefulSetWaitsForBlocksIt(t *testing.T) {
	pods := func(names ...string) (all []pod) {
		for _, name := range names {
			var p pod
			name, state, _ := strings.Cut(name, " ")
			p.Metadata.Name = name
			if state == "ready" || state == "ready deleted" {
				p.Status.Conditions = append(p.Status.Conditions, struct{ Type, Status, Reason, Message string }{Type: "Ready", Status: "True"})
			}
			switch state {
			case "deleted", "ready deleted":
				p.Metadata.DeletionTimestamp = "2026-11-30T15:00:00Z"
			case "failed":
				p.Status.Phase = "Failed"
			}
			all = append(all, p)
		}
		return all
	}
	for name, tc := range map[string]struct {
		spec      string
		available int
		pods      []pod
		want      string
	}{
		"the lowest that is not ready":       {`{}`, 1, pods("shop-10", "shop-2", "shop-1", "shop-0 ready"), "shop-1"},
		"all are ready":                      {`{}`, 2, pods("shop-1 ready", "shop-0 ready"), ""},
		"a higher one is being deleted":      {`{}`, 0, pods("shop-2 deleted", "shop-1", "shop-0"), "shop-0"},
		"the lowest is being deleted":        {`{}`, 0, pods("shop-2", "shop-1", "shop-0 deleted"), ""},
		"a lower one is being deleted":       {`{}`, 1, pods("shop-2", "shop-1 deleted", "shop-0 ready"), ""},
		"a ready lower one is being deleted": {`{}`, 1, pods("shop-1", "shop-0 ready deleted"), ""},
		"a lower one is missing":             {`{}`, 0, pods("shop-2", "shop-1"), ""},
		"the next ones are not made yet":     {`{}`, 1, pods("shop-1", "shop-0 ready"), "shop-1"},
		"a lower one has ended":              {`{}`, 0, pods("shop-1", "shop-0 failed"), ""},
		"a higher one has ended":             {`{}`, 0, pods("shop-1 failed", "shop-0"), "shop-0"},
		"a ready one is not available yet":   {`{}`, 1, pods("shop-2 ready", "shop-1", "shop-0 ready"), ""},
		"the first ordinal is another":       {`{"ordinals": {"start": 3}}`, 1, pods("shop-4", "shop-3 ready"), "shop-4"},
		"it makes all pods at the same time": {`{"podManagementPolicy": "Parallel"}`, 0, pods("shop-1", "shop-0"), ""},
	} {
		s := state{place: place{t: alerts.KubernetesTarget{StatefulSet: "shop"}}}
		if err := json.Unmarshal([]byte(tc.spec), &s.w.Spec); err != nil {
			t.Fatal(err)
		}
		s.w.Status.AvailableReplicas = tc.available
		if got := s.blocking(tc.pods); got != tc.want {
			t.Errorf("%s: %q, want %q", name, got, tc.want)
		}
	}
}

// A StatefulSet that makes its pods in no order replaces those that crash itself.
func TestAStatefulSetWithoutAnOrderIsLeftToItsController(t *testing.T) {
	t.Parallel()
	w := newWorld(t, statefulSet, func(m object) { theSpec(m)["podManagementPolicy"] = "Parallel" }).ready()
	w.setImage("shop:crash")
	w.crashing()
	deleted := 0
	w.apply(w.imageBack(w.client(func(req *http.Request, next http.RoundTripper) (*http.Response, error) {
		if req.Method == http.MethodDelete {
			deleted++
		}
		return next.RoundTrip(req)
	}), "v1.0.0"), op)
	w.expectSaid("1 v1.0.0", 2)
	if deleted > 0 {
		t.Errorf("%d pods were deleted", deleted)
	}
}

// kubernetes#67250: a StatefulSet waits forever for a broken pod of an older template.
func TestAStatefulSetHealsFromAnImageThatCrashes(t *testing.T) {
	t.Parallel()
	w := newWorld(t, statefulSet).ready()
	// The undo of our own try, and then a crash that somebody else rolled out.
	a := w.imageBack(w.client(nil), "crash")
	before := w.look(a, remediation.Untouched)
	if err := a.Apply(t.Context(), op, before); err == nil || !strings.Contains(err.Error(), "CrashLoopBackOff") {
		t.Fatalf("apply says %v", err)
	}
	if err := a.Undo(t.Context(), op, before); err != nil {
		t.Fatal(err)
	}
	w.ready().expectSaid("1 v2.0.0", 2)
	w.setImage("shop:crash")
	w.crashing()
	w.apply(w.imageBack(w.client(nil), "v1.0.0"), op)
	w.expectSaid("1 v1.0.0", 2)
}

func TestAServiceIsVerifiedPodByPod(t *testing.T) {
	t.Parallel()
	w := newWorld(t).ready()
	c := w.client(nil)
	checks, err := c.Verify(t.Context(), w.target, "", "v2.0.0")
	if err != nil || len(checks) != 3 {
		t.Fatalf("%+v: %v", checks, err)
	}
	for _, check := range checks {
		if !check.OK {
			t.Errorf("%+v", check)
		}
	}
	w.target.Probe.Timeout = 1
	checks, err = c.Verify(t.Context(), w.target, "", "v1.0.0")
	if err != nil || checks[0].OK || checks[1].OK || !checks[2].OK {
		t.Errorf("another version: %+v: %v", checks, err)
	}
	if err := c.Runs(t.Context(), w.target, "", "v2.0.0"); err != nil {
		t.Error(err)
	}
	if err := c.Runs(t.Context(), w.target, "", "v1.0.0"); err == nil || !strings.Contains(err.Error(), "runs shop:v2.0.0, not shop:v1.0.0") {
		t.Error(err)
	}
	running, err := c.Running(t.Context(), w.playbook())
	if err != nil || running.String() != "v2.0.0 on 2 of 2, FEATURE_A=1" {
		t.Errorf("it runs %s: %v", running, err)
	}
}

// A StatefulSet makes no further pod before the one below is available; a quota leaves out pods of a Deployment likewise.
func TestPodsThatAreMissingFailTheVerification(t *testing.T) {
	t.Parallel()
	w := newWorld(t, count(3), statefulSet, func(m object) { theSpec(m)["minReadySeconds"] = 3600 })
	w.target.Probe.Timeout = 1
	c := w.client(nil)
	w.Eventually("the first pod is ready", func() error {
		if pods := w.Pods("app=shop"); len(pods) != 1 || !pods[0].Ready {
			return fmt.Errorf("%+v", pods)
		}
		return nil
	})
	checks, err := c.Verify(t.Context(), w.target, "", "v2.0.0")
	if err != nil {
		t.Fatal(err)
	}
	for _, check := range checks {
		if missing := check.Detail == "1 of 3 pods exist"; check.OK == (check.Name == "health") || missing != (check.Name == "health") {
			t.Errorf("%+v", check)
		}
	}
	if running, err := c.Running(t.Context(), w.playbook()); err != nil || running.Up != 1 || running.Total != 3 {
		t.Errorf("%s, %v", running, err)
	}
}
