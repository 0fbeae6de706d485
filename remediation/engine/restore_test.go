package engine_test

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/locotoki/backout/remediation"
	"github.com/locotoki/backout/remediation/audit"
	"github.com/locotoki/backout/remediation/store/storetest"
	"github.com/locotoki/backout/remediation/view"
)

// backedOut is an incident that took two steps, recovered and closed.
func backedOut(w *harness) string {
	w.t.Helper()
	id := w.open()
	w.pass(5 * time.Minute)
	w.steps(id, remediation.StepDone, remediation.StepDone, remediation.StepPending)
	w.calm("error_rate")
	w.post("resolved", "error_rate", "fp1")
	w.pass(15 * time.Minute)
	w.is(id, remediation.Closed, "")
	return id
}

func (w *harness) restore(id string) error {
	_, err := w.engine.Restore(w.ctx, id, view.RestoreRequest{Actor: "eve", Reason: "false alarm"})
	return err
}

func (w *harness) force(id string) error {
	_, err := w.engine.Restore(w.ctx, id, view.RestoreRequest{Actor: "eve", Reason: "false alarm", Force: true})
	return err
}

// undone checks how often each target was put back.
func (w *harness) undone(flag, image int) {
	w.t.Helper()
	if f, i := w.target("flag_off").undone, w.target("image_retag").undone; f != flag || i != image {
		w.t.Fatalf("the flag was put back %d times and the image %d times, want %d and %d", f, i, flag, image)
	}
}

// rollout checks the service's rollout.
func (w *harness) rollout(state, stage string, held bool) {
	w.t.Helper()
	r, err := w.engine.Rollouts(w.ctx)
	w.must(err)
	if r[0].State != state || r[0].Stage != stage || r[0].Held != held {
		w.t.Fatalf("rollout is %s at %s (held %v), want %s at %s (held %v)", r[0].State, r[0].Stage, r[0].Held, state, stage, held)
	}
}

func TestARestoreTakesTheStepsBackLastFirstAndHoldsTheRollout(t *testing.T) {
	w := newHarness(t)
	id := backedOut(w)
	w.rollout("rolled_back", "none", false)
	w.must(w.restore(id))
	if v := w.incident(id); v.State != remediation.Acting || v.Next == nil || v.Next.Step != "2-image_retag" {
		t.Fatalf("being restored it is %s, next %+v", v.State, v.Next)
	}
	w.tick()
	w.is(id, remediation.Closed, "")
	w.steps(id, remediation.StepUndone, remediation.StepUndone, remediation.StepPending)
	w.undone(1, 1)
	w.rollout("active", "alpha", true)
	w.logs(id, "restored", "intent 2-image_retag undo", "outcome 2-image_retag undo undone",
		"intent 1-flag_off undo", "outcome 1-flag_off undo undone", "restored", "closed restored", "stage")
	for _, e := range w.entries(id) {
		if e.Kind == audit.KindRestored && (e.Actor != "eve" || e.Detail["reason"] != "false alarm") {
			t.Errorf("entry %d names %s and %v", e.Seq, e.Actor, e.Detail["reason"])
		}
		if rows, _ := e.Detail["triggers"].([]any); e.Detail["state"] == "begun" && (len(rows) != 1 || rows[0].(map[string]any)["verdict"] != "stopped") {
			t.Errorf("entry %d has the samples %v, whose verdict is not their own", e.Seq, rows)
		}
	}
}

// restored is an incident that recovered and was restored then.
func restored(t *testing.T) (w *harness, id string) {
	t.Helper()
	w = newHarness(t)
	id = w.open()
	w.cured("error_rate")
	w.pass(4 * time.Minute)
	w.is(id, remediation.Recovered, "")
	w.must(w.restore(id))
	w.tick()
	w.is(id, remediation.Closed, "")
	return w, id
}

func TestARestoreOfARecoveredIncidentClosesIt(t *testing.T) {
	w, _ := restored(t)
	w.undone(1, 0)
	w.rollout("active", "alpha", true)
}

func TestARestoreAskedForTwiceHasTheEffectOfOnce(t *testing.T) {
	w := newHarness(t)
	id := backedOut(w)
	w.must(w.restore(id))
	w.must(w.restore(id))
	w.tick()
	w.must(w.restore(id))
	w.tick()
	w.is(id, remediation.Closed, "")
	w.undone(1, 1)
}

func TestARestoreIsRefused(t *testing.T) {
	cases := []struct {
		name  string
		setup func(w *harness) (id string)
		words string
	}{
		{"while a step settles", func(w *harness) string { return w.open() }, "settling: only a recovered or closed"},
		{"while a trigger is breaching", func(w *harness) string {
			id := backedOut(w)
			w.breach("error_rate")
			return id
		}, "trigger error_rate is breaching (500%, threshold 1%)"},
		{"while nobody can tell", func(w *harness) string {
			id := backedOut(w)
			w.prom.err = fmt.Errorf("connection refused: %w", remediation.ErrNoAnswer)
			return id
		}, "unknown whether the breach continues: connection refused"},
		{"while the service is frozen", func(w *harness) string {
			id := backedOut(w)
			until := w.now.Add(time.Hour)
			_, err := w.engine.PutFreeze(w.ctx, remediation.Freeze{Scope: remediation.ScopeAll, By: "bob", Reason: "audit", Until: &until})
			w.must(err)
			return id
		}, "freeze holds the restoring (frozen): every service is frozen (all) by bob: audit, until 22 Nov 2026 04:"},
		{"in observe mode", func(w *harness) string {
			id := backedOut(w)
			w.mode = remediation.Observe
			w.start()
			return id
		}, "mode holds the restoring"},
		{"where nothing was changed", func(w *harness) string {
			w.target("flag_off").position = remediation.Wanted
			id := w.open()
			w.calm("error_rate")
			w.post("resolved", "error_rate", "fp1")
			w.pass(15 * time.Minute)
			return id
		}, "changed nothing that can be restored"},
		{"where nothing was changed, though force would not help either", func(w *harness) string {
			w.target("flag_off").position = remediation.Wanted
			id := w.open()
			w.calm("error_rate")
			w.post("resolved", "error_rate", "fp1")
			w.pass(15 * time.Minute)
			w.breach("error_rate")
			return id
		}, "changed nothing that can be restored"},
		{"where another rollout has begun", func(w *harness) string {
			id := backedOut(w)
			w.declare("beta")
			return id
		}, "another rollout has started since: v2 is at stage beta"},
		{"while a later incident is open", func(w *harness) string {
			id := backedOut(w)
			w.pass(2 * time.Hour)
			w.breach("latency")
			w.fire("latency", "fp2")
			return id
		}, "incident inc-2 of shop is open"},
		{"where data was lost", func(w *harness) string {
			id := w.open()
			w.pass(12 * time.Minute)
			w.must(w.change(id, view.Approve, "3-schema_rollback"))
			w.tick()
			w.calm("error_rate")
			w.post("resolved", "error_rate", "fp1")
			w.pass(15 * time.Minute)
			return id
		}, "3-schema_rollback has run, and data is never restored"},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			w := newHarness(t)
			id := c.setup(w)
			err := w.restore(id)
			refused(t, err, remediation.Conflict)
			if !strings.Contains(err.Error(), c.words) {
				t.Errorf("%v; want %q in it", err, c.words)
			}
			w.tick()
			w.undone(0, 0)
		})
	}
}

func TestARestoreIsWithinTheLimits(t *testing.T) {
	w := newHarness(t, replace("per_service: 6/1h", "per_service: 3/1h"))
	id := backedOut(w)
	w.must(w.restore(id)) // the third of the hour
	w.tick()
	w.is(id, remediation.Waiting, remediation.HoldRateLimit)
	w.undone(0, 1)
	w.pass(time.Hour)
	w.is(id, remediation.Closed, "")
	w.undone(1, 1)
}

func TestForceRestoresThoughTheBreachGoesOnAndDataWasLost(t *testing.T) {
	w := newHarness(t)
	id := w.open()
	w.pass(12 * time.Minute)
	w.must(w.change(id, view.Approve, "3-schema_rollback"))
	w.tick()
	w.calm("error_rate")
	w.pass(15 * time.Minute)
	w.is(id, remediation.Closed, "")
	w.breach("error_rate")
	w.must(w.force(id))
	w.tick()
	w.is(id, remediation.Closed, "")
	w.undone(1, 1)
	if n := w.target("schema_rollback").undone; n != 0 {
		t.Fatalf("data was restored %d times", n)
	}
	w.rollout("active", "alpha", true)
}

func TestNoRestoreWithoutForcePutsTheCodeBackOverASchemaThatIsNotWhole(t *testing.T) {
	for name, c := range map[string]struct {
		fail func(w *harness)
		want remediation.StepState
		free bool
	}{
		"its undo failed": {func(w *harness) {
			s := w.target("schema_rollback")
			s.cut, s.applyErr, s.undoErr = true, errors.New("cut"), errors.New("no connection")
		}, failed, false},
		"it is in doubt": {func(w *harness) {
			s := w.target("schema_rollback")
			s.applyErr, s.lookErr = remediation.InDoubt(errors.New("cut")), nil
			s.duringApply = func() { s.cut, s.lookErr = true, errors.New("no connection") }
		}, remediation.StepInDoubt, false},
		"it was refused, and nothing was begun": {func(w *harness) { w.target("schema_rollback").applyErr = errors.New("refused") }, undone, true},
	} {
		t.Run(name, func(t *testing.T) {
			w := newHarness(t)
			id := w.open()
			w.pass(12 * time.Minute)
			c.fail(w)
			w.must(w.change(id, view.Approve, "3-schema_rollback"))
			w.tick()
			w.must(w.change(id, view.Close, ""))
			w.target("schema_rollback").lookErr = nil
			w.steps(id, done, done, c.want)
			w.calm("error_rate")
			w.post("resolved", "error_rate", "fp1")
			w.pass(15 * time.Minute)
			words := w.incident(id).Steps[2].LostWords()
			if c.free {
				if words != "" {
					t.Errorf("it lost nothing, and the words are %q", words)
				}
				w.must(w.restore(id))
				w.tick()
				w.undone(1, 1)
				return
			}
			if !strings.HasPrefix(words, "may have lost data: ") {
				t.Errorf("the words are %q", words)
			}
			if out := w.last(id, audit.KindOutcome, "3-schema_rollback"); c.want == failed && out.Detail["after"] == nil {
				t.Errorf("the outcome does not say what it left: %v", out.Detail)
			}
			var refusal *remediation.RefusedError
			if err := w.restore(id); !errors.As(err, &refusal) || !strings.Contains(refusal.Message, "3-schema_rollback may have run in part, and data is never restored") {
				t.Fatalf("got %v", err)
			}
			w.undone(0, 0)
			w.must(w.force(id))
			w.tick()
			w.undone(1, 1)
			if why, _ := w.last(id, audit.KindRestored, "").Detail["why"].(string); !strings.Contains(why, "3-schema_rollback stays as it is") {
				t.Errorf("the last word is %q", why)
			}
		})
	}
}

func TestWhatSomebodyChangedSinceIsLeftAsItIs(t *testing.T) {
	w := newHarness(t)
	id := backedOut(w)
	w.target("image_retag").position = remediation.Untouched
	w.must(w.restore(id))
	w.tick()
	w.is(id, remediation.Closed, "")
	w.undone(1, 0)
	if v := w.incident(id); v.StateOf(v.Steps[2]) != "never run" || v.Triggers[0].Worst == nil || *v.Triggers[0].Worst != 5 {
		t.Errorf("over, its last step is %q, its triggers %+v", v.StateOf(v.Steps[2]), v.Triggers)
	}
	w.logs(id, "restored", "outcome 2-image_retag undo no_change", "intent 1-flag_off undo", "outcome 1-flag_off undo undone",
		"restored", "closed restored", "stage")
}

func TestAStepThatCannotBePutBackIsHandedToAPerson(t *testing.T) {
	w := newHarness(t)
	id := backedOut(w)
	w.target("image_retag").undoErr = errors.New("no such image")
	w.must(w.restore(id))
	w.tick()
	w.is(id, remediation.Waiting, remediation.HoldStepFailed)
	w.undone(0, 0)
	w.logs(id, "restored", "intent 2-image_retag undo", "outcome 2-image_retag undo failed", "restored 2-image_retag", "held step_failed", "notified step_failed")
	w.target("image_retag").undoErr = nil
	w.must(w.restore(id))
	w.tick()
	w.is(id, remediation.Closed, "")
	w.undone(1, 1)
	w.rollout("active", "alpha", true)
}

func TestAFreezeInTheMiddleHoldsTheRestOfTheRestoring(t *testing.T) {
	w := newHarness(t)
	id := backedOut(w)
	w.must(w.restore(id))
	w.target("image_retag").onUndo = func() {
		_, err := w.engine.PutFreeze(w.ctx, remediation.Freeze{Scope: remediation.ScopeAll, By: "bob", Reason: "wait"})
		w.must(err)
	}
	w.tick()
	w.is(id, remediation.Waiting, remediation.HoldFrozen)
	w.undone(0, 1)
	_, err := w.engine.Thaw(w.ctx, "", "bob", "go on")
	w.must(err)
	w.pass(time.Minute)
	w.is(id, remediation.Closed, "")
	w.undone(1, 1)
}

func TestATriggerAfterARestoreOpensANewIncident(t *testing.T) {
	w := newHarness(t)
	id := backedOut(w)
	w.must(w.restore(id))
	w.tick()
	w.pass(11 * time.Minute) // the cooldown
	w.breach("error_rate")
	if got := w.fire("error_rate", "fp1"); got == id {
		t.Fatal("the restored incident was reopened")
	}
	w.steps("inc-2", remediation.StepDone, remediation.StepPending, remediation.StepPending)
}

// The trigger's own expression is true all the time, so its alert never fires anew.
func TestABreachThatComesBackAfterARestoreOpensANewIncidentThoughItsAlertNeverResolved(t *testing.T) {
	w, id := restored(t)
	w.pass(11 * time.Minute) // the cooldown
	w.is(id, remediation.Closed, "")
	if n := called(w, id); n > 0 {
		t.Errorf("called %d times, though the breach is over: %v", n, w.log(id))
	}
	w.breach("error_rate")
	w.pass(3 * S)
	w.is("inc-2", remediation.Settling, "")
	w.steps("inc-2", done, pending, pending)
	w.is(id, remediation.Closed, "")
	if acc := w.post("firing", "error_rate", "fp1"); acc.Duplicates != 1 || len(acc.Incidents) != 0 && acc.Incidents[0] != "inc-2" {
		t.Errorf("a repeat is %+v", acc)
	}
}

// Who forces a restore in a breach knows of it.
func TestABreachThatContinuesAfterAForcedRestoreCallsAPerson(t *testing.T) {
	w := newHarness(t)
	id := backedOut(w)
	w.breach("error_rate")
	w.post("firing", "error_rate", "fp1")
	w.cured("error_rate")
	w.pass(4 * time.Minute)
	w.breach("error_rate")
	refused(t, w.restore(id), remediation.Conflict)
	w.must(w.force(id))
	w.tick()
	w.is(id, remediation.Closed, "")
	w.pass(25 * time.Minute)
	all, err := w.engine.Incidents(w.ctx, remediation.IncidentFilter{})
	w.must(err)
	if n := called(w, id); n != 1 || len(all) != 1 {
		t.Errorf("called %d times, and there are %d incidents: %v", n, len(all), w.log(id))
	}
}

func TestAnAlertThatComesWhileRestoringOpensANewIncidentAfterIt(t *testing.T) {
	w := newHarness(t)
	id := backedOut(w)
	w.must(w.restore(id))
	w.target("flag_off").onUndo = func() {
		w.breach("latency")
		w.post("firing", "latency", "fp2")
	}
	w.tick()
	w.is(id, remediation.Closed, "")
	w.undone(1, 1)
	w.pass(15 * time.Minute)
	v := w.incident("inc-2")
	if len(v.Triggers) != 1 || v.Triggers[0].Trigger != "latency" || v.Steps[1].State != remediation.StepDone {
		t.Fatalf("the new incident is %+v", v)
	}
}

// A crash before or after any commit of a restoring leaves nothing behind that
// the next process does not bring to its end.
func TestARestoreSurvivesACrashAtEveryCommit(t *testing.T) {
	storetest.EveryCommit(t, 5, func(t *testing.T, n int, when storetest.When) bool {
		w := newHarness(t)
		id := backedOut(w)
		e, err := w.tryEngine(storetest.Crashing(w.store, n+1, when)) // its start is one commit
		w.must(err)
		if _, err = e.Restore(w.ctx, id, view.RestoreRequest{Actor: "eve", Reason: "false alarm"}); err == nil {
			_, err = e.Tick(w.ctx)
		}
		if err == nil {
			return false
		}
		if !errors.Is(err, storetest.ErrCrash) {
			t.Fatal(err)
		}
		w.start()
		w.must(w.restore(id)) // a caller that got no answer asks again
		w.pass(time.Minute)
		w.is(id, remediation.Closed, "")
		w.steps(id, remediation.StepUndone, remediation.StepUndone, remediation.StepPending)
		w.rollout("active", "alpha", true)
		if f, i := w.target("flag_off").at(), w.target("image_retag").at(); f != remediation.Untouched || i != remediation.Untouched {
			t.Fatalf("commit %d %v: flag %s, image %s", n, when, f, i)
		}
		return true
	})
}

// It may yet bring its rollout back: none is declared over it.
func TestNoRolloutIsDeclaredOverARestore(t *testing.T) {
	w, _ := heldRestore(t)
	_, err := w.engine.DeclareRollout(w.ctx, "", "", "beta", "eve", "canary")
	refused(t, err, remediation.Conflict)
}

// What came after a restore had begun may hold it, and is forced like what came before.
func TestARestoreThatIsHeldCanBeForced(t *testing.T) {
	w, id := heldRestore(t)
	for range 2 { // the second says nothing new
		w.must(w.force(id))
	}
	if r := w.row(id).Restore; r == nil || !r.Force {
		t.Errorf("the restore is %+v", r)
	}
	forced := 0
	es, err := w.engine.Entries(w.ctx, audit.Filter{Incident: id, Kind: audit.KindRestored})
	w.must(err)
	for _, e := range es {
		if e.Detail["state"] == "forced" && e.Actor == "eve" {
			forced++
		}
	}
	if forced != 1 {
		t.Errorf("the audit log tells %d times that it was forced", forced)
	}
	w.target("image_retag").lookErr = nil
	w.pass(time.Minute)
	w.is(id, remediation.Closed, "")
	if w.incident(id).ByHand {
		t.Error("what backout closed is said to have been closed by a person, since its restore was forced")
	}
}
