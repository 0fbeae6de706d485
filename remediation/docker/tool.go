package docker

import (
	"archive/tar"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"path"
	"regexp"
	"slices"
	"strings"

	"github.com/compose-spec/compose-go/v2/types"
	"github.com/containerd/errdefs"
	"github.com/docker/docker/api/types/container"
	"github.com/docker/docker/api/types/filters"

	"github.com/locotoki/backout/alerts"
	"github.com/locotoki/backout/hint"
	"github.com/locotoki/backout/remediation"
	"github.com/locotoki/backout/remediation/docker/compose"
	"github.com/locotoki/backout/remediation/docker/fleet"
)

// Where a copy would lack what compose adds to a container (shown.go), the operator's
// own compose tool recreates the service:
//
//	a mark is set: an image's name that says that the tool is at work on the service
//	up -d --no-deps --no-build SERVICE
//	the services that depend on it with restart: true are restarted
//	the mark is taken away
//
// The tool changes whatever its files say. So it runs only where its own hash of the
// service, with each container's value of the flag or version, is the label of that
// container: then nothing else differs. A tool that was killed is found by its mark, and run again
// so that it recreates what looks right already: a container may run without its
// hooks. What it left half-way under another name is put in order first.

// toolMark begins the mark's name.
const toolMark = "backout-recreating"

// markOf names the mark of an operation on a service.
func markOf(f *fleet.Fleet, op string) string {
	return toolMark + ":" + shortID(f.Dir+"/"+f.Service+"/"+op)
}

// marked reports whether an operation began a tool on the service, and did not see it end.
func (c *Client) marked(ctx context.Context, f *fleet.Fleet, op string) (bool, error) {
	id, err := c.ImageID(ctx, markOf(f, op))
	return id != "", err
}

// tool is how the compose tool recreates one service.
type tool struct {
	compose.Definition
	hidden []string
	writes writes
}

// writes is what an operation writes into the env file; none where it moves a tag.
type writes struct {
	variable string
	// had tells the variable's value that a container was made with; nil: the file's.
	had func(*fleet.Replica) compose.Setting
	// version: it decides on the image; otherwise the image is to stay.
	version bool
}

// toolFor returns the tool for a service that cannot be copied, or nil.
func toolFor(d compose.Definition, w writes) *tool {
	if hidden := d.Hidden(); len(hidden) > 0 {
		return &tool{d, hidden, w}
	}
	return nil
}

// standsAt is the state of an operation by the tool: written tells that the files are as
// wanted. An error says why the tool cannot do it.
func (t *tool) standsAt(ctx context.Context, c *Client, f *fleet.Fleet, op string, written bool, due func(*fleet.Replica) bool) (remediation.Position, error) {
	left, err := c.marked(ctx, f, op)
	waiting := len(f.Replicas) > 0 && (left || unsettled(f, due))
	position := remediation.Untouched
	switch {
	case err != nil:
		return "", err
	case written && waiting:
		position = remediation.HalfWay
	case written:
		return remediation.Wanted, nil
	}
	return position, t.refuse(ctx, c, f, left)
}

// byCompose names the tool in a snapshot.
const byCompose = "compose"

func (t *tool) named() string {
	if t == nil {
		return ""
	}
	return byCompose
}

// toolNow returns the tool for a service as its files are now, or nil. Where they cannot
// be read, copies can still be put back; what the tool made cannot.
func (c *Client) toolNow(ctx context.Context, target alerts.ComposeTarget, byTool bool, w writes) (*tool, error) {
	f, err := c.Survey(ctx, target)
	if err != nil {
		return nil, err
	}
	d, err := f.Definition()
	switch {
	case err == nil:
		return toolFor(d, w), nil
	case byTool:
		return nil, fmt.Errorf("the compose tool recreated %s, but its definition cannot be read now: %w", f.Service, err)
	}
	return nil, nil
}

// mayRun says why the tool would put back more than what the operation changed, or
// returns nil. What it is in the middle of it may end.
func (p *replacement) mayRun(ctx context.Context) error {
	if p.tool == nil {
		return nil
	}
	f, left, err := p.begun(ctx)
	if err != nil || left {
		return err
	}
	return p.tool.refuse(ctx, p.c, f, false)
}

// begun reports whether the operation began the tool, and did not see it end.
func (p *replacement) begun(ctx context.Context) (f *fleet.Fleet, left bool, err error) {
	if f, err = p.survey(ctx); err == nil {
		left, err = p.c.marked(ctx, f, p.op)
	}
	return f, left, err
}

// decidedBy refuses a flag on which the env file does not decide: without an override
// file, each step can be told from the files and the containers alone.
func (t *tool) decidedBy(l *lasting) error {
	// Once the file is written, what still runs has another value than it anyway.
	if !l.literal && (!l.shell || l.envOff) {
		return nil
	}
	return hint.Add(fmt.Errorf("%s has %s, which a copy of its container would lack; the compose tool would recreate it, but %s does not decide on %s there", t.At(), strings.Join(t.hidden, ", "), l.env.Path, t.writes.variable),
		"write %s: ${%s:-} into environment: and its value into %s, and docker compose up -d %s from a shell that does not set it", t.writes.variable, t.writes.variable, l.env.Path, t.Spec.Name)
}

// refuse says why the tool would change more than it is to, or returns nil.
func (t *tool) refuse(ctx context.Context, c *Client, f *fleet.Fleet, left bool) error {
	why := func(format string, a ...any) error {
		return fmt.Errorf("%s has %s, which a copy of its container would lack, and the compose tool cannot recreate it either: %w",
			t.At(), strings.Join(t.hidden, ", "), fmt.Errorf(format, a...))
	}
	if _, err := c.cli.Find(ctx, t.Project); err != nil {
		return hint.Add(why("%w", err), "install the compose tool that started it (version %s) where backout runs", t.Version)
	}
	if err := c.Shared(ctx, f.Replicas); err != nil {
		return err
	}
	ids, _ := f.Images()
	for _, r := range f.Replicas {
		if err := r.Shape(); err != nil && !r.Shares() {
			return fmt.Errorf("container %s cannot be recreated: %w", r.ShortName(), err)
		}
		q := t.Question(ids, "")
		if t.writes.had != nil {
			if s := t.writes.had(r); s.Set {
				q = q.With(t.writes.variable, s.Value)
			}
		}
		hash, err := c.cli.Hash(ctx, q)
		if ctx.Err() != nil {
			return fmt.Errorf("get the compose hash of %s: %w", f.Service, ctx.Err())
		}
		if err != nil {
			return hint.Add(why("%w", err), "docker compose config --hash %s in %s", f.Service, t.Dir)
		}
		// The first generation's hash has the image in it, and its tag may be moved by now.
		moved := t.FirstGeneration() && t.writes.variable == "" && left
		if hash != r.Label(compose.LabelConfigHash) && !moved {
			return hint.Add(why("its config --hash of the service is not that of container %s, so more than %s would change", r.ShortName(), cmp.Or(t.writes.variable, "the image")),

				"docker compose up -d %s by hand, with the same version (%s) and from a shell that sets no variable of its own", f.Service, t.Version)
		}
		if !left {
			if err := t.inline(ctx, c, r); err != nil {
				return why("%w", err)
			}
		}
		named, err := c.ImageID(ctx, r.Config.Image)
		if err != nil {
			return err
		}
		if t.writes.variable != "" && !t.writes.version && named != r.Image {
			return hint.Add(why("%s is now another image than the one that container %s runs", r.Config.Image, r.ShortName()),
				"docker tag %s %s", compose.ShortImage(r.Image), r.Config.Image)
		}
	}
	return nil
}

// inline refuses a config or secret whose content is not what a container has: no hash
// has it in it, and a variable of a shell may have been in it.
func (t *tool) inline(ctx context.Context, c *Client, r *fleet.Replica) error {
	same := func(key, source, target string, o types.FileObjectConfig) error {
		if o.File != "" || bool(o.External) {
			return nil
		}
		want := o.Content
		if o.Environment != "" {
			v, ok := t.Values.Resolve(o.Environment)
			if !ok {
				return hint.Add(fmt.Errorf("%s: %s is the variable %s, which no env file has", key, source, o.Environment),
					"write it into %s", t.EnvFiles[len(t.EnvFiles)-1])
			}
			want = v
		}
		if got, err := c.fileIn(ctx, r.ID, target); errdefs.IsNotFound(err) || err == nil && got != want {
			return hint.Add(fmt.Errorf("%s: %s is not what container %s has in %s: it was edited since, or it contains a shell's variable", key, source, r.ShortName(), target),
				"docker compose up -d %s by hand", t.Spec.Name)
		} else if err != nil {
			return fmt.Errorf("%s of container %s: %w", target, r.ShortName(), err)
		}
		return nil
	}
	for _, x := range t.Spec.Configs {
		if err := same("configs", x.Source, cmp.Or(x.Target, "/"+x.Source), types.FileObjectConfig(t.Configs[x.Source])); err != nil {
			return err
		}
	}
	for _, x := range t.Spec.Secrets {
		target := cmp.Or(x.Target, x.Source)
		if !path.IsAbs(target) {
			target = "/run/secrets/" + target
		}
		if err := same("secrets", x.Source, target, types.FileObjectConfig(t.Secrets[x.Source])); err != nil {
			return err
		}
	}
	return nil
}

// maxInline bounds what is read of a config or secret, in bytes.
const maxInline = 1 << 20

// fileIn returns the content of a file in a container, which need not run.
func (c *Client) fileIn(ctx context.Context, id, name string) (content string, err error) {
	archive, _, err := c.API.CopyFromContainer(ctx, id, name)
	if err != nil {
		return "", err
	}
	defer func() { err = errors.Join(err, archive.Close()) }()
	r := tar.NewReader(archive)
	if _, err := r.Next(); err != nil {
		return "", err
	}
	b, err := io.ReadAll(io.LimitReader(r, maxInline))
	return string(b), err
}

// tmpName is the name that compose gives a container in the middle of a recreation: the
// first generation to the old one, by its own id, the second to the new one.
var tmpName = regexp.MustCompile(`^([0-9a-f]{12})_(.+)$`)

// setAsideByCompose returns the name that a container has where compose is not in the middle
// of recreating it, or "".
func setAsideByCompose(r *fleet.Replica) string {
	m := tmpName.FindStringSubmatch(r.ShortName())
	if m == nil || !strings.HasPrefix(r.ID, m[1]) && r.Label("com.docker.compose.replace") == "" {
		return ""
	}
	return m[2]
}

// tidy puts in order what a killed tool left: of a pair, the container that never
// started goes, and what is left gets its own name. done: nothing was to be done.
func (c *Client) tidy(ctx context.Context, f *fleet.Fleet) (done bool, err error) {
	done = true
	for _, r := range f.Replicas {
		name := setAsideByCompose(r)
		if name == "" {
			continue
		}
		done = false
		switch holder := f.ByName(name); {
		case holder == nil:
			if err = c.API.ContainerRename(ctx, r.ID, name); err != nil {
				err = fmt.Errorf("rename container %s to %s: %w", r.ShortName(), name, err)
			}
		case r.State.Status == container.StateCreated || holder.State.Status != container.StateCreated:
			err = c.remove(ctx, r)
		default:
			err = c.remove(ctx, holder)
		}
		if err != nil {
			return false, err
		}
	}
	return done, nil
}

// tidyUp puts in order what a tool left that is not to be run again.
func (t *tool) tidyUp(ctx context.Context, p *replacement) error {
	return p.c.passes(ctx, p.survey, func(f *fleet.Fleet) (bool, error) {
		if done, err := p.c.tidy(ctx, f); err != nil || !done {
			return false, err
		}
		left, err := p.c.marked(ctx, f, p.op)
		if err != nil || !left {
			return true, err
		}
		ran := slices.ContainsFunc(p.were, replicaState.running)
		for _, r := range f.Replicas {
			if !ran || r.Running() {
				continue // what ran was stopped by the tool
			}
			if err := p.c.API.ContainerStart(ctx, r.ID, container.StartOptions{}); err != nil {
				return false, fmt.Errorf("start container %s: %w", r.ShortName(), err)
			}
		}
		return true, p.c.untag(ctx, markOf(f, p.op))
	})
}

// unsettled reports whether the tool has still to bring a replica to where it runs as
// wanted.
func unsettled(f *fleet.Fleet, due func(*fleet.Replica) bool) bool {
	return slices.ContainsFunc(f.Replicas, func(r *fleet.Replica) bool {
		return !r.Running() || due(r) || setAsideByCompose(r) != ""
	})
}

// maxRuns bounds how often the tool is run in one go.
const maxRuns = 3

// run recreates the service until no replica is due, and sees it work.
func (t *tool) run(ctx context.Context, p *replacement, due func(*fleet.Replica) bool) error {
	runs, begun := 0, false
	return p.c.passes(ctx, p.survey, func(f *fleet.Fleet) (bool, error) {
		left, err := p.c.marked(ctx, f, p.op)
		if err != nil {
			return false, err
		}
		if len(f.Replicas) == 0 || !left && !unsettled(f, due) {
			return true, nil
		}
		if done, err := p.c.tidy(ctx, f); err != nil || !done {
			return false, err
		}
		if left && begun && (p.unseen || !unsettled(f, due)) {
			return true, t.finish(ctx, p, f)
		}
		if runs++; runs > maxRuns {
			return false, fmt.Errorf("compose recreated %s %d times, but it is not in the wanted state", f.Service, maxRuns)
		}
		if !left {
			if err := p.c.tag(ctx, f.Replicas[0].Image, markOf(f, p.op)); err != nil {
				return false, err
			}
		}
		if err := t.up(ctx, p.c, f, left && !begun); err != nil && (!p.unseen || !compose.Ended(ctx, err)) {
			return false, err
		}
		begun = true
		return false, nil
	})
}

// finish sees the replicas work, restarts what depends on them, and takes the mark away.
func (t *tool) finish(ctx context.Context, p *replacement, f *fleet.Fleet) error {
	for _, r := range f.Replicas {
		if p.unseen {
			break
		}
		if err := p.c.Works(ctx, r.ID, p.check); err != nil {
			return err
		}
	}
	if err := p.c.restartDependents(ctx, f, t.Definition); err != nil {
		return err
	}
	return p.c.untag(ctx, markOf(f, p.op))
}

// up runs the tool. It pulls and builds nothing, and keeps the number of replicas.
func (t *tool) up(ctx context.Context, c *Client, f *fleet.Fleet, again bool) error {
	args := []string{"up", "-d", "--no-deps", "--no-build"}
	if !t.FirstGeneration() {
		args = append(args, "--pull", "never")
	}
	if again {
		args = append(args, "--force-recreate")
	}
	if n := len(f.Replicas); n != t.Spec.GetScale() {
		args = append(args, "--scale", fmt.Sprintf("%s=%d", f.Service, n))
	}
	err := c.cli.Run(ctx, t.Project, t.Spec.Profiles, "", nil, append(args, f.Service)...)
	if err == nil {
		return nil
	}
	err = hint.Add(fmt.Errorf("docker compose up -d %s: %w", f.Service, err), "run it by hand in %s", t.Dir)
	if compose.Ended(ctx, err) {
		return err // what it left is looked at
	}
	return remediation.InDoubt(errors.Join(err, ctx.Err()))
}

// restartDependents restarts what runs of the services that compose restarts with this
// one.
func (c *Client) restartDependents(ctx context.Context, f *fleet.Fleet, d compose.Definition) error {
	for _, service := range d.Restarted() {
		list, err := c.API.ContainerList(ctx, container.ListOptions{Filters: filters.NewArgs(
			filters.Arg("label", compose.LabelProject+"="+f.ProjectName), filters.Arg("label", compose.LabelService+"="+service))})
		if err != nil {
			return fmt.Errorf("list containers of %s: %w", service, err)
		}
		for _, s := range list {
			if err := c.API.ContainerRestart(ctx, s.ID, container.StopOptions{}); err != nil && !movedOn(err) {
				return fmt.Errorf("restart container %s, which depends on %s: %w", strings.TrimPrefix(s.Names[0], "/"), f.Service, err)
			}
		}
	}
	return nil
}
