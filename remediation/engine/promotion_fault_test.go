package engine_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil"

	"github.com/locotoki/backout/remediation"
	"github.com/locotoki/backout/remediation/audit"
	"github.com/locotoki/backout/remediation/store/storetest"
	"github.com/locotoki/backout/remediation/view"
)

func TestAPromotionThatFailsIsUndoneAndTheRolloutHeld(t *testing.T) {
	for name, spoil := range map[string]func(f *flag){
		"its effect fails":  func(f *flag) { f.applyErr = errors.New("no such image") },
		"it does not work":  func(f *flag) { f.verifyErr = errors.New("health answers 500") },
		"it fails half-way": func(f *flag) { f.cut, f.applyErr = true, errors.New("cut") },
	} {
		t.Run(name, func(t *testing.T) {
			c := newCanary(t)
			c.started()
			c.later(day)
			spoil(c.flag)
			c.must(c.do(remediation.RolloutPromote))
			c.tick()
			c.at(remediation.RolloutActive, "alpha", "0.01")
			if c.flag.half != "" || !c.rollout().Held {
				t.Errorf("half of %q is left, held: %t", c.flag.half, c.rollout().Held)
			}
			log := c.stageLog()
			if got := strings.Join(log[len(log)-3:], "; "); got != "intent promote-beta undo=true; outcome promote-beta undo=true outcome=undone; stage state=active stage=alpha held=true promotion=undone" {
				t.Errorf("the log ends %q", got)
			}
			*c.flag = flag{value: "0.01"}
			c.must(c.do(remediation.RolloutResume))
			c.must(c.do(remediation.RolloutPromote))
			c.tick()
			c.at(remediation.RolloutActive, "beta", "0.1")
		})
	}
}

func TestAPromotionWhoseVerificationSawNothingStays(t *testing.T) {
	c := newCanary(t)
	c.started()
	c.later(day)
	c.flag.verifyErr = remediation.InDoubt(errors.New("launchdarkly answers 503"))
	c.flag.duringVerify = func() { c.now = c.now.Add(time.Minute) } // it looks for as long as it may
	c.must(c.do(remediation.RolloutPromote))
	c.tick()
	c.staged("intent promote-beta", "outcome promote-beta outcome=done", "in_doubt promote-beta")
	var err error
	for range 10 {
		c.now = c.now.Add(30 * time.Second)
		_, err = c.engine.Tick(c.ctx)
	}
	if err == nil || c.metric("backout_needs_human", "stuck") != 1 {
		t.Errorf("a person is called: %v (%v)", c.metric("backout_needs_human", "stuck"), err)
	}
	c.flag.verifyErr, c.flag.duringVerify = nil, nil
	c.now = c.now.Add(time.Minute)
	c.tick()
	c.at(remediation.RolloutActive, "beta", "0.1")
	if n := len(c.flag.history); n != 2 {
		t.Errorf("the flag was set %d times: %v", n, c.flag.history)
	}
}

func TestAnIncidentTakesOverAPromotionThatNobodyCanVerify(t *testing.T) {
	c := newCanary(t)
	c.started()
	c.later(day)
	c.flag.verifyErr = remediation.InDoubt(errors.New("launchdarkly answers 503"))
	c.must(c.do(remediation.RolloutPromote))
	c.tick()
	c.breach("error_rate")
	id := c.fire("error_rate", "fp1")
	c.pass(2*time.Minute + 50*time.Second)
	c.is(id, remediation.Confirming, "")
	c.pass(time.Minute)
	c.is(id, remediation.Settling, "")
	if p := c.rollout().Promotion; p != nil || c.flag.value != "0.1" || c.target("flag_off").effects != 1 {
		t.Errorf("the promotion is %+v, the flag %s", p, c.flag.value)
	}
}

func TestAStartThatFailsIsNoRollout(t *testing.T) {
	c := newCanary(t)
	c.flag.verifyErr = errors.New("health answers 500")
	c.must(c.begin(remediation.RolloutStart{}))
	c.tick()
	c.at(remediation.RolloutNone, "none", "0")
	c.stageMetric("none", "0")
	c.flag.verifyErr = nil
	c.now = c.now.Add(time.Second)
	c.started()
}

func TestAPromotionThatCannotBeUndoneSaysSo(t *testing.T) {
	c := newCanary(t)
	c.started()
	c.later(day)
	c.flag.verifyErr, c.flag.undoErr = errors.New("health answers 500"), errors.New("disk full")
	c.must(c.do(remediation.RolloutPromote))
	c.tick()
	c.at(remediation.RolloutActive, "alpha", "0.1")
	c.staged("outcome promote-beta undo=true outcome=failed", "stage state=active stage=alpha held=true promotion=failed")
}

func TestAPromotionThatHasEndedMeanwhileUndoesNothing(t *testing.T) {
	c := newCanary(t)
	c.started()
	c.later(day)
	c.flag.applyErr = errors.New("no such image")
	c.flag.duringApply = func() {
		c.must(c.store.Update(c.ctx, func(tx remediation.Tx) error {
			r, err := remediation.RolloutOf(tx, "shop")
			if err != nil {
				return err
			}
			r.Promotion = nil
			return tx.PutRollout(r)
		}))
	}
	c.flag.duringUndo = func() { t.Error("the target was changed for a promotion that is over") }
	c.must(c.do(remediation.RolloutPromote))
	c.tick()
}

func TestWhatIsSetForAPromotionThatHasEndedIsSaidAndHoldsTheRollout(t *testing.T) {
	for name, other := range map[string]bool{"ended": false, "another one": true} {
		t.Run(name, func(t *testing.T) {
			c := newCanary(t)
			c.started()
			c.later(day)
			c.flag.duringApply = func() {
				c.flag.duringApply = nil
				c.must(c.store.Update(c.ctx, func(tx remediation.Tx) error {
					r, err := remediation.RolloutOf(tx, "shop")
					if err != nil {
						return err
					}
					if r.Promotion.Op = "another"; !other {
						r.Promotion = nil
					}
					return tx.PutRollout(r)
				}))
			}
			c.must(c.do(remediation.RolloutPromote))
			c.tick()
			es, err := c.engine.Entries(c.ctx, audit.Filter{Kind: audit.KindLateOutcome})
			c.must(err)
			if len(es) != 1 || es[0].Detail["outcome"] != "done" || es[0].Step != "promote-beta" {
				t.Errorf("the audit log has %+v", es)
			}
			rs, err := c.engine.Rollouts(c.ctx)
			c.must(err)
			if !rs[0].Held {
				t.Error("the rollout goes on")
			}
		})
	}
}

func TestAPersonIsCalledForTrafficThatIsSetAfterARollback(t *testing.T) {
	for name, incident := range map[string]remediation.State{"no incident": "", "an open incident": remediation.Settling, "a closed incident": remediation.Closed} {
		t.Run(name, func(t *testing.T) {
			c := newCanary(t)
			c.started()
			c.later(day)
			c.flag.duringApply = func() {
				c.flag.duringApply = nil
				if incident != "" {
					c.post("firing", "error_rate", "fp1")
				}
				c.must(c.store.Update(c.ctx, func(tx remediation.Tx) error {
					if incident != "" {
						inc, err := tx.Incident("inc-1")
						if err != nil {
							return err
						}
						inc.State, inc.Wake = incident, time.Time{}
						if incident == remediation.Closed {
							inc.Closed = &c.now
						}
						if err := tx.PutIncident(inc); err != nil {
							return err
						}
					}
					r, err := remediation.RolloutOf(tx, "shop")
					if err != nil {
						return err
					}
					r.Promotion, r.State = nil, remediation.RolloutRolledBack
					return tx.PutRollout(r)
				}))
			}
			c.must(c.do(remediation.RolloutPromote))
			c.tick()
			es, err := c.engine.Entries(c.ctx, audit.Filter{Kind: audit.KindNotified})
			c.must(err)
			es = slices.DeleteFunc(es, func(en audit.Entry) bool { return view.PageReason(en) != string(remediation.HoldTarget) })
			if len(es) != 1 || es[0].Service != "shop" || !strings.Contains(fmt.Sprint(es[0].Detail["why"]), "set FEATURE_A to 0.1 on ") {
				t.Fatalf("the audit log has %+v", es)
			}
			o, err := c.engine.Overview(c.ctx)
			c.must(err)
			if called := slices.Contains(o.Needed, view.Needed{Service: "shop", Reason: string(remediation.HoldTarget), Incident: "inc-1"}); called != (incident != "") {
				t.Errorf("a person is called for %+v", o.Needed)
			}
		})
	}
}

func TestPromotionsThatFailInARowTripTheBreaker(t *testing.T) {
	c := newCanary(t)
	c.started()
	c.later(day)
	c.flag.applyErr = errors.New("no such image")
	for range 3 {
		c.must(c.do(remediation.RolloutPromote, true))
		c.tick()
		c.now = c.now.Add(time.Second)
	}
	c.notYet("limit breaker 3", true)
	// The way back has a breaker of its own.
	c.breach("error_rate")
	id := c.fire("error_rate", "fp1")
	c.pass(2 * time.Minute)
	c.is(id, remediation.Settling, "")
}

func TestAPromotionInDoubtIsLookedAt(t *testing.T) {
	doubt := remediation.InDoubt(context.DeadlineExceeded)
	t.Run("it happened", func(t *testing.T) {
		c := newCanary(t)
		c.started()
		c.flag.lost, c.flag.applyErr = true, doubt
		c.must(c.do(remediation.RolloutPromote, true))
		c.tick()
		c.at(remediation.RolloutActive, "beta", "0.1")
		c.staged("in_doubt promote-beta seen=wanted", "outcome promote-beta outcome=done", "verified promote-beta", "stage state=active stage=beta")
	})
	t.Run("it did not", func(t *testing.T) {
		c := newCanary(t)
		c.started()
		c.flag.applyErr = doubt
		c.must(c.do(remediation.RolloutPromote, true))
		c.tick()
		c.at(remediation.RolloutActive, "alpha", "0.01")
		c.staged("in_doubt promote-beta seen=untouched", "stage state=active stage=alpha promotion=pending")
	})
	t.Run("half of it did", func(t *testing.T) {
		c := newCanary(t)
		c.started()
		c.flag.cut, c.flag.applyErr = true, doubt
		c.flag.duringApply = func() { c.flag.duringApply = func() { c.flag.cut, c.flag.applyErr = false, nil } }
		c.must(c.do(remediation.RolloutPromote, true))
		c.tick()
		c.at(remediation.RolloutActive, "beta", "0.1")
		c.staged("in_doubt promote-beta seen=half_way", "outcome promote-beta outcome=done", "verified promote-beta", "stage state=active stage=beta")
	})
}

// cutOff leaves a promotion to beta after its effect, with its outcome not written.
func (c *canary) cutOff() {
	c.t.Helper()
	c.crashing(3, storetest.BeforeCommit) // its own start, the intent, the outcome
	c.must(c.do(remediation.RolloutPromote, true))
	if _, err := c.engine.Tick(c.ctx); !errors.Is(err, storetest.ErrCrash) {
		c.t.Fatalf("no crash: %v", err)
	}
	c.engine = c.newEngine(c.store)
}

func TestARestartLooksAtAPromotionUntilItCanBeSeen(t *testing.T) {
	c := newCanary(t)
	c.started()
	c.cutOff()
	c.flag.lookErr = errors.New("cannot connect to the Docker daemon")
	for range 10 {
		c.now = c.now.Add(time.Minute)
		c.engine.Tick(c.ctx) //nolint:errcheck // it fails once its time is over
	}
	c.staged("intent promote-beta forced=[duration]", "in_doubt promote-beta")
	c.notYet("promote-beta of shop is in progress", true)
	refused(t, c.do(remediation.RolloutFinish, true), remediation.Conflict)
	c.flag.lookErr = nil
	c.pass(time.Minute)
	c.at(remediation.RolloutActive, "beta", "0.1")
	if n := len(c.flag.history); n != 2 {
		t.Errorf("the flag was set %d times: %v", n, c.flag.history)
	}
}

func TestAPromotionInDoubtThatStaysUnseenCallsAPersonOnce(t *testing.T) {
	team := &chat{}
	c := newCanary(t, func(s string) string { return s + "communications: {slack_channel: \"#incidents\"}\n" })
	c.team = []remediation.Channel{team}
	c.start()
	c.started()
	c.cutOff()
	c.flag.lookErr = errors.New("cannot connect to the Docker daemon")
	c.pass(2*time.Minute + 50*time.Second)
	if !slices.Contains(team.told(), "In doubt: promote-beta") {
		t.Errorf("the team was told %q", team.told())
	}
	pages := func() (n int) {
		es, err := c.engine.Entries(c.ctx, audit.Filter{Service: "shop", Kind: audit.KindNotified})
		c.must(err)
		for _, e := range es {
			if e.Detail["reason"] == "stuck" {
				n++
			}
		}
		return n
	}
	if n := pages(); n != 0 {
		t.Errorf("called within its time")
	}
	var err error
	for range 20 {
		c.now = c.now.Add(30 * time.Second)
		_, err = c.engine.Tick(c.ctx)
	}
	if n := pages(); n != 1 || c.metric("backout_needs_human", "stuck") != 1 || err == nil || !strings.Contains(err.Error(), "promote-beta of shop is in doubt") {
		t.Errorf("called %d times; %v", n, err)
	}
	c.flag.lookErr = nil
	c.now = c.now.Add(30 * time.Second)
	c.tick()
	c.at(remediation.RolloutActive, "beta", "0.1")
	if testutil.CollectAndCount(c.engine, "backout_needs_human") != 0 {
		t.Error("nobody needs to come any more")
	}
}

func TestAnIncidentWaitsForAPromotionThatIsUnderWay(t *testing.T) {
	c := newCanary(t)
	c.started()
	c.later(day)
	c.breach("error_rate")
	c.prom.value["error_rate"] = 0
	c.flag.duringApply = func() {
		c.flag.duringApply = nil
		c.breach("error_rate")
		c.post("firing", "error_rate", "fp1")
		c.tick() // another worker has it at once, and waits
		if c.target("flag_off").effects != 0 {
			t.Error("a step ran in the middle of a promotion")
		}
	}
	c.must(c.do(remediation.RolloutPromote))
	c.tick()
	c.at(remediation.RolloutActive, "beta", "0.1") // what happened is told as it is
	c.pass(2 * time.Minute)
	c.is("inc-1", remediation.Settling, "")
	c.notYet("incident inc-1 is open", true)
}

func TestAnIncidentWaitsForAPromotionAtMostItsTimeout(t *testing.T) {
	c := newCanary(t)
	c.started()
	c.cutOff()
	c.flag.lookErr = errors.New("cannot connect to the Docker daemon")
	c.breach("error_rate")
	id := c.fire("error_rate", "fp1")
	c.pass(2*time.Minute + 50*time.Second)
	c.is(id, remediation.Confirming, "")
	c.pass(20 * time.Second)
	c.is(id, remediation.Settling, "")
	if c.target("flag_off").effects != 1 {
		t.Fatal("the flag was not switched off")
	}
	c.flag.lookErr = nil
	c.pass(time.Minute)
	if p := c.rollout().Promotion; p != nil {
		t.Fatalf("the promotion goes on against the incident: %+v", p)
	}
	if n := len(c.flag.history); n != 2 {
		t.Errorf("the flag was set behind the incident's back: %v", c.flag.history)
	}
	c.calm("error_rate")
	c.pass(20 * time.Minute)
	c.is(id, remediation.Closed, "")
	c.stageMetric("none", "0")
}

func TestAHalfDonePromotionIsSettledBeforeAnIncidentActs(t *testing.T) {
	c := newCanary(t)
	c.started()
	c.flag.cut, c.flag.applyErr = true, errors.New("cut")
	c.crashing(3, storetest.BeforeCommit) // its own start, the intent, the undo's intent
	c.must(c.do(remediation.RolloutPromote, true))
	if _, err := c.engine.Tick(c.ctx); !errors.Is(err, storetest.ErrCrash) {
		t.Fatalf("no crash: %v", err)
	}
	c.flag.cut, c.flag.applyErr = false, nil
	c.engine = c.newEngine(c.store)
	down := errors.New("cannot connect to the Docker daemon")
	c.flag.lookErr, c.target("flag_off").lookErr = down, down
	c.breach("error_rate")
	id := c.fire("error_rate", "fp1")
	c.pass(10 * time.Minute)
	c.is(id, remediation.Waiting, remediation.HoldTarget)
	c.flag.lookErr, c.target("flag_off").lookErr = nil, nil
	c.target("flag_off").onLook = func(string) {
		if c.flag.half != "" && c.rollout().Promotion == nil {
			t.Error("the promotion ended with its target half-way")
		}
	}
	c.pass(3 * time.Minute)
	c.is(id, remediation.Settling, "")
	if c.flag.half != "" || c.flag.value != "0.01" || c.target("flag_off").effects != 1 {
		t.Errorf("half of %q is left, the flag is %s", c.flag.half, c.flag.value)
	}
	if r := c.rollout(); r.Stage != "alpha" || r.Promotion != nil {
		t.Errorf("the rollout is %+v", r)
	}
}

func TestAnIncidentThatOpensFirstCancelsThePromotion(t *testing.T) {
	c := newCanary(t)
	c.started()
	c.later(day)
	c.flag.onLook = func() { // after all was asked, before the intent
		c.flag.onLook = nil
		c.post("firing", "error_rate", "fp1")
	}
	before := len(c.stageLog())
	err := c.do(remediation.RolloutPromote, true)
	refused(t, err, remediation.Conflict)
	if !strings.Contains(err.Error(), "incident inc-1 is open") || len(c.stageLog()) != before || c.flag.value != "0.01" {
		t.Errorf("%v; the flag is %s; %v", err, c.flag.value, c.stageLog())
	}
}

// TestACrashAtEveryCommitOfAPromotionLosesAndDoublesNothing cuts the engine off
// before and after each commit of a start and a promotion, one that fails first.
func TestACrashAtEveryCommitOfAPromotionLosesAndDoublesNothing(t *testing.T) {
	storetest.EveryCommit(t, 11, crashRollout)
}

func crashRollout(t *testing.T, commit int, when storetest.When) (crashed bool) {
	t.Helper()
	c := newCanary(t)
	restart := func() {
		crashed = true
		c.now = c.now.Add(time.Second)
		c.engine = c.newEngine(c.store)
	}
	if e, err := c.tryEngine(storetest.Crashing(c.store, commit, when)); err != nil {
		restart()
	} else {
		c.engine = e
	}
	run := func() {
		for {
			if _, err := c.engine.Tick(c.ctx); err == nil {
				return
			}
			restart()
		}
	}
	// ask is what a pipeline does: it asks until the rollout is where it wants it.
	ask := func(stage string, do func() error) {
		for range 5 {
			if r := c.rollout(); r.Stage == stage {
				return
			}
			if err := do(); errors.Is(err, storetest.ErrCrash) {
				restart()
			} else if err != nil {
				refused(t, err, remediation.Conflict)
			}
			run()
			c.now = c.now.Add(time.Second)
		}
		t.Fatalf("crash %v commit %d: never at %s: %v", when, commit, stage, c.stageLog())
	}
	ask("alpha", func() error { return c.begin(remediation.RolloutStart{}) })
	c.flag.verifyErr = errors.New("unhealthy")
	if err := c.do(remediation.RolloutPromote, true); errors.Is(err, storetest.ErrCrash) {
		restart()
	}
	run()
	if c.flag.value != "0.01" || c.rollout().Stage != "alpha" || c.rollout().Promotion != nil {
		t.Fatalf("crash %v commit %d: a failed promotion left %s: %v", when, commit, c.flag.value, c.stageLog())
	}
	c.flag.verifyErr = nil
	ask("beta", func() error { return c.do(remediation.RolloutPromote, true) })
	c.at(remediation.RolloutActive, "beta", "0.1")
	// Each effect has its intent before it, and what became of it after it.
	open := false
	for _, line := range c.stageLog() {
		switch kind, _, _ := strings.Cut(line, " "); {
		case kind == "intent" && !strings.Contains(line, "undo"):
			if open {
				t.Fatalf("crash %v commit %d: two intents: %v", when, commit, c.stageLog())
			}
			open = true
		case kind == "stage":
			open = false
		case kind == "outcome" && !open:
			t.Fatalf("crash %v commit %d: an outcome without an intent: %v", when, commit, c.stageLog())
		}
	}
	verify(t, c.harness)
	return crashed
}

func TestAPromotionThatNothingIsLeftToActByIsGivenUp(t *testing.T) {
	c := newCanary(t)
	c.started()
	c.must(c.store.Update(c.ctx, func(tx remediation.Tx) error {
		all, err := tx.Rollouts()
		if err != nil {
			return err
		}
		r := all[0]
		r.Promotion = &remediation.Promotion{
			Op: "op", From: "alpha", To: "beta", Flag: "FEATURE_A", Value: "0.1", By: "eve", Reason: "because",
			Playbook: "of a file that is gone", Started: c.now, Until: c.now.Add(5 * time.Minute), Wake: c.now,
		}
		return tx.PutRollout(r)
	}))
	if _, err := c.engine.Tick(c.ctx); err == nil || !strings.Contains(err.Error(), "playbook") {
		t.Errorf("it goes on by nothing: %v", err)
	}
	c.now = c.now.Add(6 * time.Minute)
	c.tick()
	r := c.rollout()
	if r.Promotion != nil || !r.Held || r.Stage != "alpha" || c.flag.value != "0.01" {
		t.Errorf("it is %+v, the flag %s", r, c.flag.value)
	}
	c.staged("outcome promote-beta outcome=failed", "stage state=active stage=alpha held=true promotion=failed")
	verify(t, c.harness)
}

func TestABreachThatComesDuringAPromotionIsActedOnOnceThatHasEnded(t *testing.T) {
	c := newCanary(t)
	c.started()
	c.later(day)
	c.calm("error_rate")
	id := c.fire("error_rate", "fp1")
	c.is(id, remediation.Waiting, remediation.HoldUnconfirmed)
	c.flag.duringVerify = func() {
		c.flag.duringVerify = nil
		c.breach("error_rate")
		c.now = c.now.Add(S)
		c.tick() // another worker looks meanwhile
	}
	c.must(c.do(remediation.RolloutPromote))
	c.tick()
	if c.rollout().Promotion != nil || c.row(id).Wake.After(c.now) && c.target("flag_off").effects == 0 {
		t.Errorf("the promotion has ended, and the incident rests until %s (it is %s): %v", c.row(id).Wake, c.now, c.log(id))
	}
	c.pass(S)
	if c.target("flag_off").effects != 1 {
		t.Errorf("the flag is still on: %v", c.log(id))
	}
}
