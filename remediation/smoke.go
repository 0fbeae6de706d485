package remediation

import (
	"context"
	"time"

	"github.com/locotoki/backout/alerts"
)

// SmokeTester is a kind of action that can run a playbook's smoke checks.
type SmokeTester interface {
	ActionKind
	// Smoke asks one check, once; the error says what did not hold. It follows no
	// redirection, and reads a bounded part of the answer.
	Smoke(ctx context.Context, check alerts.SmokeCheck) error
}

// smokeTimeout bounds one smoke check, smokesTimeout all of a playbook's: anyone who
// asked for them waits for the answer.
const (
	smokeTimeout  = 10 * time.Second
	SmokesTimeout = 15 * time.Second
)

// AskSmoke runs one smoke check, within ten seconds.
func AskSmoke(ctx context.Context, tester SmokeTester, s alerts.SmokeCheck) error {
	ctx, cancel := context.WithTimeout(ctx, smokeTimeout)
	defer cancel()
	return tester.Smoke(ctx, s)
}
