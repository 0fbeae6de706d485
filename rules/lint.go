package rules

import (
	"fmt"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/promql/parser"

	"github.com/locotoki/backout/alerts"
	"github.com/locotoki/backout/hint"
	"github.com/locotoki/backout/rules/query"
)

// windowMark replaces $window in a text that is examined: no range of a query
// is that long.
const windowMark = 7777777 * time.Second

// retention is how long Prometheus keeps its data by default.
const retention = 15 * 24 * time.Hour

// linter looks at one expression of a playbook, without evaluating it.
type linter struct {
	*checker
	path   string
	text   string        // expanded
	scrape time.Duration // of what it reads
}

// lint looks at all expressions.
func (c *checker) lint() {
	for i := range c.pb.Indicators {
		ind, path := &c.pb.Indicators[i], fmt.Sprintf("indicators[%d].query", i)
		c.expression(path, ind.Query, time.Duration(c.pb.ScrapeIntervalOf(ind)))
		if ind.Alert != nil {
			c.spans(fmt.Sprintf("indicators[%d].alert", i), ind, query.OfAlert(ind.Alert))
		}
	}
	c.expression("alive", c.pb.Alive, time.Duration(c.pb.ScrapeInterval))
	parsed := !c.unusable
	for i := range c.pb.Triggers {
		if t := &c.pb.Triggers[i]; t.Signal == "" {
			path := fmt.Sprintf("triggers[%d]", i)
			c.spans(path, c.pb.Indicator(t.Indicator), query.OfTrigger(t))
			failed := len(c.found.Errors)
			c.confidence(path+".confidence", t)
			if parsed && failed == len(c.found.Errors) && !c.broken[c.queryPath(c.pb.Indicator(t.Indicator))] {
				c.judged(t)
			}
		}
	}
}

func (c *checker) expression(path, text string, scrape time.Duration) {
	l := linter{checker: c, path: path, text: c.pb.Expand(text, windowMark, 1), scrape: scrape}
	expr, err := query.Parse(l.text)
	if err != nil {
		c.unusable = true
		c.fail(c.pb.InQuery(path, 0, fmt.Sprintf("%s: %v", path, err), "write it with what Prometheus 2.42 knows"))
		return
	}
	if path != "alive" && len(query.SelectorsOf(expr)) == 0 {
		c.unusable = true
		l.fail(expr, "the query reads no series: it always fires, or can never fire", "write an expression of what the service exports")
		return
	}
	parser.Inspect(expr, func(n parser.Node, above []parser.Node) error {
		switch n := n.(type) {
		case *parser.Call:
			l.call(n)
		case *parser.AggregateExpr:
			switch n.Op {
			case parser.QUANTILE:
				l.quantile(n.Param, n)
			case parser.AVG:
				l.averaged(n)
			}
		case *parser.BinaryExpr:
			if n.Op == parser.DIV && countsSeries(n.RHS) {
				if sum, ok := query.Unwrapped(n.LHS).(*parser.AggregateExpr); ok && sum.Op == parser.SUM {
					l.averaged(sum)
				}
			}
		case *parser.VectorSelector:
			l.moment(n, n.OriginalOffset, n.Timestamp != nil || n.StartOrEnd != 0)
			l.raw(n, above)
		case *parser.SubqueryExpr:
			l.moment(n, n.OriginalOffset, n.Timestamp != nil || n.StartOrEnd != 0)
		}
		return nil
	})
	selectors := query.SelectorsOf(expr)
	past := func(s query.Selector) bool { return s.Vector.OriginalOffset > 0 }
	if len(selectors) > 0 && !slices.ContainsFunc(selectors, func(s query.Selector) bool { return !past(s) }) {
		l.warn(selectors[0].Vector, fmt.Sprintf("the query reads only data from %s ago: it fires that much too late", query.Duration(selectors[0].Vector.OriginalOffset)), "leave offset out, or compare the present with it")
	}
	for _, s := range selectors {
		l.reach(s)
	}
}

// fail and warn report a problem on the line where a part of the expression begins.
func (l linter) fail(n parser.Node, message, try string) {
	l.broken[l.path] = true
	l.checker.fail(l.problem(n, message, try))
}
func (l linter) warn(n parser.Node, message, try string) {
	l.checker.warn(l.problem(n, message, try))
}

func (l linter) problem(n parser.Node, message, try string) alerts.Problem {
	start := min(max(0, int(n.PositionRange().Start)), len(l.text))
	return l.pb.InQuery(l.path, strings.Count(l.text[:start], "\n"), l.path+": "+message, try)
}

func (l linter) call(n *parser.Call) {
	switch n.Func.Name {
	case "irate":
		l.warn(n, "irate uses only the last two samples of its range: it misses a breach between them", "write rate")
	case "quantile_over_time":
		l.quantile(n.Args[0], n)
	case "histogram_quantile":
		l.quantile(n.Args[0], n)
		l.buckets(n)
	case "rate", "increase":
		if s := query.SelectorsOf(n); len(s) == 1 && strings.HasSuffix(s[0].Vector.Name, "ratio") {
			l.warn(n, fmt.Sprintf("%s of %s, which is a ratio, not a counter", n.Func.Name, s[0].Vector.Name), "write avg_over_time")
		}
	}
}

// quantile refuses one that is written as a percentage.
func (l linter) quantile(param parser.Expr, n parser.Node) {
	q, ok := param.(*parser.NumberLiteral)
	switch {
	case !ok || q.Val >= 0 && q.Val <= 1:
	case q.Val > 1:
		l.fail(n, fmt.Sprintf("the quantile %s is above 1, so that the value is always +Inf: it fires on a healthy service, or can never fire", query.Number(q.Val)), "write it as a share, such as "+query.Number(min(q.Val/100, 0.99)))
	default:
		l.fail(n, fmt.Sprintf("the quantile %s is below 0, so that the value is always -Inf", query.Number(q.Val)), "write it as a share, such as 0.95")
	}
}

// buckets refuses a quantile of what are no buckets any more.
func (l linter) buckets(n *parser.Call) {
	arg := n.Args[1]
	for {
		p, ok := arg.(*parser.ParenExpr)
		if !ok {
			break
		}
		arg = p.Expr
	}
	for _, s := range query.SelectorsOf(arg) {
		for _, suffix := range []string{"_count", "_sum", "_total"} {
			if strings.HasSuffix(s.Vector.Name, suffix) {
				l.fail(s.Vector, fmt.Sprintf("histogram_quantile of %s, which has no buckets: it has no value and can never fire", s.Vector.Name), "write "+strings.TrimSuffix(s.Vector.Name, suffix)+"_bucket")
				return
			}
		}
		a, ok := arg.(*parser.AggregateExpr)
		if ok && strings.HasSuffix(s.Vector.Name, "_bucket") && slices.Contains(a.Grouping, labels.BucketLabel) == a.Without {
			l.fail(a, fmt.Sprintf("%s drops the label le, which histogram_quantile needs: it has no value and can never fire", a.Op), fmt.Sprintf("write %s by (le) (...)", a.Op))
			return
		}
	}
}

// targetLabels tell one target, host or container from another.
var targetLabels = []string{"instance", "pod", "node", "nodename", "host", "hostname", "machine", "container", "container_id", "id", "name"}

// resource matches the names of what a host or a container can run out of.
var resource = regexp.MustCompile(`(?i)(^|[_:])(cpu|mem|memory|rss|heap|swap|disk|filesystem|inodes?|fds?|load[0-9]*|threads|connections|usage|utili[sz]ation|saturation|pressure|busy|idle|lag)([_:]|$)`)

// averaged warns about a resource whose mean is taken over targets.
func (l linter) averaged(n *parser.AggregateExpr) {
	named := func(label string) bool { return slices.Contains(n.Grouping, label) }
	if n.Without != slices.ContainsFunc(targetLabels, named) {
		return // by targets, or without labels that are not a target's
	}
	if a, ok := query.Unwrapped(n.Expr).(*parser.AggregateExpr); ok && !a.Without && len(a.Grouping) == 0 {
		return // one sample
	}
	selectors := query.SelectorsOf(n)
	if !slices.ContainsFunc(selectors, func(s query.Selector) bool { return resource.MatchString(s.Vector.Name) && !oneTarget(s.Vector) }) {
		return
	}
	worst := "min"
	if l.above() {
		worst = "max"
	}
	l.warn(n, fmt.Sprintf("the mean of %s over all targets: idle ones hide one that is at its limit", selectors[0].Vector.Name),
		fmt.Sprintf("take the mean of each target, avg by (instance) (...), and put %s(...) around the query", worst))
}

// oneTarget reports whether a selector names its target.
func oneTarget(v *parser.VectorSelector) bool {
	return slices.ContainsFunc(v.LabelMatchers, func(m *labels.Matcher) bool {
		return m.Type == labels.MatchEqual && slices.Contains(targetLabels, m.Name)
	})
}

// above reports whether the query is evaluated by a bound from above, as it is where
// there is none.
func (l linter) above() bool {
	below := false
	for i := range l.pb.Indicators {
		ind := &l.pb.Indicators[i]
		if l.queryPath(ind) != l.path {
			continue
		}
		var bounds []query.Bound
		if ind.Alert != nil {
			bounds = append(bounds, query.OfAlert(ind.Alert))
		}
		for j := range l.pb.Triggers {
			if t := &l.pb.Triggers[j]; t.Indicator == ind.Name {
				bounds = append(bounds, query.OfTrigger(t))
			}
		}
		below = len(bounds) > 0 && !slices.ContainsFunc(bounds, func(b query.Bound) bool { return b.Above })
	}
	return !below
}

// countsSeries reports whether an expression is how many series there are.
func countsSeries(e parser.Expr) bool {
	a, ok := query.Unwrapped(e).(*parser.AggregateExpr)
	return ok && a.Op == parser.COUNT
}

// moment refuses what does not read the present.
func (l linter) moment(n parser.Node, offset time.Duration, fixed bool) {
	if fixed {
		l.fail(n, "the @ modifier reads a fixed moment: later data is ignored", "leave it out")
	}
	if offset < 0 {
		l.fail(n, fmt.Sprintf("offset -%s reads the future, of which there are no samples yet: it can never fire", query.Duration(-offset)), "leave it out, or write a positive offset")
	}
}

// reach warns about ranges that hold too few samples.
func (l linter) reach(s query.Selector) {
	if s.Matrix == nil || s.Matrix.Range == windowMark || l.path == "alive" {
		return
	}
	scrape := l.scrape
	switch r, try := s.Matrix.Range, fmt.Sprintf("write at least [%s]", query.Duration(4*scrape)); {
	case r <= scrape && slices.Contains(query.Counts, s.Call):
		l.fail(s.Vector, fmt.Sprintf("the range [%s] holds one sample at a scrape interval of %s, and %s needs two: it can never fire", query.Duration(r), query.Duration(scrape), s.Call), try)
	case r < 4*scrape:
		l.warn(s.Vector, fmt.Sprintf("the range [%s] is shorter than four scrapes (%s): one lost scrape leaves it empty", query.Duration(r), query.Duration(4*scrape)), try)
	}
}

// counter matches the names of counters. The count of a histogram or summary follows
// what was measured: pg_stat_activity_count is a gauge.
var counter = regexp.MustCompile(`_(total|bucket|sum|(seconds|milliseconds|ms|duration|latency|time|bytes|size)_count)$`)

// raw warns about a counter that is read as a raw value.
func (l linter) raw(n *parser.VectorSelector, above []parser.Node) {
	if !counter.MatchString(n.Name) {
		return
	}
	for _, p := range above {
		switch p := p.(type) {
		case *parser.Call:
			switch p.Func.Name {
			case "rate", "irate", "increase", "delta", "idelta", "deriv", "resets", "changes", "absent", "absent_over_time", "present_over_time", "count_over_time", "timestamp":
				return
			}
		case *parser.AggregateExpr:
			if p.Op == parser.COUNT || p.Op == parser.GROUP {
				return
			}
		case *parser.BinaryExpr:
			if l.path != "alive" && p.Op.IsComparisonOperator() || zero(p.LHS) || zero(p.RHS) || p.Op == parser.LUNLESS || p.Op == parser.SUB {
				return
			}
		}
	}
	l.warn(n, fmt.Sprintf("%s is a counter, and the query reads its raw value: the total since the process started, not the current rate", n.Name), fmt.Sprintf("write increase(%s[$window]) or rate(...)", n.Name))
}

func zero(e parser.Expr) bool {
	n, ok := e.(*parser.NumberLiteral)
	return ok && n.Val == 0
}

// spans warns about a bound whose time does not fit its query or Prometheus.
func (c *checker) spans(path string, ind *alerts.Indicator, b query.Bound) {
	scrape := time.Duration(c.pb.ScrapeIntervalOf(ind))
	back, err := query.Lookback(c.pb.Expand(ind.Query, 0, 1))
	switch d := time.Duration(b.Sustained); {
	case err != nil || d == 0:
	case d < 4*scrape:
		c.warn(c.pb.Problem(path+".sustained", fmt.Sprintf("%s.sustained (%s) is shorter than four scrapes (%s): one or two samples decide", path, query.Duration(d), query.Duration(4*scrape)), "write at least "+query.Duration(4*scrape)))
	case back > d:
		c.warn(c.pb.Problem(path+".sustained", fmt.Sprintf("the query of %s looks back %s, longer than sustained (%s): it fires that much later, and a short peak counts for all of that time", ind.Name, query.Duration(back), query.Duration(d)), "write a shorter range into the query, or a longer sustained"))
	}
	if w := time.Duration(b.Window); w > retention {
		c.warn(c.pb.Problem(path+".window", fmt.Sprintf("%s.window (%s) is longer than Prometheus keeps its data by default (%s)", path, query.Duration(w), query.Duration(retention)), "write a shorter one, or set Prometheus's retention"))
	}
	side := path + ".below"
	if b.Above {
		side = path + ".above"
	}
	switch {
	case ind.Unit == alerts.Seconds && b.Threshold >= 60 && strings.Contains(ind.Query, "histogram_quantile"):
		c.warn(c.pb.Problem(side, fmt.Sprintf("%s is %s seconds: a request rarely takes that long", side, query.Number(b.Threshold)), "write "+query.Number(round3(b.Threshold/1000))+", or unit: milliseconds"))
	case ind.Unit == alerts.Percent && ind.Instant() && b.Threshold > 0 && b.Threshold < 1:
		c.warn(c.pb.Problem(side, fmt.Sprintf("%s is %s, but a percentage is between 0 and 100", side, query.Number(b.Threshold)), "write "+query.Number(round3(b.Threshold*100))+", or unit: ratio"))
	}
	if ind.Unit == alerts.Ratio && !c.percent[ind.Name] && percentage(c.pb.Expand(ind.Query, windowMark, 1)) {
		c.percent[ind.Name] = true
		c.warn(c.inQuery(ind, fmt.Sprintf("the query of %s multiplies by 100, and its unit is ratio, which lies between 0 and 1", ind.Name), "leave 100 out, or write unit: percent and the thresholds as percentages"))
	}
}

// confidence refuses one of what is not a ratio of counts.
func (c *checker) confidence(path string, t *alerts.Trigger) {
	q, err := query.Of(c.pb, t.Indicator, query.OfTrigger(t))
	if err != nil {
		return // Rules says so
	}
	if _, err = q.Confident(q.At(time.Duration(t.Window), t.MinVolume), time.Duration(t.Window)); err != nil {
		c.unusable = true
		message, try := hint.Of(err)
		c.fail(c.pb.Problem(path, fmt.Sprintf("the trigger %s has a %s", t.Name, message), "write "+try))
	}
}

// judged refuses a trigger of which no rule can be made.
func (c *checker) judged(t *alerts.Trigger) {
	if _, err := judge(c.pb, t); err != nil {
		c.unusable = true
		message, try := hint.Of(err)
		c.fail(c.inQuery(c.pb.Indicator(t.Indicator), message, try))
	}
}

// percentage reports whether an expression is a product with 100.
func percentage(text string) bool {
	expr, err := query.Parse(text)
	for err == nil {
		switch e := expr.(type) {
		case *parser.ParenExpr:
			expr = e.Expr
			continue
		case *parser.BinaryExpr:
			hundred := func(e parser.Expr) bool { n, ok := e.(*parser.NumberLiteral); return ok && n.Val == 100 }
			if e.Op == parser.MUL && (hundred(e.LHS) || hundred(e.RHS)) {
				return true
			}
			expr = e.LHS
			continue
		}
		return false
	}
	return false
}
