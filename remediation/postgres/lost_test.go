package postgres

import (
	"testing"

	"github.com/locotoki/backout/remediation"
)

func TestAllThatIsCountedCanBeLost(t *testing.T) {
	w := newHarness(t)
	w.spec.Tables = []string{"forecasts", "public.recommendations"}
	w.apply()
	after := parsed(t, w.position(op, remediation.Wanted).Snapshot)
	if got := remediation.LostWords(after.Lost); got != "table public.forecasts (5 rows), table public.recommendations (1 row)" {
		t.Errorf("lost: %s", got)
	}
}
