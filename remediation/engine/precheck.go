package engine

import (
	"context"
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
	for ctx.Err() == nil {
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
		ledger.Pause(ctx, precheckEvery)
	}
	return nil
}
