package docker

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/http/httputil"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"

	"github.com/docker/docker/client"
	"go.yaml.in/yaml/v3"

	"github.com/locotoki/backout/alerts"
	"github.com/locotoki/backout/hint"
	"github.com/locotoki/backout/remediation"
	"github.com/locotoki/backout/remediation/action/actiontest"
	"github.com/locotoki/backout/remediation/docker/compose"
	"github.com/locotoki/backout/remediation/docker/fleet"
)

// second makes the compose of the second generation the project's tool, called through
// a road to the engine that tests can break.
func (w *harness) second() *harness {
	w.Helper()
	path, err := exec.LookPath("docker-compose2")
	if err != nil {
		w.Fatalf("%v; try: make tools", err)
	}
	bin := w.TempDir()
	if err := os.Symlink(path, filepath.Join(bin, "docker-compose")); err != nil {
		w.Fatal(err)
	}
	w.environ = []string{"PATH=" + bin, "HOME=" + bin}
	return w
}

// up2 is a person's docker compose.
func (w *harness) up2(args ...string) {
	w.Helper()
	cmd := exec.Command("docker-compose2", append([]string{"-p", w.project}, args...)...)
	cmd.Dir = w.dir
	if out, err := cmd.CombinedOutput(); err != nil {
		w.Fatalf("docker compose %v: %v\n%s", args, err, out)
	}
}

// road is a proxy before the engine. It counts what changes something, and cuts one
// such call off together with the tool that made it.
type road struct {
	w     *harness
	fault *fault
	mu    sync.Mutex
}

type peerKey struct{}

func (w *harness) road(f *fault) string {
	w.Helper()
	dir, err := os.MkdirTemp("", "road") // a socket's path is short
	if err != nil {
		w.Fatal(err)
	}
	w.Cleanup(func() { _ = os.RemoveAll(dir) })
	l, err := net.Listen("unix", filepath.Join(dir, "s"))
	if err != nil {
		w.Fatal(err)
	}
	host, err := client.ParseHostURL(os.Getenv("DOCKER_HOST"))
	if err != nil {
		w.Fatal(err)
	}
	var d net.Dialer
	proxy := &httputil.ReverseProxy{
		Rewrite:       func(r *httputil.ProxyRequest) { r.Out.URL.Scheme, r.Out.URL.Host = "http", "engine" },
		FlushInterval: -1,
		ErrorLog:      slog.NewLogLogger(slog.DiscardHandler, slog.LevelError),
	}
	r := &road{w: w, fault: f}
	engine := &http.Transport{DisableKeepAlives: true}
	engine.DialContext = func(ctx context.Context, _, _ string) (net.Conn, error) {
		return d.DialContext(ctx, host.Scheme, host.Host+host.Path)
	}
	proxy.Transport = engine
	s := &http.Server{
		Handler:  http.HandlerFunc(func(rw http.ResponseWriter, req *http.Request) { r.serve(proxy, rw, req) }),
		ErrorLog: proxy.ErrorLog,
		ConnContext: func(ctx context.Context, c net.Conn) context.Context {
			return context.WithValue(ctx, peerKey{}, peerOf(c))
		},
	}
	go func() { _ = s.Serve(l) }()
	w.Cleanup(func() { _ = s.Close() })
	return "unix://" + filepath.Join(dir, "s")
}

func peerOf(c net.Conn) int {
	raw, err := c.(*net.UnixConn).SyscallConn()
	pid := 0
	if err == nil {
		_ = raw.Control(func(fd uintptr) {
			if cred, err := syscall.GetsockoptUcred(int(fd), syscall.SOL_SOCKET, syscall.SO_PEERCRED); err == nil {
				pid = int(cred.Pid)
			}
		})
	}
	return pid
}

func (r *road) serve(proxy http.Handler, rw http.ResponseWriter, req *http.Request) {
	if req.Method == http.MethodGet || req.Method == http.MethodHead {
		proxy.ServeHTTP(rw, req)
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.w.changes.Add(1)
	cut := r.fault != nil && r.fault.calls == r.fault.n
	if r.fault != nil {
		r.fault.calls++
	}
	if !cut {
		proxy.ServeHTTP(rw, req)
		return
	}
	r.fault.hit = true
	if r.fault.kind != actiontest.Before {
		proxy.ServeHTTP(&silent{header: http.Header{}}, req)
	}
	if r.fault.kind == actiontest.Hang {
		r.fault.expire()
		<-req.Context().Done()
	} else if pid, _ := req.Context().Value(peerKey{}).(int); pid != os.Getpid() && pid > 0 {
		_ = syscall.Kill(pid, syscall.SIGKILL)
	}
	panic(http.ErrAbortHandler)
}

// silent takes an answer that never arrives.
type silent struct{ header http.Header }

func (s *silent) Header() http.Header         { return s.header }
func (s *silent) Write(b []byte) (int, error) { return len(b), nil }
func (s *silent) WriteHeader(int)             {}

// roadClient is a client whose every call goes by a road.
func (w *harness) roadClient(f *fault) *Client {
	w.Helper()
	c, err := New(Options{Host: w.road(f), Projects: []string{w.dir}, Environ: w.environ, Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		w.Fatal(err)
	}
	w.Cleanup(func() { _ = c.Close() })
	c.cli.Plugins = []string{} // this machine may have one
	c.cli.Patience = generous
	return c
}

func (w *harness) byTool(f *fault) remediation.Action {
	w.Helper()
	a, err := w.roadClient(f).FlagOff(w.target, w.flag)
	if err != nil {
		w.Fatal(err)
	}
	return a
}

func (w *harness) pinByTool(f *fault) remediation.Action {
	w.Helper()
	a, err := w.roadClient(f).ImagePin(w.target, "TAG", "v1.0.0")
	if err != nil {
		w.Fatal(err)
	}
	return a
}

// hookedFile is a service that no inspect shows in full: a hook, and a config and a
// secret that compose writes into the container.
func (w *harness) hookedFile() string {
	return fmt.Sprintf(`services:
  web:
    image: %s
    environment: {FLAG: "${FLAG:-0}", PASSWORD: "${PASSWORD}"}
    ports: ["127.0.0.1:%d:9000"]
    configs: [{source: settings, target: /settings}]
    secrets: [key]
    post_start:
      - command: [/service, check]
configs: {settings: {content: "payments: live"}}
secrets: {key: {environment: PASSWORD}}
`, w.image, w.port)
}

func hooked(t *testing.T) *harness {
	w := newHarness(t).second()
	w.write("compose.yaml", w.hookedFile())
	w.write(".env", "# settings\nFLAG=1 # on\nPASSWORD="+secret+"\n")
	w.up2("up", "-d")
	return w
}

// has fails unless the one container has what compose writes into it.
func (w *harness) has(paths ...string) {
	w.Helper()
	for _, path := range paths {
		if _, err := w.api.ContainerStatPath(w.Context(), w.one().ID, path); err != nil {
			w.Errorf("%s: %v", path, err)
		}
	}
}

// kept is the harness's state without what compose notes of a recreation.
func (w *harness) kept() string {
	w.Helper()
	lines := strings.Split(w.state(), "\n")
	return strings.Join(slices.DeleteFunc(lines, func(l string) bool { return strings.Contains(l, "com.docker.compose.replace") }), "\n")
}

func TestAServiceThatNoInspectShowsInFullIsRecreatedByTheComposeTool(t *testing.T) {
	w := hooked(t)
	before := w.kept()
	a := w.byTool(nil)
	snap := w.off(a, op)
	if got := w.flagOf(w.one()); got != "0" {
		t.Fatalf("FLAG=%s", got)
	}
	w.has("/settings", "/run/secrets/key")
	id := w.one().ID
	w.up2("up", "-d")
	if r := w.one(); r.ID != id {
		t.Errorf("a human's up -d recreated it once more")
	}
	if err := a.Undo(t.Context(), op, snap); err != nil {
		t.Fatal(err)
	}
	w.has("/settings", "/run/secrets/key")
	if got := w.kept(); got != before {
		t.Errorf("not as it was after undo:\n%s", diff(got, before))
	}
}

func TestFlagOffByTheComposeToolConforms(t *testing.T) {
	t.Parallel()
	actiontest.RunSample(t, func(t *testing.T) *actiontest.Fixture {
		w := hooked(t)
		return w.toolFixture(alerts.Reversible, w.byTool, "FLAG=0.5\n")
	})
}

// toolFixture is what an action by the tool is put to; meddled is what someone writes
// into .env and brings up.
func (w *harness) toolFixture(risk alerts.Risk, bind func(*fault) remediation.Action, meddled string) *actiontest.Fixture {
	return &actiontest.Fixture{
		Risk: risk, Action: bind(nil), Secrets: []string{secret},
		State:   func(*testing.T) string { return w.kept() },
		Effects: func(*testing.T) int { return int(w.changes.Load()) },
		Meddle: func(*testing.T) {
			w.write(".env", "PASSWORD="+secret+"\n"+meddled)
			w.up2("up", "-d")
		},
		Cut: func(_ *testing.T, n int, f actiontest.Fault) (remediation.Action, func() bool) {
			broken := &fault{n: n, kind: f}
			return expiring{bind(broken), broken}, func() bool { return broken.hit }
		},
	}
}

// expiring is an action whose time is over once the tool's call has met its fault.
type expiring struct {
	remediation.Action
	fault *fault
}

func (e expiring) Apply(ctx context.Context, op string, before json.RawMessage) error {
	e.fault.expire = func() { actiontest.Expire(ctx) }
	return e.Action.Apply(ctx, op, before)
}

// pinnedAndHooked is a service whose version is in .env, and in a label too.
func pinnedAndHooked(t *testing.T) *harness {
	w := imageHarness(t, versionOne).second()
	for tag, version := range map[string]func() (string, error){"1.0.0": versionOne, "2.0.0": versionTwo, "3.0.0": versionThree} {
		w.tag(tag, version)
	}
	w.untag("v1.0.0")
	w.untag("latest")
	file := strings.Replace(w.hookedFile(), "image: "+w.image, "image: \""+w.project+":${TAG:?}\"\n    labels: {version: \"$TAG\"}", 1)
	w.write("compose.yaml", file)
	w.write(".env", "# versions\nTAG=2.0.0 # now\nFLAG=1\nPASSWORD="+secret+"\n")
	w.up2("up", "-d")
	return w
}

func TestAPinnedVersionOfWhatNoInspectShowsGoesBackByTheComposeTool(t *testing.T) {
	w := pinnedAndHooked(t)
	before := w.kept()
	a := w.pinByTool(nil)
	snap := w.back(a, op)
	if r := w.serves(versionOne); r.Config.Image != w.project+":1.0.0" || r.Label("version") != "1.0.0" {
		t.Errorf("made from %s with the label %s", r.Config.Image, r.Label("version"))
	}
	w.has("/settings", "/run/secrets/key")
	id := w.one().ID
	w.up2("up", "-d")
	if w.one().ID != id {
		t.Errorf("a human's up -d recreated it once more")
	}
	if err := a.Undo(t.Context(), op, snap); err != nil {
		t.Fatal(err)
	}
	w.has("/settings", "/run/secrets/key")
	if got := w.kept(); got != before {
		t.Errorf("not as it was after undo:\n%s", diff(got, before))
	}
	// More than the version would change.
	w.write("compose.yaml", strings.Replace(w.read("compose.yaml"), "    configs:", "    stop_signal: SIGINT\n    configs:", 1))
	_, err := a.Look(t.Context(), op)
	for _, word := range []string{"post_start", "config --hash", "more than TAG would change", "try:"} {
		if err == nil || !strings.Contains(err.Error(), word) {
			t.Errorf("%v\nsays nothing of %q", err, word)
		}
	}
}

func TestImagePinByTheComposeToolConforms(t *testing.T) {
	t.Parallel()
	actiontest.RunSample(t, func(t *testing.T) *actiontest.Fixture {
		w := pinnedAndHooked(t)
		return w.toolFixture(alerts.Disruptive, w.pinByTool, "FLAG=1\nTAG=3.0.0\n")
	})
}

func TestAnUndoByTheToolStartsNothingOfAServiceThatWasDown(t *testing.T) {
	w := pinnedAndHooked(t)
	if err := w.api.ContainerKill(t.Context(), w.one().ID, "KILL"); err != nil {
		t.Fatal(err)
	}
	a, env := w.pinByTool(nil), w.read(".env")
	look, err := a.Look(t.Context(), op)
	if err != nil {
		t.Fatal(err)
	}
	// The tool is cut off once the mark is set and it has begun.
	if err := w.pinByTool(&fault{n: 1, kind: actiontest.After}).Apply(t.Context(), op, look.Snapshot); err == nil {
		t.Fatal("it was not cut off")
	}
	if err := a.Undo(t.Context(), op, look.Snapshot); err != nil {
		t.Fatal(err)
	}
	for _, r := range w.containers("web") {
		if r.Running() {
			t.Errorf("%s was started", r.ShortName())
		}
	}
	if got := w.read(".env"); got != env {
		t.Errorf(".env is %q, was %q", got, env)
	}
	if left, err := w.client(nil).marked(t.Context(), &fleet.Fleet{Dir: w.dir, Service: "web"}, op); left || err != nil {
		t.Errorf("the mark is left: %t, %v", left, err)
	}
}

func TestTheComposeToolIsNotRunWhereMoreThanTheFlagWouldChange(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		change func(*harness)
		want   []string
	}{
		"the definition was edited since": {func(w *harness) {
			w.write("compose.yaml", strings.Replace(w.hookedFile(), "    configs:", "    stop_signal: SIGINT\n    configs:", 1))
		}, []string{"post_start", "settings", "config --hash", "try:"}},
		"the image's name means another by now": {func(w *harness) { w.tag("latest", versionThree) }, []string{"post_start", "another image", "try: docker tag"}},
		"no compose tool is there":              {func(w *harness) { w.environ = []string{"PATH=/nowhere"} }, []string{"post_start", "no compose tool", "try: install"}},
	} {
		t.Run(name, func(t *testing.T) {
			w := newHarness(t).second()
			w.image = w.project
			w.tag("latest", versionTwo)
			w.write("compose.yaml", w.hookedFile())
			w.write(".env", "FLAG=1\nPASSWORD="+secret+"\n")
			w.up2("up", "-d")
			c.change(w)
			before := w.state()
			_, err := w.byTool(nil).Look(t.Context(), op)
			if err == nil {
				t.Fatal("it would be done")
			}
			for _, word := range c.want {
				if !strings.Contains(err.Error(), word) {
					t.Errorf("%v\nsays nothing of %q", err, word)
				}
			}
			if got := w.state(); got != before {
				t.Errorf("changed:\n%s", diff(got, before))
			}
		})
	}
}

func TestAPluginOfDockerIsRunItself(t *testing.T) {
	w := newHarness(t).second()
	home := w.TempDir()
	plugin := filepath.Join(home, ".docker", "cli-plugins", "docker-compose")
	path, err := exec.LookPath("docker-compose2")
	if err := errors.Join(err, os.MkdirAll(filepath.Dir(plugin), 0o700), os.Symlink(path, plugin)); err != nil {
		t.Fatal(err)
	}
	w.environ = []string{"HOME=" + home, "PATH=/nowhere"}
	if argv, err := w.roadClient(nil).cli.Find(t.Context(), compose.Project{Version: "2.40.3"}); err != nil || !slices.Equal(argv, []string{plugin}) {
		t.Errorf("%v, %v", argv, err)
	}
	// Of the first generation, and so not it.
	first := filepath.Join(w.TempDir(), "docker-compose")
	if err := os.WriteFile(first, []byte("#!/bin/sh\necho 1.29.2\n"), 0o700); err != nil {
		t.Fatal(err)
	}
	w.environ = []string{"PATH=" + filepath.Dir(first)}
	if argv, err := w.roadClient(nil).cli.Find(t.Context(), compose.Project{Version: "2.40.3"}); err == nil || !strings.Contains(err.Error(), "second generation") {
		t.Errorf("%v, %v", argv, err)
	}
}

func TestInlineContentThatIsNotWhatRunsIsNotLost(t *testing.T) {
	w := newHarness(t).second()
	w.write("compose.yaml", fmt.Sprintf(`services:
  web:
    image: %s
    environment: {FLAG: "${FLAG:-0}"}
    ports: ["127.0.0.1:%d:9000"]
    configs: [settings]
    secrets: [key]
configs: {settings: {content: "db: ${DB_URL:-}"}}
secrets: {key: {environment: KEY}}
`, w.image, w.port))
	all := "FLAG=1\nDB_URL=db.example\nKEY=" + secret + "\n"
	w.write(".env", all) // as if a shell had the two below
	w.up2("up", "-d")
	before := w.state()
	for env, want := range map[string]string{
		"FLAG=1\nKEY=" + secret + "\n":                       "configs: settings is not what container",
		"FLAG=1\nDB_URL=db.example\n":                        "secrets: key is the variable KEY, which no env file has",
		"FLAG=1\nDB_URL=other.example\nKEY=" + secret + "\n": "configs: settings is not what container",
	} {
		w.write(".env", env)
		if _, err := w.byTool(nil).Look(t.Context(), op); err == nil || !strings.Contains(err.Error(), want) || !strings.Contains(err.Error(), "try: ") {
			t.Errorf("%v, want word of %q", err, want)
		}
	}
	w.write(".env", all)
	if got := w.state(); got != before {
		t.Errorf("changed:\n%s", diff(got, before))
	}
	w.off(w.byTool(nil), op)
	w.has("/settings", "/run/secrets/key")
}

func TestWhoSharesANamespaceKeepsTheToolAway(t *testing.T) {
	w := newHarness(t).second()
	w.write("compose.yaml", strings.Replace(w.hookedFile(), "configs: {settings:", "  proxy: {image: "+w.image+", network_mode: \"service:web\"}\nconfigs: {settings:", 1))
	w.write(".env", "FLAG=1\nPASSWORD="+secret+"\n")
	w.up2("up", "-d")
	if _, err := w.byTool(nil).Look(t.Context(), op); err == nil || !strings.Contains(err.Error(), "shares a namespace") {
		t.Errorf("%v", err)
	}
}

func TestWhatTheToolMadeIsNotPutBackFromFilesThatCannotBeRead(t *testing.T) {
	w := hooked(t)
	before, file := w.kept(), w.read("compose.yaml")
	a := w.byTool(nil)
	snap := w.off(a, op)
	for broken, want := range map[string]string{
		"services: [": "cannot be read now",
		strings.Replace(file, "    configs:", "    stop_signal: SIGINT\n    configs:", 1): "config --hash",
	} {
		w.write("compose.yaml", broken)
		off := w.state()
		if err := a.Undo(t.Context(), op, snap); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v, want word of %q", err, want)
		}
		if got := w.state(); got != off {
			t.Errorf("changed:\n%s", diff(got, off))
		}
	}
	w.write("compose.yaml", file)
	if err := a.Undo(t.Context(), op, snap); err != nil {
		t.Fatal(err)
	}
	w.has("/settings", "/run/secrets/key")
	if got := w.kept(); got != before {
		t.Errorf("not as it was:\n%s", diff(got, before))
	}
}

func TestAnUndoByTheToolAsksNothingOfAServiceThatWasDown(t *testing.T) {
	w := newHarness(t).second()
	w.write("compose.yaml", strings.Replace(w.hookedFile(), "environment: {", "environment: {BREAKS_WHEN_OFF: crash, ", 1))
	w.write(".env", "FLAG=1\nPASSWORD="+secret+"\n")
	w.up2("up", "-d")
	if err := w.api.ContainerKill(t.Context(), w.one().ID, "KILL"); err != nil {
		t.Fatal(err)
	}
	a := w.byTool(nil)
	look, err := a.Look(t.Context(), op)
	if err != nil {
		t.Fatal(err)
	}
	down := w.state()
	if err := a.Undo(t.Context(), op, look.Snapshot); err != nil || w.state() != down {
		t.Errorf("nothing was begun, and its undo changed: %v\n%s", err, diff(w.state(), down))
	}
	if err := a.Apply(t.Context(), op, look.Snapshot); err == nil {
		t.Fatal("it works")
	}
	if err := a.Undo(t.Context(), op, look.Snapshot); err != nil {
		t.Errorf("the next step of the ladder is not reached: %v", err)
	}
	if got := w.read(".env"); !strings.HasPrefix(got, "FLAG=0") {
		t.Errorf(".env: %s", got)
	}
}

func TestWhatDependsOnTheServiceIsRestartedWithIt(t *testing.T) {
	t.Parallel()
	for _, key := range []string{"", "    post_start: [{command: [/service, check]}]\n"} {
		t.Run("with "+strings.TrimSpace(key), func(t *testing.T) {
			w := newHarness(t).second()
			w.write("compose.yaml", fmt.Sprintf(`services:
  web:
    image: %[1]s
    environment: {FLAG: "${FLAG:-0}"}
    ports: ["127.0.0.1:%[2]d:9000"]
%[3]s  proxy:
    image: %[1]s
    depends_on: {web: {condition: service_started, restart: true}}
  other:
    image: %[1]s
    depends_on: [web]
`, w.image, w.port, key))
			w.write(".env", "FLAG=1\n")
			w.up2("up", "-d")
			started := func(service string) string { return w.containers(service)[0].State.StartedAt }
			proxy, other := started("proxy"), started("other")
			w.off(w.byTool(nil), op)
			if started("proxy") == proxy {
				t.Error("what is to be restarted with it was not")
			}
			if started("other") != other {
				t.Error("another service was restarted")
			}
		})
	}
}

func TestTwoProjectsOfOneFolderAreToldApart(t *testing.T) {
	w := newHarness(t).second()
	w.target.Probe = alerts.Probe{Timeout: w.target.Probe.Timeout}
	other := w.project + "staging"
	file := fmt.Sprintf("services:\n  web:\n    image: %s\n    environment: {FLAG: \"${FLAG:-0}\"}\n", w.image)
	w.write("compose.yaml", file)
	w.write(".env.prod", "FLAG=1\n")
	w.write(".env.staging", "FLAG=2\n")
	w.up2("--env-file", ".env.prod", "up", "-d")
	w.up2("-p", other, "--env-file", ".env.staging", "up", "-d")
	t.Cleanup(func() { w.up2("-p", other, "--env-file", ".env.staging", "down") })
	_, err := w.byTool(nil).Look(t.Context(), op)
	for _, word := range []string{w.project, other, "try: target: {compose: {project: "} {
		if err == nil || !strings.Contains(err.Error(), word) {
			t.Errorf("%v\nsays nothing of %q", err, word)
		}
	}
	w.target.Compose.Project = w.project
	w.off(w.byTool(nil), op)
	if got := w.read(".env.prod"); got != "FLAG=0\n" {
		t.Errorf(".env.prod: %s", got)
	}
	if got := w.read(".env.staging"); got != "FLAG=2\n" {
		t.Errorf(".env.staging: %s", got)
	}
	left := (&harness{T: t, api: w.api, project: other}).containers("web")
	if len(left) != 1 || left[0].Variable("FLAG").Value != "2" || left[0].Label(fleet.LabelOperation) != "" {
		t.Errorf("the other project was touched")
	}
}

// twoFolders are two folders of one project, each with FLAG=1.
func twoFolders(t *testing.T) (one, other *harness) {
	one = newHarness(t).second()
	one.target.Probe = alerts.Probe{Timeout: one.target.Probe.Timeout}
	other = &harness{T: t, api: one.api, project: one.project, dir: t.TempDir(), tool: one.tool}
	for _, h := range []*harness{other, one} {
		h.write("compose.yaml", fmt.Sprintf("services:\n  web:\n    image: %s\n    environment: {FLAG: \"${FLAG:-0}\"}\n", one.image))
		h.write(".env", "FLAG=1\n")
	}
	return one, other
}

// The hint's command brings all of them to one folder, and then the flag is turned off.
func TestReplicasOfTwoFoldersAreBroughtToOne(t *testing.T) {
	w, older := twoFolders(t)
	older.up2("up", "-d", "--scale", "web=2")
	w.up2("up", "-d", "--scale", "web=3")
	_, err := w.byTool(nil).Look(t.Context(), op)
	if err == nil || !strings.Contains(err.Error(), w.dir+", "+older.dir) {
		t.Fatalf("three containers of two folders: %v", err)
	}
	_, try := hint.Of(err)
	command, _, _ := strings.Cut(try, " in "+w.dir)
	w.up2(strings.Fields(command)[1:]...)
	w.off(w.byTool(nil), op)
	all := w.containers("web")
	for _, r := range all {
		if w.flagOf(r) != "0" || len(all) != 3 {
			t.Errorf("%d containers, and %s has FLAG=%s", len(all), r.ShortName(), w.flagOf(r))
		}
	}
}

// A deploy in the next release's folder while a flag is off: the step is refused, and what it did is put back.
func TestAReplicaOfAnotherFolderInMidOperationLeavesTheUndo(t *testing.T) {
	for name, back := range map[string]func(context.Context, remediation.Action, string, json.RawMessage) error{
		"undo": func(ctx context.Context, a remediation.Action, op string, before json.RawMessage) error {
			return a.Undo(ctx, op, before)
		},
		"restore": func(ctx context.Context, a remediation.Action, op string, before json.RawMessage) error {
			return a.(remediation.Restorer).Restore(ctx, op, before)
		},
	} {
		t.Run(name, func(t *testing.T) {
			w, newer := twoFolders(t)
			w.up2("up", "-d", "--scale", "web=2")
			a := w.byTool(nil)
			before := w.off(a, op)
			newer.up2("up", "-d", "--no-recreate", "--scale", "web=3")
			if _, err := a.Look(t.Context(), op); err != nil {
				t.Errorf("a look as the operation that has begun: %v", err)
			}
			if err := a.Verify(t.Context(), op); err == nil || !strings.Contains(err.Error(), "runs with FLAG=\"1\"") {
				t.Errorf("verified while one serves the flag: %v", err)
			}
			if err := a.Apply(t.Context(), op, before); err == nil || !strings.Contains(err.Error(), w.dir+", "+newer.dir) {
				t.Errorf("applied to one folder of two: %v", err)
			}
			if err := back(t.Context(), a, op, before); err != nil {
				t.Fatal(err)
			}
			all := w.containers("web")
			for _, r := range all {
				if w.flagOf(r) != "1" || len(all) != 3 {
					t.Errorf("%d containers, and %s has FLAG=%s", len(all), r.ShortName(), w.flagOf(r))
				}
			}
			if got := w.read(".env"); got != "FLAG=1\n" {
				t.Errorf(".env: %s", got)
			}
			if _, err := a.Look(t.Context(), "inc-2/1-flag_off@1700000001"); !remediation.IsUnfit(err) {
				t.Errorf("another operation may begin: %v", err)
			}
		})
	}
}

func TestEachShownKeySurvivesACopy(t *testing.T) {
	w := newHarness(t).second()
	raw, err := os.ReadFile("compose/testdata/shown-keys.yaml")
	if err != nil {
		t.Fatal(err)
	}
	var samples map[string]any
	if err := yaml.Unmarshal(raw, &samples); err != nil {
		t.Fatal(err)
	}
	text := strings.NewReplacer("IMAGE", w.image, "NAME", w.project, "\n", "\n  ").Replace("services:\n" + string(raw))
	w.write("compose.yaml", text+"\nvolumes: {named: {}}\nnetworks: {front: {}, back: {}}\n")
	w.write("app.env", "OTHER=x\n")
	w.write("app.labels", "from=file\n")
	w.up2("create")
	c := w.client(nil)
	for service := range samples {
		target := alerts.ComposeTarget{ProjectDir: w.dir, Service: service}
		f, err := c.Survey(t.Context(), target)
		if err != nil {
			t.Fatal(err)
		}
		d, err := f.Definition()
		if err != nil {
			t.Fatal(err)
		}
		if hidden := d.Hidden(); len(hidden) > 0 {
			t.Errorf("%s has %v", service, hidden)
		}
		if len(f.Replicas) != 1 {
			t.Fatalf("%d containers of %s", len(f.Replicas), service)
		}
		was := f.Replicas[0]
		if err := c.create(t.Context(), op, was.ShortName(), was, change{restart: was.HostConfig.RestartPolicy, keeps: d.Sets}); err != nil {
			t.Errorf("%s: %v", service, err)
			continue
		}
		if f, err = c.Survey(t.Context(), target); err != nil {
			t.Fatal(err)
		}
		dup := f.Replicas[slices.IndexFunc(f.Replicas, func(r *fleet.Replica) bool { return r.Label(fleet.LabelReplaces) == was.ID })]
		if err := c.connect(t.Context(), was, dup); err != nil {
			t.Fatal(err)
		}
		in, err := w.api.ContainerInspect(t.Context(), dup.ID)
		if err != nil {
			t.Fatal(err)
		}
		in.Name = was.Name
		if got, want := w.essence(&fleet.Replica{InspectResponse: in}), w.essence(was); got != want {
			t.Errorf("%s changed:\n%s", service, diff(got, want))
		}
	}
}
