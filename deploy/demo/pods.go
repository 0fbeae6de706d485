package demo

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"time"

	"go.yaml.in/yaml/v3"

	"github.com/locotoki/backout/deploy/kube"
	"github.com/locotoki/backout/hint"
)

// pods are the service's replicas in a Kubernetes: a Deployment in a namespace of the demo's, on a node that runs its
// pods as processes of this machine.
type pods struct {
	client    *kube.Client
	namespace string
	node      *kube.Node
	end       context.CancelFunc // of what follows their addresses
	followed  chan struct{}
}

// findKubernetes opens the cluster that the environment names.
func findKubernetes(env func(string) string) (*kube.Client, error) {
	path := env(kube.Env)
	if path == "" {
		return nil, hint.Add(fmt.Errorf("%w: no Kubernetes: %s is not set", ErrMissing, kube.Env), "make demo SCENARIO=kubernetes, which starts one")
	}
	client, err := kube.Open(path)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrMissing, err)
	}
	return client, nil
}

// startPods builds the service, starts a node that has its two versions, and applies the Deployment.
func (s *stack) startPods(ctx context.Context) error {
	program, err := s.buildService(ctx)
	if err != nil {
		return err
	}
	p := &pods{client: s.kubernetes, namespace: "demo-" + strings.ToLower(rand.Text()[:10]), followed: make(chan struct{})}
	if p.node, err = kube.StartNode(ctx, p.client, p.namespace); err != nil {
		return err
	}
	s.pods = p
	for _, version := range []string{oldVersion, newVersion} {
		p.node.Image("social-intel:"+version, kube.Image{Program: program, Env: []string{"SOCIAL_INTEL_VERSION=" + version}})
	}
	if err := errors.Join(s.write("deployment.yaml", "project/deployment.yaml"), s.admit(ctx), s.write(s.book, "playbook.yaml")); err != nil {
		return err
	}
	manifest, err := os.ReadFile(s.path("project", "deployment.yaml"))
	if err != nil {
		return err
	}
	if err := p.client.Apply(ctx, p.namespace, manifest); err != nil {
		return err
	}
	if err := s.rolled(ctx); err != nil {
		return err
	}
	following, end := context.WithCancel(context.Background())
	p.end = end
	go s.follow(following)
	return nil
}

// admit gives backout the rights of deploy/kubernetes/target in the namespace and no others, and writes its kubeconfig.
func (s *stack) admit(ctx context.Context) error {
	p := s.pods
	if err := p.client.Apply(ctx, p.namespace, []byte("{apiVersion: v1, kind: ServiceAccount, metadata: {name: backout}}")); err != nil {
		return err
	}
	role, err := os.ReadFile(filepath.Join(s.source, "deploy", "kubernetes", "target", "role.yaml"))
	if err != nil {
		return err
	}
	for d := yaml.NewDecoder(bytes.NewReader(role)); ; {
		var o map[string]any
		err := d.Decode(&o)
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return fmt.Errorf("role.yaml: %w", err)
		}
		if rules, ok := o["rules"].([]any); ok {
			rules[0].(map[string]any)["resourceNames"] = []any{s.service}
		}
		if subjects, ok := o["subjects"].([]any); ok {
			subjects[0].(map[string]any)["namespace"] = p.namespace
		}
		raw, err := json.Marshal(o)
		if err != nil {
			return err
		}
		if err := p.client.Apply(ctx, p.namespace, raw); err != nil {
			return err
		}
	}
	backout, err := p.client.ServiceAccount(ctx, p.namespace, "backout")
	if err != nil {
		return err
	}
	return os.WriteFile(s.path("kubeconfig"), backout.Kubeconfig(p.namespace), 0o600)
}

// stop ends the pods and removes the namespace.
func (p *pods) stop(ctx context.Context) error {
	if p.end != nil {
		p.end()
		<-p.followed
	}
	err := p.client.Do(ctx, http.MethodDelete, "/api/v1/namespaces/"+p.namespace, nil, nil)
	return errors.Join(err, p.node.Close())
}

func (p *pods) deployment() string {
	return "/apis/apps/v1/namespaces/" + p.namespace + "/deployments/social-intel"
}

// addresses are those of the pods that are ready and stay.
func (p *pods) addresses(ctx context.Context) ([]string, error) {
	var list struct {
		Items []struct {
			Metadata struct{ DeletionTimestamp *time.Time }
			Status   struct {
				PodIP      string
				Conditions []struct{ Type, Status string }
			}
		}
	}
	if err := p.client.Get(ctx, "/api/v1/namespaces/"+p.namespace+"/pods", &list); err != nil {
		return nil, err
	}
	var out []string
	for _, i := range list.Items {
		for _, c := range i.Status.Conditions {
			if c.Type == "Ready" && c.Status == "True" && i.Metadata.DeletionTimestamp == nil {
				out = append(out, net.JoinHostPort(i.Status.PodIP, "9000"))
			}
		}
	}
	return out, nil
}

// rolled waits until every pod is of the Deployment's newest template.
func (s *stack) rolled(ctx context.Context) error {
	return await(ctx, readyWithin, 50*time.Millisecond, func(ctx context.Context) error {
		var o struct {
			Metadata struct{ Generation int }
			Spec     struct{ Replicas int }
			Status   struct{ ObservedGeneration, UpdatedReplicas, Replicas, AvailableReplicas int }
		}
		if err := s.pods.client.Get(ctx, s.pods.deployment(), &o); err != nil {
			return err
		}
		want := o.Spec.Replicas
		if st := o.Status; st.ObservedGeneration < o.Metadata.Generation || st.UpdatedReplicas != want || st.Replicas != want || st.AvailableReplicas != want {
			return fmt.Errorf("the Deployment is not rolled out: %+v", st)
		}
		return nil
	})
}

// restartPods is `kubectl rollout restart`.
func (s *stack) restartPods(ctx context.Context) error {
	err := s.pods.client.Patch(ctx, kube.StrategicPatch, s.pods.deployment(), map[string]any{"spec": map[string]any{"template": map[string]any{
		"metadata": map[string]any{"annotations": map[string]any{"kubectl.kubernetes.io/restartedAt": time.Now().Format(time.RFC3339)}},
	}}}, nil)
	if err != nil {
		return err
	}
	return s.rolled(ctx)
}

// follow writes the pods' addresses for Prometheus whenever they change, until ctx ends. Prometheus's own discovery in
// Kubernetes is left out of Debian's build.
func (s *stack) follow(ctx context.Context) {
	defer close(s.pods.followed)
	was := ""
	for ctx.Err() == nil {
		addresses, err := s.pods.addresses(ctx)
		if now := strings.Join(addresses, " "); err == nil && now != was {
			if s.writeTargets(addresses) == nil { // or the next round writes them
				was = now
			}
		}
		select {
		case <-ctx.Done():
		case <-time.After(200 * time.Millisecond):
		}
	}
}

func (s *stack) writeTargets(addresses []string) error {
	raw, err := json.Marshal([]map[string]any{{"targets": addresses}})
	if err != nil {
		return err
	}
	next := s.path("pods.json.next")
	if err := os.WriteFile(next, raw, 0o600); err != nil {
		return err
	}
	return os.Rename(next, s.path("pods.json"))
}

// replicas are the addresses of the running service, one after the other.
func (s *stack) replicas(ctx context.Context) ([]string, error) {
	if s.pods == nil {
		return []string{s.address["service"]}, nil
	}
	addresses, err := s.pods.addresses(ctx)
	if err == nil && len(addresses) == 0 {
		err = errors.New("no pod is ready")
	}
	return addresses, err
}
