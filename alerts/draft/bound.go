package draft

import (
	"cmp"
	"context"
	"fmt"
	"math"
	"slices"
	"strings"
	"time"

	"github.com/prometheus/common/model"
)

const minute = model.Duration(time.Minute)

// history is a part of the past, and how finely it is evaluated.
type history struct {
	// step is between two evaluations. It keeps a question at a thousand evaluations.
	step string
	// peak is the same for the highest value, which lies between those. It makes up to ten
	// thousand evaluations, which a large Prometheus may refuse: then step has to do.
	peak string
	// least is the age of the oldest value below which the next history shows more.
	least time.Duration
}

// histories are the past week, and finer ones for a service that is younger: at a step of
// 10 minutes, half an hour has three values, which show no quantile.
var histories = []history{
	{"[7d:10m]", "[7d:1m]", 15 * time.Hour},
	{"[16h:1m]", "[16h:10s]", 150 * time.Minute},
	{"[160m:10s]", "[160m:10s]", 0},
}

// outage is how many times beyond a bound the highest value is when the week had an
// outage, which a trigger is there for. What is nearer is usual, and must not fire.
const outage = 4

// short is how much history is too little to know what is usual.
const short = 24 * time.Hour

// week is how a query's values were in the last 7 days.
type week struct {
	p99, highest float64
	known        bool
	// since is how old the oldest value is, 0 if that is not known.
	since time.Duration
}

// traffic is the number of requests in 5 minutes, during the last 7 days: 95% of the
// time it was above low.
type traffic struct {
	low   float64
	known bool
}

func (a *asker) traffic(ctx context.Context, c detector) traffic {
	expr := "sum(increase(" + a.playbook.Expand(c.requests, 0, 0) + "[5m]))"
	h, _ := a.history(ctx, expr)
	low, ok := a.value(ctx, "quantile_over_time(0.05, ("+expr+")"+h.step+")")
	return traffic{low, ok}
}

// history is the part of the past that has all values of an expression; since is how old
// the oldest one is, 0 if there is none.
func (a *asker) history(ctx context.Context, expr string) (h history, since time.Duration) {
	for _, h = range histories {
		seconds, _ := a.value(ctx, "time() - min_over_time((0 * ("+expr+") + time())"+h.step+")")
		if since = time.Duration(seconds * float64(time.Second)); since > h.least {
			break
		}
	}
	return h, since
}

// week evaluates a query as the playbook's triggers would.
func (a *asker) week(ctx context.Context, query string, t traffic) week {
	expr := a.playbook.Expand(query, t.window(), t.volume())
	h, since := a.history(ctx, expr)
	p99, ok := a.value(ctx, "quantile_over_time(0.99, ("+expr+")"+h.step+")")
	peaks := *a
	highest, _ := peaks.value(ctx, "max_over_time(("+expr+")"+h.peak+")")
	if peaks.err != nil {
		highest, _ = a.value(ctx, "max_over_time(("+expr+")"+h.step+")")
	}
	return week{p99: p99, highest: max(p99, highest), known: ok, since: since}
}

// span is how much of the week has values, in words.
func (w week) span() string {
	const day = 24 * time.Hour
	switch {
	case w.since == 0 || w.since > 7*day-12*time.Hour:
		return "in the last 7 days"
	case w.since >= 2*day:
		return fmt.Sprintf("in the last %.0f days (all there is)", w.since.Hours()/24)
	case w.since >= 2*time.Hour:
		return fmt.Sprintf("in the last %.0f h (all there is)", w.since.Hours())
	}
	return fmt.Sprintf("in the last %.0f min (all there is)", max(w.since.Minutes(), 1))
}

// peak is what bounds must be above so that the past week does not exceed them: a twentieth
// more than its highest value; 0 where that was an outage, as seen from bound.
func (w week) peak(bound float64) float64 {
	if !w.known || w.highest > outage*bound {
		return 0
	}
	return 1.05 * w.highest
}

// leastEvents is how many failures must decide, so that chance does not: backout check
// warns about fewer.
const leastEvents = 10

// window is 5 minutes if that many requests decide about a share of 1%, otherwise 15.
func (t traffic) window() time.Duration {
	if t.low*0.01 >= leastEvents {
		return 5 * time.Minute
	}
	return 15 * time.Minute
}

// volume is the least number of requests in the window that are judged: half of what
// quiet hours have.
func (t traffic) volume() float64 {
	if !t.known {
		return 50
	}
	return min(max(roughly(t.quiet()/2), 20), 1000)
}

// quiet is the number of requests that the window has in quiet hours.
func (t traffic) quiet() float64 { return t.low * t.window().Minutes() / 5 }

// signal is an indicator of the service's requests, with its trigger.
type signal struct {
	Name, Description, Query, Unit string
	Target, Alert, Trigger         float64 // Target is 0 if there is none
	Window                         string
	MinVolume, AlertVolume         float64
	Confidence                     bool // few requests need a clear breach
	Buckets                        []float64
	Says                           string // the trigger in words
	Reason                         string // where the bounds are from
}

// Criterion is what a stage must keep below.
func (s signal) Criterion() float64 { return cmp.Or(s.Target, s.Alert) }

func errorSignal(c detector, w week, t traffic) signal {
	s := signal{
		Name: "error_rate", Description: "Share of failed requests", Query: c.errorRate(), Unit: "ratio",
		Window: model.Duration(t.window()).String(), MinVolume: t.volume(),
		Target: min(nice(max(w.p99, 0.001)), 0.3),
	}
	s.Alert = min(nice(max(2*s.Target, 0.005)), 0.6)
	s.Trigger = min(nice(max(2*s.Alert, 0.01)), 0.9)
	if peak := w.peak(s.Trigger); peak > s.Alert {
		s.Alert = min(nice(peak), 0.6)
		s.Trigger = max(s.Trigger, min(nice(1.5*peak), 0.9))
	}
	if enough := math.Ceil(round(leastEvents / s.Trigger)); t.quiet() >= enough {
		s.MinVolume = enough
	} else {
		s.Confidence = true
	}
	// One failure alone does not warn, where there is traffic enough.
	s.AlertVolume = max(s.MinVolume, min(math.Ceil(round(2/s.Alert)), roughly(t.quiet())))
	s.Says = fmt.Sprintf("More than %s of the requests fail", percent(s.Trigger))
	s.Reason = w.reason(percent, s.Trigger)
	return s
}

func latencySignal(h histogram, buckets []float64, w week, t traffic) signal {
	s := signal{
		Name: "p95_latency", Description: "95th percentile of the response time", Query: h.p95(), Unit: h.unit,
		Window: model.Duration(t.window()).String(), MinVolume: t.volume(), Buckets: buckets,
	}
	s.AlertVolume = s.MinVolume
	short, usual := "s", 0.5
	if h.unit == "milliseconds" {
		short, usual = "ms", 500
	}
	show := func(f float64) string { return fmt.Sprintf("%.3g %s", f, short) }
	p99 := w.p99
	if !w.known || p99 <= 0 {
		p99, w.known = usual, false
	}
	if h.noBuckets {
		s.Name, s.Description, s.Query = "mean_latency", "Mean response time; the metric has no buckets for a percentile", h.mean()
	}
	s.Target, s.Alert, s.Trigger = nice(p99), nice(1.5*nice(p99)), nice(2*nice(p99))
	peak := w.peak(s.Trigger)
	if peak > s.Alert {
		s.Alert, s.Trigger = nice(peak), max(s.Trigger, nice(1.5*peak))
	}
	s.Reason = w.reason(show, s.Trigger)
	if len(buckets) > 0 {
		var high bool
		s.Target, s.Alert, s.Trigger, high = onBuckets(buckets, p99, peak)
		if s.Reason = w.reason(show, s.Trigger); !high {
			s.Reason += "; the histogram needs buckets above its last one, " + show(buckets[len(buckets)-1])
		}
	}
	s.Says = fmt.Sprintf("The %s is above %s", strings.ReplaceAll(s.Name, "_", " "), show(s.Trigger))
	return s
}

// onBuckets are bounds on the buckets of a histogram, where a quantile is exact: at or
// above p99, and 1.5 and 2 times that. If the buckets do not reach so far, there is no
// target; high is false if they do not even reach 1.5 times p99, or peak. A quantile never
// exceeds the last bucket. The alert is at or above peak too where high is true, and the
// trigger always above the alert.
func onBuckets(buckets []float64, p99, peak float64) (target, alert, trigger float64, high bool) {
	usable := buckets[:len(buckets)-1]
	next := func(least float64, after int) int {
		i, _ := slices.BinarySearch(usable, least)
		return max(i, after)
	}
	i := next(p99, 0)
	j := next(max(1.5*p99, peak), i+1)
	k := next(2*p99, j+1)
	last := len(usable) - 1
	if k <= last {
		return usable[i], usable[j], usable[k], true
	}
	i = next(max(p99, peak), 0)
	high = i < last && j <= last
	i = min(i, last-1)
	return 0, usable[i], usable[min(next(1.5*p99, i+1), last)], high
}

// bound moves a resource's bound to where the past week was within it.
func (r *resource) bound(w week) {
	usual := r.Above
	if w.known && w.highest >= r.Above {
		r.Above = min(math.Ceil(105*w.highest)/100, 0.99)
	}
	r.Reason = w.reason(percent, r.Above)
	if r.Above != usual {
		r.Reason += fmt.Sprintf("; %s is usual", percent(usual))
	}
}

// reason says where a bound is from.
func (w week) reason(show func(float64) string, bound float64) string {
	if !w.known {
		return "usual bounds; no value of the last 7 days is known"
	}
	text := fmt.Sprintf("%s 99%% of the values were at most %s, the highest %s", w.span(), show(w.p99), show(w.highest))
	if w.highest > bound {
		text += ", which is beyond this bound"
	}
	if w.since > 0 && w.since < short {
		text += "; too little to know what is usual: run init again after a day"
	}
	return text
}

func percent(f float64) string { return fmt.Sprintf("%.3g%%", 100*f) }

// nice rounds up to a number that people would write.
func nice(f float64) float64 {
	if f <= 0 || math.IsInf(f, 0) || math.IsNaN(f) {
		return 0
	}
	power := math.Pow(10, math.Floor(math.Log10(f)))
	for _, step := range []float64{1, 1.5, 2, 2.5, 3, 4, 5, 6, 8, 10} {
		if v := step * power; v >= f*(1-1e-9) {
			return round(v)
		}
	}
	return round(10 * power)
}

// roughly rounds down to two digits.
func roughly(f float64) float64 {
	if f < 100 {
		return math.Floor(f)
	}
	power := math.Pow(10, math.Floor(math.Log10(f))-1)
	return math.Floor(f/power) * power
}

// round takes the noise of binary fractions off.
func round(f float64) float64 {
	power := math.Pow(10, 12-math.Ceil(math.Log10(f)))
	return math.Round(f*power) / power
}
