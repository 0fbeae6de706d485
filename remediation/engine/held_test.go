package engine_test

import (
	"context"
	"errors"
	"log/slog"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/locotoki/backout/alerts"
	"github.com/locotoki/backout/remediation"
	"github.com/locotoki/backout/remediation/audit"
	"github.com/locotoki/backout/remediation/engine"
	"github.com/locotoki/backout/remediation/view"
)

func TestARolloutThatEndedDuringAPromotionStaysEnded(t *testing.T) {
	for name, failure := range map[string]error{"that comes about": nil, "that fails": errors.New("docker is dead")} {
		for stage, begin := range map[string]func(c *canary){
			"": func(c *canary) { c.must(c.begin(remediation.RolloutStart{})) },
			"beta": func(c *canary) {
				c.started()
				c.later(day)
				c.must(c.do(remediation.RolloutPromote))
			},
		} {
			t.Run(name+" "+stage, func(t *testing.T) {
				c := newCanary(t)
				begin(c)
				c.flag.duringApply = func() {
					c.flag.duringApply = nil
					c.flag.applyErr = failure
					c.must(c.do(remediation.RolloutAbort))
					c.pass(4 * time.Minute) // longer than a rollback waits
					if r := c.rollout(); r.State == remediation.RolloutActive {
						c.must(c.change("inc-1", view.Deny, "3-schema_rollback"))
						c.tick()
					}
				}
				c.tick()
				c.tick()
				r := c.rollout()
				if r.State != remediation.RolloutAborted || r.Stage != remediation.StageNone || r.Held || r.Promotion != nil {
					t.Errorf("the rollout is %s at %s, held %v, promotion %+v; log %v", r.State, r.Stage, r.Held, r.Promotion, c.stageLog())
				}
			})
		}
	}
}

func TestAnIntentLooksForAPromotionOnceMore(t *testing.T) {
	w := newHarness(t)
	w.declare("alpha")
	w.breach("error_rate")
	begun := false
	w.target("flag_off").onLook = func(string) {
		if begun {
			return
		}
		begun = true
		w.must(w.store.Update(w.ctx, func(tx remediation.Tx) error {
			all, err := tx.Rollouts()
			if err != nil {
				return err
			}
			r := all[0]
			r.Promotion = &remediation.Promotion{To: "beta", Op: "op", Playbook: w.pb.Hash, Until: w.now.Add(time.Minute), Wake: w.now.Add(time.Hour)}
			return tx.PutRollout(r)
		}))
	}
	w.fire("error_rate", "fp1")
	if n := w.target("flag_off").effects; n != 0 {
		t.Error("the step ran while a promotion had its intent")
	}
	w.pass(time.Minute)
	if n := w.target("flag_off").effects; n != 1 {
		t.Errorf("%d effects once its time was over", n)
	}
}

func TestAPrometheusThatDoesNotAnswerSaysNothingOfAClosedIncident(t *testing.T) {
	w := newHarness(t)
	id := w.open()
	w.must(w.change(id, view.Close, ""))
	w.prom.err = remediation.ErrNoAnswer
	w.pass(time.Minute)
	if f := w.row(id).FalseSince; f != nil {
		t.Errorf("the expression is taken for false since %s", f)
	}
}

func TestARestoreInDoubtIsTriedAgain(t *testing.T) {
	w := newHarness(t)
	id := backedOut(w)
	w.target("image_retag").undoErr = remediation.InDoubt(errors.New("connection reset"))
	w.must(w.restore(id))
	w.tick()
	w.is(id, remediation.Acting, "")
	w.pass(S)
	w.is(id, remediation.Acting, "")
	w.target("image_retag").undoErr = nil
	w.pass(S)
	w.is(id, remediation.Closed, "")
	if n := w.target("image_retag").undone; n != 1 {
		t.Errorf("put back %d times", n)
	}
}

func TestAnIncidentIsRestoredAfterThoseThatCameLater(t *testing.T) {
	w := newHarness(t)
	first := backedOut(w)
	w.pass(2 * time.Hour)
	for _, k := range []string{"flag_off", "image_retag"} {
		w.target(k).position = remediation.Untouched
	}
	second := backedOut(w)
	if first == second {
		t.Fatal("it was reopened")
	}
	err := w.restore(first)
	refused(t, err, remediation.Conflict)
	if !strings.Contains(err.Error(), second+" is later") {
		t.Errorf("refused with %v", err)
	}
}

func TestTheWarmupOfAPromotionBeginsWithItsVerification(t *testing.T) {
	c := newCanary(t)
	c.started()
	c.later(day)
	c.flag.duringVerify = func() { c.now = c.now.Add(90 * time.Second) }
	c.must(c.do(remediation.RolloutPromote))
	c.tick()
	c.at(remediation.RolloutActive, "beta", "0.1")
	verified := c.now
	c.breach("error_rate")
	id := c.fire("error_rate", "fp1")
	c.pass(59 * time.Second)
	c.is(id, remediation.Confirming, "")
	c.pass(time.Second)
	if s := c.incident(id).Steps[0]; s.Started == nil || !s.Started.Equal(verified.Add(time.Minute)) {
		t.Errorf("the step began at %v, and the promotion was verified at %s", s.Started, verified)
	}
}

func TestAResolvedIsLookedAtAtOnce(t *testing.T) {
	w := newHarness(t)
	w.declare("alpha")
	w.calm("error_rate")
	id := w.fire("error_rate", "fp1")
	w.is(id, remediation.Waiting, remediation.HoldUnconfirmed)
	w.post("resolved", "error_rate", "fp1")
	w.tick()
	w.is(id, remediation.Closed, "")
}

func TestAnAbortKeepsWhatIsSaidOfAStepInDoubt(t *testing.T) {
	w := newHarness(t)
	tg := w.target("flag_off")
	tg.applyErr = remediation.InDoubt(errors.New("connection reset"))
	tg.duringApply = func() { tg.lookErr = errors.New("cannot connect to Docker") }
	id := w.open()
	w.is(id, remediation.Acting, remediation.HoldTarget)
	_, err := w.engine.ChangeRollout(w.ctx, remediation.RolloutChange{Verb: remediation.RolloutAbort, Actor: "eve", Reason: "bad"})
	w.must(err)
	w.is(id, remediation.Acting, remediation.HoldTarget)
	w.tick()
	if w.metric("backout_needs_human", "target") != 1 {
		t.Error("nobody is called any more")
	}
}

// watchable is a kind whose targets are watched; report is what the last watch was
// given, watches how many there are.
type watchable struct {
	fakeKind
	report  func(what string)
	watches atomic.Int32
}

func (k *watchable) Bind(*alerts.Playbook, any) (remediation.Action, error) {
	return &watchableTarget{k.w.target(k.name), k}, nil
}

type watchableTarget struct {
	*target
	kind *watchable
}

func (t *watchableTarget) Watch(ctx context.Context, report func(string)) error {
	t.kind.report = report
	t.kind.watches.Add(1)
	defer t.kind.watches.Add(-1)
	<-ctx.Done()
	return nil
}

// watching runs fn beside an engine that watches what a kind of action changed.
func watching(t *testing.T, name string, fn func(w *harness, kind *watchable), wrap ...func(remediation.Store) remediation.Store) {
	t.Helper()
	var kind *watchable
	running(t, func(w *harness) {
		kinds := w.kinds()
		i := slices.IndexFunc(kinds, func(k remediation.ActionKind) bool { return k.Name() == name })
		kind = &watchable{fakeKind: fakeKind{w, name, kinds[i].Risk()}}
		kinds[i] = kind
		w.with = func(st remediation.Store) *engine.Engine {
			for _, wrap := range wrap {
				st = wrap(st)
			}
			e, err := engine.New(w.ctx, engine.Options{
				Store: st, Playbooks: []*alerts.Playbook{w.pb}, Kinds: kinds, Prometheus: w.prom, Alertmanager: w.am, Mode: w.mode,
				Now: w.time, Logger: slog.New(slog.DiscardHandler),
			})
			w.must(err)
			return e
		}
	}, func(w *harness) { fn(w, kind) })
}

// retagged is an incident that put the previous image back, and is closed.
func retagged(w *harness) string {
	w.t.Helper()
	w.declare("alpha")
	w.breach("error_rate")
	id := w.post("firing", "error_rate", "fp1").Incidents[0]
	time.Sleep(6 * time.Minute)
	w.calm("error_rate")
	w.post("resolved", "error_rate", "fp1")
	time.Sleep(15 * time.Minute)
	settles()
	w.is(id, remediation.Closed, "")
	return id
}

func TestWhatAnIncidentChangedIsWatchedWhateverComesAfterIt(t *testing.T) {
	watching(t, "image_retag", func(w *harness, image *watchable) {
		id := retagged(w)
		time.Sleep(time.Minute)
		settles()
		if n := image.watches.Load(); n != 1 {
			t.Fatalf("the image that %s put back is watched %d times", id, n)
		}
		time.Sleep(2 * time.Hour)
		later := w.post("firing", "latency", "stale").Incidents[0]
		w.post("resolved", "latency", "stale")
		time.Sleep(time.Minute)
		settles()
		if w.is(later, remediation.Closed, ""); later == id {
			t.Fatal("the stale alert opened no incident of its own")
		}
		if n := image.watches.Load(); n != 1 {
			t.Errorf("after a later incident that came to nothing the image is watched %d times", n)
		}
	})
}

func TestAPlaybookThatCannotBeReadStopsNoOthersWatch(t *testing.T) {
	watching(t, "flag_off", func(w *harness, flag *watchable) {
		w.target("flag_off").duringApply = func() {
			w.must(w.store.Update(w.ctx, func(tx remediation.Tx) error {
				now := time.Now()
				return tx.PutIncident(&remediation.Incident{
					Service: "shop", PlaybookHash: "gone", State: remediation.Closed, Since: now, Opened: now, Closed: &now,
					Steps: []remediation.Step{{Number: 1, Action: "flag_off", Target: "another", Risk: alerts.Reversible, State: remediation.StepDone, Verified: true}},
				})
			}))
		}
		w.breach("error_rate")
		w.post("firing", "error_rate", "fp1")
		time.Sleep(time.Minute)
		settles()
		if n := flag.watches.Load(); n != 1 {
			t.Errorf("beside an incident whose playbook is gone, the flag is watched %d times", n)
		}
	})
}

// unreachable is a store out of which no playbook can be read for a while.
type unreachable struct {
	remediation.Store
	away *atomic.Bool
}

func (s unreachable) View(ctx context.Context, fn func(remediation.Tx) error) error {
	return s.Store.View(ctx, func(tx remediation.Tx) error { return fn(unreachableTx{tx, s.away}) })
}

type unreachableTx struct {
	remediation.Tx
	away *atomic.Bool
}

func (t unreachableTx) Playbook(hash string) ([]byte, error) {
	if t.away.Load() {
		return nil, errors.New("connection refused")
	}
	return t.Tx.Playbook(hash)
}

func TestATargetIsWatchedOnceItsPlaybookCanBeReadAgain(t *testing.T) {
	var away atomic.Bool
	away.Store(true)
	watching(t, "flag_off", func(w *harness, flag *watchable) {
		older := w.parse(strings.Replace(playbook, "warmup: 1m", "warmup: 2m", 1))
		w.must(w.store.Update(w.ctx, func(tx remediation.Tx) error {
			if err := tx.PutPlaybook(older.Hash, older.Source); err != nil {
				return err
			}
			now := time.Now()
			return tx.PutIncident(&remediation.Incident{
				Service: "shop", PlaybookHash: older.Hash, State: remediation.Closed, Since: now, Opened: now, Closed: &now,
				Steps: []remediation.Step{{Number: 1, Action: "flag_off", Target: "fake:flag_off", Plan: "ladder", Risk: alerts.Reversible, State: remediation.StepDone, Verified: true}},
			})
		}))
		time.Sleep(time.Minute)
		settles()
		if n := flag.watches.Load(); n != 0 {
			t.Fatalf("watched %d times by a playbook that cannot be read", n)
		}
		away.Store(false)
		time.Sleep(time.Minute)
		settles()
		if n := flag.watches.Load(); n != 1 {
			t.Errorf("the store answers again, and the flag is watched %d times", n)
		}
	}, func(st remediation.Store) remediation.Store { return unreachable{st, &away} })
}

// drifts is how many drifts an incident's log has.
func (w *harness) drifts(id string) (n int) {
	for _, e := range w.entries(id) {
		if e.Kind == audit.KindDrift {
			n++
		}
	}
	return n
}

func TestWhatARestorePutsBackIsNoDrift(t *testing.T) {
	watching(t, "image_retag", func(w *harness, image *watchable) {
		id := retagged(w)
		if image.report == nil {
			t.Fatal("nobody watches the target")
		}
		image.report("somebody pulled v2")
		if n := w.drifts(id); n != 1 {
			t.Errorf("%d drifts were recorded, want 1", n)
		}
		if s := w.incident(id).Steps[1]; s.State != remediation.StepDone || s.Changed == nil {
			t.Errorf("after the drift its step is shown as %+v", s)
		}
		w.target("image_retag").onUndo = func() { image.report("v2 runs again") }
		w.must(w.restore(id))
		time.Sleep(time.Minute)
		settles()
		if n := w.drifts(id); n != 1 {
			t.Errorf("what the restore did was taken for drift: %d", n)
		}
	})
}
