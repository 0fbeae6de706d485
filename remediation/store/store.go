// Package store keeps what package remediation must not forget, in an embedded
// SQLite database or in PostgreSQL. The tables are written once, for both: what
// they say in different words is in a dialect, and a conn for each speaks to its
// database.
//
// One server at a time writes a database. In SQLite, Open takes a lock next to the
// file, which the kernel gives back however the process ends. In PostgreSQL it takes
// a lease, by the database's clock, and every transaction checks behind its lock
// that the lease is still held (lease.go). Any number of processes read meanwhile
// (OpenReadOnly).
//
// What Update answered nil for was synced to disk before. One goroutine commits,
// and Updates that wait at the same time share a commit; each runs behind a
// savepoint and fails alone. The schema is brought up to date by embedded
// migrations when a database is opened, each in a transaction; a schema newer than
// this program is refused.
//
// The audit log is kept as the canonical bytes that were hashed. Entries are
// read from those bytes alone, and the columns they were found by are compared
// with them, so that a reader of an entry notices a change to either. The bytes
// are the same in both databases.
package store

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"

	"modernc.org/sqlite"

	"github.com/locotoki/backout/hint"
	"github.com/locotoki/backout/remediation"
)

var (
	// ErrClosed: the store was closed.
	ErrClosed = errors.New("the store is closed")
	// ErrReadOnly: something was written in a View or to a store that was
	// opened for reading.
	ErrReadOnly = errors.New("the transaction is read-only")
)

const (
	// queueLength bounds how many Updates wait; further ones wait to be let in.
	queueLength = 1024
	// maxCalls and maxWait bound how long the first Update of a group commit
	// waits for those that share it.
	maxCalls = 128
	maxWait  = 10 * time.Millisecond
	// readers is how many Views run at once.
	readers = 4
)

// Store is a remediation.Store in a database.
type Store struct {
	db       database
	readOnly bool

	reading chan conn // free readers; nil stands for one not connected yet

	// w is the writer's connection, which the writer goroutine alone uses.
	w conn
	// shared is how many calls the last commit served; the writer's alone.
	shared int

	// at, where a test sets it, is called as a batch passes each point.
	at func(point)
	// maxWait is the constant, but for tests that need one batch; linger is the dialect's, but for
	// those that need it longer.
	maxWait, linger time.Duration

	queue   chan *call
	closing chan struct{} // closed by Close
	stopped chan struct{} // closed when the writer is done
	once    sync.Once
	closed  error
}

var (
	_ remediation.Store       = (*Store)(nil)
	_ remediation.AlertReader = (*Store)(nil)
)

// database is where the tables are.
type database interface {
	// String names it in errors, without any secret.
	String() string
	connect(context.Context, use) (conn, error)
	// checkSchema refuses any schema but the newest, for reading.
	checkSchema(conn) error
	// release lets other servers write it.
	release() error
}

// use is what a connection is for.
type use int

const (
	toWrite use = iota + 1
	toRead
)

// conn is one connection to a database. One goroutine at a time uses it.
type conn interface {
	// begin begins a transaction that no other writer shares time with, and returns
	// what those before it left behind.
	begin() (head, error)
	// beginReading begins one that sees one moment and does not write.
	beginReading() error
	// exec runs a statement that answers no rows. Its error may come from a later
	// statement or from commit.
	exec(ctx context.Context, query string, args ...any) error
	// query calls each for every row; each runs no query itself.
	query(ctx context.Context, query string, args []any, each func(row) error) error
	// savepoint, keep and discard begin and end a part of a transaction.
	savepoint() error
	keep() error
	discard() error
	// commit makes what was written durable, and h what the next begin returns.
	commit(h head) error
	rollback() error
	// lastHead is what begin returned last, for reading.
	lastHead() (head, error)
	// copying and copied begin and end what Copy does within a transaction, which may
	// take long.
	copying() error
	copied(h head) error
	dialect() dialect
	close() error
}

// head is where a transaction continues: the end of the audit log, and the numbers
// given last.
type head struct {
	seq      int64
	hash     string
	incident int64 // of "inc-N"
	message  int64
}

// Open opens the database that a dsn such as "sqlite:data/backout.db" or
// "postgres://backout@db/backout" names for this server alone and brings its schema
// up to date. It creates a SQLite file (and its folder) where it is missing. ctx bounds the
// opening, and in it the wait for the lease of a server that is gone.
func Open(ctx context.Context, dsn string) (*Store, error) {
	if !isPostgres(dsn) {
		return open(dsn, &sqlite.Driver{}, sqliteMigrations())
	}
	db, err := newPostgres(dsn)
	if err != nil {
		return nil, err
	}
	return db.open(ctx, postgresMigrations(), alone)
}

// OpenExisting is Open for a database that a server has run on: it creates none.
func OpenExisting(ctx context.Context, dsn string) (*Store, error) {
	r, err := OpenReadOnly(ctx, dsn)
	if err == nil {
		err = r.Close()
	}
	if err != nil && !errors.Is(err, errOlder) {
		return nil, err
	}
	s, err := Open(ctx, dsn)
	if err != nil {
		return nil, err
	}
	err = s.view(ctx, func(t *tx) error {
		h, err := t.c.lastHead()
		if err == nil && h.seq == 0 {
			err = errUnused()
		}
		return err
	})
	if err != nil {
		return nil, errors.Join(fmt.Errorf("%s: %w", s.db, err), s.Close())
	}
	return s, nil
}

// OpenReadOnly opens a database for reading, whether or not a server has it open; ctx bounds
// the opening.
// Update fails with ErrReadOnly.
func OpenReadOnly(ctx context.Context, dsn string) (*Store, error) {
	var db database
	var err error
	if isPostgres(dsn) {
		db, err = newPostgres(dsn)
	} else {
		db, err = findSQLite(dsn)
	}
	if err != nil {
		return nil, err
	}
	s := newStore(db)
	s.readOnly = true
	close(s.stopped)
	err = s.view(ctx, func(t *tx) error { return db.checkSchema(t.c) })
	if err != nil {
		return nil, errors.Join(fmt.Errorf("%s: %w", db, err), s.Close())
	}
	return s, nil
}

func newStore(db database) *Store {
	s := &Store{
		db: db, reading: make(chan conn, readers), maxWait: maxWait,
		queue: make(chan *call, queueLength), closing: make(chan struct{}), stopped: make(chan struct{}),
	}
	for range readers {
		s.reading <- nil
	}
	return s
}

// Close waits for running transactions and closes the database. Updates that
// wait fail with ErrClosed. A second Close answers what the first did.
func (s *Store) Close() error {
	s.once.Do(func() {
		close(s.closing)
		<-s.stopped
		var errs []error
		for range readers {
			if r := <-s.reading; r != nil {
				errs = append(errs, r.close())
			}
		}
		if s.w != nil {
			errs = append(errs, s.w.close())
		}
		s.closed = errors.Join(append(errs, s.db.release())...)
	})
	return s.closed
}

// isPostgres reports which of the two databases a dsn names.
func isPostgres(dsn string) bool {
	return strings.HasPrefix(dsn, "postgres:") || strings.HasPrefix(dsn, "postgresql:")
}

// wrongDSN is a dsn that names no database. What is in one may be a password: none
// is repeated.
func wrongDSN(format string, args ...any) error {
	return hint.Add(fmt.Errorf(format, args...), "sqlite:PATH, such as sqlite:/var/lib/backout/backout.db, or postgres://USER@HOST/DATABASE")
}
