package engine_test

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/locotoki/backout/remediation"
	"github.com/locotoki/backout/remediation/view"
)

func TestABreachIsSeenWhileOneOfTwoTargetsIsDown(t *testing.T) {
	w := newHarness(t)
	w.prom.up, w.prom.down = 2, 1
	id := w.open()
	w.steps(id, done, pending, pending)
	w.pass(6 * time.Minute)
	w.steps(id, done, done, pending)
}

func TestCalmNeedsTheTargetsThatWereUpWhenTheIncidentOpened(t *testing.T) {
	for name, c := range map[string]struct{ up, down float64 }{"one of two is down": {2, 1}, "two of three are down": {3, 2}} {
		t.Run(name, func(t *testing.T) {
			w := newHarness(t)
			w.prom.up = c.up
			id := w.open()
			w.prom.down = c.down
			w.calm("error_rate")
			w.pass(10 * time.Minute)
			w.is(id, remediation.Waiting, remediation.HoldNoData)
			want := fmt.Sprintf("%.0f of %.0f target", c.down, c.up)
			if v := w.incident(id); !strings.Contains(v.Why, want) {
				t.Errorf("the words are %q, want %q", v.Why, want)
			}
			w.prom.down = 0
			w.pass(3 * S)
			w.is(id, remediation.Recovered, "")
		})
	}
}

func TestABreachOfAServiceWithoutTrafficIsABreach(t *testing.T) {
	w := newHarness(t)
	id := w.open()
	w.prom.alive, w.prom.up = 0, 1 // it is scraped, and nobody asks it anything
	w.pass(6 * time.Minute)
	w.steps(id, done, done, pending)
}

func TestATriggerThatCannotBeReadHidesNoOthersBreach(t *testing.T) {
	w := newHarness(t)
	id := w.open()
	w.fire("latency", "fp2") // its recovery has no value, and for an unknown reason
	w.prom.unborn = true
	w.pass(8 * time.Minute)
	if n := w.target("restart").effects + w.target("image_retag").effects; n == 0 {
		t.Fatalf("error_rate goes on, and nothing followed: %v", w.log(id))
	}
}

func TestNoValueIsACureOnlyWhereThereWereNoEvents(t *testing.T) {
	for name, c := range map[string]struct {
		edit   func(string) string
		events map[string]float64
		why    string
		cured  bool
	}{
		"no events":               {events: map[string]float64{"error_rate": 0}, cured: true},
		"few, which may all fail": {events: map[string]float64{"error_rate": 5}, why: "too few events to judge: 5 in 2 min"},
		"nobody knows":            {why: "its exporter is down"},
		"a value of the present": {
			edit: replace("{name: error_rate, indicator: error_rate, above: 0.01, window: 15m, min_volume: 100, recovery: {window: 2m, min_volume: 13}, plan: ladder}",
				"{name: error_rate, indicator: cpu, above: 0.9, sustained: 10m, recovery: {window: 2m}, plan: ladder}"),
			why: "for an unknown reason",
		},
	} {
		t.Run(name, func(t *testing.T) {
			edits := []func(string) string{replace("indicators:\n", "indicators:\n  - {name: cpu, query: max(cpu), unit: ratio}\n")}
			if c.edit != nil {
				edits = append(edits, c.edit)
			}
			w := newHarness(t, edits...)
			id := w.open()
			w.prom.unborn, w.prom.events = true, c.events
			delete(w.prom.recovery, "error_rate")
			w.pass(6 * time.Minute)
			if c.cured {
				w.is(id, remediation.Recovered, "")
				return
			}
			w.is(id, remediation.Waiting, remediation.HoldNoData)
			if v := w.incident(id); !strings.Contains(v.Why, c.why) {
				t.Errorf("the words are %q, want %q", v.Why, c.why)
			}
			w.steps(id, done, pending, pending)
		})
	}
}

func TestATriggerOfAnotherStageIsNotConfirmed(t *testing.T) {
	staged := replace(`- {name: alpha, traffic: "0.01", duration: 1d,`, `- {name: alpha, traffic: "0.01", duration: 1d, rollback: [error_rate],`)
	w := newHarness(t, staged)
	w.declare("beta")
	w.breach("error_rate")
	id := w.fire("error_rate", "fp1")
	w.is(id, remediation.Waiting, remediation.HoldUnconfirmed)
	w.pass(10 * time.Minute)
	w.effects(0, 0, 0)
	if v := w.incident(id); !strings.Contains(v.Why, "in stage alpha only") {
		t.Errorf("the words are %q", v.Why)
	}
	w.prom.err = fmt.Errorf("x: %w", remediation.ErrNoAnswer) // nor on the alert's word alone
	w.post("resolved", "error_rate", "fp1")
	w.fire("error_rate", "fp1")
	w.pass(time.Minute)
	w.effects(0, 0, 0)

	w = newHarness(t, staged) // in its own stage it is, and its recovery knows no stage
	id = w.open()
	w.pass(6 * time.Minute)
	w.steps(id, done, done, pending)
}

// betaLatency makes latency a trigger of stage beta only.
func betaLatency(s string) string {
	return replace(`- {name: beta, traffic: "0.1", duration: 3d,`, `- {name: beta, traffic: "0.1", duration: 3d, rollback: [latency],`)(s)
}

func TestATriggerOfAnotherStageLetsNoFurtherStepRun(t *testing.T) {
	w := newHarness(t, betaLatency)
	id := w.open()
	w.cured("error_rate")
	w.breach("latency")
	w.fire("latency", "fp2") // late, or forged: the rollout is in alpha
	w.pass(6 * time.Minute)
	w.is(id, remediation.Recovered, "")
	w.calm("error_rate")
	w.pass(time.Hour)
	w.is(id, remediation.Closed, "")
	for range 6 { // what stays active reopens nothing
		w.post("firing", "latency", "fp2")
		w.pass(5 * time.Minute)
	}
	w.is(id, remediation.Closed, "")
	w.effects(1, 0, 0)
	if w.target("restart").effects != 0 || called(w, id) != 0 || slices.Contains(w.log(id), "reopened") {
		t.Errorf("log: %v", w.log(id))
	}
}

func TestATriggerThatItsOwnStageConfirmedCountsInALaterOne(t *testing.T) {
	w := newHarness(t, replace(`- {name: alpha, traffic: "0.01", duration: 1d,`, `- {name: alpha, traffic: "0.01", duration: 1d, rollback: [error_rate],`))
	id := w.open()
	w.editRollout(func(r *remediation.Rollout) { r.Stage = "beta" })
	w.pass(6 * time.Minute)
	w.steps(id, done, done, pending)
}

// A rollout that the incident ended, and that was declared again since, is at the stage of that.
func TestATriggerOfTheStageThatWasDeclaredAgainCounts(t *testing.T) {
	w := newHarness(t, betaLatency)
	w.breach("error_rate")
	id := w.fire("error_rate", "fp1") // while nothing is rolled out
	w.pass(6 * time.Minute)
	w.declare("alpha")
	w.pass(time.Minute)
	w.cured("error_rate")
	w.calm("error_rate")
	w.pass(5 * time.Minute)
	w.post("resolved", "error_rate", "fp1")
	w.pass(time.Hour)
	w.is(id, remediation.Closed, "")
	w.rollout(remediation.RolloutRolledBack, remediation.StageNone, false)
	w.breach("error_rate")
	w.fire("error_rate", "fp9") // it comes back
	w.pass(3 * time.Minute)
	w.is(id, remediation.Waiting, remediation.HoldNoRollout)
	w.declare("beta")
	w.calm("error_rate")
	w.breach("latency")
	w.fire("latency", "fp2")
	w.pass(20 * time.Minute)
	if w.target("restart").effects != 1 {
		t.Errorf("latency breaches in its stage, and nothing is done: %v", w.log(id))
	}
}

func TestATriggerOfTheStageThatAnAbortEndedStillCounts(t *testing.T) {
	w := newHarness(t, betaLatency)
	w.declare("beta")
	w.prom.err = fmt.Errorf("x: %w", remediation.ErrNoAnswer)
	w.breach("latency")
	freeze(w, time.Minute)
	id := w.fire("latency", "fp1")
	w.must(func() error {
		_, err := w.engine.ChangeRollout(w.ctx, remediation.RolloutChange{Verb: remediation.RolloutAbort, Actor: "eve", Reason: "bad"})
		return err
	}())
	w.pass(2 * time.Minute)
	w.must(w.change(id, view.Deny, "5-schema_rollback"))
	w.prom.err = nil
	w.pass(time.Minute)
	w.rollout(remediation.RolloutAborted, remediation.StageNone, false)
	w.pass(20 * time.Minute)
	w.is(id, remediation.Exhausted, "")
}

func TestARestoreIsRefusedWhereItCannotBeToldWhetherTheBreachGoesOn(t *testing.T) {
	w := newHarness(t)
	id := backedOut(w)
	w.prom.up, w.prom.down = 2, 1
	var refusal *remediation.RefusedError
	if err := w.restore(id); !errors.As(err, &refusal) || !strings.Contains(refusal.Message, "1 of 2 targets is down") {
		t.Fatalf("got %v", err)
	}
}

func TestAPrometheusThatLostTheOpeningShowsNoRecovery(t *testing.T) {
	w := newHarness(t)
	w.prom.up = 2
	id := w.open()
	w.prom.down, w.prom.forgot = 1, true // it was restarted on an empty disk, and half of the service is dead
	w.cured("error_rate")
	w.pass(20 * time.Minute)
	w.is(id, remediation.Waiting, remediation.HoldNoData)
	if why := w.incident(id).Why; !strings.Contains(why, "no samples of when the incident opened") || w.metric("backout_needs_human", "no_data") != 1 {
		t.Errorf("held since %q", why)
	}
	w.effects(1, 0, 0)
	w.calm("error_rate")
	w.must(w.change(id, view.Close, "")) // whoever was called can look, and end it
}

func TestARecoveredIncidentWhoseOpeningPrometheusForgotCallsAPerson(t *testing.T) {
	w := newHarness(t)
	id := w.open()
	w.calm("error_rate")
	w.pass(4 * time.Minute)
	w.is(id, remediation.Recovered, "")
	w.prom.forgot = true
	w.pass(20 * time.Minute)
	w.is(id, remediation.Recovered, "")
	if w.metric("backout_needs_human", "no_data") != 1 {
		t.Errorf("nobody is called: %v", w.log(id))
	}
}

func TestAServiceThatHadNoTargetUpWhenItOpenedCanRecover(t *testing.T) {
	w := newHarness(t)
	w.prom.answers = func(expr string) (float64, bool) { return 0, strings.Contains(expr, " @ ") } // it had been down
	id := w.open()
	w.calm("error_rate")
	w.pass(15 * time.Minute)
	w.is(id, remediation.Closed, "")
}

func TestARecoveryBoundOfItsOwnDecidesAfterAStep(t *testing.T) {
	w := newHarness(t, replace("recovery: {window: 2m, min_volume: 13}", "recovery: {window: 2m, min_volume: 13, above: 0.001}"))
	w.declare("alpha")
	w.prom.value["error_rate"], w.prom.recovery["error_rate"] = 0.02, 0.002 // within 0.01, beyond 0.001
	id := w.fire("error_rate", "fp1")
	w.pass(7 * time.Minute)
	if inc := w.incident(id); inc.State == remediation.Recovered || inc.Steps[1].State != remediation.StepDone {
		t.Errorf("the breach goes on, and the incident is %s with its second step %s", inc.State, inc.Steps[1].State)
	}
	w.prom.recovery["error_rate"] = 0.0005
	w.pass(7 * time.Minute)
	w.is(id, remediation.Recovered, "")
}
