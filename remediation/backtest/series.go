package backtest

import (
	"math"
	"slices"
	"time"

	"github.com/locotoki/backout/remediation"
)

// grid is where evaluations lie: at the multiples of step, first and last among them.
type grid struct {
	step        time.Duration
	first, last int64
}

func gridOf(from, to time.Time, step time.Duration) grid {
	g := grid{step: step}
	g.first, g.last = g.ceil(from), g.floor(to)
	return g
}

func (g grid) len() int             { return int(max(g.last-g.first+1, 0)) }
func (g grid) at(i int64) time.Time { return time.UnixMilli(i * g.step.Milliseconds()).UTC() }
func (g grid) floor(t time.Time) int64 {
	ms := g.step.Milliseconds()
	return int64(math.Floor(float64(t.UnixMilli()) / float64(ms)))
}

func (g grid) ceil(t time.Time) int64 {
	i := g.floor(t)
	if g.at(i).Before(t) {
		i++
	}
	return i
}

// span is how long n evaluations stand for.
func (g grid) span(n int) time.Duration { return time.Duration(n) * g.step }

// series are the values of one expression on a grid; NaN stands for none.
type series struct {
	grid
	values []float64
	// gaps are the evaluations that the source could not answer; they have no value.
	gaps []gap
}

// gap is a part of a grid, to excluded, without an answer.
type gap struct {
	from, to int64
	why      error
}

// failed is why the source has no answer at t, nil where it has one.
func (s *series) failed(t time.Time) error {
	for _, g := range s.gaps {
		if i := s.floor(t); i >= g.from && i < g.to {
			return g.why
		}
	}
	return nil
}

func newSeries(g grid) *series {
	s := &series{grid: g, values: make([]float64, g.len())}
	for i := range s.values {
		s.values[i] = math.NaN()
	}
	return s
}

// put takes points in; those between two evaluations belong to the first.
func (s *series) put(points []remediation.Point) {
	for _, p := range points {
		if i := s.floor(p.Time); i >= s.first && i <= s.last {
			s.values[i-s.first] = p.Value
		}
	}
}

// copyFrom takes the values of a part over.
func (s *series) copyFrom(part *series) {
	for i := max(s.first, part.first); i <= min(s.last, part.last); i++ {
		s.values[i-s.first] = part.values[i-part.first]
	}
	s.gaps = append(s.gaps, part.gaps...)
}

// since is the part of a series from i on.
func (s *series) since(i int64) *series {
	part := &series{grid: grid{s.step, i, s.last}, values: s.values[i-s.first:]}
	for _, g := range s.gaps {
		if g.from = max(g.from, i); g.from < g.to {
			part.gaps = append(part.gaps, g)
		}
	}
	return part
}

// value is that of the last evaluation at or before t; ok is false where there is none.
func (s *series) value(t time.Time) (v float64, ok bool) {
	i := s.floor(t)
	if i < s.first || i > s.last || math.IsNaN(s.values[i-s.first]) {
		return 0, false
	}
	return s.values[i-s.first], true
}

// silent is a part, if it lacks a value.
func (s *series) silent(part grid) []grid {
	if slices.ContainsFunc(s.values[part.first-s.first:part.last+1-s.first], math.IsNaN) {
		return []grid{part}
	}
	return nil
}
