package slack

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/locotoki/backout/alerts"
	"github.com/locotoki/backout/remediation"
	"github.com/locotoki/backout/remediation/audit"
	"github.com/locotoki/backout/remediation/comms/slack/chattest"
	"github.com/locotoki/backout/remediation/view"
)

// test is a workspace, and a chat in it.
type test struct {
	*testing.T
	*chattest.Workspace
	chat    *Chat
	log     bytes.Buffer
	receipt string
}

func begin(t *testing.T, edit ...func(*Options)) *test {
	t.Helper()
	x := &test{T: t, Workspace: chattest.New(t)}
	x.chat = x.open(edit...)
	t.Cleanup(func() {
		if strings.Contains(x.log.String(), chattest.Token) {
			t.Error("the log tells the token")
		}
	})
	return x
}

// open is a chat as after a start of backout.
func (x *test) open(edit ...func(*Options)) *Chat {
	x.Helper()
	transport := &http.Transport{}
	x.Cleanup(transport.CloseIdleConnections)
	o := Options{
		URL: x.URL(), Token: chattest.Token, Buttons: true, Console: func() string { return "https://backout.example.com" }, Transport: transport,
		Channels: func() []string { return []string{"#incidents"} }, Logger: slog.New(slog.NewTextHandler(&x.log, nil)),
	}
	for _, e := range edit {
		e(&o)
	}
	c, err := New(o)
	if err != nil {
		x.Fatal(err)
	}
	return c
}

// try delivers one message as the outbox does, and keeps its receipt.
func (x *test) try(m remediation.Message) error {
	m.Receipt = x.receipt
	receipt, err := x.chat.Deliver(x.Context(), m)
	if receipt != "" && m.Key != "service/shop" {
		x.receipt = receipt
	}
	if err != nil && strings.Contains(err.Error(), chattest.Token) {
		x.Errorf("the error tells the token: %v", err)
	}
	return err
}

func (x *test) delivers(m remediation.Message) {
	x.Helper()
	if err := x.try(m); err != nil {
		x.Fatal(err)
	}
}

var opened = time.Date(2026, 11, 22, 3, 0, 0, 0, time.UTC)

// story is an incident whose first step has run, n minutes after it opened.
func story(n int, state remediation.State) *view.Story {
	now := opened.Add(time.Duration(n) * time.Minute)
	value, started := 0.05, opened.Add(time.Second)
	v := view.IncidentView{
		ID: "inc-1", Service: "shop", Rollout: "v2", State: state, Opened: opened,
		Triggers: []view.TriggerView{{Trigger: "error_rate", Fingerprint: "f", Active: true, Threshold: 0.01, Value: &value, Observed: &started}},
		Steps: []view.StepView{
			{ID: "1-flag_off", Action: "flag_off", Target: "FEATURE_A", Risk: "reversible", State: remediation.StepDone, Started: &started, Finished: &started},
			{ID: "2-schema_rollback", Action: "schema_rollback", Target: "postgres:shop", Risk: "lossy", State: remediation.StepPending},
		},
	}
	if state != remediation.Closed {
		at := now.Add(5 * time.Minute)
		v.Next = &view.Next{Step: "2-schema_rollback", At: &at, What: "it runs then if the breach continues", Unless: []string{"the breach ends", "someone claims the incident"}}
	}
	if state == remediation.Waiting {
		until := now.Add(30 * time.Minute)
		v.Why = "it is lossy, and asked for at 03:05:00"
		v.Reason, v.Until = remediation.HoldApproval, &until
	}
	above := 2
	s := view.NewStory(v, view.ServiceNow{
		Service: "shop", Triggers: []view.TriggerNow{{Name: "error_rate", Unit: alerts.Ratio, Above: true, Severity: 3}},
		Call: "https://meet.example.com/shop", CallAbove: &above,
	}, now)
	s.Triggers = nil
	return &s
}

// line is something that was told, with its place in the log.
func line(seq int64, kind audit.Kind, title, why string) remediation.TeamLine {
	return remediation.TeamLine{Kind: kind, Time: opened, Actor: "engine", Title: title, Tone: "good", Why: why, Seq: seq, Hash: fmt.Sprintf("%064x", seq)}
}

func message(s *view.Story, told ...remediation.TeamLine) remediation.Message {
	m := remediation.Message{Channel: Name, Key: "service/shop", Service: "shop", Created: opened}
	if s != nil {
		m.Key, m.Incident = s.ID, s.ID
	}
	body, err := json.Marshal(view.TeamMessage{Channel: "#incidents", Story: s, Told: told})
	if err != nil {
		panic(err)
	}
	m.Body = body
	return m
}

// life is an incident's, message by message; the third only moves it on.
var life = []remediation.Message{
	message(story(1, remediation.Settling), line(11, audit.KindOutcome, "Outcome: 1-flag_off done", "")),
	message(story(5, remediation.Waiting), line(14, audit.KindHeld, "Did not act: the next step needs a commander's approval", "lossy")),
	message(story(6, remediation.Acting)),
	message(story(7, remediation.Recovered), line(17, audit.KindRecovered, "Recovered", "")),
	message(story(12, remediation.Closed), line(20, audit.KindClosed, "Closed", "")),
}

// wholeLife checks that the incident has one message, and its thread four in order.
func (x *test) wholeLife() {
	x.Helper()
	mains := x.Incidents().Mains()
	if len(mains) != 1 {
		x.Fatalf("the channel shows %d messages, want one", len(mains))
	}
	if got := mains[0].Reads(); !strings.Contains(got, "*shop: Closed*") {
		x.Errorf("the message was not kept up to date:\n%s", got)
	}
	var titles []string
	for _, m := range x.Incidents().Thread(mains[0].TS) {
		titles = append(titles, strings.SplitN(m.Reads(), "*", 3)[1])
	}
	want := []string{"Outcome: 1-flag_off done", "Did not act: the next step needs a commander's approval", "Recovered", "Closed"}
	if !slices.Equal(titles, want) {
		x.Errorf("the thread tells %q, want %q", titles, want)
	}
}

func TestAnIncidentHasOneMessageAndItsThread(t *testing.T) {
	x := begin(t)
	for _, m := range life {
		x.delivers(m)
	}
	x.wholeLife()
	if m := x.Incidents().Mains()[0]; m.Edits != 4 {
		t.Errorf("it was edited %d times, want 4", m.Edits)
	}
	thread := x.Incidents().Thread(x.Incidents().Mains()[0].TS)
	if last := thread[3].Reads(); !strings.Contains(last, fmt.Sprintf("backout audit verify --head=20:%064x", 20)) {
		t.Errorf("the last reply does not tell the head: %s", last)
	}
}

func TestTheMessageSaysWhatACommanderAsks(t *testing.T) {
	x := begin(t)
	x.delivers(life[0])
	main := x.Incidents().Mains()[0]
	got := main.Reads()
	for _, want := range []string{
		"🟡 *shop: A step has run: watching whether it helped*",
		"*What broke* `error_rate` is *5%*, trigger is above 1% (firing)",
		"*What was done* `1-flag_off` done <!date^1795316401^{date_short_pretty} at {time_secs}|22 Nov 03:00:01 UTC>",
		"*Did it help?* Not known yet",
		"*What comes next* `2-schema_rollback`, <!date^1795316760^",
		"*How to stop it* `backout incident claim inc-1 --reason=WHY`",
		"*Start an incident call* (severity 3): <https://meet.example.com/shop|join it here>",
		"<https://backout.example.com/incidents/inc-1|Open inc-1 in the console>",
		fmt.Sprintf("audit head `11:%064x`", 11),
	} {
		if !strings.Contains(got, want) {
			t.Errorf("it does not say %q:\n%s", want, got)
		}
	}
	if want := "🟡 shop: A step has run: watching whether it helped. error_rate 5%, trigger is above 1%"; main.Text != want {
		t.Errorf("a phone shows %q, want %q", main.Text, want)
	}
	if strings.Contains(got, "[backout_") {
		t.Errorf("it asks although nothing is asked:\n%s", got)
	}
}

func TestAQuestionHasButtonsUntilItIsAnswered(t *testing.T) {
	x := begin(t)
	x.delivers(life[1])
	got := x.Incidents().Mains()[0].Reads()
	value := `{"incident":"inc-1","step":"2-schema_rollback"}`
	for _, want := range []string{"[backout_approve danger " + value + "]", "[backout_deny  " + value + "]", "*data can be lost*", "Without an answer it is *skipped* <!date^", "\nit is lossy, and asked for at 03:05:00.",
		"(firing, seen <!date^1795316401^"} {
		if !strings.Contains(got, want) {
			t.Errorf("it does not say %q:\n%s", want, got)
		}
	}
	x.delivers(life[2])
	if got := x.Incidents().Mains()[0].Reads(); strings.Contains(got, "[backout_") {
		t.Errorf("the buttons are still there:\n%s", got)
	}

	blind := story(5, remediation.Waiting)
	blind.Broke[0].Unanswered = true
	x.delivers(message(blind))
	if got := x.Incidents().Mains()[0].Reads(); !strings.Contains(got, "(firing, Prometheus does not answer now)") {
		t.Errorf("the value passes for one of now:\n%s", got)
	}

	mild := story(5, remediation.Waiting)
	mild.Steps[1].Risk = "disruptive"
	x.delivers(message(mild))
	if got := x.Incidents().Mains()[0].Reads(); !strings.Contains(got, "[backout_approve primary ") {
		t.Errorf("a step that loses nothing is asked for as dangerous:\n%s", got)
	}
}

func TestWithoutButtonsTheMessageSaysWhereToAnswer(t *testing.T) {
	x := begin(t, func(o *Options) { o.Buttons, o.Console = false, func() string { return "" } })
	x.delivers(life[1])
	got := x.Incidents().Mains()[0].Reads()
	if strings.Contains(got, "[backout_") || strings.Contains(got, "https://backout") || !strings.Contains(got, "`backout approve inc-1 2-schema_rollback --reason=WHY`") {
		t.Error(got)
	}
}

func TestWhatConcernsNoIncidentIsOnePlainMessage(t *testing.T) {
	x := begin(t)
	l := line(3, audit.KindFrozen, "Frozen every service", "a release elsewhere")
	l.Actor = "ann"
	x.delivers(message(nil, l))
	x.delivers(message(nil, l)) // its answer was lost
	mains := x.Incidents().Mains()
	if len(mains) != 1 || len(x.Incidents().Messages) != 1 {
		t.Fatalf("%d messages", len(x.Incidents().Messages))
	}
	if got := mains[0].Reads(); !strings.Contains(got, "*Frozen every service*") || !strings.Contains(got, "by `ann`: a release elsewhere") || !strings.Contains(got, fmt.Sprintf("audit head `3:%064x`", 3)) {
		t.Error(got)
	}
	x.delivers(message(nil, line(4, audit.KindThawed, "Thawed every service", "")))
	if n := len(x.Incidents().Mains()); n != 2 {
		t.Errorf("%d messages, want 2", n)
	}
}

// TestACutAnswerDoublesNothing cuts every request of an incident's life off, before
// and after it has had its effect; the outbox then delivers the message again.
func TestACutAnswerDoublesNothing(t *testing.T) {
	x := begin(t)
	for _, m := range life {
		x.delivers(m)
	}
	requests := len(x.Requests)
	if requests < 15 {
		t.Fatalf("a life takes %d requests: %v", requests, x.Requests)
	}
	for n := 1; n <= requests; n++ {
		for name, a := range map[string]chattest.Answer{
			"cut before": {}, "cut after": {Effect: true}, "failed after": {Code: 503, Text: "<html>", Effect: true},
			"not understood": {Code: 200, Text: "{", Effect: true}, "neither yes nor no": {Code: 200, Text: "{}", Effect: true},
		} {
			x := begin(t)
			x.Then(n, a)
			failed := 0
			for _, m := range life {
				for x.try(m) != nil {
					if failed++; failed > 1 {
						t.Fatalf("request %d %s: it failed again", n, name)
					}
				}
			}
			if failed != 1 {
				t.Errorf("request %d (%s) %s, and nothing failed", n, x.Requests[n-1], name)
			}
			if x.wholeLife(); t.Failed() {
				t.Fatalf("request %d %s: %v", n, name, x.Requests)
			}
		}
	}
}

// TestACrashBetweenPostAndCommitDoublesNothing delivers each message twice, the second
// time as a process does that knows nothing of the first.
func TestACrashBetweenPostAndCommitDoublesNothing(t *testing.T) {
	for crashed := range life {
		x := begin(t)
		for i, m := range life {
			before := x.receipt
			x.delivers(m)
			if i == crashed {
				x.receipt, x.chat = before, x.open()
				x.delivers(m)
			}
		}
		if x.wholeLife(); t.Failed() {
			t.Fatalf("message %d: %v", crashed, x.Requests)
		}
	}
}

func TestAReceiptThatIsNotUnderstoodCostsALookOnly(t *testing.T) {
	x := begin(t)
	x.delivers(life[0])
	x.receipt = "at inc-1"
	for _, m := range life[1:] {
		x.delivers(m)
	}
	x.wholeLife()
}

func TestAnotherIncidentOfTheSameNameHasAMessageOfItsOwn(t *testing.T) {
	x := begin(t)
	x.delivers(life[0])
	x.receipt = ""
	later := story(1, remediation.Settling)
	later.Opened = later.Opened.Add(time.Minute) // of another store, which counts anew
	x.delivers(message(later, line(5, audit.KindOutcome, "Outcome", "")))
	if n := len(x.Incidents().Mains()); n != 2 {
		t.Errorf("%d messages, want 2", n)
	}
}

func TestWhatOthersPostIsNotTakenForOurs(t *testing.T) {
	x := begin(t)
	x.delivers(life[0])
	mine := x.Incidents().Messages
	for _, m := range mine { // someone else's app shows the same metadata
		m.User, m.Bot = "U0OTHER", "B0OTHER"
	}
	x.receipt = ""
	x.delivers(life[0])
	if n := len(x.Incidents().Messages); n != 4 || mine[0].Edits > 0 {
		t.Errorf("%d messages, want 4; the other's was edited %d times", n, mine[0].Edits)
	}
}

func TestAMessageThatSomebodyDeletedIsPostedAnew(t *testing.T) {
	x := begin(t)
	x.delivers(life[0])
	x.Incidents().Messages = nil
	x.Then(5, chattest.Answer{Effect: true}) // and the answer to that is lost
	failed := 0
	for _, m := range life[1:] {
		for x.try(m) != nil {
			failed++
		}
	}
	if failed != 1 || len(x.Incidents().Mains()) != 1 || len(x.Incidents().Messages) != 4 {
		t.Errorf("%d failed; %d messages: %v", failed, len(x.Incidents().Messages), x.Requests)
	}
	if !strings.Contains(x.log.String(), "posting a new one") {
		t.Errorf("the log says %s", x.log.String())
	}
}

func TestAnIncidentFollowsThePlaybookToAnotherChannelOnlyWhereItsOwnIsGone(t *testing.T) {
	x := begin(t)
	x.delivers(life[0])
	x.Channels[0].Member = true
	move := func(m remediation.Message) remediation.Message {
		m.Body = bytes.Replace(m.Body, []byte("#incidents"), []byte("#general"), 1)
		return m
	}
	x.delivers(move(life[1]))
	if len(x.Channels[0].Messages) != 0 || len(x.Incidents().Messages) != 3 {
		t.Error("the incident did not stay where it was")
	}
	x.Incidents().Member = false
	x.delivers(move(life[3]))
	if len(x.Channels[0].Messages) != 2 {
		t.Error("the incident did not go where the playbook says")
	}
}

func TestAMessageIsFoundInABusyChannel(t *testing.T) {
	x := begin(t)
	x.delivers(life[0])
	thread := x.Incidents().Mains()[0].TS
	for i := range 450 {
		x.Put(x.Incidents(), &chattest.Posted{User: "U0ANN", Text: fmt.Sprint(i)})
		x.Put(x.Incidents(), &chattest.Posted{User: "U0ANN", Text: fmt.Sprint(i), Thread: thread})
	}
	x.delivers(life[1])
	x.receipt = ""
	x.delivers(life[0])
	x.delivers(life[1])
	if n := len(x.Incidents().Messages); n != 903 {
		t.Errorf("%d messages, want 903", n)
	}
}

func TestAnAnswerThatAsksForRestRestsTheChannel(t *testing.T) {
	for name, c := range map[string]struct {
		chattest.Answer
		want time.Duration
	}{
		"with a time":    {chattest.Answer{Code: 429, RetryAfter: "42"}, 42 * time.Second},
		"without a time": {chattest.Answer{Code: 429}, restWithout},
		"with none":      {chattest.Answer{Code: 429, RetryAfter: "0"}, time.Second},
		"in the body":    {chattest.Answer{Said: "ratelimited"}, restWithout},
	} {
		for n := 1; n <= 4; n++ {
			x := begin(t)
			x.Then(n, c.Answer)
			if err := x.try(life[0]); rest(err) != c.want {
				t.Errorf("%s, request %d: rest %s, want %s: %v", name, n, rest(err), c.want, err)
			}
			x.delivers(life[0])
		}
	}
}

// rest is what an error asks for; -1 where it asks for none.
func rest(err error) time.Duration {
	var wait interface{ RetryAfter() time.Duration }
	if !errors.As(err, &wait) {
		return -1
	}
	return wait.RetryAfter()
}

func undeliverable(err error) bool {
	var never interface{ Undeliverable() }
	return errors.As(err, &never)
}

func TestWhatAPersonCanFixIsRetriedAndSaysHow(t *testing.T) {
	for code, try := range map[string]string{
		"channel_not_found": "/invite", "not_in_channel": "/invite", "is_archived": "unarchive", "invalid_auth": "slack.token_file",
		"token_revoked": "slack.token_file", "token_expired": "slack.token_file", "account_inactive": "slack.token_file",
		"missing_scope": "chat:write", "no_permission": "chat:write", "restricted_action": "posting permissions",
		"ekm_access_denied": "administrators", "internal_error": "", "fatal_error": "", "service_unavailable": "", "request_timeout": "",
		"what is this": "",
	} {
		x := begin(t)
		x.Then(4, chattest.Answer{Said: code})
		err := x.try(life[0])
		if err == nil || undeliverable(err) || rest(err) != -1 || !strings.Contains(err.Error(), code) || !strings.Contains(err.Error(), try) ||
			(try == "") == strings.Contains(err.Error(), "; try: ") {
			t.Errorf("%s: %v", code, err)
		}
		x.delivers(life[0])
	}
}

func TestAMessageThatSlackFindsWrongIsDropped(t *testing.T) {
	for _, code := range notWritten {
		x := begin(t)
		x.Then(4, chattest.Answer{Said: code})
		if err := x.try(life[0]); !undeliverable(err) || !strings.Contains(err.Error(), code) {
			t.Errorf("%s: %v", code, err)
		}
	}
	x := begin(t)
	for _, body := range []string{`[]`, `{}`, `{"channel":"#incidents"}`} {
		if err := x.try(remediation.Message{Body: json.RawMessage(body)}); !undeliverable(err) {
			t.Errorf("%s: %v", body, err)
		}
	}
}

func TestAChannelThatTheAppIsNotInSaysSo(t *testing.T) {
	x := begin(t)
	x.Incidents().Member = false
	if err := x.try(life[0]); err == nil || undeliverable(err) || !strings.Contains(err.Error(), "#incidents") || !strings.Contains(err.Error(), "/invite") {
		t.Errorf("%v", err)
	}
	x.Incidents().Member = true
	x.delivers(life[0])
}

func TestTheTokenIsNotTakenElsewhereNorTold(t *testing.T) {
	elsewhere := chattest.New(t)
	for _, code := range []int{301, 302, 307, 308} {
		x := begin(t)
		x.Then(1, chattest.Answer{Code: code, Location: elsewhere.URL() + "/users.conversations"})
		if err := x.try(life[0]); err == nil || undeliverable(err) || !strings.Contains(err.Error(), "slack.url") || len(elsewhere.Requests) > 0 {
			t.Errorf("%d led to %v: %v", code, elsewhere.Requests, err)
		}
	}
	x := begin(t)
	x.Then(1, chattest.Answer{Said: "no such token: " + chattest.Token + strings.Repeat(" no", 1000)})
	if err := x.try(life[0]); err == nil || len(err.Error()) > 600 {
		t.Errorf("%v", err)
	}
}

func TestADeliveryEndsWithItsContext(t *testing.T) {
	x := begin(t)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := x.chat.Deliver(ctx, life[0]); !errors.Is(err, context.Canceled) {
		t.Errorf("%v", err)
	}
}

func TestAChatThatWouldDeliverSaysSoAndTellsNobody(t *testing.T) {
	x := begin(t)
	if err := x.chat.Accepts(t.Context()); err != nil || len(x.Incidents().Messages) > 0 {
		t.Errorf("%v; %d messages", err, len(x.Incidents().Messages))
	}
	for name, spoil := range map[string]func(*test){
		"/invite":          func(x *test) { x.Incidents().Member = false },
		"chat:write":       func(x *test) { x.Scopes = "channels:read,channels:history" },
		"token_file":       func(x *test) { x.chat = x.open(func(o *Options) { o.Token = "xoxb-wrong" }) },
		"channels:history": func(x *test) { x.Then(3, chattest.Answer{Said: "missing_scope"}) },
		"auth.test":        func(x *test) { x.GoAway() },
	} {
		x := begin(t)
		spoil(x)
		if err := x.chat.Accepts(t.Context()); err == nil || !strings.Contains(err.Error(), name) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestAHalfConfiguredChatIsRefused(t *testing.T) {
	for _, o := range []Options{{URL: "slack.com", Token: "a"}, {URL: "https://slack.com/api"}} {
		if _, err := New(o); err == nil {
			t.Errorf("%+v", o)
		}
	}
}
