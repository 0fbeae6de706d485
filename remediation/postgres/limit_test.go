package postgres

import (
	"context"
	"encoding/json"
	"errors"
	"testing"
	"time"

	"github.com/locotoki/backout/remediation"
)

func TestABlockedTableEndsByTheLockTimeout(t *testing.T) {
	w := newHarness(t)
	w.spec.LockTimeout = 300 * time.Millisecond
	state, before := w.state(), w.untouched().Snapshot
	blocker := superuser(t, w.name)
	block := func(table string) {
		if _, err := blocker.PgConn().Exec(t.Context(), "BEGIN; LOCK TABLE "+table+" IN SHARE UPDATE EXCLUSIVE MODE").ReadAll(); err != nil {
			t.Fatal(err)
		}
	}
	for _, table := range []string{"posts", "flyway_schema_history"} {
		block(table)
		err := w.action(nil).Apply(t.Context(), op, before)
		w.says(err, "lock timeout")
		if isInDoubt(err) || errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("a lock that was not to be had leaves no doubt: %v", err)
		}
		if err := w.action(nil).Undo(t.Context(), op, before); err != nil {
			t.Fatal(err)
		}
		if got := w.state(); got != state {
			t.Errorf("left\n%s\nof\n%s", got, state)
		}
		if _, err := blocker.PgConn().Exec(t.Context(), "ROLLBACK").ReadAll(); err != nil {
			t.Fatal(err)
		}
	}
	s := (&fault{n: -1}).seams()
	s.do = func(ctx context.Context, what string, do func(context.Context) error) error {
		if what == "pg_dump" {
			if _, err := blocker.PgConn().Exec(ctx, "BEGIN; LOCK TABLE posts").ReadAll(); err != nil {
				return err
			}
		}
		return do(ctx)
	}
	err := w.action(s).Apply(t.Context(), op, before) // not even pg_dump gets at it
	w.says(err, "no snapshot, no rollback", "pg_dump", "LOCK TABLE public.posts")
}

func TestASlowStatementEndsByTheStatementTimeout(t *testing.T) {
	w := newHarness(t)
	w.spec.StatementTimeout = 300 * time.Millisecond
	w.write(undo2, "SELECT pg_sleep(60);")
	before := w.untouched().Snapshot
	w.says(w.action(nil).Apply(t.Context(), op, before), undo2, "statement timeout")
	if err := w.action(nil).Undo(t.Context(), op, before); err != nil {
		t.Fatal(err)
	}
}

func TestWithoutASnapshotThereIsNoRollback(t *testing.T) {
	for name, script := range map[string]string{
		"pg_dump fails":             "case $1 in --version) echo 'pg_dump (PostgreSQL) 99.1';; *) echo 'no such luck' >&2; exit 1;; esac",
		"pg_dump writes nothing":    "case $1 in --version) echo 'pg_dump (PostgreSQL) 99.1';; esac",
		"pg_dump writes half of it": "case $1 in --version) echo 'pg_dump (PostgreSQL) 99.1';; *) for a; do case $a in --file=*) echo PGDMP >${a#--file=};; esac; done;; esac",
	} {
		t.Run(name, func(t *testing.T) {
			w := newHarness(t)
			w.program("pg_dump", script)
			state, before := w.state(), w.untouched().Snapshot
			err := w.action(nil).Apply(t.Context(), op, before)
			w.says(err, "no snapshot, no rollback")
			if w.lost() {
				t.Fatal("the schema went back without a snapshot")
			}
			if err := w.action(nil).Undo(t.Context(), op, before); err != nil {
				t.Fatal(err)
			}
			if got := w.state(); got != state {
				t.Errorf("left\n%s\nof\n%s", got, state)
			}
			if got := w.files(); got != ".json" {
				t.Errorf("left: %s", got)
			}
		})
	}
}

func TestASnapshotThatIsWholeIsNotTakenTwice(t *testing.T) {
	w := newHarness(t)
	cut := func(op string, before json.RawMessage) {
		t.Helper()
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
	}
	before := w.untouched().Snapshot
	cut(op, before)
	taken := 0
	counting := (&fault{n: -1}).seams()
	counting.do = func(ctx context.Context, what string, f func(context.Context) error) error {
		if what == "pg_dump" {
			taken++
		}
		return f(ctx)
	}
	if err := w.action(counting).Apply(t.Context(), op, before); err != nil || taken != 0 {
		t.Errorf("%v, %d snapshots more though the first one was whole", err, taken)
	}

	w.reset()
	op := "inc-8/1-x@1"
	before = w.position(op, remediation.Untouched).Snapshot
	cut(op, before)
	w.exec("ALTER ROLE " + w.app + " LOGIN") // someone lets the application in: it may write
	if err := w.action(counting).Apply(t.Context(), op, before); err != nil || taken != 1 {
		t.Errorf("%v, %d snapshots more", err, taken)
	}
}

func TestTwoRollbacksDoNotRunAtOnce(t *testing.T) {
	w := newHarness(t)
	before := w.untouched().Snapshot
	other := superuser(t, w.name)
	if _, err := other.Exec(t.Context(), "SELECT pg_advisory_lock($1)", int64(lockKey)); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 500*time.Millisecond)
	defer cancel()
	w.says(w.action(nil).Apply(ctx, op, before), "another rollback is working on this database")
	if w.lost() || w.login() != nil {
		t.Error("it went on all the same")
	}
}
