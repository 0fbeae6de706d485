package demo

import (
	"context"
	"fmt"
	"testing"

	"github.com/locotoki/backout/remediation"
	"github.com/locotoki/backout/remediation/audit"
)

func TestASignalGoesThroughPrometheusAndAlertmanagerAndRunsItsPlan(t *testing.T) {
	t.Parallel()
	s := runningStack(t, "signal", func(set *settings) { set.plan = steps("flag_off") })
	ctx := t.Context()
	const name = "critical-security-vulnerability"
	wantFlag(t, s, "1")
	_, err := s.command(ctx, "signal", "raise", name, "--reason=CVE-2026-1")
	must(t, err)
	s.untilState(t, remediation.Recovered)
	wantFlag(t, s, "0")
	l := &log{stack: s}
	s.wantSteps(t, l, "flag_off")
	if e := untilEntry(t, l, audit.KindIntent); e.Detail["reason"] != "CVE-2026-1" {
		t.Errorf("the intent gives %v as its reason", e.Detail["reason"])
	}

	_, err = s.command(ctx, "signal", "clear", name, "--reason=patched")
	must(t, err)
	s.untilState(t, remediation.Closed)
	_, err = s.verify(ctx)
	must(t, err)
}

// untilState waits until the one incident is in a state.
func (s *stack) untilState(t *testing.T, state remediation.State) {
	t.Helper()
	until(t, "the incident is "+string(state), func(ctx context.Context) error {
		inc, err := s.onlyIncident(ctx)
		if err == nil && inc.State != state {
			err = fmt.Errorf("the incident is %s (%s: %s)", inc.State, inc.Reason, inc.Why)
		}
		return err
	})
}
