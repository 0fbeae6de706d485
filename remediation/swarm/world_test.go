package swarm

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/prometheus/common/model"

	"github.com/locotoki/backout/alerts"
	"github.com/locotoki/backout/remediation"
	"github.com/locotoki/backout/remediation/action/actiontest"
	"github.com/locotoki/backout/remediation/jsonhttp"
)

const (
	op       = "inc-1/1-flag_off@1700000000"
	flagName = "FLAG"
	shop     = "127.0.0.1:1/shop"
	// generous is how long something may take on a machine that does much else.
	generous = 2 * time.Minute
)

func TestMain(m *testing.M) {
	// Most of a test's time is waiting: four a core keep it busy.
	flag.Parse()
	if err := flag.Set("test.parallel", fmt.Sprint(4*runtime.GOMAXPROCS(0))); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(2)
	}
	os.Exit(m.Run())
}

// lab is the Swarm that the tests share.
var lab = sync.OnceValues(func() (host string, err error) {
	dir := os.Getenv("BACKOUT_SWARM")
	if dir == "" {
		return "", errors.New("no Swarm: BACKOUT_SWARM is not set; try: deploy/dev/swarm.sh with go test ./remediation/swarm")
	}
	return "unix://" + dir + "/1/docker.sock", loadImages(dir)
})

// loadImages builds the service's images on the manager, and copies them to the worker:
// there is no registry.
func loadImages(dir string) (err error) {
	tmp, err := os.MkdirTemp("", "backout-image-")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(tmp)) }()
	build := exec.Command("go", "build", "-o", filepath.Join(tmp, "service"), "../docker/testdata/service")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		return fmt.Errorf("build the test service: %w\n%s", err, out)
	}
	var names []string
	// Each node asks the image's registry all the same: this one refuses at once.
	for _, version := range []string{"v1.0.0", "v2.0.0", "other", "third"} {
		file := "FROM scratch\nCOPY service /service\nENV VERSION=" + version + "\nENTRYPOINT [\"/service\"]\n"
		if err := os.WriteFile(filepath.Join(tmp, "Dockerfile"), []byte(file), 0o644); err != nil {
			return err
		}
		names = append(names, shop+":"+version)
		if _, err := docker(context.Background(), dir+"/1", "build", "--quiet", "--tag", shop+":"+version, tmp); err != nil {
			return err
		}
	}
	archive := filepath.Join(tmp, "images.tar")
	if _, err := docker(context.Background(), dir+"/1", append([]string{"save", "--output", archive}, names...)...); err != nil {
		return err
	}
	_, err = docker(context.Background(), dir+"/2", "load", "--quiet", "--input", archive)
	return err
}

// docker runs a person's command on a node, whose folder it is given.
func docker(ctx context.Context, node string, args ...string) (string, error) {
	out, err := exec.CommandContext(ctx, "docker", append([]string{"-H", "unix://" + node + "/docker.sock"}, args...)...).CombinedOutput()
	if err != nil {
		err = fmt.Errorf("docker %s: %w\n%s", strings.Join(args, " "), err, out)
	}
	return strings.TrimSpace(string(out)), err
}

var worlds atomic.Int32

// world is a stack of one service in a real Swarm, of version v2.0.0 with its flag on.
type world struct {
	*testing.T
	host, dir, stack string
	target           alerts.Target
	flag             alerts.Flag
	updates          atomic.Int32 // that were sent, by all clients of the world
}

// options are what a world's stack file says.
type options struct {
	environment string // of the service: "" for FLAG: ${FLAG}
	envFile     string // the service's env_file, ""
	env         string // the env file's content
	image       string
	replicas    int
	update      string // of update_config
	more        string // lines of the service
	unready     bool   // do not wait until it runs
}

func newWorld(t *testing.T, o options) *world {
	t.Helper()
	host, err := lab()
	if err != nil {
		t.Fatal(err)
	}
	w := &world{T: t, host: host, dir: t.TempDir(), stack: fmt.Sprintf("s%d-%d", os.Getpid(), worlds.Add(1)), flag: alerts.Flag{Name: flagName, Off: "0"}}
	w.target = alerts.Target{
		Swarm: &alerts.SwarmTarget{Service: w.stack + "_web", StackFile: w.path("stack.yml"), EnvFile: w.path("shop.env")},
		Probe: alerts.Probe{Port: "9000", Health: "/health/", Version: "/version", Flags: "/flags", Timeout: model.Duration(30 * time.Second)},
	}
	if o.environment == "" && o.envFile == "" {
		o.environment = "{FLAG: \"${FLAG}\"}"
	}
	if o.env == "" {
		o.env = "TAG=v2.0.0\nFLAG=1\n"
	}
	if o.image == "" {
		o.image = shop + ":${TAG}"
	}
	if o.replicas == 0 {
		o.replicas = 2
	}
	if o.update == "" {
		o.update = "order: start-first, monitor: 300ms"
	}
	w.write("shop.env", o.env)
	lines := []string{"version: \"3.8\"", "services:", "  web:", "    image: " + o.image}
	if o.environment != "" {
		lines = append(lines, "    environment: "+o.environment)
	}
	if o.envFile != "" {
		lines = append(lines, "    env_file: "+o.envFile)
	}
	if o.more != "" {
		lines = append(lines, o.more)
	}
	lines = append(lines, "    ports: [{target: 9000, mode: host}]", "    deploy:", "      endpoint_mode: dnsrr", fmt.Sprintf("      replicas: %d", o.replicas),
		"      update_config: {"+o.update+"}", "")
	w.write("stack.yml", strings.Join(lines, "\n"))
	t.Cleanup(func() { // the test's context has ended
		w.T = t
		w.eventually("remove the stack", func() error { // its network goes last, and may be in use for a moment
			_, err := docker(context.Background(), w.manager(), "stack", "rm", w.stack)
			return err
		})
	})
	w.deploy()
	if !o.unready {
		w.settled()
	}
	return w
}

func (w *world) manager() string {
	return strings.TrimSuffix(strings.TrimPrefix(w.host, "unix://"), "/docker.sock")
}
func (w *world) path(name string) string { return filepath.Join(w.dir, name) }
func (w *world) service() string         { return w.target.Swarm.Service }
func (w *world) write(name, content string) {
	w.Helper()
	if err := os.WriteFile(w.path(name), []byte(content), 0o600); err != nil {
		w.Fatal(err)
	}
}

func (w *world) read(name string) string {
	w.Helper()
	return readFile(w.T, w.path(name))
}

// docker is a person's command on the manager.
func (w *world) docker(args ...string) string {
	w.Helper()
	out, err := docker(w.Context(), w.manager(), args...)
	if err != nil {
		w.Fatal(err)
	}
	return out
}

// deploy is a person's docker stack deploy, with the env file read by the shell.
func (w *world) deploy() {
	w.Helper()
	script := "set -a; . ./shop.env; exec docker -H " + w.host + " stack deploy --compose-file stack.yml " + w.stack
	w.eventually("docker stack deploy", func() error { // an update in progress may put it out of sequence
		cmd := exec.CommandContext(w.Context(), "sh", "-c", script)
		cmd.Dir = w.dir
		out, err := cmd.CombinedOutput()
		if err != nil {
			err = fmt.Errorf("%w\n%s", err, out)
		}
		return err
	})
}

// see is the service as it is.
func (w *world) see() *state {
	w.Helper()
	s, err := w.client(nil).read(w.Context(), w.target.Swarm)
	if err != nil {
		w.Fatal(err)
	}
	return s
}

// eventually waits until there is no error.
func (w *world) eventually(what string, ask func() error) {
	w.Helper()
	deadline := time.Now().Add(generous)
	for {
		err := ask()
		if err == nil {
			return
		}
		if time.Now().After(deadline) {
			w.Fatalf("%s: %v", what, err)
		}
		jsonhttp.Wait(context.Background(), 50*time.Millisecond)
	}
}

// settled waits until each task of the service is as it says.
func (w *world) settled() {
	w.Helper()
	c := w.client(nil)
	w.eventually("the service runs", func() error {
		for _, a := range []change{w.flagOff(c).change, w.imageBack(c).change} {
			s := w.see()
			value, err := a.field.value(s.container())
			if err != nil {
				return err
			}
			done, how, err := a.rolled(w.Context(), s, value)
			if err == nil && !done {
				err = errors.New(how)
			}
			if err != nil {
				return err
			}
		}
		return nil
	})
}

// again makes the service, for another test, what it was at first: env is the env file.
func (w *world) again(t *testing.T, env string) *world {
	t.Helper()
	w.T = t
	w.write("shop.env", env)
	w.deploy()
	w.settled()
	return w
}

// said is what each task says its flag and its version are.
func (w *world) said() (all []string) {
	w.Helper()
	running, err := w.client(nil).Running(w.Context(), &alerts.Playbook{Target: w.target, Flags: []alerts.Flag{w.flag}})
	if err != nil {
		w.Fatal(err)
	}
	c := w.client(nil)
	seen, err := c.service(w.target).List(w.Context())
	tasks := seen.Replicas
	if err != nil || running.Total != len(tasks) {
		w.Fatalf("%d tasks, and %d run: %v", len(tasks), running.Total, err)
	}
	for i, t := range tasks {
		address, err := t.Address(w.Context())
		if err != nil {
			w.Fatal(err)
		}
		flags, err := c.probe.Flags(w.Context(), address+"/flags")
		if err != nil {
			w.Fatal(err)
		}
		all = append(all, flags[flagName]+" "+running.Replicas[i].Version)
	}
	return all
}

func (w *world) expectSaid(want string, n int) {
	w.Helper()
	said := w.said()
	if len(said) != n {
		w.Errorf("%d tasks say %q, want %d", len(said), said, n)
	}
	for _, s := range said {
		if s != want {
			w.Errorf("the tasks say %q, want %s", said, want)
		}
	}
}

// state is all that an undo restores.
func (w *world) state() string {
	w.Helper()
	s := w.see()
	return fmt.Sprintf("%q %s, mark %q, image label %q, file %q", s.container().Env, s.container().Image, s.Spec.Labels[markLabel], s.Spec.Labels[imageLabel], w.read("shop.env"))
}

// previous is the environment that Swarm itself would go back to.
func (w *world) previous() string {
	w.Helper()
	return w.docker("service", "inspect", "--format", "{{with .PreviousSpec}}{{.TaskTemplate.ContainerSpec.Env}}{{end}}", w.service())
}

// client is backout's; trip, if it is not nil, stands between it and the manager where
// something is changed.
func (w *world) client(trip func(req *http.Request, next http.RoundTripper) (*http.Response, error)) *Client {
	w.Helper()
	c, err := newClient(Options{Host: w.host, Projects: []string{w.dir}, Logger: slog.New(slog.DiscardHandler)}, func(next http.RoundTripper) http.RoundTripper {
		return tripper(func(req *http.Request) (*http.Response, error) {
			if req.Method == http.MethodPost {
				w.updates.Add(1)
				if trip != nil {
					return trip(req, next)
				}
			}
			return next.RoundTrip(req)
		})
	})
	if err != nil {
		w.Fatal(err)
	}
	w.Cleanup(c.Close)
	return c
}

type tripper func(*http.Request) (*http.Response, error)

func (f tripper) RoundTrip(req *http.Request) (*http.Response, error) { return f(req) }

func (w *world) flagOff(c *Client) *flagChange {
	w.Helper()
	a, err := c.FlagOff(w.target, w.flag)
	if err != nil {
		w.Fatal(err)
	}
	return a.(*flagChange)
}

// imageBack is the action that puts the image back to v1.0.0.
func (w *world) imageBack(c *Client) *imageChange {
	w.Helper()
	a, err := c.ImageRetag(w.target, "", "v1.0.0")
	if err != nil {
		w.Fatal(err)
	}
	return a.(*imageChange)
}

func (w *world) look(a remediation.Action, want remediation.Position) json.RawMessage {
	w.Helper()
	look, err := a.Look(w.Context(), op)
	if err != nil {
		w.Fatal(err)
	}
	if look.Position != want {
		w.Fatalf("it is %s, want %s: %s", look.Position, want, w.state())
	}
	return look.Snapshot
}

// apply carries an action out, as the engine does.
func (w *world) apply(a remediation.Action) (before json.RawMessage) {
	w.Helper()
	before = w.look(a, remediation.Untouched)
	if err := a.Apply(w.Context(), op, before); err != nil {
		w.Fatal(err)
	}
	if err := a.Verify(w.Context(), op); err != nil {
		w.Fatal(err)
	}
	w.look(a, remediation.Wanted)
	return before
}

var errCut = errors.New("connection cut by the test")

// cut is a connection whose n-th change meets a fault.
func (w *world) cut(n int, f actiontest.Fault) (c *Client, fired func() bool) {
	calls, hit := 0, false
	return w.client(func(req *http.Request, next http.RoundTripper) (*http.Response, error) {
		if calls++; calls-1 != n {
			return next.RoundTrip(req)
		}
		if hit = true; f == actiontest.Before {
			return nil, errCut
		}
		res, err := next.RoundTrip(req)
		if err != nil {
			return nil, err
		}
		if _, err := io.Copy(io.Discard, res.Body); err != nil {
			return nil, err
		}
		if err := res.Body.Close(); err != nil {
			return nil, err
		}
		if f == actiontest.Hang {
			return nil, actiontest.Unanswered(req.Context())
		}
		return nil, errCut
	}), func() bool { return hit }
}

// fixture is the conformance suite's; bind makes the action.
func (w *world) fixture(risk alerts.Risk, bind func(*Client) remediation.Action, meddle func()) *actiontest.Fixture {
	return &actiontest.Fixture{
		Risk: risk, Action: bind(w.client(nil)),
		State: func(*testing.T) string { return w.state() },
		Effects: func(*testing.T) int {
			info, err := os.Stat(w.path("shop.env"))
			if err != nil {
				w.Fatal(err)
			}
			return int(w.updates.Load()) + int(info.ModTime().UnixNano()) // a write replaces the file
		},
		Meddle: func(*testing.T) { meddle() },
		Cut: func(_ *testing.T, n int, f actiontest.Fault) (remediation.Action, func() bool) {
			c, fired := w.cut(n, f)
			return bind(c), fired
		},
	}
}

func readFile(t *testing.T, path string) string {
	t.Helper()
	raw, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(raw)
}
