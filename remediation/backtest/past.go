package backtest

import (
	"context"
	"sync"
	"time"

	"github.com/locotoki/backout/rules"
)

// past is the Prometheus of the replayed engine, and its clock.
type past struct {
	fetch *fetcher
	ctx   context.Context
	step  time.Duration
	// last is the last evaluation of the backtest: nothing later is fetched.
	last int64
	// values are the triggers' own, by the expression that the engine asks.
	values map[string]*series
	expr   rules.Expressions
	// long are the expressions that every poll asks: they are fetched by the day.
	long map[string]bool

	mu    sync.Mutex
	now   time.Time
	first time.Time
	known map[pastKey]*pastSeries
	// plain asks Prometheus for all of it, for the test that nothing else follows from less.
	plain bool
	// upAt and kept are the expressions about the targets of a moment, which differ for
	// each incident, and their moment.
	upAt, kept map[string]time.Time
	err        error
}

// pastKey names a part of an expression that was fetched.
type pastKey struct {
	expr string
	part int64
}

// pastSeries is what was fetched of a part; polls that ask it together fetch it once.
type pastSeries struct {
	mu sync.Mutex
	*series
}

// pastPart is how much of an expression is fetched at a time: polls follow each other for
// about as long.
const pastPart = 30 * time.Minute

func newPast(ctx context.Context, f *fetcher, x rules.Expressions, g grid, plain bool) *past {
	p := &past{
		fetch: f, ctx: ctx, step: g.step, last: g.last, values: map[string]*series{}, expr: x, long: map[string]bool{}, known: map[pastKey]*pastSeries{},
		plain: plain, upAt: map[string]time.Time{}, kept: map[string]time.Time{}, first: g.at(g.first), now: g.at(g.first),
	}
	for _, expr := range []string{x.Fresh(2 * g.step), x.Alive, x.Up, x.UpNow(), x.DownNow()} {
		p.long[expr] = true
	}
	return p
}

// opened notes that an incident may open now: what is asked about its targets follows
// from what is known of the service's.
func (p *past) opened() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if g := (grid{step: p.step}); !p.plain && g.at(g.floor(p.now)).Unix() == p.now.Unix() && p.now.Nanosecond() == 0 {
		p.upAt[p.expr.UpAt(p.now)], p.kept[p.expr.KeptSince(p.now)] = p.now, p.now
	}
}

func (p *past) clock() time.Time {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.now
}

func (p *past) set(t time.Time) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.now = t
}

// steady is how long the clock has run: nobody sets it.
func (p *past) steady() time.Duration { return p.clock().Sub(p.first) }

// prefetch asks what the polls of incidents will ask, ahead of the replay, so that
// Prometheus and the replay work at the same time.
func (p *past) prefetch(events []event) error {
	for _, e := range events {
		exprs := []string{p.expr.Fresh(2 * p.step), p.expr.Alive, p.expr.Up, p.expr.UpNow(), p.expr.DownNow()}
		if x, ok := p.expr.Triggers[e.trigger]; ok {
			exprs = append(exprs, x.Recovery)
		}
		for _, expr := range exprs {
			if _, err := p.part(expr, e.at); err != nil {
				return err
			}
		}
	}
	return nil
}

// fail ends the replay, unless err is nil.
func (p *past) fail(err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.err == nil {
		p.err = err
	}
}

// failed is why the source did not answer, which ends the replay.
func (p *past) failed() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.err
}

// Query implements remediation.Prometheus.
func (p *past) Query(_ context.Context, expr string) (float64, bool, error) {
	p.mu.Lock()
	now := p.now
	since, isUpAt := p.upAt[expr]
	opened, isKept := p.kept[expr]
	p.mu.Unlock()
	switch s := p.values[expr]; {
	case s != nil:
		v, ok := s.value(now)
		return v, ok, s.failed(now)
	case expr == p.expr.Age && !p.plain:
		// A poll asks only whether the newest sample is older than two scrapes, and says how
		// old it is where it is.
		if _, fresh, err := p.at(p.expr.Fresh(2*p.step), now); fresh || err != nil {
			return 0, fresh, err
		}
	case isUpAt:
		return p.at(p.expr.UpNow(), since)
	case isKept:
		if down, _, err := p.at(p.expr.DownNow(), now); err != nil || down > 0 {
			break // which ones are down, only Prometheus can tell
		}
		v, _, err := p.at(p.expr.UpNow(), opened)
		return v, true, err
	}
	return p.at(expr, now)
}

// at returns the value of an expression at a moment.
func (p *past) at(expr string, t time.Time) (float64, bool, error) {
	s, err := p.part(expr, t)
	if err != nil {
		return 0, false, err
	}
	v, ok := s.value(t)
	return v, ok, s.failed(t)
}

// part is what is fetched of an expression about a moment; an error ends the replay.
func (p *past) part(expr string, t time.Time) (*series, error) {
	g, span := grid{step: p.step}, pastPart
	if p.long[expr] {
		span = chunkSpan
	}
	size := max(min(int64(span/p.step), maxPoints), 1)
	key := pastKey{expr, g.floor(t) / size}
	p.mu.Lock()
	s := p.known[key]
	if s == nil {
		s = &pastSeries{}
		p.known[key] = s
	}
	p.mu.Unlock()
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.series == nil {
		g.first = key.part * size
		g.last = max(min(g.first+size-1, p.last), g.floor(t))
		err := safely(func() (err error) {
			s.series, err = p.fetch.fetch(p.ctx, expr, g)
			return err
		})
		if err != nil {
			p.fail(err)
			return nil, err
		}
	}
	return s.series, nil
}

// gaps are what the source could not answer of the replay's own questions, which has ended.
func (p *past) gaps() (all []gap) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, s := range p.known {
		if s.series != nil {
			all = append(all, s.gaps...)
		}
	}
	return all
}
