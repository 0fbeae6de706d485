// Command social-intel is the service that the demo and the end-to-end tests
// back out: a stand-in with the real one's addresses, flags and metric names.
// It sends itself a steady load, and fails as a file tells it to (package
// breakage). Its version is a setting of its image: v1.0.0 has no analytics.
package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"os/signal"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, os.Interrupt)
	defer stop()
	if err := run(ctx, os.Environ(), slog.New(slog.NewTextHandler(os.Stderr, nil))); err != nil {
		fmt.Fprintln(os.Stderr, "social-intel:", err)
		os.Exit(1)
	}
}

// settings come from the environment: the image sets the version, compose the rest.
type settings struct {
	listen   string
	version  string
	breakage string
	rate     int // requests a second that it sends itself
	flags    map[string]string

	database, passwordFile string
}

func readSettings(environ []string) (settings, error) {
	s := settings{listen: ":9000", version: "unknown", breakage: "/breakage/now.json", rate: 20, flags: map[string]string{}}
	for _, kv := range environ {
		name, value, _ := strings.Cut(kv, "=")
		switch {
		case name == "SOCIAL_INTEL_LISTEN":
			s.listen = value
		case name == "SOCIAL_INTEL_VERSION":
			s.version = value
		case name == "SOCIAL_INTEL_BREAKAGE":
			s.breakage = value
		case name == "SOCIAL_INTEL_RATE":
			n, err := strconv.Atoi(value)
			if err != nil || n < 0 || n > 1000 {
				return s, fmt.Errorf("SOCIAL_INTEL_RATE %q: not a number of requests a second from 0 to 1000", value)
			}
			s.rate = n
		case name == "SOCIAL_INTEL_DATABASE":
			s.database = value
		case name == "SOCIAL_INTEL_DATABASE_PASSWORD_FILE":
			s.passwordFile = value
		case strings.HasPrefix(name, "FEATURE_"):
			s.flags[name] = value
		}
	}
	return s, nil
}

func run(ctx context.Context, environ []string, log *slog.Logger) error {
	set, err := readSettings(environ)
	if err != nil {
		return err
	}
	db, err := newDatabase(set.database, set.passwordFile)
	if err != nil {
		return err
	}
	svc, err := newService(set, db, prometheus.NewRegistry())
	if err != nil {
		return err
	}
	listener, err := net.Listen("tcp", set.listen)
	if err != nil {
		return err
	}
	srv := &http.Server{Handler: svc.handler(), ReadHeaderTimeout: 5 * time.Second}
	failed := make(chan error, 1)
	go func() { failed <- srv.Serve(listener) }()
	log.Info("serving", "address", listener.Addr().String(), "version", set.version)

	go svc.watchBreakage(ctx, log)
	own := *listener.Addr().(*net.TCPAddr)
	if own.IP.IsUnspecified() { // in a container; a pod has its own address
		own.IP = net.IPv4(127, 0, 0, 1)
	}
	go svc.load(ctx, own.String())

	select {
	case err := <-failed:
		return err
	case <-ctx.Done():
	}
	// Slow requests of its own load are not waited for: the point of a stop is the next start.
	end, cancel := context.WithTimeout(context.Background(), 200*time.Millisecond)
	defer cancel()
	if err := srv.Shutdown(end); err != nil && !errors.Is(err, context.DeadlineExceeded) {
		return err
	}
	return nil
}
