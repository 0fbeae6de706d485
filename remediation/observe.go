package remediation

import (
	"context"
	"errors"
	"fmt"
)

// ErrNoAnswer is wrapped by a Prometheus whose server cannot be reached, is
// overloaded or too slow. Any other error is an answer: the query is wrong.
var ErrNoAnswer = errors.New("no answer")

// ErrTooSlow is the ErrNoAnswer of a query that took too long; a shorter range may not.
var ErrTooSlow = fmt.Errorf("%w in time", ErrNoAnswer)

// ErrExecution is wrapped by a Prometheus that read the expression and could not evaluate
// it, as on two series where one is expected; another range may have an answer.
var ErrExecution = errors.New("the evaluation failed")

// Prometheus answers instant queries at the present time.
type Prometheus interface {
	// Query returns the value of an expression that gives a scalar or one
	// sample; ok is false where it is empty. NaN counts as empty. More than one
	// sample is an error.
	Query(ctx context.Context, expr string) (value float64, ok bool, err error)
}

// Alertmanager knows which alerts a person has silenced.
type Alertmanager interface {
	// Silenced tells, of the given fingerprints, which are known and whether each
	// known one is silenced.
	Silenced(ctx context.Context, fingerprints []string) (map[string]bool, error)
}
