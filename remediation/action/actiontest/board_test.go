package actiontest

import (
	"testing"

	"github.com/locotoki/backout/alerts"
	"github.com/locotoki/backout/remediation"
)

func TestBoardConforms(t *testing.T) {
	Run(t, func(*testing.T) *Fixture {
		b := NewBoard("board", alerts.Reversible, 3)
		return &Fixture{
			Risk:    alerts.Reversible,
			Action:  b,
			State:   func(*testing.T) string { return b.State() },
			Effects: func(*testing.T) int { return len(b.Effects()) },
			Meddle:  func(*testing.T) { b.Set(1, "dimmed") },
			Cut: func(_ *testing.T, n int, f Fault) (remediation.Action, func() bool) {
				a, fired := b.Cut(n, f)
				return a, fired
			},
			Secrets: []string{"password"},
		}
	})
}
