package demo

import (
	"os"
	"testing"
)

func inPods(t *testing.T) func(*settings) {
	t.Helper()
	client, err := findKubernetes(os.Getenv)
	must(t, err)
	return func(set *settings) {
		set.kubernetes, set.plan = client, steps("status_page", "flag_off", "status_page", "image_retag")
	}
}

// backout has the rights of deploy/kubernetes/target there, and no others.
func TestABreachInThreePodsIsCuredByTheFlag(t *testing.T) {
	t.Parallel()
	s := runningStack(t, "pods", inPods(t))
	st := tellStory(t, s, "kubernetes")

	s.wantSteps(t, st.log, "flag_off")
	replicas, err := s.replicas(t.Context())
	must(t, err)
	if len(replicas) != 3 {
		t.Errorf("%d pods are ready", len(replicas))
	}
	version, err := s.version(t.Context())
	must(t, err)
	if version != newVersion {
		t.Errorf("the pods run %s", version)
	}
}
