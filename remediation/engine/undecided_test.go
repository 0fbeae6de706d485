package engine_test

import (
	"slices"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil"

	"github.com/locotoki/backout/remediation"
	"github.com/locotoki/backout/remediation/view"
)

// flap lets time go by in which every other poll says that the breach is there.
func (w *harness) flap(trigger string, d time.Duration) {
	w.t.Helper()
	for end := w.now.Add(d); w.now.Before(end); {
		w.prom.recovery[trigger] = 5 - w.prom.recovery[trigger]
		w.pass(15 * time.Second)
	}
}

// calls counts how often a person was called to an incident for a reason.
func (w *harness) calls(id string, reason remediation.Reason) (n int) {
	w.t.Helper()
	for _, e := range w.log(id) {
		if e == "notified "+string(reason) {
			n++
		}
	}
	return n
}

func (w *harness) wantCalls(id string, want int) {
	w.t.Helper()
	if n := w.calls(id, remediation.HoldUnconfirmed); n != want {
		w.t.Fatalf("a human was called %d times, want %d: %v", n, want, w.log(id))
	}
	if n := testutil.CollectAndCount(w.engine, "backout_needs_human"); n != want {
		w.t.Fatalf("backout_needs_human has %d reasons, want %d", n, want)
	}
	if o, err := w.engine.Overview(w.t.Context()); err != nil || len(o.Needed) != want {
		w.t.Fatalf("the overview needs a person for %v, want %d reasons (%v)", o.Needed, want, err)
	}
}

func TestAnAlertThatFlappingPollsNeverConfirmCallsAPersonOnce(t *testing.T) {
	w, c := withTeam(t)
	w.calm("error_rate")
	w.declare("alpha")
	id := w.fire("error_rate", "fp1")
	w.flap("error_rate", 19*time.Minute) // window 15m, settle 5m
	w.is(id, remediation.Waiting, remediation.HoldUnconfirmed)
	w.wantCalls(id, 0)
	w.flap("error_rate", 2*time.Minute)
	w.wantCalls(id, 1)
	w.start() // a restart does not call again
	w.flap("error_rate", 40*time.Minute)
	delete(w.prom.value, "error_rate") // nor does a value that comes and goes
	w.flap("error_rate", 2*time.Minute)
	w.is(id, remediation.Waiting, remediation.HoldNoData)
	w.calm("error_rate")
	w.flap("error_rate", 2*time.Minute)
	w.wantCalls(id, 1)
	if got := titles(c, "Needs a person"); !slices.Equal(got, []string{"Needs a person: unconfirmed"}) {
		t.Errorf("the team was told %q", c.told())
	}
	w.breach("error_rate") // confirmed after all: nobody has to come
	w.pass(15 * time.Second)
	w.is(id, remediation.Settling, "")
	if n := testutil.CollectAndCount(w.engine, "backout_needs_human"); n != 0 {
		t.Errorf("backout_needs_human has %d reasons while a step settles", n)
	}
	verify(t, w)
}

func TestAReopenedIncidentWhosePollsFlapCallsAPersonOnce(t *testing.T) {
	w := newHarness(t)
	id := w.open()
	w.calm("error_rate")
	w.pass(15 * time.Minute)
	w.is(id, remediation.Closed, "")
	w.post("resolved", "error_rate", "fp1")
	w.breach("error_rate")
	w.prom.recovery["error_rate"] = 0
	w.post("firing", "error_rate", "fp1")
	w.flap("error_rate", 19*time.Minute)
	w.is(id, remediation.Confirming, "")
	w.wantCalls(id, 0)
	w.flap("error_rate", 40*time.Minute)
	w.is(id, remediation.Confirming, "")
	w.wantCalls(id, 1)
}

func TestAClaimedIncidentThatStaysUndecidedCallsNobody(t *testing.T) {
	w := newHarness(t)
	w.calm("error_rate")
	id := w.fire("error_rate", "fp1")
	w.must(w.change(id, view.Claim, ""))
	w.flap("error_rate", 40*time.Minute)
	if n := w.calls(id, remediation.HoldUnconfirmed); n != 0 {
		t.Fatalf("%d calls while somebody is at it", n)
	}
}
