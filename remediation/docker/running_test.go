package docker

import (
	"strings"
	"testing"

	"github.com/docker/docker/api/types/container"

	"github.com/locotoki/backout/alerts"
	"github.com/locotoki/backout/remediation"
)

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
