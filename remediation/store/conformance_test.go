package store_test

import (
	"errors"
	"path/filepath"
	"testing"

	"github.com/locotoki/backout/remediation"
	"github.com/locotoki/backout/remediation/audit"
	"github.com/locotoki/backout/remediation/store"
	"github.com/locotoki/backout/remediation/store/storetest"
)

func TestSQLiteIsAStore(t *testing.T) {
	storetest.Run(t, func(t *testing.T, dir string) remediation.Store {
		t.Helper()
		s, err := store.Open(t.Context(), "sqlite:"+filepath.Join(dir, "backout.db"))
		if err != nil {
			t.Fatal(err)
		}
		return s
	})
}

func TestPostgreSQLIsAStore(t *testing.T) {
	dsns := map[string]string{}
	storetest.Run(t, func(t *testing.T, dir string) remediation.Store {
		t.Helper()
		if dsns[dir] == "" {
			dsns[dir] = storetest.Postgres(t)
		}
		s, err := store.Open(t.Context(), dsns[dir])
		if err != nil {
			t.Fatal(err)
		}
		return s
	})
}

func TestACrashingStoreCrashesOnceAndStaysDown(t *testing.T) {
	for when, want := range map[storetest.When]int64{storetest.BeforeCommit: 2, storetest.AfterCommit: 3} {
		s, err := store.Open(t.Context(), "sqlite:"+filepath.Join(t.TempDir(), "backout.db"))
		if err != nil {
			t.Fatal(err)
		}
		write := func(tx remediation.Tx) error {
			_, err := tx.Append(audit.Entry{Kind: audit.KindStarted})
			return err
		}
		c := storetest.Crashing(s, 3, when)
		for i := 1; i <= 5; i++ {
			if err := c.Update(t.Context(), write); (i < 3) != (err == nil) || err != nil && !errors.Is(err, storetest.ErrCrash) {
				t.Errorf("%v: Update %d: %v", when, i, err)
			}
		}
		head := int64(-1)
		read := func(tx remediation.Tx) (err error) {
			head, _, err = tx.Head()
			return err
		}
		if err := c.View(t.Context(), read); !errors.Is(err, storetest.ErrCrash) {
			t.Errorf("%v: View: %v", when, err)
		}
		if err := c.Close(); err != nil {
			t.Error(err)
		}
		if err := s.View(t.Context(), read); err != nil || head != want {
			t.Errorf("%v: the store behind has %d entries, want %d (%v)", when, head, want, err)
		}
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	}
}
