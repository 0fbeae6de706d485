package engine

import (
	"context"
	"maps"
	"slices"
	"time"

	"github.com/locotoki/backout/remediation"
	"github.com/locotoki/backout/remediation/ledger"
)

// precheckEvery is the distance of two looks at targets that no incident asks for.
const precheckEvery = time.Minute

// precheckTargets looks, until ctx ends, at the target of every step that a plan may
// run. It has no effect: it tells of a target that could not be acted on before
// that matters, and lets an action have ready what takes it long to find out.
func (e *Engine) precheckTargets(ctx context.Context) error {
	looked := map[string]bool{} // services
	defer func() {
		for service := range looked {
			e.setNotReady(service, nil)
		}
	}()
	for ctx.Err() == nil {
		for _, b := range e.PlansHere(ctx) {
			problems := map[string]string{}
			for _, p := range b.Plans {
				for i, s := range p.Steps {
					step := remediation.Step{Number: i + 1, Action: s.Action, Plan: p.Name, PlanIndex: i}
					action, err := b.Bind(&step)
					if err != nil {
						continue // not built: the incident that comes to it says so
					}
					lctx, cancel := context.WithTimeout(ctx, ledger.LookTimeout)
					err = e.Safely("the inspection of the target of "+s.Action, func() error {
						_, err := action.Look(lctx, "ahead")
						return err
					})
					if err != nil {
						problems[b.Kinds[s.Action].Target(b.Playbook, s.Params)] = err.Error()
					}
					cancel()
				}
			}
			if ctx.Err() != nil {
				return nil
			}
			looked[b.Service] = true
			for target, problem := range e.setNotReady(b.Service, problems) {
				if problem == "" {
					e.Log.Info("target ready again", "service", b.Service, "target", target)
				} else {
					e.Log.Warn("target not ready: a step could not run now", "service", b.Service, "target", target, "err", problem)
				}
			}
		}
		ledger.Pause(ctx, precheckEvery)
	}
	return nil
}

// setNotReady notes the targets of a service that cannot be acted on, each with the reason,
// and returns what is new; "" stands for one that can be acted on again.
func (e *Engine) setNotReady(service string, now map[string]string) (changed map[string]string) {
	e.mu.Lock()
	defer e.mu.Unlock()
	before := e.notReady[service]
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
	if e.notReady == nil {
		e.notReady = map[string]map[string]string{}
	}
	e.notReady[service] = now
	return changed
}

// notReadyOf lists those of a service, each with the reason.
func (e *Engine) notReadyOf(service string) []string {
	e.mu.Lock()
	defer e.mu.Unlock()
	all := []string{}
	for _, target := range slices.Sorted(maps.Keys(e.notReady[service])) {
		all = append(all, target+": "+e.notReady[service][target])
	}
	return all
}
