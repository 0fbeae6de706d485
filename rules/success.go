package rules

import (
	"fmt"
	"strconv"
	"time"

	"github.com/prometheus/common/model"

	"github.com/locotoki/backout/alerts"
)

// The recordings of a playbook's success criteria, with the labels service and
// criterion, which is the criterion as the playbook words it.
const (
	successRecording          = "backout:success_criterion"
	successThresholdRecording = "backout:success_threshold"
)

// successSuffix ends the name of the group that records them.
const successSuffix = "-success"

// successInterval is how often success criteria are evaluated: they look back over
// days, and nothing acts on them.
const successInterval = 5 * time.Minute

// successOf returns the group that records a playbook's success criteria, those of
// them that are measured, and their thresholds; nil if none is.
func successOf(pb *alerts.Playbook) (*group, error) {
	g := &group{Name: pb.Service + successSuffix, Interval: model.Duration(max(successInterval, time.Duration(pb.ScrapeInterval)))}
	for _, area := range pb.SuccessCriteria {
		for _, c := range area.Criteria {
			if c.Measure == nil {
				continue
			}
			expr, err := CriterionExpression(pb, c.Measure)
			if err != nil {
				return nil, err
			}
			threshold := c.Measure.Above
			if threshold == nil {
				threshold = c.Measure.Below
			}
			labels := map[string]string{"service": pb.Service, "criterion": c.Text}
			g.Rules = append(g.Rules,
				rule{Record: successRecording, Expr: expr, Labels: labels},
				rule{Record: successThresholdRecording, Expr: fmt.Sprintf("vector(%s)", strconv.FormatFloat(*threshold, 'g', -1, 64)), Labels: labels})
		}
	}
	if len(g.Rules) == 0 {
		return nil, nil
	}
	return g, nil
}
