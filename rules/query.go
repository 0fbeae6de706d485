package rules

import (
	"fmt"
	"maps"
	"math"
	"slices"
	"strings"
	"time"

	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/promql/parser"

	"github.com/locotoki/backout/alerts"
)

// since242 are functions that the parser knows and Prometheus 2.42 does not.
var since242 = []string{"first_over_time", "histogram_avg", "histogram_stddev", "histogram_stdvar"}

// promQL parses what Prometheus 2.42 and 3.x both take.
func promQL() parser.Parser {
	functions := maps.Clone(parser.Functions)
	for _, name := range since242 {
		delete(functions, name)
	}
	return parser.NewParser(parser.Options{Functions: functions})
}

func parse(text string) (parser.Expr, error) {
	expr, err := promQL().ParseExpr(text)
	if err != nil {
		return nil, fmt.Errorf("expression for Prometheus 2.42 and later: %s", strings.Join(strings.Fields(err.Error()), " "))
	}
	return expr, nil
}

// bound is over which time, and from which volume on, a query is evaluated.
type bound struct {
	threshold float64
	above     bool
	window    model.Duration
	sustained model.Duration
	minVolume float64
	// confidence, if it is not 0, compares the end of the value's Wilson score
	// interval that is nearer to the threshold.
	confidence float64
}

// triggerBound is the bound of a trigger that has an indicator.
func triggerBound(t *alerts.Trigger) bound {
	threshold, above := t.Bound()
	return bound{threshold: threshold, above: above, window: t.Window, sustained: t.Sustained, minVolume: t.MinVolume, confidence: t.Confidence}
}

// query is an indicator's query, to be judged by one bound.
type query struct {
	bound
	pb *alerts.Playbook
	*alerts.Indicator
}

func queryOf(pb *alerts.Playbook, indicator string, b bound) (*query, error) {
	ind := pb.Indicator(indicator)
	switch {
	case ind == nil:
		return nil, fmt.Errorf("there is no indicator %q", indicator)
	case ind.Instant() && b.sustained <= 0:
		return nil, fmt.Errorf("the query of indicator %s holds no $window, and sustained is not set", indicator)
	case !ind.Instant() && b.window <= 0:
		return nil, fmt.Errorf("the query of indicator %s holds $window, and window is not set", indicator)
	}
	return &query{bound: b, pb: pb, Indicator: ind}, nil
}

// at is the query's text over one window.
func (q *query) at(window time.Duration, minVolume float64) string {
	return strings.TrimSpace(q.pb.Expand(q.Query, window, minVolume))
}

func (q *query) scrape() time.Duration { return time.Duration(q.pb.ScrapeIntervalOf(q.Indicator)) }

// worst is the aggregation that picks, of several samples, the one nearest to
// or farthest beyond the bound.
func (q *query) worst() string {
	if q.above {
		return "max"
	}
	return "min"
}

// value is the expression that is compared with the bound, and how far it
// looks back.
func (q *query) value() (string, time.Duration, error) {
	if !q.Instant() {
		return q.windowed(time.Duration(q.window), q.minVolume)
	}
	d := time.Duration(q.sustained)
	text, inner, err := q.sustainedOver(lasting, q.least(), d)
	return text, d + inner, err
}

// least is the function for a value that is beyond the bound for all of a time:
// above it for all of the time means that the least value is.
func (q *query) least() string {
	if q.above {
		return "min_over_time"
	}
	return "max_over_time"
}

// recovery is the expression that reports whether it has stopped. Every sample
// of the window has to be within the bound: one good one is not a recovery.
func (q *query) recovery(r alerts.Recovery) (string, time.Duration, error) {
	w := time.Duration(r.Window)
	if w <= 0 {
		return "", 0, fmt.Errorf("recovery.window is not set")
	}
	if !q.Instant() {
		return q.windowed(w, r.MinVolume)
	}
	inner, err := lookback(q.at(0, 0))
	if err != nil {
		return "", 0, err
	}
	// A rate looks back by itself: together they see w, and so nothing from
	// before the step once w has passed.
	d := max(w-inner, 4*q.scrape())
	most := "max_over_time"
	if !q.above {
		most = "min_over_time"
	}
	text, inner, err := q.sustainedOver(overTime, most, d)
	return text, d + inner, err
}

func (q *query) windowed(window time.Duration, minVolume float64) (string, time.Duration, error) {
	text, err := q.confident(q.at(window, minVolume), window)
	if err != nil {
		return "", 0, err
	}
	expr, err := parse(text)
	if err != nil {
		return "", 0, err
	}
	return aggregated(q.worst(), text, expr), max(window, reach(expr)), nil
}

// sustainedOver is fn over the samples of d, where nearly all of them exist,
// and how far the query itself looks back.
func (q *query) sustainedOver(over func(fn, text string, d, back, scrape time.Duration) string, fn string, d time.Duration) (string, time.Duration, error) {
	text := q.at(0, 0)
	expr, err := parse(text)
	if err != nil {
		return "", 0, err
	}
	back := reach(expr)
	if expr.Type() == parser.ValueTypeScalar { // which no range can be taken of
		text = fmt.Sprintf("vector(%s)", text)
	}
	if s, ok := expr.(*parser.VectorSelector); !ok || !plain(s) {
		if text, err = fresh(text, q.scrape()); err != nil {
			return "", 0, err
		}
		text = fmt.Sprintf("(%s)", text)
	}
	return single(q.worst(), over(fn, text, d, back, q.scrape())), back, nil
}

// fresh lets an instant query take no sample older than two scrapes, so that
// an exporter which died has no value, instead of its last one for five minutes.
func fresh(text string, scrape time.Duration) (string, error) {
	expr, err := parse(text)
	if err != nil {
		return "", err
	}
	var edits []edit
	for _, s := range selectorsOf(expr) {
		if s.matrix != nil || !plain(s.vector) {
			continue
		}
		pos := s.vector.PosRange
		with := fmt.Sprintf("last_over_time(%s[%s])", strings.TrimSpace(text[pos.Start:pos.End]), duration(2*scrape))
		edits = append(edits, edit{int(pos.Start), int(pos.End), with})
	}
	return apply(text, edits), nil
}

// overTime applies fn to d, where nearly all of its samples exist. Text in
// parentheses is an expression that looks back, other text a selector.
func overTime(fn, text string, d, _, scrape time.Duration) string {
	over := rangeOf(text, d, scrape)
	return fmt.Sprintf("%s(%s)\nand count_over_time(%s) >= %s", fn, over, over, number(leastSamples(d, scrape)))
}

// lasting is overTime of a series that is as old as d: the samples that may be
// missing must not make the time shorter for a new one. A few failed scrapes at
// that moment do no harm. A rate is too low at the one evaluation whose range begins
// with a lost scrape, since Prometheus 3 extrapolates no further than half a scrape:
// a dip that short in what looks back does not end it.
func lasting(fn, text string, d, back, scrape time.Duration) string {
	whole := text
	if back > 0 {
		whole = fmt.Sprintf("(%s(%s))", map[string]string{"min_over_time": "max_over_time", "max_over_time": "min_over_time"}[fn], rangeOf(text, 2*scrape, scrape))
	}
	return fmt.Sprintf("%s(%s)\nand count_over_time(%s) >= %s\nand present_over_time(%s offset %s)",
		fn, rangeOf(whole, d, scrape), rangeOf(text, d, scrape), number(leastSamples(d, scrape)), rangeOf(text, 4*scrape, scrape), duration(d))
}

func rangeOf(text string, d, scrape time.Duration) string {
	if strings.HasPrefix(text, "(") {
		return fmt.Sprintf("%s[%s:%s]", text, duration(d), duration(scrape))
	}
	return fmt.Sprintf("%s[%s]", text, duration(d))
}

// leastSamples is how many samples of d there must be. A range of Prometheus 3
// holds one sample less than one of 2.42, and a scrape may fail.
func leastSamples(d, scrape time.Duration) float64 {
	n := math.Floor(float64(d) / float64(scrape))
	return max(1, n-max(2, math.Ceil(n/10)))
}

// single makes one sample without labels out of an expression.
func single(worst, text string) string {
	expr, err := parse(text)
	if err != nil {
		expr = nil
	}
	return aggregated(worst, text, expr)
}

// aggregated is single of a text that was parsed.
func aggregated(worst, text string, expr parser.Expr) string {
	if expr != nil && expr.Type() == parser.ValueTypeScalar {
		return fmt.Sprintf("vector(%s)", text)
	}
	if strings.Contains(text, "\n") {
		return fmt.Sprintf("%s(\n%s\n)", worst, indent(text))
	}
	return fmt.Sprintf("%s(%s)", worst, text)
}

func indent(text string) string {
	lines := strings.Split(text, "\n")
	for i, l := range lines {
		lines[i] = strings.TrimRight("  "+l, " \t")
	}
	return strings.Join(lines, "\n")
}

// selector is one selector of an expression; matrix is nil for an instant one.
type selector struct {
	vector *parser.VectorSelector
	matrix *parser.MatrixSelector
	// back is how far the subqueries around it and its own range and offset
	// reach back.
	back time.Duration
	// call is the innermost function around its range or a subquery, or "".
	call string
}

// plain tells a selector that reads the present.
func plain(s *parser.VectorSelector) bool {
	return s.OriginalOffset == 0 && s.Timestamp == nil && s.StartOrEnd == 0
}

// selectorsOf returns an expression's selectors in the order of its text.
func selectorsOf(expr parser.Expr) []selector {
	var found []selector
	parser.Inspect(expr, func(n parser.Node, path []parser.Node) error {
		v, ok := n.(*parser.VectorSelector)
		if !ok {
			return nil
		}
		s := selector{vector: v, back: max(0, v.OriginalOffset)}
		for i, p := range path {
			switch p := p.(type) {
			case *parser.MatrixSelector:
				s.matrix = p
				s.back += p.Range
				if c, ok := path[max(0, i-1)].(*parser.Call); ok {
					s.call = c.Func.Name
				}
			case *parser.SubqueryExpr:
				s.back += p.Range + max(0, p.OriginalOffset)
				if c, ok := path[max(0, i-1)].(*parser.Call); ok && s.call == "" {
					s.call = c.Func.Name
				}
			}
		}
		found = append(found, s)
		return nil
	})
	slices.SortFunc(found, func(a, b selector) int { return int(a.vector.PosRange.Start) - int(b.vector.PosRange.Start) })
	return found
}

// lookback is how far an expression looks back by its ranges and offsets.
func lookback(text string) (time.Duration, error) {
	expr, err := parse(text)
	if err != nil {
		return 0, err
	}
	return reach(expr), nil
}

// reach is lookback of an expression that was parsed.
func reach(expr parser.Expr) (most time.Duration) {
	for _, s := range selectorsOf(expr) {
		most = max(most, s.back)
	}
	return most
}

// edit replaces a part of a text.
type edit struct {
	start, end int
	with       string
}

// apply makes edits that do not overlap.
func apply(text string, edits []edit) string {
	slices.SortFunc(edits, func(a, b edit) int { return b.start - a.start })
	for _, e := range edits {
		text = text[:e.start] + e.with + text[e.end:]
	}
	return text
}

func duration(d time.Duration) string { return model.Duration(d).String() }
