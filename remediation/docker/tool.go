package docker

import (
	"archive/tar"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"os/exec"
	"path"
	"regexp"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/compose-spec/compose-go/v2/types"
	"github.com/containerd/errdefs"
	"github.com/docker/docker/api/types/container"
	"github.com/docker/docker/api/types/filters"

	"github.com/locotoki/backout/alerts"
	"github.com/locotoki/backout/hint"
	"github.com/locotoki/backout/remediation"
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
func markOf(f *fleet, op string) string {
	return toolMark + ":" + shortID(f.dir+"/"+f.service+"/"+op)
}

// marked reports whether an operation began a tool on the service, and did not see it end.
func (c *Client) marked(ctx context.Context, f *fleet, op string) (bool, error) {
	id, err := c.imageID(ctx, markOf(f, op))
	return id != "", err
}

// tool is how the compose tool recreates one service.
type tool struct {
	definition
	hidden []string
	writes writes
}

// writes is what an operation writes into the env file; none where it moves a tag.
type writes struct {
	variable string
	// had tells the variable's value that a container was made with; nil: the file's.
	had func(*replica) setting
	// version: it decides on the image; otherwise the image is to stay.
	version bool
}

// toolFor returns the tool for a service that cannot be copied, or nil.
func (c *Client) toolFor(d definition, w writes) *tool {
	if hidden := d.hidden(); len(hidden) > 0 {
		return &tool{d, hidden, w}
	}
	return nil
}

// standsAt is the state of an operation by the tool: written tells that the files are as
// wanted. An error says why the tool cannot do it.
func (t *tool) standsAt(ctx context.Context, c *Client, f *fleet, op string, written bool, due func(*replica) bool) (remediation.Position, error) {
	left, err := c.marked(ctx, f, op)
	waiting := len(f.replicas) > 0 && (left || unsettled(f, due))
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
	f, err := c.survey(ctx, target)
	if err != nil {
		return nil, err
	}
	d, err := c.definitionOf(f)
	switch {
	case err == nil:
		return c.toolFor(d, w), nil
	case byTool:
		return nil, fmt.Errorf("the compose tool recreated %s, but its definition cannot be read now: %w", f.service, err)
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
func (p *replacement) begun(ctx context.Context) (f *fleet, left bool, err error) {
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
	return hint.Add(fmt.Errorf("%s has %s, which a copy of its container would lack; the compose tool would recreate it, but %s does not decide on %s there", t.at(), strings.Join(t.hidden, ", "), l.env.Path, t.writes.variable),
		"write %s: ${%s:-} into environment: and its value into %s, and docker compose up -d %s from a shell that does not set it", t.writes.variable, t.writes.variable, l.env.Path, t.spec.Name)
}

// refuse says why the tool would change more than it is to, or returns nil.
func (t *tool) refuse(ctx context.Context, c *Client, f *fleet, left bool) error {
	why := func(format string, a ...any) error {
		return fmt.Errorf("%s has %s, which a copy of its container would lack, and the compose tool cannot recreate it either: %w",
			t.at(), strings.Join(t.hidden, ", "), fmt.Errorf(format, a...))
	}
	if _, err := c.composeTool(ctx, t.project); err != nil {
		return hint.Add(why("%w", err), "install the compose tool that started it (version %s) where backout runs", t.version)
	}
	if err := c.shared(ctx, f.replicas); err != nil {
		return err
	}
	for _, r := range f.replicas {
		if err := r.shape(); err != nil && !r.shares() {
			return fmt.Errorf("container %s cannot be recreated: %w", r.name(), err)
		}
		q := t.ask(f)
		if t.writes.had != nil {
			if s := t.writes.had(r); s.set {
				q.assume = t.writes.variable + "=" + s.value
				q.key += " " + q.assume
			}
		}
		a := c.ask(q)
		select {
		case <-a.done:
		case <-ctx.Done():
			return fmt.Errorf("get the compose hash of %s: %w", f.service, ctx.Err())
		}
		if a.err != nil {
			return hint.Add(why("%w", a.err), "docker compose config --hash %s in %s", f.service, t.dir)
		}
		// The first generation's hash has the image in it, and its tag may be moved by now.
		moved := t.first() && t.writes.variable == "" && left
		if a.hash != r.label(labelConfigHash) && !moved {
			return hint.Add(why("its config --hash of the service is not that of container %s, so more than %s would change", r.name(), cmp.Or(t.writes.variable, "the image")),

				"docker compose up -d %s by hand, with the same version (%s) and from a shell that sets no variable of its own", f.service, t.version)
		}
		if !left {
			if err := t.inline(ctx, c, r); err != nil {
				return why("%w", err)
			}
		}
		named, err := c.imageID(ctx, r.Config.Image)
		if err != nil {
			return err
		}
		if t.writes.variable != "" && !t.writes.version && named != r.Image {
			return hint.Add(why("%s is now another image than the one that container %s runs", r.Config.Image, r.name()),
				"docker tag %s %s", shortImage(r.Image), r.Config.Image)
		}
	}
	return nil
}

// inline refuses a config or secret whose content is not what a container has: no hash
// has it in it, and a variable of a shell may have been in it.
func (t *tool) inline(ctx context.Context, c *Client, r *replica) error {
	same := func(key, source, target string, o types.FileObjectConfig) error {
		if o.File != "" || bool(o.External) {
			return nil
		}
		want := o.Content
		if o.Environment != "" {
			v, ok := t.values.Resolve(o.Environment)
			if !ok {
				return hint.Add(fmt.Errorf("%s: %s is the variable %s, which no env file has", key, source, o.Environment),
					"write it into %s", t.envFiles[len(t.envFiles)-1])
			}
			want = v
		}
		if got, err := c.fileIn(ctx, r.ID, target); errdefs.IsNotFound(err) || err == nil && got != want {
			return hint.Add(fmt.Errorf("%s: %s is not what container %s has in %s: it was edited since, or it contains a shell's variable", key, source, r.name(), target),
				"docker compose up -d %s by hand", t.spec.Name)
		} else if err != nil {
			return fmt.Errorf("%s of container %s: %w", target, r.name(), err)
		}
		return nil
	}
	for _, x := range t.spec.Configs {
		if err := same("configs", x.Source, cmp.Or(x.Target, "/"+x.Source), types.FileObjectConfig(t.configs[x.Source])); err != nil {
			return err
		}
	}
	for _, x := range t.spec.Secrets {
		target := cmp.Or(x.Target, x.Source)
		if !path.IsAbs(target) {
			target = "/run/secrets/" + target
		}
		if err := same("secrets", x.Source, target, types.FileObjectConfig(t.secrets[x.Source])); err != nil {
			return err
		}
	}
	return nil
}

// maxInline bounds what is read of a config or secret, in bytes.
const maxInline = 1 << 20

// fileIn returns the content of a file in a container, which need not run.
func (c *Client) fileIn(ctx context.Context, id, name string) (content string, err error) {
	archive, _, err := c.api.CopyFromContainer(ctx, id, name)
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

// shares reports whether a container uses another one's namespaces, which the tool can
// give it again.
func (r *replica) shares() bool {
	h := r.HostConfig
	return h.NetworkMode.IsContainer() || h.PidMode.IsContainer() || h.IpcMode.IsContainer()
}

// tmpName is the name that compose gives a container in the middle of a recreation: the
// first generation to the old one, by its own id, the second to the new one.
var tmpName = regexp.MustCompile(`^([0-9a-f]{12})_(.+)$`)

// setAsideByCompose returns the name that a container has where compose is not in the middle
// of recreating it, or "".
func (r *replica) setAsideByCompose() string {
	m := tmpName.FindStringSubmatch(r.name())
	if m == nil || !strings.HasPrefix(r.ID, m[1]) && r.label("com.docker.compose.replace") == "" {
		return ""
	}
	return m[2]
}

// tidy puts in order what a killed tool left: of a pair, the container that never
// started goes, and what is left gets its own name. done: nothing was to be done.
func (c *Client) tidy(ctx context.Context, f *fleet) (done bool, err error) {
	done = true
	for _, r := range f.replicas {
		name := r.setAsideByCompose()
		if name == "" {
			continue
		}
		done = false
		switch holder := f.byName(name); {
		case holder == nil:
			if err = c.api.ContainerRename(ctx, r.ID, name); err != nil {
				err = fmt.Errorf("rename container %s to %s: %w", r.name(), name, err)
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
	return p.c.passes(ctx, p.survey, func(f *fleet) (bool, error) {
		if done, err := p.c.tidy(ctx, f); err != nil || !done {
			return false, err
		}
		left, err := p.c.marked(ctx, f, p.op)
		if err != nil || !left {
			return true, err
		}
		ran := slices.ContainsFunc(p.were, replicaState.running)
		for _, r := range f.replicas {
			if !ran || r.running() {
				continue // what ran was stopped by the tool
			}
			if err := p.c.api.ContainerStart(ctx, r.ID, container.StartOptions{}); err != nil {
				return false, fmt.Errorf("start container %s: %w", r.name(), err)
			}
		}
		return true, p.c.untag(ctx, markOf(f, p.op))
	})
}

// unsettled reports whether the tool has still to bring a replica to where it runs as
// wanted.
func unsettled(f *fleet, due func(*replica) bool) bool {
	return slices.ContainsFunc(f.replicas, func(r *replica) bool {
		return !r.running() || due(r) || r.setAsideByCompose() != ""
	})
}

// maxRuns bounds how often the tool is run in one go.
const maxRuns = 3

// run recreates the service until no replica is due, and sees it work.
func (t *tool) run(ctx context.Context, p *replacement, due func(*replica) bool) error {
	runs, begun := 0, false
	return p.c.passes(ctx, p.survey, func(f *fleet) (bool, error) {
		left, err := p.c.marked(ctx, f, p.op)
		if err != nil {
			return false, err
		}
		if len(f.replicas) == 0 || !left && !unsettled(f, due) {
			return true, nil
		}
		if done, err := p.c.tidy(ctx, f); err != nil || !done {
			return false, err
		}
		if left && begun && (p.unseen || !unsettled(f, due)) {
			return true, t.finish(ctx, p, f)
		}
		if runs++; runs > maxRuns {
			return false, fmt.Errorf("compose recreated %s %d times, but it is not in the wanted state", f.service, maxRuns)
		}
		if !left {
			if err := p.c.tag(ctx, f.replicas[0].Image, markOf(f, p.op)); err != nil {
				return false, err
			}
		}
		if err := t.up(ctx, p.c, f, left && !begun); err != nil && (!p.unseen || !saidNo(ctx, err)) {
			return false, err
		}
		begun = true
		return false, nil
	})
}

// finish sees the replicas work, restarts what depends on them, and takes the mark away.
func (t *tool) finish(ctx context.Context, p *replacement, f *fleet) error {
	for _, r := range f.replicas {
		if p.unseen {
			break
		}
		if err := p.c.works(ctx, r.ID, p.check); err != nil {
			return err
		}
	}
	if err := p.c.restartDependents(ctx, f, t.definition); err != nil {
		return err
	}
	return p.c.untag(ctx, markOf(f, p.op))
}

// up runs the tool. It pulls and builds nothing, and keeps the number of replicas.
func (t *tool) up(ctx context.Context, c *Client, f *fleet, again bool) error {
	argv, err := c.composeTool(ctx, t.project)
	if err != nil {
		return err
	}
	argv = append(argv, t.arguments()...)
	for _, p := range t.spec.Profiles {
		argv = append(argv, "--profile", p)
	}
	argv = append(argv, "up", "-d", "--no-deps", "--no-build")
	if !t.first() {
		argv = append(argv, "--pull", "never")
	}
	if again {
		argv = append(argv, "--force-recreate")
	}
	if n := len(f.replicas); n != t.spec.GetScale() {
		argv = append(argv, "--scale", fmt.Sprintf("%s=%d", f.service, n))
	}
	err = c.command(ctx, t.dir, append(argv, f.service), nil)
	if err == nil {
		return nil
	}
	err = hint.Add(fmt.Errorf("docker compose up -d %s: %w", f.service, err), "run it by hand in %s", t.dir)
	if saidNo(ctx, err) {
		return err // what it left is looked at
	}
	return remediation.InDoubt(errors.Join(err, ctx.Err()))
}

// saidNo tells that the tool ended by itself.
func saidNo(ctx context.Context, err error) bool {
	var exit *exec.ExitError
	return ctx.Err() == nil && errors.As(err, &exit) && exit.Exited()
}

// command runs the compose tool, which dies with this process, and with all that it
// started where ctx ends.
func (c *Client) command(ctx context.Context, dir string, argv, environ []string, out ...*strings.Builder) error {
	// The kernel kills the child with the thread that started it.
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	cmd := exec.CommandContext(ctx, argv[0], argv[1:]...)
	cmd.Dir = dir
	cmd.WaitDelay = time.Second
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
	for _, kv := range c.environ {
		switch k, _, _ := strings.Cut(kv, "="); {
		case k == "DOCKER_HOST", k == "DOCKER_CONTEXT": // the engine is the configuration's
		case k == "PATH", k == "HOME", strings.HasPrefix(k, "DOCKER_"):
			cmd.Env = append(cmd.Env, kv)
		}
	}
	cmd.Env = append(append(cmd.Env, "DOCKER_HOST="+c.host), environ...)
	for _, b := range out {
		cmd.Stdout = b
	}
	// What it writes to stderr may hold values of .env: it is not kept.
	return cmd.Run()
}

// restartDependents restarts what runs of the services that compose restarts with this
// one.
func (c *Client) restartDependents(ctx context.Context, f *fleet, d definition) error {
	for _, service := range d.restarted() {
		list, err := c.api.ContainerList(ctx, container.ListOptions{Filters: filters.NewArgs(
			filters.Arg("label", labelProject+"="+f.project), filters.Arg("label", labelService+"="+service))})
		if err != nil {
			return fmt.Errorf("list containers of %s: %w", service, err)
		}
		for _, s := range list {
			if err := c.api.ContainerRestart(ctx, s.ID, container.StopOptions{}); err != nil && !movedOn(err) {
				return fmt.Errorf("restart container %s, which depends on %s: %w", strings.TrimPrefix(s.Names[0], "/"), f.service, err)
			}
		}
	}
	return nil
}
