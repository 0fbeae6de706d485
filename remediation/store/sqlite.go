// Package store keeps what package remediation must not forget in an embedded
// SQLite database.
//
// One process at a time writes a database file: Open takes a lock next to it,
// which the kernel gives back however the process ends, and a second Open is
// refused. Any number of processes read it meanwhile (OpenReadOnly).
//
// What Update answered nil for was synced to disk before (WAL,
// synchronous=FULL). One goroutine commits, and Updates that wait at the same
// time share a commit; each runs behind a savepoint and fails alone. The schema
// is brought up to date by embedded migrations when a database is opened, each
// in a transaction of its own; a schema newer than this program is refused.
//
// The audit log is kept as the canonical bytes that were hashed. Entries are
// read from those bytes alone, and the columns they were found by are compared
// with them, so that a reader of an entry notices a change to either.
package store

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"modernc.org/sqlite"

	"github.com/locotoki/backout/hint"
	"github.com/locotoki/backout/remediation"
	"github.com/locotoki/backout/trust"
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

// SQLite is a remediation.Store in a file.
type SQLite struct {
	path     string
	readOnly bool
	lock     *os.File // nil where readOnly

	driver *sqlite.Driver

	reading chan *conn // free readers; nil stands for one not connected yet

	// The writer goroutine alone uses these.
	w    *conn
	head head // of the audit log, as committed
	// headUnsure: a commit failed, so that head may be older than the database's.
	headUnsure bool

	// at, where a test sets it, is called as a batch passes each point.
	at func(point)
	// maxWait is the constant, but for tests that need one batch.
	maxWait time.Duration

	queue   chan *call
	closing chan struct{} // closed by Close
	stopped chan struct{} // closed when the writer is done
	once    sync.Once
	closed  error
}

var _ remediation.Store = (*SQLite)(nil)

// Open opens the database that a dsn such as "sqlite:data/backout.db" names for
// this process alone, creates it (and its folder) where it is missing, and
// brings its schema up to date.
func Open(dsn string) (*SQLite, error) { return open(dsn, &sqlite.Driver{}, migrations()) }

func open(dsn string, driver *sqlite.Driver, steps []migration) (_ *SQLite, err error) {
	path, err := pathOf(dsn)
	if err != nil {
		return nil, err
	}
	if err := create(path); err != nil {
		return nil, fmt.Errorf("create database %q: %w", path, err)
	}
	if path, err = trust.Real(path); err != nil {
		return nil, fmt.Errorf("open database: %w", err)
	}
	for _, file := range []string{path, path + "-wal", path + "-shm", path + "-journal"} {
		if err := trust.Writable(file); err != nil && !errors.Is(err, os.ErrNotExist) {
			return nil, fmt.Errorf("open database: %w", err)
		}
	}
	s := newSQLite(path, driver)
	defer func() {
		if err != nil {
			err = errors.Join(err, s.release())
		}
	}()
	if s.lock, err = lockFile(path); err != nil {
		return nil, err
	}
	if s.w, err = s.connect("rw", writerPragmas); err != nil {
		return nil, err
	}
	if err := migrate(s.w, steps); err != nil {
		return nil, fmt.Errorf("database %q: %w", path, err)
	}
	if s.head, err = readHead(&tx{c: s.w, ctx: context.Background()}); err != nil {
		return nil, fmt.Errorf("database %q: %w", path, err)
	}
	go s.writer()
	return s, nil
}

// OpenScratch is Open for a database that nobody misses after a crash: what Update
// answered nil for is not synced to disk.
func OpenScratch(dsn string) (*SQLite, error) {
	s, err := Open(dsn)
	if err != nil {
		return nil, err
	}
	if err := s.w.script("PRAGMA synchronous = OFF"); err != nil {
		return nil, errors.Join(fmt.Errorf("database %q: %w", s.path, err), s.Close())
	}
	return s, nil
}

// OpenReadOnly opens a database for reading, whether or not another process
// has it open. Update fails with ErrReadOnly.
func OpenReadOnly(dsn string) (*SQLite, error) {
	path, err := pathOf(dsn)
	if err != nil {
		return nil, err
	}
	if _, err := os.Stat(path); err != nil {
		return nil, hint.Add(fmt.Errorf("open database for reading: %w", err), "the --storage.dsn that backout serve runs with")
	}
	s := newSQLite(path, &sqlite.Driver{})
	s.readOnly = true
	close(s.stopped)
	err = s.view(context.Background(), func(t *tx) error { return checkSchema(t.c, migrations()) })
	if err != nil {
		return nil, errors.Join(fmt.Errorf("database %q: %w", path, err), s.release())
	}
	return s, nil
}

func newSQLite(path string, driver *sqlite.Driver) *SQLite {
	s := &SQLite{
		path: path, driver: driver, reading: make(chan *conn, readers), maxWait: maxWait,
		queue: make(chan *call, queueLength), closing: make(chan struct{}), stopped: make(chan struct{}),
	}
	for range readers {
		s.reading <- nil
	}
	return s
}

// Close waits for running transactions and closes the database. Updates that
// wait fail with ErrClosed. A second Close answers what the first did.
func (s *SQLite) Close() error {
	s.once.Do(func() {
		close(s.closing)
		<-s.stopped
		var errs []error
		for range readers {
			if r := <-s.reading; r != nil {
				errs = append(errs, r.close())
			}
		}
		s.closed = errors.Join(append(errs, s.release())...)
	})
	return s.closed
}

// release closes what Open has opened so far, the lock last.
func (s *SQLite) release() error {
	var errs []error
	if s.w != nil {
		errs = append(errs, s.w.close())
	}
	if s.lock != nil {
		errs = append(errs, s.lock.Close())
	}
	return errors.Join(errs...)
}

// pathOf returns the absolute path that a dsn names. A dsn of another scheme
// may hold a password: none is repeated in an error.
func pathOf(dsn string) (string, error) {
	wrong := func(format string, args ...any) (string, error) {
		return "", hint.Add(fmt.Errorf(format, args...), "sqlite:PATH, such as sqlite:/var/lib/backout/backout.db")
	}
	scheme, path, ok := strings.Cut(dsn, ":")
	switch {
	case !ok:
		return wrong("the storage dsn has no scheme")
	case scheme == "postgres" || scheme == "postgresql":
		return wrong("storage in PostgreSQL is not built yet")
	case scheme != "sqlite":
		return wrong("unknown scheme %q in the storage dsn", scheme)
	case path == "" || strings.HasPrefix(path, ":memory:"):
		return wrong("the storage dsn names no file")
	case strings.HasPrefix(path, "//"):
		return wrong("the storage dsn's path begins with two slashes")
	case strings.ContainsRune(path, 0):
		return wrong("the storage dsn's path holds a NUL")
	}
	abs, err := filepath.Abs(path)
	if err != nil {
		return "", fmt.Errorf("storage dsn: %w", err)
	}
	if strings.HasSuffix(path, "/") {
		return wrong("the storage dsn names a folder, %q", path)
	}
	return abs, nil
}

// create makes the file for its owner alone; SQLite gives the files next to it
// the same mode.
func create(path string) error {
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return err
	}
	if _, err := os.Lstat(path); err == nil {
		return nil
	}
	f, err := trust.OpenToWrite(path, os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o600)
	if errors.Is(err, os.ErrExist) {
		return nil
	}
	if err != nil {
		return err
	}
	return f.Close()
}
