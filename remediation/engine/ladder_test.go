package engine_test

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/locotoki/backout/alerts"
	"github.com/locotoki/backout/remediation"
	"github.com/locotoki/backout/remediation/audit"
	"github.com/locotoki/backout/remediation/crashtest"
	"github.com/locotoki/backout/remediation/store/storetest"
	"github.com/locotoki/backout/remediation/view"
)

// crashHarness drives a harness whose engine crashes: each crash is followed by a new
// engine on what was committed.
type crashHarness struct {
	*harness
	crashes int
}

// crashAfter lets the engine crash at its nth commit from now, its start not counted.
func (s *crashHarness) crashAfter(n int, when storetest.When) {
	s.t.Helper()
	e, err := s.tryEngine(storetest.Crashing(s.store, n+1, when))
	if err != nil {
		s.t.Fatal(err)
	}
	s.engine = e
}

// acrossCrashes does something again where it was cut off by a crash.
func (s *crashHarness) acrossCrashes(do func() error) error {
	s.t.Helper()
	err := do()
	if !errors.Is(err, storetest.ErrCrash) {
		return err
	}
	s.crashes++
	s.engine = s.newEngine(s.store)
	return do()
}

func (s *crashHarness) fires(trigger, fingerprint, status string) {
	s.t.Helper()
	s.must(s.acrossCrashes(func() error {
		_, err := s.engine.Accept(s.ctx, remediation.Notification{GroupKey: "g", Alerts: []remediation.Alert{{
			Status: status, Fingerprint: fingerprint, Labels: map[string]string{"service": "shop", "trigger": trigger, "rollout": "v2"},
		}}})
		return err
	}))
}

// lives lets time go by, stopping at each moment at which something is due, until
// over says so or d has passed.
func (s *crashHarness) lives(d time.Duration, over func() bool) {
	s.t.Helper()
	end := s.now.Add(d)
	for !over() {
		var next time.Time
		s.must(s.acrossCrashes(func() (err error) {
			next, err = s.engine.Tick(s.ctx)
			return err
		}))
		if next.IsZero() || next.After(end) {
			s.now = end
			return
		}
		s.now = next
	}
}

func never() bool { return false }

// reaches lets time go by until the incident is in a state, or fails.
func (s *crashHarness) reaches(id string, state remediation.State, reason remediation.Reason) {
	s.t.Helper()
	is := func() bool {
		inc := s.row(id)
		return inc.State == state && inc.Reason == reason
	}
	if s.lives(time.Hour, is); !is() {
		s.is(id, state, reason)
	}
}

// TestThePlanSurvivesACrashAtEveryCommit cuts the engine off before and after
// every commit of the whole ladder, with its approval: a new engine brings it to
// the same end, each target changed exactly once.
func TestThePlanSurvivesACrashAtEveryCommit(t *testing.T) {
	storetest.EveryCommit(t, 29, wholeLadder)
}

func wholeLadder(t *testing.T, n int, when storetest.When) (crashed bool) {
	t.Helper()
	// Long scrape intervals: one poll is like another, and each is a commit.
	w := newHarnessOn(t, onDisk(t), fullLadder, replace("scrape_interval: 15s", "scrape_interval: 30s"), replace("close_after: 5m", "close_after: 30s"),
		func(s string) string { return strings.ReplaceAll(s, "settle: 5m", "settle: 6m") })
	s := &crashHarness{harness: w}
	w.declare("alpha")
	w.breach("error_rate")
	s.crashAfter(n, when)
	const id = "inc-1"
	s.fires("error_rate", "fp1", "firing")
	s.reaches(id, remediation.Waiting, remediation.HoldApproval)
	err := s.acrossCrashes(func() error { return w.change(id, view.Approve, fullSchema) })
	if err != nil {
		t.Fatalf("commit %d: approve: %v", n, err)
	}
	s.reaches(id, remediation.Settling, "")
	w.cured("error_rate")
	s.reaches(id, remediation.Recovered, "")
	w.calm("error_rate")
	s.reaches(id, remediation.Closed, "")

	w.effects(1, 1, 1)
	w.steps(id, done, done, done, done, done)
	w.rollout("rolled_back", "none", false)
	counts := map[string]int{}
	for _, line := range w.log(id) {
		counts[line]++
	}
	for _, want := range []string{
		"outcome 1-status_page done", "outcome 2-flag_off done", "verified 2-flag_off", "outcome 3-status_page done", "outcome 4-image_retag done",
		"verified 4-image_retag", "approved " + fullSchema, "outcome 5-schema_rollback done", "verified 5-schema_rollback", "recovered", "closed recovered",
	} {
		if c := counts[want]; c != 1 && (c != 2 || want != "approved "+fullSchema) {
			t.Fatalf("commit %d: %q stands %d times in the log: %v", n, want, c, w.log(id))
		}
	}
	if all, err := w.engine.Incidents(w.ctx, remediation.IncidentFilter{}); err != nil || len(all) != 1 {
		t.Fatalf("commit %d: %d incidents (%v)", n, len(all), err)
	}
	verify(t, w)
	return s.crashes > 0
}

// TestWhateverHappensTheInvariantsHold lets breaches, cures, deaths, failures,
// alerts, claims, freezes, answers and crashes come in any order, and looks at
// every effect when it happens.
func TestWhateverHappensTheInvariantsHold(t *testing.T) {
	for seed := range crashtest.Points(t) {
		if seed >= 8 {
			break
		}
		t.Run(fmt.Sprint("seed ", seed), func(t *testing.T) {
			t.Parallel()
			chaos(t, rand.New(rand.NewPCG(uint64(seed), 7)))
		})
	}
}

func chaos(t *testing.T, r *rand.Rand) {
	t.Helper()
	w := newHarness(t, fullLadder, replace(testLimits,
		"limits: {per_target: 2/1h, per_service: 5/1h, blast_radius: 3/20m, cooldown: 10m, breaker: 3, reopen_within: 1h, close_after: 5m}"),
		replace("flag_off, settle: 6m}", "flag_off, settle: 6m, on_failure: next}"))
	s := &crashHarness{harness: w}
	kinds := []string{"flag_off", "image_retag", "restart", "schema_rollback"}
	for _, kind := range kinds {
		w.target(kind).duringApply = func() { w.allowed(kind) }
	}
	w.declare("alpha")
	triggers := []string{"error_rate", "latency"}
	trigger := func() string { return triggers[r.IntN(2)] }
	newest := func() string {
		all, err := w.engine.Incidents(w.ctx, remediation.IncidentFilter{Newest: true, Limit: 1})
		if err != nil || len(all) == 0 {
			return "inc-1"
		}
		return all[0].ID
	}
	human := func(verb view.Verb) { // who may be refused
		var refusal *remediation.RefusedError
		if err := s.acrossCrashes(func() error { return w.change(newest(), verb, fullSchema) }); err != nil && !errors.As(err, &refusal) {
			t.Fatal(err)
		}
	}
	thaw := func() {
		var refusal *remediation.RefusedError
		err := s.acrossCrashes(func() error { _, err := w.engine.Thaw(w.ctx, "", "eve", "because"); return err })
		if err != nil && !errors.As(err, &refusal) {
			t.Fatal(err)
		}
	}
	trouble := func() { // with nothing in automation's way
		w.prom.alive, w.prom.err = 1, nil
		for _, k := range kinds {
			tg := w.target(k)
			tg.applyErr, tg.verifyErr, tg.undoErr, tg.cut = nil, nil, nil, false
		}
		w.breach("error_rate")
		s.fires("error_rate", "fp1", "firing")
		human(view.Release)
		thaw()
		s.lives(time.Duration(1+r.IntN(8))*time.Minute, never)
		human(view.Approve)
	}
	rollout := func() { // the code that was fixed is rolled out again
		var refusal *remediation.RefusedError
		err := s.acrossCrashes(func() error {
			_, err := w.engine.DeclareRollout(w.ctx, "", "", "alpha", "eve", "canary")
			return err
		})
		switch {
		case err == nil:
			for _, k := range kinds {
				w.target(k).position = remediation.Untouched
			}
		case !errors.As(err, &refusal):
			t.Fatal(err)
		}
	}
	ops := []func(){
		trouble, trouble, trouble, trouble, trouble, rollout, rollout, thaw,
		func() { w.breach(trigger()) }, func() { w.breach("error_rate") },
		func() { w.cured(trigger()) },
		func() { w.calm(trigger()) },
		func() { delete(w.prom.recovery, trigger()) },
		func() { s.fires("error_rate", "fp1", "firing") }, func() { s.fires("latency", "fp2", "firing") },
		func() { s.fires("error_rate", "fp1", "resolved") }, func() { s.fires("latency", "fp2", "resolved") },
		func() { w.prom.alive = float64(r.IntN(2)) },
		func() {
			if w.prom.err = nil; r.IntN(3) == 0 {
				w.prom.err = fmt.Errorf("x: %w", remediation.ErrNoAnswer)
			}
		},
		func() {
			tg := w.target(kinds[r.IntN(4)])
			switch tg.applyErr, tg.verifyErr, tg.undoErr, tg.cut = nil, nil, nil, false; r.IntN(5) {
			case 0:
				tg.applyErr = errors.New("docker is dead")
			case 1:
				tg.verifyErr = errors.New("unhealthy")
			case 2:
				tg.applyErr, tg.cut = remediation.InDoubt(errors.New("reset")), true
			case 3:
				tg.position = remediation.Untouched // a person put it back
			}
		},
		func() { human(view.Claim) }, func() { human(view.Release) }, func() { human(view.Release) },
		func() { human(view.Approve) }, func() { human(view.Deny) }, func() { human(view.Close) },
		func() {
			s.must(s.acrossCrashes(func() error {
				until := w.now.Add(time.Duration(1+r.IntN(30)) * time.Minute)
				_, err := w.engine.PutFreeze(w.ctx, remediation.Freeze{Scope: remediation.ScopeAll, Until: &until, By: "eve", Reason: "because"})
				return err
			}))
		},
		func() { s.crashAfter(1+r.IntN(6), storetest.When(1+r.IntN(2))) }, func() { s.crashAfter(1+r.IntN(6), storetest.When(1+r.IntN(2))) },
	}
	for range 100 {
		ops[r.IntN(len(ops))]()
		s.lives(time.Duration(r.IntN(5))*time.Minute, never)
	}
	w.start() // on what is committed
	verify(t, w)
	w.inOrder()
}

// allowed looks at what stands in the store in the moment of an effect.
func (w *harness) allowed(kind string) {
	w.t.Helper()
	resumed := w.target(kind).at() == remediation.HalfWay // it had its intent before: no gate stops it now
	var inc *remediation.Incident
	var mine []remediation.Effect
	var freezes []remediation.Freeze
	w.must(w.store.View(w.ctx, func(tx remediation.Tx) error {
		open, err := tx.Incidents(remediation.IncidentFilter{Service: "shop", Open: true})
		if err != nil || len(open) != 1 {
			return fmt.Errorf("%d open incidents: %w", len(open), err)
		}
		inc = open[0]
		if freezes, err = tx.Freezes(); err != nil {
			return err
		}
		mine, err = tx.Effects("", w.now.Add(-2*time.Hour))
		return err
	}))
	var running []string
	var step *remediation.Step
	for i := range inc.Steps {
		if st := &inc.Steps[i]; st.State == remediation.StepIntent || st.State == done && !st.Verified {
			running, step = append(running, st.ID()), st
		}
	}
	if len(running) != 1 || step.Action != kind || step.State != remediation.StepIntent || inc.State != remediation.Acting {
		w.t.Fatalf("%s is changed while %v run and the incident is %s", kind, running, inc.State)
	}
	intent := w.last(inc.ID, audit.KindIntent, step.ID())
	if intent == nil || intent.Detail["undo"] == true {
		w.t.Fatalf("%s is changed without an intent", step.ID())
	}
	if step.Risk == alerts.Lossy {
		yes := w.last(inc.ID, audit.KindApproved, step.ID())
		asked := w.last(inc.ID, audit.KindHeld, "")
		if step.Approved != "eve" || yes == nil || asked.Detail["reason"] != "approval" || asked.Seq > yes.Seq || intent.Time.Sub(asked.Time) >= 30*time.Minute {
			w.t.Fatalf("lossy and not approved: %v", w.log(inc.ID))
		}
	}
	if resumed {
		return
	}
	for _, f := range freezes {
		if f.Until.After(w.now) {
			w.t.Fatalf("%s is changed during a freeze until %s", kind, f.Until)
		}
	}
	if inc.ClaimedBy != "" {
		w.t.Fatalf("%s is changed while claimed", kind)
	}
	here, hour, recent := 0, 0, 0
	for _, ef := range mine {
		if ef.Outcome == remediation.EffectUntouched || ef.Outcome == remediation.EffectReleased {
			continue
		}
		ago := w.now.Sub(ef.Time)
		if ago < time.Hour {
			if hour++; ef.Action == kind {
				here++
			}
		}
		if ago < 20*time.Minute {
			recent++
		}
		if ef.Action == kind && ago > 0 && ago < 10*time.Minute {
			w.t.Fatalf("%s ran %s ago, and the cooldown is 10m", kind, ago)
		}
	}
	if here > 2 || hour > 5 || recent > 3 {
		w.t.Fatalf("%d effects on %s within an hour, %d on the service, %d within 20m: limits 2, 5 and 3", here, kind, hour, recent)
	}
}

// last returns an incident's last entry of a kind, about a step where one is named.
func (w *harness) last(id string, kind audit.Kind, step string) *audit.Entry {
	w.t.Helper()
	var all []audit.Entry
	w.must(w.store.View(w.ctx, func(tx remediation.Tx) (err error) {
		all, err = tx.Entries(audit.Filter{Incident: id, Kind: kind})
		return err
	}))
	for _, e := range slices.Backward(all) {
		if step == "" || e.Step == step {
			return &e
		}
	}
	return nil
}

// inOrder checks every incident's log: an outcome for each intent, no step that
// is done intended again, and none that leads back down the ladder: only what a
// trigger added later may be gentler than what has run.
func (w *harness) inOrder() {
	w.t.Helper()
	risk := map[string]int{"flag_off": 0, "image_retag": 1, "restart": 1, "schema_rollback": 2}
	all, err := w.engine.Incidents(w.ctx, remediation.IncidentFilter{})
	w.must(err)
	for _, v := range all {
		open := ""
		planned := map[string]int64{}
		highest := map[int]int64{} // by risk, the last intent
		over := map[string]bool{}  // verified
		tried := map[string]bool{}
		for _, e := range w.entries(v.ID) {
			switch e.Kind {
			case audit.KindPlanned:
				for _, step := range e.Detail["steps"].([]any) {
					planned[fmt.Sprint(step)] = e.Seq
				}
			case audit.KindIntent:
				undo := e.Detail["undo"] == true
				switch {
				case open != "" && open != e.Step:
					w.t.Fatalf("%s: %s has its intent while %s runs: %v", v.ID, e.Step, open, w.log(v.ID))
				case over[e.Step] && !undo:
					w.t.Fatalf("%s: %s ran twice: %v", v.ID, e.Step, w.log(v.ID))
				case highest[risk[e.Action]+1] > planned[e.Step] && !tried[e.Step] && !undo,
					highest[risk[e.Action]+2] > planned[e.Step] && !tried[e.Step] && !undo:
					w.t.Fatalf("%s: the ladder went back to %s: %v", v.ID, e.Step, w.log(v.ID))
				}
				open, highest[risk[e.Action]], tried[e.Step] = e.Step, e.Seq, true
			case audit.KindOutcome:
				if e.Detail["outcome"] != "done" { // what is done is verified first
					open = ""
				}
			case audit.KindInDoubt:
				if e.Detail["seen"] == "untouched" {
					open = ""
				}
			case audit.KindVerified:
				open, over[e.Step] = "", true
			}
		}
	}
}
