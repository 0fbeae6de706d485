package postgres

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
)

// scripting opens a session for scripts: what they set in it goes with it.
func (w *work) scripting(ctx context.Context, do func(conn *pgx.Conn) error) error {
	conn, err := w.connect(ctx, w.tag(w.op))
	if err != nil {
		return err
	}
	defer part(ctx, conn)
	return do(conn)
}

// restoreSettings takes back every setting that a script left in a session, SET LOCAL
// too, as Flyway does before each migration: the next script finds its tables where Flyway
// looks for them, and the session's role and limits are again those of connect. schema is
// the history's, "" where it is not known yet.
func restoreSettings(ctx context.Context, conn *pgx.Conn, schema string) error {
	if err := change(ctx, conn, "RESET SESSION AUTHORIZATION; RESET ROLE; RESET ALL"); err != nil { // ALL leaves out the other two
		return fmt.Errorf("reset the session's settings: %w", err)
	}
	if schema == "" {
		return nil
	}
	_, err := conn.Exec(ctx, `SELECT set_config('search_path', quote_ident($1) || ', ' || current_setting('search_path'), false)
		WHERE current_schema() IS DISTINCT FROM $1`, schema)
	if err != nil {
		return fmt.Errorf("set search_path: %w", err)
	}
	return nil
}

// begin opens a transaction in which nobody else can change the history, and
// reads the history in it.
func (w *work) begin(ctx context.Context, conn *pgx.Conn) (*history, error) {
	if err := restoreSettings(ctx, conn, ""); err != nil {
		return nil, err
	}
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
	if err := restoreSettings(ctx, conn, table[0]); err != nil {
		return nil, err
	}
	return readHistory(ctx, conn)
}

// commit ends a transaction. Whether it did is not known where the server does
// not answer.
func commit(ctx context.Context, conn *pgx.Conn) error {
	if conn.PgConn().TxStatus() != 'T' {
		return definite("the transaction is no longer open")
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
		if err := w.unwritten(ctx); err != nil {
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
	if err := restoreSettings(ctx, conn, h.table[0]); err != nil {
		return err
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
	if err := w.unwritten(ctx); err != nil {
		return err
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
	marks, err := w.marks(ctx, nil)
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
