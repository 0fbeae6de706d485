package series

import (
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/prometheus/prometheus/model/labels"

	"github.com/locotoki/backout/rules/query"
)

// Level is what a family does for a while: a rate, a value or a slowness by
// its shape; absent if it is not exported.
type Level struct {
	At     float64
	Absent bool
	// From, where set, is a counter's value at the beginning.
	From *float64
}

// phase is a stretch of made-up time.
type phase struct {
	Scrapes int
	Levels  []Level // by family
	// Restart lets counters begin at zero again, as a new process does.
	Restart bool
}

// Script is what is fed to a rule's test.
type Script []phase

// Stretch is a stretch of samples: from, then each by more.
type Stretch struct {
	From, By float64
	N        int
	Absent   bool
}

// series returns a family's series, each with its runs.
func (f *family) series(s Script, index int, scrape time.Duration) []Track {
	parts := []Track{{Name: f.Name, Labels: f.labels}}
	if f.Shape == Buckets {
		parts = nil
		for _, b := range append(slices.Clone(f.bounds), math.Inf(1)) {
			le := strconv.FormatFloat(b, 'g', -1, 64)
			if !strings.ContainsAny(le, ".eI") {
				le += ".0" // as Prometheus 3 writes it; 2.42 takes it as it is
			}
			parts = append(parts, Track{Name: f.Name, Labels: withLabel(f.labels, labels.BucketLabel, le)})
		}
	}
	for i := range parts {
		at := 0.0
		for n, p := range s {
			l := p.Levels[index]
			if l.Absent {
				parts[i].Runs = append(parts[i].Runs, Stretch{N: p.Scrapes, Absent: true})
				at = 0
				continue
			}
			by := 0.0
			switch f.Shape {
			case Counter:
				by = query.Round(l.At * scrape.Seconds())
			case Buckets:
				if l.At != Stopped {
					by = query.Round(bucketRate * scrape.Seconds() * f.shares(l.At)[i])
				}
			case Gauge, Fixed:
				parts[i].Runs = append(parts[i].Runs, Stretch{From: query.Round(l.At), N: p.Scrapes})
				continue
			}
			switch {
			case l.From != nil:
				at = *l.From
			case p.Restart || n == 0 || s[n-1].Levels[index].Absent:
				at = 0
			default:
				at = query.Round(at + by)
			}
			parts[i].Runs = append(parts[i].Runs, Stretch{From: at, By: by, N: p.Scrapes})
			at += by * float64(p.Scrapes-1)
		}
	}
	return parts
}

// bucketRate is how many observations a second a made-up histogram gets; at the
// level stopped it gets none.
const (
	bucketRate = 20.0
	Stopped    = -1
)

// Track is one series' course.
type Track struct {
	Name   string
	Labels map[string]string
	Runs   []Stretch
}

// values are the samples one by one.
func (t Track) values() []float64 {
	var out []float64
	for _, r := range t.Runs {
		for i := range r.N {
			if r.Absent {
				out = append(out, math.NaN())
			} else {
				out = append(out, r.From+float64(i)*r.By)
			}
		}
	}
	return out
}

// Input is the series as promtool reads it. The first sample that is away is a
// staleness marker, as Prometheus writes it for a series that has gone.
func (t Track) Input() Input {
	var words []string
	for i, r := range t.Runs {
		switch {
		case r.N == 0:
			continue
		case r.Absent && i > 0 && !t.Runs[i-1].Absent:
			words = append(words, "stale")
			r.N--
			fallthrough
		case r.Absent:
			if r.N > 0 {
				words = append(words, fmt.Sprintf("_x%d", r.N))
			}
		case r.N == 1:
			words = append(words, query.Number(r.From))
		case r.By == 0:
			words = append(words, fmt.Sprintf("%sx%d", query.Number(r.From), r.N-1))
		default:
			words = append(words, fmt.Sprintf("%s+%sx%d", query.Number(r.From), query.Number(r.By), r.N-1))
		}
	}
	return Input{Series: Written(t.Name, t.Labels), Values: strings.Join(words, " ")}
}

// MadeUp is the series for the simulator.
func (t Track) MadeUp() Samples {
	return Samples{labels: labels.FromMap(withName(t.Labels, t.Name)), values: t.values()}
}

func withLabel(lset map[string]string, name, value string) map[string]string {
	out := map[string]string{name: value}
	for k, v := range lset {
		out[k] = v
	}
	return out
}

// Input is a series as promtool reads it.
type Input struct {
	Series string `yaml:"series"`
	Values string `yaml:"values"`
}
