package store

import (
	"testing"
	"time"

	"github.com/locotoki/backout/remediation"
	"github.com/locotoki/backout/remediation/store/storetest"
)

func TestDifferentQueriesHaveDifferentKeys(t *testing.T) {
	seen := map[string]int{}
	for i, values := range [][]any{
		nil, {nil}, {nil, nil}, {""}, {"", ""}, {`", "`}, {`"}`}, {"\x00"}, {"a", "b"}, {"a b"}, {"1"}, {[]byte("1")}, {[]string{"1"}}, {[]string{"1", ""}}, {[]string{"1"}, ""},
		{int64(1)}, {int64(0xD800)}, {int64(0xD801)}, {int64(0xFFFD)}, {int64(0x110000)}, {int64(1795953600_000000000)}, {int64(1795953600_000000001)}, {int64(-1)},
	} {
		k := key("SELECT ?", values)
		if other, ok := seen[k]; ok {
			t.Errorf("%#v has the key of query %d", values, other)
		}
		seen[k] = i
	}
}

func TestATransactionBeginsWithWhatTheOneBeforeItShared(t *testing.T) {
	dsn := storetest.Postgres(t)
	one, two := openShared(t, dsn), openShared(t, dsn)
	defer closeStore(t, one)
	defer closeStore(t, two)
	put := func(s *Store, release string) {
		t.Helper()
		err := s.Update(t.Context(), func(tx remediation.Tx) error {
			return tx.PutRollout(remediation.Rollout{Service: "shop", Release: release})
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	read := func(times int, want string) {
		t.Helper()
		err := one.Update(t.Context(), func(tx remediation.Tx) error {
			for range times {
				if r, err := tx.Rollout("shop"); err != nil || r.Release != want {
					t.Errorf("the release is %q, not %s (%v)", r.Release, want, err)
				}
			}
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	ahead := func(want int) {
		t.Helper()
		if n := len(one.w.(*pgConn).ahead); n != want { // the writer waits for the next call
			t.Errorf("the next transaction begins with %d queries, not %d", n, want)
		}
	}
	put(one, "v1")
	read(1, "v1")
	ahead(0)
	read(2, "v1")
	ahead(1)
	put(two, "v2") // another replica's
	read(1, "v2")
	ahead(1) // it was asked ahead, and wanted
	put(one, "v3")
	ahead(0)
	read(2, "v3")
}

func TestACommitWaitsForThoseThatSharedTheOneBefore(t *testing.T) {
	c := &call{}
	for _, shared := range []int{3, 5} {
		s := &Store{w: &pgConn{}, queue: make(chan *call), shared: shared, linger: time.Minute}
		b := batch{s: s, end: time.Now().Add(time.Minute)}
		stop := make(chan struct{})
		go func() {
			for {
				select {
				case s.queue <- c:
				case <-stop:
					return
				}
			}
		}()
		if got := len(b.gather(c)); got < shared {
			t.Errorf("%d shared the commit before: it is made for %d", shared, got)
		}
		close(stop)
	}
	s := &Store{w: &pgConn{}, queue: make(chan *call), shared: 3}
	if got := len((&batch{s: s}).gather(c)); got != 1 {
		t.Errorf("nobody comes: it is made for %d", got)
	}
}
