package store

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"
	"modernc.org/sqlite"

	"github.com/locotoki/backout/remediation"
	"github.com/locotoki/backout/remediation/store/storetest"
)

// A later version of the schema, as a test imagines it.
func withNext(script string) []migration {
	return append(sqliteMigrations(), migration{"next.sql", script})
}

func raw(t *testing.T, path, query string) {
	t.Helper()
	db, err := sql.Open("sqlite", path)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := db.ExecContext(t.Context(), query); err != nil {
		t.Fatal(err)
	}
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
}

// childMigrates dies in the middle of a migration.
func childMigrates(dsn string) error {
	d := &sqlite.Driver{}
	err := d.RegisterScalarFunction("die", 0, func(*sqlite.FunctionContext, []driver.Value) (driver.Value, error) {
		die()
		return nil, nil
	})
	if err != nil {
		return err
	}
	_, err = open(dsn, d, withNext("CREATE TABLE half (a); INSERT INTO half VALUES (1); DROP TABLE beats; INSERT INTO half SELECT die();"))
	return fmt.Errorf("the migration did not die: %w", err)
}

func TestACrashWithinAMigrationLeavesTheVersionBefore(t *testing.T) {
	path := filepath.Join(t.TempDir(), "backout.db")
	s, err := Open(t.Context(), "sqlite:"+path)
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Update(t.Context(), whole("x")); err != nil {
		t.Fatal(err)
	}
	closeStore(t, s)
	for range 3 {
		cmd, lines := start(t, "migrate", "sqlite:"+path)
		for lines.Scan() {
		}
		killed(t, cmd)
	}
	reopened(t, "sqlite:"+path, []string{"x"})
	// And the migration can still be made.
	s, err = open("sqlite:"+path, &sqlite.Driver{}, withNext("CREATE TABLE half (a);"))
	if err != nil {
		t.Fatal(err)
	}
	closeStore(t, s)
}

func TestAMigrationThatFailsLeavesTheVersionBefore(t *testing.T) {
	dsn := "sqlite:" + filepath.Join(t.TempDir(), "backout.db")
	_, err := open(dsn, &sqlite.Driver{}, withNext("CREATE TABLE half (a); DROP TABLE beats; INSERT INTO nowhere VALUES (1);"))
	n := len(sqliteMigrations())
	if err == nil || !strings.Contains(err.Error(), fmt.Sprintf("from version %d to %d (next.sql)", n, n+1)) {
		t.Fatalf("got %v", err)
	}
	reopened(t, dsn, nil)
}

func TestANewerSchemaIsRefused(t *testing.T) {
	path := filepath.Join(t.TempDir(), "backout.db")
	s, err := open("sqlite:"+path, &sqlite.Driver{}, withNext("CREATE TABLE later (a);"))
	if err != nil {
		t.Fatal(err)
	}
	closeStore(t, s)
	n := len(sqliteMigrations())
	for name, open := range map[string]func(context.Context, string) (*Store, error){"Open": Open, "OpenReadOnly": OpenReadOnly} {
		if _, err := open(t.Context(), "sqlite:"+path); err == nil || !strings.Contains(err.Error(), fmt.Sprintf("version %d, this program knows %d; try: ", n+1, n)) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestAnOlderSchemaIsNotReadUntilItIsBroughtUpToDate(t *testing.T) {
	path := filepath.Join(t.TempDir(), "backout.db")
	raw(t, path, fmt.Sprintf("PRAGMA application_id = %d", applicationID))
	if _, err := OpenReadOnly(t.Context(), "sqlite:"+path); err == nil || !strings.Contains(err.Error(), "backout has not written to it") {
		t.Fatalf("without a table: %v", err)
	}
	steps := sqliteMigrations()
	s, err := open("sqlite:"+path, &sqlite.Driver{}, steps[:len(steps)-1])
	if err != nil {
		t.Fatal(err)
	}
	closeStore(t, s)
	if _, err := OpenReadOnly(t.Context(), "sqlite:"+path); err == nil || !strings.Contains(err.Error(), "start backout serve on it once") {
		t.Fatalf("got %v", err)
	}
	reopened(t, "sqlite:"+path, nil)
}

func TestAnotherProgramsFileIsLeftAlone(t *testing.T) {
	path := filepath.Join(t.TempDir(), "other.db")
	raw(t, path, "CREATE TABLE theirs (a)")
	for name, open := range map[string]func(context.Context, string) (*Store, error){"Open": Open, "OpenReadOnly": OpenReadOnly} {
		if _, err := open(t.Context(), "sqlite:"+path); err == nil || !strings.Contains(err.Error(), "another program's") {
			t.Errorf("%s: %v", name, err)
		}
	}
	raw(t, path, "INSERT INTO theirs VALUES (1)")
}

// oldIncidents are rows of before there were columns for what is paging: of shop three
// that were closed and a drill, of blog one that is open.
const oldIncidents = `WITH old (n, service, drill, open, body) AS (VALUES
	(1, 'shop', 0, 0, '{}'), (2, 'shop', 0, 0, '{}'), (3, 'shop', 0, 0, '{"paged":["stuck"]}'), (4, 'shop', 1, 0, '{}'), (5, 'blog', 0, 1, '{}'))
	INSERT INTO incidents (n, service, drill, open, version, body) SELECT n, service, drill, open, 1, CAST(body AS %s) FROM old`

// upgraded looks at what an upgrade made of oldIncidents.
func upgraded(t *testing.T, s *Store) {
	t.Helper()
	defer closeStore(t, s)
	err := s.View(t.Context(), func(rt remediation.Tx) error {
		var ids []int64
		err := rt.(*tx).rows("SELECT n FROM incidents WHERE paging = 1 ORDER BY n", nil, func(r row) error {
			var n int64
			err := r.scan(&n)
			ids = append(ids, n)
			return err
		})
		if err != nil {
			return err
		}
		if !slices.Equal(ids, []int64{3, 5}) {
			t.Errorf("incidents %v are looked at on each scrape, want the newest of each service", ids)
		}
		paging, err := rt.Paging()
		if len(paging) != 1 || len(paging[0].Paged) != 1 {
			t.Errorf("a person is needed for %+v", paging)
		}
		return err
	})
	if err != nil {
		t.Error(err)
	}
}

func TestAnUpgradeLooksForPagingAmongTheNewestOnly(t *testing.T) {
	t.Run("sqlite", func(t *testing.T) {
		path := filepath.Join(t.TempDir(), "backout.db")
		s, err := open("sqlite:"+path, &sqlite.Driver{}, sqliteMigrations()[:9])
		if err != nil {
			t.Fatal(err)
		}
		closeStore(t, s)
		raw(t, path, fmt.Sprintf(oldIncidents, "BLOB"))
		if s, err = Open(t.Context(), "sqlite:"+path); err != nil {
			t.Fatal(err)
		}
		upgraded(t, s)
	})
	t.Run("postgres", func(t *testing.T) {
		dsn := storetest.Postgres(t)
		db, err := newPostgres(dsn)
		if err != nil {
			t.Fatal(err)
		}
		s, err := db.open(t.Context(), postgresMigrations()[:2], shared)
		if err != nil {
			t.Fatal(err)
		}
		closeStore(t, s)
		c, err := pgx.Connect(t.Context(), dsn)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := c.Exec(t.Context(), fmt.Sprintf(oldIncidents, "text")); err != nil {
			t.Fatal(err)
		}
		if err := c.Close(t.Context()); err != nil {
			t.Fatal(err)
		}
		upgraded(t, openShared(t, dsn))
	})
}
