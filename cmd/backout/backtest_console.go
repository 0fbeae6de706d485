package main

import (
	"context"
	"fmt"
	"log/slog"
	"time"

	"github.com/locotoki/backout/receiver/config"
	"github.com/locotoki/backout/remediation"
	"github.com/locotoki/backout/remediation/backtest"
	"github.com/locotoki/backout/remediation/engine"
	"github.com/locotoki/backout/remediation/observe"
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
	// cache lets a backtest that took too long go on where it was.
	cache *backtest.Cache
	now   func() time.Time
}

func newConsoleBacktests(e *engine.Engine, kinds []remediation.ActionKind, cfg *config.Config, now func() time.Time) (*consoleBacktests, error) {
	transport, err := cfg.PrometheusHTTP.Transport("prometheus", pastTransport(cfg.PrometheusURL, 1))
	if err != nil {
		return nil, wrong("", "prometheus.http_config: %w", err)
	}
	source, err := observe.NewPrometheus(cfg.PrometheusURL, backtestTimeout, transport, slog.New(slog.DiscardHandler))
	if err != nil {
		return nil, wrong("", "%w", err)
	}
	return &consoleBacktests{engine: e, kinds: kinds, source: source, name: cfg.PrometheusURL, cache: backtest.NewMemoryCache(), now: now}, nil
}

// Backtest implements receiver.Backtester.
func (c *consoleBacktests) Backtest(ctx context.Context, service string, span time.Duration, progress func(string)) (*view.Backtest, error) {
	plan := c.engine.PlanOf(service)
	if plan == nil {
		return nil, fmt.Errorf("no playbook for service %q", service)
	}
	now := c.now()
	return backtest.Run(ctx, backtest.Options{
		Playbook: plan.Playbook, Kinds: c.kinds, Source: c.source, SourceName: c.name, From: now.Add(-span), To: now, MaxLoad: consoleLoad, Now: c.now,
		Cache: c.cache, Progress: func(p backtest.Progress) { progress(p.String()) },
	})
}
