package remediation_test

import (
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/locotoki/backout/remediation"
)

func TestTheTeamHearsThatAHumanIsNeeded(t *testing.T) {
	w, c := withTeam(t)
	id := w.open()
	w.pass(16 * time.Minute)
	w.must(w.change(id, remediation.Approve, "3-schema_rollback"))
	w.pass(10 * time.Minute)
	w.is(id, remediation.Exhausted, "")
	last := c.got[len(c.got)-1].Told
	if len(last) != 1 || last[0].Title != "Needs a human: exhausted" || last[0].Tone != "bad" || !strings.Contains(last[0].Why, "after the last step") {
		t.Fatalf("the team was told last: %+v", last)
	}
}

func TestAHoldThatPagesIsToldOnce(t *testing.T) {
	w, c := withTeam(t)
	w.target("flag_off").applyErr = errors.New("no disk")
	id := w.open()
	w.is(id, remediation.Waiting, remediation.HoldStepFailed)
	if n := len(titles(c, "Needs a human")); n > 0 {
		t.Errorf("told %d times what the hold says already: %q", n, c.told())
	}
	if n := len(titles(c, "Did not act: a step failed")); n != 1 {
		t.Errorf("the hold was told %d times: %q", n, c.told())
	}
}

func TestTheTeamHearsWhatThePublicCouldNotBeTold(t *testing.T) {
	p, c := &page{name: "statuspage", errs: []error{remediation.Undeliverable(errors.New("422: no such component"))}}, &chat{}
	w := newWorld(t, append(telling(), func(s string) string { return s + "communications: {slack_channel: \"#incidents\"}\n" })...)
	w.pages, w.team = []remediation.Channel{p}, []remediation.Channel{c}
	w.start()
	id := w.open()
	w.tick()
	if got, want := titles(c, "Not told"), []string{"Not told by statuspage: update 1: identified"}; !slices.Equal(got, want) {
		t.Errorf("the team was told %q, want %q", c.told(), want)
	}
	for _, en := range w.entries(id) {
		if told := remediation.Tell(en); strings.HasPrefix(told.Title, "Told: update") {
			t.Errorf("the time line says %q of what never arrived", told.Title)
		}
	}
}

func TestWhatTheTeamItselfCouldNotBeToldIsNotToldAgain(t *testing.T) {
	w, c := withTeam(t)
	c.down = remediation.Undeliverable(errors.New("msg_too_long"))
	w.open()
	c.down = nil
	w.pass(time.Minute)
	if got := titles(c, "Not told"); len(got) > 0 {
		t.Errorf("the team was told %q", got)
	}
}

func TestAFreezeOfPromotionsAloneSaysSo(t *testing.T) {
	w, c := withTeam(t)
	_, err := w.engine.PutFreeze(w.ctx, remediation.Freeze{Service: "shop", Scope: remediation.ScopePromotions, By: "ann", Reason: "sale"})
	w.must(err)
	_, err = w.engine.PutFreeze(w.ctx, remediation.Freeze{Service: "shop", Scope: remediation.ScopeAll, By: "ann", Reason: "sale"})
	w.must(err)
	w.tick()
	if want := []string{"Frozen shop, its promotions only", "Frozen shop"}; !slices.Equal(c.told(), want) {
		t.Errorf("the team was told %q, want %q", c.told(), want)
	}
}
