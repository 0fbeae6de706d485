package main

import (
	"context"
	"log/slog"
	"net/http"
	"time"

	"github.com/locotoki/backout/receiver/config"
	"github.com/locotoki/backout/remediation"
	"github.com/locotoki/backout/remediation/comms/statuspage"
)

// statusPages are the pages that follow the built-in one. Building them opens no
// connection.
func statusPages(cfg *config.Config, transport http.RoundTripper, logger *slog.Logger) ([]remediation.Channel, error) {
	s := cfg.Statuspage
	if s == nil {
		return nil, nil
	}
	page, err := statuspage.New(statuspage.Options{
		URL: s.URL, Page: s.Page, Key: s.Key.Reveal(), Transport: transport, Now: time.Now, Wait: wait, Logger: logger,
	})
	if err != nil {
		return nil, wrong("", "%w", err)
	}
	return []remediation.Channel{page}, nil
}

// wait returns after d, or with the reason once ctx ends.
func wait(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}
