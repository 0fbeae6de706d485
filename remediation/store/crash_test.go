package store

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/locotoki/backout/remediation"
	"github.com/locotoki/backout/remediation/audit"
)

// The tests in this file end a real process with SIGKILL: this test binary,
// started again with childEnv set.

const childEnv = "BACKOUT_STORE_CHILD"

func TestMain(m *testing.M) {
	if mode := os.Getenv(childEnv); mode != "" {
		if err := child(mode, os.Args[1:]); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

func child(mode string, args []string) error {
	switch mode {
	case "write": // DSN, and at which point to die
		return childWrites(args[0], args[1])
	case "migrate":
		return childMigrates(args[0])
	}
	return fmt.Errorf("unknown mode %q", mode)
}

func die() {
	if err := syscall.Kill(os.Getpid(), syscall.SIGKILL); err != nil {
		panic(err)
	}
	select {}
}

// start starts a child and returns a reader of its lines.
func start(t *testing.T, mode string, args ...string) (*exec.Cmd, *bufio.Scanner) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), os.Args[0], args...)
	cmd.Env = append(os.Environ(), childEnv+"="+mode)
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	return cmd, bufio.NewScanner(out)
}

// killed waits for a child and checks that SIGKILL ended it.
func killed(t *testing.T, cmd *exec.Cmd) {
	t.Helper()
	var exit *exec.ExitError
	err := cmd.Wait()
	if !errors.As(err, &exit) || exit.Sys().(syscall.WaitStatus).Signal() != syscall.SIGKILL {
		t.Fatalf("the child ended with %v, want SIGKILL", err)
	}
}

const writers = 4

// childWrites updates without end and prints the name of each Update that was
// answered. It dies by itself at the nth passing of a point, "point:n".
func childWrites(dsn, when string) error {
	s, err := openOn(dsn)
	if err != nil {
		return err
	}
	name, count, ok := strings.Cut(when, ":")
	if ok {
		n, err := strconv.Atoi(count)
		if err != nil {
			return err
		}
		passed := 0
		s.at = func(p point) { // before any Update: nothing else uses s yet
			if string(p) == name {
				if passed++; passed == n {
					die()
				}
			}
		}
	}
	ctx := context.Background()
	var seq int64
	err = s.View(ctx, func(tx remediation.Tx) (err error) { seq, _, err = tx.Head(); return err })
	if err != nil {
		return err
	}
	var mu sync.Mutex
	var wg sync.WaitGroup
	for w := range writers {
		wg.Add(1)
		go func() {
			defer wg.Done()
			for i := 0; ; i++ {
				name := fmt.Sprintf("%d-%d-%d", seq, w, i)
				if err := s.Update(ctx, whole(name)); err != nil {
					fmt.Fprintln(os.Stderr, err)
					return
				}
				mu.Lock()
				_, err := fmt.Println(name)
				mu.Unlock()
				if err != nil {
					return
				}
			}
		}()
	}
	wg.Wait()
	return nil
}

// whole is an Update that writes its name to several tables.
func whole(name string) func(remediation.Tx) error {
	return func(tx remediation.Tx) error {
		if _, err := tx.Append(audit.Entry{Time: time.Now(), Kind: audit.KindReceived, Actor: name}); err != nil {
			return err
		}
		if err := tx.PutAlert(remediation.AlertState{Fingerprint: name, Incident: "inc-1", Active: true}); err != nil {
			return err
		}
		if _, err := tx.Append(audit.Entry{Time: time.Now(), Kind: audit.KindOpened, Actor: name}); err != nil {
			return err
		}
		inc := &remediation.Incident{Service: name, State: remediation.Confirming}
		if err := tx.PutIncident(inc); err != nil {
			return err
		}
		return tx.PutEffect(remediation.Effect{Incident: name, Step: "1"})
	}
}

// intact checks that each Update of whole is there with all it wrote or not at
// all, that those answered are there, and that the chain holds. It returns how
// many there are.
func intact(t *testing.T, s *Store, answered []string) int {
	t.Helper()
	ctx := context.Background()
	if _, _, err := verify(t, s); err != nil {
		t.Fatal(err)
	}
	parts := map[string]int{}
	err := s.View(ctx, func(tx remediation.Tx) error {
		es, err := tx.Entries(audit.Filter{})
		if err != nil {
			return err
		}
		for _, e := range es {
			parts[e.Actor]++
		}
		as, err := tx.Alerts("inc-1")
		if err != nil {
			return err
		}
		for _, a := range as {
			parts[a.Fingerprint]++
		}
		incs, err := tx.Incidents(remediation.IncidentFilter{Open: true})
		if err != nil {
			return err
		}
		for i, inc := range incs {
			parts[inc.Service]++
			if want := fmt.Sprint("inc-", i+1); inc.ID != want {
				return fmt.Errorf("incident %s stands where %s belongs", inc.ID, want)
			}
		}
		effects, err := tx.Effects("", time.Time{})
		if err != nil {
			return err
		}
		for _, e := range effects {
			parts[e.Incident]++
		}
		n, _, err := tx.ActiveAlerts("inc-1")
		if err == nil && n != len(as) {
			err = fmt.Errorf("%d alerts are counted, %d are there", n, len(as))
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	for name, n := range parts {
		if n != 5 {
			t.Fatalf("Update %s left %d of its 5 rows", name, n)
		}
	}
	for _, name := range answered {
		if parts[name] == 0 {
			t.Fatalf("Update %s was answered and is lost", name)
		}
	}
	return len(parts)
}

// reopened opens a store after a crash, which is only possible where the lock
// ended with the process, and checks that it can be written.
func reopened(t *testing.T, dsn string, answered []string) int {
	t.Helper()
	s, err := openOn(dsn)
	if err != nil {
		t.Fatal(err)
	}
	defer closeStore(t, s)
	n := intact(t, s, answered)
	if err := s.Update(t.Context(), whole(fmt.Sprint("after ", n))); err != nil {
		t.Fatal(err)
	}
	return intact(t, s, answered)
}

func closeStore(t *testing.T, s *Store) {
	t.Helper()
	if err := s.Close(); err != nil {
		t.Error(err)
	}
}

// TestAProcessThatDiesAtAnyPointOfACommitLosesNothingAnswered uses one database
// throughout: each crash meets what those before it left.
func TestAProcessThatDiesAtAnyPointOfACommitLosesNothingAnswered(t *testing.T) {
	onBoth(t, diesAtAnyPoint)
}

func diesAtAnyPoint(t *testing.T, dsn string) {
	total := 0
	for _, p := range []point{pointBegun, pointRan, pointCommit, pointCommitted, pointAnswered} {
		for _, n := range []int{1, 2, 9} {
			cmd, lines := start(t, "write", dsn, fmt.Sprintf("%s:%d", p, n))
			var answered []string
			for lines.Scan() {
				answered = append(answered, lines.Text())
			}
			killed(t, cmd)
			count := reopened(t, dsn, answered)
			if count < total+len(answered) {
				t.Fatalf("%s:%d: %d Updates are left, there were %d and %d more were answered", p, n, count, total, len(answered))
			}
			total = count
		}
	}
	if total < 50 {
		t.Fatalf("only %d Updates were made", total)
	}
}

// TestAProcessKilledAtRandomLosesNothingAnswered kills in the middle of what
// the database does, too.
func TestAProcessKilledAtRandomLosesNothingAnswered(t *testing.T) {
	onBoth(t, killedAtRandom)
}

func killedAtRandom(t *testing.T, dsn string) {
	for round := range 8 {
		cmd, lines := start(t, "write", dsn, "")
		var answered []string
		for lines.Scan() {
			answered = append(answered, lines.Text())
			if len(answered) == 1+round*29 {
				if err := cmd.Process.Kill(); err != nil {
					t.Fatal(err)
				}
			}
		}
		killed(t, cmd)
		reopened(t, dsn, answered)
	}
}

// TestAWriteAheadLogCutOffAnywhereLeavesWholeUpdates stands for a machine that
// loses power: of what was not synced, any beginning may have reached the disk.
func TestAWriteAheadLogCutOffAnywhereLeavesWholeUpdates(t *testing.T) {
	path := filepath.Join(t.TempDir(), "backout.db")
	s, err := Open(t.Context(), "sqlite:"+path)
	if err != nil {
		t.Fatal(err)
	}
	defer closeStore(t, s)
	const updates = 25
	sizes := make([]int64, 0, updates) // of the log, after each answer
	for i := range updates {
		if err := s.Update(t.Context(), whole(fmt.Sprint(i))); err != nil {
			t.Fatal(err)
		}
		fi, err := os.Stat(path + "-wal")
		if err != nil {
			t.Fatal(err)
		}
		sizes = append(sizes, fi.Size())
	}
	last := sizes[updates-1]
	dir := t.TempDir()
	for cut := int64(0); cut <= last; cut += last/30 + 1 {
		to := filepath.Join(dir, fmt.Sprint(cut), "backout.db")
		if err := os.MkdirAll(filepath.Dir(to), 0o700); err != nil {
			t.Fatal(err)
		}
		copyFile(t, path, to, -1)
		copyFile(t, path+"-wal", to+"-wal", cut)
		var answered []string
		for i, size := range sizes {
			if size <= cut {
				answered = append(answered, fmt.Sprint(i))
			}
		}
		if len(answered) == 0 && cut < sizes[0] {
			continue // not even the schema need be there
		}
		reopened(t, "sqlite:"+to, answered)
	}
}

// copyFile copies the first n bytes (all where n < 0). The database's lock is a
// file of its own, and nothing here closes a descriptor of the database while
// SQLite holds a lock in it: no transaction runs.
func copyFile(t *testing.T, from, to string, n int64) {
	t.Helper()
	in, err := os.Open(from)
	if err != nil {
		t.Fatal(err)
	}
	defer in.Close() //nolint:errcheck // it was only read
	var r io.Reader = in
	if n >= 0 {
		r = io.LimitReader(in, n)
	}
	b, err := io.ReadAll(r)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(to, b, 0o600); err != nil {
		t.Fatal(err)
	}
}
