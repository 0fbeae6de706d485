package rules_test

import (
	"testing"
	"time"

	"github.com/prometheus/common/model"

	"github.com/locotoki/backout/alerts"
	"github.com/locotoki/backout/rules"
)

func TestACriterionIsJudgedByWhatIsNearestToLeavingItsBound(t *testing.T) {
	pb := smallPlaybook()
	bound := 0.5
	for name, c := range map[string]struct {
		criterion alerts.Criterion
		want      string
	}{
		"a share below its bound": {
			alerts.Criterion{Indicator: "error_rate", Below: &bound, Window: model.Duration(time.Hour), MinVolume: 1000},
			`max(
  (sum(increase(si_requests_total{status!="success"}[1h])) or 0 * sum(increase(si_requests_total[1h])))
    / (sum(increase(si_requests_total[1h])) >= 1000)
)`,
		},
		"a gauge below its bound at each moment": {
			alerts.Criterion{Indicator: "db_cpu", Below: &bound, Sustained: model.Duration(10 * time.Minute)},
			"max(\n  max_over_time(db_cpu[10m])\n  and count_over_time(db_cpu[10m]) >= 36\n)",
		},
		"a gauge above its bound at each moment": {
			alerts.Criterion{Indicator: "db_cpu", Above: &bound, Sustained: model.Duration(10 * time.Minute)},
			"min(\n  min_over_time(db_cpu[10m])\n  and count_over_time(db_cpu[10m]) >= 36\n)",
		},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := rules.CriterionExpression(pb, &c.criterion)
			if err != nil {
				t.Fatal(err)
			}
			same(t, name, got, c.want)
		})
	}
	if _, err := rules.CriterionExpression(pb, &alerts.Criterion{Indicator: "error_rate", Below: &bound, Sustained: model.Duration(10 * time.Minute)}); err == nil {
		t.Error("a windowed query without a window has an expression")
	}
}

func TestACriterionWithAWindowIsJudgedOverTheWholeStageToo(t *testing.T) {
	pb := smallPlaybook()
	bound := 0.5
	share := alerts.Criterion{Indicator: "error_rate", Below: &bound, Window: model.Duration(time.Hour), MinVolume: 1000}
	gauge := alerts.Criterion{Indicator: "db_cpu", Below: &bound, Sustained: model.Duration(10 * time.Minute)}
	for name, c := range map[string]struct {
		criterion alerts.Criterion
		over      time.Duration
		want      string
	}{
		"a stage longer than its window, rounded up to a scrape": {share, 26*time.Hour - 10*time.Second, `max(
  (sum(increase(si_requests_total{status!="success"}[1d2h])) or 0 * sum(increase(si_requests_total[1d2h])))
    / (sum(increase(si_requests_total[1d2h])) >= 1000)
)`},
		"a stage as long as its window":  {share, time.Hour, ""},
		"a value that must be sustained": {gauge, 26 * time.Hour, ""},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := rules.StageExpression(pb, &c.criterion, c.over)
			if err != nil {
				t.Fatal(err)
			}
			same(t, name, got, c.want)
		})
	}
}
