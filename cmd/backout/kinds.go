package main

import (
	"log/slog"

	"github.com/locotoki/backout/receiver"
	"github.com/locotoki/backout/remediation"
	"github.com/locotoki/backout/remediation/action"
	"github.com/locotoki/backout/remediation/docker"
	"github.com/locotoki/backout/remediation/postgres"
)

// kinds are the kinds of actions, and what they act through.
type kinds struct {
	list   []remediation.ActionKind
	docker *docker.Client
}

// actionKinds builds them. Nothing is connected to until a target is looked
// at, so that a playbook can be checked where no engine runs.
func actionKinds(cfg *receiver.Config, environ []string, logger *slog.Logger) (*kinds, error) {
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
	return &kinds{list: action.Kinds(action.Tools{Flags: client, Images: client, Schemas: schemas}), docker: client}, nil
}

// Close ends the connections.
func (k *kinds) Close() error { return k.docker.Close() }
