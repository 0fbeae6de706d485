package engine_test

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/locotoki/backout/hint"
	"github.com/locotoki/backout/remediation"
	"github.com/locotoki/backout/remediation/audit"
	"github.com/locotoki/backout/remediation/view"
)

func freeze(w *harness, d time.Duration) {
	w.t.Helper()
	until := w.now.Add(d)
	_, err := w.engine.PutFreeze(w.ctx, remediation.Freeze{Service: "shop", Scope: "all", Until: &until, By: "eve", Reason: "migration"})
	w.must(err)
}

func TestEachGateHoldsAndLetsGo(t *testing.T) {
	cases := []struct {
		name   string
		reason remediation.Reason
		close  func(w *harness)
		open   func(w *harness, id string)
	}{
		{"freeze", remediation.HoldFrozen,
			func(w *harness) { freeze(w, time.Hour) },
			func(w *harness, _ string) { _, err := w.engine.Thaw(w.ctx, "shop", "eve", "done"); w.must(err) }},
		{"a freeze that runs out", remediation.HoldFrozen,
			func(w *harness) { freeze(w, time.Minute) },
			func(w *harness, _ string) { w.now = w.now.Add(time.Minute) }},
		{"silence", remediation.HoldSilenced,
			func(w *harness) { w.am.silenced["fp1"] = true },
			func(w *harness, _ string) { w.am.silenced["fp1"] = false; w.now = w.now.Add(15 * time.Second) }},
		{"another release", remediation.HoldNoRollout,
			func(w *harness) {
				_, err := w.engine.DeclareRollout(w.ctx, "shop", "v3", "alpha", "eve", "canary")
				w.must(err)
			},
			nil},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			w := newHarness(t)
			c.close(w)
			w.breach("error_rate")
			id := w.fire("error_rate", "fp1")
			w.is(id, remediation.Waiting, c.reason)
			if w.target("flag_off").effects != 0 {
				t.Fatal("the step ran against its gate")
			}
			// A hold is written once, not at each poll.
			w.now = w.now.Add(15 * time.Second)
			w.tick()
			n := 0
			for _, e := range w.entries(id) {
				if e.Kind == audit.KindHeld {
					n++
				}
			}
			if c.name != "a freeze that runs out" && n != 1 {
				t.Fatalf("%d held entries, want 1: %v", n, w.log(id))
			}
			if c.open == nil {
				return
			}
			c.open(w, id)
			w.tick()
			w.is(id, remediation.Settling, "")
		})
	}
}

func TestObserveModeActsOnNothing(t *testing.T) {
	w := newHarness(t)
	w.mode = remediation.Observe
	w.start()
	id := w.open()
	w.is(id, remediation.Waiting, remediation.HoldMode)
	// It says what the whole plan would do.
	if got := strings.Join(w.incident(id).Would, "; "); got != "1-flag_off would run; 2-image_retag would run, if the breach continues; "+
		"3-schema_rollback would wait for a commander's approval, if the breach continues" {
		t.Errorf("it would do: %s", got)
	}
	w.pass(time.Hour)
	if w.target("flag_off").effects != 0 {
		t.Fatal("observe mode changed a target")
	}
	w.calm("error_rate")
	w.pass(time.Minute)
	w.is(id, remediation.Closed, "")
	w.logs(id, "held 1-flag_off mode", "closed ended")
}

func TestObserveModeSaysAllThatWouldHoldEachStep(t *testing.T) {
	const runs = "1-status_page would announce partial outage: Analytics; 2-flag_off would run; 3-restart would run, if the breach continues"
	for name, c := range map[string]struct {
		edit func(string) string
		make func(w *harness)
		want string
	}{
		"nothing": {nil, func(*harness) {}, runs},
		"a limit that an earlier step uses up": {
			replace("per_service: 6/1h", "per_service: 1/1h"), func(*harness) {},
			"1-status_page would announce partial outage: Analytics; 2-flag_off would run; 3-restart would be held: limit per_service 1/1h: reached, with 1 in its window, if the breach continues",
		},
		"a target that is not as it must be": {
			nil, func(w *harness) { w.target("flag_off").lookErr = errors.New("no container of shop") },
			"1-status_page would announce partial outage: Analytics; 2-flag_off would run, but backout cannot look at its target: no container of shop; 3-restart would run, if the breach continues",
		},
		"a target that is as wanted": {
			nil, func(w *harness) { w.target("flag_off").position = remediation.Wanted },
			"1-status_page would announce partial outage: Analytics; 2-flag_off would change nothing: its target is already in the wanted state; 3-restart would run",
		},
		"several gates": {
			nil, func(w *harness) {
				freeze(w, time.Hour)
				w.am.silenced["fp1"] = true
			},
			"1-status_page would be held: alert fp1 is silenced in Alertmanager, so a person is handling it; 2-flag_off would be held: shop is frozen (all) by eve: migration; alert fp1 is silenced in Alertmanager, so a person is handling it; " +
				"3-restart would be held: shop is frozen (all) by eve: migration; alert fp1 is silenced in Alertmanager, so a person is handling it",
		},
	} {
		t.Run(name, func(t *testing.T) {
			edit := []func(string) string{}
			if c.edit != nil {
				edit = append(edit, c.edit)
			}
			w := newHarness(t, edit...)
			w.mode = remediation.Observe
			w.start()
			c.make(w)
			w.declare("alpha")
			w.breach("latency")
			id := w.fire("latency", "fp1")
			w.is(id, remediation.Waiting, remediation.HoldMode)
			if got := strings.Join(w.incident(id).Would, "; "); got != c.want {
				t.Errorf("it would do:\n%s\nwant\n%s", got, c.want)
			}
			if c.edit != nil {
				return
			}
			// What would hold it is not what held it first.
			_, err := w.engine.Thaw(w.ctx, "shop", "eve", "done")
			if name == "several gates" {
				w.must(err)
			}
			w.am.silenced["fp1"] = false
			w.target("flag_off").lookErr, w.target("flag_off").position = nil, ""
			w.pass(6 * time.Minute) // a look is good for 5
			if got := strings.Join(w.incident(id).Would, "; "); got != runs {
				t.Errorf("once nothing would hold it, it would do:\n%s", got)
			}
		})
	}
}

func TestAClaimHoldsUntilItIsReleased(t *testing.T) {
	w := newHarness(t)
	freeze(w, time.Hour)
	w.breach("error_rate")
	id := w.fire("error_rate", "fp1")
	w.must(w.change(id, view.Claim, ""))
	refused(t, w.change(id, view.Claim, ""), remediation.Conflict)
	_, err := w.engine.Thaw(w.ctx, "shop", "eve", "done")
	w.must(err)
	w.pass(time.Minute)
	w.is(id, remediation.Waiting, remediation.HoldClaimed)
	w.must(w.change(id, view.Release, ""))
	w.tick()
	w.is(id, remediation.Settling, "")
	refused(t, w.change(id, view.Release, ""), remediation.Conflict)
}

func TestASilenceOnOneOfTwoAlertsHoldsNothing(t *testing.T) {
	w := newHarness(t)
	freeze(w, time.Minute)
	w.breach("error_rate")
	w.breach("latency")
	w.am.silenced["fp1"], w.am.silenced["fp2"] = true, false
	id := w.fire("error_rate", "fp1")
	w.fire("latency", "fp2")
	w.pass(time.Minute)
	w.is(id, remediation.Settling, "")
}

func TestAnUnreachableAlertmanagerHoldsNothing(t *testing.T) {
	w := newHarness(t)
	w.am.err = fmt.Errorf("connection refused")
	id := w.open()
	w.is(id, remediation.Settling, "")
	for _, row := range w.last(id, audit.KindIntent, "").Detail["gates"].([]any) {
		g := row.(map[string]any)
		if why, _ := g["why"].(string); g["gate"] == "silence" && (g["ok"] != true || !strings.Contains(why, "cannot query Alertmanager for silences") || !strings.Contains(why, "connection refused")) {
			t.Errorf("the gate says %v", g)
		}
	}
}

func TestWithoutARolloutOnlyReversibleStepsRun(t *testing.T) {
	w := newHarness(t)
	w.breach("error_rate")
	id := w.fire("error_rate", "fp1")
	w.is(id, remediation.Settling, "")
	w.pass(5 * time.Minute)
	w.is(id, remediation.Waiting, remediation.HoldNoRollout)
	w.steps(id, remediation.StepDone, remediation.StepWaiting, remediation.StepPending)
}

func TestLimitsHoldAcrossARestart(t *testing.T) {
	cases := []struct {
		name   string
		limits string
		reason remediation.Reason
	}{
		{"cooldown", "per_target: 9/3h, per_service: 9/3h, blast_radius: 9/10m, cooldown: 2h", remediation.HoldCooldown},
		{"per target", "per_target: 1/2h, per_service: 9/1h, blast_radius: 9/10m, cooldown: 1s", remediation.HoldRateLimit},
		{"per service", "per_target: 9/1h, per_service: 1/2h, blast_radius: 9/10m, cooldown: 1s", remediation.HoldRateLimit},
		{"blast radius", "per_target: 9/1h, per_service: 9/1h, blast_radius: 1/2h, cooldown: 1s", remediation.HoldBlastRadius},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			w := newHarness(t, replace("per_target: 3/1h, per_service: 6/1h, blast_radius: 6/10m, cooldown: 10m", c.limits))
			id := closeRecovered(w)
			w.target("flag_off").position = remediation.Untouched // someone turned it on again
			w.post("resolved", "error_rate", "fp1")
			w.pass(65 * time.Minute)
			w.start()
			w.breach("error_rate")
			again := w.fire("error_rate", "fp1")
			if again == id {
				t.Fatal("reopened")
			}
			w.is(again, remediation.Waiting, c.reason)
			if v := w.incident(again); v.Until == nil {
				t.Fatal("the hold does not say until when")
			}
			w.pass(time.Hour)
			if n := w.target("flag_off").effects; n != 2 {
				t.Fatalf("the flag was changed %d times once the limit had let go, want 2", n)
			}
		})
	}
}

func TestApproval(t *testing.T) {
	const step = "3-schema_rollback"
	waiting := func(t *testing.T) (*harness, string) {
		w := newHarness(t)
		id := w.open()
		climb(w, id)
		return w, id
	}
	t.Run("denied is skipped, and a human is paged", func(t *testing.T) {
		w, id := waiting(t)
		w.must(w.change(id, view.Deny, step))
		w.tick()
		w.is(id, remediation.Exhausted, "")
		w.steps(id, remediation.StepDone, remediation.StepDone, remediation.StepSkipped)
	})
	t.Run("no answer is a no", func(t *testing.T) {
		w, id := waiting(t)
		w.pass(31 * time.Minute)
		w.is(id, remediation.Exhausted, "")
		refused(t, w.change(id, view.Approve, step), remediation.Conflict)
		if w.target("schema_rollback").effects != 0 {
			t.Fatal("the schema was rolled back without an approval")
		}
	})
	t.Run("a yes that comes after recovery is void", func(t *testing.T) {
		w, id := waiting(t)
		w.cured("error_rate")
		w.pass(time.Minute)
		w.is(id, remediation.Recovered, "")
		refused(t, w.change(id, view.Approve, step), remediation.Conflict)
	})
	t.Run("a yes before a recovery does not outlive it", func(t *testing.T) {
		w, id := waiting(t)
		w.must(w.change(id, view.Approve, step))
		freeze(w, time.Hour)
		w.cured("error_rate")
		w.pass(time.Minute)
		w.is(id, remediation.Recovered, "")
		_, err := w.engine.Thaw(w.ctx, "shop", "eve", "done")
		w.must(err)
		w.breach("error_rate")
		w.pass(time.Minute)
		w.is(id, remediation.Waiting, remediation.HoldApproval)
	})
	t.Run("a plan that grew asks again", func(t *testing.T) {
		w, id := waiting(t)
		w.must(w.change(id, view.Approve, step))
		freeze(w, time.Hour)
		w.breach("latency")
		w.fire("latency", "fp2")
		_, err := w.engine.Thaw(w.ctx, "shop", "eve", "done")
		w.must(err)
		w.pass(6 * time.Minute) // the added disruptive step runs first
		if w.target("schema_rollback").effects != 0 {
			t.Fatal("an approval of a shorter plan was used")
		}
		w.is(id, remediation.Waiting, remediation.HoldApproval)
	})
	t.Run("a freeze would discard it", func(t *testing.T) {
		w, id := waiting(t)
		freeze(w, time.Hour)
		err := w.change(id, view.Approve, step)
		refused(t, err, remediation.Conflict)
		if _, try := hint.Of(err); try != "backout thaw --service=shop --reason=WHY, then approve again" {
			t.Errorf("the hint is %q", try)
		}
		w.pass(time.Minute)
		if v := w.incident(id); len(v.FrozenBy) != 1 || v.FrozenBy[0].Service != "shop" {
			t.Errorf("the incident does not name the freeze that holds it: %+v", v.FrozenBy)
		}
		_, err = w.engine.Thaw(w.ctx, "shop", "eve", "done")
		w.must(err)
		w.pass(time.Minute)
		if v := w.incident(id); len(v.FrozenBy) > 0 {
			t.Errorf("it still names %+v", v.FrozenBy)
		}
	})
	t.Run("another step, another incident, no reason", func(t *testing.T) {
		w, id := waiting(t)
		refused(t, w.change(id, view.Approve, "2-image_retag"), remediation.Conflict)
		err := w.change(id, view.Approve, "9-nothing")
		refused(t, err, remediation.Missing)
		if _, try := hint.Of(err); try != "one of its steps: 1-flag_off, 2-image_retag and 3-schema_rollback" {
			t.Errorf("the hint is %q", try)
		}
		_, err = w.engine.ApproveOver(w.ctx, id, step, "per_targt", "eve", "because")
		refused(t, err, remediation.Invalid)
		if _, try := hint.Of(err); !strings.HasPrefix(try, "did you mean per_target? known: per_target, per_service, ") {
			t.Errorf("the hint is %q", try)
		}
		refused(t, w.change("inc-99", view.Approve, step), remediation.Missing)
		_, err = w.engine.ChangeIncident(w.ctx, id, view.Approve, step, "eve", "")
		refused(t, err, remediation.Invalid)
	})
	t.Run("without tokens a lossy step is held", func(t *testing.T) {
		w := newHarness(t)
		w.noLossy = "no tokens"
		w.start()
		id := w.open()
		w.pass(5 * time.Minute)
		w.pass(5 * time.Minute)
		w.is(id, remediation.Waiting, remediation.HoldMode)
	})
}

func TestAWaitOverTwoMinutesConfirmsAnew(t *testing.T) {
	w := newHarness(t)
	freeze(w, time.Hour)
	w.breach("error_rate")
	id := w.fire("error_rate", "fp1")
	w.pass(10 * time.Minute)
	w.prom.value["error_rate"] = 0 // over by its own expression; the short window still says so
	_, err := w.engine.Thaw(w.ctx, "shop", "eve", "done")
	w.must(err)
	w.pass(time.Minute)
	if w.target("flag_off").effects != 0 {
		t.Fatal("acted on a confirmation ten minutes old")
	}
	w.is(id, remediation.Waiting, remediation.HoldUnconfirmed)
}

func TestAWaitOverTwoMinutesAsksTwiceBeforeItActs(t *testing.T) {
	for name, c := range map[string]struct{ waited, asked time.Duration }{"over two minutes": {10 * time.Minute, 2}, "less": {time.Minute, 1}} {
		t.Run(name, func(t *testing.T) {
			w := newHarness(t)
			freeze(w, time.Hour)
			w.breach("error_rate")
			w.fire("error_rate", "fp1")
			w.pass(c.waited)
			_, err := w.engine.Thaw(w.ctx, "shop", "eve", "done")
			w.must(err)
			asked := time.Duration(0)
			w.prom.answers = func(expr string) (float64, bool) {
				if expr != w.prom.expr.Triggers["error_rate"].Value {
					return 0, false
				}
				if asked++; asked < c.asked {
					return 5, true
				}
				return 0, true // the breach has ended just before the last question
			}
			w.tick()
			if w.target("flag_off").effects != 0 {
				t.Errorf("it acted, and had asked %d times", asked)
			}
		})
	}
}
