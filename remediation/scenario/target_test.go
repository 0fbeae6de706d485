package scenario

import (
	"context"
	"errors"
	"testing"

	"github.com/locotoki/backout/alerts"
	"github.com/locotoki/backout/remediation"
	"github.com/locotoki/backout/remediation/action/actiontest"
)

// fixture is one change of a target that runs v2 to v1.
func fixture(t *testing.T, risk alerts.Risk) *actiontest.Fixture {
	t.Helper()
	ts := newTargets(t.TempDir())
	c := &cell{value: "v2"}
	ts.cells["it"] = c
	a := &change{targets: ts, name: "it", to: "v1", risk: risk}
	f := &actiontest.Fixture{
		Action: a, Risk: risk,
		State:   func(*testing.T) string { return ts.value("it") },
		Effects: func(*testing.T) int { return c.changes },
		Meddle:  func(*testing.T) { ts.set("it", "v3", "somebody") },
		Cut: func(_ *testing.T, n int, fault actiontest.Fault) (remediation.Action, func() bool) {
			cut, calls := *a, 0
			cut.fault = func(ctx context.Context, effect func()) error {
				if calls++; calls-1 != n {
					effect()
					return nil
				}
				if fault != actiontest.Before {
					effect()
				}
				if fault == actiontest.Hang {
					return remediation.InDoubt(actiontest.Unanswered(ctx))
				}
				return remediation.InDoubt(errors.New(string(fault)))
			}
			return &cut, func() bool { return calls > n }
		},
	}
	if risk == alerts.Lossy {
		f.Lost = func(*testing.T) bool { return ts.value("it") == "v1" }
		f.Reset = func(*testing.T) { ts.set("it", "v2", "somebody") }
	}
	return f
}

func TestTheTargetsOfAScenarioBehaveAsRealOnes(t *testing.T) {
	t.Run("reversible", func(t *testing.T) {
		actiontest.Run(t, func(t *testing.T) *actiontest.Fixture { return fixture(t, alerts.Reversible) })
	})
	t.Run("disruptive", func(t *testing.T) {
		actiontest.Run(t, func(t *testing.T) *actiontest.Fixture { return fixture(t, alerts.Disruptive) })
	})
	t.Run("lossy", func(t *testing.T) {
		actiontest.RunLossy(t, func(t *testing.T) *actiontest.Fixture { return fixture(t, alerts.Lossy) })
	})
}
