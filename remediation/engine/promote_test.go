package engine_test

import (
	"errors"
	"fmt"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"

	"github.com/locotoki/backout/alerts"
	"github.com/locotoki/backout/hint"
	"github.com/locotoki/backout/remediation"
	"github.com/locotoki/backout/remediation/audit"
	"github.com/locotoki/backout/remediation/view"
)

const day = 24 * time.Hour

// stageMetric checks that exactly one stage is 1, and what traffic it gives.
func (c *canary) stageMetric(stage, traffic string) {
	c.t.Helper()
	reg := prometheus.NewRegistry()
	reg.MustRegister(c.engine)
	want := "# HELP rollout_stage 1 for the stage that the rollout is in, 0 for every other; none is a stage.\n# TYPE rollout_stage gauge\n"
	for _, s := range []string{"alpha", "beta", "full", "none"} {
		one := 0
		if s == stage {
			one = 1
		}
		want += fmt.Sprintf("rollout_stage{rollout=\"v2\",service=\"shop\",stage=%q} %d\n", s, one)
	}
	want += "# HELP rollout_traffic_ratio Share of traffic that the present stage gives to the release.\n# TYPE rollout_traffic_ratio gauge\n" +
		"rollout_traffic_ratio{rollout=\"v2\",service=\"shop\"} " + traffic + "\n"
	if err := testutil.GatherAndCompare(reg, strings.NewReader(want), "rollout_stage", "rollout_traffic_ratio"); err != nil {
		c.t.Error(err)
	}
}

func TestARolloutGoesFromStageToStageAndIsDone(t *testing.T) {
	c := newCanary(t)
	c.stageMetric("none", "0")
	c.started()
	c.stageMetric("alpha", "0.01")
	c.notYet("stage alpha lasts until 23 Nov 2026 03:00:00 UTC, 1 d more")
	c.later(day)
	c.must(c.do(remediation.RolloutPromote))
	c.stageMetric("alpha", "0.01") // until the traffic is seen to be set
	c.tick()
	c.at(remediation.RolloutActive, "beta", "0.1")
	c.stageMetric("beta", "0.1")
	c.later(3 * day)
	c.must(c.do(remediation.RolloutPromote))
	c.tick()
	c.at(remediation.RolloutSoaking, "full", "1")
	c.stageMetric("full", "1")
	c.notYet("in its last stage, full; try: backout rollout finish")
	refused(t, c.do(remediation.RolloutFinish), remediation.Conflict)
	c.later(7 * day)
	c.must(c.do(remediation.RolloutFinish))
	c.at(remediation.RolloutDone, "none", "1")
	c.stageMetric("none", "1")
	for _, verb := range []remediation.RolloutVerb{"promote", "hold", "resume", "abort", "finish"} {
		refused(t, c.do(verb), remediation.Conflict)
	}
	c.staged("intent start-alpha", "outcome start-alpha outcome=done", "verified start-alpha", "stage state=active stage=alpha",
		"intent promote-beta", "outcome promote-beta outcome=done", "verified promote-beta", "stage state=active stage=beta",
		"intent promote-full", "outcome promote-full outcome=done", "verified promote-full", "stage state=soaking stage=full",
		"stage state=done stage=none")
	verify(t, c.harness)
}

func TestAPromotionSaysAllThatIsMissing(t *testing.T) {
	for name, tc := range map[string]struct {
		spoil  func(c *canary)
		why    string
		forced string // the gate that force opens, "" where none does
	}{
		"the stage has not lasted":                {func(c *canary) { c.now = c.now.Add(-time.Hour) }, "1 h more", "duration"},
		"a criterion is not met":                  {func(c *canary) { c.prom.criterion = 0.002 }, "error_rate is 0.2%, and must be below 0.1%", "criterion error_rate"},
		"a criterion was not met over the stage":  {func(c *canary) { c.prom.whole = new(float64); *c.prom.whole = 0.002 }, "error_rate over the stage (1d) is 0.2%, and must be below 0.1%", "criterion error_rate"},
		"a criterion has no value over the stage": {func(c *canary) { c.prom.whole = new(float64); *c.prom.whole = -1 }, "error_rate over the stage (1d) has no value", "criterion error_rate"},
		"a criterion is at its bound":             {func(c *canary) { c.prom.criterion = 0.001 }, "must be below 0.1%", "criterion error_rate"},
		"a criterion has no value":                {func(c *canary) { c.prom.criterion = -1 }, "error_rate has no value, and must be below 0.1%", "criterion error_rate"},
		"a trigger is breaching":                  {func(c *canary) { c.breach("latency") }, "trigger latency is breaching: 5 s, threshold 750 ms", "triggers"},
		"Prometheus does not answer":              {func(c *canary) { c.prom.err = remediation.ErrNoAnswer }, "cannot check whether a trigger is breaching", "criterion error_rate, triggers"},
		"the watchdog stays away":                 {func(c *canary) { c.pass(6 * time.Minute) }, "no watchdog alert for 6 min", "watchdog"},
		"it is held":                              {func(c *canary) { c.must(c.do(remediation.RolloutHold)) }, "the rollout is held", "held"},
		"everything is frozen":                    {func(c *canary) { c.freeze("", remediation.ScopeAll) }, "every service is frozen (all) by eve: audit", ""},
		"its promotions are frozen":               {func(c *canary) { c.freeze("shop", remediation.ScopePromotions) }, "shop is frozen (promotions) by eve: audit", ""},
		"an incident is open":                     {func(c *canary) { c.post("firing", "error_rate", "fp1") }, "incident inc-1 is open (confirming)", ""},
		"backout only observes": {func(c *canary) {
			c.mode = remediation.Observe
			c.start()
		}, "--mode=observe", ""},
	} {
		t.Run(name, func(t *testing.T) {
			c := newCanary(t)
			c.started()
			c.later(day)
			tc.spoil(c)
			refusal := c.do(remediation.RolloutPromote)
			refused(t, refusal, remediation.Conflict)
			if !strings.Contains(refusal.Error(), tc.why) || !strings.Contains(refusal.Error(), "release v2 of shop is not promoted to beta") {
				t.Fatalf("refused with %q, want a word of %q", refusal, tc.why)
			}
			if tc.forced == "" {
				err := c.do(remediation.RolloutPromote, true)
				refused(t, err, remediation.Conflict)
				if !strings.Contains(err.Error(), tc.why) || c.flag.value != "0.01" {
					t.Fatalf("forced: %v, the flag is %s", err, c.flag.value)
				}
				return
			}
			c.must(c.do(remediation.RolloutPromote, true))
			c.tick()
			c.at(remediation.RolloutActive, "beta", "0.1")
			all, err := c.engine.Entries(c.ctx, audit.Filter{Kind: audit.KindIntent})
			c.must(err)
			last := all[len(all)-1]
			if got := strings.Trim(fmt.Sprint(last.Detail["forced"]), "[]"); got != strings.ReplaceAll(tc.forced, ",", "") || last.Actor != "eve" || last.Detail["reason"] != "because" {
				t.Errorf("the intent says that %q was forced (%+v), want %q", got, last, tc.forced)
			}
		})
	}
}

func TestNothingMissingIsNothingToForce(t *testing.T) {
	c := newCanary(t)
	c.started()
	c.later(day)
	for _, g := range c.rollout().Gates {
		if !g.OK {
			t.Errorf("%s is closed: %s", g.Gate, g.Why)
		}
	}
	c.fire("error_rate", "drill", "drill", "true") // promotions ignore drills
	c.must(c.do(remediation.RolloutPromote, true))
	c.tick()
	c.at(remediation.RolloutActive, "beta", "0.1")
	for _, line := range c.stageLog() {
		if strings.Contains(line, "forced") {
			t.Errorf("something was forced: %s", line)
		}
	}
}

func TestAStartIsRefusedWhereItCannotBegin(t *testing.T) {
	for name, tc := range map[string]struct {
		spoil func(c *canary)
		in    remediation.RolloutStart
		want  remediation.Refusal
		why   string
	}{
		"a rollout is active":     {func(c *canary) { c.started() }, remediation.RolloutStart{}, remediation.Conflict, "is being rolled out (stage alpha)"},
		"one has just begun":      {func(c *canary) { c.must(c.begin(remediation.RolloutStart{})) }, remediation.RolloutStart{}, remediation.Conflict, "start-alpha of shop is in progress"},
		"an incident is open":     {func(c *canary) { c.post("firing", "error_rate", "fp1") }, remediation.RolloutStart{}, remediation.Conflict, "incident inc-1 is open"},
		"it is frozen":            {func(c *canary) { c.freeze("shop", remediation.ScopePromotions) }, remediation.RolloutStart{}, remediation.Conflict, "is frozen"},
		"the target is not there": {func(c *canary) { c.flag.lookErr = errors.New("no such project") }, remediation.RolloutStart{}, remediation.Conflict, "the traffic cannot be set: no such project"},
		"nothing was proved": {func(c *canary) {
			c.must(c.store.Update(c.ctx, func(tx remediation.Tx) error { return tx.PutPreflight(remediation.Preflight{Service: "shop"}) }))
		}, remediation.RolloutStart{}, remediation.Conflict, "no preflight was run"},
		"the proof is old": {func(c *canary) { c.now = c.now.Add(25 * time.Hour) }, remediation.RolloutStart{}, remediation.Conflict, "over 24 h ago"},
		"another release":  {func(*canary) {}, remediation.RolloutStart{Release: "v3"}, remediation.Conflict, "is for release v2, not v3"},
		"no such stage":    {func(*canary) {}, remediation.RolloutStart{Stage: "omega"}, remediation.Invalid, `no stage "omega"`},
		"no such service":  {func(*canary) {}, remediation.RolloutStart{Service: "x"}, remediation.Missing, `no playbook for service "x" is loaded; try: one of shop`},
	} {
		t.Run(name, func(t *testing.T) {
			c := newCanary(t)
			tc.spoil(c)
			before := len(c.stageLog())
			err := c.begin(tc.in)
			refused(t, err, tc.want)
			if !strings.Contains(err.Error(), tc.why) || len(c.stageLog()) != before {
				t.Errorf("refused with %q, want %q; %v", err, tc.why, c.stageLog())
			}
		})
	}
}

// onlyFull leaves out the stages before full, and writes the flag's values anew.
func onlyFull(values string) func(string) string {
	return func(src string) string {
		from, to := strings.Index(src, "  - {name: alpha"), strings.Index(src, "  - {name: full")
		return strings.Replace(src[:from]+src[to:], `off: "0", default: "0"`, values, 1)
	}
}

func TestAStageWithAllOfTheTrafficWritesWhatTurnsTheFlagOn(t *testing.T) {
	c := newCanary(t, onlyFull(`off: "false", on: "true"`))
	c.must(c.begin(remediation.RolloutStart{}))
	c.tick()
	c.at(remediation.RolloutSoaking, "full", "true")
	if r := c.rollout(); r.Traffic != "1" {
		t.Errorf("the rollout has the traffic %s", r.Traffic)
	}
	all, err := c.engine.Entries(c.ctx, audit.Filter{Service: "shop"})
	c.must(err)
	for _, e := range all {
		if e.Kind == audit.KindStage && e.Detail["traffic"] != nil && e.Detail["traffic"] != "1" {
			t.Errorf("the audit log has the traffic %v", e.Detail["traffic"])
		}
	}
}

func TestAFlagIsNotGivenAShareThatItCannotHave(t *testing.T) {
	for name, edit := range map[string]func(string) string{
		"is not known: its off is":                     onlyFull(`off: "false"`),
		"no value gives it the traffic of stage alpha": replace(`off: "0", default: "0"`, `off: "no"`),
	} {
		c := newCanary(t, edit)
		err := c.begin(remediation.RolloutStart{})
		refused(t, err, remediation.Conflict)
		if why, try := hint.Of(err); !strings.Contains(why, name) || !strings.Contains(try, "--declare") {
			t.Errorf("%s: refused with %q, try %q", name, why, try)
		}
		c.tick()
		if len(c.flag.history) > 0 {
			t.Errorf("%s: the flag was set to %v", name, c.flag.history)
		}
		_, err = c.engine.DeclareRollout(c.ctx, "shop", "", "", "eve", "turned on by hand")
		c.must(err)
	}
}

func TestAnAutomaticRolloutGoesOnByItselfAndSaysOnceWhyNot(t *testing.T) {
	c := newCanary(t)
	c.must(c.begin(remediation.RolloutStart{Auto: true}))
	c.tick()
	before := len(c.stageLog())
	for range 5 { // while the stage lasts, there is nothing to say
		c.later(time.Hour)
	}
	if got := c.stageLog()[before:]; len(got) != 0 {
		t.Errorf("said %v", got)
	}
	c.prom.criterion = 0.002
	for range 20 {
		c.later(time.Hour)
	}
	c.breach("latency")
	for range 3 {
		c.later(time.Minute)
	}
	c.staged("stage state=active stage=alpha promotion=refused missing=criterion error_rate",
		"stage state=active stage=alpha promotion=refused missing=criterion error_rate, triggers")
	c.calm("latency")
	c.prom.criterion = 0
	c.later(time.Minute)
	c.at(remediation.RolloutActive, "beta", "0.1")
	c.must(c.do(remediation.RolloutHold))
	c.later(4 * day)
	c.at(remediation.RolloutActive, "beta", "0.1")
	c.must(c.do(remediation.RolloutResume))
	c.tick()
	c.at(remediation.RolloutSoaking, "full", "1")
	all, err := c.engine.Entries(c.ctx, audit.Filter{Kind: audit.KindIntent, Newest: true, Limit: 1})
	c.must(err)
	if all[0].Actor != "engine" || !strings.Contains(fmt.Sprint(all[0].Detail["reason"]), "--auto") {
		t.Errorf("the intent is %+v", all[0])
	}
	c.later(30 * day)
	c.at(remediation.RolloutSoaking, "full", "1") // its end is a person's decision
}

func TestHoldAndResumeAreAudited(t *testing.T) {
	c := newCanary(t)
	refused(t, c.do(remediation.RolloutHold), remediation.Conflict)
	c.started()
	refused(t, c.do(remediation.RolloutResume), remediation.Conflict)
	c.must(c.do(remediation.RolloutHold))
	refused(t, c.do(remediation.RolloutHold), remediation.Conflict)
	c.must(c.do(remediation.RolloutResume))
	c.staged("stage state=active stage=alpha held=true", "stage state=active stage=alpha held=false")
	_, err := c.engine.ChangeRollout(c.ctx, remediation.RolloutChange{Verb: remediation.RolloutHold, Actor: "eve"})
	refused(t, err, remediation.Invalid)
	refused(t, c.do("stop"), remediation.Invalid)
}

func TestARolloutIsNotFinishedBeforeItHasSoaked(t *testing.T) {
	c := newCanary(t)
	c.started()
	err := c.do(remediation.RolloutFinish)
	if _, try := hint.Of(err); try == "" {
		t.Errorf("refused without a hint: %v", err)
	}
	refused(t, err, remediation.Conflict)
	for _, why := range []string{"stage alpha is not the last stage", "1 d more"} {
		if !strings.Contains(err.Error(), why) {
			t.Errorf("%q does not say %q", err, why)
		}
	}
	c.pass(2 * time.Minute) // past the warmup
	id := c.fire("error_rate", "fp1")
	c.is(id, remediation.Waiting, remediation.HoldNoData)
	refused(t, c.do(remediation.RolloutFinish, true), remediation.Conflict) // whatever force is used
	c.must(c.change(id, view.Close, ""))
	c.must(c.do(remediation.RolloutFinish, true))
	c.at(remediation.RolloutDone, "none", "0.01")
	c.staged("stage state=done stage=none forced=[stage duration]")
}

func TestARolloutThatWasBackedOutIsOver(t *testing.T) {
	c := newCanary(t)
	c.started()
	c.pass(2 * time.Minute) // past the warmup
	c.breach("error_rate")
	id := c.fire("error_rate", "fp1")
	c.is(id, remediation.Settling, "")
	c.stageMetric("alpha", "0.01") // while the incident is open the stage stays
	c.calm("error_rate")
	c.pass(20 * time.Minute)
	c.is(id, remediation.Closed, "")
	c.at(remediation.RolloutRolledBack, "none", "0.01")
	c.stageMetric("none", "0")
	refused(t, c.do(remediation.RolloutPromote, true), remediation.Conflict)
	refused(t, c.do(remediation.RolloutAbort), remediation.Conflict)
	// A trigger with no active rollout re-tags nothing.
	c.post("resolved", "error_rate", "fp1")
	c.target("flag_off").position = remediation.Untouched
	c.pass(3 * time.Hour)
	c.breach("error_rate")
	id = c.fire("error_rate", "fp1")
	c.pass(20 * time.Minute)
	c.is(id, remediation.Waiting, remediation.HoldNoRollout)
	if c.target("image_retag").effects != 0 {
		t.Error("an image was re-tagged without a rollout")
	}
	// A new rollout is a new one.
	c.must(c.change(id, view.Close, ""))
	c.calm("error_rate")
	c.post("resolved", "error_rate", "fp1")
	c.flag.value = "0"
	c.beat()
	if err := c.begin(remediation.RolloutStart{}); err == nil || !strings.Contains(err.Error(), "is not signed off") {
		t.Errorf("what was signed for has proved wrong, and a new start gave %v", err)
	}
	c.prove()
	c.must(c.begin(remediation.RolloutStart{}))
	c.tick()
	c.at(remediation.RolloutActive, "alpha", "0.01")
}

func TestAStartThatCannotBeTakenBackIsARolloutThatCanBeBackedOut(t *testing.T) {
	c := newCanary(t)
	c.flag.verifyErr, c.flag.undoErr = errors.New("unhealthy"), errors.New("the engine is gone")
	c.must(c.begin(remediation.RolloutStart{}))
	c.tick()
	c.at(remediation.RolloutActive, "alpha", "0.01")
	c.stageMetric("alpha", "0.01")
	if v := c.rollout(); !v.Held {
		t.Errorf("it is not held: %+v", v)
	}
	c.must(c.do(remediation.RolloutAbort))
}

func TestNobodyIsPutOnAReleaseOfWhichNothingWouldBeSeen(t *testing.T) {
	for name, tc := range map[string]struct {
		blind func(c *canary)
		want  string
	}{
		"the watchdog is away":   {func(c *canary) { c.pass(time.Hour) }, "no watchdog alert"},
		"Prometheus is away":     {func(c *canary) { c.prom.err = remediation.ErrNoAnswer }, "cannot check"},
		"a trigger is breaching": {func(c *canary) { c.breach("error_rate") }, "trigger error_rate is breaching"},
	} {
		t.Run(name, func(t *testing.T) {
			c := newCanary(t)
			tc.blind(c)
			err := c.begin(remediation.RolloutStart{})
			refused(t, err, remediation.Conflict)
			if !strings.Contains(err.Error(), tc.want) {
				t.Errorf("%v, want %q", err, tc.want)
			}
		})
	}
}

func TestARolloutStartsAtTheFootOfItsStages(t *testing.T) {
	c := newCanary(t)
	refused(t, c.begin(remediation.RolloutStart{Stage: "full"}), remediation.Conflict)
	c.must(c.begin(remediation.RolloutStart{Stage: "alpha"}))
}

func TestPromotionsDoNotCountAgainstTheLimitsOfRollbacks(t *testing.T) {
	c := newCanary(t, replace("per_target: 3/1h, per_service: 6/1h, blast_radius: 6/10m", "per_target: 1/1h, per_service: 1/1h, blast_radius: 1/10m"))
	c.started()
	c.must(c.do(remediation.RolloutPromote, true))
	c.tick()
	c.at(remediation.RolloutActive, "beta", "0.1")
	c.breach("error_rate")
	id := c.fire("error_rate", "fp1")
	c.is(id, remediation.Confirming, "") // within the warmup after the promotion
	c.pass(time.Minute)
	c.is(id, remediation.Settling, "")
}

func TestTheTimelineHasItsDates(t *testing.T) {
	c := newCanary(t)
	if d := c.rollout().Timeline; len(d) != 3 || d[0].Date != "" || d[0].Activity != "Preparation" {
		t.Errorf("before the start: %+v", d)
	}
	c.started()
	d := c.rollout().Timeline
	for i, want := range []string{"2026-11-15", "2026-11-22", "2026-11-30"} {
		if d[i].Date != want {
			t.Errorf("%s is %s, want %s", d[i].Day, d[i].Date, want)
		}
	}
}

// TestAnIncidentAndAPromotionNeverOverlap lets both begin at the same moment.
func TestAnIncidentAndAPromotionNeverOverlap(t *testing.T) {
	won := map[string]int{}
	for i := range 20 {
		c := newCanary(t)
		c.started()
		c.later(day)
		c.breach("error_rate")
		c.prom.value["error_rate"] = 0 // it breaches only after the promotion was asked for
		var wg sync.WaitGroup
		var promoted error
		wg.Add(2)
		go func() {
			defer wg.Done()
			promoted = c.do(remediation.RolloutPromote)
		}()
		go func() {
			defer wg.Done()
			for range i % 5 * 200 {
				runtime.Gosched()
			}
			c.post("firing", "error_rate", "fp1")
		}()
		wg.Wait()
		c.breach("error_rate")
		c.pass(5 * time.Minute)
		var opened, intent, verified, step int64
		all, err := c.engine.Entries(c.ctx, audit.Filter{})
		c.must(err)
		for _, e := range all {
			switch {
			case e.Kind == audit.KindOpened:
				opened = e.Seq
			case e.Kind == audit.KindIntent && e.Step == "promote-beta":
				intent = e.Seq
			case e.Kind == audit.KindVerified && e.Step == "promote-beta":
				verified = e.Seq
			case e.Kind == audit.KindIntent && e.Step == "1-flag_off":
				step = e.Seq
			}
		}
		if step == 0 {
			t.Fatalf("nothing was backed out: %v", c.log("inc-1"))
		}
		if promoted != nil {
			won["incident"]++
			refused(t, promoted, remediation.Conflict)
			if intent != 0 || c.flag.value != "0.01" {
				t.Fatalf("a refused promotion set the flag to %s", c.flag.value)
			}
			continue
		}
		won["promotion"]++
		if intent > opened || verified > step {
			t.Fatalf("opened %d, promotion's intent %d, verified %d, step's intent %d", opened, intent, verified, step)
		}
	}
	t.Log(won)
}

// freeze freezes a scope of a service.
func (c *canary) freeze(service, scope string) {
	c.t.Helper()
	_, err := c.engine.PutFreeze(c.ctx, remediation.Freeze{Service: service, Scope: scope, By: "eve", Reason: "audit"})
	c.must(err)
}

func TestAnOrderWithoutAServiceIsToldWhichThereAre(t *testing.T) {
	w := newHarness(t)
	w.must(w.engine.Reload(w.ctx, []*alerts.Playbook{w.pb, w.parse(strings.Replace(string(w.pb.Source), "service: shop\n", "service: blog\n", 1))}, remediation.Reloaded{}))
	_, err := w.engine.DeclareRollout(w.ctx, "", "", "alpha", "eve", "canary")
	refused(t, err, remediation.Invalid)
	if why, try := hint.Of(err); why != "name the service: 2 playbooks are loaded" || try != "--service=NAME, one of blog, shop" {
		t.Errorf("refused with %q, try %q", why, try)
	}
}
