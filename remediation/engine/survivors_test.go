package engine_test

import (
	"errors"
	"slices"
	"testing"
	"time"

	"github.com/locotoki/backout/remediation"
	"github.com/locotoki/backout/remediation/view"
)

// heldRestore is a restore that waits for the engine of its targets.
func heldRestore(t *testing.T) (w *harness, id string) {
	t.Helper()
	w = newHarness(t)
	id = backedOut(w)
	w.target("image_retag").lookErr = errors.New("cannot connect")
	w.must(w.restore(id))
	w.tick()
	w.is(id, remediation.Waiting, remediation.HoldTarget)
	return w, id
}

func TestARestoreLeavesATargetThatNobodySees(t *testing.T) {
	w, _ := heldRestore(t)
	w.undone(0, 0)
	w.target("image_retag").lookErr = nil
	w.pass(time.Minute)
	w.undone(1, 1)
}

func TestAPromotionLeftHalfWayGoesBackWhereAnIncidentIsOpen(t *testing.T) {
	c := newCanary(t)
	c.started()
	c.later(day)
	c.flag.cut, c.flag.applyErr = true, remediation.InDoubt(errors.New("connection reset"))
	c.flag.duringApply = func() {
		c.flag.duringApply = nil
		c.breach("error_rate")
		c.post("firing", "error_rate", "fp1")
	}
	c.flag.onLook = func() {
		if c.flag.half != "" {
			c.flag.cut, c.flag.applyErr = false, nil
		}
	}
	c.must(c.do(remediation.RolloutPromote))
	c.tick()
	if slices.Contains(c.flag.history, "0.1") || c.flag.value != "0.01" || c.flag.half != "" {
		t.Errorf("the traffic is %s (half: %q) after %v", c.flag.value, c.flag.half, c.flag.history)
	}
}

func TestNoAnswerIsNotTheEndOfAnUnconfirmedIncident(t *testing.T) {
	w := newHarness(t)
	w.declare("alpha")
	w.calm("error_rate")
	id := w.fire("error_rate", "fp1")
	for w.row(id).FalseSince == nil {
		w.pass(S)
	}
	w.pass(w.row(id).FalseSince.Add(5*time.Minute - time.Second).Sub(w.now))
	w.is(id, remediation.Waiting, remediation.HoldUnconfirmed)
	w.prom.fails = func(expr string) error {
		if expr == w.prom.expr.Triggers["error_rate"].Value {
			return errors.New("query timed out")
		}
		return nil
	}
	w.pass(2 * S)
	w.is(id, remediation.Waiting, remediation.HoldUnconfirmed)
	w.prom.fails = nil
	w.pass(6 * time.Minute)
	w.is(id, remediation.Closed, "")
}

func TestAClockThatIsSetMovesAStagesBegin(t *testing.T) {
	for name, by := range map[string]time.Duration{"back": -time.Hour, "forward": 24 * time.Hour} {
		t.Run(name, func(t *testing.T) {
			w := newHarness(t)
			set := steady(w)
			w.declare("alpha")
			want := w.now.Add(24*time.Hour + by)
			w.pass(time.Minute)
			set(by)
			w.pass(time.Minute)
			all, err := w.engine.Rollouts(w.ctx)
			w.must(err)
			if at := all[0].PromotableAt; at == nil || !at.Equal(want) {
				t.Errorf("the stage has lasted at %v, want %s", at, want)
			}
		})
	}
}

func TestAClockThatIsSetForwardNeitherClosesNorPagesEarly(t *testing.T) {
	recovered := func() (*harness, func(time.Duration), string) {
		w := newHarness(t)
		set := steady(w)
		id := w.open()
		w.calm("error_rate")
		for w.incident(id).State != remediation.Recovered {
			w.pass(S)
		}
		w.pass(2 * S)
		return w, set, id
	}
	w, set, id := recovered()
	set(time.Hour)
	w.pass(time.Minute)
	w.is(id, remediation.Recovered, "")
	w.pass(5 * time.Minute)
	w.is(id, remediation.Closed, "")

	w, set, id = recovered()
	w.prom.err = remediation.ErrNoAnswer
	w.pass(2 * S)
	if w.row(id).BlindSince == nil {
		t.Fatal("it is not blind")
	}
	set(3 * time.Hour)
	w.pass(time.Minute)
	if paged := w.row(id).Paged; len(paged) != 0 {
		t.Errorf("a minute later a person is called for %v", paged)
	}
}

func TestAClearedSignalTakesTheApprovalOfItsOrderWithIt(t *testing.T) {
	w, id := raised(t)
	w.breach("error_rate")
	w.fire("error_rate", "fp2") // whose plan has the same steps
	w.must(w.change(id, view.Approve, "3-schema_rollback"))
	if _, err := w.engine.ClearSignal(w.ctx, "shop", vulnerable, "bob", "patched"); err != nil {
		t.Fatal(err)
	}
	if s := w.row(id).Steps[2]; s.Approved != "" || s.ApprovalAsked != nil {
		t.Errorf("the step is still approved by %q", s.Approved)
	}
}

func TestALimitThatHoldsAnApprovedStepEndsItsApproval(t *testing.T) {
	w, id := toSchema(t)
	w.must(w.change(id, view.Approve, fullSchema))
	for i := range 9 {
		w.put(w.effect("shop", w.now.Add(-time.Duration(i)*time.Second), remediation.EffectDone))
	}
	w.tick()
	if r := w.row(id).Reason; r != remediation.HoldRateLimit && r != remediation.HoldBlastRadius {
		t.Fatalf("held for %s", r)
	}
	if s := w.row(id).Step(fullSchema); s.Approved != "" || s.ApprovalAsked != nil {
		t.Errorf("the step is still approved by %q", s.Approved)
	}
	w.effects(1, 1, 0)
}

func TestNoRestoreDuringAPromotionOrAStep(t *testing.T) {
	w := newHarness(t)
	id := backedOut(w)
	w.editRollout(func(r *remediation.Rollout) {
		r.Promotion = &remediation.Promotion{To: "alpha", Until: w.now.Add(time.Hour), Wake: w.now.Add(time.Hour)}
	})
	refused(t, w.restore(id), remediation.Conflict)

	w = newHarness(t)
	id = backedOut(w)
	w.target("image_retag").undoErr = errors.New("no such image")
	w.must(w.restore(id))
	w.tick()
	w.is(id, remediation.Waiting, remediation.HoldStepFailed)
	w.editIncident(id, func(inc *remediation.Incident) {
		inc.State, inc.Steps[0].State = remediation.Acting, remediation.StepIntent
	})
	refused(t, w.restore(id), remediation.Conflict)
}

func TestAQuestionAboutAnotherPlanIsAskedAnewAndDoesNotLapse(t *testing.T) {
	w, id := toSchema(t)
	w.editIncident(id, func(inc *remediation.Incident) { inc.Step(fullSchema).ApprovalPlan = "another" })
	w.now = w.now.Add(30 * time.Minute)
	w.tick()
	w.pass(2 * S) // polls count anew after a time without them
	w.is(id, remediation.Waiting, remediation.HoldApproval)
	w.steps(id, done, done, done, done, waits)
	if n := count(w, id, "held "+fullSchema+" approval"); n != 2 {
		t.Errorf("asked %d times: %v", n, w.log(id))
	}
}

func TestARestoreThatIsHeldEndsWhereAPersonClosesTheIncident(t *testing.T) {
	w, id := heldRestore(t)
	w.must(w.change(id, view.Claim, ""))
	w.must(w.change(id, view.Close, ""))
	w.target("image_retag").lookErr = nil
	w.pass(time.Minute)
	w.is(id, remediation.Closed, "")
	w.undone(0, 0)
	w.breach("error_rate")
	if again := w.fire("error_rate", "fp2"); w.row(again).Restore != nil {
		t.Errorf("the alert after it belongs to a restore: %v", w.log(again))
	}
	w.pass(time.Minute)
	w.undone(0, 0)
}

func TestNobodyIsCalledForASilencedIncidentThatDoesNotGetOn(t *testing.T) {
	w := newHarness(t)
	w.declare("alpha")
	w.am.silenced["fp1"] = true
	w.breach("error_rate")
	id := w.fire("error_rate", "fp1")
	w.pass(2 * time.Hour)
	w.is(id, remediation.Waiting, remediation.HoldSilenced)
	if p := w.row(id).Paged; len(p) != 0 {
		t.Errorf("paged for %v; log %v", p, w.log(id))
	}
}
