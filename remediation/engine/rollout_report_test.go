package engine_test

import (
	"context"
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/locotoki/backout/alerts"
	"github.com/locotoki/backout/remediation"
	"github.com/locotoki/backout/remediation/view"
)

// reported adds to a canary's playbook what a rollout is judged by afterwards.
func reported(s string) string {
	s = strings.Replace(s, "probe: {health: http://127.0.0.1:9000/health/, timeout: 30s}",
		"probe: {health: http://127.0.0.1:9000/health/, timeout: 30s, smoke: [{name: trends, url: 'http://127.0.0.1:9000/trends'}]}", 1)
	return strings.Replace(s, "timeline:\n", `success_criteria:
  - area: performance
    criteria:
      - {text: few errors, measure: {indicator: error_rate, below: 0.005, window: 1h}}
      - {text: people like it}
phases:
  - {name: Before, when: T-7 days, tasks: [{name: Prepare, items: [Add replicas]}]}
  - {name: Validation, when: After all, blocks: finish, tasks: [{name: Performance, items: [Run a load test]}]}
post_rollout:
  - {name: Knowledge, items: [Document lessons]}
timeline:
`, 1)
}

// smoking is flag_set's kind, with an answer to smoke checks.
func (k *flagKind) Smoke(_ context.Context, check alerts.SmokeCheck) error {
	k.flag.smoked = append(k.flag.smoked, check.Name)
	return k.flag.smokeErr
}

func newReported(t *testing.T) *canary {
	t.Helper()
	c := newCanary(t, reported)
	// What is signed for after the deployment is not signed before it.
	c.must(c.store.Update(c.ctx, func(tx remediation.Tx) error {
		p, err := tx.Preflight("shop")
		if err != nil {
			return err
		}
		p.Signatures = slices.DeleteFunc(p.Signatures, func(s remediation.Signature) bool { return slices.Contains(afterwards, s.Item) })
		return tx.PutPreflight(p)
	}))
	return c
}

// afterwards are the items that are signed for after the deployment.
var afterwards = []string{"success/people-like-it", "phase/run-a-load-test", "after/document-lessons"}

// soaking takes a canary to the end of its last stage.
func (c *canary) soaking() {
	c.t.Helper()
	c.started()
	for _, d := range []time.Duration{24 * time.Hour, 3 * 24 * time.Hour} {
		c.later(d)
		c.must(c.do(remediation.RolloutPromote))
		c.tick()
	}
	c.at(remediation.RolloutSoaking, "full", "1")
	c.later(7 * 24 * time.Hour)
}

func (c *canary) sign(item string) {
	c.t.Helper()
	_, err := c.engine.SignPreflight(c.ctx, remediation.SignRequest{Item: item, By: "Ada", Actor: "eve", Reason: "seen"})
	c.must(err)
}

func (c *canary) report() view.RolloutReport {
	c.t.Helper()
	r, err := c.engine.RolloutReport(c.ctx, "")
	c.must(err)
	return r
}

func TestARolloutIsFinishedOnceItsSuccessIsMeasuredAndSignedOff(t *testing.T) {
	c := newReported(t)
	c.soaking()
	c.flag.smokeErr = errors.New("it answers 500, want 200")
	refusedFor := func(whys ...string) {
		t.Helper()
		err := c.do(remediation.RolloutFinish)
		refused(t, err, remediation.Conflict)
		for _, why := range whys {
			if !strings.Contains(err.Error(), why) {
				t.Errorf("%q does not say %q", err, why)
			}
		}
	}
	refusedFor("people like it; its owner is Rollout Lead, its item success/people-like-it", "phase/run-a-load-test (Run a load test) is not signed off",
		"smoke test trends failed: it answers 500, want 200")
	c.sign("success/people-like-it")
	c.sign("phase/run-a-load-test")
	refusedFor("smoke test trends failed")
	c.flag.smokeErr, c.prom.criterion = nil, 0.006
	refusedFor("success criterion not met: few errors (it is 0.6%; it must be below 0.5%)")
	c.prom.criterion = -1
	refusedFor("success criterion not measured: few errors (it has no value)")
	c.prom.criterion = 0.0001
	c.must(c.do(remediation.RolloutFinish)) // what is done after the rollout may still be open
	c.at(remediation.RolloutDone, "none", "1")
}

// The next release's sign-offs leave those of the one that soaks.
func TestASignOffOfTheNextReleaseLeavesThoseOfTheOneThatSoaks(t *testing.T) {
	c := newReported(t)
	c.soaking()
	c.sign("success/people-like-it")
	c.sign("phase/run-a-load-test")
	c.load(nextRelease)
	c.sign("phase/add-replicas")
	c.must(c.do(remediation.RolloutFinish))
	c.at(remediation.RolloutDone, "none", "1")
}

func TestARolloutThatFailsItsSmokeTestsIsFinishedByForceAndTheLogSaysSo(t *testing.T) {
	c := newReported(t)
	c.soaking()
	c.flag.smokeErr = errors.New("it answers 500, want 200")
	c.sign("success/people-like-it")
	c.sign("phase/run-a-load-test")
	c.must(c.do(remediation.RolloutFinish, true))
	c.staged("stage state=done stage=none forced=[smoke trends]")
}

func TestARolloutThatSoaksShowsWhatItIsJudgedBy(t *testing.T) {
	c := newReported(t)
	c.soaking()
	r := c.rollout()
	if n := len(r.Criteria); n != 2 || r.Criteria[1].Name != "error_rate" || r.Criteria[1].Threshold != 0.005 || !r.Criteria[1].OK {
		t.Errorf("its criteria are %+v", r.Criteria)
	}
	if !slices.ContainsFunc(r.Gates, func(g remediation.GateResult) bool { return !g.OK && g.Gate == "success people like it" }) {
		t.Errorf("what its end is missing is %+v", r.Gates)
	}
	if len(c.flag.smoked) > 0 {
		t.Errorf("looking at a rollout asked the smoke tests %q", c.flag.smoked)
	}
}

func TestAReportTellsAWholeRollout(t *testing.T) {
	c := newReported(t)
	c.started()
	c.must(c.do(remediation.RolloutHold))
	c.later(time.Hour)
	c.must(c.do(remediation.RolloutResume))
	c.must(c.do(remediation.RolloutPromote, true)) // before alpha has lasted
	c.tick()
	_, err := c.engine.RaiseSignal(c.ctx, "", "critical-security-vulnerability", "ann", "CVE-1")
	c.must(err)
	c.breach("error_rate")
	c.later(2 * time.Minute)
	id := c.fire("error_rate", "fp1")
	r := c.report()
	if r.StartedBy != "eve" || r.Why != "canary" || r.State != remediation.RolloutActive || r.Release != "v2" || r.Ended != nil || r.Cut {
		t.Errorf("the report begins %+v", r)
	}
	if len(r.Stages) != 2 || r.Stages[0].Stage != "alpha" || r.Stages[0].Traffic != "0.01" || r.Stages[0].To == nil ||
		r.Stages[0].To.Sub(r.Stages[0].From) != time.Hour || r.Stages[1].Stage != "beta" || r.Stages[1].To != nil {
		t.Fatalf("the stages are %+v", r.Stages)
	}
	if b := r.Stages[1]; !slices.Equal(b.Forced, []string{"duration"}) || b.By != "eve" || b.Why != "because" ||
		!slices.ContainsFunc(b.Judged, func(g remediation.GateResult) bool {
			return g.OK && g.Why == "error_rate is 0.01%, which is below 0.1%"
		}) {
		t.Errorf("beta was reached with %+v", b)
	}
	if len(r.Holds) != 1 || r.Holds[0].What != "held" || r.Holds[0].To == nil || r.Holds[0].To.Sub(r.Holds[0].From) != time.Hour {
		t.Errorf("the holds are %+v", r.Holds)
	}
	if len(r.Incidents) != 1 || r.Incidents[0].ID != id || !slices.Contains(r.Incidents[0].Triggers, "error_rate") || len(r.Incidents[0].Steps) == 0 {
		t.Errorf("the incidents are %+v", r.Incidents)
	}
	if len(r.Signals) != 1 || r.Signals[0].Signal != "critical-security-vulnerability" || !r.Signals[0].Raised || r.Signals[0].By != "ann" || r.Signals[0].Why != "CVE-1" {
		t.Errorf("the signals are %+v", r.Signals)
	}
}

func TestAReportSaysWhichSuccessCriteriaAreMetAndWhoSignedThemOff(t *testing.T) {
	c := newReported(t)
	c.soaking()
	c.sign("success/people-like-it")
	c.sign("after/document-lessons")
	r := c.report()
	if len(r.Success) != 2 || r.Success[0].State != remediation.SuccessMet || *r.Success[0].Value != 0.0001 || *r.Success[0].Threshold != 0.005 ||
		r.Success[1].State != remediation.SuccessSigned || r.Success[1].Signed.By != "Ada" {
		t.Errorf("success stands %+v", r.Success)
	}
	if len(r.Smoke) != 1 || !r.Smoke[0].OK || r.Smoke[0].Name != "trends" {
		t.Errorf("the smoke tests are %+v", r.Smoke)
	}
	if len(r.Tasks) != 2 || r.Tasks[0].ID != "phase/run-a-load-test" || r.Tasks[0].Signed != nil ||
		r.Tasks[1].ID != "after/document-lessons" || r.Tasks[1].Signed == nil {
		t.Errorf("the tasks are %+v", r.Tasks)
	}
	if d := r.Timeline[1]; d.Day != "T" || d.Date != "2026-11-22" || d.Done != "2026-11-22" || d.By != "eve" {
		t.Errorf("the day of the start is %+v", d)
	}
	if r.Stages[2].To != nil || r.Ended != nil {
		t.Errorf("it soaks, and the report has its end: %+v", r.Stages[2])
	}
}

func TestAReportSaysWhatPrometheusWasNotAsked(t *testing.T) {
	c := newReported(t)
	c.started()
	c.prom.err = remediation.ErrNoAnswer
	if s := c.report().Success[0]; s.State != remediation.SuccessNotAsked || s.Why == "" || s.Value != nil {
		t.Errorf("with Prometheus down it stands %+v", s)
	}
}

func TestARolloutThatWasBackedOutHasAReport(t *testing.T) {
	c := newReported(t)
	c.started()
	c.pass(2 * time.Minute)
	c.breach("error_rate")
	id := c.fire("error_rate", "fp1")
	c.calm("error_rate")
	c.pass(20 * time.Minute)
	c.is(id, remediation.Closed, "")
	r := c.report()
	if r.State != remediation.RolloutRolledBack || r.Ended == nil || len(r.Stages) != 1 || r.Stages[0].To == nil || !r.Stages[0].To.Equal(*r.Ended) ||
		len(r.Incidents) != 1 || r.Incidents[0].Recovered == nil || r.Incidents[0].Closed == nil {
		t.Errorf("the report is %+v", r)
	}
}

func TestWhereThereWasNoRolloutThereIsNoReport(t *testing.T) {
	c := newReported(t)
	_, err := c.engine.RolloutReport(c.ctx, "")
	refused(t, err, remediation.Missing)
}
