package launchdarkly

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"reflect"
	"slices"
	"strconv"
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

func TestOneFlagIsSwitchedOffInOneEnvironmentWithACommentThatNamesTheStep(t *testing.T) {
	f := newFake(t)
	a := f.action(http.DefaultTransport)
	before := look(t, a)
	if want := `{"project":"shop","environment":"production","key":"recommendations","state":"on","version":61}`; string(before.Snapshot) != want || before.Position != remediation.Untouched {
		t.Errorf("look is %s %s, want %s", before.Position, before.Snapshot, want)
	}
	if err := a.Apply(t.Context(), op, before.Snapshot); err != nil {
		t.Fatal(err)
	}
	if err := a.Verify(t.Context(), op); err != nil {
		t.Fatal(err)
	}
	if got := f.state(); got != "production on=false, staging on=true" {
		t.Error(got)
	}
	if err := a.Undo(t.Context(), op, before.Snapshot); err != nil {
		t.Fatal(err)
	}
	want := []string{
		"turnFlagOff: backout: FEATURE_RECOMMENDATIONS switched off by rollback step " + op,
		"turnFlagOn: backout: FEATURE_RECOMMENDATIONS switched back on, as before rollback step " + op,
	}
	if !slices.Equal(f.comments, want) {
		t.Errorf("comments %q, want %q", f.comments, want)
	}
}

func TestAFlagThatIsOffIsNotSwitchedAndNotSwitchedOnByUndo(t *testing.T) {
	f := newFake(t)
	f.set(false)
	a := f.action(http.DefaultTransport)
	before := look(t, a)
	if before.Position != remediation.Wanted {
		t.Errorf("position %s", before.Position)
	}
	if err := errors.Join(a.Apply(t.Context(), op, before.Snapshot), a.Undo(t.Context(), op, before.Snapshot)); err != nil {
		t.Error(err)
	}
	if n := f.patches(); n != 0 || f.state() != "production on=false, staging on=true" {
		t.Errorf("%d patches; %s", n, f.state())
	}
}

func TestAFlagThatAPersonChangedInBetweenIsStillSwitchedOff(t *testing.T) {
	f := newFake(t)
	a := f.action(http.DefaultTransport)
	before := look(t, a)
	f.set(false)
	f.set(true)
	if err := a.Apply(t.Context(), op, before.Snapshot); err != nil {
		t.Fatal(err)
	}
	if got := f.state(); got != "production on=false, staging on=true" {
		t.Error(got)
	}
}

// Request 1 of an apply looks, request 2 changes.
func TestWhatPassesIsTriedAgainAfterAnotherLook(t *testing.T) {
	for name, c := range map[string]struct {
		answer  answer
		patches int
		waited  time.Duration
	}{
		"a conflict":                    {answer{code: 409, text: `{"code":"conflict","message":"conflict"}`}, 2, 250 * time.Millisecond},
		"a failure":                     {answer{code: 503, text: "<html>"}, 2, 250 * time.Millisecond},
		"a failure after the effect":    {answer{code: 500, effect: true}, 1, 250 * time.Millisecond},
		"too soon, for so many seconds": {answer{code: 429, header: map[string]string{"Retry-After": "7"}}, 2, 7 * time.Second},
		"too soon, until then": {answer{code: 429, header: map[string]string{
			"X-Ratelimit-Reset": strconv.FormatInt(time.Date(2026, 11, 22, 3, 0, 4, 0, time.UTC).UnixMilli(), 10)}}, 2, 4 * time.Second},
		"too soon, without a word": {answer{code: 429}, 2, 10 * time.Second},
	} {
		t.Run(name, func(t *testing.T) {
			f := newFake(t)
			f.answers[2] = c.answer
			if err := f.action(http.DefaultTransport).Apply(t.Context(), op, nil); err != nil {
				t.Fatal(err)
			}
			if got := f.state(); got != "production on=false, staging on=true" || f.changes != 1 || f.patches() != c.patches {
				t.Errorf("%s after %d changes and %d patches", got, f.changes, f.patches())
			}
			if !slices.Equal(f.waited, []time.Duration{c.waited}) {
				t.Errorf("waited %v, want %v", f.waited, c.waited)
			}
		})
	}
}

func TestAFlagThatAnotherTurnsOffDuringAConflictIsLeftAsItIs(t *testing.T) {
	f := newFake(t)
	f.answers[2] = answer{code: 409, text: `{"code":"conflict","message":"conflict"}`, first: func(f *fake) { f.set(false) }}
	if err := f.action(http.DefaultTransport).Apply(t.Context(), op, nil); err != nil {
		t.Fatal(err)
	}
	if f.patches() != 1 || f.changes != 1 {
		t.Errorf("%d patches, %d changes", f.patches(), f.changes)
	}
}

func TestALookThatIsCutOffOrFailsIsMadeAgain(t *testing.T) {
	for name, an := range map[string]answer{
		"cut": {}, "cut in the middle": {text: `{"key":`}, "failed": {code: 502}, "no JSON": {code: 200, text: "hello"}, "too soon": {code: 429},
	} {
		t.Run(name, func(t *testing.T) {
			f := newFake(t)
			f.answers[1], f.answers[2] = an, an
			if l := look(t, f.action(http.DefaultTransport)); l.Position != remediation.Untouched {
				t.Errorf("position %s", l.Position)
			}
		})
	}
}

func TestAnswersThatAreMissingLeaveDoubtAndThoseThatSayNoDoNot(t *testing.T) {
	refused := `{"code":"x","message":"no"}`
	always := func(a answer) map[int]answer {
		all := map[int]answer{}
		for n := range 40 {
			all[n+1] = a
		}
		return all
	}
	for name, c := range map[string]struct {
		answers map[int]answer
		doubt   bool
		off     bool
	}{
		"cut before the effect":           {map[int]answer{2: {}}, true, false},
		"cut after the effect":            {map[int]answer{2: {effect: true}}, true, true},
		"cut in the middle of the answer": {map[int]answer{2: {effect: true, text: `{"key"`}}, true, true},
		"failing on and on":               {map[int]answer{2: {code: 500}, 4: {code: 500}, 6: {code: 500}, 8: {code: 500}, 10: {code: 500}}, true, false},
		"not to be looked at":             {always(answer{}), true, false},
		"failing at each look":            {always(answer{code: 503}), true, false},
		"conflicts on and on":             {map[int]answer{2: {code: 409}, 4: {code: 409}, 6: {code: 409}, 8: {code: 409}, 10: {code: 409}}, false, false},
		"an invalid patch":                {map[int]answer{2: {code: 400, text: refused}}, false, false},
		"a patch not understood":          {map[int]answer{2: {code: 422, text: refused}}, false, false},
		"a token without the right":       {map[int]answer{2: {code: 403, text: refused}}, false, false},
		"elsewhere":                       {map[int]answer{2: {code: 307, header: map[string]string{"Location": "http://127.0.0.1:1/"}}}, false, false},
		"no such flag":                    {map[int]answer{1: {code: 404, text: refused}}, false, false},
	} {
		t.Run(name, func(t *testing.T) {
			f := newFake(t)
			f.answers = c.answers
			err := f.action(http.DefaultTransport).Apply(t.Context(), op, nil)
			if err == nil {
				t.Fatal("no error")
			}
			if got := leavesDoubt(err); got != c.doubt {
				t.Errorf("in doubt: %v, want %v: %v", got, c.doubt, err)
			}
			if off := strings.HasPrefix(f.state(), "production on=false"); off != c.off || f.changes > 1 {
				t.Errorf("%s after %d changes", f.state(), f.changes)
			}
		})
	}
}

func TestARestThatIsLongerThanTheTimeThereIsEndsWithAWord(t *testing.T) {
	f := newFake(t)
	f.answers[1] = answer{code: 429, header: map[string]string{"Retry-After": "60"}}
	a := f.action(http.DefaultTransport, func(o *Options, _ *alerts.Flag) {
		o.Wait = func(context.Context, time.Duration) error { return context.DeadlineExceeded }
	})
	_, err := a.Look(t.Context(), op)
	if err == nil || !strings.Contains(err.Error(), "asked to wait 1 min") {
		t.Error(err)
	}
}

func TestEveryRefusalSaysWhatToDo(t *testing.T) {
	for name, c := range map[string]struct {
		edit func(*fake, *Options, *alerts.Flag)
		want []string
	}{
		"a wrong token":         {func(_ *fake, o *Options, _ *alerts.Flag) { o.Token = "api-other-hush" }, []string{"401 unauthorized", "another access token"}},
		"a wrong project":       {func(_ *fake, _ *Options, l *alerts.Flag) { l.LaunchDarkly.Project = "shoq" }, []string{"404", "project shoq", "try: fix launchdarkly.project"}},
		"a wrong environment":   {func(_ *fake, _ *Options, l *alerts.Flag) { l.LaunchDarkly.Environment = "prod" }, []string{"no such environment", "try: fix launchdarkly.environment"}},
		"approvals":             {func(f *fake, _ *Options, _ *alerts.Flag) { f.approvals = true }, []string{"405", "updates require approval", "try: switch the flag in LaunchDarkly, where this environment requires approvals"}},
		"no off variation":      {func(f *fake, _ *Options, _ *alerts.Flag) { f.envs["production"].OffVariation = nil }, []string{"has no off variation", "try: choose an off variation"}},
		"another off variation": {func(f *fake, _ *Options, _ *alerts.Flag) { f.envs["production"].OffVariation = number(0) }, []string{`another value when off than "false"`, "try: "}},
		"no such variation":     {func(f *fake, _ *Options, _ *alerts.Flag) { f.envs["production"].OffVariation = number(2) }, []string{"2 variations", "number 2"}},
		"an archived flag":      {func(f *fake, _ *Options, _ *alerts.Flag) { f.archived = true }, []string{"is archived", "try: restore it"}},
		"an archived one there": {func(f *fake, _ *Options, _ *alerts.Flag) { f.envs["production"].Archived = true }, []string{"is archived", "try: restore it"}},
		"nobody listens":        {func(_ *fake, o *Options, _ *alerts.Flag) { o.URL = "http://127.0.0.1:1" }, []string{"look at flag recommendations of LaunchDarkly's project shop in environment production", "refused"}},
	} {
		t.Run(name, func(t *testing.T) {
			f := newFake(t)
			used := token
			a := f.action(http.DefaultTransport, func(o *Options, l *alerts.Flag) { c.edit(f, o, l); used = o.Token })
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
			if strings.Contains(err.Error(), used) || f.changes > 0 {
				t.Errorf("a secret, or %d changes: %v", f.changes, err)
			}
		})
	}
}

func TestVerifyWaitsUntilTheFlagIsSeenOffOrTheTimeIsUp(t *testing.T) {
	f := newFake(t)
	f.answers[3] = answer{first: func(f *fake) { f.set(false) }}
	if err := f.action(http.DefaultTransport).Verify(t.Context(), op); err != nil {
		t.Fatal(err)
	}
	if len(f.waited) != 2 {
		t.Errorf("waited %v", f.waited)
	}
	f = newFake(t)
	ctx, cancel := context.WithCancel(t.Context())
	f.answers[2] = answer{first: func(*fake) { cancel() }}
	if err := f.action(http.DefaultTransport).Verify(ctx, op); err == nil || !strings.Contains(err.Error(), "is still on at version 61") || remediation.IsInDoubt(err) {
		t.Errorf("verify of a flag that stays on: %v", err)
	}
}

func TestVerifyThatSawNothingLeavesDoubt(t *testing.T) {
	f := newFake(t)
	f.set(false)
	for n := range 12 { // more than one look tries
		f.answers[n+1] = answer{code: 503}
	}
	if err := f.action(http.DefaultTransport).Verify(t.Context(), op); err != nil {
		t.Error(err)
	}
	for name, an := range map[string]answer{"away": {code: 503}, "cut": {text: "{"}, "the token was revoked": {code: 401}, "a login page": {code: 200, text: `{"key":"login"}`}} {
		f := newFake(t) // seen on, and then not any more
		ctx, cancel := context.WithCancel(t.Context())
		for n := range 40 {
			f.answers[n+2] = an
		}
		last := an
		last.first = func(*fake) { cancel() }
		f.answers[20] = last
		if err := f.action(http.DefaultTransport).Verify(ctx, op); !leavesDoubt(err) {
			t.Errorf("%s: %v", name, err)
		}
		cancel()
	}
}

func TestUndoNeedsTheSnapshotOfThisFlag(t *testing.T) {
	f := newFake(t)
	f.set(false)
	a := f.action(http.DefaultTransport)
	for _, before := range []string{
		"", "{}", "[]",
		`{"project":"shop","environment":"staging","key":"recommendations","state":"on","version":1}`,
		`{"project":"shop","environment":"production","key":"recommendations","state":"maybe","version":1}`,
	} {
		if err := a.Undo(t.Context(), op, json.RawMessage(before)); err == nil {
			t.Errorf("undone by %q", before)
		}
	}
	if f.patches() > 0 {
		t.Errorf("%d patches", f.patches())
	}
}

func TestAFlagThatWasMadeAnewIsNotSwitchedOnByUndo(t *testing.T) {
	f := newFake(t)
	a := f.action(http.DefaultTransport)
	before := look(t, a)
	f.envs["production"] = &fakeEnv{OffVariation: number(1), Version: 1}
	if err := a.Undo(t.Context(), op, before.Snapshot); err == nil || !strings.Contains(err.Error(), "is at version 1 and was at 61") {
		t.Error(err)
	}
	if f.patches() > 0 {
		t.Error(f.comments)
	}
}

func TestAnOffVariationIsComparedAsThePlaybookWritesIt(t *testing.T) {
	for _, c := range []struct {
		value, off string
		same       bool
	}{
		{`false`, "false", true}, {`false`, "0", true}, {`false`, "off", false}, {`true`, "0", false}, {`true`, "1", true},
		{`"off"`, "off", true}, {`"off"`, "Off", false}, {`""`, "", true}, {`0`, "0", true}, {`0.0`, "0", true}, {`1`, "0", false},
		{`{"a":1,"b":[]}`, `{"b": [], "a": 1}`, true}, {`{"a":1}`, "x", false}, {`null`, "null", true}, {`null`, "", false},
	} {
		if got := means(json.RawMessage(c.value), c.off); got != c.same {
			t.Errorf("%s as %q: %v", c.value, c.off, got)
		}
	}
}

func TestAClientAndAnActionNeedAllThatTheyUse(t *testing.T) {
	f := newFake(t)
	for _, edit := range []func(*Options){
		func(o *Options) { o.URL = "app.launchdarkly.com" },
		func(o *Options) { o.Token = "" },
		func(o *Options) { o.Token = "a\nb" },
		func(o *Options) { o.Transport = nil },
		func(o *Options) { o.Now = nil },
		func(o *Options) { o.Wait = nil },
	} {
		o := Options{URL: f.url, Token: token, Transport: http.DefaultTransport, Now: time.Now, Wait: f.wait}
		edit(&o)
		if _, err := New(o); err == nil || strings.Contains(err.Error(), token) {
			t.Errorf("%+v: %v", o, err)
		}
	}
	c, err := New(Options{URL: f.url, Token: token, Transport: http.DefaultTransport, Now: time.Now, Wait: f.wait})
	if err != nil {
		t.Fatal(err)
	}
	for _, at := range []*alerts.LaunchDarklyFlag{nil, {}, {Project: "a", Key: "b"}, {Project: "a", Environment: "b"}, {Environment: "a", Key: "b"}} {
		if _, err := c.FlagOff(alerts.Target{}, alerts.Flag{Name: "A", LaunchDarkly: at}); err == nil {
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
