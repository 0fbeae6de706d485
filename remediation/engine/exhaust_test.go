package engine_test

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/locotoki/backout/remediation"
	"github.com/locotoki/backout/remediation/view"
)

func exhausted(t *testing.T) (*harness, string) {
	t.Helper()
	w := newHarness(t, fullLadder)
	id := w.open()
	climbFull(w, id)
	w.must(w.change(id, view.Approve, fullSchema))
	w.tick()
	w.pass(6 * time.Minute)
	w.is(id, remediation.Exhausted, "")
	return w, id
}

func TestAnExhaustedIncident(t *testing.T) {
	t.Run("calls a human once, and stays open", func(t *testing.T) {
		w, id := exhausted(t)
		w.pass(time.Hour)
		w.is(id, remediation.Exhausted, "")
		if n := count(w, id, "notified exhausted"); n != 1 {
			t.Fatalf("paged %d times: %v", n, w.log(id))
		}
		if v := w.incident(id); v.Next != nil || v.Why == "" {
			t.Fatalf("next %+v, why %q", v.Next, v.Why)
		}
		w.effects(1, 1, 1)
	})
	t.Run("recovers by itself", func(t *testing.T) {
		w, id := exhausted(t)
		w.calm("error_rate")
		w.pass(3 * S)
		w.is(id, remediation.Recovered, "")
		w.pass(6 * time.Minute)
		w.is(id, remediation.Closed, "")
	})
	t.Run("is closed by hand", func(t *testing.T) {
		w, id := exhausted(t)
		w.must(w.change(id, view.Close, ""))
		w.is(id, remediation.Closed, "")
		w.rollout("rolled_back", "none", false)
	})
	t.Run("pages again for a trigger that attaches, and takes its new step", func(t *testing.T) {
		w, id := exhausted(t)
		w.breach("latency")
		w.fire("latency", "fp2")
		w.pass(3 * S)
		w.is(id, remediation.Settling, "")
		w.steps(id, done, done, done, done, done, done)
		if w.target("restart").effects != 1 {
			t.Fatal("the new step did not run")
		}
		w.effects(1, 1, 1)
		w.pass(5 * time.Minute)
		w.is(id, remediation.Exhausted, "")
		if n := count(w, id, "notified exhausted"); n != 2 {
			t.Fatalf("paged %d times: %v", n, w.log(id))
		}
	})
	t.Run("pages again for a trigger that brings no step", func(t *testing.T) {
		w := newHarness(t, replace("min_volume: 20}, plan: longer", "min_volume: 20}, plan: ladder"))
		id := w.open()
		climb(w, id)
		w.must(w.change(id, view.Deny, "3-schema_rollback"))
		w.tick()
		w.breach("latency")
		w.fire("latency", "fp2")
		w.pass(time.Minute)
		w.is(id, remediation.Exhausted, "")
		if n := count(w, id, "notified exhausted"); n != 2 {
			t.Fatalf("paged %d times: %v", n, w.log(id))
		}
	})
	t.Run("does not say that it is at its end once it goes on", func(t *testing.T) {
		w, id := exhausted(t)
		w.prom.err = fmt.Errorf("x: %w", remediation.ErrNoAnswer)
		w.post("firing", "latency", "fp2")
		if v := w.incident(id); v.State != remediation.Confirming || v.Why != "" {
			t.Fatalf("%s: %q", v.State, v.Why)
		}
	})
}

// A plan that a trigger brings is merged wherever the incident is: numbers in
// the order of adding, the lowest risk first, no step twice, and never back.
func TestAMoreUrgentTriggerMergesItsPlanWhereverTheIncidentIs(t *testing.T) {
	ids := []string{"1-status_page", "2-flag_off", "3-status_page", "4-image_retag", "5-schema_rollback", "6-restart"}
	cases := []struct {
		name   string
		arrive func(w *harness) (id string)
		after  func(w *harness, id string)
	}{
		{"settling", func(w *harness) string { return w.open() }, func(w *harness, id string) {
			w.pass(6 * time.Minute)
			w.steps(id, done, done, done, done, pending, pending) // the image was added first
			w.pass(6 * time.Minute)
			w.steps(id, done, done, done, done, pending, done) // and the restart is of a lower risk than the schema
			w.pass(6 * time.Minute)
			w.is(id, remediation.Waiting, remediation.HoldApproval)
		}},
		{"waiting for an approval", func(w *harness) string {
			id := w.open()
			climbFull(w, id)
			return id
		}, func(w *harness, id string) {
			w.pass(S)
			w.steps(id, done, done, done, done, waits, done)
			refused(w.t, w.change(id, view.Approve, fullSchema), remediation.Conflict)
			w.pass(6 * time.Minute)
			w.is(id, remediation.Waiting, remediation.HoldApproval)
		}},
		{"recovered", func(w *harness) string {
			id := w.open()
			w.cured("error_rate")
			w.pass(4 * time.Minute)
			w.is(id, remediation.Recovered, "")
			return id
		}, func(w *harness, id string) {
			w.pass(2 * S)
			w.steps(id, done, done, done, done, pending, pending)
		}},
		{"acting", func(w *harness) string {
			w.declare("alpha")
			w.breach("error_rate")
			w.target("flag_off").duringApply = func() {
				w.breach("latency")
				w.post("firing", "latency", "fp2")
			}
			return w.fire("error_rate", "fp1")
		}, func(w *harness, id string) {
			w.is(id, remediation.Settling, "")
			w.steps(id, done, done, pending, pending, pending, pending)
		}},
		{"closed, and reopened by it", func(w *harness) string {
			id := closeRecovered(w)
			w.post("resolved", "error_rate", "fp1")
			return id
		}, func(w *harness, id string) {
			w.pass(2 * S)
			w.steps(id, done, done, done, done, pending, pending)
		}},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			w := newHarness(t, fullLadder)
			id := c.arrive(w)
			w.breach("latency")
			if again := w.fire("latency", "fp2"); again != id {
				t.Fatalf("opened %s beside %s", again, id)
			}
			var got []string
			for _, s := range w.incident(id).Steps {
				got = append(got, s.ID)
			}
			if !slices.Equal(got, ids) {
				t.Fatalf("steps %v, want %v", got, ids)
			}
			c.after(w, id)
			if w.target("flag_off").effects != 1 || w.target("image_retag").effects > 1 {
				t.Fatalf("a step ran twice: %v", w.log(id))
			}
		})
	}
}

func TestAPlanThatAddsAGentlerStepRunsItBeforeWhatIsLeft(t *testing.T) {
	w := newHarness(t, replace("      - {action: flag_off, settle: 5m}\n      - {action: image_retag, settle: 5m}\n", "      - {action: image_retag, settle: 5m}\n"))
	id := w.open()
	w.steps(id, done, pending)
	w.breach("latency")
	w.fire("latency", "fp2")
	w.pass(5 * time.Minute) // 3-status_page, 4-flag_off, 5-restart were added
	w.steps(id, done, pending, done, done, pending)
	w.pass(5 * time.Minute)
	w.steps(id, done, pending, done, done, done)
	w.pass(5 * time.Minute)
	w.is(id, remediation.Waiting, remediation.HoldApproval)
	w.effects(1, 1, 0)
}
