package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
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
	// dir and prefix are where the replay's store is, in a folder of its own, which ends with it.
	dir, prefix string
	// cache lets a backtest that took too long go on where it was.
	cache *backtest.Cache
	now   func() time.Time
}

// newConsoleBacktests removes what a crash left of a backtest, so dsn must be locked by this process.
func newConsoleBacktests(e *engine.Engine, kinds []remediation.ActionKind, cfg *config.Config, dsn string, now func() time.Time) (*consoleBacktests, error) {
	transport, err := cfg.PrometheusHTTP.Transport("prometheus", pastTransport(cfg.PrometheusURL, 1))
	if err != nil {
		return nil, wrong("", "prometheus.http_config: %w", err)
	}
	source, err := observe.NewPrometheus(cfg.PrometheusURL, backtestTimeout, transport, slog.New(slog.DiscardHandler))
	if err != nil {
		return nil, wrong("", "%w", err)
	}
	c := &consoleBacktests{engine: e, kinds: kinds, source: source, name: cfg.PrometheusURL, dir: os.TempDir(), prefix: "backout.backtest-", cache: backtest.NewMemoryCache(), now: now}
	path, ok := strings.CutPrefix(dsn, "sqlite:")
	if !ok {
		return c, nil
	}
	// A hardened service may write nowhere but next to its database. There, the name is ours alone.
	c.dir, c.prefix = filepath.Dir(path), filepath.Base(path)+".backtest-"
	left, err := os.ReadDir(c.dir)
	if err != nil {
		return nil, fmt.Errorf("look for what a crash left of a backtest: %w", err)
	}
	for _, f := range left {
		if f.IsDir() && strings.HasPrefix(f.Name(), c.prefix) {
			if err := os.RemoveAll(filepath.Join(c.dir, f.Name())); err != nil {
				return nil, fmt.Errorf("remove what a crash left of a backtest: %w", err)
			}
		}
	}
	return c, nil
}

// Backtest implements receiver.Backtester.
func (c *consoleBacktests) Backtest(ctx context.Context, service string, span time.Duration, progress func(string)) (r *view.Backtest, err error) {
	plan := c.engine.PlanOf(service)
	if plan == nil {
		return nil, fmt.Errorf("no playbook for service %q", service)
	}
	dir, err := os.MkdirTemp(c.dir, c.prefix+"*")
	if err != nil {
		return nil, fmt.Errorf("create a folder for the replay: %w", err)
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	st, err := store.OpenScratch("sqlite:" + filepath.Join(dir, "backtest.db"))
	if err != nil {
		return nil, err
	}
	defer func() { err = closing(st, err) }()
	now := c.now()
	return backtest.Run(ctx, backtest.Options{
		Playbook: plan.Playbook, Kinds: c.kinds, Source: c.source, SourceName: c.name, From: now.Add(-span), To: now, MaxLoad: consoleLoad, Store: st, Now: c.now,
		Cache: c.cache, Progress: func(p backtest.Progress) { progress(p.String()) },
	})
}
