package main

import (
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/locotoki/backout/alerts"
	"github.com/locotoki/backout/receiver/config"
	"github.com/locotoki/backout/remediation"
	"github.com/locotoki/backout/remediation/engine"
	"github.com/locotoki/backout/remediation/store/memory"
)

// The next one reads from memory what the first has asked.
func TestTheConsolesBacktestAsksOnce(t *testing.T) {
	t.Parallel()
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
		Store: memory.New(), Playbooks: []*alerts.Playbook{pb}, Kinds: kinds.list, Mode: remediation.Observe, Now: now, Logger: slog.New(slog.DiscardHandler),
	})
	if err != nil {
		t.Fatal(err)
	}
	c, err := newConsoleBacktests(e, kinds.list, cfg, now)
	if err != nil {
		t.Fatal(err)
	}
	r, err := c.Backtest(t.Context(), pb.Service, 5*24*time.Hour, func(string) {})
	if err != nil || r.Missing != "" || len(r.Incidents) != 1 || !strings.Contains(r.Incidents[0].Words, "would have run") {
		t.Errorf("%+v: %v", r, err)
	}
	first := asked.Load()
	if _, err := c.Backtest(t.Context(), pb.Service, 5*24*time.Hour, func(string) {}); err != nil || asked.Load() > first+first/2 {
		t.Errorf("the next one asks %d queries after %d: %v", asked.Load()-first, first, err)
	}
	if _, err := c.Backtest(t.Context(), "gone", time.Hour, func(string) {}); err == nil {
		t.Error("a service without a playbook is replayed")
	}
}
