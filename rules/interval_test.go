package rules_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/common/model"

	"github.com/locotoki/backout/alerts"
	"github.com/locotoki/backout/rules"
)

// slowPlaybook judges what an exporter tells once a minute, of a service that is
// scraped every 15 seconds.
func slowPlaybook() *alerts.Playbook {
	minutes := func(n int) model.Duration { return model.Duration(time.Duration(n) * time.Minute) }
	number := func(f float64) *float64 { return &f }
	pb := smallPlaybook()
	pb.Indicators, pb.Triggers = nil, nil
	pb.Stages = []alerts.Stage{{Name: "delta", Traffic: "0.5", Rollback: []string{"cpu_in_stage", "memory_in_stage", "errors_in_stage"}}}
	add := func(name, query string, unit alerts.Unit, t alerts.Trigger) {
		t.Name, t.Indicator, t.Plan, t.Recovery.Window = name, name, "ladder", minutes(4)
		pb.Indicators = append(pb.Indicators, alerts.Indicator{Name: name, Query: query, Unit: unit, ScrapeInterval: minutes(1)})
		pb.Triggers = append(pb.Triggers, t)
	}
	for _, stage := range []string{"", "_in_stage"} {
		add("cpu"+stage, `max(1 - avg by (instance) (rate(node_cpu_seconds_total{job="node",mode="idle"}[4m])))`, alerts.Ratio, alerts.Trigger{Above: number(0.85), Sustained: minutes(10)})
		add("memory"+stage, `max(memory_bytes{job="node"} / (memory_limit_bytes{job="node"} > 0))`, alerts.Ratio, alerts.Trigger{Above: number(0.9), Sustained: minutes(10)})
		add("errors"+stage, `sum(increase(proxy_errors_total{job="proxy"}[$window])) / (sum(increase(proxy_requests_total{job="proxy"}[$window])) >= $min_volume)`, alerts.Ratio,
			alerts.Trigger{Above: number(0.01), Window: minutes(15), MinVolume: 1000, Recovery: alerts.Recovery{MinVolume: 80}})
	}
	return pb
}

func TestAnIndicatorIsJudgedByItsOwnScrapeInterval(t *testing.T) {
	t.Parallel()
	pb := slowPlaybook()
	x, err := rules.ExpressionsOf(pb)
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"[10m:1m]", "last_over_time(memory_bytes{job=\"node\"}[2m])", ">= 8"} {
		if e := x.Triggers["memory"].Value; !strings.Contains(e, want) {
			t.Errorf("the value does not hold %q: %s", want, e)
		}
	}
	if found, err := rules.Check(pb); err != nil || len(found.Errors)+len(found.Warnings) > 0 {
		t.Errorf("%v\n%v\n%v", found.Errors, found.Warnings, err)
	}
	promtoolAgrees(t, generate(t, pb), aboutBounds)
}

// An exporter that is scraped every minute where the playbook says every 15
// seconds: nothing can be judged, and somebody hears of it, rollout or not.
func TestDataThatIsTooThinIsToldOf(t *testing.T) {
	t.Parallel()
	files := generate(t, nil)
	files["rules/social-intel.test.yml"] = `evaluation_interval: 15s
tests:
  - name: node_exporter and cAdvisor are scraped every minute
    interval: 1m
    input_series:
      - {series: 'rollout_stage{service="social-intel",stage="none"}', values: 1x40}
      - {series: 'node_cpu_seconds_total{job="node-exporter",instance="analytics-db",mode="idle",cpu="0"}', values: 0+0.6x40}
      - {series: 'container_memory_working_set_bytes{job="cadvisor",container_label_com_docker_compose_service="social-intel",id="1"}', values: 990x40}
      - {series: 'container_spec_memory_limit_bytes{job="cadvisor",container_label_com_docker_compose_service="social-intel",id="1"}', values: 1000x40}
    promql_expr_test:
      - expr: count by (indicator) (ALERTS{alertname="IndicatorAbsent",reason="scrape_interval",alertstate="firing"})
        eval_time: 30m
        exp_samples: [{labels: '{indicator="database_cpu"}', value: 1}, {labels: '{indicator="memory_usage"}', value: 1}]
      - {expr: 'ALERTS{alertname=~"Rollback.*"}', eval_time: 30m, exp_samples: []}
  - name: every 15 seconds, with a scrape lost now and then
    interval: 15s
    input_series:
      - {series: 'node_cpu_seconds_total{job="node-exporter",instance="analytics-db",mode="idle",cpu="0"}', values: 0+6x19 _ 126+6x18 _ 246+6x18 _ 366+6x18 _ 486+6x40}
    promql_expr_test:
      - {expr: 'ALERTS{alertname="IndicatorAbsent",indicator="database_cpu"}', eval_time: 24m, exp_samples: []}
`
	promtoolAgrees(t, files, func(name string) bool {
		return strings.HasPrefix(name, "node_exporter and") || strings.HasPrefix(name, "every 15 seconds")
	})
}

// A recording repeats each scrape of a slow exporter: one scrape of 95% lasts for as many
// samples as a sustained value needs of the scraped series.
func TestOneScrapeOfASlowExporterIsNotSustainedInAStage(t *testing.T) {
	t.Parallel()
	pb := slowPlaybook()
	files := generate(t, pb)
	text := `evaluation_interval: 15s
tests:
  - name: back after 12 minutes at 95%, and one scrape lost later
    interval: 1m
    input_series:
      - {series: 'rollout_stage{service="SERVICE",stage="delta"}', values: 1x60}
      - {series: 'memory_bytes{job="node",instance="a"}', values: '50x15 _x12 95x14 _ 95x15'}
      - {series: 'memory_limit_bytes{job="node",instance="a"}', values: '100x15 _x12 100x14 _ 100x15'}
    promql_expr_test:
`
	for at, n := range map[string]int{"28m": 0, "30m": 0, "31m": 0, "32m": 0, "34m": 0, "39m": 1, "43m45s": 1, "45m": 1} {
		text += fmt.Sprintf("      - {expr: 'count(ALERTS{alertname=\"RollbackMemoryInStage\",alertstate=\"firing\"}) or vector(0)', eval_time: %s, exp_samples: [{labels: '{}', value: %d}]}\n", at, n)
	}
	files["rules/"+pb.Service+".test.yml"] = strings.ReplaceAll(text, "SERVICE", pb.Service)
	promtoolAgrees(t, files, func(name string) bool { return strings.HasPrefix(name, "back after") })
}

// Prometheus 3 reads too low a rate at the one evaluation whose range begins with the
// scrape that was lost.
func TestALostScrapeDoesNotEndASustainedRate(t *testing.T) {
	t.Parallel()
	files := generate(t, nil)
	files["rules/social-intel.test.yml"] = `evaluation_interval: 15s
tests:
  - name: 95% of the CPU's limit in delta, one scrape lost
    interval: 15s
    input_series:
      - {series: 'rollout_stage{service="social-intel",stage="delta"}', values: 1x200}
      - {series: 'container_cpu_usage_seconds_total{job="cadvisor",container_label_com_docker_compose_service="social-intel",id="1"}', values: 0+14.25x100 _ 1453.5+14.25x40 2023.5+7.5x60}
      - {series: 'container_spec_cpu_quota{job="cadvisor",container_label_com_docker_compose_service="social-intel",id="1"}', values: 100000x250}
      - {series: 'container_spec_cpu_period{job="cadvisor",container_label_com_docker_compose_service="social-intel",id="1"}', values: 100000x250}
    promql_expr_test:
      - {expr: 'count(ALERTS{alertname="RollbackDeltaCpu",alertstate="firing"})', eval_time: 24m, exp_samples: [{labels: '{}', value: 1}]}
      - {expr: 'count(ALERTS{alertname="RollbackDeltaCpu",alertstate="firing"})', eval_time: 26m, exp_samples: [{labels: '{}', value: 1}]}
      - {expr: 'count(ALERTS{alertname="RollbackDeltaCpu",alertstate="firing"})', eval_time: 30m, exp_samples: [{labels: '{}', value: 1}]}
      - {expr: 'ALERTS{alertname="RollbackDeltaCpu"}', eval_time: 38m, exp_samples: []}
`
	promtoolAgrees(t, files, func(name string) bool { return strings.HasPrefix(name, "95% of") })
}

// A canary may have other buckets than the release before it: what only some of the
// series count must not be added up. Here 96% take less than 0.4 s in one of the
// instances, and all less than 0.5 s in the other.
func TestOtherBucketsInTheNewReleaseRollNothingBack(t *testing.T) {
	t.Parallel()
	var series strings.Builder
	for instance, counts := range map[string]map[string]int{
		"old": {"0.2": 0, "0.4": 96, "0.8": 100, "2.0": 100, "+Inf": 100},
		"new": {"0.2": 0, "0.4": 60, "0.5": 100, "0.75": 100, "0.8": 100, "2.0": 100, "+Inf": 100},
	} {
		for le, n := range counts {
			fmt.Fprintf(&series, "      - {series: 'si_latency_seconds_bucket{job=\"social-intel\",instance=%q,endpoint=\"/analytics/trends\",le=%q}', values: 0+%dx80}\n", instance, le, n)
		}
		fmt.Fprintf(&series, "      - {series: 'si_latency_seconds_count{job=\"social-intel\",instance=%q,endpoint=\"/analytics/trends\"}', values: 0+100x80}\n", instance)
	}
	files := generate(t, nil)
	files["rules/social-intel.test.yml"] = `evaluation_interval: 15s
tests:
  - name: two releases with other buckets
    interval: 15s
    input_series:
` + series.String() + `    promql_expr_test:
      - {expr: 'ALERTS{alertname="RollbackP95Latency"}', eval_time: 20m, exp_samples: []}
      - {expr: 'count(backout:trigger_value{service="social-intel",trigger="p95_latency"})', eval_time: 20m, exp_samples: [{labels: '{}', value: 1}]}
`
	promtoolAgrees(t, files, func(name string) bool { return strings.HasPrefix(name, "two releases") })
}

// A stage's recordings have no two samples in such a window unless the rules are
// evaluated at each scrape.
func TestAWindowOfAStageMayBeShort(t *testing.T) {
	t.Parallel()
	seconds := func(n int) model.Duration { return model.Duration(time.Duration(n) * time.Second) }
	pb := smallPlaybook()
	pb.ScrapeInterval, pb.Alive = seconds(1), `sum(increase(si_requests_total[4s])) > bool 0`
	pb.Indicators[0].Alert.Window = seconds(10)
	pb.Triggers = slices.DeleteFunc(pb.Triggers, func(t alerts.Trigger) bool { return t.Name != "gamma_error_rate" })
	pb.Triggers[0].Window, pb.Triggers[0].Recovery = seconds(10), alerts.Recovery{Window: seconds(4), MinVolume: 13}
	pb.Stages = pb.Stages[:1]
	promtoolAgrees(t, generate(t, pb), aboutBounds)
}

func TestTheTestsOfAStricterRecoveryHold(t *testing.T) {
	t.Parallel()
	stricter := 30.0
	pb := smallPlaybook()
	pb.Triggers, pb.Stages = pb.Triggers[1:2], nil
	pb.Triggers[0].Recovery.Above = &stricter
	promtoolAgrees(t, generate(t, pb), aboutBounds)
}
