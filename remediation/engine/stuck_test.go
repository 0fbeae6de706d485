package engine_test

import (
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/locotoki/backout/alerts"
	"github.com/locotoki/backout/hint"
	"github.com/locotoki/backout/remediation"
	"github.com/locotoki/backout/remediation/view"
)

// called counts how often a person was called to an incident, for any reason.
func called(w *harness, id string) (n int) {
	w.t.Helper()
	for _, e := range w.log(id) {
		if strings.HasPrefix(e, "notified ") {
			n++
		}
	}
	return n
}

func TestNoIncidentClosesWhileATriggersOwnExpressionIsTrue(t *testing.T) {
	w := newHarness(t)
	w.declare("alpha")
	freeze(w, 10*time.Minute)
	w.breach("error_rate")
	id := w.fire("error_rate", "fp1")
	w.cured("error_rate") // a lull in the short window
	w.pass(5 * time.Minute)
	w.is(id, remediation.Waiting, remediation.HoldFrozen)
	w.effects(0, 0, 0)
	w.breach("error_rate")
	w.pass(6 * time.Minute) // the freeze is over
	w.effects(1, 0, 0)
}

func TestALullThatLastsEndsAnIncidentOnceTheLongWindowIsCalmToo(t *testing.T) {
	w := newHarness(t)
	w.declare("alpha")
	freeze(w, time.Hour)
	w.breach("error_rate")
	id := w.fire("error_rate", "fp1")
	w.cured("error_rate")
	w.pass(5 * time.Minute)
	w.is(id, remediation.Waiting, remediation.HoldFrozen)
	w.calm("error_rate")
	w.pass(S)
	w.is(id, remediation.Closed, "")
}

// closedInABreach is an incident that a person closed while it went on.
func closedInABreach(t *testing.T) (*harness, string) {
	t.Helper()
	w := newHarness(t, replace("      - {action: flag_off, settle: 5m}\n", "      - {action: status_page}\n      - {action: flag_off, settle: 5m}\n"))
	id := w.open()
	w.must(w.change(id, view.Close, ""))
	return w, id
}

func TestClosingByHandInABreachTellsThePublicNothingUntilItIsOver(t *testing.T) {
	w, id := closedInABreach(t)
	solved := func() bool {
		p, err := w.engine.PublicPage(w.ctx, time.Hour)
		w.must(err)
		return len(p.Open) == 0
	}
	w.pass(5 * time.Minute)
	if solved() {
		t.Fatal("customers read that it is solved")
	}
	w.calm("error_rate")
	w.pass(4 * S)
	if !solved() {
		t.Fatalf("it is over, and customers do not hear of it: %v", w.log(id))
	}
	w.is(id, remediation.Closed, "")
}

func TestThePublicPageOfAClosedIncidentThatCannotBeWatchedIsAPersons(t *testing.T) {
	for name, blind := range map[string]func(w *harness){
		"a target is gone for good": func(w *harness) { w.prom.down = 1 },
		"its job is gone":           func(w *harness) { w.prom.alive, w.prom.up, w.prom.unscraped = 0, 0, true },
		"it has no traffic":         func(w *harness) { w.prom.alive = 0 },
		"the opening is forgotten":  func(w *harness) { w.prom.forgot = true },
	} {
		t.Run(name, func(t *testing.T) {
			w := newHarness(t, replace("      - {action: flag_off, settle: 5m}\n", "      - {action: status_page}\n      - {action: flag_off, settle: 5m}\n"))
			w.prom.up = 3
			id := w.open()
			w.must(w.change(id, view.Close, ""))
			w.calm("error_rate")
			w.post("resolved", "error_rate", "fp1")
			blind(w)
			w.pass(16 * time.Minute)
			if n := called(w, id); n != 0 {
				t.Fatalf("called too early: %v", w.log(id))
			}
			w.pass(4 * time.Hour)
			if got := w.log(id); called(w, id) != 1 || !slices.Contains(got, "notified no_data") || w.needed("no_data") != 1 {
				t.Fatalf("the page says a problem, and nobody is called: %v", got)
			}
			w.must(w.change(id, view.Close, ""))
			w.pass(time.Minute)
			if p := w.public(id); p.Status != remediation.PublicResolved || w.needed("no_data") != 0 {
				t.Errorf("the public page says %s, and %d needs a person", p.Status, w.needed("no_data"))
			}
			refused(t, w.change(id, view.Close, ""), remediation.Conflict)
			refused(t, w.change(id, view.Claim, ""), remediation.Conflict)
		})
	}
}

// It is true until it is cleared, whatever Prometheus says.
func TestASignalThatWasClosedByHandCallsNobodyWhilePrometheusIsBlind(t *testing.T) {
	w, id := raised(t, replace("breach_of_trust, signal: critical-security-vulnerability, plan: ladder", "breach_of_trust, signal: critical-security-vulnerability, plan: longer"))
	w.must(w.change(id, view.Close, ""))
	w.prom.err = remediation.ErrNoAnswer
	w.pass(30 * time.Minute)
	if p := w.public(id); p.Status == remediation.PublicResolved || w.needed("no_data") != 0 {
		t.Errorf("the public page says %s: %v", p.Status, w.log(id))
	}
}

// calledWhileBlind is such an incident that nobody can watch any more, which a person was called to.
func calledWhileBlind(t *testing.T) (*harness, string) {
	t.Helper()
	w, id := closedInABreach(t)
	w.calm("error_rate")
	w.prom.up, w.prom.down = 3, 1
	w.pass(time.Hour)
	if w.needed("no_data") != 1 {
		t.Fatalf("nobody is called: %v", w.log(id))
	}
	return w, id
}

func TestTheCallToAClosedIncidentThatWasBlindEndsOnceItCanBeWatched(t *testing.T) {
	w, id := calledWhileBlind(t)
	w.prom.down = 0
	w.pass(time.Minute)
	if p := w.public(id); p.Status != remediation.PublicResolved || w.needed("no_data") != 0 {
		t.Errorf("the public page says %s: %v", p.Status, w.log(id))
	}
}

func TestTheCallToAClosedIncidentThatWasBlindEndsOnceItsBreachIsSeen(t *testing.T) {
	w, _ := calledWhileBlind(t)
	w.breach("error_rate")
	w.pass(time.Minute)
	if w.needed("no_data") != 0 {
		t.Error("what is known not to be over is called unknown")
	}
}

func TestABreachThatGoesOnAfterAPersonClosedItCallsAPersonOnce(t *testing.T) {
	w, id := closedInABreach(t)
	w.pass(19 * time.Minute)
	if n := called(w, id); n != 0 {
		t.Fatalf("called too early: %v", w.log(id))
	}
	w.pass(25 * time.Minute)
	if got := w.log(id); !slices.Contains(got, "notified still_true") || called(w, id) != 1 {
		t.Fatalf("the breach goes on: %v", got)
	}
	w.is(id, remediation.Closed, "")
	w.effects(1, 0, 0)
}

func TestAClosedIncidentThatBreachesAgainReopensByItself(t *testing.T) {
	w := newHarness(t)
	w.declare("alpha")
	w.breach("error_rate")
	freeze(w, 5*time.Minute)
	id := w.fire("error_rate", "fp1")
	w.calm("error_rate")
	w.pass(3 * S)
	w.is(id, remediation.Closed, "")
	w.breach("error_rate") // its alert never resolved, so no notification comes for a while
	w.pass(10 * time.Minute)
	w.effects(1, 1, 0)
	if got := w.log(id); !slices.Contains(got, "reopened") {
		t.Fatalf("log: %v", got)
	}
}

func TestAFailedRestoreStaysUntilAPersonHasFixedIt(t *testing.T) {
	w := newHarness(t)
	id := backedOut(w)
	w.target("image_retag").undoErr = errors.New("no such image")
	w.must(w.restore(id))
	w.pass(time.Hour)
	w.is(id, remediation.Waiting, remediation.HoldStepFailed)
	w.target("image_retag").undoErr = nil
	w.must(w.restore(id))
	w.pass(time.Minute)
	w.is(id, remediation.Closed, "")
}

func TestAReleaseForgetsNothingThatCouldNotBePutBack(t *testing.T) {
	w := newHarness(t)
	id := backedOut(w)
	w.target("image_retag").undoErr = errors.New("no such image")
	w.must(w.restore(id))
	w.tick()
	w.must(w.change(id, view.Claim, ""))
	w.must(w.change(id, view.Release, ""))
	w.pass(time.Hour)
	w.is(id, remediation.Waiting, remediation.HoldStepFailed)
	if w.metric("backout_needs_human", "step_failed") != 1 || w.incident(id).Stuck != "" {
		t.Errorf("it is to be released again, for %q", w.incident(id).Stuck)
	}
	w.target("image_retag").undoErr = nil
	w.must(w.restore(id))
	w.pass(time.Minute)
	w.is(id, remediation.Closed, "")
	w.undone(1, 1)
	w.steps(id, remediation.StepUndone, remediation.StepUndone, remediation.StepPending)
}

func TestAFailedRestoreOfTheOnlyStepThatIsLeftCanBeRepeated(t *testing.T) {
	w := newHarness(t)
	id := w.open()
	w.cured("error_rate")
	w.calm("error_rate")
	w.pass(5 * time.Minute)
	w.target("flag_off").undoErr = errors.New("no such flag")
	w.must(w.restore(id))
	w.tick()
	w.must(w.change(id, view.Claim, ""))
	w.must(w.change(id, view.Release, ""))
	w.must(w.change(id, view.Close, ""))
	w.rollout(remediation.RolloutRolledBack, remediation.StageNone, false)
	w.target("flag_off").undoErr = nil
	w.must(w.restore(id))
	w.tick()
	w.undone(1, 0)
}

func TestABreachAfterAFailedRestoreIsActedOnOnceItsClaimIsReleased(t *testing.T) {
	w := newHarness(t)
	id := backedOut(w)
	w.target("flag_off").undoErr = errors.New("no such flag")
	w.must(w.restore(id))
	w.tick()
	w.undone(0, 1)
	w.breach("error_rate") // the image is the new one again
	w.pass(10 * time.Minute)
	w.is(id, remediation.Waiting, remediation.HoldStepFailed)
	w.must(w.change(id, view.Claim, ""))
	w.must(w.change(id, view.Release, ""))
	w.pass(5 * time.Minute)
	w.steps(id, remediation.StepDone, remediation.StepDone, remediation.StepPending)
	if f, i := w.target("flag_off").effects, w.target("image_retag").effects; f != 1 || i != 2 {
		t.Errorf("the flag was turned off %d times and the image set %d times, want 1 and 2: the flag was never put back", f, i)
	}
	w.calm("error_rate")
	w.pass(30 * time.Minute)
	w.is(id, remediation.Closed, "")
	w.target("flag_off").undoErr = nil
	w.must(w.restore(id))
	w.pass(time.Minute)
	w.undone(1, 2)
}

func TestAnIncidentThatReopensAfterAFailedRestoreIsRolledBackAgain(t *testing.T) {
	w := newHarness(t)
	id := backedOut(w)
	w.target("flag_off").undoErr = errors.New("no such flag")
	w.must(w.restore(id))
	w.tick()
	w.must(w.change(id, view.Close, ""))
	w.breach("error_rate")
	if again := w.fire("error_rate", "fp2"); again != id {
		t.Fatalf("it is %s", again)
	}
	w.pass(10 * time.Minute)
	w.steps(id, remediation.StepDone, remediation.StepDone, remediation.StepPending)
	if f, i := w.target("flag_off").effects, w.target("image_retag").effects; f != 1 || i != 2 {
		t.Errorf("the flag was turned off %d times and the image set %d times, want 1 and 2: the flag was never put back", f, i)
	}
}

func TestARaisedSignalHoldsARestore(t *testing.T) {
	w, id := raised(t)
	w.must(w.change(id, view.Deny, "3-schema_rollback"))
	w.tick()
	refused(t, w.restore(id), remediation.Conflict)
	w.must(w.force(id))
}

func TestAnAbortWhoseStepsWereAllDeniedEndsNoRollout(t *testing.T) {
	w := newHarness(t, replace("      - {action: flag_off, settle: 5m}\n      - {action: image_retag, settle: 5m}\n", ""))
	w.declare("alpha")
	abort := func() error {
		_, err := w.engine.ChangeRollout(w.ctx, remediation.RolloutChange{Verb: remediation.RolloutAbort, Actor: "eve", Reason: "bad"})
		return err
	}
	w.must(abort())
	w.pass(31 * time.Minute)
	w.is("inc-1", remediation.Exhausted, "")
	stage := func() string {
		r, err := w.engine.Rollouts(w.ctx)
		w.must(err)
		return r[0].Stage
	}
	if s := stage(); s != "alpha" {
		t.Fatalf("nothing was changed, and the stage is %s", s)
	}
	w.must(abort()) // ordered again, it is asked again
	w.tick()
	w.is("inc-1", remediation.Waiting, remediation.HoldApproval)
	w.must(w.change("inc-1", view.Approve, "1-schema_rollback"))
	w.tick()
	w.is("inc-1", remediation.Closed, "")
	if s := stage(); s != "none" {
		t.Fatalf("backed out, and the stage is %s", s)
	}
}

func TestASignalClosedByHandBeginsNothingAnewUntilItIsRaisedAgain(t *testing.T) {
	w, id := raised(t)
	w.must(w.change(id, view.Close, ""))
	n := w.target("flag_off").effects
	w.target("flag_off").position = remediation.Untouched
	for range 15 {
		w.pass(5 * time.Minute)
		w.post("firing", "breach_of_trust", "fp1")
	}
	w.tick()
	if got := w.target("flag_off").effects; got != n {
		t.Fatalf("a human had closed it, and the flag was switched off again")
	}
	w.raise(vulnerable) // once more: that is new trouble
	w.post("firing", "breach_of_trust", "fp1")
	w.tick()
	if got := w.target("flag_off").effects; got != n+1 {
		t.Fatalf("raised again, and nothing was done: %d", got)
	}
}

func TestASignalRaisedAgainShortlyAfterItsIncidentWasClosedActsAtTheNextRepeat(t *testing.T) {
	for name, again := range map[string]func(w *harness){
		"raised again":                       func(*harness) {},
		"cleared and raised before a scrape": func(w *harness) { w.clear(vulnerable) },
	} {
		t.Run(name, func(t *testing.T) {
			w, id := raised(t)
			w.must(w.change(id, view.Close, ""))
			w.pass(5 * time.Minute)
			w.post("firing", "breach_of_trust", "fp1")
			w.pass(5 * time.Minute)
			w.target("flag_off").position = remediation.Untouched
			n := w.target("flag_off").effects
			again(w)
			w.raise(vulnerable)
			w.pass(5 * time.Minute)
			w.post("firing", "breach_of_trust", "fp1") // Alertmanager repeats it: it never resolved
			w.tick()
			if got := w.target("flag_off").effects; got != n+1 {
				t.Fatalf("raised again, and nothing was done: %v", w.log(id))
			}
		})
	}
}

func TestASignalThatAReloadTookAwayCanBeCleared(t *testing.T) {
	w, id := raised(t)
	w.must(w.change(id, view.Deny, "3-schema_rollback"))
	w.tick()
	var ak []alerts.ActionKind
	for _, k := range w.kinds() {
		ak = append(ak, k)
	}
	src := strings.Replace(string(w.pb.Source), "  - {name: breach_of_trust, signal: critical-security-vulnerability, plan: ladder}\n", "", 1)
	pb, err := alerts.Parse("shop.yaml", []byte(src), ak)
	w.must(err)
	w.must(w.engine.Reload(w.ctx, []*alerts.Playbook{pb}, remediation.Reloaded{}))
	_, err = w.engine.ClearSignal(w.ctx, "shop", "no-such-signal", "bob", "patched")
	refused(t, err, remediation.Missing)
	_, err = w.engine.ClearSignal(w.ctx, "shop", vulnerable, "bob", "patched")
	w.must(err)
	w.tick()
	w.is(id, remediation.Closed, "")
}

func TestWhereThePlanCannotContinueAPersonIsCalledOnce(t *testing.T) {
	for name, c := range map[string]struct {
		make func(*harness)
		want string
	}{
		"no rollout": {func(*harness) {}, "no_rollout"},
		"a freeze without an end": {func(w *harness) {
			_, err := w.engine.PutFreeze(w.ctx, remediation.Freeze{Service: "shop", Scope: "all", By: "eve", Reason: "migration"})
			w.must(err)
		}, "frozen"},
		"tokens are missing": {func(w *harness) { w.declare("alpha"); w.noLossy = "no tokens are configured"; w.start() }, "mode"},
	} {
		t.Run(name, func(t *testing.T) {
			w := newHarness(t, replace("scrape_interval: 15s", "scrape_interval: 30s"), // six hours of polls
				func(s string) string { return strings.ReplaceAll(s, "settle: 5m", "settle: 6m") })
			c.make(w)
			w.breach("error_rate")
			id := w.fire("error_rate", "fp1")
			w.pass(15 * time.Minute)
			if n := called(w, id); n != 0 {
				t.Fatalf("called too early: %v", w.log(id))
			}
			w.pass(6 * time.Hour)
			if got := w.log(id); called(w, id) != 1 || !slices.Contains(got, "notified "+c.want) {
				t.Fatalf("six hours of breach: %v", got)
			}
		})
	}
}

func TestAMetricsGentlerStepDoesNotWaitForASignalsApproval(t *testing.T) {
	data := []func(string) string{
		replace("  - {name: breach_of_trust, signal: critical-security-vulnerability, plan: ladder}", "  - {name: breach_of_trust, signal: critical-security-vulnerability, plan: data}\n  - {name: p1, signal: p1-error, plan: ladder}"),
		replace("plans:\n", "plans:\n  - name: data\n    steps:\n      - {action: schema_rollback, settle: 5m, approval: {timeout: 30m}}\n"),
	}
	t.Run("a metric", func(t *testing.T) {
		w := newHarness(t, data...)
		w.declare("alpha")
		w.raise(vulnerable)
		id := w.fire("breach_of_trust", "fp1")
		w.is(id, remediation.Waiting, remediation.HoldApproval)
		w.calm("error_rate")
		w.fire("error_rate", "fp2") // not confirmed: nothing runs
		w.pass(time.Minute)
		w.effects(0, 0, 0)
		w.breach("error_rate")
		w.pass(S)
		w.effects(1, 0, 0)
		w.pass(4 * time.Minute) // it settles, as it would without the signal
		w.effects(1, 0, 0)
		w.pass(3 * time.Minute)
		w.effects(1, 1, 0)
		w.is(id, remediation.Waiting, remediation.HoldApproval)
		w.must(w.change(id, view.Approve, "1-schema_rollback"))
		w.tick()
		w.effects(1, 1, 1)
	})
	t.Run("another signal", func(t *testing.T) {
		w := newHarness(t, data...)
		w.declare("alpha")
		w.raise(vulnerable)
		id := w.fire("breach_of_trust", "fp1")
		w.raise("p1-error")
		w.fire("p1", "fp2")
		w.effects(1, 1, 0)
		w.is(id, remediation.Waiting, remediation.HoldApproval)
	})
}

func TestALimitThatHoldsAPlanWhileTheBreachGoesOnCallsAPerson(t *testing.T) {
	w := newHarness(t, limits("per_target: 1/1h, per_service: 1/1h, blast_radius: 6/10m, cooldown: 10m, breaker: 3"))
	id := w.open()
	w.pass(6 * time.Minute)
	w.is(id, remediation.Waiting, remediation.HoldRateLimit)
	if w.needed("rate_limit") != 1 || w.metric("backout_needs_human", "rate_limit") != 1 {
		t.Fatalf("nobody hears that production is broken: %v", w.log(id))
	}
	w.prom.alive = 0
	delete(w.prom.value, "error_rate")
	delete(w.prom.recovery, "error_rate")
	for _, d := range []time.Duration{50 * time.Minute, 6 * time.Hour} {
		if w.pass(d); w.needed(string(w.incident(id).Reason)) != 1 {
			t.Fatalf("it died, and nobody hears of it: %v", w.log(id))
		}
	}
}

func TestAServiceThatVanishedIsNoAnswerThatNothingIsWrong(t *testing.T) {
	dies := func(w *harness) {
		w.prom.alive = 0
		delete(w.prom.value, "error_rate")
		delete(w.prom.recovery, "error_rate")
		w.post("resolved", "error_rate", "fp1")
	}
	for name, c := range map[string]struct {
		gone func(*harness)
		why  string
	}{
		"it died":                        {dies, "no target of job shop is up"},
		"its job has other targets only": {func(w *harness) { dies(w); w.prom.unscraped = true }, `Prometheus has no series up{job="shop"}`},
		"its exporter is down":           {func(w *harness) { dies(w); w.prom.alive, w.prom.unborn = 1, true }, "has no value, and its exporter is down"},
		"too few events to judge":        {func(w *harness) { dies(w); w.prom.alive, w.prom.events = 1, map[string]float64{"error_rate": 3} }, "too few events"},
		"another trigger has a value": {func(w *harness) {
			w.post("firing", "latency", "fp2")
			w.post("resolved", "latency", "fp2")
			w.calm("latency")
			dies(w)
		}, "no target of job shop is up"},
	} {
		t.Run(name, func(t *testing.T) {
			w := newHarness(t)
			w.declare("alpha")
			freeze(w, 10*time.Minute)
			w.breach("error_rate")
			id := w.fire("error_rate", "fp1")
			w.is(id, remediation.Waiting, remediation.HoldFrozen)
			c.gone(w)
			w.pass(11 * time.Minute) // the freeze is over
			w.is(id, remediation.Waiting, remediation.HoldNoData)
			if why := w.incident(id).Why; !strings.Contains(why, c.why) {
				t.Errorf("held since %q, want a word of %q", why, c.why)
			}
			if w.metric("backout_needs_human", "no_data") != 1 {
				t.Errorf("nobody is called: %v", w.log(id))
			}
			w.prom.alive, w.prom.unborn, w.prom.unscraped, w.prom.events = 1, false, false, nil // it is back, and has nothing to do
			w.pass(time.Minute)
			w.is(id, remediation.Closed, "")
		})
	}
}

func TestTheCallToAClosedIncidentEndsWhereItsPlaybookCannotBeReadAnyMore(t *testing.T) {
	w, id := closedInABreach(t)
	for called(w, id) == 0 {
		w.pass(time.Minute)
	}
	w.afterAnUpgrade(func([]byte) ([]byte, error) { return nil, remediation.ErrNotFound })
	w.pass(time.Hour)
	if p := w.row(id).Paged; len(p) != 0 {
		t.Errorf("it is closed, nobody looks at it, and it still calls a person for %v", p)
	}
}

func TestARestoreWhosePlaybookCannotBeReadIsRefusedWithWhatIsLeftToDo(t *testing.T) {
	w := newHarness(t)
	id := backedOut(w)
	w.afterAnUpgrade(func([]byte) ([]byte, error) { return nil, remediation.ErrNotFound })
	err := w.restore(id)
	refused(t, err, remediation.Conflict)
	if _, try := hint.Of(err); try != "put its targets back by hand" {
		t.Errorf("%v; try: %s", err, try)
	}
}
