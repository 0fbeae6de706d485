package engine_test

import (
	"context"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/locotoki/backout/alerts"
	"github.com/locotoki/backout/remediation"
	"github.com/locotoki/backout/remediation/audit"
	"github.com/locotoki/backout/remediation/view"
)

// running runs fn beside the engine's own Run, in a bubble whose time goes by
// only while everything waits. set prepares the harness before Run begins.
func running(t *testing.T, set func(w *harness), fn func(w *harness), edit ...func(string) string) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		w := newHarness(t, edit...)
		w.clock = time.Now
		if set != nil {
			set(w)
		}
		w.start()
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan error, 1)
		go func() { ended <- w.engine.Run(ctx) }()
		fn(w)
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
}

// settles waits until the engine has done all that is to be done now.
func settles() { synctest.Wait() }

func TestTheTeamHearsOfAStepWhileItRuns(t *testing.T) {
	c := &chat{}
	running(t, func(w *harness) { w.team = []remediation.Channel{c} }, func(w *harness) {
		w.declare("alpha")
		w.breach("error_rate")
		begun, goOn := make(chan struct{}), make(chan struct{})
		// The second step: a timer begins it, and nothing else wakes the outbox.
		w.target("image_retag").duringApply = func() { close(begun); <-goOn }
		w.post("firing", "error_rate", "fp1")
		<-begun
		settles()
		c.mu.Lock()
		n := len(c.got)
		last := c.got[n-1]
		c.mu.Unlock()
		if last.Story == nil || last.Story.State != remediation.Acting {
			t.Errorf("while the step runs the team was told last %+v", last)
		}
		close(goOn)
		settles()
		if titles := c.told(); !slices.Contains(titles, "Outcome: 2-image_retag done") {
			t.Errorf("the team was told %q", titles)
		}
	}, replace("max_age: 5m", "max_age: 1h"), func(s string) string { return s + "communications: {slack_channel: \"#incidents\"}\n" })
}

func TestThePanicOfAnActionIsTheStepsOwn(t *testing.T) {
	panics := func() { panic("an answer that nobody thought of") }
	cases := []struct {
		name   string
		set    func(w *harness)
		state  remediation.State
		reason remediation.Reason
		step   remediation.StepState
	}{
		{"in its look", func(w *harness) {
			w.target("flag_off").onLook = func(op string) { panics() }
		}, remediation.Waiting, remediation.HoldTarget, remediation.StepWaiting},
		{"in its effect, each time", func(w *harness) { w.target("flag_off").duringApply = panics }, remediation.Waiting, remediation.HoldStepFailed, remediation.StepUndone},
		{"in its undo", func(w *harness) {
			w.target("flag_off").applyErr = errDisk
			w.target("flag_off").onUndo = panics
		}, remediation.Waiting, remediation.HoldStepFailed, remediation.StepFailed},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			running(t, c.set, func(w *harness) {
				w.declare("alpha")
				w.breach("error_rate")
				id := w.post("firing", "error_rate", "fp1").Incidents[0]
				time.Sleep(time.Minute)
				settles()
				w.is(id, c.state, c.reason)
				if s := w.incident(id).Steps[0]; s.State != c.step {
					t.Errorf("the step is %s, want %s; log %v", s.State, c.step, w.log(id))
				}
				if n := w.metric("backout_needs_human", "shop"); n != 1 {
					t.Error("nobody is called")
				}
			})
		})
	}
}

// panicking are neighbours of the engine that do nothing but panic.
type panicking struct{}

func (panicking) Name() string { return "panicking" }
func (panicking) Deliver(context.Context, remediation.Message) (string, error) {
	panic("a channel's answer")
}
func (panicking) Silenced(context.Context, []string) (map[string]bool, error) {
	panic("an alertmanager's answer")
}

func TestThePanicOfANeighbourIsAnAnswerThatFailed(t *testing.T) {
	running(t, func(w *harness) { w.team = []remediation.Channel{panicking{}}; w.alertmanager = panicking{} }, func(w *harness) {
		w.declare("alpha")
		w.breach("error_rate")
		id := w.post("firing", "error_rate", "fp1").Incidents[0]
		time.Sleep(time.Minute)
		settles()
		w.is(id, remediation.Settling, "") // neither holds a step
		if n := w.metric("backout_outbox_deliveries_total", "failed"); n < 2 {
			t.Errorf("%v failed deliveries", n)
		}
	}, func(s string) string { return s + "communications: {slack_channel: \"#incidents\"}\n" })
}

// broken is a store in which, while it is so, no intent can be appended.
type broken struct {
	remediation.Store
	is atomic.Bool
}

func (s *broken) Update(ctx context.Context, fn func(remediation.Tx) error) error {
	return s.Store.Update(ctx, func(tx remediation.Tx) error { return fn(&brokenTx{tx, s}) })
}

type brokenTx struct {
	remediation.Tx
	s *broken
}

func (tx *brokenTx) Append(e audit.Entry) (audit.Entry, error) {
	if e.Kind == audit.KindIntent && tx.s.is.Load() {
		return e, errDisk
	}
	return tx.Tx.Append(e)
}

func TestAnIncidentThatDoesNotGetOnCallsAPersonOnce(t *testing.T) {
	st := &broken{}
	st.is.Store(true)
	running(t, func(w *harness) { w.wrap = func(s remediation.Store) remediation.Store { st.Store = s; return st } }, func(w *harness) {
		w.declare("alpha")
		w.breach("error_rate")
		id := w.post("firing", "error_rate", "fp1").Incidents[0]
		pages := func() (n int) {
			for _, e := range w.entries(id) {
				if e.Detail["reason"] == "stuck" {
					n++
				}
			}
			return n
		}
		time.Sleep(3 * time.Second)
		settles()
		if n := pages(); n != 0 {
			t.Errorf("%d pages after three seconds", n)
		}
		time.Sleep(10 * time.Minute)
		settles()
		if n := pages(); n != 1 || w.metric("backout_needs_human", "stuck") != 1 {
			t.Errorf("%d pages after ten minutes; log %v", n, w.log(id))
		}
		w.row(id)
		st.is.Store(false)
		time.Sleep(time.Minute)
		settles()
		if n := w.target("flag_off").effects; n != 1 {
			t.Errorf("%d effects once it gets on again", n)
		}
		if p := w.row(id).Paged; slices.Contains(p, "stuck") {
			t.Errorf("still paged for: %v", p)
		}
	})
}

func TestAStoreThatTakesNothingCallsAPersonAllTheSame(t *testing.T) {
	st := &full{}
	running(t, func(w *harness) { w.wrap = func(s remediation.Store) remediation.Store { st.Store = s; return st } }, func(w *harness) {
		w.declare("alpha")
		w.breach("error_rate")
		w.post("firing", "error_rate", "fp1")
		st.is.Store(true)
		time.Sleep(10 * time.Minute)
		settles()
		if w.metric("backout_needs_human", "stuck") != 1 {
			t.Error("nobody is called")
		}
		st.is.Store(false)
	})
}

// full is a store that takes nothing while it is full.
type full struct {
	remediation.Store
	is atomic.Bool
}

func (s *full) Update(ctx context.Context, fn func(remediation.Tx) error) error {
	if s.is.Load() {
		return errDisk
	}
	return s.Store.Update(ctx, fn)
}

func TestRunDoesEveryDutyOfTick(t *testing.T) {
	// Prometheus away and the watchdog silent: housekeeping and the look-out.
	running(t, func(w *harness) { w.prom.err = remediation.ErrNoAnswer }, func(w *harness) {
		until := w.time().Add(time.Minute)
		_, err := w.engine.PutFreeze(w.ctx, remediation.Freeze{Scope: remediation.ScopeAll, Until: &until, By: "eve", Reason: "x"})
		w.must(err)
		time.Sleep(6 * time.Minute)
		settles()
		if w.metric("backout_blind", "prometheus") != 1 || w.metric("backout_blind", "watchdog") != 1 {
			t.Error("nobody noticed that Prometheus and the watchdog are away")
		}
		es, err := w.engine.Entries(w.ctx, audit.Filter{Kind: audit.KindThawed})
		w.must(err)
		if len(es) != 1 {
			t.Errorf("a freeze that ran out: %+v", es)
		}
	})
}

func TestRunPromotesByItself(t *testing.T) {
	running(t, func(w *harness) { w.prom.criterion = 0.0001 }, func(w *harness) {
		c := canary{harness: w, flag: w.flag}
		w.now = w.time()
		c.beat()
		c.prove()
		c.must(c.begin(remediation.RolloutStart{Auto: true}))
		for range 3 * 60 {
			time.Sleep(time.Minute)
			c.beat()
		}
		settles()
		c.at(remediation.RolloutActive, "beta", "0.1")
	}, replace("duration: 1d", "duration: 2h"))
}

func TestOneWorkerForAnIncident(t *testing.T) {
	running(t, nil, func(w *harness) {
		w.declare("alpha")
		w.breach("error_rate")
		calls := 0
		goOn := make(chan struct{})
		w.target("flag_off").duringApply = func() { calls++; <-goOn }
		w.post("firing", "error_rate", "fp1")
		settles()
		for range 3 { // each of these wakes the engine while the step runs
			w.raise(vulnerable)
			_, err := w.engine.ClearSignal(w.ctx, "shop", vulnerable, "ann", "x")
			w.must(err)
			settles()
		}
		close(goOn)
		settles()
		if calls != 1 {
			t.Errorf("the action was called %d times", calls)
		}
	})
}

func TestAnAdvanceThatFailedIsTriedAgain(t *testing.T) {
	st := &broken{}
	running(t, func(w *harness) { w.wrap = func(s remediation.Store) remediation.Store { st.Store = s; return st } }, func(w *harness) {
		w.declare("alpha")
		w.breach("error_rate")
		st.is.Store(true)
		w.post("firing", "error_rate", "fp1")
		settles()
		st.is.Store(false)
		time.Sleep(2 * time.Second)
		settles()
		if n := w.target("flag_off").effects; n != 1 {
			t.Errorf("%d effects", n)
		}
	})
}

func TestARunningStepCountsForTheBlastRadius(t *testing.T) {
	w := newHarness(t, limits("per_target: 3/1h, per_service: 3/1h, blast_radius: 1/10m, cooldown: 10m, breaker: 3"))
	twoServices(w)
	w.breach("error_rate")
	applies := 0
	for service, other := range map[string]string{"shop": "cart", "cart": "shop"} {
		w.target(service + ":flag_off").duringApply = func() {
			if applies++; applies > 1 {
				return
			}
			w.post("firing", "error_rate", "fp of "+other, "service", other)
			w.tick() // another worker, meanwhile
		}
	}
	w.fire("error_rate", "fp of shop")
	if applies != 1 {
		t.Errorf("%d services were changed at once, with a blast radius of 1", applies)
	}
}

func TestAnOpenIncidentGrowsByItsOwnPlaybook(t *testing.T) {
	w := newHarness(t)
	id := w.open()
	w.must(w.engine.Reload(w.ctx, []*alerts.Playbook{w.parse(strings.Replace(string(w.pb.Source), "      - {action: restart, settle: 5m}\n", "", 1))}, remediation.Reloaded{}))
	w.breach("latency")
	w.fire("latency", "fp2")
	if !slices.ContainsFunc(w.incident(id).Steps, func(s view.StepView) bool { return s.Action == "restart" }) {
		t.Errorf("the steps are %+v", w.incident(id).Steps)
	}
}

func TestNothingRunsWhileTheShortWindowIsCalm(t *testing.T) {
	w := newHarness(t)
	w.declare("alpha")
	freeze(w, 10*time.Minute)
	w.breach("error_rate")
	id := w.fire("error_rate", "fp1")
	w.pass(9*time.Minute + 50*time.Second)
	w.cured("error_rate")
	w.pass(25 * time.Second) // the freeze has ended, and fewer than three polls were calm
	if w.target("flag_off").effects != 0 {
		t.Errorf("a step ran while the short window is calm: %v", w.log(id))
	}
}

func TestAnApprovedStepThatCannotRunLapses(t *testing.T) {
	w := newHarness(t)
	id := w.open()
	w.pass(12 * time.Minute)
	w.is(id, remediation.Waiting, remediation.HoldApproval)
	w.prom.alive = 0 // blind: neither breaching nor calm
	w.pass(time.Minute)
	w.must(w.change(id, view.Approve, "3-schema_rollback"))
	w.pass(40 * time.Minute)
	w.steps(id, remediation.StepDone, remediation.StepDone, remediation.StepSkipped)
}
