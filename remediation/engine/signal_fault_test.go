package engine_test

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/locotoki/backout/remediation"
	"github.com/locotoki/backout/remediation/audit"
	"github.com/locotoki/backout/remediation/store/storetest"
	"github.com/locotoki/backout/remediation/view"
)

// TestACrashAtEveryCommitOfASignalsLifeEndsTheSame cuts the engine off before and
// after each commit from a signal's raising to the close of its incident: once with
// every step approved and run, once with the signal cleared before the last one.
func TestACrashAtEveryCommitOfASignalsLifeEndsTheSame(t *testing.T) {
	t.Parallel()
	for name, verb := range map[string]view.Verb{"approved": view.Approve, "cleared": ""} {
		t.Run(name, func(t *testing.T) {
			want, _ := signalsLife(t, 10_000, storetest.BeforeCommit, verb)
			storetest.EveryCommit(t, 16, func(t *testing.T, commit int, when storetest.When) bool {
				got, crashed := signalsLife(t, commit, when, verb)
				if got != want {
					t.Fatalf("crash %v commit %d: it ends\n%s\nand without a crash\n%s", when, commit, got, want)
				}
				return crashed
			})
		})
	}
}

// signalsLife lives it with one crash, and returns all that it left.
func signalsLife(t *testing.T, commit int, when storetest.When, verb view.Verb) (left string, crashed bool) {
	t.Helper()
	// Few polls: every commit is a boundary, and one poll is like another.
	w := newHarness(t, replace("scrape_interval: 15s", "scrape_interval: 30s"), func(s string) string { return strings.ReplaceAll(s, "settle: 5m", "settle: 6m") })
	w.declare("alpha")
	restart := func() {
		crashed = true
		w.now = w.now.Add(time.Second)
		w.engine = w.newEngine(w.store)
	}
	if e, err := w.tryEngine(storetest.Crashing(w.store, commit, when)); err != nil {
		restart()
	} else {
		w.engine = e
	}
	run := func(d time.Duration) {
		for end := w.now.Add(d); ; {
			next, err := w.engine.Tick(w.ctx)
			switch {
			case errors.Is(err, storetest.ErrCrash):
				restart()
			case err != nil:
				t.Fatal(err)
			case next.IsZero() || next.After(end):
				w.now = end
				return
			default:
				w.now = next
			}
		}
	}
	// again is what a person or Alertmanager does who had no answer; a refusal then
	// means that it was done.
	again := func(do func() error) {
		t.Helper()
		err := do()
		if errors.Is(err, storetest.ErrCrash) {
			restart()
			if err = do(); err != nil {
				refused(t, err, remediation.Conflict)
				err = nil
			}
		}
		w.must(err)
	}
	alert := func(status string) {
		t.Helper()
		again(func() error {
			_, err := w.engine.Accept(w.ctx, remediation.Notification{GroupKey: "g", Alerts: []remediation.Alert{{
				Status: status, Fingerprint: "fp1", Labels: map[string]string{"service": "shop", "trigger": "breach_of_trust", "rollout": "v2"},
			}}})
			return err
		})
	}
	again(func() error { _, err := w.engine.RaiseSignal(w.ctx, "", vulnerable, "ann", "CVE-2026-1"); return err })
	alert("firing")
	run(time.Minute)
	w.is("inc-1", remediation.Waiting, remediation.HoldApproval)
	if verb != "" {
		again(func() error { return w.change("inc-1", verb, "3-schema_rollback") })
		run(time.Minute)
		w.is("inc-1", remediation.Recovered, "")
	}
	again(func() error { _, err := w.engine.ClearSignal(w.ctx, "", vulnerable, "bob", "patched"); return err })
	run(time.Minute)
	alert("resolved")
	run(2 * time.Hour)
	verify(t, w)
	return signalsEnd(w), crashed
}

// signalsEnd is what must be the same whatever crash there was: what was done, and
// all that the log says but for doubts, and intents, answers and alerts that came twice.
func signalsEnd(w *harness) string {
	w.t.Helper()
	var b strings.Builder
	all, err := w.engine.Incidents(w.ctx, remediation.IncidentFilter{})
	w.must(err)
	for _, inc := range all {
		fmt.Fprintf(&b, "%s %s:", inc.ID, inc.State)
		for _, s := range inc.Steps {
			fmt.Fprintf(&b, " %s=%s", s.ID, s.State)
		}
		b.WriteString("\n")
	}
	for _, kind := range []string{"flag_off", "image_retag", "schema_rollback"} {
		fmt.Fprintf(&b, "%s changed %d times, undone %d times\n", kind, w.target(kind).effects, w.target(kind).undone)
	}
	entries, err := w.engine.Entries(w.ctx, audit.Filter{})
	w.must(err)
	last := ""
	for _, e := range entries {
		line := fmt.Sprint(e.Kind, " ", e.Actor, " ", e.Step, " ", e.Detail["reason"], e.Detail["raised"], e.Detail["outcome"], e.Detail["cancelled"])
		switch e.Kind {
		case audit.KindStarted, audit.KindInDoubt, audit.KindReceived, audit.KindDuplicate:
			continue
		}
		if line != last || e.Kind != audit.KindIntent && e.Kind != audit.KindApproved {
			b.WriteString(line + "\n")
		}
		last = line
	}
	o, err := w.engine.Overview(w.ctx)
	w.must(err)
	fmt.Fprintf(&b, "raised: %v, rollout %s %s", o.Services[0].Signals[0].Raised, o.Services[0].Rollout.State, o.Services[0].Rollout.Stage)
	return b.String()
}

func TestManyWhoRaiseASignalAtOnceRaiseItOnceAndSeeWhoDid(t *testing.T) {
	t.Parallel()
	w := newHarness(t)
	w.declare("alpha")
	got := make([]remediation.Signal, 8)
	var wg sync.WaitGroup
	for i := range got {
		wg.Go(func() {
			var err error
			if got[i], err = w.engine.RaiseSignal(w.ctx, "shop", vulnerable, fmt.Sprint("human-", i), "CVE-2026-1"); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	for _, s := range got {
		if s != got[0] {
			t.Errorf("one is told %+v, another %+v", s, got[0])
		}
	}
	entries, err := w.engine.Entries(w.ctx, audit.Filter{Kind: audit.KindSignal})
	if err != nil || len(entries) != 1 || entries[0].Actor != got[0].By {
		t.Errorf("the log has %+v: %v", entries, err)
	}
	// Nor do those who raise it while its incident runs begin it anew.
	id := w.fire("breach_of_trust", "fp1")
	before := len(w.log(id))
	for _, actor := range []string{got[0].By, "zoe"} {
		s, err := w.engine.RaiseSignal(w.ctx, "shop", vulnerable, actor, "another reason")
		if err != nil || s != got[0] {
			t.Errorf("%s is told %+v: %v", actor, s, err)
		}
	}
	w.tick()
	w.effects(1, 1, 0)
	if now := w.log(id); len(now) != before {
		t.Errorf("the incident goes on: %v", now[before:])
	}
}

func TestASignalThatIsClearedWhileAStepRunsLetsThatStepEndAndCancelsTheOthers(t *testing.T) {
	t.Parallel()
	for name, spoil := range map[string]error{"it works": nil, "it fails": errors.New("no such container")} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newHarness(t)
			w.declare("alpha")
			w.raise(vulnerable)
			flag := w.target("flag_off")
			flag.duringApply = func() {
				flag.duringApply = nil
				_, err := w.engine.ClearSignal(w.ctx, "shop", vulnerable, "bob", "it was another image")
				w.must(err)
				flag.applyErr = spoil
			}
			id := w.fire("breach_of_trust", "fp1")
			w.pass(time.Minute)
			w.effects(map[bool]int{true: 1, false: 0}[spoil == nil], 0, 0)
			w.is(id, remediation.Closed, "")
			w.steps(id, map[bool]remediation.StepState{true: remediation.StepDone, false: remediation.StepUndone}[spoil == nil], remediation.StepSkipped, remediation.StepSkipped)
			w.pass(2 * time.Hour)
			w.effects(map[bool]int{true: 1, false: 0}[spoil == nil], 0, 0)
		})
	}
}

// second adds a signal with a plan of its own: only the flag.
func second() []func(string) string {
	return []func(string) string{
		replace("stages:\n", "  - {name: bad_data, signal: data-integrity, plan: short}\nstages:\n"),
		replace("plans:\n", "plans:\n  - {name: short, steps: [{action: flag_off, settle: 5m}, {action: restart, settle: 5m}]}\n"),
	}
}

func TestTwoSignalsOfOneServiceShareAnIncidentThatClosesWithTheLastOfThem(t *testing.T) {
	t.Parallel()
	for _, first := range []string{vulnerable, "data-integrity"} {
		t.Run(first+" is cleared first", func(t *testing.T) {
			t.Parallel()
			w := newHarness(t, second()...)
			w.declare("alpha")
			w.raise(vulnerable)
			w.raise("data-integrity")
			acc, err := w.engine.Accept(w.ctx, remediation.Notification{GroupKey: "g", Alerts: []remediation.Alert{
				{Status: "firing", Fingerprint: "fp1", Labels: map[string]string{"service": "shop", "trigger": "breach_of_trust", "rollout": "v2"}},
				{Status: "firing", Fingerprint: "fp2", Labels: map[string]string{"service": "shop", "trigger": "bad_data", "rollout": "v2"}},
			}})
			if err != nil || len(acc.Incidents) != 1 {
				t.Fatalf("%+v %v", acc, err)
			}
			id := acc.Incidents[0]
			w.tick()
			w.is(id, remediation.Waiting, remediation.HoldApproval)
			w.effects(1, 1, 0)
			// The second plan's own step does not wait for the approval of the first one's.
			w.steps(id, remediation.StepDone, remediation.StepDone, remediation.StepWaiting, remediation.StepDone)
			w.clear(first)
			if first == vulnerable {
				w.steps(id, remediation.StepDone, remediation.StepDone, remediation.StepSkipped, remediation.StepDone)
				w.is(id, remediation.Recovered, "")
			} else {
				w.steps(id, remediation.StepDone, remediation.StepDone, remediation.StepWaiting, remediation.StepDone)
				w.is(id, remediation.Waiting, remediation.HoldApproval)
			}
			w.clear(map[string]string{vulnerable: "data-integrity", "data-integrity": vulnerable}[first])
			w.is(id, remediation.Closed, "")
			w.effects(1, 1, 0)
			if n := w.target("restart").effects; n != 1 {
				t.Errorf("the second plan's own step ran %d times", n)
			}
		})
	}
}

func TestASignalAttachesToTheIncidentThatIsOpenAndSpeedsItsStepsUp(t *testing.T) {
	t.Parallel()
	w := newHarness(t)
	id := w.open()
	w.is(id, remediation.Settling, "") // the flag is off, and it is watched whether that helps
	w.effects(1, 0, 0)
	w.raise(vulnerable)
	if again := w.fire("breach_of_trust", "fp9"); again != id {
		t.Fatalf("incident %s was opened beside %s", again, id)
	}
	w.effects(1, 1, 0) // what had run is not run again, and nothing is waited for
	w.is(id, remediation.Waiting, remediation.HoldApproval)
	w.calm("error_rate")
	w.pass(20 * time.Minute)
	if v := w.incident(id); v.State == remediation.Closed {
		t.Errorf("it closed while the signal is raised: %v", w.log(id))
	}
	w.clear(vulnerable)
	w.pass(20 * time.Minute)
	w.is(id, remediation.Closed, "")
	w.effects(1, 1, 0)
	if n := strings.Count(strings.Join(w.log(id), "\n"), "intent 1-flag_off"); n != 1 {
		t.Errorf("the flag had %d intents: %v", n, w.log(id))
	}
}

func TestASignalThatIsRaisedWhileNothingMayRunIsCarriedOutOnceItMay(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct {
		stop, let func(w *harness)
		reason    remediation.Reason
	}{
		"frozen": {
			func(w *harness) {
				_, err := w.engine.PutFreeze(w.ctx, remediation.Freeze{Service: "shop", Scope: remediation.ScopeAll, By: "ann", Reason: "a migration"})
				w.must(err)
			},
			func(w *harness) { _, err := w.engine.Thaw(w.ctx, "shop", "ann", "it is over"); w.must(err) },
			remediation.HoldFrozen,
		},
		"observing": {
			func(w *harness) { w.mode = remediation.Observe; w.start() },
			func(w *harness) { w.mode = remediation.Act; w.start() },
			remediation.HoldMode,
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newHarness(t)
			w.declare("alpha")
			tc.stop(w)
			w.raise(vulnerable)
			id := w.fire("breach_of_trust", "fp1")
			w.pass(time.Hour)
			w.is(id, remediation.Waiting, tc.reason)
			w.effects(0, 0, 0)
			if n := slices.IndexFunc(w.log(id), func(l string) bool { return strings.HasPrefix(l, "held ") && strings.HasSuffix(l, string(tc.reason)) }); n < 0 || strings.Count(strings.Join(w.log(id), "\n"), "held ") != 1 {
				t.Errorf("the hold is not in the log once: %v", w.log(id))
			}
			tc.let(w)
			w.pass(time.Minute)
			w.effects(1, 1, 0)
			w.is(id, remediation.Waiting, remediation.HoldApproval)
			w.clear(vulnerable)
			w.is(id, remediation.Closed, "")
		})
	}
}
