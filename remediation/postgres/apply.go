package postgres

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"

	"github.com/locotoki/backout/hint"
	"github.com/locotoki/backout/remediation"
)

// Apply implements remediation.Action.
func (r *rollback) Apply(ctx context.Context, op string, before json.RawMessage) error {
	return r.with(ctx, op, r.tag(op), func(w *work) error {
		asked, err := parseSnapshot(before)
		if err != nil {
			return err
		}
		if err := w.enter(ctx); err != nil {
			return w.inTheMidst(err)
		}
		st, err := w.survey(ctx)
		if err != nil {
			return w.inTheMidst(err)
		}
		if w.m.open() {
			return w.inTheMidst(w.resume(ctx, st))
		}
		if st.wanted {
			return w.allIn(st)
		}
		s, plan, err := w.prepare(ctx, st)
		if err != nil {
			return err
		}
		if asked != nil && !s.same(*asked) {
			return hint.Add(errors.New("the schema, its scripts or the application's roles changed since they were inspected"), "again")
		}
		return w.inTheMidst(w.first(ctx, s, plan))
	})
}

// enter makes sure that nobody else is at work, nor what a crash of ours left.
func (w *work) enter(ctx context.Context) error {
	if w.m.open() {
		if err := w.clear(ctx); err != nil {
			return err
		}
	}
	if err := w.lock(ctx); err != nil {
		return err
	}
	m, err := w.load(w.op)
	if err == nil {
		w.m = m
	}
	return err
}

// inTheMidst marks what leaves doubt: once the manifest is written, everything
// but a definite refusal.
func (w *work) inTheMidst(err error) error {
	if err == nil || !w.m.open() {
		return err
	}
	return w.kept(doubtful(err))
}

// first begins the operation.
func (w *work) first(ctx context.Context, s snapshot, plan []script) error {
	attempt := 1
	if w.m != nil {
		attempt = w.m.Attempt + 1
	}
	w.m = &manifest{Op: w.op, Service: w.spec.Service, Attempt: attempt, Phase: begun, Plan: s}
	if err := w.save(ctx, func(*manifest) {}); err != nil {
		return err
	}
	return w.forward(ctx, plan)
}

// resume goes on with an operation that was cut off.
func (w *work) resume(ctx context.Context, st *state) error {
	if st.wanted {
		return w.finish(ctx)
	}
	if err := w.resumable(ctx, st); err != nil {
		return err
	}
	plan, err := w.left(st)
	if err != nil {
		return &definiteError{err}
	}
	return w.forward(ctx, plan)
}

// forward does everything that is left: it is begun again at any point.
func (w *work) forward(ctx context.Context, plan []script) error {
	wrote, err := w.cutOff(ctx)
	if err != nil {
		return err
	}
	if w.m.Phase == begun {
		if err := w.save(ctx, func(m *manifest) { m.Phase = cutOff }); err != nil {
			return err
		}
	}
	// A snapshot of an earlier try is still good if the application has not written
	// since; and once something was changed by us, no other will do. An earlier release
	// noted nothing before it.
	again := w.m.Phase == cutOff || wrote || w.m.Phase == dumped && len(w.m.Mark) == 0
	if w.m.Phase == changing || !again {
		err := w.m.Dump.intact()
		if err != nil && w.m.Phase == changing {
			return &definiteError{err}
		}
		again = err != nil
	}
	if again {
		if err := w.takeSnapshot(ctx); err != nil {
			return err
		}
	}
	if w.m.Phase != changing {
		if err := w.stillReady(ctx); err != nil {
			return err
		}
	}
	switch {
	case w.spec.Flyway == nil:
		err = w.runCommand(ctx)
	case w.m.Plan.Transaction == "one":
		err = w.runTogether(ctx, plan)
	default:
		err = w.runOneByOne(ctx, plan)
	}
	if err != nil {
		return err
	}
	return w.finish(ctx)
}

// stillReady asks again what may have changed while the snapshot was taken. Nothing else
// has changed yet, so that a refusal lets the application back.
func (w *work) stillReady(ctx context.Context) error {
	if err := w.stillTolerated(ctx); err != nil {
		return err
	}
	wrote, err := w.cutOff(ctx)
	if err == nil && wrote {
		err = hint.Add(definite("the application could log in again while the snapshot was taken"),
			"look for what lets its roles log in, such as another schema rollback with the same role")
	}
	return err
}

// stillTolerated refuses what was seen to run. Where nobody could see it, it asks again
// while its patience lasts, and then leaves doubt.
func (w *work) stillTolerated(ctx context.Context) error {
	var last error
	var seen *remediation.VersionError
	err := w.await(ctx, "no answer says which version runs", func() (bool, error) {
		last = w.tolerated(ctx)
		if errors.As(last, &seen) {
			return false, &definiteError{last}
		}
		return last == nil, nil
	})
	if err != nil && seen == nil {
		if ctx.Err() != nil {
			last = fmt.Errorf("%w: %w", last, ctx.Err())
		}
		return remediation.InDoubt(last)
	}
	return err
}

// finish verifies the schema, lets the application back and closes the manifest.
func (w *work) finish(ctx context.Context) error {
	st, err := w.survey(ctx)
	if err != nil {
		return err
	}
	if !st.wanted {
		return definite("the schema is not in the wanted state after everything was run")
	}
	if w.m.Phase != changed || w.m.After == nil {
		after := w.m.After
		if after == nil { // what ran was cut off, and ended without us
			if after, err = w.countAll(ctx, w.conn); err != nil {
				return err
			}
		}
		if err := w.save(ctx, func(m *manifest) { m.Phase, m.Running, m.After = changed, "", after }); err != nil {
			return err
		}
	}
	if err := errors.Join(w.restoreLogins(ctx), w.tidy()); err != nil {
		return err
	}
	return w.save(ctx, func(m *manifest) { m.Phase = finished })
}
