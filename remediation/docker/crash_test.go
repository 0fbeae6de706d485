package docker

import (
	"errors"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/docker/docker/api/types/container"

	"github.com/locotoki/backout/alerts"
	"github.com/locotoki/backout/remediation"
	"github.com/locotoki/backout/remediation/action/actiontest"
	"github.com/locotoki/backout/remediation/crashtest"
	"github.com/locotoki/backout/remediation/docker/compose"
)

const op = "inc-7/1-flag_off@1700000000"

func plainHarness(t *testing.T, change ...func(*container.Config, *container.HostConfig)) *harness {
	w := newHarness(t)
	w.write("docker-compose.yml", w.webFile())
	w.write(".env", "# settings\nFLAG=1 # on\nPASSWORD="+secret+"\n")
	w.start("1", change...)
	return w
}

func breaksWhenOff(how string) func(*container.Config, *container.HostConfig) {
	return func(c *container.Config, h *container.HostConfig) {
		c.Env = append(c.Env, "BREAKS_WHEN_OFF="+how)
		if how == "sick" {
			c.Healthcheck = &container.HealthConfig{Test: []string{"CMD", "/service", "check"}, Interval: 200 * time.Millisecond, Retries: 2}
		}
		h.RestartPolicy = container.RestartPolicy{Name: "always"}
	}
}

func TestUndoOfACutOffApplyBringsTheSameContainerBack(t *testing.T) {
	t.Parallel()
	restart := func(policy container.RestartPolicyMode) func(*container.Config, *container.HostConfig) {
		return func(_ *container.Config, h *container.HostConfig) {
			h.RestartPolicy = container.RestartPolicy{Name: policy}
		}
	}
	for _, policy := range []container.RestartPolicyMode{"", container.RestartPolicyAlways} {
		t.Run("flag_off, restart="+string(policy), func(t *testing.T) {
			w := plainHarness(t, restart(policy))
			undoFromEveryCall(t, w, w.actionWith)
		})
	}
	t.Run("image_retag", func(t *testing.T) {
		w := imageHarness(t, versionOne)
		w.start("1", restart(container.RestartPolicyAlways))
		undoFromEveryCall(t, w, w.retag)
	})
}

func undoFromEveryCall(t *testing.T, w *harness, bind func(*fault) remediation.Action) {
	id, state := w.one().ID, w.state()
	whole := bind(nil)
	for n := range crashtest.Points(t) {
		op := fmt.Sprintf("inc-%d/1-test@1", n)
		before := w.look(whole, op, remediation.Untouched)
		broken := &fault{n: n, kind: actiontest.After}
		err := bind(broken).Apply(t.Context(), op, before)
		gone := true
		for _, r := range w.containers("web") {
			gone = gone && r.ID != id
		}
		if gone { // removed, as the last call of all
			if n < 5 || broken.hit == (err == nil) {
				t.Fatalf("the old container is gone after %d calls: %v", n+1, err)
			}
			return
		}
		if !broken.hit {
			t.Fatalf("the old container is still there after all calls: %v", err)
		}
		if err := whole.Undo(t.Context(), op, before); err != nil {
			t.Fatalf("undo after call %d: %v", n, err)
		}
		if got := w.one().ID; got != id || w.state() != state {
			t.Fatalf("undo after call %d: container %s, was %s; state:\n%s", n, got, id, diff(w.state(), state))
		}
	}
}

func TestACopyThatDoesNotWorkIsUndone(t *testing.T) {
	t.Parallel()
	for how, want := range map[string]string{"crash": "restarted", "sick": "unhealthy", "deaf": "serves FLAG=1"} {
		t.Run(how, func(t *testing.T) {
			w := plainHarness(t, breaksWhenOff(how))
			if err := w.target.Probe.Timeout.Set("10s"); err != nil {
				t.Fatal(err)
			}
			w.eventually("the service answers", func() bool {
				res, err := http.Get(w.target.Probe.Health)
				return err == nil && res.Body.Close() == nil && res.StatusCode == http.StatusOK
			})
			id, state := w.one().ID, w.state()
			a := w.action()
			look, err := a.Look(t.Context(), op)
			if err != nil {
				t.Fatal(err)
			}
			err = a.Apply(t.Context(), op, look.Snapshot)
			if err == nil || !strings.Contains(err.Error(), want) {
				t.Fatalf("apply: %v, want word of %q", err, want)
			}
			if strings.Contains(fmt.Sprintf("%T", err), "inDoubt") {
				t.Errorf("a copy that is seen to be broken leaves no doubt: %T", err)
			}
			if err := a.Undo(t.Context(), op, look.Snapshot); err != nil {
				t.Fatal(err)
			}
			if got := w.one().ID; got != id || w.state() != state {
				t.Errorf("container %s, was %s; state:\n%s", got, id, diff(w.state(), state))
			}
		})
	}
}

func TestAServiceWithoutAContainerIsRefusedAndSaysWhereOneIs(t *testing.T) {
	w := imageHarness(t, versionOne)
	name := "web" + w.project // no other test's
	file := strings.Replace(w.webFile(), "  web:", "  "+name+":", 1)
	w.write("docker-compose.yml", file)
	w.start("1", func(c *container.Config, _ *container.HostConfig) { c.Labels[compose.LabelService] = name })
	if err := os.Mkdir(filepath.Join(w.dir, "other"), 0o755); err != nil {
		t.Fatal(err)
	}
	for _, at := range []string{"", "other/"} {
		w.write(at+"docker-compose.yml", file)
		w.write(at+".env", "FLAG=1\n")
	}
	for _, c := range []struct {
		dir, service string
		want         []string
	}{
		{filepath.Join(w.dir, "other"), name, []string{"no container of service " + name, "project " + w.project + " of the folder " + w.dir, "project_dir: " + w.dir}},
		{w.dir, "web2", []string{"no container of service web2", "containers of " + name}},
	} {
		target := w.target
		target.Compose.ProjectDir, target.Compose.Service = c.dir, c.service
		cl := w.client(nil)
		changes, tags := w.changes.Load(), strings.Join(w.tags(), " ")
		off, err := cl.FlagOff(target, w.flag)
		set, serr := cl.FlagOff(target, alerts.Flag{Name: "FLAG", Off: "0.01"})
		tag, terr := cl.ImageRetag(target, "", "v1.0.0")
		if err := errors.Join(err, serr, terr); err != nil {
			t.Fatal(err)
		}
		says := func(what string, err error) {
			t.Helper()
			for _, want := range append(c.want, "try: ") {
				if err == nil || !strings.Contains(err.Error(), want) {
					t.Errorf("%s: %v, want word of %q", what, err, want)
				}
			}
		}
		for what, a := range map[string]remediation.Action{"flag_off": off, "flag_set": set, "image_retag": tag} {
			_, err := a.Look(t.Context(), op)
			says(what, err)
			says(what+": apply", a.Apply(t.Context(), op, nil))
			says(what+": verify", a.Verify(t.Context(), op))
		}
		for _, p := range append(off.(remediation.SelfChecking).Checks()[1:], tag.(remediation.SelfChecking).Checks()...) {
			if f := p.Run(t.Context()); f.Status == remediation.Pass || !strings.Contains(f.Evidence, "no container of service") {
				t.Errorf("%s: %+v", p.ID, f)
			}
		}
		_, err = cl.Verify(t.Context(), target, "", "v2.0.0")
		says("verify", err)
		says("runs", cl.Runs(t.Context(), target, "", "v2.0.0"))
		_, err = cl.Running(t.Context(), &alerts.Playbook{Target: target})
		says("running", err)
		if got := strings.Join(w.tags(), " "); got != tags || w.changes.Load() != changes || w.read(".env")+w.read("other/.env") != "FLAG=1\nFLAG=1\n" {
			t.Errorf("changed: %s", w.state())
		}
	}
}

// ended are the ways in which a replica can be there and not run.
var ended = map[string]func(w *harness, id string) error{
	"killed": func(w *harness, id string) error { return w.api.ContainerKill(w.Context(), id, "KILL") },
	"stopped": func(w *harness, id string) error {
		return w.api.ContainerStop(w.Context(), id, container.StopOptions{})
	},
	"created": func(w *harness, id string) error {
		in, err := w.api.ContainerInspect(w.Context(), id)
		if err != nil {
			return err
		}
		w.takeDown()
		_, err = w.api.ContainerCreate(w.Context(), in.Config, in.HostConfig, nil, nil, strings.TrimPrefix(in.Name, "/"))
		return err
	},
}

func TestAReplicaThatEndedIsReplacedAndStarted(t *testing.T) {
	t.Parallel()
	for how, end := range ended {
		t.Run(how, func(t *testing.T) {
			w := imageHarness(t, versionOne)
			w.start("1")
			was := w.one().ID
			if err := end(w, was); err != nil {
				t.Fatal(err)
			}
			a := w.action()
			if err := a.Verify(t.Context(), op); err == nil || !strings.Contains(err.Error(), w.one().State.Status) {
				t.Errorf("verified before: %v", err)
			}
			w.off(a, op)
			if err := a.Verify(t.Context(), op); err != nil {
				t.Fatal(err)
			}
			if r := w.one(); r.ID == was || !r.Running() || w.flagOf(r) != "0" || r.Image != w.idOf(versionTwo) {
				t.Errorf("state:\n%s", w.state())
			}
			// Off already, and down once more: it is started all the same.
			if err := end(w, w.one().ID); err != nil {
				t.Fatal(err)
			}
			next := "inc-8/1-flag_off@1700000000"
			look, err := a.Look(t.Context(), next)
			if err != nil || look.Position == remediation.Wanted {
				t.Fatalf("a service that is down: %s, %v", look.Position, err)
			}
			if err := a.Apply(t.Context(), next, look.Snapshot); err != nil {
				t.Fatal(err)
			}
			if err := a.Verify(t.Context(), next); err != nil {
				t.Error(err)
			}
			// And by its image.
			if err := end(w, w.one().ID); err != nil {
				t.Fatal(err)
			}
			w.back(w.retag(nil), "inc-8/2-image_retag@1700000000")
			if r := w.serves(versionOne); w.flagOf(r) != "0" {
				t.Errorf("state:\n%s", w.state())
			}
		})
	}
}

func TestAnUndoTurnsNothingOnForAServiceThatWasDown(t *testing.T) {
	w := plainHarness(t, breaksWhenOff("crash"))
	if err := w.api.ContainerKill(t.Context(), w.one().ID, "KILL"); err != nil {
		t.Fatal(err)
	}
	a := w.action()
	look, err := a.Look(t.Context(), op)
	if err != nil || !strings.Contains(string(look.Snapshot), `"state":"exited"`) {
		t.Fatalf("%s, %v", look.Snapshot, err)
	}
	if err := a.Apply(t.Context(), op, look.Snapshot); err == nil {
		t.Fatal("a copy that ends was taken for one that works")
	}
	for range 2 {
		if err := a.Undo(t.Context(), op, look.Snapshot); err != nil {
			t.Fatal(err)
		}
		if r := w.one(); w.flagOf(r) != "0" || r.ShortName() != w.project+"_web_1" || !strings.Contains(w.read(".env"), "FLAG=0 # on") {
			t.Errorf("state:\n%s", w.state())
		}
	}
	// A person may all the same.
	if err := a.(remediation.Restorer).Restore(t.Context(), op, look.Snapshot); err != nil {
		t.Fatal(err)
	}
	if r := w.one(); !strings.Contains(w.read(".env"), "FLAG=1 # on") || w.flagOf(r) != "1" && r.Running() {
		t.Errorf("restored:\n%s", w.state())
	}
}

func TestAPromotionOfAServiceThatWasDownIsTakenBack(t *testing.T) {
	w := offHarness(t)
	if err := w.api.ContainerKill(t.Context(), w.one().ID, "KILL"); err != nil {
		t.Fatal(err)
	}
	a := w.setTo("0.01", nil)
	look, err := a.Look(t.Context(), op)
	if err != nil {
		t.Fatal(err)
	}
	if err := a.Apply(t.Context(), op, look.Snapshot); err != nil {
		t.Fatal(err)
	}
	if err := a.Undo(t.Context(), op, look.Snapshot); err != nil {
		t.Fatal(err)
	}
	if got := w.read(".env"); !strings.Contains(got, "FLAG=0 # off") {
		t.Errorf(".env is %q", got)
	}
}

// shapes that a copy could not have.
func TestShapesThatCannotBeCopiedAreRefusedBeforeAnythingIsChanged(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name, want string
		change     func(*harness) func(*container.Config, *container.HostConfig)
		after      func(*testing.T, *harness)
	}{
		{"removes itself", "--rm", func(*harness) func(*container.Config, *container.HostConfig) {
			return func(_ *container.Config, h *container.HostConfig) {
				h.AutoRemove, h.RestartPolicy = true, container.RestartPolicy{}
			}
		}, nil},
		{"swarm task", "swarm", func(*harness) func(*container.Config, *container.HostConfig) {
			return func(c *container.Config, _ *container.HostConfig) { c.Labels["com.docker.swarm.task.id"] = "x" }
		}, nil},
		{"another's network", "another container's network", func(w *harness) func(*container.Config, *container.HostConfig) {
			return func(c *container.Config, h *container.HostConfig) {
				h.NetworkMode, h.PortBindings = container.NetworkMode("container:"+w.bystander(nil)), nil
			}
		}, nil},
		{"another's process ids", "process ids", func(w *harness) func(*container.Config, *container.HostConfig) {
			return func(_ *container.Config, h *container.HostConfig) {
				h.PidMode = container.PidMode("container:" + w.bystander(nil))
			}
		}, nil},
		{"another in its network", "shares a namespace", nil, func(t *testing.T, w *harness) {
			w.bystander(&container.HostConfig{NetworkMode: container.NetworkMode("container:" + w.one().ID)})
		}},
		{"another in its IPC", "shares a namespace", func(*harness) func(*container.Config, *container.HostConfig) {
			return func(_ *container.Config, h *container.HostConfig) { h.IpcMode = "shareable" }
		}, func(t *testing.T, w *harness) {
			w.bystander(&container.HostConfig{IpcMode: container.IpcMode("container:" + w.one().ShortName())})
		}},
		{"paused", "paused", nil, func(t *testing.T, w *harness) {
			if err := w.api.ContainerPause(t.Context(), w.one().ID); err != nil {
				t.Fatal(err)
			}
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			w := newHarness(t)
			w.write("docker-compose.yml", w.webFile())
			w.write(".env", "FLAG=1\nPASSWORD="+secret+"\n")
			if c.change != nil {
				w.start("1", c.change(w))
			} else {
				w.start("1")
			}
			if c.after != nil {
				c.after(t, w)
			}
			state, changes := w.state(), w.changes.Load()
			a := w.action()
			if _, err := a.Look(t.Context(), op); err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("look: %v, want word of %q", err, c.want)
			}
			if err := a.Apply(t.Context(), op, []byte(`{"env":{"path":"`+w.dir+`/.env","entry":{"state":"set","raw":"1"}},"replicas":[]}`)); err == nil {
				t.Error("applied all the same")
			}
			if got := w.state(); got != state || w.changes.Load() != changes {
				t.Errorf("changed:\n%s", diff(got, state))
			}
		})
	}
}

// bystander starts another container of the project and returns its id.
func (w *harness) bystander(h *container.HostConfig) string {
	w.Helper()
	if h == nil {
		h = &container.HostConfig{NetworkMode: "none"}
	}
	created, err := w.api.ContainerCreate(w.Context(), &container.Config{
		Image: runID + ":latest", Env: []string{"LISTEN=:9001"}, // it may share the network
		Labels: map[string]string{compose.LabelProject: w.project}, Healthcheck: &container.HealthConfig{Test: []string{"NONE"}},
	}, h, nil, nil, w.project+"_bystander")
	if err != nil {
		w.Fatal(err)
	}
	if err := w.api.ContainerStart(w.Context(), created.ID, container.StartOptions{}); err != nil {
		w.Fatal(err)
	}
	return created.ID
}

func TestWatchTellsOfAFlagThatComesBackOn(t *testing.T) {
	w := plainHarness(t)
	a := w.action()
	if err := a.Apply(t.Context(), op, nil); err != nil {
		t.Fatal(err)
	}
	told := make(chan string, 10)
	ended := make(chan error, 1)
	ctx := t.Context()
	go func() { ended <- a.(remediation.Watcher).Watch(ctx, func(what string) { told <- what }) }()
	// The watch has begun once it tells of this one: a person's.
	w.takeDown()
	w.start("0.5")
	select {
	case what := <-told:
		if !strings.Contains(what, "FLAG=0.5") || !strings.Contains(what, w.project+"_web_1") {
			t.Errorf("told %q", what)
		}
	case err := <-ended:
		t.Fatalf("the watch ended: %v", err)
	}
	if len(told) > 0 {
		// The subscription and the first look may both see it; a third time would be a mistake.
		<-told
	}
	if len(told) > 0 {
		t.Errorf("told again: %q", <-told)
	}
}
