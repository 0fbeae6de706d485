package swarm

import (
	"context"
	"errors"
	"io"
	"net/http"
	"strings"
	"testing"

	"github.com/locotoki/backout/remediation"
	"github.com/locotoki/backout/remediation/action/actiontest"
	"github.com/locotoki/backout/remediation/crashtest"
)

func TestAnUpdateOutOfSequenceIsLookedAtAgain(t *testing.T) {
	t.Parallel()
	w := newWorld(t, options{replicas: 1})
	codes := []int{}
	c := w.client(func(req *http.Request, next http.RoundTripper) (*http.Response, error) {
		if len(codes) == 0 {
			w.docker("service", "update", "--detach", "--label-add", "team=shop", w.service())
		}
		res, err := next.RoundTrip(req)
		if err == nil {
			codes = append(codes, res.StatusCode)
		}
		return res, err
	})
	w.apply(w.flagOff(c))
	if len(codes) != 2 || codes[0] != http.StatusInternalServerError || codes[1] != http.StatusOK {
		t.Errorf("the manager answered %v", codes)
	}
	if s := w.see(); s.Spec.Labels["team"] != "shop" {
		t.Errorf("somebody's label is lost: %v", s.Spec.Labels)
	}
	w.expectSaid("0 v2.0.0", 1)
}

func TestARefusalOfTheSameVersionIsNoConflict(t *testing.T) {
	t.Parallel()
	w := newWorld(t, options{replicas: 1})
	c := w.client(func(*http.Request, http.RoundTripper) (*http.Response, error) {
		body := io.NopCloser(strings.NewReader(`{"message": "rpc error: no leader"}`))
		return &http.Response{StatusCode: http.StatusInternalServerError, Body: body, Header: http.Header{}}, nil
	})
	a := w.flagOff(c)
	before := w.look(a, remediation.Untouched)
	state := w.state()
	err := a.Apply(t.Context(), op, before)
	if err == nil || !strings.Contains(err.Error(), "no leader") || remediation.IsInDoubt(err) || w.updates.Load() != 1 {
		t.Errorf("%v after %d updates", err, w.updates.Load())
	}
	if err := a.Undo(t.Context(), op, before); err != nil || w.state() != state {
		t.Errorf("%v; undone to\n%s\nfrom\n%s", err, w.state(), state)
	}
}

func TestTheWayBackOfSwarmIsKept(t *testing.T) {
	t.Parallel()
	w := newWorld(t, options{replicas: 1})
	a := w.flagOff(w.client(nil))
	before := w.apply(a)
	for range 2 { // after a crash it is called again
		if err := a.Apply(t.Context(), op, before); err != nil {
			t.Fatal(err)
		}
	}
	if previous, n := w.previous(), w.updates.Load(); previous != "[FLAG=1]" || n != 1 {
		t.Errorf("Swarm would go back to %s, after %d updates", previous, n)
	}
	c := w.client(nil)
	if err := c.update(t.Context(), w.see(), "env/FLAG", op, func(object) {}); !errors.Is(err, errUnchanged) || w.updates.Load() != 1 {
		t.Errorf("an unchanged spec: %v, after %d updates", err, w.updates.Load())
	}
	for range 2 { // not forward again
		if err := a.Restore(t.Context(), op, before); err != nil {
			t.Fatal(err)
		}
		w.expectSaid("1 v2.0.0", 1)
	}
	if n := w.updates.Load(); n != 2 {
		t.Errorf("%d updates, want two", n)
	}
}

// dying is a connection that ends with its process, in the first change of the service; before or after it is made.
func (w *world) dying(f actiontest.Fault) (context.Context, *Client) {
	ctx, end := context.WithCancel(w.Context())
	c, _ := w.cut(0, f)
	inner := c.server.HTTP.Transport
	c.server.HTTP.Transport = tripper(func(req *http.Request) (*http.Response, error) {
		res, err := inner.RoundTrip(req)
		if errors.Is(err, errCut) {
			end()
		}
		return res, err
	})
	return ctx, c
}

func TestADeployAtEachHalfWayStateEndsAsTheStepWould(t *testing.T) {
	t.Parallel()
	type half struct {
		name, done string
		bind       func(*world, *Client) remediation.Action
		fault      actiontest.Fault
	}
	flag := func(w *world, c *Client) remediation.Action { return w.flagOff(c) }
	image := func(w *world, c *Client) remediation.Action { return w.imageBack(c) }
	for _, h := range crashtest.Draw(t, []half{
		{"flag_off, the file is written", "0 v2.0.0", flag, actiontest.Before},
		{"flag_off, the service is updated", "0 v2.0.0", flag, actiontest.After},
		{"image_retag, the file is written", "1 v1.0.0", image, actiontest.Before},
		{"image_retag, the service is updated", "1 v1.0.0", image, actiontest.After},
	}) {
		t.Run(h.name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, options{})
			a := h.bind(w, w.client(nil))
			before := w.look(a, remediation.Untouched)
			ctx, c := w.dying(h.fault)
			if err := h.bind(w, c).Apply(ctx, op, before); !remediation.IsInDoubt(err) {
				t.Fatalf("apply: %v", err)
			}
			w.look(a, remediation.HalfWay)
			w.deploy()
			w.settled()
			w.expectSaid(h.done, 2)
			if err := a.Apply(t.Context(), op, before); err != nil {
				t.Fatal(err)
			}
			if err := a.Verify(t.Context(), op); err != nil {
				t.Error(err)
			}
			// The deploy took our mark away, and the value is still ours to put back.
			ctx, c = w.dying(h.fault)
			if err := h.bind(w, c).Undo(ctx, op, before); !remediation.IsInDoubt(err) {
				t.Fatalf("undo: %v", err)
			}
			w.deploy()
			w.settled()
			w.expectSaid("1 v2.0.0", 2)
			if err := a.Undo(t.Context(), op, before); err != nil {
				t.Fatal(err)
			}
			w.expectSaid("1 v2.0.0", 2)
			w.look(a, remediation.Untouched)
		})
	}
}

func TestADeployWhileItIsRolledOutEndsWithTheFlagOff(t *testing.T) {
	t.Parallel()
	w := newWorld(t, options{replicas: 3})
	deployed := make(chan struct{})
	c := w.client(func(req *http.Request, next http.RoundTripper) (*http.Response, error) {
		res, err := next.RoundTrip(req)
		go func() {
			defer close(deployed)
			w.deploy()
		}()
		return res, err
	})
	w.apply(w.flagOff(c))
	<-deployed
	w.settled()
	w.expectSaid("0 v2.0.0", 3)
	w.look(w.flagOff(w.client(nil)), remediation.Wanted)
}

func TestARollbackBySwarmIsAFailure(t *testing.T) {
	t.Parallel()
	w := newWorld(t, options{environment: "{FLAG: \"${FLAG}\", BREAKS_WHEN_OFF: crash}", update: "failure_action: rollback, monitor: 1m"})
	state := w.state()
	a := w.flagOff(w.client(nil))
	before := w.look(a, remediation.Untouched)
	err := a.Apply(t.Context(), op, before)
	if err == nil || !strings.Contains(err.Error(), "Swarm undid the update (failure_action: rollback)") || remediation.IsInDoubt(err) {
		t.Fatal(err)
	}
	if position, err := a.Look(t.Context(), op); err != nil || position.Position == remediation.Wanted {
		t.Errorf("it counts as %s: %v", position.Position, err)
	}
	if err := a.Undo(t.Context(), op, before); err != nil {
		t.Fatal(err)
	}
	if got := w.state(); got != state {
		t.Errorf("undone to\n%s\nfrom\n%s", got, state)
	}
	w.expectSaid("1 v2.0.0", 2)
}

func TestAPausedUpdateIsAFailureThatUndoEnds(t *testing.T) {
	t.Parallel()
	w := newWorld(t, options{environment: "{FLAG: \"${FLAG}\", BREAKS_WHEN_OFF: crash}", update: "monitor: 1m"})
	state := w.state()
	a := w.flagOff(w.client(nil))
	before := w.look(a, remediation.Untouched)
	err := a.Apply(t.Context(), op, before)
	if err == nil || !strings.Contains(err.Error(), "Swarm paused the update") || !strings.Contains(err.Error(), "non-zero exit (3)") {
		t.Fatal(err)
	}
	if err := a.Undo(t.Context(), op, before); err != nil {
		t.Fatal(err)
	}
	if got := w.state(); got != state {
		t.Errorf("undone to\n%s\nfrom\n%s", got, state)
	}
	w.expectSaid("1 v2.0.0", 2)
}

func TestATaskThatServesAnotherValueFailsTheVerification(t *testing.T) {
	t.Parallel()
	w := newWorld(t, options{replicas: 1, environment: "{FLAG: \"${FLAG}\", BREAKS_WHEN_OFF: deaf}"})
	w.target.Probe.Timeout = 3e9
	a := w.flagOff(w.client(nil))
	if err := a.Apply(t.Context(), op, w.look(a, remediation.Untouched)); err != nil {
		t.Fatal(err)
	}
	if err := a.Verify(t.Context(), op); err == nil || !strings.Contains(err.Error(), "serves FLAG=1, want 0") || remediation.IsInDoubt(err) {
		t.Error(err)
	}
}
