package main

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"os"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/locotoki/backout/remediation/store/storetest"
)

// BenchmarkDurableAcceptsOnPostgreSQL posts notifications of three fresh alerts over 16
// connections to serve, on a PostgreSQL that syncs each commit to the disk that TMPDIR
// names. Commits of one row by one connection are what that disk allows without sharing.
func BenchmarkDurableAcceptsOnPostgreSQL(b *testing.B) {
	const posters, warm, measured, commits = 16, 1_000, 20_000, 1_000
	server := storetest.NewServer(b)
	address, _, _ := serveOn(b, server.DSN())
	client := &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: posters}}
	var n atomic.Int64
	post := func() error {
		var alerts []string
		for i := range 3 {
			alerts = append(alerts, fmt.Sprintf(`{"status":"firing","labels":{"alertname":"A","service":"social-intel","trigger":"error_rate","n":"%d-%d"}}`, n.Add(1), i))
		}
		req, err := http.NewRequestWithContext(b.Context(), http.MethodPost, "http://"+address+"/api/v1/webhook/alertmanager",
			strings.NewReader(notificationOf(strings.Join(alerts, ","))))
		if err != nil {
			return err
		}
		req.Header.Set("Content-Type", "application/json")
		resp, err := client.Do(req)
		if err != nil {
			return err
		}
		defer resp.Body.Close() //nolint:errcheck // it was only read
		if text, err := io.ReadAll(resp.Body); err != nil || resp.StatusCode != http.StatusOK {
			return fmt.Errorf("answered %d %s (%w)", resp.StatusCode, text, err)
		}
		return nil
	}
	run := func(count int64) (took time.Duration, each []time.Duration) {
		var left atomic.Int64
		left.Store(count)
		var mu sync.Mutex
		var wg sync.WaitGroup
		begin := time.Now()
		for range posters {
			wg.Go(func() {
				var mine []time.Duration
				for left.Add(-1) >= 0 {
					sent := time.Now()
					if err := post(); err != nil {
						b.Error(err)
						return
					}
					mine = append(mine, time.Since(sent))
				}
				mu.Lock()
				defer mu.Unlock()
				each = append(each, mine...)
			})
		}
		wg.Wait()
		slices.Sort(each)
		return time.Since(begin), each
	}
	for b.Loop() {
		run(warm)
		single := commitRate(b, server.DSN(), commits)
		ours, theirs := storetest.CPU(b, os.Getpid()), server.CPU()
		took, each := run(measured)
		if b.Failed() {
			return
		}
		rate := measured / took.Seconds()
		ours, theirs = storetest.CPU(b, os.Getpid())-ours, server.CPU()-theirs
		b.ReportMetric(rate, "accepts/s")
		perAccept := func(d time.Duration) string { return fmt.Sprintf("%.2f ms", d.Seconds()*1000/measured) }
		printTable(b, "Durable accepts: PostgreSQL, fsync on, one replica, 16 connections, loopback, 3 alerts a notification", [][]string{
			{"", "measured", "wanted"},
			{"backout, notifications/s", fmt.Sprintf("%.0f", rate), "1000 or more"},
			{"commits/s of one row, one connection", fmt.Sprintf("%.0f", single), ""},
			{"ratio", fmt.Sprintf("%.1f", rate/single), ""},
			{"median", millis(each[len(each)/2]), ""},
			{"p99", millis(each[len(each)*99/100]), ""},
			{"CPU for each, backout and posters", perAccept(ours), ""},
			{"CPU for each, PostgreSQL", perAccept(theirs), ""},
		})
	}
}

// commitRate is how many commits of one row one connection makes in a second.
func commitRate(b *testing.B, dsn string, count int) float64 {
	b.Helper()
	must := func(err error) {
		if err != nil {
			b.Fatal(err)
		}
	}
	c, err := pgx.Connect(b.Context(), dsn)
	must(err)
	defer c.Close(context.Background()) //nolint:errcheck // it was only used here
	_, err = c.Exec(b.Context(), "CREATE TABLE public.commit_rate (n int)")
	must(err)
	begin := time.Now()
	for i := range count {
		_, err := c.Exec(b.Context(), "INSERT INTO public.commit_rate VALUES ($1)", i)
		must(err)
	}
	rate := float64(count) / time.Since(begin).Seconds()
	_, err = c.Exec(b.Context(), "DROP TABLE public.commit_rate")
	must(err)
	return rate
}
