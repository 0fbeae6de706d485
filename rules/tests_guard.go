package rules

import (
	"errors"
	"fmt"
	"math"
	"time"

	"github.com/prometheus/common/model"

	"github.com/locotoki/backout/alerts"
)

// guardTests show each guard silent while all is well, and firing when what it
// guards has been away for long enough.
func guardTests(simOf func(*alerts.Indicator) *simulator, pb *alerts.Playbook) (cases []testCase, missing []string, err error) {
	guards, err := guardsOf(pb)
	if err != nil {
		return nil, nil, err
	}
	w := watch{pb: pb, sim: simOf(nil), every: time.Duration(pb.ScrapeInterval), rules: map[string]rule{}}
	for _, g := range guards {
		w.rules[g.Alert] = g.rule
	}
	serviceCases, err := w.service()
	if err != nil {
		missing = append(missing, fmt.Sprintf("guards %s and %s: %v", serviceDown, noTraffic, err))
	}
	cases = append(cases, serviceCases...)
	for _, g := range guards {
		switch {
		case g.subject == nil:
			continue
		case g.samples > 0:
			c, err := w.at(simOf(g.subject)).thin(g)
			if err != nil {
				missing = append(missing, fmt.Sprintf("guard %s of the samples of indicator %s: %v", indicatorAbsent, g.subject.Name, err))
				continue
			}
			cases = append(cases, c)
			continue
		}
		c, err := w.at(simOf(g.subject)).indicator(g)
		if err != nil {
			missing = append(missing, fmt.Sprintf("guard %s of indicator %s: %v", indicatorAbsent, g.subject.Name, err))
			continue
		}
		cases = append(cases, c)
	}
	if len(pb.Stages) > 0 {
		cases = append(cases, w.stage())
	}
	return append(cases, w.backout()...), missing, nil
}

// watch makes the guards' tests.
type watch struct {
	pb    *alerts.Playbook
	sim   *simulator
	every time.Duration
	rules map[string]rule
}

// at is the watch of series with another pace.
func (w *watch) at(sim *simulator) *watch {
	other := *w
	other.sim, other.every = sim, sim.scrape
	return &other
}

func (w *watch) silent(name string, scrape int) exprCheck {
	return silent(w.rules[name], scrape, w.every)
}

func (w *watch) fires(name string, scrape int, more ...string) exprCheck {
	return fires(w.rules[name], scrape, w.every, more...)
}

func (w *watch) test(name string, series []inputSeries, checks ...exprCheck) testCase {
	return testCase{Name: name, Interval: model.Duration(w.every), Series: series, Checks: checks}
}

// wait is a guard's patience in scrapes.
func (w *watch) wait(name string) int {
	return int((time.Duration(w.rules[name].For) + w.every - 1) / w.every)
}

// ownSeries is one of backout's or Prometheus's own metrics.
func ownSeries(name string, lset map[string]string, job string, runs ...run) inputSeries {
	all := map[string]string{"job": job, "instance": job}
	for k, v := range lset {
		all[k] = v
	}
	return track{name: name, labels: all, runs: runs}.input()
}

// service shows the guards of the service itself.
func (w *watch) service() ([]testCase, error) {
	alive := w.pb.Expand(w.pb.Alive, 0, 0)
	f, err := feedOf(w.sim, w.pb, alive, nil, 0)
	if err != nil {
		return nil, err
	}
	idle := append([]level(nil), f.normal...)
	down := append([]level(nil), f.normal...)
	for i, fam := range f.families {
		if fam.shape == fixed {
			down[i] = level{}
		} else {
			idle[i], down[i] = level{}, level{absent: true}
		}
	}
	for want, levels := range map[float64][]level{1: f.normal, 0: idle} {
		v, err := f.value(levels)
		if err != nil {
			return nil, fmt.Errorf("alive of series that were made up for it: %w", err)
		}
		if v != want {
			return nil, fmt.Errorf("alive is %v and not %v for series that were made up for it", v, want)
		}
	}
	n, long := w.sim.aligned(f.steady()), f.steady()+w.wait(serviceDown)+3*w.sim.coarse
	feed := func(levels []level) (series []inputSeries) {
		for i := range f.families {
			for _, t := range f.families[i].series(script{{scrapes: n, levels: f.normal}, {scrapes: long, levels: levels}}, i, w.every) {
				series = append(series, t.input())
			}
		}
		return series
	}
	recorded := selectorOf(aliveRecording, "service", w.pb.Service)
	aliveIs := func(v float64, scrape int) exprCheck {
		return exprCheck{Expr: recorded, At: scrapeTime(scrape, w.every), Samples: []sample{{Labels: recorded, Value: v}}}
	}
	last, early := n+long-1, n+w.wait(serviceDown)-1
	return []testCase{
		w.test(noTraffic+": fires if the service is up and gets no requests for long", feed(idle),
			aliveIs(1, n-1), w.silent(noTraffic, n-1), w.silent(noTraffic, early), aliveIs(0, last), w.fires(noTraffic, last), w.silent(serviceDown, last)),
		w.test(serviceDown+": fires if it is not scraped for long", feed(down),
			w.silent(serviceDown, n-1), aliveIs(0, n), w.silent(serviceDown, early), aliveIs(0, last), w.fires(serviceDown, last), w.silent(noTraffic, last)),
		w.test(serviceDown+": fires if Prometheus has no target", nil, w.silent(serviceDown, w.wait(serviceDown)-1), w.fires(serviceDown, w.wait(serviceDown)+w.sim.coarse)),
	}, nil
}

// indicator shows the guard of one indicator.
func (w *watch) indicator(g guard) (testCase, error) {
	q := query{pb: w.pb, Indicator: g.subject}
	f, err := feedOf(w.sim, w.pb, q.at(judgedOver(w.pb, g.subject.Name), 0), boundsFor(g.subject, 1), 0)
	if err != nil {
		return testCase{}, err
	}
	switch v, err := f.value(f.normal); {
	case err != nil:
		return testCase{}, err
	case math.IsNaN(v):
		return testCase{}, errors.New("no series could be made up that give it a value")
	}
	gone := make([]level, len(f.families))
	for i, fam := range f.families {
		gone[i] = level{at: 1, absent: fam.shape != fixed}
	}
	if v, err := f.value(gone); err != nil || !math.IsNaN(v) {
		return testCase{}, errors.Join(fmt.Errorf("its query has a value (%s) without any series, so missing series go unnoticed", shown(v)), err)
	}
	n, wait := f.steady(), int((time.Duration(g.For)+w.every-1)/w.every)
	long := f.steady() + wait + 2*w.sim.coarse + 2
	var series []inputSeries
	for i := range f.families {
		for _, t := range f.families[i].series(script{{scrapes: n, levels: f.normal}, {scrapes: long + 2*w.sim.coarse, levels: gone}}, i, w.every) {
			series = append(series, t.input())
		}
	}
	checks := []exprCheck{
		silent(g.rule, n-1, w.every), silent(g.rule, n+wait-1, w.every), fires(g.rule, n+long-1, w.every),
	}
	name := fmt.Sprintf("%s: fires if %s has no series for long", indicatorAbsent, g.subject.Name)
	if len(w.pb.Stages) > 0 {
		name += ", and only during a rollout"
		series = append(series, stageSeries(w.pb.Service, w.pb.Release.Version, in(w.pb.Stages[0].Name, n+long), in(noStage, 2*w.sim.coarse))...)
		checks = append(checks, silent(g.rule, n+long+2*w.sim.coarse-1, w.every))
	}
	return w.test(name, series, checks...), nil
}

// thin shows the guard of an indicator's series that have too few samples.
func (w *watch) thin(g guard) (testCase, error) {
	q := query{pb: w.pb, Indicator: g.subject}
	f, err := feedOf(w.sim, w.pb, q.at(g.over, 0), boundsFor(g.subject, 1), 0)
	if err != nil {
		return testCase{}, err
	}
	// So far apart that the range holds one sample too few, however it lies.
	apart := (g.over/time.Duration(g.samples-2) + w.every - 1) / w.every * w.every
	long := int((time.Duration(g.For)+g.over)/apart) + 2*w.sim.coarse
	c := w.test(fmt.Sprintf("%s: fires if %s is scraped only every %s", indicatorAbsent, g.subject.Name, duration(apart)), nil,
		silent(g.rule, int(time.Duration(g.For)/apart)-1, apart), fires(g.rule, long-1, apart))
	c.Interval = model.Duration(apart)
	for i := range f.families {
		for _, t := range f.families[i].series(script{{scrapes: long, levels: f.normal}}, i, w.every) {
			c.Series = append(c.Series, t.input())
		}
	}
	return c, nil
}

// stage shows the guard of the stage's metric, and that the last stage continues
// while none is exported.
func (w *watch) stage() testCase {
	first := w.pb.Stages[0].Name
	n := 10
	wait := int(w.pb.Bridge()/w.every) + w.wait(stageMetricAbsent)
	back := n + wait + 6
	series := stageSeries(w.pb.Service, w.pb.Release.Version, in(first, n), in("", wait+6), in(noStage, 4))
	stage := selectorOf(stageRecording, "service", w.pb.Service, "stage", first)
	goesOn := func(scrape int) exprCheck {
		return exprCheck{Expr: stage, At: scrapeTime(scrape, w.every), Samples: []sample{{Labels: stage, Value: 1}}}
	}
	c := w.test(stageMetricAbsent+": fires if the stage is missing for long; the last one applies until another is known", series,
		goesOn(n-1), goesOn(n+1), goesOn(back-1), exprCheck{Expr: stage, At: scrapeTime(back, w.every), Samples: []sample{}},
		w.silent(stageMetricAbsent, n-1), w.silent(stageMetricAbsent, n+w.wait(stageMetricAbsent)-1), w.fires(stageMetricAbsent, n+wait+2))
	c.pace = everyScrape
	return c
}

// backout shows the guards of backout itself and of what carries its alerts.
func (w *watch) backout() []testCase {
	wait := w.wait(backoutDown)
	n := w.sim.aligned(wait + 2*w.sim.coarse + 2)
	human := func(reason string) inputSeries {
		return ownSeries("backout_needs_human", map[string]string{"service": w.pb.Service, "reason": reason}, backoutJob, run{n: w.sim.coarse, absent: true}, run{from: 1, n: w.sim.coarse})
	}
	blind := func(reason string, runs ...run) inputSeries {
		return ownSeries("backout_blind", map[string]string{"service": w.pb.Service, "reason": reason}, backoutJob, runs...)
	}
	return []testCase{
		w.test(backoutDown+": fires if no backout is scraped", []inputSeries{ownSeries("up", nil, backoutJob, run{from: 1, n: n}, run{from: 0, n: n})},
			w.silent(backoutDown, n-1), w.silent(backoutDown, n+wait-1), w.fires(backoutDown, 2*n-1)),
		w.test(backoutDown+": fires if it cannot read its store", []inputSeries{
			ownSeries("up", nil, backoutJob, run{from: 1, n: 2 * n}), ownSeries("backout_store_up", nil, backoutJob, run{from: 1, n: n}, run{from: 0, n: n}),
		}, w.silent(backoutDown, n-1), w.fires(backoutDown, 2*n-1)),
		w.test(backoutBlind+": fires if Prometheus does not answer it", []inputSeries{
			blind("watchdog", run{from: 0, n: 2 * w.sim.coarse}), blind("prometheus", run{from: 0, n: w.sim.coarse}, run{from: 1, n: w.sim.coarse}),
		}, w.silent(backoutBlind, w.sim.coarse-1), w.fires(backoutBlind, w.sim.coarse+1, "reason", "prometheus")),
		w.test(messagesPending+": silent at 10m, fires beyond", []inputSeries{
			ownSeries("backout_outbox_oldest_seconds", map[string]string{"channel": "slack"}, backoutJob, run{from: pendingLong.Seconds(), n: w.sim.coarse}, run{from: pendingLong.Seconds() + 1, n: w.sim.coarse}),
		}, w.silent(messagesPending, w.sim.coarse-1), w.fires(messagesPending, w.sim.coarse+1)),
		w.test(messagesDropped+": fires if one was dropped", []inputSeries{
			ownSeries("backout_outbox_deliveries_total", map[string]string{"channel": "slack", "result": "dropped"}, backoutJob, run{from: 0, n: w.sim.coarse}, run{from: 1, n: w.sim.coarse}),
			ownSeries("backout_outbox_deliveries_total", map[string]string{"channel": "slack", "result": "failed"}, backoutJob, run{from: 0, by: 1, n: 2 * w.sim.coarse}),
		}, w.silent(messagesDropped, w.sim.coarse-1), w.fires(messagesDropped, 2*w.sim.coarse-1, "channel", "slack")),
		w.test(remediationHeld+": fires if an incident waits for a person", []inputSeries{human("approval")},
			w.silent(remediationHeld, w.sim.coarse-1), w.fires(remediationHeld, w.sim.coarse+1, "reason", "approval"), w.silent(remediationFailed, w.sim.coarse+1)),
		w.test(remediationFailed+": fires if a step failed", []inputSeries{human("step_failed")},
			w.silent(remediationFailed, w.sim.coarse-1), w.fires(remediationFailed, w.sim.coarse+1, "reason", "step_failed"), w.silent(remediationHeld, w.sim.coarse+1)),
		w.frozen(),
		w.failing(""), w.failing(successSuffix),
		{
			Name: watchdog + ": always fires", Interval: w.pb.ScrapeInterval,
			Checks: []exprCheck{w.fires(watchdog, 1), {Expr: "absent(" + selectorOf("ALERTS", "alertname", watchdog, "severity", none) + ")", At: model.Duration(w.every), Samples: []sample{}}},
		},
	}
}

// failing shows the guard of rules that fail, in one of the service's groups.
func (w *watch) failing(suffix string) testCase {
	name := w.pb.Service + suffix
	failures := func(group string, runs ...run) inputSeries {
		return ownSeries("prometheus_rule_evaluation_failures_total", map[string]string{"rule_group": "/etc/prometheus/rules/" + group + ".rules.yml;" + group}, "prometheus", runs...)
	}
	return w.test(fmt.Sprintf("%s: fires if a rule of the group %s failed", ruleEvaluationFailures, name), []inputSeries{
		failures(name, run{n: w.sim.coarse}, run{from: 1, n: 2 * w.sim.coarse}),
		failures(w.pb.Service+"-another", run{from: 0, by: 1, n: 3 * w.sim.coarse}),
	}, w.silent(ruleEvaluationFailures, w.sim.coarse-1), w.fires(ruleEvaluationFailures, 2*w.sim.coarse))
}

// frozen shows the guard of a long freeze: frozen for half a day, thawed for a
// moment, then frozen for more than a day.
func (w *watch) frozen() testCase {
	half := int(12 * time.Hour / slowly)
	alert := w.rules[frozenOverADay]
	return testCase{
		Name: frozenOverADay + ": fires a day after the last thaw", Interval: model.Duration(slowly), pace: slow,
		Series: []inputSeries{ownSeries("backout_frozen", map[string]string{"service": w.pb.Service}, backoutJob,
			run{from: 1, n: half}, run{from: 0, n: 1}, run{from: 1, n: 2*half + 12})},
		Checks: []exprCheck{silent(alert, 2*half+6, slowly), silent(alert, 3*half-3, slowly), fires(alert, 3*half+6, slowly)},
	}
}
