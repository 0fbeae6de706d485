package scenario

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/locotoki/backout/remediation"
	"github.com/locotoki/backout/remediation/audit"
	"github.com/locotoki/backout/remediation/view"
)

// check is one part of an expectation.
type check struct {
	x    *Expectation
	line int
	// what is expected, as in "step flag_off is" and "done".
	what, want string
	// found is what is so.
	found func(ctx context.Context, r *run, x *Expectation) (string, error)
}

// checks are the parts of all expectations, in the order of their times.
func (sc *Scenario) checks() []check {
	var all []check
	for i := range sc.Expect {
		x := &sc.Expect[i]
		add := func(key, what, want string, found func(context.Context, *run, *Expectation) (string, error)) {
			all = append(all, check{x, sc.doc.Line(fmt.Sprintf("expect[%d].%s", i, key)), what, want, found})
		}
		whose := "incident"
		if x.Drill {
			whose = "drill"
		}
		if x.Incident != "" {
			add("incident", whose, x.Incident, ofIncident(func(v *view.IncidentView) string { return string(v.State) }))
		}
		if x.Reason != "" {
			add("reason", "reason of the "+whose, x.Reason, ofIncident(func(v *view.IncidentView) string { return cmp.Or(string(v.Reason), "none") }))
		}
		if x.Incidents != nil {
			add("incidents", "number of incidents", fmt.Sprint(*x.Incidents), incidents)
		}
		for _, step := range slices.Sorted(maps.Keys(x.Steps)) {
			add("steps."+step, "step "+step, x.Steps[step], ofIncident(func(v *view.IncidentView) string { return stateOf(v, step) }))
		}
		for _, name := range slices.Sorted(maps.Keys(x.Targets)) {
			add("targets."+name, name, x.Targets[name], func(_ context.Context, r *run, _ *Expectation) (string, error) { return r.targets.value(name), nil })
		}
		if x.Firing != nil {
			add("firing", "firing triggers", list(*x.Firing), func(_ context.Context, r *run, _ *Expectation) (string, error) {
				return list(r.prometheus.firing()), nil
			})
		}
		if x.Rollout != "" {
			add("rollout", "rollout", x.Rollout, rolloutNow)
		}
		if x.NeedsHuman != nil {
			add("needs_human", "a person is needed for", list(*x.NeedsHuman), needsHuman)
		}
		for _, kind := range slices.Sorted(maps.Keys(x.Entries)) {
			add("entries."+kind, "audit entries of kind "+kind, fmt.Sprint(x.Entries[kind]), func(ctx context.Context, r *run, _ *Expectation) (string, error) {
				es, err := r.engine.Entries(ctx, audit.Filter{Kind: audit.Kind(kind)})
				return fmt.Sprint(len(es)), err
			})
		}
	}
	slices.SortStableFunc(all, func(a, b check) int { return int(a.x.At - b.x.At) })
	return all
}

// look makes the checks that are due, and those again that failed before.
func (r *run) look(ctx context.Context, checks *[]check) error {
	r.late = slices.DeleteFunc(r.late, func(l late) bool {
		found, err := l.check.found(ctx, r, l.check.x)
		if err != nil || found != l.check.want {
			return false
		}
		at := r.at()
		r.result.Failures[l.failure].Later = &at
		return true
	})
	for ; len(*checks) > 0 && (*checks)[0].x.At <= r.at(); *checks = (*checks)[1:] {
		c := (*checks)[0]
		found, err := c.found(ctx, r, c.x)
		if err != nil {
			return err
		}
		if found == c.want {
			continue
		}
		r.late = append(r.late, late{c, len(r.result.Failures)})
		if c.what == "incident" || c.what == "drill" {
			found = r.inWords(ctx, c.x, found)
		}
		r.fails(c.line, fmt.Sprintf("%s: %s", c.what, c.want), found)
	}
	return nil
}

// inWords is an incident's state with the reason for it.
func (r *run) inWords(ctx context.Context, x *Expectation, state string) string {
	v, err := r.newest(ctx, x.Drill)
	if err != nil || v == nil || v.Reason == "" {
		return state
	}
	words := fmt.Sprintf("%s (%s)", state, v.Reason)
	if v.Why != "" {
		words += ": " + v.Why
	}
	return words
}

func ofIncident(of func(v *view.IncidentView) string) func(context.Context, *run, *Expectation) (string, error) {
	return func(ctx context.Context, r *run, x *Expectation) (string, error) {
		v, err := r.newest(ctx, x.Drill)
		if err != nil || v == nil {
			return noIncident, err
		}
		return of(v), nil
	}
}

// stateOf is the state of a step by its id, or by its action.
func stateOf(v *view.IncidentView, step string) string {
	var found []string
	for _, s := range v.Steps {
		if s.ID == step {
			return string(s.State)
		}
		if s.Action == step {
			found = append(found, fmt.Sprintf("%s is %s", s.ID, s.State))
			if len(found) == 1 {
				found[0] = string(s.State)
			}
		}
	}
	switch len(found) {
	case 0:
		return "not in the plan"
	case 1:
		return found[0]
	}
	return fmt.Sprintf("%d steps of that kind", len(found))
}

func incidents(ctx context.Context, r *run, _ *Expectation) (string, error) {
	drill := false
	all, err := r.engine.Incidents(ctx, remediation.IncidentFilter{Drill: &drill})
	return fmt.Sprint(len(all)), err
}

func rolloutNow(ctx context.Context, r *run, _ *Expectation) (now string, err error) {
	err = r.store.View(ctx, func(tx remediation.Tx) error {
		ro, err := remediation.RolloutOf(tx, r.sc.playbook.Service)
		if now = ro.State; ro.Active() {
			now = ro.Stage
		}
		return err
	})
	return now, err
}

func needsHuman(ctx context.Context, r *run, _ *Expectation) (string, error) {
	o, err := r.engine.Overview(ctx)
	var why []string
	for _, n := range o.Needed {
		why = append(why, n.Reason)
	}
	return list(why), err
}

// list is a sorted list in words.
func list(names []string) string {
	if len(names) == 0 {
		return "nothing"
	}
	return strings.Join(slices.Sorted(slices.Values(names)), ", ")
}
