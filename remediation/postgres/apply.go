package postgres

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

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
			return errors.New("the schema, its scripts or the application's roles changed since they were looked at; try: look again")
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
	// since; and once something was changed by us, no other will do.
	again := w.m.Phase == cutOff || wrote
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

// finish verifies the schema, lets the application back and closes the manifest.
func (w *work) finish(ctx context.Context) error {
	st, err := w.survey(ctx)
	if err != nil {
		return err
	}
	if !st.wanted {
		return definite("the schema is not as wanted after all of it was run")
	}
	if w.m.Phase != changed {
		if err := w.save(ctx, func(m *manifest) { m.Phase, m.Running = changed, "" }); err != nil {
			return err
		}
	}
	if err := w.letBack(ctx); err != nil {
		return err
	}
	return w.save(ctx, func(m *manifest) { m.Phase = finished })
}

// scripting opens a session for scripts: what they set in it goes with it.
func (w *work) scripting(ctx context.Context, do func(conn *pgx.Conn) error) error {
	conn, err := w.connect(ctx, w.tag(w.op))
	if err != nil {
		return err
	}
	defer part(ctx, conn)
	return do(conn)
}

// begin opens a transaction that nobody else can change the history beside, and
// reads the history in it. Scripts find their tables where Flyway looks for them.
func (w *work) begin(ctx context.Context, conn *pgx.Conn) (*history, error) {
	if err := change(ctx, conn, "BEGIN"); err != nil {
		return nil, fmt.Errorf("begin: %w", err)
	}
	table, err := findHistory(ctx, conn)
	if err != nil {
		return nil, err
	}
	if _, err := conn.Exec(ctx, "LOCK TABLE "+table.Sanitize()+" IN SHARE ROW EXCLUSIVE MODE"); err != nil {
		return nil, fmt.Errorf("lock %s: %w", table.Sanitize(), err)
	}
	_, err = conn.Exec(ctx, `SELECT set_config('search_path', quote_ident($1) || ', ' || current_setting('search_path'), false)
		WHERE current_schema() IS DISTINCT FROM $1`, table[0])
	if err != nil {
		return nil, fmt.Errorf("set search_path: %w", err)
	}
	return readHistory(ctx, conn)
}

// commit ends a transaction. Whether it did is not known where the server does
// not answer.
func commit(ctx context.Context, conn *pgx.Conn) error {
	if conn.PgConn().TxStatus() != 'T' {
		return definite("the transaction is not open any more")
	}
	if err := change(ctx, conn, "COMMIT"); err != nil {
		return fmt.Errorf("commit: %w", err)
	}
	return nil
}

// runTogether runs all undo scripts in one transaction, with their rows in
// Flyway's history.
func (w *work) runTogether(ctx context.Context, plan []script) error {
	return w.scripting(ctx, func(conn *pgx.Conn) error {
		h, err := w.begin(ctx, conn)
		if err != nil {
			return err
		}
		if err := w.stillPlanned(h, plan); err != nil {
			return err
		}
		before, err := w.countAll(ctx, conn)
		if err != nil {
			return err
		}
		for _, s := range plan {
			if err := w.runIn(ctx, conn, h, s); err != nil {
				return err
			}
		}
		after, err := w.countAll(ctx, conn)
		if err != nil {
			return err
		}
		// Before the commit: after it, there may be nobody to write it down.
		if err := w.save(ctx, func(m *manifest) { m.Before, m.After = before, after }); err != nil {
			return err
		}
		return commit(ctx, conn)
	})
}

// stillPlanned refuses where the history, now locked, is not the one that the
// plan was made from.
func (w *work) stillPlanned(h *history, plan []script) error {
	above := h.above(w.target)
	for _, r := range above {
		if !slices.ContainsFunc(plan, func(s script) bool { return s.version.compare(r.version) == 0 }) {
			return definite("version %s was applied meanwhile", r.versionText)
		}
	}
	if len(above) != len(plan) {
		return definite("the schema is at %s meanwhile", h.current())
	}
	return nil
}

// runIn runs one script in an open transaction.
func (w *work) runIn(ctx context.Context, conn *pgx.Conn, h *history, s script) error {
	started := time.Now()
	if err := change(ctx, conn, s.text); err != nil {
		return s.failed(err)
	}
	if conn.PgConn().TxStatus() != 'T' {
		return definite("undo script %s ended the transaction that it ran in", s.path)
	}
	return h.undone(ctx, conn, s, time.Since(started))
}

// failed says where a script failed.
func (s *script) failed(err error) error {
	var refusal *pgconn.PgError
	if errors.As(err, &refusal) && refusal.Position > 0 {
		runes := []rune(s.text)
		at := string(runes[:min(int(refusal.Position)-1, len(runes))])
		return fmt.Errorf("undo script %s, line %d: %w", s.path, 1+strings.Count(at, "\n"), err)
	}
	return fmt.Errorf("undo script %s: %w", s.path, err)
}

// runOneByOne runs scripts of which at least one cannot run in a transaction.
// Each that can has one of its own.
func (w *work) runOneByOne(ctx context.Context, plan []script) error {
	if w.m.Before == nil {
		before, err := w.countAll(ctx, w.conn)
		if err != nil {
			return err
		}
		if err := w.save(ctx, func(m *manifest) { m.Before = before }); err != nil {
			return err
		}
	}
	for i, s := range plan {
		run := w.runInItsOwn
		if s.alone {
			run = w.runAlone
		}
		if err := run(ctx, plan[i:], s); err != nil {
			return err
		}
	}
	after, err := w.countAll(ctx, w.conn)
	if err != nil {
		return err
	}
	return w.save(ctx, func(m *manifest) { m.After = after })
}

func (w *work) runInItsOwn(ctx context.Context, left []script, s script) error {
	err := w.save(ctx, func(m *manifest) { m.Phase, m.Running, m.Mark = changing, "", nil })
	if err != nil {
		return err
	}
	return w.scripting(ctx, func(conn *pgx.Conn) error {
		h, err := w.begin(ctx, conn)
		if err != nil {
			return err
		}
		if err := w.stillPlanned(h, left); err != nil {
			return err
		}
		if err := w.runIn(ctx, conn, h, s); err != nil {
			return err
		}
		return commit(ctx, conn)
	})
}

// runAlone runs a script's statements one after the other, each for itself, and
// then writes Flyway's row.
func (w *work) runAlone(ctx context.Context, left []script, s script) error {
	marks, err := w.marks(ctx)
	if err != nil {
		return err
	}
	err = w.save(ctx, func(m *manifest) { m.Phase, m.Running, m.Mark = changing, s.versionText, marks })
	if err != nil {
		return err
	}
	return w.scripting(ctx, func(conn *pgx.Conn) error {
		// The first transaction changes nothing: it sees that the history is as planned.
		h, err := w.begin(ctx, conn)
		if err == nil {
			err = w.stillPlanned(h, left)
		}
		if err == nil {
			err = commit(ctx, conn)
		}
		if err != nil {
			return err
		}
		started := time.Now()
		for _, st := range s.statements {
			if err := change(ctx, conn, st.text); err != nil {
				return fmt.Errorf("undo script %s, from line %d: %w", s.path, st.line, err)
			}
		}
		if h, err = w.begin(ctx, conn); err != nil {
			return err
		}
		if err := w.stillPlanned(h, left); err != nil {
			return err
		}
		if err := h.undone(ctx, conn, s, time.Since(started)); err != nil {
			return err
		}
		return commit(ctx, conn)
	})
}

// Verify implements remediation.Action.
func (r *rollback) Verify(ctx context.Context, op string) error {
	return r.with(ctx, op, "backout look", func(w *work) error {
		st, err := w.survey(ctx)
		switch {
		case err != nil:
			return err
		case w.m.open():
			return fmt.Errorf("the rollback is not finished, it is at %q", w.m.Phase)
		case !st.wanted && st.history != nil:
			return fmt.Errorf("the schema is at %s, not at %s", st.history.current(), w.spec.Flyway.Version)
		case !st.wanted:
			return errors.New("the query in wanted says that the schema is not as wanted")
		}
		return w.allIn(st)
	})
}

// Undo implements remediation.Action. What only was cut off is let back. After
// a script was committed or a command left its mark, it refuses and says where the
// snapshot is: data is never restored by a program. Where the schema is as wanted
// then, the application is let back; where it is between two versions, it is not.
func (r *rollback) Undo(ctx context.Context, op string, _ json.RawMessage) error {
	return r.with(ctx, op, r.tag(op), func(w *work) error {
		if w.m == nil || w.m.Phase == undone {
			return nil // nothing was begun, or all of it was taken back
		}
		if w.m.Phase == finished {
			return w.refuse(nil)
		}
		return w.inTheMidst(w.undo(ctx))
	})
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
			err = w.refuse(errors.New("it was cut off or failed half-way, and the application stays cut off"))
		}
		return err
	}
	if err := w.letBack(ctx); err != nil {
		return err
	}
	return w.save(ctx, func(m *manifest) { m.Phase = undone })
}

// touched tells whether anything of the schema was changed by this operation.
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
		return definite("%s; data is never restored by backout, and there is no snapshot: it was so before", what)
	}
	return definite("%s; data is never restored by backout: the snapshot is %s; try: pg_restore --clean --if-exists --dbname=%s %s",
		what, w.m.Dump.Path, w.m.Plan.Database, w.m.Dump.Path)
}

var _ remediation.Action = (*rollback)(nil)
