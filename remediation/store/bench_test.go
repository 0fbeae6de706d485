package store

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"testing"
	"time"

	"github.com/locotoki/backout/remediation"
	"github.com/locotoki/backout/remediation/audit"
	"github.com/locotoki/backout/remediation/store/storetest"
)

// BenchmarkAccept is what a notification of three alerts costs, with 16 callers.
func BenchmarkAccept(b *testing.B) {
	b.Run("SQLite", func(b *testing.B) { benchmarkAccept(b, sqliteDSN(b)) })
	b.Run("PostgreSQL", func(b *testing.B) { benchmarkAccept(b, storetest.NewServer(b).DSN()) }) // fsync is on
}

func benchmarkAccept(b *testing.B, dsn string) {
	s, err := Open(b.Context(), dsn)
	if err != nil {
		b.Fatal(err)
	}
	defer s.Close()
	ctx, now := context.Background(), time.Now()
	err = s.Update(ctx, func(tx remediation.Tx) error {
		return tx.PutIncident(&remediation.Incident{Service: "shop", State: remediation.Confirming})
	})
	if err != nil {
		b.Fatal(err)
	}
	var n atomic.Int64
	b.SetParallelism(8)
	b.ResetTimer()
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			fn, reads := accept(n.Add(1), now)
			if err := s.UpdateAlerts(ctx, reads, fn); err != nil {
				b.Error(err)
				return
			}
		}
	})
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "updates/s")
}

// accept is what the engine writes for a notification of three fresh alerts.
func accept(i int64, now time.Time) (fn func(remediation.Tx) error, reads []string) {
	var fps []string
	var rows []any
	for k := range int64(3) {
		fp := fmt.Sprintf("%016x", uint64(i*3+k)*0x9e3779b97f4a7c15)
		fps = append(fps, fp)
		rows = append(rows, map[string]any{"fingerprint": fp, "status": "firing",
			"labels": []any{[]any{"alertname", "RollbackErrorRate"}, []any{"service", "shop"}, []any{"trigger", "error_rate"}}})
	}
	received := audit.Entry{Time: now, Kind: audit.KindReceived, Actor: "alertmanager", Service: "shop",
		Detail: map[string]any{"alerts": rows, "group_key": "{}/{}:{}"}}
	real := false
	fn = func(tx remediation.Tx) error {
		if _, err := tx.Append(received); err != nil {
			return err
		}
		if _, err := tx.Incidents(remediation.IncidentFilter{Service: "shop", Drill: &real, Newest: true, Limit: 1}); err != nil {
			return err
		}
		for _, fp := range fps {
			if _, err := tx.Alert(fp); !errors.Is(err, remediation.ErrNotFound) {
				return err
			}
			err := tx.PutAlert(remediation.AlertState{Fingerprint: fp, Incident: "inc-1", Service: "shop", Trigger: "error_rate", Active: true, LastSeen: now})
			if err != nil {
				return err
			}
		}
		return nil
	}
	return fn, fps
}
