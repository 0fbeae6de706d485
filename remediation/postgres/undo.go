package postgres

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"

	"github.com/locotoki/backout/hint"
	"github.com/locotoki/backout/remediation"
)

// Verify implements remediation.Action. Where the server says nothing, it is in doubt.
func (r *rollback) Verify(ctx context.Context, op string) error {
	return unheard(r.with(ctx, op, "backout look", func(w *work) error {
		st, err := w.survey(ctx)
		switch {
		case err != nil:
			return err
		case w.m.open():
			return fmt.Errorf("the rollback is not finished, it is at %q", w.m.Phase)
		case !st.wanted && st.history != nil:
			return fmt.Errorf("the schema is at %s, not at %s", st.history.current(), w.spec.Flyway.Version)
		case !st.wanted:
			return errors.New("the query in wanted says that the schema is not in the wanted state")
		}
		return w.allIn(st)
	}))
}

// Undo implements remediation.Action. What only was cut off is let back. After
// a script was committed or a command left its mark, it refuses and says where the
// snapshot is: data is never restored by a program. Where the schema is as wanted
// then, the application is let back; where it is between two versions, it is not.
func (r *rollback) Undo(ctx context.Context, op string, _ json.RawMessage) error {
	if m, err := r.load(op); err == nil && (m == nil || m.Phase == undone) {
		return nil // not even the server is needed for it
	}
	return unheard(r.with(ctx, op, r.tag(op), func(w *work) error {
		if w.m == nil || w.m.Phase == undone {
			return nil // nothing was begun, or all of it was taken back
		}
		if w.m.Phase == finished {
			return w.refuse(nil)
		}
		return w.inTheMidst(w.undo(ctx))
	}))
}

func (w *work) undo(ctx context.Context) error {
	if err := w.enter(ctx); err != nil {
		return err
	}
	if !w.m.open() {
		return nil // another call ended it meanwhile
	}
	st, err := w.survey(ctx)
	if err != nil {
		return err
	}
	if st.wanted {
		if err := w.finish(ctx); err != nil {
			return err
		}
		return w.refuse(nil)
	}
	if touched, err := w.touched(ctx, st); err != nil || touched {
		if err == nil {
			err = w.refuse(errors.New("it was interrupted or failed half-way, and the application stays disconnected"))
		}
		return err
	}
	if err := errors.Join(w.restoreLogins(ctx), w.tidy()); err != nil {
		return err
	}
	return w.save(ctx, func(m *manifest) { m.Phase = undone })
}

// touched reports whether anything of the schema was changed by this operation.
func (w *work) touched(ctx context.Context, st *state) (bool, error) {
	if w.m.Phase != changing {
		return false, nil // all in one transaction, and it was not committed
	}
	if st.history != nil {
		for _, s := range w.m.Plan.Scripts {
			if v, err := parseVersion(s.Version); err != nil || !st.history.isApplied(v) {
				return true, err
			}
		}
		if w.m.Running == "" {
			return false, nil
		}
	}
	same, err := w.unchanged(ctx)
	return !same, err
}

// refuse says that data is not restored, and where it is.
func (w *work) refuse(why error) error {
	what := "the schema is at its previous version"
	if why != nil {
		what = why.Error()
	}
	if w.m.Dump == nil {
		return definite("%s; backout never restores data, and there is no snapshot: it was in this state before", what)
	}
	all := lost(w.m.Before, w.m.After)
	if len(all) > 0 {
		what += ", lost: " + remediation.LostWords(all)
	}
	return hint.Add(definite("%s; backout never restores data: the snapshot is %s", what, w.m.Dump.Path),
		"%s", remediation.WaysBack(w.m.Dump.Path, w.spec.DSNFile, w.m.Plan.Database, all)[0].Command)
}

var _ remediation.Action = (*rollback)(nil)
