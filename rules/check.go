package rules

import (
	"errors"
	"fmt"
	"math"
	"slices"
	"strings"
	"time"

	"github.com/prometheus/prometheus/promql/parser"

	"github.com/locotoki/backout/alerts"
	"github.com/locotoki/backout/hint"
	"github.com/locotoki/backout/rules/query"
	"github.com/locotoki/backout/rules/series"
)

// Findings are the results of Check for a valid playbook.
type Findings struct {
	// Errors are bounds that can never fire, always fire, or look recovered while
	// the breach continues.
	Errors   alerts.Problems
	Warnings alerts.Problems
}

// Check generates a valid playbook's rules, parses them as Prometheus does, and
// evaluates each bound on simulated series: steady ones at many levels, one sample,
// and none at all. It does not generate the tests.
func Check(pb *alerts.Playbook) (found Findings, err error) {
	c := newChecker(pb)
	if c.lint(); c.unusable {
		return c.found, nil
	}
	made, err := Rules(pb)
	if err == nil {
		err = asPrometheus(made)
	}
	if err != nil {
		return Findings{}, err
	}
	if err := refusedAlive(pb); err != nil {
		return Findings{}, err
	}
	c.sim = series.NewSimulator(time.Duration(pb.ScrapeInterval), series.MostSamples)
	defer func() { err = errors.Join(err, c.sim.Close()) }()
	c.alive()
	for i := range pb.Indicators {
		if ind := &pb.Indicators[i]; ind.Alert != nil {
			c.bound(fmt.Sprintf("indicators[%d].alert", i), "the alert of "+ind.Name, ind, query.OfAlert(ind.Alert), nil)
		}
	}
	for i := range pb.Triggers {
		t := &pb.Triggers[i]
		if t.Signal != "" {
			continue
		}
		c.bound(fmt.Sprintf("triggers[%d]", i), "the trigger "+t.Name, pb.Indicator(t.Indicator), query.OfTrigger(t), t)
	}
	return c.found, nil
}

// Refused returns what Check refuses without evaluating anything: no rules should be
// generated from it. nil if there is none.
func Refused(pb *alerts.Playbook) error {
	c := newChecker(pb)
	if c.lint(); len(c.found.Errors) > 0 {
		return c.found.Errors
	}
	return refusedAlive(pb)
}

func refusedAlive(pb *alerts.Playbook) error {
	err := checkAlive(pb)
	if err == nil {
		return nil
	}
	message, try := hint.Of(err)
	return alerts.Problems{pb.InQuery("alive", 0, message, try)}
}

func newChecker(pb *alerts.Playbook) *checker {
	return &checker{pb: pb, told: map[string]bool{}, percent: map[string]bool{}, seen: map[alerts.Problem]bool{}, broken: map[string]bool{}}
}

// checker evaluates bounds.
type checker struct {
	pb    *alerts.Playbook
	sim   *series.Simulator
	found Findings
	// told are the indicators whose silence was reported.
	told map[string]bool
	// percent are those that were reported as percentages.
	percent map[string]bool
	seen    map[alerts.Problem]bool
	// broken are the paths of queries that can never work, unusable says that no
	// rules can be made of one.
	broken   map[string]bool
	unusable bool
}

func (c *checker) fail(p alerts.Problem) { c.once(&c.found.Errors, p) }
func (c *checker) warn(p alerts.Problem) { c.once(&c.found.Warnings, p) }

func (c *checker) once(list *alerts.Problems, p alerts.Problem) {
	if !c.seen[p] {
		c.seen[p] = true
		*list = append(*list, p)
	}
}

// inQuery is a problem of an indicator's query, on its own line.
func (c *checker) inQuery(ind *alerts.Indicator, message, try string) alerts.Problem {
	return c.pb.InQuery(c.queryPath(ind), 0, message, try)
}

func (c *checker) queryPath(ind *alerts.Indicator) string {
	return fmt.Sprintf("indicators[%d].query", slices.IndexFunc(c.pb.Indicators, func(other alerts.Indicator) bool { return other.Name == ind.Name }))
}

// alive evaluates the alive expression with traffic and without.
func (c *checker) alive() {
	text, err := aliveOf(c.pb)
	if err != nil {
		return // Rules has said so
	}
	f, err := series.NewFeed(c.sim, c.pb, text, nil, 0)
	if err != nil {
		return
	}
	busy, err := busyLevels(f)
	if err != nil {
		return
	}
	levels := busy
	if busy == nil {
		levels = f.Normal
	}
	levels = f.Thinned(levels, 1e3) // without a comparison it may be 1 by chance
	value, err := f.Value(levels)
	if err != nil {
		return
	}
	idle, counts := slices.Clone(levels), false
	for i, fam := range f.Families {
		if fam.Shape == series.Counter {
			idle[i], counts = series.Level{}, true
		}
	}
	quiet, err := f.Value(idle)
	expr, bad := query.Parse(c.pb.Expand(c.pb.Alive, 0, 0))
	switch {
	case err != nil || bad != nil:
	case busy == nil && moves(expr) && value <= 1:
		c.warn(c.pb.InQuery("alive", 0, "check cannot determine whether alive can be 1: it is 0 on all series that check simulates", "try it in Prometheus, while the service gets requests"))
	case busy == nil || value > 1:
		c.fail(c.pb.InQuery("alive", 0, fmt.Sprintf("alive is %s, not 1, while the service gets requests: nothing would ever count as recovered", shown(value)), "compare with a number, such as sum(increase(requests_total[2m])) > bool 0"))
	case counts && quiet == 1:
		c.warn(c.pb.InQuery("alive", 0, "alive stays 1 when the service gets no requests: a service that hangs would look alive", "compare the requests with > bool 0, or with > 0 on the right of and"))
	case !counts && len(f.Families) <= 1:
		c.warn(c.pb.InQuery("alive", 0, "alive does not count requests: a service that hangs would look alive", "write sum(increase(requests_total[2m])) > bool 0"))
	}
}

// busyLevels are levels at which alive is 1, of any traffic from one request a second
// on; without what its gauges say, such as maintenance, if need be. None: nil.
func busyLevels(f *series.Feed) ([]series.Level, error) {
	for _, scale := range []float64{1, 1e3, 1e6} {
		for _, gauge := range []float64{scale, 0} {
			levels := slices.Clone(f.Normal)
			for i, fam := range f.Families {
				switch fam.Shape {
				case series.Counter:
					levels[i].At *= scale
				case series.Gauge:
					levels[i].At = gauge
				case series.Buckets, series.Fixed:
				}
			}
			if v, err := f.Value(levels); err != nil || v == 1 {
				return levels, err
			}
		}
	}
	return nil, nil
}

// scales are the levels at which all series of a query are tried.
var scales = []float64{1, 1e3, 1e-3, 1e6, 1e-6}

// bound evaluates an alert threshold, or a trigger where t is not nil.
func (c *checker) bound(path, name string, ind *alerts.Indicator, b query.Bound, t *alerts.Trigger) {
	q, err := query.Of(c.pb, ind.Name, b)
	if err != nil || c.broken[c.queryPath(ind)] {
		return
	}
	expr, err := query.Parse(q.At(time.Duration(b.Window), b.MinVolume))
	if err != nil {
		return
	}
	undecided := func(why string) {
		c.warn(c.inQuery(ind, fmt.Sprintf("check cannot determine whether %s can fire: %s", name, why), "try the query in Prometheus, on data from a bad day"))
	}
	if native(expr) {
		undecided("it can simulate only histograms whose buckets are counters, and no native ones")
		return
	}
	if back, err := query.Lookback(q.At(time.Duration(b.Window), b.MinVolume)); err == nil && back/q.Scrape() > mostScrapes {
		undecided(fmt.Sprintf("its range is %s, which is more than %d scrapes", query.Duration(back), mostScrapes))
		return
	}
	if t != nil && c.scaled(path, q, t, expr) {
		return
	}
	volume := 0.0
	if w := time.Duration(b.Window).Seconds(); w > 0 {
		volume = b.MinVolume / w
	}
	if t != nil {
		volume = max(volume, t.Recovery.MinVolume/time.Duration(t.Recovery.Window).Seconds())
	}
	text, err := q.Confident(q.At(time.Duration(b.Window), b.MinVolume), time.Duration(b.Window))
	if err != nil {
		return // lint has said so
	}
	f, err := series.NewFeed(c.sim, c.pb, text, boundsFor(ind, text, b.Threshold), volume)
	if err != nil {
		undecided(err.Error())
		return
	}
	f.Ramps(expr)
	f.Pivot = b.Threshold
	s := &subject{Feed: f, Query: q}
	v, silent, err := c.values(s)
	switch {
	case err != nil:
		undecided(err.Error())
	case len(v) == 0 && moves(expr) && c.compared(s):
		undecided("no steady series give its query a value")
	case len(v) == 0:
		c.fail(c.inQuery(ind, fmt.Sprintf("%s can never fire: its query has no value, whatever its series do", name), "try the query in Prometheus: the two sides of an operator must have the same labels, and a range must hold two samples"))
	case !slices.ContainsFunc(v, s.isBeyond) && moves(expr):
		undecided("no steady series bring its query beyond " + query.Number(b.Threshold))
	case !slices.ContainsFunc(v, s.isBeyond):
		c.fail(c.inQuery(ind, name+" can never fire: "+c.ranging(v, b), "compare the query's values in Prometheus with the threshold and the unit"))
	case !silent && !slices.ContainsFunc(v, s.isInside) && moves(expr):
		c.warn(c.inQuery(ind, name+" fires on all series that check simulates: "+c.ranging(v, b), "try the query in Prometheus, on data from a good day"))
	case !silent && !slices.ContainsFunc(v, s.isInside):
		c.fail(c.inQuery(ind, name+" fires on a healthy service: "+c.ranging(v, b), "compare the query's values in Prometheus with the threshold and the unit"))
	default:
		if t != nil {
			c.silence(ind, s, name)
			c.oneSample(ind, s, name)
			c.steady(path, s, t)
		}
	}
}

// ranging describes a query's values.
func (c *checker) ranging(v []float64, b query.Bound) string {
	least, most := shown(slices.Min(v)), shown(slices.Max(v))
	if least == most {
		return fmt.Sprintf("whatever its series do, its query gives %s (threshold %s)", least, query.Number(b.Threshold))
	}
	return fmt.Sprintf("whatever its series do, its query stays between %s and %s (threshold %s)", least, most, query.Number(b.Threshold))
}

// values are the query's values at all levels that were tried; silent says that it
// had none at some of them.
func (c *checker) values(s *subject) (all []float64, silent bool, err error) {
	add := func(v float64) {
		if math.IsNaN(v) {
			silent = true
		} else {
			all = append(all, v)
		}
	}
	normal := slices.Clone(s.Normal)
	for _, scale := range scales {
		for i := range s.Normal {
			if f := s.Families[i]; f.Shape == series.Counter || f.Shape == series.Gauge {
				s.Normal[i].At = normal[i].At * scale
			}
		}
		s.Knobs = nil
		if err := s.FindKnobs(); err != nil { // nothing moves the value
			v, err := s.Feed.Value(s.Normal)
			if err != nil {
				return nil, false, err
			}
			add(v)
		}
		for _, k := range s.Knobs {
			for _, v := range k.Values {
				add(v)
			}
		}
		if slices.ContainsFunc(all, s.isBeyond) && (silent || slices.ContainsFunc(all, s.isInside)) {
			break
		}
	}
	return all, silent, nil
}

// compared reports whether a query without a value has samples where its comparisons do
// not filter, or where a series is absent: its operators match, and other series decide.
func (c *checker) compared(s *subject) bool {
	expr, err := query.Parse(s.Text)
	if err != nil {
		return false
	}
	parser.Inspect(expr, func(n parser.Node, _ []parser.Node) error {
		if b, ok := n.(*parser.BinaryExpr); ok && b.Op.IsComparisonOperator() {
			b.ReturnBool = true
		}
		return nil
	})
	open := *s.Feed
	open.Text = query.Single("count", expr.String()) // one that is not a number counts
	tries := [][]series.Level{s.Normal, s.gone()}
	for i := range s.Families {
		one := slices.Clone(s.Normal)
		one[i].Absent = true
		tries = append(tries, one)
	}
	return slices.ContainsFunc(tries, func(levels []series.Level) bool {
		v, err := open.Value(levels)
		return err == nil && !math.IsNaN(v)
	})
}

func (s *subject) isInside(v float64) bool { return !s.isBeyond(v) }
func (s *subject) isBeyond(v float64) bool { return s.Beyond(v, s.Threshold) }

// silence warns about a query that reads as healthy where all its series are gone.
func (c *checker) silence(ind *alerts.Indicator, s *subject, name string) {
	v, err := s.Feed.Value(s.gone())
	if err != nil || math.IsNaN(v) || s.isBeyond(v) || c.told[ind.Name] {
		return
	}
	c.told[ind.Name] = true
	c.warn(c.inQuery(ind, fmt.Sprintf("without any series the query of %s reads %s, which is healthy for %s: a dead exporter would look like a recovery", ind.Name, shown(v), name),
		"remove the replacement for missing series, such as or vector(0); or 0 * sum(...) of a series that is always there"))
}

// oneSample warns about a query whose series' first sample decides, as while a process
// begins.
func (c *checker) oneSample(ind *alerts.Indicator, s *subject, name string) {
	value, _, err := s.Query.Value()
	beyond, ok := s.least()
	if err != nil || !ok {
		return
	}
	n := s.Steady()
	one := series.Script{{Scrapes: n - 1, Levels: s.gone()}, {Scrapes: 1, Levels: beyond}}
	if v, ok, err := s.Sim.Value(s.MadeUp(one), value, n-1); err == nil && ok && s.isBeyond(v) {
		c.warn(c.inQuery(ind, fmt.Sprintf("one sample decides %s: the first one of a new series is %s, which is beyond %s", name, shown(v), query.Number(s.Threshold)),
			"and count_over_time(...[$window]) >= 4, of the same series; or sustained instead of window"))
	}
}

// steady evaluates the recovery on the same steady series as the trigger: over the
// shorter window a count is smaller, and a continuing breach would look recovered.
func (c *checker) steady(path string, s *subject, t *alerts.Trigger) {
	if s.Instant() {
		return
	}
	text, _, err := s.Recovery(t.Recovery)
	if err != nil {
		return
	}
	r := *s.Feed
	r.Text = text
	recovery := t.RecoveryBound()
	beyond, ok, err := s.Find(s.around(0.03, 0.08))
	if err == nil && !ok {
		beyond, ok = s.least()
	}
	if err != nil || !ok {
		return
	}
	at, err := s.Feed.Value(beyond)
	if err != nil {
		return
	}
	v, err := r.Value(beyond)
	if err == nil && !math.IsNaN(v) && !s.Beyond(v, recovery) {
		c.cured(path, s.Query, t, fmt.Sprintf("a steady %s in %s is %s in %s", shown(at), t.Window, shown(v), t.Recovery.Window), v/at)
		return
	}
	inside, ok, err := s.Find(s.around(-0.08, -0.03))
	if recovery != s.Threshold { // which may be stricter: whatever recovers is enough
		inside, ok = s.farthest()
	}
	if err != nil || !ok {
		return
	}
	if at, err = s.Feed.Value(inside); err != nil {
		return
	}
	if v, err = r.Value(inside); err == nil && !math.IsNaN(v) && s.Beyond(v, recovery) {
		c.fail(c.pb.Problem(path+".recovery.window", fmt.Sprintf("%s can never recover: a steady %s in %s is %s in %s, which is still beyond %s", t.Name, shown(at), t.Window, shown(v), t.Recovery.Window, query.Number(recovery)), recoveryHint(s.Query, t, v/at)))
	}
}

// least are the levels whose value is beyond the threshold by the least.
func (s *subject) least() ([]series.Level, bool) {
	return s.best(s.isBeyond, func(by float64) float64 { return -by })
}

// farthest are the levels whose value is within the threshold by the most.
func (s *subject) farthest() ([]series.Level, bool) {
	return s.best(s.isInside, func(by float64) float64 { return by })
}

// best are the levels of the highest score, by the distance of their value from the
// threshold, of those whose value is wanted.
func (s *subject) best(wanted func(float64) bool, score func(float64) float64) ([]series.Level, bool) {
	best, found := math.Inf(-1), []series.Level(nil)
	for _, k := range s.Knobs {
		for i, v := range k.Values {
			if by := score(math.Abs(v - s.Threshold)); wanted(v) && by > best {
				best, found = by, s.With(k.Family, k.Levels[i])
			}
		}
	}
	return found, found != nil
}

func (c *checker) cured(path string, q *query.Query, t *alerts.Trigger, how string, pace float64) {
	c.fail(c.pb.Problem(path+".recovery.window", fmt.Sprintf("%s would look recovered while the breach continues: %s, which is within %s", t.Name, how, query.Number(t.RecoveryBound())), recoveryHint(q, t, pace)))
}

// recoveryHint offers a bound of the recovery. pace is how much of the value the recovery
// window shows of steady series: 1 of a ratio, the windows' share of a count.
func recoveryHint(q *query.Query, t *alerts.Trigger, pace float64) string {
	side := "below"
	if q.Above {
		side = "above"
	}
	bound := func(v float64) string {
		return fmt.Sprintf("recovery: {window: %s, %s: %s}", t.Recovery.Window, side, query.Number(query.Round(v)))
	}
	share := float64(t.Recovery.Window) / float64(t.Window)
	if share == 1 || math.Abs(pace-1) < math.Abs(pace-share) {
		return bound(q.Threshold) + ", which is the trigger's own bound"
	}
	return fmt.Sprintf("%s, which is the same pace; or rate() instead of a count; or window: %s", bound(q.Threshold*share), t.Window)
}

// scaled finds counts of changes and resets, which steady series have none of.
func (c *checker) scaled(path string, q *query.Query, t *alerts.Trigger, expr parser.Expr) bool {
	if q.Instant() || t.Recovery.Window >= t.Window || q.Threshold == 0 || t.RecoveryBound() != q.Threshold {
		return false
	}
	counts, divided := "", false
	parser.Inspect(expr, func(n parser.Node, _ []parser.Node) error {
		switch n := n.(type) {
		case *parser.Call:
			if n.Func.Name == "changes" || n.Func.Name == "resets" {
				counts = n.Func.Name
			}
		case *parser.BinaryExpr:
			divided = divided || n.Op == parser.DIV
		}
		return nil
	})
	if counts == "" || divided {
		return false
	}
	pace := q.Threshold * float64(t.Recovery.Window) / float64(t.Window)
	c.cured(path, q, t, fmt.Sprintf("%s() counts, and a steady %s in %s is %s in %s", counts, query.Number(q.Threshold), t.Window, shown(pace), t.Recovery.Window), pace/q.Threshold)
	return true
}

// mostScrapes is how many scrapes a query may look back to be evaluated: promtool
// loads no more than 10,000 samples at a time.
const mostScrapes = 9_000

// native reports whether a query reads histograms that are not made up here.
func native(expr parser.Expr) (yes bool) {
	parser.Inspect(expr, func(n parser.Node, _ []parser.Node) error {
		if call, ok := n.(*parser.Call); ok && strings.HasPrefix(call.Func.Name, "histogram_") {
			for _, s := range query.SelectorsOf(call) {
				yes = yes || series.ShapeOf(s.Vector.Name, []query.Selector{s}) != series.Buckets
			}
		}
		return nil
	})
	return yes
}

// moves reports whether a query looks for movement, which steady series lack, or
// counts or compares series, of which there is one of each kind.
func moves(expr parser.Expr) (yes bool) {
	parser.Inspect(expr, func(n parser.Node, _ []parser.Node) error {
		switch n := n.(type) {
		case *parser.VectorSelector:
			yes = yes || n.OriginalOffset != 0 || n.Name == "up"
		case *parser.AggregateExpr:
			yes = yes || slices.Contains([]parser.ItemType{parser.COUNT, parser.COUNT_VALUES, parser.STDDEV, parser.STDVAR}, n.Op) || n.Op == parser.SUM && compares(n.Expr)
		case *parser.BinaryExpr:
			yes = yes || !n.Op.IsSetOperator() && readsOtherwise(n.LHS, n.RHS)
		case *parser.SubqueryExpr:
			yes = yes || n.OriginalOffset != 0
		case *parser.Call:
			yes = yes || slices.Contains([]string{
				"changes", "resets", "delta", "idelta", "deriv", "predict_linear", "double_exponential_smoothing", "holt_winters",
				"stddev_over_time", "stdvar_over_time", "mad_over_time", "absent", "absent_over_time", "timestamp", "time",
				"hour", "minute", "month", "year", "day_of_week", "day_of_month", "day_of_year", "days_in_month",
			}, n.Func.Name)
		}
		return nil
	})
	return yes
}

// readsOtherwise reports whether two expressions read one metric in different ways: over
// other times, as the last minutes against the last hours, or as other aggregates, as the
// highest of the replicas against their mean.
func readsOtherwise(a, b parser.Expr) bool {
	ways := waysOf(a)
	for metric, way := range waysOf(b) {
		if other, ok := ways[metric]; ok && other != way {
			return true
		}
	}
	return false
}

// waysOf describes how an expression reads each of its metrics.
func waysOf(expr parser.Expr) map[string]string {
	ways := map[string]string{}
	parser.Inspect(expr, func(n parser.Node, path []parser.Node) error {
		v, ok := n.(*parser.VectorSelector)
		if !ok {
			return nil
		}
		var way []any
		for _, p := range path {
			switch p := p.(type) {
			case *parser.AggregateExpr:
				if this := fmt.Sprint(p.Op, p.Param); len(way) == 0 || way[len(way)-1] != this { // a sum of sums is a sum
					way = append(way, this)
				}
			case *parser.MatrixSelector:
				way = append(way, p.Range)
			case *parser.SubqueryExpr:
				way = append(way, p.Range)
			case *parser.Call:
				if t := p.Args[0].Type(); t == parser.ValueTypeScalar { // which quantile
					way = append(way, p.Args[0])
				}
				if p.Args[len(p.Args)-1].Type() == parser.ValueTypeMatrix {
					way = append(way, p.Func.Name)
				}
			}
		}
		ways[v.Name] = fmt.Sprint(way...)
		return nil
	})
	return ways
}

// compares reports whether an expression is 1 or 0 for each series.
func compares(expr parser.Expr) bool {
	if p, ok := expr.(*parser.ParenExpr); ok {
		return compares(p.Expr)
	}
	b, ok := expr.(*parser.BinaryExpr)
	return ok && b.Op.IsComparisonOperator()
}

// shown is a value as people read it.
func shown(v float64) string {
	if math.IsNaN(v) {
		return "without a value"
	}
	if math.IsInf(v, 0) {
		return fmt.Sprint(v)
	}
	return query.Number(round3(v))
}

func round3(v float64) float64 {
	if v == 0 {
		return 0
	}
	p := math.Pow(10, 2-math.Floor(math.Log10(math.Abs(v))))
	return math.Round(v*p) / p
}
