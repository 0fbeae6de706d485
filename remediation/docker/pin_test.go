package docker

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/docker/docker/api/types/container"

	"github.com/locotoki/backout/alerts"
	"github.com/locotoki/backout/remediation"
	"github.com/locotoki/backout/remediation/action/actiontest"
)

// pinHarness is a service whose version is in .env, without its v.
func pinHarness(t *testing.T) *harness {
	w := imageHarness(t, versionOne)
	w.tag("1.0.0", versionOne)
	w.untag("v1.0.0")
	w.untag("latest")
	w.tag("2.0.0", versionTwo)
	w.tag("3.0.0", versionThree)
	w.image = w.project + ":2.0.0"
	w.write("docker-compose.yml", strings.Replace(w.webFile(), "image: "+w.image, "image: \""+w.project+":${TAG:?}\"", 1))
	w.write(".env", "# versions\nTAG=2.0.0 # now\nFLAG=1\nPASSWORD="+secret+"\n")
	return w
}

func (w *harness) pin(f *fault) remediation.Action {
	w.Helper()
	a, err := w.client(f).ImagePin(w.target, "TAG", "v1.0.0")
	if err != nil {
		w.Fatal(err)
	}
	return a
}

func TestImagePinConforms(t *testing.T) {
	t.Parallel()
	actiontest.RunSample(t, func(t *testing.T) *actiontest.Fixture {
		w := pinHarness(t)
		w.start("1", w.noted)
		return &actiontest.Fixture{
			Risk:    alerts.Disruptive,
			Action:  w.pin(nil),
			State:   func(*testing.T) string { return w.state() },
			Effects: func(*testing.T) int { return int(w.changes.Load()) },
			Meddle: func(*testing.T) {
				w.takeDown()
				w.write(".env", "TAG=3.0.0\nPASSWORD="+secret+"\n")
				w.image = w.project + ":3.0.0"
				w.start("0.5", w.noted)
			},
			Cut: func(_ *testing.T, n int, f actiontest.Fault) (remediation.Action, func() bool) {
				broken := &fault{n: n, kind: f}
				return w.pin(broken), func() bool { return broken.hit }
			},
			Secrets: []string{secret},
		}
	})
}

func TestAPinnedVersionGoesBackByItsVariable(t *testing.T) {
	w := pinHarness(t)
	w.start("1")
	state, a := w.state(), w.pin(nil)
	before := w.back(a, op)
	if got := w.read(".env"); got != "# versions\nTAG=1.0.0 # now\nFLAG=1\nPASSWORD="+secret+"\n" {
		t.Errorf(".env is %q", got)
	}
	if r := w.serves(versionOne); r.Config.Image != w.project+":1.0.0" {
		t.Errorf("made from %s", r.Config.Image)
	}
	for _, p := range a.(remediation.SelfChecking).Checks() {
		if f := p.Run(t.Context()); f.Status != remediation.Pass {
			t.Errorf("%s: %+v", p.ID, f)
		}
	}
	if err := a.Undo(t.Context(), op, before); err != nil {
		t.Fatal(err)
	}
	if got := w.state(); got != state {
		t.Errorf("not as it was:\n%s", diff(got, state))
	}
	// One that ended is started with the version before.
	if err := w.api.ContainerKill(t.Context(), w.one().ID, "KILL"); err != nil {
		t.Fatal(err)
	}
	w.back(a, "inc-8/1-image_retag@1")
	w.serves(versionOne)
}

func TestAVariableThatDoesNotDecideIsRefused(t *testing.T) {
	w := pinHarness(t)
	w.start("1")
	plain := w.read("docker-compose.yml")
	image := fmt.Sprintf("image: \"%s:${TAG:?}\"", w.project)
	for name, c := range map[string]struct{ file, want string }{
		"a literal":       {strings.Replace(plain, image, "image: "+w.image, 1), "does not decide which image"},
		"in a label too":  {strings.Replace(plain, image, image+"\n    labels: {version: \"$TAG\"}", 1), "is in labels too"},
		"pulled anew":     {strings.Replace(plain, image, image+"\n    pull_policy: always", 1), "pull_policy: always"},
		"another service": {plain + "  worker:\n    image: \"" + w.project + ":${TAG:?}\"\n", "TAG decides on worker too"},
		"another's image": {strings.Replace(plain, image, "image: \"other:${TAG:?}\"", 1), "there is no image other:1.0.0"},
	} {
		w.write("docker-compose.yml", c.file)
		if _, err := w.pin(nil).Look(t.Context(), op); err == nil || !strings.Contains(err.Error(), c.want) || !strings.Contains(err.Error(), "try: ") {
			t.Errorf("%s: %v, want word of %q", name, err, c.want)
		}
	}
	// Another variable decides: it is named.
	w.write("docker-compose.yml", strings.Replace(plain, "${TAG:?}", "${SHOP_VERSION:-2.0.0}", 1))
	if _, err := w.pin(nil).Look(t.Context(), op); err == nil || !strings.Contains(err.Error(), "TAG does not decide which image it runs: SHOP_VERSION does") || !strings.Contains(err.Error(), "try: variable: SHOP_VERSION for image_retag in the playbook") {
		t.Errorf("another variable: %v", err)
	}
	// Nothing sets it, whether the compose file asks for it or not.
	for _, image := range []string{"${TAG}", "${TAG:?}"} {
		w.write("docker-compose.yml", strings.Replace(plain, "${TAG:?}", image, 1))
		for missing, write := range map[string]func(){
			"a file that is missing": func() {
				if err := os.Remove(filepath.Join(w.dir, ".env")); err != nil {
					t.Fatal(err)
				}
			},
			"not in ": func() { w.write(".env", "PASSWORD="+secret+"\n") },
		} {
			write()
			if _, err := w.pin(nil).Look(t.Context(), op); err == nil || !strings.Contains(err.Error(), "TAG is not set anywhere: ") || !strings.Contains(err.Error(), missing) || !strings.Contains(err.Error(), "try: TAG=VALUE in ") {
				t.Errorf("%s, %s: %v", image, missing, err)
			}
			w.write(".env", "PASSWORD="+secret+"\n")
		}
	}
	// A shell's value: what runs is not what the file names.
	w.write("docker-compose.yml", plain)
	w.write(".env", "TAG=3.0.0\nPASSWORD="+secret+"\n")
	if _, err := w.pin(nil).Look(t.Context(), op); err == nil || !strings.Contains(err.Error(), "a shell's TAG overrules") {
		t.Errorf("a shell's: %v", err)
	}
	if w.changes.Load() > 0 || w.one().State.Status != container.StateRunning {
		t.Error("changed")
	}
}
