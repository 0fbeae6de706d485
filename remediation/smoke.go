package remediation

import (
	"context"
	"time"

	"github.com/locotoki/backout/alerts"
)

// SmokeTester is a kind of action that can ask a playbook's smoke checks.
type SmokeTester interface {
	ActionKind
	// Smoke asks one check, once; the error says what did not hold. It follows no
	// redirection, and reads a bounded part of the answer.
	Smoke(ctx context.Context, check alerts.SmokeCheck) error
}

// smokeTimeout bounds one smoke check, smokesTimeout all of a playbook's: whoever
// asked for them waits for the answer.
const (
	smokeTimeout  = 10 * time.Second
	smokesTimeout = 15 * time.Second
)

// smoke asks the playbook's smoke checks, one after another.
func (b *book) smoke(ctx context.Context) []Check {
	ctx, cancel := context.WithTimeout(ctx, smokesTimeout)
	defer cancel()
	out := []Check{}
	var tester SmokeTester
	for _, k := range b.kinds {
		if t, ok := k.(SmokeTester); ok {
			tester = t
		}
	}
	for _, s := range b.Target.Probe.Smoke {
		check := Check{Name: s.Name, OK: true, Detail: s.URL + " answers as it should"}
		if tester == nil {
			check.OK, check.Detail = false, "no kind of action here can ask "+s.URL
		} else if err := askSmoke(ctx, tester, s); err != nil {
			check.OK, check.Detail = false, err.Error()
		}
		out = append(out, check)
	}
	return out
}

func askSmoke(ctx context.Context, tester SmokeTester, s alerts.SmokeCheck) error {
	ctx, cancel := context.WithTimeout(ctx, smokeTimeout)
	defer cancel()
	return tester.Smoke(ctx, s)
}

// smokeGates are the smoke checks as gates of a rollout's end.
func smokeGates(checks []Check) []StageGate {
	var all []StageGate
	for _, c := range checks {
		if c.OK {
			all = append(all, passed("smoke "+c.Name, c.Detail))
		} else {
			all = append(all, shut("smoke "+c.Name, "smoke test %s fails: %s", c.Name, c.Detail))
		}
	}
	return all
}
