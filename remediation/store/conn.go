package store

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"errors"
	"fmt"
	"io"
	"strings"
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

// conn is one connection with its prepared statements. It speaks to the driver
// itself: database/sql's pool, which nothing here needs, took a quarter of the
// time of a small transaction. One goroutine at a time uses it.
type conn struct {
	c     driver.Conn
	stmts map[string]statement
}

// statement is a prepared statement, as the driver makes them.
type statement interface {
	driver.Stmt
	driver.StmtExecContext
	driver.StmtQueryContext
}

func (s *SQLite) connect(mode string, pragmas []string) (*conn, error) {
	name := "file:" + strings.NewReplacer("%", "%25", "?", "%3f", "#", "%23").Replace(s.path) + "?mode=" + mode
	dc, err := s.driver.Open(name)
	if err != nil {
		return nil, fmt.Errorf("open database %q: %w", s.path, err)
	}
	c := &conn{c: dc, stmts: map[string]statement{}}
	for _, p := range pragmas {
		if err := c.script("PRAGMA " + p); err != nil {
			return nil, errors.Join(fmt.Errorf("open database %q: pragma %s: %w", s.path, p, err), c.close())
		}
	}
	return c, nil
}

// close ends the connection. The statements go first: SQLite keeps a connection
// and its locks as long as one is left.
func (c *conn) close() error {
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
func (c *conn) script(text string) error {
	if c.c == nil {
		return errNoConnection
	}
	_, err := c.c.(driver.ExecerContext).ExecContext(context.Background(), text, nil)
	return err
}

// stmt prepares a query once.
func (c *conn) stmt(query string) (statement, error) {
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
func (c *conn) exec(ctx context.Context, query string, args ...any) error {
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
func (c *conn) query(ctx context.Context, query string, args []any, each func(row) error) (err error) {
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
func (c *conn) control(query string) error {
	return c.exec(context.Background(), query)
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

// row is one row's values; they are valid until the next one is read.
type row []driver.Value

// scan copies the values. A value of another type than its destination is an
// error: the schema's tables are strict.
func (r row) scan(dest ...any) error {
	if len(dest) != len(r) {
		return fmt.Errorf("%d columns for %d destinations", len(r), len(dest))
	}
	for i, v := range r {
		ok := false
		switch d := dest[i].(type) {
		case *int64:
			*d, ok = v.(int64)
		case *int:
			var n int64
			n, ok = v.(int64)
			*d = int(n)
		case *bool:
			var n int64
			n, ok = v.(int64)
			*d = n != 0
		case *string:
			*d, ok = v.(string)
		case *[]byte:
			*d, ok = v.([]byte)
		case *sql.NullInt64:
			d.Int64, d.Valid = v.(int64)
			ok = d.Valid || v == nil
		}
		if !ok {
			return fmt.Errorf("column %d holds a %T for a %T", i+1, v, dest[i])
		}
	}
	return nil
}
