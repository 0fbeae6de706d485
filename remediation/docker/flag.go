package docker

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"

	"github.com/docker/docker/api/types/container"

	"github.com/locotoki/backout/alerts"
	"github.com/locotoki/backout/hint"
	"github.com/locotoki/backout/remediation"
	"github.com/locotoki/backout/remediation/docker/compose"
	"github.com/locotoki/backout/remediation/docker/fleet"
	"github.com/locotoki/backout/remediation/docker/projectfile"
	"github.com/locotoki/backout/remediation/probe"
)

// FlagOff returns the action that switches one flag of a compose service off.
//
// Wanted means: a container that docker-compose up -d creates gets the off value,
// every replica runs and has it, and none of them serves another one by its own
// word. HalfWay means: the files say off while a replica has another value or does
// not run, or a copy of this operation is not in its place yet. A service without a
// container is refused; a replica that ended is replaced, and started.
//
// Undo turns nothing on for a service that was not up: see keeps.
func (c *Client) FlagOff(target alerts.Target, flag alerts.Flag) (remediation.Action, error) {
	switch {
	case target.Compose.ProjectDir == "" || target.Compose.Service == "":
		return nil, errors.New("target.compose needs project_dir and service")
	case !projectfile.VariableName.MatchString(flag.Name):
		return nil, fmt.Errorf("flag %q is not an environment variable name", flag.Name)
	case !projectfile.PlainValue.MatchString(flag.Off):
		return nil, hint.Add(fmt.Errorf("flag %s: off value %q", flag.Name, flag.Off), "letters, digits and ._:/@%%+,- only")
	}
	return &flagOff{c: c, target: target, flag: flag}, nil
}

type flagOff struct {
	c      *Client
	target alerts.Target
	flag   alerts.Flag
}

// snapshot is what an intent records: the flag's own values and nothing else
// that an environment holds.
type snapshot struct {
	Env      projectfile.FileState  `json:"env"`
	Override *projectfile.FileState `json:"override,omitempty"` // only where it is to be written
	Replicas []replicaState         `json:"replicas"`
	By       string                 `json:"by,omitempty"` // byCompose: what recreates them; absent: copies
}

func (a *flagOff) want() compose.Setting { return compose.Setting{Value: a.flag.Off, Set: true} }

// due tells a replica that is still to be replaced.
func (a *flagOff) due(r *fleet.Replica) bool { return r.Variable(a.flag.Name) != a.want() }

func (a *flagOff) writes() writes {
	return writes{variable: a.flag.Name, had: func(r *fleet.Replica) compose.Setting { return r.Variable(a.flag.Name) }}
}

func (a *flagOff) check() fleet.Check {
	k := fleet.CheckOf(a.target.Probe)
	k.Flag, k.Value = a.flag.Name, a.want()
	return k
}

// replacement is how an operation replaces the replicas that have the flag on.
func (a *flagOff) replacement(op string, snap snapshot) *replacement {
	return &replacement{
		c: a.c, op: op, compose: a.target.Compose, check: a.check(), were: snap.Replicas, due: a.due,
		forward: func(ctx context.Context, f *fleet.Fleet) (change, error) {
			l, err := lastingOf(f, a.flag)
			if err != nil {
				return change{}, err
			}
			return change{hash: a.c.cli.ConfigHash(ctx, l.whenOff), edit: func(r *fleet.Replica, to *container.Config) {
				to.Env = setVariable(to.Env, a.flag.Name, a.want())
				if override := l.LabelFor(r.Label(compose.LabelConfigFiles)); snap.Override != nil && override != "" {
					to.Labels[compose.LabelConfigFiles] += "," + override
				}
			}}, nil
		},
		differs: func(now *fleet.Replica, was replicaState) bool { return now.Variable(a.flag.Name) != was.value() },
		backward: func(ctx context.Context, f *fleet.Fleet, was replicaState) (change, error) {
			l, err := lastingOf(f, a.flag)
			if err != nil {
				return change{}, err
			}
			return change{hash: a.c.cli.ConfigHash(ctx, l.asIs), edit: func(_ *fleet.Replica, to *container.Config) {
				to.Env = setVariable(to.Env, a.flag.Name, was.value())
			}}, nil
		},
	}
}

// Look implements remediation.Action.
func (a *flagOff) Look(ctx context.Context, op string) (remediation.Look, error) {
	look, _, err := a.look(ctx, op)
	return look, err
}

func (a *flagOff) look(ctx context.Context, op string) (remediation.Look, snapshot, error) {
	var none remediation.Look
	f, err := a.c.FoundBy(op)(ctx, a.target.Compose)
	if err != nil {
		return none, snapshot{}, err
	}
	l, err := lastingOf(f, a.flag)
	if err != nil {
		return none, snapshot{}, err
	}
	on, left := f.Due(op, a.due), f.Leftovers(op)
	byTool := toolFor(l.defined, a.writes())
	if byTool == nil {
		err = a.c.Refuse(ctx, on)
	} else {
		err = byTool.decidedBy(l)
	}
	if err != nil {
		return none, snapshot{}, err
	}
	snap := snapshot{Env: l.env, Replicas: statesOf(f, op), By: byTool.named()}
	if l.Override != "" && (l.literal || l.shell) && !l.extraOff {
		snap.Override = &l.extra
	}
	for i, s := range snap.Replicas {
		if v := f.ByID(s.ID).Variable(a.flag.Name); v.Set {
			snap.Replicas[i].Value = &v.Value
		}
	}
	position := remediation.Untouched
	ours := slices.ContainsFunc(f.Replicas, func(r *fleet.Replica) bool { return r.OwnedBy(op) })
	switch {
	case len(left) > 0:
		position = remediation.HalfWay
	case len(on) == 0 && l.envOff && l.now == a.want():
		switch denied := f.Down() != nil || a.c.Denies(ctx, f, a.check()) != nil; {
		case !denied:
			position = remediation.Wanted
		case ours:
			position = remediation.HalfWay
		}
	case len(on) > 0 && l.envOff && l.now == a.want(), l.extraOff && !l.envOff:
		position = remediation.HalfWay
	}
	if len(on) > 0 && l.predictable() {
		a.c.cli.Prefetch(l.whenOff)
	}
	if byTool != nil {
		at, err := byTool.standsAt(ctx, a.c, f, op, l.envOff && l.now == a.want(), a.due)
		if err != nil {
			return none, snapshot{}, err
		}
		if at == remediation.HalfWay {
			position = at
		}
	}
	if err := f.MayBegin(op, position); err != nil {
		return none, snapshot{}, err
	}
	raw, err := json.Marshal(snap)
	return remediation.Look{Position: position, Snapshot: raw}, snap, err
}

// Apply implements remediation.Action.
func (a *flagOff) Apply(ctx context.Context, op string, before json.RawMessage) error {
	snap, err := a.parse(ctx, op, before)
	if err != nil {
		return err
	}
	f, err := a.c.Whole(ctx, a.target.Compose)
	if err != nil {
		return doubtful(ctx, err)
	}
	l, err := lastingOf(f, a.flag)
	if err != nil {
		return doubtful(ctx, err)
	}
	p := a.replacement(op, snap)
	// Before the first file is written: a copy that has begun was looked at then.
	if p.tool = toolFor(l.defined, a.writes()); p.tool == nil {
		err = a.c.Refuse(ctx, f.Due(op, a.due))
	} else if err = p.tool.decidedBy(l); err == nil {
		_, err = p.tool.standsAt(ctx, a.c, f, op, l.envOff && l.now == a.want(), a.due)
	}
	if err != nil {
		return doubtful(ctx, err)
	}
	if err := a.writeFiles(snap, f.Service); err != nil {
		return err
	}
	return p.apply(ctx)
}

// parse reads a snapshot; without one, what is there now is it.
func (a *flagOff) parse(ctx context.Context, op string, before json.RawMessage) (snapshot, error) {
	if len(before) == 0 {
		_, snap, err := a.look(ctx, op)
		return snap, doubtful(ctx, err)
	}
	var snap snapshot
	if err := json.Unmarshal(before, &snap); err != nil {
		return snapshot{}, fmt.Errorf("snapshot of %s: %w", a.flag.Name, err)
	}
	if snap.Env.Path == "" {
		return snapshot{}, fmt.Errorf("snapshot of %s names no .env file", a.flag.Name)
	}
	return snap, nil
}

// writeFiles writes what lasts. The override goes first: .env alone could be a
// human's work, both together are ours.
func (a *flagOff) writeFiles(snap snapshot, service string) error {
	if o := snap.Override; o != nil {
		err := a.c.Projects.Edit(o.Path, func(b []byte) ([]byte, error) { return projectfile.SetOverride(b, service, a.flag.Name, a.flag.Off) })
		if err != nil {
			return err
		}
	}
	return a.c.Projects.Edit(snap.Env.Path, func(b []byte) ([]byte, error) { return projectfile.SetEnv(b, a.flag.Name, a.flag.Off) })
}

// Verify implements remediation.Action.
func (a *flagOff) Verify(ctx context.Context, _ string) error {
	f, err := a.c.Found(ctx, a.target.Compose)
	if err != nil {
		return fleet.Unseen(err)
	}
	k := a.check()
	k.Peers = f.Replicas
	for _, r := range f.Members() {
		if !r.Running() {
			return r.IsDown()
		}
		if v := r.Variable(a.flag.Name); v != a.want() {
			return fmt.Errorf("container %s runs with %s=%q", r.ShortName(), a.flag.Name, v.Value)
		}
		if err := a.c.Works(ctx, r.ID, k); err != nil {
			return err
		}
	}
	return nil
}

// Undo implements remediation.Action.
func (a *flagOff) Undo(ctx context.Context, op string, before json.RawMessage) error {
	if len(before) == 0 {
		return fmt.Errorf("undo %s: no snapshot", a.flag.Name)
	}
	snap, err := a.parse(ctx, op, before)
	if err != nil {
		return err
	}
	f, err := a.c.Survey(ctx, a.target.Compose)
	if err != nil {
		return doubtful(ctx, err)
	}
	if why := a.keeps(op, snap, f); why != "" {
		a.c.log.Warn("flag not turned back on", "service", f.Service, "flag", a.flag.Name, "value", a.flag.Off, "why", why)
		p := a.replacement(op, snap)
		if p.tool, err = a.c.toolNow(ctx, a.target.Compose, snap.By == byCompose, a.writes()); err != nil {
			return doubtful(ctx, err)
		}
		return p.finish(ctx)
	}
	return a.putBack(ctx, op, snap)
}

// keeps says why an undo leaves the flag as the operation set it, or "": the service
// was not up with the flag on, or none of it is left, so that nobody is served
// better by turning it on again. Starting the service then starts it without.
func (a *flagOff) keeps(op string, snap snapshot, f *fleet.Fleet) string {
	raises := len(snap.Replicas) == 0
	for _, s := range snap.Replicas {
		raises = raises || probe.Raises(a.flag.Off, s.value().Value)
	}
	switch {
	case !raises:
		return ""
	case len(f.Members()) == 0 && !f.TouchedBy(op):
		return "no container of the service is left"
	case !slices.ContainsFunc(snap.Replicas, replicaState.up):
		return "the service was not running before"
	}
	return ""
}

// Restore implements remediation.Restorer: a person wants the flag on again, whatever
// the service was like.
func (a *flagOff) Restore(ctx context.Context, op string, before json.RawMessage) error {
	if len(before) == 0 {
		return fmt.Errorf("restore %s: no snapshot", a.flag.Name)
	}
	snap, err := a.parse(ctx, op, before)
	if err != nil {
		return err
	}
	revive(snap.Replicas)
	return a.putBack(ctx, op, snap)
}

func (a *flagOff) putBack(ctx context.Context, op string, snap snapshot) error {
	p := a.replacement(op, snap)
	byTool, err := a.c.toolNow(ctx, a.target.Compose, snap.By == byCompose, a.writes())
	if p.tool = byTool; err == nil {
		err = p.mayRun(ctx)
	}
	if err != nil {
		return doubtful(ctx, err)
	}
	if err := a.restoreFiles(snap); err != nil {
		return err
	}
	return p.undo(ctx)
}

func (a *flagOff) restoreFiles(snap snapshot) error {
	err := a.c.Projects.Edit(snap.Env.Path, func(b []byte) ([]byte, error) {
		return snap.Env.PutBackEnv(b, a.flag.Name), nil
	})
	if err != nil || snap.Override == nil {
		return err
	}
	return a.c.Projects.Edit(snap.Override.Path, func(b []byte) ([]byte, error) {
		if b == nil {
			return nil, nil
		}
		return projectfile.PutOverride(b, a.target.Compose.Service, a.flag.Name, snap.Override.Entry)
	})
}
