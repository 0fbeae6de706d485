package rules_test

import (
	"strings"
	"testing"

	"github.com/locotoki/backout/alerts"
	"github.com/locotoki/backout/rules"
)

func TestAliveIsTriedOnMoreThanOneRequestASecond(t *testing.T) {
	const requests = `sum(increase(si_requests_total[2m]))`
	for alive, want := range map[string]string{
		`sum(rate(si_requests_total[2m])) > bool 5`:               "",
		requests + ` > bool 500`:                                  "",
		requests + ` >= bool 50`:                                  "",
		`max(consumers) >= bool 3`:                                "",
		`time() - max(heartbeat_timestamp_seconds) < bool 60`:     "",
		requests + ` > bool 0 unless on () max(maintenance) == 1`: "",
		requests + ` > bool 0 and on () max(up) == 1`:             "",
		requests + ` > 0 and on () max(up) == 1`:                  "",
		`clamp_max(` + requests + `, 1)`:                          "",
		`sum(up{job="social-intel"}) > bool 1`:                    "warning: check cannot determine whether alive can be 1",
		`max(up == 1) and on () (` + requests + ` > bool 0)`:      "warning: alive stays 1 when the service gets no requests",
		requests:                           "error: alive is 120000, not 1",
		`sum(rate(si_requests_total[2m]))`: "error: alive is 1000, not 1",
		requests + ` < bool 5`:             "error: alive is 0, not 1",
		requests + ` == bool 0`:            "error: alive is 0, not 1",
		requests + ` * on () max(up)`:      "error: alive is 120000, not 1",
	} {
		pb := smallPlaybook()
		pb.Alive = alive
		found, err := rules.Check(pb)
		if err != nil {
			t.Fatal(err)
		}
		got := ""
		for level, list := range map[string]alerts.Problems{"error: ": found.Errors, "warning: ": found.Warnings} {
			for _, p := range list {
				got += level + p.Message
			}
		}
		if !strings.HasPrefix(got, want) || want == "" && got != "" {
			t.Errorf("%s: got %q, want %q", alive, got, want)
		}
	}
}

// The tests say what alive says: where it reads the query's own series, a breach may be
// a lack of requests, and where it counts none, it is 1 without them.
func TestTheGeneratedTestsAgreeWithAnyAlive(t *testing.T) {
	t.Parallel()
	low := 5.0
	below := smallPlaybook()
	below.Indicators[0] = alerts.Indicator{Name: "error_rate", Query: `sum(rate(si_requests_total[$window]))`, Unit: alerts.PerSecond}
	below.Triggers, below.Stages = below.Triggers[:1], nil
	below.Triggers[0].Above, below.Triggers[0].Below, below.Triggers[0].MinVolume, below.Triggers[0].Recovery.MinVolume = nil, &low, 0, 0
	below.Alive = `sum(increase(si_requests_total[2m])) > bool 300`
	t.Run("requests that are too few", func(t *testing.T) {
		t.Parallel()
		promtoolAgrees(t, generate(t, below), func(name string) bool {
			return strings.HasPrefix(name, "Rollback") || strings.HasPrefix(name, "NoTraffic")
		})
	})
	probe := smallPlaybook()
	probe.Triggers, probe.Stages = probe.Triggers[:1], nil
	probe.Alive = `min(probe_success{job="blackbox"}) == bool 1`
	t.Run("a probe", func(t *testing.T) {
		t.Parallel()
		promtoolAgrees(t, generate(t, probe), func(name string) bool { return strings.HasPrefix(name, "RollbackErrorRate") })
	})
}
