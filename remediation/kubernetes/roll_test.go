package kubernetes

import (
	"encoding/json"
	"fmt"
	"testing"
	"time"

	"github.com/prometheus/common/model"

	"github.com/locotoki/backout/alerts"
)

func TestAVariableFromElsewhereIsNotShownAsEmpty(t *testing.T) {
	target := alerts.Target{Kubernetes: &alerts.KubernetesTarget{Container: "shop"}}
	for spec, want := range map[string]string{
		`{"name": "FEATURE_A", "value": "1"}`: "1 true",
		`{"name": "FEATURE_A"}`:               " true",
		`{"name": "FEATURE_A", "valueFrom": {"configMapKeyRef": {"name": "shop-flags", "key": "FEATURE_A"}}}`: " false",
		`{"name": "FEATURE_A", "valueFrom": {"secretKeyRef": {"name": "shop-flags", "key": "FEATURE_A"}}}`:    " false",
		`{"name": "OTHER", "value": "1"}`: " false",
	} {
		var p pod
		if err := json.Unmarshal([]byte(`{"spec": {"containers": [{"name": "shop", "env": [`+spec+`]}]}}`), &p); err != nil {
			t.Fatal(err)
		}
		value, set := (&Client{}).replica(target, &state{place: place{t: *target.Kubernetes}}, p).Env("FEATURE_A")
		if got := fmt.Sprint(value, " ", set); got != want {
			t.Errorf("%s is shown as %q, not %q", spec, got, want)
		}
	}
}

// A StatefulSet, or a Deployment with strategy Recreate, starts no pod before the old one has ended.
func TestARolloutMayTakeTheWorkloadsOwnWaitingTimes(t *testing.T) {
	for spec, want := range map[string]time.Duration{
		`{}`:                      30 * time.Second,
		`{"minReadySeconds": 15}`: 45 * time.Second,
		`{"template": {"spec": {"terminationGracePeriodSeconds": 0}}}`:                                                                             0,
		`{"template": {"spec": {"containers": [{"readinessProbe": {"initialDelaySeconds": 90}}, {"startupProbe": {"initialDelaySeconds": 20}}]}}}`: 120 * time.Second,
		`{"minReadySeconds": 5, "template": {"spec": {"terminationGracePeriodSeconds": 90}}}`:                                                      95 * time.Second,
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
