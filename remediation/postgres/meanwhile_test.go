package postgres

import (
	"context"
	"errors"
	"slices"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/locotoki/backout/hint"
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
			"rows":    {"INSERT INTO forecasts SELECT 1, date '2027-01-01' + n, n FROM generate_series(1, 100) n", "DELETE FROM forecasts WHERE day >= '2027-01-01'", "something wrote to public.forecasts after"},
			"a table": {"CREATE TABLE more AS SELECT 1 AS n; GRANT SELECT ON more TO PUBLIC", "DROP TABLE more", "something wrote to the schema itself after"},
			"a view":  {"CREATE MATERIALIZED VIEW more AS SELECT 1 AS n; GRANT SELECT ON more TO PUBLIC", "DROP MATERIALIZED VIEW more", "something wrote to the schema itself after"},
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
	w.exec("CREATE MATERIALIZED VIEW report AS SELECT id, body, now() AS at FROM posts; CREATE UNIQUE INDEX ON report (id); ALTER MATERIALIZED VIEW report OWNER TO " + w.owner)
	before := w.untouched().Snapshot
	s := afterDump(func() {
		w.exec("VACUUM ANALYZE")
		w.exec("REFRESH MATERIALIZED VIEW report")
		w.exec("REFRESH MATERIALIZED VIEW CONCURRENTLY report")
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
			w.refusesMeanwhile(func() { w.tolerates = &remediation.VersionError{Err: errors.New("web-1 runs social-intel:v2.0.0")} }, func() { w.tolerates = nil },
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

// A superuser cannot be cut off, another role can.
func TestARoleThatWritesIsNamedOnlyWhereItCanBeCutOff(t *testing.T) {
	w := newHarness(t)
	w.exec("CREATE ROLE " + w.name + "_report LOGIN PASSWORD 'report'")
	t.Cleanup(func() {
		if err := drop(w.name, w.name+"_report"); err != nil {
			t.Error(err)
		}
	})
	var other *pgx.Conn
	before := w.untouched().Snapshot
	err := w.action(afterDump(func() {
		w.exec("DELETE FROM forecasts WHERE day = '2026-01-02'")
		var err error
		if other, err = pgx.Connect(t.Context(), w.address(w.name+"_report", "report")); err != nil {
			t.Error(err)
		}
	})).Apply(t.Context(), op, before)
	if other != nil {
		defer other.Close(context.Background())
	}
	w.says(err, "other roles with sessions now: ")
	if _, try := hint.Of(err); try != "stop what writes there, or if it is one of these roles, add it to application_roles: "+w.name+"_report" {
		t.Errorf("the advice is %q", try)
	}
}

func TestOnlyTheTablesThatAreNamedAreComparedWithTheSnapshot(t *testing.T) {
	for name, harness := range ways {
		t.Run(name, func(t *testing.T) {
			w := harness(t)
			w.spec.Tables = []string{"public.forecasts"}
			const insert, remove = "INSERT INTO forecasts VALUES (1, '2027-01-01', 1)", "DELETE FROM forecasts WHERE day >= '2027-01-01'"
			w.exec("CREATE TABLE clicks (n int); ALTER TABLE clicks OWNER TO " + w.owner)
			w.refusesMeanwhile(func() { w.exec(insert) }, func() { w.exec(remove) }, "something wrote to public.forecasts after")
		})
		t.Run("another, "+name, func(t *testing.T) {
			w := harness(t)
			w.spec.Tables = []string{"public.forecasts"}
			w.exec("CREATE TABLE clicks (n int); ALTER TABLE clicks OWNER TO " + w.owner)
			before := w.untouched().Snapshot
			if err := w.action(afterDump(func() { w.exec("INSERT INTO clicks VALUES (1)") })).Apply(t.Context(), op, before); err != nil {
				t.Fatal(err)
			}
		})
	}
}

// What a command wrote to a table that is not named is still its work.
func TestACommandThatWroteToATableThatIsNotNamedIsNotUntouched(t *testing.T) {
	w := newHarness(t)
	w.byCommand()
	w.spec.Tables = []string{"public.forecasts"}
	w.exec("CREATE TABLE clicks (n int); ALTER TABLE clicks OWNER TO " + w.owner)
	s := (&fault{n: -1}).seams()
	s.do = func(ctx context.Context, what string, f func(context.Context) error) error {
		if what != "command" {
			return f(ctx)
		}
		w.exec("INSERT INTO clicks VALUES (1)")
		return errCut
	}
	if err := w.action(s).Apply(t.Context(), op, w.untouched().Snapshot); !errors.Is(err, errCut) {
		t.Fatal(err)
	}
	w.says(w.action(nil).Undo(t.Context(), op, nil), "interrupted or failed half-way")
}

// pg_dump has no such limit either.
func TestACountMayTakeLongerThanAStatement(t *testing.T) {
	for _, what := range []string{"manifest " + string(cutOff), "pg_dump"} {
		t.Run("after "+what, func(t *testing.T) {
			w := newHarness(t)
			w.spec.StatementTimeout, w.spec.LockTimeout = 2*time.Second, time.Minute
			holder := superuser(t, w.name)
			released := make(chan error, 1)
			s := (&fault{n: -1}).seams()
			s.do = func(ctx context.Context, now string, f func(context.Context) error) error {
				err := f(ctx)
				if now != what || err != nil {
					return err
				}
				if _, err := holder.Exec(ctx, "BEGIN"); err != nil {
					return err
				}
				if _, err := holder.Exec(ctx, "LOCK TABLE channels IN ACCESS EXCLUSIVE MODE"); err != nil {
					return err
				}
				go func() {
					const waits = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock' AND clock_timestamp() - query_start > interval '2500 ms'"
					var n int
					for n == 0 && ctx.Err() == nil {
						if err := holder.QueryRow(ctx, waits).Scan(&n); err != nil {
							released <- err
							return
						}
						select { // pg_stat_activity is a transaction's own copy
						case <-ctx.Done():
						case <-time.After(pause):
						}
						if _, err := holder.Exec(ctx, "SELECT pg_stat_clear_snapshot()"); err != nil {
							released <- err
							return
						}
					}
					_, err := holder.Exec(ctx, "ROLLBACK")
					released <- err
				}()
				return nil
			}
			ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
			defer cancel()
			if err := w.action(s).Apply(ctx, op, w.untouched().Snapshot); err != nil {
				cancel()
				t.Error(err)
			}
			if err := <-released; err != nil {
				t.Error(err)
			}
		})
	}
}

func TestTheLimitOfAStatementIsBackAfterACount(t *testing.T) {
	w := newHarness(t)
	w.spec.StatementTimeout = 5 * time.Second
	r := w.action(nil).(*rollback)
	err := r.with(t.Context(), op, r.tag(op), func(w *work) error {
		limit := func() (text string) {
			if err := w.conn.QueryRow(t.Context(), "SHOW statement_timeout").Scan(&text); err != nil {
				t.Error(err)
			}
			return text
		}
		for _, want := range []error{nil, errCut} {
			err := unhurried(t.Context(), w.conn, func() error {
				if got := limit(); got != "0" {
					t.Errorf("limit of a count: %s", got)
				}
				return want
			})
			if got := limit(); !errors.Is(err, want) || got != "5s" {
				t.Errorf("%v, limit %s", err, got)
			}
		}
		return nil
	})
	if err != nil {
		t.Error(err)
	}
}

func TestAVersionThatNobodyCouldSeeIsAskedForAgain(t *testing.T) {
	away := errors.New("GET /api/v1/pods: no answer")
	for name, harness := range ways {
		t.Run(name, func(t *testing.T) {
			w := harness(t)
			before := w.untouched().Snapshot
			asked := 0
			w.spec.Tolerated = func(context.Context) error {
				if asked++; asked < 4 {
					return away
				}
				return nil
			}
			if err := w.action(nil).Apply(t.Context(), op, before); err != nil || asked != 4 {
				t.Errorf("%v, asked %d times", err, asked)
			}
		})
		t.Run("in vain, "+name, func(t *testing.T) {
			w := harness(t)
			before := w.untouched().Snapshot
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			asked := 0
			w.spec.Tolerated = func(context.Context) error {
				if asked++; asked == 3 {
					cancel()
				}
				return away
			}
			err := w.action(nil).Apply(ctx, op, before)
			w.says(err, "whether the code that runs tolerates the older schema is unknown: "+away.Error())
			if !errors.Is(err, away) || !remediation.IsInDoubt(err) || w.lost() {
				t.Errorf("%v, lost %v", err, w.lost())
			}
			w.spec.Tolerated = func(context.Context) error { return nil }
			if err := w.action(nil).Apply(t.Context(), op, before); err != nil {
				t.Error(err)
			}
		})
	}
}
