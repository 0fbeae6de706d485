package backtest

import (
	"context"
	"errors"
	"fmt"
	"math"
	"runtime/debug"
	"sync"
	"sync/atomic"
	"time"

	"github.com/locotoki/backout/remediation"
)

// Source is the Prometheus whose past is replayed.
type Source interface {
	// Samples returns the values of an expression at from, from+step and so on up to to;
	// moments without a value are left out, infinities are not. More than one series is
	// an error. One that wraps remediation.ErrExecution or ErrTooSlow is about this range
	// only; after any other error nothing else is asked.
	Samples(ctx context.Context, expr string, from, to time.Time, step time.Duration) ([]remediation.Point, error)
}

const (
	// maxPoints is how many evaluations one query has at most: Prometheus refuses 11,000.
	maxPoints = 10_999
	// chunkSpan is how much time one query covers, if that is no more than maxPoints.
	chunkSpan = 24 * time.Hour
	// leastChunk is the least time that a query is divided into where Prometheus cannot
	// answer a longer one. Where it cannot answer that, the series has a gap.
	leastChunk = time.Hour
	// settled is how old samples are once no more of them come.
	settled = time.Hour
	// MaxLoad is how many queries run at a time at most.
	MaxLoad = 2.0
	// MinLoad is the least load: one query, then a pause of nineteen times as long.
	MinLoad = 0.05
)

// fetcher asks a source, within its load, and keeps answers in the cache.
type fetcher struct {
	source Source
	cache  *Cache // nil: nothing is kept
	name   string // of the source
	now    func() time.Time
	// slots holds as many tokens as queries may run at a time, pause is how long a query
	// makes its slot rest, in multiples of what it took.
	slots chan struct{}
	pause float64
	// answered: some query has had an answer.
	answered atomic.Bool
}

func newFetcher(o *Options) *fetcher {
	load := o.MaxLoad
	if load == 0 {
		load = MaxLoad
	}
	slots := math.Ceil(load)
	return &fetcher{
		source: o.Source, cache: o.Cache, name: o.SourceName + "\x00" + o.Identity, now: o.Now,
		slots: make(chan struct{}, int(slots)), pause: slots/load - 1,
	}
}

// fetch returns the values of an expression on a grid, which one query can have.
func (f *fetcher) fetch(ctx context.Context, expr string, g grid) (*series, error) {
	out := newSeries(g)
	if expr == "" || g.len() == 0 {
		return out, nil
	}
	key := keyOf(f.name, expr, g)
	if f.cache.read(key, out.values) {
		return out, nil
	}
	if err := f.ask(ctx, expr, out); err != nil {
		return nil, err
	}
	if len(out.gaps) == 0 && f.now().Sub(g.at(g.last)) >= settled {
		if err := f.cache.write(key, out.values); err != nil {
			return nil, err
		}
	}
	return out, nil
}

// ask fills a series. A range that Prometheus cannot answer is asked in halves.
func (f *fetcher) ask(ctx context.Context, expr string, out *series) error {
	points, err := f.query(ctx, expr, out.grid)
	slow := errors.Is(err, remediation.ErrTooSlow)
	switch {
	case err == nil:
		f.answered.Store(true)
		out.put(points)
		return nil
	case ctx.Err() != nil, !slow && !errors.Is(err, remediation.ErrExecution):
		return err
	case slow && !f.answers(ctx, out.grid):
		return err // the server, and not the expression
	case out.span(out.len()) < 2*leastChunk:
		out.gaps = []gap{{out.first, out.last + 1, err}}
		return nil
	}
	half := out.grid
	half.last = (out.first + out.last) / 2
	for _, g := range []grid{half, {out.step, half.last + 1, out.last}} {
		part := newSeries(g)
		if why := tooSlow(out); why != nil {
			part.gaps = []gap{{g.first, g.last + 1, why}}
		} else if err := f.ask(ctx, expr, part); err != nil {
			return err
		}
		out.copyFrom(part)
	}
	return nil
}

// answers reports whether Prometheus answers what costs it nothing.
func (f *fetcher) answers(ctx context.Context, g grid) bool {
	if !f.answered.Load() {
		_, err := f.query(ctx, "vector(1)", g)
		f.answered.Store(err == nil)
	}
	return f.answered.Load()
}

// tooSlow is why the rest of a series is not asked for: each query would run into its
// time limit.
func tooSlow(s *series) error {
	for _, g := range s.gaps {
		if errors.Is(g.why, remediation.ErrTooSlow) {
			return g.why
		}
	}
	return nil
}

// query runs one query in a slot.
func (f *fetcher) query(ctx context.Context, expr string, g grid) ([]remediation.Point, error) {
	select {
	case f.slots <- struct{}{}:
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	defer func() { <-f.slots }()
	if ctx.Err() != nil { // which select may have passed over
		return nil, ctx.Err()
	}
	began := time.Now()
	points, err := f.source.Samples(ctx, expr, g.at(g.first), g.at(g.last), g.step)
	if rest := time.Duration(f.pause * float64(time.Since(began))); rest > 0 {
		select {
		case <-time.After(rest):
		case <-ctx.Done():
		}
	}
	return points, err
}

// panicError is a panic of a goroutine of ours, which would end the server.
type panicError struct {
	value any
	stack []byte
}

func (e *panicError) Error() string { return fmt.Sprintf("internal error: %v", e.value) }

// Stack is for the log.
func (e *panicError) Stack() string { return string(e.stack) }

// safely returns what do does, and a panic as an error.
func safely(do func() error) (err error) {
	defer func() {
		if p := recover(); p != nil {
			err = &panicError{p, debug.Stack()}
		}
	}()
	return do()
}

// line is an expression that is fetched for all of the time, which may be another one
// for each part of it; "" is one without a value.
type line struct {
	expr func(from, to time.Time) (string, error)
	// within, where set, are the parts of a grid outside of which it has no value.
	within func(g grid) []grid
	*series
}

// lineOf is one expression for all of the time.
func lineOf(expr string, g grid) *line {
	return &line{expr: func(time.Time, time.Time) (string, error) { return expr, nil }, series: newSeries(g)}
}

// chunks divides a grid at fixed moments, so that a later backtest finds them again.
func chunks(g grid) []grid {
	size := int64(chunkSpan / g.step)
	size = max(min(size, maxPoints), 1)
	var out []grid
	for i := g.first; i <= g.last; {
		end := min((i/size+1)*size-1, g.last)
		out = append(out, grid{g.step, i, end})
		i = end + 1
	}
	return out
}

// fetchAll fetches lines, the newest chunk of all of them first, and returns from where
// on they are whole. Where ctx ends or a query fails that is later than asked for: the
// error says why.
func (f *fetcher) fetchAll(ctx context.Context, g grid, lines []*line, progress func(done, all int)) (whole int64, err error) {
	type job struct {
		chunk int
		line  *line
	}
	parts := chunks(g)
	var mu sync.Mutex // guards the lines and what follows
	var errs []error
	done, left := 0, make([]int, len(parts)) // lines that a chunk lacks
	for i := range left {
		left[i] = len(lines)
	}
	asking, cancel := context.WithCancel(ctx)
	defer cancel()
	one := func(j job) error {
		if err := f.fetchChunk(asking, parts[j.chunk], j.line, &mu); err != nil {
			return err
		}
		mu.Lock()
		defer mu.Unlock()
		left[j.chunk]--
		done++
		progress(done, len(parts)*len(lines))
		return nil
	}
	work := make(chan job)
	var wg sync.WaitGroup
	for range cap(f.slots) {
		wg.Go(func() {
			for j := range work {
				if err := safely(func() error { return one(j) }); err != nil {
					mu.Lock()
					errs = append(errs, err)
					mu.Unlock()
					cancel()
				}
			}
		})
	}
send:
	for i := len(parts) - 1; i >= 0; i-- {
		for _, l := range lines {
			select {
			case work <- job{i, l}:
			case <-asking.Done():
				break send
			}
		}
	}
	close(work)
	wg.Wait()
	whole = g.last + 1
	for i := len(parts) - 1; i >= 0 && left[i] == 0; i-- {
		whole = parts[i].first
	}
	for _, err := range errs { // the first one that is not of our own cancelling
		if !errors.Is(err, context.Canceled) {
			return whole, err
		}
	}
	if len(errs) > 0 {
		return whole, errs[0]
	}
	return whole, ctx.Err()
}

// fetchChunk fetches one chunk of a line, which mu guards.
func (f *fetcher) fetchChunk(ctx context.Context, g grid, l *line, mu *sync.Mutex) error {
	parts := []grid{g}
	if l.within != nil {
		parts = l.within(g)
	}
	for _, g := range parts {
		expr, err := l.expr(g.at(g.first), g.at(g.last))
		if err != nil {
			return err
		}
		mu.Lock()
		why := tooSlow(l.series)
		mu.Unlock()
		part := newSeries(g)
		if why != nil {
			part.gaps = []gap{{g.first, g.last + 1, why}}
		} else if part, err = f.fetch(ctx, expr, g); err != nil {
			return fmt.Errorf("%s to %s: %w", g.at(g.first).Format(time.RFC3339), g.at(g.last).Format(time.RFC3339), err)
		}
		func() {
			mu.Lock()
			defer mu.Unlock() // though it panics
			l.copyFrom(part)
		}()
	}
	return nil
}
