// Package series makes up series for a query and evaluates it on them, with Prometheus's
// own engine in memory. rules writes its promtool tests from them and checks a playbook's
// queries on them; remediation/scenario runs the generated rules on its own series here.
//
// Invariants: it reads no file and no network; the same query gives the same series; a
// query for which none can be found is an error, never a test without series.
package series

import (
	"cmp"
	"fmt"
	"maps"
	"regexp/syntax"
	"slices"
	"strings"

	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/promql/parser"

	"github.com/locotoki/backout/alerts"
	"github.com/locotoki/backout/rules/query"
)

// Shape is how a family's level becomes samples.
type Shape int

const (
	// Counter: the level is a rate a second.
	Counter Shape = iota + 1
	// Gauge: the level is the value.
	Gauge
	// Fixed: a gauge whose level is not for the solver to choose.
	Fixed
	// Buckets: a histogram's bucket counters; the level says how slow its
	// observations are.
	Buckets
)

// family is a series, or the buckets of one histogram.
type family struct {
	Shape  Shape
	Name   string
	labels map[string]string
	// Specific is how many of the query's selectors match it; 0 for a family
	// that only the alive expression reads.
	Specific int
	// bounds are the finite upper bounds of buckets.
	bounds []float64
}

// String is the series as promtool reads it.
func (f *family) String() string { return Written(f.Name, f.labels) }

// Written is a series as PromQL writes it.
func Written(name string, lset map[string]string) string {
	var pairs []string
	for _, k := range slices.Sorted(maps.Keys(lset)) {
		pairs = append(pairs, k, lset[k])
	}
	return query.SelectorOf(name, pairs...)
}

// maxCombinations bounds the search for series that match the selectors.
const (
	maxCombinations = 20_000
	maxSelectors    = 60
)

// familiesOf makes up series for the selectors of a query, and for what alive
// reads: for each way of matching some of them and not the others, one.
func familiesOf(pb *alerts.Playbook, texts []string, bounds []float64) ([]family, error) {
	byMetric := map[string][]query.Selector{}
	own := map[*parser.VectorSelector]bool{}
	for i, text := range append(slices.Clone(texts), pb.Expand(pb.Alive, 0, 0), query.Targets(pb)) {
		expr, err := query.Parse(text)
		if err != nil {
			return nil, err
		}
		for _, s := range query.SelectorsOf(expr) {
			if s.Vector.Name == "" {
				return nil, fmt.Errorf("a selector does not name its metric")
			}
			byMetric[s.Vector.Name] = append(byMetric[s.Vector.Name], s)
			own[s.Vector] = i < len(texts)
		}
	}
	var families []family
	grouped, err := groupings(texts)
	if err != nil {
		return nil, err
	}
	for _, metric := range slices.Sorted(maps.Keys(byMetric)) {
		found, err := ofMetric(pb, metric, byMetric[metric], func(s query.Selector) bool { return own[s.Vector] })
		if err != nil {
			return nil, err
		}
		for i := range found {
			found[i].bounds = bounds
			for _, label := range grouped {
				if _, ok := found[i].labels[label]; !ok && found[i].Specific > 0 && found[i].Shape != Fixed && found[i].Shape != Buckets && !told(byMetric[metric], label) {
					found[i].labels[label] = "x"
				}
			}
		}
		families = append(families, found...)
	}
	return families, nil
}

// groupings are the labels by which expressions group: real series have them.
func groupings(texts []string) ([]string, error) {
	var names []string
	for _, text := range texts {
		expr, err := query.Parse(text)
		if err != nil {
			return nil, err
		}
		parser.Inspect(expr, func(n parser.Node, _ []parser.Node) error {
			if a, ok := n.(*parser.AggregateExpr); ok && !a.Without {
				names = append(names, a.Grouping...)
			}
			return nil
		})
	}
	slices.Sort(names)
	return slices.DeleteFunc(slices.Compact(names), func(n string) bool { return n == labels.BucketLabel }), nil
}

// told reports whether a selector looks at the label.
func told(selectors []query.Selector, label string) bool {
	return slices.ContainsFunc(selectors, func(s query.Selector) bool {
		return slices.ContainsFunc(s.Vector.LabelMatchers, func(m *labels.Matcher) bool { return m.Name == label })
	})
}

func ofMetric(pb *alerts.Playbook, metric string, selectors []query.Selector, own func(query.Selector) bool) ([]family, error) {
	pools := poolsOf(selectors)
	names := slices.Sorted(maps.Keys(pools))
	if len(selectors) > maxSelectors {
		return nil, fmt.Errorf("there are more than %d selectors of %s", maxSelectors, metric)
	}
	total := 1
	for _, n := range names {
		if total *= len(pools[n]); total > maxCombinations {
			return nil, fmt.Errorf("the selectors of %s have too many matchers", metric)
		}
	}
	kind := ShapeOf(metric, selectors)
	seen := map[uint64]bool{}
	var families []family
	for c := range total {
		lset := map[string]string{}
		for _, n := range names {
			if v := pools[n][c%len(pools[n])]; v != "" {
				lset[n] = v
			}
			c /= len(pools[n])
		}
		signature, specific := uint64(0), 0
		for i, s := range selectors {
			if matchesAll(s.Vector.LabelMatchers, labels.FromMap(withName(lset, metric))) {
				signature |= 1 << i
				if own(s) {
					specific++
				}
			}
		}
		if signature == 0 || seen[signature] {
			continue
		}
		seen[signature] = true
		for k, v := range map[string]string{"job": pb.Job, "instance": "a"} {
			if _, ok := pools[k]; !ok {
				lset[k] = v
			}
		}
		families = append(families, family{Shape: kind, Name: metric, labels: lset, Specific: specific})
	}
	if all := uint64(1)<<len(selectors) - 1; len(families) == 0 || covered(seen)&all != all {
		return nil, fmt.Errorf("no series could be made up that the selectors of %s match", metric)
	}
	return families, nil
}

func covered(seen map[uint64]bool) (all uint64) {
	for s := range seen {
		all |= s
	}
	return all
}

func withName(lset map[string]string, metric string) map[string]string {
	l := maps.Clone(lset)
	l[model.MetricNameLabel] = metric
	return l
}

// poolsOf returns, for each label that the selectors look at, values that tell
// them apart; "" is a series without the label.
func poolsOf(selectors []query.Selector) map[string][]string {
	pools := map[string][]string{}
	add := func(name, v string) {
		if !slices.Contains(pools[name], v) {
			pools[name] = append(pools[name], v)
		}
	}
	for _, s := range selectors {
		for _, m := range s.Vector.LabelMatchers {
			if m.Name == model.MetricNameLabel {
				continue
			}
			switch m.Type {
			case labels.MatchEqual, labels.MatchNotEqual:
				add(m.Name, m.Value)
			case labels.MatchRegexp, labels.MatchNotRegexp:
				if re, err := syntax.Parse(m.Value, syntax.Perl); err == nil {
					add(m.Name, example(re))
				}
			}
		}
	}
	for name := range pools {
		add(name, "other")
		add(name, "")
	}
	return pools
}

// example is a short text that a regular expression matches.
func example(re *syntax.Regexp) string {
	switch re.Op {
	case syntax.OpLiteral:
		return string(re.Rune)
	case syntax.OpCharClass:
		for _, r := range "ax0_-./" {
			for i := 0; i+1 < len(re.Rune); i += 2 {
				if re.Rune[i] <= r && r <= re.Rune[i+1] {
					return string(r)
				}
			}
		}
		if len(re.Rune) > 0 {
			return string(re.Rune[0])
		}
	case syntax.OpAnyChar, syntax.OpAnyCharNotNL:
		return "x"
	case syntax.OpCapture, syntax.OpPlus:
		return example(re.Sub[0])
	case syntax.OpAlternate:
		return example(re.Sub[0])
	case syntax.OpRepeat:
		return strings.Repeat(example(re.Sub[0]), re.Min)
	case syntax.OpConcat:
		var b strings.Builder
		for _, sub := range re.Sub {
			b.WriteString(example(sub))
		}
		return b.String()
	}
	return "" // empty matches, stars and question marks
}

// ShapeOf is the shape of a metric, by its name and by what selects it.
func ShapeOf(metric string, selectors []query.Selector) Shape {
	if metric == "up" {
		return Fixed
	}
	kind, le := Gauge, false
	for _, s := range selectors {
		if slices.Contains([]string{"rate", "irate", "increase", "resets"}, s.Call) {
			kind = Counter
		}
		for _, m := range s.Vector.LabelMatchers {
			le = le || m.Name == labels.BucketLabel
		}
	}
	if kind == Counter && strings.HasSuffix(metric, "_bucket") && !le {
		return Buckets
	}
	return kind
}

// shares is the cumulated share of observations in each bucket, the last one
// being +Inf. At a whole level i all of them are in bucket i; from there on to
// the next level they move to the next bucket, and each quantile rises steadily.
func (f *family) shares(level float64) []float64 {
	in := make([]float64, len(f.bounds)+1)
	i := int(level)
	in[i] += 1 - (level - float64(i))
	in[i+1] += level - float64(i)
	for i := 1; i < len(in); i++ {
		in[i] += in[i-1]
	}
	return in
}

// byUse orders families for the solver: what the query singles out comes first.
func byUse(families []family) []int {
	order := make([]int, len(families))
	for i := range order {
		order[i] = i
	}
	slices.SortStableFunc(order, func(a, b int) int {
		return cmp.Compare(families[b].Specific, families[a].Specific)
	})
	return order
}
