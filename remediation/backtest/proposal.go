package backtest

import (
	"math"
	"slices"
	"time"

	"github.com/prometheus/common/model"

	"github.com/locotoki/backout/alerts"
	"github.com/locotoki/backout/remediation/view"
	"github.com/locotoki/backout/rules"
)

const (
	// shortAlert is below which an alert threshold's firing is short; a trigger's is
	// below its recovery window, in which backout could not have judged a step.
	shortAlert = 2 * time.Minute
	// farthest is by which factor a proposed threshold may lie beyond the present one: one
	// that lies farther is another trigger.
	farthest = 2
	// digits is how many significant digits a proposal has.
	digits = 2
)

// short are the firings that were over before below, rest the others. One that the data
// begins or ends with is not short, and neither is one that missing data ended.
func short(all []firing, below time.Duration, s *series) (short, rest []firing) {
	for _, f := range all {
		if f.from > s.first && f.to <= s.last && s.span(int(f.to-f.from)) < below && !math.IsNaN(s.values[f.to-s.first]) {
			short = append(short, f)
		} else {
			rest = append(rest, f)
		}
	}
	return short, rest
}

// propose looks for a threshold, and for a volume, that leave out the short firings and
// none of the others; nil where no firing was short. volume are the events that the window
// had at each evaluation, nil where nobody knows.
func propose(r *rules.Replayed, s *series, all []firing, below time.Duration, volume *series) *view.BacktestProposal {
	brief, rest := short(all, below, s)
	if len(brief) == 0 {
		return nil
	}
	p := &view.BacktestProposal{Short: len(brief), Below: model.Duration(below)}
	if t, ok := threshold(r, brief); ok {
		changed := *r
		changed.Threshold = t
		if left := firings(&changed, s); keeps(left, rest, below, s.grid) {
			p.Threshold, p.Left = &t, len(left)
		}
	}
	if volume == nil {
		return p
	}
	n := 0.0
	for _, f := range brief {
		for i := f.from; i < f.to; i++ {
			if v := volume.values[i-volume.first]; v > n {
				n = v
			}
		}
	}
	n = away(math.Floor(n)+1, true)
	guarded, had, enough := newSeries(s.grid), 0, 0
	for i, v := range s.values {
		if math.IsNaN(v) {
			continue
		}
		had++
		if volume.values[i] >= n {
			enough++
			guarded.values[i] = v
		}
	}
	// With more than the service usually has, the trigger would be blind.
	if left := firings(r, guarded); n > r.MinVolume && 2*enough >= had && keeps(left, rest, below, s.grid) {
		p.MinVolume, p.LeftByVolume = &n, len(left)
	}
	return p
}

// threshold is the least one that no short firing is beyond and that the indicator can
// measure and exceed: a bucket below the last one, a share below all.
func threshold(r *rules.Replayed, brief []firing) (float64, bool) {
	worst := brief[0].worst
	for _, f := range brief {
		if worse(r, f.worst, worst) {
			worst = f.worst
		}
	}
	t := away(worst, r.Above)
	if n := len(r.Buckets); n > 0 {
		i, found := slices.BinarySearch(r.Buckets, worst)
		if !r.Above && !found {
			i--
		}
		if i < 0 || i >= n-1 {
			return 0, false
		}
		t = r.Buckets[i]
	}
	if all := map[alerts.Unit]float64{alerts.Ratio: 1, alerts.Percent: 100}[r.Unit]; r.Above && all > 0 && t >= all && r.Threshold < all {
		return 0, false
	}
	far := t / r.Threshold
	if !r.Above {
		far = r.Threshold / t
	}
	return t, !math.IsInf(t, 0) && far >= 1 && far <= farthest
}

// away rounds to a few digits, up or down.
func away(v float64, up bool) float64 {
	if v == 0 || math.IsInf(v, 0) {
		return v
	}
	unit := math.Pow(10, math.Floor(math.Log10(math.Abs(v)))-digits+1)
	n := v / unit
	if up {
		n = math.Ceil(n - 1e-9)
	} else {
		n = math.Floor(n + 1e-9)
	}
	if unit < 1 { // 14 / 1000 is 0.014, and 14 * 0.001 is not
		return n / math.Round(1/unit)
	}
	return n * unit
}

// keeps reports whether each of the firings is still seen: from about its beginning, for
// no less than below.
func keeps(left, all []firing, below time.Duration, g grid) bool {
	return !slices.ContainsFunc(all, func(f firing) bool {
		least := min(below, g.span(int(f.to-f.from)))
		return !slices.ContainsFunc(left, func(l firing) bool {
			from, to := max(l.from, f.from), min(l.to, f.to)
			return to > from && g.span(int(from-f.from)) <= below && g.span(int(to-from)) >= least
		})
	})
}
