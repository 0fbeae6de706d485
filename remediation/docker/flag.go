package docker

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"

	"github.com/docker/docker/api/types/container"

	"github.com/locotoki/backout/alerts"
	"github.com/locotoki/backout/remediation"
)

// FlagOff returns the action that switches one flag of a compose service off.
//
// Wanted means: a container that docker-compose up -d creates gets the off value,
// and every running replica has it. A service that is not running at all is as
// wanted once the files are. HalfWay means: the files say off while a replica
// has another value, or a copy of this operation is not in its place yet.
func (c *Client) FlagOff(target alerts.Target, flag alerts.Flag) (remediation.Action, error) {
	switch {
	case target.Compose.ProjectDir == "" || target.Compose.Service == "":
		return nil, errors.New("target.compose needs project_dir and service")
	case flag.Name == "" || nameLength(flag.Name) != len(flag.Name):
		return nil, fmt.Errorf("flag %q is not a name of an environment variable", flag.Name)
	case !plainValue.MatchString(flag.Off):
		return nil, fmt.Errorf("flag %s: off value %q; try: letters, digits and ._:/@%%+,- only", flag.Name, flag.Off)
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
	Env      fileState[envEntry]       `json:"env"`
	Override *fileState[overrideEntry] `json:"override,omitempty"` // only where it is to be written
	Replicas []replicaState            `json:"replicas"`
}

type replicaState struct {
	ID      string       `json:"id"`
	Name    string       `json:"name"`
	Image   string       `json:"image"`
	ImageID string       `json:"image_id"`
	State   string       `json:"state"`
	Value   *string      `json:"value,omitempty"` // of the flag; absent: not set
	Restart restartState `json:"restart"`
}

type restartState struct {
	Name string `json:"name"`
	Max  int    `json:"max"`
}

func (s replicaState) running() bool {
	return s.State == container.StateRunning || s.State == container.StateRestarting
}

func (s replicaState) policy() container.RestartPolicy {
	return container.RestartPolicy{Name: container.RestartPolicyMode(s.Restart.Name), MaximumRetryCount: s.Restart.Max}
}

func (a *flagOff) want() setting { return setting{a.flag.Off, true} }

func (a *flagOff) survey(ctx context.Context) (*fleet, error) {
	return a.c.survey(ctx, a.target.Compose)
}

// on returns the running replicas that are still to be replaced.
func (a *flagOff) on(f *fleet, op string) []*replica {
	var on []*replica
	for _, r := range f.replicas {
		if r.running() && r.variable(a.flag.Name) != a.want() && f.copyOf(op, r.ID) == nil {
			on = append(on, r)
		}
	}
	return on
}

// Look implements remediation.Action.
func (a *flagOff) Look(ctx context.Context, op string) (remediation.Look, error) {
	look, _, err := a.look(ctx, op)
	return look, err
}

func (a *flagOff) look(ctx context.Context, op string) (remediation.Look, snapshot, error) {
	var none remediation.Look
	f, err := a.survey(ctx)
	if err != nil {
		return none, snapshot{}, err
	}
	l, err := a.c.lastingOf(f, a.flag)
	if err != nil {
		return none, snapshot{}, err
	}
	on, left := a.on(f, op), f.leftovers(op)
	if err := a.c.refuse(ctx, on); err != nil {
		return none, snapshot{}, err
	}
	snap := snapshot{Env: l.env, Replicas: []replicaState{}}
	if l.override != "" && (l.literal || l.shell) && !l.extraOff {
		snap.Override = &l.extra
	}
	for _, r := range f.replicas {
		if r.ownedBy(op) {
			continue // its original stands for it, or the intent's snapshot does
		}
		s := replicaState{ID: r.ID, Name: r.name(), Image: r.Config.Image, ImageID: r.Image, State: r.State.Status,
			Restart: restartState{string(r.HostConfig.RestartPolicy.Name), r.HostConfig.RestartPolicy.MaximumRetryCount}}
		if v := r.variable(a.flag.Name); v.set {
			s.Value = &v.value
		}
		snap.Replicas = append(snap.Replicas, s)
	}
	position := remediation.Untouched
	switch {
	case len(left) > 0:
		position = remediation.HalfWay
	case len(on) == 0 && l.envOff && l.now == a.want():
		position = remediation.Wanted
	case len(on) > 0 && l.envOff && l.now == a.want(), l.extraOff && !l.envOff:
		position = remediation.HalfWay
	}
	if len(on) > 0 && l.predictable() {
		a.c.ask(l.whenOff)
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
	f, err := a.survey(ctx)
	if err != nil {
		return doubtful(ctx, err)
	}
	// Before the first file is written: a copy that has begun was looked at then.
	if err := a.c.refuse(ctx, a.on(f, op)); err != nil {
		return doubtful(ctx, err)
	}
	if err := a.writeFiles(snap, f.service); err != nil {
		return err
	}
	return a.c.passes(ctx, a.survey, func(f *fleet) (bool, error) { return a.applyPass(ctx, op, snap, f) })
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
		err := a.c.editProjectFile(o.Path, func(b []byte) ([]byte, error) { return setOverride(b, service, a.flag.Name, a.flag.Off) })
		if err != nil {
			return err
		}
	}
	return a.c.editProjectFile(snap.Env.Path, func(b []byte) ([]byte, error) { return setEnv(b, a.flag.Name, a.flag.Off) })
}

// applyPass does everything that is to be done to the containers as they are.
func (a *flagOff) applyPass(ctx context.Context, op string, snap snapshot, f *fleet) (done bool, err error) {
	k := checkOf(a.target.Probe, a.flag.Name, a.want())
	on, left := a.on(f, op), f.leftovers(op)
	if len(on) == 0 && len(left) == 0 {
		return true, nil
	}
	if len(on) > 0 {
		return false, a.createCopies(ctx, op, snap, f, on)
	}
	for _, dup := range left {
		if err := a.c.advance(ctx, f, op, f.byID(dup.label(labelReplaces)), dup, k); err != nil {
			return false, err
		}
	}
	for _, dup := range left {
		if o := f.byID(dup.label(labelReplaces)); o != nil {
			if err := a.c.remove(ctx, o); err != nil {
				return false, err
			}
		}
	}
	return false, nil
}

func (a *flagOff) createCopies(ctx context.Context, op string, snap snapshot, f *fleet, on []*replica) error {
	l, err := a.c.lastingOf(f, a.flag)
	if err != nil {
		return err
	}
	hash := a.c.configHash(ctx, l.whenOff)
	for _, r := range on {
		if err := r.shape(); err != nil {
			return fmt.Errorf("container %s cannot be recreated: %w", r.name(), err)
		}
		ch := change{op: op, flag: a.flag.Name, value: a.want(), hash: hash, tempName: tempName(r.name(), op)}
		if snap.Override != nil {
			ch.override = l.labelFor(r)
		}
		if err := a.c.create(ctx, r, ch); err != nil {
			return err
		}
	}
	return nil
}

// Verify implements remediation.Action.
func (a *flagOff) Verify(ctx context.Context, op string) error {
	f, err := a.survey(ctx)
	if err != nil {
		return err
	}
	running := 0
	for _, r := range f.replicas {
		if !r.running() {
			continue
		}
		running++
		if v := r.variable(a.flag.Name); v != a.want() {
			return fmt.Errorf("container %s runs with %s=%q", r.name(), a.flag.Name, v.value)
		}
		if err := a.c.works(ctx, r.ID, checkOf(a.target.Probe, a.flag.Name, a.want())); err != nil {
			return err
		}
	}
	if running == 0 && len(f.replicas) > 0 {
		return fmt.Errorf("no container of %s is running", a.target.Compose.Service)
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
	if err := a.restoreFiles(snap); err != nil {
		return err
	}
	return a.c.passes(ctx, a.survey, func(f *fleet) (bool, error) { return a.undoPass(ctx, op, snap, f) })
}

func (a *flagOff) restoreFiles(snap snapshot) error {
	err := a.c.editProjectFile(snap.Env.Path, func(b []byte) ([]byte, error) {
		out := putEnvEntry(b, a.flag.Name, snap.Env.Entry)
		if len(out) == 0 && snap.Env.Missing != "" {
			return nil, nil
		}
		return out, nil
	})
	if err != nil || snap.Override == nil {
		return err
	}
	return a.c.editProjectFile(snap.Override.Path, func(b []byte) ([]byte, error) {
		if b == nil {
			return nil, nil
		}
		return putOverrideEntry(b, a.target.Compose.Service, a.flag.Name, snap.Override.Entry)
	})
}

// undoPass puts originals back; what is gone for good is recreated with the
// value it had.
func (a *flagOff) undoPass(ctx context.Context, op string, snap snapshot, f *fleet) (done bool, err error) {
	if left := f.leftovers(op); len(left) > 0 {
		for _, dup := range left {
			if err := a.undoCopy(ctx, op, snap, f, dup); err != nil {
				return false, err
			}
		}
		return false, nil
	}
	done = true
	for _, s := range snap.Replicas {
		if !s.running() {
			continue
		}
		o := f.byID(s.ID)
		switch {
		case o == nil:
			var as bool
			as, err = a.recreateOld(ctx, op, s, f)
			done = done && as
		case o.name() == asideName(s.Name, op), o.name() == s.Name && (!o.running() || !o.restartsBy(s.policy())):
			done, err = false, a.c.bringBack(ctx, o, s.Name, true, s.policy())
		}
		if err != nil {
			return false, err
		}
	}
	return done, nil
}

// undoCopy takes one copy back.
func (a *flagOff) undoCopy(ctx context.Context, op string, snap snapshot, f *fleet, dup *replica) error {
	o, holder := f.byID(dup.label(labelReplaces)), f.byName(dup.label(labelName))
	switch {
	case holder != nil && holder != o && holder != dup:
		return a.c.giveWay(ctx, o, dup)
	case o == nil && holder != dup:
		return a.c.remove(ctx, dup)
	case o == nil:
		return a.c.bringBack(ctx, dup, dup.name(), true, dup.HostConfig.RestartPolicy)
	}
	policy := dup.HostConfig.RestartPolicy // as the original had it
	for _, s := range snap.Replicas {
		if s.ID == o.ID {
			policy = s.policy()
		}
	}
	return a.c.retreat(ctx, op, o, dup, true, policy)
}

// recreateOld makes the container that has a replica's name now a copy with the
// old value. Where nobody runs under the name, a human took the service down, and
// it stays so.
func (a *flagOff) recreateOld(ctx context.Context, op string, s replicaState, f *fleet) (done bool, err error) {
	undo := op + "/undo"
	for _, dup := range f.leftovers(undo) {
		if dup.label(labelName) != s.Name {
			continue
		}
		o := f.byID(dup.label(labelReplaces))
		if err := a.c.advance(ctx, f, undo, o, dup, check{timeout: 5 * aloneTimeout}); err != nil || o == nil {
			return false, err
		}
		return false, a.c.remove(ctx, o)
	}
	value := setting{}
	if s.Value != nil {
		value = setting{*s.Value, true}
	}
	now := f.byName(s.Name)
	if now == nil || !now.running() || now.variable(a.flag.Name) == value {
		return true, nil
	}
	if err := a.c.refuse(ctx, []*replica{now}); err != nil {
		return false, err
	}
	l, err := a.c.lastingOf(f, a.flag)
	if err != nil {
		return false, err
	}
	return false, a.c.create(ctx, now, change{
		op: undo, flag: a.flag.Name, value: value, hash: a.c.configHash(ctx, l.asIs), tempName: tempName(s.Name, undo),
	})
}
