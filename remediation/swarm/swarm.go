// Package swarm turns flags off and puts images back in services of a Docker Swarm, and
// verifies what runs, through the Engine API of a manager.
//
// A flag is an environment variable of the service. It is written first where it lasts:
// docker stack deploy applies the stack file's values again, and reads no .env, so the
// file that gives the stack file its variables is changed, and then the service. An image
// is set by its name, in both.
//
// Invariants:
//   - Nothing outside of the configured project folders is read or written.
//   - The file is written before the service, so that a person's docker stack deploy at any
//     moment ends with the flag off, and with the previous image. A value that the stack
//     file decides itself is refused, with file and line.
//   - One update of the service carries the value and the operation's mark, in the label
//     backout.dev/operation. It names the version of the service that was seen: where
//     somebody changed the service since, nothing is written, and it is looked at again.
//   - An unchanged spec is never sent: it would make the previous spec the current one.
//   - The whole spec is sent as it was read, unknown fields too, but for what is changed.
//   - Where an update hangs on a task of a lost node, another one changes a label alone, which
//     ends it. Swarm's previous spec then has our value too. A task is given the time that Swarm
//     needs to replace it, so that a lost node undoes nothing.
//   - Undo writes the old value, and never asks Swarm for the previous spec: twice, that
//     goes forward again, and it is whatever the last update replaced.
//   - Success means that Swarm calls the update completed, that the value is still ours,
//     and that every task serves it. A rollback by Swarm itself is a failure.
package swarm

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/url"
	"path/filepath"
	"sync"

	"github.com/docker/go-connections/sockets"

	"github.com/locotoki/backout/alerts"
	"github.com/locotoki/backout/hint"
	"github.com/locotoki/backout/remediation/docker/projectfile"
	"github.com/locotoki/backout/remediation/jsonhttp"
	"github.com/locotoki/backout/remediation/probe"
)

// Options configures a Client.
type Options struct {
	// Host is the address of an engine that is a manager, such as
	// unix:///var/run/docker.sock.
	Host string
	// Projects are the folders that stack files and env files may lie in: absolute paths.
	Projects []string
	Logger   *slog.Logger
}

// Client talks to the manager of a Swarm. It is safe for concurrent use.
type Client struct {
	server jsonhttp.Server
	files  projectfile.Folders
	probe  *probe.Client
	log    *slog.Logger

	mu      sync.Mutex
	version string // of the API, "" until it is known
}

// New returns a client. It does not connect: what is wrong shows when a target is looked
// at.
func New(o Options) (*Client, error) {
	return newClient(o, func(rt http.RoundTripper) http.RoundTripper { return rt })
}

func newClient(o Options, wrap func(http.RoundTripper) http.RoundTripper) (*Client, error) {
	if o.Logger == nil {
		return nil, errors.New("swarm: a logger is required")
	}
	for _, p := range o.Projects {
		if !filepath.IsAbs(p) || filepath.Clean(p) == "/" {
			return nil, hint.Add(fmt.Errorf("docker.projects: %q is not an absolute path of a folder", p), "/srv/shop")
		}
	}
	u, err := url.Parse(o.Host)
	if err != nil || u.Scheme == "" {
		return nil, hint.Add(fmt.Errorf("docker.host %q is not an address", o.Host), "unix:///var/run/docker.sock")
	}
	c := &Client{files: o.Projects, probe: probe.New(), log: o.Logger}
	c.server = jsonhttp.Server{Name: "the Docker engine", Base: "http://" + u.Host}
	address := u.Host
	if u.Scheme == "unix" {
		c.server.Base, address = "http://docker", u.Path
	}
	transport := &http.Transport{}
	if err := sockets.ConfigureTransport(transport, u.Scheme, address); err != nil {
		return nil, fmt.Errorf("docker.host %q: %w", o.Host, err)
	}
	c.server.HTTP = &http.Client{Transport: wrap(transport)}
	return c, nil
}

// Close frees the connections.
func (c *Client) Close() { c.server.HTTP.CloseIdleConnections() }

// Smoke asks one smoke check, once.
func (c *Client) Smoke(ctx context.Context, s alerts.SmokeCheck) error { return c.probe.Smoke(ctx, s) }
