package rules

import (
	"fmt"
	"math"
	"slices"
	"time"
)

// thresholdTests show, for an alert, silence just inside of the threshold, the
// duration or the volume, and firing just beyond.
func (s *subject) thresholdTests() ([]testCase, error) {
	if s.sustained > 0 {
		return s.paced([]testCase{s.sustainedTest()}), nil
	}
	n := s.over()
	cases := []testCase{s.testCase("silent just inside its threshold, fires just beyond it",
		script{{scrapes: n, levels: s.inside}, {scrapes: n, levels: s.beyond}}, s.always(2*n),
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
	if time.Duration(s.window) <= time.Duration(s.sim.coarse)*s.scrape() {
		cases = s.paced(cases) // a stage's recordings would have one sample in the window
	}
	return cases, nil
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
	n, d, inner := s.over(), int(time.Duration(s.sustained)/s.scrape()), int(s.back/s.scrape())
	early, late := n+d-3, s.sim.aligned(n+d+inner+3)
	return s.testCase(fmt.Sprintf("silent just inside its threshold and for the first %s beyond it, then fires", s.sustained),
		script{{scrapes: n, levels: s.inside}, {scrapes: late - n + 2, levels: s.beyond}}, s.always(late+2),
		s.beyondIs(false, n-1), s.silent(n-1), s.beyondIs(false, early), s.silent(early), s.beyondIs(true, late), s.fires(late))
}

// volumeTests show that too few events are no rate, however bad they are.
func (s *subject) volumeTests() ([]testCase, error) {
	factor, ok, err := s.volume(s.strong)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", s.name, err)
	}
	if !ok {
		return nil, nil
	}
	n := s.over()
	enough := s.thinned(s.strong, 1.07*factor)
	what, alert := "fires", s.fires(2*n-1)
	v, err := s.feed.value(enough)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", s.name, err)
	}
	if !s.isBeyond(v) { // so few events are not sure enough
		what, alert = "has a value", s.silent(2*n-1)
	}
	return []testCase{s.testCase(fmt.Sprintf("silent with a little less than %s events, %s with a little more", number(s.minVolume), what),
		script{{scrapes: n, levels: s.thinned(s.strong, 0.93*factor)}, {scrapes: n, levels: enough}}, s.always(2*n),
		hasNoValue(s.recording, n-1, s.scrape()), s.silent(n-1), s.beyondIs(s.isBeyond(v), 2*n-1), alert)}, nil
}

// confidenceTests show that one share beyond the threshold is silent in few events
// and fires in a hundred times as many.
func (s *subject) confidenceTests() ([]testCase, error) {
	if s.confidence == 0 {
		return nil, nil
	}
	window := time.Duration(s.window)
	r, err := ratioOf(s.at(window, 0))
	if err != nil {
		return nil, err
	}
	share, count := *s.feed, *s.feed
	share.text, count.text = single("max", s.at(window, 0)), single("max", r.total)
	share.knobs = nil
	if err := share.findKnobs(); err != nil {
		return nil, err
	}
	bad := s.threshold / r.factor
	if !s.above {
		bad = 1 - bad
	}
	few := math.Ceil(max(10, 1/bad, 1.1*s.minVolume))
	for _, times := range []float64{2, 1.5, 1.25, 1.1} {
		v := times * bad
		if !s.above {
			v = 1 - v
		}
		levels, ok, err := share.find(within{r.factor * v * 0.999, r.factor * v * 1.001})
		if err != nil || !ok {
			return nil, err
		}
		all, err := count.value(levels)
		if err != nil {
			return nil, err
		}
		less, more := s.thinned(levels, few/all), s.thinned(levels, 100*few/all)
		low, err := s.feed.value(less)
		if err != nil {
			return nil, err
		}
		high, err := s.feed.value(more)
		if err != nil {
			return nil, err
		}
		if near := 0.03 * bad * r.factor; s.isBeyond(low) || !s.isBeyond(high) || math.Abs(low-s.threshold) < near || math.Abs(high-s.threshold) < near {
			continue
		}
		n := s.over()
		return []testCase{s.testCase(fmt.Sprintf("%s of %s are silent, %s of %s fire", shown(v*few), number(few), shown(100*v*few), number(100*few)),
			script{{scrapes: n, levels: less}, {scrapes: n, levels: more}}, s.always(2*n),
			s.beyondIs(false, n-1), s.silent(n-1), s.beyondIs(true, 2*n-1), s.fires(2*n-1))}, nil
	}
	return nil, nil
}

// always is the stage in which the alert counts, for a number of scrapes.
func (s *subject) always(scrapes int) []inputSeries {
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
func (s *subject) staged(stays ...stay) []inputSeries {
	return stageSeries(s.pb.Service, s.pb.Release.Version, stays...)
}

func stageSeries(service, release string, stays ...stay) []inputSeries {
	var names []string
	seen := map[string]bool{"": true}
	for _, st := range append(stays, in(noStage, 0)) {
		if !seen[st.stage] {
			seen[st.stage] = true
			names = append(names, st.stage)
		}
	}
	var out []inputSeries
	for _, name := range names {
		t := track{name: "rollout_stage", labels: map[string]string{
			"service": service, "rollout": release, "stage": name, "job": backoutJob, "instance": "backout",
		}}
		for _, st := range stays {
			r := run{n: st.scrapes, absent: st.stage == ""}
			if st.stage == name {
				r.from = 1
			}
			t.runs = append(t.runs, r)
		}
		out = append(out, t.input())
	}
	return out
}
