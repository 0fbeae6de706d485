package docker

import (
	"testing"

	"github.com/locotoki/backout/remediation"
	"github.com/locotoki/backout/remediation/action/actiontest"
)

// setTo is the action that gives the flag a value, as a promotion does.
func (w *harness) setTo(value string, f *fault) remediation.Action {
	w.Helper()
	flag := w.flag
	flag.Off = value
	a, err := w.client(f).FlagOff(w.target, flag)
	if err != nil {
		w.Fatal(err)
	}
	return a
}

// offHarness is a service whose flag is off.
func offHarness(t *testing.T) *harness {
	w := newHarness(t)
	w.write("docker-compose.yml", w.webFile())
	w.write(".env", "# settings\nFLAG=0 # off\nPASSWORD="+secret+"\n")
	w.start("0")
	return w
}

func TestAFlagThatIsSetToAShareConforms(t *testing.T) {
	t.Parallel()
	actiontest.RunSample(t, func(t *testing.T) *actiontest.Fixture {
		w := offHarness(t)
		f := w.fixture()
		f.Action = w.setTo("0.01", nil)
		f.Cut = func(_ *testing.T, n int, kind actiontest.Fault) (remediation.Action, func() bool) {
			broken := &fault{n: n, kind: kind}
			return w.setTo("0.01", broken), func() bool { return broken.hit }
		}
		return f
	})
}

// carryOut looks, applies and verifies.
func (w *harness) carryOut(a remediation.Action, op, want string) {
	w.Helper()
	look, err := a.Look(w.Context(), op)
	if err != nil {
		w.Fatal(err)
	}
	if err := a.Apply(w.Context(), op, look.Snapshot); err != nil {
		w.Fatal(err)
	}
	if err := a.Verify(w.Context(), op); err != nil {
		w.Fatal(err)
	}
	if got := w.flagOf(w.one()); got != want {
		w.Fatalf("the service runs with FLAG=%s, want %s", got, want)
	}
}

func TestAFlagGoesFromShareToShareAndOff(t *testing.T) {
	w := offHarness(t)
	for _, value := range []string{"0.01", "0.1", "0.25", "0.5", "1"} {
		w.carryOut(w.setTo(value, nil), "rollout-web/"+value+"@1795316400000000000", value)
		if got := w.read(".env"); got != "# settings\nFLAG="+value+" # off\nPASSWORD="+secret+"\n" {
			t.Fatalf(".env is %q", got)
		}
	}
	w.carryOut(w.action(), "inc-1/1-flag_off@1", "0")
}
