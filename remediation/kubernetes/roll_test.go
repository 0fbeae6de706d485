package kubernetes

import (
	"encoding/json"
	"testing"
	"time"

	"github.com/prometheus/common/model"

	"github.com/locotoki/backout/alerts"
)

// A StatefulSet, or a Deployment with strategy Recreate, starts no pod before the old one has ended.
func TestARolloutMayTakeTheWorkloadsOwnWaitingTimes(t *testing.T) {
	for spec, want := range map[string]time.Duration{
		`{}`:                      30 * time.Second,
		`{"minReadySeconds": 15}`: 45 * time.Second,
		`{"template": {"spec": {"terminationGracePeriodSeconds": 0}}}`:                        0,
		`{"minReadySeconds": 5, "template": {"spec": {"terminationGracePeriodSeconds": 90}}}`: 95 * time.Second,
	} {
		var w workload
		if err := json.Unmarshal([]byte(`{"spec":`+spec+`}`), &w); err != nil {
			t.Fatal(err)
		}
		a := change{target: alerts.Target{Probe: alerts.Probe{Timeout: model.Duration(time.Minute)}}}
		if got := a.limit(&w); got != time.Minute+want {
			t.Errorf("%s: %s, want %s", spec, got, time.Minute+want)
		}
	}
}
