package backtest

import (
	"math"
	"time"

	"github.com/locotoki/backout/rules"
)

// firing is a time during which an alert fires, as evaluations of a grid: to is the first
// one that is not true, or the one after the grid's last.
type firing struct {
	from, to int64
	worst    float64
}

// beyond reports whether a value makes an alert true.
func beyond(r *rules.Replayed, v float64) bool {
	if r.Above {
		return v > r.Threshold
	}
	return v < r.Threshold
}

// worse reports whether v is farther on the side of the breach than w.
func worse(r *rules.Replayed, v, w float64) bool {
	if r.Above {
		return v > w
	}
	return v < w
}

// firings are the times during which an alert fires, as Prometheus's rules have it: it is
// pending from its first true evaluation, fires from the first one that is For later, and
// resolves with the first one that is not true; no value is not true.
func firings(r *rules.Replayed, s *series) []firing {
	var out []firing
	since := int64(-1) // the first true evaluation of the row
	var now *firing
	for i := s.first; i <= s.last; i++ {
		v := s.values[i-s.first]
		if math.IsNaN(v) || !beyond(r, v) {
			since, now = -1, nil
			continue
		}
		if since < 0 {
			since = i
		}
		if time.Duration(i-since)*s.step < r.For {
			continue
		}
		if now == nil {
			out = append(out, firing{from: i, worst: v})
			now = &out[len(out)-1]
		}
		now.to = i + 1
		if worse(r, v, now.worst) {
			now.worst = v
		}
	}
	return out
}

// nearest is the evaluation whose value came nearest to the threshold without being
// beyond it; -1 where there is none. What lies within the window of a firing is its way
// up or down, and no miss.
func nearest(r *rules.Replayed, s *series, fired []firing) int64 {
	near := int64(r.Window/s.step) + 1
	best := int64(-1)
	for i := s.first; i <= s.last; i++ {
		for len(fired) > 0 && fired[0].to+near <= i {
			fired = fired[1:]
		}
		v := s.values[i-s.first]
		if math.IsNaN(v) || math.IsInf(v, 0) || beyond(r, v) || len(fired) > 0 && i >= fired[0].from-near {
			continue
		}
		if best < 0 || worse(r, v, s.values[best-s.first]) {
			best = i
		}
	}
	return best
}
