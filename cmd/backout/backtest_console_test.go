package main

import (
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/locotoki/backout/alerts"
	"github.com/locotoki/backout/receiver/config"
	"github.com/locotoki/backout/remediation"
	"github.com/locotoki/backout/remediation/engine"
)

// The console's backtest leaves what is next to the database as it was, but for what a
// crash left of another one.
func TestTheConsolesBacktestTouchesOnlyItsOwnFolder(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	dsn := "sqlite:" + filepath.Join(dir, "backout.db")
	kept, left := filepath.Join(dir, "backtest", "keep"), filepath.Join(dir, "backout.db.backtest-1", "backtest.db")
	other := filepath.Join(dir, "other.db.backtest-1", "backtest.db")
	for _, file := range []string{kept, left, other} {
		if err := os.MkdirAll(filepath.Dir(file), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(file, []byte("x"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	st, err := openForServing(t.Context(), dsn, "")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { st.Close() })
	cfg := config.Default()
	behind, err := url.Parse(pastPrometheus(t))
	if err != nil {
		t.Fatal(err)
	}
	var asked atomic.Int64
	proxy := httputil.NewSingleHostReverseProxy(behind)
	counting := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		asked.Add(1)
		proxy.ServeHTTP(w, r)
	}))
	t.Cleanup(counting.Close)
	cfg.PrometheusURL = counting.URL
	kinds, err := actionKinds(cfg, nil, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { kinds.Close() })
	pb, err := alerts.Default(playbookKinds(kinds.list))
	if err != nil {
		t.Fatal(err)
	}
	now := func() time.Time { return time.Date(2026, 1, 2, 0, 0, 0, 0, time.UTC) }
	e, err := engine.New(t.Context(), engine.Options{
		Store: st, Playbooks: []*alerts.Playbook{pb}, Kinds: kinds.list, Mode: remediation.Observe, Now: now, Logger: slog.New(slog.DiscardHandler),
	})
	if err != nil {
		t.Fatal(err)
	}
	c, err := newConsoleBacktests(e, kinds.list, cfg, dsn, now)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(filepath.Dir(left)); !os.IsNotExist(err) {
		t.Errorf("what a crash left is still there: %v", err)
	}
	during := 0
	r, err := c.Backtest(t.Context(), pb.Service, 5*24*time.Hour, func(string) {
		found, _ := filepath.Glob(filepath.Join(dir, "backout.db.backtest-*"))
		during = max(during, len(found))
	})
	if err != nil || r.Missing != "" || len(r.Incidents) != 1 || !strings.Contains(r.Incidents[0].Words, "would have run") || during != 1 {
		t.Errorf("%+v, %d folders: %v", r, during, err)
	}
	if found, _ := filepath.Glob(filepath.Join(dir, "backout.db.backtest-*")); len(found) > 0 {
		t.Errorf("it left %s", found)
	}
	for _, file := range []string{kept, other} {
		if _, err := os.Stat(file); err != nil {
			t.Errorf("it is not the backtest's: %v", err)
		}
	}
	first := asked.Load()
	if _, err := c.Backtest(t.Context(), pb.Service, 5*24*time.Hour, func(string) {}); err != nil || asked.Load() > first+first/2 {
		t.Errorf("the next one asks %d queries after %d: %v", asked.Load()-first, first, err)
	}
	if _, err := c.Backtest(t.Context(), "gone", time.Hour, func(string) {}); err == nil {
		t.Error("a service without a playbook is replayed")
	}
}
