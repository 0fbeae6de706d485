package kubernetes

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"

	"github.com/locotoki/backout/alerts"
	"github.com/locotoki/backout/hint"
	"github.com/locotoki/backout/remediation/jsonhttp"
)

// What of the API's objects is read here.
type (
	meta struct {
		Name, Namespace, UID, DeletionTimestamp string
		Generation                              int64
		Labels, Annotations                     map[string]string
		ManagedFields                           []managed
		OwnerReferences                         []owner
	}
	owner struct {
		Kind, Name, UID string
		Controller      bool
	}
	// managed is what one manager owns of an object.
	managed struct {
		Manager, Operation string
		FieldsV1           map[string]any
	}
	workload struct {
		Metadata meta
		Spec     struct {
			Replicas        *int
			Paused          bool
			MinReadySeconds int
			Selector        selector
			Template        template
			Strategy        struct{ Type string }
			// Of a StatefulSet.
			PodManagementPolicy string
			Ordinals            struct{ Start int }
			UpdateStrategy      struct {
				Type          string
				RollingUpdate struct{ Partition int }
			}
		}
		Status struct {
			ObservedGeneration                                          int64
			Replicas, UpdatedReplicas, ReadyReplicas, AvailableReplicas int
			CurrentRevision, UpdateRevision                             string
		}
	}
	selector struct {
		MatchLabels      map[string]string
		MatchExpressions []struct {
			Key, Operator string
			Values        []string
		}
	}
	template struct {
		Metadata meta
		Spec     podSpec
	}
	podSpec struct {
		Containers                    []container
		TerminationGracePeriodSeconds *int64
	}
	container struct {
		Name, Image string
		Env         []variable
		EnvFrom     []envSource
		Ports       []struct {
			Name          string
			ContainerPort int
		}
		StartupProbe, ReadinessProbe *struct{ InitialDelaySeconds int }
	}
	variable struct {
		Name, Value string
		ValueFrom   *struct {
			ConfigMapKeyRef, SecretKeyRef *keyRef
			FieldRef, ResourceFieldRef    json.RawMessage
		}
	}
	keyRef    struct{ Name, Key string }
	envSource struct {
		Prefix                  string
		ConfigMapRef, SecretRef *struct{ Name string }
	}
	configMap struct {
		Metadata  meta
		Data      map[string]string
		Immutable bool
	}
	pod struct {
		Metadata meta
		Spec     podSpec
		Status   struct {
			Phase, PodIP                             string
			Conditions                               []struct{ Type, Status, Reason, Message string }
			ContainerStatuses, InitContainerStatuses []containerStatus
		}
	}
	containerStatus struct {
		Name         string
		RestartCount int
		State        struct {
			Waiting *struct{ Reason, Message string }
		}
		LastState struct {
			Terminated *struct{ ExitCode int }
		}
	}
)

// place is a target in its cluster.
type place struct {
	*cluster
	t alerts.KubernetesTarget
}

func (c *Client) at(t *alerts.KubernetesTarget) (place, error) {
	k, err := c.cluster(t.Context)
	return place{k, *t}, err
}

// String is the workload as errors call it.
func (p place) String() string { return p.t.Kind() + " " + p.t.Namespace + "/" + p.t.Name() }

func (p place) workloadPath() string {
	return "/apis/apps/v1/namespaces/" + p.t.Namespace + "/" + p.t.Kind() + "s/" + p.t.Name()
}

func (p place) configMapPath(name string) string {
	return "/api/v1/namespaces/" + p.t.Namespace + "/configmaps/" + name
}

func (p place) podsPath() string { return "/api/v1/namespaces/" + p.t.Namespace + "/pods" }

// state is a target as it was seen.
type state struct {
	place
	w workload
	// cm is nil where the flags are in the container's own environment.
	cm *configMap
	// index is the container's place in the template.
	index int
}

func (s *state) container() *container { return &s.w.Spec.Template.Spec.Containers[s.index] }

func (s *state) replicas() int {
	if s.w.Spec.Replicas == nil {
		return 1 // the API's default
	}
	return *s.w.Spec.Replicas
}

// read looks at the workload, and at the ConfigMap if the field is in it.
func (p place) read(ctx context.Context, withConfigMap bool) (*state, error) {
	s := &state{place: p}
	if err := p.get(ctx, p.workloadPath(), p.String(), &s.w); err != nil {
		return nil, err
	}
	var names []string
	for _, c := range s.w.Spec.Template.Spec.Containers {
		names = append(names, c.Name)
	}
	if s.index = slices.Index(names, p.t.Container); s.index < 0 {
		return nil, hint.Add(fmt.Errorf("%s has no container %s", p, p.t.Container), "target: {kubernetes: {container: ...}} with one of %s", strings.Join(names, ", "))
	}
	if withConfigMap {
		s.cm = &configMap{}
		if err := p.get(ctx, p.configMapPath(p.t.Flags.ConfigMap), p.configMap(), s.cm); err != nil {
			return nil, err
		}
	}
	return s, nil
}

func (p place) configMap() string { return "configmap " + p.t.Namespace + "/" + p.t.Flags.ConfigMap }

// get reads one object; what names it for errors.
func (p place) get(ctx context.Context, path, what string, out any) error {
	err := p.do(ctx, http.MethodGet, path, "", nil, out)
	switch jsonhttp.Answered(err) {
	case http.StatusNotFound:
		err = hint.Add(fmt.Errorf("there is no %s", what), "fix target.kubernetes in the playbook")
	case http.StatusForbidden:
		err = hint.Add(err, "kubectl auth can-i get %s -n %s, and bind backout's Role", strings.Fields(what)[0], p.t.Namespace)
	}
	if err != nil {
		return fmt.Errorf("look at %s: %w", what, err)
	}
	return nil
}

// pods returns the workload's own pods that are not being deleted.
func (s *state) pods(ctx context.Context) ([]pod, error) {
	all, err := s.allPods(ctx)
	return slices.DeleteFunc(all, pod.gone), err
}

// gone reports whether a pod is being deleted or has ended.
func (p pod) gone() bool {
	return p.Metadata.DeletionTimestamp != "" || p.Status.Phase == "Succeeded" || p.Status.Phase == "Failed"
}

// allPods returns the workload's own pods. A pod of something else, as a Job, may have the same labels.
func (s *state) allPods(ctx context.Context) ([]pod, error) {
	var list struct{ Items []pod }
	err := s.do(ctx, http.MethodGet, s.podsPath()+"?labelSelector="+url.QueryEscape(s.w.Spec.Selector.String()), "", nil, &list)
	if jsonhttp.Answered(err) == http.StatusForbidden {
		err = hint.Add(err, "kubectl auth can-i list pods -n %s, and bind backout's Role", s.t.Namespace)
	}
	if err != nil {
		return nil, fmt.Errorf("look at the pods of %s: %w", s.place, err)
	}
	return slices.DeleteFunc(list.Items, func(p pod) bool { return !s.owns(p) }), nil
}

// podHash is the label by which a Deployment tells the pods of its ReplicaSets apart; a ReplicaSet's name ends with it.
const podHash = "pod-template-hash"

// owns reports whether a pod is the workload's.
func (s *state) owns(p pod) bool {
	for _, o := range p.Metadata.OwnerReferences {
		hash := p.Metadata.Labels[podHash]
		switch {
		case s.t.Kind() == "statefulset" && o.UID == s.w.Metadata.UID:
			return true
		case s.t.Kind() == "deployment" && hash != "" && o.Kind == "ReplicaSet" && o.Name == s.t.Name()+"-"+hash:
			return true
		}
	}
	return false
}

// String is the selector as the API takes it in a query.
func (s selector) String() string {
	var parts []string
	for k, v := range s.MatchLabels {
		parts = append(parts, k+"="+v)
	}
	for _, e := range s.MatchExpressions {
		switch e.Operator {
		case "In", "NotIn":
			parts = append(parts, e.Key+" "+strings.ToLower(e.Operator)+" ("+strings.Join(e.Values, ",")+")")
		case "Exists":
			parts = append(parts, e.Key)
		case "DoesNotExist":
			parts = append(parts, "!"+e.Key)
		}
	}
	slices.Sort(parts)
	return strings.Join(parts, ",")
}

func (p pod) container(name string) *container {
	for i := range p.Spec.Containers {
		if p.Spec.Containers[i].Name == name {
			return &p.Spec.Containers[i]
		}
	}
	return &container{}
}

func (p pod) ready() bool {
	for _, c := range p.Status.Conditions {
		if c.Type == "Ready" {
			return c.Status == "True"
		}
	}
	return false
}

// refuse says why the workload cannot be changed, or changing it would roll nothing out.
func (s *state) refuse() error {
	spec := s.w.Spec
	no := func(try, format string, args ...any) error {
		return hint.Add(fmt.Errorf("%s "+format, append([]any{s.place}, args...)...), "%s", try)
	}
	kubectl := func(what string) string {
		return fmt.Sprintf("kubectl %s -n %s %s/%s", what, s.t.Namespace, s.t.Kind(), s.t.Name())
	}
	switch {
	case s.w.Metadata.DeletionTimestamp != "":
		return no("check who deletes it", "is being deleted")
	case spec.Paused:
		return no(kubectl("rollout resume"), "is paused (spec.paused): a change would roll nothing out")
	case s.replicas() == 0:
		return no(kubectl("scale --replicas=1"), "is scaled to 0 (spec.replicas): no pod of it runs")
	case s.t.Kind() == "statefulset" && spec.UpdateStrategy.Type == "OnDelete":
		return no("set it to RollingUpdate", "has spec.updateStrategy.type OnDelete: a change would reach no pod")
	case spec.UpdateStrategy.RollingUpdate.Partition > 0:
		return no("set it to 0", "has spec.updateStrategy.rollingUpdate.partition %d: a change would not reach the pods below it", spec.UpdateStrategy.RollingUpdate.Partition)
	}
	return nil
}
