package rules

import (
	"fmt"
	"time"

	"github.com/prometheus/common/model"

	"github.com/locotoki/backout/alerts"
	"github.com/locotoki/backout/rules/query"
)

// CriterionExpression is the expression for the current state of a success
// criterion: the value that its bound is compared with, over its window or at each
// moment of its sustained time. It has no value if there are too few samples.
func CriterionExpression(pb *alerts.Playbook, c *alerts.Criterion) (string, error) {
	// Whatever is nearest to leaving the bound counts: a criterion that wants a
	// value below is evaluated by the highest one.
	above := c.Below != nil
	q, err := query.Of(pb, c.Indicator, query.Bound{Above: above, Window: c.Window, Sustained: c.Sustained, MinVolume: c.MinVolume})
	if err != nil {
		return "", fmt.Errorf("criterion %s: %w", c.Indicator, err)
	}
	var text string
	if q.Instant() {
		most := "max_over_time"
		if !above {
			most = "min_over_time"
		}
		text, _, err = q.SustainedOver(query.OverTime, most, time.Duration(c.Sustained))
	} else {
		text, _, err = q.Value()
	}
	if err != nil {
		return "", fmt.Errorf("criterion %s: %w", c.Indicator, err)
	}
	return text, nil
}

// StageExpression is the PromQL for a stage's criterion over the whole stage, which
// has lasted for over: CriterionExpression with over as its window. It is "" if that
// adds nothing: the stage is no longer than the criterion's own window, or the
// criterion is sustained.
func StageExpression(pb *alerts.Playbook, c *alerts.Criterion, over time.Duration) (string, error) {
	scrape := time.Duration(pb.ScrapeInterval)
	if over = (over + scrape - 1) / scrape * scrape; c.Window <= 0 || over <= time.Duration(c.Window) {
		return "", nil
	}
	whole := *c
	whole.Window = model.Duration(over)
	return CriterionExpression(pb, &whole)
}
