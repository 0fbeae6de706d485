package scenario

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/prometheus/prometheus/model/labels"

	"github.com/locotoki/backout/remediation"
	"github.com/locotoki/backout/remediation/view"
)

// Verb is what an event does.
type Verb string

// The kinds of events.
const (
	Freeze         Verb = "freeze"
	Thaw           Verb = "thaw"
	Claim          Verb = "claim"
	Release        Verb = "release"
	Close          Verb = "close"
	Approve        Verb = "approve"
	Deny           Verb = "deny"
	Restore        Verb = "restore"
	Raise          Verb = "raise"
	Clear          Verb = "clear"
	Promote        Verb = "promote"
	Hold           Verb = "hold"
	Resume         Verb = "resume"
	Abort          Verb = "abort"
	Drill          Verb = "drill"
	Fail           Verb = "fail"
	Fix            Verb = "fix"
	Set            Verb = "set"
	PrometheusAway Verb = "prometheus_away"
	PrometheusBack Verb = "prometheus_back"
)

// verb is one kind of event: the keys that it needs, those that it takes besides, and
// what it does. said is a line for the story, where the audit log has none.
type verb struct {
	needs, takes []string
	do           func(r *run, ctx context.Context, e *Event) error
	said         func(e *Event) string
}

// verbs are all kinds of events.
var verbs = map[Verb]verb{
	Freeze:  {takes: []string{"for"}, do: (*run).freeze},
	Thaw:    {do: (*run).thaw},
	Claim:   {do: onIncident(view.Claim)},
	Release: {do: onIncident(view.Release)},
	Close:   {do: onIncident(view.Close)},
	Approve: {takes: []string{"step", "over"}, do: onIncident(view.Approve)},
	Deny:    {takes: []string{"step"}, do: onIncident(view.Deny)},
	Restore: {takes: []string{"force"}, do: (*run).restore},
	Raise:   {needs: []string{"signal"}, do: (*run).raise},
	Clear:   {needs: []string{"signal"}, do: (*run).clear},
	Promote: {takes: []string{"force"}, do: onRollout(remediation.RolloutPromote)},
	Hold:    {do: onRollout(remediation.RolloutHold)},
	Resume:  {do: onRollout(remediation.RolloutResume)},
	Abort:   {do: onRollout(remediation.RolloutAbort)},
	Drill: {needs: []string{"trigger"}, do: (*run).drill,
		said: func(e *Event) string { return "A drill alert of " + e.Trigger + " was raised" }},
	Fail: {needs: []string{"target", "error"},
		do:   func(r *run, _ context.Context, e *Event) error { r.targets.fail(e.Target, e.Error); return nil },
		said: func(e *Event) string { return "From now on, changes of " + e.Target + " fail" }},
	Fix: {needs: []string{"target"},
		do:   func(r *run, _ context.Context, e *Event) error { r.targets.fail(e.Target, ""); return nil },
		said: func(e *Event) string { return "Changes of " + e.Target + " work again" }},
	Set: {needs: []string{"target", "value"},
		do:   func(r *run, _ context.Context, e *Event) error { r.targets.set(e.Target, e.Value, e.By); return nil },
		said: func(e *Event) string { return e.By + " set " + e.Target + " to " + e.Value }},
	PrometheusAway: {do: func(r *run, _ context.Context, _ *Event) error { r.prometheus.away = true; return nil },
		said: func(*Event) string { return "Prometheus went away" }},
	PrometheusBack: {do: func(r *run, _ context.Context, _ *Event) error { r.prometheus.away = false; return nil },
		said: func(*Event) string { return "Prometheus came back" }},
}

// Verbs are the names of all kinds of events, sorted.
func Verbs() []Verb { return slices.Sorted(maps.Keys(verbs)) }

func (r *run) freeze(ctx context.Context, e *Event) error {
	f := remediation.Freeze{Service: r.sc.playbook.Service, Scope: remediation.ScopeAll, By: e.By, Reason: e.Reason}
	if e.For > 0 {
		until := r.now.Add(time.Duration(e.For))
		f.Until = &until
	}
	_, err := r.engine.PutFreeze(ctx, f)
	return err
}

func (r *run) thaw(ctx context.Context, e *Event) error {
	_, err := r.engine.Thaw(ctx, r.sc.playbook.Service, e.By, e.Reason)
	return err
}

// onIncident changes the newest incident.
func onIncident(v view.Verb) func(r *run, ctx context.Context, e *Event) error {
	return func(r *run, ctx context.Context, e *Event) error {
		inc, err := r.newest(ctx, false)
		if err != nil {
			return err
		}
		if inc == nil {
			return remediation.Refuse(remediation.Missing, "there is no incident")
		}
		step := e.Step
		if step == "" && inc.Next != nil {
			step = inc.Next.Step
		}
		if e.Over != "" {
			_, err = r.engine.ApproveOver(ctx, inc.ID, step, e.Over, e.By, e.Reason)
		} else {
			_, err = r.engine.ChangeIncident(ctx, inc.ID, v, step, e.By, e.Reason)
		}
		return err
	}
}

func (r *run) restore(ctx context.Context, e *Event) error {
	inc, err := r.newest(ctx, false)
	if err != nil {
		return err
	}
	if inc == nil {
		return remediation.Refuse(remediation.Missing, "there is no incident")
	}
	_, err = r.engine.Restore(ctx, inc.ID, view.RestoreRequest{Actor: e.By, Reason: e.Reason, Force: e.Force})
	return err
}

func (r *run) raise(ctx context.Context, e *Event) error {
	_, err := r.engine.RaiseSignal(ctx, r.sc.playbook.Service, e.Signal, e.By, e.Reason)
	return err
}

func (r *run) clear(ctx context.Context, e *Event) error {
	_, err := r.engine.ClearSignal(ctx, r.sc.playbook.Service, e.Signal, e.By, e.Reason)
	return err
}

func onRollout(v remediation.RolloutVerb) func(r *run, ctx context.Context, e *Event) error {
	return func(r *run, ctx context.Context, e *Event) error {
		_, err := r.engine.ChangeRollout(ctx, remediation.RolloutChange{Service: r.sc.playbook.Service, Verb: v, Actor: e.By, Reason: e.Reason, Force: e.Force})
		return err
	}
}

// drillLasts is how long a drill's alert fires, as a rehearsal's does.
const drillLasts = 5 * time.Minute

// drill raises a trigger's alert as a rehearsal does: with the labels of its rule, marked.
func (r *run) drill(_ context.Context, e *Event) error {
	for _, g := range r.prometheus.groups {
		for _, rule := range g.rules {
			if rule.Alert == "" || rule.labels["trigger"] != e.Trigger {
				continue
			}
			l := maps.Clone(rule.labels)
			l["alertname"], l["severity"], l["drill"] = rule.Alert, "none", "true"
			r.alertmanager.receive(sentAlert{labels.FromMap(l), r.now.Add(drillLasts), rule.pace}, r.now)
			return nil
		}
	}
	return fmt.Errorf("no rule has the trigger %s", e.Trigger)
}
