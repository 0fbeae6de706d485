package demo

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"fmt"
	"hash/crc32"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"testing"
	"time"

	"github.com/locotoki/backout/deploy/demo/breakage"
	"github.com/locotoki/backout/remediation"
	"github.com/locotoki/backout/remediation/audit"
	"github.com/locotoki/backout/remediation/crashtest"
	"github.com/locotoki/backout/remediation/view"
)

// shared is what all tests of the package have in common: built once.
var shared settings

// TestMain builds backout and the service's images. What is missing fails the
// tests, with what to do about it.
func TestMain(m *testing.M) {
	ctx := context.Background()
	flag.Parse()
	s, err := build(ctx)
	if err != nil {
		fmt.Fprintf(os.Stderr, "end-to-end tests need Docker, docker-compose, Prometheus, Alertmanager and PostgreSQL: try: make test\n%v\n", err)
		os.Exit(1)
	}
	shared = s.settings
	// Stacks wait for their windows most of the time: more of them than there are processors fit side by side.
	if f := flag.Lookup("test.parallel"); f.Value.String() == strconv.Itoa(runtime.GOMAXPROCS(0)) {
		if err := f.Value.Set(strconv.Itoa(3 * runtime.GOMAXPROCS(0))); err != nil {
			panic(err) // a number is one
		}
	}
	if err := uncached(s.dir); err != nil {
		panic(err) // its folder has just been made
	}
	code := m.Run()
	if err := errors.Join(s.engine.removeImages(ctx, s.image), os.RemoveAll(s.dir)); err != nil {
		fmt.Fprintln(os.Stderr, err)
		code = 1
	}
	os.Exit(code)
}

// uncached keeps go test from remembering a result: what is tested here are
// programs that the tests build, of which its cache knows nothing. It takes no
// result of a test that has read a file younger than itself; the file stays.
func uncached(dir string) error {
	file := dir + ".young"
	tomorrow := time.Now().AddDate(0, 0, 1)
	err := errors.Join(os.WriteFile(file, nil, 0o600), os.Chtimes(file, tomorrow, tomorrow))
	if err == nil {
		_, err = os.ReadFile(file)
	}
	return err
}

func build(ctx context.Context) (*stack, error) {
	source, err := Checkout(".")
	if err != nil {
		return nil, err
	}
	dir := filepath.Join(source, ".cache", "e2e")
	if crashtest.Sampled() {
		if err := laterCompose(filepath.Join(dir, "bin")); err != nil {
			return nil, err
		}
	}
	tools, err := findTools()
	if err != nil {
		return nil, err
	}
	host := os.Getenv("DOCKER_HOST")
	if host == "" {
		host = "unix:///var/run/docker.sock"
	}
	engine, err := newEngine(host)
	if err != nil {
		return nil, err
	}
	if _, err := engine.ping(ctx); err != nil {
		return nil, err
	}
	db, _, err := findCluster(ctx, os.Getenv)
	if err != nil {
		return nil, err
	}
	s := &stack{settings: settings{
		dir: dir, source: source, engine: engine, cluster: db, tools: tools, mode: "act", book: "playbook.yaml", share: "1",
		limits: oneBreach, plan: wholePlan(),
		image: fmt.Sprintf("backout-e2e-%08x/social-intel", crc32.ChecksumIEEE([]byte(source))),
	}}
	if err := os.MkdirAll(s.dir, 0o755); err != nil {
		return nil, err
	}
	s.backout = s.path("backout")
	args := append([]string{"build", "-buildvcs=false", "-o", s.backout}, raceFlags...)
	cmd := exec.CommandContext(ctx, "go", append(args, "./cmd/backout")...)
	cmd.Dir = source
	if out, err := cmd.CombinedOutput(); err != nil {
		return nil, fmt.Errorf("build backout: %w\n%s", err, bytes.TrimSpace(out))
	}
	return s, s.images(ctx)
}

// laterCompose makes docker-compose of PATH the second generation, for the human and for
// backout: a start of the first takes 0.7 s of CPU, which is a quarter of all that the
// short run takes. The long run has the first, the demo too.
func laterCompose(bin string) error {
	later, err := exec.LookPath("docker-compose2")
	if err != nil {
		return err
	}
	if err := os.MkdirAll(bin, 0o755); err != nil {
		return err
	}
	name := filepath.Join(bin, "docker-compose")
	if err := os.Remove(name); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return errors.Join(os.Symlink(later, name), os.Setenv("PATH", bin+string(os.PathListSeparator)+os.Getenv("PATH")))
}

// generous is how long a test waits for what should come in seconds.
const generous = 10 * time.Minute

// newTestStack returns a stack of its own, prepared but with nothing running.
// A killed run's leftovers of the same name are removed first.
func newTestStack(t testing.TB, name string, change func(*settings)) *stack {
	t.Helper()
	set := shared
	set.dir = filepath.Join(shared.dir, name)
	set.project = fmt.Sprintf("backout-e2e-%08x-%s", crc32.ChecksumIEEE([]byte(set.dir)), name)
	set.image = set.project + "/social-intel"
	change(&set)
	var s *stack
	// The same test may run more than once at a time (-count): one after the other.
	must(t, await(t.Context(), 2*generous, time.Second, func(ctx context.Context) (err error) {
		s, err = newStack(ctx, set)
		if err != nil && !errors.Is(err, errBusy) {
			err = fatal(err)
		}
		return err
	}))
	s.client.Timeout = generous // the race detector and other tests beside it make all slow
	t.Cleanup(func() {
		if t.Failed() {
			for _, p := range []*process{s.serve, s.prometheus, s.alertmanager} {
				if p != nil {
					t.Logf("the end of %s's output:\n%s", p.name, p.tail())
				}
			}
		}
		ctx, cancel := context.WithTimeout(context.Background(), cleanUpWithin)
		defer cancel()
		said, err := os.ReadFile(s.path("backout.log"))
		if err == nil && bytes.Contains(said, []byte("DATA RACE")) {
			t.Errorf("backout has a data race:\n%s", said)
		}
		if err := s.close(ctx); err != nil {
			t.Errorf("clean up: %v", err)
		}
	})
	must(t, s.prepare(t.Context()))
	must(t, s.takeImages(t.Context(), shared.image))
	return s
}

// runningStack returns a stack with everything up, well, and a rollout declared.
func runningStack(t *testing.T, name string, change func(*settings)) *stack {
	t.Helper()
	s := newTestStack(t, name, change)
	ctx := t.Context()
	must(t, s.up(ctx))
	must(t, s.startPrometheus(ctx))
	must(t, s.startAlertmanager(ctx))
	must(t, s.startBackout(ctx))
	must(t, s.declare(ctx))
	must(t, s.settled(ctx))
	return s
}

func asUsual(*settings) {}

// steps are a plan of a few actions only.
func steps(actions ...string) plan { return plan{Actions: actions, Approval: "5m"} }

// manyBreaches lets one breach after another be a new incident, and be acted on.
var manyBreaches = limits{PerHour: 1000, ReopenWithin: "1ms"}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// until waits for a condition.
func until(t testing.TB, what string, try func(ctx context.Context) error) {
	t.Helper()
	if err := await(t.Context(), generous, 250*time.Millisecond, try); err != nil {
		t.Fatalf("%s: %v", what, err)
	}
}

// breakNow makes the service fail.
func breakNow(t *testing.T, s *stack, b breakage.Breakage) {
	t.Helper()
	must(t, s.breakWith(b))
}

// onlyIncident returns the one incident there is, once there is one.
func (s *stack) onlyIncident(ctx context.Context) (view.IncidentView, error) {
	var answer struct{ Incidents []view.IncidentView }
	if err := s.ask(ctx, "backout", "/api/v1/incidents", &answer); err != nil {
		return view.IncidentView{}, err
	}
	if n := len(answer.Incidents); n != 1 {
		return view.IncidentView{}, fmt.Errorf("there are %d incidents, not 1", n)
	}
	return answer.Incidents[0], nil
}

// untilHeld waits until the incident waits for a reason.
func untilHeld(t *testing.T, s *stack, reason remediation.Reason) view.IncidentView {
	t.Helper()
	var inc view.IncidentView
	until(t, fmt.Sprintf("held for reason %q", reason), func(ctx context.Context) (err error) {
		if inc, err = s.onlyIncident(ctx); err != nil {
			return err
		}
		if inc.State != remediation.Waiting || inc.Reason != reason {
			return fmt.Errorf("the incident is %s (%s: %s)", inc.State, inc.Reason, inc.Why)
		}
		return nil
	})
	return inc
}

// untilEntry waits for an audit entry of a kind and returns it.
func untilEntry(t *testing.T, l *log, kind audit.Kind) *audit.Entry {
	t.Helper()
	var e *audit.Entry
	until(t, fmt.Sprintf("audit entry %q", kind), func(ctx context.Context) error {
		if err := l.refresh(ctx); err != nil {
			return err
		}
		if e = l.find(func(e *audit.Entry) bool { return e.Kind == kind }); e == nil {
			return fmt.Errorf("none among %d entries", len(l.entries))
		}
		return nil
	})
	return e
}

// kinds returns the entries of a kind that are in the log now.
func kinds(t *testing.T, l *log, kind audit.Kind) []audit.Entry {
	t.Helper()
	must(t, l.refresh(t.Context()))
	var out []audit.Entry
	for _, e := range l.entries {
		if e.Kind == kind {
			out = append(out, e)
		}
	}
	return out
}

// wantFlag fails the test unless the container's service has the flag at value.
func wantFlag(t *testing.T, s *stack, value string) {
	t.Helper()
	got, err := s.flag(t.Context())
	must(t, err)
	if got != value {
		t.Errorf("the service has %s=%q, not %q", flagName, got, value)
	}
}
