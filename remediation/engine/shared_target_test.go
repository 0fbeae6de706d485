package engine_test

import (
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/locotoki/backout/alerts"
	"github.com/locotoki/backout/remediation"
	"github.com/locotoki/backout/remediation/view"
)

// editIncident edits an incident in the store.
func (w *harness) editIncident(id string, edit func(inc *remediation.Incident)) {
	w.t.Helper()
	w.must(w.store.Update(w.ctx, func(tx remediation.Tx) error {
		inc, err := tx.Incident(id)
		if err != nil {
			return err
		}
		edit(inc)
		return tx.PutIncident(inc)
	}))
}

// onOneFlag is shop, backed out, and cart with an open incident that found the same flag
// off.
func onOneFlag(t *testing.T) (w *harness, shop string) {
	t.Helper()
	w = newHarness(t)
	oneTarget(w)
	_, err := w.engine.DeclareRollout(w.ctx, "shop", "", "alpha", "eve", "canary")
	w.must(err)
	w.breach("error_rate")
	shop = w.fire("error_rate", "fp1")
	w.calm("error_rate")
	w.pass(20 * time.Minute)
	w.is(shop, remediation.Closed, "")
	return w, shop
}

// cartFires opens cart's incident, in which the flag is off already.
func cartFires(w *harness) (cart string) {
	w.t.Helper()
	w.breach("error_rate")
	cart = w.fire("error_rate", "fp2", "service", "cart")
	w.steps(cart, remediation.StepNoChange, remediation.StepPending, remediation.StepPending)
	w.calm("error_rate")
	return cart
}

func TestARestoreTakesNothingFromAnotherServicesOpenIncident(t *testing.T) {
	w, shop := onOneFlag(t)
	cart := cartFires(w)
	err := w.restore(shop)
	refused(t, err, remediation.Conflict)
	if !strings.Contains(err.Error(), "incident "+cart+" of cart is open, and needs fake:flag_off as it is") {
		t.Errorf("refused with %v", err)
	}
	w.undone(0, 0)
	w.pass(20 * time.Minute)
	w.is(cart, remediation.Closed, "")
	w.must(w.restore(shop))
	w.tick()
	w.undone(1, 0)
}

func TestAForcedRestoreTakesWhatAnotherServiceNeeds(t *testing.T) {
	w, shop := onOneFlag(t)
	cartFires(w)
	w.must(w.force(shop))
	w.tick()
	w.undone(1, 0)
}

func TestARestoreWaitsForAnIncidentThatCameToNeedItsTarget(t *testing.T) {
	w, shop := onOneFlag(t)
	w.must(w.restore(shop))
	cart := w.post("firing", "error_rate", "fp2", "service", "cart").Incidents[0]
	w.editIncident(cart, func(inc *remediation.Incident) {
		inc.Steps[0].State, inc.Wake = remediation.StepNoChange, time.Time{}
	})
	w.tick()
	w.is(shop, remediation.Waiting, remediation.HoldTarget)
	w.undone(0, 0)
	w.must(w.change(cart, view.Close, ""))
	w.pass(time.Minute)
	w.undone(1, 0)
}

func TestAPromotionSetsNoFlagThatAnotherServicesIncidentNeeds(t *testing.T) {
	c := newCanary(t)
	c.started()
	c.later(day)
	c.breach("error_rate")
	oneTarget(c.harness)
	cart := c.fire("error_rate", "fp2", "service", "cart")
	c.calm("error_rate")
	c.editIncident(cart, func(inc *remediation.Incident) { inc.Steps[0].Target = "fake:FEATURE_A" })
	_, err := c.engine.ChangeRollout(c.ctx, remediation.RolloutChange{Service: "shop", Verb: remediation.RolloutPromote, Actor: "eve", Reason: "because", Force: true})
	refused(t, err, remediation.Conflict)
	if !strings.Contains(err.Error(), "the traffic cannot be set: incident "+cart+" of cart is open") {
		t.Errorf("refused with %v", err)
	}
}

func TestTheSameDriftIsReportedAgainOnceItsStepRanAgain(t *testing.T) {
	watching(t, "image_retag", func(w *harness, image *watchable) {
		id := retagged(w)
		image.report("image is shop:v2")
		image.report("image is shop:v2")
		if n := w.drifts(id); n != 1 {
			t.Errorf("%d drifts, want 1", n)
		}
		time.Sleep(time.Minute)
		w.editIncident(id, func(inc *remediation.Incident) { now := w.time(); inc.Steps[1].Finished = &now })
		time.Sleep(time.Second)
		if s := w.incident(id).Steps[1]; s.Changed != nil {
			t.Errorf("its step ran again, and shows the drift of before, at %s", s.Changed)
		}
		image.report("image is shop:v2")
		image.report("image is shop:v2")
		if n := w.drifts(id); n != 2 {
			t.Errorf("%d drifts, want 2", n)
		}
		if s := w.incident(id).Steps[1]; s.Changed == nil {
			t.Error("the step shows no drift")
		}
	})
}

func TestAnIncidentWhoseStepCouldNotBeUndoneStaysOpenThoughTheBreachEnds(t *testing.T) {
	w := newHarness(t)
	tg := w.target("flag_off")
	tg.cut, tg.applyErr, tg.undoErr = true, errors.New("cut"), errors.New("cannot undo")
	id := w.open()
	w.calm("error_rate")
	w.post("resolved", "error_rate", "fp1")
	w.pass(2 * time.Hour)
	w.is(id, remediation.Waiting, remediation.HoldStepFailed)
	if !w.row(id).NeedsHuman()[string(remediation.HoldStepFailed)] {
		t.Error("nobody is called any more")
	}
	tg.cut, tg.applyErr, tg.undoErr = false, nil, nil
	w.must(w.change(id, view.Claim, ""))
	w.must(w.change(id, view.Release, ""))
	w.pass(20 * time.Minute)
	w.is(id, remediation.Closed, "") // a person has seen it
}

func TestAnOpenIncidentWhosePlaybookCannotBeReadRefusesWithWhatToDo(t *testing.T) {
	for name, order := range map[string]func(w *harness) error{
		"abort": func(w *harness) error {
			_, err := w.engine.ChangeRollout(w.ctx, remediation.RolloutChange{Verb: remediation.RolloutAbort, Actor: "eve", Reason: "because"})
			return err
		},
		"raise a signal": func(w *harness) error {
			w.must(w.store.Update(w.ctx, func(tx remediation.Tx) error { return tx.DeleteSignal("shop", vulnerable) }))
			_, err := w.engine.RaiseSignal(w.ctx, "", vulnerable, "ann", "CVE-2026-1")
			return err
		},
		"clear a signal": func(w *harness) error {
			_, err := w.engine.ClearSignal(w.ctx, "", vulnerable, "ann", "patched")
			return err
		},
		"approve": func(w *harness) error { return w.change("inc-1", view.Approve, "3-schema_rollback") },
	} {
		t.Run(name, func(t *testing.T) {
			w, id := raised(t)
			w.editIncident(id, func(inc *remediation.Incident) { inc.PlaybookHash = "gone" })
			err := order(w)
			refused(t, err, remediation.Conflict)
			if !strings.HasSuffix(err.Error(), "try: claim and close it") {
				t.Errorf("refused with %v", err)
			}
			w.must(w.change(id, view.Close, ""))
		})
	}
}

func TestAServiceThatAReloadLeftOutIsFrozenWhileItsIncidentIsOpen(t *testing.T) {
	w := newHarness(t)
	id := w.open()
	w.must(w.engine.Reload(w.ctx, nil, remediation.Reloaded{}))
	freeze := func() error {
		_, err := w.engine.PutFreeze(w.ctx, remediation.Freeze{Service: "shop", Scope: remediation.ScopeAll, By: "eve", Reason: "wait"})
		return err
	}
	w.must(freeze())
	w.pass(6 * time.Minute)
	w.is(id, remediation.Waiting, remediation.HoldFrozen)
	w.must(w.change(id, view.Close, ""))
	refused(t, freeze(), remediation.Missing)
}

func TestAPageForATargetStaysWhileItsIncidentIsWatched(t *testing.T) {
	w := newHarness(t)
	id := w.open()
	w.calm("error_rate")
	w.pass(12 * time.Minute) // closed, and its alert is still active
	w.is(id, remediation.Closed, "")
	w.editIncident(id, func(inc *remediation.Incident) {
		inc.Paged, inc.Wake = []string{string(remediation.HoldTarget)}, w.now
	})
	called := func() bool { return slices.Contains(w.row(id).Paged, string(remediation.HoldTarget)) }
	w.pass(10 * time.Minute)
	if !called() {
		t.Error("the page is gone after a poll")
	}
	w.post("resolved", "error_rate", "fp1") // nothing is left to watch
	w.pass(10 * time.Minute)
	if !called() {
		t.Error("the page is gone once the alert resolved")
	}
	w.pass(time.Hour)
	if called() || !w.row(id).Wake.IsZero() {
		t.Error("the page never ends")
	}
}

func TestTwoNamesOfOneTargetAreOneTarget(t *testing.T) {
	for name, of := range map[string]map[string]string{
		"in a cluster that has two":  {"shop": "kubernetes:prod/shop/deployment/api:FEATURE_A", "cart": "kubernetes:shop/deployment/api:FEATURE_A"},
		"of a project that is named": {"shop": "compose:/srv/shop/api@shop:FEATURE_A", "cart": "compose:/srv/shop/api:FEATURE_A"},
	} {
		t.Run(name, func(t *testing.T) {
			w := newHarness(t)
			w.names = func(kind string, pb *alerts.Playbook) string {
				if kind == "flag_off" {
					return of[pb.Service]
				}
				return "fake:" + kind
			}
			oneTarget(w)
			_, err := w.engine.DeclareRollout(w.ctx, "shop", "", "alpha", "eve", "canary")
			w.must(err)
			w.breach("error_rate")
			shop := w.fire("error_rate", "fp1")
			w.calm("error_rate")
			w.pass(20 * time.Minute)
			w.is(shop, remediation.Closed, "")
			cart := cartFires(w)
			err = w.restore(shop)
			refused(t, err, remediation.Conflict)
			if !strings.Contains(err.Error(), "incident "+cart+" of cart is open") {
				t.Errorf("refused with %v", err)
			}
		})
	}
}
