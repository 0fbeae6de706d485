// Package ledger is what every part of the engine works with: the store, the clock,
// Prometheus and Alertmanager, the plans in force, and transactions that write a row
// together with its audit entries. It decides nothing.
package ledger

import (
	"context"
	"fmt"
	"log/slog"
	"maps"
	"runtime/debug"
	"slices"
	"sync"
	"time"

	"github.com/locotoki/backout/alerts"
	"github.com/locotoki/backout/remediation"
	"github.com/locotoki/backout/remediation/audit"
	"github.com/locotoki/backout/remediation/plan"
)

// Ledger holds what the parts share. engine.New sets its fields, which
// then never change.
type Ledger struct {
	Store remediation.Store
	Kinds []remediation.ActionKind
	// Prometheus remembers when it last answered; a panic of it is an error.
	Prometheus   remediation.Prometheus
	Alertmanager remediation.Alertmanager
	Mode         remediation.Mode
	// NoLossy, where not "", is why steps that lose data are held.
	NoLossy string
	// Limits are those of realms.
	Limits  []remediation.RealmLimit
	Now     func() time.Time
	Log     *slog.Logger
	Metrics *Metrics
	// WakeUp tells the engine that something may be due.
	WakeUp func()

	mu       sync.Mutex
	plans    map[string]*plan.Plan // by service: what new incidents open with
	byHash   map[string]*plan.Plan
	arrivals remediation.Arrivals
}

// NoteRefused notes a notification that was refused for its token.
func (l *Ledger) NoteRefused(from, result string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	r := remediation.RefusedArrivals{First: l.Now().UTC()}
	if l.arrivals.Refused != nil {
		r = *l.arrivals.Refused
	}
	r.Count, r.Last, r.From, r.Result = r.Count+1, l.Now().UTC(), from, result
	l.arrivals.Refused = &r
}

// NoteAccepted notes a notification that was committed.
func (l *Ledger) NoteAccepted() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.arrivals.Accepted, l.arrivals.Refused = true, nil
}

// Arrivals is what came from Alertmanager so far.
func (l *Ledger) Arrivals() remediation.Arrivals {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.arrivals
}

// BeforeCommit ends every Update with fn: what it writes is committed together with what
// it is about. Who writes need not know of it. Only engine.New's parts call it.
func (l *Ledger) BeforeCommit(fn func(tx remediation.Tx) error) {
	l.Store = endingStore{l.Store, fn}
}

type endingStore struct {
	remediation.Store
	end func(tx remediation.Tx) error
}

// Update implements remediation.Store.
func (s endingStore) Update(ctx context.Context, fn func(tx remediation.Tx) error) error {
	return s.UpdateAlerts(ctx, nil, fn)
}

// UpdateAlerts implements remediation.AlertReader.
func (s endingStore) UpdateAlerts(ctx context.Context, fingerprints []string, fn func(tx remediation.Tx) error) error {
	return remediation.UpdateAlerts(ctx, s.Store, fingerprints, func(tx remediation.Tx) error {
		if err := fn(tx); err != nil {
			return err
		}
		return s.end(tx)
	})
}

// LookTimeout bounds a look at a target, which has no effect.
const LookTimeout = 30 * time.Second

// stepTimeouts are used where a step has none of its own. What loses data takes a
// snapshot first, however long that takes.
var stepTimeouts = map[alerts.Risk]time.Duration{
	alerts.Reversible: 2 * time.Minute, alerts.Disruptive: 5 * time.Minute, alerts.Lossy: time.Hour,
}

// StepLimit is how long an action of a step may take.
func StepLimit(s *remediation.Step) time.Duration {
	if s.Timeout > 0 {
		return s.Timeout
	}
	return stepTimeouts[s.Risk]
}

// Housekeeping is how often the duties are done.
const Housekeeping = 5 * time.Second

// Append writes an audit entry, and a line of serve's log once it is committed.
func (l *Ledger) Append(tx remediation.Tx, en audit.Entry) error {
	en.Time = l.Now().UTC()
	if en.Detail == nil {
		en.Detail = map[string]any{}
	}
	written, err := tx.Append(en)
	if err == nil {
		tx.OnCommit(func() { l.logEntry(written) })
	}
	return err
}

// loggedDetail are the keys of a detail that serve's log has, in their order: what
// one needs to follow a decision. The audit log has all of it.
var loggedDetail = []string{
	"what", "metric", "realm", "trigger", "signal", "value", "threshold", "verdict", "state", "outcome", "reason", "until", "release", "stage", "scope",
	"to", "target", "channel", "gate", "why", "error",
}

// logEntry writes one line of serve's log for an entry that is on disk: the same
// facts as the audit log, under the same seq.
func (l *Ledger) logEntry(en audit.Entry) {
	level := slog.LevelInfo
	switch en.Kind {
	case audit.KindReceived, audit.KindDuplicate: // one for each POST
		level = slog.LevelDebug
	case audit.KindInDoubt, audit.KindDrift, audit.KindBlind:
		level = slog.LevelWarn
	case audit.KindOutcome:
		if o := en.Detail["outcome"]; o == string(remediation.StepFailed) || o == string(remediation.StepUndone) {
			level = slog.LevelWarn
		}
	case audit.KindHeld:
		if en.Detail["reason"] == string(remediation.HoldStepFailed) {
			level = slog.LevelWarn
		}
	}
	attrs := []slog.Attr{slog.String("kind", string(en.Kind)), slog.Int64("seq", en.Seq)}
	add := func(key, value string) {
		if value != "" {
			attrs = append(attrs, slog.String(key, value))
		}
	}
	add("service", en.Service)
	add("incident", en.Incident)
	add("step", en.Step)
	add("action", en.Action)
	if en.Actor != remediation.ActorEngine {
		add("actor", en.Actor)
	}
	sources := []map[string]any{en.Detail, decisive(en.Detail["triggers"], func(row map[string]any) bool { return row["verdict"] == string(remediation.Breaching) })}
	if shut := decisive(en.Detail["gates"], func(row map[string]any) bool { return row["ok"] == false }); shut["ok"] == false {
		sources = append(sources, shut)
	}
	for _, key := range loggedDetail {
		for _, source := range sources {
			if v, ok := source[key].(string); ok && v != "" {
				add(key, v)
				break
			}
		}
	}
	for _, key := range slices.Sorted(maps.Keys(en.Detail)) {
		if v, ok := en.Detail[key].(bool); ok {
			attrs = append(attrs, slog.Bool(key, v))
		}
	}
	l.Log.LogAttrs(context.Background(), level, "audit", attrs...)
}

// decisive returns the first row that decides, or else the first; nil without rows.
func decisive(rows any, decides func(row map[string]any) bool) (first map[string]any) {
	all, _ := rows.([]any)
	for _, r := range all {
		row, _ := r.(map[string]any)
		if decides(row) {
			return row
		}
		if first == nil {
			first = row
		}
	}
	return first
}

// Safely runs what may panic, and returns a panic as an error: its effect is in doubt.
func (l *Ledger) Safely(what string, do func() error) (err error) {
	defer func() {
		if r := recover(); r != nil {
			l.Log.Error("a panic was caught", "in", what, "panic", fmt.Sprint(r), "stack", string(debug.Stack()))
			err = remediation.InDoubt(fmt.Errorf("%s panicked: %v", what, r))
		}
	}()
	return do()
}

// Pause waits, or returns early if ctx ends.
func Pause(ctx context.Context, d time.Duration) {
	select {
	case <-time.After(d):
	case <-ctx.Done():
	}
}
