package rules_test

import (
	"strings"
	"testing"
	"time"

	"github.com/prometheus/common/model"

	"github.com/locotoki/backout/alerts"
	"github.com/locotoki/backout/rules"
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

// What a healthy service may be without is not taken for missing series.
func TestOnlyWhatAScalarNeedsIsTakenForMissingSeries(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]struct{ needs, not []string }{
		`scalar(count(replicas == 0)) / scalar(count(replicas))`:                      {[]string{"replicas"}, []string{"count(replicas == 0)"}},
		`max(errors) / scalar(sum(rate(births_total[5m])) > 0 or vector(1))`:          {nil, []string{"births_total"}},
		`max(errors) / scalar(count(replicas unless on (instance) maintenance == 1))`: {[]string{"replicas"}, []string{"maintenance"}},
	} {
		files, err := rules.Settings{}.Generate(unusual(text, "", func(tr *alerts.Trigger) { tr.Window, tr.Sustained = 0, model.Duration(5*time.Minute) }))
		if err != nil {
			t.Fatal(text, err)
		}
		for _, f := range files {
			if !strings.HasSuffix(f.Name, ".rules.yml") {
				continue
			}
			for _, series := range want.needs {
				if !strings.Contains(string(f.Content), "or absent(max("+series) {
					t.Errorf("%s: nobody misses %s:\n%s", text, series, f.Content)
				}
			}
			for _, series := range want.not {
				if strings.Contains(string(f.Content), "or absent(max("+series) {
					t.Errorf("%s: a healthy service without %s is reported:\n%s", text, series, f.Content)
				}
			}
		}
	}
}
