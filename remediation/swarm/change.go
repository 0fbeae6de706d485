package swarm

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"

	"github.com/locotoki/backout/alerts"
	"github.com/locotoki/backout/hint"
	"github.com/locotoki/backout/remediation"
	"github.com/locotoki/backout/remediation/docker/projectfile"
	"github.com/locotoki/backout/remediation/jsonhttp"
	"github.com/locotoki/backout/remediation/replicas"
)

var errNoTarget = errors.New("the target is not in a Swarm")

// change is the action that gives one field of a service a value, first where it lasts,
// and rolls that out.
type change struct {
	c      *Client
	target alerts.Target
	field  field
	// want is the value, given what the field's is now; values are what a variable of the
	// env file may have for it.
	want   func(now *string) string
	values func(want string) []string
	// exact: what somebody changed since the intent is refused. Otherwise it is changed
	// all the same.
	exact bool
	// raises reports whether going from one value to another turns a flag further on.
	raises func(from, to *string) bool
	// answers asks one task, at the address of its port, for what was changed.
	answers func(ctx context.Context, address string) error
	// also is asked of the service once all tasks answer; nil: nothing.
	also func(ctx context.Context) error
}

// snapshot is what an intent records.
type snapshot struct {
	Service string `json:"service"`
	Field   string `json:"field"`
	// Value is what the field was; absent: there was none. To is what it becomes.
	Value *string `json:"value,omitempty"`
	To    string  `json:"to"`
	// File is what the env file had of Variable, which gets the value FileTo; absent for a
	// service of no stack.
	File     *projectfile.FileState `json:"file,omitempty"`
	Variable string                 `json:"variable,omitempty"`
	FileTo   string                 `json:"file_to,omitempty"`
	// Ready is how many tasks ran.
	Ready int `json:"ready"`
}

// seen is a service, the field's value in it, and where the field lasts.
type seen struct {
	*state
	now  *string
	want string
	// lasting is nil for a service of no stack.
	lasting *lasting
}

// see looks at the service, and, if lasts, at the files too: a rollback needs no stack
// file that can be read.
func (a *change) see(ctx context.Context, lasts bool) (seen, error) {
	s, err := a.c.read(ctx, a.target.Swarm)
	if err != nil {
		return seen{}, err
	}
	now, err := a.field.value(s.container())
	if err != nil {
		return seen{}, fmt.Errorf("%s: %w", s, err)
	}
	out := seen{state: s, now: now, want: a.want(now)}
	if lasts {
		out.lasting, err = a.c.lastingOf(s, a.field, out.want, a.values(out.want)...)
	}
	return out, err
}

// lasts reports whether the next docker stack deploy leaves the wanted value.
func (s seen) lasts() bool { return s.lasting == nil || s.lasting.deployed }

// Look implements remediation.Action.
func (a *change) Look(ctx context.Context, _ string) (remediation.Look, error) {
	s, err := a.see(ctx, true)
	if err == nil {
		err = s.refuse()
	}
	if err != nil {
		return remediation.Look{}, err
	}
	position := remediation.Untouched
	switch given := a.field.same(s.now, &s.want); {
	case given && s.lasts():
		position = remediation.HalfWay
		done, _, err := a.rolled(ctx, s.state, &s.want)
		if err != nil {
			return remediation.Look{}, err
		}
		denied := false
		if done {
			if denied, err = a.c.service(a.target).Denied(ctx, a.answers); err != nil {
				return remediation.Look{}, err
			}
		}
		if done && !denied {
			position = remediation.Wanted
		}
	case given, s.lasting != nil && s.lasting.deployed:
		position = remediation.HalfWay
	}
	snap := snapshot{Service: s.t.Service, Field: a.field.name(), Value: s.now, To: s.want, Ready: s.ServiceStatus.RunningTasks}
	if l := s.lasting; l != nil && l.variable != "" {
		snap.File, snap.Variable, snap.FileTo = &l.FileState, l.variable, l.to
	}
	raw, err := json.Marshal(snap)
	return remediation.Look{Position: position, Snapshot: raw}, err
}

func (a *change) parse(before json.RawMessage) (was snapshot, err error) {
	if err = json.Unmarshal(before, &was); err != nil {
		return was, fmt.Errorf("snapshot of %s: %w", a.field.name(), err)
	}
	if was.Field != a.field.name() {
		return was, fmt.Errorf("snapshot of %s is one of %s", a.field.name(), was.Field)
	}
	return was, nil
}

// errTaken marks that somebody changed the field while it was being rolled out.
var errTaken = errors.New("changed by someone else meanwhile")

// Apply implements remediation.Action: the env file, one update, and then its rollout. Of
// a flag that somebody sets back meanwhile, it is done again.
func (a *change) Apply(ctx context.Context, op string, before json.RawMessage) error {
	var was *snapshot
	if a.exact && len(before) > 0 {
		parsed, err := a.parse(before)
		if err != nil {
			return err
		}
		was = &parsed
	}
	var err error
	for range jsonhttp.Tries {
		if err = a.write(ctx, op, was); err != nil {
			return err
		}
		if err = a.roll(ctx, func(s seen) *string { return &s.want }, true); !errors.Is(err, errTaken) || a.exact {
			break
		}
	}
	return err
}

// write changes what lasts and then the service, until both have the wanted value.
func (a *change) write(ctx context.Context, op string, was *snapshot) error {
	return a.change(ctx, true, func(s seen) (bool, error) {
		if err := s.refuse(); err != nil {
			return false, err
		}
		given := a.field.same(s.now, &s.want)
		if was != nil && !a.field.same(s.now, was.Value) && !given {
			return false, hint.Add(fmt.Errorf("%s: %s was %s and is now %s; nothing was changed", s, a.field.name(), a.field.shown(was.Value), a.field.shown(s.now)), "check its present state")
		}
		if !s.lasts() {
			err := a.c.files.Edit(s.lasting.Path, func(b []byte) ([]byte, error) { return projectfile.SetEnv(b, s.lasting.variable, s.lasting.to) })
			return true, err
		}
		if given && (!s.paused() || s.marks()[a.field.key()] == op) {
			return false, nil
		}
		// An update resumes one that is paused.
		return true, a.c.update(ctx, s.state, a.field.key(), op, func(spec object) {
			if !given {
				a.field.set(spec, &s.want)
			}
		})
	})
}

// change calls step, which changes one thing and reports that it did, looking again each
// time, until there is nothing left to change.
func (a *change) change(ctx context.Context, lasts bool, step func(seen) (changed bool, err error)) error {
	var last error
	var refused uint64 // the version of the service that an update was refused for
	for n, quiet := 0, 0; n < 2*jsonhttp.Tries; n++ {
		if last != nil {
			if quiet++; quiet >= jsonhttp.Tries || !jsonhttp.Wait(ctx, jsonhttp.Pause(quiet)) {
				break
			}
		}
		s, err := a.see(ctx, lasts)
		if err == nil && refused == s.Version.Index {
			return last // nobody changed the service, and the manager refuses
		}
		if refused = 0; err == nil {
			var changed bool
			changed, err = step(s)
			if err == nil && !changed {
				return nil
			}
			if jsonhttp.Answered(err) >= 500 {
				refused = s.Version.Index
			}
		}
		switch {
		case err != nil && !jsonhttp.Silent(err):
			return err
		default: // it can be sent again: it names the version that it changes
			last = err
		}
	}
	if last == nil {
		last = fmt.Errorf("%s changes all the time: %w", a.field.name(), errTaken)
	}
	if ctx.Err() != nil {
		last = errors.Join(last, ctx.Err())
	}
	return jsonhttp.InDoubt(last)
}

// Undo implements remediation.Action. It turns nothing on for a service of which nothing
// ran: that serves nobody better.
func (a *change) Undo(ctx context.Context, op string, before json.RawMessage) error {
	return a.undo(ctx, op, before, false)
}

// Restore implements remediation.Restorer: a person wants the old value, whatever the
// service was like.
func (a *change) Restore(ctx context.Context, op string, before json.RawMessage) error {
	return a.undo(ctx, op, before, true)
}

func (a *change) undo(ctx context.Context, op string, before json.RawMessage, asked bool) error {
	was, err := a.parse(before)
	if err != nil {
		return err
	}
	if !asked && was.Ready == 0 && a.raises != nil && a.raises(&was.To, was.Value) {
		a.c.log.Warn("flag not turned back on", "service", was.Service, "field", was.Field, "value", was.To, "why", "no task ran before")
		return nil
	}
	if was.File != nil {
		err := a.c.files.Edit(was.File.Path, func(b []byte) ([]byte, error) {
			if value, set := projectfile.EnvValue(b, was.Variable); !set || value != was.FileTo {
				return b, nil // somebody else's by now, or never changed
			}
			return was.File.PutBackEnv(b, was.Variable), nil
		})
		if err != nil {
			return err
		}
	}
	wrote := false
	err = a.change(ctx, false, func(s seen) (bool, error) {
		if !a.field.same(s.now, &was.To) || a.field.same(was.Value, &was.To) {
			return false, nil // somebody else's by now, or never changed
		}
		// docker stack deploy takes the mark away, and keeps our value, by the env file.
		if by := s.marks()[a.field.key()]; by != "" && by != op {
			return false, hint.Add(fmt.Errorf("%s: %s is %s, set by another operation (%s)", s, a.field.name(), a.field.shown(s.now), by), "restore that one instead")
		}
		wrote = true
		return true, a.c.update(ctx, s.state, a.field.key(), "", func(spec object) { a.field.set(spec, was.Value) })
	})
	if err != nil {
		return err
	}
	s, err := a.see(ctx, false)
	if err != nil {
		return jsonhttp.InDoubt(err)
	}
	if !a.field.same(s.now, was.Value) || !wrote && was.Ready == 0 {
		return nil // it is somebody else's, or was never changed
	}
	return a.roll(ctx, func(seen) *string { return was.Value }, false)
}

// Verify implements remediation.Action: the update is completed, and each task has the
// value and answers as it should.
func (a *change) Verify(ctx context.Context, _ string) error {
	if err := a.roll(ctx, func(s seen) *string { return &s.want }, true); err != nil {
		return replicas.AsText(err)
	}
	s, err := a.see(ctx, false)
	if err != nil {
		return jsonhttp.Unseen(err)
	}
	limit := replicas.Patience(a.target.Probe)
	err = replicas.Insist(ctx, limit+s.replaced(), func(ctx context.Context) error {
		s, err := a.see(ctx, false)
		if err != nil {
			return jsonhttp.Unseen(err)
		}
		switch done, how, err := a.rolled(ctx, s.state, &s.want); {
		case err != nil:
			return jsonhttp.Unseen(err)
		case !done:
			return errors.New(how)
		}
		all, err := a.c.tasks(ctx, s.state)
		err = jsonhttp.Unseen(err)
		for _, t := range all.wanted {
			if err == nil {
				err = a.c.service(a.target).Ask(ctx, a.c.replica(a.target, s.state, t), a.answers)
			}
		}
		return err
	})
	if err == nil && a.also != nil {
		err = replicas.Insist(ctx, limit, a.also)
	}
	return err
}
