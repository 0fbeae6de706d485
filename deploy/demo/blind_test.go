package demo

import (
	"context"
	"fmt"
	"strings"
	"testing"

	"github.com/locotoki/backout/remediation/audit"
)

// wantBlindWithoutPrometheus takes Prometheus away for longer than the watchdog's
// maximal age, and gives it back. Alertmanager goes on sending the watchdog for some
// minutes by itself: only who asks Prometheus sees that it is gone.
func (s *stack) wantBlindWithoutPrometheus(t *testing.T, l *log) {
	t.Helper()
	said := func() (out []string) {
		for _, e := range kinds(t, l, audit.KindBlind) {
			if text(&e, "what") == "prometheus" {
				out = append(out, fmt.Sprintf("%v: %s (%s)", e.Detail["blind"], text(&e, "why"), text(&e, "error")))
			}
		}
		return out
	}
	untilBlind := func(value string) {
		t.Helper()
		until(t, "backout_blind is "+value, func(ctx context.Context) error {
			all, err := fetch(ctx, s.client, s.url("backout")+"/metrics", "")
			want := `backout_blind{reason="prometheus",service="` + s.service + `"} ` + value + "\n"
			if err == nil && !strings.Contains(string(all), want) {
				err = fmt.Errorf("/metrics has no line %q", want)
			}
			return err
		})
	}
	untilBlind("0")
	must(t, s.prometheus.stop())
	untilBlind("1")
	for range 3 { // which do not make it two
		wantRefusal(t, s, "Prometheus has not answered since", "rollout", "promote", "--reason=it is time")
	}
	if status, err := s.command(t.Context(), "rollout", "status"); err != nil || !strings.Contains(strings.Join(strings.Fields(status), " "), "Prometheus has not answered") {
		t.Errorf("%v; the rollout's status says nothing of the blindness:\n%s", err, status)
	}
	if got := said(); len(got) != 1 || !strings.HasPrefix(got[0], "true: Prometheus has not answered since") || !strings.Contains(got[0], "connection refused") {
		t.Errorf("the log says of Prometheus:\n%s", strings.Join(got, "\n"))
	}
	must(t, s.startPrometheus(t.Context()))
	untilBlind("0")
	if got := said(); len(got) != 2 || !strings.HasPrefix(got[1], "false: Prometheus answers again") {
		t.Errorf("the log says of Prometheus:\n%s", strings.Join(got, "\n"))
	}
}
