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

// Short names for the states of steps, which these tests name by the dozen.
const (
	pending  = remediation.StepPending
	waits    = remediation.StepWaiting
	done     = remediation.StepDone
	noChange = remediation.StepNoChange
	undone   = remediation.StepUndone
	failed   = remediation.StepFailed
	skipped  = remediation.StepSkipped
)

// The numbers of the full ladder's steps.
const (
	fullSchema = "5-schema_rollback"
	// S and W of the test's playbook.
	S = 15 * time.Second
	W = 2 * time.Minute
)

// fullLadder is the playbook with a ladder as rollout-playbook.md has it: the
// public is told first, and again before the image goes back.
func fullLadder(s string) string {
	return replace(`      - {action: flag_off, settle: 5m}
      - {action: image_retag, settle: 5m}
      - {action: schema_rollback, settle: 5m, approval: {timeout: 30m}}
`, `      - {action: status_page}
      - {action: flag_off, settle: 6m}
      - {action: status_page}
      - {action: image_retag, settle: 6m}
      - {action: schema_rollback, settle: 6m, approval: {timeout: 30m}}
`)(s)
}

// widerLatency makes the second trigger's recovery window the longer one: W = 4m.
func widerLatency(s string) string {
	s = replace("recovery: {window: 2m, min_volume: 20}, plan: longer", "recovery: {window: 4m, min_volume: 20}, plan: longer")(s)
	return replace("{action: flag_off, settle: 5m}\n      - {action: restart, settle: 5m}", "{action: flag_off}\n      - {action: restart}")(s)
}

// effects checks how often each target was really changed.
func (w *harness) effects(flag, image, schema int) {
	w.t.Helper()
	f, i, s := w.target("flag_off").effects, w.target("image_retag").effects, w.target("schema_rollback").effects
	if f != flag || i != image || s != schema {
		w.t.Fatalf("the flag was changed %d times, the image %d and the schema %d; want %d, %d and %d", f, i, s, flag, image, schema)
	}
}

// row reads an incident as the store has it.
func (w *harness) row(id string) (inc *remediation.Incident) {
	w.t.Helper()
	w.must(w.store.View(w.ctx, func(tx remediation.Tx) (err error) {
		inc, err = tx.Incident(id)
		return err
	}))
	return inc
}

// climbFull takes the full ladder to the question whether the schema may go back.
func climbFull(w *harness, id string) {
	w.t.Helper()
	w.pass(6 * time.Minute)
	w.steps(id, done, done, done, done, pending)
	w.pass(6 * time.Minute)
	w.is(id, remediation.Waiting, remediation.HoldApproval)
	w.steps(id, done, done, done, done, waits)
}

func TestEveryStepOfThePlanRunsAndThePublicIsToldMeanwhile(t *testing.T) {
	w := newHarness(t, fullLadder)
	id := w.open()
	w.steps(id, done, done, pending, pending, pending)
	climbFull(w, id)
	w.must(w.change(id, view.Approve, fullSchema))
	w.tick()
	w.is(id, remediation.Settling, "")
	w.cured("error_rate")
	w.pass(6 * time.Minute)
	w.is(id, remediation.Recovered, "")
	w.calm("error_rate")
	w.pass(5*time.Minute + S)
	w.is(id, remediation.Closed, "")
	w.effects(1, 1, 1)
	want := []string{
		"opened", "planned",
		"outcome 1-status_page done", "intent 2-flag_off", "outcome 2-flag_off done", "verified 2-flag_off",
		"settled 2-flag_off breaching", "escalated 4-image_retag",
	}
	var got []string
	for _, l := range w.log(id) {
		if l != "notified <nil>" {
			got = append(got, l)
		}
	}
	if at := slices.Index(got, "outcome 3-status_page done"); at < 0 || at > slices.Index(got, "intent 4-image_retag") {
		t.Fatalf("the second page is not told before the image goes back: %v", got)
	}
	for _, l := range want {
		if !slices.Contains(got, l) {
			t.Errorf("the log has no %q: %v", l, got)
		}
	}
	verify(t, w)
}

func TestNothingIsPolledForBeforeTheWindowAndTwoScrapesHavePassed(t *testing.T) {
	w := newHarness(t, fullLadder)
	id := w.open()
	w.prom.recovery["error_rate"] = 0
	w.pass(W + 2*S - time.Second)
	if tr := w.row(id).Triggers[0]; tr.Calm != 0 || tr.Breaching != 0 {
		t.Fatalf("polled %d times calm before t0+W+2S", tr.Calm)
	}
	w.pass(time.Second)
	if tr := w.row(id).Triggers[0]; tr.Calm != 1 {
		t.Fatalf("at t0+W+2S %d polls were calm, want the first", tr.Calm)
	}
	w.pass(S)
	w.is(id, remediation.Settling, "")
	w.pass(S)
	w.is(id, remediation.Recovered, "")
}

func TestABreachBeforeTheSettleTimeIsOverMovesNothing(t *testing.T) {
	w := newHarness(t, fullLadder)
	id := w.open()
	w.pass(6*time.Minute - time.Second)
	w.is(id, remediation.Settling, "")
	w.steps(id, done, done, pending, pending, pending)
	w.pass(time.Second)
	w.steps(id, done, done, done, done, pending)
}

func TestACalmThatIsBrokenIsCountedFromTheStart(t *testing.T) {
	w := newHarness(t, fullLadder)
	id := w.open()
	w.cured("error_rate")
	w.pass(W + 2*S + S) // two calm polls
	w.breach("error_rate")
	w.pass(S)
	w.cured("error_rate")
	w.pass(2 * S)
	w.is(id, remediation.Settling, "")
	w.pass(S)
	w.is(id, remediation.Recovered, "")
}

func TestTheLongestWindowOfTheAttachedTriggersDecides(t *testing.T) {
	w := newHarness(t, fullLadder, widerLatency)
	id := w.open()
	w.breach("latency")
	w.pass(time.Minute)
	w.fire("latency", "fp2")
	w.prom.recovery["error_rate"], w.prom.recovery["latency"] = 0, 0
	w.pass(4*time.Minute + 2*S - time.Minute - time.Second)
	for _, tr := range w.row(id).Triggers {
		if tr.Calm != 0 {
			t.Fatalf("%s was polled before the longer window had passed", tr.Trigger)
		}
	}
	w.breach("error_rate")
	w.pass(4 * time.Minute) // 8m29s after t0; 2W+4S is 9m
	w.is(id, remediation.Settling, "")
	w.pass(31 * time.Second)
	w.steps(id, done, done, done, done, pending, pending)
}

func TestOneOfTwoTriggersThatGoesOnIsEnoughForTheNextStep(t *testing.T) {
	w := newHarness(t, fullLadder)
	id := w.open()
	w.calm("latency")
	w.fire("latency", "fp2")
	w.cured("error_rate")
	w.breach("latency")
	w.pass(6 * time.Minute)
	w.effects(1, 1, 0)
	w.cured("latency")
	w.breach("error_rate")
	w.pass(5 * time.Minute)
	w.is(id, remediation.Settling, "")
	w.cured("error_rate")
	w.pass(3 * S)
	w.is(id, remediation.Recovered, "")
}

func TestWithoutAnAnswerNoStepFollowsAndAPersonIsCalled(t *testing.T) {
	cases := map[string]func(w *harness){
		"Prometheus does not answer": func(w *harness) { w.prom.err = fmt.Errorf("x: %w", remediation.ErrNoAnswer) },
		"the scrapes are old":        func(w *harness) { w.prom.age = 31 },
		"the service is dead":        func(w *harness) { w.prom.alive = 0 },
	}
	for name, blind := range cases {
		t.Run(name, func(t *testing.T) {
			w := newHarness(t, fullLadder)
			id := w.open()
			w.pass(5 * time.Minute)
			blind(w)
			w.pass(time.Hour)
			w.is(id, remediation.Waiting, remediation.HoldNoData)
			w.steps(id, done, done, pending, pending, pending)
			w.logs(id, "settled 2-flag_off no_data", "held no_data", "notified no_data")
		})
	}
}

// The value becomes good so late that the settle time ends before three polls have seen it.
func TestTheSettleTimeLastsUntilThereAreEnoughPollsToJudgeBy(t *testing.T) {
	ends := map[string]struct {
		then   func(w *harness) // after the end of the settle time
		state  remediation.State
		reason remediation.Reason
		image  int // how often the image was changed
	}{
		"the value stays good": {func(*harness) {}, remediation.Recovered, "", 0},
		"one poll is bad": {func(w *harness) {
			w.breach("error_rate")
			w.pass(S)
			w.cured("error_rate")
			w.pass(2 * S)
		}, remediation.Recovered, "", 0},
		"the breach comes back": {func(w *harness) {
			w.breach("error_rate")
			w.pass(2 * S)
			w.effects(1, 0, 0)
			w.pass(S)
		}, remediation.Settling, "", 1},
		"it goes back and forth": {func(w *harness) {
			for range 3 {
				w.is("inc-1", remediation.Settling, "")
				w.breach("error_rate")
				w.pass(S)
				w.cured("error_rate")
				w.pass(S)
			}
			w.breach("error_rate")
		}, remediation.Waiting, remediation.HoldNoData, 0},
		"the data end":             {func(w *harness) { w.prom.alive = 0 }, remediation.Waiting, remediation.HoldNoData, 0},
		"there are no more events": {func(w *harness) { delete(w.prom.recovery, "error_rate") }, remediation.Recovered, "", 0},
	}
	for good := 1; good <= 2; good++ {
		for name, end := range ends {
			t.Run(fmt.Sprintf("%d good, %s", good, name), func(t *testing.T) {
				w := newHarness(t, fullLadder)
				id := w.open()
				w.pass(6*time.Minute - time.Duration(good-1)*S - time.Second)
				w.cured("error_rate")
				w.pass(time.Duration(good-1)*S + time.Second)
				w.is(id, remediation.Settling, "")
				if tr := w.row(id).Triggers[0]; tr.Calm != good {
					t.Fatalf("%d polls are good at the end, want %d", tr.Calm, good)
				}
				if n := w.incident(id).Next; n == nil || n.At == nil || !n.At.Equal(w.now.Add(3*S)) {
					t.Errorf("next is %+v at the earliest, want the third poll", n)
				}
				end.then(w)
				w.pass(time.Duration(3-good) * S)
				w.is(id, end.state, end.reason)
				w.effects(1, end.image, 0)
				if want := end.reason == remediation.HoldNoData; count(w, id, "notified no_data") > 0 != want || slices.Contains(w.log(id), "held no_data") != want {
					t.Errorf("whether a person is called should be %v: %v", want, w.log(id))
				}
			})
		}
	}
}

func TestALossyStepThatWasApprovedWaitsWhilePrometheusDoesNotAnswer(t *testing.T) {
	w := newHarness(t, fullLadder)
	id := w.open()
	climbFull(w, id)
	w.prom.err = fmt.Errorf("x: %w", remediation.ErrNoAnswer)
	w.must(w.change(id, view.Approve, fullSchema))
	w.pass(10 * time.Minute)
	w.effects(1, 1, 0)
	w.prom.err = nil
	w.pass(2 * S)
	w.effects(1, 1, 0)
	w.pass(S)
	w.effects(1, 1, 1)
}

// Three polls that see one and the same sample are one poll: what comes in
// meanwhile makes the engine look sooner, and not surer.
func TestPollsThatComeSoonerDoNotCountTwice(t *testing.T) {
	pokes := func(w *harness, id string) {
		for i := range 6 {
			fp := fmt.Sprint("again", i)
			w.post("firing", "error_rate", fp, "instance", fmt.Sprint(i))
			w.tick()
			w.post("resolved", "error_rate", fp, "instance", fmt.Sprint(i))
			w.tick()
		}
	}
	t.Run("a relapse", func(t *testing.T) {
		w := newHarness(t, fullLadder)
		id := w.open()
		w.cured("error_rate")
		w.pass(4 * time.Minute)
		w.is(id, remediation.Recovered, "")
		w.breach("error_rate")
		pokes(w, id)
		w.is(id, remediation.Recovered, "")
		w.effects(1, 0, 0)
	})
	t.Run("a recovery", func(t *testing.T) {
		w := newHarness(t, fullLadder)
		id := w.open()
		climbFull(w, id)
		w.cured("error_rate")
		pokes(w, id)
		w.is(id, remediation.Waiting, remediation.HoldApproval)
	})
	t.Run("an end before any step", func(t *testing.T) {
		w := newHarness(t, fullLadder)
		freeze(w, time.Hour)
		id := w.open()
		w.cured("error_rate")
		pokes(w, id)
		w.is(id, remediation.Waiting, remediation.HoldFrozen)
	})
}

func TestARelapseRunsTheNextStepAndNotTheSameAgain(t *testing.T) {
	w := newHarness(t, fullLadder)
	id := w.open()
	w.cured("error_rate")
	w.pass(4 * time.Minute)
	w.is(id, remediation.Recovered, "")
	w.target("flag_off").position = remediation.Untouched // someone switched it on again
	for range 3 {                                         // a flutter is no relapse
		w.breach("error_rate")
		w.pass(2 * S)
		w.cured("error_rate")
		w.pass(S)
		w.is(id, remediation.Recovered, "")
	}
	w.breach("error_rate")
	w.pass(3 * S)
	w.effects(1, 1, 0)
	w.logs(id, "outcome 3-status_page done", "escalated 4-image_retag", "intent 4-image_retag", "outcome 4-image_retag done", "verified 4-image_retag")
}

func TestARelapseAfterTheLastStepGoesToAPerson(t *testing.T) {
	w := newHarness(t, fullLadder)
	id := w.open()
	climbFull(w, id)
	w.must(w.change(id, view.Approve, fullSchema))
	w.tick()
	w.cured("error_rate")
	w.pass(6 * time.Minute)
	w.is(id, remediation.Recovered, "")
	w.breach("error_rate")
	w.pass(3 * S)
	w.is(id, remediation.Exhausted, "")
	w.logs(id, "notified exhausted")
	w.effects(1, 1, 1)
}

func TestARecoveredIncidentClosesOnlyWhileTheServiceIsAlive(t *testing.T) {
	w := newHarness(t, fullLadder)
	id := w.open()
	w.calm("error_rate")
	w.pass(4 * time.Minute)
	w.is(id, remediation.Recovered, "")
	w.pass(4 * time.Minute)
	w.prom.alive = 0
	w.pass(S)
	w.prom.alive = 1
	w.pass(4 * time.Minute)
	w.is(id, remediation.Recovered, "")
	w.pass(time.Minute + 2*S)
	w.is(id, remediation.Closed, "")
}

func TestAServiceThatDiesAfterItsRecoveryCallsAPerson(t *testing.T) {
	w := newHarness(t, fullLadder)
	id := w.open()
	w.calm("error_rate")
	w.pass(4 * time.Minute)
	w.is(id, remediation.Recovered, "")
	w.prom.alive = 0
	delete(w.prom.value, "error_rate")
	delete(w.prom.recovery, "error_rate")
	w.pass(16 * time.Minute)
	if n := count(w, id, "notified no_data"); n != 0 {
		t.Fatal("a human was called before window+W had passed")
	}
	w.pass(30 * time.Minute)
	w.is(id, remediation.Recovered, "")
	if n := count(w, id, "notified no_data"); n != 1 {
		t.Fatalf("a human was called %d times, want once: %v", n, w.log(id))
	}
	w.prom.alive = 1
	w.calm("error_rate")
	w.pass(S)
	if p := w.row(id).Paged; len(p) > 0 {
		t.Fatalf("the service lives again, and %v is paged for still", p)
	}
	w.pass(6 * time.Minute)
	w.is(id, remediation.Closed, "")
}

func TestAReopenedIncidentGoesOnWhereItWas(t *testing.T) {
	w := newHarness(t, fullLadder)
	id := w.open()
	w.pass(6 * time.Minute)
	w.calm("error_rate")
	w.post("resolved", "error_rate", "fp1")
	w.pass(15 * time.Minute)
	w.is(id, remediation.Closed, "")
	w.rollout("rolled_back", "none", false)
	w.pass(35 * time.Minute)
	w.breach("error_rate")
	w.fire("error_rate", "fp1")
	w.is(id, remediation.Confirming, "")
	w.pass(2*S - time.Second)
	w.is(id, remediation.Confirming, "")
	w.pass(time.Second)
	w.is(id, remediation.Waiting, remediation.HoldApproval)
	w.steps(id, done, done, done, done, waits)
	w.effects(1, 1, 0)
}

func TestAReopenedIncidentThatIsNotConfirmedRecoversWithoutAStep(t *testing.T) {
	w := newHarness(t, fullLadder)
	id := closeRecovered(w)
	w.post("resolved", "error_rate", "fp1")
	w.prom.value["error_rate"] = 5 // the long window alone
	w.fire("error_rate", "fp1")
	w.pass(2 * S)
	w.is(id, remediation.Recovered, "")
	w.effects(1, 0, 0)
}

func TestReopenWithinIsExact(t *testing.T) {
	for _, c := range []struct {
		after time.Duration
		same  bool
	}{{time.Hour, true}, {time.Hour + time.Second, false}} {
		w := newHarness(t, fullLadder)
		id := closeRecovered(w)
		w.post("resolved", "error_rate", "fp1")
		w.now = w.incident(id).Closed.Add(c.after)
		w.tick()
		w.breach("error_rate")
		if again := w.fire("error_rate", "fp1"); (again == id) != c.same {
			t.Errorf("%s after the close: incident %s after %s", c.after, again, id)
		}
	}
}

func TestAfterReopenWithinTheLadderBeginsAtItsFoot(t *testing.T) {
	w := newHarness(t, fullLadder)
	id := closeRecovered(w)
	w.target("flag_off").position = remediation.Untouched
	w.pass(61 * time.Minute) // no resolved came: the alert is silenced, say
	w.breach("error_rate")
	again := w.fire("error_rate", "fp1")
	if again == id {
		t.Fatal("reopened after over an hour")
	}
	w.steps(again, done, done, pending, pending, pending)
	w.effects(2, 0, 0)
}

func TestAFailedStepStopsThePlanForGood(t *testing.T) {
	w := newHarness(t, fullLadder)
	id := w.open()
	w.target("image_retag").verifyErr = errors.New("health answers 500")
	w.pass(6 * time.Minute)
	w.is(id, remediation.Waiting, remediation.HoldStepFailed)
	w.steps(id, done, done, done, undone, pending)
	w.logs(id, "intent 4-image_retag undo", "outcome 4-image_retag undo undone", "held step_failed", "notified step_failed")
	w.pass(time.Hour)
	w.is(id, remediation.Waiting, remediation.HoldStepFailed)
	w.effects(1, 1, 0)
	if n := w.incident(id).Next; n != nil {
		t.Fatalf("next is %+v, and nothing comes next", n)
	}
	if v := w.incident(id); v.Stuck != "4-image_retag" || !strings.Contains(v.Again(), "a commander has claimed") {
		t.Errorf("%s is tried again, %s", v.Stuck, v.Again())
	}
	w.must(w.change(id, view.Claim, ""))
	w.pass(time.Hour)
	w.effects(1, 1, 0)
	if v := w.incident(id); v.Stuck != "4-image_retag" || !strings.Contains(v.Again(), v.ClaimedBy+" has fixed") {
		t.Errorf("%s is tried again, %s", v.Stuck, v.Again())
	}
	w.target("image_retag").verifyErr = nil
	w.must(w.change(id, view.Release, ""))
	w.pass(3 * S)
	if v := w.incident(id); v.Stuck != "" {
		t.Errorf("%s is stuck, and was tried again", v.Stuck)
	}
	w.effects(1, 2, 0)
	w.steps(id, done, done, done, done, pending)
}

func TestAFailedUndoStaysFailedUntilSomebodyHasClaimedAndReleased(t *testing.T) {
	next := func(s string) string {
		return replace("{action: flag_off, settle: 6m}", "{action: flag_off, settle: 6m, on_failure: next}")(fullLadder(s))
	}
	w := newHarness(t, next)
	w.target("flag_off").verifyErr, w.target("flag_off").undoErr = errors.New("unhealthy"), errors.New("no such image")
	id := w.open()
	w.pass(time.Hour)
	w.is(id, remediation.Waiting, remediation.HoldStepFailed)
	w.steps(id, done, failed, pending, pending, pending)
	w.effects(1, 0, 0)
}

func TestOnFailureNextNeverLeadsToTheSchema(t *testing.T) {
	w := newHarness(t, func(s string) string {
		return replace("{action: flag_off, settle: 6m}", "{action: flag_off, settle: 6m, on_failure: next}")(fullLadder(s))
	})
	w.target("flag_off").applyErr = errors.New("docker is dead")
	w.target("image_retag").applyErr = errors.New("docker is dead")
	id := w.open()
	w.pass(time.Hour)
	w.is(id, remediation.Waiting, remediation.HoldStepFailed)
	w.steps(id, done, undone, done, undone, pending)
	for _, e := range w.entries(id) {
		if e.Step == fullSchema {
			t.Fatalf("a dead Docker engine led to the schema: %v", w.log(id))
		}
	}
}

func TestAHoldKnowsWhenItCallsAPerson(t *testing.T) {
	w := newHarness(t)
	w.declare("alpha")
	_, err := w.engine.PutFreeze(w.ctx, remediation.Freeze{Scope: remediation.ScopeAll, By: "eve", Reason: "move"})
	w.must(err)
	w.breach("error_rate")
	id := w.fire("error_rate", "fp1")
	w.is(id, remediation.Waiting, remediation.HoldFrozen)
	at := w.incident(id).CallAt
	if want := w.now.Add(20 * time.Minute); at == nil || !at.Equal(want) { // the window, and the settling of flag_off
		t.Fatalf("a person is called at %v, want %s", at, want)
	}
	w.must(w.change(id, view.Claim, ""))
	if at := w.incident(id).CallAt; at != nil {
		t.Errorf("claimed, and a person is called at %s", at)
	}
	w.must(w.change(id, view.Release, ""))
	w.pass(21 * time.Minute)
	if at := w.incident(id).CallAt; at != nil || w.needed("frozen") != 1 {
		t.Errorf("%d calls, and the next is at %v", w.needed("frozen"), at)
	}
}
