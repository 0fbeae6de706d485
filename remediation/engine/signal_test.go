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

const vulnerable = "critical-security-vulnerability"

func (w *harness) raise(name string) {
	w.t.Helper()
	if _, err := w.engine.RaiseSignal(w.ctx, "", name, "ann", "CVE-2026-1"); err != nil {
		w.t.Fatal(err)
	}
}

func (w *harness) clear(name string) {
	w.t.Helper()
	if _, err := w.engine.ClearSignal(w.ctx, "shop", name, "bob", "patched"); err != nil {
		w.t.Fatal(err)
	}
	w.tick()
}

// raised is a harness with a rollout, whose signal is raised and has come back as an
// alert.
func raised(t *testing.T, edit ...func(string) string) (w *harness, id string) {
	t.Helper()
	w = newHarness(t, edit...)
	w.declare("alpha")
	w.raise(vulnerable)
	return w, w.fire("breach_of_trust", "fp1")
}

func TestASignalsStepsRunInTheirOrderOnAPersonsWord(t *testing.T) {
	w, id := raised(t)
	w.steps(id, remediation.StepDone, remediation.StepDone, remediation.StepWaiting)
	w.is(id, remediation.Waiting, remediation.HoldApproval) // what is lossy is still asked for
	w.must(w.change(id, view.Approve, "3-schema_rollback"))
	w.tick()
	w.steps(id, remediation.StepDone, remediation.StepDone, remediation.StepDone)
	w.is(id, remediation.Recovered, "")
	w.pass(2 * time.Hour)
	w.is(id, remediation.Recovered, "") // until it is cleared
	w.clear(vulnerable)
	w.is(id, remediation.Closed, "")
	log := strings.Join(w.log(id), "\n")
	for _, want := range []string{"verified 1-flag_off", "verified 2-image_retag", "verified 3-schema_rollback", "recovered", "closed"} {
		if !strings.Contains(log, want) {
			t.Errorf("the log lacks %q: %s", want, log)
		}
	}
	if strings.Contains(log, "settled") {
		t.Errorf("something was waited for: %s", log)
	}
	w.rollout(remediation.RolloutRolledBack, remediation.StageNone, false)
}

func TestASignalNeedsNoPrometheus(t *testing.T) {
	w := newHarness(t)
	w.declare("alpha")
	w.prom.err = remediation.ErrNoAnswer
	w.raise(vulnerable)
	id := w.fire("breach_of_trust", "fp1")
	w.steps(id, remediation.StepDone, remediation.StepDone, remediation.StepWaiting)
}

func TestAnAlertOfASignalThatNobodyRaisedDoesNothing(t *testing.T) {
	w := newHarness(t)
	w.declare("alpha")
	if acc := w.post("firing", "breach_of_trust", "fp1"); len(acc.Incidents) > 0 {
		t.Fatalf("it concerned incidents %v", acc.Incidents)
	}
	w.tick()
	w.effects(0, 0, 0)
	w.raise(vulnerable) // and the alert that is held is taken up when it comes again
	id := w.fire("breach_of_trust", "fp1")
	w.steps(id, remediation.StepDone, remediation.StepDone, remediation.StepWaiting)
}

func TestClearingCancelsWhatHasNotBegun(t *testing.T) {
	w, id := raised(t)
	w.clear(vulnerable)
	w.is(id, remediation.Closed, "")
	w.steps(id, remediation.StepDone, remediation.StepDone, remediation.StepSkipped)
	if acc := w.post("firing", "breach_of_trust", "fp1"); acc.Duplicates != 1 { // it takes a while until the rule knows
		t.Errorf("a late repeat: %+v", acc)
	}
	w.tick()
	w.is(id, remediation.Closed, "")
}

func TestASignalThatIsRaisedAgainIsANewIncident(t *testing.T) {
	w, id := raised(t)
	w.clear(vulnerable)
	w.post("resolved", "breach_of_trust", "fp1")
	w.declare("alpha")
	w.raise(vulnerable)
	if again := w.fire("breach_of_trust", "fp1"); again == id {
		t.Fatalf("incident %s went on", id)
	}
}

func TestASignalLetsNoOtherTriggersStepsRun(t *testing.T) {
	w, id := raised(t, replace("signal: critical-security-vulnerability, plan: ladder", "signal: critical-security-vulnerability, plan: short"),
		replace("plans:\n", "plans:\n  - {name: short, steps: [{action: flag_off, settle: 5m}]}\n"))
	w.steps(id, remediation.StepDone)
	w.is(id, remediation.Recovered, "")
	w.calm("error_rate") // its alert is late: nothing is beyond its threshold any more
	w.fire("error_rate", "fp2")
	w.pass(10 * time.Minute)
	w.steps(id, remediation.StepDone, remediation.StepPending, remediation.StepPending)
}

func TestOtherTriggersOfASignalsIncidentNeedTheirOwnRecovery(t *testing.T) {
	w, id := raised(t)
	w.breach("error_rate")
	w.fire("error_rate", "fp2")
	w.clear(vulnerable)
	w.pass(10 * time.Minute) // the breach goes on, and so does the ladder, up to the approval
	w.is(id, remediation.Waiting, remediation.HoldApproval)
	w.calm("error_rate")
	w.pass(20 * time.Minute)
	w.is(id, remediation.Closed, "")
}

func TestAfterASignalsLastStepAnotherTriggersBreachIsStillWaitedFor(t *testing.T) {
	w, id := raised(t)
	w.breach("error_rate")
	w.fire("error_rate", "fp2")
	w.must(w.change(id, view.Approve, "3-schema_rollback"))
	w.tick()
	w.steps(id, remediation.StepDone, remediation.StepDone, remediation.StepDone)
	w.is(id, remediation.Settling, "") // and not recovered on the signal's word
	w.pass(10 * time.Minute)
	w.is(id, remediation.Exhausted, "")
}

func TestAnIncidentWithAnotherTriggerStaysOpenUntilItsSignalIsCleared(t *testing.T) {
	w, id := raised(t)
	w.fire("error_rate", "fp2")
	w.must(w.change(id, view.Deny, "3-schema_rollback"))
	w.calm("error_rate")
	w.pass(time.Hour)
	w.is(id, remediation.Recovered, "")
	w.clear(vulnerable)
	w.pass(10 * time.Minute)
	w.is(id, remediation.Closed, "")
}

func TestASignalIsHeldByFreezeClaimAndMode(t *testing.T) {
	for name, hold := range map[string]func(w *harness) remediation.Reason{
		"freeze": func(w *harness) remediation.Reason {
			_, err := w.engine.PutFreeze(w.ctx, remediation.Freeze{Scope: remediation.ScopeAll, By: "ann", Reason: "r"})
			w.must(err)
			return remediation.HoldFrozen
		},
		"mode": func(w *harness) remediation.Reason {
			w.mode = remediation.Observe
			w.start()
			return remediation.HoldMode
		},
		"no rollout": func(w *harness) remediation.Reason {
			w.target("flag_off").position = remediation.Wanted
			return remediation.HoldNoRollout
		},
	} {
		t.Run(name, func(t *testing.T) {
			w := newHarness(t)
			if name != "no rollout" {
				w.declare("alpha")
			}
			reason := hold(w)
			w.raise(vulnerable)
			id := w.fire("breach_of_trust", "fp1")
			w.is(id, remediation.Waiting, reason)
			w.clear(vulnerable)
			w.is(id, remediation.Closed, "")
		})
	}
}

func TestRaisingAndClearingAreRecordedOnceAndRefusedWhereTheyMeanNothing(t *testing.T) {
	w := newHarness(t)
	w.raise(vulnerable)
	first, err := w.engine.RaiseSignal(w.ctx, "shop", vulnerable, "bob", "again")
	w.must(err)
	if first.By != "ann" || first.Reason != "CVE-2026-1" {
		t.Errorf("a second raising gave %+v", first)
	}
	w.start() // and it is not forgotten
	o, err := w.engine.Overview(w.ctx)
	w.must(err)
	if s := o.Services[0].Signals; len(s) != 1 || s[0].Raised == nil || s[0].Raised.By != "ann" {
		t.Errorf("the overview has %+v", s)
	}
	w.clear(vulnerable)
	entries, err := w.engine.Entries(w.ctx, audit.Filter{Kind: audit.KindSignal})
	w.must(err)
	var got []any
	for _, e := range entries {
		got = append(got, e.Detail["raised"])
	}
	if !slices.Equal(got, []any{true, false}) {
		t.Errorf("the log says %v", got)
	}
	for name, tc := range map[string]struct {
		do   func() error
		want remediation.Refusal
	}{
		"clear what is not raised": {func() error { _, err := w.engine.ClearSignal(w.ctx, "", vulnerable, "a", "r"); return err }, remediation.Conflict},
		"raise what is unknown":    {func() error { _, err := w.engine.RaiseSignal(w.ctx, "", "rain", "a", "r"); return err }, remediation.Missing},
		"clear what is unknown":    {func() error { _, err := w.engine.ClearSignal(w.ctx, "", "rain", "a", "r"); return err }, remediation.Missing},
		"raise without a reason":   {func() error { _, err := w.engine.RaiseSignal(w.ctx, "", vulnerable, "a", ""); return err }, remediation.Invalid},
		"of an unknown service":    {func() error { _, err := w.engine.RaiseSignal(w.ctx, "x", vulnerable, "a", "r"); return err }, remediation.Missing},
	} {
		var refused *remediation.RefusedError
		if err := tc.do(); !errors.As(err, &refused) || refused.Refusal != tc.want {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// A target label service takes the place of backout's own: the signal's rule would
// read nothing, and nobody would hear of it.
func TestARaisedSignalSaysThatItsSeriesDidNotComeBack(t *testing.T) {
	w := newHarness(t)
	for own, want := range map[string]string{
		"":                 "",
		"exported_service": `Prometheus has rollout_signal with exported_service="shop", which no rule reads; try: set honor_labels: true`,
		"nothing":          "Prometheus has no rollout_signal of shop",
	} {
		w.prom.own = own
		s, err := w.engine.RaiseSignal(w.ctx, "", vulnerable, "ann", "CVE-2026-1")
		if w.must(err); (s.Warning == "") != (want == "") || !strings.Contains(s.Warning, want) {
			t.Errorf("label %q: the warning is %q, want %q", own, s.Warning, want)
		}
	}
	w.prom.err = remediation.ErrNoAnswer
	s, err := w.engine.RaiseSignal(w.ctx, "", vulnerable, "ann", "CVE-2026-1")
	if w.must(err); !strings.Contains(s.Warning, "cannot check") {
		t.Errorf("without an answer the warning is %q", s.Warning)
	}
	w.must(w.store.View(w.ctx, func(tx remediation.Tx) error {
		raised, err := tx.Signals()
		if len(raised) != 1 || raised[0].Warning != "" {
			t.Errorf("the warning was kept: %+v", raised)
		}
		return err
	}))
}

func TestASignalAsksAnewWhatAnotherWaitHadAsked(t *testing.T) {
	w, id := toSchema(t)
	w.pass(29 * time.Minute)
	w.raise(vulnerable)
	if again := w.fire("breach_of_trust", "fp9"); again != id {
		t.Fatal(again)
	}
	w.is(id, remediation.Waiting, remediation.HoldApproval)
	if v := w.incident(id); v.Until == nil || !v.Until.Equal(w.now.Add(30*time.Minute)) {
		t.Errorf("asked until %v at %s", v.Until, w.now)
	}
}

func TestAnApprovalOverALimitEndsWithASignal(t *testing.T) {
	w := newHarness(t, limits("per_target: 1/1h, per_service: 9/1h, blast_radius: 1/2h, cooldown: 1s, breaker: 3"))
	w.put(w.effect("shop", w.now.Add(-time.Minute), remediation.EffectDone))
	id := w.open()
	w.must(w.approveOver(id))
	w.tick()
	w.is(id, remediation.Waiting, remediation.HoldBlastRadius)
	w.raise(vulnerable)
	w.fire("breach_of_trust", "fp9")
	w.is(id, remediation.Waiting, remediation.HoldRateLimit)
}
