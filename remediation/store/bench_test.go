package store

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/locotoki/backout/remediation"
	"github.com/locotoki/backout/remediation/audit"
	"github.com/locotoki/backout/remediation/store/storetest"
)

// BenchmarkAccept is what the store takes of notifications of three alerts in a second, with
// 16 callers: 20,000 of them, however often the benchmark is to be run.
func BenchmarkAccept(b *testing.B) {
	b.Run("SQLite", func(b *testing.B) { benchmarkAccept(b, sqliteDSN(b), "") })
	b.Run("PostgreSQL", func(b *testing.B) { benchmarkAccept(b, storetest.NewServer(b).DSN(), ", wanted 1000 or more") }) // fsync is on
}

func benchmarkAccept(b *testing.B, dsn, wanted string) {
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
	const callers, warm, measured = 16, 1_000, 20_000
	var n atomic.Int64
	run := func(count int64) time.Duration {
		var left atomic.Int64
		left.Store(count)
		var wg sync.WaitGroup
		begin := time.Now()
		for range callers {
			wg.Go(func() {
				for left.Add(-1) >= 0 {
					fn, reads := accept(n.Add(1), now)
					if err := s.UpdateAlerts(ctx, reads, fn); err != nil {
						b.Error(err)
						return
					}
				}
			})
		}
		wg.Wait()
		return time.Since(begin)
	}
	for b.Loop() {
		run(warm)
		rate := measured / run(measured).Seconds()
		b.ReportMetric(rate, "updates/s")
		fmt.Printf("\n%s: %.0f updates/s%s\n", b.Name(), rate, wanted)
	}
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
