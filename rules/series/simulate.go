package series

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"math"
	"slices"
	"time"

	"github.com/prometheus/prometheus/model/histogram"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/promql"
	"github.com/prometheus/prometheus/promql/parser"
	"github.com/prometheus/prometheus/storage"
	"github.com/prometheus/prometheus/tsdb/chunkenc"
	"github.com/prometheus/prometheus/tsdb/chunks"
	"github.com/prometheus/prometheus/util/annotations"

	"github.com/locotoki/backout/rules/query"
)

// Simulator evaluates expressions on made-up series with Prometheus's own
// engine: it finds the input of the generated tests, promtool then judges.
type Simulator struct {
	engine *promql.Engine
	Scrape time.Duration
	// Coarse is how many scrapes lie between two evaluations of a coarse test.
	Coarse int
}

// NewSimulator returns a simulator for series that are scraped each scrape. A query
// that loads more than so many samples at a time is ErrTooManySamples.
func NewSimulator(scrape time.Duration, samples int) *Simulator {
	return &Simulator{Scrape: scrape, Coarse: Coarsely(scrape), engine: newEngine(scrape, samples)}
}

// MostSamples is how many samples Prometheus loads at a time for a query, at most.
const MostSamples = 10_000_000

// ErrTooManySamples is the error of a query that loads too many samples.
var ErrTooManySamples = errors.New("its ranges hold more samples than a test can load")

// NewEngine returns Prometheus's query engine, evaluating subqueries without a step
// every interval. It remembers expressions, so one query runs at a time.
func NewEngine(interval time.Duration) *promql.Engine { return newEngine(interval, MostSamples) }

func newEngine(interval time.Duration, samples int) *promql.Engine {
	return promql.NewEngine(promql.EngineOpts{
		MaxSamples: samples, Timeout: 20 * time.Second, Parser: remembering{query.Parser(), map[string]parser.Expr{}}, EnableAtModifier: true, EnableNegativeOffset: true,
		NoStepSubqueryIntervalFn: func(int64) int64 { return interval.Milliseconds() },
	})
}

// remembering parses each expression once: compiling its regular expressions takes
// longer than evaluating it.
type remembering struct {
	parser.Parser
	known map[string]parser.Expr
}

// ParseExpr implements parser.Parser.
func (r remembering) ParseExpr(text string) (parser.Expr, error) {
	if expr, ok := r.known[text]; ok {
		for _, s := range query.SelectorsOf(expr) { // what the engine has kept in it
			s.Vector.Series, s.Vector.UnexpandedSeriesSet = nil, nil
		}
		return expr, nil
	}
	expr, err := r.Parser.ParseExpr(text)
	if err != nil {
		return nil, err
	}
	if !rewritten(expr) {
		r.known[text] = expr
	}
	return expr, nil
}

// rewritten reports whether the engine rewrites parts of an expression, as it does
// with subqueries and with what is the same at all times.
func rewritten(expr parser.Expr) (yes bool) {
	parser.Inspect(expr, func(n parser.Node, _ []parser.Node) error {
		switch n := n.(type) {
		case *parser.VectorSelector:
			yes = yes || n.Timestamp != nil || n.StartOrEnd != 0
		case *parser.SubqueryExpr:
			yes = true
		case *parser.NumberLiteral, *parser.StringLiteral:
		case parser.Expr:
			yes = yes || len(query.SelectorsOf(n)) == 0
		}
		return nil
	})
	return yes
}

// Close ends the simulator's PromQL engine.
func (s *Simulator) Close() error { return s.engine.Close() }

// Aligned is the next scrape at which a coarse test evaluates the rules.
func (s *Simulator) Aligned(scrape int) int { return (scrape + s.Coarse - 1) / s.Coarse * s.Coarse }

// Samples is one series with a sample at each scrape; NaN is none.
type Samples struct {
	labels labels.Labels
	values []float64
}

// Value evaluates an expression at the given scrape, as Value does.
func (s *Simulator) Value(series []Samples, expr string, scrape int) (v float64, ok bool, err error) {
	at := time.Duration(scrape) * s.Scrape
	all := make([]Series, len(series))
	for i := range series {
		all[i] = stepped{series[i], s.Scrape.Milliseconds()}
	}
	over := Queryable(func([]*labels.Matcher) []Series { return all })
	return Value(s.engine, over, expr, time.UnixMilli(at.Milliseconds()))
}

// Value evaluates an expression that gives a scalar or one sample; ok is false if it is
// empty or not a number.
func Value(engine *promql.Engine, over storage.Queryable, expr string, at time.Time) (v float64, ok bool, err error) {
	vector, err := Vector(engine, over, expr, at)
	if err != nil {
		return 0, false, err
	}
	if len(vector) == 0 || math.IsNaN(vector[0].F) {
		return 0, false, nil
	}
	if len(vector) > 1 {
		return 0, false, fmt.Errorf("evaluate %q: %d samples, want one", expr, len(vector))
	}
	return vector[0].F, true, nil
}

// Vector evaluates an expression that gives a vector or a scalar, which is a sample
// without labels.
func Vector(engine *promql.Engine, over storage.Queryable, expr string, at time.Time) (promql.Vector, error) {
	q, err := engine.NewInstantQuery(context.Background(), over, promql.NewPrometheusQueryOpts(false, 0, nil), expr, at)
	if err != nil {
		return nil, fmt.Errorf("evaluate %q: %w", expr, err)
	}
	defer q.Close()
	r := q.Exec(context.Background())
	if tooMany := promql.ErrTooManySamples(""); errors.As(r.Err, &tooMany) {
		return nil, ErrTooManySamples
	}
	switch v := r.Value.(type) {
	case promql.Vector:
		return slices.Clone(v), nil // Close takes it back
	case promql.Scalar:
		return promql.Vector{{T: v.T, F: v.V}}, nil
	default:
		return nil, fmt.Errorf("evaluate %q: %w", expr, cmp.Or(r.Err, errNoVector))
	}
}

var errNoVector = errors.New("it gives neither a vector nor a scalar")

// Series is a series in memory.
type Series interface {
	Labels() labels.Labels
	// Between returns the samples from mint to maxt, in milliseconds.
	Between(mint, maxt int64) []chunks.Sample
}

// Queryable lets an engine read those of the series that find returns which match.
func Queryable(find func(matchers []*labels.Matcher) []Series) storage.Queryable {
	return storage.QueryableFunc(func(mint, maxt int64) (storage.Querier, error) {
		return &querier{find, mint, maxt}, nil
	})
}

// stepped is a made-up series with a sample every step milliseconds.
type stepped struct {
	Samples
	step int64
}

// Labels implements Series.
func (s stepped) Labels() labels.Labels { return s.labels }

// Between implements Series.
func (s stepped) Between(mint, maxt int64) (points []chunks.Sample) {
	for i, v := range s.values {
		if t := int64(i) * s.step; t >= mint && t <= maxt && !math.IsNaN(v) {
			points = append(points, point{t, v})
		}
	}
	return points
}

type querier struct {
	find       func([]*labels.Matcher) []Series
	mint, maxt int64
}

// Select implements storage.Querier.
func (q *querier) Select(_ context.Context, _ bool, hints *storage.SelectHints, matchers ...*labels.Matcher) storage.SeriesSet {
	mint, maxt := q.mint, q.maxt
	if hints != nil {
		mint, maxt = hints.Start, hints.End
	}
	set := &seriesSet{}
	for _, s := range q.find(matchers) {
		if !matchesAll(matchers, s.Labels()) {
			continue
		}
		if points := s.Between(mint, maxt); len(points) > 0 {
			set.series = append(set.series, storage.NewListSeries(s.Labels(), points))
		}
	}
	return set
}

func matchesAll(matchers []*labels.Matcher, l labels.Labels) bool {
	for _, m := range matchers {
		if !m.Matches(l.Get(m.Name)) {
			return false
		}
	}
	return true
}

var errNotKept = errors.New("made-up series have no index of labels")

// LabelValues implements storage.LabelQuerier.
func (q *querier) LabelValues(context.Context, string, *storage.LabelHints, ...*labels.Matcher) ([]string, annotations.Annotations, error) {
	return nil, nil, errNotKept
}

// LabelNames implements storage.LabelQuerier.
func (q *querier) LabelNames(context.Context, *storage.LabelHints, ...*labels.Matcher) ([]string, annotations.Annotations, error) {
	return nil, nil, errNotKept
}

// Close implements storage.LabelQuerier.
func (q *querier) Close() error { return nil }

type seriesSet struct {
	series []storage.Series
	next   int
}

// Next implements storage.SeriesSet.
func (s *seriesSet) Next() bool { s.next++; return s.next <= len(s.series) }

// At implements storage.SeriesSet.
func (s *seriesSet) At() storage.Series { return s.series[s.next-1] }

// Err implements storage.SeriesSet.
func (s *seriesSet) Err() error { return nil }

// Warnings implements storage.SeriesSet.
func (s *seriesSet) Warnings() annotations.Annotations { return nil }

// Sample is a value at a time in milliseconds.
func Sample(at int64, value float64) chunks.Sample { return point{at, value} }

// point implements chunks.Sample.
type point struct {
	t int64
	v float64
}

func (p point) T() int64                      { return p.t }
func (p point) ST() int64                     { return 0 }
func (p point) F() float64                    { return p.v }
func (p point) H() *histogram.Histogram       { return nil }
func (p point) FH() *histogram.FloatHistogram { return nil }
func (p point) Type() chunkenc.ValueType      { return chunkenc.ValFloat }
func (p point) Copy() chunks.Sample           { return p }

// Coarsely is how many scrapes lie between two evaluations of a coarse test:
// so many that a check between them still finds what the last one recorded.
func Coarsely(scrape time.Duration) int {
	return max(1, min(16, int(4*time.Minute/scrape)))
}
