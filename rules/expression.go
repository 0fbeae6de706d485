package rules

import (
	"errors"
	"time"

	"github.com/locotoki/backout/alerts"
)

// Expressions are the PromQL expressions by which a running engine judges a
// service: the very ones the generated recording rules hold, sent to
// /api/v1/query at the present time.
type Expressions struct {
	// Alive is 1 while the service is scraped and has traffic, 0 or empty otherwise.
	Alive string
	// Age is how many seconds ago the newest `up` sample was taken, by
	// Prometheus's own clock; empty where there is none.
	Age string
	// Triggers holds one entry for every trigger that has an indicator.
	Triggers map[string]TriggerExpressions
}

// TriggerExpressions are the two expressions of a trigger, both without the
// comparison, and what they are compared with.
type TriggerExpressions struct {
	Value    string
	Recovery string
	// Threshold and Above: beyond means value > Threshold (or < where not Above).
	Threshold float64
	Above     bool
	// Window is how far Value looks back, RecoveryWindow (W) how far Recovery does.
	Window         time.Duration
	RecoveryWindow time.Duration
}

// ExpressionsOf returns the expressions of a valid playbook.
func ExpressionsOf(pb *alerts.Playbook) (Expressions, error) {
	return Expressions{}, errors.New("not built yet")
}
