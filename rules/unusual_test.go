package rules_test

import (
	"strings"
	"testing"
	"time"

	"github.com/prometheus/common/model"
	"go.yaml.in/yaml/v3"

	"github.com/locotoki/backout/alerts"
	"github.com/locotoki/backout/rules"
	"github.com/locotoki/backout/rules/series"
)

// unusual is a playbook with one trigger on a query, in a stage or in all.
func unusual(query, stage string, change func(*alerts.Trigger)) *alerts.Playbook {
	pb := smallPlaybook()
	three := 3.0
	tr := alerts.Trigger{Name: "it", Indicator: "it", Plan: "ladder", Above: &three, Window: model.Duration(10 * time.Minute), Recovery: alerts.Recovery{Window: model.Duration(2 * time.Minute)}}
	change(&tr)
	pb.Indicators = []alerts.Indicator{{Name: "it", Query: query, Unit: alerts.Count}}
	pb.Triggers, pb.Stages = []alerts.Trigger{tr}, nil
	if stage != "" {
		pb.Stages = []alerts.Stage{{Name: stage, Traffic: "0.25", Rollback: []string{"it"}}}
	}
	return pb
}

// about reports whether a generated test is about the trigger it, or its indicator.
func about(name string) bool {
	return strings.HasPrefix(name, "RollbackIt:") || strings.HasPrefix(name, "IndicatorAbsent: fires if it has")
}

func TestUnusualQueriesAreTestedToo(t *testing.T) {
	t.Parallel()
	zero, short := 0.0, model.Duration(5*time.Minute)
	none := func(*alerts.Trigger) {}
	for name, pb := range map[string]*alerts.Playbook{
		"a short range inside a stage's window": unusual(`max_over_time((sum(rate(errors_total[1m])))[$window:15s])`, "gamma", none),
		"a scalar":                              unusual(`scalar(sum(rate(errors_total[$window])))`, "", none),
		"a scalar of a comparison":              unusual(`max(rate(errors_total[$window])) / scalar(count(replicas > 0))`, "", none),
		"a scalar in an operation, staged":      unusual(`max(rate(errors_total[$window])) / scalar(sum(replicas))`, "gamma", none),
		"a scalar on a side of an or, staged":   unusual("max(rate(errors_total[$window])) / scalar(sum(replicas)) or max(rate(old_total[$window])) / scalar(sum(\n  old_replicas))", "gamma", none),
		"births before a count": unusual(`sum(increase(errors_total[$window])) + sum((errors_total unless errors_total offset $window) and on (instance) (up offset $window == 1)) or sum(increase(errors_total[$window]))`, "",
			func(tr *alerts.Trigger) { tr.Above, tr.Window = &zero, short }),
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			promtoolAgrees(t, generate(t, pb), about)
		})
	}
}

// promtool loads 10,000 samples at most, and evaluates all rules in each test.
func TestWhatPromtoolCannotLoadIsNamedAndNotTested(t *testing.T) {
	t.Parallel()
	days := func(n int) model.Duration { return model.Duration(n) * model.Duration(24*time.Hour) }
	over := func(d model.Duration) func(*alerts.Trigger) { return func(tr *alerts.Trigger) { tr.Window = d } }
	for name, pb := range map[string]*alerts.Playbook{
		"a window":       unusual(`sum(rate(errors_total[$window]))`, "", over(days(2))),
		"a subquery":     unusual(`max_over_time((sum(rate(errors_total[5m])) / sum(rate(requests_total[5m])))[$window:15s])`, "", over(days(1))),
		"sustained":      unusual(`max(depth)`, "", func(tr *alerts.Trigger) { tr.Window, tr.Sustained = 0, days(3) }),
		"a recovery":     unusual(`sum(rate(errors_total[$window]))`, "", func(tr *alerts.Trigger) { tr.Recovery.Window = days(2) }),
		"another's rule": bothWindows(unusual(`sum(rate(errors_total[$window]))`, "", over(days(1))), days(3)),
	} {
		t.Run(name, func(t *testing.T) {
			files, err := rules.Settings{}.Generate(pb)
			if err != nil {
				t.Fatal(err)
			}
			warned := ""
			for _, f := range files {
				warned += strings.Join(f.Warnings, "\n")
				if strings.HasSuffix(f.Name, ".test.yml") && strings.Contains(string(f.Content), "name: 'RollbackIt: silent just inside") {
					t.Errorf("%s tests it", f.Name)
				}
			}
			if !strings.Contains(warned, "hold more samples than a test can load") {
				t.Errorf("the warnings are %q", warned)
			}
		})
	}
}

// bothWindows adds a trigger on the same indicator with another window.
func bothWindows(pb *alerts.Playbook, window model.Duration) *alerts.Playbook {
	other := pb.Triggers[0]
	other.Name, other.Window = "longer", window
	pb.Triggers = append(pb.Triggers, other)
	return pb
}

// What a healthy service may be without is not taken for missing series, and without what it has
// the guard fires: each set of series is given to Prometheus's engine.
func TestOnlyWhatAnIndicatorNeedsIsTakenForMissingSeries(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]struct{ healthy, gone []string }{
		`scalar(count(replicas == 0)) / scalar(count(replicas))`:                      {[]string{"replicas"}, []string{""}},
		`max(errors) / scalar(sum(rate(births_total[5m])) > 0 or vector(1))`:          {[]string{"errors births_total", "errors"}, []string{""}},
		`max(errors) / scalar(count(replicas unless on (instance) maintenance == 1))`: {[]string{"errors replicas", "errors replicas maintenance"}, []string{"errors", "errors maintenance"}},
		// A part with an or is one part.
		`max(errors) / scalar(sum(new) or sum(old))`:                   {[]string{"errors new", "errors old"}, []string{"errors", "new old"}},
		`max(errors) / scalar((sum(new) or sum(old)) + sum(more))`:     {[]string{"errors new more", "errors old more"}, []string{"errors more", "errors new"}},
		`max(errors) / scalar((sum(new) or sum(old)) * sum(more) > 0)`: {[]string{"errors new more", "errors old more"}, []string{"errors more", "errors new"}},
		`max(errors) / scalar(max(sum(new) or sum(old)))`:              {[]string{"errors new", "errors old"}, []string{"errors"}},
		`max(errors) / scalar(sum(new) or vector(1))`:                  {[]string{"errors new", "errors"}, []string{"new"}},
		`max(errors) / scalar(count(x == 0) or sum(y))`:                {[]string{"errors x", "errors y", "errors"}, []string{"x y"}},
		// A side of an or counts where its value is taken.
		`max(new) or max(old) * scalar(max(factor))`:                      {[]string{"new", "new old", "old factor"}, []string{"", "old", "factor"}},
		`max(new) * scalar(max(factor)) or max(old)`:                      {[]string{"new factor", "old", "old factor"}, []string{"", "new", "new old", "factor"}},
		`max(errors) / scalar(sum(replicas)) or vector(0)`:                {[]string{"errors replicas", "replicas", ""}, []string{"errors"}},
		`max(a) or (max(b) or max(c) * scalar(max(factor)))`:              {[]string{"a", "b", "c factor", "a c", "b c"}, []string{"c", "factor"}},
		`max(a) or max(b) or max(c) * scalar(max(factor))`:                {[]string{"a", "b", "c factor", "a c", "b c"}, []string{"c", "factor"}},
		`max(errors) / scalar(sum(new) or sum(old) * scalar(sum(share)))`: {[]string{"errors new", "errors new old", "errors old share"}, []string{"errors", "errors old", "errors share"}},
		`max(errors) / scalar(max(a) * scalar(count(b > 0)) or max(c))`:   {[]string{"errors a b", "errors c"}, []string{"errors", "errors a"}},
		// Below absent(), and to the right of unless, series may be missing.
		`max(errors) + scalar(count(replicas > 0) * on () absent_over_time(restart[5m]))`: {[]string{"errors replicas"}, []string{"errors", "replicas"}},
		`max(errors) / scalar(count(replicas and on () absent(maintenance) == 1))`:        {[]string{"errors replicas"}, []string{"errors"}},
		`max(errors) / scalar(count(replicas unless on (instance) cordoned))`:             {[]string{"errors replicas", "errors replicas cordoned"}, []string{"errors"}},
		`max(errors) * scalar(absent(maintenance))`:                                       {[]string{"errors", "errors maintenance"}, []string{""}},
		`max(errors) unless on () (vector(1) * scalar(max(maintenance)) == 1)`:            {[]string{"errors", "errors maintenance"}, []string{"maintenance"}},
		`max(errors) unless on () vector(scalar(max(maintenance))) > 3`:                   {[]string{"errors", "errors maintenance"}, []string{"maintenance"}},
		`max(errors) * scalar(sum(replicas)) unless on () max(maintenance) == 1`:          {[]string{"errors replicas", "errors replicas maintenance"}, []string{"errors", "replicas"}},
		`max(errors) / scalar(sum(replicas) unless on () max(x) > scalar(max(y)))`:        {[]string{"errors replicas", "errors replicas x y"}, []string{"errors", "errors x y"}},
		// What asks for missing series has no value on a healthy service, and needs what else it reads.
		`absent(heartbeat)`:                                        {[]string{"heartbeat", ""}, nil},
		`absent(heartbeat) or absent(pulse)`:                       {[]string{"heartbeat", ""}, nil},
		`max(errors) or absent(heartbeat)`:                         {[]string{"errors", "heartbeat errors", ""}, []string{"heartbeat"}},
		`absent_over_time(heartbeat[5m]) and on () max(hosts) > 3`: {[]string{"heartbeat hosts", "hosts"}, []string{"", "heartbeat"}},
		`absent(heartbeat) * scalar(sum(share))`:                   {[]string{"heartbeat share", "share"}, []string{"", "heartbeat"}},
		`max(errors) unless on () absent(heartbeat)`:               {[]string{"errors heartbeat"}, []string{"heartbeat", "errors"}},
		`max(errors) and on () absent(maintenance)`:                {[]string{"errors", "errors maintenance"}, []string{"", "maintenance"}},
		`max(errors) unless on () max(maintenance) == 1`:           {[]string{"errors", "errors maintenance"}, []string{"", "maintenance"}},
		// A scalar() in another; in a comparison, which has no value with NaN but by != and bool.
		`max(errors) / scalar(sum(replicas) * scalar(count(hosts == 0)))`:                        {[]string{"errors replicas hosts"}, []string{"errors replicas", "errors hosts"}},
		`max(errors) / scalar(count(replicas > scalar(max(limit))))`:                             {[]string{"errors replicas limit"}, []string{"errors replicas", "errors limit"}},
		`max(errors >= scalar(max(limit)))`:                                                      {[]string{"errors limit"}, []string{"errors", "limit"}},
		`max(errors_total != scalar(max(limit)))`:                                                {[]string{"errors_total limit"}, []string{"errors_total", "limit"}},
		`max(errors >= bool scalar(max(limit)))`:                                                 {[]string{"errors limit"}, []string{"errors", "limit"}},
		`max(errors) / (scalar(count(replicas)) > bool 0)`:                                       {[]string{"errors replicas"}, []string{"errors", "replicas"}},
		`max(errors) and on () vector(scalar(max(flag))) == 2`:                                   {[]string{"errors flag"}, []string{"errors", "flag"}},
		`max(errors) / scalar(count(replicas == 2) and on () max(flag == 2))`:                    {[]string{"errors replicas flag"}, []string{"errors replicas", "errors flag"}},
		`max(errors) / scalar(max(count_values("v", replicas)))`:                                 {[]string{"errors replicas"}, []string{"errors"}},
		`max(errors) / scalar(label_replace(sum(replicas > 0), "a", "b", "", ""))`:               {[]string{"errors replicas"}, []string{"errors"}},
		`max(errors) / scalar(histogram_quantile(0.9, sum by (le) (rate(lat_bucket[5m]) > 0)))`:  {[]string{"errors lat_bucket"}, []string{"errors"}},
		`max(errors) / on () group_left () (scalar(sum(replicas)) * max(errors))`:                {[]string{"errors replicas"}, []string{"errors", "replicas"}},
		`max(errors) / scalar(sum(replicas * on (instance) group_left () (weight > 0)))`:         {[]string{"errors replicas weight"}, []string{"errors replicas", "errors weight"}},
		`max(errors) / scalar(max(quantile_over_time(scalar(max(q) > 0), x[5m] offset 1m) > 0))`: {[]string{"errors x q"}, []string{"errors x", "errors q"}},
		`max(errors) / scalar(max_over_time((sum by (instance) (replicas) > 0)[5m:1m]))`:         {[]string{"errors replicas"}, []string{"errors"}},
	} {
		guard := guardOf(t, unusual(text, "", func(tr *alerts.Trigger) { tr.Window, tr.Sustained = 0, model.Duration(5*time.Minute) }))
		for _, have := range want.healthy {
			if fires(t, guard, have) {
				t.Errorf("%s: a healthy service with only %q is reported:\n%s", text, have, guard)
			}
		}
		for _, have := range want.gone {
			if !fires(t, guard, have) {
				t.Errorf("%s: nobody learns that there is only %q:\n%s", text, have, guard)
			}
		}
	}
}

// guardOf is the expression that reports that a playbook's only indicator has no series, or one that never does.
func guardOf(t *testing.T, pb *alerts.Playbook) string {
	t.Helper()
	files, err := rules.Settings{}.Generate(pb)
	if err != nil {
		t.Fatal(pb.Indicators[0].Query, err)
	}
	var loaded struct {
		Groups []struct {
			Rules []struct {
				Alert, Expr string
				Labels      map[string]string
			}
		}
	}
	for _, f := range files {
		if strings.HasSuffix(f.Name, ".rules.yml") {
			if err := yaml.Unmarshal(f.Content, &loaded); err != nil {
				t.Fatal(err)
			}
		}
	}
	for _, g := range loaded.Groups {
		for _, r := range g.Rules {
			if r.Alert == "IndicatorAbsent" && r.Labels["reason"] == "" {
				return r.Expr
			}
		}
	}
	return "vector(1) == 0" // it needs none
}

// fires reports whether an expression has a value, NaN or not, if there are only the series named:
// each is 2 from the beginning, or grows by 2 with each scrape if its name is a counter's.
func fires(t *testing.T, expr, names string) bool {
	t.Helper()
	const scrapes = 60
	sim := series.NewSimulator(15*time.Second, series.MostSamples)
	defer sim.Close()
	var all []series.Samples
	for _, name := range strings.Fields(names) {
		run := series.Stretch{From: 2, N: scrapes}
		if strings.HasSuffix(name, "_total") || strings.HasSuffix(name, "_bucket") {
			run.By = 2
		}
		all = append(all, series.Track{Name: name, Labels: map[string]string{"instance": "one", "le": "+Inf"}, Runs: []series.Stretch{run}}.MadeUp())
	}
	_, yes, err := sim.Value(all, "count("+expr+"\n)", scrapes-1)
	if err != nil {
		t.Fatal(err)
	}
	return yes
}
