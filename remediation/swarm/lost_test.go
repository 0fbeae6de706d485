package swarm

import (
	"context"
	"errors"
	"net/http"
	"os/exec"
	"strings"
	"testing"

	"github.com/prometheus/common/model"

	"github.com/locotoki/backout/remediation"
)

// link sets the worker's network link up or down. Other tests would notice that the worker is cut off: a test that does it
// runs alone.
func (w *world) link(to string) {
	w.Helper()
	name := strings.TrimSpace(readFile(w.T, strings.TrimSuffix(w.manager(), "1")+"2/link"))
	if out, err := exec.CommandContext(context.Background(), "ip", "link", "set", name, to).CombinedOutput(); err != nil {
		w.Fatalf("%v: %s", err, out)
	}
}

// worker waits until the manager says this of the worker.
func (w *world) worker(want string) {
	w.Helper()
	w.eventually("the worker is "+want, func() error {
		out, err := docker(context.Background(), w.manager(), "node", "ls", "--format", "{{.Status}}", "--filter", "role=worker")
		if err == nil && out != want {
			err = errors.New(out)
		}
		return err
	})
}

// lossy is a world whose worker a test cuts off.
func lossy(t *testing.T, o options) *world {
	t.Helper()
	w := newWorld(t, o)
	t.Cleanup(func() {
		w.link("up")
		w.takes("active")
		w.worker("Ready")
	})
	return w
}

// takes sets whether the manager takes tasks: active, or pause.
func (w *world) takes(availability string) {
	w.Helper()
	name, err := docker(context.Background(), w.manager(), "node", "ls", "--quiet", "--filter", "role=manager")
	if err == nil {
		_, err = docker(context.Background(), w.manager(), "node", "update", "--availability", availability, name)
	}
	if err != nil {
		w.Fatal(err)
	}
}

// shown prints where Swarm wants each task, and what it waits for, if the test failed while the worker is away.
func (w *world) shown() {
	if w.Failed() {
		w.Log(w.docker("node", "ls"), "\n", w.docker("service", "ps", "--no-trunc", w.target.Swarm.Service), "\n",
			w.docker("service", "inspect", "--format", "{{json .UpdateStatus}}", w.target.Swarm.Service))
	}
}

func TestANodeThatDiesInMidUpdateHoldsNothingUp(t *testing.T) {
	w := lossy(t, options{replicas: 4})
	w.target.Probe.Timeout = model.Duration(generous)
	defer w.shown()
	c := w.client(func(req *http.Request, next http.RoundTripper) (*http.Response, error) {
		res, err := next.RoundTrip(req)
		w.link("down")
		return res, err
	})
	w.apply(w.flagOff(c))
	w.worker("Down")
	w.expectSaid("0 v2.0.0", 4)
	w.link("up")
	w.worker("Ready")
	w.look(w.flagOff(w.client(nil)), remediation.Wanted)
	w.expectSaid("0 v2.0.0", 4)
}

// Swarm gives the first task that the update makes to the node that is lost already, and replaces it once it notices. Its
// update goes on to wait for the first one: the manager takes no task until then, so that it is so each time.
func TestATaskThatALostNodeWasGivenHoldsNothingUp(t *testing.T) {
	for _, order := range []string{"start-first", "stop-first"} {
		t.Run(order, func(t *testing.T) {
			w := lossy(t, options{replicas: 4, update: "monitor: 300ms, order: " + order})
			defer w.shown()
			w.takes("pause")
			sent := false
			c := w.client(func(req *http.Request, next http.RoundTripper) (*http.Response, error) {
				if !sent {
					sent = true
					w.link("down")
				}
				return next.RoundTrip(req)
			})
			a := w.flagOff(c)
			before := w.look(a, remediation.Untouched)
			applied := make(chan error, 1)
			go func() { applied <- a.Apply(t.Context(), op, before) }()
			w.worker("Down")
			w.takes("active")
			if err := <-applied; err != nil {
				t.Fatal(err)
			}
			if err := a.Verify(t.Context(), op); err != nil {
				t.Fatal(err)
			}
			w.expectSaid("0 v2.0.0", 4)
			if w.see().Spec.Labels[unstuckLabel] == "" {
				t.Error("the update did not wait for the lost node: the test shows nothing")
			}
			w.link("up")
			w.worker("Ready")
			w.look(a, remediation.Wanted)
			if err := a.Restore(t.Context(), op, before); err != nil {
				t.Fatal(err)
			}
			w.expectSaid("1 v2.0.0", 4)
			if label := w.see().Spec.Labels[unstuckLabel]; label != "" {
				t.Errorf("the label %s=%s is left", unstuckLabel, label)
			}
		})
	}
}

// A task that ran counts as updated until Swarm notices that its node is lost, and its replacement has to start then. The
// probe's timeout is far shorter than that: the step is not undone for it.
func TestANodeThatDiesBeforeTheVerificationUndoesNothing(t *testing.T) {
	w := lossy(t, options{replicas: 4})
	w.target.Probe.Timeout = model.Duration(3e9)
	defer w.shown()
	a := w.flagOff(w.client(nil))
	w.takes("pause") // so that all new tasks run on the worker
	if err := a.Apply(t.Context(), op, w.look(a, remediation.Untouched)); err != nil {
		t.Fatal(err)
	}
	w.takes("active")
	w.link("down")
	if err := a.Verify(t.Context(), op); err != nil {
		t.Fatal(err)
	}
	w.worker("Down")
	w.expectSaid("0 v2.0.0", 4)
}
