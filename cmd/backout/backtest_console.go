package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/locotoki/backout/receiver/config"
	"github.com/locotoki/backout/remediation"
	"github.com/locotoki/backout/remediation/backtest"
	"github.com/locotoki/backout/remediation/engine"
	"github.com/locotoki/backout/remediation/observe"
	"github.com/locotoki/backout/remediation/store"
	"github.com/locotoki/backout/remediation/view"
)

// consoleLoad leaves Prometheus to the engine and the rules for half of the time.
const consoleLoad = 0.5

// consoleBacktests replay for the console the playbooks that are in force.
type consoleBacktests struct {
	engine *engine.Engine
	kinds  []remediation.ActionKind
	source *observe.Prometheus
	name   string
	dir    string // for the replay's store, which ends with it
	now    func() time.Time
}

func newConsoleBacktests(e *engine.Engine, kinds []remediation.ActionKind, cfg *config.Config, dsn string, now func() time.Time) (*consoleBacktests, error) {
	transport, err := cfg.PrometheusHTTP.Transport("prometheus", &http.Transport{Proxy: http.ProxyFromEnvironment, MaxIdleConnsPerHost: 1, IdleConnTimeout: time.Minute})
	if err != nil {
		return nil, wrong("", "prometheus.http_config: %w", err)
	}
	source, err := observe.NewPrometheus(cfg.PrometheusURL, backtestTimeout, transport, slog.New(slog.DiscardHandler))
	if err != nil {
		return nil, wrong("", "%w", err)
	}
	// A hardened service may write nowhere but next to its database.
	dir := os.TempDir()
	if path, ok := strings.CutPrefix(dsn, "sqlite:"); ok {
		dir = filepath.Dir(path)
	}
	return &consoleBacktests{engine: e, kinds: kinds, source: source, name: cfg.PrometheusURL, dir: filepath.Join(dir, "backtest"), now: now}, nil
}

// Backtest implements receiver.Backtester.
func (c *consoleBacktests) Backtest(ctx context.Context, service string, span time.Duration, progress func(string)) (r *view.Backtest, err error) {
	plan := c.engine.PlanOf(service)
	if plan == nil {
		return nil, fmt.Errorf("no playbook for service %q", service)
	}
	// One that was cut off by a crash left its store: one runs at a time.
	if err := os.RemoveAll(c.dir); err != nil {
		return nil, fmt.Errorf("clear the store of the last backtest: %w", err)
	}
	st, err := store.OpenScratch("sqlite:" + filepath.Join(c.dir, "backtest.db"))
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(closing(st, err), os.RemoveAll(c.dir)) }()
	now := c.now()
	return backtest.Run(ctx, backtest.Options{
		Playbook: plan.Playbook, Kinds: c.kinds, Source: c.source, SourceName: c.name, From: now.Add(-span), To: now, MaxLoad: consoleLoad, Store: st, Now: c.now,
		Progress: func(format string, args ...any) { progress(fmt.Sprintf(format, args...)) },
	})
}
