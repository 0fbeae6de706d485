package postgres

import (
	"context"
	"errors"
	"slices"
	"testing"

	"github.com/jackc/pgx/v5"

	"github.com/locotoki/backout/remediation"
)

// afterDump does something once the snapshot is taken.
func afterDump(do func()) *seams {
	s := (&fault{n: -1}).seams()
	s.do = func(ctx context.Context, what string, f func(context.Context) error) error {
		err := f(ctx)
		if what == "pg_dump" && err == nil {
			do()
		}
		return err
	}
	return s
}

// ways are those in which a schema is rolled back.
var ways = map[string]func(t *testing.T) *harness{
	"in one transaction": func(t *testing.T) *harness { return newHarness(t) },
	"script by script":   func(t *testing.T) *harness { return outside(t, "DROP INDEX CONCURRENTLY posts_seen;") },
	"by a command": func(t *testing.T) *harness {
		w := newHarness(t)
		w.byCommand()
		return w
	},
}

// refusesMeanwhile wants an apply to be refused after the snapshot, without doubt, and its
// undo to let the application back; do is undone by back.
func (w *harness) refusesMeanwhile(do, back func(), words ...string) {
	w.t.Helper()
	state, before := w.state(), w.untouched().Snapshot
	err := w.action(afterDump(do)).Apply(w.t.Context(), op, before)
	w.says(err, words...)
	if remediation.IsInDoubt(err) {
		w.t.Errorf("the refusal leaves doubt: %v", err)
	}
	if w.lost() {
		w.t.Error("the schema was rolled back")
	}
	if err := w.action(nil).Undo(w.t.Context(), op, before); err != nil {
		w.t.Fatal(err)
	}
	if err := w.login(); err != nil {
		w.t.Error(err)
	}
	back()
	if got := w.state(); got != state {
		w.t.Errorf("left\n%s\nof\n%s", got, state)
	}
	w.apply()
}

func TestWhatAnotherRoleWritesAfterTheSnapshotIsNotLost(t *testing.T) {
	for name, harness := range ways {
		for what, c := range map[string]struct{ do, back, says string }{
			"rows":    {"INSERT INTO forecasts SELECT 1, date '2027-01-01' + n, n FROM generate_series(1, 100) n", "DELETE FROM forecasts WHERE day >= '2027-01-01'", "changed public.forecasts since"},
			"a table": {"CREATE TABLE more AS SELECT 1 AS n; GRANT SELECT ON more TO PUBLIC", "DROP TABLE more", "changed the schema itself since"},
		} {
			t.Run(what+", "+name, func(t *testing.T) {
				w := harness(t)
				w.refusesMeanwhile(func() { w.exec(c.do) }, func() { w.exec(c.back) }, c.says, "the snapshot is "+w.snapshots, "postgres", "try: stop what writes there")
			})
		}
	}
}

func TestWhatWritesNothingIsNoReasonToRefuse(t *testing.T) {
	w := newHarness(t)
	w.exec("CREATE EXTENSION IF NOT EXISTS plpgsql; CREATE TABLE of_extension (n int); GRANT SELECT ON of_extension TO PUBLIC; ALTER EXTENSION plpgsql ADD TABLE of_extension")
	before := w.untouched().Snapshot
	s := afterDump(func() {
		w.exec("VACUUM ANALYZE")
		w.exec(`CREATE TEMPORARY TABLE mine (id serial PRIMARY KEY, text text CHECK (text <> ''));
			INSERT INTO mine (text) VALUES ('x'); INSERT INTO of_extension SELECT 1; SELECT * FROM posts FOR UPDATE`)
	})
	if err := w.action(s).Apply(t.Context(), op, before); err != nil {
		t.Fatal(err)
	}
}

// The approver sees who is not disconnected.
func TestALookNamesTheOtherRolesThatAreConnected(t *testing.T) {
	w := newHarness(t)
	admin := w.text("SELECT current_user::text")
	s := parsed(t, w.untouched().Snapshot)
	if !slices.Equal(s.Others, []sessions{{admin, 1}}) {
		t.Errorf("other roles: %+v", s.Others)
	}
}

// A manifest of an earlier release does not say what the database was like before its
// snapshot, so another one is taken.
func TestASnapshotBeforeWhichNothingWasNotedIsTakenAgain(t *testing.T) {
	w := newHarness(t)
	before := w.untouched().Snapshot
	s := (&fault{n: -1}).seams()
	s.do = func(ctx context.Context, what string, f func(context.Context) error) error {
		if err := f(ctx); err != nil || what != "manifest dumped" {
			return err
		}
		return errCut
	}
	if err := w.action(s).Apply(t.Context(), op, before); !errors.Is(err, errCut) {
		t.Fatal(err)
	}
	r := w.action(nil).(*rollback)
	m, err := r.load(op)
	if err != nil || len(m.Mark) == 0 {
		t.Fatalf("%+v, %v", m, err)
	}
	m.Mark = nil
	old := &work{rollback: r, op: op, m: m}
	if err := old.save(t.Context(), func(*manifest) {}); err != nil {
		t.Fatal(err)
	}
	taken := 0
	if err := w.action(afterDump(func() { taken++ })).Apply(t.Context(), op, before); err != nil || taken != 1 {
		t.Errorf("%v, %d snapshots more", err, taken)
	}
}

func TestTheNewerCodeThatIsDeployedWhileTheSnapshotIsTakenIsSeen(t *testing.T) {
	for name, harness := range ways {
		t.Run(name, func(t *testing.T) {
			w := harness(t)
			w.refusesMeanwhile(func() { w.tolerates = errors.New("web-1 runs social-intel:v2.0.0") }, func() { w.tolerates = nil },
				"does not tolerate the older schema: web-1 runs social-intel:v2.0.0")
		})
	}
}

// Another rollback, of another database, that ends lets the application into this one.
func TestALoginThatIsRestoredWhileTheSnapshotIsTakenIsSeen(t *testing.T) {
	for name, harness := range ways {
		t.Run(name, func(t *testing.T) {
			w := harness(t)
			w.refusesMeanwhile(func() { w.exec("ALTER ROLE " + w.app + " LOGIN") }, func() {}, "could log in again while the snapshot was taken", "try: ")
		})
	}
}

func TestARollbackWaitsForAnotherServicesOfTheSameRole(t *testing.T) {
	w := newHarness(t)
	f := &fault{n: 2, kind: "cut after the effect"}
	if err := w.action(f.seams()).Apply(t.Context(), op, w.untouched().Snapshot); err == nil || w.login() == nil {
		t.Fatalf("%v, calls %v", err, f.calls)
	}
	w.spec.Service = "billing"
	_, err := w.action(nil).Look(t.Context(), "inc-8/3-schema_rollback@1700000001")
	w.says(err, "operation "+op+" took the login from role "+w.app, "/social-intel-", "still runs")
}

// A login is the whole cluster's.
func TestAPreflightNamesTheOtherDatabasesThatLoseTheApplicationToo(t *testing.T) {
	w := newHarness(t)
	config, err := pgx.ParseConfig(w.address(w.app, "app"))
	if err != nil {
		t.Fatal(err)
	}
	config.Database = "postgres"
	other, err := pgx.ConnectConfig(t.Context(), config)
	if err != nil {
		t.Fatal(err)
	}
	defer other.Close(context.Background())
	w.wants(w.prove(), "schema/access", remediation.CannotTell, w.app+" cannot connect to database postgres either")
}
