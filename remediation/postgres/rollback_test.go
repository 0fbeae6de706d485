package postgres

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"

	"github.com/locotoki/backout/hint"
	"github.com/locotoki/backout/remediation"
	"github.com/locotoki/backout/remediation/action/actiontest"
)

func parsed(t *testing.T, raw json.RawMessage) snapshot {
	t.Helper()
	s, err := parseSnapshot(raw)
	if err != nil {
		t.Fatal(err)
	}
	return *s
}

func counts(all []rows) string {
	var b strings.Builder
	for _, r := range all {
		fmt.Fprintf(&b, "%s=%d%s ", r.Table, r.Rows, strings.ReplaceAll(string(r.Estimated), "yes", " (estimated)"))
	}
	return b.String()
}

func TestTheSchemaGoesBackWithItsHistoryAndARecordOfWhatWasLost(t *testing.T) {
	w := newHarness(t)
	before := w.untouched()
	s := parsed(t, before.Snapshot)
	if s.Version != "2.0.0" || s.Target != "1.0.0" || s.Transaction != "one" || s.Database != w.name || len(s.Scripts) != 1 || s.Dump != nil {
		t.Errorf("before: %s", before.Snapshot)
	}
	script, err := os.ReadFile(filepath.Join(w.dir, undo2))
	if err != nil {
		t.Fatal(err)
	}
	if sum := sha256.Sum256(script); s.Scripts[0] != (scriptState{undo2, "2.0.0", hex.EncodeToString(sum[:]), "yes"}) {
		t.Errorf("scripts: %+v", s.Scripts)
	}
	if got := counts(s.Rows); got != "public.channels=2 public.forecasts=5 public.posts=10 public.recommendations=1 " {
		t.Errorf("rows: %s", got)
	}

	w.apply()
	s = parsed(t, w.position(op, remediation.Wanted).Snapshot)
	if s.Version != "1.0.0" || s.Phase != finished || s.Dump == nil {
		t.Fatalf("after: %+v", s)
	}
	if got := counts(s.Before); got != "public.channels=2 public.forecasts=5 public.posts=10 public.recommendations=1 " {
		t.Errorf("rows before: %s", got)
	}
	if got := counts(s.After); got != "public.channels=2 public.posts=10 " {
		t.Errorf("rows after: %s", got)
	}
	content, err := os.ReadFile(s.Dump.Path)
	if err != nil {
		t.Fatal(err)
	}
	if sum := sha256.Sum256(content); int64(len(content)) != s.Dump.Size || hex.EncodeToString(sum[:]) != s.Dump.SHA256 || s.Dump.Size == 0 {
		t.Errorf("dump: %+v", s.Dump)
	}
	if info, err := os.Stat(s.Dump.Path); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("mode of the snapshot: %v, %v", info.Mode(), err)
	}
	if got := w.files(); got != ".dump .json" {
		t.Errorf("left: %s", got)
	}
	if err := w.login(); err != nil {
		t.Errorf("the application cannot log in: %v", err)
	}

	// As flyway undo writes it.
	got := w.text(`SELECT concat_ws('|', installed_rank, version, description, type, script, checksum, installed_by = '` + w.owner + `', success)
		FROM flyway_schema_history ORDER BY installed_rank DESC LIMIT 1`)
	if want := "3|2.0.0|rollback analytics|UNDO_SQL|" + undo2 + "|-385167801|t|t"; got != want {
		t.Errorf("history: %s, want %s", got, want)
	}
	// And it can be migrated again, and taken back again by another operation.
	w.migrate("V2.0.0__analytics.sql")
	next := "inc-8/3-schema_rollback@1800000000"
	before = w.position(next, remediation.Untouched)
	if err := w.action(nil).Apply(t.Context(), next, before.Snapshot); err != nil {
		t.Fatal(err)
	}
	w.position(next, remediation.Wanted)
}

func TestTheWayBackThatIsNamedFirstKeepsTheRowsWrittenSince(t *testing.T) {
	w := newHarness(t)
	w.write("V2.1.0__shares.sql", "ALTER TABLE posts ADD COLUMN shares int DEFAULT 7; ALTER TABLE channels RENAME COLUMN name TO title")
	w.migrate("V2.1.0__shares.sql")
	w.write("U2.1.0__shares.sql", "ALTER TABLE posts DROP COLUMN shares; DELETE FROM posts WHERE id > 8; ALTER TABLE channels RENAME COLUMN title TO name")
	w.snapshots = filepath.Join(t.TempDir(), "the team's $napshots")
	w.apply()
	w.exec("INSERT INTO posts (channel, body) VALUES (1, 'written since')")
	state := w.state()

	after := parsed(t, w.position(op, remediation.Wanted).Snapshot)
	const lost = "column public.posts.sentiment in 10 rows, column public.posts.shares in 10 rows, 2 rows of public.posts"
	if got := remediation.LostWords(after.Lost); got != "table public.forecasts (5 rows), "+lost+", table public.recommendations (1 row)" {
		t.Errorf("lost: %s", got)
	}
	ways := remediation.WaysBack(after.Dump.Path, after.DSNFile, after.Database, after.Lost)
	err := w.action(nil).Undo(t.Context(), op, nil)
	w.says(err, "the schema is at its previous version", "backout never restores data", "lost: table public.forecasts (5 rows), "+lost)
	_, line := hint.Of(err)
	if line != ways[0].Command || len(ways) != 3 {
		t.Errorf("the error names %s", line)
	}
	for _, way := range ways[:len(ways)-1] {
		run(t, way.Command)
	}
	if got := w.state(); got != state {
		t.Errorf("the database is\n%s\nand was\n%s", got, state)
	}

	// The lost tables can be loaded where they are gone, and rows written since stay.
	file := strings.TrimSuffix(after.Dump.Path, ".dump")
	for name, tables := range map[string]string{"-lost.sql": "forecasts recommendations", "-changed.sql": "posts"} {
		sql, err := os.ReadFile(file + name)
		if err != nil {
			t.Fatal(err)
		}
		for _, table := range []string{"forecasts", "recommendations", "posts", "channels"} {
			if strings.Contains(string(sql), "COPY public."+table+" ") != strings.Contains(tables, table) {
				t.Errorf("%s in %s:\n%s", table, name, sql)
			}
		}
	}
	run(t, "psql --quiet --set=ON_ERROR_STOP=1 --single-transaction --dbname="+quoted(w.dsn())+" --file="+quoted(file+"-lost.sql"))
	if got := w.text("SELECT concat_ws(' ', (SELECT count(*) FROM forecasts), (SELECT count(*) FROM recommendations), (SELECT count(*) FROM posts WHERE body = 'written since'))"); got != "5 1 1" {
		t.Errorf("forecasts, recommendations, and posts written since: %s", got)
	}
}

func TestTheWayBackThatIsNamedLastReplacesTheWholeDatabase(t *testing.T) {
	w := newHarness(t)
	file := filepath.Join(t.TempDir(), "the team's $dsn")
	if err := os.Rename(w.spec.DSNFile, file); err != nil {
		t.Fatal(err)
	}
	w.spec.DSNFile = file
	state := w.state()
	w.apply()
	w.exec("INSERT INTO posts (channel, body) VALUES (1, 'written since')")
	after := parsed(t, w.position(op, remediation.Wanted).Snapshot)
	ways := remediation.WaysBack(after.Dump.Path, after.DSNFile, after.Database, after.Lost)
	way := ways[len(ways)-1]
	if !strings.Contains(way.Does, "Rows written since the snapshot are lost.") {
		t.Errorf("it says: %s", way.Does)
	}
	run(t, way.Command)
	if got := w.state(); got != state {
		t.Errorf("restored:\n%s\nwas:\n%s", got, state)
	}
}

// run runs a command as a person does who copies it into a shell.
func run(t *testing.T, line string) {
	t.Helper()
	if out, err := exec.CommandContext(t.Context(), "sh", "-c", line).CombinedOutput(); err != nil {
		t.Fatalf("%s: %v: %s", line, err, out)
	}
}

func quoted(text string) string { return "'" + strings.ReplaceAll(text, "'", `'\''`) + "'" }

func TestTheApplicationIsCutOffBeforeTheSnapshotAndLetBackAtTheEnd(t *testing.T) {
	w := newHarness(t)
	session, err := pgx.Connect(t.Context(), w.address(w.app, "app"))
	if err != nil {
		t.Fatal(err)
	}
	defer session.Close(context.Background())
	if _, err := session.Exec(t.Context(), "BEGIN; INSERT INTO posts (channel, body) VALUES (1, 'never committed')"); err != nil {
		t.Fatal(err)
	}
	var seen []string
	s := (&fault{n: -1}).seams()
	do := s.do
	s.do = func(ctx context.Context, what string, f func(context.Context) error) error {
		if what == "pg_dump" {
			if err := w.login(); err == nil || !strings.Contains(err.Error(), "not permitted to log in") {
				t.Errorf("the application while the snapshot is taken: %v", err)
			}
			if err := session.Ping(ctx); err == nil {
				t.Error("a session of the application goes on while the snapshot is taken")
			}
		}
		seen = append(seen, what)
		return do(ctx, what, f)
	}
	before := w.untouched().Snapshot
	if err := w.action(s).Apply(t.Context(), op, before); err != nil {
		t.Fatal(err)
	}
	if got := strings.Join(seen, ", "); got != "manifest begun, manifest cut_off, pg_dump, snapshot, manifest dumped, manifest dumped, manifest changed, manifest finished" {
		t.Errorf("seen: %s", got)
	}
	if err := w.login(); err != nil {
		t.Error(err)
	}
	if n := w.text("SELECT count(*)::text FROM posts"); n != "10" {
		t.Errorf("%s posts", n)
	}
}

func TestARoleThatCouldNotLogInBeforeStaysSo(t *testing.T) {
	w := newHarness(t)
	w.exec("ALTER ROLE " + w.app + " NOLOGIN")
	s := parsed(t, w.untouched().Snapshot)
	if len(s.Roles) != 1 || s.Roles[0] != (role{w.app, "no"}) {
		t.Errorf("roles: %+v", s.Roles)
	}
	before, err := w.raw(s)
	if err != nil {
		t.Fatal(err)
	}
	if err := w.action(nil).Apply(t.Context(), op, before); err != nil {
		t.Fatal(err)
	}
	if w.login() == nil {
		t.Error("a role that somebody had cut off was let in")
	}
}

func (w *harness) raw(s snapshot) (json.RawMessage, error) { return json.Marshal(s) }

func TestAScriptThatFailsLeavesNothingBehind(t *testing.T) {
	w := newHarness(t)
	w.write("V3__more.sql", "CREATE TABLE more ()")
	w.write("U3__more.sql", "DROP TABLE more;")
	w.migrate("V3__more.sql")
	w.write(undo2, "DROP TABLE recommendations;\n\nDROP TABLE forecast;\n")
	state := w.state()
	before := w.untouched().Snapshot
	err := w.action(nil).Apply(t.Context(), op, before)
	w.says(err, undo2, `table "forecast" does not exist`)
	if isInDoubt(err) {
		t.Errorf("what the server refuses leaves no doubt: %v", err)
	}
	if err := w.action(nil).Undo(t.Context(), op, before); err != nil {
		t.Fatal(err)
	}
	if got := w.state(); got != state {
		t.Errorf("left\n%s\nof\n%s", got, state)
	}
	if err := w.login(); err != nil {
		t.Error(err)
	}
}

func TestACommitThatIsNotAnsweredIsResolvedByLooking(t *testing.T) {
	for _, kind := range []actiontest.Fault{actiontest.Before, actiontest.After} {
		t.Run(string(kind), func(t *testing.T) {
			w := newHarness(t)
			before := w.untouched().Snapshot
			f := &fault{n: -1}
			if err := w.action(f.seams()).Apply(t.Context(), op, before); err != nil {
				t.Fatal(err)
			}
			w.reset()
			at := -1
			for i, call := range f.calls {
				if call == "COMMIT" {
					at = i
				}
			}
			op := "inc-8/1-x@1"
			before = w.position(op, remediation.Untouched).Snapshot
			f = &fault{n: at, kind: kind}
			err := w.action(f.seams()).Apply(t.Context(), op, before)
			if !isInDoubt(err) || f.calls[at] != "COMMIT" {
				t.Fatalf("%v, at %q", err, f.calls[at])
			}
			w.says(err, "commit", "the snapshot is "+w.snapshots)
			if w.lost() != (kind == actiontest.After) {
				t.Fatal("the cut was elsewhere")
			}
			if w.login() == nil {
				t.Error("the application was let in though nobody knows how the schema is")
			}
			w.position(op, remediation.HalfWay)
			if err := w.action(nil).Apply(t.Context(), op, before); err != nil {
				t.Fatal(err)
			}
			s := parsed(t, w.position(op, remediation.Wanted).Snapshot)
			if got := counts(s.Before) + "-> " + counts(s.After); got != "public.channels=2 public.forecasts=5 public.posts=10 public.recommendations=1 -> public.channels=2 public.posts=10 " {
				t.Errorf("rows: %s", got)
			}
		})
	}
}

func TestThePasswordIsToldNowhere(t *testing.T) {
	w := newHarness(t)
	argv := filepath.Join(t.TempDir(), "argv")
	dump, err := exec.LookPath("pg_dump")
	if err != nil {
		t.Fatal(err)
	}
	w.program("pg_dump", `echo "$@" >>`+argv+`; env >>`+argv+`; exec `+dump+` "$@"`)
	look := w.untouched()
	w.apply()
	w.tellsNothing(string(look.Snapshot))
	w.tellsNothing(string(w.position(op, remediation.Wanted).Snapshot))
	w.tellsNothing(w.log.String())
	said, err := os.ReadFile(argv)
	if err != nil || !strings.Contains(string(said), "--format=custom") || !strings.Contains(string(said), "PGPASSFILE=") {
		t.Errorf("%v: %s", err, said)
	}
	w.tellsNothing(string(said))
	err = filepath.WalkDir(w.snapshots, func(path string, d os.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		content, err := os.ReadFile(path)
		w.tellsNothing(string(content))
		return err
	})
	if err != nil {
		t.Error(err)
	}
	if w.log.Len() == 0 {
		t.Error("nothing was logged")
	}
}

func TestASchemaOfItsOwnIsFound(t *testing.T) {
	w := newHarness(t)
	w.exec("ALTER SCHEMA public RENAME TO social; CREATE SCHEMA public")
	before := w.untouched().Snapshot
	if err := w.action(nil).Apply(t.Context(), op, before); err != nil {
		t.Fatal(err)
	}
	s := parsed(t, w.position(op, remediation.Wanted).Snapshot)
	if got := counts(s.After); got != "social.channels=2 social.posts=10 " {
		t.Errorf("rows: %s", got)
	}
}

func TestOnlyTheTablesThatAreNamedAreCounted(t *testing.T) {
	w := newHarness(t)
	w.spec.Tables = []string{"posts", "public.forecasts"}
	w.apply()
	s := parsed(t, w.position(op, remediation.Wanted).Snapshot)
	if got := counts(s.Before) + "-> " + counts(s.After); got != "public.forecasts=5 public.posts=10 -> public.posts=10 " {
		t.Errorf("rows: %s", got)
	}
}
