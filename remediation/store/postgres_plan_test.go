package store

import (
	"context"
	"testing"
	"time"

	"github.com/locotoki/backout/remediation"
	"github.com/locotoki/backout/remediation/store/storetest"
)

// PostgreSQL keeps the plan of a statement that comes often: made while the table was
// small, it would read all of it ever after.
func TestAStormOfAlertsReadsNoWholeTable(t *testing.T) {
	dsn, admin := storetest.Postgres(t), storetest.Superuser(t)
	scans := func() (whole, byIndex int) {
		t.Helper()
		const stat = "SELECT coalesce(sum(seq_scan), 0), coalesce(sum(idx_scan), 0) FROM pg_stat_user_tables WHERE relname = 'alerts' AND schemaname = $1"
		db, err := newPostgres(dsn)
		if err != nil {
			t.Fatal(err)
		}
		if err := admin.QueryRow(t.Context(), stat, db.schema).Scan(&whole, &byIndex); err != nil {
			t.Fatal(err)
		}
		return whole, byIndex
	}
	storm := func() {
		s, err := Open(t.Context(), dsn)
		if err != nil {
			t.Fatal(err)
		}
		for range 20 {
			fps := []string{"a", "b", "c"}
			err := s.UpdateAlerts(t.Context(), fps, func(tx remediation.Tx) error {
				for _, fp := range fps {
					if err := tx.PutAlert(remediation.AlertState{Fingerprint: fp, Service: "shop", Trigger: "t", LastSeen: time.Now()}); err != nil {
						return err
					}
				}
				return nil
			})
			if err != nil {
				t.Fatal(err)
			}
		}
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
	}
	// What a session counted is there some time after it ended.
	counted := func(more int) (whole int) {
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		for ctx.Err() == nil {
			if whole, byIndex := scans(); byIndex >= more {
				return whole
			}
			time.Sleep(50 * time.Millisecond)
		}
		t.Fatal("PostgreSQL has not counted the scans")
		return 0
	}
	storm()
	before := counted(20)
	storm()
	if after := counted(40); after != before {
		t.Errorf("%d reads of all alerts", after-before)
	}
}
