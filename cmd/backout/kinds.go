package main

import (
	"log/slog"
	"net/http"
	"time"

	"github.com/locotoki/backout/receiver/config"
	"github.com/locotoki/backout/remediation"
	"github.com/locotoki/backout/remediation/action"
	"github.com/locotoki/backout/remediation/docker"
	"github.com/locotoki/backout/remediation/kubernetes"
	"github.com/locotoki/backout/remediation/launchdarkly"
	"github.com/locotoki/backout/remediation/postgres"
	"github.com/locotoki/backout/remediation/swarm"
	"github.com/locotoki/backout/remediation/unleash"
)

// kinds are the kinds of actions, and the clients that they use.
type kinds struct {
	list []remediation.ActionKind
	// services is what services run on, wherever that is.
	services   action.Runtimes
	docker     *docker.Client
	kubernetes *kubernetes.Client
	swarm      *swarm.Client
	// transport leads to those who keep flags elsewhere.
	transport *http.Transport
}

// actionKinds builds them. They connect only when a target is looked at, so that a
// playbook can be checked without a running engine.
func actionKinds(cfg *config.Config, environ []string, logger *slog.Logger) (*kinds, error) {
	client, err := docker.New(docker.Options{
		Host: cfg.DockerHost, Projects: cfg.DockerProjects, Environ: environ, Logger: logger,
	})
	if err != nil {
		return nil, wrong("", "%w", err)
	}
	schemas, err := postgres.New(postgres.Options{SnapshotDir: cfg.SnapshotDir, Environ: environ, Logger: logger})
	if err != nil {
		return nil, wrong("", "%w", err)
	}
	clusters, err := kubernetes.New(kubernetes.Options{Kubeconfig: cfg.Kubeconfig, Logger: logger})
	if err != nil {
		return nil, wrong("", "%w", err)
	}
	swarms, err := swarm.New(swarm.Options{Host: cfg.DockerHost, Projects: cfg.DockerProjects, Logger: logger})
	if err != nil {
		return nil, wrong("", "%w", err)
	}
	services := action.Runtimes{Compose: client, Kubernetes: clusters, Swarm: swarms}
	tools := action.Tools{Flags: services, Images: services, Schemas: schemas, SnapshotDir: schemas.SnapshotDir()}
	transport := &http.Transport{Proxy: http.ProxyFromEnvironment, TLSHandshakeTimeout: 10 * time.Second, IdleConnTimeout: time.Minute}
	if l := cfg.LaunchDarkly; l != nil {
		flags, err := launchdarkly.New(launchdarkly.Options{URL: l.URL, Token: l.Token.Reveal(), Transport: transport, Now: time.Now, Wait: wait})
		if err != nil {
			return nil, wrong("", "%w", err)
		}
		tools.LaunchDarkly = flags
	}
	if u := cfg.Unleash; u != nil {
		flags, err := unleash.New(unleash.Options{URL: u.URL, Token: u.Token.Reveal(), Transport: transport, Now: time.Now, Wait: wait})
		if err != nil {
			return nil, wrong("", "%w", err)
		}
		tools.Unleash = flags
	}
	return &kinds{list: action.Kinds(tools), services: services, docker: client, kubernetes: clusters, swarm: swarms, transport: transport}, nil
}

// Close ends the connections.
func (k *kinds) Close() error {
	k.transport.CloseIdleConnections()
	k.kubernetes.Close()
	k.swarm.Close()
	return k.docker.Close()
}
