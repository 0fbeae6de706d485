package postgres

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/locotoki/backout/remediation"
	"github.com/locotoki/backout/remediation/action/actiontest"
	"github.com/locotoki/backout/remediation/crashtest"
)

// outside has a version 2.5.0 whose undo script cannot run in a transaction.
func outside(t *testing.T, undo string) *harness {
	w := newHarness(t)
	w.write("V2.5.0__index.sql", "CREATE INDEX CONCURRENTLY posts_seen ON posts (seen);")
	w.write("U2.5.0__index.sql", undo)
	w.index()
	return w
}

func (w *harness) index() {
	w.exec("SET ROLE " + w.owner + "; CREATE INDEX posts_seen ON posts (seen); RESET ROLE")
	w.row("2.5.0", "index", "SQL", "V2.5.0__index.sql", "NULL", true)
}

func TestScriptsThatCannotShareATransactionRunOneByOne(t *testing.T) {
	w := outside(t, "-- slow\nDROP INDEX CONCURRENTLY posts_seen;")
	raw := string(w.untouched().Snapshot)
	for _, want := range []string{`"transaction":"script by script"`, `"script":"U2.5.0__index.sql","version":"2.5.0"`} {
		if !strings.Contains(raw, want) {
			t.Errorf("the snapshot %s says nothing of %s", raw, want)
		}
	}
	w.apply()
	if got := w.text("SELECT to_regclass('posts_seen')::text"); got != "" || !w.lost() {
		t.Errorf("left: %s", w.state())
	}
	if got := w.text("SELECT string_agg(version || ' ' || type, ', ' ORDER BY installed_rank) FROM flyway_schema_history WHERE type = 'UNDO_SQL'"); got != "2.5.0 UNDO_SQL, 2.0.0 UNDO_SQL" {
		t.Errorf("history: %s", got)
	}
}

func TestScriptsThatRunOneByOneAreRolledForwardFromEveryPoint(t *testing.T) {
	w := outside(t, "DROP INDEX CONCURRENTLY IF EXISTS posts_seen;")
	w.spec.Restartable = true
	for n := range crashtest.Points(t) {
		op := fmt.Sprintf("inc-%d/1-schema_rollback@1", n)
		before := w.position(op, remediation.Untouched).Snapshot
		f := &fault{n: n, kind: actiontest.After}
		err := w.action(f.seams()).Apply(t.Context(), op, before)
		if !f.fired() {
			if err != nil || n < 15 {
				t.Fatalf("after %d calls: %v", n, err)
			}
			return
		}
		look, err := w.action(nil).Look(t.Context(), op)
		if err != nil {
			t.Fatalf("look after call %d (%s): %v", n, f.calls[n], err)
		}
		if look.Position != remediation.Wanted {
			if err := w.action(nil).Apply(t.Context(), op, before); err != nil {
				t.Fatalf("apply after call %d (%s): %v", n, f.calls[n], err)
			}
		}
		w.position(op, remediation.Wanted)
		if err := w.action(nil).Verify(t.Context(), op); err != nil {
			t.Fatalf("verify after call %d: %v", n, err)
		}
		if got := w.text("SELECT string_agg(version, ' ' ORDER BY installed_rank) FROM flyway_schema_history WHERE type = 'UNDO_SQL'"); got != "2.5.0 2.0.0" {
			t.Fatalf("history after call %d (%s): %s", n, f.calls[n], got)
		}
		w.reset()
		w.index()
	}
}

// cutInScript cuts an apply off after the first statement of the script that
// runs alone.
func (w *harness) cutInScript(word string) error {
	before := w.untouched().Snapshot
	for n := 0; ; n++ {
		f := &fault{n: n, kind: actiontest.After}
		err := w.action(f.seams()).Apply(w.t.Context(), op, before)
		if !f.fired() {
			w.t.Fatalf("no call has %q in it: %v", word, f.calls)
		}
		if strings.HasPrefix(f.calls[n], word) {
			return err
		}
		if err := w.action(nil).Undo(w.t.Context(), op, before); err != nil {
			w.t.Fatal(err)
		}
		before = w.untouched().Snapshot
	}
}

func TestAScriptThatMayBeDoneInPartWaitsForAPerson(t *testing.T) {
	w := outside(t, "DROP INDEX CONCURRENTLY posts_seen;\nVACUUM posts;")
	w.says(w.cutInScript("DROP INDEX"), "the snapshot is "+w.snapshots)
	_, err := w.action(nil).Look(t.Context(), op)
	w.says(err, "undo script of version 2.5.0", "may be partly done", "the application stays disconnected", "restartable: true", "the snapshot is "+w.snapshots)
	err = w.action(nil).Undo(t.Context(), op, nil)
	w.says(err, "backout never restores data", "pg_restore", w.snapshots)
	if w.login() == nil {
		t.Error("the application was let in between two versions")
	}

	// A person finishes what the script does, and writes its row; then it goes on by itself.
	w.row("2.5.0", "index", "UNDO_SQL", "U2.5.0__index.sql", "NULL", true)
	w.position(op, remediation.HalfWay)
	if err := w.action(nil).Apply(t.Context(), op, nil); err != nil {
		t.Fatal(err)
	}
	w.position(op, remediation.Wanted)
	if err := w.login(); err != nil || !w.lost() {
		t.Errorf("login: %v, state:\n%s", err, w.state())
	}
}

func TestAScriptThatFailedBeforeItChangedAnythingIsTakenBack(t *testing.T) {
	w := outside(t, "DROP INDEX CONCURRENTLY posts_sen;")
	state := w.state()
	before := w.untouched().Snapshot
	w.says(w.action(nil).Apply(t.Context(), op, before), "U2.5.0__index.sql", "posts_sen")
	if w.login() == nil {
		t.Error("the application was let in before it was asked for")
	}
	if err := w.action(nil).Undo(t.Context(), op, before); err != nil {
		t.Fatal(err)
	}
	if got := w.state(); got != state {
		t.Errorf("undo left\n%s\nof\n%s", got, state)
	}
	if err := w.login(); err != nil {
		t.Error(err)
	}
	if got := w.files(); got != ".dump .json" {
		t.Errorf("left: %s", got)
	}

	// The script is fixed, and the same operation begun again: a second attempt keeps the first one's snapshot.
	w.write("U2.5.0__index.sql", "DROP INDEX CONCURRENTLY posts_seen;")
	w.apply()
	dumps, err := filepath.Glob(filepath.Join(w.snapshots, "*.dump"))
	if err != nil || len(dumps) != 2 {
		t.Errorf("snapshots: %v, %v", dumps, err)
	}
}

func TestASettingOfFlywaysKeepsAScriptOutOfATransaction(t *testing.T) {
	w := newHarness(t)
	conf := "# no transaction\nexecuteInTransaction=false\n"
	if err := os.WriteFile(filepath.Join(w.dir, "U2.0.0__rollback_analytics.sql.conf"), []byte(conf), 0o644); err != nil {
		t.Fatal(err)
	}
	if raw := string(w.untouched().Snapshot); !strings.Contains(raw, `"transaction":"script by script"`) {
		t.Error(raw)
	}
	w.apply()
}
