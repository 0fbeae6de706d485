package docker

import (
	"context"
	"fmt"

	"github.com/docker/docker/api/types/events"
	"github.com/docker/docker/api/types/filters"

	"github.com/locotoki/backout/alerts"
	"github.com/locotoki/backout/remediation/docker/compose"
	"github.com/locotoki/backout/remediation/docker/fleet"
)

// Watch implements remediation.Watcher: it reports every container of the service
// that starts, or already runs, with another value of the flag than its off value.
func (a *flagOff) Watch(ctx context.Context, report func(what string)) error {
	return a.c.watch(ctx, a.target.Compose, func(r *fleet.Replica) string {
		if v := r.Variable(a.flag.Name); v != a.want() {
			return a.flag.Name + "=" + v.Value
		}
		return ""
	}, report)
}

// Watch implements remediation.Watcher: it reports every container of the service
// that starts, or already runs, from another image than the previous version's.
func (a *imageRetag) Watch(ctx context.Context, report func(what string)) error {
	f, err := a.c.Everywhere(ctx, a.target.Compose)
	if err != nil {
		return err
	}
	name, previous, err := a.c.VersionOf(ctx, f, a.image, a.version)
	if err != nil {
		return err
	}
	if previous == "" { // cleaned up: what runs cannot be held against it
		<-ctx.Done()
		return nil
	}
	return a.c.watchImage(ctx, a.target.Compose, previous, name, report)
}

// watchImage reports every container that runs another image.
func (c *Client) watchImage(ctx context.Context, t alerts.ComposeTarget, id, name string, report func(what string)) error {
	return c.watch(ctx, t, func(r *fleet.Replica) string {
		if r.Image != id {
			return fmt.Sprintf("image %s (%s), not %s", r.Config.Image, compose.ShortImage(r.Image), name)
		}
		return ""
	}, report)
}

// watch reports, until ctx ends, every container of a service that starts or
// already runs with something wrong, which is "" where nothing is.
func (c *Client) watch(ctx context.Context, t alerts.ComposeTarget, wrong func(*fleet.Replica) string, report func(what string)) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	if err := c.Agree(ctx); err != nil {
		return err
	}
	// Subscribed before the first look, so that nothing falls between.
	started, failed := c.API.Events(ctx, events.ListOptions{Filters: filters.NewArgs(
		filters.Arg("type", string(events.ContainerEventType)),
		filters.Arg("event", string(events.ActionStart)),
		filters.Arg("label", compose.LabelService+"="+t.Service),
	)})
	f, err := c.Everywhere(ctx, t)
	if err != nil {
		return err
	}
	tell := func(r *fleet.Replica) {
		if what := wrong(r); r.Running() && what != "" {
			if !fleet.SameDir(r.Folder(), f.Dir) {
				what += ", and was started from " + r.Folder()
			}
			report(fmt.Sprintf("container %s (%s) runs with %s", r.ShortName(), r.ID[:12], what))
		}
	}
	for _, r := range f.Replicas {
		tell(r)
	}
	for {
		select {
		case e := <-started:
			project := e.Actor.Attributes[compose.LabelProject]
			if f.ProjectName == "" && fleet.SameDir(e.Actor.Attributes[compose.LabelWorkingDir], f.Dir) {
				f.ProjectName = project // there was no container to tell
			}
			if f.ProjectName == "" || project != f.ProjectName {
				continue
			}
			in, err := c.API.ContainerInspect(ctx, e.Actor.ID)
			if err == nil {
				tell(&fleet.Replica{InspectResponse: in})
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
