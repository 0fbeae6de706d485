package incident

import (
	"fmt"
	"slices"

	"github.com/locotoki/backout/alerts"
	"github.com/locotoki/backout/remediation"
	"github.com/locotoki/backout/remediation/gate"
)

// would says what each step that is left would do if backout acted: one sentence a
// step, in the order in which they would run. In observe mode nothing runs, so that
// the first hold would otherwise be all that is ever seen of a plan.
func (c *change) would(q gate.Input) ([]string, error) {
	var open []*remediation.Step
	for i := range c.Inc.Steps {
		if s := &c.Inc.Steps[i]; s.Open() && !s.Tells {
			open = append(open, s)
		}
	}
	slices.SortStableFunc(open, func(a, b *remediation.Step) int { return int(a.Risk) - int(b.Risk) }) // as next picks them
	out := []string{}
	for i, s := range open {
		sq := q
		sq.Step = s
		all, _, err := c.Gates(sq)
		if err != nil {
			return nil, err
		}
		when := ""
		if i > 0 {
			when = " if the breach continues"
		}
		closed := slices.IndexFunc(all, func(g remediation.GateResult) bool {
			return !g.OK && (g.Gate != "mode" || s.Risk == alerts.Lossy && c.e.NoLossy != "")
		})
		switch {
		case closed < 0:
			out = append(out, fmt.Sprintf("%s would run%s", s.ID(), when))
		case all[closed].Reason == remediation.HoldApproval:
			out = append(out, fmt.Sprintf("%s would wait for a commander's approval%s", s.ID(), when))
		case all[closed].Gate == "mode":
			out = append(out, fmt.Sprintf("%s would be held: %s", s.ID(), c.e.NoLossy))
		default:
			out = append(out, fmt.Sprintf("%s would be held: %s", s.ID(), all[closed].Why))
		}
	}
	return out, nil
}
