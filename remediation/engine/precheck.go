package engine

import (
	"context"
	"maps"
	"slices"
	"time"

	"github.com/locotoki/backout/remediation"
	"github.com/locotoki/backout/remediation/ledger"
	"github.com/locotoki/backout/remediation/plan"
)

// precheckEvery is the distance of two looks at targets that no incident asks for.
const precheckEvery = time.Minute

// precheckTargets looks, until ctx ends, at the target of every step that a plan may
// run. It has no effect: it tells of a target that could not be acted on before
// that matters, and lets an action have ready what takes it long to find out.
func (e *Engine) precheckTargets(ctx context.Context) error {
	mine := &notReady{map[string]map[string]string{}}
	e.mu.Lock()
	e.notReady = append(e.notReady, mine)
	e.mu.Unlock()
	defer func() {
		e.mu.Lock()
		defer e.mu.Unlock()
		e.notReady = slices.DeleteFunc(e.notReady, func(n *notReady) bool { return n == mine })
	}()
	for ctx.Err() == nil {
		began := e.underWay(ctx)
		here := e.PlansHere(ctx)
		e.forgetNotReady(mine, here)
		for _, b := range here {
			problems := map[string]string{}
			for _, p := range b.Plans {
				for i, s := range p.Steps {
					step := remediation.Step{Number: i + 1, Action: s.Action, Plan: p.Name, PlanIndex: i}
					action, err := b.Bind(&step)
					if err != nil {
						continue // not built: the incident that comes to it says so
					}
					target := b.Kinds[s.Action].Target(b.Playbook, s.Params)
					if e.beingChanged(ctx, target) { // its incident says how it is
						continue
					}
					lctx, cancel := context.WithTimeout(ctx, ledger.LookTimeout)
					err = e.Safely("the inspection of the target of "+s.Action, func() error {
						_, err := action.Look(lctx, "ahead")
						return err
					})
					if err = b.Ahead(&p, i, err); err != nil && !e.beingChanged(ctx, target) {
						problems[target] = err.Error()
					}
					cancel()
				}
			}
			if ctx.Err() != nil {
				return nil
			}
			for target, problem := range e.setNotReady(mine, b.Service, problems) {
				if problem == "" {
					e.Log.Info("target ready again", "service", b.Service, "target", target)
				} else {
					e.Log.Warn("target not ready: a step could not run now", "service", b.Service, "target", target, "err", problem)
				}
			}
		}
		e.untilNextPrecheck(ctx, append(began, e.underWay(ctx)...))
	}
	return nil
}

// beingChanged reports whether a step or a promotion is changing a target now: what a look finds
// then is over soon.
func (e *Engine) beingChanged(ctx context.Context, target string) (is bool) {
	err := e.Store.View(ctx, func(tx remediation.Tx) error {
		what, err := e.TargetBusy(tx, target, "", "")
		is = what != ""
		return err
	})
	return is && err == nil
}

// underWay names the operations that are changing a target now.
func (e *Engine) underWay(ctx context.Context) (names []string) {
	err := e.Store.View(ctx, func(tx remediation.Tx) error {
		running, err := tx.Running()
		if err != nil {
			return err
		}
		for _, inc := range running {
			names = append(names, inc.ID+"/"+inc.Running().ID())
		}
		promoting, err := tx.Promoting()
		for _, r := range promoting {
			names = append(names, r.Service+"/"+r.Promotion.Op)
		}
		return err
	})
	if err != nil && ctx.Err() == nil {
		e.Log.Warn("cannot read what is under way", "err", err)
	}
	return names
}

// untilNextPrecheck waits, but only until an operation ends that was under way during the
// last precheck: another service's target may have been found not ready because of it.
func (e *Engine) untilNextPrecheck(ctx context.Context, during []string) {
	for range precheckEvery / ledger.Housekeeping {
		ledger.Pause(ctx, ledger.Housekeeping)
		if len(during) == 0 {
			continue
		}
		now := e.underWay(ctx)
		if ctx.Err() != nil || slices.ContainsFunc(during, func(name string) bool { return !slices.Contains(now, name) }) {
			return
		}
	}
}

// notReady are the targets that one realm's precheck found that cannot be acted on, by
// service and target, and why. Each precheck has its own: one that ends, or whose service
// moves to another realm, takes nothing away from what another one found.
type notReady struct {
	services map[string]map[string]string
}

// forgetNotReady drops what was found of services that are not here any more.
func (e *Engine) forgetNotReady(n *notReady, here []*plan.Plan) {
	e.mu.Lock()
	defer e.mu.Unlock()
	maps.DeleteFunc(n.services, func(service string, _ map[string]string) bool {
		return !slices.ContainsFunc(here, func(b *plan.Plan) bool { return b.Service == service })
	})
}

// setNotReady notes the targets of a service that cannot be acted on, each with the reason,
// and returns what is new; "" stands for one that can be acted on again.
func (e *Engine) setNotReady(n *notReady, service string, now map[string]string) (changed map[string]string) {
	e.mu.Lock()
	defer e.mu.Unlock()
	before := n.services[service]
	changed = map[string]string{}
	for target := range before {
		if now[target] == "" {
			changed[target] = ""
		}
	}
	for target, problem := range now {
		if before[target] != problem {
			changed[target] = problem
		}
	}
	n.services[service] = now
	return changed
}

// notReadyOf lists those of a service, each with the reason, of all realms.
func (e *Engine) notReadyOf(service string) []string {
	e.mu.Lock()
	defer e.mu.Unlock()
	why := map[string]string{}
	for _, n := range e.notReady {
		maps.Copy(why, n.services[service])
	}
	all := []string{}
	for _, target := range slices.Sorted(maps.Keys(why)) {
		all = append(all, target+": "+why[target])
	}
	return all
}
