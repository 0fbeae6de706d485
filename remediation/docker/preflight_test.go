package docker

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/docker/docker/api/types/container"
	"github.com/docker/docker/api/types/filters"

	"github.com/locotoki/backout/remediation"
	"github.com/locotoki/backout/remediation/docker/compose"
)

// startedAside counts the containers that proofs of this harness have left.
func (w *harness) startedAside() int {
	w.Helper()
	list, err := w.api.ContainerList(w.Context(), container.ListOptions{All: true, Filters: filters.NewArgs(filters.Arg("label", labelPreflight+"="+asideKey(w.target.Compose)))})
	if err != nil {
		w.Fatal(err)
	}
	return len(list)
}

// prove runs the proofs of an action and returns what each came to. The service is
// the same afterwards, and nothing is left.
func (w *harness) prove(a remediation.Action) map[string]remediation.Result {
	w.Helper()
	before := w.state()
	out := map[string]remediation.Result{}
	for _, p := range a.(remediation.SelfChecking).Checks() {
		out[p.ID] = p.Run(w.Context())
	}
	if after := w.state(); after != before {
		w.Errorf("proofs changed the service:\n%s", diff(before, after))
	}
	if n := w.startedAside(); n > 0 {
		w.Errorf("%d containers are left", n)
	}
	for id, f := range out {
		if strings.Contains(f.Evidence+f.Next, secret) {
			w.Errorf("%s tells a secret: %+v", id, f)
		}
	}
	return out
}

// wants fails the test unless a proof came to result, and said word.
func (w *harness) wants(found map[string]remediation.Result, id string, result remediation.Status, word string) {
	w.Helper()
	f, ok := found[id]
	if !ok || f.Status != result || !strings.Contains(f.Evidence, word) {
		w.Errorf("%s came to %+v; want %s, with %q", id, f, result, word)
	}
	if f.Status != remediation.Pass && f.Next == "" {
		w.Errorf("%s does not say what to do next: %+v", id, f)
	}
}

func with(name, value string) func(*container.Config, *container.HostConfig) {
	return func(c *container.Config, _ *container.HostConfig) { c.Env = append(c.Env, name+"="+value) }
}

func TestAServiceThatCanBeRolledBackPassesItsChecks(t *testing.T) {
	w := imageHarness(t, versionOne)
	w.start("1")
	found := w.prove(w.retag(nil))
	w.wants(found, "image/previous", remediation.Pass, w.project+":v1.0.0")
	w.wants(found, "image/runs", remediation.Pass, "works, and was removed")
	found = w.prove(w.action())
	w.wants(found, "flag/FLAG/known", remediation.Pass, "lists it as 1")
	w.wants(found, "flag/FLAG/lasts", remediation.Pass, ".env")
	w.wants(found, "flag/FLAG/off", remediation.Pass, "serves FLAG as off")
}

func TestEachDefectOfAFlagIsFound(t *testing.T) {
	t.Parallel()
	for name, d := range map[string]struct {
		plant  func(w *harness)
		item   string
		result remediation.Status
		word   string
	}{
		"the off value is not taken":        {func(w *harness) { w.start("1", with("BREAKS_WHEN_OFF", "deaf")) }, "off", remediation.Fail, "serves FLAG=1, want 0"},
		"the service ends without it":       {func(w *harness) { w.start("1", with("BREAKS_WHEN_OFF", "crash")) }, "off", remediation.Fail, "does not stay up"},
		"the service does not know it":      {func(w *harness) { w.flag.Name = "FLAGG"; w.start("1") }, "known", remediation.Fail, "does not list FLAGG"},
		"nothing tells whether it knows it": {func(w *harness) { w.target.Probe.Flags = ""; w.start("1") }, "known", remediation.CannotTell, "it is unknown whether its code reads it"},
		"no service is there":               {func(w *harness) { w.write(".env", "FLAG=1\n") }, "off", remediation.CannotTell, "no container"},
		"the compose file overrules .env": {func(w *harness) {
			w.write("docker-compose.yml", strings.Replace(w.webFile(), "${FLAG:-0}", "1", 1))
			w.start("1")
		}, "lasts", remediation.Fail, "overrules .env"},
		"the compose file does not take it from .env": {func(w *harness) {
			w.write("docker-compose.yml", strings.Replace(w.webFile(), `FLAG: "${FLAG:-0}"`, "OTHER: x", 1))
			w.start("1")
		}, "lasts", remediation.Fail, "takes FLAG from .env"},
		"a shell overruled .env": {func(w *harness) { w.start("0.5") }, "lasts", remediation.Fail, "a shell's variable overrules .env"},
		"nothing sets it":        {func(w *harness) { w.start("0.5"); w.write(".env", "TAG=1\n") }, "lasts", remediation.Fail, "FLAG is not set in "},
		".env is elsewhere": {func(w *harness) {
			w.start("1")
			outside := filepath.Join(w.TempDir(), "env")
			if err := os.Rename(filepath.Join(w.dir, ".env"), outside); err != nil {
				w.Fatal(err)
			}
			if err := os.Symlink(outside, filepath.Join(w.dir, ".env")); err != nil {
				w.Fatal(err)
			}
		}, "lasts", remediation.Fail, "outside the allowed project folders"},
	} {
		t.Run(name, func(t *testing.T) {
			w := imageHarness(t, versionOne)
			w.target.Probe.Timeout = 0
			if err := w.target.Probe.Timeout.Set("10s"); err != nil {
				t.Fatal(err)
			}
			d.plant(w)
			w.wants(w.prove(w.action()), "flag/"+w.flag.Name+"/"+d.item, d.result, d.word)
		})
	}
}

func TestEachDefectOfThePreviousImageIsFound(t *testing.T) {
	t.Parallel()
	for name, d := range map[string]struct {
		plant  func(w *harness)
		item   string
		result remediation.Status
		word   string
	}{
		"it is gone":                     {func(w *harness) { w.untag("v1.0.0") }, "previous", remediation.Fail, "there is no image"},
		"it is gone, and nothing starts": {func(w *harness) { w.untag("v1.0.0") }, "runs", remediation.Fail, "there is no image"},
		"it names another version":       {func(w *harness) { w.tag("v1.0.0", versionThree) }, "runs", remediation.Fail, "version"},
		"the service does not run the tag that is moved": {func(w *harness) {
			w.write("docker-compose.yml", strings.Replace(w.webFile(), w.image, w.image+":v2.0.0", 1))
		}, "previous", remediation.Fail, "moving that tag would not change"},
	} {
		t.Run(name, func(t *testing.T) {
			w := imageHarness(t, versionOne)
			w.target.Probe.Timeout = 0
			if err := w.target.Probe.Timeout.Set("10s"); err != nil {
				t.Fatal(err)
			}
			w.start("1")
			d.plant(w)
			w.wants(w.prove(w.retag(nil)), "image/"+d.item, d.result, d.word)
		})
	}
}

// What is started aside has no name, label, port or right to write of the service's.
func TestWhatIsStartedAsideTakesNothingFromTheService(t *testing.T) {
	w := imageHarness(t, versionOne)
	dir := w.TempDir()
	w.start("1", func(_ *container.Config, h *container.HostConfig) { h.Binds = append(h.Binds, dir+":/shared:rw") })
	a := aside{c: w.client(nil), target: w.target}
	like, bp, err := a.blueprint(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	id, err := a.create(t.Context(), bp)
	if err != nil {
		t.Fatal(err)
	}
	in, err := w.api.ContainerInspect(t.Context(), id)
	if err != nil {
		t.Fatal(err)
	}
	if in.Config.Labels[compose.LabelProject] != "" || in.Config.Labels[labelPreflight] == "" || in.Name == like.Name {
		t.Errorf("it is taken for the service's own: %s %v", in.Name, in.Config.Labels)
	}
	if len(in.HostConfig.PortBindings) > 0 || !in.HostConfig.RestartPolicy.IsNone() || !slices.Contains(in.HostConfig.Binds, dir+":/shared:ro") {
		t.Errorf("its settings are %+v", in.HostConfig)
	}
	for name, e := range in.NetworkSettings.Networks {
		if slices.Contains(e.Aliases, "web") || slices.Contains(e.Aliases, "front") {
			t.Errorf("in network %s it answers to %v", name, e.Aliases)
		}
	}
	if len(in.NetworkSettings.Networks) != len(like.NetworkSettings.Networks) {
		t.Errorf("it is in %d networks, and the service in %d", len(in.NetworkSettings.Networks), len(like.NetworkSettings.Networks))
	}

	// The process was killed here; the next proof, or the next start, clears it away.
	if n := w.startedAside(); n != 1 {
		t.Fatalf("%d were started aside", n)
	}
	if err := w.retag(nil).(remediation.Sweeper).Sweep(t.Context()); err != nil {
		t.Error(err)
	}
	if n := w.startedAside(); n != 0 {
		t.Errorf("%d are left", n)
	}
	if _, err := os.Stat(dir); err != nil {
		t.Error(err)
	}
}
