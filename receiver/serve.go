package receiver

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"time"

	"github.com/prometheus/exporter-toolkit/web"
	"go.yaml.in/yaml/v3"

	"github.com/locotoki/backout/hint"
	"github.com/locotoki/backout/receiver/config"
	"github.com/locotoki/backout/trust"
)

// The limits of a connection: a client that sends or reads too slowly, or says
// nothing more, is cut off.
const (
	readHeaderTimeout = 5 * time.Second
	readTimeout       = 30 * time.Second
	writeTimeout      = 60 * time.Second
	idleTimeout       = 2 * time.Minute
	publicIdleTimeout = 15 * time.Second
	maxHeaderBytes    = 32 << 10
	shutdownGrace     = 15 * time.Second
)

// CheckListen refuses to serve a non-loopback address without tokens.
func CheckListen(addresses []string, cfg *config.Config) error {
	if len(cfg.Tokens) > 0 {
		return nil
	}
	var errs []error
	for _, address := range addresses {
		host, _, err := net.SplitHostPort(address)
		if err != nil {
			errs = append(errs, hint.Add(fmt.Errorf("listen address %q: %w", address, err), "127.0.0.1:9099"))
		} else if !trust.Loopback(host) {
			errs = append(errs, hint.Add(fmt.Errorf("listen address %q is not loopback, and no tokens are configured", address),
				"add tokens: to --config.file, or listen on 127.0.0.1"))
		}
	}
	return errors.Join(errs...)
}

// InClear returns the non-loopback addresses where tokens would arrive without TLS.
func InClear(addresses []string, webConfigFile string, cfg *config.Config) []string {
	var clear []string
	for _, address := range addresses {
		if host, _, err := net.SplitHostPort(address); err == nil && !trust.Loopback(host) && webConfigFile == "" && len(cfg.Tokens) > 0 {
			clear = append(clear, address)
		}
	}
	return clear
}

// CheckWebConfig checks the file of --web.config.file ("": none): TLS, client
// certificates, HTTP/2 and headers are its matter. Its basic_auth_users would
// take the header that the tokens come in, and its rate_limit answers 429,
// after which Alertmanager gives a notification up: both are refused.
func CheckWebConfig(path string) error {
	if path == "" {
		return nil
	}
	if err := web.Validate(path); err != nil {
		return fmt.Errorf("web configuration %s: %w", path, err)
	}
	source, err := trust.ReadFile(path, config.MaxConfig)
	if err != nil {
		return fmt.Errorf("read web configuration: %w", err)
	}
	var keys map[string]yaml.Node
	if err := yaml.Unmarshal(source, &keys); err != nil {
		return fmt.Errorf("web configuration %s: %w", path, err)
	}
	var errs []error
	if n, ok := keys["basic_auth_users"]; ok {
		errs = append(errs, hint.Add(fmt.Errorf("%s:%d: basic_auth_users would hide the tokens", path, n.Line), "tokens: in --config.file, which also work with Basic"))
	}
	if n, ok := keys["rate_limit"]; ok {
		errs = append(errs, hint.Add(fmt.Errorf("%s:%d: rate_limit answers 429, and Alertmanager does not retry that", path, n.Line),
			"remove it, memory is bounded without it"))
	}
	return errors.Join(errs...)
}

// Serve serves the listeners until ctx ends or one of them fails, and closes
// them. Requests in flight are then finished and answered, for a bounded time;
// what they commit is not taken back. It returns nil after ctx ended and all
// was answered.
func (s *Server) Serve(ctx context.Context, listeners []net.Listener, webConfigFile string) error {
	if err := s.checkServe(listeners, webConfigFile); err != nil {
		for _, l := range listeners {
			err = errors.Join(err, l.Close())
		}
		return err
	}
	servers := make([]*http.Server, len(listeners))
	ended := make(chan error, len(listeners))
	for i, l := range listeners {
		// One server each: web.Serve sets its handler and TLS configuration.
		srv := &http.Server{
			Handler:           s,
			ReadHeaderTimeout: s.headerTimeout,
			ReadTimeout:       readTimeout,
			WriteTimeout:      writeTimeout,
			IdleTimeout:       idleTimeout,
			MaxHeaderBytes:    maxHeaderBytes,
			ErrorLog:          slog.NewLogLogger(s.logger.Handler(), slog.LevelWarn),
		}
		newBudget(maxConnections).bound(srv)
		servers[i] = srv
		go func() { ended <- web.Serve(l, srv, &web.FlagConfig{WebConfigFile: &webConfigFile}, s.logger) }()
	}

	var failed error
	running := len(listeners)
	select {
	case <-ctx.Done():
	case failed = <-ended:
		running--
	}
	s.end.Do(func() { close(s.ending) })
	s.backtests.end()
	grace, cancel := context.WithTimeout(context.WithoutCancel(ctx), s.grace)
	defer cancel()
	shut := make(chan error, len(servers))
	for _, srv := range servers {
		go func() { shut <- stop(grace, srv) }()
	}
	for range servers {
		failed = errors.Join(failed, <-shut)
	}
	s.backtests.wg.Wait()
	for range running {
		if err := <-ended; !errors.Is(err, http.ErrServerClosed) {
			failed = errors.Join(failed, err)
		}
	}
	if failed != nil {
		return fmt.Errorf("serve: %w", failed)
	}
	return nil
}

func (s *Server) checkServe(listeners []net.Listener, webConfigFile string) error {
	if err := CheckWebConfig(webConfigFile); err != nil {
		return err
	}
	var served []string
	for _, l := range listeners {
		if !strings.HasPrefix(l.Addr().Network(), "unix") {
			served = append(served, l.Addr().String())
		}
	}
	s.listening.Store(&served)
	// The configuration may have been replaced since New.
	return CheckListen(served, &config.Config{Tokens: s.access.Load().tokens})
}

// stop lets the requests in flight end, and cuts off those that take too long.
func stop(ctx context.Context, srv *http.Server) error {
	err := srv.Shutdown(ctx)
	if err == nil {
		return nil
	}
	return errors.Join(fmt.Errorf("requests still in flight at shutdown: %w", err), srv.Close())
}

// ServePublic serves the public status page on a listener of its own until ctx ends, and
// closes it. It has its own budget of connections: the public takes none of the console's.
func ServePublic(ctx context.Context, page http.Handler, logger *slog.Logger, l net.Listener) error {
	srv := &http.Server{
		Handler: page, ReadHeaderTimeout: readHeaderTimeout, ReadTimeout: readTimeout, WriteTimeout: readTimeout,
		IdleTimeout: publicIdleTimeout, MaxHeaderBytes: maxHeaderBytes, ErrorLog: slog.NewLogLogger(logger.Handler(), slog.LevelDebug),
	}
	newBudget(maxPublicConnections).bound(srv)
	ended := make(chan error, 1)
	go func() { ended <- srv.Serve(l) }()
	select {
	case err := <-ended:
		return fmt.Errorf("serve the status page: %w", err)
	case <-ctx.Done():
	}
	grace, cancel := context.WithTimeout(context.WithoutCancel(ctx), shutdownGrace)
	defer cancel()
	if err := stop(grace, srv); err != nil {
		return fmt.Errorf("serve the status page: %w", err)
	}
	if err := <-ended; !errors.Is(err, http.ErrServerClosed) {
		return fmt.Errorf("serve the status page: %w", err)
	}
	return nil
}
