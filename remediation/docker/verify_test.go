package docker

import (
	"slices"
	"strings"
	"testing"

	"github.com/docker/docker/api/types/container"
)

func TestVerifyTellsWhatOfAServiceDoesNotHold(t *testing.T) {
	w := imageHarness(t, versionOne)
	w.start("1")
	c := w.client(nil)
	if err := c.Runs(t.Context(), w.target, "", "v2.0.0"); err != nil {
		t.Error(err)
	}
	if err := c.Runs(t.Context(), w.target, "", "v1.0.0"); err == nil || !strings.Contains(err.Error(), "runs image "+w.project) {
		t.Errorf("another version: %v", err)
	}
	if err := c.Runs(t.Context(), w.target, "", "v0.9.0"); err == nil || !strings.Contains(err.Error(), "there is no image "+w.project+":v0.9.0") {
		t.Errorf("a version that is not there: %v", err)
	}
	failed := func(version string) (names []string) {
		checks, err := c.Verify(t.Context(), w.target, "", version)
		if err != nil || len(checks) != 5 {
			t.Fatalf("%+v, %v", checks, err)
		}
		for _, c := range checks {
			if c.Detail == "" {
				t.Errorf("%s says nothing", c.Name)
			}
			if !c.OK {
				names = append(names, c.Name)
			}
		}
		return names
	}
	if got := failed("v2.0.0"); len(got) > 0 {
		t.Errorf("failed: %v", got)
	}
	// One restart is one too many, and waiting does not cure it.
	if err := w.target.Probe.Timeout.Set("10m"); err != nil {
		t.Fatal(err)
	}
	w.takeDown()
	w.tag("v1.0.0", crashingOne)
	w.tag("latest", crashingOne)
	w.start("1", func(_ *container.Config, h *container.HostConfig) {
		h.RestartPolicy = container.RestartPolicy{Name: container.RestartPolicyAlways}
	})
	w.eventually("it was restarted", func() bool { return w.one().RestartCount > 0 })
	if got := failed("v1.0.0"); !slices.Contains(got, "health") || slices.Contains(got, "image") {
		t.Errorf("failed: %v", got)
	}
	if w.changes.Load() > 0 {
		t.Error("verifying changed something")
	}
}

// The engine runs such a healthcheck after 30 s for the first time.
func TestAHealthcheckWithoutAnIntervalUndoesNoFlagOff(t *testing.T) {
	w := plainHarness(t, func(c *container.Config, _ *container.HostConfig) {
		c.Healthcheck = &container.HealthConfig{Test: []string{"CMD", "/service", "check"}}
	})
	if err := w.target.Probe.Timeout.Set("20s"); err != nil {
		t.Fatal(err)
	}
	w.off(w.actionWith(nil), op)
	if r := w.one(); r.State.Health == nil || r.State.Health.Status != container.Starting {
		t.Errorf("the healthcheck has answered: %+v", r.State.Health)
	}
}

// An application that ends without its database must not stop the rollback of its schema.
func TestAReplicaThatHasExitedIsStillOfItsVersion(t *testing.T) {
	w := imageHarness(t, versionOne)
	w.start("1")
	if err := w.api.ContainerKill(t.Context(), w.one().ID, "KILL"); err != nil {
		t.Fatal(err)
	}
	c := w.client(nil)
	if err := c.Runs(t.Context(), w.target, "", "v2.0.0"); err != nil {
		t.Error(err)
	}
	if err := c.Runs(t.Context(), w.target, "", "v1.0.0"); err == nil || !strings.Contains(err.Error(), "runs image "+w.project) {
		t.Errorf("another version: %v", err)
	}
}
