package main

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	versioncollector "github.com/prometheus/client_golang/prometheus/collectors/version"
	"github.com/prometheus/common/promslog"
	promslogflag "github.com/prometheus/common/promslog/flag"
	"github.com/prometheus/common/version"

	"github.com/locotoki/backout/cmd/backout/flags"
	"github.com/locotoki/backout/receiver"
	"github.com/locotoki/backout/receiver/config"
	"github.com/locotoki/backout/remediation"
	"github.com/locotoki/backout/remediation/engine"
)

// defaultDSN is the default store.
const defaultDSN = "sqlite:./data/backout.db"

// serveFlags are the flags of serve.
type serveFlags struct {
	settingsFlags
	dsn          *string
	mode         *string
	listen       *[]string
	statusListen *string
	// statusListenSet: the address is not the default.
	statusListenSet *bool
	webConfigFile   *string
	log             promslog.Config
}

func (c *commands) addServe() {
	clause := c.app.Command("serve", "Receive notifications and run the playbooks' rollbacks. Without any flag: the built-in playbook, "+
		"a database in ./data, loopback only, and no changes (--mode=observe).")
	var statusListenSet bool
	f := serveFlags{
		settingsFlags: c.settingsFlags(clause),
		dsn:           clause.Flag("storage.dsn", "The database, sqlite:PATH or postgres://USER@HOST/DATABASE; storage.dsn_file in the configuration overrides it.").Default(defaultDSN).String(),
		mode: flags.Choice(clause, "mode", "observe: decide and record, but hold every step; act: run the steps.",
			string(remediation.Observe), string(remediation.Observe), string(remediation.Act)),
		listen: clause.Flag("web.listen-address", "Address to listen on; repeatable. Beyond loopback only with tokens.").
			Default("127.0.0.1:9099").Strings(),
		statusListen: clause.Flag("web.status-listen-address", "Address of the public status page, which needs no token; empty for none.").
			Default("127.0.0.1:9098").IsSetByUser(&statusListenSet).String(),
		statusListenSet: &statusListenSet,
		webConfigFile:   clause.Flag("web.config.file", "File that turns on TLS, in the format of Prometheus's exporter-toolkit.").Default("").String(),
		log:             promslog.Config{Level: promslog.NewLevel(), Format: promslog.NewFormat(), Writer: c.stderr},
	}
	clause.Flag(promslogflag.LevelFlagName, promslogflag.LevelFlagHelp).Default("info").HintOptions(promslog.LevelFlagOptions...).SetValue(f.log.Level)
	clause.Flag(promslogflag.FormatFlagName, promslogflag.FormatFlagHelp).Default("logfmt").HintOptions(promslog.FormatFlagOptions...).SetValue(f.log.Format)
	c.add(clause, func(ctx context.Context) error { return c.serve(ctx, f) })
}

// serve runs until ctx ends. It opens the store before the listeners, so that a
// second serve on the same file gets an error about the file.
func (c *commands) serve(ctx context.Context, f serveFlags) (err error) {
	hangup := make(chan os.Signal, 1)
	signal.Notify(hangup, syscall.SIGHUP)
	defer signal.Stop(hangup)

	logger := slog.New(utcHandler{promslog.New(&f.log).Handler()})
	f.example = func(service string) {
		logger.Warn("no --playbook.file: this is the built-in example", "service", service)
	}
	config, err := f.loadConfig()
	if err != nil {
		return wrong("", "%w", err)
	}
	clock := time.Now // the store's, where replicas share one
	now := func() time.Time { return clock() }
	out, err := c.openClients(config, now, logger)
	if err != nil {
		return err
	}
	defer func() { err = closing(out, err) }()
	set, err := f.load(playbookKinds(out.kinds.list))
	if err != nil {
		return err
	}
	out.channelDirectory.take(set)
	for _, w := range limitWarnings(*f.configFile, set.config, set.playbooks) {
		logger.Warn("a limit in the configuration holds nothing", "why", w.Message, "try", w.Try)
	}
	if err := f.checkAddresses(set.config); err != nil {
		return err
	}
	store, err := openForServing(ctx, *f.dsn, set.config.DSN)
	if err != nil {
		return err
	}
	defer func() { err = closing(store, err) }()
	if risk := store.Risk(); risk != "" {
		logger.Warn("what is committed may be lost when the database's machine fails", "why", risk)
	}
	listeners, err := listenOn(ctx, *f.listen)
	if err != nil {
		return err
	}
	defer func() {
		for _, l := range listeners {
			if cerr := l.Close(); cerr != nil && !errors.Is(cerr, net.ErrClosed) && err == nil {
				err = fmt.Errorf("close listener: %w", cerr)
			}
		}
	}()

	replica, err := replicaOf(store, set.config)
	if err != nil {
		return err
	}
	if shared, ok := store.(remediation.SharedStore); ok {
		clock = shared.Now
	}
	engine, err := engine.New(ctx, engine.Options{
		Store: store, Replica: replica, Playbooks: set.playbooks, Kinds: out.kinds.list,
		Prometheus: out.prometheus, Alertmanager: out.alertmanager, History: out.prometheus, Sources: out.sources, Runtime: out.kinds.services,
		Mode: remediation.Mode(*f.mode), NoLossy: noLossy(set.config), Limits: realmLimits(set.config), StatusPages: out.pages, Team: out.team, Mail: out.mail, Webhooks: out.webhooks, Now: now, Logger: logger,
	})
	if err != nil {
		return fmt.Errorf("start engine: %w", err)
	}
	registry := prometheus.NewRegistry()
	for _, col := range []prometheus.Collector{
		engine, versioncollector.NewCollector("backout"), collectors.NewGoCollector(),
		collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}),
	} {
		if err := registry.Register(col); err != nil {
			return fmt.Errorf("register metrics: %w", err)
		}
	}
	re := &reloader{flags: f.settingsFlags, kinds: playbookKinds(out.kinds.list), engine: engine, started: set.config, config: set.config, places: out.channelDirectory, log: logger}
	backtests, err := newConsoleBacktests(engine, out.kinds.list, set.config, time.Now)
	if err != nil {
		return err
	}
	formKey, err := engine.Secret(ctx, "forms")
	if err != nil {
		return fmt.Errorf("start receiver: %w", err)
	}
	server, err := receiver.New(receiver.Options{
		Service: engine, Backtester: backtests, Config: set.config, Registry: registry, Logger: logger, Reload: re.reload, Now: now, FormKey: formKey, Transport: out.transport,
	})
	if err != nil {
		return fmt.Errorf("start receiver: %w", err)
	}
	re.server = server
	public, err := f.publicPage(ctx, engine, now, logger)
	if err != nil {
		return err
	}
	go re.onSignal(ctx, hangup)

	for _, address := range receiver.InClear(*f.listen, *f.webConfigFile, set.config) {
		logger.Warn("tokens arrive without TLS, and anyone on the network path can read them: turn TLS on with --web.config.file", "address", address)
	}
	for _, l := range listeners {
		logger.Info("backout is ready", "address", l.Addr().String(), "mode", *f.mode, "playbooks", set.describe())
	}
	defer context.AfterFunc(ctx, func() { logger.Info("stopping: waiting for work in flight") })()
	return together(ctx,
		engine.Run,
		public,
		func(ctx context.Context) error { return server.Serve(ctx, listeners, *f.webConfigFile) })
}

// replicaOf is what this process is among those that share its store, nil where none can.
func replicaOf(store remediation.Store, cfg *config.Config) (*engine.Replica, error) {
	if _, shared := store.(remediation.SharedStore); !shared {
		return nil, nil
	}
	name := cfg.ReplicaName
	if name == "" {
		var err error
		if name, err = os.Hostname(); err != nil {
			return nil, wrong("replica: {name: web-1} in the configuration", "name this replica: %w", err)
		}
	}
	return &engine.Replica{ID: name + "/" + rand.Text(), Name: name, Version: version.Version, Hosts: cfg.ReplicaHosts, Lease: cfg.ReplicaLease}, nil
}

// realmLimits are the configuration's.
func realmLimits(cfg *config.Config) (all []remediation.RealmLimit) {
	for _, l := range cfg.Limits {
		all = append(all, remediation.RealmLimit(l))
	}
	return all
}

// noLossy says why lossy steps are held whatever the playbook says; "" if they are not.
func noLossy(cfg *config.Config) string {
	if len(cfg.Tokens) == 0 {
		return "no tokens are configured, so an approval would have no name"
	}
	return ""
}

// checkAddresses refuses unsafe addresses before anything is opened.
func (f serveFlags) checkAddresses(cfg *config.Config) error {
	err := errors.Join(receiver.CheckListen(*f.listen, cfg), receiver.CheckWebConfig(*f.webConfigFile))
	if err != nil {
		return wrong("", "%w", err)
	}
	if *f.statusListen != "" {
		if _, _, err := net.SplitHostPort(*f.statusListen); err != nil {
			return wrong("--web.status-listen-address=127.0.0.1:9098, or empty for none", "--web.status-listen-address: %w", err)
		}
	}
	return nil
}

func listenOn(ctx context.Context, addresses []string) ([]net.Listener, error) {
	var listeners []net.Listener
	for _, address := range addresses {
		var lc net.ListenConfig
		l, err := lc.Listen(ctx, "tcp", address)
		if err != nil {
			err = wrong("another --web.listen-address, or stop the program that listens there", "--web.listen-address: %w", err)
			for _, l := range listeners {
				err = errors.Join(err, l.Close())
			}
			return nil, err
		}
		listeners = append(listeners, l)
	}
	return listeners, nil
}

// together runs all until ctx ends or one of them does, ends the others, and
// waits for them.
func together(ctx context.Context, all ...func(context.Context) error) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	ended := make(chan error, len(all))
	for _, fn := range all {
		go func() { ended <- fn(ctx) }()
	}
	var err error
	for range all {
		err = errors.Join(err, <-ended)
		cancel()
	}
	return err
}
