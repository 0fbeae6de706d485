package action

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/locotoki/backout/alerts"
	"github.com/locotoki/backout/remediation"
	"github.com/locotoki/backout/remediation/action/actiontest"
	"github.com/locotoki/backout/remediation/probe"
)

// provided are Flags of which each is a board.
type provided struct{ *actiontest.Board }

func (p provided) FlagOff(alerts.Target, alerts.Flag) (remediation.Action, error) {
	return p.Board, nil
}

// asked are Services whose word is a test's.
type asked struct {
	noFlags
	says func() error
}

func (s *asked) Serves(_ context.Context, _ alerts.Target, flag alerts.Flag) error {
	if flag.Name != "B" {
		return fmt.Errorf("asked for %s", flag.Name)
	}
	return s.says()
}

var (
	errServesOn = fmt.Errorf("pod web-1: serves B=true: %w", probe.ErrOtherwise)
	errUnlisted = fmt.Errorf("pod web-1: %w B: %w", probe.ErrUnlisted, probe.ErrOtherwise)
	errSilent   = errors.New("no answer")
)

// bound is the action on the flag B, which LaunchDarkly keeps, of a service with that word.
func bound(t *testing.T, board *actiontest.Board, says func() error) remediation.Action {
	t.Helper()
	pb := kept()
	pb.Target.Probe.Flags = "http://127.0.0.1:9000/flags"
	a, err := flagOff{flags: &asked{says: says}, launchDarkly: provided{board}}.Bind(pb, &flagOffParams{Flag: "B"})
	if err != nil {
		t.Fatal(err)
	}
	return a
}

func TestAFlagThatIsKeptElsewhereIsOffOnceTheServiceConfirmsIt(t *testing.T) {
	for _, c := range []struct {
		name string
		word error
		want remediation.Position
	}{
		{"confirmed", nil, remediation.Wanted},
		{"denied", errServesOn, remediation.HalfWay},
		{"silent", errSilent, remediation.Wanted},
		{"not listed", errUnlisted, remediation.Wanted},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				board := actiontest.NewBoard("flag", alerts.Reversible, 1)
				a := bound(t, board, func() error { return c.word })
				if look, err := a.Look(t.Context(), "op"); err != nil || look.Position != remediation.Untouched {
					t.Errorf("before: %q, %v", look.Position, err)
				}
				if err := a.Apply(t.Context(), "op", nil); err != nil {
					t.Fatal(err)
				}
				if look, err := a.Look(t.Context(), "op"); err != nil || look.Position != c.want {
					t.Errorf("it is %q, %v; want %q", look.Position, err, c.want)
				}
				from := time.Now()
				if err := a.Verify(t.Context(), "op"); err != nil {
					t.Errorf("verify: %v", err)
				}
				if waited := time.Since(from) >= 30*time.Second; waited != (errors.Is(c.word, errServesOn)) {
					t.Errorf("it was waited for: %v", waited)
				}
			})
		})
	}
}

func TestAServiceHasTheProbesTimeoutToHearOfAFlag(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		from := time.Now()
		word := func(after time.Duration) func() error {
			return func() error {
				if time.Since(from) < after {
					return errServesOn
				}
				return nil
			}
		}
		board := actiontest.NewBoard("flag", alerts.Reversible, 1)
		if err := bound(t, board, word(29*time.Second)).Verify(t.Context(), "op"); err != nil {
			t.Error(err)
		}
		if took := time.Since(from); took < 29*time.Second || took > 31*time.Second {
			t.Errorf("it follows after 29 s, and was asked for %s", took)
		}
		// A server that stops has verified nothing yet.
		ctx, stop := context.WithCancel(t.Context())
		time.AfterFunc(time.Second, stop)
		if err := bound(t, board, word(time.Hour)).Verify(ctx, "op"); !errors.Is(err, context.Canceled) {
			t.Errorf("stopped while it waits: %v", err)
		}
		// What the provider shows comes first.
		board.Broken = errors.New("still on")
		if err := bound(t, board, word(0)).Verify(t.Context(), "op"); !errors.Is(err, board.Broken) {
			t.Error(err)
		}
	})
}

func TestAFlagThatIsKeptElsewhereConforms(t *testing.T) {
	t.Parallel()
	actiontest.Run(t, func(t *testing.T) *actiontest.Fixture {
		board := actiontest.NewBoard("flag", alerts.Reversible, 1)
		follows := func() error {
			if board.State() != "off" {
				return errServesOn
			}
			return nil
		}
		return &actiontest.Fixture{
			Risk: alerts.Reversible, Action: bound(t, board, follows),
			State:   func(*testing.T) string { return board.State() },
			Effects: func(*testing.T) int { return len(board.Effects()) },
			Meddle:  func(*testing.T) { board.Set(0, "on") },
			Cut: func(t *testing.T, n int, fault actiontest.Fault) (remediation.Action, func() bool) {
				cut, fired := board.Cut(n, fault)
				return bound(t, cut, follows), fired
			},
		}
	})
}

func TestAFlagThatIsKeptElsewhereIsWatched(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		board := actiontest.NewBoard("flag", alerts.Reversible, 1)
		board.Set(0, "off")
		var word error
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		var reports []string
		ended := make(chan error, 1)
		go func() {
			ended <- bound(t, board, func() error { return word }).(remediation.Watcher).Watch(ctx, func(what string) { reports = append(reports, what) })
		}()
		look := func(want ...string) {
			t.Helper()
			time.Sleep(watchEvery + time.Second)
			synctest.Wait()
			if strings.Join(reports, "|") != strings.Join(want, "|") {
				t.Fatalf("reports %q, want %q", reports, want)
			}
		}
		look()
		word = errSilent
		look()
		board.Set(0, "on")
		look("B is on again in LaunchDarkly")
		board.Set(0, "off")
		word = errServesOn
		look("B is on again in LaunchDarkly", errServesOn.Error())
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
		board.Refuse = errors.New("401")
		if err := bound(t, board, nil).(remediation.Watcher).Watch(t.Context(), nil); !errors.Is(err, board.Refuse) {
			t.Errorf("a provider that refuses ends the watch: %v", err)
		}
	})
}

func TestPreflightSaysWhetherTheServiceListsAFlagThatIsKeptElsewhere(t *testing.T) {
	for name, c := range map[string]struct {
		word  error
		flags string
		want  remediation.Status
		says  string
	}{
		"it does":     {errServesOn, "/flags", remediation.Pass, "it is untouched; the service lists it at /flags"},
		"it does not": {errUnlisted, "/flags", remediation.Fail, "does not list B"},
		"silent":      {errSilent, "/flags", remediation.CannotTell, "does not report its flags: no answer"},
		"not asked":   {errUnlisted, "", remediation.Pass, "it is untouched"},
	} {
		pb := kept()
		pb.Flags = pb.Flags[1:2]
		pb.Target.Probe.Flags = c.flags
		k := flagOff{flags: &asked{says: func() error { return c.word }}, launchDarkly: provided{actiontest.NewBoard("flag", alerts.Reversible, 1)}}
		checks, err := k.Checks(pb, &flagOffParams{Flag: "B"})
		if err != nil || len(checks) != 1 || checks[0].ID != "flag/B/known" {
			t.Fatalf("%s: %v, %v", name, checks, err)
		}
		if r := checks[0].Run(t.Context()); r.Status != c.want || !strings.Contains(r.Evidence, c.says) {
			t.Errorf("%s: %+v", name, r)
		}
	}
}

// A promotion back to the off value is the flag off; a share is only its provider's to know.
func TestOnlyTheOffValueIsTheServicesToConfirm(t *testing.T) {
	pb := kept()
	k := flagOff{flags: &asked{}, launchDarkly: &sharing{}}
	if _, a, err := k.SetFlag(pb, "B", pb.Flag("B").Off); err != nil || !confirmed(a) {
		t.Errorf("off: %T, %v", a, err)
	}
	if _, a, err := k.SetFlag(pb, "B", "0.25"); err != nil || confirmed(a) {
		t.Errorf("a share: %T, %v", a, err)
	}
	if _, a, err := k.SetFlag(pb, "A", "0"); err != nil || confirmed(a) {
		t.Errorf("where the service runs: %T, %v", a, err)
	}
}

func confirmed(a remediation.Action) bool {
	_, is := a.(*elsewhere)
	return is
}
