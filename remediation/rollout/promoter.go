// Package rollout leads a release through its stages: start or declare, promote, hold,
// resume and finish, each behind its gates, and the promotions that run by themselves.
// A promotion is part of its rollout's row from its intent to its end: a restart goes
// on with it, and an incident that must wait for it sees it there.
package rollout

import (
	"sync"

	"github.com/locotoki/backout/remediation"
	"github.com/locotoki/backout/remediation/gate"
	"github.com/locotoki/backout/remediation/view"
)

// Readiness says why a rollout of a release must not start, in preflight's words.
type Readiness interface {
	Missing(tx remediation.Tx, service, release string) ([]string, error)
}

// Promoter starts, promotes and ends rollouts.
type Promoter struct {
	*gate.Gates
	readiness Readiness
	// runs looks at what a service runs, for what is shown of its rollout.
	runs func(service string) view.RunsView
	// process is this run of the process. begun are the promotions of its own whose effect
	// it has begun, by their operation, where no other process writes the store.
	process string
	begun   sync.Map
	// shared: other processes write the store too.
	shared bool
}

// New returns the promoter behind these gates; process names this run of the process, and shared
// says that others write the store too.
func New(g *gate.Gates, r Readiness, runs func(service string) view.RunsView, process string, shared bool) *Promoter {
	return &Promoter{Gates: g, readiness: r, runs: runs, process: process, shared: shared}
}
