package docker

import (
	"errors"
	"strings"
	"testing"

	"github.com/docker/docker/api/types/container"

	"github.com/locotoki/backout/alerts"
	"github.com/locotoki/backout/remediation"
	"github.com/locotoki/backout/remediation/probe"
)

// A flag that is kept elsewhere is not in the container's environment: its own word says what it serves.
func TestAServiceIsAskedForAFlagThatIsKeptElsewhere(t *testing.T) {
	w := newHarness(t)
	w.start("0.5")
	serves := func(name, off string) error {
		return w.client(nil).Serves(t.Context(), w.target, alerts.Flag{Name: name, Off: off})
	}
	w.eventually("it answers", func() bool { return serves("FLAG", "0.5") == nil })
	if err := serves("FLAG", "0"); !probe.Denied(err) {
		t.Errorf("another value: %v", err)
	}
	if err := serves("FLAG_NOBODY_HAS", "0"); !errors.Is(err, probe.ErrUnlisted) || probe.Denied(err) {
		t.Errorf("a flag that it does not list: %v", err)
	}
	if err := w.api.ContainerStop(t.Context(), w.one().ID, container.StopOptions{}); err != nil {
		t.Fatal(err)
	}
	if err := serves("FLAG", "0"); err == nil || probe.Denied(err) {
		t.Errorf("stopped: %v", err)
	}
}

func TestWhatRunsIsTold(t *testing.T) {
	w := imageHarness(t, versionOne)
	w.start("0.5")
	pb := &alerts.Playbook{Target: w.target, Flags: []alerts.Flag{w.flag, {Name: "FLAG_NOBODY_HAS"}}}
	running := func() remediation.Running {
		t.Helper()
		r, err := w.client(nil).Running(t.Context(), pb)
		if err != nil {
			t.Fatal(err)
		}
		return r
	}
	said := func() string { return running().String() }
	// Until the service answers, its container's environment says the same.
	w.eventually("it answers", func() bool { return running().Flags[0].Served })
	if r := running(); r.String() != "v2.0.0 on 1 of 1, FLAG=0.5" || r.Image != w.image || len(r.Replicas) != 1 || r.Seen.IsZero() {
		t.Errorf("%s, %+v", r.String(), r)
	}
	// Where nobody can be asked, the tag and the container's environment say it.
	pb.Target.Probe = alerts.Probe{Timeout: pb.Target.Probe.Timeout}
	if got := said(); got != "v2.0.0 on 1 of 1, FLAG=0.5" {
		t.Errorf("without a probe: %q", got)
	}
	if err := w.api.ContainerStop(t.Context(), w.one().ID, container.StopOptions{}); err != nil {
		t.Fatal(err)
	}
	if got := said(); !strings.HasPrefix(got, "v2.0.0 on 0 of 1") {
		t.Errorf("stopped: %q", got)
	}
	if w.changes.Load() > 0 {
		t.Error("looking changed something")
	}
}
