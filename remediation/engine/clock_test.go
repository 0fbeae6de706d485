package engine_test

import (
	"errors"
	"testing"
	"time"

	"github.com/locotoki/backout/remediation"
	"github.com/locotoki/backout/remediation/audit"
	"github.com/locotoki/backout/remediation/engine"
	"github.com/locotoki/backout/remediation/view"
)

// steady lets the harness have a clock that nobody sets, and returns how to set the
// other one.
func steady(w *harness) (set func(d time.Duration)) {
	var by time.Duration
	began := w.now
	w.steady = func() time.Duration { return w.now.Sub(began) - by }
	w.start()
	return func(d time.Duration) { by, w.now = by+d, w.now.Add(d) }
}

func TestAClockThatIsSetChangesNothingOfWhatIsUnderWay(t *testing.T) {
	for name, by := range map[string]time.Duration{"not at all": 0, "back": -time.Hour, "forward": time.Hour, "forward by a day": 24 * time.Hour} {
		t.Run(name, func(t *testing.T) {
			w := newHarness(t)
			set := steady(w)
			id := w.open()
			began := w.now
			w.pass(3 * time.Minute)
			set(by)
			w.pass(2*time.Minute - time.Second)
			w.steps(id, remediation.StepDone, remediation.StepPending, remediation.StepPending)
			w.pass(time.Second)
			w.steps(id, remediation.StepDone, remediation.StepDone, remediation.StepPending)
			if r := w.row(id); !r.SettleFrom.Equal(began.Add(5*time.Minute + by)) {
				t.Errorf("it settles from %s, want %s", r.SettleFrom, began.Add(5*time.Minute+by))
			}
			// The cooldown lasts as long as it says.
			w.calm("error_rate")
			w.pass(8 * time.Minute)
			w.is(id, remediation.Recovered, "")
			w.target("flag_off").position = remediation.Untouched
			n := 0
			es, err := w.engine.Entries(w.ctx, audit.Filter{Kind: audit.KindNotified})
			w.must(err)
			for _, e := range es {
				if e.Detail["why"] == "times of pending work were moved by the same amount" {
					n++
				}
			}
			if want := map[bool]int{true: 0, false: 1}[by == 0]; n != want {
				t.Errorf("%d entries say that the clock was set, want %d", n, want)
			}
		})
	}
}

func TestAClockThatIsSetBackWhileBackoutIsDownHoldsNothingUp(t *testing.T) {
	w := newHarness(t)
	id := w.open()
	w.pass(3 * time.Minute)
	w.now = w.now.Add(-time.Hour)
	w.start()
	w.pass(2*time.Minute - time.Second)
	w.steps(id, remediation.StepDone, remediation.StepPending, remediation.StepPending)
	w.pass(3*time.Minute + time.Second) // the log's end is three minutes older than the stop
	w.steps(id, remediation.StepDone, remediation.StepDone, remediation.StepPending)
}

func TestAClockThatIsSetBackLetsAWarmupAndACooldownEnd(t *testing.T) {
	w := newHarness(t)
	set := steady(w)
	id := w.open()
	w.must(w.change(id, view.Close, ""))
	w.post("resolved", "error_rate", "fp1")
	set(-time.Hour)
	w.target("flag_off").position = remediation.Untouched
	w.post("firing", "error_rate", "fp2")
	w.pass(11 * time.Minute)
	if n := w.target("flag_off").effects + w.target("image_retag").effects; n < 2 {
		t.Errorf("%d effects eleven minutes later: %v", n, w.log(id))
	}
}

func TestAClockThatIsSetBackAfterACloseHoldsNoStep(t *testing.T) {
	w := newHarness(t)
	set := steady(w)
	backedOut(w)
	w.pass(time.Minute)
	if r := w.row("inc-1"); !r.Wake.IsZero() {
		t.Fatalf("it is looked at again at %s", r.Wake)
	}
	set(-time.Hour)
	w.tick()
	w.target("flag_off").position = remediation.Untouched
	w.declare("alpha")
	w.breach("error_rate")
	w.post("firing", "error_rate", "fp2")
	w.pass(2 * time.Minute) // the cooldown is over, and so is the warmup
	if n := w.target("flag_off").effects; n != 2 {
		t.Errorf("%d effects two minutes after it was turned on again", n)
	}
}

func TestAClockThatIsSetWhileAStepRunsHoldsNoRetry(t *testing.T) {
	for name, by := range map[string]time.Duration{"back": -time.Hour, "forward": 90 * time.Minute} {
		t.Run(name, func(t *testing.T) {
			w := newHarness(t, limits("per_target: 9/1h, per_service: 1/10m, blast_radius: 9/10m, cooldown: 1s, breaker: 9"))
			set := steady(w)
			tg := w.target("flag_off")
			tg.applyErr = errors.New("docker is dead")
			tg.duringApply = func() {
				tg.duringApply = nil
				set(by)
				w.must(engine.FollowClock(w.ctx, w.engine))
			}
			id := w.open()
			w.is(id, remediation.Waiting, remediation.HoldStepFailed)
			tg.applyErr = nil
			w.must(w.change(id, view.Claim, ""))
			w.must(w.change(id, view.Release, ""))
			w.pass(9 * time.Minute)
			w.is(id, remediation.Waiting, remediation.HoldRateLimit)
			w.pass(2 * time.Minute)
			w.is(id, remediation.Settling, "")
		})
	}
}

func TestAClockThatIsSetChangesNothingOfWhenAPersonIsCalled(t *testing.T) {
	for name, by := range map[string]time.Duration{"back": -3 * time.Hour, "forward": 3 * time.Hour} {
		t.Run(name, func(t *testing.T) {
			w := newHarness(t)
			set := steady(w)
			_, err := w.engine.PutFreeze(w.ctx, remediation.Freeze{Scope: remediation.ScopeAll, By: "eve", Reason: "a sale"})
			w.must(err)
			id := w.open()
			w.is(id, remediation.Waiting, remediation.HoldFrozen)
			w.pass(5 * time.Minute)
			set(by)
			w.pass(14 * time.Minute)
			if n := w.calls(id, remediation.HoldFrozen); n != 0 {
				t.Errorf("called within the plan's own time")
			}
			w.pass(2 * time.Minute)
			if n := w.calls(id, remediation.HoldFrozen); n != 1 {
				t.Errorf("called %d times", n)
			}
		})
	}
}

func TestADeadlineThatWentByWithoutPollsWantsThreeOfThem(t *testing.T) {
	for name, c := range map[string]struct {
		polls   func(w *harness)
		changed bool
	}{
		"breaching":    {func(*harness) {}, true},
		"without data": {func(w *harness) { w.prom.age = 31 }, false},
	} {
		t.Run(name, func(t *testing.T) {
			w := newHarness(t)
			id := w.open()
			w.now = w.now.Add(time.Hour) // backout was down
			c.polls(w)
			w.start()
			w.tick()
			w.now = w.now.Add(time.Second)
			w.tick()
			w.is(id, remediation.Settling, "")
			w.steps(id, done, pending, pending)
			w.pass(2 * S)
			if c.changed {
				w.steps(id, done, done, pending)
				return
			}
			w.steps(id, done, pending, pending)
			w.is(id, remediation.Waiting, remediation.HoldNoData)
		})
	}
}

// Polls of before a gap say nothing about what comes after it.
func TestAGapInThePollsBeginsTheCountingAnew(t *testing.T) {
	for name, tc := range map[string]struct {
		after func(w *harness)
		state remediation.State // after three polls
		image int
	}{
		"breaching":    {func(*harness) {}, remediation.Settling, 1},
		"without data": {func(w *harness) { w.prom.age = 31 }, remediation.Waiting, 0},
		"good":         {func(w *harness) { w.cured("error_rate") }, remediation.Recovered, 0},
	} {
		t.Run(name, func(t *testing.T) {
			w := newHarness(t, fullLadder)
			id := w.open()
			w.pass(5*time.Minute + 30*time.Second)
			if n := w.row(id).SettlePolls; n < remediation.Certain {
				t.Fatalf("%d polls came before the gap", n)
			}
			w.now = w.now.Add(20 * time.Minute) // backout was down
			tc.after(w)
			w.start()
			w.tick()
			w.pass(S)
			w.is(id, remediation.Settling, "")
			w.effects(1, 0, 0)
			if n := count(w, id, "notified no_data"); n != 0 {
				t.Errorf("a person was called %d times", n)
			}
			w.pass(S)
			w.effects(1, tc.image, 0)
			if in := w.incident(id); in.State != tc.state {
				t.Errorf("%s (%s: %s), want %s", in.State, in.Reason, in.Why, tc.state)
			}
		})
	}
	t.Run("after recovery", func(t *testing.T) {
		w := newHarness(t, fullLadder)
		id := w.open()
		w.cured("error_rate")
		w.pass(6 * time.Minute)
		w.is(id, remediation.Recovered, "")
		w.breach("error_rate")
		w.pass(2 * S)
		w.now = w.now.Add(20 * time.Minute)
		w.start()
		w.tick()
		w.is(id, remediation.Recovered, "")
		w.effects(1, 0, 0)
	})
}

func TestAReleaseLetsTheBreakerGoAfterTheClockWasSetBack(t *testing.T) {
	w := newHarness(t, limits("per_target: 9/1h, per_service: 9/1h, blast_radius: 9/10m, cooldown: 1s, breaker: 2"))
	w.target("flag_off").applyErr = errors.New("docker is dead")
	id := w.open()
	again := func() {
		w.must(w.change(id, view.Claim, ""))
		w.must(w.change(id, view.Release, ""))
	}
	again()
	w.pass(2 * time.Minute)
	w.is(id, remediation.Waiting, remediation.HoldStepFailed)
	w.target("flag_off").applyErr = nil
	w.now = w.now.Add(-10 * time.Minute)
	again()
	w.pass(13 * time.Minute)
	if v := w.incident(id); v.Reason == remediation.HoldBreaker {
		t.Errorf("a human released, and the breaker holds: %s", v.Why)
	}
}

func TestAClockThatIsSetForwardMakesNoWatchdogLate(t *testing.T) {
	c := newCanary(t)
	set := steady(c.harness)
	c.beat()
	c.hear(10 * time.Minute)
	set(time.Hour)
	c.tick()
	c.wantBlindness()
	c.blindMetric(0, 0)
}
