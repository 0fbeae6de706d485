package rules

import (
	"fmt"
	"time"
)

// thresholdTests show, for an alert, silence just inside of the threshold, the
// duration or the volume, and firing just beyond.
func (s *subject) thresholdTests() ([]testCase, error) {
	if s.sustained > 0 {
		return s.paced([]testCase{s.sustainedTest()}), nil
	}
	n := s.over()
	cases, err := s.volumeTests()
	return append([]testCase{s.testCase("silent just inside of its threshold, fires just beyond",
		script{{scrapes: n, levels: s.inside}, {scrapes: n, levels: s.beyond}}, s.always(2*n),
		s.beyondIs(false, n-1), s.silent(n-1), s.beyondIs(true, 2*n-1), s.fires(2*n-1))}, cases...), err
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
	return s.testCase(fmt.Sprintf("silent just inside of its threshold and before %s beyond it have passed, fires after", s.sustained),
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
	return []testCase{s.testCase(fmt.Sprintf("silent with a little less than %s events, fires with a little more", number(s.minVolume)),
		script{{scrapes: n, levels: s.thinned(s.strong, 0.93*factor)}, {scrapes: n, levels: s.thinned(s.strong, 1.07*factor)}}, s.always(2*n),
		hasNoValue(s.recording, n-1, s.scrape()), s.silent(n-1), s.beyondIs(true, 2*n-1), s.fires(2*n-1))}, nil
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
