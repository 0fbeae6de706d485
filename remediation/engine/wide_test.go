package engine_test

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"github.com/locotoki/backout/alerts"
	"github.com/locotoki/backout/remediation"
	"github.com/locotoki/backout/remediation/crashtest"
	"github.com/locotoki/backout/remediation/store/storetest"
	"github.com/locotoki/backout/remediation/view"
)

// TestWhateverPeopleDoItEndsOrSomebodyIsCalled lets people restore, abort, raise signals,
// drill and reload beside alerts, faults and crashes. Afterwards all is well, and every
// incident closes, or the breach goes on, and someone is called.
func TestWhateverPeopleDoItEndsOrSomebodyIsCalled(t *testing.T) {
	for seed := range crashtest.Points(t) {
		if seed >= 4 {
			break
		}
		t.Run(fmt.Sprint("seed ", seed), func(t *testing.T) {
			t.Parallel()
			people(t, rand.New(rand.NewPCG(uint64(seed), 11)), seed%2 == 0)
		})
	}
}

func people(t *testing.T, r *rand.Rand, breachGoesOn bool) {
	t.Helper()
	w := newHarness(t, replace("flag_off, settle: 5m}", "flag_off, settle: 6m, on_failure: next}"))
	s := &crashHarness{harness: w}
	kinds := []string{"flag_off", "image_retag", "restart", "schema_rollback"}
	for _, kind := range kinds {
		w.target(kind).duringApply = func() { w.nothingHolds(kind) }
	}
	do := func(fn func() error) { // what may be refused
		var refusal *remediation.RefusedError
		if err := s.acrossCrashes(fn); err != nil && !errors.As(err, &refusal) {
			t.Fatal(err)
		}
	}
	incidents := func() []view.IncidentView {
		all, err := w.engine.Incidents(w.ctx, remediation.IncidentFilter{})
		w.must(err)
		return all
	}
	human := func(verb view.Verb) func() {
		return func() {
			if all := incidents(); len(all) > 0 {
				do(func() error { return w.change(all[len(all)-1].ID, verb, "3-schema_rollback") })
			}
		}
	}
	restore := func(force bool) func() {
		return func() {
			all := incidents()
			if len(all) == 0 {
				return
			}
			id := all[r.IntN(len(all))].ID
			do(func() error {
				_, err := w.engine.Restore(w.ctx, id, view.RestoreRequest{Force: force, Actor: "eve", Reason: "a false alarm"})
				return err
			})
		}
	}
	thaw := func() { do(func() error { _, err := w.engine.Thaw(w.ctx, "", "eve", "because"); return err }) }
	clearSignal := func() {
		do(func() error { _, err := w.engine.ClearSignal(w.ctx, "shop", vulnerable, "ann", "patched"); return err })
	}
	declare := func() {
		do(func() error { _, err := w.engine.DeclareRollout(w.ctx, "", "", "alpha", "eve", "canary"); return err })
	}
	books := []*alerts.Playbook{w.pb, w.parse(strings.Replace(string(w.pb.Source), "warmup: 1m", "warmup: 2m", 1))}
	healthy := func() {
		w.prom.alive, w.prom.err = 1, nil
		for _, k := range kinds {
			tg := w.target(k)
			tg.applyErr, tg.verifyErr, tg.undoErr, tg.cut = nil, nil, nil, false
		}
	}
	ops := []func(){
		declare, declare, thaw, clearSignal, healthy, restore(false), restore(true),
		func() { w.breach("error_rate"); s.fires("error_rate", "fp1", "firing") },
		func() { w.breach("error_rate"); s.fires("error_rate", "fp1", "firing") },
		func() { w.breach("latency"); s.fires("latency", "fp2", "firing") },
		func() { w.cured("error_rate") }, func() { w.calm("latency") },
		func() { w.calm("error_rate"); s.fires("error_rate", "fp1", "resolved") },
		func() { w.prom.alive = float64(r.IntN(2)) },
		func() { w.prom.err = fmt.Errorf("x: %w", remediation.ErrNoAnswer) },
		func() {
			switch tg := w.target(kinds[r.IntN(4)]); r.IntN(5) {
			case 0:
				tg.applyErr = errors.New("docker is dead")
			case 1:
				tg.verifyErr = errors.New("unhealthy")
			case 2:
				tg.applyErr, tg.cut = remediation.InDoubt(errors.New("reset")), true
			case 3:
				tg.position = remediation.Untouched // someone put it back
			case 4:
				tg.undoErr = errors.New("no such image")
			}
		},
		human(view.Claim), human(view.Release), human(view.Release),
		human(view.Approve), human(view.Deny), human(view.Close),
		func() {
			until := w.now.Add(time.Duration(1+r.IntN(30)) * time.Minute)
			do(func() error {
				_, err := w.engine.PutFreeze(w.ctx, remediation.Freeze{Scope: remediation.ScopeAll, Until: &until, By: "eve", Reason: "because"})
				return err
			})
		},
		func() {
			do(func() error {
				_, err := w.engine.ChangeRollout(w.ctx, remediation.RolloutChange{Verb: remediation.RolloutAbort, Actor: "eve", Reason: "bad"})
				return err
			})
		},
		func() {
			do(func() error { _, err := w.engine.RaiseSignal(w.ctx, "shop", vulnerable, "ann", "a report"); return err })
			s.fires("breach_of_trust", "fp3", "firing")
		},
		func() { w.fire("error_rate", fmt.Sprint("drill", r.IntN(9)), "drill", "true") },
		func() {
			w.pb = books[r.IntN(2)] // a restart after a crash loads it too
			do(func() error {
				return w.engine.Reload(w.ctx, []*alerts.Playbook{w.pb}, remediation.Reloaded{Actor: "eve"})
			})
		},
		func() { s.crashAfter(1+r.IntN(6), storetest.When(1+r.IntN(2))) },
	}
	for range 100 {
		ops[r.IntN(len(ops))]()
		s.lives(time.Duration(r.IntN(6))*time.Minute, never)
	}

	w.start()
	healthy()
	thaw()
	for _, v := range incidents() {
		if v.ClaimedBy != "" && v.State != remediation.Closed {
			w.must(w.change(v.ID, view.Release, ""))
		}
	}
	if breachGoesOn {
		w.breach("error_rate")
		for range 60 {
			s.fires("error_rate", "fp1", "firing")
			s.lives(5*time.Minute, never)
		}
		called := 0
		for _, v := range incidents() {
			if v.State != remediation.Closed {
				called += len(w.row(v.ID).Paged)
			}
		}
		if called == 0 {
			t.Error("five hours of breach, and nobody is called")
		}
	} else {
		w.calm("error_rate")
		w.calm("latency")
		clearSignal()
		for trigger, fingerprint := range map[string]string{"error_rate": "fp1", "latency": "fp2", "breach_of_trust": "fp3"} {
			s.fires(trigger, fingerprint, "resolved")
		}
		s.lives(3*time.Hour, never)
		for _, v := range incidents() {
			if v.State != remediation.Closed && len(w.row(v.ID).Paged) == 0 {
				t.Errorf("three hours after all is well %s is %s (%s: %s), and nobody is called\n%v", v.ID, v.State, v.Reason, v.Why, w.log(v.ID))
			}
		}
	}
	verify(t, w)
}

// nothingHolds checks in the moment of an effect that no freeze and no claim hold it,
// and that no other incident is open. One that had its intent before goes to its end.
func (w *harness) nothingHolds(kind string) {
	w.t.Helper()
	if w.target(kind).at() == remediation.HalfWay {
		return
	}
	w.must(w.store.View(w.ctx, func(tx remediation.Tx) error {
		real := false
		open, err := tx.Incidents(remediation.IncidentFilter{Service: "shop", Open: true, Drill: &real})
		if err != nil || len(open) != 1 {
			return fmt.Errorf("%s is changed with %d open incidents: %w", kind, len(open), err)
		}
		freezes, err := tx.Freezes()
		for _, f := range freezes {
			if f.Until.After(w.now) {
				return fmt.Errorf("%s is changed during a freeze until %s", kind, f.Until)
			}
		}
		// Who aborts the rollout may have claimed its incident.
		if by := open[0].ClaimedBy; by != "" && (open[0].Abort == nil || open[0].Abort.By != by) {
			return fmt.Errorf("%s is changed while %s is claimed", kind, open[0].ID)
		}
		return err
	}))
}
