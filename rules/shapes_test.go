package rules_test

import (
	"testing"
	"time"

	"github.com/prometheus/common/model"

	"github.com/locotoki/backout/alerts"
)

// shapesPlaybook has queries of other shapes than the default playbook's.
func shapesPlaybook() *alerts.Playbook {
	minutes := func(n int) model.Duration { return model.Duration(time.Duration(n) * time.Minute) }
	number := func(f float64) *float64 { return &f }
	pb := smallPlaybook()
	pb.Indicators, pb.Triggers = nil, nil
	pb.Stages = []alerts.Stage{{Name: "alpha"}}
	add := func(query string, stage int, t alerts.Trigger) {
		t.Name = string(rune('a'+len(pb.Triggers))) + "_trigger"
		t.Indicator, t.Plan, t.Recovery.Window = t.Name, "ladder", minutes(2)
		pb.Indicators = append(pb.Indicators, alerts.Indicator{Name: t.Name, Query: query, Unit: alerts.Count})
		pb.Triggers = append(pb.Triggers, t)
		if stage >= 0 {
			pb.Stages[stage].Rollback = append(pb.Stages[stage].Rollback, t.Name)
		}
	}
	const (
		hits  = `sum(rate(hits_total{cache="a"}[$window])) / sum(rate(lookups_total{cache="a"}[$window]))`
		disk  = `disk_free_bytes{device=~"sd[a-z]+"} / disk_size_bytes{device=~"sd[a-z]+"}`
		depth = `avg_over_time(queue_depth{queue!="dead"}[$window])`
		share = `100 * sum(increase(lat_bucket{le="0.5"}[$window])) / (sum(increase(lat_count[$window])) >= $min_volume)`
	)
	for _, stage := range []int{-1, 0} {
		add(hits, stage, alerts.Trigger{Below: number(0.6), Window: minutes(5)})
		add(disk, stage, alerts.Trigger{Below: number(0.1), Sustained: minutes(5)})
		add(depth, stage, alerts.Trigger{Above: number(1000), Window: minutes(5)})
		add(share, stage, alerts.Trigger{Below: number(95), Window: minutes(5), MinVolume: 50})
		pb.Triggers[len(pb.Triggers)-1].Recovery.MinVolume = 20
	}
	return pb
}

func TestOtherShapesOfQueriesAreTestedToo(t *testing.T) {
	t.Parallel()
	promtoolAgrees(t, generate(t, shapesPlaybook()), aboutBounds)
}
