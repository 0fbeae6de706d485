// Package operation is the one way in which a target is changed, for a step, for its
// restore, and for a promotion:
//
//	intent ──> apply ──> outcome ──> verify
//	             │                     │
//	             │ it fails            │ it fails
//	             └──> undo, with an intent and an outcome of its own
//
// An intent without a known outcome is in doubt: the target is looked at, and never
// acted on blindly. A verification that saw nothing decides nothing: it is repeated. Each
// arrow is committed by the Journal before what follows it begins, so that a new process
// goes on from wherever the last one was cut off.
package operation

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/locotoki/backout/remediation"
	"github.com/locotoki/backout/remediation/gate"
	"github.com/locotoki/backout/remediation/lease"
	"github.com/locotoki/backout/remediation/ledger"
)

// Operation is a change of a target whose intent is committed.
type Operation struct {
	// ID names it to the action for good, Name to people.
	ID, Name string
	Target   string
	Bind     func() (remediation.Action, error)
	// Before is the target as the intent found it: what undo goes back to.
	Before json.RawMessage
	// Epoch is that of the lease under which its intent was written, 0 for none.
	Epoch int64
	// Restore: it was done and verified, and is now put back because someone asked.
	Restore bool
}

// Phase is a part of an operation that has a time limit.
type Phase int

// The phases.
const (
	Apply Phase = iota + 1
	Verify
	Undo
)

// Way is how an operation in doubt continues.
type Way int

// The ways: to leave it as it is, to go forward, or to undo it.
const (
	Leave Way = iota
	Forward
	Back
)

// Journal commits the outcome of an operation. Its methods may be called again after
// a crash, from where the rows say that the operation is.
type Journal interface {
	// Limit is how long a phase may take from now.
	Limit(p Phase) time.Duration
	// Applied writes that the effect has happened; detail has the target as it is
	// now, and why this is known only now.
	Applied(ctx context.Context, detail map[string]any) error
	// Verifying is called before the target is verified, and Verified after it.
	Verifying(ctx context.Context) error
	Verified(ctx context.Context) error
	// Undoing writes the intent of an undo unless it is there already, and reports
	// whether the target is still this operation's to change.
	Undoing(ctx context.Context, cause error) (bool, error)
	// Undone writes how the undo came out.
	Undone(ctx context.Context, undoErr error) error
	// Doubted writes what a look at the target showed after cause, and decides. lookErr is
	// a *TooEarlyError where an earlier holder's request may have arrived after the look,
	// and why nothing was seen where a verification saw nothing: then there is nothing to
	// decide.
	Doubted(ctx context.Context, cause error, look remediation.Look, lookErr error) (Way, error)
}

// TooEarlyError: a look at a target proves nothing yet.
type TooEarlyError struct {
	// After is how soon one does.
	After time.Duration
}

// Error implements error.
func (e *TooEarlyError) Error() string {
	return fmt.Sprintf("another replica began this, and what it sent may still arrive: the target is looked at again in %s", remediation.Span(e.After))
}

var (
	// errCutOff is why an intent that this process did not write itself is in doubt.
	errCutOff = errors.New("backout was stopped between intent and outcome")
	// errUnseen is why an effect that has happened is in doubt.
	errUnseen = errors.New("the target was changed and cannot be verified")
)

// Run applies an operation whose intent this process has just written.
func Run(ctx context.Context, g *gate.Gates, op Operation, j Journal) error {
	r := &run{g, op, j}
	err := r.apply(ctx)
	switch {
	case err != nil && remediation.IsInDoubt(err):
		return r.doubt(ctx, err)
	case err != nil:
		return r.undo(ctx, err)
	}
	return r.applied(ctx, map[string]any{})
}

// Resume continues an operation that was interrupted before its outcome.
func Resume(ctx context.Context, g *gate.Gates, op Operation, j Journal) error {
	return (&run{g, op, j}).doubt(ctx, errCutOff)
}

// ResumeVerify continues an operation that was interrupted after its outcome.
func ResumeVerify(ctx context.Context, g *gate.Gates, op Operation, j Journal) error {
	return (&run{g, op, j}).verify(ctx)
}

// Revert undoes an operation, or continues an interrupted undo.
func Revert(ctx context.Context, g *gate.Gates, op Operation, j Journal, cause error) error {
	return (&run{g, op, j}).undo(ctx, cause)
}

// Look looks at the target of an operation. It has no effect.
func Look(ctx context.Context, g *gate.Gates, op Operation) (look remediation.Look, err error) {
	g.MeetTarget(op.Target)
	err = call(ctx, g, "the inspection of the target of "+op.Name, ledger.LookTimeout, op, func(ctx context.Context, a remediation.Action) (err error) {
		look, err = a.Look(ctx, op.ID)
		return err
	})
	if err != nil {
		return remediation.Look{}, err
	}
	switch look.Position {
	case remediation.Wanted, remediation.Untouched, remediation.HalfWay:
		return look, nil
	}
	return remediation.Look{}, fmt.Errorf("%s: unknown position %q", op.Name, look.Position)
}

// call calls one method of the action within limit, which a stop of the process does
// not cut short.
func call(ctx context.Context, g *gate.Gates, what string, limit time.Duration, op Operation, do func(context.Context, remediation.Action) error) error {
	ctx, unbind := lease.Bound(context.WithoutCancel(ctx))
	defer unbind()
	if ctx.Err() != nil { // another replica acts here by now
		return context.Cause(ctx)
	}
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	return g.Safely(what, func() error {
		a, err := op.Bind()
		if err != nil {
			return err
		}
		return do(ctx, a)
	})
}

type run struct {
	g  *gate.Gates
	op Operation
	j  Journal
}

func (r *run) act(ctx context.Context, p Phase, do func(context.Context, remediation.Action) error) error {
	return call(ctx, r.g, "the action of "+r.op.Name, r.j.Limit(p), r.op, do)
}

func (r *run) apply(ctx context.Context) error {
	return r.act(ctx, Apply, func(ctx context.Context, a remediation.Action) error { return a.Apply(ctx, r.op.ID, r.op.Before) })
}

func (r *run) applied(ctx context.Context, detail map[string]any) error {
	after, err := Look(ctx, r.g, r.op)
	if err == nil {
		detail["after"] = after.Snapshot
	} else {
		r.g.Log.Warn("cannot inspect a target after its change", "target", r.op.Target, "err", err)
	}
	if err := r.j.Applied(ctx, detail); err != nil {
		return err
	}
	return r.verify(ctx)
}

// verify waits until the target is seen to work. What is seen not to work is undone;
// what is not seen at all stays, and is verified again.
func (r *run) verify(ctx context.Context) error {
	if err := r.j.Verifying(ctx); err != nil {
		return err
	}
	err := r.act(ctx, Verify, func(ctx context.Context, a remediation.Action) error { return a.Verify(ctx, r.op.ID) })
	switch {
	case remediation.IsInDoubt(err):
		_, err = r.j.Doubted(ctx, errUnseen, remediation.Look{}, err)
		return err
	case err != nil:
		return r.undo(ctx, fmt.Errorf("verify: %w", err))
	}
	return r.j.Verified(ctx)
}

func (r *run) undo(ctx context.Context, cause error) error {
	ours, err := r.j.Undoing(ctx, cause)
	if err != nil || !ours {
		return err
	}
	undoErr := r.act(ctx, Undo, func(ctx context.Context, a remediation.Action) error {
		if restorer, ok := a.(remediation.Restorer); ok && r.op.Restore {
			return restorer.Restore(ctx, r.op.ID, r.op.Before)
		}
		return a.Undo(ctx, r.op.ID, r.op.Before)
	})
	if r.op.Restore && undoErr == nil {
		look, err := Look(ctx, r.g, r.op)
		switch {
		case remediation.IsUnfit(err): // for a step that is to begin; this one is undone
		case err != nil:
			undoErr = remediation.InDoubt(err)
		case look.Position == remediation.HalfWay:
			undoErr = remediation.InDoubt(fmt.Errorf("%s: its target is still half-way", r.op.Name))
		}
	}
	return r.j.Undone(ctx, undoErr)
}

func (r *run) doubt(ctx context.Context, cause error) error {
	early := time.Duration(0) // asked before the look: it does not show what arrives after it
	if h := lease.From(ctx); h != nil && h.Epoch != r.op.Epoch {
		early = h.Unsettled()
	}
	look, lookErr := Look(ctx, r.g, r.op)
	if lookErr == nil && look.Position != remediation.Wanted && early > 0 {
		lookErr = &TooEarlyError{early}
	}
	way, err := r.j.Doubted(ctx, cause, look, lookErr)
	switch {
	case err != nil || way == Leave:
		return err
	case way == Back:
		return r.undo(ctx, cause)
	case look.Position == remediation.HalfWay:
		err := r.apply(ctx)
		if err != nil && remediation.IsInDoubt(err) {
			again, unseen := Look(ctx, r.g, r.op)
			if unseen != nil { // nor is it undone blindly
				_, err = r.j.Doubted(ctx, err, remediation.Look{}, unseen)
				return err
			}
			if again.Position == remediation.Wanted {
				err = nil
			}
		}
		if err != nil {
			return r.undo(ctx, err)
		}
		return r.applied(ctx, map[string]any{"why": "found half-way and rolled forward"})
	}
	return r.applied(ctx, map[string]any{"why": "found after being in doubt"})
}
