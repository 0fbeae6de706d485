package rules

import (
	"fmt"
	"math"
	"slices"
	"time"

	"github.com/locotoki/backout/alerts"
)

// feed makes up series for one query.
type feed struct {
	sim      *simulator
	families []family
	// text is the query, back how far it looks back.
	text   string
	back   time.Duration
	normal []level
	knobs  []knob
	// pivot is the bound that the values are compared with, where it is known.
	pivot float64
}

// knob is a family by whose level the query's value can be moved.
type knob struct {
	family int
	levels []float64
	values []float64 // NaN: none
}

// feedOf makes up series for a query; volume is how many events a second
// satisfy its volume guards.
func feedOf(sim *simulator, pb *alerts.Playbook, text string, bounds []float64, volume float64) (*feed, error) {
	families, err := familiesOf(pb, []string{text}, bounds)
	if err != nil {
		return nil, err
	}
	back, err := lookback(text)
	if err != nil {
		return nil, err
	}
	m := &feed{sim: sim, families: families, text: single("max", text), back: back}
	for _, f := range families {
		at := 1.0
		switch f.shape {
		case counter:
			at = math.Max(1, 10*volume)
		case buckets:
			at = 0
		case gauge, fixed:
		}
		m.normal = append(m.normal, level{at: at})
	}
	return m, nil
}

// steady is how many scrapes until only the present level counts.
func (m *feed) steady() int { return int(m.back/m.sim.scrape) + m.sim.coarse + 4 }

// value is the query's value after a long time of the same levels; NaN: none.
func (m *feed) value(levels []level) (float64, error) {
	n := m.steady()
	v, ok, err := m.sim.value(m.madeUp(script{{scrapes: n, levels: levels}}), m.text, n-1)
	if err != nil || !ok {
		return math.NaN(), err
	}
	return v, nil
}

func (m *feed) madeUp(s script) []madeUp {
	var out []madeUp
	for i := range m.families {
		for _, t := range m.families[i].series(s, i, m.sim.scrape) {
			out = append(out, t.madeUp())
		}
	}
	return out
}

// with is the normal levels but for one family.
func (m *feed) with(family int, at float64) []level {
	levels := append([]level(nil), m.normal...)
	levels[family].at = at
	return levels
}

// findKnobs finds what moves the value: it tries each family at levels far apart.
func (m *feed) findKnobs() error {
	for _, i := range byUse(m.families) {
		f := &m.families[i]
		if f.shape == fixed || f.specific == 0 {
			continue
		}
		k := knob{family: i, levels: trials(f, m.normal[i].at, m.pivot)}
		moves := false
		for n, at := range k.levels {
			v, err := m.value(m.with(i, at))
			if err != nil {
				return err
			}
			k.values = append(k.values, v)
			moves = moves || n > 0 && !math.IsNaN(v) && !math.IsNaN(k.values[0]) && v != k.values[0]
			if n > 0 && math.IsNaN(k.values[0]) && !math.IsNaN(v) {
				moves = true
			}
		}
		if moves {
			m.knobs = append(m.knobs, k)
		}
	}
	if len(m.knobs) == 0 {
		return fmt.Errorf("no series that it reads changes its value")
	}
	return nil
}

// trials are levels of a family from none to very much.
func trials(f *family, normal, pivot float64) []float64 {
	if f.shape == buckets {
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
	if f.shape == gauge && pivot != 0 {
		for _, by := range []float64{-2, 0.5, 0.9, 1.1, 2, 10} {
			levels = append(levels, by*pivot)
		}
		slices.Sort(levels)
		levels = slices.Compact(levels)
	}
	return levels
}

// within is a range of values.
type within struct{ low, high float64 }

func (w within) has(v float64) bool { return v >= w.low && v <= w.high } // NaN: no

// find returns levels for which the query's value lies within the range. A knob
// that raises the value if it is raised itself is preferred: more errors,
// rather than fewer requests.
func (m *feed) find(w within) ([]level, bool, error) {
	for _, rising := range []float64{1, -1} {
		for _, k := range m.knobs {
			for n, v := range k.values {
				if w.has(v) && (rising > 0) == k.rises() {
					return m.with(k.family, k.levels[n]), true, nil
				}
				if n == 0 || !crosses(k.values[n-1], v, w, rising) {
					continue
				}
				levels, ok, err := m.bisect(k.family, k.levels[n-1], k.levels[n], w, rising)
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
	for _, v := range k.values {
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

func crosses(a, b float64, w within, rising float64) bool {
	return rising > 0 && a < w.low && b > w.high || rising < 0 && a > w.high && b < w.low
}

// bisect looks between two levels, on whose sides the values lie on both sides
// of the range.
func (m *feed) bisect(family int, a, b float64, w within, rising float64) ([]level, bool, error) {
	for range 60 {
		mid := (a + b) / 2
		if a > 0 && b/a > 2 {
			mid = math.Sqrt(a * b)
		}
		levels := m.with(family, mid)
		v, err := m.value(levels)
		switch {
		case err != nil:
			return nil, false, err
		case w.has(v):
			return levels, true, nil
		case math.IsNaN(v):
			return nil, false, nil
		case (v < w.low) == (rising > 0):
			a = mid
		default:
			b = mid
		}
	}
	return nil, false, nil
}

// thinned are the same levels with all counters scaled down.
func (m *feed) thinned(levels []level, by float64) []level {
	out := append([]level(nil), levels...)
	for i := range out {
		if m.families[i].shape == counter {
			out[i].at *= by
		}
	}
	return out
}

// volume returns the factor by which the counters can be thinned until the
// query's volume guard takes the value away; ok is false if none does.
func (m *feed) volume(levels []level) (factor float64, ok bool, err error) {
	low, high := 1e-6, 1.0
	if v, err := m.value(m.thinned(levels, low)); err != nil || !math.IsNaN(v) {
		return 0, false, err
	}
	for high/low > 1.01 {
		mid := math.Sqrt(low * high)
		v, err := m.value(m.thinned(levels, mid))
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
