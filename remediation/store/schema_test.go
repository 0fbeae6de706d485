package store

import (
	"database/sql"
	"database/sql/driver"
	"fmt"
	"path/filepath"
	"strings"
	"testing"

	"modernc.org/sqlite"
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
	s, err := Open("sqlite:" + path)
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
	for name, open := range map[string]func(string) (*Store, error){"Open": Open, "OpenReadOnly": OpenReadOnly} {
		if _, err := open("sqlite:" + path); err == nil || !strings.Contains(err.Error(), fmt.Sprintf("version %d, this program knows %d; try: ", n+1, n)) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestAnOlderSchemaIsNotReadUntilItIsBroughtUpToDate(t *testing.T) {
	path := filepath.Join(t.TempDir(), "backout.db")
	raw(t, path, fmt.Sprintf("PRAGMA application_id = %d", applicationID))
	if _, err := OpenReadOnly("sqlite:" + path); err == nil || !strings.Contains(err.Error(), "start backout serve on it once") {
		t.Fatalf("got %v", err)
	}
	reopened(t, "sqlite:"+path, nil)
}

func TestAnotherProgramsFileIsLeftAlone(t *testing.T) {
	path := filepath.Join(t.TempDir(), "other.db")
	raw(t, path, "CREATE TABLE theirs (a)")
	for name, open := range map[string]func(string) (*Store, error){"Open": Open, "OpenReadOnly": OpenReadOnly} {
		if _, err := open("sqlite:" + path); err == nil || !strings.Contains(err.Error(), "another program's") {
			t.Errorf("%s: %v", name, err)
		}
	}
	raw(t, path, "INSERT INTO theirs VALUES (1)")
}
