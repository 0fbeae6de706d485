package preflight

import (
	"context"
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"

	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/promql/parser"

	"github.com/locotoki/backout/alerts"
	"github.com/locotoki/backout/remediation"
	"github.com/locotoki/backout/remediation/plan"
	"github.com/locotoki/backout/rules/query"
)

// alive is the playbook's query that is not an indicator's.
const alive = "alive"

// returnsData asks a query for data, then without its guard against few requests.
func (e *Checker) returnsData(ctx context.Context, b *plan.Plan, name string) remediation.Result {
	expr, unguarded := b.Expr.Alive, b.Expr.Alive
	if name != alive {
		ind := b.Indicator(name)
		span, volume := b.Widest(name)
		expr, unguarded = b.Expand(ind.Query, span, volume), b.Expand(ind.Query, span, 0)
	}
	value, ok, err := e.Prometheus.Query(ctx, expr)
	if err != nil {
		return remediation.ResultOf(err)
	}
	if ok {
		return remediation.Passed("its value is " + number(value))
	}
	if value, ok, err = e.Prometheus.Query(ctx, unguarded); err == nil && ok {
		return remediation.Passed("its value would be " + number(value) + "; there are fewer requests than min_volume")
	}
	missing, err := e.missingSeries(ctx, expr)
	if err != nil {
		return remediation.ResultOf(err)
	}
	if missing != "" {
		return remediation.Failed("Prometheus has no series "+missing, "fix the query or selectors: in the playbook, or the scrape configuration")
	}
	return remediation.Unknown("its series exist but have no value in its window: no traffic", "send it requests, or sign it off").Because("no traffic")
}

// missingSeries returns the first selector of an expression that no series matches
// over the last hour, "" where all have some.
func (e *Checker) missingSeries(ctx context.Context, expr string) (string, error) {
	parsed, err := remediation.PromQL().ParseExpr(expr)
	if err != nil {
		return "", fmt.Errorf("read the expression %q: %w", expr, err)
	}
	for _, s := range selectorsOf(parsed) {
		_, ok, err := e.Prometheus.Query(ctx, "count(last_over_time("+s+"[1h]))")
		if err != nil {
			return "", err
		}
		if !ok {
			return s, nil
		}
	}
	return "", nil
}

// selectorsOf returns the selectors of an expression, each without its range and
// offset.
func selectorsOf(expr parser.Expr) []string {
	var out []string
	parser.Inspect(expr, func(n parser.Node, _ []parser.Node) error {
		if v, ok := n.(*parser.VectorSelector); ok {
			if s := (&parser.VectorSelector{Name: v.Name, LabelMatchers: v.LabelMatchers}).String(); !slices.Contains(out, s) {
				out = append(out, s)
			}
		}
		return nil
	})
	return out
}

func number(v float64) string { return strconv.FormatFloat(v, 'g', 6, 64) }

// bucketsFit compares the thresholds of a quantile with the bounds that the live
// histograms have: between two bounds a quantile is a guess.
func (e *Checker) bucketsFit(ctx context.Context, b *plan.Plan, name string) remediation.Result {
	ind := b.Indicator(name)
	expr, err := b.WidestQuery(ind)
	if err != nil {
		return remediation.ResultOf(err)
	}
	for _, h := range histogramsOf(expr) {
		values, err := e.runner.sources.LabelValues(ctx, h, labels.BucketLabel)
		if err != nil {
			return remediation.ResultOf(err)
		}
		if f := fits(ind, b.Thresholds(ind), values, query.Conversion(expr), h); f.Status != remediation.Pass {
			return f
		}
	}
	return remediation.Passed("each threshold is a bucket bound")
}

// histogramsOf returns the selectors that a quantile is taken from.
func histogramsOf(expr parser.Expr) []string {
	var out []string
	parser.Inspect(expr, func(n parser.Node, _ []parser.Node) error {
		if call, ok := n.(*parser.Call); ok && call.Func.Name == "histogram_quantile" {
			out = append(out, selectorsOf(call.Args[1])...)
		}
		return nil
	})
	return out
}

// fits judges thresholds by a histogram's bounds, which are its le values, converted to
// the indicator's unit by the factor that its query multiplies them by.
func fits(ind *alerts.Indicator, thresholds []float64, le []string, factor float64, selector string) remediation.Result {
	var bounds []float64
	for _, text := range le {
		if v, err := strconv.ParseFloat(text, 64); err == nil && !math.IsInf(v, 0) {
			bounds = append(bounds, query.Round(v*factor))
		}
	}
	slices.Sort(bounds)
	bounds = slices.Compact(bounds)
	if len(bounds) == 0 {
		return remediation.Unknown("Prometheus has no buckets of "+selector, "check that the service exports the histogram and that it is scraped")
	}
	has := "the buckets are " + numbers(bounds)
	if len(ind.Buckets) > 0 && !slices.Equal(sorted(ind.Buckets), bounds) {
		return remediation.Failed(fmt.Sprintf("%s; the playbook has %s", has, numbers(sorted(ind.Buckets))), "buckets: ["+strings.ReplaceAll(numbers(bounds), " ", ", ")+"] in the playbook, or in the service")
	}
	var between []string
	for _, t := range thresholds {
		at, exact := slices.BinarySearch(bounds, t)
		switch {
		case exact:
		case at == len(bounds):
			return remediation.Failed(fmt.Sprintf("no quantile can exceed %s, but the threshold is %s; %s", number(bounds[at-1]), number(t), has), "a bucket of "+number(t)+" in the service")
		case at == 0:
			between = append(between, fmt.Sprintf("%s (below %s)", number(t), number(bounds[0])))
		default:
			between = append(between, fmt.Sprintf("%s (between %s and %s)", number(t), number(bounds[at-1]), number(bounds[at])))
		}
	}
	if len(between) > 0 {
		return remediation.Unknown("whether a quantile is beyond "+strings.Join(between, ", ")+" is a guess; "+has, "buckets at the thresholds in the service, or sign it off")
	}
	return remediation.Passed("")
}

func sorted(v []float64) []float64 {
	v = slices.Clone(v)
	slices.Sort(v)
	return v
}

func numbers(all []float64) string {
	out := make([]string, len(all))
	for i, v := range all {
		out[i] = number(v)
	}
	return strings.Join(out, " ")
}
