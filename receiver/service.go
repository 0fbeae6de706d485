package receiver

import (
	"context"
	"time"

	"github.com/locotoki/backout/receiver/statuspage"
	"github.com/locotoki/backout/remediation"
	"github.com/locotoki/backout/remediation/audit"
	"github.com/locotoki/backout/remediation/view"
)

// Service is everything the receiver needs from the engine. A handler calls the part that
// it needs. No method holds a lock for long, and all are safe for concurrent use.
type Service interface {
	Notifications
	Incidents
	Rollouts
	Preflights
	AuditLog
	statuspage.Source
	Remembers
}

// Remembers keeps what must come only once, for all replicas.
type Remembers interface {
	// Once reports whether a key of a kind comes for the first time, and remembers it for
	// a time, with at most limit others; one more is remediation.ErrFull.
	Once(ctx context.Context, kind, key string, keep time.Duration, limit int) (first bool, err error)
}

// Notifications is used by the webhook (webhook.go) and the probes.
type Notifications interface {
	// Accept commits a notification. Any error means that it is not committed.
	Accept(ctx context.Context, n remediation.Notification) (remediation.Accepted, error)
	// NoteRefused notes one that was refused for its token, the address that it came from,
	// and its result.
	NoteRefused(from, result string)
	// Ready is nil once the engine runs and the store answers.
	Ready(ctx context.Context) error
}

// Incidents is what people read and decide about incidents and freezes.
type Incidents interface {
	// Overview is all that matters now.
	Overview(ctx context.Context) (view.Overview, error)
	// Playbook is a service's playbook as it is understood.
	Playbook(ctx context.Context, service string) (view.PlaybookView, error)
	Incidents(ctx context.Context, f remediation.IncidentFilter) ([]view.IncidentView, error)
	Incident(ctx context.Context, id string) (view.IncidentView, error)
	// Brief is what customer support is told of an open incident.
	Brief(ctx context.Context, id string) (remediation.Brief, error)
	// Plot shows one of an incident's triggers around it; trigger "" is the
	// first that has an expression.
	Plot(ctx context.Context, id, trigger string) (view.Plot, error)
	// ServicePlot shows one of a service's triggers up to now.
	ServicePlot(ctx context.Context, service, trigger string) (view.Plot, error)
	ChangeIncident(ctx context.Context, id string, verb view.Verb, step, actor, reason string) (view.IncidentView, error)
	// ApproveQuestion approves a step if the named request still waits for an answer.
	ApproveQuestion(ctx context.Context, id, step, question, actor, reason string) (view.IncidentView, error)
	// ApproveOver lets a step run over the limit of the gate that holds it.
	ApproveOver(ctx context.Context, id, step, gate, actor, reason string) (view.IncidentView, error)
	// Restore begins to put back what an incident's steps changed, the last one
	// first; the incident is closed once that is done.
	Restore(ctx context.Context, id string, r view.RestoreRequest) (view.IncidentView, error)
	Freezes(ctx context.Context) ([]remediation.Freeze, error)
	// PutFreeze needs Scope, Reason and By.
	PutFreeze(ctx context.Context, f remediation.Freeze) (remediation.Freeze, error)
	// Thaw ends a service's freezes ("" ends those of every service).
	Thaw(ctx context.Context, service, actor, reason string) ([]remediation.Freeze, error)
	// RaiseSignal raises a signal of a playbook; service may be "" where there is one
	// playbook, here and below.
	RaiseSignal(ctx context.Context, service, name, actor, reason string) (remediation.Signal, error)
	// ClearSignal clears it, and returns who raised it and when.
	ClearSignal(ctx context.Context, service, name, actor, reason string) (remediation.Signal, error)
}

// Rollouts is a release's way through its stages.
type Rollouts interface {
	Rollouts(ctx context.Context) ([]view.RolloutView, error)
	// DeclareRollout records a rollout that people started.
	DeclareRollout(ctx context.Context, service, release, stage, actor, reason string) (view.RolloutView, error)
	// StartRollout sets the first stage's traffic; ChangeRollout is everything after
	// it. Both answer once that is committed: WaitForPromotion returns when no traffic
	// is being set any more, or ctx ends.
	StartRollout(ctx context.Context, r remediation.RolloutStart) (view.RolloutView, error)
	ChangeRollout(ctx context.Context, c remediation.RolloutChange) (view.RolloutView, error)
	WaitForPromotion(ctx context.Context, service string) (view.RolloutView, error)
	// RolloutReport is all that is known of a service's present or last rollout; it
	// asks the success criteria and the smoke tests now.
	RolloutReport(ctx context.Context, service string) (view.RolloutReport, error)
}

// Preflights is what is checked, signed and rehearsed before a rollout.
type Preflights interface {
	Preflight(ctx context.Context, service string) (remediation.PreflightView, error)
	// StartPreflight begins one; Preflight tells how it goes.
	StartPreflight(ctx context.Context, service, actor, reason string) (remediation.PreflightView, error)
	SignPreflight(ctx context.Context, r remediation.SignRequest) (remediation.PreflightView, error)
	// Rehearsal is how a service's rehearsals stand.
	Rehearsal(ctx context.Context, service string) (remediation.RehearsalView, error)
	// StartRehearsal begins one of a plan, or, where plan is "", of each plan that a
	// trigger uses; Rehearsal tells how it goes.
	StartRehearsal(ctx context.Context, service, plan, actor, reason string) (remediation.RehearsalView, error)
}

// AuditLog reads the audit log.
type AuditLog interface {
	Entries(ctx context.Context, f audit.Filter) ([]audit.Entry, error)
	// Search pages back through the audit log; it never takes long.
	Search(ctx context.Context, q audit.Query) (audit.Page, error)
	Head(ctx context.Context) (seq int64, hash string, err error)
}
