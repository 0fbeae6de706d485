package store

import (
	"context"
	"fmt"
	"path/filepath"
	"sync/atomic"
	"testing"
	"time"

	"github.com/locotoki/backout/remediation"
)

// BenchmarkAccept is what a notification of three alerts costs, with 16 callers.
func BenchmarkAccept(b *testing.B) {
	s, err := Open("sqlite:" + filepath.Join(b.TempDir(), "b.db"))
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
	drill := false
	b.SetParallelism(8)
	b.ResetTimer()
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			i := n.Add(1)
			err := s.Update(ctx, func(tx remediation.Tx) error {
				rows := []any{}
				for k := range 3 {
					rows = append(rows, map[string]any{"fingerprint": fmt.Sprintf("%016x", i*3+int64(k)), "status": "firing",
						"labels": []any{[]any{"alertname", "RollbackErrorRate"}, []any{"service", "shop"}, []any{"trigger", "error_rate"}}})
				}
				_, err := tx.Append(remediation.Entry{Time: now, Kind: remediation.KindReceived, Actor: "alertmanager", Service: "shop",
					Detail: map[string]any{"alerts": rows, "group_key": "{}/{}:{}"}})
				if err != nil {
					return err
				}
				if _, err := tx.Incidents(remediation.IncidentFilter{Service: "shop", Drill: &drill, Newest: true, Limit: 1}); err != nil {
					return err
				}
				for k := range 3 {
					err := tx.PutAlert(remediation.AlertState{Fingerprint: fmt.Sprintf("%016x", i*3+int64(k)), Incident: "inc-1",
						Service: "shop", Trigger: "error_rate", Active: true, LastSeen: now})
					if err != nil {
						return err
					}
				}
				return nil
			})
			if err != nil {
				b.Error(err)
				return
			}
		}
	})
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "updates/s")
}
