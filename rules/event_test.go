package rules_test

import (
	"fmt"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/common/model"

	"github.com/locotoki/backout/alerts"
	"github.com/locotoki/backout/rules"
)

func TestEventsAreWhatTheVolumeGuardCounts(t *testing.T) {
	x := expressions(t, smallPlaybook())
	same(t, "windowed", x.Triggers["error_rate"].Events,
		`sum(sum(increase(si_requests_total[2m]))) or 0 * max((up == 1) and on (job) (last_over_time(si_requests_total[1h15m])))`)
	same(t, "instant", x.Triggers["db_cpu"].Events, "")
	for query, want := range map[string]string{
		`sum(increase(panics_total{a="b"}[$window]))`:                                      `0 * max((up == 1) and on (job) (last_over_time(panics_total{a="b"}[1h15m])))`,
		`max(max_over_time(depth[$window]))`:                                               "",
		`sum(increase(x[$window])) / (sum(rate(y[$window] offset 1m)) > $min_volume)`:      `sum(sum(rate(y[2m] offset 1m))) or 0 * max((up == 1) and on (job) (last_over_time(y[1h15m])))`,
		`p and on () ($min_volume <= sum by (z) (increase(y[$window])))`:                   `sum(sum by (z) (increase(y[2m]))) or 0 * max((up == 1) and on (job) (last_over_time(y[1h15m])))`,
		`max_over_time(a[$window]) and on () (count_over_time(a[$window]) >= $min_volume)`: `sum(count_over_time(a[2m]))`,
	} {
		pb := smallPlaybook()
		pb.Stages = nil
		pb.Indicators[0].Query = query
		same(t, query, expressions(t, pb).Triggers["error_rate"].Events, want)
	}
}

func TestAliveAnswersYesInEveryWayOfAsking(t *testing.T) {
	const up = `(max(up{job="social-intel"}) == bool 1) * `
	for alive, want := range map[string]string{
		`sum(rate(x[2m])) > bool 0`:                         `max(sum(rate(x[2m])) > bool 0)`,
		`sum(rate(x[2m])) > 0`:                              `(count(sum(rate(x[2m])) > 0) > bool 0)`,
		`(lag == 0)`:                                        `(count((lag == 0)) > bool 0)`,
		`sum(rate(x[2m])) > 0 and on () lag < 9`:            `(count(sum(rate(x[2m])) > 0 and on () lag < 9) > bool 0)`,
		`sum(rate(x[2m])) > bool 0 and on () lag < 9`:       `max(sum(rate(x[2m])) > bool 0 and on () lag < 9)`,
		`sum(rate(x[2m])) > bool 0 unless on () (off == 1)`: `max(sum(rate(x[2m])) > bool 0 unless on () (off == 1))`,
		`sum(rate(x[2m])) > bool 0 or lag < 9`:              `(count(sum(rate(x[2m])) > bool 0 or lag < 9) > bool 0)`,
		`vector(1)`:                                         `max(vector(1))`,
	} {
		pb := smallPlaybook()
		pb.Alive = alive
		same(t, alive, expressions(t, pb).Alive, up+want+` or 0 * max(up{job="social-intel"})`)
	}
}

func TestTheServicesTargetsAreSelectedWhereAJobHasOthersToo(t *testing.T) {
	pb := smallPlaybook()
	pb.Up = `{service="shop"}`
	x := expressions(t, pb)
	const up = `up{job="social-intel",service="shop"}`
	at := time.Unix(1700000000, 0)
	for got, want := range map[string]string{
		x.Age: "time() - max(timestamp(" + up + "))", x.Up: "count(" + up + " == 1) or vector(0)",
		x.UpAt(at):      "count(" + up + " @ 1700000000 == 1) or 0 * count(" + up + " @ 1700000000)",
		x.KeptSince(at): "count((" + up + " @ 1700000000 == 1) unless (" + up + " == 0)) or vector(0)",
	} {
		same(t, want, got, want)
	}
	if text := generate(t, pb)["rules/social-intel.rules.yml"]; strings.Contains(text, `up{job="social-intel"}`) {
		t.Error("a rule looks at targets that are not the service's")
	}
}

func TestNoSamplesOfAMomentAreNotNoTargetUp(t *testing.T) {
	at := func(minute int) string { return expressions(t, smallPlaybook()).UpAt(time.Unix(int64(60*minute), 0)) }
	tests := "evaluation_interval: 1m\ntests:\n" +
		"  - interval: 1m\n    input_series:\n" +
		"      - {series: 'up{job=\"social-intel\", instance=\"a\"}', values: '_x9 0x9 1x19'}\n" +
		"      - {series: 'up{job=\"social-intel\", instance=\"b\"}', values: '_x9 0x19 1x9'}\n" +
		"    promql_expr_test:\n"
	for minute, want := range map[int]string{5: "[]", 15: "[{value: 0}]", 25: "[{value: 1}]", 35: "[{value: 2}]"} {
		tests += fmt.Sprintf("      - {expr: '%s', eval_time: 39m, exp_samples: %s}\n", at(minute), want)
	}
	dir := write(t, map[string]string{"up.test.yml": tests})
	for _, promtool := range promtools {
		if out, ok := tool(t, promtool, "test", "rules", filepath.Join(dir, "up.test.yml")); !ok {
			t.Errorf("%s: %s", promtool, out)
		}
	}
}

func TestAnAliveThatLooksBackLongerThanARecoveryIsRefused(t *testing.T) {
	for alive, want := range map[string]string{
		`sum(increase(x[2m])) > bool 0`:  "",
		`sum(increase(x[5m])) > bool 0`:  "alive looks back 5m, longer than the recovery of trigger error_rate (2m)",
		`sum(increase(x[30s])) > bool 0`: "alive looks back 30s, which is less than four scrapes",
		`vector(1)`:                      "",
	} {
		pb := smallPlaybook()
		pb.Alive = alive
		_, err := rules.Check(pb)
		if want == "" && err != nil || want != "" && (err == nil || !strings.Contains(err.Error(), want) || !strings.Contains(err.Error(), "try: a range of")) {
			t.Errorf("%s: got %v, want %q", alive, err, want)
		}
	}
	pb := smallPlaybook() // a signal has no recovery
	pb.Alive = `sum(increase(x[5m])) > bool 0`
	pb.Stages, pb.Triggers = nil, []alerts.Trigger{{Name: "breach", Signal: "breach", Plan: pb.Triggers[0].Plan}}
	if _, err := rules.Check(pb); err != nil {
		t.Error(err)
	}
	pb = smallPlaybook()
	pb.ScrapeInterval = model.Duration(time.Minute)
	if _, err := rules.Check(pb); err == nil || !strings.Contains(err.Error(), "less than four scrapes") {
		t.Errorf("a range of two scrapes: %v", err)
	}
}
