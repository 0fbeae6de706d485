package store

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
)

// writerPragmas bound what the writer keeps in memory and in the WAL.
// Checkpoints come every wal_autocheckpoint pages and cut a WAL that one long
// View let grow.
var writerPragmas = []string{
	"busy_timeout = 5000", "journal_mode = WAL", "synchronous = FULL", "foreign_keys = ON", "trusted_schema = OFF",
	"cache_size = -8000", "wal_autocheckpoint = 2000", "journal_size_limit = 67108864",
}

var readerPragmas = []string{
	"busy_timeout = 5000", "query_only = ON", "trusted_schema = OFF", "cache_size = -2000",
}

// conn is one connection with its prepared statements.
type conn struct {
	c     *sql.Conn
	stmts map[string]*sql.Stmt
}

func (s *SQLite) connect(db *sql.DB, pragmas []string) (_ *conn, err error) {
	ctx := context.Background()
	sc, err := db.Conn(ctx)
	if err != nil {
		return nil, fmt.Errorf("open database %q: %w", s.path, err)
	}
	c := &conn{c: sc, stmts: map[string]*sql.Stmt{}}
	for _, p := range pragmas {
		if _, err := sc.ExecContext(ctx, "PRAGMA "+p); err != nil {
			return nil, errors.Join(fmt.Errorf("open database %q: pragma %s: %w", s.path, p, err), c.close())
		}
	}
	return c, nil
}

// close ends the connection. The statements go first: SQLite keeps a connection
// and its locks as long as one is left.
func (c *conn) close() error {
	var errs []error
	for query, st := range c.stmts {
		errs = append(errs, st.Close())
		delete(c.stmts, query)
	}
	if err := c.c.Close(); !errors.Is(err, sql.ErrConnDone) {
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}

// stmt prepares a query once.
func (c *conn) stmt(query string) (*sql.Stmt, error) {
	if st := c.stmts[query]; st != nil {
		return st, nil
	}
	st, err := c.c.PrepareContext(context.Background(), query)
	if err != nil {
		return nil, err
	}
	c.stmts[query] = st
	return st, nil
}

func (c *conn) exec(ctx context.Context, query string, args ...any) (sql.Result, error) {
	st, err := c.stmt(query)
	if err != nil {
		return nil, err
	}
	return st.ExecContext(ctx, args...)
}

// control runs what begins and ends transactions and savepoints.
func (c *conn) control(query string) error {
	_, err := c.exec(context.Background(), query)
	return err
}
