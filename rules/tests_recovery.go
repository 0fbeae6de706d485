package rules

import (
	"errors"
	"fmt"
	"math"
	"strings"
	"time"

	"github.com/locotoki/backout/alerts"
	"github.com/locotoki/backout/rules/query"
	"github.com/locotoki/backout/rules/series"
)

// triggerTests show a trigger's alert, its recovery and its stages.
func (s *subject) triggerTests() ([]testCase, error) {
	cases, err := s.thresholdTests()
	if err != nil {
		return nil, err
	}
	more, err := s.recoveryTests()
	if err != nil {
		return nil, fmt.Errorf("%s: %w", s.name, err)
	}
	cases = append(cases, more...)
	if len(s.stages) > 0 {
		stage := []testCase{s.stageTest()}
		if !s.Instant() && strings.Contains(s.judged.Value, stageMetric+"{") {
			stage = append(stage, s.beginTest())
		}
		cases = append(cases, s.paced(stage)...)
	}
	if s.Threshold == 0 && s.countsBirths() {
		births := s.birthTests()
		for i := range births {
			births[i].pace = everyScrape // at a coarse one the last event may have one sample
		}
		cases = append(cases, births...)
	}
	return cases, nil
}

// recoveryTests show what the engine sees after a step at the beginning of the
// second phase.
func (s *subject) recoveryTests() ([]testCase, error) {
	// The earliest verdict is W + 2S after the step.
	wait := int(s.judged.RecoveryWindow/s.Scrape()) + 2
	step := s.over() + s.Sim.Aligned(wait) - wait
	verdict := step + wait
	recovery := query.SelectorOf(recoveryRecording, "service", s.Playbook.Service, "trigger", s.trigger.Name)
	alive := query.SelectorOf(aliveRecording, "service", s.Playbook.Service)
	end := verdict + s.over()
	// The stage ends with the step: a recovery must not depend on it.
	stages := func() []series.Input {
		if len(s.stages) == 0 {
			return nil
		}
		return s.staged(in(s.stages[0], step), in(noStage, end-step))
	}
	then := func(levels []series.Level, restart bool) series.Script {
		return series.Script{{Scrapes: step, Levels: s.strong}, {Scrapes: end - step, Levels: levels, Restart: restart}}
	}
	expr, err := aliveOf(s.Playbook)
	if err != nil {
		return nil, err
	}
	// Where alive reads the query's own series, or no requests, it may say either.
	var failed error
	aliveIn := func(sc series.Script) exprCheck {
		v, _, err := s.Sim.Value(s.MadeUp(sc), expr, verdict)
		failed = errors.Join(failed, err)
		return exprCheck{Expr: alive, At: scrapeTime(verdict, s.Scrape()), Samples: []sample{{Labels: alive, Value: v}}}
	}
	before := []exprCheck{s.recoveryIs(true, step-1)}
	if len(s.stages) == 0 {
		before = append(before, s.beyondIs(true, step-1))
	}
	seen := func(more ...exprCheck) []exprCheck { return append(before[:len(before):len(before)], more...) }

	cured, err := s.cured()
	if err != nil {
		return nil, err
	}
	checks := seen(s.recoveryIs(false, verdict), aliveIn(then(cured, true)))
	if trap, err := s.stillTrue(then(cured, true), verdict); err != nil {
		return nil, err
	} else if trap {
		checks = append(checks, s.beyondIs(true, verdict))
	}
	cases := []testCase{
		s.testCase("recovered: the recovery value says so after W + 2S, the trigger's own may not yet", then(cured, true), stages(),
			append(checks, s.silent(end-1))...),
		s.testCase("not recovered: the breach continues after the step", then(s.strong, true), stages(),
			seen(s.recoveryIs(true, verdict), aliveIn(then(s.strong, true)))...),
	}
	gone, err := s.judgedBlind(then(s.gone(), false), verdict)
	if err != nil {
		return nil, err
	}
	vanished := seen(aliveIn(then(s.gone(), false)), s.silent(end-1))
	if gone {
		vanished = append(vanished, hasNoValue(recovery, verdict, s.Scrape()))
	}
	cases = append(cases, s.testCase("vanished: the service died after the step, the alert ends, but nothing recovered", then(s.gone(), false), stages(), vanished...))
	if s.guardsVolume() {
		cases = append(cases, s.testCase("no traffic: up, but without requests", then(s.still(false), false), stages(),
			seen(hasNoValue(recovery, verdict, s.Scrape()), aliveIn(then(s.still(false), false)))...))
		few, ok, err := s.tooFew()
		if err != nil {
			return nil, err
		}
		if ok {
			cases = append(cases, s.testCase(fmt.Sprintf("too few: a little less than %s events after the step decide nothing", query.Number(s.trigger.Recovery.MinVolume)),
				then(few, true), stages(), seen(hasNoValue(recovery, verdict, s.Scrape()))...))
		}
		if s.aliveElsewhere() {
			cases = append(cases, s.testCase("quiet: the feature's own traffic is gone, the service is healthy", then(s.still(true), false), stages(),
				seen(hasNoValue(recovery, verdict, s.Scrape()), aliveIn(then(s.still(true), false)))...))
		}
	}
	if s.Instant() {
		cases = append(cases, s.dipTest(recovery))
	}
	return cases, failed
}

// dipTest shows that one good sample is not a recovery.
func (s *subject) dipTest(recovery string) testCase {
	at := s.over() + s.Sim.Coarse
	checks := []exprCheck{s.recoveryIs(true, at)}
	if len(s.stages) == 0 {
		checks = append(checks, s.beyondIs(true, at-2))
		if s.Back == 0 {
			checks = append(checks, s.beyondIs(false, at))
		}
	}
	return s.testCase("one good sample ends the trigger and is not a recovery",
		series.Script{{Scrapes: at - 1, Levels: s.strong}, {Scrapes: 1, Levels: s.good}, {Scrapes: 3, Levels: s.strong}}, s.always(at+3), checks...)
}

// cured are the levels after a step that helped. A new process has no series for
// what has not happened yet, if the query works without it.
func (s *subject) cured() ([]series.Level, error) {
	for _, k := range s.Knobs {
		if s.Families[k.Family].Shape != series.Counter || s.good[k.Family] == s.Normal[k.Family] {
			continue
		}
		levels := append([]series.Level(nil), s.good...)
		levels[k.Family] = series.Level{Absent: true}
		v, err := s.Feed.Value(levels)
		if err != nil {
			return nil, err
		}
		if !math.IsNaN(v) && s.around(-2, 0).Has(v) {
			return levels, nil
		}
	}
	return s.good, nil
}

// stillTrue reports whether the trigger's own expression, were it not gated by a
// stage, is clearly still beyond the threshold.
func (s *subject) stillTrue(sc series.Script, scrape int) (bool, error) {
	if len(s.stages) > 0 {
		return false, nil
	}
	v, ok, err := s.Sim.Value(s.MadeUp(sc), s.judged.Value, scrape)
	if err != nil || !ok {
		return false, err
	}
	margin := 0.1 * math.Abs(s.Threshold)
	if s.Above {
		return v > s.Threshold+margin, nil
	}
	return v < s.Threshold-margin, nil
}

// judgedBlind reports whether the recovery value is empty at a scrape. A query
// that falls back on zero is not; alive says then that nothing is known.
func (s *subject) judgedBlind(sc series.Script, scrape int) (bool, error) {
	_, ok, err := s.Sim.Value(s.MadeUp(sc), s.judged.Recovery, scrape)
	return !ok, err
}

// gone are the levels of a service that died, with all that it exports; up is
// written by Prometheus and stays, at 0.
func (s *subject) gone() []series.Level {
	levels := make([]series.Level, len(s.Families))
	for i := range levels {
		levels[i] = series.Level{Absent: s.Families[i].Shape != series.Fixed}
	}
	return levels
}

// still are the levels without traffic: counters do not move. Those that only
// alive reads continue, as while the rest of the service is used.
func (s *subject) still(elsewhere bool) []series.Level {
	levels := append([]series.Level(nil), s.strong...)
	for i, f := range s.Families {
		switch f.Shape {
		case series.Counter:
			if !elsewhere || f.Specific > 0 {
				levels[i].At = 0
			}
		case series.Buckets:
			levels[i].At = series.Stopped
		case series.Gauge, series.Fixed:
		}
	}
	return levels
}

// tooFew are bad levels with a volume just below the recovery's own.
func (s *subject) tooFew() ([]series.Level, bool, error) {
	r := *s.Feed
	r.Text, r.Back = s.judged.Recovery, s.judged.RecoveryWindow
	factor, ok, err := r.Volume(s.strong)
	return s.Thinned(s.strong, 0.93*factor), ok, err
}

func (s *subject) aliveElsewhere() bool {
	for _, f := range s.Families {
		if f.Shape == series.Counter && f.Specific == 0 {
			return true
		}
	}
	return false
}

func (s *subject) guardsVolume() bool {
	w := time.Duration(s.Window)
	return s.trigger.Recovery.MinVolume > 0 && s.At(w, 1) != s.At(w, 2)
}

// stageTest shows that what happened before the stage does not count, and
// that a short absence of backout does not end the stage.
func (s *subject) stageTest() testCase {
	n := s.over()
	before := noStage
	for _, st := range s.Playbook.Stages {
		if st.Name == s.stages[0] {
			break
		}
		before = st.Name
	}
	// A sustained breach continues into the stage, for half of its time; one in a
	// window has ended when the stage begins.
	entry, length := s.good, n
	if s.Sustained > 0 {
		entry, length = s.strong, int(s.Span()/s.Scrape())/2
	}
	within := n + length
	gap := within + n
	over := gap + 6
	end := over + 4
	stays := []stay{in(before, n), in(s.stages[0], length), in(s.stages[0], n), in("", 2), in(s.stages[0], 4), in(noStage, 4)}
	return s.testCase(fmt.Sprintf("counts only what is measured in %s, and only while it lasts", s.stages[0]),
		series.Script{{Scrapes: n, Levels: s.strong}, {Scrapes: length, Levels: entry}, {Scrapes: end - within, Levels: s.strong}}, s.staged(stays...),
		s.silent(n-1), hasNoValue(s.recording, n-1, s.Scrape()),
		s.silent(n+2), s.silent(n+length/2), s.silent(within-1),
		s.beyondIs(true, gap-1), s.fires(gap-1), s.fires(gap+1), s.fires(over-1),
		s.silent(over), hasNoValue(s.recording, over, s.Scrape()), s.silent(end-1))
}

// beginTest shows that the first minutes of a stage are not a full window.
func (s *subject) beginTest() testCase {
	n := s.over()
	return s.testCase(fmt.Sprintf("the first minutes of %s are not a full window: silent a little beyond its threshold until that has passed", s.stages[0]),
		series.Script{{Scrapes: 2 * n, Levels: s.beyond}}, s.staged(in(noStage, n), in(s.stages[0], n)),
		s.silent(n+2), s.silent(n+int(s.Span()/s.Scrape())/2), s.beyondIs(true, 2*n-1), s.fires(2*n-1))
}

// countsBirths reports whether the query compares a counter's present with its
// past: it counts a series that is born with its first event.
func (s *subject) countsBirths() bool {
	for i := range s.Families {
		if s.birth(i) {
			return true
		}
	}
	return false
}

func (s *subject) birth(family int) bool {
	f := &s.Families[family]
	if f.Shape != series.Counter || f.Specific == 0 {
		return false
	}
	expr, err := query.Parse(s.At(time.Duration(s.Window), s.MinVolume))
	if err != nil {
		return false
	}
	for _, sel := range query.SelectorsOf(expr) {
		if sel.Vector.Name == f.Name && sel.Matrix == nil && !query.Plain(sel.Vector) {
			return true
		}
	}
	return false
}

// birthTests are those of a counter that is born with its first event.
func (s *subject) birthTests() []testCase {
	n := s.over()
	before, born, old := append([]series.Level(nil), s.good...), append([]series.Level(nil), s.good...), append([]series.Level(nil), s.good...)
	one, seven := 1.0, 7.0
	for i := range s.Families {
		if s.birth(i) {
			before[i], born[i], old[i] = series.Level{Absent: true}, series.Level{From: &one}, series.Level{From: &seven}
		}
	}
	cases := []testCase{
		s.testCase("the first event on a target that was scraped before fires",
			series.Script{{Scrapes: n, Levels: before}, {Scrapes: n, Levels: born}}, s.always(2*n), s.silent(n-1), s.fires(n+3)),
	}
	var never []exprCheck
	for at := 2; at < 2*n; at += max(1, n/4) {
		never = append(never, s.silent(at))
	}
	cases = append(cases, s.testCase("silent where Prometheus starts on a process with seven old events",
		series.Script{{Scrapes: 2 * n, Levels: old}}, s.always(2*n), never...))
	if len(s.stages) > 0 {
		never = nil
		for at := n; at < 2*n; at += max(1, n/8) {
			never = append(never, s.silent(at))
		}
		cases = append(cases, s.testCase("the first event just before the stage does not count",
			series.Script{{Scrapes: n - 2, Levels: before}, {Scrapes: n + 2, Levels: born}}, s.staged(in(noStage, n), in(s.stages[0], n)), never...))
	}
	return cases
}

// signalTest shows that a signal's alert follows the signal.
func signalTest(sim *series.Simulator, pb *alerts.Playbook, t *alerts.Trigger) testCase {
	every, n := time.Duration(pb.ScrapeInterval), sim.Coarse
	alert := rule{Alert: rollbackAlert(t), Labels: map[string]string{
		"service": pb.Service, "trigger": t.Name, "rollout": pb.Release.Version, "severity": critical,
	}}
	s := series.Track{
		Name:   "rollout_signal",
		Labels: map[string]string{"service": pb.Service, "signal": t.Signal, "job": backoutJob, "instance": "backout"},
		Runs:   []series.Stretch{{From: 0, N: n}, {From: 1, N: n}},
	}
	return testCase{
		Name: alert.Alert + ": follows the signal", Interval: pb.ScrapeInterval, Series: []series.Input{s.Input()},
		Checks: []exprCheck{silent(alert, n-1, every), fires(alert, n+1, every)},
	}
}
