package backtest_test

import (
	"bufio"
	"net/http"
	"runtime/debug"
	"strconv"
	"strings"
	"syscall"
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
		own, theirs := cpuSeconds(b, ""), cpuSeconds(b, address)
		report, err := backtest.Run(b.Context(), backtest.Options{
			Playbook: pb, Kinds: kinds(), Source: prom, SourceName: address, From: began, To: to.Add(-s.every), Now: func() time.Time { return to },
		})
		if err != nil {
			b.Fatal(err)
		}
		b.ReportMetric(cpuSeconds(b, "")-own, "own-cpu-s")
		b.ReportMetric(cpuSeconds(b, address)-theirs, "prometheus-cpu-s")
		b.ReportMetric(float64(len(report.Alerts)), "alerts")
		b.ReportMetric(float64(len(report.Incidents)), "incidents")
	}
}

// cpuSeconds is what this process has used, or the Prometheus at an address: on a machine
// that others use too, they say more than the time.
func cpuSeconds(b *testing.B, address string) float64 {
	b.Helper()
	if address == "" {
		var u syscall.Rusage
		if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
			b.Fatal(err)
		}
		return time.Duration(u.Utime.Nano() + u.Stime.Nano()).Seconds()
	}
	resp, err := http.Get(address + "/metrics")
	if err != nil {
		b.Fatal(err)
	}
	defer resp.Body.Close()
	for lines := bufio.NewScanner(resp.Body); lines.Scan(); {
		if text, ok := strings.CutPrefix(lines.Text(), "process_cpu_seconds_total "); ok {
			v, err := strconv.ParseFloat(text, 64)
			if err != nil {
				b.Fatal(err)
			}
			return v
		}
	}
	b.Fatal("Prometheus does not say what it has used")
	return 0
}
