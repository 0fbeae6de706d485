// Package query turns a playbook's queries into PromQL: over a window, sustained, with a
// confidence, or with the events they count; and takes PromQL apart. rules generates from
// it, and rules/series finds from it which series a query reads.
//
// Invariants: each expression parses with Prometheus 2.42 and with 3.x; a value is one
// sample without labels; two bounds of one indicator never share a text by accident, since
// window and volume are written into it.
package query

import (
	"fmt"
	"maps"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/promql/parser"

	"github.com/locotoki/backout/alerts"
)

// since242 are functions that the parser knows and Prometheus 2.42 does not.
var since242 = []string{"first_over_time", "histogram_avg", "histogram_stddev", "histogram_stdvar"}

// Parser parses what Prometheus 2.42 and 3.x both take.
func Parser() parser.Parser {
	functions := maps.Clone(parser.Functions)
	for _, name := range since242 {
		delete(functions, name)
	}
	return parser.NewParser(parser.Options{Functions: functions})
}

// Parse parses a PromQL expression.
func Parse(text string) (parser.Expr, error) {
	expr, err := Parser().ParseExpr(text)
	if err != nil {
		return nil, fmt.Errorf("expression for Prometheus 2.42 and later: %s", strings.Join(strings.Fields(err.Error()), " "))
	}
	parser.Inspect(expr, func(n parser.Node, _ []parser.Node) error {
		if v, ok := n.(*parser.VectorSelector); ok && v.Name == "" { // {__name__="x"} names it as x{} does
			for _, m := range v.LabelMatchers {
				if m.Name == model.MetricNameLabel && m.Type == labels.MatchEqual && model.LegacyValidation.IsValidMetricName(m.Value) {
					v.Name = m.Value
				}
			}
		}
		return nil
	})
	return expr, nil
}

// Query is an indicator's query, to be judged by one bound.
type Query struct {
	Bound
	Playbook *alerts.Playbook
	*alerts.Indicator
}

// Of returns the query of a playbook's indicator, judged by a bound.
func Of(pb *alerts.Playbook, indicator string, b Bound) (*Query, error) {
	ind := pb.Indicator(indicator)
	switch {
	case ind == nil:
		return nil, fmt.Errorf("there is no indicator %q", indicator)
	case ind.Instant() && b.Sustained <= 0:
		return nil, fmt.Errorf("the query of indicator %s holds no $window, and sustained is not set", indicator)
	case !ind.Instant() && b.Window <= 0:
		return nil, fmt.Errorf("the query of indicator %s holds $window, and window is not set", indicator)
	}
	return &Query{Bound: b, Playbook: pb, Indicator: ind}, nil
}

// At is the query's text over one window.
func (q *Query) At(window time.Duration, minVolume float64) string {
	return strings.TrimSpace(q.Playbook.Expand(q.Query, window, minVolume))
}

// Scrape is the scrape interval of the indicator's series.
func (q *Query) Scrape() time.Duration {
	return time.Duration(q.Playbook.ScrapeIntervalOf(q.Indicator))
}

// Worst is the aggregation that picks, of several samples, the one nearest to
// or farthest beyond the bound.
func (q *Query) Worst() string {
	if q.Above {
		return "max"
	}
	return "min"
}

// Value is the expression that is compared with the bound, and how far it
// looks back.
func (q *Query) Value() (string, time.Duration, error) {
	if !q.Instant() {
		return q.windowed(time.Duration(q.Window), q.MinVolume)
	}
	d := time.Duration(q.Sustained)
	text, inner, err := q.SustainedOver(Lasting, q.Least(), d)
	return text, d + inner, err
}

// Least is the function for a value that is beyond the bound for all of a time:
// above it for all of the time means that the least value is.
func (q *Query) Least() string {
	if q.Above {
		return "min_over_time"
	}
	return "max_over_time"
}

// Recovery is the expression that reports whether it has stopped. Every sample
// of the window has to be within the bound: one good one is not a recovery.
func (q *Query) Recovery(r alerts.Recovery) (string, time.Duration, error) {
	w := time.Duration(r.Window)
	if w <= 0 {
		return "", 0, fmt.Errorf("recovery.window is not set")
	}
	if !q.Instant() {
		return q.windowed(w, r.MinVolume)
	}
	inner, err := Lookback(q.At(0, 0))
	if err != nil {
		return "", 0, err
	}
	// A rate looks back by itself: together they see w, and so nothing from
	// before the step once w has passed.
	d := max(w-inner, 4*q.Scrape())
	most := "max_over_time"
	if !q.Above {
		most = "min_over_time"
	}
	text, inner, err := q.SustainedOver(OverTime, most, d)
	return text, d + inner, err
}

func (q *Query) windowed(window time.Duration, minVolume float64) (string, time.Duration, error) {
	text, err := q.Confident(q.At(window, minVolume), window)
	if err != nil {
		return "", 0, err
	}
	expr, err := Parse(text)
	if err != nil {
		return "", 0, err
	}
	return aggregated(q.Worst(), text, expr), max(window, Reach(expr)), nil
}

// SustainedOver is fn over the samples of d, where nearly all of them exist,
// and how far the query itself looks back.
func (q *Query) SustainedOver(over func(fn, text string, d, back, scrape time.Duration) string, fn string, d time.Duration) (string, time.Duration, error) {
	text := q.At(0, 0)
	expr, err := Parse(text)
	if err != nil {
		return "", 0, err
	}
	back := Reach(expr)
	if expr.Type() == parser.ValueTypeScalar { // which no range can be taken of
		text = fmt.Sprintf("vector(%s)", text)
	}
	if s, ok := expr.(*parser.VectorSelector); !ok || !Plain(s) {
		if text, err = Fresh(text, q.Scrape()); err != nil {
			return "", 0, err
		}
		text = fmt.Sprintf("(%s)", text)
	}
	return Single(q.Worst(), over(fn, text, d, back, q.Scrape())), back, nil
}

// Fresh lets an instant query take no sample older than two scrapes, so that
// an exporter which died has no value, instead of its last one for five minutes.
func Fresh(text string, scrape time.Duration) (string, error) {
	expr, err := Parse(text)
	if err != nil {
		return "", err
	}
	var edits []Edit
	for _, s := range SelectorsOf(expr) {
		if s.Matrix != nil || !Plain(s.Vector) {
			continue
		}
		pos := s.Vector.PosRange
		with := fmt.Sprintf("last_over_time(%s[%s])", strings.TrimSpace(text[pos.Start:pos.End]), Duration(2*scrape))
		edits = append(edits, Edit{int(pos.Start), int(pos.End), with})
	}
	return Apply(text, edits), nil
}

// OverTime applies fn to d, where nearly all of its samples exist. Text in
// parentheses is an expression that looks back, other text a selector.
func OverTime(fn, text string, d, _, scrape time.Duration) string {
	over := rangeOf(text, d, scrape)
	return fmt.Sprintf("%s(%s)\nand count_over_time(%s) >= %s", fn, over, over, Number(LeastSamples(d, scrape)))
}

// Lasting is OverTime of a series that is as old as d: the samples that may be
// missing must not make the time shorter for a new one. A few failed scrapes at
// that moment do no harm. A rate is too low at the one evaluation whose range begins
// with a lost scrape, since Prometheus 3 extrapolates no further than half a scrape:
// a dip that short in what looks back does not end it.
func Lasting(fn, text string, d, back, scrape time.Duration) string {
	return LastingOf(fn, text, d, back, scrape, scrape)
}

// LastingOf is Lasting of a recording, which repeats a sample every pace until the next
// scrape: all of the time must have been recorded, and not only as many samples as there
// would be of the scraped series.
func LastingOf(fn, text string, d, back, scrape, pace time.Duration) string {
	whole := text
	if back > 0 {
		whole = fmt.Sprintf("(%s(%s))", map[string]string{"min_over_time": "max_over_time", "max_over_time": "min_over_time"}[fn], rangeOf(text, 2*scrape, scrape))
	}
	return fmt.Sprintf("%s(%s)\nand count_over_time(%s) >= %s\nand present_over_time(%s offset %s)",
		fn, rangeOf(whole, d, scrape), rangeOf(text, d, scrape), Number(LeastSamples(d, pace)), rangeOf(text, 4*scrape, scrape), Duration(d))
}

func rangeOf(text string, d, scrape time.Duration) string {
	if strings.HasPrefix(text, "(") {
		return fmt.Sprintf("%s[%s:%s]", text, Duration(d), Duration(scrape))
	}
	return fmt.Sprintf("%s[%s]", text, Duration(d))
}

// LeastSamples is how many samples of d there must be. A range of Prometheus 3
// holds one sample less than one of 2.42, and a scrape may fail.
func LeastSamples(d, scrape time.Duration) float64 {
	n := math.Floor(float64(d) / float64(scrape))
	return max(1, n-max(2, math.Ceil(n/10)))
}

// Single makes one sample without labels out of an expression.
func Single(worst, text string) string {
	expr, err := Parse(text)
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

// Selector is one selector of an expression; matrix is nil for an instant one.
type Selector struct {
	Vector *parser.VectorSelector
	Matrix *parser.MatrixSelector
	// Back is how far the subqueries around it and its own range and offset
	// reach back.
	Back time.Duration
	// Call is the innermost function around its range or a subquery, or "".
	Call string
}

// Plain tells a selector that reads the present.
func Plain(s *parser.VectorSelector) bool {
	return s.OriginalOffset == 0 && s.Timestamp == nil && s.StartOrEnd == 0
}

// SelectorsOf returns an expression's selectors in the order of its text.
func SelectorsOf(expr parser.Expr) []Selector {
	var found []Selector
	parser.Inspect(expr, func(n parser.Node, path []parser.Node) error {
		v, ok := n.(*parser.VectorSelector)
		if !ok {
			return nil
		}
		s := Selector{Vector: v, Back: max(0, v.OriginalOffset)}
		for i, p := range path {
			switch p := p.(type) {
			case *parser.MatrixSelector:
				s.Matrix = p
				s.Back += p.Range
				if c, ok := path[max(0, i-1)].(*parser.Call); ok {
					s.Call = c.Func.Name
				}
			case *parser.SubqueryExpr:
				s.Back += p.Range + max(0, p.OriginalOffset)
				if c, ok := path[max(0, i-1)].(*parser.Call); ok && s.Call == "" {
					s.Call = c.Func.Name
				}
			}
		}
		found = append(found, s)
		return nil
	})
	slices.SortFunc(found, func(a, b Selector) int { return int(a.Vector.PosRange.Start) - int(b.Vector.PosRange.Start) })
	return found
}

// Lookback is how far an expression looks back by its ranges and offsets.
func Lookback(text string) (time.Duration, error) {
	expr, err := Parse(text)
	if err != nil {
		return 0, err
	}
	return Reach(expr), nil
}

// Reach is lookback of an expression that was parsed.
func Reach(expr parser.Expr) (most time.Duration) {
	for _, s := range SelectorsOf(expr) {
		most = max(most, s.Back)
	}
	return most
}

// Conversion is by which numbers an expression multiplies a histogram's quantile, as
// from seconds to milliseconds: 1 without any.
func Conversion(expr parser.Expr) float64 {
	factor := 1.0
	parser.Inspect(expr, func(n parser.Node, path []parser.Node) error {
		if call, ok := n.(*parser.Call); !ok || call.Func.Name != "histogram_quantile" {
			return nil
		}
		factor = 1
		for _, p := range path {
			if b, ok := p.(*parser.BinaryExpr); ok {
				left, right := literal(b.LHS), literal(b.RHS)
				switch {
				case b.Op == parser.MUL:
					factor *= left * right
				case b.Op == parser.DIV && left == 1:
					factor /= right
				}
			}
		}
		return nil
	})
	return factor
}

// literal is a number above zero that an expression is, and 1 for any other.
func literal(expr parser.Expr) float64 {
	if p, ok := expr.(*parser.ParenExpr); ok {
		return literal(p.Expr)
	}
	if n, ok := expr.(*parser.NumberLiteral); ok && n.Val > 0 {
		return n.Val
	}
	return 1
}

// Edit replaces a part of a text.
type Edit struct {
	Start, End int
	With       string
}

// Apply makes edits that do not overlap.
func Apply(text string, edits []Edit) string {
	slices.SortFunc(edits, func(a, b Edit) int { return b.Start - a.Start })
	for _, e := range edits {
		text = text[:e.Start] + e.With + text[e.End:]
	}
	return text
}

// Duration is d as PromQL writes it.
func Duration(d time.Duration) string { return model.Duration(d).String() }

// SelectorOf writes name{key="value",...}.
func SelectorOf(name string, pairs ...string) string {
	var matchers []string
	for i := 0; i+1 < len(pairs); i += 2 {
		matchers = append(matchers, pairs[i]+"="+strconv.Quote(pairs[i+1]))
	}
	return fmt.Sprintf("%s{%s}", name, strings.Join(matchers, ","))
}

// Number writes a number plainly, without an exponent.
func Number(f float64) string { return strconv.FormatFloat(f, 'f', -1, 64) }

// Round keeps six digits: a test is read by people.
func Round(f float64) float64 {
	r, err := strconv.ParseFloat(strconv.FormatFloat(f, 'g', 6, 64), 64)
	if err != nil {
		return f
	}
	return r
}

// Targets selects the up series of the service's targets.
func Targets(pb *alerts.Playbook) string {
	matchers := "job=" + strconv.Quote(pb.Job)
	if more := pb.UpMatchers(); more != "" {
		matchers += "," + more
	}
	return fmt.Sprintf("up{%s}", matchers)
}
