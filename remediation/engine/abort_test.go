package engine_test

import (
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/locotoki/backout/remediation"
	"github.com/locotoki/backout/remediation/audit"
	"github.com/locotoki/backout/remediation/store/storetest"
	"github.com/locotoki/backout/remediation/view"
)

// effects are how often each target of the ladder was changed.
func (c *canary) effects() [3]int {
	return [3]int{c.target("flag_off").effects, c.target("image_retag").effects, c.target("schema_rollback").effects}
}

// runsWords checks what the overview says of the rollout.
func (c *canary) runsWords(want string) {
	c.t.Helper()
	o, err := c.engine.Overview(c.ctx)
	c.must(err)
	if got := o.Services[0].RolloutWords(); got != want {
		c.t.Errorf("the overview says %q, want %q", got, want)
	}
}

func TestAStepThatWaitsDoesNotWaitOnceItsIncidentIsClosed(t *testing.T) {
	c := newCanary(t)
	c.started()
	c.must(c.do(remediation.RolloutAbort))
	c.tick()
	c.steps("inc-1", remediation.StepDone, remediation.StepDone, remediation.StepWaiting)
	c.must(c.change("inc-1", view.Close, ""))
	c.steps("inc-1", remediation.StepDone, remediation.StepDone, remediation.StepPending)
}

func TestARolloutIsNotSaidToBeResumedWhileAnIncidentIsOpen(t *testing.T) {
	c := newCanary(t)
	c.started()
	c.must(c.do(remediation.RolloutHold))
	held := func() string {
		gates := c.rollout().Gates
		return gates[slices.IndexFunc(gates, func(g remediation.GateResult) bool { return g.Gate == "held" })].Why
	}
	if want := "the rollout is held; try: backout rollout resume --service=shop"; held() != want {
		t.Errorf("it says %q, want %q", held(), want)
	}
	c.must(c.do(remediation.RolloutAbort))
	c.tick()
	if want := "the rollout is held"; held() != want {
		t.Errorf("while it is rolled back it says %q, want %q", held(), want)
	}
}

func TestAnAbortRunsTheListedStepsInTheirOrderAndEndsTheRollout(t *testing.T) {
	c := newCanary(t)
	c.started()
	c.prom.err = remediation.ErrNoAnswer // and nobody asks it
	c.must(c.do(remediation.RolloutAbort))
	c.tick()
	c.is("inc-1", remediation.Waiting, remediation.HoldApproval)
	c.steps("inc-1", remediation.StepDone, remediation.StepDone, remediation.StepWaiting)
	if got := c.effects(); got != [3]int{1, 1, 0} {
		t.Fatalf("effects %v", got)
	}
	if r := c.rollout(); r.State != remediation.RolloutActive || r.Stage != "alpha" {
		t.Errorf("the rollout is %s at %s before the last step", r.State, r.Stage)
	}
	c.runsWords("v2 being rolled back by inc-1, its stage was alpha")
	c.must(c.change("inc-1", view.Approve, "3-schema_rollback"))
	c.tick()
	c.is("inc-1", remediation.Closed, "")
	c.runsWords("v2 aborted")
	c.logs("inc-1", "intent 1-flag_off", "outcome 1-flag_off done", "verified 1-flag_off",
		"intent 2-image_retag", "outcome 2-image_retag done", "verified 2-image_retag",
		"held 3-schema_rollback approval", "approved 3-schema_rollback",
		"intent 3-schema_rollback", "outcome 3-schema_rollback done", "verified 3-schema_rollback", "stage", "closed aborted")
	r := c.rollout()
	if r.State != remediation.RolloutAborted || r.Stage != "none" {
		t.Errorf("the rollout is %s at %s", r.State, r.Stage)
	}
	c.stageMetric("none", "0")
	v := c.incident("inc-1")
	if v.AbortedBy != "eve" || len(v.Triggers) != 0 {
		t.Errorf("%+v", v)
	}
	opened := c.entries("inc-1")[0]
	if opened.Kind != audit.KindOpened || opened.Actor != "eve" || opened.Detail["reason"] != "because" {
		t.Errorf("opened by %+v", opened)
	}
	verify(t, c.harness)
}

func TestAnAbortWithoutAnApprovalEndsWithoutTheLossyStep(t *testing.T) {
	for name, end := range map[string]func(c *canary){
		"denied":   func(c *canary) { c.must(c.change("inc-1", view.Deny, "3-schema_rollback")) },
		"answered": func(*canary) {},
	} {
		t.Run(name, func(t *testing.T) {
			c := newCanary(t)
			c.started()
			c.must(c.do(remediation.RolloutAbort))
			c.tick()
			end(c)
			c.pass(31 * time.Minute)
			c.is("inc-1", remediation.Closed, "")
			c.steps("inc-1", remediation.StepDone, remediation.StepDone, remediation.StepSkipped)
			if r := c.rollout(); r.State != remediation.RolloutAborted || c.target("schema_rollback").effects != 0 {
				t.Errorf("the rollout is %s", r.State)
			}
		})
	}
}

func TestAnAbortIsHeldByWhatHoldsACommander(t *testing.T) {
	c := newCanary(t)
	c.started()
	c.freeze("shop", remediation.ScopeAll)
	c.must(c.do(remediation.RolloutAbort))
	c.tick()
	c.is("inc-1", remediation.Waiting, remediation.HoldFrozen)
	c.pass(5 * time.Minute)
	c.logs("inc-1", "opened", "stage", "planned", "held 1-flag_off frozen") // said once
	refused(t, c.do(remediation.RolloutAbort), remediation.Conflict)
	_, err := c.engine.Thaw(c.ctx, "shop", "eve", "go")
	c.must(err)
	c.tick()
	c.is("inc-1", remediation.Waiting, remediation.HoldApproval)
}

func TestAnAbortDoesNotWaitForTheCooldown(t *testing.T) {
	c := newCanary(t)
	c.started()
	c.pass(2 * time.Minute)
	c.breach("error_rate")
	id := c.fire("error_rate", "fp1")
	c.calm("error_rate")
	c.pass(20 * time.Minute)
	c.is(id, remediation.Closed, "")
	_, err := c.engine.Restore(c.ctx, id, view.RestoreRequest{Actor: "eve", Reason: "false alarm"})
	c.must(err)
	c.tick()
	c.must(c.do(remediation.RolloutAbort))
	c.tick()
	if got := c.effects(); got != [3]int{2, 1, 0} {
		t.Errorf("effects %v; %v", got, c.log("inc-2"))
	}
}

func TestAStepOfAnAbortThatFailsIsUndoneAndHandedToAPerson(t *testing.T) {
	c := newCanary(t)
	c.started()
	c.target("flag_off").verifyErr = errors.New("health answers 500")
	c.must(c.do(remediation.RolloutAbort))
	c.tick()
	c.is("inc-1", remediation.Waiting, remediation.HoldStepFailed)
	c.pass(10 * time.Minute)
	c.steps("inc-1", remediation.StepUndone, remediation.StepPending, remediation.StepPending)
	c.target("flag_off").verifyErr = nil
	c.must(c.change("inc-1", view.Claim, ""))
	c.must(c.change("inc-1", view.Release, ""))
	c.tick()
	c.is("inc-1", remediation.Waiting, remediation.HoldApproval)
	c.must(c.change("inc-1", view.Close, ""))
	c.at(remediation.RolloutAborted, "none", "0.01")
}

func TestAnAbortGivesTheOpenIncidentTheOrder(t *testing.T) {
	c := newCanary(t)
	c.started()
	c.pass(2 * time.Minute)
	c.breach("error_rate")
	id := c.fire("error_rate", "fp1")
	c.is(id, remediation.Settling, "")
	c.must(c.do(remediation.RolloutAbort)) // not waiting whether the flag helped
	c.tick()
	c.is(id, remediation.Waiting, remediation.HoldApproval)
	if got := c.effects(); got != [3]int{1, 1, 0} {
		t.Fatalf("effects %v", got)
	}
	c.must(c.change(id, view.Deny, "3-schema_rollback"))
	c.tick()
	c.is(id, remediation.Settling, "") // its trigger still needs its recovery
	if r := c.rollout(); r.State != remediation.RolloutAborted {
		t.Errorf("the rollout is %s", r.State)
	}
	c.calm("error_rate")
	c.pass(20 * time.Minute)
	c.is(id, remediation.Closed, "")
	if r := c.rollout(); r.State != remediation.RolloutAborted {
		t.Errorf("the close made the rollout %s", r.State)
	}
}

func TestAnAbortIsRefusedWhereItWouldMeetSomethingElse(t *testing.T) {
	for name, tc := range map[string]struct {
		spoil func(c *canary)
		why   string
	}{
		"no rollout is active": {func(*canary) {}, "no rollout of shop is active"},
		"somebody else has claimed the incident": {func(c *canary) {
			c.started()
			c.post("firing", "error_rate", "fp1")
			_, err := c.engine.ChangeIncident(c.ctx, "inc-1", view.Claim, "", "ann", "mine")
			c.must(err)
		}, "claimed by ann"},
		"backout only observes": {func(c *canary) {
			c.started()
			c.mode = remediation.Observe
			c.start()
		}, "--mode=observe"},
		"it is ordered already": {func(c *canary) {
			c.started()
			c.must(c.do(remediation.RolloutAbort))
		}, "eve has already ordered that"},
	} {
		t.Run(name, func(t *testing.T) {
			c := newCanary(t)
			tc.spoil(c)
			err := c.do(remediation.RolloutAbort)
			refused(t, err, remediation.Conflict)
			if !strings.Contains(err.Error(), tc.why) {
				t.Errorf("refused with %q, want %q", err, tc.why)
			}
		})
	}
}

func TestAnAbortInTheMiddleOfAStepGoesOnBehindIt(t *testing.T) {
	for name, tc := range map[string]struct {
		fails   error
		effects [3]int
	}{
		"the step succeeds": {nil, [3]int{1, 1, 0}},
		"the step fails":    {errors.New("cannot connect to the Docker daemon"), [3]int{0, 0, 0}},
	} {
		t.Run(name, func(t *testing.T) {
			c := newCanary(t)
			c.started()
			c.pass(2 * time.Minute)
			c.breach("error_rate")
			flag := c.target("flag_off")
			flag.duringApply = func() {
				flag.duringApply, flag.applyErr = nil, tc.fails
				c.must(c.do(remediation.RolloutAbort))
				refused(t, c.do(remediation.RolloutAbort), remediation.Conflict)
			}
			id := c.fire("error_rate", "fp1")
			c.tick()
			if got := c.effects(); got != tc.effects {
				t.Errorf("effects %v, want %v; %v", got, tc.effects, c.log(id))
			}
			if tc.fails != nil {
				c.is(id, remediation.Waiting, remediation.HoldStepFailed)
			} else {
				c.is(id, remediation.Waiting, remediation.HoldApproval)
			}
			verify(t, c.harness)
		})
	}
}

func TestAnAbortIsAnsweredWhilePrometheusHangs(t *testing.T) {
	c := newCanary(t)
	c.started()
	c.prom.hangs = make(chan struct{})
	defer close(c.prom.hangs)
	done := make(chan error, 1)
	go func() { done <- c.do(remediation.RolloutAbort) }()
	select {
	case err := <-done:
		c.must(err)
	case <-time.After(time.Minute):
		t.Fatal("the order waits for Prometheus")
	}
}

func TestAnAbortWaitsForAPromotionThatIsUnderWay(t *testing.T) {
	c := newCanary(t)
	c.started()
	c.flag.duringApply = func() {
		c.flag.duringApply = nil
		c.must(c.do(remediation.RolloutAbort))
		c.tick() // another worker has it at once, and waits
		if c.effects() != [3]int{} {
			t.Error("a step ran in the middle of a promotion")
		}
	}
	c.must(c.do(remediation.RolloutPromote, true))
	c.tick()
	if got := c.effects(); got != [3]int{1, 1, 0} {
		t.Errorf("effects %v; %v", got, c.log("inc-1"))
	}
}

func TestWhatWasAbortedCanBeRestored(t *testing.T) {
	c := newCanary(t)
	c.started()
	c.must(c.do(remediation.RolloutAbort))
	c.tick()
	c.must(c.change("inc-1", view.Deny, "3-schema_rollback"))
	c.tick()
	c.is("inc-1", remediation.Closed, "")
	_, err := c.engine.Restore(c.ctx, "inc-1", view.RestoreRequest{Actor: "eve", Reason: "it was the network", Force: true})
	c.must(err)
	c.tick()
	c.at(remediation.RolloutActive, "alpha", "0.01")
	if !c.rollout().Held || c.target("flag_off").undone != 1 || c.target("image_retag").undone != 1 {
		t.Errorf("held %t, undone %d and %d", c.rollout().Held, c.target("flag_off").undone, c.target("image_retag").undone)
	}
}

func TestACrashAtEveryCommitOfAnAbortLosesAndDoublesNothing(t *testing.T) {
	storetest.EveryCommit(t, 7, crashAbort)
}

func crashAbort(t *testing.T, commit int, when storetest.When) (crashed bool) {
	t.Helper()
	c := newCanary(t, replace("approval: {timeout: 30m}", "approval: {timeout: 2m}"))
	c.started()
	c.prom.err = remediation.ErrNoAnswer
	restart := func() {
		crashed = true
		c.engine = c.newEngine(c.store)
	}
	if e, err := c.tryEngine(storetest.Crashing(c.store, commit, when)); err != nil {
		restart()
	} else {
		c.engine = e
	}
	if err := c.do(remediation.RolloutAbort); err != nil {
		restart()
		if err := c.do(remediation.RolloutAbort); err != nil {
			refused(t, err, remediation.Conflict) // it was ordered before the crash
		}
	}
	end := c.now.Add(5 * time.Minute)
	for c.now.Before(end) {
		next, err := c.engine.Tick(c.ctx)
		if err != nil {
			restart()
			continue
		}
		if c.now = next; next.IsZero() || next.After(end) {
			c.now = end
		}
	}
	c.is("inc-1", remediation.Closed, "")
	c.steps("inc-1", remediation.StepDone, remediation.StepDone, remediation.StepSkipped)
	if got := c.effects(); got != [3]int{1, 1, 0} {
		t.Fatalf("crash %v commit %d: effects %v", when, commit, got)
	}
	if r := c.rollout(); r.State != remediation.RolloutAborted {
		t.Fatalf("crash %v commit %d: the rollout is %s", when, commit, r.State)
	}
	verify(t, c.harness)
	return crashed
}
