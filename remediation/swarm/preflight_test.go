package swarm

import (
	"context"
	"slices"
	"strings"
	"testing"

	"github.com/locotoki/backout/alerts"
	"github.com/locotoki/backout/remediation"
)

func checked(t *testing.T, checks []remediation.PreflightCheck) map[string]remediation.Result {
	t.Helper()
	all := map[string]remediation.Result{}
	for _, c := range checks {
		all[c.ID] = c.Run(t.Context())
	}
	return all
}

func TestThePreflightSeesWhatWouldKeepAChangeFromLasting(t *testing.T) {
	t.Parallel()
	w := newWorld(t, options{replicas: 1, update: "failure_action: rollback, monitor: 300ms"})
	flag, image := w.flagOff(w.client(nil)), w.imageBack(w.client(nil))
	state := w.state()
	for id, r := range checked(t, append(flag.Checks(), image.Checks()...)) {
		if want := map[bool]remediation.Status{true: remediation.CannotTell, false: remediation.Pass}[id == "image/runs"]; r.Status != want {
			t.Errorf("%s: %+v", id, r)
		}
		if id == "flag/FLAG/off" && !strings.Contains(r.Evidence, "Swarm itself undoes the change") {
			t.Errorf("%s: %+v", id, r)
		}
	}
	if r := flag.Rehearse(t.Context()); r.Status != remediation.Pass {
		t.Errorf("rehearsed: %+v", r)
	}
	if w.state() != state || w.updates.Load() != 0 {
		t.Errorf("the preflight changed\n%s\nto\n%s", state, w.state())
	}
	w.write("shop.env", "TAG=v1.0.0\nFLAG=0.5\n") // not what the stack was deployed with
	for id, r := range checked(t, append(flag.Checks(), image.Checks()...)) {
		if strings.HasSuffix(id, "/lasts") && (r.Status != remediation.Fail || !strings.Contains(r.Evidence, "docker stack deploy would make it")) {
			t.Errorf("%s: %+v", id, r)
		}
	}
	w.target.Swarm.StackFile, w.target.Swarm.EnvFile = "", ""
	if r := w.flagOff(w.client(nil)).checkLasts(t.Context()); r.Status != remediation.Fail || !strings.Contains(r.Evidence, "belongs to the stack "+w.stack) {
		t.Errorf("without files: %+v", r)
	}
}

func TestWhatTakesTheFlagBackIsReported(t *testing.T) {
	t.Parallel()
	w := newWorld(t, options{replicas: 1})
	a := w.flagOff(w.client(nil))
	w.apply(a)
	ctx, cancel := context.WithCancel(t.Context())
	reports, over := make(chan string, 10), make(chan error, 1)
	go func() { over <- a.Watch(ctx, func(what string) { reports <- what }) }()
	w.docker("service", "rollback", "--detach", w.service()) // a person's
	w.write("shop.env", "TAG=v2.0.0\nFLAG=1\n")
	var told []string
	for len(told) < 2 {
		select {
		case what := <-reports:
			told = append(told, what)
		case <-t.Context().Done():
		}
	}
	cancel()
	if err := <-over; err != nil {
		t.Error(err)
	}
	slices.Sort(told)
	if !strings.HasSuffix(told[0], "shop.env: docker stack deploy would set FLAG to 1") || told[1] != "service "+w.service()+": FLAG is 1, by a rollback of Swarm" {
		t.Errorf("%q", told)
	}
}

func TestAnImageGoesBackInTheEnvFileAndInEachTask(t *testing.T) {
	t.Parallel()
	for name, o := range map[string]options{
		"by its tag":  {},
		"by its name": {image: "${IMAGE}", env: "FLAG=1\nIMAGE=" + shop + ":v2.0.0\n"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, o)
			state := w.state()
			a := w.imageBack(w.client(nil))
			before := w.apply(a)
			w.expectSaid("1 v1.0.0", 2)
			if err := w.client(nil).Runs(t.Context(), w.target, "", "v1.0.0"); err != nil {
				t.Error(err)
			}
			checks, err := w.client(nil).Verify(t.Context(), w.target, "", "v1.0.0")
			if err != nil || len(checks) != 3 || slices.ContainsFunc(checks, func(c remediation.Check) bool { return !c.OK }) {
				t.Errorf("%+v, %v", checks, err)
			}
			w.deploy()
			w.settled()
			w.expectSaid("1 v1.0.0", 2)
			if err := a.Undo(t.Context(), op, before); err != nil {
				t.Fatal(err)
			}
			if got := w.state(); got != state {
				t.Errorf("undone to\n%s\nfrom\n%s", got, state)
			}
		})
	}
	t.Run("a literal", func(t *testing.T) {
		t.Parallel()
		w := newWorld(t, options{replicas: 1, image: shop + ":v2.0.0"})
		if _, err := w.imageBack(w.client(nil)).Look(t.Context(), op); err == nil || !strings.Contains(err.Error(), "stack.yml:4: service web sets the image there") {
			t.Error(err)
		}
	})
}

func TestAServiceOfNoStackNeedsNoFiles(t *testing.T) {
	t.Parallel()
	w := newWorld(t, options{replicas: 1})
	name := w.stack + "-alone"
	w.docker("service", "create", "--detach", "--no-resolve-image", "--network", "host", "--endpoint-mode", "dnsrr", "--name", name,
		"--env", "FLAG=1", "--env", "LISTEN=:9100", "--update-monitor", "300ms", shop+":v2.0.0")
	t.Cleanup(func() { _, _ = docker(context.Background(), w.manager(), "service", "rm", name) })
	w.target.Swarm = &alerts.SwarmTarget{Service: name}
	w.target.Probe.Port = "9100" // of the node itself
	w.settled()
	a := w.flagOff(w.client(nil))
	before := w.apply(a)
	w.expectSaid("0 v2.0.0", 1)
	if err := a.Restore(t.Context(), op, before); err != nil {
		t.Fatal(err)
	}
	w.expectSaid("1 v2.0.0", 1)
	w.docker("service", "scale", "--detach", name+"=0")
	if _, err := a.Look(t.Context(), op); err == nil || !strings.Contains(err.Error(), "is scaled to 0") {
		t.Error(err)
	}
	w.target.Swarm.Service = w.stack
	if _, err := w.flagOff(w.client(nil)).Look(t.Context(), op); err == nil || !strings.Contains(err.Error(), "the Swarm has no such service") {
		t.Error(err)
	}
}
