package rules

import (
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/prometheus/common/model"

	"github.com/locotoki/backout/alerts"
	"github.com/locotoki/backout/rules/query"
	"github.com/locotoki/backout/rules/series"
)

// namedTests is one test file, with the part of its name between the service's name
// and the ending.
type namedTests struct {
	infix string
	testFile
}

// testsOf returns the promtool tests of a playbook's rules, and what they do
// not cover: a query for which no series could be made up.
func testsOf(pb *alerts.Playbook) ([]namedTests, []string, error) {
	cases, missing, err := casesOf(pb)
	if err != nil {
		return nil, nil, err
	}
	var files []namedTests
	for _, f := range []struct {
		pace  pace
		infix string
		every model.Duration
	}{{everyScrape, "", pb.ScrapeInterval}, {coarse, ".coarse", model.Duration(series.Coarsely(time.Duration(pb.ScrapeInterval))) * pb.ScrapeInterval}, {slow, ".slow", model.Duration(slowly)}} {
		file := testFile{RuleFiles: []string{pb.Service + ".rules.yml"}, EvaluationInterval: f.every, Tests: []testCase{}}
		for _, c := range cases {
			if c.pace == f.pace {
				file.Tests = append(file.Tests, c)
			}
		}
		files = append(files, namedTests{f.infix, file})
	}
	return files, missing, nil
}

func casesOf(pb *alerts.Playbook) (cases []testCase, missing []string, err error) {
	// An indicator that is scraped less often has series of its own pace.
	sims := map[model.Duration]*series.Simulator{}
	defer func() {
		for _, sim := range sims {
			err = errors.Join(err, sim.Close())
		}
	}()
	simOf := func(ind *alerts.Indicator) *series.Simulator {
		s := pb.ScrapeIntervalOf(ind)
		if sims[s] == nil {
			sims[s] = series.NewSimulator(time.Duration(s), mostScrapes)
		}
		return sims[s]
	}
	long := false // whether a rule loads more samples than promtool does
	for i := range pb.Indicators {
		ind := &pb.Indicators[i]
		if ind.Alert == nil {
			continue
		}
		c, err := indicatorSubject(simOf(ind), pb, ind)
		if err != nil {
			long = long || errors.Is(err, series.ErrTooManySamples)
			missing = append(missing, fmt.Sprintf("alert %s of indicator %s: %v", alertName(ind, query.OfAlert(ind.Alert)), ind.Name, err))
			continue
		}
		more, err := c.thresholdTests()
		if err != nil {
			return nil, nil, err
		}
		cases = append(cases, more...)
	}
	for i := range pb.Triggers {
		t := &pb.Triggers[i]
		if t.Signal != "" {
			cases = append(cases, signalTest(simOf(nil), pb, t))
			continue
		}
		c, err := triggerSubject(simOf(pb.Indicator(t.Indicator)), pb, t)
		if err != nil {
			long = long || errors.Is(err, series.ErrTooManySamples)
			missing = append(missing, fmt.Sprintf("trigger %s: %v", t.Name, err))
			continue
		}
		more, err := c.triggerTests()
		if err != nil {
			return nil, nil, err
		}
		cases = append(cases, more...)
	}
	guards, more, err := guardTests(simOf, pb)
	if err != nil {
		return nil, nil, err
	}
	cases, missing = append(cases, guards...), append(missing, more...)
	// promtool evaluates that rule in the other tests too.
	return slices.DeleteFunc(cases, func(c testCase) bool {
		late := long && len(c.Checks) > 0 && c.Checks[len(c.Checks)-1].At/c.Interval > mostScrapes
		if late {
			missing = append(missing, fmt.Sprintf("test %q: it is too long for another rule, whose ranges hold more samples than a test can load", c.Name))
		}
		return late
	}), missing, nil
}

// subject is what is tested: an indicator's alert or a trigger, with series
// that can be brought to both sides of its threshold.
type subject struct {
	*series.Feed
	*query.Query
	name  string
	alert rule
	// recording selects what the alert compares.
	recording string
	// identity are the recording's labels.
	identity map[string]string
	trigger  *alerts.Trigger
	stages   []string
	judged   judgement
	// inside and beyond lie just on either side of the threshold; good and
	// strong far off.
	inside, beyond, good, strong []series.Level
	// strongValue is the query's value at strong.
	strongValue float64
}

func indicatorSubject(sim *series.Simulator, pb *alerts.Playbook, ind *alerts.Indicator) (*subject, error) {
	rs, err := indicatorRules(pb, ind)
	if err != nil {
		return nil, err
	}
	q, err := query.Of(pb, ind.Name, query.OfAlert(ind.Alert))
	if err != nil {
		return nil, err
	}
	s := &subject{
		Query: q, name: rs[1].Alert, alert: rs[1], recording: query.SelectorOf(indicatorRecording, "service", pb.Service, "indicator", ind.Name),
		identity: rs[0].Labels,
	}
	return s, s.solve(sim, 0)
}

func triggerSubject(sim *series.Simulator, pb *alerts.Playbook, t *alerts.Trigger) (*subject, error) {
	rs, err := triggerRules(pb, t)
	if err != nil {
		return nil, err
	}
	q, err := query.Of(pb, t.Indicator, query.OfTrigger(t))
	if err != nil {
		return nil, err
	}
	s := &subject{
		Query: q, trigger: t, stages: pb.StagesOf(t.Name),
		recording: query.SelectorOf(query.TriggerRecording, "service", pb.Service, "trigger", t.Name),
		identity:  map[string]string{"service": pb.Service, "trigger": t.Name},
	}
	for _, r := range rs {
		if r.Alert != "" {
			s.name, s.alert = r.Alert, r
		}
	}
	if s.judged, err = judge(pb, t); err != nil {
		return nil, err
	}
	return s, s.solve(sim, t.Recovery.MinVolume/time.Duration(t.Recovery.Window).Seconds())
}

// solve makes up the series. volume is how many events a second are needed
// apart from those of the query's own guard.
func (s *subject) solve(sim *series.Simulator, volume float64) (err error) {
	if w := time.Duration(s.Window).Seconds(); w > 0 {
		volume = max(volume, s.MinVolume/w)
	}
	text, err := s.Confident(s.At(time.Duration(s.Window), s.MinVolume), time.Duration(s.Window))
	if err != nil {
		return err
	}
	if s.Feed, err = series.NewFeed(sim, s.Playbook, text, boundsFor(s.Indicator, text, s.Threshold), volume); err != nil {
		return err
	}
	if err := s.FindKnobs(); err != nil {
		return err
	}
	need := func(to *[]series.Level, what string, ranges ...series.Within) {
		for _, w := range ranges {
			if err != nil || *to != nil {
				return
			}
			var levels []series.Level
			var ok bool
			if levels, ok, err = s.Find(w); ok && (to != &s.good || s.recovers(levels)) {
				*to = levels
			}
		}
		if err == nil && *to == nil {
			err = fmt.Errorf("no series could be made up that bring its query %s the threshold %s", what, query.Number(s.Threshold))
		}
	}
	need(&s.inside, "just inside of", s.around(-0.08, -0.03))
	need(&s.beyond, "just beyond", s.around(0.03, 0.08))
	well := []series.Within{s.around(-0.6, -0.4), s.around(-0.4, -0.1), s.around(-0.1, -0.03)}
	if s.trigger != nil {
		well = append(well, s.aroundOf(s.judged.RecoveryThreshold, -0.6, -0.4), s.aroundOf(s.judged.RecoveryThreshold, -0.1, -0.03))
	}
	need(&s.good, "well inside of", well...)
	need(&s.strong, "well beyond", s.around(3, 4), s.around(0.8, 1.2), s.around(0.3, 0.5), s.around(0.1, 0.2), s.around(0.03, 0.1))
	if err != nil {
		return err
	}
	if s.strongValue, err = s.Feed.Value(s.strong); err != nil {
		return err
	}
	return s.loadable()
}

// loadable evaluates what is recorded, which looks back further if it is sustained.
func (s *subject) loadable() error {
	value, back, err := s.Query.Value()
	if err != nil {
		return err
	}
	n := int(max(back, s.judged.RecoveryWindow)/s.Scrape()) + 2
	fed := s.MadeUp(series.Script{{Scrapes: n, Levels: s.strong}})
	for _, text := range []string{value, s.judged.Recovery} {
		if text == "" { // an alert has no recovery
			continue
		}
		if _, _, err := s.Sim.Value(fed, text, n-1); err != nil {
			return err
		}
	}
	return nil
}

// boundsFor are the indicator's buckets, or some around the threshold where it
// does not name them, as the series of its query have them: in their own unit. Buckets
// that do not include the threshold may be in that unit already.
func boundsFor(ind *alerts.Indicator, text string, threshold float64) []float64 {
	t := max(threshold, 1e-3)
	bounds := []float64{t / 4, t / 2, t, 2 * t, 4 * t}
	if len(ind.Buckets) > 0 {
		bounds = slices.Clone(ind.Buckets)
		if threshold < slices.Min(bounds) || threshold > slices.Max(bounds) { // the playbook's linter has said so
			return bounds
		}
	}
	if expr, err := query.Parse(text); err == nil {
		factor := query.Conversion(expr)
		for i := range bounds {
			bounds[i] = query.Round(bounds[i] / factor)
		}
	}
	return bounds
}

// around is a range of values, as parts of the threshold beyond it. Where the
// threshold is zero, inside is zero itself, and beyond one event or several.
func (s *subject) around(from, to float64) series.Within { return s.aroundOf(s.Threshold, from, to) }

// aroundOf is around for another bound on the same side.
func (s *subject) aroundOf(bound, from, to float64) series.Within {
	t := bound
	if t == 0 {
		if to < 0 {
			return series.Within{Low: 0, High: 0}
		}
		from, to, t = 30*from, 30*to, 1
	} else if t < 0 {
		t = -t
	}
	if !s.Above {
		from, to = -to, -from
	}
	return series.Within{Low: bound + from*t, High: bound + to*t}
}

// recovers reports whether a trigger's recovery, whose bound may be stricter, is not
// beyond it at steady levels.
func (s *subject) recovers(levels []series.Level) bool {
	if s.trigger == nil {
		return true
	}
	r := *s.Feed
	r.Text, r.Back = s.judged.Recovery, s.judged.RecoveryWindow
	v, err := r.Value(levels)
	return err != nil || !s.Beyond(v, s.judged.RecoveryThreshold)
}

// over is how far the alert's value looks back, in scrapes, and some more.
func (s *subject) over() int {
	span := s.Span()
	if s.Instant() {
		span += s.Back
	}
	return s.Sim.Aligned(int(span/s.Scrape()) + s.Sim.Coarse + 2)
}

// testCase is one test: what is fed, and what must then be seen.
func (s *subject) testCase(name string, sc series.Script, extra []series.Input, checks ...exprCheck) testCase {
	c := testCase{Name: s.name + ": " + name, Interval: model.Duration(s.Scrape()), Checks: checks}
	c.Series = append(s.Inputs(sc, s.Scrape()), extra...)
	return c
}

// at the given scrape, counted from 0.
func scrapeTime(n int, scrape time.Duration) model.Duration {
	return model.Duration(time.Duration(n) * scrape)
}

// beyondIs checks the comparison of the alert's value, which exists.
func (s *subject) beyondIs(yes bool, scrape int) exprCheck {
	return s.compare(s.recording, s.Threshold, yes, scrape)
}

// recoveryIs checks the comparison of the trigger's recovery value, which exists.
func (s *subject) recoveryIs(yes bool, scrape int) exprCheck {
	return s.compare(query.SelectorOf(recoveryRecording, "service", s.Playbook.Service, "trigger", s.trigger.Name), s.judged.RecoveryThreshold, yes, scrape)
}

func (s *subject) compare(recording string, threshold float64, yes bool, scrape int) exprCheck {
	op := "<"
	if s.Above {
		op = ">"
	}
	v := 0.0
	if yes {
		v = 1
	}
	return exprCheck{
		Expr: fmt.Sprintf("%s %s bool %s", recording, op, query.Number(threshold)), At: scrapeTime(scrape, s.Scrape()),
		Samples: []sample{{Labels: series.Written("", s.identity), Value: v}},
	}
}

// hasNoValue checks that an expression is empty, or not a number.
func hasNoValue(expr string, scrape int, every time.Duration) exprCheck {
	return exprCheck{Expr: expr + " > -Inf", At: scrapeTime(scrape, every), Samples: []sample{}}
}

// silent and fires check the alert itself.
func (s *subject) silent(scrape int) exprCheck { return silent(s.alert, scrape, s.Scrape()) }
func (s *subject) fires(scrape int) exprCheck  { return fires(s.alert, scrape, s.Scrape()) }

func silent(alert rule, scrape int, every time.Duration) exprCheck {
	return exprCheck{
		Expr: fmt.Sprintf("count(%s) or vector(0)", firing(alert)), At: scrapeTime(scrape, every),
		Samples: []sample{{Labels: "{}", Value: 0}},
	}
}

// fires expects an alert with all of its labels, and more where more are given.
func fires(alert rule, scrape int, every time.Duration, more ...string) exprCheck {
	all := map[string]string{"alertname": alert.Alert, "alertstate": "firing"}
	for k, v := range alert.Labels {
		all[k] = v
	}
	for i := 0; i+1 < len(more); i += 2 {
		all[more[i]] = more[i+1]
	}
	return exprCheck{
		Expr: firing(alert), At: scrapeTime(scrape, every),
		Samples: []sample{{Labels: series.Written("ALERTS", all), Value: 1}},
	}
}

func firing(alert rule) string {
	pairs := []string{"alertname", alert.Alert, "alertstate", "firing"}
	if service := alert.Labels["service"]; service != "" {
		pairs = append(pairs, "service", service)
	}
	if ind := alert.Labels["indicator"]; ind != "" {
		pairs = append(pairs, "indicator", ind)
	}
	if alert.Alert == indicatorAbsent { // of which an indicator has two
		pairs = append(pairs, "reason", alert.Labels["reason"])
	}
	return query.SelectorOf("ALERTS", pairs...)
}
