package swarm

import (
	"fmt"
	"testing"

	"github.com/locotoki/backout/alerts"
)

// A service whose restart_policy is none has no task any more for one that ended. Swarm counts what it is to have.
func TestTasksThatAreMissingCount(t *testing.T) {
	spec := object{"ContainerSpec": object{"Image": "shop:v1@sha256:00"}}
	c, port := fakeEngine(t, object{
		"ID": "s1", "Spec": object{"Name": "web", "TaskTemplate": spec}, "ServiceStatus": object{"RunningTasks": 1, "DesiredTasks": 3},
	}, []object{runningTask(spec)}, "")
	target := alerts.Target{Swarm: &alerts.SwarmTarget{Service: "web"}, Probe: alerts.Probe{Port: port, Health: "/health", Timeout: 1}}
	checks, err := c.Verify(t.Context(), target, "", "v1")
	if err != nil || len(checks) != 2 || !checks[0].OK || checks[1].OK || checks[1].Detail != "1 of 3 tasks exist" {
		t.Errorf("%+v, %v", checks, err)
	}
	if running, err := c.Running(t.Context(), &alerts.Playbook{Target: target}); err != nil || running.String() != "v1 on 1 of 3" {
		t.Errorf("%s, %v", running, err)
	}
}

// An application that ends without its database has a task that Swarm is to start after its delay, or, with restart_policy
// none, no task.
func TestATaskThatIsToStartAgainCountsAsOneThatRuns(t *testing.T) {
	spec := func(image string) object { return object{"ContainerSpec": object{"Image": image}} }
	task := func(desired, state, image string) object {
		return object{"ID": "t-" + desired, "Slot": 1, "DesiredState": desired, "Spec": spec(image), "Status": object{"State": state}}
	}
	crashed := task("shutdown", "failed", "shop:v2")
	for name, tc := range map[string]struct {
		template string
		tasks    []object
		says     string // "": version v1 runs
	}{
		"it waits for its delay":                 {"shop:v1", []object{crashed, task("ready", "ready", "shop:v1@sha256:00")}, ""},
		"it waits for its delay, of another":     {"shop:v1", []object{crashed, task("ready", "ready", "shop:v2")}, "task web.1 runs shop:v2, not shop:v1"},
		"one runs, the next of another waits":    {"shop:v1", []object{task("running", "running", "shop:v1"), task("ready", "ready", "shop:v2")}, "task web.1 runs shop:v2, not shop:v1"},
		"there is none, and v1 is the service's": {"shop:v1", []object{crashed}, ""},
		"there is none, and v1 is not":           {"shop:v2", []object{crashed}, "the next task is to run shop:v2, not shop:v1"},
	} {
		c, _ := fakeEngine(t, object{"ID": "s1", "Spec": object{"Name": "web", "TaskTemplate": spec(tc.template)}, "ServiceStatus": object{"DesiredTasks": 1}}, tc.tasks, "")
		err := c.Runs(t.Context(), alerts.Target{Swarm: &alerts.SwarmTarget{Service: "web"}}, "", "v1")
		if got := fmt.Sprint(err); tc.says == "" && err != nil || tc.says != "" && got != tc.says {
			t.Errorf("%s: %v", name, err)
		}
	}
}
