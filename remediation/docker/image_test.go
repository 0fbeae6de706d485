package docker

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/docker/docker/api/types/container"
	"github.com/docker/docker/api/types/filters"
	"github.com/docker/docker/api/types/image"

	"github.com/locotoki/backout/alerts"
	"github.com/locotoki/backout/remediation"
	"github.com/locotoki/backout/remediation/action/actiontest"
	"github.com/locotoki/backout/remediation/docker/compose"
	"github.com/locotoki/backout/remediation/docker/fleet"
)

// meant tells an error that leaves no doubt about what was done.
func meant(err error) bool {
	return err != nil && !errors.Is(err, context.DeadlineExceeded) && !strings.Contains(fmt.Sprintf("%T", err), "inDoubt")
}

func TestAPreviousImageThatDoesNotWorkIsUndoneToTheSameContainer(t *testing.T) {
	t.Parallel()
	always := container.RestartPolicy{Name: container.RestartPolicyAlways}
	for _, c := range []struct {
		name, want string
		previous   func() (string, error)
		restart    container.RestartPolicy
		smoke      alerts.SmokeCheck
	}{
		{name: "it ends", want: "exit status 3", previous: crashingOne},
		{name: "it restarts", want: "restarted", previous: crashingOne, restart: always},
		{name: "it stays unhealthy", want: "unhealthy", previous: sickOne, restart: always},
		{name: "it names another version", want: `reports version "v0.9.0", want v1.0.0`, previous: otherOne, restart: always},
		{name: "it fails a smoke check", want: "smoke: trends are listed: ", previous: versionOne, restart: always, smoke: alerts.SmokeCheck{Name: "trends are listed"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			w := imageHarness(t, c.previous)
			if c.smoke.Name != "" {
				c.smoke.URL = strings.TrimSuffix(w.target.Probe.Health, "/health/") + "/trends"
				w.target.Probe.Smoke = append(w.target.Probe.Smoke, c.smoke)
			}
			if err := w.target.Probe.Timeout.Set("10s"); err != nil {
				t.Fatal(err)
			}
			w.start("1", func(_ *container.Config, h *container.HostConfig) { h.RestartPolicy = c.restart })
			id, state := w.one().ID, w.state()
			a := w.retag(nil)
			before := w.look(a, op, remediation.Untouched)
			if err := a.Apply(t.Context(), op, before); !meant(err) || !strings.Contains(err.Error(), c.want) {
				t.Fatalf("apply: %v, want word of %q, and no doubt", err, c.want)
			}
			if err := a.Undo(t.Context(), op, before); err != nil {
				t.Fatal(err)
			}
			if got := w.one().ID; got != id || w.state() != state {
				t.Errorf("container %s, was %s; state:\n%s", got, id, diff(w.state(), state))
			}
		})
	}
}

func TestWhatWouldNotGoBackIsRefusedBeforeAnythingIsChanged(t *testing.T) {
	w := imageHarness(t, versionOne)
	w.start("1")
	plain := w.webFile()
	names := func(image string) string { return strings.Replace(plain, "image: "+w.image, image, 1) }
	for _, c := range []struct {
		name, want, file, image string
		before                  func()
	}{
		{name: "pinned", want: "moving that tag would not change", file: names("image: " + w.project + ":v2.0.0")},
		{name: "digest", want: "moving that tag would not change", file: names("image: " + w.project + "@" + w.idOf(versionTwo))},
		{name: "another image", want: "was made from", file: names("image: other")},
		{name: "another repository", want: "and not social-intel", file: plain, image: "social-intel"},
		{name: "a variable of the shell", want: "needs the variable TAG", file: names(`image: "` + w.project + `:${TAG:?}"`)},
		{name: "no name", want: "is not an image's name", file: names("image: \"a b?c\"")},
		{name: "pulled each time", want: "pull_policy: always", file: names("image: " + w.project + "\n    pull_policy: always")},
		{name: "not in the files", want: "is in none of", file: "version: \"3.8\"\nservices: {db: {image: x}}\n"},
		{name: "paused", want: "docker unpause", file: plain, before: func() {
			if err := w.api.ContainerPause(t.Context(), w.one().ID); err != nil {
				t.Fatal(err)
			}
		}},
		{name: "no previous image", want: "there is no image " + w.project + ":v1.0.0", file: plain, before: func() {
			if err := w.api.ContainerUnpause(t.Context(), w.one().ID); err != nil {
				t.Fatal(err)
			}
			w.untag("v1.0.0")
		}},
		{name: "taken down", want: "no container of service web", file: names("build: ."), before: w.takeDown},
	} {
		w.write("docker-compose.yml", c.file)
		if c.before != nil {
			c.before()
		}
		state, changes := w.state(), w.changes.Load()
		a, err := w.client(nil).ImageRetag(w.target, c.image, "v1.0.0")
		if err != nil {
			t.Fatal(err)
		}
		if _, err := a.Look(t.Context(), op); err == nil || !strings.Contains(err.Error(), c.want) || !strings.Contains(err.Error(), "try: ") && !slices.Contains([]string{"not in the files", "no name"}, c.name) {
			t.Errorf("%s: look: %v, want word of %q and what to try", c.name, err, c.want)
		}
		if err := a.Apply(t.Context(), op, nil); !meant(err) {
			t.Errorf("%s: apply: %v", c.name, err)
		}
		if got := w.state(); got != state || w.changes.Load() != changes {
			t.Errorf("%s: changed:\n%s", c.name, diff(got, state))
		}
	}
	for _, previous := range []string{"", "latest", "a:b", "a/b", "sha256:0"} {
		if _, err := w.client(nil).ImageRetag(w.target, "", previous); err == nil {
			t.Errorf("previous %q was bound", previous)
		}
	}
}

func TestATargetThatChangedInBetweenIsLeftAsItIs(t *testing.T) {
	w := imageHarness(t, versionOne)
	w.start("1")
	a := w.retag(nil)
	for i, c := range []struct {
		name, want string
		change     func()
	}{
		{"latest moved", "someone has moved", func() { w.tag("latest", versionThree) }},
		{"latest taken away", "someone has moved", func() { w.untag("latest") }},
		{"the previous version is another image", "v1.0.0 was image", func() { w.tag("v1.0.0", otherOne) }},
		{"recreated", "someone has recreated", func() { w.takeDown(); w.start("1") }},
		{"the service names another image", "names", func() {
			w.write("docker-compose.yml", strings.Replace(w.webFile(), "image: "+w.image, "image: "+w.project+":v2.0.0", 1))
		}},
	} {
		op := fmt.Sprintf("inc-%d/1-image_retag@1", i)
		before := w.look(a, op, remediation.Untouched)
		c.change()
		state, changes := w.state(), w.changes.Load()
		if err := a.Apply(t.Context(), op, before); !meant(err) || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: apply: %v, want word of %q, and no doubt", c.name, err, c.want)
		}
		if err := a.Undo(t.Context(), op, before); err != nil {
			t.Errorf("%s: undo: %v", c.name, err)
		}
		if got := w.state(); got != state || w.changes.Load() != changes {
			t.Errorf("%s: changed:\n%s", c.name, diff(got, state))
		}
		w.tag("latest", versionTwo)
		w.tag("v1.0.0", versionOne)
	}
	w.write("docker-compose.yml", w.webFile())

	// Someone was quicker: there is nothing to do, and nothing to undo.
	before := w.look(a, op, remediation.Untouched)
	w.takeDown()
	w.tag("latest", versionOne)
	w.start("1")
	state, changes := w.state(), w.changes.Load()
	if err := a.Apply(t.Context(), op, before); err != nil {
		t.Error(err)
	}
	if err := a.Undo(t.Context(), op, before); !meant(err) || !strings.Contains(err.Error(), "try: docker tag") {
		t.Errorf("undo of what somebody else did: %v", err)
	}
	if got := w.state(); got != state || w.changes.Load() != changes {
		t.Errorf("changed:\n%s", diff(got, state))
	}
}

func TestSomebodysDeploymentInTheMiddleIsNotTakenBack(t *testing.T) {
	w := imageHarness(t, versionOne)
	w.start("1")
	id, whole := w.one().ID, w.retag(nil)
	before := w.look(whole, op, remediation.Untouched)
	// The copy is made, its original still runs.
	if err := w.retag(&fault{n: 2, kind: actiontest.After}).Apply(t.Context(), op, before); err == nil {
		t.Fatal("not cut off")
	}
	three := w.tag("latest", versionThree)
	if err := whole.Apply(t.Context(), op, before); !meant(err) || !strings.Contains(err.Error(), "someone has moved") {
		t.Errorf("apply: %v", err)
	}
	if err := whole.Undo(t.Context(), op, before); err != nil {
		t.Fatal(err)
	}
	if r := w.one(); r.ID != id || !r.Running() {
		t.Errorf("container %s, was %s:\n%s", r.ID, id, w.state())
	}
	if tags := strings.Join(w.tags(), "\n"); !strings.Contains(tags, ":latest "+three) {
		t.Errorf("tags:\n%s", tags)
	}
	w.look(whole, op, remediation.Untouched)
}

func TestASetAsideReplicaThatSomebodyStartsIsReplacedAsItWas(t *testing.T) {
	w := imageHarness(t, versionOne)
	w.start("1")
	o, whole := w.one(), w.retag(nil)
	before := w.look(whole, op, remediation.Untouched)
	aside := func() bool {
		return slices.ContainsFunc(w.containers("web"), func(r *fleet.Replica) bool { return r.ShortName() == asideName(o.ShortName(), op) })
	}
	for n := 0; !aside(); n++ {
		if n > 10 {
			t.Fatalf("never set aside:\n%s", w.state())
		}
		if err := w.retag(&fault{n: 0, kind: actiontest.After}).Apply(t.Context(), op, before); err == nil {
			t.Fatal("not cut off")
		}
	}
	// As docker-compose up -d does where it takes the original for what its files say.
	for _, r := range w.containers("web") {
		if r.OwnedBy(op) {
			if err := w.api.ContainerRemove(t.Context(), r.ID, container.RemoveOptions{Force: true}); err != nil {
				t.Fatal(err)
			}
		}
	}
	if err := w.api.ContainerStart(t.Context(), o.ID, container.StartOptions{}); err != nil {
		t.Fatal(err)
	}
	if err := whole.Apply(t.Context(), op, before); err != nil {
		t.Fatal(err)
	}
	if r := w.serves(versionOne); !r.RestartsBy(o.HostConfig.RestartPolicy) {
		t.Errorf("restart policy %v, was %v", r.HostConfig.RestartPolicy, o.HostConfig.RestartPolicy)
	}
}

func TestTheDisplacedImageSurvivesAPrune(t *testing.T) {
	w := imageHarness(t, versionOne)
	lonely := version("lonely", "ENV VERSION=v2.0.1\n")
	two := w.tag("latest", lonely)
	if _, err := w.api.ImageRemove(t.Context(), runID+":lonely", image.RemoveOptions{}); err != nil {
		t.Fatal(err)
	}
	w.start("1")
	state := w.state()
	a := w.retag(nil)
	before := w.look(a, op, remediation.Untouched)
	if err := a.Apply(t.Context(), op, before); err != nil {
		t.Fatal(err)
	}
	if err := a.Verify(t.Context(), op); err != nil {
		t.Fatal(err)
	}
	r := w.serves(versionOne)
	if kept := displacedName(w.project, two, op) + " " + two; !strings.Contains(strings.Join(w.tags(), "\n"), kept) {
		t.Fatalf("no tag %s among\n%s", kept, strings.Join(w.tags(), "\n"))
	}
	_, err := w.api.ImagesPrune(t.Context(), filters.NewArgs(filters.Arg("dangling", "true"), filters.Arg("label", "run="+runID)))
	if err != nil {
		t.Fatal(err)
	}
	// Long after, by another process.
	a = w.retag(nil)
	if err := a.Undo(t.Context(), op, before); err != nil {
		t.Fatal(err)
	}
	if got := w.state(); got != state {
		t.Errorf("not as it was:\n%s", diff(got, state))
	}
	if w.one().ID == r.ID {
		t.Error("nothing was recreated")
	}
	w.look(a, op, remediation.Untouched)
}

func TestAReplicaThatEndedIsPutBackAsItWas(t *testing.T) {
	w := imageHarness(t, crashingOne)
	if err := w.target.Probe.Timeout.Set("10s"); err != nil {
		t.Fatal(err)
	}
	w.start("1")
	if err := w.api.ContainerStop(t.Context(), w.one().ID, container.StopOptions{}); err != nil {
		t.Fatal(err)
	}
	state := w.state()
	a := w.retag(nil)
	before := w.look(a, op, remediation.Untouched)
	if err := a.Apply(t.Context(), op, before); !meant(err) {
		t.Fatalf("an image that ends: %v", err)
	}
	if err := a.Verify(t.Context(), op); err == nil {
		t.Error("verified")
	}
	if err := a.Undo(t.Context(), op, before); err != nil {
		t.Fatal(err)
	}
	if got := w.state(); got != state {
		t.Errorf("not as it was:\n%s", diff(got, state))
	}
}

func TestWatchTellsOfAnImageThatComesBack(t *testing.T) {
	w := imageHarness(t, versionOne)
	w.start("1")
	a := w.retag(nil)
	if err := a.Apply(t.Context(), op, nil); err != nil {
		t.Fatal(err)
	}
	told := make(chan string, 10)
	ended := make(chan error, 1)
	ctx := t.Context()
	go func() { ended <- a.(remediation.Watcher).Watch(ctx, func(what string) { told <- what }) }()
	w.takeDown()
	w.tag("latest", versionTwo)
	w.start("1")
	select {
	case what := <-told:
		if !strings.Contains(what, compose.ShortImage(w.idOf(versionTwo))) || !strings.Contains(what, ", not "+w.project+":v1.0.0") {
			t.Errorf("told %q", what)
		}
	case err := <-ended:
		t.Fatalf("the watch ended: %v", err)
	}
}
