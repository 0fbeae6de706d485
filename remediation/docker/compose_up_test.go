package docker

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/docker/docker/api/types/network"
	"go.yaml.in/yaml/v3"

	"github.com/locotoki/backout/alerts"
	"github.com/locotoki/backout/remediation"
	"github.com/locotoki/backout/remediation/action/actiontest"
	"github.com/locotoki/backout/remediation/crashtest"
	"github.com/locotoki/backout/remediation/docker/projectfile"
)

// subnet finds a free one on the engine, for a static address.
func (w *harness) subnet() string {
	w.Helper()
	for i := range 200 {
		s := fmt.Sprintf("10.253.%d", (os.Getpid()+i)%250)
		made, err := w.api.NetworkCreate(w.Context(), w.project+"_try", network.CreateOptions{
			IPAM: &network.IPAM{Config: []network.IPAMConfig{{Subnet: s + ".0/24"}}},
		})
		if err != nil {
			continue
		}
		if err := w.api.NetworkRemove(w.Context(), made.ID); err != nil {
			w.Fatal(err)
		}
		return s
	}
	w.Fatal("no free subnet in 10.253.0.0/16")
	return ""
}

// withTools lets backout find the compose that a human runs, the first generation.
func (w *harness) withTools() *harness {
	w.environ = os.Environ()
	return w.first()
}

// off switches the flag off as the engine does, and returns the snapshot.
func (w *harness) off(a remediation.Action, op string) []byte {
	w.Helper()
	look, err := a.Look(w.Context(), op)
	if err != nil {
		w.Fatal(err)
	}
	if look.Position == remediation.Wanted {
		w.Fatalf("already as wanted:\n%s", w.state())
	}
	if err := a.Apply(w.Context(), op, look.Snapshot); err != nil {
		w.Fatal(err)
	}
	if err := a.Verify(w.Context(), op); err != nil {
		w.Fatal(err)
	}
	if after, err := a.Look(w.Context(), op); err != nil || after.Position != remediation.Wanted {
		w.Fatalf("after apply: %s, %v", after.Position, err)
	}
	return look.Snapshot
}

func TestEverythingButTheFlagSurvives(t *testing.T) {
	w := newHarness(t).withTools()
	net := w.subnet()
	w.write("docker-compose.yml", fmt.Sprintf(`version: "2.4"
services:
  web:
    image: %[1]s
    container_name: %[2]s-the-web
    hostname: webhost
    restart: always
    environment:
      FLAG: "${FLAG:-0}"
      MODE: own
    command: ["serve", "--quietly"]
    user: "0:0"
    stop_signal: SIGTERM
    stop_grace_period: 3s
    mem_limit: 64m
    cap_drop: [CAP_NET_RAW]
    labels: {team: analytics, backout.enabled: "true"}
    ports: ["127.0.0.1:%[3]d:9000"]
    healthcheck: {test: ["CMD", "/service", "check"], interval: 300ms, retries: 5}
    volumes: ["/anonymous", "named:/named:ro", "./bound:/bound"]
    logging: {driver: json-file, options: {max-size: 1m}}
    networks:
      front: {aliases: [api, social]}
      back: {ipv4_address: %[4]s.77, aliases: [db-side]}
volumes: {named: {}}
networks:
  front: {}
  back: {ipam: {config: [{subnet: %[4]s.0/24}]}}
`, runID+":latest", w.project, w.port, net))
	w.write(".env", "FLAG=1\n")
	w.compose(nil, "up", "-d")
	before := w.one()
	a := w.action()
	w.off(a, op)
	after := w.one()

	if after.ID == before.ID || w.flagOf(after) != "0" {
		t.Fatalf("container %s runs with FLAG=%s", after.ID, w.flagOf(after))
	}
	want := strings.Replace(w.essence(before), `"FLAG=1"`, `"FLAG=0"`, 1)
	if got := w.essence(after); got != want {
		t.Errorf("changed, but for the flag:\n%s", diff(got, want))
	}
	ip := after.NetworkSettings.Networks[w.project+"_back"].IPAddress
	if ip != net+".77" {
		t.Errorf("static address is %s", ip)
	}
	if after.Label("backout.enabled") != "true" || after.Label("maker") != "image" {
		t.Errorf("labels: %v", after.Config.Labels)
	}

	// The operator's own next step neither turns it on nor recreates it once more.
	w.compose(nil, "up", "-d")
	if later := w.one(); later.ID != after.ID || w.flagOf(later) != "0" {
		t.Errorf("docker-compose up -d made %s of %s, FLAG=%s", later.ID, after.ID, w.flagOf(later))
	}
}

func TestWithoutTheComposeToolALaterUpLeavesTheFlagOff(t *testing.T) {
	w := newHarness(t)
	w.write("docker-compose.yml", w.webFile())
	w.write(".env", "FLAG=1\nPASSWORD="+secret+"\n")
	w.compose(nil, "up", "-d")
	w.off(w.action(), op)
	w.compose(nil, "up", "-d")
	if r := w.one(); w.flagOf(r) != "0" || !r.Running() {
		t.Errorf("FLAG=%s, %s", w.flagOf(r), r.State.Status)
	}
}

func TestAllReplicasAreSwitchedAndPutBack(t *testing.T) {
	w := newHarness(t).withTools()
	w.target.Probe = alerts.Probe{Timeout: w.target.Probe.Timeout}
	w.write("docker-compose.yml", fmt.Sprintf("version: \"3.8\"\nservices:\n  web:\n    image: %s\n    environment: [FLAG]\n", runID+":latest"))
	w.write(".env", "FLAG=1\n")
	w.compose(nil, "up", "-d", "--scale", "web=3")
	var before []string
	for _, r := range w.containers("web") {
		before = append(before, w.essence(r))
	}
	state := w.state()
	a := w.action()
	snap := w.off(a, op)
	all := w.containers("web")
	if len(all) != 3 {
		t.Fatalf("%d replicas, want 3", len(all))
	}
	for i, r := range all {
		if got, want := w.essence(r), strings.Replace(before[i], `"FLAG=1"`, `"FLAG=0"`, 1); got != want {
			t.Errorf("replica %d changed:\n%s", i, diff(got, want))
		}
	}
	w.compose(nil, "up", "-d", "--scale", "web=3")
	for i, r := range w.containers("web") {
		if r.ID != all[i].ID || w.flagOf(r) != "0" {
			t.Errorf("replica %d was recreated by up -d, FLAG=%s", i, w.flagOf(r))
		}
	}
	if err := a.Undo(t.Context(), op, snap); err != nil {
		t.Fatal(err)
	}
	if got := w.state(); got != state {
		t.Errorf("not as it was after undo:\n%s", diff(got, state))
	}
}

func TestALiteralInTheComposeFileIsOverridden(t *testing.T) {
	w := newHarness(t).withTools()
	w.write("docker-compose.yml", strings.Replace(w.webFile(), `"${FLAG:-0}"`, `"1"`, 1))
	w.write(".env", "PASSWORD="+secret+"\n")
	w.compose(nil, "up", "-d")
	state := w.state()
	a := w.action()
	snap := w.off(a, op)
	w.compose(nil, "up", "-d")
	if got := w.flagOf(w.one()); got != "0" {
		t.Errorf("after docker-compose up -d FLAG=%s; override:\n%s", got, w.read("docker-compose.override.yml"))
	}
	if err := a.Undo(t.Context(), op, snap); err != nil {
		t.Fatal(err)
	}
	// compose noted the override file in a label; it is gone again for the next up.
	if got := strings.ReplaceAll(w.state(), ",docker-compose.override.yml", ""); got != state {
		t.Errorf("not as it was after undo:\n%s", diff(got, state))
	}
}

func TestAShellThatSetTheFlagIsOverridden(t *testing.T) {
	w := newHarness(t).withTools()
	w.write("docker-compose.yml", w.webFile())
	w.write(".env", "FLAG=0\nPASSWORD="+secret+"\n")
	canary := []string{"FLAG=0.01"}
	w.compose(canary, "up", "-d")
	if got := w.flagOf(w.one()); got != "0.01" {
		t.Fatalf("the shell's value is not there: FLAG=%s", got)
	}
	w.off(w.action(), op)
	w.compose(canary, "up", "-d")
	if got := w.flagOf(w.one()); got != "0" {
		t.Errorf("after docker-compose up -d from the same shell FLAG=%s", got)
	}
}

func TestALiteralInFilesNamedByHandIsRefused(t *testing.T) {
	w := newHarness(t)
	w.write("production.yml", strings.Replace(w.webFile(), `"${FLAG:-0}"`, `"1"`, 1))
	w.write(".env", "PASSWORD="+secret+"\n")
	w.compose(nil, "-f", "production.yml", "up", "-d")
	state := w.state()
	if _, err := w.action().Look(t.Context(), op); err == nil || !strings.Contains(err.Error(), "given explicitly") || !strings.Contains(err.Error(), "try:") {
		t.Errorf("look: %v", err)
	}
	if got := w.state(); got != state {
		t.Errorf("changed:\n%s", diff(got, state))
	}
}

func TestFilesNamedByHandThatReadTheFlagFromEnvAreFine(t *testing.T) {
	w := newHarness(t).withTools()
	w.write("production.yml", w.webFile())
	w.write("production.env", "FLAG=1\nPASSWORD="+secret+"\n")
	up := []string{"--env-file", "production.env", "-f", "production.yml", "up", "-d"}
	w.compose(nil, up...)
	w.off(w.action(), op)
	id := w.one().ID
	w.compose(nil, up...)
	if r := w.one(); r.ID != id || w.flagOf(r) != "0" || !strings.HasPrefix(w.read("production.env"), "FLAG=0\n") {
		t.Errorf("after up -d container %s (was %s), FLAG=%s", r.ID, id, w.flagOf(r))
	}
}

func TestAPersonsUpInTheMiddleEndsWithTheFlagOff(t *testing.T) {
	w := newHarness(t).first()
	w.write("docker-compose.yml", w.webFile())
	w.write(".env", "FLAG=1\nPASSWORD="+secret+"\n")
	w.compose(nil, "up", "-d")
	whole := w.action()
	points := []int{0, 2, 5, 7}
	rand.Shuffle(len(points), func(i, j int) { points[i], points[j] = points[j], points[i] })
	for _, n := range points[:crashtest.Rounds(len(points))] { // with -short one of them, another each time
		t.Run(fmt.Sprintf("after call %d", n), func(t *testing.T) {
			op := fmt.Sprintf("inc-%d/1-flag_off@1700000000", n)
			before := w.look(whole, op, remediation.Untouched)
			cutErr := w.actionWith(&fault{n: n, kind: actiontest.After}).Apply(t.Context(), op, before)
			verb := []string{"up", "-d"}
			if n == 2 || n == 7 {
				verb = []string{"up", "-d", "--force-recreate"}
			}
			// compose may trip over what it finds; what counts is what we make of it.
			w.tryCompose(verb...)
			if err := whole.Apply(t.Context(), op, before); err != nil {
				t.Fatalf("apply (first %v): %v", cutErr, err)
			}
			r := w.one()
			if w.flagOf(r) != "0" || !r.Running() || r.ShortName() != w.project+"_web_1" {
				t.Fatalf("%s", w.state())
			}
			if err := whole.Verify(t.Context(), op); err != nil {
				t.Error(err)
			}
			if err := whole.Undo(t.Context(), op, before); err != nil {
				t.Fatal(err)
			}
			if r := w.one(); w.flagOf(r) != "1" || !r.Running() || r.ShortName() != w.project+"_web_1" {
				t.Errorf("undone: %s", w.state())
			}
		})
	}
}

func TestAPersonsDownInTheMiddleStaysDown(t *testing.T) {
	w := newHarness(t).first()
	w.write("docker-compose.yml", w.webFile())
	w.write(".env", "FLAG=1\nPASSWORD="+secret+"\n")
	w.compose(nil, "up", "-d")
	whole := w.action()
	look, err := whole.Look(t.Context(), op)
	if err != nil {
		t.Fatal(err)
	}
	a, err := w.client(&fault{n: 3, kind: actiontest.After}).FlagOff(w.target, w.flag)
	if err != nil {
		t.Fatal(err)
	}
	if err := a.Apply(t.Context(), op, look.Snapshot); err == nil {
		t.Fatal("not cut off")
	}
	w.compose(nil, "down")
	if err := whole.Apply(t.Context(), op, look.Snapshot); err != nil {
		t.Fatal(err)
	}
	if err := whole.Verify(t.Context(), op); err == nil || !strings.Contains(err.Error(), "no container of service web") {
		t.Fatalf("a service of which nothing is there was verified: %v", err)
	}
	if err := whole.Undo(t.Context(), op, look.Snapshot); err != nil {
		t.Fatal(err)
	}
	w.compose(nil, "up", "-d")
	if r := w.one(); w.flagOf(r) != "0" {
		t.Errorf("FLAG=%s after the next up -d", w.flagOf(r))
	}
}

func TestOnlyAllowedProjectsAreTouched(t *testing.T) {
	w := plainHarness(t)
	outside := t.TempDir()
	link := filepath.Join(w.dir, "link")
	if err := os.Symlink(outside, link); err != nil {
		t.Fatal(err)
	}
	for _, dir := range []string{outside, link, filepath.Join(w.dir, ".."), w.dir + "x"} {
		target := w.target
		target.Compose.ProjectDir = dir
		a, err := w.client(nil).FlagOff(target, w.flag)
		if err != nil {
			t.Fatal(err)
		}
		if look, err := a.Look(t.Context(), op); err == nil {
			t.Errorf("%s: %+v", dir, look)
		}
	}
	// Nor through a .env that points out of it.
	w.write("elsewhere", "")
	if err := os.Rename(filepath.Join(w.dir, ".env"), filepath.Join(outside, "env")); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(filepath.Join(outside, "env"), filepath.Join(w.dir, ".env")); err != nil {
		t.Fatal(err)
	}
	if _, err := w.action().Look(t.Context(), op); err == nil || !strings.Contains(err.Error(), "outside the allowed") {
		t.Errorf("a .env that is a link to the outside: %v", err)
	}
}

func TestALinkedEnvInsideTheProjectStaysALink(t *testing.T) {
	w := plainHarness(t)
	if err := os.Rename(filepath.Join(w.dir, ".env"), filepath.Join(w.dir, "settings")); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("settings", filepath.Join(w.dir, ".env")); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(filepath.Join(w.dir, "settings"), 0o640); err != nil {
		t.Fatal(err)
	}
	if err := w.action().Apply(t.Context(), op, nil); err != nil {
		t.Fatal(err)
	}
	link, err := os.Lstat(filepath.Join(w.dir, ".env"))
	if err != nil || link.Mode()&os.ModeSymlink == 0 {
		t.Errorf(".env is not a link any more: %v, %v", link, err)
	}
	file, err := os.Stat(filepath.Join(w.dir, "settings"))
	if err != nil || file.Mode().Perm() != 0o640 || !strings.Contains(w.read("settings"), "FLAG=0 # on") {
		t.Errorf("settings: %v, %v\n%s", file, err, w.read("settings"))
	}
}

// What .env means is what the operator's tool makes of it: it reads an env_file
// as it reads .env, and many at once.
func TestTheEnvFormatIsDockerComposes(t *testing.T) {
	w := newHarness(t).first()
	compose := "version: \"3.8\"\nservices:\n"
	var all [][]byte
	for _, file := range []string{
		"FLAG=1\nFLAG=0.5\n", "FLAG='1' # c\n", "FLAG=\"1\"\n", "export FLAG=1\r\nOTHER=x\r\n", "FLAG=1#x\n", "FLAG=1 # x", "OTHER=\"a\nFLAG=7\nb\"\nFLAG=1\n",
		"OTHER='x\nFLAG=1\n", "FLAG = 1 \n", "\xef\xbb\xbfFLAG=1\n", "OTHER=x", "FLAG=\n", "OTHER=it's\nFLAG=1\nX='\n", "FLAG= # x\n", "OTHER='a' b\nFLAG=2\n",
	} {
		set, err := projectfile.SetEnv([]byte(file), "FLAG", "0")
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, []byte(file), set)
	}
	for i, text := range all {
		name := fmt.Sprintf("s%d", i)
		w.write(name+".env", string(text))
		compose += fmt.Sprintf("  %s: {image: x, env_file: %s.env}\n", name, name)
	}
	w.write("docker-compose.yml", compose)
	var config struct {
		Services map[string]struct{ Environment map[string]string }
	}
	_, out, ok := strings.Cut(w.compose(nil, "config"), "services:\n") // behind its warnings
	if !ok {
		t.Fatal("docker-compose config lists no services")
	}
	if err := yaml.Unmarshal([]byte("services:\n"+out), &config); err != nil {
		t.Fatal(err)
	}
	for i, text := range all {
		ours := projectfile.EnvValues(text)
		if theirs := config.Services[fmt.Sprintf("s%d", i)].Environment; !maps.Equal(ours, theirs) {
			t.Errorf("%q: we read %q, docker-compose %q", text, ours, theirs)
		}
	}
}
