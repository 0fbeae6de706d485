package engine_test

import (
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/locotoki/backout/remediation"
	"github.com/locotoki/backout/remediation/audit"
	"github.com/locotoki/backout/remediation/view"
)

func TestTheTeamHearsThatAPersonIsNeeded(t *testing.T) {
	w, c := withTeam(t)
	id := w.open()
	w.pass(16 * time.Minute)
	w.must(w.change(id, view.Approve, "3-schema_rollback"))
	w.pass(10 * time.Minute)
	w.is(id, remediation.Exhausted, "")
	last := c.got[len(c.got)-1].Told
	if len(last) != 1 || last[0].Title != "Needs a person: exhausted" || last[0].Tone != "bad" || !strings.Contains(last[0].Why, "after the last step") {
		t.Fatalf("the team was told last: %+v", last)
	}
}

func TestAHoldThatPagesIsToldOnce(t *testing.T) {
	w, c := withTeam(t)
	w.target("flag_off").applyErr = errors.New("no disk")
	id := w.open()
	w.is(id, remediation.Waiting, remediation.HoldStepFailed)
	if n := len(titles(c, "Needs a person")); n > 0 {
		t.Errorf("told %d times what the hold says already: %q", n, c.told())
	}
	if n := len(titles(c, "Did not act: a step failed")); n != 1 {
		t.Errorf("the hold was told %d times: %q", n, c.told())
	}
}

func TestTheTeamHearsWhatThePublicCouldNotBeTold(t *testing.T) {
	p, c := &page{name: "statuspage", errs: []error{remediation.Undeliverable(errors.New("422: no such component"))}}, &chat{}
	w := newHarness(t, append(announcing(), func(s string) string { return s + "communications: {slack_channel: \"#incidents\"}\n" })...)
	w.pages, w.team = []remediation.Channel{p}, []remediation.Channel{c}
	w.start()
	id := w.open()
	w.tick()
	if got, want := titles(c, "Not delivered"), []string{"Not delivered by statuspage: update 1: identified"}; !slices.Equal(got, want) {
		t.Errorf("the team was told %q, want %q", c.told(), want)
	}
	for _, en := range w.entries(id) {
		if told := view.Describe(en); strings.HasPrefix(told.Title, "Notified: update") {
			t.Errorf("the timeline says %q of what never arrived", told.Title)
		}
	}
}

func TestWhatTheTeamItselfCouldNotBeToldIsNotToldAgain(t *testing.T) {
	w, c := withTeam(t)
	c.down = remediation.Undeliverable(errors.New("msg_too_long"))
	w.open()
	c.down = nil
	w.pass(time.Minute)
	if got := titles(c, "Not delivered"); len(got) > 0 {
		t.Errorf("the team was told %q", got)
	}
}

func TestAFreezeEndsWithinTheTimesThatCanBeWritten(t *testing.T) {
	w := newHarness(t)
	until, err := time.Parse(time.RFC3339, "9999-12-31T23:59:59-12:00")
	w.must(err)
	_, err = w.engine.PutFreeze(w.ctx, remediation.Freeze{Scope: remediation.ScopeAll, By: "ann", Reason: "sale", Until: &until})
	refused(t, err, remediation.Invalid)
	until = w.now.AddDate(1, 0, 0)
	_, err = w.engine.PutFreeze(w.ctx, remediation.Freeze{Scope: remediation.ScopeAll, By: "ann", Reason: "sale", Until: &until})
	w.must(err)
}

func TestAFreezeOfPromotionsAloneSaysSo(t *testing.T) {
	w, c := withTeam(t)
	_, err := w.engine.PutFreeze(w.ctx, remediation.Freeze{Service: "shop", Scope: remediation.ScopePromotions, By: "ann", Reason: "sale"})
	w.must(err)
	_, err = w.engine.PutFreeze(w.ctx, remediation.Freeze{Service: "shop", Scope: remediation.ScopeAll, By: "ann", Reason: "sale"})
	w.must(err)
	w.tick()
	if want := []string{"Frozen shop, promotions only", "Frozen shop"}; !slices.Equal(c.told(), want) {
		t.Errorf("the team was told %q, want %q", c.told(), want)
	}
}

func TestNothingIsSaidToHaveHelpedThatNoMetricJudges(t *testing.T) {
	w, c := withTeam(t)
	w.declare("alpha")
	w.raise(vulnerable)
	id := w.fire("breach_of_trust", "fp1")
	asks := *c.got[len(c.got)-1].Story
	w.must(w.change(id, view.Deny, "3-schema_rollback"))
	w.tick()
	w.is(id, remediation.Recovered, "")
	for _, s := range []view.Story{asks, *c.got[len(c.got)-1].Story} {
		if !strings.Contains(s.Helped, "No metric shows it") || strings.Contains(s.Helped, "breach") {
			t.Errorf("%s: did it help? %q", s.State, s.Helped)
		}
		if strings.Contains(s.Headline, "Recovered") || s.Broke[0].Value != "a signal" || s.Broke[0].Bound != "raised by a person" {
			t.Errorf("%s: %q, %+v", s.State, s.Headline, s.Broke)
		}
	}
}

func TestAClaimInTheMiddleOfAStepIsNotSaidToStopIt(t *testing.T) {
	w, c := withTeam(t)
	w.target("flag_off").duringApply = func() {
		w.must(w.change("inc-1", view.Claim, ""))
	}
	id := w.open()
	for _, m := range c.got {
		if m.Story == nil || len(m.Told) == 0 || m.Told[0].Kind != audit.KindClaimed {
			continue
		}
		if m.Story.State != remediation.Acting || !strings.Contains(m.Story.Headline, "after the current one") {
			t.Errorf("%s: %q", m.Story.State, m.Story.Headline)
		}
	}
	w.cured("error_rate")
	w.pass(4 * time.Minute)
	w.is(id, remediation.Recovered, "")
	if last := c.got[len(c.got)-1].Story; !strings.HasPrefix(last.Headline, "Recovered, and claimed by") {
		t.Errorf("a recovery under a claim is headed %q", last.Headline)
	}
}

func TestASignalRaisedAgainBeforeItsIncidentClosedHasItsStepsBack(t *testing.T) {
	w := newHarness(t)
	w.declare("alpha")
	w.raise(vulnerable)
	w.target("flag_off").duringApply = func() { // a mistake, fixed in the middle of a step
		w.target("flag_off").duringApply = nil
		_, err := w.engine.ClearSignal(w.ctx, "shop", vulnerable, "bob", "wrong service")
		w.must(err)
		w.raise(vulnerable)
	}
	id := w.fire("breach_of_trust", "fp1")
	w.steps(id, remediation.StepDone, remediation.StepDone, remediation.StepWaiting)
	w.is(id, remediation.Waiting, remediation.HoldApproval)
	w.must(w.change(id, view.Deny, "3-schema_rollback"))
	w.clear(vulnerable)
	w.is(id, remediation.Closed, "")
}

func TestASignalWhosePlanDidNothingNeedsAPerson(t *testing.T) {
	const only = "      - {action: flag_off, settle: 5m}\n      - {action: image_retag, settle: 5m}\n"
	w, c := withTeam(t, replace(only, ""))
	w.declare("alpha")
	w.raise(vulnerable)
	id := w.fire("breach_of_trust", "fp1")
	w.pass(40 * time.Minute) // nobody answers
	w.steps(id, remediation.StepSkipped)
	w.is(id, remediation.Exhausted, "")
	if got := titles(c, "Needs a person"); len(got) != 1 {
		t.Errorf("the team was told %q", c.told())
	}
	if got := titles(c, "Recovered"); len(got) > 0 {
		t.Errorf("the team was told %q of what is as it was", c.told())
	}
	w.clear(vulnerable)
	w.is(id, remediation.Closed, "")
}

func TestASignalWhoseIncidentAPersonClosedDoesNotBeginAnewWhileItIsRaised(t *testing.T) {
	w, id := raised(t)
	w.must(w.change(id, view.Close, ""))
	for range 5 { // as Alertmanager repeats it
		w.pass(5 * time.Minute)
		if acc := w.post("firing", "breach_of_trust", "fp1"); acc.Duplicates != 1 {
			t.Fatalf("the repeat of a signal whose incident was closed by hand: %+v", acc)
		}
	}
	w.clear(vulnerable)
	w.pass(time.Minute)
	w.raise(vulnerable)
	if acc := w.post("firing", "breach_of_trust", "fp1"); len(acc.Incidents) != 1 || acc.Incidents[0] == id {
		t.Fatalf("raised again after it was cleared: %+v", acc)
	}
}

func TestAStepThatFoundItsTargetAsWantedIsNotSaidToHaveRun(t *testing.T) {
	w, c := withTeam(t)
	w.target("flag_off").position = remediation.Wanted
	id := w.open()
	w.is(id, remediation.Settling, "")
	s := c.got[len(c.got)-1].Story
	if strings.Contains(s.Headline, "has run") || !strings.HasPrefix(s.Helped, "Nothing changed") {
		t.Errorf("%q; did it help? %q", s.Headline, s.Helped)
	}
}

func TestASignalIsNotSaidToAbortTheRollout(t *testing.T) {
	w := newHarness(t)
	w.declare("alpha")
	w.raise(vulnerable)
	what := ""
	w.target("flag_off").duringApply = func() { what = w.incident("inc-1").Next.What }
	w.fire("breach_of_trust", "fp1")
	if want := "since ann raised the signal " + vulnerable; !strings.Contains(what, want) {
		t.Errorf("what comes next: %q, want %q", what, want)
	}
}

func TestWhatComesNextSaysWhatWillHoldIt(t *testing.T) {
	cases := map[string]struct {
		next func(w *harness) string
		want string
	}{
		"a step that asks, while the one before it runs": {func(w *harness) (what string) {
			w.target("image_retag").duringApply = func() { what = w.incident("inc-1").Next.What }
			w.open()
			w.pass(5 * time.Minute)
			return what
		}, "it asks for its approval if the breach continues after the current step"},
		"a step that asks, while the one before it settles": {func(w *harness) string {
			id := w.open()
			w.pass(5 * time.Minute)
			return w.incident(id).Next.What
		}, "it asks for its approval then if the breach continues"},
		"a step that asks, after the recovery": {func(w *harness) string {
			id := w.open()
			w.pass(5 * time.Minute)
			w.cured("error_rate")
			w.pass(4 * time.Minute)
			w.is(id, remediation.Recovered, "")
			return w.incident(id).Next.What
		}, "it asks for its approval if the breach comes back before the incident closes"},
		"a step that asks, in an abort": {func(w *harness) (what string) {
			w.declare("alpha")
			w.target("image_retag").duringApply = func() { what = w.incident("inc-1").Next.What }
			_, err := w.engine.ChangeRollout(w.ctx, remediation.RolloutChange{Verb: remediation.RolloutAbort, Actor: "eve", Reason: "bad"})
			w.must(err)
			w.tick()
			return what
		}, "it asks for its approval next, since eve aborts the rollout"},
		"a step of a frozen service": {func(w *harness) string {
			id := w.open()
			freeze(w, time.Hour)
			return w.incident(id).Next.What
		}, "it does not run while shop is frozen by eve"},
		"a freeze that ends before": {func(w *harness) string {
			id := w.open()
			freeze(w, time.Minute)
			return w.incident(id).Next.What
		}, "it runs then if the breach continues"},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			if got := c.next(newHarness(t)); got != c.want {
				t.Errorf("it says %q, want %q", got, c.want)
			}
		})
	}
}

func TestWhatFiredStaysKnownOnceItsAlertFiresAgain(t *testing.T) {
	w := newHarness(t)
	first := w.open()
	w.calm("error_rate")
	w.pass(12 * time.Minute)
	w.is(first, remediation.Closed, "")
	w.post("resolved", "error_rate", "fp1")
	w.pass(2 * time.Hour)
	w.breach("error_rate")
	if second := w.fire("error_rate", "fp1"); second == first {
		t.Fatal("the first incident was opened again")
	}
	v := w.incident(first)
	if len(v.Triggers) != 1 || v.Triggers[0].Trigger != "error_rate" || v.Triggers[0].Fingerprint == "" || v.Triggers[0].Threshold == 0 {
		t.Errorf("the first incident's triggers are now %+v", v.Triggers)
	}
}
