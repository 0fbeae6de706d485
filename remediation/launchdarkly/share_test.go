package launchdarkly

import (
	"encoding/json"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/locotoki/backout/alerts"
	"github.com/locotoki/backout/remediation"
	"github.com/locotoki/backout/remediation/jsonhttp"
)

// share is action for a share of the traffic.
func (f *fake) share(transport http.RoundTripper, share string) remediation.Action {
	f.t.Helper()
	a, err := f.client(transport).FlagShare(alerts.Target{}, f.theFlag(), share)
	if err != nil {
		f.t.Fatal(err)
	}
	return a
}

func (f *fake) client(transport http.RoundTripper) *Client {
	f.t.Helper()
	c, err := New(Options{URL: f.url, Token: token, Transport: transport, Wait: f.wait, Now: time.Now})
	if err != nil {
		f.t.Fatal(err)
	}
	return c
}

func (*fake) theFlag() alerts.Flag {
	return alerts.Flag{Name: "FEATURE_RECOMMENDATIONS", Off: "false", LaunchDarkly: &alerts.LaunchDarklyFlag{Project: "shop", Environment: "production", Key: "recommendations"}}
}

// serve sets the share in production as someone else would, by an attribute.
func (f *fake) serve(weight int, by string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.envs["production"].Fallthrough = &fakeRule{Rollout: &fakeRollout{Variations: []fakeWeight{{0, weight}, {1, 100_000 - weight}}, BucketBy: by, ContextKind: "user"}}
	f.put("production", f.envs["production"].On)
}

// rule is the default rule in production.
func (f *fake) rule() string {
	f.mu.Lock()
	defer f.mu.Unlock()
	return ruleText(f.envs["production"].Fallthrough)
}

func apply(t *testing.T, a remediation.Action) (before remediation.Look) {
	t.Helper()
	before = look(t, a)
	if err := a.Apply(t.Context(), op, before.Snapshot); err != nil {
		t.Fatal(err)
	}
	if err := a.Verify(t.Context(), op); err != nil {
		t.Fatal(err)
	}
	if l := look(t, a); l.Position != remediation.Wanted {
		t.Errorf("after apply it is %s", l.Position)
	}
	return before
}

func TestAStagesTrafficIsTheWeightOfTheOnVariation(t *testing.T) {
	const on, off = "86208e6e-468f-4425-b334-7f318397f95c", "7b32de80-f346-4276-bb77-28dfa7ddc2d8"
	weights := func(a, b string) string { return `"rolloutWeights":{"` + off + `":` + b + `,"` + on + `":` + a + `}` }
	for share, want := range map[string]string{
		"0.01":    weights("1000", "99000"),
		"0.1":     weights("10000", "90000"),
		"0.25":    weights("25000", "75000"),
		"0.29":    weights("29000", "71000"),
		"0.5":     weights("50000", "50000"),
		"0.00001": weights("1", "99999"),
		"1":       `"variationId":"` + on + `"`,
		"1.0":     `"variationId":"` + on + `"`,
	} {
		f := newFake(t)
		f.envs["production"].On = false
		apply(t, f.share(http.DefaultTransport, share))
		// The order of a map's keys in a body is encoding/json's: sorted.
		body := `{"environmentKey":"production","comment":"backout: FEATURE_RECOMMENDATIONS set to ` + percentOf(share) + ` of the traffic by rollout step ` + op + `",` +
			`"instructions":[{"kind":"updateFallthroughVariationOrRollout",` + want + `},{"kind":"turnFlagOn"}]}`
		if len(f.bodies) != 1 || f.bodies[0] != body {
			t.Errorf("%s is sent as %q, want %s", share, f.bodies, body)
		}
		if f.state() != "production on=true, staging on=true" {
			t.Error(f.state())
		}
	}
}

func percentOf(share string) string {
	return map[string]string{"0.01": "1%", "0.1": "10%", "0.25": "25%", "0.29": "29%", "0.5": "50%", "0.00001": "0.001%", "1": "100%", "1.0": "100%"}[share]
}

func TestAShareThatIsServedAlreadyIsNotSetAgain(t *testing.T) {
	for name, c := range map[string]struct {
		share string
		edit  func(f *fake)
	}{
		"its weights":              {"0.25", func(f *fake) { f.serve(25_000, "company") }},
		"everybody, by variation":  {"1", func(*fake) {}},
		"everybody, by weight":     {"1", func(f *fake) { f.serve(100_000, "") }},
		"nobody, by being off":     {"0", func(f *fake) { f.set(false) }},
		"nobody, by variation":     {"0.0", func(f *fake) { f.envs["production"].Fallthrough = &fakeRule{Variation: number(1)} }},
		"nobody, by weight, on it": {"0", func(f *fake) { f.serve(0, "") }},
	} {
		f := newFake(t)
		c.edit(f)
		a := f.share(http.DefaultTransport, c.share)
		before, changes := look(t, a), f.changes
		if err := a.Apply(t.Context(), op, before.Snapshot); err != nil || before.Position != remediation.Wanted || f.patches() != 0 || f.changes != changes {
			t.Errorf("%s: %s, %d patches, %v", name, before.Position, f.patches(), err)
		}
	}
	// Half of the weights on a flag that is off is served to nobody.
	f := newFake(t)
	f.serve(25_000, "")
	f.set(false)
	if l := look(t, f.share(http.DefaultTransport, "0.25")); l.Position != remediation.Untouched {
		t.Errorf("a share of a flag that is off is %s", l.Position)
	}
}

func TestAShareGrowsByTheSameAttributeAndUndoPutsTheFormerOneBack(t *testing.T) {
	f := newFake(t)
	f.serve(1_000, "company")
	was := f.rule()
	before := apply(t, f.share(http.DefaultTransport, "0.1"))
	if got := f.rule(); got != strings.NewReplacer(`:1000}`, `:10000}`, `:99000}`, `:90000}`).Replace(was) {
		t.Errorf("it is %s, and was %s", got, was)
	}
	a := f.share(http.DefaultTransport, "0.1")
	for range 2 {
		if err := a.Undo(t.Context(), op, before.Snapshot); err != nil || f.rule() != was || f.patches() != 2 {
			t.Errorf("undone, it is %s after %d patches: %v", f.rule(), f.patches(), err)
		}
	}
	// To everybody and back.
	before = apply(t, f.share(http.DefaultTransport, "1"))
	if err := f.share(http.DefaultTransport, "1").Undo(t.Context(), op, before.Snapshot); err != nil || f.rule() != was {
		t.Errorf("undone, it is %s: %v", f.rule(), err)
	}
}

func TestUndoOfTheFirstShareTurnsTheFlagOffAgain(t *testing.T) {
	f := newFake(t)
	f.set(false)
	a := f.share(http.DefaultTransport, "0.01")
	before := apply(t, a)
	if err := a.Undo(t.Context(), op, before.Snapshot); err != nil {
		t.Fatal(err)
	}
	if f.state() != "production on=false, staging on=true" || f.rule() != `{"variation":0}` {
		t.Errorf("%s, %s", f.state(), f.rule())
	}
	if last := f.comments[len(f.comments)-1]; !strings.HasPrefix(last, "updateFallthroughVariationOrRollout, turnFlagOff: ") {
		t.Error("not in one patch:", f.comments)
	}
}

func TestUndoDoesNotTurnOnWhatSomebodyTurnedOffNorTakeAnothersShareAway(t *testing.T) {
	f := newFake(t)
	a := f.share(http.DefaultTransport, "0.1")
	before := apply(t, a)
	f.set(false)
	if err := a.Undo(t.Context(), op, before.Snapshot); err != nil || f.state() != "production on=false, staging on=true" || f.rule() != `{"variation":0}` {
		t.Errorf("%s, %s, %v", f.state(), f.rule(), err)
	}
	f = newFake(t)
	a = f.share(http.DefaultTransport, "0.1")
	before = apply(t, a)
	f.serve(5_000, "")
	if err := a.Undo(t.Context(), op, before.Snapshot); err == nil || !strings.Contains(err.Error(), "someone has changed it since") || leavesDoubt(err) || f.patches() != 1 {
		t.Errorf("another's share: %v, %d patches", err, f.patches())
	}
	f.envs["production"].Version = 3
	if err := a.Undo(t.Context(), op, before.Snapshot); err == nil || !strings.Contains(err.Error(), "was recreated") {
		t.Error(err)
	}
	for _, bad := range []string{"", "{}", strings.Replace(string(before.Snapshot), "production", "staging", 1), strings.Replace(string(before.Snapshot), `"on"`, `"maybe"`, 1),
		strings.Replace(string(before.Snapshot), `"default":{"variation":"`+fakeIDs[0]+`"}`, `"default":{}`, 1)} {
		if err := a.Undo(t.Context(), op, json.RawMessage(bad)); err == nil || f.patches() != 1 {
			t.Errorf("undone by %q", bad)
		}
	}
}

func TestTheEvidenceSaysHowMuchIsDecidedBeforeTheShare(t *testing.T) {
	f := newFake(t)
	env := f.envs["production"]
	env.Rules, env.Targets, env.ContextTargets, env.Prerequisites = []any{1, 2}, []any{1}, []any{1, 2}, []any{1}
	want := `{"project":"shop","environment":"production","key":"recommendations","state":"on","version":61,"default":{"variation":"` + fakeIDs[0] + `"},` +
		`"rules_before":2,"targets_before":3,"prerequisites":1}`
	if l := look(t, f.share(http.DefaultTransport, "0.1")); string(l.Snapshot) != want {
		t.Errorf("the snapshot is %s, want %s", l.Snapshot, want)
	}
}

func TestAScheduledChangeHoldsAShareAndNotItsUndo(t *testing.T) {
	f := newFake(t)
	a := f.share(http.DefaultTransport, "0.1")
	before := look(t, a)
	f.scheduled = true
	if err := a.Apply(t.Context(), op, before.Snapshot); err == nil || !strings.Contains(err.Error(), "scheduled change") || leavesDoubt(err) || f.patches() != jsonhttp.Tries || f.changes != 0 {
		t.Errorf("%v after %d patches", err, f.patches())
	}
	f.scheduled = false
	before = apply(t, a)
	f.scheduled = true
	if err := a.Undo(t.Context(), op, before.Snapshot); err != nil || f.rule() != `{"variation":0}` {
		t.Errorf("%v; %s", err, f.rule())
	}
}

// Request 1 of an apply looks, request 2 changes.
func TestAShareThatComesTooSoonOrMeetsAConflictIsTriedAgain(t *testing.T) {
	for name, c := range map[string]struct {
		answer  answer
		patches int
		waited  time.Duration
	}{
		"a conflict":                    {answer{code: 409, text: `{"code":"conflict","message":"conflict"}`}, 2, 250 * time.Millisecond},
		"a conflict over the same":      {answer{code: 409, text: `{"code":"conflict"}`, first: func(f *fake) { f.serve(10_000, "") }}, 1, 250 * time.Millisecond},
		"too soon, for so many seconds": {answer{code: 429, header: map[string]string{"Retry-After": "7"}}, 2, 7 * time.Second},
		"a failure after the effect":    {answer{code: 500, effect: true}, 1, 250 * time.Millisecond},
	} {
		f := newFake(t)
		f.answers[2] = c.answer
		err := f.share(http.DefaultTransport, "0.1").Apply(t.Context(), op, nil)
		if err != nil || f.changes != 1 || f.patches() != c.patches || len(f.waited) != 1 || f.waited[0] != c.waited {
			t.Errorf("%s: %v after %d changes, %d patches and waits of %v", name, err, f.changes, f.patches(), f.waited)
		}
	}
	f := newFake(t)
	for n := range 2 * jsonhttp.Tries {
		f.answers[n+2] = answer{}
	}
	if err := f.share(http.DefaultTransport, "0.1").Apply(t.Context(), op, nil); err == nil || !leavesDoubt(err) {
		t.Errorf("a change without an answer: %v", err)
	}
}

func TestAFlagWhoseShareCannotBeToldIsRefusedBeforeAnythingIsChanged(t *testing.T) {
	production := func(f *fake) *fakeEnv { return f.envs["production"] }
	variation := func(id string, value any) any { return map[string]any{"_id": id, "value": value} }
	for name, c := range map[string]struct {
		edit func(f *fake)
		want string
	}{
		"three variations":      {func(f *fake) { f.served = []any{variation("a", true), variation("b", false), variation("c", false)} }, "it is unclear which one the share is for"},
		"one variation":         {func(f *fake) { f.served = []any{variation("a", false)}; production(f).OffVariation = number(0) }, "has 1 variations"},
		"both are off":          {func(f *fake) { f.served = []any{variation("a", false), variation("b", false)} }, "in both of its variations"},
		"no ids":                {func(f *fake) { f.served = []any{variation("", true), variation("", false)} }, "no ids"},
		"no off variation":      {func(f *fake) { production(f).OffVariation = nil }, "has no off variation"},
		"archived":              {func(f *fake) { f.archived = true }, "is archived"},
		"no default rule":       {func(f *fake) { production(f).Fallthrough = nil }, "has no default rule"},
		"an empty default rule": {func(f *fake) { production(f).Fallthrough = &fakeRule{} }, "has no default rule"},
		"a rule beyond them":    {func(f *fake) { production(f).Fallthrough = &fakeRule{Variation: number(2)} }, "serves variation number 2"},
		"a weight beyond them": {func(f *fake) {
			production(f).Fallthrough = &fakeRule{Rollout: &fakeRollout{Variations: []fakeWeight{{-1, 100_000}}}}
		}, "serves variation number -1"},
		"an experiment": {func(f *fake) {
			production(f).Fallthrough = &fakeRule{Rollout: &fakeRollout{Variations: []fakeWeight{{0, 100_000}}, Experiment: map[string]any{"canReshuffle": true}}}
		}, "has an experiment on its default rule"},
	} {
		f := newFake(t)
		c.edit(f)
		a := f.share(http.DefaultTransport, "0.1")
		if _, err := a.Look(t.Context(), op); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: look says %v", name, err)
		}
		if err := a.Apply(t.Context(), op, nil); err == nil || leavesDoubt(err) || f.patches() != 0 {
			t.Errorf("%s: apply says %v after %d patches", name, err, f.patches())
		}
		if err := a.Verify(t.Context(), op); err == nil {
			t.Errorf("%s is verified", name)
		}
	}
}

func TestWhatIsNoShareIsRefused(t *testing.T) {
	f := newFake(t)
	for _, share := range []string{"", "x", "true", "-0.1", "1.1", "10", "NaN", "Inf", "0.000001", "0.123456", "1e"} {
		if _, err := f.client(http.DefaultTransport).FlagShare(alerts.Target{}, f.theFlag(), share); err == nil || !strings.Contains(err.Error(), "is not a traffic share") {
			t.Errorf("%q: %v", share, err)
		}
	}
	flag := f.theFlag()
	flag.LaunchDarkly = nil
	if _, err := f.client(http.DefaultTransport).FlagShare(alerts.Target{}, flag, "0.1"); err == nil {
		t.Error("a flag that LaunchDarkly does not keep was bound")
	}
}

func TestARollbackLeavesTheShareAndTheNextStartTurnsOnWithItsOwn(t *testing.T) {
	f := newFake(t)
	apply(t, f.share(http.DefaultTransport, "0.25"))
	apply(t, f.action(http.DefaultTransport))
	if f.state() != "production on=false, staging on=true" || !strings.Contains(f.rule(), "25000") {
		t.Errorf("%s, %s", f.state(), f.rule())
	}
	apply(t, f.share(http.DefaultTransport, "0.01"))
	if f.state() != "production on=true, staging on=true" || !strings.Contains(f.rule(), `"weight":1000}`) {
		t.Errorf("%s, %s", f.state(), f.rule())
	}
}
