package store

import (
	"context"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/locotoki/backout/remediation/store/storetest"
)

// onBoth runs a test on a new database of each kind.
func onBoth(t *testing.T, run func(t *testing.T, dsn string)) {
	t.Helper()
	t.Run("SQLite", func(t *testing.T) { run(t, sqliteDSN(t)) })
	t.Run("PostgreSQL", func(t *testing.T) { run(t, storetest.Postgres(t)) })
}

func sqliteDSN(t testing.TB) string {
	t.Helper()
	return "sqlite:" + filepath.Join(t.TempDir(), "backout.db")
}

// openOn opens a database for a test, which may have several stores on PostgreSQL: so
// one that was killed leaves no lease that must be waited for.
func openOn(dsn string) (*Store, error) {
	if !isPostgres(dsn) {
		return Open(context.Background(), dsn)
	}
	db, err := newPostgres(dsn)
	if err != nil {
		return nil, err
	}
	return db.open(context.Background(), postgresMigrations(), shared)
}

// openBatching opens a database whose Updates that wait share one batch, however slow
// the machine is.
func openBatching(t *testing.T, dsn string) *Store {
	t.Helper()
	s, err := openOn(dsn)
	if err != nil {
		t.Fatal(err)
	}
	s.maxWait = time.Hour
	t.Cleanup(func() { closeStore(t, s) })
	return s
}

// run runs statements of a test's own, as if something outside backout did.
func run(t *testing.T, dsn, statements string) {
	t.Helper()
	if !isPostgres(dsn) {
		raw(t, strings.TrimPrefix(dsn, "sqlite:"), statements)
		return
	}
	c, err := pgx.Connect(t.Context(), dsn)
	if err != nil {
		t.Fatal(err)
	}
	storetest.Exec(t, c, statements)
	if err := c.Close(t.Context()); err != nil {
		t.Error(err)
	}
}
