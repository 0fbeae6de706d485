package docker

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	"github.com/containerd/errdefs"
	"github.com/docker/docker/api/types/container"
	"github.com/docker/docker/api/types/filters"

	"github.com/locotoki/backout/alerts"
	"github.com/locotoki/backout/hint"
)

// Compose's labels.
const (
	labelsOfCompose  = "com.docker.compose."
	labelProject     = "com.docker.compose.project"
	labelService     = "com.docker.compose.service"
	labelWorkingDir  = "com.docker.compose.project.working_dir"
	labelConfigFiles = "com.docker.compose.project.config_files"
	labelEnvFile     = "com.docker.compose.project.environment_file"
	labelConfigHash  = "com.docker.compose.config-hash"
	labelOneOff      = "com.docker.compose.oneoff"
	labelVersion     = "com.docker.compose.version"
	labelOfImage     = "com.docker.compose.image" // the image's id, as of its second generation on
)

// Our labels, on a copy: the operation, the id of what it replaces, the name
// that it is to take, and the image of what it replaces.
const (
	labelOperation = "backout.operation"
	labelReplaces  = "backout.replaces"
	labelName      = "backout.name"
	labelImage     = "backout.image"
)

// replica is one container of a compose service, as inspected.
type replica struct {
	container.InspectResponse
}

func (r *replica) name() string           { return strings.TrimPrefix(r.Name, "/") }
func (r *replica) label(k string) string  { return r.Config.Labels[k] }
func (r *replica) running() bool          { return r.State.Running || r.State.Restarting }
func (r *replica) ownedBy(op string) bool { return r.label(labelOperation) == op }

// up reports whether it serves: it runs, was not seen unhealthy, and is neither
// paused nor between two restarts.
func (r *replica) up() bool {
	return r.State.Running && !r.State.Restarting && !r.State.Paused && r.health() != container.Unhealthy
}

// health is its own healthcheck's word, "" where it has none.
func (r *replica) health() string {
	if h := r.State.Health; h != nil && h.Status != container.NoHealthcheck {
		return h.Status
	}
	return ""
}

// stands is its state in a word: the engine's, or unhealthy.
func (r *replica) stands() string {
	if r.State.Status == container.StateRunning && r.health() == container.Unhealthy {
		return r.health()
	}
	return r.State.Status
}

// setAsideName is the name of what some operation set aside.
var setAsideName = regexp.MustCompile(`_backout_old_[0-9a-f]{8}$`)

// stray is what an operation that was cut off left next to the service: an original
// that was set aside, or a copy that never came to its place. It is not a replica.
func (r *replica) stray() bool {
	return !r.running() && (setAsideName.MatchString(r.name()) || r.label(labelName) != "" && r.name() != r.label(labelName))
}

// restartsBy compares restart policies; the engine takes none by two names.
func (r *replica) restartsBy(p container.RestartPolicy) bool {
	now := r.HostConfig.RestartPolicy
	return now == p || now.IsNone() && p.IsNone()
}

// variable returns what the container's environment holds for name.
func (r *replica) variable(name string) setting {
	var s setting
	for _, kv := range r.Config.Env {
		if k, v, _ := strings.Cut(kv, "="); k == name {
			s = setting{v, true}
		}
	}
	return s
}

// fleet is all containers of one compose service, in any state, by name; and the
// copies and the set-aside ones of an operation among them.
type fleet struct {
	dir      string
	project  string // its name; "": no container tells
	service  string
	replicas []*replica
}

func (f *fleet) byID(id string) *replica {
	for _, r := range f.replicas {
		if r.ID == id {
			return r
		}
	}
	return nil
}

func (f *fleet) byName(name string) *replica {
	for _, r := range f.replicas {
		if r.name() == name {
			return r
		}
	}
	return nil
}

// copyOf returns the operation's copy of a container, or nil.
func (f *fleet) copyOf(op, id string) *replica {
	for _, r := range f.replicas {
		if r.ownedBy(op) && r.label(labelReplaces) == id {
			return r
		}
	}
	return nil
}

// members returns the replicas of the service, in any state.
func (f *fleet) members() []*replica {
	return slices.DeleteFunc(slices.Clone(f.replicas), (*replica).stray)
}

// down returns the first replica that does not run, or nil.
func (f *fleet) down() *replica {
	for _, r := range f.members() {
		if !r.running() {
			return r
		}
	}
	return nil
}

// due returns the replicas that an operation is still to replace: those that are
// due, and those that do not run, which are replaced to start them. A copy of its
// own that ended is not cured by another one.
func (f *fleet) due(op string, due func(*replica) bool) []*replica {
	var all []*replica
	for _, r := range f.members() {
		down := !r.running() && !r.ownedBy(op)
		if (down || r.running() && due(r)) && f.copyOf(op, r.ID) == nil {
			all = append(all, r)
		}
	}
	return all
}

// leftovers returns the copies of an operation that was cut off: not started yet,
// not under their name, or with what they replace still there.
func (f *fleet) leftovers(op string) []*replica {
	var all []*replica
	for _, r := range f.replicas {
		if r.ownedBy(op) && (f.byID(r.label(labelReplaces)) != nil || r.name() != r.label(labelName) || r.State.Status == "created") {
			all = append(all, r)
		}
	}
	return all
}

// survey finds a service's containers.
func (c *Client) survey(ctx context.Context, t alerts.ComposeTarget) (*fleet, error) {
	dir, err := c.files.Allowed(t.ProjectDir)
	if err != nil {
		return nil, fmt.Errorf("compose project: %w", err)
	}
	if err := c.agree(ctx); err != nil {
		return nil, err
	}
	f := &fleet{dir: dir, project: t.Project, service: t.Service}
	list, err := c.api.ContainerList(ctx, container.ListOptions{
		All: true, Filters: filters.NewArgs(filters.Arg("label", labelService+"="+t.Service)),
	})
	if err != nil {
		return nil, fmt.Errorf("list containers of %s: %w", t.Service, err)
	}
	for _, s := range list {
		other := t.Project != "" && s.Labels[labelProject] != t.Project
		if strings.EqualFold(s.Labels[labelOneOff], "true") || other || !sameDir(s.Labels[labelWorkingDir], dir) {
			continue
		}
		in, err := c.api.ContainerInspect(ctx, s.ID)
		if errdefs.IsNotFound(err) {
			continue // it went between the list and now
		}
		if err != nil {
			return nil, fmt.Errorf("inspect container %s: %w", s.ID, err)
		}
		f.replicas = append(f.replicas, &replica{in})
	}
	slices.SortFunc(f.replicas, func(a, b *replica) int { return strings.Compare(a.Name, b.Name) })
	if len(f.replicas) > 0 {
		f.project = f.replicas[0].label(labelProject)
	}
	return f, oneProject(t, f.replicas)
}

// found is the survey of a service that has a container; without one nothing can be
// done to it, and nothing said of it.
func (c *Client) found(ctx context.Context, t alerts.ComposeTarget) (*fleet, error) {
	f, err := c.survey(ctx, t)
	if err == nil && len(f.members()) == 0 {
		err = c.absent(ctx, f)
	}
	return f, err
}

// foundBy is found for an operation, of whose way containers that are out of their
// place are a part.
func (c *Client) foundBy(op string) func(context.Context, alerts.ComposeTarget) (*fleet, error) {
	return func(ctx context.Context, t alerts.ComposeTarget) (*fleet, error) {
		f, err := c.survey(ctx, t)
		if err == nil && len(f.members()) == 0 && !f.touchedBy(op) {
			err = c.absent(ctx, f)
		}
		return f, err
	}
}

// touchedBy reports whether a container is an operation's, or its undo's.
func (f *fleet) touchedBy(op string) bool {
	return slices.ContainsFunc(f.replicas, func(r *replica) bool { return r.ownedBy(op) || r.ownedBy(undoing(op)) })
}

// errAbsent: the engine has no container of the service.
var errAbsent = errors.New("no container")

// maxNamed bounds the places that an error names.
const maxNamed = 5

// absent says that a service has no container, and where containers of its name, or
// of its project, are.
func (c *Client) absent(ctx context.Context, f *fleet) error {
	list, err := c.api.ContainerList(ctx, container.ListOptions{All: true})
	if err != nil {
		return fmt.Errorf("list containers: %w", err)
	}
	var elsewhere, beside, swarm []string
	try := fmt.Sprintf("docker-compose up -d %s in %s, or docker: {host: ...} in the configuration file, if another engine runs it", f.service, f.dir)
	for _, s := range list {
		service, dir := s.Labels[labelService], s.Labels[labelWorkingDir]
		stack := s.Labels["com.docker.swarm.service.name"]
		switch {
		case strings.EqualFold(s.Labels[labelOneOff], "true"):
		case service == f.service && !sameDir(dir, f.dir):
			elsewhere = append(elsewhere, fmt.Sprintf("project %s of the folder %s", s.Labels[labelProject], dir))
			try = fmt.Sprintf("target: {compose: {project_dir: %s}} in the playbook, and that folder under docker: {projects: ...}, or docker-compose up -d %s in %s", dir, f.service, f.dir)
		case service != "" && sameDir(dir, f.dir):
			beside = append(beside, service)
		case stack != "" && (stack == f.service || strings.HasSuffix(stack, "_"+f.service)):
			swarm = append(swarm, stack)
		}
	}
	where := "this engine has no container of that name"
	one := func(what []string) string {
		slices.Sort(what)
		if what = slices.Compact(what); len(what) > maxNamed {
			what = append(what[:maxNamed:maxNamed], fmt.Sprintf("and %d more", len(what)-maxNamed))
		}
		return strings.Join(what, ", ")
	}
	switch {
	case len(elsewhere) > 0:
		where = "a service " + f.service + " is in " + one(elsewhere)
	case len(swarm) > 0:
		where, try = "it is the swarm service "+one(swarm), "docker service update; backout acts on compose projects only"
	case len(beside) > 0:
		where, try = "that project has containers of "+one(beside), fmt.Sprintf("target: {compose: {service: ...}} with one of them, or docker-compose up -d %s", f.service)
	}
	return hint.Add(fmt.Errorf("%w of service %s of the project in %s: %s", errAbsent, f.service, f.dir, where), "%s", try)
}

func sameDir(label, dir string) bool {
	if label == "" || !filepath.IsAbs(label) {
		return false
	}
	real, err := filepath.EvalSymlinks(label)
	return err == nil && real == dir
}

// refuse says why a container cannot be copied faithfully, or returns nil.
func (c *Client) refuse(ctx context.Context, replicas []*replica) error {
	if len(replicas) == 0 {
		return nil
	}
	for _, r := range replicas {
		if err := r.shape(); err != nil {
			return fmt.Errorf("container %s cannot be recreated: %w", r.name(), err)
		}
	}
	return c.shared(ctx, replicas)
}

// shared says who shares a namespace with a container that is to be replaced: it would
// be left with the dead one's.
func (c *Client) shared(ctx context.Context, replicas []*replica) error {
	all, err := c.api.ContainerList(ctx, container.ListOptions{All: true})
	if err != nil {
		return fmt.Errorf("list containers: %w", err)
	}
	for _, s := range all {
		if slices.ContainsFunc(replicas, func(r *replica) bool { return r.ID == s.ID }) {
			continue
		}
		in, err := c.api.ContainerInspect(ctx, s.ID)
		if errdefs.IsNotFound(err) {
			continue
		}
		if err != nil {
			return fmt.Errorf("inspect container %s: %w", s.ID, err)
		}
		for _, r := range replicas {
			if dependsOn(in.HostConfig, r) {
				return hint.Add(fmt.Errorf("container %s cannot be recreated: %s shares a namespace with it or links to it", r.name(), strings.TrimPrefix(in.Name, "/")),
					"docker-compose up -d, which recreates both")
			}
		}
	}
	return nil
}

// shape says what of the container itself a copy could not have.
func (r *replica) shape() error {
	h := r.HostConfig
	switch {
	case r.label("com.docker.swarm.task.id") != "":
		return hint.Add(errors.New("it is a task of a swarm service"), "docker service update")
	case h.NetworkMode.IsContainer():
		return hint.Add(fmt.Errorf("it uses another container's network (%s)", h.NetworkMode), "docker-compose up -d")
	case h.PidMode.IsContainer():
		return hint.Add(fmt.Errorf("it uses another container's process ids (%s)", h.PidMode), "docker-compose up -d")
	case h.IpcMode.IsContainer():
		return hint.Add(fmt.Errorf("it uses another container's IPC (%s)", h.IpcMode), "docker-compose up -d")
	case len(h.Links) > 0:
		return hint.Add(errors.New("it has legacy links"), "a network of its own for the project")
	case h.AutoRemove:
		return fmt.Errorf("it removes itself when it stops (--rm), so it could not be put back")
	case r.State.Paused:
		return hint.Add(errors.New("it is paused"), "docker unpause %s", r.name())
	}
	return nil
}

func dependsOn(h *container.HostConfig, r *replica) bool {
	named := func(mode string) bool {
		who, ok := strings.CutPrefix(mode, "container:")
		return ok && (who == r.name() || len(who) >= 12 && strings.HasPrefix(r.ID, who))
	}
	if named(string(h.NetworkMode)) || named(string(h.PidMode)) || named(string(h.IpcMode)) {
		return true
	}
	return slices.ContainsFunc(h.Links, func(l string) bool { return strings.HasPrefix(l, r.Name+":") })
}
