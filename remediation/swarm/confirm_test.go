package swarm

import (
	"fmt"
	"strings"
	"testing"

	"github.com/locotoki/backout/alerts"
	"github.com/locotoki/backout/remediation"
	"github.com/locotoki/backout/remediation/probe"
)

// A task may serve another value than the one that it was started with.
func TestAFlagIsOffOnceTheTasksConfirmIt(t *testing.T) {
	for _, tc := range []struct {
		name, path, says, mark string
		want                   remediation.Position
	}{
		{"confirmed", "/said", `{"FLAG": "0"}`, "", remediation.Wanted},
		{"denied", "/said", `{"FLAG": "1"}`, "", remediation.HalfWay},
		{"denied, and set by backout", "/said", `{"FLAG": "1"}`, op, remediation.HalfWay},
		{"silent", "/missing", "", "", remediation.Wanted},
		{"silent, and set by backout", "/missing", "", op, remediation.Wanted},
		{"not asked", "", `{"FLAG": "1"}`, "", remediation.Wanted},
	} {
		t.Run(tc.name, func(t *testing.T) {
			spec := object{"ContainerSpec": object{"Image": shop + ":v2.0.0", "Env": []string{"FLAG=0"}}}
			labels := object{}
			if tc.mark != "" {
				labels[markLabel] = fmt.Sprintf(`{"env/FLAG": %q}`, tc.mark)
			}
			c, port := fakeEngine(t, object{
				"ID": "s1", "Spec": object{"Name": "web", "Labels": labels, "TaskTemplate": spec}, "ServiceStatus": object{"RunningTasks": 1, "DesiredTasks": 1},
			}, []object{runningTask(spec)}, tc.says)
			target := alerts.Target{Swarm: &alerts.SwarmTarget{Service: "web"}, Probe: alerts.Probe{Port: port, Flags: tc.path}}
			if tc.path != "" { // a flag that is kept elsewhere is asked for too
				if err := c.Serves(t.Context(), target, alerts.Flag{Name: flagName, Off: "0"}); probe.Denied(err) != strings.HasPrefix(tc.name, "denied") || (err == nil) != (tc.name == "confirmed") {
					t.Errorf("serves: %v", err)
				}
			}
			a, err := c.FlagOff(target, alerts.Flag{Name: flagName, Off: "0"})
			if err != nil {
				t.Fatal(err)
			}
			look, err := a.Look(t.Context(), op)
			if look.Position != tc.want || err != nil {
				t.Errorf("it is %q, %v; want %q", look.Position, err, tc.want)
			}
		})
	}
}
