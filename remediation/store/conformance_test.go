package store_test

import (
	"path/filepath"
	"testing"

	"github.com/locotoki/backout/remediation"
	"github.com/locotoki/backout/remediation/store"
	"github.com/locotoki/backout/remediation/store/storetest"
)

func TestSQLiteIsAStore(t *testing.T) {
	storetest.Run(t, func(t *testing.T, dir string) remediation.Store {
		t.Helper()
		s, err := store.Open("sqlite:" + filepath.Join(dir, "backout.db"))
		if err != nil {
			t.Fatal(err)
		}
		return s
	})
}
