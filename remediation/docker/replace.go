package docker

import (
	"context"
	"fmt"
	"slices"

	"github.com/docker/docker/api/types/container"

	"github.com/locotoki/backout/alerts"
)

// replacement is how one operation replaces the running replicas of a service by
// copies that differ from them in one thing, and how it puts them back. It looks at
// the service again before each pass, so that it goes on from any half-way state.
type replacement struct {
	c       *Client
	op      string
	compose alerts.ComposeTarget
	check   check // what a copy must show
	tool    *tool // what recreates it instead; nil: copies do
	unseen  bool  // what the tool made need not be seen to work
	were    []replicaState
	// due tells a running replica that is still to be replaced.
	due func(*replica) bool
	// forward says how copies are to differ from what they replace.
	forward func(context.Context, *fleet) (change, error)
	// differs reports whether what runs under a replica's name now is to become
	// again what the replica was; backward says how.
	differs  func(now *replica, was replicaState) bool
	backward func(context.Context, *fleet, replicaState) (change, error)
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
func (s replicaState) value() setting {
	if s.Value == nil {
		return setting{}
	}
	return setting{*s.Value, true}
}

func stateOf(r *replica) replicaState {
	s := replicaState{ID: r.ID, Name: r.name(), Image: r.Config.Image, ImageID: r.Image, State: r.State.Status,
		Restart: restartState{string(r.HostConfig.RestartPolicy.Name), r.HostConfig.RestartPolicy.MaximumRetryCount}}
	if r.health() == container.Unhealthy {
		s.Health = container.Unhealthy
	}
	return s
}

func (p *replacement) survey(ctx context.Context) (*fleet, error) { return p.c.survey(ctx, p.compose) }

// apply replaces every replica that is due.
func (p *replacement) apply(ctx context.Context) error {
	if p.tool != nil {
		return p.tool.run(ctx, p, p.due)
	}
	return p.c.passes(ctx, p.survey, func(f *fleet) (bool, error) { return p.applyPass(ctx, f) })
}

// applyPass does everything that is to be done to the containers as they are.
func (p *replacement) applyPass(ctx context.Context, f *fleet) (done bool, err error) {
	due, left := f.due(p.op, p.due), f.leftovers(p.op)
	if len(due) == 0 && len(left) == 0 {
		return true, nil
	}
	if len(due) > 0 {
		return false, p.createCopies(ctx, f, due)
	}
	for _, dup := range left {
		k := p.check
		k.peers = f.replicas
		if err := p.c.advance(ctx, f, p.op, f.byID(dup.label(labelReplaces)), dup, k); err != nil {
			return false, err
		}
	}
	// Before the originals go: until then the operation is found half-way.
	d, err := p.c.definitionOf(f)
	if err == nil {
		err = p.c.restartDependents(ctx, f, d)
	}
	if err != nil {
		return false, err
	}
	for _, dup := range left {
		if o := f.byID(dup.label(labelReplaces)); o != nil {
			if err := p.c.remove(ctx, o); err != nil {
				return false, err
			}
		}
	}
	return false, nil
}

func (p *replacement) createCopies(ctx context.Context, f *fleet, due []*replica) error {
	ch, err := p.forward(ctx, f)
	if err != nil {
		return err
	}
	for _, r := range due {
		if err := r.shape(); err != nil {
			return fmt.Errorf("container %s cannot be recreated: %w", r.name(), err)
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
func (p *replacement) nameOf(r *replica) string {
	for _, s := range p.were {
		if s.ID == r.ID && r.name() == asideName(s.Name, p.op) {
			return s.Name
		}
	}
	return r.name()
}

// policyOf is the restart policy that a replica had, or what r has where no
// snapshot knows it.
func (p *replacement) policyOf(id string, r *replica) container.RestartPolicy {
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
	return p.c.passes(ctx, p.survey, func(f *fleet) (bool, error) {
		left := f.leftovers(p.op)
		for _, dup := range left {
			o := f.byID(dup.label(labelReplaces))
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
	return p.c.passes(ctx, p.survey, func(f *fleet) (bool, error) {
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
	back.check = check{timeout: 5 * aloneTimeout} // it may have been unwell before
	back.unseen = !slices.ContainsFunc(p.were, replicaState.up)
	return p.tool.run(ctx, &back, func(r *replica) bool {
		s, known := was[r.name()]
		return known && s.running() && p.differs(r, s)
	})
}

// retract takes back no more than copies: whatever runs besides is someone else's.
func (p *replacement) retract(ctx context.Context) error {
	if p.tool != nil {
		return p.tool.tidyUp(ctx, p)
	}
	return p.c.passes(ctx, p.survey, func(f *fleet) (bool, error) { return p.takeBack(ctx, f) })
}

// takeBack takes every copy back that is not in its place yet, or whose original
// is still there.
func (p *replacement) takeBack(ctx context.Context, f *fleet) (done bool, err error) {
	left := f.leftovers(p.op)
	for _, dup := range left {
		if err := p.undoCopy(ctx, f, dup); err != nil {
			return false, err
		}
	}
	return len(left) == 0, nil
}

// undoCopy takes one copy back.
func (p *replacement) undoCopy(ctx context.Context, f *fleet, dup *replica) error {
	o, holder := f.byID(dup.label(labelReplaces)), f.byName(dup.label(labelName))
	switch {
	case holder != nil && holder != o && holder != dup:
		return p.c.giveWay(ctx, o, dup)
	case o == nil && holder != dup:
		return p.c.remove(ctx, dup)
	case o == nil:
		return p.c.bringBack(ctx, dup, dup.name(), true, dup.HostConfig.RestartPolicy)
	}
	ran := !slices.ContainsFunc(p.were, func(s replicaState) bool { return s.ID == o.ID && !s.running() })
	return p.c.retreat(ctx, p.op, o, dup, ran, p.policyOf(o.ID, dup))
}

// restore puts originals back; what is gone for good is recreated as it was.
func (p *replacement) restore(ctx context.Context, f *fleet) (done bool, err error) {
	done = true
	for _, s := range p.were {
		o := f.byID(s.ID)
		switch {
		case o != nil && o.name() == asideName(s.Name, p.op):
			done, err = false, p.c.bringBack(ctx, o, s.Name, s.running(), s.policy())
		case !s.running(): // it was not up: there is nothing to go back to
		case o == nil:
			var as bool
			as, err = p.recreateOld(ctx, f, s)
			done = done && as
		case o.name() == s.Name && (!o.running() || !o.restartsBy(s.policy())):
			done, err = false, p.c.bringBack(ctx, o, s.Name, true, s.policy())
		}
		if err != nil {
			return false, err
		}
	}
	return done, nil
}

// undoing is the operation that recreates what an operation removed.
func undoing(op string) string { return op + "/undo" }

// recreateOld makes the container that has a replica's name now a copy as the
// replica was. Where nobody runs under the name, a person took the service down, and
// it stays so.
func (p *replacement) recreateOld(ctx context.Context, f *fleet, s replicaState) (done bool, err error) {
	undo := undoing(p.op)
	for _, dup := range f.leftovers(undo) {
		if dup.label(labelName) != s.Name {
			continue
		}
		o := f.byID(dup.label(labelReplaces))
		if err := p.c.advance(ctx, f, undo, o, dup, check{timeout: 5 * aloneTimeout}); err != nil || o == nil {
			return false, err
		}
		return false, p.c.remove(ctx, o)
	}
	now := f.byName(s.Name)
	if now == nil || !now.running() || !p.differs(now, s) {
		return true, nil
	}
	if err := p.c.refuse(ctx, []*replica{now}); err != nil {
		return false, err
	}
	ch, err := p.backward(ctx, f, s)
	if err != nil {
		return false, err
	}
	ch.restart = s.policy()
	return false, p.c.create(ctx, undo, s.Name, now, ch)
}
