package store

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"modernc.org/sqlite"

	"github.com/locotoki/backout/hint"
	"github.com/locotoki/backout/trust"
)

// sqliteFile is a database in a file: WAL, synchronous=FULL.
type sqliteFile struct {
	path   string
	driver *sqlite.Driver
	lock   *os.File // nil for reading
}

var _ database = (*sqliteFile)(nil)

func open(dsn string, driver *sqlite.Driver, steps []migration) (_ *Store, err error) {
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
	db := &sqliteFile{path: path, driver: driver}
	if db.lock, err = lockFile(path); err != nil {
		return nil, err
	}
	w, err := db.dial("rw", writerPragmas)
	if err != nil {
		return nil, errors.Join(err, db.release())
	}
	if err := migrate(w, steps); err != nil {
		return nil, errors.Join(fmt.Errorf("%s: %w", db, err), w.close(), db.release())
	}
	s := newStore(db)
	s.w = w
	go s.writer()
	return s, nil
}

// findSQLite finds the file that a dsn names, for reading.
func findSQLite(dsn string) (*sqliteFile, error) {
	path, err := pathOf(dsn)
	if err != nil {
		return nil, err
	}
	if _, err := os.Stat(path); err != nil {
		return nil, hint.Add(fmt.Errorf("open database for reading: %w", err), "the --storage.dsn that backout serve runs with")
	}
	return &sqliteFile{path: path, driver: &sqlite.Driver{}}, nil
}

func (s *sqliteFile) String() string { return fmt.Sprintf("database %q", s.path) }

func (s *sqliteFile) checkSchema(c conn) error {
	return checkSQLite(c.(*sqliteConn), sqliteMigrations())
}

func (s *sqliteFile) release() error {
	if s.lock == nil {
		return nil
	}
	return s.lock.Close()
}

// pathOf returns the absolute path that a dsn names.
func pathOf(dsn string) (string, error) {
	scheme, path, ok := strings.Cut(dsn, ":")
	switch {
	case !ok:
		return "", wrongDSN("the storage dsn has no scheme")
	case scheme != "sqlite":
		return "", wrongDSN("unknown scheme %q in the storage dsn", scheme)
	case path == "" || strings.HasPrefix(path, ":memory:"):
		return "", wrongDSN("the storage dsn names no file")
	case strings.HasPrefix(path, "//"):
		return "", wrongDSN("the storage dsn's path begins with two slashes")
	case strings.HasPrefix(path, "~"):
		return "", wrongDSN("the storage dsn begins with ~, which only a shell replaces")
	case strings.HasPrefix(path, "file:"):
		return "", wrongDSN("the storage dsn names a file: address, not a path")
	case strings.ContainsRune(path, '?'):
		return "", wrongDSN("the storage dsn has parameters after ?, which sqlite: does not take")
	case strings.ContainsRune(path, 0):
		return "", wrongDSN("the storage dsn's path holds a NUL")
	}
	abs, err := filepath.Abs(path)
	if err != nil {
		return "", fmt.Errorf("storage dsn: %w", err)
	}
	if strings.HasSuffix(path, "/") {
		return "", wrongDSN("the storage dsn names a folder, %q", path)
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
