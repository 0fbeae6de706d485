package remediation

import (
	"context"
	"time"
)

// History is the Prometheus that a plot's line comes from.
type History interface {
	// QueryRange returns the values of an expression at from, from+step and so
	// on up to to; moments without a number are left out. More than one series
	// is an error.
	QueryRange(ctx context.Context, expr string, from, to time.Time, step time.Duration) ([]Point, error)
}

// Point is one value; it is a finite number.
type Point struct {
	Time  time.Time `json:"time"`
	Value float64   `json:"value"`
}

// Plotted returns the trigger of that name, or the first one, that has an expression.
func (inc *Incident) Plotted(name string) *TriggerState {
	for i := range inc.Triggers {
		if t := &inc.Triggers[i]; t.Signal == "" && (name == "" || t.Trigger == name) {
			return t
		}
	}
	return nil
}
