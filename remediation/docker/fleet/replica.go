package fleet

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	"github.com/containerd/errdefs"
	"github.com/docker/docker/api/types/container"
	"github.com/docker/docker/api/types/filters"
	"github.com/docker/docker/api/types/mount"

	"github.com/locotoki/backout/alerts"
	"github.com/locotoki/backout/hint"
	"github.com/locotoki/backout/remediation"
	"github.com/locotoki/backout/remediation/docker/compose"
	"github.com/locotoki/backout/remediation/docker/projectfile"
)

// Our labels, on a copy: the operation, the id of what it replaces, the name
// that it is to take, and the image of what it replaces.
const (
	LabelOperation = "backout.operation"
	LabelReplaces  = "backout.replaces"
	LabelName      = "backout.name"
	LabelImage     = "backout.image"
)

// DisplacedTag begins the tag that keeps an image which an operation displaced:
// REPO:backout-displaced-IMAGE-OPERATION, twelve and eight digits. Prune takes no
// image that has a name.
const DisplacedTag = "backout-displaced-"

// Undoing is the operation that recreates what an operation removed.
func Undoing(op string) string { return op + "/undo" }

// Replica is one container of a compose service, as inspected.
type Replica struct {
	container.InspectResponse
}

// ShortName is the container's name without Docker's slash.
func (r *Replica) ShortName() string { return strings.TrimPrefix(r.Name, "/") }

// Label is the value of a container's label, or "".
func (r *Replica) Label(k string) string { return r.Config.Labels[k] }

// Folder is the one that compose started the container from.
func (r *Replica) Folder() string { return r.Label(compose.LabelWorkingDir) }

// startedFrom reports whether that is dir.
func (r *Replica) startedFrom(dir string) bool { return SameDir(r.Folder(), dir) }

// Running reports whether the container runs or is being restarted.
func (r *Replica) Running() bool { return r.State.Running || r.State.Restarting }

// OwnedBy reports whether the operation op made the container.
func (r *Replica) OwnedBy(op string) bool { return r.Label(LabelOperation) == op }

// up reports whether it serves: it runs, was not seen unhealthy, and is neither
// paused nor between two restarts.
func (r *Replica) up() bool {
	return r.State.Running && !r.State.Restarting && !r.State.Paused && r.Health() != container.Unhealthy
}

// Health is its own healthcheck's word, "" where it has none.
func (r *Replica) Health() string {
	if h := r.State.Health; h != nil && h.Status != container.NoHealthcheck {
		return h.Status
	}
	return ""
}

// stands is its state in a word: the engine's, or unhealthy.
func (r *Replica) stands() string {
	if r.State.Status == container.StateRunning && r.Health() == container.Unhealthy {
		return r.Health()
	}
	return r.State.Status
}

// setAsideName is the name of what some operation set aside.
var setAsideName = regexp.MustCompile(`_backout_old_[0-9a-f]{8}$`)

// stray is what an operation that was cut off left next to the service: an original
// that was set aside, or a copy that never came to its place. It is not a replica.
func (r *Replica) stray() bool {
	return !r.Running() && (setAsideName.MatchString(r.ShortName()) || r.Label(LabelName) != "" && r.ShortName() != r.Label(LabelName))
}

// RestartsBy compares restart policies; the engine takes none by two names.
func (r *Replica) RestartsBy(p container.RestartPolicy) bool {
	now := r.HostConfig.RestartPolicy
	return now == p || now.IsNone() && p.IsNone()
}

// Variable returns what the container's environment holds for name.
func (r *Replica) Variable(name string) compose.Setting {
	var s compose.Setting
	for _, kv := range r.Config.Env {
		if k, v, _ := strings.Cut(kv, "="); k == name {
			s = compose.Setting{Value: v, Set: true}
		}
	}
	return s
}

// Fleet is all containers of one compose service, in any state, by name; and the
// copies and the set-aside ones of an operation among them.
type Fleet struct {
	Folders     projectfile.Folders
	Dir         string
	ProjectName string // its name; "": no container tells
	Service     string
	Replicas    []*Replica
	// others are the project's that were started from another folder, where Replicas are not all of them.
	others []*Replica
}

// ByID returns the replica with a container's id, or nil.
func (f *Fleet) ByID(id string) *Replica {
	for _, r := range f.Replicas {
		if r.ID == id {
			return r
		}
	}
	return nil
}

// ByName returns the replica with a container's name, or nil.
func (f *Fleet) ByName(name string) *Replica {
	for _, r := range f.Replicas {
		if r.ShortName() == name {
			return r
		}
	}
	return nil
}

// copyOf returns the operation's copy of a container, or nil.
func (f *Fleet) copyOf(op, id string) *Replica {
	for _, r := range f.Replicas {
		if r.OwnedBy(op) && r.Label(LabelReplaces) == id {
			return r
		}
	}
	return nil
}

// Members returns the replicas of the service, in any state.
func (f *Fleet) Members() []*Replica {
	return slices.DeleteFunc(slices.Clone(f.Replicas), (*Replica).stray)
}

// Down returns the first replica that does not run, or nil.
func (f *Fleet) Down() *Replica {
	for _, r := range f.Members() {
		if !r.Running() {
			return r
		}
	}
	return nil
}

// Due returns the replicas that an operation is still to replace: those that are
// due, and those that do not run, which are replaced to start them. A copy of its
// own that ended is not cured by another one.
func (f *Fleet) Due(op string, due func(*Replica) bool) []*Replica {
	var all []*Replica
	for _, r := range f.Members() {
		down := !r.Running() && !r.OwnedBy(op)
		if (down || r.Running() && due(r)) && f.copyOf(op, r.ID) == nil {
			all = append(all, r)
		}
	}
	return all
}

// Leftovers returns the copies of an operation that was cut off: not started yet,
// not under their name, or with what they replace still there.
func (f *Fleet) Leftovers(op string) []*Replica {
	var all []*Replica
	for _, r := range f.Replicas {
		if r.OwnedBy(op) && (f.ByID(r.Label(LabelReplaces)) != nil || r.ShortName() != r.Label(LabelName) || r.State.Status == "created") {
			all = append(all, r)
		}
	}
	return all
}

// Survey finds a service's containers that were started from the target's folder, and refuses those of several
// projects. An operation that has begun takes it: what is started from another folder meanwhile must not keep half
// of its way.
func (c *Engine) Survey(ctx context.Context, t alerts.ComposeTarget) (*Fleet, error) {
	f, err := c.Everywhere(ctx, t)
	if err != nil {
		return nil, err
	}
	all := f.Replicas
	f.Replicas = nil
	for _, r := range all {
		if r.startedFrom(f.Dir) {
			f.Replicas = append(f.Replicas, r)
		} else {
			f.others = append(f.others, r)
		}
	}
	return f, nil
}

// Whole is Survey for an operation that is to begin: it refuses containers of several folders.
func (c *Engine) Whole(ctx context.Context, t alerts.ComposeTarget) (*Fleet, error) {
	f, err := c.Survey(ctx, t)
	if err == nil {
		err = f.OneFolder()
	}
	return f, err
}

// FoundWhole is Whole for a service that has a container.
func (c *Engine) FoundWhole(ctx context.Context, t alerts.ComposeTarget) (*Fleet, error) {
	f, err := c.Whole(ctx, t)
	if err == nil && len(f.Members()) == 0 {
		err = c.absent(ctx, f)
	}
	return f, err
}

// Everywhere is Survey for who only looks: where containers of the project were started from
// another folder too, they are among the replicas. To compose they are the project's own:
// it knows a project by its name, and recreates a container only if its config hash differs.
func (c *Engine) Everywhere(ctx context.Context, t alerts.ComposeTarget) (*Fleet, error) {
	dir, err := c.Projects.Allowed(t.ProjectDir)
	if err != nil {
		return nil, fmt.Errorf("compose project: %w", err)
	}
	if err := c.Agree(ctx); err != nil {
		return nil, err
	}
	f := &Fleet{Folders: c.Projects, Dir: dir, ProjectName: t.Project, Service: t.Service}
	list, err := c.API.ContainerList(ctx, container.ListOptions{
		All: true, Filters: filters.NewArgs(filters.Arg("label", compose.LabelService+"="+t.Service)),
	})
	if err != nil {
		return nil, fmt.Errorf("list containers of %s: %w", t.Service, err)
	}
	list = slices.DeleteFunc(list, func(s container.Summary) bool {
		return strings.EqualFold(s.Labels[compose.LabelOneOff], "true") || t.Project != "" && s.Labels[compose.LabelProject] != t.Project
	})
	projects := map[string]bool{} // that have a container of the folder
	for _, s := range list {
		if SameDir(s.Labels[compose.LabelWorkingDir], dir) {
			projects[s.Labels[compose.LabelProject]] = true
		}
	}
	for _, s := range list {
		if !projects[s.Labels[compose.LabelProject]] {
			continue
		}
		in, err := c.API.ContainerInspect(ctx, s.ID)
		if errdefs.IsNotFound(err) {
			continue // it went between the list and now
		}
		if err != nil {
			return nil, fmt.Errorf("inspect container %s: %w", s.ID, err)
		}
		if r := (&Replica{in}); r.startedFrom(dir) || !r.stray() {
			f.Replicas = append(f.Replicas, r)
		}
	}
	slices.SortFunc(f.Replicas, func(a, b *Replica) int { return strings.Compare(a.Name, b.Name) })
	if len(f.Replicas) > 0 {
		f.ProjectName = f.Replicas[0].Label(compose.LabelProject)
	}
	return f, oneProject(t, f.Replicas)
}

// oneProject says which projects a folder's containers of a service belong to, where
// that is more than one and the playbook does not say which of them it means.
func oneProject(t alerts.ComposeTarget, replicas []*Replica) error {
	names := map[string]bool{}
	for _, r := range replicas {
		names[r.Label(compose.LabelProject)] = true
	}
	if len(names) < 2 {
		return nil
	}
	all := slices.Sorted(maps.Keys(names))
	return hint.Add(fmt.Errorf("%s has containers of service %s in %d projects: %s", t.ProjectDir, t.Service, len(all), strings.Join(all, ", ")),
		"target: {compose: {project: %s}} in the playbook, with the right one", all[0])
}

// OneFolder says, of a Survey, from which folders a service's containers were started, where that is not only the target's:
// what is written into its files would not last for the others.
func (f *Fleet) OneFolder() error {
	if len(f.others) == 0 {
		return nil
	}
	folders := map[string]bool{}
	running := 0
	for _, r := range slices.Concat(f.Members(), f.others) {
		if r.Running() {
			running++
		}
	}
	for _, r := range f.others {
		folders[r.Folder()] = true
	}
	all := append([]string{f.Dir}, slices.Sorted(maps.Keys(folders))...)
	return hint.Add(fmt.Errorf("project %s has containers of service %s that were started from %d folders: %s", f.ProjectName, f.Service, len(all), strings.Join(all, ", ")),
		"docker-compose -p %s up -d --force-recreate --scale %s=%d %s in %s, so that all are started from there", f.ProjectName, f.Service, max(running, 1), f.Service, f.Dir)
}

// Project finds the project's files, as its newest container that was started there names them.
func (f *Fleet) Project() (compose.Project, error) {
	var newest *Replica
	for _, r := range f.Replicas {
		if r.startedFrom(f.Dir) && (newest == nil || r.Created > newest.Created) {
			newest = r
		}
	}
	if newest == nil {
		return compose.Locate(f.Folders, f.Dir, f.ProjectName, nil)
	}
	return compose.Locate(f.Folders, f.Dir, f.ProjectName, newest.Config.Labels)
}

// Definition is what the project's files say of the service.
func (f *Fleet) Definition() (compose.Definition, error) {
	p, err := f.Project()
	if err != nil {
		return compose.Definition{}, err
	}
	return p.Define(f.Service, nil)
}

// Images are those that the containers run, by id; names are what they were made from.
func (f *Fleet) Images() (ids, names []string) {
	for _, r := range f.Replicas {
		ids, names = append(ids, r.Image), append(names, r.Config.Image)
	}
	return ids, names
}

// Found is Everywhere for a service that has a container; without one nothing can be
// said of it.
func (c *Engine) Found(ctx context.Context, t alerts.ComposeTarget) (*Fleet, error) {
	f, err := c.Everywhere(ctx, t)
	if err == nil && len(f.Members()) == 0 {
		err = c.absent(ctx, f)
	}
	return f, err
}

// FoundBy is Survey for an operation on a service that has a container, of whose way
// containers that are out of their place are a part; without one nothing can be done to it.
func (c *Engine) FoundBy(op string) func(context.Context, alerts.ComposeTarget) (*Fleet, error) {
	return func(ctx context.Context, t alerts.ComposeTarget) (*Fleet, error) {
		f, err := c.Survey(ctx, t)
		if err == nil && len(f.Members()) == 0 && !f.TouchedBy(op) {
			err = c.absent(ctx, f)
		}
		return f, err
	}
}

// MayBegin is OneFolder for a look as an operation. One that has begun, or is half-way, is looked at all the same: it may
// have to be undone.
func (f *Fleet) MayBegin(op string, at remediation.Position) error {
	if at == remediation.HalfWay || f.TouchedBy(op) {
		return nil
	}
	return remediation.Unfit(f.OneFolder())
}

// TouchedBy reports whether a container is an operation's, or its undo's.
func (f *Fleet) TouchedBy(op string) bool {
	return slices.ContainsFunc(f.Replicas, func(r *Replica) bool { return r.OwnedBy(op) || r.OwnedBy(Undoing(op)) })
}

// ErrAbsent: the engine has no container of the service.
var ErrAbsent = errors.New("no container")

// maxNamed bounds the places that an error names.
const maxNamed = 5

// absent says that a service has no container, and where containers of its name, or
// of its project, are.
func (c *Engine) absent(ctx context.Context, f *Fleet) error {
	list, err := c.API.ContainerList(ctx, container.ListOptions{All: true})
	if err != nil {
		return fmt.Errorf("list containers: %w", err)
	}
	var elsewhere, others, swarm []string
	try := fmt.Sprintf("docker-compose up -d %s in %s, or docker: {host: ...} in the configuration file, if another engine runs it", f.Service, f.Dir)
	for _, s := range list {
		service, dir := s.Labels[compose.LabelService], s.Labels[compose.LabelWorkingDir]
		stack := s.Labels["com.docker.swarm.service.name"]
		switch {
		case strings.EqualFold(s.Labels[compose.LabelOneOff], "true"):
		case service == f.Service && !SameDir(dir, f.Dir):
			elsewhere = append(elsewhere, fmt.Sprintf("project %s of the folder %s", s.Labels[compose.LabelProject], dir))
			try = fmt.Sprintf("target: {compose: {project_dir: %s}} in the playbook, and that folder under docker: {projects: ...}, or docker-compose up -d %s in %s", dir, f.Service, f.Dir)
		case service != "" && SameDir(dir, f.Dir):
			others = append(others, service)
		case stack != "" && (stack == f.Service || strings.HasSuffix(stack, "_"+f.Service)):
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
		where = "a service " + f.Service + " is in " + one(elsewhere)
	case len(swarm) > 0:
		where, try = "it is the swarm service "+one(swarm), "docker service update; backout acts on compose projects only"
	case len(others) > 0:
		where, try = "that project has containers of "+one(others), fmt.Sprintf("target: {compose: {service: ...}} with one of them, or docker-compose up -d %s", f.Service)
	}
	return hint.Add(fmt.Errorf("%w of service %s of the project in %s: %s", ErrAbsent, f.Service, f.Dir, where), "%s", try)
}

// SameDir reports whether a container's label names the folder dir.
func SameDir(label, dir string) bool {
	if label == "" || !filepath.IsAbs(label) {
		return false
	}
	real, err := filepath.EvalSymlinks(label)
	return err == nil && real == dir
}

// Refuse says why a container cannot be copied faithfully, or returns nil.
func (c *Engine) Refuse(ctx context.Context, replicas []*Replica) error {
	if len(replicas) == 0 {
		return nil
	}
	for _, r := range replicas {
		if err := r.Shape(); err != nil {
			return fmt.Errorf("container %s cannot be recreated: %w", r.ShortName(), err)
		}
	}
	return c.Shared(ctx, replicas)
}

// Shared says who shares a namespace with a container that is to be replaced: it would
// be left with the dead one's.
func (c *Engine) Shared(ctx context.Context, replicas []*Replica) error {
	all, err := c.API.ContainerList(ctx, container.ListOptions{All: true})
	if err != nil {
		return fmt.Errorf("list containers: %w", err)
	}
	for _, s := range all {
		if slices.ContainsFunc(replicas, func(r *Replica) bool { return r.ID == s.ID }) {
			continue
		}
		in, err := c.API.ContainerInspect(ctx, s.ID)
		if errdefs.IsNotFound(err) {
			continue
		}
		if err != nil {
			return fmt.Errorf("inspect container %s: %w", s.ID, err)
		}
		for _, r := range replicas {
			if dependsOn(in.HostConfig, r) {
				return hint.Add(fmt.Errorf("container %s cannot be recreated: %s shares a namespace with it or links to it", r.ShortName(), strings.TrimPrefix(in.Name, "/")),
					"docker-compose up -d, which recreates both")
			}
		}
	}
	return nil
}

// Shape says what of the container itself a copy could not have.
func (r *Replica) Shape() error {
	h := r.HostConfig
	switch {
	case r.Label("com.docker.swarm.task.id") != "":
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
		return hint.Add(errors.New("it is paused"), "docker unpause %s", r.ShortName())
	}
	return nil
}

func dependsOn(h *container.HostConfig, r *Replica) bool {
	named := func(mode string) bool {
		who, ok := strings.CutPrefix(mode, "container:")
		return ok && (who == r.ShortName() || len(who) >= 12 && strings.HasPrefix(r.ID, who))
	}
	if named(string(h.NetworkMode)) || named(string(h.PidMode)) || named(string(h.IpcMode)) {
		return true
	}
	return slices.ContainsFunc(h.Links, func(l string) bool { return strings.HasPrefix(l, r.Name+":") })
}

// Shares reports whether a container uses another one's namespaces, which the tool can
// give it again.
func (r *Replica) Shares() bool {
	h := r.HostConfig
	return h.NetworkMode.IsContainer() || h.PidMode.IsContainer() || h.IpcMode.IsContainer()
}

// Writes reports whether a container can write into what has a name: a volume, or a
// folder of the machine.
func (r *Replica) Writes() bool {
	return slices.ContainsFunc(r.Mounts, func(m container.MountPoint) bool {
		named := slices.ContainsFunc(r.HostConfig.Binds, func(b string) bool { return strings.Contains(b, ":"+m.Destination) }) ||
			slices.ContainsFunc(r.HostConfig.Mounts, func(h mount.Mount) bool { return h.Target == m.Destination && h.Source != "" })
		return m.RW && named
	})
}
