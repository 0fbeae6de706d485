package unleash

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/locotoki/backout/alerts"
	"github.com/locotoki/backout/remediation"
)

const op = "12/1-flag_off@1700000000"

func look(t *testing.T, a remediation.Action) remediation.Look {
	t.Helper()
	l, err := a.Look(t.Context(), op)
	if err != nil {
		t.Fatal(err)
	}
	return l
}

// apply looks, applies and verifies, and returns the look.
func apply(t *testing.T, a remediation.Action) remediation.Look {
	t.Helper()
	l := look(t, a)
	if err := a.Apply(t.Context(), op, l.Snapshot); err != nil {
		t.Fatal(err)
	}
	if err := a.Verify(t.Context(), op); err != nil {
		t.Fatal(err)
	}
	return l
}

func undo(t *testing.T, a remediation.Action, before remediation.Look) {
	t.Helper()
	if err := a.Undo(t.Context(), op, before.Snapshot); err != nil {
		t.Fatal(err)
	}
}

func TestSDKsGetAFlagOffInOneEnvironmentAndOnAgainByUndo(t *testing.T) {
	t.Parallel()
	f := newFlag(t).gradual(40).turn(on)
	f.gets("40%")
	was := f.state()
	before := apply(t, f.off(http.DefaultTransport))
	f.gets("off")
	if got, want := f.state(), strings.Replace(was, `"Name":"production","Enabled":true`, `"Name":"production","Enabled":false`, 1); got != want || got == was {
		t.Errorf("after flag_off:\n%s\nwant\n%s", got, want)
	}
	undo(t, f.off(http.DefaultTransport), before)
	f.gets("40%")
	if f.state() != was {
		t.Errorf("after undo:\n%s\nwant\n%s", f.state(), was)
	}
}

func TestSDKsGetEachStagesShare(t *testing.T) {
	t.Parallel()
	f := newFlag(t)
	was := f.state()
	var looks []remediation.Look
	shares := []string{"0.01", "0.1", "0.29", "1"}
	for i, want := range []string{"1%", "10%", "29%", "100%"} {
		looks = append(looks, apply(t, f.share(http.DefaultTransport, shares[i])))
		f.gets(want)
	}
	list := f.strategies()
	if len(list) != 1 || list[0].Title != "backout: FEATURE_RECOMMENDATIONS, rollout step "+op {
		t.Errorf("strategies %+v", list)
	}
	for i := len(looks) - 1; i >= 0; i-- {
		undo(t, f.share(http.DefaultTransport, shares[i]), looks[i])
	}
	f.gets("off")
	if f.state() != was {
		t.Errorf("after all undone:\n%s\nwant\n%s", f.state(), was)
	}
}

// What decides who is in a share stays: others have set it.
func TestAShareKeepsWhatElseAStrategyHas(t *testing.T) {
	t.Parallel()
	f := newFlag(t)
	f.strategy(gradual, map[string]any{
		"title": "those of Norway", "parameters": map[string]string{"rollout": "5", "stickiness": "sessionId", "groupId": "others"},
		"constraints": []map[string]any{{"contextName": "country", "operator": "IN", "values": []string{"NO"}}},
		"variants":    []map[string]any{{"name": "blue", "weight": 1000, "weightType": "variable", "stickiness": "default"}},
	})
	f.strategy(gradual, map[string]any{"disabled": true, "title": "later"})
	f.turn(on)
	was := f.state()
	before := apply(t, f.share(http.DefaultTransport, "0.5"))
	if got, want := f.state(), strings.Replace(was, `"rollout":"5"`, `"rollout":"50"`, 1); got != want || got == was {
		t.Errorf("with the share:\n%s\nwant\n%s", got, want)
	}
	for _, want := range []string{`"constraints":1`, `"segments":0`, `"rollout":"5"`, `"state":"on"`} {
		if !strings.Contains(string(before.Snapshot), want) {
			t.Errorf("%s lacks %s", before.Snapshot, want)
		}
	}
	undo(t, f.share(http.DefaultTransport, "0.5"), before)
	if f.state() != was {
		t.Errorf("after undo:\n%s\nwant\n%s", f.state(), was)
	}
}

// Unleash gives a flag to everybody that is turned on without a strategy.
func TestAFlagIsNotTurnedOnForEverybodyByAccident(t *testing.T) {
	t.Parallel()
	f := newFlag(t).gradual(5).turn(on)
	before := apply(t, f.off(http.DefaultTransport))
	f.call(http.MethodDelete, f.path("/strategies/"+f.strategies()[0].ID), nil, nil)
	err := f.off(http.DefaultTransport).Undo(t.Context(), op, before.Snapshot)
	if err == nil || !strings.Contains(err.Error(), "would give it to everybody; try: add a strategy") || leavesDoubt(err) {
		t.Error(err)
	}
	f.strategy(gradual, map[string]any{"disabled": true})
	if err = f.off(http.DefaultTransport).Undo(t.Context(), op, before.Snapshot); err == nil {
		t.Error("it was turned on with a disabled strategy only")
	}
	if got := f.served(); got != "off" {
		t.Errorf("SDKs get %s", got)
	}
}

// slow lets the first change of a kind be done twice, as a server does that answers
// neither of them in time.
type slow struct{ done bool }

func (s *slow) RoundTrip(req *http.Request) (*http.Response, error) {
	if req.Method == http.MethodPost && strings.HasSuffix(req.URL.Path, "/strategies") && !s.done {
		s.done = true
		again := req.Clone(req.Context())
		again.Body, _ = req.GetBody()
		res, err := http.DefaultTransport.RoundTrip(again)
		if err != nil {
			return nil, err
		}
		res.Body.Close()
	}
	return http.DefaultTransport.RoundTrip(req)
}

func TestAStrategyThatWasCreatedTwiceCountsOnce(t *testing.T) {
	t.Parallel()
	f := newFlag(t)
	was := f.state()
	a := f.share(&slow{}, "0.1")
	before := apply(t, a)
	f.gets("10%")
	undo(t, a, before)
	if f.state() != was {
		t.Errorf("after undo:\n%s\nwant\n%s", f.state(), was)
	}
}

// meddling changes the flag between a look and the change that follows.
type meddling struct{ meddle func() }

func (m *meddling) RoundTrip(req *http.Request) (*http.Response, error) {
	if req.Method == http.MethodPatch && m.meddle != nil {
		meddle := m.meddle
		m.meddle = nil
		meddle()
	}
	return http.DefaultTransport.RoundTrip(req)
}

func TestAShareThatSomebodySetMeanwhileIsLookedAtAgain(t *testing.T) {
	t.Parallel()
	f := newFlag(t).gradual(5).turn(on)
	set := func(percent string) {
		f.call(http.MethodPatch, f.path("/strategies/"+f.strategies()[0].ID), []jsonPatch{{"replace", "/parameters/rollout", percent}}, nil)
	}
	before := apply(t, f.share(http.DefaultTransport, "0.25"))
	err := f.share(&meddling{func() { set("77") }}, "0.25").Undo(t.Context(), op, before.Snapshot)
	if err == nil || !strings.Contains(err.Error(), "serves neither 5% nor 25%: someone has changed it since") {
		t.Error(err)
	}
	f.gets("77%")
}

// answering answers changes, or all, with something else.
type answering struct {
	code int
	text string
	wait string
	n    int // how often
	all  bool
}

func (a *answering) RoundTrip(req *http.Request) (*http.Response, error) {
	if a.n == 0 || req.Method == http.MethodGet && !a.all {
		return http.DefaultTransport.RoundTrip(req)
	}
	a.n--
	h := http.Header{}
	if a.wait != "" {
		h.Set("Retry-After", a.wait)
	}
	return &http.Response{StatusCode: a.code, Status: http.StatusText(a.code), Header: h, Body: io.NopCloser(strings.NewReader(a.text)), Request: req}, nil
}

func TestAChangeThatComesTooSoonOrFailsIsTriedAgain(t *testing.T) {
	t.Parallel()
	for name, a := range map[string]*answering{
		"too soon":             {code: 429, wait: "0", n: 1},
		"a failure":            {code: 500, n: 2},
		"a failure to look":    {code: 502, n: 2, all: true, text: "<html>bad gateway</html>"},
		"an answer cut off":    {code: 200, n: 1, all: true, text: `{"name":`},
		"a conflict, answered": {code: 409, n: 1},
	} {
		f := newFlag(t).gradual(100).turn(on)
		if err := f.off(a).Apply(t.Context(), op, nil); err != nil || a.n > 0 {
			t.Errorf("%s: %v", name, err)
		}
		if f.strategies(); !strings.Contains(f.state(), `"Name":"production","Enabled":false`) {
			t.Errorf("%s: %s", name, f.state())
		}
	}
	f := newFlag(t).gradual(100).turn(on)
	if err := f.off(&answering{code: 500, n: 100}).Apply(t.Context(), op, nil); err == nil || !leavesDoubt(err) {
		t.Errorf("after failures only: %v", err)
	}
}

func TestEveryRefusalSaysWhatToDo(t *testing.T) {
	t.Parallel()
	sql := func(f *one, text string, args ...any) {
		if err := sql(f.dsn, text, args...); err != nil {
			f.Fatal(err)
		}
	}
	for name, c := range map[string]struct {
		edit  func(f *one) (secret string)
		share string
		want  []string
	}{
		"a wrong token":       {func(*one) string { return "*:*.other-hush" }, "", []string{"401", "try: put another API token"}},
		"a token for SDKs":    {func(*one) string { return sdkToken }, "", []string{"403", "token type", "try: put another API token"}},
		"a wrong project":     {func(f *one) string { f.at.Project = "shoq"; return "" }, "", []string{"404", "project shoq", "try: fix unleash.project"}},
		"a wrong name":        {func(f *one) string { f.at.Name = "none"; return "" }, "", []string{"404", "flag none", "try: fix unleash.project or unleash.name"}},
		"a wrong environment": {func(f *one) string { f.at.Environment = "prod"; return "" }, "", []string{"no such environment", "try: fix unleash.environment"}},
		"an archived flag": {func(f *one) string {
			f.call(http.MethodDelete, "/api/admin/projects/default/features/"+f.at.Name, nil, nil)
			return ""
		}, "", []string{"404", "an archived flag must be revived"}},
		"change requests": {func(f *one) string {
			secret := f.editor()
			f.at.Environment = "development" // no other test changes anything there
			f.gradual(100).turn(on)
			sql(f, "INSERT INTO change_request_settings (project, environment, required_approvals) VALUES ('default', 'development', 1)")
			return secret
		}, "", []string{"403", "try: change the flag in Unleash, where this environment requires change requests"}},
		"a user who only reads": {func(f *one) string { f.gradual(100).turn(on); return f.user(3) }, "", []string{"403", "try: put an API token into unleash.token_file whose user may turn flags on"}},
		"two gradual rollouts":  {func(f *one) string { f.gradual(5).gradual(7); return "" }, "0.1", []string{"has 2 enabled strategies", "try: disable all but one"}},
		"another strategy": {func(f *one) string {
			f.strategy("remoteAddress", map[string]any{"parameters": map[string]string{"IPs": "10.0.0.1"}})
			return ""
		}, "0.1", []string{"has the strategy remoteAddress, which has no percentage", "try: replace it"}},
		"on without a strategy": {func(f *one) string {
			sql(f, "UPDATE feature_environments SET enabled = true WHERE feature_name = $1 AND environment = 'production'", f.at.Name)
			return ""
		}, "0.1", []string{"is on without an enabled strategy", "try: add a gradual rollout"}},
	} {
		t.Run(name, func(t *testing.T) {
			f := newFlag(t)
			secret := c.edit(f)
			if secret == "" {
				secret = token
			}
			client := f.client(secret, http.DefaultTransport)
			a, err := client.FlagOff(alerts.Target{}, f.flag())
			if c.share != "" {
				a, err = client.FlagShare(alerts.Target{}, f.flag(), c.share)
			}
			if err != nil {
				t.Fatal(err)
			}
			l, err := a.Look(t.Context(), op)
			if err == nil {
				err = a.Apply(t.Context(), op, l.Snapshot)
			}
			if err == nil {
				t.Fatal("no error")
			}
			for _, w := range c.want {
				if !strings.Contains(err.Error(), w) {
					t.Errorf("%q is not in: %v", w, err)
				}
			}
			if strings.Contains(err.Error(), secret) || leavesDoubt(err) {
				t.Errorf("a secret, or doubt: %v", err)
			}
		})
	}
}

// Only Unleash Enterprise has release plans.
func TestAReleasePlanIsNotOverruled(t *testing.T) {
	t.Parallel()
	f := newFlag(t)
	const text = `{"name":"NAME","createdAt":"2026-11-29T16:19:22.904Z","environments":[{"name":"production","enabled":true,"strategies":[],"releasePlans":[{"id":"1"}]}]}`
	_, err := f.share(&answering{code: 200, n: 1, all: true, text: strings.Replace(text, "NAME", f.at.Name, 1)}, "0.1").Look(t.Context(), op)
	if err == nil || !strings.Contains(err.Error(), "has a release plan, which sets its strategies; try: remove the plan") {
		t.Error(err)
	}
}

// editor is the token of a user who may edit everything, and no more.
func (f *one) editor() string { return f.user(2) }

// user creates one with a root role, 2 edits and 3 reads, and returns a token of it.
func (f *one) user(role int) string {
	f.Helper()
	const password = "Passw0rd-9b2e-hush!"
	f.call(http.MethodPost, "/api/admin/user-admin", map[string]any{"username": f.at.Name, "rootRole": role, "sendEmail": false, "password": password}, nil)
	login, err := json.Marshal(map[string]string{"username": f.at.Name, "password": password})
	if err != nil {
		f.Fatal(err)
	}
	// Unleash may answer a login before the session is stored.
	for deadline := time.Now().Add(time.Minute); ; time.Sleep(50 * time.Millisecond) {
		secret, status := f.token(string(login))
		if secret != "" {
			return secret
		}
		if time.Now().After(deadline) {
			f.Fatalf("no token: %s", status)
		}
	}
}

// token logs in and makes a token; "" and Unleash's answer where there is none.
func (f *one) token(login string) (secret, status string) {
	f.Helper()
	res, err := http.Post(f.url+"/auth/simple/login", "application/json", strings.NewReader(login))
	if err != nil {
		f.Fatal(err)
	}
	defer res.Body.Close()
	req, err := http.NewRequestWithContext(f.Context(), http.MethodPost, f.url+"/api/admin/user/tokens", strings.NewReader(`{"description":"backout","expiresAt":"2099-01-01T00:00:00Z"}`))
	if err != nil {
		f.Fatal(err)
	}
	req.Header.Set("Content-Type", "application/json")
	for _, c := range res.Cookies() {
		req.AddCookie(c)
	}
	got, err := (&http.Client{}).Do(req)
	if err != nil {
		f.Fatal(err)
	}
	defer got.Body.Close()
	var made struct{ Secret string }
	if err := json.NewDecoder(got.Body).Decode(&made); err != nil {
		return "", fmt.Sprintf("%s: %v", got.Status, err)
	}
	return made.Secret, got.Status
}

// The least that backout needs is a user's own token.
func TestAnEditorsTokenIsEnough(t *testing.T) {
	t.Parallel()
	f := newFlag(t)
	c := f.client(f.editor(), http.DefaultTransport)
	share, err := c.FlagShare(alerts.Target{}, f.flag(), "0.1")
	if err != nil {
		t.Fatal(err)
	}
	apply(t, share)
	off, err := c.FlagOff(alerts.Target{}, f.flag())
	if err != nil {
		t.Fatal(err)
	}
	undo(t, off, apply(t, off))
	f.gets("10%")
}

// A look needs no permission: preflight asks for it.
func TestATokenThatOnlyReadsDoesNotPass(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		secret    func(f *one) string
		transport http.RoundTripper
		status    remediation.Status
		says      string
	}{
		"an admin token":  {func(*one) string { return token }, http.DefaultTransport, remediation.Pass, "; the token may turn it on and off"},
		"an editor":       {func(f *one) string { return f.editor() }, http.DefaultTransport, remediation.Pass, "; the token may turn it on and off"},
		"a reader":        {func(f *one) string { return f.user(3) }, http.DefaultTransport, remediation.Fail, "it lacks UPDATE_FEATURE_ENVIRONMENT"},
		"another server":  {func(*one) string { return token }, untold{}, remediation.CannotTell, "does not say what the token may do"},
		"a token of SDKs": {func(*one) string { return sdkToken }, http.DefaultTransport, remediation.Fail, "403"},
	} {
		f := newFlag(t)
		a, err := f.client(c.secret(f), c.transport).FlagOff(alerts.Target{}, f.flag())
		if err != nil {
			t.Fatal(err)
		}
		if r := remediation.LookCheck(t.Context(), a); r.Status != c.status || !strings.Contains(r.Evidence, c.says) || (r.Next == "") != (c.status == remediation.Pass) {
			t.Errorf("%s: %+v", name, r)
		}
	}
	p := permission{mayTurn, "shop", "production"}
	if !p.turns("shop", "production") || p.turns("shop", "development") || p.turns("other", "production") || !(permission{mayTurn, "*", ""}).turns("shop", "production") {
		t.Error("a permission counts elsewhere, or not where it is of")
	}
}

// untold is a server without the address that tells a user's permissions.
type untold struct{}

func (untold) RoundTrip(req *http.Request) (*http.Response, error) {
	if req.URL.Path == "/api/admin/user" {
		req = req.Clone(req.Context())
		req.URL.Path = "/api/admin/none"
	}
	return http.DefaultTransport.RoundTrip(req)
}

func TestUndoNeedsTheSnapshotOfThisFlagAsItWasCreated(t *testing.T) {
	t.Parallel()
	f := newFlag(t).gradual(5).turn(on)
	before := apply(t, f.off(http.DefaultTransport))
	for old, odd := range map[string]string{
		`"environment":"production"`: `"environment":"development"`, `"state":"on"`: `"state":"maybe"`, `"created":"2`: `"created":"1`, `{`: `[`,
	} {
		snapshot := strings.Replace(string(before.Snapshot), old, odd, 1)
		if err := f.off(http.DefaultTransport).Undo(t.Context(), op, json.RawMessage(snapshot)); err == nil || leavesDoubt(err) {
			t.Errorf("undone by %s: %v", snapshot, err)
		}
	}
	if got := f.served(); got != "off" {
		t.Errorf("SDKs get %s", got)
	}
}

func TestVerifyWaitsUntilTheTimeIsUp(t *testing.T) {
	t.Parallel()
	f := newFlag(t).gradual(5).turn(on)
	for _, what := range []string{"is still on", "does not serve 25% of the traffic"} {
		// The time is up in the middle of the second look.
		ctx, looks := expiring{t.Context(), make(chan struct{})}, 0
		transport := roundTrip(func(r *http.Request) (*http.Response, error) {
			if looks++; looks == 2 {
				close(ctx.up)
				<-r.Context().Done()
				return nil, r.Context().Err()
			}
			return http.DefaultTransport.RoundTrip(r)
		})
		a := f.off(transport)
		if what != "is still on" {
			a = f.share(transport, "0.25")
		}
		if err := a.Verify(ctx, op); err == nil || !strings.Contains(err.Error(), what) || remediation.IsInDoubt(err) {
			t.Errorf("%s: %v", what, err)
		}
	}
}

func TestAVerificationThatSawNothingLeavesDoubt(t *testing.T) {
	t.Parallel()
	f := newFlag(t).gradual(5)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	tries := 0
	a := f.off(roundTrip(func(r *http.Request) (*http.Response, error) {
		if tries++; tries == 20 { // more than one look tries
			cancel()
		}
		return &http.Response{StatusCode: http.StatusServiceUnavailable, Body: http.NoBody, Header: http.Header{}, Request: r}, nil
	}))
	if err := a.Verify(ctx, op); !leavesDoubt(err) || tries < 20 {
		t.Errorf("%v after %d tries", err, tries)
	}
}

// expiring is a context whose deadline passes once up is closed.
type expiring struct {
	context.Context
	up chan struct{}
}

func (e expiring) Done() <-chan struct{} { return e.up }

func (e expiring) Err() error {
	select {
	case <-e.up:
		return context.DeadlineExceeded
	default:
		return nil
	}
}

func TestAShareIsAWholePercentAndOffIsFalse(t *testing.T) {
	c, err := New(Options{URL: "https://unleash.example.com", Token: token, Transport: http.DefaultTransport, Now: time.Now, Wait: func(context.Context, time.Duration) error { return nil }})
	if err != nil {
		t.Fatal(err)
	}
	at := &alerts.UnleashFlag{Project: "default", Environment: "production", Name: "a"}
	for share, want := range map[string]bool{"0": true, "0.01": true, "0.29": true, "1": true, "0.005": false, "0.015": false, "1.01": false, "-0.1": false, "": false, "NaN": false} {
		if _, err := c.FlagShare(alerts.Target{}, alerts.Flag{Name: "A", Off: "false", Unleash: at}, share); (err == nil) != want {
			t.Errorf("%s: %v", share, err)
		}
	}
	for off, want := range map[string]bool{"false": true, "0": true, "true": false, "off": false, "": false} {
		if _, err := c.FlagOff(alerts.Target{}, alerts.Flag{Name: "A", Off: off, Unleash: at}); (err == nil) != want {
			t.Errorf("%q: %v", off, err)
		}
	}
	for _, at := range []*alerts.UnleashFlag{nil, {}, {Project: "a", Name: "b"}, {Project: "a", Environment: "b"}, {Environment: "a", Name: "b"}} {
		if _, err := c.FlagOff(alerts.Target{}, alerts.Flag{Name: "A", Off: "0", Unleash: at}); err == nil {
			t.Errorf("%+v was bound", at)
		}
	}
}

// leavesDoubt reports whether an error was marked as one that leaves doubt: the
// type of the mark is package remediation's own.
func leavesDoubt(err error) bool {
	mark := reflect.TypeOf(remediation.InDoubt(nil))
	for ; err != nil; err = errors.Unwrap(err) {
		if reflect.TypeOf(err) == mark {
			return true
		}
	}
	return false
}

type roundTrip func(*http.Request) (*http.Response, error)

func (f roundTrip) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }
