package docker

import (
	"context"
	"fmt"
	"slices"

	"github.com/docker/docker/api/types/container"

	"github.com/locotoki/backout/alerts"
	"github.com/locotoki/backout/remediation/docker/compose"
	"github.com/locotoki/backout/remediation/docker/fleet"
)

// replacement is how one operation replaces the running replicas of a service by
// copies that differ from them in one thing, and how it puts them back. It looks at
// the service again before each pass, so that it goes on from any half-way state.
type replacement struct {
	c       *Client
	op      string
	compose alerts.ComposeTarget
	check   fleet.Check // what a copy must show
	tool    *tool       // what recreates it instead; nil: copies do
	unseen  bool        // what the tool made need not be seen to work
	were    []replicaState
	// due tells a running replica that is still to be replaced.
	due func(*fleet.Replica) bool
	// forward says how copies are to differ from what they replace.
	forward func(context.Context, *fleet.Fleet) (change, error)
	// differs reports whether what runs under a replica's name now is to become
	// again what the replica was; backward says how.
	differs  func(now *fleet.Replica, was replicaState) bool
	backward func(context.Context, *fleet.Fleet, replicaState) (change, error)
}

// replicaState is one replica as a snapshot records it.
type replicaState struct {
	ID      string       `json:"id"`
	Name    string       `json:"name"`
	Image   string       `json:"image"`
	ImageID string       `json:"image_id"`
	State   string       `json:"state"`
	Health  string       `json:"health,omitempty"` // unhealthy, or nothing: a look that comes later must not differ
	Value   *string      `json:"value,omitempty"`  // of a flag; absent: not set
	Restart restartState `json:"restart"`
}

type restartState struct {
	Name string `json:"name"`
	Max  int    `json:"max"`
}

func (s replicaState) running() bool {
	return s.State == container.StateRunning || s.State == container.StateRestarting
}

// up reports whether it served.
func (s replicaState) up() bool {
	return s.State == container.StateRunning && s.Health != container.Unhealthy
}

// revive has replicas that were down put back as running ones.
func revive(all []replicaState) {
	for i, s := range all {
		if !s.running() {
			all[i].State = container.StateRunning
		}
	}
}

func (s replicaState) policy() container.RestartPolicy {
	return container.RestartPolicy{Name: container.RestartPolicyMode(s.Restart.Name), MaximumRetryCount: s.Restart.Max}
}

// value is what the replica had for the flag.
func (s replicaState) value() compose.Setting {
	if s.Value == nil {
		return compose.Setting{}
	}
	return compose.Setting{Value: *s.Value, Set: true}
}

func stateOf(r *fleet.Replica) replicaState {
	s := replicaState{ID: r.ID, Name: r.ShortName(), Image: r.Config.Image, ImageID: r.Image, State: r.State.Status,
		Restart: restartState{string(r.HostConfig.RestartPolicy.Name), r.HostConfig.RestartPolicy.MaximumRetryCount}}
	if r.Health() == container.Unhealthy {
		s.Health = container.Unhealthy
	}
	return s
}

// statesOf are the replicas as they are, but an operation's own copies: the original stands
// for such a one, or the intent's snapshot does.
func statesOf(f *fleet.Fleet, op string) []replicaState {
	all := []replicaState{}
	for _, r := range f.Replicas {
		if !r.OwnedBy(op) {
			all = append(all, stateOf(r))
		}
	}
	return all
}

// sameReplicas reports whether nobody recreated a container between two looks.
func sameReplicas(now, was []replicaState) bool {
	return slices.EqualFunc(now, was, func(a, b replicaState) bool { return a.ID == b.ID && a.ImageID == b.ImageID })
}

func (p *replacement) survey(ctx context.Context) (*fleet.Fleet, error) {
	return p.c.Survey(ctx, p.compose)
}

// apply replaces every replica that is due.
func (p *replacement) apply(ctx context.Context) error {
	if p.tool != nil {
		return p.tool.run(ctx, p, p.due)
	}
	return p.c.passes(ctx, p.survey, func(f *fleet.Fleet) (bool, error) { return p.applyPass(ctx, f) })
}

// applyPass does everything that is to be done to the containers as they are.
func (p *replacement) applyPass(ctx context.Context, f *fleet.Fleet) (done bool, err error) {
	due, left := f.Due(p.op, p.due), f.Leftovers(p.op)
	if len(due) == 0 && len(left) == 0 {
		return true, nil
	}
	if len(due) > 0 {
		return false, p.createCopies(ctx, f, due)
	}
	for _, dup := range left {
		k := p.check
		k.Peers = f.Replicas
		if err := p.c.advance(ctx, f, p.op, f.ByID(dup.Label(fleet.LabelReplaces)), dup, k); err != nil {
			return false, err
		}
	}
	// Before the originals go: until then the operation is found half-way.
	d, err := f.Definition()
	if err == nil {
		err = p.c.restartDependents(ctx, f, d)
	}
	if err != nil {
		return false, err
	}
	for _, dup := range left {
		if o := f.ByID(dup.Label(fleet.LabelReplaces)); o != nil {
			if err := p.c.remove(ctx, o); err != nil {
				return false, err
			}
		}
	}
	return false, nil
}

func (p *replacement) createCopies(ctx context.Context, f *fleet.Fleet, due []*fleet.Replica) error {
	ch, err := p.forward(ctx, f)
	if err != nil {
		return err
	}
	for _, r := range due {
		if err := r.Shape(); err != nil {
			return fmt.Errorf("container %s cannot be recreated: %w", r.ShortName(), err)
		}
		// An original that was set aside, and that someone started then, has
		// neither its own name nor its restart policy.
		ch.restart = p.policyOf(r.ID, r)
		if err := p.c.create(ctx, p.op, p.nameOf(r), r, ch); err != nil {
			return err
		}
	}
	return nil
}

// nameOf is the name that a replica has where it is not set aside.
func (p *replacement) nameOf(r *fleet.Replica) string {
	for _, s := range p.were {
		if s.ID == r.ID && r.ShortName() == asideName(s.Name, p.op) {
			return s.Name
		}
	}
	return r.ShortName()
}

// policyOf is the restart policy that a replica had, or what r has where no
// snapshot knows it.
func (p *replacement) policyOf(id string, r *fleet.Replica) container.RestartPolicy {
	for _, s := range p.were {
		if s.ID == id {
			return s.policy()
		}
	}
	return r.HostConfig.RestartPolicy
}

// finish brings copies that were begun to their place, whether they work or not.
func (p *replacement) finish(ctx context.Context) error {
	if p.tool != nil {
		_, left, err := p.begun(ctx)
		if err != nil || !left {
			return err
		}
		begun := *p
		begun.unseen = true
		return p.tool.run(ctx, &begun, p.due)
	}
	return p.c.passes(ctx, p.survey, func(f *fleet.Fleet) (bool, error) {
		left := f.Leftovers(p.op)
		for _, dup := range left {
			o := f.ByID(dup.Label(fleet.LabelReplaces))
			placed, err := p.c.place(ctx, f, p.op, o, dup)
			if err != nil {
				return false, err
			}
			if placed && o != nil {
				err = p.c.remove(ctx, o)
			}
			if err != nil {
				return false, err
			}
		}
		return len(left) == 0, nil
	})
}

// undo puts replicas back as they were.
func (p *replacement) undo(ctx context.Context) error {
	if p.tool != nil {
		return p.undoByTool(ctx)
	}
	return p.c.passes(ctx, p.survey, func(f *fleet.Fleet) (bool, error) {
		if done, err := p.takeBack(ctx, f); !done || err != nil {
			return false, err
		}
		return p.restore(ctx, f)
	})
}

// undoByTool has the tool put back what differs from what it was. A service of which
// nothing ran stays as it is.
func (p *replacement) undoByTool(ctx context.Context) error {
	if !slices.ContainsFunc(p.were, replicaState.running) {
		return p.tool.tidyUp(ctx, p)
	}
	was := map[string]replicaState{}
	for _, s := range p.were {
		was[s.Name] = s
	}
	back := *p
	back.check = fleet.Check{Timeout: 5 * fleet.AloneTimeout} // it may have been unwell before
	back.unseen = !slices.ContainsFunc(p.were, replicaState.up)
	return p.tool.run(ctx, &back, func(r *fleet.Replica) bool {
		s, known := was[r.ShortName()]
		return known && s.running() && p.differs(r, s)
	})
}

// retract takes back no more than copies: whatever runs besides is someone else's.
func (p *replacement) retract(ctx context.Context) error {
	if p.tool != nil {
		return p.tool.tidyUp(ctx, p)
	}
	return p.c.passes(ctx, p.survey, func(f *fleet.Fleet) (bool, error) { return p.takeBack(ctx, f) })
}

// takeBack takes every copy back that is not in its place yet, or whose original
// is still there.
func (p *replacement) takeBack(ctx context.Context, f *fleet.Fleet) (done bool, err error) {
	left := f.Leftovers(p.op)
	for _, dup := range left {
		if err := p.undoCopy(ctx, f, dup); err != nil {
			return false, err
		}
	}
	return len(left) == 0, nil
}

// undoCopy takes one copy back.
func (p *replacement) undoCopy(ctx context.Context, f *fleet.Fleet, dup *fleet.Replica) error {
	o, holder := f.ByID(dup.Label(fleet.LabelReplaces)), f.ByName(dup.Label(fleet.LabelName))
	switch {
	case holder != nil && holder != o && holder != dup:
		return p.c.giveWay(ctx, o, dup)
	case o == nil && holder != dup:
		return p.c.remove(ctx, dup)
	case o == nil:
		return p.c.bringBack(ctx, dup, dup.ShortName(), true, dup.HostConfig.RestartPolicy)
	}
	ran := !slices.ContainsFunc(p.were, func(s replicaState) bool { return s.ID == o.ID && !s.running() })
	return p.c.retreat(ctx, p.op, o, dup, ran, p.policyOf(o.ID, dup))
}

// restore puts originals back; what is gone for good is recreated as it was.
func (p *replacement) restore(ctx context.Context, f *fleet.Fleet) (done bool, err error) {
	done = true
	for _, s := range p.were {
		o := f.ByID(s.ID)
		switch {
		case o != nil && o.ShortName() == asideName(s.Name, p.op):
			done, err = false, p.c.bringBack(ctx, o, s.Name, s.running(), s.policy())
		case !s.running(): // it was not up: there is nothing to go back to
		case o == nil:
			var as bool
			as, err = p.recreateOld(ctx, f, s)
			done = done && as
		case o.ShortName() == s.Name && (!o.Running() || !o.RestartsBy(s.policy())):
			done, err = false, p.c.bringBack(ctx, o, s.Name, true, s.policy())
		}
		if err != nil {
			return false, err
		}
	}
	return done, nil
}

// recreateOld makes the container that has a replica's name now a copy as the
// replica was. Where nobody runs under the name, a person took the service down, and
// it stays so.
func (p *replacement) recreateOld(ctx context.Context, f *fleet.Fleet, s replicaState) (done bool, err error) {
	undo := fleet.Undoing(p.op)
	for _, dup := range f.Leftovers(undo) {
		if dup.Label(fleet.LabelName) != s.Name {
			continue
		}
		o := f.ByID(dup.Label(fleet.LabelReplaces))
		if err := p.c.advance(ctx, f, undo, o, dup, fleet.Check{Timeout: 5 * fleet.AloneTimeout}); err != nil || o == nil {
			return false, err
		}
		return false, p.c.remove(ctx, o)
	}
	now := f.ByName(s.Name)
	if now == nil || !now.Running() || !p.differs(now, s) {
		return true, nil
	}
	if err := p.c.Refuse(ctx, []*fleet.Replica{now}); err != nil {
		return false, err
	}
	ch, err := p.backward(ctx, f, s)
	if err != nil {
		return false, err
	}
	ch.restart = s.policy()
	return false, p.c.create(ctx, undo, s.Name, now, ch)
}
