package docker

import (
	"context"
	"fmt"

	"github.com/docker/docker/api/types/events"
	"github.com/docker/docker/api/types/filters"

	"github.com/locotoki/backout/alerts"
)

// WatchFlag reports every container of a compose service that starts, or already
// runs, with another value of flag than its off value, until ctx ends (nil) or
// the engine's events do (an error: call it again). It changes nothing: a flag
// that comes back on while it is held off is told, not fought. Copies that our own
// operations start are never reported, since they have the value that was meant.
func (c *Client) WatchFlag(ctx context.Context, t alerts.ComposeTarget, flag alerts.Flag, report func(container, value string)) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	// Subscribed before the first look, so that nothing falls between.
	started, failed := c.api.Events(ctx, events.ListOptions{Filters: filters.NewArgs(
		filters.Arg("type", string(events.ContainerEventType)),
		filters.Arg("event", string(events.ActionStart)),
		filters.Arg("label", labelService+"="+t.Service),
	)})
	f, err := c.survey(ctx, t)
	if err != nil {
		return err
	}
	tell := func(r *replica) {
		if v := r.variable(flag.Name); r.running() && v != (setting{flag.Off, true}) {
			report(r.name(), v.value)
		}
	}
	for _, r := range f.replicas {
		tell(r)
	}
	for {
		select {
		case e := <-started:
			dir := f.dir
			if !sameDir(e.Actor.Attributes[labelWorkingDir], dir) {
				continue
			}
			if in, err := c.api.ContainerInspect(ctx, e.Actor.ID); err == nil {
				tell(&replica{in})
			}
		case err := <-failed:
			if ctx.Err() != nil {
				return nil
			}
			return fmt.Errorf("watch containers of %s: %w", t.Service, err)
		}
	}
}

// Watch implements remediation.Watcher.
func (a *flagOff) Watch(ctx context.Context, report func(what string)) error {
	return a.c.WatchFlag(ctx, a.target.Compose, a.flag, func(container, value string) {
		report(fmt.Sprintf("container %s runs with %s=%s while it is held at %s", container, a.flag.Name, value, a.flag.Off))
	})
}
