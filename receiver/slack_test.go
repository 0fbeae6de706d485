package receiver

import (
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/locotoki/backout/receiver/config"
	"github.com/locotoki/backout/remediation"
	"github.com/locotoki/backout/remediation/audit"
	"github.com/locotoki/backout/remediation/comms/slack/chattest"
)

const signingSecret = "8f742231b10e8888abcd99yyyzzz85a5"

// slackBench is a bench that a workspace's people answer to.
type slackBench struct {
	*testing.T
	*bench
	slack *chattest.Workspace
	cfg   *config.Config
	next  int
}

func newSlackBench(t *testing.T, edit ...func(*config.Config)) *slackBench {
	t.Helper()
	b := &slackBench{T: t, bench: newBench(t), slack: chattest.New(t)}
	transport := &http.Transport{}
	t.Cleanup(transport.CloseIdleConnections)
	b.slackTransport = transport
	b.cfg = config.Default()
	b.cfg.Tokens = []config.Token{token(t, "oncall", config.Commander)}
	b.cfg.Slack = &config.Slack{
		URL: b.slack.URL(), Token: config.NewSecret(chattest.Token), SigningSecret: config.NewSecret(signingSecret),
		Users: []config.SlackUser{{ID: "U0BOB", Name: "bob"}, {ID: "U0ANN", Name: "ann"}},
	}
	for _, e := range edit {
		e(b.cfg)
	}
	if err := b.Reconfigure(b.cfg); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		for _, secret := range []string{signingSecret, chattest.Token, "/actions/T0/1/abc"} {
			if strings.Contains(b.log.String(), secret) {
				t.Errorf("the log tells %q:\n%s", secret, b.log)
			}
		}
	})
	return b
}

// signed is a request as Slack sends it.
func signed(payload any, at time.Time, secret string) *http.Request {
	raw, err := json.Marshal(payload)
	if err != nil {
		panic(err)
	}
	return signedBody(url.Values{"payload": {string(raw)}}.Encode(), at, secret)
}

func signedBody(body string, at time.Time, secret string) *http.Request {
	r := httptest.NewRequest(http.MethodPost, "/slack/interactions", strings.NewReader(body))
	r.Host = "backout.behind.a.proxy"
	r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	stamp := strconv.FormatInt(at.Unix(), 10)
	h := hmac.New(sha256.New, []byte(secret))
	h.Write([]byte("v0:" + stamp + ":" + body))
	r.Header.Set("X-Slack-Request-Timestamp", stamp)
	r.Header.Set("X-Slack-Signature", "v0="+hex.EncodeToString(h.Sum(nil)))
	return r
}

// press is a button that someone pressed.
func (b *slackBench) press(user, action string) map[string]any {
	b.next++
	return map[string]any{
		"type": "block_actions", "user": map[string]string{"id": user, "username": "whoever", "team_id": "T0"}, "api_app_id": "A0", "token": "old",
		"trigger_id": fmt.Sprint("trigger.", b.next), "response_url": b.slack.ResponseURL(), "container": map[string]string{"type": "message"},
		"team": map[string]string{"id": "T0"}, "channel": map[string]string{"id": "C0INC"}, "state": map[string]any{"values": map[string]any{}},
		"actions": []map[string]any{{
			"type": "button", "action_id": action, "block_id": "x", "action_ts": "1.2",
			"value": `{"incident":"inc-1","step":"2-schema_rollback"}`, "text": map[string]string{"type": "plain_text", "text": "Approve"},
		}},
	}
}

// submit is a modal that was opened, sent with a reason.
func (b *slackBench) submit(user, private, reason string) map[string]any {
	b.next++
	return map[string]any{
		"type": "view_submission", "user": map[string]string{"id": user}, "trigger_id": fmt.Sprint("trigger.", b.next),
		"view": map[string]any{
			"id": "V1", "type": "modal", "callback_id": slackCallback, "private_metadata": private,
			"state": map[string]any{"values": map[string]any{slackBlock: map[string]any{slackInput: map[string]string{"type": "plain_text_input", "value": reason}}}},
		},
	}
}

func (b *slackBench) sends(payload any) *httptest.ResponseRecorder {
	return b.do(signed(payload, time.Now(), signingSecret))
}

// opened is the private metadata of the modal that was opened last.
func (b *slackBench) opened() string {
	b.Helper()
	if len(b.slack.Views) == 0 {
		b.Fatalf("no modal was opened; the log says %s", b.log)
	}
	var v struct {
		Private string `json:"private_metadata"`
	}
	if err := json.Unmarshal(b.slack.Views[len(b.slack.Views)-1].Raw, &v); err != nil {
		b.Fatal(err)
	}
	return v.Private
}

func (b *slackBench) changed(want ...string) {
	b.Helper()
	if !slices.Equal(b.service.changes, want) {
		b.Errorf("the engine was asked for %q, want %q", b.service.changes, want)
	}
}

func TestAnAnswerFromSlackReachesTheEngineWithWhoAndWhy(t *testing.T) {
	for action, verb := range map[string]string{slackApprove: "approve", slackDeny: "deny"} {
		b := newSlackBench(t)
		if w := b.sends(b.press("U0ANN", action)); w.Code != http.StatusOK || w.Body.Len() > 0 {
			t.Fatalf("%d %s", w.Code, w.Body)
		}
		b.changed()
		wantOK(t, b.sends(b.submit("U0ANN", b.opened(), "  the views are broken ")), `{"response_action":"clear"}`)
		b.changed("inc-1 " + verb + " 2-schema_rollback slack:ann the views are broken")
		if len(b.slack.Told) > 0 {
			t.Errorf("somebody was told %q", b.slack.Told)
		}
	}
}

func TestAnApprovalFromSlackLetsTheStepRun(t *testing.T) {
	s, b := newTestService(t), newSlackBench(t)
	s.slackTransport = b.slackTransport
	if err := s.Reconfigure(b.cfg); err != nil {
		t.Fatal(err)
	}
	b.Server = s.Server
	id := s.breach()
	s.asks(id)
	inc, err := s.engine.Incident(t.Context(), id)
	if err != nil {
		t.Fatal(err)
	}
	pressed := func(question string) {
		press := b.press("U0ANN", slackApprove)
		press["actions"].([]map[string]any)[0]["value"] = `{"incident":"` + id + `","step":"4-schema_rollback","question":"` + question + `"}`
		b.sends(press)
	}
	pressed("2020-01-02T03:04:05Z")
	if w := b.sends(b.submit("U0ANN", b.opened(), "from an old message")); !strings.Contains(w.Body.String(), "answers an earlier request") {
		t.Error("from an old message:", w.Body)
	}
	pressed(inc.Steps[3].Question)
	wantOK(t, b.sends(b.submit("U0ANN", b.opened(), "restored on staging")), `{"response_action":"clear"}`)
	s.pass(15 * time.Second)
	if !s.targets["schema_rollback"].changed {
		t.Error("the approved step did not run")
	}
	entries, err := s.engine.Entries(t.Context(), audit.Filter{Incident: id, Kind: audit.KindApproved})
	if err != nil || len(entries) != 1 || entries[0].Actor != "slack:ann" || entries[0].Detail["reason"] != "restored on staging" {
		t.Errorf("the audit log says %+v: %v", entries, err)
	}
	// A later answer is told that it is decided.
	b.sends(b.press("U0BOB", slackDeny))
	private := strings.Replace(b.opened(), "2-schema_rollback", "4-schema_rollback", 1)
	if w := b.sends(b.submit("U0BOB", strings.Replace(private, "inc-1", id, 1), "too late")); !strings.Contains(w.Body.String(), "is not waiting for approval of 4-schema_rollback") {
		t.Errorf("%d %s", w.Code, w.Body)
	}
}

func TestARefusalIsShownInTheModal(t *testing.T) {
	b := newSlackBench(t)
	b.sends(b.press("U0ANN", slackApprove))
	private := b.opened()
	for _, err := range []error{
		&remediation.RefusedError{Refusal: remediation.Conflict, Message: "incident inc-1 is not waiting for approval of 2-schema_rollback: it is acting"},
		&remediation.RefusedError{Refusal: remediation.Missing, Message: "there is no incident inc-1"},
		context.DeadlineExceeded,
	} {
		b.service.err = err
		words := strings.SplitN(err.Error(), ":", 2)[0]
		if errors.Is(err, context.DeadlineExceeded) {
			words = "got no result in time"
		}
		w := b.sends(b.submit("U0ANN", private, "because"))
		var got struct {
			Action string            `json:"response_action"`
			Errors map[string]string `json:"errors"`
		}
		if jerr := json.Unmarshal(w.Body.Bytes(), &got); jerr != nil || w.Code != http.StatusOK || got.Action != "errors" || !strings.Contains(got.Errors[slackBlock], words) {
			t.Errorf("%v: %d %s", err, w.Code, w.Body)
		}
	}
	b.service.err, b.service.changes = nil, nil
	for _, reason := range []string{"", " \n", strings.Repeat("x", 5000)} {
		if w := b.sends(b.submit("U0ANN", private, reason)); w.Code != http.StatusOK || !strings.Contains(w.Body.String(), `"errors":{"reason":"reason is`) {
			t.Errorf("%.20q: %d %s", reason, w.Code, w.Body)
		}
	}
	b.changed()
}

func TestThoseWhoMayNotAnswerAreToldSo(t *testing.T) {
	b := newSlackBench(t)
	if w := b.sends(b.press("U0EVE", slackApprove)); w.Code != http.StatusOK {
		t.Fatalf("%d %s", w.Code, w.Body)
	}
	if len(b.slack.Views) > 0 || len(b.slack.Told) != 1 || !strings.Contains(b.slack.Told[0], "You may not approve or deny") {
		t.Errorf("%d modals; told %q", len(b.slack.Views), b.slack.Told)
	}
	// Not even with a modal that someone else opened.
	b.sends(b.press("U0ANN", slackApprove))
	if w := b.sends(b.submit("U0EVE", b.opened(), "because")); !strings.Contains(w.Body.String(), "You may not") {
		t.Errorf("%d %s", w.Code, w.Body)
	}
	// Nor once a reload has taken the right away.
	b.cfg.Slack.Users = b.cfg.Slack.Users[:1]
	if err := b.Reconfigure(b.cfg); err != nil {
		t.Fatal(err)
	}
	if w := b.sends(b.submit("U0ANN", b.opened(), "because")); !strings.Contains(w.Body.String(), "You may not") {
		t.Errorf("%d %s", w.Code, w.Body)
	}
	b.changed()
}

// hangs answers what one path is asked never, and everything else as it is.
type hangs struct {
	path string
	http.RoundTripper
}

func (h hangs) RoundTrip(r *http.Request) (*http.Response, error) {
	if strings.HasSuffix(r.URL.Path, h.path) {
		<-r.Context().Done()
		return nil, r.Context().Err()
	}
	return h.RoundTripper.RoundTrip(r)
}

func TestAQuestionThatDoesNotOpenInTimeIsSaidToHaveNotOpened(t *testing.T) {
	b := newSlackBench(t)
	b.slackTransport = hangs{"/views.open", b.slackTransport}
	began := time.Now()
	if w := b.sends(b.press("U0ANN", slackApprove)); w.Code != http.StatusOK {
		t.Errorf("%d %s", w.Code, w.Body)
	}
	if took := time.Since(began); took > 3*time.Second {
		t.Errorf("Slack waited for %s", took)
	}
	if len(b.slack.Told) != 1 || !strings.Contains(b.slack.Told[0], "did not open the form") {
		t.Errorf("who pressed it was told %q", b.slack.Told)
	}
}

func TestAnAnswerGoesToSlackOnly(t *testing.T) {
	b := newSlackBench(t)
	elsewhere := chattest.New(t)
	for _, address := range []string{elsewhere.ResponseURL(), "", "http://hooks.slack.com/x", "https://hooks.slack.com.example.com/x", "https://u:p@hooks.slack.com/x", "file:///etc/passwd"} {
		p := b.press("U0EVE", slackApprove)
		p["response_url"] = address
		if w := b.sends(p); w.Code != http.StatusOK {
			t.Errorf("%s: %d %s", address, w.Code, w.Body)
		}
		if (&config.Slack{URL: config.SlackURL}).IsSlack(address) {
			t.Errorf("%s is taken for Slack's", address)
		}
	}
	b.slack.Then(1, chattest.Answer{Code: 307, Location: elsewhere.ResponseURL()})
	b.sends(b.press("U0EVE", slackApprove))
	if len(elsewhere.Requests) > 0 || len(b.slack.Told) > 0 {
		t.Errorf("answers went to %v", elsewhere.Requests)
	}
	for url, address := range map[string]string{config.SlackURL: "https://hooks.slack.com/actions/T0/1/x", "https://slack-gov.com/api": "https://hooks.slack-gov.com/actions/T0/1/x"} {
		if !(&config.Slack{URL: url}).IsSlack(address) {
			t.Errorf("%s is not taken for Slack's", address)
		}
	}
}

func TestAModalThatDoesNotOpenIsSaidAndNotHidden(t *testing.T) {
	for _, a := range []chattest.Answer{{Said: "expired_trigger_id"}, {Said: "bad token " + chattest.Token}, {Code: 500}, {}} {
		b := newSlackBench(t)
		b.slack.Then(1, a)
		if w := b.sends(b.press("U0ANN", slackApprove)); w.Code != http.StatusOK {
			t.Errorf("%+v: %d %s", a, w.Code, w.Body)
		}
		if len(b.slack.Told) != 1 || !strings.Contains(b.slack.Told[0], "backout approve inc-1 2-schema_rollback --reason=WHY") {
			t.Errorf("%+v: told %q", a, b.slack.Told)
		}
	}
}

func TestWhatSlackDidNotSignIsRefused(t *testing.T) {
	b := newSlackBench(t)
	now := time.Now()
	good := b.press("U0ANN", slackApprove)
	changed := signed(good, now, signingSecret)
	changed.Body = http.NoBody
	other := signed(b.press("U0BOB", slackDeny), now, signingSecret)
	other.Header.Set("X-Slack-Signature", signed(good, now, signingSecret).Header.Get("X-Slack-Signature"))
	later := signed(good, now, signingSecret)
	later.Header.Set("X-Slack-Request-Timestamp", strconv.FormatInt(now.Unix()+1, 10))
	for name, r := range map[string]*http.Request{
		"another secret":   signed(good, now, "another"),
		"stale":            signed(good, now.Add(-5*time.Minute-2*time.Second), signingSecret),
		"from the future":  signed(good, now.Add(5*time.Minute+time.Minute), signingSecret),
		"no body":          changed,
		"another's body":   other,
		"another time":     later,
		"no signature":     without(signed(good, now, signingSecret), "X-Slack-Signature"),
		"no time":          without(signed(good, now, signingSecret), "X-Slack-Request-Timestamp"),
		"only a token":     as(without(signed(good, now, signingSecret), "X-Slack-Signature"), "oncall"),
		"an odd signature": with(signed(good, now, signingSecret), "X-Slack-Signature", "v0=zz"),
		"an old version":   with(signed(good, now, signingSecret), "X-Slack-Signature", "v1=00"),
	} {
		w := b.do(r)
		if w.Code != http.StatusUnauthorized {
			t.Errorf("%s: %d %s", name, w.Code, w.Body)
		}
	}
	if len(b.slack.Requests) > 0 {
		t.Errorf("slack was asked for %v", b.slack.Requests)
	}
	b.changed()
}

func without(r *http.Request, header string) *http.Request {
	r.Header.Del(header)
	return r
}

func with(r *http.Request, header, value string) *http.Request {
	r.Header.Set(header, value)
	return r
}

func TestARequestThatComesTwiceCountsOnce(t *testing.T) {
	b := newSlackBench(t)
	b.sends(b.press("U0ANN", slackApprove))
	p := b.submit("U0ANN", b.opened(), "because")
	at := time.Now()
	wantOK(t, b.do(signed(p, at, signingSecret)), `{"response_action":"clear"}`)
	upper := signed(p, at, signingSecret)
	upper.Header.Set("X-Slack-Signature", "v0="+strings.ToUpper(strings.TrimPrefix(upper.Header.Get("X-Slack-Signature"), "v0=")))
	for _, r := range []*http.Request{signed(p, at, signingSecret), upper} {
		wantError(t, b.do(r), http.StatusUnauthorized, "sent before")
	}
	b.changed("inc-1 approve 2-schema_rollback slack:ann because")
}

func TestARequestThatCannotBeRememberedIsRefused(t *testing.T) {
	b := newSlackBench(t)
	for _, err := range []error{remediation.ErrFull, remediation.StoreAway(context.DeadlineExceeded)} {
		b.service.err = err
		wantError(t, b.do(signed(b.press("U0ANN", slackApprove), time.Now(), signingSecret)), http.StatusServiceUnavailable, "press the button again")
	}
	b.changed()
}

func TestWithoutASecretOrTokensThereIsNoSuchAddress(t *testing.T) {
	for name, edit := range map[string]func(*config.Config){
		"no slack":  func(c *config.Config) { c.Slack = nil },
		"no secret": func(c *config.Config) { c.Slack.SigningSecret, c.Slack.Users = config.Secret{}, nil },
		"no tokens": func(c *config.Config) { c.Tokens = nil },
	} {
		b := newSlackBench(t, edit)
		for _, secret := range []string{signingSecret, "(secret)"} {
			if w := b.do(signed(b.press("U0ANN", slackApprove), time.Now(), secret)); w.Code != http.StatusNotFound {
				t.Errorf("%s: %d %s", name, w.Code, w.Body)
			}
		}
		b.changed()
	}
}

func TestAnInteractionThatIsNotUnderstoodChangesNothing(t *testing.T) {
	b := newSlackBench(t)
	odd := b.press("U0ANN", "another_app")
	value := b.press("U0ANN", slackApprove)
	value["actions"].([]map[string]any)[0]["value"] = `{"incident":"inc-1"}`
	two := b.press("U0ANN", slackApprove)
	two["actions"] = append(two["actions"].([]map[string]any), two["actions"].([]map[string]any)...)
	verb := b.submit("U0ANN", `{"verb":"close","incident":"inc-1","step":"x"}`, "because")
	other := b.submit("U0ANN", `{}`, "because")
	other["view"].(map[string]any)["callback_id"] = "another"
	for name, p := range map[string]any{
		"another button": odd, "no step": value, "two buttons": two, "another verb": verb, "another modal": other,
		"a list": []string{}, "a shortcut": map[string]string{"type": "shortcut"},
	} {
		if w := b.sends(p); w.Code != http.StatusBadRequest {
			t.Errorf("%s: %d %s", name, w.Code, w.Body)
		}
	}
	now := time.Now()
	for name, c := range map[string]struct {
		*http.Request
		code int
	}{
		"no payload": {signedBody("a=b", now, signingSecret), 400},
		"no form":    {signedBody("%zz", now, signingSecret), 400},
		"too much":   {signedBody("payload="+strings.Repeat("x", maxInteraction), now, signingSecret), 413},
		"JSON":       {with(signed(b.press("U0ANN", slackApprove), now, signingSecret), "Content-Type", "application/json"), 415},
	} {
		if w := b.do(c.Request); w.Code != c.code {
			t.Errorf("%s: %d %s", name, w.Code, w.Body)
		}
	}
	if len(b.slack.Requests) > 0 {
		t.Errorf("slack was asked for %v", b.slack.Requests)
	}
	b.changed()
}

func TestNamesInAModalAreShownAsTheyAre(t *testing.T) {
	b := newSlackBench(t)
	p := b.press("U0ANN", slackApprove)
	p["actions"].([]map[string]any)[0]["value"] = `{"incident":"<!channel>*x*","step":"<https://evil.example.com|y>\u202e"}`
	b.sends(p) // the workspace fails the test where markup comes through
	b.opened()
}
