package rules_test

import (
	"strings"
	"testing"
	"time"

	"github.com/prometheus/common/model"

	"github.com/locotoki/backout/alerts"
	"github.com/locotoki/backout/rules"
)

func expressions(t *testing.T, pb *alerts.Playbook) rules.Expressions {
	t.Helper()
	x, err := rules.ExpressionsOf(pb)
	if err != nil {
		t.Fatal(err)
	}
	return x
}

func TestTheExpressionsOfTheSmallPlaybook(t *testing.T) {
	x := expressions(t, smallPlaybook())
	same(t, "alive", x.Alive, `(max(up{job="social-intel"}) == bool 1) * max(sum(increase(si_requests_total[2m])) > bool 0) or 0 * max(up{job="social-intel"})`)
	same(t, "age", x.Age, `time() - max(timestamp(up{job="social-intel"}))`)
	if len(x.Triggers) != 4 {
		t.Fatalf("%d triggers, want the four that have an indicator", len(x.Triggers))
	}
	e := x.Triggers["error_rate"]
	same(t, "windowed recovery", e.Recovery, `max(
  (sum(increase(si_requests_total{status!="success"}[2m])) or 0 * sum(increase(si_requests_total[2m])))
    / (sum(increase(si_requests_total[2m])) >= 13)
)`)
	if e.Threshold != 0.01 || !e.Above || e.Window != 15*time.Minute || e.RecoveryWindow != 2*time.Minute {
		t.Errorf("error_rate: %+v", e)
	}
	cpu := x.Triggers["db_cpu"]
	same(t, "sustained value", cpu.Value, "max(\n  min_over_time(db_cpu[10m])\n  and count_over_time(db_cpu[10m]) >= 36\n  and present_over_time(db_cpu[1m] offset 10m)\n)")
	same(t, "sustained recovery", cpu.Recovery, "max(\n  max_over_time(db_cpu[2m])\n  and count_over_time(db_cpu[2m]) >= 6\n)")
	if g := x.Triggers["gamma_error_rate"]; strings.Contains(g.Value, "increase(si_requests_total") || strings.Contains(g.Recovery, "backout:") {
		t.Errorf("in a stage the value reads recordings only, and the recovery none: %+v", g)
	}
}

func same(t *testing.T, what, got, want string) {
	t.Helper()
	if got != want {
		t.Errorf("%s:\n%s\nwant\n%s", what, got, want)
	}
}

// judged returns the expressions of one trigger on one query.
func judged(t *testing.T, query string, change func(*alerts.Trigger)) rules.TriggerExpressions {
	t.Helper()
	pb := smallPlaybook()
	pb.Indicators[1].Query = query
	change(&pb.Triggers[1])
	return expressions(t, pb).Triggers["db_cpu"]
}

func TestAValueBelowIsSustainedByItsGreatestSample(t *testing.T) {
	low := 20.0
	x := judged(t, `idle`, func(tr *alerts.Trigger) { tr.Above, tr.Below = nil, &low })
	for part, in := range map[string]string{"min(\n  max_over_time(idle[10m])": x.Value, "min(\n  min_over_time(idle[2m])": x.Recovery} {
		if !strings.HasPrefix(in, part) {
			t.Errorf("want %s...: %s", part, in)
		}
	}
	if x.Above || x.Threshold != 20 {
		t.Errorf("%+v", x)
	}
}

func TestAnExporterThatDiedHasNoValue(t *testing.T) {
	x := judged(t, `used / size`, func(*alerts.Trigger) {})
	same(t, "value", x.Value, "max(\n  min_over_time((last_over_time(used[30s]) / last_over_time(size[30s]))[10m:15s])\n"+
		"  and count_over_time((last_over_time(used[30s]) / last_over_time(size[30s]))[10m:15s]) >= 36\n"+
		"  and present_over_time((last_over_time(used[30s]) / last_over_time(size[30s]))[1m:15s] offset 10m)\n)")
}

func TestARateInsideDoesNotMakeARecoveryLookBackBeforeTheStep(t *testing.T) {
	x := judged(t, `1 - avg(rate(idle[1m]))`, func(*alerts.Trigger) {})
	if !strings.Contains(x.Recovery, "[1m:15s]") || x.RecoveryWindow != 2*time.Minute {
		t.Errorf("looks back %s: %s", x.RecoveryWindow, x.Recovery)
	}
	// Where the window is too short for that, the engine is told the truth.
	x = judged(t, `1 - avg(rate(idle[5m]))`, func(*alerts.Trigger) {})
	if !strings.Contains(x.Recovery, "[1m:15s]") || x.RecoveryWindow != 6*time.Minute {
		t.Errorf("looks back %s: %s", x.RecoveryWindow, x.Recovery)
	}
}

func TestSelectorsOfAStageAreRecordedSeriesBySeries(t *testing.T) {
	pb := smallPlaybook()
	pb.Indicators[0].Query = `histogram_quantile(0.95, sum by (le) (rate(lat_bucket{path="a]b"}[$window])))
  and on () (sum(increase(lat_count{path!="x"}[$window] offset 1m)) + sum(increase(lat_count[$window])) >= $min_volume)`
	got := map[string]string{}
	for _, r := range rulesOf(t, generate(t, pb)["rules/social-intel.rules.yml"]).Groups[0].Rules {
		if r.Record != "" {
			got[r.Record+r.Labels["trigger"]] = r.Expr
		}
	}
	const name = "backout:stage:social_intel:gamma_error_rate:"
	const of = `{backout_service="social-intel"}`
	const stage = ` and on () backout:stage{service="social-intel",stage=~"gamma|delta"}`
	const shares = `rollout_stage{service="social-intel",stage=~"gamma|delta"}[5m]`
	for record, expr := range map[string]string{
		name + "lat_bucket":  `lat_bucket{path="a]b"}` + stage,
		name + "lat_count":   `lat_count{path!="x"}` + stage,
		name + "2:lat_count": `lat_count` + stage,
		"backout:trigger_valuegamma_error_rate": "max(\n  histogram_quantile(0.95, sum by (le) (rate(" + name + "lat_bucket" + of + "[5m])))\n" +
			"    and on () (sum(increase(" + name + "lat_count" + of + "[5m] offset 1m)) + sum(increase(" + name + "2:lat_count" + of + "[5m])) >= 100)\n)\n" +
			`and on () sum(sum by (stage) (sum_over_time(` + shares + `)) / sum by (stage) (count_over_time(` + shares + `))) >= 0.99` + "\n" + strings.TrimSpace(stage),
	} {
		same(t, record, got[record], expr)
	}
}

func TestWhatCannotBeGeneratedIsRefusedInClearWords(t *testing.T) {
	zero := 0.0
	for _, c := range []struct {
		name   string
		change func(*alerts.Playbook)
		want   string
	}{
		{"a stage trigger that compares two moments", func(pb *alerts.Playbook) {
			pb.Indicators[0].Query = `sum(x{a="b"}) - sum(x{a="b"} offset $window) + 0 * $min_volume`
		}, `trigger gamma_error_rate: it counts only in a stage, but "x{a=\"b\"} offset 5m" looks at another moment than the rest of the query`},
		{"a stage trigger without a metric's name", func(pb *alerts.Playbook) {
			pb.Indicators[0].Query = `sum(increase({a="b"}[$window]))`
		}, `does not name its metric`},
		{"a stage trigger on a fixed moment", func(pb *alerts.Playbook) {
			pb.Indicators[1].Query = `rate(x[1m] @ 0)`
		}, `trigger delta_cpu: it counts only in a stage, but "x" has the @ modifier`},
		{"sustained without an instant query", func(pb *alerts.Playbook) { pb.Triggers[1].Indicator = "error_rate" },
			"trigger db_cpu: the query of indicator error_rate holds $window, and window is not set"},
		{"a window without $window", func(pb *alerts.Playbook) { pb.Triggers[0].Indicator = "db_cpu" },
			"trigger error_rate: the query of indicator db_cpu holds no $window, and sustained is not set"},
		{"no such indicator", func(pb *alerts.Playbook) { pb.Triggers[0].Indicator = "speed" }, `there is no indicator "speed"`},
		{"no recovery", func(pb *alerts.Playbook) { pb.Triggers[0].Recovery.Window = 0 }, "recovery.window is not set"},
		{"a function that Prometheus 2.42 lacks", func(pb *alerts.Playbook) { pb.Indicators[1].Query = "first_over_time(x[1m])" },
			"expression for Prometheus 2.42 and later"},
		{"an alive that is not PromQL", func(pb *alerts.Playbook) { pb.Alive = "sum(" }, "alive: expression"},
	} {
		t.Run(c.name, func(t *testing.T) {
			pb := smallPlaybook()
			c.change(pb)
			_, err := rules.Settings{}.Generate(pb)
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("got %v, want %q", err, c.want)
			}
		})
	}
	// Anything above zero is a breach: then the moments may differ.
	pb := smallPlaybook()
	pb.Indicators[0].Query = `sum(x{a="b"}) - sum(x{a="b"} offset $window) + 0 * $min_volume`
	pb.Triggers[2].Above = &zero
	expressions(t, pb)
}

func TestAQueryThatNoSeriesCanBeMadeUpForIsAWarning(t *testing.T) {
	pb := smallPlaybook()
	pb.Triggers[1].Sustained = model.Duration(5 * time.Minute)
	pb.Indicators[1].Query = `hour()`
	files, err := rules.Settings{}.Generate(pb)
	if err != nil {
		t.Fatal(err)
	}
	var warned []string
	for _, f := range files {
		for _, w := range f.Warnings {
			warned = append(warned, w)
			if !strings.Contains(string(f.Content), "# Not covered: "+w) {
				t.Errorf("%s does not say that it does not cover %s", f.Name, w)
			}
		}
	}
	if got := strings.Join(warned, "\n"); !strings.Contains(got, "trigger db_cpu") || !strings.Contains(got, "trigger delta_cpu") {
		t.Errorf("warnings: %s", got)
	}
}

func TestThePlaybooksWordsAreNoTemplates(t *testing.T) {
	pb := smallPlaybook()
	pb.Triggers[0].Description = "Look at {{ .Secret }} and {{"
	pb.RunbookURL = "https://example.com/{{x}}"
	text := generate(t, pb)["rules/social-intel.rules.yml"]
	if !strings.Contains(text, `Look at {{"{{"}} .Secret }} and {{"{{"}}.`) {
		t.Error("the description can be read as a template")
	}
}
