package engine_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil"

	"github.com/locotoki/backout/remediation"
	"github.com/locotoki/backout/remediation/audit"
	"github.com/locotoki/backout/remediation/store/storetest"
	"github.com/locotoki/backout/remediation/view"
)

func TestAFailedStepIsUndoneAndHandedToAPerson(t *testing.T) {
	w := newHarness(t)
	w.target("flag_off").verifyErr = errors.New("health answers 500")
	id := w.open()
	w.is(id, remediation.Waiting, remediation.HoldStepFailed)
	w.steps(id, remediation.StepUndone, remediation.StepPending, remediation.StepPending)
	w.logs(id, "intent 1-flag_off", "outcome 1-flag_off done", "intent 1-flag_off undo", "outcome 1-flag_off undo undone",
		"held step_failed", "notified step_failed")
	w.pass(time.Hour)
	w.is(id, remediation.Waiting, remediation.HoldStepFailed)
	w.target("flag_off").verifyErr = nil
	w.must(w.change(id, view.Claim, ""))
	w.must(w.change(id, view.Release, ""))
	w.pass(time.Minute)
	w.is(id, remediation.Settling, "")
	w.steps(id, remediation.StepDone, remediation.StepPending, remediation.StepPending)
}

func TestAStepThatCannotBeUndoneSaysSo(t *testing.T) {
	w := newHarness(t)
	w.target("flag_off").verifyErr = errors.New("health answers 500")
	w.target("flag_off").undoErr = errors.New("no such image")
	id := w.open()
	w.steps(id, remediation.StepFailed, remediation.StepPending, remediation.StepPending)
	w.is(id, remediation.Waiting, remediation.HoldStepFailed)
}

func TestOnFailureNextGoesOnOnlyWhileTheBreachDoes(t *testing.T) {
	next := replace("{action: flag_off, settle: 5m}", "{action: flag_off, settle: 5m, on_failure: next}")
	t.Run("breach goes on", func(t *testing.T) {
		w := newHarness(t, next)
		w.target("flag_off").applyErr = errors.New("cannot connect to the Docker daemon")
		id := w.open()
		w.pass(2 * time.Minute)
		w.steps(id, remediation.StepUndone, remediation.StepDone, remediation.StepPending)
	})
	t.Run("breach ends", func(t *testing.T) {
		w := newHarness(t, next)
		w.target("flag_off").applyErr = errors.New("cannot connect to the Docker daemon")
		id := w.open()
		w.cured("error_rate")
		w.pass(2 * time.Minute)
		w.is(id, remediation.Recovered, "")
		w.steps(id, remediation.StepUndone, remediation.StepPending, remediation.StepPending)
	})
}

func TestTheBreakerStopsAutomation(t *testing.T) {
	w := newHarness(t, replace("cooldown: 10m, breaker: 3", "cooldown: 1s, breaker: 2"))
	w.target("flag_off").applyErr = errors.New("no")
	id := w.open()
	for range 2 {
		w.pass(2 * time.Minute)
		w.is(id, remediation.Waiting, remediation.HoldStepFailed)
		w.must(w.change(id, view.Claim, ""))
		w.must(w.change(id, view.Release, ""))
	}
	w.pass(2 * time.Minute)
	w.is(id, remediation.Waiting, remediation.HoldStepFailed) // a release ends the row
	w.must(w.change(id, view.Close, ""))
	w.post("resolved", "error_rate", "fp1")
	w.pass(2 * time.Hour)
	id = w.fire("error_rate", "fp1")
	w.is(id, remediation.Waiting, remediation.HoldStepFailed) // the second failure in the row
	w.must(w.change(id, view.Close, ""))
	w.post("resolved", "error_rate", "fp1")
	w.pass(2 * time.Hour)
	id = w.fire("error_rate", "fp1")
	w.is(id, remediation.Waiting, remediation.HoldBreaker)
}

func TestATargetThatCannotBeLookedAtHolds(t *testing.T) {
	w := newHarness(t)
	w.target("flag_off").lookErr = errors.New("compose project is outside of docker.projects")
	id := w.open()
	w.is(id, remediation.Waiting, remediation.HoldTarget)
	w.target("flag_off").lookErr = nil
	w.pass(15 * time.Second)
	w.is(id, remediation.Settling, "")
}

func TestAnEffectInDoubtIsResolvedByLooking(t *testing.T) {
	doubt := remediation.InDoubt(context.DeadlineExceeded)
	t.Run("it happened", func(t *testing.T) {
		w := newHarness(t)
		tg := w.target("flag_off")
		tg.applyErr = doubt
		tg.duringApply = func() { tg.position, tg.effects = remediation.Wanted, 1 }
		id := w.open()
		w.is(id, remediation.Settling, "")
		w.logs(id, "in_doubt 1-flag_off wanted", "outcome 1-flag_off done", "verified 1-flag_off")
	})
	t.Run("it did not", func(t *testing.T) {
		w := newHarness(t)
		tg := w.target("flag_off")
		tg.applyErr = doubt
		tg.duringApply = func() {
			if tg.duringApply = nil; tg.effects > 0 {
				tg.applyErr = nil
			}
		}
		w.declare("alpha")
		w.breach("error_rate")
		w.post("firing", "error_rate", "fp1")
		tg.duringApply = func() { tg.duringApply = func() { tg.applyErr = nil } }
		w.tick()
		id := "inc-1"
		w.is(id, remediation.Settling, "")
		w.logs(id, "intent 1-flag_off", "in_doubt 1-flag_off untouched", "intent 1-flag_off", "outcome 1-flag_off done", "verified 1-flag_off")
	})
	t.Run("half of it did", func(t *testing.T) {
		w := newHarness(t)
		tg := w.target("flag_off")
		tg.applyErr, tg.cut = doubt, true
		tg.duringApply = func() { tg.duringApply = func() { tg.cut, tg.applyErr = false, nil } }
		id := w.open()
		w.is(id, remediation.Settling, "")
		w.logs(id, "in_doubt 1-flag_off half_way", "outcome 1-flag_off done", "verified 1-flag_off")
	})
	t.Run("half of it did, and then nothing answers", func(t *testing.T) {
		w := newHarness(t)
		tg := w.target("flag_off")
		tg.applyErr, tg.cut = doubt, true
		tg.duringApply = func() { tg.duringApply = func() { tg.lookErr = errors.New("the API server does not answer") } }
		id := w.open()
		w.is(id, remediation.Acting, remediation.HoldTarget)
		w.steps(id, remediation.StepIntent, remediation.StepPending, remediation.StepPending)
		if tg.duringApply, tg.lookErr, tg.cut, tg.applyErr = nil, nil, false, nil; tg.undone > 0 {
			t.Error("the flag was turned on again by what nobody saw")
		}
		w.pass(15 * time.Second)
		w.is(id, remediation.Settling, "")
	})
	t.Run("half of it did, twice", func(t *testing.T) {
		w := newHarness(t)
		tg := w.target("flag_off")
		tg.applyErr, tg.cut = doubt, true
		id := w.open()
		if tg.undone != 1 || w.row(id).Step("1-flag_off").State != remediation.StepUndone {
			t.Errorf("undone %d times", tg.undone)
		}
	})
	t.Run("the second half happened unheard", func(t *testing.T) {
		w := newHarness(t)
		tg := w.target("flag_off")
		tg.applyErr, tg.cut = doubt, true
		tg.duringApply = func() {
			tg.duringApply = func() { tg.cut, tg.position, tg.effects = false, remediation.Wanted, 1 }
		}
		id := w.open()
		w.is(id, remediation.Settling, "")
		w.logs(id, "in_doubt 1-flag_off half_way", "outcome 1-flag_off done", "verified 1-flag_off")
	})
}

// unverified is an incident whose first step has run, and whose target then does not answer.
func unverified(t *testing.T) (w *harness, tg *target, id string) {
	t.Helper()
	w = newHarness(t)
	tg = w.target("flag_off")
	tg.verifyErr = remediation.InDoubt(errors.New("launchdarkly answers 503"))
	id = w.open()
	w.is(id, remediation.Acting, remediation.HoldTarget)
	return w, tg, id
}

func TestAVerificationThatSawNothingDecidesNothing(t *testing.T) {
	w, tg, id := unverified(t)
	w.pass(time.Hour) // the breach goes on, and no other step follows
	w.is(id, remediation.Acting, remediation.HoldTarget)
	w.steps(id, remediation.StepDone, remediation.StepPending, remediation.StepPending)
	w.logs(id, "outcome 1-flag_off done", "in_doubt 1-flag_off", "notified target")
	if tg.undone != 0 || tg.effects != 1 || w.metric("backout_needs_human", "target") != 1 {
		t.Errorf("undone %d times, changed %d times; a person is called: %v", tg.undone, tg.effects, w.metric("backout_needs_human", "target"))
	}
	if v := w.incident(id); !strings.Contains(v.Why, "launchdarkly answers 503") {
		t.Errorf("it says %q", v.Why)
	}
	w.engine = w.newEngine(w.store) // a restart forgets nothing of it
	tg.verifyErr = nil
	w.pass(S)
	w.is(id, remediation.Settling, "")
	w.logs(id, "notified target", "verified 1-flag_off")
	if testutil.CollectAndCount(w.engine, "backout_needs_human") != 0 {
		t.Error("nobody needs to come any more")
	}
}

func TestAVerificationThatFailsAfterOneThatSawNothingIsUndone(t *testing.T) {
	w, tg, id := unverified(t)
	tg.verifyErr = errors.New("health answers 500")
	w.pass(S)
	w.is(id, remediation.Waiting, remediation.HoldStepFailed)
	w.steps(id, remediation.StepUndone, remediation.StepPending, remediation.StepPending)
	if n := testutil.CollectAndCount(w.engine, "backout_needs_human"); tg.undone != 1 || w.metric("backout_needs_human", "step_failed") != 1 || n != 1 {
		t.Errorf("undone %d times; a person is called for %d reasons", tg.undone, n)
	}
}

func TestAnUnverifiedStepCanBeClosedByHand(t *testing.T) {
	w, tg, id := unverified(t)
	tg.onVerify = func() { w.must(w.change(id, view.Close, "")) } // a person does not wait for its end
	tg.verifyErr = nil
	w.pass(S)
	w.is(id, remediation.Closed, "")
	w.steps(id, remediation.StepInDoubt, remediation.StepPending, remediation.StepPending)
	o, err := w.engine.Overview(w.ctx)
	w.must(err)
	v, words := w.incident(id), ""
	if words, _ = view.NewStatus(o).Headline(); !v.ByHand || len(v.MayBe()) != 1 || words != id+": closed, and a change may be in place" {
		t.Errorf("closed by hand: %v, in doubt %q; the status says %q", v.ByHand, v.MayBe(), words)
	}
}

func TestAnUnverifiedStepCallsAPersonAgainAfterItsClaimIsReleased(t *testing.T) {
	w, _, id := unverified(t)
	w.must(w.change(id, view.Claim, ""))
	w.must(w.change(id, view.Release, ""))
	w.pass(S)
	w.is(id, remediation.Acting, remediation.HoldTarget)
	if w.metric("backout_needs_human", "target") != 1 {
		t.Error("nobody is called any more")
	}
}

func TestAStepThatWasClosedUnverifiedCanBeRestored(t *testing.T) {
	w, tg, id := unverified(t)
	w.must(w.change(id, view.Close, ""))
	w.calm("error_rate")
	w.post("resolved", "error_rate", "fp1")
	tg.verifyErr = nil
	w.must(w.force(id))
	w.pass(time.Minute)
	w.undone(1, 0)
	w.steps(id, remediation.StepUndone, remediation.StepPending, remediation.StepPending)
}

func TestARestoreWhoseEndCannotBeSeenIsInDoubt(t *testing.T) {
	w := newHarness(t)
	id := backedOut(w)
	tg := w.target("image_retag")
	tg.onUndo = func() { tg.lookErr = errors.New("cannot connect to the Docker daemon") }
	w.must(w.restore(id))
	w.tick()
	w.is(id, remediation.Acting, "")
	tg.lookErr, tg.onUndo = nil, nil
	w.pass(S)
	w.is(id, remediation.Closed, "")
	w.undone(1, 2)
}

// TestACrashAtEveryCommitLosesAndDoublesNothing cuts the engine off before and
// after every one of its commits, at every stage of an incident's life, and
// lets a new engine go on: the end is always the same.
func TestACrashAtEveryCommitLosesAndDoublesNothing(t *testing.T) {
	storetest.EveryCommit(t, 9, func(t *testing.T, commit int, when storetest.When) bool {
		return crashAt(t, onDisk(t), commit, when)
	})
}

func TestACrashAtEveryCommitLosesAndDoublesNothingOnPostgreSQL(t *testing.T) {
	storetest.EveryCommit(t, 9, func(t *testing.T, commit int, when storetest.When) bool {
		return crashAt(t, storetest.Postgres(t), commit, when)
	})
}

func crashAt(t *testing.T, dsn string, commit int, when storetest.When) (crashed bool) {
	t.Helper()
	// Few polls: every commit is a boundary, and one poll is like another.
	w := newHarnessOn(t, dsn, replace("scrape_interval: 15s", "scrape_interval: 30s"), replace("close_after: 5m", "close_after: 1m"),
		func(s string) string { return strings.ReplaceAll(s, "settle: 5m", "settle: 6m") })
	w.declare("alpha")
	w.breach("error_rate")
	name := fmt.Sprintf("crash %v commit %d", when, commit)
	// The first step fails verification once, so that an undo is cut off too.
	flag := w.target("flag_off")
	flag.verifyErr = errors.New("unhealthy")

	restart := func() {
		crashed = true
		w.engine = w.newEngine(w.store)
	}
	if e, err := w.tryEngine(storetest.Crashing(w.store, commit, when)); err != nil {
		restart()
	} else {
		w.engine = e
	}
	post := func() {
		for {
			_, err := w.engine.Accept(w.ctx, remediation.Notification{GroupKey: "g", Alerts: []remediation.Alert{{
				Status: "firing", Fingerprint: "fp1",
				Labels: map[string]string{"service": "shop", "trigger": "error_rate", "rollout": "v2"},
			}}})
			if err == nil {
				return
			}
			restart() // and Alertmanager sends again
		}
	}
	run := func(d time.Duration) {
		end := w.now.Add(d)
		for {
			next, err := w.engine.Tick(w.ctx)
			if err != nil {
				restart()
				continue
			}
			if next.IsZero() || next.After(end) {
				w.now = end
				return
			}
			w.now = next
		}
	}
	do := func(verb view.Verb) {
		err := w.change("inc-1", verb, "")
		if err == nil {
			return
		}
		restart()
		if err := w.change("inc-1", verb, ""); err != nil {
			refused(t, err, remediation.Conflict) // it was done before the crash
		}
	}
	post()
	run(time.Minute)
	w.is("inc-1", remediation.Waiting, remediation.HoldStepFailed)
	if flag.at() != remediation.Untouched {
		t.Fatalf("%s: a failed step left its target %s", name, flag.at())
	}
	flag.verifyErr = nil
	do(view.Claim)
	do(view.Release)
	run(8 * time.Minute)
	before := flag.effects
	w.calm("error_rate")
	run(9 * time.Minute)
	w.is("inc-1", remediation.Closed, "")
	if flag.effects != before || w.target("schema_rollback").effects != 0 {
		t.Fatalf("%s: effects after the cure", name)
	}
	open, err := w.engine.Incidents(w.ctx, remediation.IncidentFilter{})
	w.must(err)
	if len(open) != 1 {
		t.Fatalf("%s: %d incidents", name, len(open))
	}
	// Each effect has its intent before it and its outcome after it.
	intents, outcomes := 0, 0
	for _, e := range w.entries("inc-1") {
		switch e.Kind {
		case audit.KindIntent:
			intents++
		case audit.KindOutcome:
			outcomes++
		case audit.KindInDoubt:
			if e.Detail["seen"] == "untouched" {
				outcomes++
			}
		}
		if intents-outcomes > 1 || outcomes > intents {
			if e.Detail["outcome"] != "no_change" && e.Detail["outcome"] != "done" {
				t.Fatalf("%s: entry %d: %d intents, %d outcomes: %v", name, e.Seq, intents, outcomes, w.log("inc-1"))
			}
		}
	}
	verify(t, w)
	return crashed
}

// verify checks the chain of the whole audit log.
func verify(t *testing.T, w *harness) {
	t.Helper()
	es, err := w.engine.Entries(w.ctx, audit.Filter{})
	w.must(err)
	prev := fmt.Sprintf("%064d", 0)
	for i, e := range es {
		if e.Seq != int64(i+1) || e.Prev != prev || e.Sum() != e.Hash {
			t.Fatalf("the chain breaks at entry %d", e.Seq)
		}
		prev = e.Hash
	}
}
