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
	said := map[string]string{} // by target, what was logged last
	defer e.setNotReady(nil)
	for ctx.Err() == nil {
		notReady := map[string]map[string]string{}
		for _, b := range e.PlansHere(ctx) {
			for _, p := range b.Plans {
				for i, s := range p.Steps {
					step := remediation.Step{Number: i + 1, Action: s.Action, Plan: p.Name, PlanIndex: i}
					action, err := b.Bind(&step)
					if err != nil {
						continue // not built: the incident that comes to it says so
					}
					problem := ""
					lctx, cancel := context.WithTimeout(ctx, ledger.LookTimeout)
					err = e.Safely("the inspection of the target of "+s.Action, func() error {
						_, err := action.Look(lctx, "ahead")
						return err
					})
					if err != nil {
						problem = err.Error()
					}
					cancel()
					target := b.Kinds[s.Action].Target(b.Playbook, s.Params)
					if problem != "" {
						if notReady[b.Service] == nil {
							notReady[b.Service] = map[string]string{}
						}
						notReady[b.Service][target] = problem
					}
					if said[target] == problem || ctx.Err() != nil {
						continue
					}
					if said[target] = problem; problem == "" {
						e.Log.Info("target ready again", "service", b.Service, "target", target)
						continue
					}
					e.Log.Warn("target not ready: a step could not run now", "service", b.Service, "target", target, "err", problem)
				}
			}
		}
		if ctx.Err() == nil {
			e.setNotReady(notReady)
		}
		ledger.Pause(ctx, precheckEvery)
	}
	return nil
}

// setNotReady notes the targets that cannot be acted on, by service and target.
func (e *Engine) setNotReady(all map[string]map[string]string) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.notReady = all
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
