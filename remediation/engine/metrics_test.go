package engine_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/locotoki/backout/alerts"
	"github.com/locotoki/backout/remediation"
	"github.com/locotoki/backout/remediation/audit"
	"github.com/locotoki/backout/remediation/view"
)

// flaky is a store of which every third commit fails, beginning with the first.
type flaky struct {
	remediation.Store
	n int
}

var errDisk = errors.New("disk I/O error")

func (f *flaky) Update(ctx context.Context, fn func(remediation.Tx) error) error {
	f.n++
	if f.n%3 != 1 {
		return f.Store.Update(ctx, fn)
	}
	return f.Store.Update(ctx, func(tx remediation.Tx) error {
		return errors.Join(fn(tx), errDisk)
	})
}

func TestWhatWasNotCommittedIsNotCounted(t *testing.T) {
	w := newHarness(t)
	st := &flaky{Store: w.store, n: 1}
	w.engine = w.newEngine(st)
	ticks := func() {
		for range 50 {
			_, err := w.engine.Tick(w.ctx)
			if err == nil {
				return
			}
			if !errors.Is(err, errDisk) {
				t.Fatal(err)
			}
		}
		t.Fatal("the engine does not get on")
	}
	st.n = 1
	freeze(w, time.Minute)
	w.breach("error_rate")
	st.n = 1
	w.post("firing", "error_rate", "fp1")
	st.n = 0
	ticks()
	if n := w.metric("backout_holds_total", "frozen"); n != 1 {
		t.Errorf("%v holds were counted, want 1", n)
	}
	w.now = w.now.Add(time.Minute)
	st.n = 0
	ticks()
	w.is("inc-1", remediation.Settling, "")
	if n := w.metric("backout_steps_total", "flag_off"); n != 1 {
		t.Errorf("%v steps were counted, want 1", n)
	}
}

func TestAPersonIsNeededThoughTheServiceWasLeftOutOfAReload(t *testing.T) {
	w := newHarness(t, fullLadder)
	w.target("flag_off").applyErr = errors.New("docker is dead")
	id := w.open()
	w.is(id, remediation.Waiting, remediation.HoldStepFailed)
	w.must(w.engine.Reload(w.ctx, []*alerts.Playbook{}, remediation.Reloaded{}))
	if n := w.metric("backout_needs_human", "step_failed"); n != 1 {
		t.Errorf("backout_needs_human is %v", n)
	}
	if n := w.metric("backout_incidents_open", "shop"); n != 1 {
		t.Errorf("%v incidents are open", n)
	}
}

func TestTheWarmupBeginsWithTheEndOfAStep(t *testing.T) {
	t.Run("that was done", func(t *testing.T) {
		w := newHarness(t)
		w.target("flag_off").duringApply = func() { w.now = w.now.Add(3 * time.Minute) }
		id := w.open()
		w.must(w.change(id, view.Close, ""))
		w.post("resolved", "error_rate", "fp1")
		ended := w.now
		w.fire("error_rate", "fp2")
		w.pass(59 * time.Second)
		if p := w.row(id).Polled; p.After(ended) {
			t.Fatalf("asked %s after the step had ended", p.Sub(ended))
		}
		w.pass(time.Second)
		if p := w.row(id).Polled; !p.Equal(ended.Add(time.Minute)) {
			t.Fatalf("asked at %s, want a minute after %s", p, ended)
		}
	})
	t.Run("that was undone", func(t *testing.T) {
		w := newHarness(t, replace("{action: flag_off, settle: 5m}", "{action: flag_off, settle: 5m, on_failure: next}"))
		w.target("flag_off").applyErr = errors.New("unhealthy")
		w.target("flag_off").onUndo = func() { w.now = w.now.Add(3 * time.Minute) }
		id := w.open()
		ended := w.now
		w.pass(time.Minute + 2*S - time.Second)
		w.effects(0, 0, 0)
		w.pass(time.Second)
		w.effects(0, 1, 0)
		if p := w.row(id).Polled; !p.Equal(ended.Add(time.Minute + 2*S)) {
			t.Fatalf("asked at %s, the undo ended at %s", p, ended)
		}
	})
	t.Run("that found nothing to do: there is none", func(t *testing.T) {
		w := newHarness(t)
		w.target("flag_off").position = remediation.Wanted
		id := w.open()
		w.must(w.change(id, view.Close, ""))
		w.post("resolved", "error_rate", "fp1")
		w.fire("error_rate", "fp2")
		if p := w.row(id).Polled; !p.Equal(w.now) {
			t.Fatalf("asked at %s, and it is %s", p, w.now)
		}
	})
}

func TestAReloadSaysWhoAskedAndWhatChanged(t *testing.T) {
	w := newHarness(t)
	was := w.pb.Hash
	other := w.parse(strings.Replace(string(w.pb.Source), "warmup: 1m", "warmup: 2m", 1))
	w.must(w.engine.Reload(w.ctx, []*alerts.Playbook{other}, remediation.Reloaded{Actor: "eve", Changed: []string{"token bob (viewer) added"}}))
	w.must(w.engine.Reload(w.ctx, nil, remediation.Reloaded{}))
	started := w.entriesOf(audit.KindStarted)
	for i, want := range []string{
		"backout started, by engine: ",
		"Configuration and playbooks reloaded, by eve: token bob (viewer) added, playbook of shop is " + other.Hash + ", was " + was,
		"Configuration and playbooks reloaded, by engine: playbook of shop removed: " + other.Hash,
	} {
		told := view.Describe(started[i])
		if got := fmt.Sprintf("%s, by %s: %s", told.Title, told.Actor, told.Why); got != want {
			t.Errorf("entry %d: %s\nwant %s", i, got, want)
		}
	}
}
