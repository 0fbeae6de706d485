// Package preflight checks before a rollout that a rollback would work: it checks
// Prometheus and its rules, the targets and the channels, and collects people's sign-offs.
// A rehearsal runs a whole plan with a drill alert, and tries each step as far as it can
// be undone. checks.go has the table of all checks. Only one of the two runs at a time, and none during an incident.
package preflight

import (
	"time"

	"github.com/locotoki/backout/remediation"
	"github.com/locotoki/backout/remediation/gate"
)

// Checker runs preflights and rehearsals.
type Checker struct {
	*gate.Gates
	runner *runner
	// channels are all that messages go to, statusPages those that customers read.
	channels, statusPages []remediation.Channel
}

// New returns the checker behind these gates. around is what lies around it, nil where
// that is unknown; patience is how long a drill alert may take to come back, 0 for
// routePatience.
func New(g *gate.Gates, around remediation.Sources, patience time.Duration, channels, statusPages []remediation.Channel) *Checker {
	return &Checker{Gates: g, runner: newRunner(around, patience), channels: channels, statusPages: statusPages}
}
