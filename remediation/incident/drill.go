package incident

import (
	"context"

	"github.com/locotoki/backout/remediation"
	"github.com/locotoki/backout/remediation/audit"
	"github.com/locotoki/backout/remediation/gate"
	"github.com/locotoki/backout/remediation/plan"
)

// drill walks the whole plan of a drill's incident: every gate is asked and
// every target looked at, nothing is applied, each step ends skipped.
func (e *Responder) drill(ctx context.Context, b *plan.Plan, inc *remediation.Incident) error {
	ev, err := e.ReadValues(ctx, b, inc)
	if err != nil {
		return err
	}
	t := ev.Beyond(inc)
	by, unasked, err := e.Silenced(ctx, inc)
	if err != nil {
		return err
	}
	type seen struct {
		look remediation.Look
		err  error
	}
	looks := map[string]seen{}
	for i := range inc.Steps {
		s := &inc.Steps[i]
		if s.Tells {
			continue // nobody is notified of a drill
		}
		look, err := e.look(ctx, b, inc, s)
		looks[s.ID()] = seen{look, err}
	}
	return e.change(ctx, b, inc, func(c *change) error {
		ev.Note(c.Inc)
		for {
			s := c.Inc.ToTell()
			if s == nil {
				s = c.Inc.Next()
			}
			if s == nil {
				break
			}
			all, _, err := c.Gates(gate.Input{Step: s, Confirmed: t != nil, SilencedBy: by, SilenceUnasked: unasked})
			if err != nil {
				return err
			}
			detail := ev.Detail(b, c.Inc.Trigger(t.Name()), map[string]any{
				"outcome": string(remediation.StepSkipped), "drill": true, "target": s.Target, "gates": gate.Rows(all),
			})
			if l, looked := looks[s.ID()]; !looked {
				detail["why"] = "nobody is notified of a drill"
			} else if l.err != nil {
				detail["error"] = l.err.Error()
			} else {
				detail["before"], detail["seen"] = l.look.Snapshot, string(l.look.Position)
			}
			s.State, s.Finished = remediation.StepSkipped, &c.Now
			if err := c.Audit(audit.KindOutcome, remediation.ActorEngine, s, detail); err != nil {
				return err
			}
		}
		return c.close(remediation.ActorEngine, ev.All(c.Inc, map[string]any{"reason": "drill", "why": "drill: all gates and targets were checked, nothing was applied"}))
	})
}
