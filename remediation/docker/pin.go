package docker

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/docker/docker/api/types/container"

	"github.com/locotoki/backout/alerts"
	"github.com/locotoki/backout/hint"
	"github.com/locotoki/backout/remediation"
	"github.com/locotoki/backout/remediation/docker/compose"
	"github.com/locotoki/backout/remediation/docker/fleet"
	"github.com/locotoki/backout/remediation/docker/projectfile"
)

// ImagePin returns the action that puts a service's previous version back where a
// variable of the project's env file names it (image: shop:${TAG}): it writes the
// variable, and recreates what runs from the image that the files name then. The
// version is written with or without its v, as the variable has it now.
//
// Wanted means: the files name the previous image, and every replica runs it and does
// not name another version. HalfWay means: the files name it while a replica runs
// another one or is down, or a copy of this operation is not in its place yet. Who
// sets the variable to a third value takes the service over.
//
// The file is written before the first container is touched, so that a person's
// docker-compose up -d at any moment ends with the previous image.
func (c *Client) ImagePin(target alerts.Target, variable, previous string) (remediation.Action, error) {
	switch {
	case target.Compose.ProjectDir == "" || target.Compose.Service == "":
		return nil, errors.New("target.compose needs project_dir and service")
	case !projectfile.VariableName.MatchString(variable):
		return nil, fmt.Errorf("variable %q is not an environment variable name", variable)
	case previous == "" || previous == compose.LatestTag || !projectfile.PlainValue.MatchString(previous) || strings.ContainsAny(previous, ":/@"):
		return nil, hint.Add(fmt.Errorf("previous version %q is not a valid tag", previous), "v1.0.0")
	}
	return &imagePin{c: c, target: target, variable: variable, version: previous}, nil
}

type imagePin struct {
	c                 *Client
	target            alerts.Target
	variable, version string
}

// pinSnapshot is what an intent records: of the env file the one variable only.
type pinSnapshot struct {
	Env        projectfile.FileState `json:"env"`
	Value      string                `json:"value"`    // what is written
	Image      string                `json:"image"`    // what the files named
	Previous   string                `json:"previous"` // what they name with the value
	PreviousID string                `json:"previous_id"`
	Replicas   []replicaState        `json:"replicas"`
	By         string                `json:"by,omitempty"` // byCompose: what recreates them; absent: copies
}

// pinned is how a service and its env file are now.
type pinned struct {
	*fleet.Fleet
	now, then compose.Definition // as the files are, and with the value written
	snap      pinSnapshot
	written   bool // the files name the previous image
	due, left []*fleet.Replica
	denied    bool
	op        string
	// tool recreates the service where copies would lack something; nil: copies do.
	tool   *tool
	byTool remediation.Position
}

func (a *imagePin) stand(ctx context.Context, op string, survey func(context.Context, alerts.ComposeTarget) (*fleet.Fleet, error)) (pinned, error) {
	f, err := survey(ctx, a.target.Compose)
	if err != nil {
		return pinned{}, err
	}
	p, err := f.Project()
	if err != nil {
		return pinned{}, err
	}
	path, env, missing, err := p.EnvFile(a.variable)
	if err != nil {
		return pinned{}, err
	}
	st := pinned{Fleet: f, op: op}
	st.snap.Env = projectfile.FileState{Path: path, Missing: missing, Entry: projectfile.ReadEnv(env, a.variable)}
	if st.now, err = p.DefineWith(f.Service, path, env); err != nil {
		st.now = compose.Definition{} // ${TAG:?} before it is written
	}
	if err := a.choose(ctx, &st, p, env); err != nil {
		return pinned{}, err
	}
	if err := st.then.Pulls(); err != nil {
		return pinned{}, err
	}
	st.snap.Image, st.snap.Replicas, st.snap.By = st.now.Spec.Image, statesOf(f, op), st.tool.named()
	st.written = st.now.Spec.Image == st.then.Spec.Image
	st.due, st.left = f.Due(op, runsAnother(st.snap.PreviousID)), f.Leftovers(op)
	if st.tool == nil {
		err = a.c.Refuse(ctx, st.due)
	} else {
		st.byTool, err = st.tool.standsAt(ctx, a.c, f, op, st.written, runsAnother(st.snap.PreviousID))
	}
	if err != nil {
		return pinned{}, err
	}
	for _, r := range f.Replicas {
		has := compose.ParseReference(r.Config.Image)
		if !st.written && r.Running() && !compose.IsImageID(r.Config.Image) && has != compose.ParseReference(st.now.Spec.Image) && has != compose.ParseReference(st.then.Spec.Image) {
			if st.unset() {
				return pinned{}, a.notSet(st, r, has)
			}
			return pinned{}, hint.Add(fmt.Errorf("container %s was made from %s, and %s with %s names %s: a shell's %s overrules the file, or it was not recreated since", r.ShortName(), has, st.then.At(), path, cmp.Or(st.now.Spec.Image, "no image"), a.variable),
				"unset %s in that shell, and docker-compose up -d %s", a.variable, f.Service)
		}
	}
	if len(st.due) == 0 && len(st.left) == 0 {
		st.denied = a.c.deniesVersion(ctx, f, a.target, a.version)
	}
	return st, nil
}

// unset reports whether the files give the service no image, since the env file lacks the
// variable.
func (st pinned) unset() bool {
	image := st.now.Spec.Image
	tag := image[strings.LastIndexByte(image, ':')+1:]
	return st.snap.Env.Entry.Raw == "" && (tag == "" || tag[0] == '-' || tag[0] == '.')
}

func (a *imagePin) notSet(st pinned, r *fleet.Replica, made compose.Reference) error {
	missing := ""
	if st.snap.Env.Missing != "" {
		missing = ", a file that is missing"
	}
	return hint.Add(fmt.Errorf("%s: %s is not set anywhere: not in %s%s; container %s was made from %s", st.then.At(), a.variable, st.snap.Env.Path, missing, r.ShortName(), made),
		"%s=VALUE in %s, with the value for the image that runs now", a.variable, st.snap.Env.Path)
}

// choose finds the value that names the previous image, and refuses where the variable
// decides on nothing, or on more than the image.
func (a *imagePin) choose(ctx context.Context, st *pinned, p compose.Project, env []byte) error {
	with := func(value string) (compose.Definition, error) {
		changed, err := projectfile.SetEnv(env, a.variable, value)
		if err != nil {
			return compose.Definition{}, fmt.Errorf("%s: %w", st.snap.Env.Path, err)
		}
		return p.DefineWith(st.Service, st.snap.Env.Path, changed)
	}
	d, err := with(compose.UnlikelyTag)
	if err != nil {
		return err
	}
	_, made := st.Images()
	ref, err := d.Runs(made)
	if err != nil {
		return err
	}
	at := d.At()
	if !strings.Contains(d.Spec.Image, compose.UnlikelyTag) {
		decides, err := d.TagVariable()
		if err != nil {
			return err
		}
		if decides != "" {
			return hint.Add(fmt.Errorf("%s: %s does not decide which image it runs: %s does", at, a.variable, decides), "variable: %s for image_retag in the playbook", decides)
		}
		return hint.Add(fmt.Errorf("%s: %s in %s does not decide which image it runs: it names %s", at, a.variable, st.snap.Env.Path, d.Spec.Image),
			"image: %s:${%s} there, and docker-compose up -d %s", ref.Repo, a.variable, st.Service)
	}
	other, err := with(compose.UnlikelyTag + "1")
	if err != nil {
		return err
	}
	if too := d.OthersThatDiffer(other); len(too) > 0 {
		return hint.Add(fmt.Errorf("%s: %s decides on %s too, which would stay as they are until the next docker compose up -d", at, a.variable, strings.Join(too, ", ")),
			"a variable of its own for the image of %s", st.Service)
	}
	if st.tool = toolFor(d, a.writes(d.Spec.Image)); st.tool == nil {
		if key, err := d.DiffersElsewhere(other); err != nil || key != "" {
			return cmp.Or(err, hint.Add(fmt.Errorf("%s: %s is in %s too, and a copy of the container would keep the old value there", at, a.variable, key),
				"a variable of its own for the image"))
		}
	}
	current, _ := projectfile.EnvValue(env, a.variable)
	for _, value := range compose.Spellings(a.version, current) {
		d, err := with(value)
		if err != nil {
			return err
		}
		id, err := a.c.ImageID(ctx, d.Spec.Image)
		if err != nil {
			return err
		}
		if st.snap.Value == "" || id != "" {
			st.then, st.snap.Value, st.snap.Previous, st.snap.PreviousID = d, value, d.Spec.Image, id
		}
		if id != "" {
			return nil
		}
	}
	return fleet.NoImage(st.snap.Previous)
}

// writes is the variable, whose value a container's image tells by the image that the
// unlikely value makes; "" where nobody asks for it.
func (a *imagePin) writes(image string) writes {
	before, after, _ := strings.Cut(image, compose.UnlikelyTag)
	return writes{variable: a.variable, version: true, had: func(r *fleet.Replica) compose.Setting {
		rest, one := strings.CutPrefix(r.Config.Image, before)
		value, two := strings.CutSuffix(rest, after)
		return compose.Setting{Value: value, Set: one && two}
	}}
}

func (st pinned) position() remediation.Position {
	ours := slices.ContainsFunc(st.Replicas, func(r *fleet.Replica) bool { return r.OwnedBy(st.op) })
	switch {
	case len(st.left) > 0, st.written && len(st.due) > 0, st.written && st.denied && ours, st.byTool == remediation.HalfWay:
		return remediation.HalfWay
	case st.written && !st.denied:
		return remediation.Wanted
	}
	return remediation.Untouched
}

// Look implements remediation.Action.
func (a *imagePin) Look(ctx context.Context, op string) (remediation.Look, error) {
	st, err := a.stand(ctx, op, a.c.FoundBy(op))
	if err != nil {
		return remediation.Look{}, err
	}
	position := st.position()
	if err := st.MayBegin(op, position); err != nil {
		return remediation.Look{}, err
	}
	raw, err := json.Marshal(st.snap)
	return remediation.Look{Position: position, Snapshot: raw}, err
}

// Apply implements remediation.Action.
func (a *imagePin) Apply(ctx context.Context, op string, before json.RawMessage) error {
	survey := a.c.FoundBy(op)
	if len(before) > 0 {
		survey = a.c.Survey
	}
	st, err := a.stand(ctx, op, survey)
	if err == nil {
		err = st.OneFolder()
	}
	if err != nil {
		return doubtful(ctx, err)
	}
	was := st.snap
	if len(before) > 0 {
		if was, err = a.parse(before); err != nil {
			return err
		}
	}
	if st.position() == remediation.Wanted {
		return nil
	}
	if err := a.changedSince(st, was); err != nil {
		return err
	}
	if !st.written {
		err := a.c.Projects.Edit(was.Env.Path, func(b []byte) ([]byte, error) {
			if projectfile.ReadEnv(b, a.variable) != st.snap.Env.Entry {
				return nil, hint.Add(fmt.Errorf("someone has set %s meanwhile; nothing was changed", a.variable), "check its present state")
			}
			return projectfile.SetEnv(b, a.variable, was.Value)
		})
		if err != nil {
			return err
		}
	}
	p := a.replacement(op, was)
	p.tool = st.tool
	return p.apply(ctx)
}

func (a *imagePin) parse(before json.RawMessage) (pinSnapshot, error) {
	var snap pinSnapshot
	if err := json.Unmarshal(before, &snap); err != nil {
		return snap, fmt.Errorf("snapshot of %s: %w", a.target.Compose.Service, err)
	}
	if snap.Env.Path == "" || snap.PreviousID == "" {
		return snap, fmt.Errorf("snapshot of %s names no image and file", a.target.Compose.Service)
	}
	return snap, nil
}

// changedSince says what someone else changed since a snapshot was taken, so that
// going on would undo their work; or returns nil.
func (a *imagePin) changedSince(st pinned, was pinSnapshot) error {
	changed := func(format string, args ...any) error {
		return hint.Add(fmt.Errorf(format+"; nothing was changed", args...), "check its present state")
	}
	now := st.snap
	switch {
	case now.Env.Path != was.Env.Path || now.Previous != was.Previous:
		return changed("%s in %s named %s and now names %s in %s", a.variable, was.Env.Path, was.Previous, now.Previous, now.Env.Path)
	case now.PreviousID != was.PreviousID:
		return changed("%s was image %s and is now %s", was.Previous, compose.ShortImage(was.PreviousID), compose.ShortImage(now.PreviousID))
	case now.Env.Entry != was.Env.Entry && !st.written:
		return changed("someone has set %s in %s meanwhile", a.variable, was.Env.Path)
	case st.position() == remediation.HalfWay:
		return nil
	}
	if !sameReplicas(now.Replicas, was.Replicas) {
		return changed("someone has recreated the containers of %s meanwhile", st.Service)
	}
	return nil
}

// replacement is how an operation replaces the replicas that run another image.
func (a *imagePin) replacement(op string, snap pinSnapshot) *replacement {
	return &replacement{
		c: a.c, op: op, compose: a.target.Compose, check: a.c.VersionCheck(a.target, a.version), were: snap.Replicas, due: runsAnother(snap.PreviousID),
		forward: func(ctx context.Context, f *fleet.Fleet) (change, error) {
			now, before, err := a.sides(f, snap)
			if err != nil {
				return change{}, err
			}
			return a.c.follow(ctx, f, before, now, fleet.NamedImage{Name: snap.Previous, ID: snap.PreviousID}), nil
		},
		// What runs a third image by now is someone else's.
		differs: func(now *fleet.Replica, was replicaState) bool {
			return now.Image == snap.PreviousID && was.ImageID != snap.PreviousID
		},
		backward: func(ctx context.Context, f *fleet.Fleet, was replicaState) (change, error) {
			to := fleet.NamedImage{Name: was.Image, ID: was.ImageID}
			now, _, err := a.sides(f, snap)
			if err == nil && compose.ParseReference(now.Spec.Image) == compose.ParseReference(was.Image) {
				written, err := a.writtenAgain(f, now, snap)
				return a.c.follow(ctx, f, written, now, to), err
			}
			return change{image: to, edit: noteImage(to)}, nil // going back waits for no file
		},
	}
}

// writtenAgain is a definition with a snapshot's value written.
func (a *imagePin) writtenAgain(f *fleet.Fleet, now compose.Definition, snap pinSnapshot) (compose.Definition, error) {
	env, _, err := a.c.Projects.ReadOptional(snap.Env.Path)
	if err == nil {
		env, err = projectfile.SetEnv(env, a.variable, snap.Value)
	}
	if err != nil {
		return compose.Definition{}, err
	}
	return now.DefineWith(f.Service, snap.Env.Path, env)
}

// sides are the definition as the files are, and as it was by a snapshot.
func (a *imagePin) sides(f *fleet.Fleet, snap pinSnapshot) (now, before compose.Definition, err error) {
	if now, err = f.Definition(); err != nil {
		return now, before, err
	}
	env, _, err := a.c.Projects.ReadOptional(snap.Env.Path)
	if err != nil {
		return now, before, err
	}
	before, err = now.DefineWith(f.Service, snap.Env.Path, projectfile.PutEnv(env, a.variable, snap.Env.Entry))
	if err != nil { // ${TAG:?}
		before, err = now, nil
	}
	return now, before, err
}

// follow is the change to another image, and to what else of the environment differs
// between two definitions.
func (c *Client) follow(ctx context.Context, f *fleet.Fleet, from, to compose.Definition, image fleet.NamedImage) change {
	ch := c.toImage(ctx, f, to, image)
	note := ch.edit
	ch.edit = func(r *fleet.Replica, config *container.Config) {
		note(r, config)
		for _, kv := range slices.Clone(config.Env) {
			name, value, _ := strings.Cut(kv, "=")
			was, is := from.Variable(name), to.Variable(name)
			if was != is && was == (compose.Setting{Value: value, Set: true}) {
				config.Env = setVariable(config.Env, name, is)
			}
		}
	}
	return ch
}

// Verify implements remediation.Action.
func (a *imagePin) Verify(ctx context.Context, op string) error {
	st, err := a.stand(ctx, op, a.c.Found)
	if err != nil {
		return fleet.Unseen(err)
	}
	if !st.written {
		return fmt.Errorf("%s in %s names %s, and not %s", a.variable, st.snap.Env.Path, st.now.Spec.Image, st.snap.Previous)
	}
	return failures(a.c.Checks(ctx, st.Fleet, a.target, fleet.NamedImage{Name: st.snap.Previous, ID: st.snap.PreviousID}, a.version))
}

// Undo implements remediation.Action.
func (a *imagePin) Undo(ctx context.Context, op string, before json.RawMessage) error {
	was, err := a.parse(before)
	if err != nil {
		return err
	}
	return doubtful(ctx, a.undo(ctx, op, was))
}

// Restore implements remediation.Restorer: what was down runs again too, as it was.
func (a *imagePin) Restore(ctx context.Context, op string, before json.RawMessage) error {
	was, err := a.parse(before)
	if err != nil {
		return err
	}
	revive(was.Replicas)
	return doubtful(ctx, a.undo(ctx, op, was))
}

func (a *imagePin) undo(ctx context.Context, op string, was pinSnapshot) error {
	p := a.replacement(op, was)
	env, _, err := a.c.Projects.ReadOptional(was.Env.Path)
	if err == nil {
		p.tool, err = a.c.toolNow(ctx, a.target.Compose, was.By == byCompose, a.wrote(env, was))
	}
	if err == nil && !a.theirs(env, was) {
		err = p.mayRun(ctx)
	}
	if err != nil {
		return err
	}
	theirs := false
	err = a.c.Projects.Edit(was.Env.Path, func(b []byte) ([]byte, error) {
		if theirs = a.theirs(b, was); theirs || projectfile.ReadEnv(b, a.variable) == was.Env.Entry {
			return b, nil
		}
		return was.Env.PutBackEnv(b, a.variable), nil
	})
	if err != nil {
		return err
	}
	if theirs {
		return p.retract(ctx)
	}
	return p.undo(ctx)
}

// wrote is the variable with what a snapshot knows of it: a container's image tells
// which of the two values it was made with.
func (a *imagePin) wrote(env []byte, was pinSnapshot) writes {
	return writes{variable: a.variable, version: true, had: func(r *fleet.Replica) compose.Setting {
		value, set := projectfile.EnvValue(projectfile.PutEnv(env, a.variable, was.Env.Entry), a.variable)
		switch {
		case r.Config.Image == was.Previous:
			return compose.Setting{Value: was.Value, Set: true}
		case r.Config.Image == was.Image && set:
			return compose.Setting{Value: value, Set: true}
		}
		return compose.Setting{}
	}}
}

// theirs reports whether someone set the variable to what is neither the operation's
// value nor the one before it.
func (a *imagePin) theirs(env []byte, was pinSnapshot) bool {
	value, set := projectfile.EnvValue(env, a.variable)
	return (!set || value != was.Value) && projectfile.ReadEnv(env, a.variable) != was.Env.Entry
}

var (
	_ remediation.SelfChecking = (*imagePin)(nil)
	_ remediation.Sweeper      = (*imagePin)(nil)
	_ remediation.Rehearser    = (*imagePin)(nil)
	_ remediation.Watcher      = (*imagePin)(nil)
	_ remediation.Restorer     = (*imagePin)(nil)
)

// Checks implements remediation.SelfChecking.
func (a *imagePin) Checks() []remediation.PreflightCheck {
	return []remediation.PreflightCheck{
		{ID: "image/previous", Name: "the previous image exists, and " + a.variable + " decides which one the service runs", Run: a.checkPrevious},
		{ID: "image/runs", Name: "the previous image runs", Run: a.checkRuns},
	}
}

// Rehearse implements remediation.Rehearser.
func (a *imagePin) Rehearse(ctx context.Context) remediation.Result {
	return remediation.Trial(ctx, a.checkPrevious, a.checkRuns)
}

// Sweep implements remediation.Sweeper.
func (a *imagePin) Sweep(ctx context.Context) error { return a.c.sweep(ctx, a.target.Compose) }

func (a *imagePin) checkPrevious(ctx context.Context) remediation.Result {
	st, err := a.stand(ctx, proofOf, a.c.FoundWhole)
	if err != nil {
		return remediation.ResultOf(doubtful(ctx, err))
	}
	if err := a.c.Projects.MayWrite(st.snap.Env.Path, st.snap.Env.Missing); err != nil {
		return remediation.Failed(fmt.Sprintf("%s cannot be written: %s", st.snap.Env.Path, err), "give backout write permission for it and its folder")
	}
	return remediation.Passed(fmt.Sprintf("%s=%s in %s names %s, which is %s", a.variable, st.snap.Value, st.snap.Env.Path, st.snap.Previous, compose.ShortImage(st.snap.PreviousID)))
}

func (a *imagePin) checkRuns(ctx context.Context) remediation.Result {
	st, err := a.stand(ctx, proofOf, a.c.FoundWhole)
	if err != nil {
		return remediation.ResultOf(doubtful(ctx, err))
	}
	k := fleet.CheckOf(a.target.Probe)
	k.Wants = a.version
	_, found := aside{c: a.c, target: a.target, image: st.snap.PreviousID, check: k}.run(ctx)
	return found
}

// Watch implements remediation.Watcher: it reports every container of the service
// that starts, or already runs, from another image than the previous version's.
func (a *imagePin) Watch(ctx context.Context, report func(what string)) error {
	st, err := a.stand(ctx, proofOf, a.c.Everywhere)
	if err != nil {
		return err
	}
	return a.c.watchImage(ctx, a.target.Compose, st.snap.PreviousID, st.snap.Previous, report)
}
