package engine_test

import (
	"errors"
	"testing"
	"time"

	"github.com/locotoki/backout/remediation"
	"github.com/locotoki/backout/remediation/view"
)

// needed counts for what a person must come now, of a reason.
func (w *harness) needed(reason string) (n int) {
	w.t.Helper()
	o, err := w.engine.Overview(w.ctx)
	w.must(err)
	for _, one := range o.Needed {
		if one.Reason == reason {
			n++
		}
	}
	return n
}

// claimAndRelease is what a hold for a failed step asks a person for.
func (w *harness) claimAndRelease(id string) {
	w.t.Helper()
	w.must(w.change(id, view.Claim, ""))
	w.must(w.change(id, view.Release, ""))
}

// notUndone is an incident whose first step could neither be verified nor undone.
func notUndone(t *testing.T, half bool) (w *harness, id string) {
	t.Helper()
	w = newHarness(t)
	tg := w.target("flag_off")
	tg.verifyErr, tg.undoErr = errors.New("it says 1"), errors.New("no such container")
	if half {
		tg.cut, tg.applyErr = true, errDisk
	}
	id = w.open()
	w.is(id, remediation.Waiting, remediation.HoldStepFailed)
	w.steps(id, remediation.StepFailed, pending, pending)
	tg.verifyErr, tg.undoErr, tg.applyErr, tg.cut = nil, nil, nil, false
	return w, id
}

func TestWhatAReleasedStepLeftCanBeRestoredThoughItNeverRanAgain(t *testing.T) {
	for name, half := range map[string]bool{"done": false, "half-way": true} {
		t.Run(name, func(t *testing.T) {
			w, id := notUndone(t, half)
			w.claimAndRelease(id)
			w.steps(id, pending, pending, pending)
			w.calm("error_rate")
			w.post("resolved", "error_rate", "fp1")
			w.pass(15 * time.Minute)
			w.is(id, remediation.Closed, "")
			w.steps(id, remediation.StepInDoubt, pending, pending)
			w.rollout("rolled_back", "none", false)
			w.must(w.restore(id))
			w.tick()
			w.undone(1, 0)
			w.rollout("active", "alpha", true)
			w.steps(id, remediation.StepUndone, pending, pending)
			if err := w.restore(id); err != nil { // once more has the effect of once
				t.Error(err)
			}
			w.undone(1, 0)
		})
	}
}

func TestWhatAReleasedStepLeftCanBeRestoredBeforeTheIncidentIsClosed(t *testing.T) {
	for name, changed := range map[string]bool{"as it left it": false, "changed by someone since": true} {
		t.Run(name, func(t *testing.T) {
			w, id := notUndone(t, false)
			w.claimAndRelease(id)
			w.calm("error_rate")
			w.pass(2 * time.Minute)
			w.is(id, remediation.Recovered, "")
			want := 1
			if changed {
				w.target("flag_off").position, want = remediation.Untouched, 0
			}
			w.must(w.force(id))
			w.tick()
			w.is(id, remediation.Closed, "")
			w.undone(want, 0)
		})
	}
}

func TestWhatADeniedStepLeftRolledTheReleaseBack(t *testing.T) {
	w := newHarness(t, replace(`      - {action: flag_off, settle: 5m}
      - {action: image_retag, settle: 5m}
      - {action: schema_rollback, settle: 5m, approval: {timeout: 30m}}
  - name: longer`, `      - {action: flag_off, settle: 5m, approval: {timeout: 30m}}
  - name: longer`))
	tg := w.target("flag_off")
	tg.verifyErr, tg.undoErr = errors.New("it says 1"), errors.New("no such container")
	id := w.open()
	w.must(w.change(id, view.Approve, "1-flag_off"))
	w.tick()
	w.is(id, remediation.Waiting, remediation.HoldStepFailed)
	w.claimAndRelease(id)
	w.pass(15 * time.Minute) // the cooldown
	w.is(id, remediation.Waiting, remediation.HoldApproval)
	w.must(w.change(id, view.Deny, "1-flag_off"))
	over(w, id)
	w.steps(id, remediation.StepSkipped)
	w.rollout("rolled_back", "none", false)
}

func TestWhatAReleasedStepLeftIsDoneOnceItIsVerified(t *testing.T) {
	w, id := notUndone(t, false)
	w.claimAndRelease(id)
	w.pass(15 * time.Minute) // the cooldown
	w.steps(id, done, done, pending)
	w.effects(1, 1, 0) // what is there already is not changed again
	if s := w.row(id).Steps[0]; !s.Verified || s.Left {
		t.Errorf("the step is %+v", s)
	}
	w.calm("error_rate")
	w.post("resolved", "error_rate", "fp1")
	w.pass(15 * time.Minute)
	w.must(w.restore(id))
	w.tick()
	w.undone(1, 1)
}

func TestWhatAReleasedStepLeftIsUndoneWhereItIsSeenNotToWork(t *testing.T) {
	w, id := notUndone(t, false)
	w.claimAndRelease(id)
	w.target("flag_off").verifyErr = errors.New("it says 1")
	w.pass(15 * time.Minute)
	w.is(id, remediation.Waiting, remediation.HoldStepFailed)
	w.steps(id, remediation.StepUndone, pending, pending)
	w.undone(1, 0)
}

func TestAFailedRestoreStaysRestorableWhereItsTargetCannotBeSeen(t *testing.T) {
	w := newHarness(t)
	id := w.open()
	over(w, id)
	w.target("flag_off").undoErr = errors.New("no such container")
	w.must(w.restore(id))
	w.tick()
	w.steps(id, remediation.StepFailed, pending, pending)
	w.claimAndRelease(id)
	w.target("flag_off").undoErr, w.target("flag_off").lookErr = nil, errors.New("cannot connect")
	w.breach("error_rate")
	w.post("firing", "error_rate", "fp1")
	w.pass(time.Minute)
	w.steps(id, done, done, pending) // the flag is as the log has it
	w.target("flag_off").lookErr = nil
	over(w, id)
	w.must(w.restore(id))
	w.tick()
	w.undone(1, 1)
}

func TestAStepInDoubtThatReopenedStaysRestorable(t *testing.T) {
	w, id := inDoubt(t)
	w.pass(time.Minute) // it is reviewed, and the cooldown holds it
	w.steps(id, remediation.StepWaiting, pending, pending)
	over(w, id)
	w.steps(id, remediation.StepInDoubt, pending, pending)
	w.target("flag_off").position = remediation.Wanted // what was in doubt
	w.must(w.restore(id))
	w.tick()
	w.undone(1, 0)
}

// ofASignal is an incident of nothing but a signal, whose flag is off.
func ofASignal(t *testing.T) (w *harness, id string) {
	t.Helper()
	w, id = raised(t)
	w.must(w.change(id, view.Deny, "3-schema_rollback"))
	w.tick()
	w.is(id, remediation.Recovered, "")
	return w, id
}

func TestASignalsIncidentStaysOpenOverWhatCouldNotBePutBack(t *testing.T) {
	needed := func(w *harness, want int) {
		w.t.Helper()
		if n := w.needed("step_failed"); n != want {
			w.t.Errorf("%d calls for a failed step, want %d", n, want)
		}
	}
	for name, cleared := range map[string]bool{"cleared before": true, "cleared after": false} {
		t.Run("a restore, "+name, func(t *testing.T) {
			w, id := ofASignal(t)
			if cleared {
				w.clear(vulnerable)
				w.is(id, remediation.Closed, "")
			}
			w.target("image_retag").undoErr = errors.New("no such image")
			w.must(w.force(id))
			w.pass(5 * time.Minute)
			w.is(id, remediation.Waiting, remediation.HoldStepFailed)
			needed(w, 1)
			if !cleared {
				w.clear(vulnerable)
				w.pass(5 * time.Minute)
				w.is(id, remediation.Waiting, remediation.HoldStepFailed)
				needed(w, 1)
			}
			w.target("image_retag").undoErr = nil
			w.must(w.force(id))
			w.tick()
			w.is(id, remediation.Closed, "")
			w.undone(1, 1)
			needed(w, 0)
		})
	}
	t.Run("a step", func(t *testing.T) {
		w := newHarness(t)
		tg := w.target("flag_off")
		tg.cut, tg.applyErr, tg.undoErr = true, errDisk, errors.New("no such container")
		w.declare("alpha")
		w.raise(vulnerable)
		id := w.fire("breach_of_trust", "fp1")
		w.is(id, remediation.Waiting, remediation.HoldStepFailed)
		w.clear(vulnerable)
		w.pass(5 * time.Minute)
		w.is(id, remediation.Waiting, remediation.HoldStepFailed)
		needed(w, 1)
		w.must(w.change(id, view.Close, ""))
		w.tick()
		needed(w, 0)
	})
}

func TestAStepThatFoundItsTargetAsWantedLeftNothing(t *testing.T) {
	w := newHarness(t)
	w.target("flag_off").position = remediation.Wanted
	id := w.open()
	w.steps(id, remediation.StepNoChange, pending, pending)
	over(w, id)
	freeze(w, time.Hour)
	w.target("flag_off").position = remediation.HalfWay // someone else's doing
	w.breach("error_rate")
	w.post("firing", "error_rate", "fp1")
	w.pass(time.Minute)
	over(w, id)
	w.effects(0, 0, 0)
	w.rollout("active", "alpha", false)
}
