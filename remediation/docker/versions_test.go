package docker

import (
	"context"
	"strings"
	"sync"
	"testing"

	"github.com/docker/docker/api/types/container"
	"github.com/docker/docker/api/types/image"

	"github.com/locotoki/backout/alerts"
	"github.com/locotoki/backout/remediation"
	"github.com/locotoki/backout/remediation/docker/compose"
	"github.com/locotoki/backout/remediation/docker/fleet"
)

// The versions of the test service. What an image has of its own is named after its
// version, so that it shows where one is carried over onto the other. A healthcheck
// costs the engine more than the service does: only what a test is about has one, and
// only a verdict that a test waits for comes often.
var (
	versionOne   = version("one", linesOfOne)
	versionTwo   = version("two", linesOfTwo)
	checkedOne   = version("checked-one", linesOfOne+"HEALTHCHECK --interval=1s --retries=2 CMD [\"/service\", \"check\"]\n")
	checkedTwo   = version("checked-two", linesOfTwo+"HEALTHCHECK --interval=900ms --retries=3 CMD [\"/service\", \"check\", \"two\"]\n")
	versionThree = version("three", "ENV VERSION=v3.0.0\n")
	crashingOne  = version("crash", "ENV VERSION=v1.0.0 BREAKS=crash\n")
	sickOne      = version("sick", "ENV VERSION=v1.0.0 BREAKS=sick\nHEALTHCHECK --interval=200ms --retries=2 CMD [\"/service\", \"check\"]\n")
	otherOne     = version("other", "ENV VERSION=v0.9.0\n")
)

const (
	linesOfOne = `ENV VERSION=v1.0.0 MODE=one ONLY_ONE=1
LABEL generation=one only-one=yes
CMD ["serve", "one"]
STOPSIGNAL SIGTERM
`
	linesOfTwo = `ENV VERSION=v2.0.0 MODE=two ONLY_TWO=1
LABEL generation=two only-two=yes
CMD ["serve", "two"]
USER 0:0
WORKDIR /two
EXPOSE 9002
STOPSIGNAL SIGINT
`
)

// version returns what builds an image from the test image, once a run, and gives
// its id.
func version(name, lines string) func() (string, error) {
	return sync.OnceValues(func() (string, error) {
		base, err := testImage()
		if err != nil {
			return "", err
		}
		tag, err := build(runID+":"+name, "FROM "+base+"\n"+lines, nil)
		if err != nil {
			return "", err
		}
		api, err := engine()
		if err != nil {
			return "", err
		}
		defer api.Close()
		in, err := api.ImageInspect(context.Background(), tag)
		return in.ID, err
	})
}

// imageHarness is a project whose service runs v2.0.0 as latest of a repository of its
// own; previous is what its v1.0.0 is.
func imageHarness(t *testing.T, previous func() (string, error)) *harness {
	t.Helper()
	w := newHarness(t)
	w.image = w.project
	w.tag("v1.0.0", previous)
	w.tag("v2.0.0", versionTwo)
	w.tag("latest", versionTwo)
	base := strings.TrimSuffix(w.target.Probe.Health, "/health/")
	w.target.Probe.Version = base + "/version"
	w.target.Probe.Smoke = []alerts.SmokeCheck{
		{Name: "flags are served", URL: base + "/flags", Contains: `"FLAG"`},
		{Name: "nothing else is", URL: base + "/nothing", Status: 404},
	}
	w.write("docker-compose.yml", w.webFile())
	w.write(".env", "FLAG=1\nPASSWORD="+secret+"\n")
	return w
}

// tag gives an image a tag in the harness's repository, and returns its id.
func (w *harness) tag(tag string, img func() (string, error)) string {
	w.Helper()
	id, err := img()
	if err == nil {
		err = w.api.ImageTag(w.Context(), id, w.project+":"+tag)
	}
	if err != nil {
		w.Fatal(err)
	}
	return id
}

// noted labels a container as compose's second generation does.
func (w *harness) noted(c *container.Config, _ *container.HostConfig) {
	c.Labels[compose.LabelImage] = w.idOf(versionTwo)
}

// untag takes a tag of the harness's repository away.
func (w *harness) untag(tag string) {
	w.Helper()
	if _, err := w.api.ImageRemove(w.Context(), w.project+":"+tag, image.RemoveOptions{}); err != nil {
		w.Fatal(err)
	}
}

func (w *harness) idOf(img func() (string, error)) string {
	w.Helper()
	id, err := img()
	if err != nil {
		w.Fatal(err)
	}
	return id
}

// retag is the action, whose calls meet f.
func (w *harness) retag(f *fault) remediation.Action {
	w.Helper()
	a, err := w.client(f).ImageRetag(w.target, "", "v1.0.0")
	if err != nil {
		w.Fatal(err)
	}
	return a
}

// look is Look, at a position.
func (w *harness) look(a remediation.Action, op string, want remediation.Position) []byte {
	w.Helper()
	look, err := a.Look(w.Context(), op)
	if err != nil {
		w.Fatal(err)
	}
	if look.Position != want {
		w.Fatalf("position is %s, want %s:\n%s", look.Position, want, w.state())
	}
	return look.Snapshot
}

// serves fails unless the one container runs an image under its own name.
func (w *harness) serves(img func() (string, error)) *fleet.Replica {
	w.Helper()
	r := w.one()
	if r.Image != w.idOf(img) || !r.Running() || strings.ReplaceAll(r.ShortName(), "-", "_") != w.project+"_web_1" {
		w.Fatalf("it runs %s, want %s; labels %q:\n%s", r.Image, w.idOf(img), r.Config.Labels, w.state())
	}
	return r
}
