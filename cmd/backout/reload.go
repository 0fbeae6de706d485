package main

import (
	"context"
	"errors"
	"log/slog"
	"os"
	"slices"
	"sync"

	"github.com/locotoki/backout/alerts"
	"github.com/locotoki/backout/receiver"
	"github.com/locotoki/backout/receiver/config"
	"github.com/locotoki/backout/remediation"
	"github.com/locotoki/backout/remediation/engine"
)

// reloader reads the configuration and the playbooks again while serve runs.
// It applies tokens, external_url, slack's signing secret and users, and playbooks:
// all of them or, if any has an error, none. The rest of the configuration takes
// effect only when serve starts.
type reloader struct {
	flags  settingsFlags
	kinds  []alerts.ActionKind
	engine *engine.Engine
	server *receiver.Server
	log    *slog.Logger
	// places learn what else was reloaded.
	places *teamPlaces

	mu sync.Mutex // one reload at a time
	// started is the configuration that serve started with, config the last one taken over.
	started, config *config.Config
}

// reload is what SIGHUP (without an actor) and /-/reload do; both log the result.
func (r *reloader) reload(ctx context.Context, actor string) (err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	defer func() { r.engine.NoteReload(err) }()
	set, err := r.flags.load(r.kinds)
	if err != nil {
		return err
	}
	return r.take(ctx, set, actor)
}

func (r *reloader) take(ctx context.Context, set settings, actor string) error {
	if len(set.config.Tokens) == 0 && len(r.config.Tokens) > 0 {
		return errors.New("the new configuration has no tokens, which would let everyone in; if you want that, restart backout")
	}
	if err := r.server.Reconfigure(set.config); err != nil {
		return err
	}
	if err := r.engine.Reload(ctx, set.playbooks, remediation.Reloaded{Actor: actor, Changed: set.config.Changes(r.config)}); err != nil {
		return errors.Join(err, r.server.Reconfigure(r.config))
	}
	r.places.take(set)
	for _, key := range fixedAtStart(r.started, set.config) {
		r.log.Warn("a changed setting takes effect only after a restart", "setting", key)
	}
	r.config = set.config
	return nil
}

// fixedAtStart names the settings that differ and need a restart.
func fixedAtStart(old, changed *config.Config) []string {
	var names []string
	for name, same := range map[string]bool{
		"prometheus":              old.PrometheusURL == changed.PrometheusURL && old.PrometheusTimeout == changed.PrometheusTimeout && old.PrometheusHTTP.Same(changed.PrometheusHTTP),
		"alertmanager":            old.AlertmanagerURL == changed.AlertmanagerURL && old.AlertmanagerHTTP.Same(changed.AlertmanagerHTTP),
		"docker":                  old.DockerHost == changed.DockerHost && slices.Equal(old.DockerProjects, changed.DockerProjects),
		"kubernetes":              old.Kubeconfig == changed.Kubeconfig,
		"limits":                  slices.Equal(old.Limits, changed.Limits),
		"replica":                 old.ReplicaName == changed.ReplicaName && slices.Equal(old.ReplicaHosts, changed.ReplicaHosts) && old.ReplicaLease == changed.ReplicaLease,
		"snapshots":               old.SnapshotDir == changed.SnapshotDir,
		"storage":                 old.DSN == changed.DSN,
		"launchdarkly":            old.LaunchDarkly.Same(changed.LaunchDarkly),
		"unleash":                 old.Unleash.Same(changed.Unleash),
		"statuspage":              old.Statuspage.Same(changed.Statuspage),
		"mail":                    old.Mail.Same(changed.Mail),
		"webhooks":                slices.EqualFunc(old.Webhooks, changed.Webhooks, config.Webhook.Same),
		"slack":                   old.Slack.SameChat(changed.Slack),
		"tokens, for lossy steps": (len(old.Tokens) == 0) == (len(changed.Tokens) == 0),
	} {
		if !same {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	return names
}

// onSignal reloads at each SIGHUP until ctx ends.
func (r *reloader) onSignal(ctx context.Context, hangup <-chan os.Signal) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-hangup:
			if err := r.reload(ctx, ""); err != nil {
				r.log.Error("reload failed, the old configuration and playbooks stay in force", "err", err)
				continue
			}
			r.log.Info("reloaded")
		}
	}
}
