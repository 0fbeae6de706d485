package engine_test

import (
	"log/slog"
	"net/http"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/locotoki/backout/remediation"
	"github.com/locotoki/backout/remediation/comms/slack"
	"github.com/locotoki/backout/remediation/comms/slack/chattest"
	"github.com/locotoki/backout/remediation/view"
)

// withSlack is a harness whose team is in a Slack workspace.
func withSlack(t *testing.T) (*harness, *chattest.Workspace) {
	t.Helper()
	ws := chattest.New(t)
	transport := &http.Transport{}
	t.Cleanup(transport.CloseIdleConnections)
	chat, err := slack.New(slack.Options{
		URL: ws.URL(), Token: chattest.Token, Buttons: true, Console: func() string { return "" },
		Channels: func() []string { return nil }, Transport: transport, Logger: slog.New(slog.DiscardHandler),
	})
	if err != nil {
		t.Fatal(err)
	}
	w := newHarness(t, replace("max_age: 5m", "max_age: 5h"), func(s string) string { return s + "communications: {slack_channel: \"#incidents\"}\n" })
	w.team = []remediation.Channel{chat}
	w.start()
	return w, ws
}

var bold = regexp.MustCompile(`(?m)^\S+ \*([^*]+)\*`)

// shown are the headlines of what stands in #incidents, and what stands in the thread of
// the message that has one.
func shown(t *testing.T, ws *chattest.Workspace) (mains, thread []string) {
	t.Helper()
	headlines := func(m *chattest.Posted) (all []string) {
		for _, found := range bold.FindAllStringSubmatch(m.Reads(), -1) {
			if !strings.HasPrefix(found[1], "The audit log ends") {
				all = append(all, found[1])
			}
		}
		return all
	}
	for _, m := range ws.Incidents().Mains() {
		mains = append(mains, headlines(m)...)
		for _, r := range ws.Incidents().Thread(m.TS) {
			thread = append(thread, headlines(r)...)
		}
	}
	return mains, thread
}

// incidentMessage is the one message that has a thread.
func incidentMessage(ws *chattest.Workspace) string {
	for _, m := range ws.Incidents().Mains() {
		if len(ws.Incidents().Thread(m.TS)) > 0 {
			return m.Reads()
		}
	}
	return ""
}

// A life to the last rung: two steps that do not help, a third that waits for a yes.
func liveThroughSlack(w *harness, meanwhile func(part int)) string {
	w.t.Helper()
	id := w.open()
	meanwhile(0)
	w.pass(8 * time.Minute)
	meanwhile(1)
	w.pass(8 * time.Minute)
	w.is(id, remediation.Waiting, remediation.HoldApproval)
	meanwhile(2)
	w.must(w.change(id, view.Approve, "3-schema_rollback"))
	w.pass(time.Minute)
	w.cured("error_rate")
	w.pass(4 * time.Minute)
	meanwhile(3)
	w.calm("error_rate")
	w.pass(12 * time.Minute)
	w.is(id, remediation.Closed, "")
	return id
}

// told is what the audit log says that the thread must tell, in order.
func lifeTold() []string {
	return []string{
		"Outcome: 1-flag_off done", "Next step: 2-image_retag", "Outcome: 2-image_retag done", "Next step: 3-schema_rollback",
		"Did not act: the next step needs a commander's approval", "Approved 3-schema_rollback", "Outcome: 3-schema_rollback done", "Recovered", "Closed",
	}
}

func TestAnIncidentsWholeLifeIsOneSlackMessageAndItsThread(t *testing.T) {
	w, ws := withSlack(t)
	asked := ""
	id := liveThroughSlack(w, func(part int) {
		if part == 2 {
			asked = incidentMessage(ws)
		}
	})
	mains, thread := shown(t, ws)
	if want := []string{"Rollout v2 alpha", "shop: Closed"}; !slices.Equal(mains, want) {
		t.Errorf("the channel shows %q, want %q", mains, want)
	}
	if want := lifeTold(); !slices.Equal(thread, want) {
		t.Errorf("the thread tells %q, want %q", thread, want)
	}
	if value := `[backout_approve danger {"incident":"` + id + `","step":"3-schema_rollback","question":"`; !strings.Contains(asked, value) {
		t.Errorf("it did not ask: %s", asked)
	}
	if got := incidentMessage(ws); strings.Contains(got, "[backout_") {
		t.Errorf("it asks for ever: %s", got)
	}
	seq, hash, err := w.engine.Head(w.ctx)
	if err != nil {
		t.Fatal(err)
	}
	last := ws.Incidents().Messages[len(ws.Incidents().Messages)-1].Reads()
	told := regexp.MustCompile(`--head=([0-9]+):([0-9a-f]{64})`).FindStringSubmatch(last)
	if told == nil {
		t.Fatalf("the last reply tells no head: %s", last)
	}
	found := false
	for _, e := range w.entries(id) {
		found = found || e.Hash == told[2]
	}
	if !found {
		t.Errorf("the head that was told is not in the log, which is at %d:%s", seq, hash)
	}
}

// TestASlackThatGoesWrongIsToldAllInOrderAndNothingTwice cuts answers off, refuses, rests
// and is away while the incident lives and backout restarts.
func TestASlackThatGoesWrongIsToldAllInOrderAndNothingTwice(t *testing.T) {
	w, ws := withSlack(t)
	liveThroughSlack(w, func(part int) {
		switch part {
		case 0:
			for n, a := range []chattest.Answer{{Effect: true}, {}, {Code: 502, Effect: true}, {Code: 429, RetryAfter: "30"}, {Said: "internal_error", Effect: true}, {Effect: true}, {Effect: true}} {
				ws.Then(2*n+1, a)
			}
		case 1:
			ws.GoAway()
		case 2:
			w.start() // the outbox is in the store
		case 3:
			ws.ComeBack()
			w.pass(5 * time.Minute) // the last try's delay
		}
	})
	mains, thread := shown(t, ws)
	if want := []string{"Rollout v2 alpha", "shop: Closed"}; !slices.Equal(mains, want) {
		t.Errorf("the channel shows %q, want %q", mains, want)
	}
	if want := lifeTold(); !slices.Equal(thread, want) {
		t.Errorf("the thread tells %q, want %q", thread, want)
	}
}
