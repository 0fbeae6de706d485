package postgres

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/locotoki/backout/remediation"
	"github.com/locotoki/backout/remediation/action/actiontest"
)

// script makes the command one of the test's own.
func (w *harness) script(text string) {
	w.t.Helper()
	w.byCommand()
	w.write("rollback_to_v1.sh", "#!/bin/sh\nset -eu\n"+text+"\n")
	w.chmod("rollback_to_v1.sh", 0o755)
}

const rollBack = `psql -q -X -v ON_ERROR_STOP=1 -1 -f ` + undo2

func (w *harness) kept() string {
	w.t.Helper()
	s := parsed(w.t, w.look().Snapshot)
	if s.Run == nil {
		w.t.Fatal("no log is told of")
	}
	content, err := os.ReadFile(s.Run.Log)
	if err != nil {
		w.t.Fatal(err)
	}
	return string(content)
}

func (w *harness) look() remediation.Look {
	w.t.Helper()
	look, err := w.action(nil).Look(w.t.Context(), op)
	if err != nil {
		w.t.Fatal(err)
	}
	return look
}

func TestACommandRunsWithAnEnvironmentOfItsOwn(t *testing.T) {
	w := newHarness(t)
	w.environ = append(os.Environ(), "OPERATORS_TOKEN=of-the-operator", "PGPASSWORD=of-the-operator")
	w.script(`env; pwd; echo "args: $*"; echo to stderr >&2; psql -X -At -c 'SHOW lock_timeout' -c 'SHOW statement_timeout' -c 'SELECT current_user'; ` + rollBack)
	w.spec.Command = append(w.spec.Command, "a b", "$HOME;", "--flag")
	w.apply()
	said := w.kept()
	w.tellsNothing(said)
	dump := parsed(t, w.look().Snapshot).Dump
	for _, want := range []string{
		"args: a b $HOME; --flag\n", "\nto stderr\n", "\n5s\n5min\n" + w.owner + "\n", "\n" + w.dir + "\n", "HOME=" + w.dir + "\n",
		"BACKOUT_VERSION=v1.0.0\n", "BACKOUT_SERVICE=social-intel\n", "BACKOUT_OPERATION=" + op + "\n", "BACKOUT_SNAPSHOT=" + dump.Path + "\n",
		"PGUSER=" + w.owner, "PGDATABASE=" + w.name, "PGPASSFILE=",
	} {
		if !strings.Contains(said, want) {
			t.Errorf("the command says nothing of %q:\n%s", want, said)
		}
	}
	if strings.Contains(said, "of-the-operator") || strings.Contains(said, "BACKOUT_POSTGRES_DSN") || strings.Contains(said, "PGPASSWORD") {
		t.Errorf("the operator's environment is the command's:\n%s", said)
	}
	if got := w.files(); got != ".dump .json .log" {
		t.Errorf("left: %s", got)
	}
	s := parsed(t, w.look().Snapshot)
	if s.Run.Exit == nil || *s.Run.Exit != 0 {
		t.Errorf("exit status: %v", s.Run.Exit)
	}
	if got := counts(s.Before) + "-> " + counts(s.After); got != "public.channels=2 public.forecasts=5 public.posts=10 public.recommendations=1 -> public.channels=2 public.posts=10 " {
		t.Errorf("rows: %s", got)
	}
}

func TestThePlaybooksCommandKeepsFlywaysHistory(t *testing.T) {
	w := newHarness(t)
	w.byCommand()
	w.apply()
	if got := w.text("SELECT version || ' ' || type || ' ' || script FROM flyway_schema_history ORDER BY installed_rank DESC LIMIT 1"); got != "2.0.0 UNDO_SQL "+undo2 {
		t.Errorf("history: %s", got)
	}
	w.spec.Command, w.spec.Dir, w.spec.Wanted = nil, "", ""
	w.spec.Flyway = &remediation.Flyway{Dir: w.dir, Version: "1.0.0"}
	w.position("inc-8/1-x@1", remediation.Wanted)
}

func TestTheOutputOfACommandIsBoundedAndKept(t *testing.T) {
	w := newHarness(t)
	w.script(`echo first; i=0; while [ $i -lt 4000 ]; do echo "line $i of many that nobody reads"; i=$((i+1)); done; cat "$PGPASSFILE"; echo last; exit 7`)
	before := w.untouched().Snapshot
	err := w.action(nil).Apply(t.Context(), op, before)
	w.says(err, "exit status 7", "last", "all of it in "+w.snapshots)
	if isInDoubt(err) {
		t.Errorf("an exit status leaves no doubt: %v", err)
	}
	m, err := readManifest(w.action(nil).(*rollback).base(op) + ".json")
	if err != nil || m.Run == nil || m.Run.Exit == nil || *m.Run.Exit != 7 {
		t.Fatalf("%v, %+v", err, m)
	}
	said, err := os.ReadFile(m.Run.Log)
	if err != nil || len(said) > 2*outputHalf+200 || len(said) < outputHalf || !strings.HasPrefix(string(said), "first\n") ||
		!strings.HasSuffix(string(said), "last\n") || !strings.Contains(string(said), "bytes left out]") {
		t.Errorf("%v, %d bytes", err, len(said))
	}
	w.tellsNothing(string(said))
	if !strings.Contains(string(said), "[password]") {
		t.Error("the password was not there to be taken out")
	}
}

func TestACommandThatFailedBeforeItChangedAnythingIsTakenBack(t *testing.T) {
	w := newHarness(t)
	w.script("psql -q -X -v ON_ERROR_STOP=1 -1 -c 'DROP TABLE forecasts' -c 'DROP TABLE forecast'")
	state, before := w.state(), w.untouched().Snapshot
	w.says(w.action(nil).Apply(t.Context(), op, before), "exit status", `table "forecast" does not exist`)
	if err := w.action(nil).Undo(t.Context(), op, before); err != nil {
		t.Fatal(err)
	}
	if got := w.state(); got != state {
		t.Errorf("left\n%s\nof\n%s", got, state)
	}
	w.position(op, remediation.Untouched)
}

func TestACommandThatFailedHalfWayWaitsForAPerson(t *testing.T) {
	for name, c := range map[string]struct{ half, rest string }{
		"a table is gone":   {"DROP TABLE recommendations", "DROP TABLE forecasts"},
		"a row is gone":     {"DELETE FROM recommendations", "DROP TABLE forecasts"},
		"a row is another":  {"UPDATE posts SET sentiment = NULL WHERE id = 1", "DROP TABLE forecasts"},
		"a column is gone":  {"ALTER TABLE posts DROP COLUMN sentiment", "DROP TABLE forecasts"},
		"a function is new": {"CREATE FUNCTION f() RETURNS int LANGUAGE sql AS 'SELECT 1'", "DROP TABLE forecasts"},
	} {
		t.Run(name, func(t *testing.T) {
			w := newHarness(t)
			w.script(`psql -q -X -c "` + c.half + `"; exit 1`)
			before := w.untouched().Snapshot
			err := w.action(nil).Apply(t.Context(), op, before)
			w.says(err, "exit status 1")
			err = w.action(nil).Undo(t.Context(), op, before)
			w.says(err, "the application stays disconnected", "backout never restores data", w.snapshots)
			_, err = w.action(nil).Look(t.Context(), op)
			w.says(err, "the command ./rollback_to_v1.sh", "may be partly done", "its output is in "+w.snapshots, "the snapshot is "+w.snapshots)
			if w.login() == nil {
				t.Error("the application was let in")
			}
			w.exec(c.rest) // a person's hand
			w.position(op, remediation.HalfWay)
			if err := w.action(nil).Apply(t.Context(), op, before); err != nil {
				t.Fatal(err)
			}
			w.position(op, remediation.Wanted)
			if err := w.login(); err != nil {
				t.Error(err)
			}
		})
	}
}

func TestARestartableCommandIsRunAgain(t *testing.T) {
	w := newHarness(t)
	w.spec.Restartable = true
	w.script(`psql -q -X -c "DROP TABLE IF EXISTS recommendations"; [ -e again ] || { touch again; exit 1; }; psql -q -X -c "DROP TABLE IF EXISTS forecasts"`)
	before := w.untouched().Snapshot
	w.says(w.action(nil).Apply(t.Context(), op, before), "exit status 1")
	dump := parsed(t, w.position(op, remediation.HalfWay).Snapshot).Dump
	if err := w.action(nil).Apply(t.Context(), op, before); err != nil {
		t.Fatal(err)
	}
	if s := parsed(t, w.position(op, remediation.Wanted).Snapshot); *s.Dump != *dump {
		t.Errorf("the snapshot from before the first try is %+v, now %+v", dump, s.Dump)
	} else if err := s.Dump.intact(); err != nil {
		t.Error(err)
	}
}

func TestACommandThatDoesNotDoItsWorkIsFoundOut(t *testing.T) {
	w := newHarness(t)
	w.script("true")
	before := w.untouched().Snapshot
	w.says(w.action(nil).Apply(t.Context(), op, before), "exited without an error, but the query in wanted says that it has not done its work")
	if err := w.action(nil).Undo(t.Context(), op, before); err != nil {
		t.Fatal(err)
	}
	if err := w.login(); err != nil {
		t.Error(err)
	}
}

func TestACommandThatTakesTooLongEndsWithAllThatItStarted(t *testing.T) {
	w := newHarness(t)
	w.script(`trap '' TERM; setsid sh -c 'echo $$ >away; exec sleep 300' & sleep 300 & echo $! >child; psql -q -X -c "SELECT pg_sleep(300)" & wait`)
	state, before := w.state(), w.untouched().Snapshot
	ctx, cancel := context.WithTimeout(t.Context(), 8*time.Second)
	defer cancel()
	s := (&fault{n: -1}).seams()
	s.do = func(ctx context.Context, what string, do func(context.Context) error) error {
		if what != "command" {
			return do(ctx)
		}
		// Its time is over once all of it is there.
		ctx, stop := context.WithCancelCause(ctx)
		go func() {
			for w.text("SELECT count(*)::text FROM pg_stat_activity WHERE query = 'SELECT pg_sleep(300)' AND datname = '"+w.name+"'") != "1" || w.pid("away") == 0 || w.pid("child") == 0 {
				time.Sleep(20 * time.Millisecond)
			}
			stop(context.DeadlineExceeded)
		}()
		return do(ctx)
	}
	err := w.action(s).Apply(ctx, op, before)
	if !isInDoubt(err) {
		t.Fatalf("a command without an end leaves doubt: %v", err)
	}
	for _, name := range []string{"away", "child"} {
		if pid := w.pid(name); running(pid) {
			t.Errorf("%s (%d) still runs", name, pid)
		}
	}
	if n := w.text("SELECT count(*)::text FROM pg_stat_activity WHERE query = 'SELECT pg_sleep(300)' AND datname = '" + w.name + "'"); n != "0" {
		t.Error("its statement still runs")
	}
	w.position(op, remediation.HalfWay) // nothing was changed: it may be run again
	if err := w.action(nil).Undo(t.Context(), op, before); err != nil {
		t.Fatal(err)
	}
	if got := w.state(); got != state {
		t.Errorf("left\n%s\nof\n%s", got, state)
	}
}

func (w *harness) pid(file string) int {
	content, err := os.ReadFile(filepath.Join(w.dir, file))
	if err != nil {
		return 0
	}
	pid, err := strconv.Atoi(strings.TrimSpace(string(content)))
	if err != nil {
		return 0
	}
	return pid
}

// running reports whether a process is there; one that ended and was not waited for
// by its parent is not.
func running(pid int) bool {
	if errors.Is(syscall.Kill(pid, 0), syscall.ESRCH) {
		return false
	}
	stat, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/stat")
	return err == nil && !strings.Contains(string(stat), ") Z ")
}

func TestACommandThatSurvivesBackoutIsWaitedFor(t *testing.T) {
	w := newHarness(t)
	w.script(`cp "$PGPASSFILE" mine; export PGPASSFILE=mine; echo $$ >child; while [ ! -e go ]; do sleep 0.05; done; ` + rollBack + ` -c 'CREATE TABLE once ()'`)
	before := w.untouched().Snapshot
	// The process dies while the command runs, as far as the rest of it can tell.
	dead := make(chan error, 1)
	s := (&fault{n: -1}).seams()
	s.do = func(ctx context.Context, what string, do func(context.Context) error) error {
		if what != "command" {
			return do(ctx)
		}
		go func() { dead <- do(ctx) }()
		for w.pid("child") == 0 {
			time.Sleep(10 * time.Millisecond)
		}
		return errCut
	}
	if err := w.action(s).Apply(t.Context(), op, before); !errors.Is(err, errCut) {
		t.Fatal(err)
	}
	type answer struct {
		remediation.Look
		err error
	}
	looked := make(chan answer, 1)
	go func() {
		look, err := w.action(nil).Look(t.Context(), op)
		looked <- answer{look, err}
	}()
	select {
	case a := <-looked:
		t.Fatalf("the look did not wait: %s, %v", a.Position, a.err)
	case <-time.After(300 * time.Millisecond):
	}
	w.write("go", "")
	if a := <-looked; a.err != nil || a.Position != remediation.HalfWay {
		t.Fatalf("%s, %v", a.Position, a.err)
	}
	if err := <-dead; err != nil {
		t.Fatal(err)
	}
	if err := w.action(nil).Apply(t.Context(), op, before); err != nil {
		t.Fatal(err)
	}
	w.position(op, remediation.Wanted)
	if m, err := readManifest(w.action(nil).(*rollback).base(op) + ".json"); err != nil || m.Attempt != 1 {
		t.Errorf("%+v, %v", m, err)
	} else if got := counts(m.Before) + "-> " + counts(m.After); got != "public.channels=2 public.forecasts=5 public.posts=10 public.recommendations=1 -> public.channels=2 public.once=0 public.posts=10 " {
		t.Errorf("rows: %s", got)
	}
	if w.text("SELECT count(*)::text FROM pg_class WHERE relname = 'once'") != "1" {
		t.Error("the command did not run once")
	}
}

func TestWhatACrashLeftOfThePasswordIsRemoved(t *testing.T) {
	for name, resolve := range map[string]func(a remediation.Action, before []byte) error{
		"forward": func(a remediation.Action, before []byte) error { return a.Apply(t.Context(), op, before) },
		"back":    func(a remediation.Action, before []byte) error { return a.Undo(t.Context(), op, before) },
	} {
		t.Run(name, func(t *testing.T) {
			w := newHarness(t)
			before := w.untouched().Snapshot
			f := &fault{n: 3, kind: actiontest.After}
			if err := w.action(f.seams()).Apply(t.Context(), op, before); err == nil {
				t.Fatal("it was not cut off")
			}
			base := w.action(nil).(*rollback).base(op)
			for _, left := range []string{"-1.pgpass", "-1.dump.partial"} {
				if err := os.WriteFile(base+left, []byte(w.secret), 0o600); err != nil {
					t.Fatal(err)
				}
			}
			if err := resolve(w.action(nil), before); err != nil {
				t.Fatal(err)
			}
			if got := w.files(); strings.Contains(got, "pgpass") || strings.Contains(got, "partial") {
				t.Errorf("left: %s", got)
			}
		})
	}
}
