package rules

import (
	"fmt"
	"math"
	"slices"
	"strings"
	"time"

	"github.com/locotoki/backout/rules/query"
	"github.com/locotoki/backout/rules/series"
)

// thresholdTests show, for an alert, silence just inside of the threshold, the
// duration or the volume, and firing just beyond.
func (s *subject) thresholdTests() ([]testCase, error) {
	if s.Sustained > 0 {
		return s.paced([]testCase{s.sustainedTest()}), nil
	}
	n := s.over()
	cases := []testCase{s.testCase("silent just inside its threshold, fires just beyond it",
		series.Script{{Scrapes: n, Levels: s.inside}, {Scrapes: n, Levels: s.beyond}}, s.always(2*n),
		s.beyondIs(false, n-1), s.silent(n-1), s.beyondIs(true, 2*n-1), s.fires(2*n-1))}
	volume, err := s.volumeTests()
	if err != nil {
		return nil, err
	}
	sure, err := s.confidenceTests()
	if err != nil {
		return nil, fmt.Errorf("%s: %w", s.name, err)
	}
	cases = slices.Concat(cases, volume, sure)
	if s.shortest() <= time.Duration(s.Sim.Coarse)*s.Scrape() {
		cases = s.paced(cases) // a stage's recordings would have one sample in the range
	}
	return cases, nil
}

// shortest is the shortest range that the value takes of a stage's recordings; the
// window for another value.
func (s *subject) shortest() time.Duration {
	least := time.Duration(s.Window)
	if expr, err := query.Parse(s.judged.Value); err == nil {
		for _, sel := range query.SelectorsOf(expr) {
			if sel.Matrix != nil && strings.HasPrefix(sel.Vector.Name, stageRecording+":") {
				least = min(least, sel.Matrix.Range)
			}
		}
	}
	return least
}

// paced has the rules evaluated at each scrape, which is when a stage's
// recordings have their samples.
func (s *subject) paced(cases []testCase) []testCase {
	if len(s.stages) > 0 {
		for i := range cases {
			cases[i].pace = everyScrape
		}
	}
	return cases
}

// sustainedTest shows that it takes the threshold and the whole duration.
func (s *subject) sustainedTest() testCase {
	n, d, inner := s.over(), int(time.Duration(s.Sustained)/s.Scrape()), int(s.Back/s.Scrape())
	early, late := n+d-3, s.Sim.Aligned(n+d+inner+3)
	return s.testCase(fmt.Sprintf("silent just inside its threshold and for the first %s beyond it, then fires", s.Sustained),
		series.Script{{Scrapes: n, Levels: s.inside}, {Scrapes: late - n + 2, Levels: s.beyond}}, s.always(late+2),
		s.beyondIs(false, n-1), s.silent(n-1), s.beyondIs(false, early), s.silent(early), s.beyondIs(true, late), s.fires(late))
}

// volumeTests show that too few events are no rate, however bad they are.
func (s *subject) volumeTests() ([]testCase, error) {
	factor, ok, err := s.Volume(s.strong)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", s.name, err)
	}
	if !ok {
		return nil, nil
	}
	n := s.over()
	enough := s.Thinned(s.strong, 1.07*factor)
	what, alert := "fires", s.fires(2*n-1)
	v, err := s.Feed.Value(enough)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", s.name, err)
	}
	if !s.isBeyond(v) { // so few events are not sure enough
		what, alert = "has a value", s.silent(2*n-1)
	}
	return []testCase{s.testCase(fmt.Sprintf("silent with a little less than %s events, %s with a little more", query.Number(s.MinVolume), what),
		series.Script{{Scrapes: n, Levels: s.Thinned(s.strong, 0.93*factor)}, {Scrapes: n, Levels: enough}}, s.always(2*n),
		hasNoValue(s.recording, n-1, s.Scrape()), s.silent(n-1), s.beyondIs(s.isBeyond(v), 2*n-1), alert)}, nil
}

// confidenceTests show that one share beyond the threshold is silent in few events
// and fires in a hundred times as many.
func (s *subject) confidenceTests() ([]testCase, error) {
	if s.Confidence == 0 {
		return nil, nil
	}
	window := time.Duration(s.Window)
	r, err := query.RatioOf(s.At(window, 0))
	if err != nil {
		return nil, err
	}
	share, count := *s.Feed, *s.Feed
	share.Text, count.Text = query.Single("max", s.At(window, 0)), query.Single("max", r.Total)
	share.Knobs = nil
	if err := share.FindKnobs(); err != nil {
		return nil, err
	}
	bad := s.Threshold / r.Factor
	if !s.Above {
		bad = 1 - bad
	}
	few := math.Ceil(max(10, 1/bad, 1.1*s.MinVolume))
	for _, times := range []float64{2, 1.5, 1.25, 1.1} {
		v := times * bad
		if !s.Above {
			v = 1 - v
		}
		levels, ok, err := share.Find(series.Within{Low: r.Factor * v * 0.999, High: r.Factor * v * 1.001})
		if err != nil || !ok {
			return nil, err
		}
		all, err := count.Value(levels)
		if err != nil {
			return nil, err
		}
		less, more := s.Thinned(levels, few/all), s.Thinned(levels, 100*few/all)
		low, err := s.Feed.Value(less)
		if err != nil {
			return nil, err
		}
		high, err := s.Feed.Value(more)
		if err != nil {
			return nil, err
		}
		if near := 0.03 * bad * r.Factor; s.isBeyond(low) || !s.isBeyond(high) || math.Abs(low-s.Threshold) < near || math.Abs(high-s.Threshold) < near {
			continue
		}
		n := s.over()
		return []testCase{s.testCase(fmt.Sprintf("%s of %s are silent, %s of %s fire", shown(v*few), query.Number(few), shown(100*v*few), query.Number(100*few)),
			series.Script{{Scrapes: n, Levels: less}, {Scrapes: n, Levels: more}}, s.always(2*n),
			s.beyondIs(false, n-1), s.silent(n-1), s.beyondIs(true, 2*n-1), s.fires(2*n-1))}, nil
	}
	return nil, nil
}

// always is the stage in which the alert counts, for a number of scrapes.
func (s *subject) always(scrapes int) []series.Input {
	if len(s.stages) == 0 {
		return nil
	}
	return s.staged(in(s.stages[0], scrapes))
}

// stay is a stretch of time in a stage; "" is without the metric.
type stay struct {
	stage   string
	scrapes int
}

func in(stage string, scrapes int) stay { return stay{stage, scrapes} }

// noStage is the stage's name while no rollout is on.
const noStage = "none"

// staged is rollout_stage as backout exports it.
func (s *subject) staged(stays ...stay) []series.Input {
	return stageSeries(s.Playbook.Service, s.Playbook.Release.Version, stays...)
}

func stageSeries(service, release string, stays ...stay) []series.Input {
	var names []string
	seen := map[string]bool{"": true}
	for _, st := range append(stays, in(noStage, 0)) {
		if !seen[st.stage] {
			seen[st.stage] = true
			names = append(names, st.stage)
		}
	}
	var out []series.Input
	for _, name := range names {
		t := series.Track{Name: "rollout_stage", Labels: map[string]string{
			"service": service, "rollout": release, "stage": name, "job": backoutJob, "instance": "backout",
		}}
		for _, st := range stays {
			r := series.Stretch{N: st.scrapes, Absent: st.stage == ""}
			if st.stage == name {
				r.From = 1
			}
			t.Runs = append(t.Runs, r)
		}
		out = append(out, t.Input())
	}
	return out
}
