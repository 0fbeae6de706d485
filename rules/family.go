package rules

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
)

// shape is how a family's level becomes samples.
type shape int

const (
	// counter: the level is a rate a second.
	counter shape = iota + 1
	// gauge: the level is the value.
	gauge
	// fixed: a gauge whose level is not for the solver to choose.
	fixed
	// buckets: a histogram's bucket counters; the level says how slow its
	// observations are.
	buckets
)

// family is a series, or the buckets of one histogram.
type family struct {
	shape  shape
	name   string
	labels map[string]string
	// specific is how many of the query's selectors match it; 0 for a family
	// that only the alive expression reads.
	specific int
	// bounds are the finite upper bounds of buckets.
	bounds []float64
}

// String is the series as promtool reads it.
func (f *family) String() string { return written(f.name, f.labels) }

func written(name string, lset map[string]string) string {
	var pairs []string
	for _, k := range slices.Sorted(maps.Keys(lset)) {
		pairs = append(pairs, k, lset[k])
	}
	return selectorOf(name, pairs...)
}

// maxCombinations bounds the search for series that match the selectors.
const (
	maxCombinations = 20_000
	maxSelectors    = 60
)

// familiesOf makes up series for the selectors of a query, and for what alive
// reads: for each way of matching some of them and not the others, one.
func familiesOf(pb *alerts.Playbook, texts []string, bounds []float64) ([]family, error) {
	byMetric := map[string][]selector{}
	own := map[*parser.VectorSelector]bool{}
	for i, text := range append(slices.Clone(texts), pb.Expand(pb.Alive, 0, 0), targetsOf(pb)) {
		expr, err := parse(text)
		if err != nil {
			return nil, err
		}
		for _, s := range selectorsOf(expr) {
			if s.vector.Name == "" {
				return nil, fmt.Errorf("a selector does not name its metric")
			}
			byMetric[s.vector.Name] = append(byMetric[s.vector.Name], s)
			own[s.vector] = i < len(texts)
		}
	}
	var families []family
	grouped, err := groupings(texts)
	if err != nil {
		return nil, err
	}
	for _, metric := range slices.Sorted(maps.Keys(byMetric)) {
		found, err := ofMetric(pb, metric, byMetric[metric], func(s selector) bool { return own[s.vector] })
		if err != nil {
			return nil, err
		}
		for i := range found {
			found[i].bounds = bounds
			for _, label := range grouped {
				if _, ok := found[i].labels[label]; !ok && found[i].specific > 0 && found[i].shape != fixed && found[i].shape != buckets && !told(byMetric[metric], label) {
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
		expr, err := parse(text)
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
func told(selectors []selector, label string) bool {
	return slices.ContainsFunc(selectors, func(s selector) bool {
		return slices.ContainsFunc(s.vector.LabelMatchers, func(m *labels.Matcher) bool { return m.Name == label })
	})
}

func ofMetric(pb *alerts.Playbook, metric string, selectors []selector, own func(selector) bool) ([]family, error) {
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
	kind := shapeOf(metric, selectors)
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
			if matchesAll(s.vector.LabelMatchers, labels.FromMap(withName(lset, metric))) {
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
		families = append(families, family{shape: kind, name: metric, labels: lset, specific: specific})
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
func poolsOf(selectors []selector) map[string][]string {
	pools := map[string][]string{}
	add := func(name, v string) {
		if !slices.Contains(pools[name], v) {
			pools[name] = append(pools[name], v)
		}
	}
	for _, s := range selectors {
		for _, m := range s.vector.LabelMatchers {
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

func shapeOf(metric string, selectors []selector) shape {
	if metric == "up" {
		return fixed
	}
	kind, le := gauge, false
	for _, s := range selectors {
		if slices.Contains([]string{"rate", "irate", "increase", "resets"}, s.call) {
			kind = counter
		}
		for _, m := range s.vector.LabelMatchers {
			le = le || m.Name == labels.BucketLabel
		}
	}
	if kind == counter && strings.HasSuffix(metric, "_bucket") && !le {
		return buckets
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
		return cmp.Compare(families[b].specific, families[a].specific)
	})
	return order
}
