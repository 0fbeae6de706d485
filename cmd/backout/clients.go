package main

import (
	"log/slog"
	"net/http"
	"time"

	"github.com/locotoki/backout/receiver/config"
	"github.com/locotoki/backout/remediation"
	"github.com/locotoki/backout/remediation/notify"
	"github.com/locotoki/backout/remediation/observe"
)

// clients is everything that serve talks to except its own store. Building it
// opens no connection.
type clients struct {
	prometheus   *observe.Prometheus
	alertmanager remediation.Alertmanager
	kinds        *kinds
	pages        []remediation.Channel
	team, mail   []remediation.Channel
	webhooks     []notify.Webhook
	// channelDirectory are where the team is told, once the playbooks are loaded.
	channelDirectory *teamPlaces
	sources          *observe.Sources
	transport        *http.Transport
}

// alertmanagerTimeout bounds the query for silences, for which a step waits.
const alertmanagerTimeout = 5 * time.Second

func (c *commands) openClients(cfg *config.Config, now func() time.Time, logger *slog.Logger) (*clients, error) {
	transport := &http.Transport{Proxy: http.ProxyFromEnvironment, MaxIdleConnsPerHost: 16, IdleConnTimeout: time.Minute}
	toPrometheus, err := cfg.PrometheusHTTP.Transport("prometheus", transport)
	if err != nil {
		return nil, wrong("", "prometheus.http_config: %w", err)
	}
	toAlertmanager, err := cfg.AlertmanagerHTTP.Transport("alertmanager", transport)
	if err != nil {
		return nil, wrong("", "alertmanager.http_config: %w", err)
	}
	prom, err := observe.NewPrometheus(cfg.PrometheusURL, cfg.PrometheusTimeout, toPrometheus, logger)
	if err != nil {
		return nil, wrong("", "%w", err)
	}
	am, err := observe.NewAlertmanager(cfg.AlertmanagerURL, alertmanagerTimeout, toAlertmanager)
	if err != nil {
		return nil, wrong("", "%w", err)
	}
	around, err := observe.NewSources(observe.SourcesOptions{
		Prometheus: cfg.PrometheusURL, Alertmanager: cfg.AlertmanagerURL, Timeout: cfg.PrometheusTimeout,
		Transport: transport, PrometheusTransport: toPrometheus, AlertmanagerTransport: toAlertmanager, Now: now, Logger: logger,
	})
	if err != nil {
		return nil, wrong("", "%w", err)
	}
	pages, err := statusPages(cfg, transport, logger)
	if err != nil {
		return nil, err
	}
	places := &teamPlaces{}
	team, err := chats(cfg, places, transport, logger)
	if err != nil {
		return nil, err
	}
	mail, err := mails(cfg)
	if err != nil {
		return nil, err
	}
	hooks, err := webhooks(cfg, transport, now)
	if err != nil {
		return nil, err
	}
	kinds, err := actionKinds(cfg, c.environ, logger)
	if err != nil {
		return nil, err
	}
	return &clients{prometheus: prom, alertmanager: am, kinds: kinds, pages: pages, team: team, mail: mail, webhooks: hooks, channelDirectory: places, sources: around, transport: transport}, nil
}

// Close ends the connections.
func (o *clients) Close() error {
	o.transport.CloseIdleConnections()
	return o.kinds.Close()
}
