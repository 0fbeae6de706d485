package view

import (
	"context"
	"time"

	"github.com/locotoki/backout/remediation"
	"github.com/locotoki/backout/remediation/audit"
)

// IncidentView is an incident as the API, the commands and the pages show it.
type IncidentView struct {
	ID       string             `json:"id"`
	Service  string             `json:"service"`
	Rollout  string             `json:"rollout"`
	State    remediation.State  `json:"state"`
	Reason   remediation.Reason `json:"reason"`
	Why      string             `json:"why"`
	Until    *time.Time         `json:"until"`
	Opened   time.Time          `json:"opened"`
	Closed   *time.Time         `json:"closed"`
	Triggers []TriggerView      `json:"triggers"`
	Steps    []StepView         `json:"steps"`
	Next     *Next              `json:"next"`
	// Stuck is the step that failed, which is tried again once a human has claimed the
	// incident and released it; until then nothing comes next.
	Stuck     string `json:"stuck,omitempty"`
	ClaimedBy string `json:"claimed_by"`
	// AbortedBy is who ordered the rollout to be backed out, "" where nobody did.
	AbortedBy string `json:"aborted_by,omitempty"`
	// RestoredBy is who had put back what the incident's steps did, "" where nobody has.
	RestoredBy string `json:"restored_by,omitempty"`
	Drill      bool   `json:"drill"`
	// RunsView is set where one incident is asked for.
	RunsView
	// Would is what each step that is left would do if backout did not only observe.
	Would []string `json:"would,omitempty"`
	// IncidentCall is set where one incident is asked for that is grave enough for one.
	IncidentCall *remediation.CallView `json:"incident_call,omitempty"`
}

// TriggerView is one attached alert.
type TriggerView struct {
	Trigger     string   `json:"trigger"`
	Fingerprint string   `json:"fingerprint"`
	Active      bool     `json:"active"`
	Threshold   float64  `json:"threshold"`
	Value       *float64 `json:"value"`
	// Signal is set where a person's word is the trigger, and no metric.
	Signal string `json:"signal,omitempty"`
}

// StepView is one step.
type StepView struct {
	ID       string                `json:"id"`
	Action   string                `json:"action"`
	Target   string                `json:"target"`
	Risk     string                `json:"risk"`
	State    remediation.StepState `json:"state"`
	Started  *time.Time            `json:"started"`
	Finished *time.Time            `json:"finished"`
	// Changed is when the step's target was first seen to be no longer as the step left
	// it, by a hand outside backout; nil where it never was.
	Changed *time.Time `json:"changed,omitempty"`
	// Expected is how long it took when its plan was rehearsed, as Prometheus writes
	// durations, and Rehearsed when that was; set where one incident is asked for.
	Expected  string     `json:"expected,omitempty"`
	Rehearsed *time.Time `json:"rehearsed,omitempty"`
}

// Next is what comes next, and when at the earliest.
type Next struct {
	Step string     `json:"step"`
	At   *time.Time `json:"at"`
	// What says in words what it waits for ("it runs ..."), Unless what would stop it.
	What   string   `json:"what"`
	Unless []string `json:"unless"`
}

// RolloutView is a rollout with its stage's criteria.
type RolloutView struct {
	remediation.Rollout
	RunsView
	PromotableAt *time.Time      `json:"promotable_at"`
	Criteria     []CriterionView `json:"criteria"`
	// Traffic is the stage's share of it, Next the stage after it, Incident the open one.
	Traffic string `json:"traffic,omitempty"`
	Next    string `json:"next,omitempty"`
	// Stages are the playbook's, in their order.
	Stages   []string `json:"stages,omitempty"`
	Incident string   `json:"incident,omitempty"`
	// BackingOut: a step of the open incident has changed its target, so that the
	// release does not run any more as the stage says.
	BackingOut bool `json:"backing_out,omitempty"`
	// Gates are those of the next stage or, in the last one, of the rollout's end.
	Gates []remediation.StageGate `json:"gates,omitempty"`
	// Timeline is the playbook's, with its dates since the start.
	Timeline []TimelineDay `json:"timeline,omitempty"`
}

// TimelineDay is one day of the playbook's timeline.
type TimelineDay struct {
	Day string `json:"day"`
	// Date is "" before the start.
	Date     string `json:"date,omitempty"`
	Activity string `json:"activity"`
	Owner    string `json:"owner"`
}

// CriterionView is one success criterion of the present stage, as observed.
type CriterionView struct {
	Name      string   `json:"name"`
	Value     *float64 `json:"value"`
	Threshold float64  `json:"threshold"`
	OK        bool     `json:"ok"`
	// Bound tells on which side of the threshold the value must be: above or below.
	Bound string `json:"bound,omitempty"`
	// Over is how long the stage has lasted, where the value is the one over all of it,
	// which is worse than the one over the criterion's own window.
	Over string `json:"over,omitempty"`
}

// RestoreRequest asks for an incident's targets as they were before its steps.
type RestoreRequest struct {
	Actor, Reason string
	// Force restores although a trigger is breaching, or data was lost.
	Force bool
}

// Verb is a change that a human makes to an incident.
type Verb string

// The verbs of POST /api/v1/incidents/{id}/{verb}; restore has a method of its own.
const (
	Approve Verb = "approve"
	Deny    Verb = "deny"
	Claim   Verb = "claim"
	Release Verb = "release"
	Close   Verb = "close"
)

// Service is all that the receiver needs of the engine; *Engine implements it.
type Service interface {
	// Accept commits a notification. Any error means that it is not committed.
	Accept(ctx context.Context, n remediation.Notification) (remediation.Accepted, error)
	Incidents(ctx context.Context, f remediation.IncidentFilter) ([]IncidentView, error)
	Incident(ctx context.Context, id string) (IncidentView, error)
	// Brief is what customer support is told of an open incident.
	Brief(ctx context.Context, id string) (remediation.Brief, error)
	// Plot shows one of an incident's triggers around it; trigger "" is the
	// first that has an expression.
	Plot(ctx context.Context, id, trigger string) (Plot, error)
	ChangeIncident(ctx context.Context, id string, verb Verb, step, actor, reason string) (IncidentView, error)
	// Restore begins to put back what an incident's steps changed, the last one
	// first; the incident is closed once that is done.
	Restore(ctx context.Context, id string, r RestoreRequest) (IncidentView, error)
	Entries(ctx context.Context, f audit.Filter) ([]audit.Entry, error)
	// Search pages back through the audit log; it never takes long.
	Search(ctx context.Context, q audit.Query) (audit.Page, error)
	Head(ctx context.Context) (seq int64, hash string, err error)
	Freezes(ctx context.Context) ([]remediation.Freeze, error)
	// PutFreeze needs Scope, Reason and By.
	PutFreeze(ctx context.Context, f remediation.Freeze) (remediation.Freeze, error)
	// Thaw ends a service's freezes ("" ends those of every service).
	Thaw(ctx context.Context, service, actor, reason string) ([]remediation.Freeze, error)
	// RaiseSignal says that a fact which no metric knows is so; service may be ""
	// where there is one playbook.
	RaiseSignal(ctx context.Context, service, name, actor, reason string) (remediation.Signal, error)
	// ClearSignal says that it is so no longer, and returns who said that and when.
	ClearSignal(ctx context.Context, service, name, actor, reason string) (remediation.Signal, error)
	Rollouts(ctx context.Context) ([]RolloutView, error)
	// DeclareRollout records a rollout that humans started. service may be ""
	// where there is one playbook.
	DeclareRollout(ctx context.Context, service, release, stage, actor, reason string) (RolloutView, error)
	// Preflight is how a service's preflight stands; service may be "" where there
	// is one playbook, here and below.
	Preflight(ctx context.Context, service string) (remediation.PreflightView, error)
	// StartPreflight begins one; Preflight tells how it goes.
	StartPreflight(ctx context.Context, service, actor, reason string) (remediation.PreflightView, error)
	SignPreflight(ctx context.Context, r remediation.SignRequest) (remediation.PreflightView, error)
	// Rehearsal is how a service's rehearsals stand.
	Rehearsal(ctx context.Context, service string) (remediation.RehearsalView, error)
	// StartRehearsal begins one of a plan, or, where plan is "", of each plan that a
	// trigger uses; Rehearsal tells how it goes.
	StartRehearsal(ctx context.Context, service, plan, actor, reason string) (remediation.RehearsalView, error)
	// StartRollout sets the first stage's traffic; ChangeRollout is everything after
	// it. Both answer once that is committed: WaitForPromotion returns when no traffic
	// is being set any more, or ctx ends.
	StartRollout(ctx context.Context, r remediation.RolloutStart) (RolloutView, error)
	ChangeRollout(ctx context.Context, c remediation.RolloutChange) (RolloutView, error)
	WaitForPromotion(ctx context.Context, service string) (RolloutView, error)
	// RolloutReport is all that is known of a service's present or last rollout; it
	// asks the success criteria and the smoke tests now.
	RolloutReport(ctx context.Context, service string) (RolloutReport, error)
	// Overview is all that matters now.
	Overview(ctx context.Context) (Overview, error)
	// PublicPage is what the public is told, and was told for as long as past.
	PublicPage(ctx context.Context, past time.Duration) (PublicPage, error)
	// Ready is nil once the engine runs and the store answers.
	Ready(ctx context.Context) error
}
