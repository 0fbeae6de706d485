package scenario

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"math"
	"slices"
	"sort"
	"sync"
	"time"

	client "github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/common/model"
	"github.com/prometheus/common/promslog"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/model/rulefmt"
	"github.com/prometheus/prometheus/model/value"
	"github.com/prometheus/prometheus/promql"
	"github.com/prometheus/prometheus/promql/parser"
	"github.com/prometheus/prometheus/storage"
	"github.com/prometheus/prometheus/tsdb/chunks"

	"github.com/locotoki/backout/alerts"
	"github.com/locotoki/backout/remediation"
	"github.com/locotoki/backout/rules"
	"github.com/locotoki/backout/rules/series"
)

// backoutJob is the job that scrapes backout.
const backoutJob = "backout"

// prometheus scrapes made-up targets and backout's own metrics into memory, evaluates the
// playbook's rules, and answers queries at the scenario's time. It implements
// remediation.Prometheus.
type prometheus struct {
	now    func() time.Time
	engine *promql.Engine

	scraped []*target
	own     client.Gatherer
	groups  []group
	// away: it neither scrapes nor evaluates nor answers.
	away bool

	// mu guards what follows: the engine's parser takes one query at a time.
	mu     sync.Mutex
	series map[uint64]*recorded
	// named are the series of each metric.
	named map[string][]series.Series
}

// recorded implements series.Series.
type recorded struct {
	labels labels.Labels
	points []chunks.Sample
}

// Labels implements series.Series.
func (s *recorded) Labels() labels.Labels { return s.labels }

// Between implements series.Series.
func (s *recorded) Between(mint, maxt int64) []chunks.Sample {
	from := sort.Search(len(s.points), func(i int) bool { return s.points[i].T() >= mint })
	to := sort.Search(len(s.points), func(i int) bool { return s.points[i].T() > maxt })
	return s.points[from:max(from, to)]
}

// target is what one scrape reads: a job's instance, with its series.
type target struct {
	series []*scrapedSeries
	// up is the series that Prometheus makes of the scrape; nil where the scenario has
	// its own.
	up *recorded
}

// scrapedSeries has a value for each scrape from the start.
type scrapedSeries struct {
	*recorded
	values []parser.SequenceValue
	there  bool
}

func newPrometheus(pb *alerts.Playbook, sc *Scenario, now func() time.Time) (*prometheus, error) {
	p := &prometheus{
		now: now, engine: series.NewEngine(time.Duration(sc.Interval)), series: map[uint64]*recorded{}, named: map[string][]series.Series{},
	}
	file, err := rules.Rules(pb)
	if err != nil {
		return nil, err
	}
	groups, errs := rulefmt.Parse(file.Content, false, model.LegacyValidation, parser.NewParser(parser.Options{}), promslog.NewNopLogger())
	if err := errors.Join(errs...); err != nil {
		return nil, fmt.Errorf("read the generated rules: %w", err)
	}
	if p.groups, err = heard(pb, groups.Groups); err != nil {
		return nil, err
	}
	x, err := rules.ExpressionsOf(pb)
	if err != nil {
		return nil, err
	}
	own, err := parser.NewParser(parser.Options{}).ParseMetricSelector(x.Targets)
	if err != nil {
		return nil, fmt.Errorf("read the playbook's up: %w", err)
	}
	p.addTargets(sc, own)
	return p, nil
}

// addTargets groups the series by the target that exports them. own are the matchers of
// the service's targets.
func (p *prometheus) addTargets(sc *Scenario, matchers []*labels.Matcher) {
	byInstance := map[uint64]*target{}
	own := map[string]bool{} // jobs whose up the scenario has
	for _, s := range sc.Series {
		if s.labels.Get(model.MetricNameLabel) == "up" {
			own[s.labels.Get(model.JobLabel)] = true
		}
	}
	for _, s := range sc.Series {
		job, up := s.labels.Get(model.JobLabel), upOf(s.labels, matchers)
		t := byInstance[up.Hash()]
		if t == nil {
			t = &target{}
			if job != "" && !own[job] {
				t.up = p.seriesOf(up)
			}
			byInstance[up.Hash()] = t
			p.scraped = append(p.scraped, t)
		}
		t.series = append(t.series, &scrapedSeries{recorded: p.seriesOf(s.labels), values: s.values})
	}
}

// upOf are the labels of up of the target that exports a series. Prometheus gives a
// target's labels to up and to all that it exports, so what the service's matchers ask for
// is the series' own value; one that leaves it out is the service's.
func upOf(s labels.Labels, own []*labels.Matcher) labels.Labels {
	b := labels.NewBuilder(labels.FromStrings(model.MetricNameLabel, "up", model.JobLabel, s.Get(model.JobLabel)))
	b.Set(model.InstanceLabel, s.Get(model.InstanceLabel))
	for _, m := range own {
		if m.Name == model.JobLabel && !m.Matches(s.Get(model.JobLabel)) {
			return b.Labels() // another job's
		}
		switch value := s.Get(m.Name); {
		case m.Name == model.MetricNameLabel || m.Name == model.JobLabel || m.Name == model.InstanceLabel && value != "":
		case value != "":
			b.Set(m.Name, value)
		case m.Type == labels.MatchEqual:
			b.Set(m.Name, m.Value)
		}
	}
	return b.Labels()
}

// seriesOf returns the series with these labels.
func (p *prometheus) seriesOf(l labels.Labels) *recorded {
	s := p.series[l.Hash()]
	if s == nil {
		s = &recorded{labels: l}
		p.series[l.Hash()] = s
		name := l.Get(model.MetricNameLabel)
		p.named[name] = append(p.named[name], s)
	}
	return s
}

var staleNaN = math.Float64frombits(value.StaleNaN)

func (s *recorded) add(at time.Time, v float64) {
	s.points = append(s.points, series.Sample(at.UnixMilli(), v))
}

// find finds the series of a selector's metric.
func (p *prometheus) find(matchers []*labels.Matcher) []series.Series {
	for _, m := range matchers {
		if m.Name == model.MetricNameLabel && m.Type == labels.MatchEqual {
			return p.named[m.Value]
		}
	}
	var all []series.Series
	for _, name := range slices.Sorted(maps.Keys(p.named)) {
		all = append(all, p.named[name]...)
	}
	return all
}

func (p *prometheus) over() storage.Queryable { return series.Queryable(p.find) }

// Query implements remediation.Prometheus.
func (p *prometheus) Query(_ context.Context, expr string) (float64, bool, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.away {
		return 0, false, fmt.Errorf("%w: Prometheus is away", remediation.ErrNoAnswer)
	}
	return series.Value(p.engine, p.over(), expr, p.now())
}

// scrape takes the samples of the n-th scrape.
func (p *prometheus) scrape(n int) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	now := p.now()
	for _, t := range p.scraped {
		t.scrape(n, now)
	}
	return p.scrapeOwn(now)
}

// scrape appends a target's samples. A target none of whose series has a sample is down;
// what it exported is then stale.
func (t *target) scrape(n int, now time.Time) {
	up := 0.0
	for _, s := range t.series {
		if n < len(s.values) && !s.values[n].Omitted {
			s.there = !value.IsStaleNaN(s.values[n].Value)
			s.add(now, s.values[n].Value)
			up = 1
		}
	}
	if t.up == nil {
		return
	}
	t.up.add(now, up)
	for _, s := range t.series {
		if up == 0 && s.there {
			s.add(now, staleNaN)
			s.there = false
		}
	}
}

// scrapeOwn takes backout's metrics, with honor_labels as deploy/prometheus.yml has it.
// No rule reads its histograms.
func (p *prometheus) scrapeOwn(now time.Time) error {
	families, err := p.own.Gather()
	if err != nil {
		return fmt.Errorf("gather backout's metrics: %w", err)
	}
	fresh := map[*recorded]bool{}
	add := func(l labels.Labels, v float64) {
		s := p.seriesOf(l)
		s.add(now, v)
		fresh[s] = true
	}
	add(labels.FromStrings(model.MetricNameLabel, "up", model.JobLabel, backoutJob, model.InstanceLabel, backoutJob), 1)
	for _, f := range families {
		for _, m := range f.GetMetric() {
			b := labels.NewBuilder(labels.FromStrings(model.MetricNameLabel, f.GetName(), model.JobLabel, backoutJob, model.InstanceLabel, backoutJob))
			for _, l := range m.GetLabel() {
				b.Set(l.GetName(), l.GetValue())
			}
			switch {
			case m.GetGauge() != nil:
				add(b.Labels(), m.GetGauge().GetValue())
			case m.GetCounter() != nil:
				add(b.Labels(), m.GetCounter().GetValue())
			}
		}
	}
	for _, s := range p.series { // what backout no longer exports
		if !fresh[s] && s.labels.Get(model.JobLabel) == backoutJob {
			s.end(now)
		}
	}
	return nil
}

// end marks a series as stale, once.
func (s *recorded) end(now time.Time) {
	if n := len(s.points); n > 0 && !value.IsStaleNaN(s.points[n-1].F()) {
		s.add(now, staleNaN)
	}
}

// evaluate evaluates the groups that are due, and returns what Prometheus then sends to
// Alertmanager.
func (p *prometheus) evaluate() (sent []sentAlert, err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	now := p.now()
	for i := range p.groups {
		g := &p.groups[i]
		if g.next.After(now) {
			continue
		}
		for !g.next.After(now) {
			g.next = g.next.Add(g.every)
		}
		for k := range g.rules {
			r := g.rules[k]
			// It gives nothing while none of its metrics has a series.
			if r.silent && r.steady && !slices.ContainsFunc(r.reads, func(name string) bool { return len(p.named[name]) > 0 }) {
				continue
			}
			vector, err := series.Vector(p.engine, p.over(), r.Expr, now)
			if err != nil {
				return nil, err
			}
			r.silent = len(vector) == 0
			if r.Record != "" {
				p.record(r, vector, now)
				continue
			}
			r.alert(vector, now)
			sent = append(sent, r.send(now)...)
		}
	}
	return sent, nil
}

// firing are the triggers whose alerts fire, sorted.
func (p *prometheus) firing() []string {
	var names []string
	for _, g := range p.groups {
		for _, r := range g.rules {
			for _, a := range r.active {
				if t := a.labels.Get("trigger"); t != "" && !a.fired.IsZero() && !slices.Contains(names, t) {
					names = append(names, t)
				}
			}
		}
	}
	slices.Sort(names)
	return names
}
