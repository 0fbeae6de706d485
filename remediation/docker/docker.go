// Package docker switches flags off in compose projects, puts their previous
// images back, and verifies what runs, through the Docker Engine API; only it and
// the packages below it know Docker.
//
// A flag is an environment variable of a compose service. It is written first
// where it lasts (the project's .env, and an override file where a literal or
// the operator's shell would win over .env) and then in what runs: each replica
// is replaced by a copy of itself that differs in the one variable only. An image
// is put back by its tag first, and then by copies that differ in the image and in
// what images bring along.
//
// cmd/backout makes the Client; remediation/action makes its actions into kinds of steps.
// What changes a container is here. What only looks is in fleet (containers), compose (the
// project's definition) and projectfile (.env and the override file).
//
// Invariants:
//   - Nothing outside of the configured project folders is read or written.
//   - The files are written, and the tag is moved, before the first container is
//     touched, so that a person's docker-compose up -d at any moment ends with the
//     flag off, and with the previous image.
//   - An image that is displaced keeps a tag of its own.
//   - A replica is set aside, stopped and kept, until every replica's copy has
//     been seen to work; then it is removed, but never its volumes.
//   - A copy carries labels that name the operation and what it replaces. From
//     these and the two names every half-way state is told apart; any of them
//     can be rolled forward or undone.
//   - What cannot be copied faithfully is refused before anything is changed.
package docker

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"path/filepath"

	"github.com/containerd/errdefs"
	"github.com/docker/docker/client"
	"github.com/docker/go-connections/sockets"
	"github.com/sirupsen/logrus"

	"github.com/locotoki/backout/hint"
	"github.com/locotoki/backout/remediation"
	"github.com/locotoki/backout/remediation/docker/compose"
	"github.com/locotoki/backout/remediation/docker/fleet"
)

// Options configures a Client.
type Options struct {
	// Host is the engine's address, such as unix:///var/run/docker.sock.
	Host string
	// Projects are the folders that compose projects may lie in; a project
	// outside of all of them is refused.
	Projects []string
	// Environ is the process's environment. The operator's compose tool gets its
	// PATH, HOME and DOCKER_ variables, and nothing else of it.
	Environ []string
	Logger  *slog.Logger
}

// Client talks to one Docker engine. It is safe for concurrent use.
type Client struct {
	*fleet.Engine
	cli *compose.CLI
	log *slog.Logger
}

// New returns a client. It does not connect: an engine that is down shows when a target
// is inspected.
func New(o Options) (*Client, error) {
	return newClient(o, func(rt http.RoundTripper) http.RoundTripper { return rt })
}

func newClient(o Options, wrap func(http.RoundTripper) http.RoundTripper) (*Client, error) {
	if o.Logger == nil {
		return nil, errors.New("docker: a logger is required")
	}
	for _, p := range o.Projects {
		if !filepath.IsAbs(p) || filepath.Clean(p) == "/" {
			return nil, hint.Add(fmt.Errorf("docker.projects: %q is not an absolute path of a folder", p), "/srv/social-intel")
		}
	}
	u, err := client.ParseHostURL(o.Host)
	if err != nil {
		return nil, hint.Add(fmt.Errorf("docker.host %q: %w", o.Host, err), "unix:///var/run/docker.sock")
	}
	// compose-go warns there, of each variable that is not set.
	logrus.SetOutput(io.Discard)
	transport := &http.Transport{}
	if err := sockets.ConfigureTransport(transport, u.Scheme, u.Host); err != nil {
		return nil, fmt.Errorf("docker.host %q: %w", o.Host, err)
	}
	api, err := client.NewClientWithOpts(
		client.WithHost(o.Host),
		client.WithHTTPClient(&http.Client{Transport: wrap(transport), CheckRedirect: client.CheckRedirect}),
		client.WithAPIVersionNegotiation(),
	)
	if err != nil {
		return nil, fmt.Errorf("docker.host %q: %w", o.Host, err)
	}
	return &Client{Engine: fleet.NewEngine(api, o.Host, o.Projects), cli: &compose.CLI{Host: o.Host, Environ: o.Environ, Log: o.Logger}, log: o.Logger}, nil
}

// Close waits for what runs in the background, at most hashTimeout, and frees
// the client's connections.
func (c *Client) Close() error {
	c.cli.Wait()
	return c.API.Close()
}

// doubtful marks an error after which it is not known whether the engine did
// what it was asked: it gave no answer. An answer that says no leaves no doubt.
func doubtful(ctx context.Context, err error) error {
	if err == nil {
		return nil
	}
	if ctx.Err() != nil {
		return remediation.InDoubt(fmt.Errorf("%w: %w", err, ctx.Err()))
	}
	return fleet.Unseen(err)
}

// movedOn tells that something else changed the containers between our look and
// our call: look again.
func movedOn(err error) bool { return errdefs.IsNotFound(err) || errdefs.IsConflict(err) }
