package store

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/locotoki/backout/remediation"
	"github.com/locotoki/backout/remediation/audit"
)

func openTemp(t *testing.T) *Store {
	t.Helper()
	return openBatching(t, sqliteDSN(t))
}

// script runs SQL of a test's own within an Update, as if a table did it.
func script(query string) func(remediation.Tx) error {
	return func(x remediation.Tx) error {
		return x.(*tx).exec(query)
	}
}

// together runs Updates in one batch, in this order, and returns their answers.
func together(t *testing.T, s *Store, fns ...func(remediation.Tx) error) []error {
	t.Helper()
	answers := make([]chan error, len(fns))
	// The first holds the writer until all wait, and is not part of the commit.
	held := errors.New("held")
	err := s.Update(t.Context(), func(remediation.Tx) error {
		for i, fn := range fns {
			answers[i] = make(chan error, 1)
			go func() { answers[i] <- s.Update(context.Background(), fn) }()
			for deadline := time.Now().Add(10 * time.Second); len(s.queue) < i+1; time.Sleep(time.Millisecond) {
				if time.Now().After(deadline) {
					return errors.New("an Update does not get into the queue")
				}
			}
		}
		return held
	})
	if !errors.Is(err, held) {
		t.Fatal(err)
	}
	out := make([]error, len(fns))
	for i := range fns {
		out[i] = <-answers[i]
	}
	return out
}

// has checks which Updates of whole are in the store, in their order.
func has(t *testing.T, s *Store, want ...string) {
	t.Helper()
	intact(t, s, nil)
	var got []string
	err := s.View(t.Context(), func(tx remediation.Tx) error {
		es, err := tx.Entries(audit.Filter{Kind: audit.KindOpened})
		for _, e := range es {
			got = append(got, e.Actor)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	if !slices.Equal(got, want) {
		t.Fatalf("the store has %.200q, want %.200q", got, want)
	}
}

func TestAFullDiskIsAnErrorUntilThereIsRoomAgain(t *testing.T) {
	s := openTemp(t)
	pages := func(n int) {
		t.Helper()
		err := s.Update(t.Context(), func(x remediation.Tx) error {
			return x.(*tx).c.(*sqliteConn).script(fmt.Sprintf("PRAGMA max_page_count = %d", n))
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	if err := s.Update(t.Context(), whole("before")); err != nil {
		t.Fatal(err)
	}
	pages(1) // SQLite takes what there is already as the least
	var failed error
	want := []string{"before"}
	for i := 0; failed == nil; i++ {
		if i > 1000 {
			t.Fatal("the disk does not fill up")
		}
		name := fmt.Sprint("filling ", i)
		if failed = s.Update(t.Context(), whole(name)); failed == nil {
			want = append(want, name)
		}
	}
	if !strings.Contains(failed.Error(), "full") {
		t.Errorf("the error is %v", failed)
	}
	swallowed := s.Update(t.Context(), func(tx remediation.Tx) error {
		for i := range 1000 { // until it is full, and on
			_ = whole(fmt.Sprint("swallowed ", i))(tx) //nolint:errcheck // that is what is tested
		}
		return nil
	})
	if swallowed == nil {
		t.Error("an Update that swallowed a full disk was answered with success")
	}
	has(t, s, want...)
	pages(1 << 20)
	if err := s.Update(t.Context(), whole("after")); err != nil {
		t.Fatal(err)
	}
	has(t, s, append(want, "after")...)
}

func TestOneThatFailsInABatchLeavesTheOthers(t *testing.T) { onBoth(t, oneFails) }

func oneFails(t *testing.T, dsn string) {
	s := openBatching(t, dsn)
	mine := errors.New("mine")
	failing := func(tx remediation.Tx) error { return errors.Join(whole("failing")(tx), mine) }
	for _, order := range [][]func(remediation.Tx) error{
		{failing, whole("a1"), whole("a2")},
		{whole("b1"), failing, failing, whole("b2")},
		{whole("c1"), whole("c2"), failing},
		{failing, failing},
	} {
		for i, err := range together(t, s, order...) {
			if isFailing := errors.Is(err, mine); isFailing != (err != nil) {
				t.Errorf("answer %d: %v", i, err)
			}
		}
	}
	has(t, s, "a1", "a2", "b1", "b2", "c1", "c2")
}

func TestACommitThatFailsFailsItsWholeBatchAndNothingElse(t *testing.T) { onBoth(t, commitFails) }

func commitFails(t *testing.T, dsn string) {
	s := openBatching(t, dsn)
	err := s.Update(t.Context(), func(x remediation.Tx) error {
		return errors.Join(script("CREATE TABLE parent (a int PRIMARY KEY)")(x),
			script("CREATE TABLE child (a int REFERENCES parent DEFERRABLE INITIALLY DEFERRED)")(x))
	})
	if err != nil {
		t.Fatal(err)
	}
	// The orphan is found by COMMIT.
	hooked := func(name string) func(remediation.Tx) error {
		return func(x remediation.Tx) error {
			x.OnCommit(func() { t.Errorf("the hook of %s ran", name) })
			return whole(name)(x)
		}
	}
	answers := together(t, s, hooked("a"), script("INSERT INTO child VALUES (1)"), hooked("b"))
	for i, err := range answers {
		if err == nil || !strings.Contains(err.Error(), "commit") {
			t.Errorf("answer %d: %v", i, err)
		}
	}
	if err := s.Update(t.Context(), whole("c")); err != nil {
		t.Fatal(err)
	}
	has(t, s, "c")
}

func TestATransactionThatSQLiteRollsBackTakesNoOtherWithIt(t *testing.T) {
	s := openTemp(t)
	if err := s.Update(t.Context(), script("CREATE TABLE one (a UNIQUE ON CONFLICT ROLLBACK)")); err != nil {
		t.Fatal(err)
	}
	if err := s.Update(t.Context(), script("INSERT INTO one VALUES (1)")); err != nil {
		t.Fatal(err)
	}
	rolling := func(x remediation.Tx) error {
		if err := script("INSERT INTO one VALUES (1)")(x); err == nil {
			return errors.New("no conflict")
		}
		// Outside of any transaction now, this would commit by itself.
		if err := whole("stray")(x); err == nil {
			return errors.New("a statement ran after the rollback")
		}
		return nil
	}
	answers := together(t, s, whole("a"), rolling, whole("b"))
	if answers[0] == nil || answers[1] == nil || answers[2] != nil {
		t.Errorf("answers: %v", answers)
	}
	has(t, s, "b")
}

func TestAWriterThatLostItsConnectionConnectsAnew(t *testing.T) { onBoth(t, connectionLost) }

func connectionLost(t *testing.T, dsn string) {
	s := openBatching(t, dsn)
	if err := s.Update(t.Context(), whole("a")); err != nil {
		t.Fatal(err)
	}
	err := s.Update(t.Context(), func(x remediation.Tx) error {
		return errors.Join(whole("lost")(x), x.(*tx).c.close())
	})
	if err == nil {
		t.Error("an Update without a connection was answered with success")
	}
	if err := s.Update(t.Context(), whole("b")); err != nil {
		t.Fatal(err)
	}
	has(t, s, "a", "b")
}

func TestACancelledViewEndsItsQueryAndTheNextOneWorks(t *testing.T) { onBoth(t, viewCancelled) }

func viewCancelled(t *testing.T, dsn string) {
	s := openBatching(t, dsn)
	for range readers + 1 {
		ctx, cancel := context.WithCancel(t.Context())
		err := s.View(ctx, func(x remediation.Tx) error {
			stop := time.AfterFunc(20*time.Millisecond, cancel)
			defer stop.Stop()
			var n int64
			return x.(*tx).row("WITH RECURSIVE c(x) AS (SELECT 1 UNION ALL SELECT x+1 FROM c) SELECT count(*) FROM c", nil, &n)
		})
		if !errors.Is(err, context.Canceled) {
			t.Fatalf("got %v", err)
		}
		has(t, s)
	}
}

func TestWhatIsCommittedIsOnDiskAndInTheLog(t *testing.T) {
	s := openTemp(t)
	err := s.Update(t.Context(), func(x remediation.Tx) error {
		for pragma, want := range map[string]string{"synchronous": "2", "journal_mode": "wal", "foreign_keys": "1"} {
			err := x.(*tx).c.query(t.Context(), "PRAGMA "+pragma, nil, func(r row) error {
				if got := fmt.Sprint(r[0]); got != want {
					t.Errorf("%s is %s, want %s", pragma, got, want)
				}
				return nil
			})
			if err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

func TestACallWhoseContextEndedInTheQueueDoesNotRun(t *testing.T) {
	s := openTemp(t)
	over, cancel := context.WithCancel(t.Context())
	cancel()
	// As if its caller had not noticed yet: the writer is first.
	c := &call{ctx: over, turn: make(chan *tx, 1), ran: make(chan error, 1), answer: make(chan error, 1)}
	c.ran <- nil
	err := s.Update(t.Context(), func(remediation.Tx) error {
		b := &batch{s: s, end: time.Now().Add(time.Hour)}
		b.take(c)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if x := <-c.turn; x != nil {
		t.Error("it got a transaction")
	}
	select {
	case err = <-c.answer:
	default:
	}
	if !errors.Is(err, context.Canceled) {
		t.Errorf("it was answered %v", err)
	}
}

func TestACommitThatFailsAfterItTookEffectStopsNothing(t *testing.T) {
	s := openTemp(t)
	armed := false // by the writer itself, which is not done with an Update when that is answered
	s.at = func(p point) {
		if p == pointCommit && armed {
			armed = false
			if err := s.w.(*sqliteConn).control("COMMIT"); err != nil {
				t.Error(err)
			}
		}
	}
	if err := s.Update(t.Context(), whole("one")); err != nil {
		t.Fatal(err)
	}
	two := func(x remediation.Tx) error {
		armed = true
		return whole("two")(x)
	}
	if err := s.Update(t.Context(), two); err == nil {
		t.Fatal("the commit that failed late was answered as if nothing had happened")
	}
	for _, name := range []string{"three", "four"} {
		if err := s.Update(t.Context(), whole(name)); err != nil {
			t.Fatalf("an Update after it: %v", err)
		}
	}
	if _, _, err := verify(t, s); err != nil {
		t.Error(err)
	}
}
