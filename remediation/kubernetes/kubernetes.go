// Package kubernetes turns flags off and puts images back in Deployments and
// StatefulSets, and verifies what runs, through the Kubernetes API; it is the only
// package that speaks it.
//
// A flag is an environment variable of one container, or a key of a ConfigMap that the
// container takes its environment from. An image is set by its name, never by a revision:
// an older revision would also turn the flag on again.
//
// Invariants:
//   - A value is changed by one JSON patch, which tests the old value, the variable's name
//     and the image. Where somebody changed one of them, nothing is written, and the
//     object is looked at again.
//   - The patch also carries the operation's mark, in the annotation backout.dev/operation
//     of the object: patched and not rolled out is the only half-way state. Of a
//     ConfigMap, the values are written first, and then their hash into the pods' template.
//   - A patch that has no answer may be sent again: its tests fail if it has arrived.
//   - Replicas, and all else that others manage, are never named in a patch.
//   - Undo writes the old value. What somebody changed since is left alone.
//   - New pods that crash or cannot start end the operation early, while old pods serve.
package kubernetes

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net/http"
	"slices"
	"strings"
	"sync"

	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"

	"github.com/locotoki/backout/alerts"
	"github.com/locotoki/backout/hint"
	"github.com/locotoki/backout/remediation/jsonhttp"
	"github.com/locotoki/backout/remediation/probe"
	"github.com/locotoki/backout/trust"
)

// Options configures a Client.
type Options struct {
	// Kubeconfig is the path of a kubeconfig, which playbooks choose a context of; "":
	// backout runs in the cluster, as its own service account.
	Kubeconfig string
	Logger     *slog.Logger
}

// Client talks to clusters. It is safe for concurrent use.
type Client struct {
	kubeconfig string
	wrap       func(http.RoundTripper) http.RoundTripper
	probe      *probe.Client
	log        *slog.Logger

	mu       sync.Mutex
	clusters map[string]*cluster // by context
}

// New returns a client. It reads no file and does not connect: what is wrong shows when
// a target is looked at.
func New(o Options) (*Client, error) {
	if o.Logger == nil {
		return nil, errors.New("kubernetes: a logger is required")
	}
	return &Client{kubeconfig: o.Kubeconfig, log: o.Logger, probe: probe.New(), clusters: map[string]*cluster{}}, nil
}

// Close frees the connections.
func (c *Client) Close() {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, k := range c.clusters {
		k.HTTP.CloseIdleConnections()
	}
}

// Smoke asks one smoke check, once.
func (c *Client) Smoke(ctx context.Context, s alerts.SmokeCheck) error { return c.probe.Smoke(ctx, s) }

// cluster returns the cluster of a context; "" is the one that backout runs in.
func (c *Client) cluster(name string) (*cluster, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if k := c.clusters[name]; k != nil {
		return k, nil
	}
	config, err := c.config(name)
	if err != nil {
		return nil, err
	}
	config.UserAgent = fieldManager
	if c.wrap != nil {
		config.Wrap(c.wrap)
	}
	client, err := rest.HTTPClientFor(config)
	if err != nil {
		return nil, fmt.Errorf("kubernetes: context %s: %w", name, err)
	}
	base, _, err := rest.DefaultServerUrlFor(config)
	if err != nil {
		return nil, fmt.Errorf("kubernetes: context %s: %w", name, err)
	}
	k := &cluster{Server: jsonhttp.Server{Name: "the API server", Base: strings.TrimSuffix(base.String(), "/"), HTTP: client}}
	k.renew = func() (*cluster, error) {
		c.mu.Lock()
		if c.clusters[name] == k {
			delete(c.clusters, name)
			client.CloseIdleConnections()
		}
		c.mu.Unlock()
		return c.cluster(name)
	}
	c.clusters[name] = k
	return k, nil
}

// maxKubeconfig is the largest kubeconfig, in bytes.
const maxKubeconfig = 4 << 20

func (c *Client) config(name string) (*rest.Config, error) {
	switch {
	case c.kubeconfig == "" && name != "":
		return nil, hint.Add(fmt.Errorf("target.kubernetes names the context %s, and there is no kubeconfig", name),
			"kubernetes: {kubeconfig: ...} in the configuration file, or leave the context out if backout runs in the cluster")
	case c.kubeconfig == "":
		config, err := rest.InClusterConfig()
		if err != nil {
			return nil, hint.Add(fmt.Errorf("kubernetes: %w", err), "run backout in the cluster, or kubernetes: {kubeconfig: ...} in the configuration file")
		}
		return config, nil
	}
	// It holds credentials, and can name a program that fetches them.
	raw, err := trust.ReadSecret(c.kubeconfig, maxKubeconfig)
	if err != nil {
		return nil, fmt.Errorf("kubernetes.kubeconfig: %w", err)
	}
	all, err := clientcmd.Load(raw)
	if err != nil {
		return nil, fmt.Errorf("kubernetes.kubeconfig: %s: %w", c.kubeconfig, err)
	}
	if _, ok := all.Contexts[name]; !ok {
		// Its current context is not taken: a person's kubectl changes that.
		return nil, hint.Add(fmt.Errorf("%s has no context %q", c.kubeconfig, name), "target: {kubernetes: {context: ...}} with one of %s",
			strings.Join(slices.Sorted(maps.Keys(all.Contexts)), ", "))
	}
	for _, cluster := range all.Clusters {
		cluster.LocationOfOrigin = c.kubeconfig
	}
	for _, user := range all.AuthInfos {
		user.LocationOfOrigin = c.kubeconfig
	}
	if err := clientcmd.ResolveLocalPaths(all); err != nil {
		return nil, fmt.Errorf("kubernetes.kubeconfig: %w", err)
	}
	config, err := clientcmd.NewNonInteractiveClientConfig(*all, name, &clientcmd.ConfigOverrides{}, nil).ClientConfig()
	if err != nil {
		return nil, fmt.Errorf("kubernetes.kubeconfig: context %s: %w", name, err)
	}
	return config, nil
}
