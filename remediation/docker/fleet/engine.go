package fleet

import (
	"context"
	"fmt"
	"sync"
	"time"

	"github.com/containerd/errdefs"
	"github.com/docker/docker/client"

	"github.com/locotoki/backout/hint"
	"github.com/locotoki/backout/remediation/docker/projectfile"
	"github.com/locotoki/backout/remediation/probe"
)

// Engine is one Docker engine, as it is asked of a service. It is safe for concurrent use.
type Engine struct {
	API      *client.Client
	Projects projectfile.Folders // compose projects lie in them
	Probe    *probe.Client       // asks the service
	host     string

	agreeing sync.Mutex
	agreed   bool
}

// NewEngine returns the engine behind api, whose address is host, for projects in the given
// folders.
func NewEngine(api *client.Client, host string, projects projectfile.Folders) *Engine {
	return &Engine{API: api, host: host, Projects: projects, Probe: probe.New()}
}

// Agree settles on an API version with the engine, once. The library would do so
// in its first call, where another call at the same time reads the version that
// it writes.
func (c *Engine) Agree(ctx context.Context) error {
	c.agreeing.Lock()
	defer c.agreeing.Unlock()
	if c.agreed {
		return nil
	}
	ping, err := c.API.Ping(ctx)
	if err != nil {
		return hint.Add(fmt.Errorf("reach the docker engine: %w", err), "docker: {host: ...} in the configuration file")
	}
	c.API.NegotiateAPIVersionPing(ping)
	c.agreed = true
	return nil
}

// ImageID returns the id of the image that a name or an id stands for, or "".
func (c *Engine) ImageID(ctx context.Context, name string) (string, error) {
	img, err := c.API.ImageInspect(ctx, name)
	if errdefs.IsNotFound(err) {
		return "", nil
	}
	if err != nil {
		return "", fmt.Errorf("inspect image %s: %w", name, err)
	}
	return img.ID, nil
}

// Wait returns false if ctx ended first.
func Wait(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-t.C:
		return true
	}
}
