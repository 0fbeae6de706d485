package engine_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/locotoki/backout/alerts"
	"github.com/locotoki/backout/hint"
	"github.com/locotoki/backout/remediation"
	"github.com/locotoki/backout/remediation/audit"
	"github.com/locotoki/backout/remediation/engine"
	"github.com/locotoki/backout/remediation/view"
)

const testLimits = "limits: {per_target: 3/1h, per_service: 6/1h, blast_radius: 6/10m, cooldown: 10m, breaker: 3, reopen_within: 1h, close_after: 5m}"

// limits replaces the playbook's limits; whatever comes after the close of an
// incident opens a new one.
func limits(s string) func(string) string {
	return replace(testLimits, "limits: {"+s+", reopen_within: 1s, close_after: 5m}")
}

// again takes an incident through flag_off to its close, and fires anew.
func again(w *harness) string {
	w.t.Helper()
	closeRecovered(w)
	w.target("flag_off").position = remediation.Untouched
	w.post("resolved", "error_rate", "fp1")
	w.pass(S)
	w.breach("error_rate")
	return w.fire("error_rate", "fp1")
}

// holds returns the held entries of an incident.
func holds(w *harness, id string) (out []audit.Entry) {
	w.t.Helper()
	for _, e := range w.entries(id) {
		if e.Kind == audit.KindHeld {
			out = append(out, e)
		}
	}
	return out
}

func TestALimitSaysWhichItIsAndHoldsExactlyUntilThen(t *testing.T) {
	cases := []struct {
		name, limits, why string
		reason            remediation.Reason
		window            time.Duration
	}{
		{"per_target", "per_target: 1/30m, per_service: 9/1h, blast_radius: 9/10m, cooldown: 1s, breaker: 3",
			"limit per_target 1/30m", remediation.HoldRateLimit, 30 * time.Minute},
		{"per_service", "per_target: 9/1h, per_service: 1/40m, blast_radius: 9/10m, cooldown: 1s, breaker: 3",
			"limit per_service 1/40m", remediation.HoldRateLimit, 40 * time.Minute},
		{"blast_radius", "per_target: 9/1h, per_service: 9/1h, blast_radius: 1/20m, cooldown: 1s, breaker: 3",
			"limit blast_radius 1/20m", remediation.HoldBlastRadius, 20 * time.Minute},
		{"cooldown", "per_target: 9/1h, per_service: 9/1h, blast_radius: 9/10m, cooldown: 25m, breaker: 3",
			"limit cooldown 25m", remediation.HoldCooldown, 25 * time.Minute},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			w := newHarness(t, limits(c.limits))
			until := w.now.Add(c.window)
			id := again(w)
			w.is(id, remediation.Waiting, c.reason)
			v := w.incident(id)
			if v.Until == nil || !v.Until.Equal(until) || !strings.HasPrefix(v.Why, c.why) {
				t.Errorf("held until %v because %q; want until %s because %q", v.Until, v.Why, until, c.why)
			}
			if v.Next == nil || v.Next.Step != "1-flag_off" || v.Next.At == nil || !v.Next.At.Equal(until) {
				t.Errorf("next is %+v", v.Next)
			}
			h := holds(w, id)
			if len(h) != 1 || h[0].Detail["reason"] != string(c.reason) || h[0].Detail["until"] != until.Format(time.RFC3339) ||
				!strings.HasPrefix(h[0].Detail["why"].(string), c.why) {
				t.Fatalf("held entries %+v", h)
			}
			w.start() // a restart forgets no limit
			w.pass(until.Sub(w.now) - time.Second)
			if n := w.target("flag_off").effects; n != 1 {
				t.Fatalf("a second before %s the flag had been changed %d times", until, n)
			}
			w.pass(time.Second + S)
			if n := w.target("flag_off").effects; n != 2 {
				t.Fatalf("a poll after %s the flag had been changed %d times", until, n)
			}
			w.is(id, remediation.Settling, "")
			if h := holds(w, id); len(h) != 1 {
				t.Fatalf("a hold of one limit was written %d times", len(h))
			}
		})
	}
}

func TestALimitThatTakesOverFromAnotherIsWritten(t *testing.T) {
	w := newHarness(t, limits("per_target: 1/20m, per_service: 1/40m, blast_radius: 9/10m, cooldown: 1s, breaker: 3"))
	id := again(w)
	w.pass(20 * time.Minute)
	w.is(id, remediation.Waiting, remediation.HoldRateLimit)
	if v := w.incident(id); !strings.Contains(v.Why, "per_service") {
		t.Errorf("why: %q", v.Why)
	}
	h := holds(w, id)
	if len(h) != 2 || !strings.Contains(h[0].Detail["why"].(string), "per_target") || !strings.Contains(h[1].Detail["why"].(string), "per_service") {
		t.Fatalf("held entries %+v", h)
	}
}

func TestAHoldOfALimitThatEndsAsksWhetherTheBreachIsStillThere(t *testing.T) {
	w := newHarness(t, limits("per_target: 1/30m, per_service: 9/1h, blast_radius: 9/10m, cooldown: 1s, breaker: 3"))
	id := again(w)
	w.prom.value["error_rate"] = 0 // over by the trigger's own window, while the short one flickers
	w.pass(30 * time.Minute)
	w.is(id, remediation.Waiting, remediation.HoldUnconfirmed)
	if n := w.target("flag_off").effects; n != 1 {
		t.Fatal("acted on a confirmation from before the hold")
	}
}

func TestLaterStepsOfAPlanAreWithinTheLimitsToo(t *testing.T) {
	w := newHarness(t, fullLadder, limits("per_target: 3/1h, per_service: 1/1h, blast_radius: 6/10m, cooldown: 10m, breaker: 3"))
	began := w.now
	id := w.open()
	w.pass(6 * time.Minute)
	w.is(id, remediation.Waiting, remediation.HoldRateLimit)
	w.steps(id, done, done, done, waits, pending)
	if v := w.incident(id); v.Until == nil || !v.Until.Equal(began.Add(time.Hour)) {
		t.Fatalf("until %v", v.Until)
	}
	w.start()
	w.pass(53 * time.Minute)
	w.effects(1, 0, 0)
	w.pass(time.Minute + S)
	w.effects(1, 1, 0)
}

func TestWhatLimitsCount(t *testing.T) {
	const one = "per_target: 1/2h, per_service: 9/2h, blast_radius: 9/10m, cooldown: 1s, breaker: 9"
	t.Run("a step that was undone counts", func(t *testing.T) {
		w := newHarness(t, limits(one))
		w.target("flag_off").verifyErr = errors.New("unhealthy")
		id := w.open()
		w.is(id, remediation.Waiting, remediation.HoldStepFailed)
		w.must(w.change(id, view.Claim, ""))
		w.must(w.change(id, view.Release, ""))
		w.pass(5 * time.Minute)
		w.is(id, remediation.Waiting, remediation.HoldRateLimit)
		w.effects(1, 0, 0)
	})
	t.Run("a step that found its work done does not", func(t *testing.T) {
		w := newHarness(t, limits(one))
		w.target("flag_off").position = remediation.Wanted
		id := again(w)
		w.is(id, remediation.Settling, "")
		w.effects(1, 0, 0)
	})
	t.Run("a doubt that left no trace does not", func(t *testing.T) {
		w := newHarness(t, limits(one))
		tg := w.target("flag_off")
		tg.applyErr = remediation.InDoubt(context.DeadlineExceeded)
		tg.duringApply = func() { tg.duringApply = func() { tg.applyErr = nil } }
		id := w.open()
		w.is(id, remediation.Settling, "")
		w.effects(1, 0, 0)
	})
	t.Run("a drill does not", func(t *testing.T) {
		w := newHarness(t, limits(one))
		w.declare("alpha")
		w.breach("error_rate")
		w.is(w.fire("error_rate", "fp9", "drill", "true"), remediation.Closed, "")
		w.is(w.fire("error_rate", "fp1"), remediation.Settling, "")
	})
	t.Run("what is told does not", func(t *testing.T) {
		w := newHarness(t, fullLadder, limits("per_target: 1/2h, per_service: 2/2h, blast_radius: 2/30m, cooldown: 1s, breaker: 9"))
		id := w.open()
		w.pass(6 * time.Minute)
		w.steps(id, done, done, done, done, pending)
	})
	t.Run("what another service does, only the blast radius counts", func(t *testing.T) {
		w := newHarness(t, limits("per_target: 1/1h, per_service: 1/1h, blast_radius: 2/10m, cooldown: 1h, breaker: 1"))
		w.put(w.effect("cart", w.now, remediation.EffectFailed))
		id := w.open()
		w.is(id, remediation.Settling, "")
	})
}

// effect is one of another incident, on the target of flag_off.
func (w *harness) effect(service string, at time.Time, o remediation.EffectOutcome) remediation.Effect {
	return remediation.Effect{Time: at, Service: service, Action: "flag_off", Target: "fake:flag_off", Incident: "inc-99", Step: at.String(), Outcome: o}
}

func (w *harness) put(ef remediation.Effect) {
	w.t.Helper()
	w.must(w.store.Update(w.ctx, func(tx remediation.Tx) error { return tx.PutEffect(ef) }))
}

func TestTheBreakerHoldsUntilSomebodyReleases(t *testing.T) {
	w := newHarness(t, limits("per_target: 99/1h, per_service: 99/1h, blast_radius: 99/10m, cooldown: 1s, breaker: 2"))
	for i := range 2 {
		w.put(w.effect("shop", w.now.Add(time.Duration(i-10)*time.Hour), remediation.EffectFailed))
	}
	id := w.open()
	w.is(id, remediation.Waiting, remediation.HoldBreaker)
	v := w.incident(id)
	if v.Until != nil || !strings.Contains(v.Why, "limit breaker 2") || !strings.Contains(v.Why, "until someone claims and releases") {
		t.Errorf("until %v, why %q", v.Until, v.Why)
	}
	w.start()
	w.pass(2 * time.Hour)
	w.effects(0, 0, 0)
	w.must(w.change(id, view.Claim, ""))
	w.pass(time.Minute)
	w.is(id, remediation.Waiting, remediation.HoldClaimed)
	w.must(w.change(id, view.Release, ""))
	w.tick()
	w.is(id, remediation.Settling, "")
	w.effects(1, 0, 0)
}

func TestTheBreakerCountsFailuresInARow(t *testing.T) {
	cases := []struct {
		name string
		row  []remediation.EffectOutcome
		held bool
	}{
		{"one less than the limit", []remediation.EffectOutcome{remediation.EffectFailed}, false},
		{"a success in between", []remediation.EffectOutcome{remediation.EffectFailed, remediation.EffectDone, remediation.EffectFailed}, false},
		{"a release in between", []remediation.EffectOutcome{remediation.EffectFailed, remediation.EffectReleased, remediation.EffectFailed}, false},
		{"a doubt that left no trace in between", []remediation.EffectOutcome{remediation.EffectFailed, remediation.EffectUntouched, remediation.EffectFailed}, true},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			w := newHarness(t, limits("per_target: 99/1h, per_service: 99/1h, blast_radius: 99/10m, cooldown: 1s, breaker: 2"))
			for i, o := range c.row {
				w.put(w.effect("shop", w.now.Add(time.Duration(i)*time.Minute-time.Hour), o))
			}
			id := w.open()
			if held := w.incident(id).Reason == remediation.HoldBreaker; held != c.held {
				t.Fatalf("held by the breaker: %v; %v", held, w.log(id))
			}
		})
	}
}

// What comes between the look at a target and its intent is seen by the intent's
// own transaction.
func TestAGateThatClosesWhileTheTargetIsLookedAtHolds(t *testing.T) {
	cases := []struct {
		name   string
		reason remediation.Reason
		close  func(w *harness, id string)
	}{
		{"a freeze", remediation.HoldFrozen, func(w *harness, _ string) { freeze(w, time.Hour) }},
		{"a claim", remediation.HoldClaimed, func(w *harness, id string) { w.must(w.change(id, view.Claim, "")) }},
		{"a rate limit", remediation.HoldRateLimit, func(w *harness, _ string) {
			for i := range 5 {
				w.put(w.effect("shop", w.now.Add(-time.Duration(i)*time.Second), remediation.EffectDone))
			}
		}},
		{"the blast radius, by another service", remediation.HoldBlastRadius, func(w *harness, _ string) {
			for i := range 5 {
				w.put(w.effect("cart", w.now.Add(-time.Duration(i)*time.Second), remediation.EffectDone))
			}
		}},
		{"the breaker", remediation.HoldBreaker, func(w *harness, _ string) {
			for i := range 3 {
				w.put(w.effect("shop", w.now.Add(-time.Duration(i)*time.Second), remediation.EffectFailed))
			}
		}},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			w := newHarness(t, fullLadder, replace("blast_radius: 6/10m", "blast_radius: 6/20m"))
			id := w.open()
			looks := 0
			w.target("image_retag").onLook = func(string) {
				if looks++; looks == 1 {
					c.close(w, id)
				}
			}
			w.pass(6 * time.Minute)
			if looks == 0 {
				t.Fatal("the target was never looked at")
			}
			w.is(id, remediation.Waiting, c.reason)
			w.effects(1, 0, 0)
			if n := count(w, id, "intent 4-image_retag"); n != 0 {
				t.Fatal("an intent was written against a gate")
			}
		})
	}
	t.Run("a rollout of another release", func(t *testing.T) {
		w := newHarness(t, fullLadder)
		id := w.open()
		w.target("image_retag").onLook = func(string) {
			w.must(w.store.Update(w.ctx, func(tx remediation.Tx) error {
				return tx.PutRollout(remediation.Rollout{Service: "shop", Release: "v3", State: remediation.RolloutActive, Stage: "alpha"})
			}))
		}
		w.pass(6 * time.Minute)
		w.is(id, remediation.Waiting, remediation.HoldNoRollout)
		w.effects(1, 0, 0)
	})
	t.Run("a denial", func(t *testing.T) {
		w := newHarness(t, fullLadder)
		id := w.open()
		climbFull(w, id)
		w.must(w.change(id, view.Approve, fullSchema))
		w.target("schema_rollback").onLook = func(string) { w.must(w.change(id, view.Deny, fullSchema)) }
		w.tick()
		w.is(id, remediation.Exhausted, "")
		w.effects(1, 1, 0)
	})
}

// serviceKind gives each service targets of its own.
type serviceKind struct{ fakeKind }

func (k *serviceKind) Target(pb *alerts.Playbook, _ any) string { return pb.Service + ":" + k.name }
func (k *serviceKind) Bind(pb *alerts.Playbook, _ any) (remediation.Action, error) {
	return k.w.target(pb.Service + ":" + k.name), nil
}

// bothPrometheus answers for a second service what it answers for the first.
type bothPrometheus struct{ *fakePrometheus }

func (p bothPrometheus) Query(ctx context.Context, expr string) (float64, bool, error) {
	return p.fakePrometheus.Query(ctx, strings.ReplaceAll(expr, "cart", "shop"))
}

// twoServices starts an engine that has two services.
func twoServices(w *harness) {
	w.t.Helper()
	kinds := []remediation.ActionKind{
		&serviceKind{fakeKind{w, "flag_off", alerts.Reversible}}, &serviceKind{fakeKind{w, "restart", alerts.Disruptive}},
		&serviceKind{fakeKind{w, "image_retag", alerts.Disruptive}}, &serviceKind{fakeKind{w, "schema_rollback", alerts.Lossy}},
		&tellingKind{fakeKind{w, "status_page", alerts.Reversible}},
	}
	pbs := []*alerts.Playbook{w.pb, w.parse(strings.ReplaceAll(string(w.pb.Source), "shop", "cart"))}
	e, err := engine.New(w.ctx, engine.Options{
		Store: w.store, Playbooks: pbs, Kinds: kinds, Prometheus: bothPrometheus{w.prom}, Alertmanager: w.am,
		Mode: remediation.Act, Now: func() time.Time { return w.now }, Logger: slog.New(slog.DiscardHandler),
	})
	w.must(err)
	w.engine = e
}

func TestTheBlastRadiusIsOverAllServices(t *testing.T) {
	w := newHarness(t, limits("per_target: 3/1h, per_service: 3/1h, blast_radius: 1/10m, cooldown: 10m, breaker: 3"))
	twoServices(w)
	began := w.now
	w.breach("error_rate")
	shop := w.post("firing", "error_rate", "fp1").Incidents[0]
	cart := w.post("firing", "error_rate", "fp2", "service", "cart").Incidents[0]
	w.tick()
	flags := func() int { return w.target("shop:flag_off").effects + w.target("cart:flag_off").effects }
	if flags() != 1 {
		t.Fatalf("%d flags were changed at once, with a blast radius of 1", flags())
	}
	held := cart
	if w.incident(cart).State != remediation.Waiting {
		held = shop
	}
	w.is(held, remediation.Waiting, remediation.HoldBlastRadius)
	if v := w.incident(held); v.Until == nil || !v.Until.Equal(began.Add(10*time.Minute)) {
		t.Fatalf("until %v", v.Until)
	}
	twoServices(w) // and a new process knows of it
	w.pass(10*time.Minute - time.Second)
	if flags() != 1 {
		t.Fatal("the blast radius did not last")
	}
	w.pass(time.Second + S)
	if flags() != 2 {
		t.Fatalf("the held service was never helped: %v", w.log(held))
	}
}

func TestServicesHaveLimitsOfTheirOwn(t *testing.T) {
	w := newHarness(t, limits("per_target: 1/1h, per_service: 1/1h, blast_radius: 9/10m, cooldown: 1h, breaker: 1"))
	twoServices(w)
	w.breach("error_rate")
	w.target("shop:flag_off").applyErr = errors.New("docker is dead")
	shop := w.post("firing", "error_rate", "fp1").Incidents[0]
	w.tick()
	w.is(shop, remediation.Waiting, remediation.HoldStepFailed)
	cart := w.fire("error_rate", "fp2", "service", "cart")
	w.is(cart, remediation.Settling, "")
}

// countingReads notes what is read of the effects.
type countingReads struct {
	remediation.Store
	since []time.Time
	back  int
}

type countingReadsTx struct {
	remediation.Tx
	s *countingReads
}

func (s *countingReads) View(ctx context.Context, fn func(remediation.Tx) error) error {
	return s.Store.View(ctx, func(tx remediation.Tx) error { return fn(countingReadsTx{tx, s}) })
}

func (s *countingReads) Update(ctx context.Context, fn func(remediation.Tx) error) error {
	return s.Store.Update(ctx, func(tx remediation.Tx) error { return fn(countingReadsTx{tx, s}) })
}

func (t countingReadsTx) Effects(service string, since time.Time) ([]remediation.Effect, error) {
	t.s.since = append(t.s.since, since)
	return t.Tx.Effects(service, since)
}

func (t countingReadsTx) EffectsBack(service string, fn func(remediation.Effect) bool) error {
	return t.Tx.EffectsBack(service, func(ef remediation.Effect) bool { t.s.back++; return fn(ef) })
}

func TestNoStepReadsTheWholeHistoryOfItsService(t *testing.T) {
	w := newHarness(t)
	w.must(w.store.Update(w.ctx, func(tx remediation.Tx) error {
		for i := range 100 {
			err := tx.PutEffect(remediation.Effect{
				Time: w.now.AddDate(0, 0, -1-i), Service: "shop", Action: "flag_off", Target: "t", Incident: "old", Step: fmt.Sprint(i), Outcome: remediation.EffectDone,
			})
			if err != nil {
				return err
			}
		}
		return nil
	}))
	var reads *countingReads
	w.wrap = func(s remediation.Store) remediation.Store { reads = &countingReads{Store: s}; return reads }
	w.start()
	w.is(w.open(), remediation.Settling, "")
	for _, since := range reads.since {
		if w.now.Sub(since) > 3*time.Hour { // a warmup looks for the end of a step that may have taken 2h
			t.Errorf("effects since %s were read", since)
		}
	}
	if reads.back == 0 || reads.back > 10 {
		t.Errorf("the breaker read %d effects", reads.back)
	}
}

func TestACommanderLetsAnOrderRunOverTheLimitsThatHoldIt(t *testing.T) {
	for name, tc := range map[string]struct {
		limits string
		reason remediation.Reason
		gate   string
	}{
		"of the target":          {"per_target: 1/1h, per_service: 9/1h, blast_radius: 9/10m, cooldown: 1s, breaker: 3", remediation.HoldRateLimit, "per_target"},
		"of the service":         {"per_target: 9/1h, per_service: 3/1h, blast_radius: 9/10m, cooldown: 1s, breaker: 3", remediation.HoldRateLimit, "per_service"},
		"of all services":        {"per_target: 9/1h, per_service: 9/1h, blast_radius: 1/2h, cooldown: 1s, breaker: 3", remediation.HoldBlastRadius, "blast_radius"},
		"of all that is its own": {"per_target: 1/1h, per_service: 2/1h, blast_radius: 1/2h, cooldown: 1s, breaker: 3", remediation.HoldRateLimit, "per_target"},
	} {
		t.Run(name, func(t *testing.T) {
			w := newHarness(t, limits(tc.limits))
			w.declare("alpha")
			for i := range 3 { // what ran before
				w.put(w.effect("shop", w.now.Add(time.Duration(-1-i)*time.Minute), remediation.EffectDone))
			}
			_, err := w.engine.ChangeRollout(w.ctx, remediation.RolloutChange{Verb: remediation.RolloutAbort, Actor: "eve", Reason: "back"})
			w.must(err)
			w.tick()
			const id = "inc-1"
			w.is(id, remediation.Waiting, tc.reason)
			if w.needed(string(tc.reason)) != 1 {
				t.Error("nobody hears that the order is held")
			}
			for i := range 9 { // each step of it, as often as a limit holds it
				v := w.incident(id)
				if v.OverLimit == "" {
					break
				}
				if i == 0 && v.OverGate != tc.gate {
					t.Errorf("held by %q", v.OverGate)
				}
				w.must(w.approveOver(id))
				w.tick()
			}
			w.effects(1, 1, 0)
		})
	}
}

func TestACommanderLetsARestoreRunOverTheLimitThatHoldsItHalfWay(t *testing.T) {
	w := newHarness(t, replace("per_service: 6/1h", "per_service: 3/1h"))
	id := backedOut(w)
	w.must(w.restore(id))
	w.tick()
	w.is(id, remediation.Waiting, remediation.HoldRateLimit)
	if w.needed("rate_limit") != 1 {
		t.Error("nobody hears that the restoring is held")
	}
	v := w.incident(id)
	if s := view.NewStory(v, view.ServiceNow{}, w.now); s.Headline != "Restore on hold: rate limit reached" || s.StepName(s.Next.Step) != "undo of 1-flag_off" ||
		!strings.HasSuffix(s.WhyEnds, "or when a commander approves the undo of 1-flag_off.") || !strings.Contains(s.Helped, "being put back, as eve ordered") {
		t.Errorf("the held restore reads %q, %q, %q", s.Headline, s.WhyEnds, s.Helped)
	}
	if s := v.Steps[1]; !s.PutBack || v.StateOf(s) != "put back" || v.Steps[0].PutBack {
		t.Errorf("the undo that was ordered is %q", v.StateOf(s))
	}
	if v.OverLimit != "1-flag_off" || v.OverGate != "per_service" {
		t.Errorf("a commander is offered to approve %q over %q", v.OverLimit, v.OverGate)
	}
	w.must(w.approveOver(id))
	w.tick()
	w.is(id, remediation.Closed, "")
	w.undone(1, 1)
}

func TestACooldownThatHoldsAPlanCallsNobodyAndCanBePassed(t *testing.T) {
	w := newHarness(t, limits("per_target: 3/1h, per_service: 6/1h, blast_radius: 6/10m, cooldown: 10m, breaker: 3"))
	w.put(w.effect("shop", w.now.Add(-2*time.Minute), remediation.EffectDone))
	id := w.open()
	w.pass(2 * time.Minute) // the warmup
	w.is(id, remediation.Waiting, remediation.HoldCooldown)
	if w.needed("cooldown") != 0 {
		t.Error("a person is called for a cooldown")
	}
	w.must(w.approveOver(id))
	w.tick()
	w.is(id, remediation.Settling, "")
	w.effects(1, 0, 0)
}

func TestAnApprovalOverOneLimitOpensNoOther(t *testing.T) {
	w := newHarness(t, limits("per_target: 1/1h, per_service: 9/1h, blast_radius: 1/2h, cooldown: 1s, breaker: 3"))
	w.put(w.effect("shop", w.now.Add(-time.Minute), remediation.EffectDone))
	id := w.open()
	w.is(id, remediation.Waiting, remediation.HoldRateLimit)
	if w.needed("rate_limit") != 1 {
		t.Error("nobody hears that the limit holds the plan")
	}
	over := w.incident(id)
	freeze(w, time.Hour)
	_, err := w.engine.ApproveOver(w.ctx, id, over.OverLimit, over.OverGate, "eve", "because")
	refused(t, err, remediation.Conflict) // the wait for the freeze would discard it
	_, err = w.engine.Thaw(w.ctx, "shop", "eve", "done")
	w.must(err)
	w.must(w.approveOver(id))
	w.tick()
	w.is(id, remediation.Waiting, remediation.HoldBlastRadius)
	if w.needed("blast_radius") != 1 || w.needed("rate_limit") != 0 {
		t.Error("nobody hears that the next limit holds the plan, or the first is still said to")
	}
	w.effects(0, 0, 0)
	w.must(w.approveOver(id))
	w.tick()
	w.effects(1, 0, 0)
}

func TestAnApprovalOverALimitNeverAnswersForTheDataThatAStepLoses(t *testing.T) {
	t.Run("and its hold says so", func(t *testing.T) {
		w := newHarness(t, limits("per_target: 9/1h, per_service: 2/1h, blast_radius: 9/2h, cooldown: 1s, breaker: 3"))
		w.open()
		v := w.incident("inc-1")
		for range 40 {
			if v = w.incident("inc-1"); v.Reason == remediation.HoldRateLimit {
				break
			}
			w.pass(time.Minute)
		}
		s := view.NewStory(v, view.ServiceNow{}, w.now)
		if !strings.HasPrefix(s.WhyEnds, "When the limit's window has passed, it asks for its approval, or when a commander") || !strings.HasPrefix(v.Next.What, "it asks for its approval") {
			t.Errorf("the hold ends %q, next %+v", s.WhyEnds, v.Next)
		}
	})
	held := func() (w *harness, v view.IncidentView) {
		w = newHarness(t, limits("per_target: 9/1h, per_service: 2/1h, blast_radius: 9/2h, cooldown: 1s, breaker: 3"))
		w.open()
		for range 40 {
			if v = w.incident("inc-1"); v.Reason == remediation.HoldRateLimit {
				return w, v
			}
			w.pass(time.Minute)
		}
		t.Fatal(w.log("inc-1"))
		return nil, v
	}
	same := func(w *harness, v view.IncidentView) error {
		_, err := w.engine.ApproveOver(w.ctx, v.ID, v.OverLimit, v.OverGate, "eve", "because")
		return err
	}
	t.Run("sent twice", func(t *testing.T) {
		w, v := held()
		w.must(same(w, v))
		w.tick()
		w.is(v.ID, remediation.Waiting, remediation.HoldApproval)
		refused(t, same(w, v), remediation.Conflict)
		w.tick()
		w.effects(1, 1, 0)
	})
	t.Run("sent once the limit's time is over", func(t *testing.T) {
		w, v := held()
		w.pass(v.Until.Sub(w.now) + 30*time.Second)
		w.is(v.ID, remediation.Waiting, remediation.HoldApproval)
		refused(t, same(w, v), remediation.Conflict)
		w.effects(1, 1, 0)
	})
	t.Run("for a limit that does not hold it", func(t *testing.T) {
		w, v := held()
		v.OverGate = "per_target"
		err := same(w, v)
		refused(t, err, remediation.Conflict)
		if _, try := hint.Of(err); !strings.Contains(try, "backout approve inc-1 3-schema_rollback --over=per_service") {
			t.Errorf("the hint is %q", try)
		}
	})
	t.Run("as the answer to a question that is not asked", func(t *testing.T) {
		w, v := held()
		err := w.change(v.ID, view.Approve, v.OverLimit)
		refused(t, err, remediation.Conflict)
		if _, try := hint.Of(err); !strings.Contains(try, "--over=per_service") {
			t.Errorf("the hint is %q", try)
		}
	})
}

func TestARestoreThatALimitHoldsAtItsBeginIsRefusedUntilThen(t *testing.T) {
	w := newHarness(t, replace("per_service: 6/1h", "per_service: 2/1h"))
	id := backedOut(w)
	err := w.restore(id)
	refused(t, err, remediation.Conflict)
	if _, try := hint.Of(err); !strings.Contains(err.Error(), "until ") || try != "the same command after that" {
		t.Error(err)
	}
	w.pass(time.Hour)
	w.must(w.restore(id))
	w.tick()
	w.is(id, remediation.Closed, "")
	w.undone(1, 1)
}

func TestAThawOfWhatIsNotFrozenSaysWhatIs(t *testing.T) {
	w := newHarness(t)
	_, err := w.engine.Thaw(w.ctx, "", "eve", "done")
	refused(t, err, remediation.Missing)
	if _, try := hint.Of(err); try != "backout status, which lists all freezes" {
		t.Errorf("nothing is frozen: %s", try)
	}
	_, err = w.engine.PutFreeze(w.ctx, remediation.Freeze{Service: "shop", Scope: remediation.ScopeAll, By: "eve", Reason: "wait"})
	w.must(err)
	_, err = w.engine.Thaw(w.ctx, "", "eve", "done")
	refused(t, err, remediation.Missing)
	if _, try := hint.Of(err); try != "backout thaw --service=shop --reason=WHY" {
		t.Errorf("the hint is %q", try)
	}
}
