package rules_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/locotoki/backout/alerts"
	"github.com/locotoki/backout/rules"
)

// checked checks a playbook with one trigger, whose query stands in a block from
// line 11 on.
func checked(t *testing.T, query, trigger string) rules.Findings {
	t.Helper()
	return checkedIn(t, "count", query, trigger)
}

// checkedIn is checked, with the indicator in the given unit.
func checkedIn(t *testing.T, unit, query, trigger string) rules.Findings {
	t.Helper()
	return checkedText(t, checkText(unit, query, trigger))
}

// checkText is the playbook whose query checked is about.
func checkText(unit, query, trigger string) string {
	return fmt.Sprintf(`service: shop
release: {version: v2.0.0, previous: v1.0.0}
job: shop
alive: sum(increase(requests_total[2m])) > bool 0
target:
  compose: {project_dir: /srv/shop, service: shop}
  probe: {health: http://127.0.0.1:9000/health/}
indicators:
  - name: it
    query: |
      %s
    unit: %s
triggers:
  - {name: it, indicator: it, plan: ladder, %s}
stages: [{name: alpha, traffic: "0.01", duration: 1d}]
flags: [{name: FEATURE_X, off: "0", fallback: none}]
plans:
  - name: ladder
    steps: [{action: flag_off, flag: FEATURE_X, settle: 1h}]
`, strings.ReplaceAll(query, "\n", "\n      "), unit, trigger)
}

func checkedText(t *testing.T, text string) rules.Findings {
	t.Helper()
	pb, err := alerts.Parse("p.yaml", []byte(text), kinds)
	if err != nil {
		t.Fatal(err)
	}
	found, err := rules.Check(pb)
	if err != nil {
		t.Fatal(err)
	}
	return found
}

func TestABoundThatCannotWorkIsRefusedOnItsLine(t *testing.T) {
	const window = "above: 3, window: 15m, recovery: {window: 2m}"
	for _, c := range []struct{ name, query, trigger, want string }{
		{"a quantile as a percentage", `histogram_quantile(95, sum by (le) (rate(lat_bucket[$window])))`, window, "p.yaml:11: indicators[0].query: the quantile 95 is above 1"},
		{"a quantile without le", "histogram_quantile(0.95,\n  sum(rate(lat_bucket[$window])))", window, "p.yaml:12: indicators[0].query: sum drops the label le"},
		{"a quantile of a count", `histogram_quantile(0.95, sum by (le) (rate(lat_count[$window])))`, window, "which has no buckets"},
		{"a fixed moment", `sum(rate(x_total[$window] @ 1600000000))`, window, "the @ modifier reads a fixed moment"},
		{"the future", `sum(rate(x_total[$window] offset -5m))`, window, "offset -5m reads the future"},
		{"a range of one scrape", `sum(rate(x_total[15s]))`, "above: 3, sustained: 10m", "the range [15s] holds one sample"},
		{"a constant", `vector(1)`, "above: 3, sustained: 10m", "the query reads no series"},
		{"labels that never match", `sum(rate(x_total{code="500"}[$window]) / rate(x_total{code="200"}[$window]))`, window, "p.yaml:11: the trigger it can never fire: its query has no value"},
		{"groups that never match", `sum(rate(x_total[$window])) / sum by (pod) (rate(y_total[$window]))`, window, "can never fire: its query has no value"},
		{"a value that cannot get there", `clamp_max(max(x), 1)`, "above: 3, sustained: 10m", "can never fire: whatever its series do, its query stays between"},
		{"a value that is always there", `clamp_min(max(x), 5)`, "above: 3, sustained: 10m", "fires on a healthy service"},
		{"a count", `sum(increase(x_total[$window]))`, window, "p.yaml:14: it would look recovered while the breach continues: a steady 3."},
		{"a sum over time", `max(sum_over_time(x[$window]))`, window, "would look recovered"},
		{"a count of samples", `count_over_time((max(x) > 5)[$window:15s])`, "above: 20, window: 15m, recovery: {window: 2m}", "would look recovered"},
		{"a difference", `max(delta(x[$window]))`, window, "would look recovered"},
		{"changes", `max(changes(x[$window]))`, window, "would look recovered"},
		{"resets", `max(resets(x_total[$window]))`, window, "would look recovered"},
		{"a count that must not fall", `sum(increase(x_total[$window]))`, "below: 3, window: 15m, recovery: {window: 2m}", "can never recover"},
		{"comparisons between labels that never match", `sum by (pod) (rate(x_total[$window])) / sum(rate(x_total[1h])) > 1`, window, "can never fire: its query has no value"},
		{"labels that never match by day", `sum(rate(x_total[$window])) / sum by (pod) (rate(y_total[$window])) and on () (hour() >= 8)`, window, "can never fire: its query has no value"},
		{"a share as a percentage", `sum(rate(x_total{code="500"}[$window])) / sum(rate(x_total[$window])) and on () sum(increase(x_total[1h])) > 100`, window, "can never fire"},
		{"a bound of the recovery that is too high", `sum(increase(x_total[$window]))`, "above: 3, window: 15m, recovery: {window: 2m, above: 2}", "would look recovered"},
	} {
		t.Run(c.name, func(t *testing.T) {
			found := checked(t, c.query, c.trigger)
			if text := found.Errors.Error(); !strings.Contains(text, c.want) || !strings.Contains(text, "try: ") {
				t.Errorf("got %q\nwant %q", text, c.want)
			}
		})
	}
}

func TestACountMayHaveARecoveryBoundOfItsOwn(t *testing.T) {
	const query = `sum(increase(x_total[$window]))`
	refused := checked(t, query, "above: 3, window: 15m, recovery: {window: 2m}")
	if hint := refused.Errors.Error(); !strings.Contains(hint, "recovery: {window: 2m, above: 0.4}, which is the same pace") {
		t.Fatalf("the hint is %q", hint)
	}
	for _, trigger := range []string{
		"above: 3, window: 15m, recovery: {window: 2m, above: 0.4}",
		"below: 30, window: 15m, recovery: {window: 2m, below: 4}",
		"above: 3, window: 15m, recovery: {window: 15m}",
		"above: 0, window: 15m, recovery: {window: 2m}", // any event is a breach over any window
	} {
		if found := checked(t, query, trigger); len(found.Errors) > 0 {
			t.Errorf("%s: %v", trigger, found.Errors)
		}
	}
}

func TestARecoveryMayBeStricterThanItsTrigger(t *testing.T) {
	const ratio = `sum(increase(x_total{code="500"}[$window])) / (sum(increase(x_total[$window])) >= $min_volume)`
	for _, c := range []struct{ query, trigger string }{
		{ratio, "above: 0.05, window: 10m, min_volume: 300, recovery: {above: 0.02}"},
		{ratio, "above: 0.05, window: 10m, min_volume: 300, recovery: {window: 2m, min_volume: 60, above: 0.01}"},
		{`sum(rate(hits_total[$window])) / sum(rate(gets_total[$window]))`, "below: 0.6, window: 10m, recovery: {below: 0.7}"},
		{`histogram_quantile(0.95, sum by (le) (rate(lat_bucket[$window])))`, "above: 0.75, window: 10m, recovery: {above: 0.5}"},
		{`sum(increase(x_total[$window]))`, "above: 3, window: 15m, recovery: {above: 0, window: 5m}"},
		{`sum(increase(x_total[$window]))`, "below: 30, window: 15m, recovery: {window: 2m, below: 6}"},
	} {
		if found := checked(t, c.query, c.trigger); len(found.Errors) > 0 {
			t.Errorf("%s, %s: %v", c.query, c.trigger, found.Errors)
		}
	}
}

func TestTheHintForARecoveryFitsTheQuery(t *testing.T) {
	const share = `sum(rate(hits_total[$window])) / sum(rate(gets_total[$window]))`
	for _, c := range []struct{ query, trigger, want, hint string }{
		{share, "below: 0.6, window: 10m, recovery: {window: 2m, below: 0.5}", "would look recovered", "try: recovery: {window: 2m, below: 0.6}, which is the trigger's own bound"},
		{share, "above: 0.05, window: 10m, recovery: {window: 2m, above: 0.5}", "would look recovered", "try: recovery: {window: 2m, above: 0.05}, which is the trigger's own bound"},
		{`5 + sum(rate(x_total[$window]))`, "above: 10, window: 10m, recovery: {window: 2m, above: 3}", "can never recover", "try: recovery: {window: 2m, above: 10}, which is the trigger's own bound"},
		{`sum(increase(x_total[$window]))`, "below: 3, window: 15m, recovery: {window: 2m}", "can never recover", "try: recovery: {window: 2m, below: 0.4}, which is the same pace"},
	} {
		if text := checked(t, c.query, c.trigger).Errors.Error(); !strings.Contains(text, c.want) || !strings.Contains(text, c.hint) {
			t.Errorf("%s, %s: got %q", c.query, c.trigger, text)
		}
	}
}

func TestWhatIsSeldomMeantAndWhatCannotBeDecidedIsSaid(t *testing.T) {
	const window = "above: 3, window: 15m, recovery: {window: 2m}"
	for _, c := range []struct{ name, query, trigger, want string }{
		{"raw counters", `sum(x_total) / sum(y_total)`, "above: 3, sustained: 10m", "x_total is a counter, and the query reads its raw value"},
		{"irate", `sum(irate(x_total[$window]))`, window, "irate uses only the last two samples"},
		{"a range of two scrapes", `sum(rate(x_total[30s]))`, "above: 3, sustained: 10m", "the range [30s] is shorter than four scrapes (1m)"},
		{"a zero where nothing is", `sum(rate(x_total[$window])) or vector(0)`, window, "without any series the query of it reads 0, which is healthy"},
		{"a first sample", `max(avg_over_time(x[$window]))`, window, "p.yaml:11: one sample decides the trigger it: the first one of a new series is 3.3, which is beyond 3"},
		{"only the past", `sum(rate(x_total[$window] offset 1d))`, window, "reads only data from 1d ago"},
		{"against yesterday", `sum(rate(x_total[$window])) / sum(rate(x_total[$window] offset 1d))`, window, "check cannot determine whether the trigger it can fire"},
		{"targets", `sum(up{job="shop"} == bool 0)`, "above: 1, sustained: 10m", "check cannot determine"},
		{"native histograms", `histogram_quantile(0.9, sum(rate(lat[$window])))`, window, "no native ones"},
		{"a week at a scrape a second", `sum(rate(x_total[$window]))`, "above: 3, window: 7d, recovery: {window: 2m}", "more than 9000 scrapes"},
	} {
		t.Run(c.name, func(t *testing.T) {
			found := checked(t, c.query, c.trigger)
			if len(found.Errors) > 0 {
				t.Errorf("refused: %v", found.Errors)
			}
			if text := found.Warnings.Error(); !strings.Contains(text, c.want) {
				t.Errorf("got %q\nwant %q", text, c.want)
			}
		})
	}
}

// What compares a series with itself, with its replicas or with the clock has no value
// beyond a bound, or none at all, on steady series: they do not decide.
func TestWhatSteadySeriesDoNotShowIsNotRefused(t *testing.T) {
	const window, sustained = "above: 3, window: 15m, recovery: {window: 2m}", "above: 3, sustained: 10m"
	for query, trigger := range map[string]string{
		`sum(rate(x_total[$window])) / sum(rate(x_total[6h]))`:                           window,
		`max(x / avg_over_time(x[6h]))`:                                                  sustained,
		`max((x - avg_over_time(x[1h])) / stddev_over_time(x[1h]))`:                      sustained,
		`max(x > 3 * avg_over_time(x[6h]))`:                                              sustained,
		`max(max_over_time(x[$window])) - min(min_over_time(x[$window]))`:                window,
		`max(quantile_over_time(0.9, x[$window]) - quantile_over_time(0.1, x[$window]))`: window,
		`max(rate(x_total[$window])) / avg(rate(x_total[$window]))`:                      window,
		`max(x) - min(x)`:                                  sustained,
		`quantile(0.9, x) - quantile(0.1, x)`:              sustained,
		`stddev(rate(x_total[$window]))`:                   window,
		`max(x / on (job) group_left () sum by (job) (x))`: "above: 0.8, sustained: 10m",
		`histogram_quantile(0.99, sum by (le) (rate(lat_bucket[$window]))) / histogram_quantile(0.5, sum by (le) (rate(lat_bucket[$window])))`: "above: 50, window: 15m, recovery: {window: 2m}",
		`sum(rate(x_total[$window])) and on () (hour() >= 8 < 20)`:                                                                             "below: 3, window: 15m, recovery: {window: 2m}",
		`absent(up{job="shop",instance="a"} == 1)`:                                                                                             "above: 0, sustained: 2m",
		`absent(x)`: "above: 0, sustained: 2m",
		`absent_over_time(x[$window]) and on () max(up) == 1`: "above: 0, window: 15m, recovery: {window: 2m}",
		`count(up{job="shop"} == 0)`:                          "above: 0, sustained: 2m",
	} {
		found := checked(t, query, trigger)
		if len(found.Errors) > 0 || !strings.Contains(found.Warnings.Error(), "check cannot determine") && !strings.Contains(found.Warnings.Error(), "fires on all series that check simulates") {
			t.Errorf("%s: %v\n%v", query, found.Errors, found.Warnings)
		}
	}
}

func TestAQuantileMayBeConvertedToItsUnit(t *testing.T) {
	const ms = `1000 * histogram_quantile(0.95, sum by (le) (rate(lat_seconds_bucket[$window])))`
	for query, trigger := range map[string]string{
		ms: "above: 500, window: 15m, recovery: {window: 2m}",
		`max(histogram_quantile(0.95, sum by (le) (rate(lat_seconds_bucket[$window]))) * (1e3))`:    "above: 500, window: 15m, recovery: {window: 2m}",
		`histogram_quantile(0.95, sum by (le) (rate(lat_milliseconds_bucket[$window]))) / 1000`:     "above: 0.5, window: 15m, recovery: {window: 2m}",
		`histogram_quantile(0.95, sum by (le) (rate(lat_milliseconds_bucket[$window]))) / 10 / 100`: "above: 0.5, window: 15m, recovery: {window: 2m}",
	} {
		for _, unit := range []string{"count", "count\n    buckets: [0.1, 0.25, 0.5, 1, 250, 500, 1000]", "count\n    buckets: [0.1, 0.5, 1]", "count\n    buckets: [100, 500, 1000]"} {
			if found := checkedIn(t, unit, query, trigger); len(found.Errors)+len(found.Warnings) > 0 {
				t.Errorf("%s: %v\n%v", query, found.Errors, found.Warnings)
			}
		}
	}
}

func TestSecondsAgainstMillisecondsAreRefused(t *testing.T) {
	found := checkedIn(t, "milliseconds\n    buckets: [0.05, 0.5, 2]", `histogram_quantile(0.95, sum by (le) (rate(lat_bucket[$window])))`, "above: 500, window: 15m, recovery: {window: 2m}")
	if text := found.Errors.Error(); !strings.Contains(text, "can never fire: whatever its series do, its query stays between 0.0475 and 1.92 (threshold 500)") {
		t.Errorf("got %q", text)
	}
}

func TestOneSampleDecidesNothingThatIsGuarded(t *testing.T) {
	for query, trigger := range map[string]string{
		`max(x)`: "above: 3, sustained: 10m",
		`max(avg_over_time(x[$window]) and count_over_time(x[$window]) >= 4)`: "above: 3, window: 15m, recovery: {window: 2m}",
		`sum(rate(x_total[$window]))`:                                         "above: 3, window: 15m, recovery: {window: 2m}",
	} {
		if found := checked(t, query, trigger); len(found.Errors)+len(found.Warnings) > 0 {
			t.Errorf("%s: %v\n%v", query, found.Errors, found.Warnings)
		}
	}
}

func TestAMeanOverTargetsIsWarnedOf(t *testing.T) {
	const high, low = "above: 0.9, sustained: 10m", "below: 0.1, sustained: 10m"
	const idle = `avg(rate(node_cpu_seconds_total{mode="idle"}[1m]))`
	for _, c := range []struct{ query, trigger, want string }{
		{"1 -\n  " + idle, high, "p.yaml:12: indicators[0].query: the mean of node_cpu_seconds_total over all targets: idle ones hide one that is at its limit\n  try: take the mean of each target, avg by (instance) (...), and put max(...) around the query"},
		{idle, low, "put min(...) around"},
		{`max(avg by (job) (mem_usage_ratio))`, high, "the mean of mem_usage_ratio"},
		{`max(avg without (instance) (disk_used_ratio))`, high, "the mean of disk_used_ratio"},
		{`max(avg_over_time((avg(node_load1))[5m:15s]))`, high, "the mean of node_load1"},
		{`sum(rate(process_cpu_seconds_total[1m])) / count(process_cpu_seconds_total)`, high, "the mean of process_cpu_seconds_total"},
		{`max(1 - avg by (instance) (rate(node_cpu_seconds_total{mode="idle"}[1m])))`, high, ""},
		{`max(avg without (cpu) (rate(node_cpu_seconds_total{mode="user"}[1m])))`, high, ""},
		{`avg(rate(node_cpu_seconds_total{instance="db-1",mode="user"}[1m]))`, high, ""},
		{`avg(sum(rate(process_cpu_seconds_total[1m])))`, high, ""},
		{`avg(checkout_score)`, high, ""},
	} {
		text := checkedIn(t, "ratio", c.query, c.trigger).Warnings.Error()
		if got := strings.Contains(text, "the mean of"); got != (c.want != "") || !strings.Contains(text, c.want) {
			t.Errorf("%s: got %q\nwant %q", c.query, text, c.want)
		}
	}
}

func TestTheDefaultPlaybookIsCheckedInTimeAndNothingIsFound(t *testing.T) {
	pb, err := alerts.Default(kinds)
	if err != nil {
		t.Fatal(err)
	}
	began := time.Now()
	found, err := rules.Check(pb)
	if err != nil || len(found.Errors)+len(found.Warnings) > 0 {
		t.Errorf("%v, %v", found, err)
	}
	t.Logf("it took %s", time.Since(began).Round(time.Millisecond))
}
