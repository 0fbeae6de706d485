package main

import (
	"context"
	"log/slog"
	"net"
	"time"

	"github.com/locotoki/backout/receiver"
	"github.com/locotoki/backout/receiver/statuspage"
	"github.com/locotoki/backout/remediation/engine"
)

// publicPage opens the listener of the public status page, and returns what serves
// it; without an address, nothing does. If another backout uses the default address, that
// is only a warning: the public page must never keep a remediation from starting.
func (f serveFlags) publicPage(ctx context.Context, engine *engine.Engine, now func() time.Time, logger *slog.Logger) (func(context.Context) error, error) {
	if *f.statusListen == "" {
		return nothing, nil
	}
	page, err := statuspage.New(engine, logger, now)
	if err != nil {
		return nil, err
	}
	var lc net.ListenConfig
	l, err := lc.Listen(ctx, "tcp", *f.statusListen)
	if err != nil && !*f.statusListenSet {
		logger.Warn("the public status page is not served: its default address is in use; set another with --web.status-listen-address",
			"address", *f.statusListen, "err", err)
		return nothing, nil
	}
	if err != nil {
		return nil, wrong("another address, or empty for none", "--web.status-listen-address: %w", err)
	}
	if shown, err := engine.PublicPage(ctx, 0); err != nil {
		logger.Warn("what the public status page shows cannot be read now; it is read again for each visitor", "err", err)
	} else if len(shown.Components) == 0 {
		logger.Info("the public status page is off: it answers 404 until a playbook that you give names components", "address", l.Addr().String())
	} else {
		logger.Info("the public status page is served", "address", l.Addr().String())
	}
	return func(ctx context.Context) error { return receiver.ServePublic(ctx, page, logger, l) }, nil
}

// nothing is served until ctx ends.
func nothing(ctx context.Context) error {
	<-ctx.Done()
	return nil
}
