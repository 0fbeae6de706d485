package postgres

import (
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"github.com/locotoki/backout/remediation"
)

const undo2 = "U2.0.0__rollback_analytics.sql"

func TestARollbackIsRefusedBeforeAnythingChanges(t *testing.T) {
	for name, c := range map[string]struct {
		with func(w *harness)
		says []string
	}{
		"a missing undo script": {func(w *harness) { w.remove(undo2) },
			[]string{"version 2.0.0 has no undo script", "try: write U2.0.0__rollback.sql"}},
		"an empty undo script": {func(w *harness) { w.write(undo2, "") }, []string{undo2, "is empty"}},
		"an undo script of comments only": {func(w *harness) { w.write(undo2, "-- DROP TABLE forecasts;\n/* later /* ; */ */ ;\n") },
			[]string{undo2, "is empty"}},
		"missing and empty undo scripts, all at once": {func(w *harness) {
			w.write(undo2, "")
			w.write("V3__more.sql", "CREATE TABLE more ()")
			w.migrate("V3__more.sql")
		}, []string{undo2 + " is empty", "version 3 has no undo script"}},
		"a transaction of its own": {func(w *harness) { w.write(undo2, "DROP TABLE forecasts;\nCOMMIT;") },
			[]string{undo2 + ", line 2", "its own transaction: COMMIT"}},
		"a command of psql": {func(w *harness) { w.write(undo2, "\\i more.sql\n") }, []string{undo2 + ", line 1", "belongs to psql"}},
		"a placeholder":     {func(w *harness) { w.write(undo2, "DROP TABLE ${schema}.forecasts;") }, []string{"placeholder"}},
		"a version without its script": {func(w *harness) { w.remove("V2.0.0__analytics.sql") },
			[]string{"version 2.0.0 is applied", "has no script for it"}},
		"another script than the one that was applied": {func(w *harness) { w.write("V2.0.0__analytics.sql", "SELECT 1;") },
			[]string{"V2.0.0__analytics.sql is not what was applied", "flyway validate"}},
		"two undo scripts of a version": {func(w *harness) { w.write("sub/U2__again.sql", "SELECT 1;") }, []string{"are of the same version"}},
		"an undo script that anybody can write": {func(w *harness) { w.chmod(undo2, 0o666) },
			[]string{undo2 + " can be written by group or others", "try: chmod go-w"}},
		"no folder of scripts": {func(w *harness) { w.spec.Flyway.Dir = filepath.Join(w.dir, "none") }, []string{"no such file"}},
		"a failed migration":   {func(w *harness) { w.row("3.0.0", "x", "SQL", "V3.0.0__x.sql", "1", false) }, []string{"version 3.0.0 was being applied by V3.0.0__x.sql and failed", "flyway repair"}},
		"a failed undo":        {func(w *harness) { w.row("2.0.0", "x", "UNDO_SQL", undo2, "1", false) }, []string{"version 2.0.0 was being undone", "flyway repair"}},
		"a target that never was": {func(w *harness) { w.spec.Flyway.Version = "1.2" },
			[]string{"version 1.2 was never applied", "which is at 2.0.0"}},
		"a target that is not applied any more": {func(w *harness) {
			w.row("1.5", "x", "SQL", "V1.5__x.sql", "1", true)
			w.row("1.5", "x", "UNDO_SQL", "U1.5__x.sql", "1", true)
			w.spec.Flyway.Version = "1.5"
		}, []string{"version 1.5 is not applied, though 2.0.0 is"}},
		"an empty history": {func(w *harness) { w.exec("DELETE FROM flyway_schema_history") }, []string{"no version was ever applied"}},
		"code that does not tolerate the older schema": {func(w *harness) {
			w.tolerates = &remediation.VersionError{Err: errors.New("web-1 runs social-intel:v2.0.0")}
		},
			[]string{"the code that runs does not tolerate the older schema: web-1 runs social-intel:v2.0.0"}},
		"a table that cannot be read, whatever a step before this one may change": {func(w *harness) {
			w.tolerates = &remediation.VersionError{Err: errors.New("web-1 runs social-intel:v2.0.0")}
			w.exec("CREATE TABLE hidden (); REVOKE ALL ON hidden FROM PUBLIC; ALTER TABLE hidden OWNER TO " + strings.SplitN(w.text("SELECT current_user"), " ", 2)[0])
		}, []string{"permission denied"}},
		"no pg_dump": {func(w *harness) { w.environ = []string{"PATH=" + w.dir} }, []string{"no snapshot, no rollback: pg_dump is not in PATH", "try: install postgresql-client"}},
		"a pg_dump that is older than the server": {func(w *harness) { w.program("pg_dump", "echo 'pg_dump (PostgreSQL) 9.6.24'") },
			[]string{"no snapshot, no rollback", "has version 9", "try: install postgresql-client-"}},
		"a snapshot folder that is a file":         {func(w *harness) { w.snapshots = w.spec.DSNFile }, []string{"manifest", "not a directory"}},
		"a snapshot folder that cannot be written": {func(w *harness) { w.snapshots = "/proc/self/snapshots" }, []string{"no snapshot, no rollback"}},
		"a role that does not exist":               {func(w *harness) { w.spec.Roles = append(w.spec.Roles, "backout_test_nobody") }, []string{"application role backout_test_nobody does not exist"}},
		"the role that backout connects as":        {func(w *harness) { w.spec.Roles = []string{w.owner} }, []string{"is the role that backout connects as"}},
		"a superuser":                              {func(w *harness) { w.exec("ALTER ROLE " + w.app + " SUPERUSER") }, []string{"is a superuser"}},
		"no right to cut":                          {func(w *harness) { w.exec("ALTER ROLE " + w.owner + " NOCREATEROLE") }, []string{"cannot be altered by backout_test_"}},
		"no right to end sessions":                 {func(w *harness) { w.exec("REVOKE pg_signal_backend FROM " + w.owner) }, []string{"has sessions that", "GRANT pg_signal_backend"}},
		"a database that is gone":                  {func(w *harness) { w.address2("postgres://" + w.owner + ":" + w.secretURL() + "@127.0.0.1:1/" + w.name) }, []string{"cannot be reached"}},
		"a wrong password":                         {func(w *harness) { w.address2(strings.Replace(w.dsn(), w.secretURL(), "other", 1)) }, []string{"cannot be reached", "password authentication failed"}},
		"an address that others can read": {func(w *harness) {
			if err := os.Chmod(w.spec.DSNFile, 0o644); err != nil {
				t.Fatal(err)
			}
		}, []string{"has mode 0644", "try: chmod 600"}},
		"no address":           {func(w *harness) { w.spec.DSNFile += ".none" }, []string{"is missing", "try: write postgres://"}},
		"an address of no use": {func(w *harness) { w.address2("host=127.0.0.1 password=" + w.secret) }, []string{"has no PostgreSQL address", "try: postgres://"}},
		"no Flyway": {func(w *harness) {
			w.exec("ALTER TABLE flyway_schema_history RENAME TO h; CREATE VIEW flyway_schema_history AS SELECT * FROM h")
		},
			[]string{"has no flyway_schema_history"}},
		"a missing command":                 {func(w *harness) { w.byCommand(); w.remove("rollback_to_v1.sh") }, []string{"command:", "no such file"}},
		"a command that is not executable":  {func(w *harness) { w.byCommand(); w.chmod("rollback_to_v1.sh", 0o644) }, []string{"is not executable", "try: chmod +x"}},
		"a command that anybody can write":  {func(w *harness) { w.byCommand(); w.chmod("rollback_to_v1.sh", 0o777) }, []string{"can be written by group or others"}},
		"a script that anybody can write":   {func(w *harness) { w.byShell(); w.chmod("rollback_to_v1.sh", 0o666) }, []string{"can be written by group or others", "try: chmod go-w"}},
		"a folder that anybody can write":   {func(w *harness) { w.byShell(); w.chmod(".", 0o777) }, []string{"can be written by group or others", "try: chmod go-w"}},
		"wanted is not a boolean":           {func(w *harness) { w.byCommand(); w.spec.Wanted = "SELECT 1" }, []string{"wanted: the answer is not a boolean"}},
		"a question that changes something": {func(w *harness) { w.byCommand(); w.spec.Wanted = "DELETE FROM forecasts RETURNING true" }, []string{"wanted:", "read-only"}},
		"a question with two answers":       {func(w *harness) { w.byCommand(); w.spec.Wanted = "SELECT true UNION ALL SELECT true" }, []string{"wanted:", "try: a query of one boolean"}},
	} {
		t.Run(name, func(t *testing.T) {
			w := newHarness(t)
			c.with(w)
			if strings.Contains(w.snapshots, "/proc") || w.snapshots == w.spec.DSNFile {
				_, err := w.action(nil).Look(t.Context(), op)
				w.says(err, c.says...)
				return
			}
			w.refused(c.says...)
		})
	}
}

func (w *harness) remove(name string) {
	w.t.Helper()
	if err := os.Remove(filepath.Join(w.dir, name)); err != nil {
		w.t.Fatal(err)
	}
}

// program puts a program before those in PATH.
func (w *harness) program(name, script string) {
	w.t.Helper()
	bin := w.t.TempDir()
	if err := os.WriteFile(filepath.Join(bin, name), []byte("#!/bin/sh\n"+script+"\n"), 0o755); err != nil {
		w.t.Fatal(err)
	}
	w.environ = []string{"PATH=" + bin + ":" + os.Getenv("PATH")}
}

// address2 writes another address.
func (w *harness) address2(dsn string) {
	w.t.Helper()
	if err := os.WriteFile(w.spec.DSNFile, []byte(dsn), 0o600); err != nil {
		w.t.Fatal(err)
	}
}

func TestALossOfRoomForTheSnapshotIsSeenBeforehand(t *testing.T) {
	w := newHarness(t)
	err := w.client(nil).hasRoom(1 << 62)
	w.says(err, "no snapshot, no rollback", "MiB left")
}

func TestWhatChangedSinceItWasLookedAtIsRefused(t *testing.T) {
	for name, change := range map[string]func(w *harness){
		"another version": func(w *harness) {
			w.write("V3__more.sql", "CREATE TABLE more ()")
			w.write("U3__more.sql", "DROP TABLE more")
			w.migrate("V3__more.sql")
		},
		"another undo script":      func(w *harness) { w.write(undo2, "DROP TABLE posts CASCADE;") },
		"a role that was cut off":  func(w *harness) { w.exec("ALTER ROLE " + w.app + " NOLOGIN") },
		"another undo of its text": func(w *harness) { w.write(undo2, "DROP TABLE recommendations; DROP TABLE forecasts;") },
	} {
		t.Run(name, func(t *testing.T) {
			w := newHarness(t)
			before := w.untouched().Snapshot
			change(w)
			state := w.state()
			err := w.action(nil).Apply(t.Context(), op, before)
			w.says(err, "changed since they were inspected")
			if errors.Is(err, context.DeadlineExceeded) || isInDoubt(err) {
				t.Errorf("the refusal leaves doubt: %v", err)
			}
			if got := w.state(); got != state {
				t.Errorf("the refusal changed\n%s\nto\n%s", state, got)
			}
		})
	}
}

// isInDoubt reports whether an error was marked as one that leaves doubt.
func isInDoubt(err error) bool {
	marked := remediation.InDoubt(err)
	for ; err != nil; err = errors.Unwrap(err) {
		if reflect.TypeOf(err) == reflect.TypeOf(marked) {
			return true
		}
	}
	return false
}

// The script of [/bin/sh, x.sh] is as much the command as the shell is.
func TestAScriptThatIsExchangedAfterItWasLookedAtDoesNotRun(t *testing.T) {
	swap := func(w *harness) { w.write("rollback_to_v1.sh", "#!/bin/sh\ntouch ran\n") }
	for name, prepare := range map[string]func(w *harness) (before json.RawMessage){
		"before the step": func(w *harness) json.RawMessage {
			before := w.untouched().Snapshot
			swap(w)
			return before
		},
		"while the snapshot is taken": func(w *harness) json.RawMessage {
			before := w.untouched().Snapshot
			script := filepath.Join(w.dir, "rollback_to_v1.sh")
			dump, err := exec.LookPath("pg_dump")
			if err != nil {
				w.t.Fatal(err)
			}
			w.program("pg_dump", `case "$*" in *--version*) ;; *) echo 'touch ran' >>'`+script+`' ;; esac; exec '`+dump+`' "$@"`)
			return before
		},
	} {
		t.Run(name, func(t *testing.T) {
			w := newHarness(t)
			w.byShell()
			before := prepare(w)
			err := w.action(nil).Apply(t.Context(), op, before)
			w.says(err, "inspected")
			if _, err := os.Stat(filepath.Join(w.dir, "ran")); err == nil || isInDoubt(err) {
				t.Error("it ran")
			}
		})
	}
}

func TestAnAddressThatItsGroupCanReadIsTaken(t *testing.T) {
	w := newHarness(t)
	if err := os.Chmod(w.spec.DSNFile, 0o640); err != nil {
		t.Fatal(err)
	}
	w.untouched()
}

func TestABindNamesWhatIsMissing(t *testing.T) {
	c, err := New(Options{SnapshotDir: t.TempDir(), Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	whole := remediation.SchemaRollback{
		Service: "s", DSNFile: "/d", Roles: []string{"app"}, Command: []string{"/c"}, Wanted: "SELECT true",
		Tolerated: func(context.Context) error { return nil },
	}
	if _, err := c.Rollback(whole); err != nil {
		t.Fatal(err)
	}
	for want, change := range map[string]func(s *remediation.SchemaRollback){
		"needs dsn_file for the snapshot; try:": func(s *remediation.SchemaRollback) { s.DSNFile = "" },
		"is not an absolute path":               func(s *remediation.SchemaRollback) { s.DSNFile = "dsn" },
		"try: application_roles: [":             func(s *remediation.SchemaRollback) { s.Roles = nil },
		"flyway and command are both given":     func(s *remediation.SchemaRollback) { s.Flyway = &remediation.Flyway{} },
		"neither flyway nor command":            func(s *remediation.SchemaRollback) { s.Command = nil },
		"try: wanted: SELECT":                   func(s *remediation.SchemaRollback) { s.Wanted = " " },
		"tolerates the older schema":            func(s *remediation.SchemaRollback) { s.Tolerated = nil },
		`invalid version "x"`:                   func(s *remediation.SchemaRollback) { s.Command, s.Flyway = nil, &remediation.Flyway{Version: "x"} },
		`flyway.dir "m" is not an absolute path`: func(s *remediation.SchemaRollback) {
			s.Command, s.Flyway = nil, &remediation.Flyway{Dir: "m", Version: "1"}
		},
		"a schema needs the name of its service": func(s *remediation.SchemaRollback) { s.Service = "" },
	} {
		s := whole
		change(&s)
		if _, err := c.Rollback(s); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v, want %q", err, want)
		}
	}
}

func TestAnOperationThatLeftTheApplicationOutHoldsTheNext(t *testing.T) {
	w := newHarness(t)
	before := w.untouched().Snapshot
	f := &fault{n: 2, kind: "cut after the effect"}
	if err := w.action(f.seams()).Apply(t.Context(), op, before); err == nil || w.login() == nil {
		t.Fatalf("%v, calls %v", err, f.calls)
	}
	other := "inc-8/3-schema_rollback@1700000001"
	_, err := w.action(nil).Look(t.Context(), other)
	w.says(err, "operation "+op+" took the login from role "+w.app, "ALTER ROLE", ".json")
	if err := w.action(nil).Undo(t.Context(), op, before); err != nil {
		t.Fatal(err)
	}
	w.position(other, remediation.Untouched)
}

func TestASchemaThatIsAsWantedWithTheApplicationLeftOutIsNotCalledWell(t *testing.T) {
	w := newHarness(t)
	w.apply()
	w.exec("ALTER ROLE " + w.app + " NOLOGIN")
	_, err := w.action(nil).Look(t.Context(), "inc-8/3-schema_rollback@1")
	w.says(err, "the schema is in the wanted state, but role "+w.app+" cannot log in", "try: ALTER ROLE")
	w.says(w.action(nil).Verify(t.Context(), op), "cannot log in")
}

func TestABrokenManifestIsRefused(t *testing.T) {
	w := newHarness(t)
	if err := os.MkdirAll(w.snapshots, 0o700); err != nil {
		t.Fatal(err)
	}
	r := w.action(nil).(*rollback)
	if err := os.WriteFile(r.base(op)+".json", []byte(`{"op": "`), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, err := range []error{
		func() error { _, err := r.Look(t.Context(), op); return err }(), r.Apply(t.Context(), op, nil), r.Undo(t.Context(), op, nil),
	} {
		w.says(err, "manifest", "unexpected EOF", "try:")
	}
	if err := r.Apply(t.Context(), "inc-9/1-x@1", json.RawMessage(`{`)); err == nil {
		t.Error("a broken snapshot was taken")
	}
}
