package engine_test

import (
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/locotoki/backout/remediation"
	"github.com/locotoki/backout/remediation/audit"
	"github.com/locotoki/backout/remediation/view"
)

func TestABreachIsBackedOutAndClosed(t *testing.T) {
	w := newHarness(t)
	id := w.open()
	w.is(id, remediation.Settling, "")
	w.steps(id, remediation.StepDone, remediation.StepPending, remediation.StepPending)
	w.cured("error_rate")
	w.pass(2*time.Minute + 30*time.Second + 15*time.Second) // W+2S, and one poll more
	w.is(id, remediation.Settling, "")
	w.pass(15 * time.Second) // the third calm poll
	w.is(id, remediation.Recovered, "")
	w.pass(10 * time.Minute)
	w.is(id, remediation.Recovered, "") // its own expression is still true
	w.calm("error_rate")
	w.pass(5*time.Minute + 15*time.Second)
	w.is(id, remediation.Closed, "")
	w.logs(id, "opened", "planned", "intent 1-flag_off", "outcome 1-flag_off done", "verified 1-flag_off",
		"settled 1-flag_off recovered", "recovered", "closed recovered", "stage")
	if n := w.target("flag_off").effects; n != 1 {
		t.Fatalf("the flag was changed %d times", n)
	}
	r, err := w.engine.Rollouts(w.ctx)
	w.must(err)
	if r[0].State != "rolled_back" || r[0].Stage != "none" {
		t.Fatalf("rollout is %s at %s, want rolled_back at none", r[0].State, r[0].Stage)
	}
}

func TestConfirming(t *testing.T) {
	cases := []struct {
		name   string
		setup  func(w *harness)
		state  remediation.State
		reason remediation.Reason
	}{
		{"beyond the threshold acts", func(w *harness) { w.breach("error_rate") }, remediation.Settling, ""},
		{"within it while the alert is active waits", func(w *harness) { w.calm("error_rate") }, remediation.Waiting, remediation.HoldUnconfirmed},
		{"no value while the alert is active waits", func(*harness) {}, remediation.Waiting, remediation.HoldNoData},
		{"no answer lets a reversible step go on", func(w *harness) { w.prom.err = fmt.Errorf("connection refused: %w", remediation.ErrNoAnswer) }, remediation.Acting, ""},
		{"an answer that the query is wrong does not", func(w *harness) { w.prom.err = errors.New("bad_data: parse error") }, remediation.Waiting, remediation.HoldUnconfirmed},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			w := newHarness(t)
			c.setup(w)
			id := w.fire("error_rate", "fp1")
			if c.state == remediation.Acting {
				c.state = remediation.Settling
			}
			w.is(id, c.state, c.reason)
		})
	}
}

func TestAStaleFiringOpensNothingThatLasts(t *testing.T) {
	w := newHarness(t)
	w.calm("error_rate")
	w.post("firing", "error_rate", "fp1")
	acc := w.post("resolved", "error_rate", "fp1")
	w.tick()
	id := acc.Incidents[0]
	w.is(id, remediation.Closed, "")
	w.logs(id, "closed unconfirmed")
	if n := w.target("flag_off").effects; n != 0 {
		t.Fatalf("the flag was changed %d times", n)
	}
}

func TestAnUnconfirmedWaitActsOnceTheConditionIsTrue(t *testing.T) {
	w := newHarness(t)
	w.calm("error_rate")
	id := w.fire("error_rate", "fp1")
	w.pass(4 * time.Minute)
	w.is(id, remediation.Waiting, remediation.HoldUnconfirmed)
	w.breach("error_rate")
	w.pass(15 * time.Second)
	w.is(id, remediation.Settling, "")
}

func TestAnOldNotificationIsNotEnoughWithoutPrometheus(t *testing.T) {
	w := newHarness(t)
	freeze(w, 3*time.Minute)
	w.prom.err = fmt.Errorf("connection refused: %w", remediation.ErrNoAnswer)
	id := w.fire("error_rate", "fp1")
	w.is(id, remediation.Waiting, remediation.HoldFrozen)
	w.pass(4 * time.Minute)
	w.is(id, remediation.Waiting, remediation.HoldUnconfirmed)
	if n := w.target("flag_off").effects; n != 0 {
		t.Fatal("the flag was changed on a notification over 2m old, without Prometheus")
	}
}

func TestWithoutPrometheusADisruptiveStepWaits(t *testing.T) {
	w := newHarness(t)
	w.target("flag_off").position = remediation.Wanted
	w.prom.err = fmt.Errorf("timeout: %w", remediation.ErrNoAnswer)
	id := w.fire("error_rate", "fp1")
	w.is(id, remediation.Settling, "") // flag_off: no change
	w.pass(time.Hour)
	w.is(id, remediation.Waiting, remediation.HoldNoData)
	if n := w.target("image_retag").effects; n != 0 {
		t.Fatal("the image was re-tagged blindly")
	}
}

func TestConfirmingWaitsForTheWarmup(t *testing.T) {
	w := newHarness(t)
	id := w.open()
	w.must(w.change(id, view.Close, ""))
	w.post("resolved", "error_rate", "fp1")
	again := w.fire("error_rate", "fp2")
	w.is(again, remediation.Confirming, "")
	w.pass(59 * time.Second)
	w.is(again, remediation.Confirming, "")
}

// climb drives an incident to the top of a ladder on which no step helps.
func climb(w *harness, id string) {
	w.pass(5 * time.Minute)
	w.is(id, remediation.Settling, "")
	w.steps(id, remediation.StepDone, remediation.StepDone, remediation.StepPending)
	w.pass(5 * time.Minute)
	w.is(id, remediation.Waiting, remediation.HoldApproval)
}

func TestTheNextStepRunsOnlyWhileTheBreachContinues(t *testing.T) {
	w := newHarness(t)
	id := w.open()
	climb(w, id)
	w.must(w.change(id, view.Approve, "3-schema_rollback"))
	w.pass(15 * time.Second)
	w.is(id, remediation.Settling, "")
	w.pass(5 * time.Minute)
	w.is(id, remediation.Exhausted, "")
	w.logs(id, "settled 3-schema_rollback breaching", "notified exhausted")
	w.cured("error_rate")
	w.pass(45 * time.Second)
	w.is(id, remediation.Recovered, "")
	for _, k := range []string{"flag_off", "image_retag", "schema_rollback"} {
		if n := w.target(k).effects; n != 1 {
			t.Fatalf("%s happened %d times", k, n)
		}
	}
}

func TestAServiceThatDiesIsNeitherRecoveredNorEscalated(t *testing.T) {
	w := newHarness(t)
	id := w.open()
	w.prom.alive = 0
	delete(w.prom.recovery, "error_rate")
	delete(w.prom.value, "error_rate")
	w.post("resolved", "error_rate", "fp1") // the alert resolves by itself
	w.pass(time.Hour)
	w.is(id, remediation.Waiting, remediation.HoldNoData)
	w.logs(id, "settled 1-flag_off no_data", "held no_data", "notified no_data")
	w.steps(id, remediation.StepDone, remediation.StepPending, remediation.StepPending)
	w.prom.alive = 1
	w.prom.recovery["error_rate"] = 5
	w.pass(30 * time.Second)
	w.steps(id, remediation.StepDone, remediation.StepPending, remediation.StepPending)
	w.pass(15 * time.Second) // the third breaching poll
	w.steps(id, remediation.StepDone, remediation.StepDone, remediation.StepPending)
}

func TestAQuietFeatureOfALivingServiceHasRecovered(t *testing.T) {
	w := newHarness(t)
	id := w.open()
	delete(w.prom.recovery, "error_rate")
	w.pass(2*time.Minute + 30*time.Second + 30*time.Second)
	w.is(id, remediation.Recovered, "")
}

func TestStaleScrapesAreBlind(t *testing.T) {
	w := newHarness(t)
	id := w.open()
	w.cured("error_rate")
	w.prom.age = 31
	w.pass(5 * time.Minute)
	w.is(id, remediation.Waiting, remediation.HoldNoData)
	w.prom.age = 3
	w.pass(45 * time.Second)
	w.is(id, remediation.Recovered, "")
}

func TestARelapseRunsTheNextStep(t *testing.T) {
	w := newHarness(t)
	id := w.open()
	w.cured("error_rate")
	w.pass(4 * time.Minute)
	w.is(id, remediation.Recovered, "")
	w.breach("error_rate")
	w.pass(30 * time.Second)
	w.is(id, remediation.Recovered, "")
	w.pass(15 * time.Second)
	w.is(id, remediation.Settling, "")
	w.steps(id, remediation.StepDone, remediation.StepDone, remediation.StepPending)
}

func TestARecoveryThatItsOwnExpressionDeniesPagesAPerson(t *testing.T) {
	w := newHarness(t)
	id := w.open()
	w.cured("error_rate")
	w.pass(4 * time.Minute)
	w.is(id, remediation.Recovered, "")
	explained := w.row(id).Since.Add(17 * time.Minute) // the long window and the short one
	w.pass(explained.Sub(w.now) - time.Second)
	w.logs(id, "recovered")
	w.pass(S)
	w.logs(id, "recovered", "notified still_true")
	w.pass(time.Hour)
	w.logs(id, "recovered", "notified still_true") // once
}

// closeRecovered takes a fresh incident to closed, its alert still active.
func closeRecovered(w *harness) string {
	id := w.open()
	w.calm("error_rate")
	w.pass(4*time.Minute + 6*time.Minute)
	w.is(id, remediation.Closed, "")
	return id
}

func TestAFiringAfterTheCloseReopensAtItsStepOfThePlan(t *testing.T) {
	w := newHarness(t)
	id := closeRecovered(w)
	w.post("resolved", "error_rate", "fp1")
	w.breach("error_rate")
	if again := w.fire("error_rate", "fp1"); again != id {
		t.Fatalf("opened %s, want %s reopened", again, id)
	}
	w.is(id, remediation.Confirming, "") // three breaching polls are needed now
	w.pass(30 * time.Second)
	w.is(id, remediation.Settling, "")
	// The rollout is rolled back, and the release keeps its right to disruptive steps.
	w.steps(id, remediation.StepDone, remediation.StepDone, remediation.StepPending)
}

func TestARepeatAfterTheCloseIsADuplicateWhileNothingEnded(t *testing.T) {
	w := newHarness(t)
	id := w.open()
	w.cured("error_rate")
	w.pass(4 * time.Minute)
	w.must(w.change(id, view.Close, ""))
	w.pass(time.Minute)
	acc := w.post("firing", "error_rate", "fp1")
	w.tick()
	if acc.Duplicates != 1 {
		t.Fatalf("%+v, want a duplicate", acc)
	}
	w.is(id, remediation.Closed, "")
	// The expression is seen false, and true again: the next repeat reopens.
	w.calm("error_rate")
	w.pass(time.Minute)
	w.breach("error_rate")
	w.fire("error_rate", "fp1")
	w.is(id, remediation.Confirming, "")
}

func TestALateFiringOpensANewIncident(t *testing.T) {
	w := newHarness(t)
	id := closeRecovered(w)
	w.post("resolved", "error_rate", "fp1")
	w.pass(61 * time.Minute)
	w.breach("error_rate")
	if again := w.fire("error_rate", "fp1"); again == id {
		t.Fatal("an incident closed over an hour ago was reopened")
	}
}

func TestATriggerThatAttachesAddsItsMissingSteps(t *testing.T) {
	w := newHarness(t)
	id := w.open()
	w.breach("latency")
	if again := w.fire("latency", "fp2"); again != id {
		t.Fatalf("a second incident %s was opened", again)
	}
	var got []string
	for _, s := range w.incident(id).Steps {
		got = append(got, s.ID)
	}
	want := []string{"1-flag_off", "2-image_retag", "3-schema_rollback", "4-status_page", "5-restart"}
	if fmt.Sprint(got) != fmt.Sprint(want) {
		t.Fatalf("steps %v, want %v", got, want)
	}
	// Both triggers must be calm for a recovery.
	w.cured("error_rate")
	w.pass(5 * time.Minute)
	w.steps(id, remediation.StepDone, remediation.StepDone, remediation.StepPending, remediation.StepDone, remediation.StepPending)
}

func TestAStatusPageHoldsNothing(t *testing.T) {
	w := newHarness(t)
	w.declare("alpha")
	w.breach("latency")
	id := w.fire("latency", "fp1")
	w.is(id, remediation.Settling, "")
	w.steps(id, remediation.StepDone, remediation.StepDone, remediation.StepPending)
	w.logs(id, "outcome 1-status_page done", "intent 2-flag_off", "outcome 2-flag_off done", "verified 2-flag_off")
}

func TestNothingIsChangedWhereTheTargetIsAsWanted(t *testing.T) {
	w := newHarness(t)
	w.target("flag_off").position = remediation.Wanted
	id := w.open()
	w.is(id, remediation.Settling, "")
	w.steps(id, remediation.StepNoChange, remediation.StepPending, remediation.StepPending)
	w.logs(id, "opened", "planned", "outcome 1-flag_off no_change")
	w.calm("error_rate")
	w.pass(10 * time.Minute)
	w.is(id, remediation.Closed, "")
	r, err := w.engine.Rollouts(w.ctx)
	w.must(err)
	if r[0].State != "active" {
		t.Fatalf("rollout is %s, though nothing was changed", r[0].State)
	}
}

func TestADrillChangesNothing(t *testing.T) {
	w := newHarness(t)
	real := w.open()
	effects := w.target("flag_off").effects
	id := w.fire("error_rate", "fp9", "drill", "true")
	if id == real {
		t.Fatal("a drill attached to a real incident")
	}
	w.is(id, remediation.Closed, "")
	w.steps(id, remediation.StepSkipped, remediation.StepSkipped, remediation.StepSkipped)
	if w.target("flag_off").effects != effects || w.target("image_retag").effects != 0 {
		t.Fatal("a drill changed a target")
	}
	w.is(real, remediation.Settling, "")
}

func TestTheWatchdogsLossAndReturnAreAudited(t *testing.T) {
	w := newHarness(t)
	beat := func() {
		w.post("firing", "", "wd", "alertname", "Watchdog", "trigger", "", "severity", "none")
		w.tick()
	}
	beat()
	w.pass(4 * time.Minute)
	beat()
	w.pass(4 * time.Minute)
	blind := func() (out []any) {
		es, err := w.engine.Entries(w.ctx, audit.Filter{Kind: audit.KindBlind})
		w.must(err)
		for _, e := range es {
			out = append(out, e.Detail["blind"])
		}
		return out
	}
	if got := blind(); len(got) != 0 {
		t.Fatalf("blind entries %v while the watchdog came", got)
	}
	w.pass(2 * time.Minute)
	w.pass(time.Minute)
	beat()
	if got := fmt.Sprint(blind()); got != "[true false]" {
		t.Fatalf("blind entries %v, want its loss and its return, once each", got)
	}
}
