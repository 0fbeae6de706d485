package engine_test

import (
	"errors"
	"slices"
	"testing"
	"time"

	"github.com/locotoki/backout/remediation"
	"github.com/locotoki/backout/remediation/view"
)

// over lets a breach end and its incident close.
func over(w *harness, id string) {
	w.t.Helper()
	w.calm("error_rate")
	w.pass(20 * time.Minute)
	w.is(id, remediation.Closed, "")
	w.post("resolved", "error_rate", "fp1")
}

func TestReopenedAfterDriftTheGentlestStepRunsAgain(t *testing.T) {
	w := newHarness(t)
	id := w.open()
	over(w, id)
	w.target("flag_off").position = remediation.Untouched // someone switched it on again
	w.breach("error_rate")
	w.fire("error_rate", "fp1")
	w.pass(time.Minute)
	w.effects(2, 0, 0)
	if got := w.log(id); !slices.Contains(got, "drift 1-flag_off") {
		t.Errorf("log: %v", got)
	}
	w.target("flag_off").position = remediation.Untouched // and once more, in the same reopening
	w.pass(8 * time.Minute)
	w.effects(2, 1, 0)
}

func TestAReopenedIncidentWithUnchangedTargetsRunsTheNextStep(t *testing.T) {
	w := newHarness(t)
	id := w.open()
	over(w, id)
	w.breach("error_rate")
	w.fire("error_rate", "fp1")
	w.pass(time.Minute)
	w.effects(1, 1, 0)
}

func TestATargetThatCannotBeLookedAtStaysAsTheLogHasIt(t *testing.T) {
	w := newHarness(t)
	id := w.open()
	over(w, id)
	w.target("flag_off").lookErr = errors.New("cannot connect")
	w.breach("error_rate")
	w.fire("error_rate", "fp1")
	w.pass(time.Minute)
	w.effects(1, 1, 0)
}

// inDoubt is an incident that a person closed over a step in doubt.
func inDoubt(t *testing.T) (*harness, string) {
	t.Helper()
	w := newHarness(t)
	tg := w.target("flag_off")
	tg.applyErr = remediation.InDoubt(errors.New("connection reset"))
	tg.duringApply = func() { tg.lookErr = errors.New("cannot connect") }
	id := w.open()
	w.must(w.change(id, view.Close, ""))
	w.steps(id, remediation.StepInDoubt, pending, pending)
	tg.applyErr, tg.lookErr, tg.duringApply = nil, nil, nil
	w.calm("error_rate")
	w.pass(5 * time.Minute)
	w.post("resolved", "error_rate", "fp1")
	w.breach("error_rate")
	w.post("firing", "error_rate", "fp1")
	return w, id
}

func TestReopenedAStepInDoubtIsTriedAgain(t *testing.T) {
	w, id := inDoubt(t)
	w.pass(8 * time.Minute) // the cooldown holds it first
	w.steps(id, done, pending, pending)
	w.effects(1, 0, 0)
}

func TestAReleaseMakesAStepInDoubtPending(t *testing.T) {
	w, id := inDoubt(t)
	w.must(w.change(id, view.Claim, ""))
	w.must(w.change(id, view.Release, ""))
	w.steps(id, pending, pending, pending)
}
