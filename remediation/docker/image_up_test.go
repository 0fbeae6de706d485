package docker

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/locotoki/backout/alerts"
	"github.com/locotoki/backout/remediation"
	"github.com/locotoki/backout/remediation/action/actiontest"
	"github.com/locotoki/backout/remediation/crashtest"
)

// back goes back to the previous image as the engine does, and returns the snapshot.
func (w *harness) back(a remediation.Action, op string) []byte {
	w.Helper()
	before := w.look(a, op, remediation.Untouched)
	if err := a.Apply(w.Context(), op, before); err != nil {
		w.Fatal(err)
	}
	if err := a.Verify(w.Context(), op); err != nil {
		w.Fatal(err)
	}
	w.look(a, op, remediation.Wanted)
	return before
}

// What compose itself makes of the previous image is what ours must be.
func TestTheCopyIsWhatComposeWouldMakeOfThePreviousImage(t *testing.T) {
	w := imageHarness(t, checkedOne).withTools()
	w.tag("v2.0.0", checkedTwo)
	w.tag("latest", checkedTwo)
	// MODE is what the displaced image has by default, and set all the same; the
	// healthcheck's interval is the service's own, its test the image's.
	w.write("docker-compose.yml", strings.Replace(w.webFile(), "    environment:\n", `    hostname: webhost
    labels: {team: analytics}
    healthcheck: {interval: 600ms}
    environment:
      MODE: two
`, 1))
	w.compose(nil, "up", "-d")
	two := w.essence(w.serves(checkedTwo))
	// The ladder's first step has run.
	w.off(w.action(), "inc-7/1-flag_off@1")
	before := w.back(w.retag(nil), op)
	r := w.serves(checkedOne)
	if r.Variable("MODE").Value != "two" || r.Variable("ONLY_TWO").Set || r.Label("only-two") != "" || r.Config.User != "" || slices.Contains(r.Config.Healthcheck.Test, "two") {
		t.Errorf("carried over, or lost:\n%s", w.essence(r))
	}
	w.compose(nil, "up", "-d")
	if later := w.serves(checkedOne); later.ID != r.ID {
		t.Errorf("docker-compose up -d recreated it")
	}
	ours := w.essence(r)
	w.compose(nil, "up", "-d", "--force-recreate")
	if theirs := w.essence(w.serves(checkedOne)); ours != theirs {
		t.Errorf("ours and compose's differ:\n%s", diff(ours, theirs))
	}

	// And so must be what is put back after compose recreated it.
	if err := w.retag(nil).Undo(t.Context(), op, before); err != nil {
		t.Fatal(err)
	}
	r = w.serves(checkedTwo)
	if got, want := w.essence(r), strings.Replace(two, `"FLAG=1"`, `"FLAG=0"`, 1); got != want {
		t.Errorf("not as it was:\n%s", diff(got, want))
	}
	w.compose(nil, "up", "-d")
	if later := w.serves(checkedTwo); later.ID != r.ID {
		t.Errorf("docker-compose up -d recreated what was put back")
	}
}

func TestReplicasOfDifferentImagesGoBackTogether(t *testing.T) {
	w := imageHarness(t, versionOne)
	w.target.Probe = alerts.Probe{Timeout: w.target.Probe.Timeout}
	w.write("docker-compose.yml", fmt.Sprintf("version: \"3.8\"\nservices:\n  web:\n    image: %s\n", w.image))
	w.tag("latest", versionThree)
	w.compose(nil, "up", "-d")
	w.tag("latest", versionTwo)
	w.compose(nil, "up", "-d", "--no-recreate", "--scale", "web=2")
	images := func() (all []string) {
		for _, r := range w.containers("web") {
			all = append(all, r.Image)
		}
		return all
	}
	was, state := images(), w.state()
	if len(was) != 2 || was[0] == was[1] {
		t.Fatalf("images: %v", was)
	}
	a := w.retag(nil)
	before := w.back(a, op)
	one := w.idOf(versionOne)
	if got := images(); !slices.Equal(got, []string{one, one}) {
		t.Errorf("images: %v", got)
	}
	for _, id := range was {
		if kept := displacedName(w.project, id, op) + " " + id; !slices.Contains(w.tags(), kept) {
			t.Errorf("no tag %s among %v", kept, w.tags())
		}
	}
	if err := a.Undo(t.Context(), op, before); err != nil {
		t.Fatal(err)
	}
	// Of the image that latest does not name, a new container can only show the id.
	got := strings.Replace(w.state(), fmt.Sprintf("%q: %q", "Image", w.idOf(versionThree)), fmt.Sprintf("%q: %q", "Image", w.image), 1)
	if got != state {
		t.Errorf("not as it was:\n%s", diff(got, state))
	}
}

// eachHalfWay meets an operation that was cut off after each of its calls in turn.
func eachHalfWay(t *testing.T, w *harness, meet func(t *testing.T, whole remediation.Action, op string, before []byte, n int)) {
	whole := w.retag(nil)
	for n := range crashtest.Points(t) {
		op := fmt.Sprintf("inc-%d/2-image_retag@1", n)
		before := w.look(whole, op, remediation.Untouched)
		broken := &fault{n: n, kind: actiontest.After}
		err := w.retag(broken).Apply(t.Context(), op, before)
		if !broken.hit {
			if err != nil || n < 8 {
				t.Fatalf("after %d calls: %v", n, err)
			}
			return
		}
		if !t.Run(fmt.Sprintf("after call %d", n), func(t *testing.T) { meet(t, whole, op, before, n) }) {
			return
		}
	}
}

func TestAPersonsUpInTheMiddleEndsWithThePreviousImage(t *testing.T) {
	w := imageHarness(t, versionOne).first()
	w.compose(nil, "up", "-d")
	eachHalfWay(t, w, func(t *testing.T, whole remediation.Action, op string, before []byte, n int) {
		w.compose(nil, "up", "-d")
		for _, r := range w.containers("web") {
			// From the second call on, latest names the previous image.
			if n > 0 && r.Running() && r.Image != w.idOf(versionOne) {
				t.Errorf("docker-compose up -d left %s with %s", r.ShortName(), r.Config.Image)
			}
		}
		if err := whole.Apply(t.Context(), op, before); err != nil {
			t.Fatal(err)
		}
		w.serves(versionOne)
		if err := whole.Verify(t.Context(), op); err != nil {
			t.Error(err)
		}
		w.look(whole, op, remediation.Wanted)
		if err := whole.Undo(t.Context(), op, before); err != nil {
			t.Fatal(err)
		}
		w.serves(versionTwo)
		if tags := w.tags(); len(tags) != 3 {
			t.Errorf("tags: %v", tags)
		}
	})
}

func TestAPersonsDownInTheMiddleOfARetagStaysDown(t *testing.T) {
	w := imageHarness(t, versionOne)
	w.start("1")
	eachHalfWay(t, w, func(t *testing.T, whole remediation.Action, op string, before []byte, n int) {
		w.compose(nil, "down")
		if err := whole.Apply(t.Context(), op, before); err != nil {
			t.Fatal(err)
		}
		if err := whole.Verify(t.Context(), op); err == nil || !strings.Contains(err.Error(), "no container of service web") {
			t.Errorf("a service of which nothing is there was verified: %v", err)
		}
		if n == 0 {
			w.compose(nil, "up", "-d")
			w.serves(versionOne)
			w.compose(nil, "down")
		}
		if err := whole.Undo(t.Context(), op, before); err != nil {
			t.Fatal(err)
		}
		if all := w.containers("web"); len(all) != 0 {
			t.Errorf("%d containers:\n%s", len(all), w.state())
		}
		w.start("1")
		w.serves(versionTwo)
	})
}
