package store

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/locotoki/backout/remediation/audit"
)

// writerPragmas bound what the writer keeps in memory and in the WAL.
// Checkpoints come every wal_autocheckpoint pages and cut a WAL that one long
// View let grow.
var writerPragmas = []string{
	"busy_timeout = 5000", "journal_mode = WAL", "synchronous = FULL", "foreign_keys = ON", "trusted_schema = OFF",
	"cache_size = -8000", "wal_autocheckpoint = 8000", "journal_size_limit = 67108864",
}

var readerPragmas = []string{
	"busy_timeout = 5000", "query_only = ON", "trusted_schema = OFF", "cache_size = -2000",
}

// sqliteConn is one connection with its prepared statements. It speaks to the driver
// itself: database/sql's pool, which nothing here needs, took a quarter of the
// time of a small transaction. One goroutine at a time uses it.
type sqliteConn struct {
	c     driver.Conn
	stmts map[string]statement
	// head is as committed; nil where a commit failed, or none was read yet.
	head *head
}

// statement is a prepared statement, as the driver makes them.
type statement interface {
	driver.Stmt
	driver.StmtExecContext
	driver.StmtQueryContext
}

// connect implements database.
func (s *sqliteFile) connect(_ context.Context, u use) (conn, error) {
	if u == toRead {
		return s.dial("ro", readerPragmas)
	}
	return s.dial("rw", writerPragmas)
}

func (s *sqliteFile) dial(mode string, pragmas []string) (*sqliteConn, error) {
	name := "file:" + strings.NewReplacer("%", "%25", "?", "%3f", "#", "%23").Replace(s.path) + "?mode=" + mode
	dc, err := s.driver.Open(name)
	if err != nil {
		return nil, fmt.Errorf("open database %q: %w", s.path, err)
	}
	c := &sqliteConn{c: dc, stmts: map[string]statement{}}
	for _, p := range pragmas {
		if err := c.script("PRAGMA " + p); err != nil {
			return nil, errors.Join(fmt.Errorf("open database %q: pragma %s: %w", s.path, p, err), c.close())
		}
	}
	return c, nil
}

// close ends the connection. The statements go first: SQLite keeps a connection
// and its locks as long as one is left.
func (c *sqliteConn) close() error {
	if c.c == nil {
		return nil
	}
	var errs []error
	for query, st := range c.stmts {
		errs = append(errs, st.Close())
		delete(c.stmts, query)
	}
	errs = append(errs, c.c.Close())
	c.c = nil
	return errors.Join(errs...)
}

// errNoConnection: the connection was closed and could not be made anew.
var errNoConnection = errors.New("there is no connection to the database")

// script runs statements that are not prepared.
func (c *sqliteConn) script(text string) error {
	if c.c == nil {
		return errNoConnection
	}
	_, err := c.c.(driver.ExecerContext).ExecContext(context.Background(), text, nil)
	return err
}

// stmt prepares a query once.
func (c *sqliteConn) stmt(query string) (statement, error) {
	if st := c.stmts[query]; st != nil {
		return st, nil
	}
	if c.c == nil {
		return nil, errNoConnection
	}
	st, err := c.c.Prepare(query)
	if err != nil {
		return nil, err
	}
	c.stmts[query] = st.(statement)
	return c.stmts[query], nil
}

// exec runs a statement that answers no rows.
func (c *sqliteConn) exec(ctx context.Context, query string, args ...any) error {
	st, err := c.stmt(query)
	if err != nil {
		return err
	}
	named, err := arguments(args)
	if err != nil {
		return err
	}
	_, err = st.ExecContext(ctx, named)
	return err
}

// query calls each for every row; each runs no query itself.
func (c *sqliteConn) query(ctx context.Context, query string, args []any, each func(row) error) (err error) {
	st, err := c.stmt(query)
	if err != nil {
		return err
	}
	named, err := arguments(args)
	if err != nil {
		return err
	}
	rows, err := st.QueryContext(ctx, named)
	if err != nil {
		return err
	}
	defer func() {
		if cerr := rows.Close(); err == nil {
			err = cerr
		}
	}()
	values := make(row, len(rows.Columns()))
	for {
		if err := rows.Next(values); errors.Is(err, io.EOF) {
			return nil
		} else if err != nil {
			return err
		}
		if err := each(values); err != nil {
			return err
		}
	}
}

// control runs what begins and ends transactions and savepoints.
func (c *sqliteConn) control(query string) error {
	return c.exec(context.Background(), query)
}

func (c *sqliteConn) begin() (head, error) {
	if err := c.control("BEGIN IMMEDIATE"); err != nil {
		return head{}, err
	}
	if c.head == nil {
		h, err := c.lastHead()
		if err != nil {
			return head{}, errors.Join(err, c.rollback())
		}
		c.head = &h
	}
	return *c.head, nil
}

// lastHead reads what begin keeps in memory afterwards: one process writes.
func (c *sqliteConn) lastHead() (head, error) {
	h := head{hash: audit.ZeroHash}
	for query, dest := range map[string][]any{
		lastEntry: {&h.seq, &h.hash},
		"SELECT seq FROM sqlite_sequence WHERE name = 'incidents'": {&h.incident},
		"SELECT seq FROM sqlite_sequence WHERE name = 'outbox'":    {&h.message},
	} {
		if err := c.query(context.Background(), query, nil, func(r row) error { return r.scan(dest...) }); err != nil {
			return head{}, fmt.Errorf("read where the audit log and the numbers ended: %w", err)
		}
	}
	return h, nil
}

func (c *sqliteConn) beginReading() error { return c.control("BEGIN") }
func (c *sqliteConn) savepoint() error    { return c.control("SAVEPOINT part") }
func (c *sqliteConn) keep() error         { return c.control("RELEASE part") }
func (c *sqliteConn) rollback() error     { return c.control("ROLLBACK") }

func (c *sqliteConn) discard() error {
	if err := c.control("ROLLBACK TO part"); err != nil {
		return err
	}
	return c.control("RELEASE part")
}

func (c *sqliteConn) commit(h head) error {
	// It may fail and have taken effect all the same: an error after the sync, say.
	c.head = nil
	if err := c.control("COMMIT"); err != nil {
		return err
	}
	c.head = &h
	return nil
}

func (c *sqliteConn) copying() error { return nil }

// copied makes sure that the number of a message which is gone is not given again.
func (c *sqliteConn) copied(h head) error {
	if err := c.exec(context.Background(), "DELETE FROM sqlite_sequence WHERE name = 'outbox'"); err != nil {
		return err
	}
	return c.exec(context.Background(), "INSERT INTO sqlite_sequence (name, seq) VALUES ('outbox', ?)", h.message)
}

func (c *sqliteConn) dialect() dialect {
	return dialect{
		contains:  "instr(lower(CAST(entry AS TEXT)), lower(?)) > 0",
		ofService: "service = ?",
	}
}

// arguments gives values the types that a driver takes.
func arguments(args []any) ([]driver.NamedValue, error) {
	out := make([]driver.NamedValue, len(args))
	for i, a := range args {
		switch v := a.(type) {
		case nil, int64, bool, string, []byte:
		case int:
			a = int64(v)
		case sql.NullInt64:
			a = nil
			if v.Valid {
				a = v.Int64
			}
		default:
			return nil, fmt.Errorf("argument %d is a %T", i+1, a)
		}
		out[i] = driver.NamedValue{Ordinal: i + 1, Value: a}
	}
	return out, nil
}
