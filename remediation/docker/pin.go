package docker

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"reflect"
	"slices"
	"strings"

	"github.com/docker/docker/api/types/container"

	"github.com/locotoki/backout/alerts"
	"github.com/locotoki/backout/hint"
	"github.com/locotoki/backout/remediation"
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
	case previous == "" || previous == latestTag || !projectfile.PlainValue.MatchString(previous) || strings.ContainsAny(previous, ":/@"):
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
	*fleet
	now, then definition // as the files are, and with the value written
	snap      pinSnapshot
	written   bool // the files name the previous image
	due, left []*replica
	denied    bool
	op        string
	// tool recreates the service where copies would lack something; nil: copies do.
	tool   *tool
	byTool remediation.Position
}

func (a *imagePin) stand(ctx context.Context, op string, survey func(context.Context, alerts.ComposeTarget) (*fleet, error)) (pinned, error) {
	f, err := survey(ctx, a.target.Compose)
	if err != nil {
		return pinned{}, err
	}
	p, err := a.c.locate(f)
	if err != nil {
		return pinned{}, err
	}
	path, env, missing, err := a.c.envFile(p, a.variable)
	if err != nil {
		return pinned{}, err
	}
	st := pinned{fleet: f, op: op}
	st.snap.Env = projectfile.FileState{Path: path, Missing: missing, Entry: projectfile.ReadEnv(env, a.variable)}
	if st.now, err = a.c.definitionWith(f, p, path, env); err != nil {
		st.now = definition{} // ${TAG:?} before it is written
	}
	if err := a.choose(ctx, &st, p, env); err != nil {
		return pinned{}, err
	}
	if err := st.then.pulls(); err != nil {
		return pinned{}, err
	}
	st.snap.Image, st.snap.Replicas, st.snap.By = st.now.spec.Image, []replicaState{}, st.tool.named()
	st.written = st.now.spec.Image == st.then.spec.Image
	st.due, st.left = f.due(op, a.due(st.snap.PreviousID)), f.leftovers(op)
	if st.tool == nil {
		err = a.c.refuse(ctx, st.due)
	} else {
		st.byTool, err = st.tool.standsAt(ctx, a.c, f, op, st.written, a.due(st.snap.PreviousID))
	}
	if err != nil {
		return pinned{}, err
	}
	for _, r := range f.replicas {
		has := parseReference(r.Config.Image)
		if !st.written && r.running() && !byID(r.Config.Image) && has != parseReference(st.now.spec.Image) && has != parseReference(st.then.spec.Image) {
			return pinned{}, hint.Add(fmt.Errorf("container %s was made from %s, and %s with %s names %s: a shell's %s overrules the file, or it was not recreated since", r.name(), has, st.then.at(), path, cmp.Or(st.now.spec.Image, "no image"), a.variable),
				"unset %s in that shell, and docker-compose up -d %s", a.variable, f.service)
		}
		if !r.ownedBy(op) {
			st.snap.Replicas = append(st.snap.Replicas, stateOf(r))
		}
	}
	if len(st.due) == 0 && len(st.left) == 0 {
		k := a.c.versionCheck(a.target, a.version)
		k.flags = ""
		st.denied = f.down() != nil || a.c.denies(ctx, f, k) != nil
	}
	return st, nil
}

// definitionWith is the definition as it would be with another content of an env file;
// an error where the image could not be told then.
func (c *Client) definitionWith(f *fleet, p project, path string, env []byte) (definition, error) {
	d, err := c.define(p, f.service, contents{path: env})
	if err == nil {
		err = d.missing
	}
	return d, err
}

// unlikely is a value that no image has, to see what a variable decides on.
const unlikely = "0.backout.0"

// choose finds the value that names the previous image, and refuses where the variable
// decides on nothing, or on more than the image.
func (a *imagePin) choose(ctx context.Context, st *pinned, p project, env []byte) error {
	with := func(value string) (definition, error) {
		changed, err := projectfile.SetEnv(env, a.variable, value)
		if err != nil {
			return definition{}, fmt.Errorf("%s: %w", st.snap.Env.Path, err)
		}
		return a.c.definitionWith(st.fleet, p, st.snap.Env.Path, changed)
	}
	d, err := with(unlikely)
	if err != nil {
		return err
	}
	ref, err := d.runs(st.fleet)
	if err != nil {
		return err
	}
	at := d.at()
	if !strings.Contains(d.spec.Image, unlikely) {
		return hint.Add(fmt.Errorf("%s: %s in %s does not decide which image it runs: it names %s", at, a.variable, st.snap.Env.Path, d.spec.Image),
			"image: %s:${%s} there, and docker-compose up -d %s", ref.repo, a.variable, st.service)
	}
	other, err := with(unlikely + "1")
	if err != nil {
		return err
	}
	if too := d.othersThat(other); len(too) > 0 {
		return hint.Add(fmt.Errorf("%s: %s decides on %s too, which would stay as they are until the next docker compose up -d", at, a.variable, strings.Join(too, ", ")),
			"a variable of its own for the image of %s", st.service)
	}
	if st.tool = a.c.toolFor(d, a.writes(d.spec.Image)); st.tool == nil {
		if key, err := elsewhere(d, other); err != nil || key != "" {
			return cmp.Or(err, hint.Add(fmt.Errorf("%s: %s is in %s too, and a copy of the container would keep the old value there", at, a.variable, key),
				"a variable of its own for the image"))
		}
	}
	current, _ := projectfile.EnvValue(env, a.variable)
	for _, value := range spellings(a.version, current) {
		d, err := with(value)
		if err != nil {
			return err
		}
		id, err := a.c.imageID(ctx, d.spec.Image)
		if err != nil {
			return err
		}
		if st.snap.Value == "" || id != "" {
			st.then, st.snap.Value, st.snap.Previous, st.snap.PreviousID = d, value, d.spec.Image, id
		}
		if id != "" {
			return nil
		}
	}
	return missing(st.snap.Previous)
}

// writes is the variable, whose value a container's image tells by the image that the
// unlikely value makes; "" where nobody asks for it.
func (a *imagePin) writes(image string) writes {
	before, after, _ := strings.Cut(image, unlikely)
	return writes{variable: a.variable, version: true, had: func(r *replica) setting {
		rest, one := strings.CutPrefix(r.Config.Image, before)
		value, two := strings.CutSuffix(rest, after)
		return setting{value, one && two}
	}}
}

// othersThat returns the other services of the project that differ between two
// definitions.
func (d definition) othersThat(other definition) []string {
	var all []string
	for _, name := range slices.Sorted(maps.Keys(d.others)) {
		if name != d.spec.Name && !reflect.DeepEqual(d.others[name], other.others[name]) {
			all = append(all, name)
		}
	}
	return all
}

// elsewhere returns a key of the service, apart from image and environment, that differs
// between two values of a variable; "" where there is none.
func elsewhere(one, other definition) (string, error) {
	have, err := one.keys()
	if err != nil {
		return "", err
	}
	has, err := other.keys()
	if err != nil {
		return "", err
	}
	for _, key := range slices.Sorted(maps.Keys(have)) {
		// environment is followed, env_file into it, and build is not the container's.
		if !slices.Contains([]string{"image", "environment", "env_file", "build"}, key) && !reflect.DeepEqual(have[key], has[key]) {
			return key, nil
		}
	}
	return "", nil
}

func (a *imagePin) due(previous string) func(*replica) bool {
	return func(r *replica) bool { return r.Image != previous }
}

func (st pinned) position() remediation.Position {
	ours := slices.ContainsFunc(st.replicas, func(r *replica) bool { return r.ownedBy(st.op) })
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
	st, err := a.stand(ctx, op, a.c.foundBy(op))
	if err != nil {
		return remediation.Look{}, err
	}
	raw, err := json.Marshal(st.snap)
	return remediation.Look{Position: st.position(), Snapshot: raw}, err
}

// Apply implements remediation.Action.
func (a *imagePin) Apply(ctx context.Context, op string, before json.RawMessage) error {
	survey := a.c.foundBy(op)
	if len(before) > 0 {
		survey = a.c.survey
	}
	st, err := a.stand(ctx, op, survey)
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
		err := a.c.files.Edit(was.Env.Path, func(b []byte) ([]byte, error) {
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
		return changed("%s was image %s and is now %s", was.Previous, shortImage(was.PreviousID), shortImage(now.PreviousID))
	case now.Env.Entry != was.Env.Entry && !st.written:
		return changed("someone has set %s in %s meanwhile", a.variable, was.Env.Path)
	case st.position() == remediation.HalfWay:
		return nil
	}
	same := func(a, b replicaState) bool { return a.ID == b.ID && a.ImageID == b.ImageID }
	if !slices.EqualFunc(now.Replicas, was.Replicas, same) {
		return changed("someone has recreated the containers of %s meanwhile", st.service)
	}
	return nil
}

// replacement is how an operation replaces the replicas that run another image.
func (a *imagePin) replacement(op string, snap pinSnapshot) *replacement {
	return &replacement{
		c: a.c, op: op, compose: a.target.Compose, check: a.c.versionCheck(a.target, a.version), were: snap.Replicas, due: a.due(snap.PreviousID),
		forward: func(ctx context.Context, f *fleet) (change, error) {
			now, before, err := a.sides(f, snap)
			if err != nil {
				return change{}, err
			}
			return a.c.follow(ctx, f, before, now, namedImage{snap.Previous, snap.PreviousID}), nil
		},
		// What runs a third image by now is someone else's.
		differs: func(now *replica, was replicaState) bool {
			return now.Image == snap.PreviousID && was.ImageID != snap.PreviousID
		},
		backward: func(ctx context.Context, f *fleet, was replicaState) (change, error) {
			to := namedImage{was.Image, was.ImageID}
			now, _, err := a.sides(f, snap)
			if err == nil && parseReference(now.spec.Image) == parseReference(was.Image) {
				written, err := a.writtenAgain(f, now, snap)
				return a.c.follow(ctx, f, written, now, to), err
			}
			return change{image: to, edit: noteImage(to)}, nil // going back waits for no file
		},
	}
}

// writtenAgain is a definition with a snapshot's value written.
func (a *imagePin) writtenAgain(f *fleet, now definition, snap pinSnapshot) (definition, error) {
	env, _, err := a.c.files.ReadOptional(snap.Env.Path)
	if err == nil {
		env, err = projectfile.SetEnv(env, a.variable, snap.Value)
	}
	if err != nil {
		return definition{}, err
	}
	return a.c.definitionWith(f, now.project, snap.Env.Path, env)
}

// sides are the definition as the files are, and as it was by a snapshot.
func (a *imagePin) sides(f *fleet, snap pinSnapshot) (now, before definition, err error) {
	if now, err = a.c.definitionOf(f); err != nil {
		return now, before, err
	}
	env, _, err := a.c.files.ReadOptional(snap.Env.Path)
	if err != nil {
		return now, before, err
	}
	before, err = a.c.definitionWith(f, now.project, snap.Env.Path, projectfile.PutEnv(env, a.variable, snap.Env.Entry))
	if err != nil { // ${TAG:?}
		before, err = now, nil
	}
	return now, before, err
}

// follow is the change to another image, and to what else of the environment differs
// between two definitions.
func (c *Client) follow(ctx context.Context, f *fleet, from, to definition, image namedImage) change {
	ch := c.toImage(ctx, f, to, image)
	note := ch.edit
	ch.edit = func(r *replica, config *container.Config) {
		note(r, config)
		for _, kv := range slices.Clone(config.Env) {
			name, value, _ := strings.Cut(kv, "=")
			was, is := from.variable(name), to.variable(name)
			if was != is && was == (setting{value, true}) {
				config.Env = setVariable(config.Env, name, is)
			}
		}
	}
	return ch
}

// Verify implements remediation.Action.
func (a *imagePin) Verify(ctx context.Context, op string) error {
	st, err := a.stand(ctx, op, a.c.found)
	if err != nil {
		return err
	}
	if !st.written {
		return fmt.Errorf("%s in %s names %s, and not %s", a.variable, st.snap.Env.Path, st.now.spec.Image, st.snap.Previous)
	}
	return failures(a.c.checks(ctx, st.fleet, a.target, namedImage{st.snap.Previous, st.snap.PreviousID}, a.version))
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
	env, _, err := a.c.files.ReadOptional(was.Env.Path)
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
	err = a.c.files.Edit(was.Env.Path, func(b []byte) ([]byte, error) {
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
	return writes{variable: a.variable, version: true, had: func(r *replica) setting {
		value, set := projectfile.EnvValue(projectfile.PutEnv(env, a.variable, was.Env.Entry), a.variable)
		switch {
		case r.Config.Image == was.Previous:
			return setting{was.Value, true}
		case r.Config.Image == was.Image && set:
			return setting{value, true}
		}
		return setting{}
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
	st, err := a.stand(ctx, proofOf, a.c.found)
	if err != nil {
		return remediation.ResultOf(doubtful(ctx, err))
	}
	if err := a.c.files.MayWrite(st.snap.Env.Path, st.snap.Env.Missing); err != nil {
		return remediation.Failed(fmt.Sprintf("%s cannot be written: %s", st.snap.Env.Path, err), "give backout write permission for it and its folder")
	}
	return remediation.Passed(fmt.Sprintf("%s=%s in %s names %s, which is %s", a.variable, st.snap.Value, st.snap.Env.Path, st.snap.Previous, shortImage(st.snap.PreviousID)))
}

func (a *imagePin) checkRuns(ctx context.Context) remediation.Result {
	st, err := a.stand(ctx, proofOf, a.c.found)
	if err != nil {
		return remediation.ResultOf(doubtful(ctx, err))
	}
	k := checkOf(a.target.Probe, "", setting{})
	k.wants = a.version
	_, found := aside{c: a.c, target: a.target, image: st.snap.PreviousID, check: k}.run(ctx)
	return found
}

// Watch implements remediation.Watcher: it reports every container of the service
// that starts, or already runs, from another image than the previous version's.
func (a *imagePin) Watch(ctx context.Context, report func(what string)) error {
	st, err := a.stand(ctx, proofOf, a.c.survey)
	if err != nil {
		return err
	}
	return a.c.watch(ctx, a.target.Compose, func(r *replica) string {
		if r.Image != st.snap.PreviousID {
			return fmt.Sprintf("image %s (%s), not %s", r.Config.Image, shortImage(r.Image), st.snap.Previous)
		}
		return ""
	}, report)
}
