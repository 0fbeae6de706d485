package kubernetes

import (
	"encoding/json"
	"net/http"
	"testing"

	"github.com/locotoki/backout/alerts"
)

// A pod of something else that has the service's labels neither fails a step nor is deleted.
func TestAPodOfAnotherOwnerIsLeftAlone(t *testing.T) {
	for name, edit := range map[string]func(object){"deployment": func(object) {}, "statefulset": statefulSet} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, count(1), edit).ready()
			other := object{"apiVersion": "v1", "kind": "Pod", "metadata": object{"name": "migrate", "labels": object{"app": "shop"}}, "spec": object{
				"containers": []any{object{"name": "shop", "image": "shop:crash"}},
			}}
			if err := w.Do(t.Context(), http.MethodPost, w.Core("pods", ""), other, nil); err != nil {
				t.Fatal(err)
			}
			w.Eventually("the other pod crashes", func() error {
				for _, p := range w.Pods("app=shop") {
					if p.Waiting == "CrashLoopBackOff" {
						return nil
					}
				}
				return errCut
			})
			pod := func() (o object) {
				if err := w.Get(t.Context(), w.Core("pods", "migrate"), &o); err != nil {
					t.Fatal(err)
				}
				return o
			}
			uid := at(pod(), "metadata", "uid")
			w.apply(w.flagOff(w.client(nil)), op)
			if now := pod(); at(now, "metadata", "uid") != uid || at(now, "metadata", "deletionTimestamp") != nil {
				t.Errorf("the other pod was deleted: %v", now["metadata"])
			}
		})
	}
}

func TestAWorkloadsPodsAreThoseItOwns(t *testing.T) {
	deployment := alerts.KubernetesTarget{Deployment: "shop"}
	set := alerts.KubernetesTarget{StatefulSet: "shop"}
	for name, tc := range map[string]struct {
		t        alerts.KubernetesTarget
		metadata string
		want     bool
	}{
		"a ReplicaSet of the Deployment": {deployment, `{"labels": {"pod-template-hash": "5f"}, "ownerReferences": [{"kind": "ReplicaSet", "name": "shop-5f", "uid": "r"}]}`, true},
		"a longer name":                  {deployment, `{"labels": {"pod-template-hash": "5f"}, "ownerReferences": [{"kind": "ReplicaSet", "name": "shop-canary-5f", "uid": "r"}]}`, false},
		"no hash":                        {deployment, `{"ownerReferences": [{"kind": "ReplicaSet", "name": "shop-", "uid": "r"}]}`, false},
		"a Job":                          {deployment, `{"labels": {"pod-template-hash": "5f"}, "ownerReferences": [{"kind": "Job", "name": "shop-5f", "uid": "j"}]}`, false},
		"nobody's":                       {deployment, `{}`, false},
		"the StatefulSet":                {set, `{"ownerReferences": [{"kind": "StatefulSet", "name": "shop", "uid": "w"}]}`, true},
		"another StatefulSet":            {set, `{"ownerReferences": [{"kind": "StatefulSet", "name": "shop", "uid": "old"}]}`, false},
	} {
		s := state{place: place{t: tc.t}}
		s.w.Metadata.UID = "w"
		var p pod
		if err := json.Unmarshal([]byte(tc.metadata), &p.Metadata); err != nil {
			t.Fatal(err)
		}
		if got := s.owns(p); got != tc.want {
			t.Errorf("%s: %t", name, got)
		}
	}
}
