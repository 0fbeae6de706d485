package kubernetes

import (
	"context"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

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
