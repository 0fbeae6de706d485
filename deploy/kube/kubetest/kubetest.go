// Package kubetest gives a test a namespace in a real Kubernetes, and a node that runs its pods as local processes.
package kubetest

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/locotoki/backout/deploy/kube"
)

// limit is how long anything may take on a machine at work.
const limit = 60 * time.Second

// Lab is a namespace of one test, with its node.
type Lab struct {
	*kube.Client // the cluster's admin
	Node         *kube.Node
	Namespace    string
	// Server is nil unless it is the test's own.
	Server *kube.Server

	t testing.TB
}

// New returns a new namespace in the cluster that kube.Env leads to, which tests share: deploy/dev/kube.sh with go test ...
func New(t testing.TB) *Lab {
	t.Helper()
	client, err := kube.Open("")
	if err != nil {
		t.Fatal(err)
	}
	return lab(t, client, nil)
}

// Own returns a namespace in a cluster of the test's own, whose API server the test may kill and start again. It takes a
// few seconds.
func Own(t testing.TB) *Lab {
	t.Helper()
	server, err := kube.StartServer(filepath.Join(t.TempDir(), "kube"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := server.Kill(); err != nil {
			t.Error(err)
		}
	})
	client, err := kube.Open(server.Kubeconfig())
	if err != nil {
		t.Fatal(err)
	}
	return lab(t, client, server)
}

func lab(t testing.TB, client *kube.Client, server *kube.Server) *Lab {
	t.Helper()
	l := &Lab{Client: client, Namespace: "test-" + strings.ToLower(fmt.Sprintf("%x", time.Now().UnixNano())), Server: server, t: t}
	var err error
	if l.Node, err = kube.StartNode(t.Context(), client, l.Namespace); err != nil {
		t.Fatal(err)
	}
	l.Eventually("the namespace's default service account", func() error {
		return client.Get(t.Context(), l.Core("serviceaccounts", "default"), nil)
	})
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), limit)
		defer cancel()
		if server != nil { // which ends too
			if err := l.Node.Close(); err != nil {
				t.Error(err)
			}
			return
		}
		// Nobody else ends the pods of a node that is gone, and the cluster would try to empty the namespace for ever.
		err := client.Do(ctx, http.MethodDelete, "/api/v1/namespaces/"+l.Namespace, nil, nil)
		err = errors.Join(err, l.Node.Close(), client.Do(ctx, http.MethodDelete, l.Core("pods", ""), map[string]any{"gracePeriodSeconds": 0}, nil))
		if err != nil {
			t.Error(err)
		}
	})
	return l
}

// For returns the lab for a part of its test.
func (l *Lab) For(t testing.TB) *Lab {
	part := *l
	part.t = t
	return &part
}

// Core returns the path of an object of the core group, or that of all if name is "".
func (l *Lab) Core(resource, name string) string {
	return strings.TrimSuffix("/api/v1/namespaces/"+l.Namespace+"/"+resource+"/"+name, "/")
}

// Apps returns the path of an object of the apps group, or that of all if name is "".
func (l *Lab) Apps(resource, name string) string {
	return strings.TrimSuffix("/apis/apps/v1/namespaces/"+l.Namespace+"/"+resource+"/"+name, "/")
}

// Apply applies a manifest as an admin does who uses kubectl.
func (l *Lab) Apply(manifest string) {
	l.t.Helper()
	if err := l.Client.Apply(l.t.Context(), l.Namespace, []byte(manifest)); err != nil {
		l.t.Fatal(err)
	}
}

// Put applies one object.
func (l *Lab) Put(object map[string]any) {
	l.t.Helper()
	raw, err := json.Marshal(object) // JSON is YAML
	if err != nil {
		l.t.Fatal(err)
	}
	l.Apply(string(raw))
}

// Kubeconfig writes the kubeconfig of a client, which is l.Client for the admin's, and returns its path.
func (l *Lab) Kubeconfig(of *kube.Client) string {
	l.t.Helper()
	path := filepath.Join(l.t.TempDir(), "kubeconfig")
	if err := os.WriteFile(path, of.Kubeconfig(l.Namespace), 0o600); err != nil {
		l.t.Fatal(err)
	}
	return path
}

// ServiceAccount returns a client that may do what the service account of the namespace may.
func (l *Lab) ServiceAccount(name string) *kube.Client {
	l.t.Helper()
	client, err := l.Client.ServiceAccount(l.t.Context(), l.Namespace, name)
	if err != nil {
		l.t.Fatal(err)
	}
	return client
}

// Eventually waits until done returns nil.
func (l *Lab) Eventually(what string, done func() error) {
	l.t.Helper()
	ctx, cancel := context.WithTimeout(l.t.Context(), limit)
	defer cancel()
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for {
		err := done()
		if err == nil {
			return
		}
		select {
		case <-ctx.Done():
			l.t.Fatalf("%s: not within %s: %v", what, limit, err)
		case <-tick.C:
		}
	}
}

// Pod is a pod of the namespace.
type Pod struct {
	Name, IP, Image string // of its first container
	Ready, Deleting bool
	Waiting         string // why its first container waits, "" if it does not
	Restarts        int
}

// Pods returns the pods that a selector of labels selects.
func (l *Lab) Pods(selector string) []Pod {
	l.t.Helper()
	var list struct {
		Items []struct {
			Metadata struct {
				Name              string
				DeletionTimestamp *time.Time
			}
			Spec   struct{ Containers []struct{ Image string } }
			Status struct {
				PodIP             string
				ContainerStatuses []struct {
					Ready        bool
					RestartCount int
					State        struct{ Waiting struct{ Reason string } }
				}
			}
		}
	}
	if err := l.Get(l.t.Context(), l.Core("pods", "")+"?labelSelector="+url.QueryEscape(selector), &list); err != nil {
		l.t.Fatal(err)
	}
	var pods []Pod
	for _, i := range list.Items {
		p := Pod{Name: i.Metadata.Name, IP: i.Status.PodIP, Image: i.Spec.Containers[0].Image, Deleting: i.Metadata.DeletionTimestamp != nil}
		if s := i.Status.ContainerStatuses; len(s) > 0 {
			p.Ready, p.Waiting, p.Restarts = s[0].Ready, s[0].State.Waiting.Reason, s[0].RestartCount
		}
		pods = append(pods, p)
	}
	return pods
}

// Rolled waits until a Deployment or StatefulSet ("deployments", "statefulsets") is as its spec says and all its pods are
// ready, as `kubectl rollout status` does, and the old ones are gone.
func (l *Lab) Rolled(resource, name string) {
	l.t.Helper()
	l.Eventually(resource+" "+name+" rolled out", func() error {
		var o struct {
			Metadata struct{ Generation int }
			Spec     struct{ Replicas int }
			Status   struct{ ObservedGeneration, UpdatedReplicas, Replicas, ReadyReplicas int }
		}
		if err := l.Get(l.t.Context(), l.Apps(resource, name), &o); err != nil {
			return err
		}
		if s := o.Status; s.ObservedGeneration < o.Metadata.Generation || s.UpdatedReplicas != o.Spec.Replicas || s.Replicas != o.Spec.Replicas || s.ReadyReplicas != o.Spec.Replicas {
			return fmt.Errorf("%d wanted, %+v", o.Spec.Replicas, s)
		}
		for _, p := range l.Pods("app=" + name) {
			if p.Deleting {
				return fmt.Errorf("pod %s is still there", p.Name)
			}
		}
		return nil
	})
}
