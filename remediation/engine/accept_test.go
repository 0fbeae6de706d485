package engine_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/locotoki/backout/alerts"
	"github.com/locotoki/backout/remediation"
	"github.com/locotoki/backout/remediation/audit"
	"github.com/locotoki/backout/remediation/view"
)

// held returns the reasons of what is held outside of any incident, oldest first.
func (w *harness) held() (out []string) {
	w.t.Helper()
	es, err := w.engine.Entries(w.ctx, audit.Filter{Kind: audit.KindHeld})
	w.must(err)
	for _, e := range es {
		if e.Incident == "" {
			out = append(out, fmt.Sprint(e.Detail["reason"], " ", e.Detail["fingerprint"]))
		}
	}
	return out
}

func (w *harness) entriesOf(kind audit.Kind) []audit.Entry {
	w.t.Helper()
	es, err := w.engine.Entries(w.ctx, audit.Filter{Kind: kind})
	w.must(err)
	return es
}

func (w *harness) accept(all ...remediation.Alert) remediation.Accepted {
	w.t.Helper()
	acc, err := w.engine.Accept(w.ctx, remediation.Notification{Receiver: "backout", GroupKey: "g", Alerts: all})
	w.must(err)
	return acc
}

func firing(fingerprint string, labels ...string) remediation.Alert {
	al := remediation.Alert{Status: "firing", Fingerprint: fingerprint, Labels: map[string]string{}}
	for i := 0; i < len(labels); i += 2 {
		al.Labels[labels[i]] = labels[i+1]
	}
	return al
}

func TestAForgedReleaseHoldsItsOwnAlertAndNoOther(t *testing.T) {
	for _, active := range []bool{false, true} {
		t.Run(fmt.Sprintf("rollout active %v", active), func(t *testing.T) {
			w := newHarness(t)
			if active {
				w.declare("alpha")
			}
			w.breach("error_rate")
			forged := firing("f1", "service", "shop", "trigger", "error_rate", "rollout", "v9")
			if acc := w.accept(forged); len(acc.Incidents) != 0 || acc.Duplicates != 0 {
				t.Fatalf("a forged release concerned %+v", acc)
			}
			if acc := w.accept(forged); acc.Duplicates != 1 {
				t.Fatalf("the same again was counted as %+v", acc)
			}
			if got := fmt.Sprint(w.held()); got != "[no_rollout f1]" {
				t.Fatalf("held %s", got)
			}
			acc := w.accept(
				firing("f2", "service", "shop", "trigger", "latency", "rollout", "v0"),
				firing("r1", "service", "shop", "trigger", "error_rate", "rollout", "v2"),
				firing("f3", "service", "shop", "trigger", "latency", "rollout", "v9"),
			)
			if len(acc.Incidents) != 1 {
				t.Fatalf("the real alert concerned %+v", acc)
			}
			w.tick()
			v := w.incident(acc.Incidents[0])
			if v.Rollout != "v2" || len(v.Triggers) != 1 || v.Steps[0].State != remediation.StepDone {
				t.Errorf("the incident is about %s, has %+v and %+v", v.Rollout, v.Triggers, v.Steps)
			}
			if got := fmt.Sprint(w.held()); got != "[no_rollout f1 no_rollout f2 no_rollout f3]" {
				t.Errorf("held %s", got)
			}
		})
	}
}

func TestAnIncidentIsAboutWhatIsBeingRolledOut(t *testing.T) {
	w := newHarness(t)
	_, err := w.engine.DeclareRollout(w.ctx, "shop", "v3", "alpha", "eve", "canary")
	w.must(err)
	w.breach("error_rate")
	id := w.fire("error_rate", "fp1", "rollout", "")
	if v := w.incident(id); v.Rollout != "v3" {
		t.Errorf("an alert without the label opened an incident about %s", v.Rollout)
	}
	w.is(id, remediation.Settling, "")
}

func TestAFingerprintCountsOnlyWithTheSameServiceTriggerAndDrill(t *testing.T) {
	for name, forged := range map[string]remediation.Alert{
		"another trigger":         firing("fp1", "service", "shop", "trigger", "latency"),
		"another service":         firing("fp1", "service", "cart", "trigger", "error_rate"),
		"a drill":                 firing("fp1", "service", "shop", "trigger", "error_rate", "drill", "true"),
		"a trigger nobody knows":  firing("fp1", "service", "shop", "trigger", "nonsense"),
		"another release's alert": firing("fp1", "service", "shop", "trigger", "error_rate", "rollout", "v9"),
	} {
		t.Run(name, func(t *testing.T) {
			w := newHarness(t)
			w.declare("alpha")
			w.accept(forged)
			w.breach("error_rate")
			acc := w.post("firing", "error_rate", "fp1")
			if acc.Duplicates != 0 || len(acc.Incidents) != 1 {
				t.Fatalf("the real alert was answered %+v; held %v", acc, w.held())
			}
			w.tick()
			w.is(acc.Incidents[0], remediation.Settling, "")
			forged.Status = "resolved"
			if acc := w.accept(forged); name != "another release's alert" && (acc.Duplicates != 1 || len(acc.Incidents) != 0) {
				t.Errorf("a resolved of it was answered %+v", acc)
			}
		})
	}
}

func TestWatchdogBeatsAreNotAudited(t *testing.T) {
	w := newHarness(t)
	dog := firing("dog", "alertname", "Watchdog", "service", "shop")
	before := len(w.entries(""))
	for range 3 {
		w.now = w.now.Add(time.Minute)
		if acc := w.accept(dog, dog); acc.Accepted != 2 {
			t.Fatalf("answered %+v", acc)
		}
	}
	if n := len(w.entries("")); n != before {
		t.Errorf("three beats wrote %d entries", n-before)
	}
	w.pass(6 * time.Minute)
	if n := len(w.entriesOf(audit.KindBlind)); n != 1 {
		t.Fatalf("the loss wrote %d entries", n)
	}
	w.accept(dog)
	if n := len(w.entriesOf(audit.KindBlind)); n != 2 {
		t.Errorf("loss and return wrote %d entries", n)
	}
	w.accept(dog, firing("x", "alertname", "Other", "service", "shop"))
	if es := w.entriesOf(audit.KindReceived); len(es) != 1 || len(es[0].Detail["alerts"].([]any)) != 2 {
		t.Errorf("a notification of more than beats: %v", es)
	}
}

func TestALargeNotificationIsTakenInPartByPart(t *testing.T) {
	w := newHarness(t)
	w.declare("alpha")
	w.breach("error_rate")
	big := strings.Repeat("x", 4000)
	all := []remediation.Alert{}
	for i := range 500 {
		all = append(all, firing(fmt.Sprint("fp", i), "service", "shop", "trigger", "error_rate", "big", big))
	}
	acc := w.accept(all...)
	if acc.Accepted != 500 || acc.Duplicates != 0 || len(acc.Incidents) != 1 {
		t.Fatalf("answered %+v", acc)
	}
	named := map[string]bool{}
	parts := w.entriesOf(audit.KindReceived)
	for i, e := range parts {
		if n := len(e.Canonical()); n > 600<<10 {
			t.Errorf("an entry has %d bytes", n)
		}
		if got := fmt.Sprintf("%v/%v", e.Detail["part"], e.Detail["parts"]); got != fmt.Sprintf("%d/%d", i+1, len(parts)) {
			t.Errorf("entry %d says part %v of %v", i, e.Detail["part"], e.Detail["parts"])
		}
		for _, a := range e.Detail["alerts"].([]any) {
			named[a.(map[string]any)["fingerprint"].(string)] = true
		}
	}
	if len(parts) < 4 || len(named) != 500 {
		t.Errorf("%d parts name %d alerts", len(parts), len(named))
	}
	if acc = w.accept(all...); acc.Duplicates != 500 {
		t.Errorf("the same again: %+v", acc)
	}
}

func TestAnIncidentThatPrometheusDeniesStopsNoPromotion(t *testing.T) {
	for name, breaching := range map[string]bool{"denied": false, "true": true} {
		t.Run(name, func(t *testing.T) {
			w := newHarness(t)
			freeze(w, 2*time.Minute) // nothing runs
			w.declare("alpha")
			w.calm("error_rate")
			w.pass(3 * time.Minute)
			id := w.fire("error_rate", "forged")
			w.is(id, remediation.Waiting, remediation.HoldUnconfirmed)
			w.now = w.now.Add(25 * time.Hour)
			w.accept(firing("dog", "alertname", "Watchdog", "service", "shop"))
			if breaching {
				w.breach("error_rate")
				w.tick()
			}
			_, err := w.engine.ChangeRollout(w.ctx, remediation.RolloutChange{Verb: remediation.RolloutPromote, Actor: "eve", Reason: "go on"})
			if stopped := strings.Contains(fmt.Sprint(err), id); stopped != breaching {
				t.Errorf("the promotion was answered %v", err)
			}
		})
	}
}

// otherPlaybook is a store that gives a playbook back other than it was put.
type otherPlaybook struct {
	remediation.Store
	hash string
	as   func([]byte) ([]byte, error)
}

func (b otherPlaybook) View(ctx context.Context, fn func(remediation.Tx) error) error {
	return b.Store.View(ctx, func(tx remediation.Tx) error { return fn(otherTx{tx, b}) })
}

func (b otherPlaybook) Update(ctx context.Context, fn func(remediation.Tx) error) error {
	return b.Store.Update(ctx, func(tx remediation.Tx) error { return fn(otherTx{tx, b}) })
}

type otherTx struct {
	remediation.Tx
	b otherPlaybook
}

func (x otherTx) Playbook(hash string) ([]byte, error) {
	src, err := x.Tx.Playbook(hash)
	if hash == x.b.hash && err == nil {
		return x.b.as(src)
	}
	return src, err
}

// afterAnUpgrade loads another playbook, and the stored one reads as fn says.
func (w *harness) afterAnUpgrade(fn func([]byte) ([]byte, error)) {
	w.t.Helper()
	var ak []alerts.ActionKind
	for _, k := range w.kinds() {
		ak = append(ak, k)
	}
	old := w.pb.Hash
	pb, err := alerts.Parse("shop.yaml", []byte(strings.Replace(string(w.pb.Source), "warmup: 1m", "warmup: 2m", 1)), ak)
	w.must(err)
	w.pb = pb
	w.start()
	w.engine = w.newEngine(otherPlaybook{w.store, old, fn})
}

func TestAnOpenIncidentWhosePlaybookCannotBeReadCallsAPersonAndStopsNothingElse(t *testing.T) {
	for name, fn := range map[string]func([]byte) ([]byte, error){
		"not understood": func(src []byte) ([]byte, error) { return append(src, "\na_key_of_an_older_version: 1\n"...), nil },
		"changed": func(src []byte) ([]byte, error) {
			return []byte(strings.Replace(string(src), "settle: 5m", "settle: 6m", 1)), nil
		},
		"gone": func([]byte) ([]byte, error) { return nil, remediation.ErrNotFound },
	} {
		t.Run(name, func(t *testing.T) {
			w := newHarness(t)
			id := w.open()
			w.is(id, remediation.Settling, "")
			w.afterAnUpgrade(fn)
			w.breach("latency")
			for range 10 {
				w.now = w.now.Add(time.Minute)
				w.tick()
			}
			if n := w.target("image_retag").effects; n != 0 {
				t.Errorf("%d steps of a playbook that cannot be read ran", n)
			}
			pages := 0
			for _, s := range w.log(id) {
				if s == "notified stuck" {
					pages++
				}
			}
			if pages != 1 {
				t.Errorf("paged %d times: %v", pages, w.log(id))
			}
			acc := w.accept(
				firing("fp9", "service", "shop", "trigger", "latency", "rollout", "v2"),
				firing("dog", "alertname", "Watchdog", "service", "shop"),
				firing("fp1", "service", "shop", "trigger", "error_rate", "rollout", "v2"),
			)
			if got := fmt.Sprint(w.held()); got != "[unknown_trigger fp9]" || len(acc.Incidents) != 1 {
				t.Errorf("held %s, answered %+v", got, acc)
			}
			refused(t, w.change(id, view.Approve, "3-schema_rollback"), remediation.Conflict)
			w.must(w.change(id, view.Claim, ""))
			w.must(w.change(id, view.Close, ""))
			w.is(id, remediation.Closed, "")
			w.tick()
			acc = w.post("firing", "latency", "fp9")
			if len(acc.Incidents) != 1 || acc.Incidents[0] == id {
				t.Fatalf("after the close the alert was answered %+v", acc)
			}
			w.tick()
			w.is(acc.Incidents[0], remediation.Settling, "")
		})
	}
}

func TestAnAlertWhileAnOlderIncidentIsRestoredBelongsToIt(t *testing.T) {
	w := newHarness(t)
	id := backedOut(w)
	w.pass(61 * time.Minute)
	w.post("firing", "latency", "stale")
	w.post("resolved", "latency", "stale")
	w.tick()
	w.is("inc-2", remediation.Closed, "")
	w.pass(10 * time.Minute)
	w.must(w.restore(id))
	w.target("image_retag").onUndo = func() {
		_, err := w.engine.PutFreeze(w.ctx, remediation.Freeze{Scope: remediation.ScopeAll, By: "bob", Reason: "wait"})
		w.must(err)
	}
	w.tick()
	w.is(id, remediation.Waiting, remediation.HoldFrozen)
	acc := w.accept(
		firing("fpnew", "service", "shop", "trigger", "latency", "rollout", "v2"),
		firing("other", "service", "cart", "trigger", "error_rate"),
	)
	if len(acc.Incidents) != 1 || acc.Incidents[0] != id {
		t.Errorf("answered %+v", acc)
	}
}

// failing is a store that refuses one alert.
type failing struct {
	remediation.Store
	fingerprint string
	times       *atomic.Int32
}

func (f failing) Update(ctx context.Context, fn func(remediation.Tx) error) error {
	return f.Store.Update(ctx, func(tx remediation.Tx) error { return fn(failingTx{tx, f}) })
}

type failingTx struct {
	remediation.Tx
	f failing
}

func (x failingTx) PutAlert(a remediation.AlertState) error {
	if a.Fingerprint == x.f.fingerprint && a.Incident != "" && x.f.times.Add(-1) >= 0 {
		return errors.New("no such luck")
	}
	return x.Tx.PutAlert(a)
}

func TestAnAlertThatCannotBeHandledIsHeldByItself(t *testing.T) {
	for name, tc := range map[string]struct {
		times int32
		held  string
	}{"for good": {1000, "[unknown_trigger bad unknown_trigger other]"}, "once": {1, "[unknown_trigger other]"}} {
		t.Run(name, func(t *testing.T) {
			w := newHarness(t)
			w.declare("alpha")
			times := &atomic.Int32{}
			times.Store(tc.times)
			w.engine = w.newEngine(failing{w.store, "bad", times})
			w.breach("error_rate")
			w.accept(
				firing("bad", "service", "shop", "trigger", "error_rate", "rollout", "v2"),
				firing("other", "service", "cart", "trigger", "error_rate"),
				firing("dog", "alertname", "Watchdog", "service", "shop"),
			)
			if got := fmt.Sprint(w.held()); got != tc.held {
				t.Errorf("held %s, want %s", got, tc.held)
			}
			if n := len(w.entriesOf(audit.KindReceived)); n != 1 {
				t.Errorf("%d received entries", n)
			}
		})
	}
}

// fullDisk is a store that takes nothing any more once full is set.
type fullDisk struct {
	remediation.Store
	full atomic.Bool
}

func (f *fullDisk) Update(ctx context.Context, fn func(remediation.Tx) error) error {
	if f.full.Load() {
		return errors.New("database or disk is full (13)")
	}
	return f.Store.Update(ctx, fn)
}

type counting struct{ n int }

func (*counting) Name() string { return "chat" }
func (c *counting) Deliver(context.Context, remediation.Message) (string, error) {
	c.n++
	return "at", nil
}

func TestAFullDiskTellsNobodyTheSameTwice(t *testing.T) {
	c := &counting{}
	w := newHarness(t, func(s string) string { return s + "communications: {slack_channel: \"#incidents\"}\n" })
	w.team = []remediation.Channel{c}
	st := &fullDisk{Store: w.store}
	w.engine = w.newEngine(st)
	w.tick()
	c.n = 0
	_, err := w.engine.PutFreeze(w.ctx, remediation.Freeze{Scope: remediation.ScopePromotions, By: "bob", Reason: "x"})
	w.must(err)
	st.full.Store(true)
	for range 5 {
		if _, err := w.engine.Tick(w.ctx); err == nil {
			t.Fatal("nothing was to be written")
		}
	}
	if c.n != 1 {
		t.Fatalf("people were told the same %d times", c.n)
	}
	st.full.Store(false)
	w.tick()
	if c.n != 1 {
		t.Errorf("once there was room again they were told again")
	}
	w.must(w.store.View(w.ctx, func(tx remediation.Tx) error {
		pending, err := tx.PendingMessages()
		if len(pending) != 0 {
			t.Errorf("still pending: %v", pending)
		}
		return err
	}))
}

func TestAPlaybookThatCannotBeReadForAMomentIsReadAgain(t *testing.T) {
	for name, state := range map[string]remediation.State{"open": remediation.Settling, "closed": remediation.Closed} {
		t.Run(name, func(t *testing.T) {
			w := newHarness(t)
			id := w.open()
			if state == remediation.Closed {
				over(w, id)
			}
			w.is(id, state, "")
			reads := 0
			w.afterAnUpgrade(func(src []byte) ([]byte, error) {
				if reads++; reads == 1 {
					return nil, errDisk
				}
				return src, nil
			})
			acc := w.accept(firing("fp7", "service", "shop", "trigger", "latency", "rollout", "v2"))
			if !slices.Equal(acc.Incidents, []string{id}) || reads < 2 || len(w.held()) != 0 {
				t.Errorf("after %d reads it concerns %v; held %v", reads, acc.Incidents, w.held())
			}
		})
	}
}
