package kube

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"sync"
	"time"
)

// Image is what a container runs: a program of this machine, with its first arguments and its default environment, as an
// image's configuration has them. A container's own command and args replace or follow them as in Kubernetes.
type Image struct {
	Program string
	Args    []string
	Env     []string // NAME=value
	// Root makes a container run in a root folder of its own, with the pod's volumes and as the user of its security
	// context, which takes root. It has the image's files by their paths there, and the files of this machine that they are
	// copies of; Program is one of them. Without it, a container is a process of this machine like any other.
	Root map[string]string
}

// Node takes the place of scheduler and kubelet. It binds each pod of its namespace to itself and runs the containers, with
// HTTP and TCP probes, restarts with a back-off, and SIGTERM before SIGKILL. An image that it was not given cannot be
// pulled. A pod has an address of its own, 127.A.B.C; its programs learn it from a variable with the fieldRef
// status.podIP, and must listen there. There are no Services. A restart of the API server does not end pods.
type Node struct {
	Name, Namespace string

	client *Client
	claim  net.Listener // holds the addresses 127.A.B.*
	prefix string
	end    context.CancelFunc
	over   chan struct{}

	mu     sync.Mutex
	images map[string]Image
	pods   map[string]*running // by uid
	taken  map[int]bool        // the last numbers of addresses in use
	output map[string]*tail    // by pod name
	claims map[string]string   // the folders of claims of volumes
	dir    string              // of containers' roots
}

// StartNode creates the namespace if there is none, and a node for its pods that has the namespace's name.
func StartNode(ctx context.Context, client *Client, namespace string) (*Node, error) {
	n := &Node{Name: "node-" + namespace, Namespace: namespace, client: client, over: make(chan struct{}),
		images: map[string]Image{}, pods: map[string]*running{}, taken: map[int]bool{}, output: map[string]*tail{}, claims: map[string]string{}}
	if err := n.claimAddresses(); err != nil {
		return nil, err
	}
	err := n.register(ctx)
	if err == nil {
		n.dir, err = os.MkdirTemp("", "node-")
	}
	if err == nil {
		err = os.Chmod(n.dir, 0o755) // another user's programs are in it
	}
	if err != nil {
		return nil, errors.Join(err, n.claim.Close())
	}
	ctx, n.end = context.WithCancel(context.Background())
	go n.run(ctx)
	return n, nil
}

// claimPort is where a node listens on the last of its addresses, so that no other node of the machine takes them.
const claimPort = 19999

func (n *Node) claimAddresses() (err error) {
	for range 1000 {
		n.prefix = fmt.Sprintf("127.%d.%d.", 64+rand.IntN(64), rand.IntN(256))
		n.claim, err = net.Listen("tcp", fmt.Sprintf("%s254:%d", n.prefix, claimPort))
		if err == nil {
			return nil
		}
	}
	return fmt.Errorf("no free addresses for pods: %w", err)
}

func (n *Node) register(ctx context.Context) error {
	for path, name := range map[string]string{"/api/v1/namespaces": n.Namespace, "/api/v1/nodes": n.Name} {
		err := n.client.Do(ctx, http.MethodPost, path, object{"metadata": object{"name": name}}, nil)
		if err != nil && Code(err) != http.StatusConflict {
			return fmt.Errorf("create %s: %w", name, err)
		}
	}
	resources := object{"cpu": "8", "memory": "16Gi", "pods": "200"}
	now := timestamp(time.Now())
	return n.client.Patch(ctx, MergePatch, "/api/v1/nodes/"+n.Name+"/status", object{"status": object{
		"capacity": resources, "allocatable": resources,
		"conditions": []any{object{"type": "Ready", "status": "True", "reason": "KubeletReady", "lastHeartbeatTime": now, "lastTransitionTime": now}},
		"addresses":  []any{object{"type": "InternalIP", "address": "127.0.0.1"}},
	}}, nil)
}

type object = map[string]any

func timestamp(t time.Time) string { return t.UTC().Format(time.RFC3339) }

// Image makes an image known to the node. A container that waits for it starts soon after.
func (n *Node) Image(name string, image Image) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.images[name] = image
}

// Output returns the end of what the containers of a pod have printed.
func (n *Node) Output(pod string) string {
	n.mu.Lock()
	defer n.mu.Unlock()
	if out := n.output[pod]; out != nil {
		return out.String()
	}
	return ""
}

// Close kills all pods. The objects stay; a namespace that is no longer needed is deleted before, and its pods are given
// up here.
func (n *Node) Close() error {
	n.end()
	<-n.over
	return errors.Join(n.claim.Close(), os.RemoveAll(n.dir))
}

// run follows the namespace's pods until ctx ends. While the API server is away, it goes on trying.
func (n *Node) run(ctx context.Context) {
	defer close(n.over)
	for ctx.Err() == nil {
		// The error is that of an API server which ends, or starts; the next round tries again.
		_ = watch(ctx, n.client, "/api/v1/namespaces/"+n.Namespace+"/pods", func(pods []podObject) { n.relist(ctx, pods) }, func(kind string, p podObject) { n.see(ctx, kind, p) })
		pause(ctx, 50*time.Millisecond)
	}
	for _, r := range n.all() {
		r.stop(0)
		<-r.over
	}
}

func (n *Node) all() (all []*running) {
	n.mu.Lock()
	defer n.mu.Unlock()
	for _, r := range n.pods {
		all = append(all, r)
	}
	return all
}

// relist compares the pods that run with those that there are.
func (n *Node) relist(ctx context.Context, pods []podObject) {
	there := map[string]bool{}
	for _, p := range pods {
		there[p.Metadata.UID] = true
		n.see(ctx, "ADDED", p)
	}
	for _, r := range n.all() {
		if !there[r.pod.Metadata.UID] {
			r.stop(0)
		}
	}
}

func (n *Node) see(ctx context.Context, kind string, p podObject) {
	n.mu.Lock()
	r := n.pods[p.Metadata.UID]
	n.mu.Unlock()
	deleting, over := p.Metadata.DeletionTimestamp != nil, p.Status.Phase == "Succeeded" || p.Status.Phase == "Failed"
	switch {
	case kind == "DELETED":
		if r != nil {
			r.stop(0)
		}
	case p.Spec.NodeName == "" && !deleting:
		n.bind(ctx, p)
	case p.Spec.NodeName != n.Name:
	case deleting && r == nil:
		go n.gone(ctx, p)
	case deleting:
		r.stop(time.Duration(*p.Metadata.DeletionGracePeriodSeconds) * time.Second)
	case r == nil && !over:
		n.start(ctx, p)
	}
}

// bind is the scheduler's work. If it fails, the pod is seen again in the next list.
func (n *Node) bind(ctx context.Context, p podObject) {
	_ = n.client.Do(ctx, http.MethodPost, p.path()+"/binding", object{
		"apiVersion": "v1", "kind": "Binding", "metadata": object{"name": p.Metadata.Name},
		"target": object{"apiVersion": "v1", "kind": "Node", "name": n.Name},
	}, nil)
}

// gone tells the API server that a pod's containers have ended, until it is told.
func (n *Node) gone(ctx context.Context, p podObject) {
	for ctx.Err() == nil {
		err := n.client.Do(ctx, http.MethodDelete, p.path(), object{"gracePeriodSeconds": 0, "preconditions": object{"uid": p.Metadata.UID}}, nil)
		if err == nil || Code(err) == http.StatusNotFound || Code(err) == http.StatusConflict {
			return
		}
		pause(ctx, 100*time.Millisecond)
	}
}

func (n *Node) start(ctx context.Context, p podObject) {
	n.mu.Lock()
	defer n.mu.Unlock()
	last := 1
	for n.taken[last] {
		last++
	}
	n.taken[last] = true
	out := n.output[p.Metadata.Name]
	if out == nil {
		out = &tail{}
		n.output[p.Metadata.Name] = out
	}
	r := newRunning(n, p, fmt.Sprint(n.prefix, last), out)
	n.pods[p.Metadata.UID] = r
	go func() {
		defer close(r.over)
		r.run()
		n.mu.Lock()
		delete(n.pods, p.Metadata.UID)
		delete(n.taken, last)
		n.mu.Unlock()
		n.gone(ctx, p)
	}()
}

// pause waits for d, or for the end of ctx.
func pause(ctx context.Context, d time.Duration) {
	select {
	case <-ctx.Done():
	case <-time.After(d):
	}
}
