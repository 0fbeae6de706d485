package backtest

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"time"

	"github.com/locotoki/backout/alerts"
	"github.com/locotoki/backout/remediation"
	"github.com/locotoki/backout/remediation/engine"
	"github.com/locotoki/backout/remediation/store/memory"
	"github.com/locotoki/backout/rules"
)

// event is an alert that begins to fire, or resolves.
type event struct {
	at      time.Time
	trigger string
	firing  bool
}

// replay runs an engine through the past.
type replay struct {
	pb     *alerts.Playbook
	store  remediation.Store
	engine *engine.Engine
	// proceed brings the engine to now, and returns when something is due next.
	proceed func(context.Context) (time.Time, error)
	past    *past
	stays   []rules.Stay
	// unknown: nobody says when which stage was; the last one is assumed.
	unknown bool
	// assume is the stage where none is known: a rollout is replayed as if it were in it.
	assume  string
	targets *targets
	// incident is the one that a trigger's firing concerned last, by when it began.
	concerned map[firingKey]string
	progress  func(at time.Time)
}

type firingKey struct {
	trigger string
	at      int64
}

// newReplay begins with an engine that has never seen an alert.
func newReplay(ctx context.Context, o *Options, p *past, stays []rules.Stay, unknown bool) (*replay, error) {
	r := &replay{pb: o.Playbook, store: memory.New(), past: p, stays: stays, unknown: unknown, targets: &targets{wanted: map[string]bool{}}, concerned: map[firingKey]string{}}
	if n := len(o.Playbook.Stages); n > 0 {
		r.assume = o.Playbook.Stages[n-1].Name
	}
	var err error
	r.engine, err = engine.New(ctx, engine.Options{
		Store: r.store, Playbooks: []*alerts.Playbook{o.Playbook}, Kinds: r.targets.kinds(o.Kinds), Prometheus: p, Alertmanager: nobodySilences{},
		Mode: remediation.Act, Now: p.clock, Steady: p.steady, Logger: slog.New(slog.DiscardHandler),
	})
	if err != nil {
		return nil, fmt.Errorf("begin the replay: %w", err)
	}
	if r.proceed = r.engine.Proceed; o.plain {
		r.proceed = r.engine.Tick
	}
	return r, nil
}

// run takes the engine through the events, which are in order, until the end.
func (r *replay) run(ctx context.Context, events []event, end time.Time) error {
	for _, e := range events {
		if err := r.until(ctx, e.at); err != nil {
			return err
		}
		if err := r.post(ctx, e); err != nil {
			return err
		}
	}
	return r.until(ctx, end)
}

// until lets time go by, and stops at each moment at which something is due.
func (r *replay) until(ctx context.Context, end time.Time) error {
	for {
		next, err := r.proceed(ctx)
		if failed := r.past.failed(); failed != nil {
			return failed
		}
		if err != nil {
			return fmt.Errorf("replay at %s: %w", r.past.clock().Format(time.RFC3339), err)
		}
		if err := ctx.Err(); err != nil {
			return err
		}
		if next.IsZero() || !next.Before(end) {
			r.past.set(end)
			return nil
		}
		r.past.set(next)
		r.progress(next)
	}
}

// post sends an alert, as Alertmanager would have, and lets the engine act.
func (r *replay) post(ctx context.Context, e event) error {
	status := "resolved"
	if e.firing {
		status = "firing"
		if err := r.rollout(ctx, e.at); err != nil {
			return err
		}
		r.past.opened()
	}
	a, err := r.engine.Accept(ctx, remediation.Notification{Receiver: "backout", GroupKey: "{}", Alerts: []remediation.Alert{{
		Status: status, Fingerprint: "backtest-" + e.trigger,
		Labels: map[string]string{"alertname": e.trigger, "service": r.pb.Service, "trigger": e.trigger, "rollout": r.pb.Release.Version},
	}}})
	if err != nil {
		return fmt.Errorf("replay at %s: %w", e.at.Format(time.RFC3339), err)
	}
	if e.firing && len(a.Incidents) > 0 {
		r.concerned[firingKey{e.trigger, e.at.UnixMilli()}] = a.Incidents[0]
	}
	return nil
}

// rollout makes the rollout what it was at a moment, as far as an incident allows: what
// one rolled back is rolled out again once nothing reopens that incident, since in the
// past it went on.
func (r *replay) rollout(ctx context.Context, now time.Time) error {
	stage := stageAt(r.stays, now)
	if r.unknown {
		stage = r.assume
	}
	return r.store.Update(ctx, func(tx remediation.Tx) error {
		was, err := remediation.RolloutOf(tx, r.pb.Service)
		if err != nil {
			return err
		}
		last, err := tx.Incidents(remediation.IncidentFilter{Service: r.pb.Service, Newest: true, Limit: 1})
		if err != nil {
			return err
		}
		if len(last) > 0 {
			closed := last[0].Closed
			if last[0].State != remediation.Closed || closed != nil && !was.Active() && now.Sub(*closed) <= time.Duration(r.pb.Limits.ReopenWithin) {
				return nil
			}
		}
		next := remediation.Rollout{Service: r.pb.Service, Release: r.pb.Release.Version, Previous: r.pb.Release.Previous, Stage: stage, StageSince: &now}
		switch {
		case stage == "" && !r.unknown:
			next.State, next.Stage = remediation.RolloutDone, remediation.StageNone
		case was.Active():
			next.State, next.Started = remediation.RolloutActive, was.Started
		default:
			next.State, next.Started = remediation.RolloutActive, &now
			r.targets.forget()
		}
		return tx.PutRollout(next)
	})
}

// nobodySilences is an Alertmanager without silences.
type nobodySilences struct{}

// Silenced implements remediation.Alertmanager.
func (nobodySilences) Silenced(context.Context, []string) (map[string]bool, error) {
	return nil, nil
}

// targets are what the steps act on: each step leaves its own as wanted, and nothing else
// happens.
type targets struct {
	mu     sync.Mutex
	wanted map[string]bool // by action and target
}

// forget puts all targets back, as the next rollout does.
func (t *targets) forget() {
	t.mu.Lock()
	defer t.mu.Unlock()
	clear(t.wanted)
}

// kinds are the kinds of actions with these targets.
func (t *targets) kinds(real []remediation.ActionKind) []remediation.ActionKind {
	var out []remediation.ActionKind
	for _, k := range real {
		dry := dryKind{k, t}
		if c, ok := k.(remediation.Communicator); ok {
			out = append(out, dryCommunicator{dry, c})
		} else {
			out = append(out, dry)
		}
	}
	return out
}

// dryKind is a kind whose actions change nothing.
type dryKind struct {
	remediation.ActionKind
	targets *targets
}

// Bind implements remediation.ActionKind.
func (k dryKind) Bind(pb *alerts.Playbook, params any) (remediation.Action, error) {
	return dryAction{k.targets, k.Name() + " " + k.Target(pb, params)}, nil
}

// dryCommunicator tells nobody: the engine has no channels.
type dryCommunicator struct {
	dryKind
	telling remediation.Communicator
}

// Communicates implements remediation.Communicator.
func (k dryCommunicator) Communicates() {}

// Announce implements remediation.Communicator.
func (k dryCommunicator) Announce(pb *alerts.Playbook, params any) remediation.Announcement {
	return k.telling.Announce(pb, params)
}

type dryAction struct {
	targets *targets
	target  string
}

// Look implements remediation.Action.
func (a dryAction) Look(context.Context, string) (remediation.Look, error) {
	a.targets.mu.Lock()
	defer a.targets.mu.Unlock()
	look := remediation.Look{Position: remediation.Untouched, Snapshot: json.RawMessage(`{}`)}
	if a.targets.wanted[a.target] {
		look.Position = remediation.Wanted
	}
	return look, nil
}

// Apply implements remediation.Action.
func (a dryAction) Apply(context.Context, string, json.RawMessage) error {
	a.targets.mu.Lock()
	defer a.targets.mu.Unlock()
	a.targets.wanted[a.target] = true
	return nil
}

// Verify implements remediation.Action.
func (a dryAction) Verify(context.Context, string) error { return nil }

// Undo implements remediation.Action.
func (a dryAction) Undo(context.Context, string, json.RawMessage) error { return nil }

// eventsOf are the firings of triggers, in order. A trigger that resolves when another
// begins does so first.
func eventsOf(byTrigger map[string][]firing, g grid) []event {
	var out []event
	for name, all := range byTrigger {
		for _, f := range all {
			out = append(out, event{g.at(f.from), name, true})
			if f.to <= g.last {
				out = append(out, event{g.at(f.to), name, false})
			}
		}
	}
	slices.SortFunc(out, func(a, b event) int {
		order := cmp.Compare(a.trigger, b.trigger)
		if a.firing != b.firing {
			order = 1
			if b.firing {
				order = -1
			}
		}
		return cmp.Or(a.at.Compare(b.at), order)
	})
	return out
}
