package series

import (
	"fmt"
	"math"
	"slices"
	"time"

	"github.com/prometheus/prometheus/promql/parser"

	"github.com/locotoki/backout/alerts"
	"github.com/locotoki/backout/rules/query"
)

// Feed makes up series for one query.
type Feed struct {
	Sim      *Simulator
	Families []family
	// Text is the query, back how far it looks back.
	Text   string
	Back   time.Duration
	Normal []Level
	Knobs  []knob
	// Pivot is the bound that the values are compared with, where it is known.
	Pivot float64
}

// knob is a family by whose level the query's value can be moved.
type knob struct {
	Family int
	Levels []float64
	Values []float64 // NaN: none
}

// NewFeed makes up series for a query; volume is how many events a second
// satisfy its volume guards.
func NewFeed(sim *Simulator, pb *alerts.Playbook, text string, bounds []float64, volume float64) (*Feed, error) {
	families, err := familiesOf(pb, []string{text}, bounds)
	if err != nil {
		return nil, err
	}
	back, err := query.Lookback(text)
	if err != nil {
		return nil, err
	}
	m := &Feed{Sim: sim, Families: families, Text: query.Single("max", text), Back: back}
	for _, f := range families {
		at := 1.0
		switch f.Shape {
		case Counter:
			at = math.Max(1, 10*volume)
		case Buckets:
			at = 0
		case Gauge, Fixed:
		}
		m.Normal = append(m.Normal, Level{At: at})
	}
	return m, nil
}

// Steady is how many scrapes until only the present level counts.
func (m *Feed) Steady() int { return int(m.Back/m.Sim.Scrape) + m.Sim.Coarse + 4 }

// Value is the query's value after a long time of the same levels; NaN: none.
func (m *Feed) Value(levels []Level) (float64, error) {
	n := m.Steady()
	v, ok, err := m.Sim.Value(m.MadeUp(Script{{Scrapes: n, Levels: levels}}), m.Text, n-1)
	if err != nil || !ok {
		return math.NaN(), err
	}
	return v, nil
}

// MadeUp are the series of a script, for the simulator.
func (m *Feed) MadeUp(s Script) []Samples {
	var out []Samples
	for i := range m.Families {
		for _, t := range m.Families[i].series(s, i, m.Sim.Scrape) {
			out = append(out, t.MadeUp())
		}
	}
	return out
}

// Inputs are the series of a script as promtool reads them.
func (m *Feed) Inputs(s Script, scrape time.Duration) []Input {
	var out []Input
	for i := range m.Families {
		for _, t := range m.Families[i].series(s, i, scrape) {
			out = append(out, t.Input())
		}
	}
	return out
}

// With is the normal levels but for one family.
func (m *Feed) With(family int, at float64) []Level {
	levels := append([]Level(nil), m.Normal...)
	levels[family].At = at
	return levels
}

// FindKnobs finds what moves the value: it tries each family at levels far apart.
func (m *Feed) FindKnobs() error {
	for _, i := range byUse(m.Families) {
		f := &m.Families[i]
		if f.Shape == Fixed || f.Specific == 0 {
			continue
		}
		k := knob{Family: i, Levels: trials(f, m.Normal[i].At, m.Pivot)}
		moves := false
		for n, at := range k.Levels {
			v, err := m.Value(m.With(i, at))
			if err != nil {
				return err
			}
			k.Values = append(k.Values, v)
			moves = moves || n > 0 && !math.IsNaN(v) && !math.IsNaN(k.Values[0]) && v != k.Values[0]
			if n > 0 && math.IsNaN(k.Values[0]) && !math.IsNaN(v) {
				moves = true
			}
		}
		if moves {
			m.Knobs = append(m.Knobs, k)
		}
	}
	if len(m.Knobs) == 0 {
		return fmt.Errorf("no series that it reads changes its value")
	}
	return nil
}

// trials are levels of a family from none to very much.
func trials(f *family, normal, pivot float64) []float64 {
	if f.Shape == Buckets {
		var levels []float64
		for z := 0.0; z <= float64(len(f.bounds)-1); z += 0.25 {
			levels = append(levels, z)
		}
		return levels
	}
	levels := []float64{0}
	for e := -6; e <= 6; e++ {
		levels = append(levels, normal*math.Pow(10, float64(e)))
	}
	if f.Shape == Gauge && pivot != 0 {
		for _, by := range []float64{-2, 0.5, 0.9, 1.1, 2, 10} {
			levels = append(levels, by*pivot)
		}
		slices.Sort(levels)
		levels = slices.Compact(levels)
	}
	return levels
}

// Within is a range of values.
type Within struct{ Low, High float64 }

// Has reports whether v lies between Low and High.
func (w Within) Has(v float64) bool { return v >= w.Low && v <= w.High } // NaN: no

// Find returns levels for which the query's value lies within the range. A knob
// that raises the value if it is raised itself is preferred: more errors,
// rather than fewer requests.
func (m *Feed) Find(w Within) ([]Level, bool, error) {
	for _, rising := range []float64{1, -1} {
		for _, k := range m.Knobs {
			for n, v := range k.Values {
				if w.Has(v) && (rising > 0) == k.rises() {
					return m.With(k.Family, k.Levels[n]), true, nil
				}
				if n == 0 || !crosses(k.Values[n-1], v, w, rising) {
					continue
				}
				levels, ok, err := m.bisect(k.Family, k.Levels[n-1], k.Levels[n], w, rising)
				if ok || err != nil {
					return levels, ok, err
				}
			}
		}
	}
	return nil, false, nil
}

// rises reports whether the value grows with the level.
func (k knob) rises() bool {
	first, last := math.NaN(), math.NaN()
	for _, v := range k.Values {
		if math.IsNaN(v) {
			continue
		}
		if math.IsNaN(first) {
			first = v
		}
		last = v
	}
	return last > first
}

func crosses(a, b float64, w Within, rising float64) bool {
	return rising > 0 && a < w.Low && b > w.High || rising < 0 && a > w.High && b < w.Low
}

// bisect looks between two levels, on whose sides the values lie on both sides
// of the range.
func (m *Feed) bisect(family int, a, b float64, w Within, rising float64) ([]Level, bool, error) {
	for range 60 {
		mid := (a + b) / 2
		if a > 0 && b/a > 2 {
			mid = math.Sqrt(a * b)
		}
		levels := m.With(family, mid)
		v, err := m.Value(levels)
		switch {
		case err != nil:
			return nil, false, err
		case w.Has(v):
			return levels, true, nil
		case math.IsNaN(v):
			return nil, false, nil
		case (v < w.Low) == (rising > 0):
			a = mid
		default:
			b = mid
		}
	}
	return nil, false, nil
}

// Thinned are the same levels with all counters scaled down.
func (m *Feed) Thinned(levels []Level, by float64) []Level {
	out := append([]Level(nil), levels...)
	for i := range out {
		if m.Families[i].Shape == Counter {
			out[i].At *= by
		}
	}
	return out
}

// Volume returns the factor by which the counters can be thinned until the
// query's volume guard takes the value away; ok is false if none does.
func (m *Feed) Volume(levels []Level) (factor float64, ok bool, err error) {
	low, high := 1e-6, 1.0
	if v, err := m.Value(m.Thinned(levels, low)); err != nil || !math.IsNaN(v) {
		return 0, false, err
	}
	for high/low > 1.01 {
		mid := math.Sqrt(low * high)
		v, err := m.Value(m.Thinned(levels, mid))
		if err != nil {
			return 0, false, err
		}
		if math.IsNaN(v) {
			low = mid
		} else {
			high = mid
		}
	}
	return high, true, nil
}

// Ramps lets gauges rise whose movement a query looks at.
func (m *Feed) Ramps(expr parser.Expr) {
	for _, s := range query.SelectorsOf(expr) {
		if !slices.Contains([]string{"delta", "deriv", "idelta", "predict_linear"}, s.Call) {
			continue
		}
		for i := range m.Families {
			if f := &m.Families[i]; f.Name == s.Vector.Name && f.Shape == Gauge {
				f.Shape = Counter
			}
		}
	}
}
