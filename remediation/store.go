package remediation

import (
	"context"
	"errors"
	"slices"
	"time"

	"github.com/locotoki/backout/alerts"
	"github.com/locotoki/backout/remediation/audit"
)

// Store keeps everything that must survive the process. A transaction for which Update
// returned nil is on disk. Its conformance suite is remediation/store/storetest.
type Store interface {
	// Update runs fn in a durable transaction: all of it or, where fn or the
	// commit fails, none. Many Updates may share one commit (group commit), but
	// each sees what those before it wrote and fails alone. fn may be run
	// again, so it changes nothing but tx.
	Update(ctx context.Context, fn func(tx Tx) error) error
	// View runs fn on a consistent snapshot; it never waits for Update.
	View(ctx context.Context, fn func(tx Tx) error) error
	Close() error
}

// AlertReader is a Store that reads the alerts of many Updates together before it runs
// them, where each read would cost a round trip.
type AlertReader interface {
	// UpdateAlerts is Update for an fn that will ask for these alerts.
	UpdateAlerts(ctx context.Context, fingerprints []string, fn func(tx Tx) error) error
}

// UpdateAlerts is s.Update, which may be quicker as it is told of the alerts that fn will
// ask for.
func UpdateAlerts(ctx context.Context, s Store, fingerprints []string, fn func(tx Tx) error) error {
	if r, ok := s.(AlertReader); ok {
		return r.UpdateAlerts(ctx, fingerprints, fn)
	}
	return s.Update(ctx, fn)
}

// SharedStore is a Store that several processes write, each with an engine of its own:
// leases decide which of them acts.
type SharedStore interface {
	Store
	// Now is the store's clock as this process knows it, between transactions: the same
	// for all processes within the time that a question to the store takes.
	Now() time.Time
}

// ErrNotFound: the row asked for does not exist.
var ErrNotFound = errors.New("not found")

// ErrFull: no room is left for one more.
var ErrFull = errors.New("too many are remembered")

// ErrStale: an incident was changed since it was read; read it again.
var ErrStale = errors.New("stale version")

// StoreAway marks an error of a store whose database does not answer: nothing was read or
// begun, and it may answer again in a moment.
func StoreAway(err error) error {
	if err == nil {
		return nil
	}
	return &StoreAwayError{err}
}

// StoreAwayError is what StoreAway returns.
type StoreAwayError struct{ error }

func (e *StoreAwayError) Unwrap() error { return e.error }

// Tx is one transaction.
type Tx interface {
	IncidentTable
	AlertTable
	AuditTable
	LimitTable
	ServiceTable
	PublicTable
	OutboxTable
	PreflightTable
	RehearsalTable
	ReplicaTable
	KeptTable
	// OnCommit runs fn after the commit took effect, once, before Update returns and in
	// its goroutine; several run in the order in which they were given. fn does not run
	// where the transaction fails, nor in a View, nor for a run of Update's function that
	// was not the one committed. Like everything after a commit, a crash loses it, and so
	// does a commit that took effect and was answered with an error.
	OnCommit(fn func())
}

// IncidentTable holds the incidents.
type IncidentTable interface {
	// Incident returns one, or ErrNotFound.
	Incident(id string) (*Incident, error)
	// Incidents returns those that match, oldest first.
	Incidents(f IncidentFilter) ([]*Incident, error)
	// Running returns the open incidents of which a step runs, oldest first.
	Running() ([]*Incident, error)
	// Paging returns, of each service, the newest incident that is not a drill, if a person
	// must come for it. Oldest first.
	Paging() ([]*Incident, error)
	// PutIncident inserts (Version 0; it sets the ID "inc-N") or updates one,
	// and counts Version up; ErrStale where the stored Version differs. A second
	// open incident for the same service and drill is an error.
	PutIncident(inc *Incident) error
	// Due returns the ids of incidents whose Wake is set and not after now, and
	// the earliest Wake after now (zero: none).
	Due(now time.Time) (ids []string, next time.Time, err error)
}

// IncidentFilter selects incidents; the zero value selects all.
type IncidentFilter struct {
	Service string
	Drill   *bool
	// Open selects open incidents, Closed closed ones; neither: both.
	Open, Closed bool
	// After and Before are incident ids; only later ones, or earlier ones, are returned.
	After, Before string
	// Limit is the highest number returned (0: no limit); Newest returns the
	// newest that many instead of the oldest, still oldest first.
	Limit  int
	Newest bool
}

// AlertTable holds alerts that named a trigger, by fingerprint.
type AlertTable interface {
	// Alert returns one, or ErrNotFound.
	Alert(fingerprint string) (AlertState, error)
	PutAlert(a AlertState) error
	// Alerts returns an incident's, in the order in which they were first put.
	Alerts(incident string) ([]AlertState, error)
	// ActiveAlerts counts an incident's active alerts, and tells when the
	// newest of its alerts was last seen firing.
	ActiveAlerts(incident string) (n int, lastSeen time.Time, err error)
}

// AuditTable is the audit log: append-only.
type AuditTable interface {
	// Append gives e its Seq, Prev and Hash and adds it at the end.
	Append(e audit.Entry) (audit.Entry, error)
	// Appended returns what this transaction has appended so far, in order.
	Appended() []audit.Entry
	audit.Log
}

// LimitTable counts effects.
type LimitTable interface {
	PutEffect(e Effect) error // by Incident and Step; the last one wins
	// Effects returns those at or after since, oldest first, of one service
	// ("" for all).
	Effects(service string, since time.Time) ([]Effect, error)
	// EffectsBack calls fn with a service's effects, newest first, until it returns
	// false.
	EffectsBack(service string, fn func(Effect) bool) error
}

// ServiceTable holds what is kept by service.
type ServiceTable interface {
	Freezes() ([]Freeze, error)
	PutFreeze(f Freeze) error // by Service and Scope
	DeleteFreeze(service, scope string) error
	// Signals returns those that are raised, by service and name.
	Signals() ([]Signal, error)
	// Signal returns one that is raised, or ErrNotFound.
	Signal(service, name string) (Signal, error)
	PutSignal(s Signal) error // by Service and Name
	DeleteSignal(service, name string) error
	Rollouts() ([]Rollout, error)
	// Promoting returns the rollouts that have a promotion, by service.
	Promoting() ([]Rollout, error)
	// Rollout returns a service's, or ErrNotFound.
	Rollout(service string) (Rollout, error)
	PutRollout(r Rollout) error // by Service
	Beats() ([]Beat, error)
	// Beat returns a service's, or ErrNotFound.
	Beat(service string) (Beat, error)
	PutBeat(b Beat) error // by Service
	// Playbook returns the source of a playbook that PutPlaybook kept, or ErrNotFound.
	Playbook(hash string) (source []byte, err error)
	PutPlaybook(hash string, source []byte) error
}

// PublicTable holds public incidents, by incident.
type PublicTable interface {
	// PublicIncident returns what was told of an incident, or ErrNotFound.
	PublicIncident(incident string) (PublicIncident, error)
	PutPublicIncident(p PublicIncident) error // by Incident
	// PublicIncidents returns those that are not resolved, and those resolved
	// at or after since, in the order in which they were first put.
	PublicIncidents(since time.Time) ([]PublicIncident, error)
}

// OutboxTable holds messages until they are delivered.
type OutboxTable interface {
	// PutMessage adds one (ID 0; it sets the ID, higher than any before), or
	// replaces one; ErrNotFound where that is gone.
	PutMessage(m *Message) error
	// Message returns one, or ErrNotFound.
	Message(id int64) (Message, error)
	// FirstMessages returns, of each key of a channel, the message with the
	// lowest ID: the one to be delivered next. Lowest first.
	FirstMessages(channel string) ([]Message, error)
	DeleteMessage(id int64) error
	// PendingMessages counts the messages of each channel that has any.
	PendingMessages() (map[string]int, error)
	// Receipt returns what was kept of a channel's key, or ErrNotFound.
	Receipt(channel, key string) (string, error)
	PutReceipt(channel, key, value string) error
}

// PreflightTable holds preflights, by service.
type PreflightTable interface {
	// Preflight returns a service's, or ErrNotFound.
	Preflight(service string) (Preflight, error)
	PutPreflight(p Preflight) error // by Service
}

// RolloutOf returns a service's rollout; its state is none if there is none.
func RolloutOf(tx Tx, service string) (Rollout, error) {
	r, err := tx.Rollout(service)
	if errors.Is(err, ErrNotFound) {
		return NoRollout(service), nil
	}
	return r, err
}

// NoRollout is the rollout of a service that has none.
func NoRollout(service string) Rollout {
	return Rollout{Service: service, State: RolloutNone, Stage: StageNone}
}

// PreflightOf returns what is known about a service's preflights, an empty one if
// nothing is.
func PreflightOf(tx Tx, service string) (Preflight, error) {
	p, err := tx.Preflight(service)
	if errors.Is(err, ErrNotFound) {
		return Preflight{Service: service}, nil
	}
	return p, err
}

// OpenIncident returns a service's open incident, or nil; a drill does not count.
func OpenIncident(tx Tx, service string) (*Incident, error) {
	open, err := tx.Incidents(IncidentFilter{Service: service, Open: true})
	for _, inc := range open {
		if !inc.Drill {
			return inc, err
		}
	}
	return nil, err
}

// BeatOf returns when a service's watchdog alert came last.
func BeatOf(tx Tx, service string) (Beat, error) {
	b, err := tx.Beat(service)
	if errors.Is(err, ErrNotFound) {
		return Beat{Service: service}, nil
	}
	return b, err
}

// SignalsOf are the signals that a playbook's triggers name, in their order.
func SignalsOf(pb *alerts.Playbook) []string {
	var out []string
	for _, t := range pb.Triggers {
		if t.Signal != "" && !slices.Contains(out, t.Signal) {
			out = append(out, t.Signal)
		}
	}
	return out
}

// SignalOf returns a raised signal, or nil.
func SignalOf(tx Tx, service, name string) (*Signal, error) {
	s, err := tx.Signal(service, name)
	if errors.Is(err, ErrNotFound) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	return &s, nil
}
