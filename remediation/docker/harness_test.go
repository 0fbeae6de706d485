package docker

import (
	"archive/tar"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	buildapi "github.com/docker/docker/api/types/build"
	"github.com/docker/docker/api/types/container"
	"github.com/docker/docker/api/types/filters"
	"github.com/docker/docker/api/types/image"
	"github.com/docker/docker/api/types/mount"
	"github.com/docker/docker/api/types/network"
	"github.com/docker/docker/client"
	"github.com/docker/go-connections/nat"

	"github.com/locotoki/backout/alerts"
	"github.com/locotoki/backout/remediation"
	"github.com/locotoki/backout/remediation/crashtest"
	"github.com/locotoki/backout/remediation/docker/compose"
	"github.com/locotoki/backout/remediation/docker/fleet"
)

// runID tells this run's containers, networks and images from all others.
var runID = fmt.Sprintf("backouttest%d", os.Getpid())

// testImage is built once a run, and what is made from it once it is asked for;
// TestMain removes all of them.
var testImage = sync.OnceValues(buildImage)

func TestMain(m *testing.M) {
	// Most of a test's time is waiting: four a core keep it busy.
	flag.Parse()
	if err := flag.Set("test.parallel", fmt.Sprint(4*runtime.GOMAXPROCS(0))); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(2)
	}
	code := m.Run()
	if err := removeImages(); err != nil {
		fmt.Fprintln(os.Stderr, "cleaning up:", err)
	}
	os.Exit(code)
}

// removeImages removes the images of this run: all are labelled with it.
func removeImages() error {
	api, err := engine()
	if err != nil {
		return err
	}
	ctx := context.Background()
	all, err := api.ImageList(ctx, image.ListOptions{All: true, Filters: filters.NewArgs(filters.Arg("label", "run="+runID))})
	for _, img := range all {
		if _, rerr := api.ImageRemove(ctx, img.ID, image.RemoveOptions{Force: true, PruneChildren: true}); rerr != nil && !movedOn(rerr) {
			err = errors.Join(err, rerr)
		}
	}
	return errors.Join(err, api.Close())
}

func engine() (*client.Client, error) {
	host := os.Getenv("DOCKER_HOST")
	if host == "" {
		return nil, fmt.Errorf("no Docker engine: DOCKER_HOST is not set; try: make test")
	}
	return client.NewClientWithOpts(client.WithHost(host), client.WithAPIVersionNegotiation())
}

func buildImage() (tag string, err error) {
	dir, err := os.MkdirTemp("", "backout-image-")
	if err != nil {
		return "", err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	bin := filepath.Join(dir, "service")
	cmd := exec.Command("go", "build", "-o", bin, "./testdata/service")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("build the test service: %w\n%s", err, out)
	}
	service, err := os.ReadFile(bin)
	if err != nil {
		return "", err
	}
	return build(runID+":latest", `FROM scratch
COPY service /service
ENV MODE=image FLAG_OF_IMAGE=1
LABEL maker=image run=`+runID+`
VOLUME /data
WORKDIR /data
EXPOSE 9000
ENTRYPOINT ["/service"]
`, map[string][]byte{"service": service})
}

// build builds an image from a Dockerfile and files next to it.
func build(tag, dockerfile string, files map[string][]byte) (string, error) {
	api, err := engine()
	if err != nil {
		return "", err
	}
	var archive bytes.Buffer
	w := tar.NewWriter(&archive)
	for name, data := range files {
		if err := addFile(w, name, data); err != nil {
			return "", err
		}
	}
	if err := errors.Join(addFile(w, "Dockerfile", []byte(dockerfile)), w.Close()); err != nil {
		return "", err
	}
	res, err := api.ImageBuild(context.Background(), &archive, buildapi.ImageBuildOptions{Tags: []string{tag}, Remove: true, ForceRemove: true})
	if err != nil {
		return "", fmt.Errorf("build image %s: %w", tag, err)
	}
	log, err := io.ReadAll(res.Body)
	if err := errors.Join(err, res.Body.Close(), api.Close()); err != nil {
		return "", fmt.Errorf("build image %s: %w", tag, err)
	}
	if !bytes.Contains(log, []byte("Successfully tagged")) {
		return "", fmt.Errorf("build image %s:\n%s", tag, log)
	}
	return tag, nil
}

func addFile(w *tar.Writer, name string, data []byte) error {
	if err := w.WriteHeader(&tar.Header{Name: name, Mode: 0o755, Size: int64(len(data))}); err != nil {
		return err
	}
	_, err := w.Write(data)
	return err
}

var harnesses atomic.Int32

// generous is how long something may take on a machine that does much else.
const generous = 3 * time.Minute

// harness is one compose project on the real engine.
type harness struct {
	*testing.T
	api     *client.Client
	dir     string
	project string
	image   string // what start and webFile name
	port    int
	target  alerts.Target
	flag    alerts.Flag
	changes atomic.Int32 // requests that change something
	environ []string
	tool    string // the compose that a human runs
}

const secret = "hunter2-of-another-variable"

func newHarness(t *testing.T) *harness {
	t.Helper()
	t.Parallel() // most of a test is waiting for the engine
	api, err := engine()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := testImage(); err != nil {
		t.Fatal(err)
	}
	dir, err := filepath.EvalSymlinks(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	n := int(harnesses.Add(1))
	w := &harness{T: t, api: api, dir: dir, project: fmt.Sprintf("%sw%d", runID, n), port: freePort(t, n), image: runID + ":latest", flag: alerts.Flag{Name: "FLAG", Off: "0"}, tool: "docker-compose"}
	if crashtest.Sampled() {
		w.tool = "docker-compose2" // a start of the first generation takes 0.7 s of CPU
	}
	base := fmt.Sprintf("http://127.0.0.1:%d", w.port)
	w.target = alerts.Target{
		Compose: alerts.ComposeTarget{ProjectDir: dir, Service: "web"},
		Probe:   alerts.Probe{Health: base + "/health/", Flags: base + "/flags"},
	}
	if err := w.target.Probe.Timeout.Set("1m"); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(w.clean)
	return w
}

// freePort finds a port for the n-th harness: no other's, and below those that the kernel
// gives to connections, so that it stays free while no container has it.
func freePort(t *testing.T, n int) int {
	t.Helper()
	const first, ports, harnesses = 16000, 4000, 1000
	for i := range ports / harnesses {
		port := first + (os.Getpid()+n+i*harnesses)%ports
		if l, err := net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", port)); err == nil {
			if err := l.Close(); err != nil {
				t.Fatal(err)
			}
			return port
		}
	}
	t.Fatalf("no free port for harness %d", n)
	return 0
}

// clean takes away everything of the project.
func (w *harness) clean() {
	ctx := context.Background()
	mine := filters.NewArgs(filters.Arg("label", compose.LabelProject+"="+w.project))
	list, err := w.api.ContainerList(ctx, container.ListOptions{All: true, Filters: mine})
	if err != nil {
		w.Error(err)
	}
	for _, c := range list {
		if err := w.api.ContainerRemove(ctx, c.ID, container.RemoveOptions{Force: true, RemoveVolumes: true}); err != nil && !movedOn(err) {
			w.Error(err)
		}
		for _, m := range c.Mounts {
			if m.Name != "" {
				if err := w.api.VolumeRemove(ctx, m.Name, true); err != nil && !movedOn(err) {
					w.Error(err)
				}
			}
		}
	}
	images, err := w.api.ImageList(ctx, image.ListOptions{Filters: filters.NewArgs(filters.Arg("reference", w.project))})
	if err != nil {
		w.Error(err)
	}
	for _, img := range images {
		for _, t := range img.RepoTags {
			if _, err := w.api.ImageRemove(ctx, t, image.RemoveOptions{Force: true}); err != nil && !movedOn(err) {
				w.Error(err)
			}
		}
	}
	nets, err := w.api.NetworkList(ctx, network.ListOptions{Filters: mine})
	if err != nil {
		w.Error(err)
	}
	for _, n := range nets {
		if err := w.api.NetworkRemove(ctx, n.ID); err != nil {
			w.Error(err)
		}
	}
	if err := w.api.Close(); err != nil {
		w.Error(err)
	}
}

func (w *harness) write(name, text string) {
	w.Helper()
	if err := os.WriteFile(filepath.Join(w.dir, name), []byte(text), 0o600); err != nil {
		w.Fatal(err)
	}
}

func (w *harness) read(name string) string {
	w.Helper()
	b, err := os.ReadFile(filepath.Join(w.dir, name))
	if os.IsNotExist(err) {
		return "(no " + name + ")"
	}
	if err != nil {
		w.Fatal(err)
	}
	return string(b)
}

// first makes Debian's docker-compose 1.29 what a human runs, in the short run too.
func (w *harness) first() *harness {
	w.tool = "docker-compose"
	return w
}

// compose runs a human's compose in the project, from a shell with extra variables.
func (w *harness) compose(shell []string, args ...string) string {
	w.Helper()
	out, err := w.runCompose(shell, args...)
	if err != nil {
		w.Fatalf("%s %v: %v (try: make test, which fetches it)\n%s", w.tool, args, err, out)
	}
	return out
}

// tryCompose is compose where its failure is not ours.
func (w *harness) tryCompose(args ...string) {
	w.Helper()
	if out, err := w.runCompose(nil, args...); err != nil {
		w.Logf("%s %v: %v\n%s", w.tool, args, err, out)
	}
}

func (w *harness) runCompose(shell []string, args ...string) (string, error) {
	cmd := exec.Command(w.tool, args...)
	cmd.Dir = w.dir
	cmd.Env = append(os.Environ(), append([]string{"COMPOSE_PROJECT_NAME=" + w.project}, shell...)...)
	out, err := cmd.CombinedOutput()
	return string(out), err
}

// transport is the client's way to the engine, watched and broken by tests.
type transport struct {
	next    http.RoundTripper
	fault   *fault
	harness *harness
}

func (t *transport) RoundTrip(req *http.Request) (*http.Response, error) {
	if req.Method == http.MethodGet || req.Method == http.MethodHead {
		return t.next.RoundTrip(req)
	}
	t.harness.changes.Add(1)
	if t.fault == nil {
		return t.next.RoundTrip(req)
	}
	return t.fault.roundTrip(req, t.next)
}

func (w *harness) client(f *fault) *Client {
	w.Helper()
	c, err := newClient(Options{
		Host: os.Getenv("DOCKER_HOST"), Projects: []string{w.dir}, Environ: w.environ, Logger: slog.New(slog.DiscardHandler),
	}, func(rt http.RoundTripper) http.RoundTripper { return &transport{rt, f, w} })
	if err != nil {
		w.Fatal(err)
	}
	c.cli.Patience = generous
	w.Cleanup(func() {
		if err := c.Close(); err != nil {
			w.Error(err)
		}
	})
	return c
}

func (w *harness) action() remediation.Action { return w.actionWith(nil) }

// actionWith is the action, whose calls meet f.
func (w *harness) actionWith(f *fault) remediation.Action {
	w.Helper()
	a, err := w.client(f).FlagOff(w.target, w.flag)
	if err != nil {
		w.Fatal(err)
	}
	return a
}

// containers returns the service's containers as inspected, by name.
func (w *harness) containers(service string) []*fleet.Replica {
	w.Helper()
	list, err := w.api.ContainerList(w.Context(), container.ListOptions{All: true, Filters: filters.NewArgs(
		filters.Arg("label", compose.LabelProject+"="+w.project), filters.Arg("label", compose.LabelService+"="+service))})
	if err != nil {
		w.Fatal(err)
	}
	var all []*fleet.Replica
	for _, s := range list {
		in, err := w.api.ContainerInspect(w.Context(), s.ID)
		if err != nil {
			w.Fatal(err)
		}
		all = append(all, &fleet.Replica{InspectResponse: in})
	}
	slices.SortFunc(all, func(a, b *fleet.Replica) int { return strings.Compare(a.Name, b.Name) })
	return all
}

func (w *harness) one() *fleet.Replica {
	w.Helper()
	all := w.containers("web")
	if len(all) != 1 {
		w.Fatalf("%d containers, want one: %s", len(all), w.state())
	}
	return all[0]
}

func (w *harness) flagOf(r *fleet.Replica) string { return r.Variable("FLAG").Value }

// webFile is a compose file of one service with everything that has to survive.
func (w *harness) webFile() string {
	return fmt.Sprintf(`version: "3.8"
services:
  web:
    image: %s
    restart: unless-stopped
    environment:
      FLAG: "${FLAG:-0}"
      PASSWORD: "${PASSWORD}"
    ports: ["127.0.0.1:%d:9000"]
`, w.image, w.port)
}

// start creates the container that compose would create, through the API, which
// is quicker.
func (w *harness) start(value string, change ...func(*container.Config, *container.HostConfig)) {
	w.Helper()
	config := &container.Config{
		Image: w.image, Env: []string{"FLAG=" + value, "PASSWORD=" + secret},
		Labels: map[string]string{
			compose.LabelProject: w.project, compose.LabelService: "web", compose.LabelWorkingDir: w.dir, compose.LabelConfigFiles: "docker-compose.yml",
			compose.LabelOneOff: "False", compose.LabelVersion: "1.29.2", compose.LabelConfigHash: "old", "com.docker.compose.container-number": "1",
		},
	}
	host := &container.HostConfig{
		RestartPolicy: container.RestartPolicy{Name: "on-failure", MaximumRetryCount: 3},
		PortBindings:  nat.PortMap{"9000/tcp": {{HostIP: "127.0.0.1", HostPort: fmt.Sprint(w.port)}}},
		NetworkMode:   container.NetworkMode(w.project + "_front"),
	}
	for _, c := range change {
		c(config, host)
	}
	endpoints := &network.NetworkingConfig{EndpointsConfig: map[string]*network.EndpointSettings{}}
	for _, n := range []string{"_front", "_back"} {
		if _, err := w.api.NetworkInspect(w.Context(), w.project+n, network.InspectOptions{}); movedOn(err) {
			_, err := w.api.NetworkCreate(w.Context(), w.project+n, network.CreateOptions{Labels: map[string]string{compose.LabelProject: w.project}})
			if err != nil {
				w.Fatal(err)
			}
		}
	}
	if host.NetworkMode.IsUserDefined() {
		endpoints.EndpointsConfig[w.project+"_front"] = &network.EndpointSettings{Aliases: []string{"web", "front"}}
	}
	created, err := w.api.ContainerCreate(w.Context(), config, host, endpoints, nil, w.project+"_web_1")
	if err != nil {
		w.Fatal(err)
	}
	if host.NetworkMode.IsUserDefined() {
		if err := w.api.NetworkConnect(w.Context(), w.project+"_back", created.ID, &network.EndpointSettings{Aliases: []string{"web"}}); err != nil {
			w.Fatal(err)
		}
	}
	if err := w.api.ContainerStart(w.Context(), created.ID, container.StartOptions{}); err != nil {
		w.Fatal(err)
	}
}

// takeDown removes the service's containers, as docker-compose rm -f does.
func (w *harness) takeDown() {
	w.Helper()
	for _, r := range w.containers("web") {
		if err := w.api.ContainerRemove(w.Context(), r.ID, container.RemoveOptions{Force: true}); err != nil {
			w.Fatal(err)
		}
		for _, m := range r.Mounts {
			if m.Name != "" {
				if err := w.api.VolumeRemove(w.Context(), m.Name, true); err != nil && !movedOn(err) {
					w.Fatal(err)
				}
			}
		}
	}
}

// state is everything that must be as it was: the files, and of each container
// all that inspect shows but what the engine assigns anew.
func (w *harness) state() string {
	w.Helper()
	var b strings.Builder
	for _, name := range []string{".env", "docker-compose.override.yml"} {
		fmt.Fprintf(&b, "--- %s\n%s\n", name, w.read(name))
	}
	fmt.Fprintf(&b, "--- tags\n%s\n", strings.Join(w.tags(), "\n"))
	for _, r := range w.containers("web") {
		fmt.Fprintf(&b, "--- %s %s\n%s\n", r.ShortName(), r.State.Status, w.essence(r))
	}
	return b.String()
}

// tags returns the names that images have in the harness's own repository.
func (w *harness) tags() []string {
	w.Helper()
	list, err := w.api.ImageList(w.Context(), image.ListOptions{Filters: filters.NewArgs(filters.Arg("reference", w.project))})
	if err != nil {
		w.Fatal(err)
	}
	var all []string
	for _, img := range list {
		for _, t := range img.RepoTags {
			all = append(all, t+" "+img.ID)
		}
	}
	slices.Sort(all)
	return all
}

// essence is what inspect shows of a container, without what a recreation by
// compose changes too, and with anonymous volumes written as the named ones that
// they become.
func (w *harness) essence(r *fleet.Replica) string {
	w.Helper()
	config, host := *r.Config, *r.HostConfig
	config.Hostname, config.Volumes = "", nil
	config.Env = slices.Sorted(slices.Values(config.Env))
	// The first generation of compose notes there what it recreated.
	config.Env = slices.DeleteFunc(config.Env, func(kv string) bool { return strings.HasPrefix(kv, "affinity:container=") })
	config.Labels = maps.Clone(config.Labels)
	maps.DeleteFunc(config.Labels, func(k, _ string) bool {
		return slices.Contains([]string{fleet.LabelOperation, fleet.LabelReplaces, fleet.LabelName, fleet.LabelImage, compose.LabelConfigHash}, k)
	})
	host.Binds = nil
	host.Mounts = slices.DeleteFunc(slices.Clone(host.Mounts), func(m mount.Mount) bool {
		return m.Type == mount.TypeVolume && (m.Source == "" || len(m.Source) == 64)
	})
	if len(host.Mounts) == 0 {
		host.Mounts = nil
	}
	var mounts []string
	for _, m := range r.Mounts {
		mounts = append(mounts, fmt.Sprintf("%s %s %s rw=%t", m.Type, m.Name+m.Source, m.Destination, m.RW))
	}
	slices.Sort(mounts)
	networks := endpointsOf(r)
	out, err := json.MarshalIndent(map[string]any{
		"name": r.ShortName(), "image": r.Image, "config": config, "host": host, "mounts": mounts, "networks": networks,
		"running": r.State.Running, "restarts": r.RestartCount, "path": r.Path, "args": r.Args,
	}, "", " ")
	if err != nil {
		w.Fatal(err)
	}
	return string(out)
}

// diff is the lines that differ, as far as that is easy to see.
func diff(got, want string) string {
	g, w := strings.Split(got, "\n"), strings.Split(want, "\n")
	var out []string
	for _, l := range g {
		if !slices.Contains(w, l) {
			out = append(out, "+ "+l)
		}
	}
	for _, l := range w {
		if !slices.Contains(g, l) {
			out = append(out, "- "+l)
		}
	}
	return strings.Join(out, "\n")
}

// eventually polls a condition.
func (w *harness) eventually(what string, ok func() bool) {
	w.Helper()
	deadline := time.Now().Add(generous)
	for !ok() {
		if time.Now().After(deadline) {
			w.Fatalf("not within %s: %s", generous, what)
		}
		fleet.Wait(w.Context(), 20*time.Millisecond)
	}
}
