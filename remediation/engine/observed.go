package engine

import (
	"fmt"
	"slices"

	"github.com/locotoki/backout/alerts"
	"github.com/locotoki/backout/remediation"
)

// would says what each step that is left would do if backout acted: one sentence a
// step, in the order in which they would run. In observe mode nothing runs, so that
// the first hold would otherwise be all that is ever seen of a plan.
func (c *change) would(q Question) ([]string, error) {
	var open []*remediation.Step
	for i := range c.inc.Steps {
		if s := &c.inc.Steps[i]; s.Open() && !s.Tells {
			open = append(open, s)
		}
	}
	slices.SortStableFunc(open, func(a, b *remediation.Step) int { return int(a.Risk) - int(b.Risk) }) // as next picks them
	out := []string{}
	for i, s := range open {
		sq := q
		sq.Step = s
		all, _, err := c.gates(sq)
		if err != nil {
			return nil, err
		}
		when := ""
		if i > 0 {
			when = " if the breach continues"
		}
		closed := slices.IndexFunc(all, func(g gateResult) bool {
			return g.reason != "" && (g.gate != "mode" || s.Risk == alerts.Lossy && c.e.noLossy != "")
		})
		switch {
		case closed < 0:
			out = append(out, fmt.Sprintf("%s would run%s", s.ID(), when))
		case all[closed].reason == remediation.HoldApproval:
			out = append(out, fmt.Sprintf("%s would ask a commander for approval%s", s.ID(), when))
		case all[closed].gate == "mode":
			out = append(out, fmt.Sprintf("%s would be held: %s", s.ID(), c.e.noLossy))
		default:
			out = append(out, fmt.Sprintf("%s would be held: %s", s.ID(), all[closed].why))
		}
	}
	return out, nil
}
