package postgres

import (
	"os"
	"strings"
	"testing"

	"github.com/locotoki/backout/remediation"
)

// rehearse rehearses, after which database and folder are as they were.
func (w *harness) rehearse() remediation.Result {
	w.t.Helper()
	before := w.everything()
	f := w.action(nil).(remediation.Rehearser).Rehearse(w.t.Context())
	if after := w.everything(); after != before {
		w.t.Errorf("the rehearsal changed the database from\n%s\nto\n%s", before, after)
	}
	if left, err := os.ReadDir(w.snapshots); len(left) > 0 {
		w.t.Errorf("in the folder of the snapshots are %v (%v)", left, err)
	}
	if said := f.Evidence + f.Next; strings.Contains(said, w.secret) || strings.Contains(said, w.secretURL()) {
		w.t.Errorf("it tells the password: %+v", f)
	}
	return f
}

func TestASchemaRollbackIsRehearsedWithASnapshotAndLeavesNothing(t *testing.T) {
	w := newHarness(t)
	f := w.rehearse()
	for _, word := range []string{w.app + " can be disconnected", "1 script ran", "a snapshot of ", "read back and deleted"} {
		if f.Status != remediation.Pass || !strings.Contains(f.Evidence, word) {
			t.Errorf("it came to %+v, without %q", f, word)
		}
	}
}

func TestARehearsalOfASchemaThatCannotGoBackFails(t *testing.T) {
	w := newHarness(t)
	w.write(undo2, "DROP TABLE forecast;")
	if f := w.rehearse(); f.Status != remediation.Fail || !strings.Contains(f.Evidence, `"forecast" does not exist`) || f.Next == "" {
		t.Errorf("it came to %+v", f)
	}
}

func TestARehearsalWhoseSnapshotCannotBeTakenFails(t *testing.T) {
	w := newHarness(t)
	w.exec("CREATE TABLE hidden (); REVOKE ALL ON hidden FROM PUBLIC; ALTER TABLE hidden OWNER TO " + strings.SplitN(w.text("SELECT current_user"), " ", 2)[0])
	if f := w.rehearse(); f.Status != remediation.Fail || !strings.Contains(f.Evidence, "permission denied") {
		t.Errorf("it came to %+v", f)
	}
}

func TestASnapshotThatAKilledRehearsalLeavesIsTakenAway(t *testing.T) {
	w := newHarness(t)
	a := w.action(nil)
	left := &work{rollback: a.(*rollback), op: rehearsalOp, m: &manifest{}}
	if err := os.MkdirAll(w.snapshots, 0o700); err != nil {
		t.Fatal(err)
	}
	for _, extension := range []string{".pgpass", ".dump.partial", ".dump"} {
		if err := os.WriteFile(left.file(extension), []byte(w.secret), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := a.(remediation.Sweeper).Sweep(t.Context()); err != nil {
		t.Error(err)
	}
	if files, err := os.ReadDir(w.snapshots); err != nil || len(files) > 0 {
		t.Errorf("left are %v (%v)", files, err)
	}
}
