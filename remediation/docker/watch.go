package docker

import (
	"context"
	"fmt"

	"github.com/docker/docker/api/types/events"
	"github.com/docker/docker/api/types/filters"

	"github.com/locotoki/backout/alerts"
)

// Watch implements remediation.Watcher: it reports every container of the service
// that starts, or already runs, with another value of the flag than its off value.
func (a *flagOff) Watch(ctx context.Context, report func(what string)) error {
	return a.c.watch(ctx, a.target.Compose, func(r *replica) string {
		if v := r.variable(a.flag.Name); v != a.want() {
			return a.flag.Name + "=" + v.value
		}
		return ""
	}, report)
}

// Watch implements remediation.Watcher: it reports every container of the service
// that starts, or already runs, from another image than the previous version's.
func (a *imageRetag) Watch(ctx context.Context, report func(what string)) error {
	f, err := a.c.survey(ctx, a.target.Compose)
	if err != nil {
		return err
	}
	name, previous, err := a.c.versionOf(ctx, f, a.image, a.version)
	if err != nil {
		return err
	}
	if previous == "" { // cleaned up: what runs cannot be held against it
		<-ctx.Done()
		return nil
	}
	return a.c.watch(ctx, a.target.Compose, func(r *replica) string {
		if r.Image != previous {
			return fmt.Sprintf("image %s (%s), not %s", r.Config.Image, shortImage(r.Image), name)
		}
		return ""
	}, report)
}

// watch reports, until ctx ends, every container of a service that starts or
// already runs with something wrong, which is "" where nothing is.
func (c *Client) watch(ctx context.Context, t alerts.ComposeTarget, wrong func(*replica) string, report func(what string)) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	if err := c.agree(ctx); err != nil {
		return err
	}
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
		if what := wrong(r); r.running() && what != "" {
			report(fmt.Sprintf("container %s (%s) runs with %s", r.name(), r.ID[:12], what))
		}
	}
	for _, r := range f.replicas {
		tell(r)
	}
	for {
		select {
		case e := <-started:
			other := f.project != "" && e.Actor.Attributes[labelProject] != f.project
			if other || !sameDir(e.Actor.Attributes[labelWorkingDir], f.dir) {
				continue
			}
			in, err := c.api.ContainerInspect(ctx, e.Actor.ID)
			if err == nil {
				tell(&replica{in})
			} else if !movedOn(err) && ctx.Err() == nil {
				return fmt.Errorf("inspect container %s: %w", e.Actor.ID, err)
			}
		case err := <-failed:
			if ctx.Err() != nil {
				return nil
			}
			return fmt.Errorf("watch containers of %s: %w", t.Service, err)
		}
	}
}
