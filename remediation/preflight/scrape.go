package preflight

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/prometheus/common/model"

	"github.com/locotoki/backout/remediation"
	"github.com/locotoki/backout/remediation/plan"
)

// ownMetrics: Prometheus scrapes backout itself.
func (e *Checker) ownMetrics(ctx context.Context, b *plan.Plan, _ string) remediation.Result {
	return e.OwnSeries(ctx, "rollout_stage", b)
}

// scrapedInTime compares how often Prometheus scrapes, by the jobs of the series that are
// read, with what the rules count on.
func (e *Checker) scrapedInTime(ctx context.Context, b *plan.Plan, _ string) remediation.Result {
	intervals, err := e.runner.sources.ScrapeIntervals(ctx)
	if err != nil {
		return remediation.ResultOf(err)
	}
	var slow, unknown []string
	seen := map[string]bool{}
	look := func(what, job string, want time.Duration) {
		switch real, ok := intervals[job]; {
		case !ok:
			unknown = append(unknown, job)
		case real > want:
			slow = append(slow, fmt.Sprintf("%s: the job %s is scraped every %s, and the playbook says %s", what, job, model.Duration(real), model.Duration(want)))
		default:
			seen[fmt.Sprintf("%s every %s", job, model.Duration(real))] = true
		}
	}
	look("the service", b.Job, time.Duration(b.ScrapeInterval))
	for i := range b.Indicators {
		ind := &b.Indicators[i]
		parsed, err := b.WidestQuery(ind)
		if err != nil {
			continue // the loader has refused it
		}
		jobs := map[string]bool{}
		for _, s := range selectorsOf(parsed) {
			values, err := e.runner.sources.LabelValues(ctx, s, model.JobLabel)
			if err != nil {
				return remediation.ResultOf(err)
			}
			for _, job := range values {
				jobs[job] = true
			}
		}
		for _, job := range slices.Sorted(maps.Keys(jobs)) {
			look(ind.Name, job, time.Duration(b.ScrapeIntervalOf(ind)))
		}
	}
	slices.Sort(unknown)
	unknown = slices.Compact(unknown)
	switch {
	case len(slow) > 0:
		return remediation.Failed(strings.Join(slow, "; "), "set the indicator's scrape_interval to Prometheus's, with ranges of four scrapes, or shorten the job's in Prometheus")
	case len(unknown) > 0:
		return remediation.Unknown("this Prometheus does not scrape the jobs "+strings.Join(unknown, ", ")+" itself", "check how often they are scraped, and sign it off")
	}
	return remediation.Passed(strings.Join(slices.Sorted(maps.Keys(seen)), ", "))
}
