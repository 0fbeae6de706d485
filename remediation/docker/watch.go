package docker

import (
	"context"
	"fmt"

	"github.com/docker/docker/api/types/events"
	"github.com/docker/docker/api/types/filters"
)

// Watch implements remediation.Watcher: it reports every container of the service
// that starts, or already runs, with another value of the flag than its off value.
func (a *flagOff) Watch(ctx context.Context, report func(what string)) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	if err := a.c.agree(ctx); err != nil {
		return err
	}
	// Subscribed before the first look, so that nothing falls between.
	started, failed := a.c.api.Events(ctx, events.ListOptions{Filters: filters.NewArgs(
		filters.Arg("type", string(events.ContainerEventType)),
		filters.Arg("event", string(events.ActionStart)),
		filters.Arg("label", labelService+"="+a.target.Compose.Service),
	)})
	f, err := a.survey(ctx)
	if err != nil {
		return err
	}
	tell := func(r *replica) {
		if v := r.variable(a.flag.Name); r.running() && v != a.want() {
			report(fmt.Sprintf("container %s (%s) runs with %s=%s", r.name(), r.ID[:12], a.flag.Name, v.value))
		}
	}
	for _, r := range f.replicas {
		tell(r)
	}
	for {
		select {
		case e := <-started:
			if !sameDir(e.Actor.Attributes[labelWorkingDir], f.dir) {
				continue
			}
			in, err := a.c.api.ContainerInspect(ctx, e.Actor.ID)
			if err == nil {
				tell(&replica{in})
			} else if !movedOn(err) && ctx.Err() == nil {
				return fmt.Errorf("inspect container %s: %w", e.Actor.ID, err)
			}
		case err := <-failed:
			if ctx.Err() != nil {
				return nil
			}
			return fmt.Errorf("watch containers of %s: %w", a.target.Compose.Service, err)
		}
	}
}
