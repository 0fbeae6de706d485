package backtest_test

import (
	"runtime/debug"
	"testing"
	"time"

	"github.com/locotoki/backout/remediation/backtest"
)

// BenchmarkThirtyDays replays the built-in playbook, at its 15 s, over thirty days of a
// real Prometheus. Making them up takes longer and is not counted:
//
//	go test ./remediation/backtest -run '^$' -bench ThirtyDays -benchtime 1x -timeout 60m
func BenchmarkThirtyDays(b *testing.B) {
	pb := builtIn(b)
	const day = 24 * time.Hour
	to := began.Add(30 * day)
	s := newSynthetic(7, time.Duration(pb.ScrapeInterval), began, to)
	data := b.TempDir()
	for at := began; at.Before(to); at = at.Add(day) {
		s.fill(at, at.Add(day))
		s.blocks(b, data, at)
	}
	prom, address := serve(b, data)
	defer debug.SetGCPercent(debug.SetGCPercent(400)) // as the command does
	for b.Loop() {
		report, err := backtest.Run(b.Context(), backtest.Options{
			Playbook: pb, Kinds: kinds(), Source: prom, SourceName: address, From: began, To: to.Add(-s.every), Store: openStore(b), Now: func() time.Time { return to },
		})
		if err != nil {
			b.Fatal(err)
		}
		b.ReportMetric(float64(len(report.Alerts)), "alerts")
		b.ReportMetric(float64(len(report.Incidents)), "incidents")
	}
}
