package engine_test

import (
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/locotoki/backout/remediation"
	"github.com/locotoki/backout/remediation/audit"
	"github.com/locotoki/backout/remediation/view"
)

// toSchema takes the full ladder to the wait for an approval of its last step.
func toSchema(t *testing.T, edit ...func(string) string) (*harness, string) {
	t.Helper()
	w := newHarness(t, append([]func(string) string{fullLadder}, edit...)...)
	id := w.open()
	climbFull(w, id)
	return w, id
}

func TestAQuestionSaysWhatItAsksAndUntilWhen(t *testing.T) {
	w, id := toSchema(t)
	v := w.incident(id)
	if v.Until == nil || !v.Until.Equal(w.now.Add(30*time.Minute)) {
		t.Fatalf("until %v at %s", v.Until, w.now)
	}
	if v.Next == nil || v.Next.Step != fullSchema || v.Next.At != nil ||
		!slices.ContainsFunc(v.Next.Unless, func(u string) bool { return strings.Contains(u, remediation.Moment(*v.Until)) }) {
		t.Fatalf("next is %+v", v.Next)
	}
	w.pass(10 * time.Minute) // polls do not push the end away
	if again := w.incident(id).Until; !again.Equal(*v.Until) {
		t.Fatalf("until %s became %s", v.Until, again)
	}
	if n := count(w, id, "held "+fullSchema+" approval"); n != 1 {
		t.Fatalf("asked %d times: %v", n, w.log(id))
	}
}

func TestAYesIsTakenUntilTheEndAndNotAfter(t *testing.T) {
	t.Run("a second before it", func(t *testing.T) {
		w, id := toSchema(t)
		w.pass(30*time.Minute - time.Second)
		w.must(w.change(id, view.Approve, fullSchema))
		w.tick()
		w.effects(1, 1, 1)
	})
	t.Run("at it, before the engine has looked", func(t *testing.T) {
		w, id := toSchema(t)
		w.now = w.now.Add(30 * time.Minute)
		refused(t, w.change(id, view.Approve, fullSchema), remediation.Conflict)
		w.tick()
		w.is(id, remediation.Exhausted, "")
		w.effects(1, 1, 0)
	})
	t.Run("after it, where backout was down at the end", func(t *testing.T) {
		w, id := toSchema(t)
		w.now = w.now.Add(5 * time.Hour)
		w.start()
		refused(t, w.change(id, view.Approve, fullSchema), remediation.Conflict)
		w.tick()
		w.is(id, remediation.Exhausted, "")
		w.steps(id, done, done, done, done, skipped)
		w.logs(id, "denied "+fullSchema, "notified exhausted")
	})
}

func TestAnApprovalSurvivesARestart(t *testing.T) {
	t.Run("the question", func(t *testing.T) {
		w, id := toSchema(t)
		w.pass(10 * time.Minute)
		w.start()
		w.tick()
		w.must(w.change(id, view.Approve, fullSchema))
		w.tick()
		w.effects(1, 1, 1)
	})
	t.Run("the answer", func(t *testing.T) {
		w, id := toSchema(t)
		w.must(w.change(id, view.Approve, fullSchema))
		w.start()
		w.tick()
		w.effects(1, 1, 1)
	})
	t.Run("a no", func(t *testing.T) {
		w, id := toSchema(t)
		w.must(w.change(id, view.Deny, fullSchema))
		w.start()
		w.pass(time.Hour)
		w.is(id, remediation.Exhausted, "")
		w.effects(1, 1, 0)
	})
}

func TestANoIsFinal(t *testing.T) {
	w, id := toSchema(t)
	w.must(w.change(id, view.Deny, fullSchema))
	refused(t, w.change(id, view.Approve, fullSchema), remediation.Conflict)
	refused(t, w.change(id, view.Deny, fullSchema), remediation.Conflict)
	// Not by another trigger that has the same step, nor by a claim and a release.
	w.must(w.change(id, view.Claim, ""))
	w.must(w.change(id, view.Release, ""))
	w.breach("latency")
	w.fire("latency", "fp2")
	w.pass(30 * time.Minute)
	w.is(id, remediation.Exhausted, "")
	w.steps(id, done, done, done, done, skipped, done)
	w.effects(1, 1, 0)
	for _, e := range w.entries(id) {
		if e.Kind == audit.KindDenied && (e.Actor != "eve" || e.Detail["reason"] != "because") {
			t.Fatalf("denied by %s: %v", e.Actor, e.Detail)
		}
	}
}

func TestANoAfterAYesCountsUntilTheStepHasBegun(t *testing.T) {
	w, id := toSchema(t)
	w.must(w.change(id, view.Approve, fullSchema))
	w.must(w.change(id, view.Deny, fullSchema))
	w.tick()
	if n := w.target("schema_rollback").effects; n != 0 {
		t.Errorf("what was denied ran %d times", n)
	}
	refused(t, w.change(id, view.Approve, fullSchema), remediation.Conflict)
}

func TestADeniedStepLeadsToTheNextOneOnlyWhileTheBreachGoesOn(t *testing.T) {
	edit := replace("image_retag, settle: 5m}", "image_retag, settle: 5m, approval: {timeout: 10m}}")
	t.Run("it goes on", func(t *testing.T) {
		w := newHarness(t, edit)
		id := w.open()
		w.pass(5 * time.Minute)
		w.is(id, remediation.Waiting, remediation.HoldApproval)
		w.must(w.change(id, view.Deny, "2-image_retag"))
		w.pass(2*S - time.Second)
		w.is(id, remediation.Confirming, "")
		w.pass(time.Second)
		w.is(id, remediation.Waiting, remediation.HoldApproval)
		w.steps(id, done, skipped, waits)
	})
	t.Run("it ends", func(t *testing.T) {
		w := newHarness(t, edit)
		id := w.open()
		w.pass(5 * time.Minute)
		w.must(w.change(id, view.Deny, "2-image_retag"))
		w.cured("error_rate")
		w.pass(time.Minute)
		w.is(id, remediation.Recovered, "")
		w.steps(id, done, skipped, pending)
	})
}

func TestAYesGivenTwiceRunsTheStepOnce(t *testing.T) {
	w, id := toSchema(t)
	w.must(w.change(id, view.Approve, fullSchema))
	w.must(w.change(id, view.Approve, fullSchema))
	w.tick()
	w.effects(1, 1, 1)
	refused(t, w.change(id, view.Approve, fullSchema), remediation.Conflict)
	if n := count(w, id, "intent "+fullSchema); n != 1 {
		t.Fatalf("%d intents", n)
	}
}

func TestAYesIsVoidOnceTheWaitThatAskedIsOver(t *testing.T) {
	cases := map[string]func(w *harness, id string){
		"a claim":        func(w *harness, id string) { w.must(w.change(id, view.Claim, "")) },
		"a freeze":       func(w *harness, _ string) { freeze(w, time.Hour) },
		"a silence":      func(w *harness, _ string) { w.am.silenced["fp1"] = true },
		"a recovery":     func(w *harness, _ string) { w.cured("error_rate") },
		"a close":        func(w *harness, id string) { w.must(w.change(id, view.Close, "")) },
		"a failed retry": nil,
	}
	for name, leave := range cases {
		t.Run(name, func(t *testing.T) {
			w, id := toSchema(t)
			if leave == nil {
				w.target("schema_rollback").applyErr = errors.New("lock timeout")
				w.must(w.change(id, view.Approve, fullSchema))
				w.tick()
				w.is(id, remediation.Waiting, remediation.HoldStepFailed)
				w.target("schema_rollback").applyErr = nil
				w.must(w.change(id, view.Claim, ""))
				w.must(w.change(id, view.Release, ""))
				w.pass(11 * time.Minute) // the cooldown
				w.is(id, remediation.Waiting, remediation.HoldApproval)
				w.effects(1, 1, 0)
				return
			}
			leave(w, id)
			w.pass(time.Minute)
			refused(t, w.change(id, view.Approve, fullSchema), remediation.Conflict)
			refused(t, w.change(id, view.Deny, fullSchema), remediation.Conflict)
			w.pass(time.Minute)
			w.effects(1, 1, 0)
		})
	}
}

func TestAYesIsForOneIncidentOnly(t *testing.T) {
	w, id := toSchema(t)
	w.must(w.change(id, view.Approve, fullSchema))
	w.must(w.change(id, view.Close, ""))
	w.post("resolved", "error_rate", "fp1")
	w.pass(61 * time.Minute)
	again := w.fire("error_rate", "fp1")
	if again == id {
		t.Fatal("reopened")
	}
	w.pass(25 * time.Minute)
	w.is(again, remediation.Waiting, remediation.HoldNoRollout) // backed out: a release is to be declared first
	w.effects(1, 1, 0)
	refused(t, w.change(id, view.Approve, fullSchema), remediation.Conflict)
}

func TestWhatIsApprovedStillHasToBeBreaching(t *testing.T) {
	w, id := toSchema(t)
	w.cured("error_rate")
	w.must(w.change(id, view.Approve, fullSchema))
	w.pass(time.Minute)
	w.is(id, remediation.Recovered, "")
	w.effects(1, 1, 0)
}

func TestALossyStepThatCrashedBeforeItsEffectRunsOnItsApprovalOnce(t *testing.T) {
	w, id := toSchema(t)
	schema := w.target("schema_rollback")
	schema.applyErr = remediation.InDoubt(errors.New("connection lost"))
	schema.duringApply = func() { schema.duringApply = func() { schema.applyErr = nil } }
	w.must(w.change(id, view.Approve, fullSchema))
	w.pass(10 * time.Minute)
	w.effects(1, 1, 1)
	if n := count(w, id, "intent "+fullSchema); n != 2 {
		t.Fatalf("%d intents, want the one that left no trace and its second try: %v", n, w.log(id))
	}
}

func TestAClaimHoldsThePlanAtAnyStep(t *testing.T) {
	claim := func(w *harness, id string) { w.t.Helper(); w.must(w.change(id, view.Claim, "")) }
	released := func(w *harness, id string) {
		w.t.Helper()
		v := w.incident(id)
		if v.Next == nil || !strings.Contains(v.Next.What, "would come next") {
			t.Fatalf("claimed, next is %+v", v.Next)
		}
		w.must(w.change(id, view.Release, ""))
	}
	t.Run("settling", func(t *testing.T) {
		w := newHarness(t, fullLadder)
		id := w.open()
		claim(w, id)
		w.pass(30 * time.Minute)
		w.is(id, remediation.Waiting, remediation.HoldClaimed)
		w.effects(1, 0, 0)
		released(w, id)
		w.pass(2*S - time.Second)
		w.effects(1, 0, 0)
		w.pass(time.Second)
		w.effects(1, 1, 0)
	})
	t.Run("acting: a step that has its intent runs to its outcome", func(t *testing.T) {
		w := newHarness(t, fullLadder)
		w.declare("alpha")
		w.breach("error_rate")
		w.target("flag_off").duringApply = func() { claim(w, "inc-1") }
		id := w.fire("error_rate", "fp1")
		w.is(id, remediation.Settling, "")
		w.steps(id, done, done, pending, pending, pending)
		w.pass(30 * time.Minute)
		w.effects(1, 0, 0)
		w.is(id, remediation.Waiting, remediation.HoldClaimed)
	})
	t.Run("waiting for an approval", func(t *testing.T) {
		w, id := toSchema(t)
		claim(w, id)
		w.pass(2 * time.Hour) // the time to approve does not run meanwhile
		w.is(id, remediation.Waiting, remediation.HoldClaimed)
		released(w, id)
		w.pass(2 * S)
		w.is(id, remediation.Waiting, remediation.HoldApproval)
		w.must(w.change(id, view.Approve, fullSchema))
		w.tick()
		w.effects(1, 1, 1)
	})
	t.Run("recovered: a relapse runs nothing", func(t *testing.T) {
		w := newHarness(t, fullLadder)
		id := w.open()
		w.cured("error_rate")
		w.pass(4 * time.Minute)
		claim(w, id)
		w.breach("error_rate")
		w.pass(time.Hour)
		w.is(id, remediation.Waiting, remediation.HoldClaimed)
		w.effects(1, 0, 0)
	})
	t.Run("claimed by hand and cured by hand, it recovers and closes", func(t *testing.T) {
		w := newHarness(t, fullLadder)
		id := w.open()
		claim(w, id)
		w.pass(10 * time.Minute)
		w.calm("error_rate")
		w.pass(10 * time.Minute)
		w.is(id, remediation.Closed, "")
	})
	t.Run("and a restart does not forget it", func(t *testing.T) {
		w := newHarness(t, fullLadder)
		id := w.open()
		claim(w, id)
		w.start()
		w.pass(30 * time.Minute)
		w.is(id, remediation.Waiting, remediation.HoldClaimed)
	})
}

func TestAPageEndsWhereTheIncidentWaitsForSomethingElse(t *testing.T) {
	w := newHarness(t, fullLadder)
	id := w.open()
	w.prom.alive = 0
	w.pass(10 * time.Minute)
	w.is(id, remediation.Waiting, remediation.HoldNoData)
	if p := w.row(id).Paged; !slices.Contains(p, "no_data") {
		t.Fatalf("paged for %v", p)
	}
	freeze(w, time.Hour)
	w.prom.alive = 1
	w.pass(time.Minute)
	w.is(id, remediation.Waiting, remediation.HoldFrozen)
	if p := w.row(id).Paged; len(p) > 0 {
		t.Fatalf("there is data again, and %v is paged for still", p)
	}
}

func TestAYesIsForThePlanThatWasShown(t *testing.T) {
	w, id := toSchema(t)
	w.must(w.change(id, view.Approve, fullSchema))
	w.breach("latency")
	w.post("firing", "latency", "fp2") // before the engine has come to it
	w.tick()
	w.steps(id, done, done, done, done, waits, done)
	w.pass(6 * time.Minute)
	w.is(id, remediation.Waiting, remediation.HoldApproval)
	w.effects(1, 1, 0)
}

// A page or a message of before the freeze shows what could be lost then.
func TestAnAnswerToAnEarlierRequestIsRefused(t *testing.T) {
	w, id := toSchema(t)
	step := func() view.StepView { return w.incident(id).Steps[4] }
	approve := func(question string) error {
		_, err := w.engine.ApproveQuestion(w.ctx, id, fullSchema, question, "eve", "because")
		return err
	}
	earlier := step()
	if earlier.ID != fullSchema || earlier.Question == "" {
		t.Fatalf("%+v", earlier)
	}
	freeze(w, time.Minute)
	w.pass(10 * time.Minute)
	now := step().Question
	if now == "" || now == earlier.Question {
		t.Fatalf("%q after %q", now, earlier.Question)
	}
	refused(t, approve(earlier.Question), remediation.Conflict)
	w.pass(time.Minute)
	w.effects(1, 1, 0)
	w.must(approve(now))
	if left := step().Question; left != "" {
		t.Errorf("%q is still asked", left)
	}
	second := approve(now)
	refused(t, second, remediation.Conflict)
	if want := "eve has already approved " + fullSchema; !strings.Contains(second.Error(), want) {
		t.Errorf("a second answer: %v, want %s", second, want)
	}
	w.tick()
	w.effects(1, 1, 1)
}
