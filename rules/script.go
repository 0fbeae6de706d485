package rules

import (
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/prometheus/prometheus/model/labels"
)

// level is what a family does for a while: a rate, a value or a slowness by
// its shape; absent if it is not exported.
type level struct {
	at     float64
	absent bool
	// from, where set, is a counter's value at the beginning.
	from *float64
}

// phase is a stretch of made-up time.
type phase struct {
	scrapes int
	levels  []level // by family
	// restart lets counters begin at zero again, as a new process does.
	restart bool
}

// script is what is fed to a rule's test.
type script []phase

// run is a stretch of samples: from, then each by more.
type run struct {
	from, by float64
	n        int
	absent   bool
}

// series returns a family's series, each with its runs.
func (f *family) series(s script, index int, scrape time.Duration) []track {
	parts := []track{{name: f.name, labels: f.labels}}
	if f.shape == buckets {
		parts = nil
		for _, b := range append(slices.Clone(f.bounds), math.Inf(1)) {
			le := strconv.FormatFloat(b, 'g', -1, 64)
			if !strings.ContainsAny(le, ".eI") {
				le += ".0" // as Prometheus 3 writes it; 2.42 takes it as it is
			}
			parts = append(parts, track{name: f.name, labels: withLabel(f.labels, labels.BucketLabel, le)})
		}
	}
	for i := range parts {
		at := 0.0
		for n, p := range s {
			l := p.levels[index]
			if l.absent {
				parts[i].runs = append(parts[i].runs, run{n: p.scrapes, absent: true})
				at = 0
				continue
			}
			by := 0.0
			switch f.shape {
			case counter:
				by = round(l.at * scrape.Seconds())
			case buckets:
				if l.at != stopped {
					by = round(bucketRate * scrape.Seconds() * f.shares(l.at)[i])
				}
			case gauge, fixed:
				parts[i].runs = append(parts[i].runs, run{from: round(l.at), n: p.scrapes})
				continue
			}
			switch {
			case l.from != nil:
				at = *l.from
			case p.restart || n == 0 || s[n-1].levels[index].absent:
				at = 0
			default:
				at = round(at + by)
			}
			parts[i].runs = append(parts[i].runs, run{from: at, by: by, n: p.scrapes})
			at += by * float64(p.scrapes-1)
		}
	}
	return parts
}

// bucketRate is how many observations a second a made-up histogram gets; at the
// level stopped it gets none.
const (
	bucketRate = 20.0
	stopped    = -1
)

// track is one series' course.
type track struct {
	name   string
	labels map[string]string
	runs   []run
}

// values are the samples one by one.
func (t track) values() []float64 {
	var out []float64
	for _, r := range t.runs {
		for i := range r.n {
			if r.absent {
				out = append(out, math.NaN())
			} else {
				out = append(out, r.from+float64(i)*r.by)
			}
		}
	}
	return out
}

// input is the series as promtool reads it. The first sample that is away is a
// staleness marker, as Prometheus writes it for a series that has gone.
func (t track) input() inputSeries {
	var words []string
	for i, r := range t.runs {
		switch {
		case r.n == 0:
			continue
		case r.absent && i > 0 && !t.runs[i-1].absent:
			words = append(words, "stale")
			r.n--
			fallthrough
		case r.absent:
			if r.n > 0 {
				words = append(words, fmt.Sprintf("_x%d", r.n))
			}
		case r.n == 1:
			words = append(words, plainNumber(r.from))
		case r.by == 0:
			words = append(words, fmt.Sprintf("%sx%d", plainNumber(r.from), r.n-1))
		default:
			words = append(words, fmt.Sprintf("%s+%sx%d", plainNumber(r.from), plainNumber(r.by), r.n-1))
		}
	}
	return inputSeries{Series: written(t.name, t.labels), Values: strings.Join(words, " ")}
}

// madeUp is the series for the simulator.
func (t track) madeUp() madeUp {
	return madeUp{labels: labels.FromMap(withName(t.labels, t.name)), values: t.values()}
}

func withLabel(lset map[string]string, name, value string) map[string]string {
	out := map[string]string{name: value}
	for k, v := range lset {
		out[k] = v
	}
	return out
}

// round keeps six digits: a test is read by people.
func round(f float64) float64 {
	r, err := strconv.ParseFloat(strconv.FormatFloat(f, 'g', 6, 64), 64)
	if err != nil {
		return f
	}
	return r
}

func plainNumber(f float64) string { return strconv.FormatFloat(f, 'f', -1, 64) }
