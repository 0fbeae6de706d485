package rules_test

import (
	"strings"
	"testing"
	"time"

	"github.com/prometheus/common/model"

	"github.com/locotoki/backout/alerts"
)

// surePlaybook has triggers that must be sure of their ratio: on either side, in a
// stage, of rates, and as a percentage.
func surePlaybook() *alerts.Playbook {
	minutes := func(n int) model.Duration { return model.Duration(time.Duration(n) * time.Minute) }
	number := func(f float64) *float64 { return &f }
	pb := smallPlaybook()
	pb.Indicators, pb.Triggers, pb.Stages = nil, nil, []alerts.Stage{{Name: "gamma", Traffic: "0.25", Rollback: []string{"staged"}}}
	add := func(name, query string, unit alerts.Unit, t alerts.Trigger) {
		t.Name, t.Indicator, t.Plan, t.Confidence, t.Recovery.Window = name, name, "ladder", 0.95, minutes(2)
		pb.Indicators = append(pb.Indicators, alerts.Indicator{Name: name, Query: query, Unit: unit})
		pb.Triggers = append(pb.Triggers, t)
	}
	add("errors", errorQuery, alerts.Ratio, alerts.Trigger{Above: number(0.005), Window: minutes(15), MinVolume: 50, Recovery: alerts.Recovery{MinVolume: 2}})
	add("staged", errorQuery, alerts.Ratio, alerts.Trigger{Above: number(0.005), Window: minutes(5), MinVolume: 50})
	add("hits", `sum(rate(hits_total[$window])) / (sum(rate(hits_total[$window])) + sum(rate(misses_total[$window])))`, alerts.Ratio, alerts.Trigger{Below: number(0.6), Window: minutes(5)})
	add("percent", `100 * `+strings.TrimSpace(errorQuery), alerts.Percent, alerts.Trigger{Above: number(1), Window: minutes(5), MinVolume: 1000})
	return pb
}

func TestFewEventsNeedAClearerBreachThanMany(t *testing.T) {
	t.Parallel()
	files := generate(t, surePlaybook())
	promtoolAgrees(t, files, aboutBounds)
	tests := files["rules/social-intel.test.yml"] + files["rules/social-intel.coarse.test.yml"]
	for _, want := range []string{
		"RollbackErrors: 2 of 200 are silent, 200 of 20000 fire",
		"RollbackStaged: 2 of 200 are silent, 200 of 20000 fire",
		"RollbackHits: 4 of 10 are silent, 400 of 1000 fire",
		"RollbackPercent: 16.5 of 1100 are silent, 1650 of 110000 fire",
	} {
		if !strings.Contains(tests, want) {
			t.Errorf("no generated test is called %q", want)
		}
	}
}

// A steady breach over the trigger's window is one over the recovery's, of a
// seventh of its requests, and a steady calm is calm.
func TestConfidenceJudgesARecoveryByItsPace(t *testing.T) {
	const query = `sum(increase(x_total{code="500"}[$window])) / (sum(increase(x_total[$window])) >= $min_volume)`
	const trigger = "above: 0.005, window: 15m, min_volume: 200, confidence: 0.95, recovery: {window: 2m}"
	if found := checkedIn(t, "ratio", query, trigger); len(found.Errors)+len(found.Warnings) > 0 {
		t.Errorf("%v\n%v", found.Errors, found.Warnings)
	}
}

func TestConfidenceIsRefusedWhereNoEventsAreCounted(t *testing.T) {
	const share = `sum(increase(x_total{code="500"}[$window])) / sum(increase(x_total[$window]))`
	for _, c := range []struct{ name, unit, query, bound, want string }{
		{"a mean", "seconds", `sum(increase(lat_sum[$window])) / sum(increase(lat_count[$window]))`, "above: 0.3", "lat_sum is an amount, not a count of events"},
		{"a quantile", "seconds", `histogram_quantile(0.95, sum by (le) (rate(lat_bucket[$window])))`, "above: 0.5", "does not divide a count by a count"},
		{"a count", "count", `sum(increase(x_total[$window]))`, "above: 3", "does not divide a count by a count"},
		{"gauges", "ratio", `sum(avg_over_time(x[$window])) / sum(avg_over_time(y[$window]))`, "above: 0.3", "does not divide a count by a count"},
		{"a unit", "count", share, "above: 0.3", "its unit is count"},
		{"a percentage in the wrong unit", "ratio", "100 * " + share, "above: 0.3", "multiplies the ratio by 100, and its unit is ratio"},
		{"any event", "ratio", share, "above: 0", "its bound 0 is not between 0 and 1\n  try: write a bound between 0 and 1"},
		{"a percentage as the bound", "ratio", share, "above: 2", "its bound 2 is not between 0 and 1\n  try: write 0.02 as its bound"},
	} {
		t.Run(c.name, func(t *testing.T) {
			found := checkedIn(t, c.unit, c.query, c.bound+", window: 15m, confidence: 0.95, recovery: {window: 2m}")
			text := found.Errors.Error()
			if !strings.HasPrefix(text, "p.yaml:14: the trigger it has a confidence: ") || !strings.Contains(text, c.want) || !strings.Contains(text, "try: write sum(increase(errors[$window]))") && !strings.Contains(c.want, "try: ") {
				t.Errorf("got %q\nwant %q", text, c.want)
			}
		})
	}
}
