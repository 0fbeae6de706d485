package rules

import (
	"errors"
	"fmt"
	"math"
	"time"

	"github.com/prometheus/common/model"

	"github.com/locotoki/backout/alerts"
	"github.com/locotoki/backout/rules/query"
	"github.com/locotoki/backout/rules/series"
)

// guardTests show each guard silent while all is well, and firing when what it
// guards has been away for long enough.
func guardTests(simOf func(*alerts.Indicator) *series.Simulator, pb *alerts.Playbook) (cases []testCase, missing []string, err error) {
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
	sim   *series.Simulator
	every time.Duration
	rules map[string]rule
}

// at is the watch of series with another pace.
func (w *watch) at(sim *series.Simulator) *watch {
	other := *w
	other.sim, other.every = sim, sim.Scrape
	return &other
}

func (w *watch) silent(name string, scrape int) exprCheck {
	return silent(w.rules[name], scrape, w.every)
}

func (w *watch) fires(name string, scrape int, more ...string) exprCheck {
	return fires(w.rules[name], scrape, w.every, more...)
}

func (w *watch) test(name string, fed []series.Input, checks ...exprCheck) testCase {
	return testCase{Name: name, Interval: model.Duration(w.every), Series: fed, Checks: checks}
}

// wait is a guard's patience in scrapes.
func (w *watch) wait(name string) int {
	return int((time.Duration(w.rules[name].For) + w.every - 1) / w.every)
}

// ownSeries is one of backout's or Prometheus's own metrics.
func ownSeries(name string, lset map[string]string, job string, runs ...series.Stretch) series.Input {
	all := map[string]string{"job": job, "instance": job}
	for k, v := range lset {
		all[k] = v
	}
	return series.Track{Name: name, Labels: all, Runs: runs}.Input()
}

// replicaUp is the series up of one replica of backout.
func replicaUp(instance string, runs ...series.Stretch) series.Input {
	return series.Track{Name: "up", Labels: map[string]string{"job": backoutJob, "instance": instance}, Runs: runs}.Input()
}

// service shows the guards of the service itself.
func (w *watch) service() ([]testCase, error) {
	alive, err := aliveOf(w.pb)
	if err != nil {
		return nil, err
	}
	f, err := series.NewFeed(w.sim, w.pb, alive, nil, 0)
	if err != nil {
		return nil, err
	}
	if busy, err := busyLevels(f); err != nil {
		return nil, err
	} else if busy != nil {
		f.Normal = busy
	}
	idle := append([]series.Level(nil), f.Normal...)
	down := append([]series.Level(nil), f.Normal...)
	for i, fam := range f.Families {
		if fam.Shape == series.Fixed {
			down[i] = series.Level{}
		} else {
			idle[i], down[i] = series.Level{}, series.Level{Absent: true}
		}
	}
	for want, levels := range map[float64][]series.Level{1: f.Normal, 0: idle} {
		v, err := f.Value(levels)
		if err != nil {
			return nil, fmt.Errorf("alive of series that were made up for it: %w", err)
		}
		if v != want {
			return nil, fmt.Errorf("alive is %v and not %v for series that were made up for it", v, want)
		}
	}
	n, long := w.sim.Aligned(f.Steady()), f.Steady()+w.wait(serviceDown)+3*w.sim.Coarse
	feed := func(levels []series.Level) []series.Input {
		return f.Inputs(series.Script{{Scrapes: n, Levels: f.Normal}, {Scrapes: long, Levels: levels}}, w.every)
	}
	recorded := query.SelectorOf(aliveRecording, "service", w.pb.Service)
	aliveIs := func(v float64, scrape int) exprCheck {
		return exprCheck{Expr: recorded, At: scrapeTime(scrape, w.every), Samples: []sample{{Labels: recorded, Value: v}}}
	}
	last, early := n+long-1, n+w.wait(serviceDown)-1
	return []testCase{
		w.test(noTraffic+": fires if the service is up and gets no requests for long", feed(idle),
			aliveIs(1, n-1), w.silent(noTraffic, n-1), w.silent(noTraffic, early), aliveIs(0, last), w.fires(noTraffic, last), w.silent(serviceDown, last)),
		w.test(serviceDown+": fires if it is not scraped for long", feed(down),
			w.silent(serviceDown, n-1), aliveIs(0, n), w.silent(serviceDown, early), aliveIs(0, last), w.fires(serviceDown, last), w.silent(noTraffic, last)),
		w.test(serviceDown+": fires if Prometheus has no target", nil, w.silent(serviceDown, w.wait(serviceDown)-1), w.fires(serviceDown, w.wait(serviceDown)+w.sim.Coarse)),
	}, nil
}

// indicator shows the guard of one indicator.
func (w *watch) indicator(g guard) (testCase, error) {
	q := query.Query{Playbook: w.pb, Indicator: g.subject}
	text := q.At(query.JudgedOver(w.pb, g.subject.Name), 0)
	f, err := series.NewFeed(w.sim, w.pb, text, boundsFor(g.subject, text, 1), 0)
	if err != nil {
		return testCase{}, err
	}
	switch v, err := f.Value(f.Normal); {
	case err != nil:
		return testCase{}, err
	case math.IsNaN(v):
		return testCase{}, errors.New("no series could be made up that give it a value")
	}
	gone := make([]series.Level, len(f.Families))
	for i, fam := range f.Families {
		gone[i] = series.Level{At: 1, Absent: fam.Shape != series.Fixed}
	}
	if v, err := f.Value(gone); err != nil || !math.IsNaN(v) {
		return testCase{}, errors.Join(fmt.Errorf("its query has a value (%s) without any series, so missing series go unnoticed", shown(v)), err)
	}
	n, wait := f.Steady(), int((time.Duration(g.For)+w.every-1)/w.every)
	long := f.Steady() + wait + 2*w.sim.Coarse + 2
	fed := f.Inputs(series.Script{{Scrapes: n, Levels: f.Normal}, {Scrapes: long + 2*w.sim.Coarse, Levels: gone}}, w.every)
	checks := []exprCheck{
		silent(g.rule, n-1, w.every), silent(g.rule, n+wait-1, w.every), fires(g.rule, n+long-1, w.every),
	}
	name := fmt.Sprintf("%s: fires if %s has no series for long", indicatorAbsent, g.subject.Name)
	if len(w.pb.Stages) > 0 {
		name += ", and only during a rollout"
		fed = append(fed, stageSeries(w.pb.Service, w.pb.Release.Version, in(w.pb.Stages[0].Name, n+long), in(noStage, 2*w.sim.Coarse))...)
		checks = append(checks, silent(g.rule, n+long+2*w.sim.Coarse-1, w.every))
	}
	return w.test(name, fed, checks...), nil
}

// thin shows the guard of an indicator's series that have too few samples.
func (w *watch) thin(g guard) (testCase, error) {
	q := query.Query{Playbook: w.pb, Indicator: g.subject}
	text := q.At(g.over, 0)
	f, err := series.NewFeed(w.sim, w.pb, text, boundsFor(g.subject, text, 1), 0)
	if err != nil {
		return testCase{}, err
	}
	if g.samples > mostScrapes {
		return testCase{}, series.ErrTooManySamples
	}
	// So far apart that the range holds one sample too few, however it lies.
	apart := (g.over/time.Duration(g.samples-2) + w.every - 1) / w.every * w.every
	long := int((time.Duration(g.For)+g.over)/apart) + 2*w.sim.Coarse
	c := w.test(fmt.Sprintf("%s: fires if %s is scraped only every %s", indicatorAbsent, g.subject.Name, query.Duration(apart)), nil,
		silent(g.rule, int(time.Duration(g.For)/apart)-1, apart), fires(g.rule, long-1, apart))
	c.Interval = model.Duration(apart)
	c.Series = f.Inputs(series.Script{{Scrapes: long, Levels: f.Normal}}, w.every)
	return c, nil
}

// stage shows the guard of the stage's metric, and that the last stage continues
// while none is exported.
func (w *watch) stage() testCase {
	first := w.pb.Stages[0].Name
	n := 10
	wait := int(w.pb.Bridge()/w.every) + w.wait(stageMetricAbsent)
	back := n + wait + 6
	stages := stageSeries(w.pb.Service, w.pb.Release.Version, in(first, n), in("", wait+6), in(noStage, 4))
	stage := query.SelectorOf(stageRecording, "service", w.pb.Service, "stage", first)
	goesOn := func(scrape int) exprCheck {
		return exprCheck{Expr: stage, At: scrapeTime(scrape, w.every), Samples: []sample{{Labels: stage, Value: 1}}}
	}
	c := w.test(stageMetricAbsent+": fires if the stage is missing for long; the last one applies until another is known", stages,
		goesOn(n-1), goesOn(n+1), goesOn(back-1), exprCheck{Expr: stage, At: scrapeTime(back, w.every), Samples: []sample{}},
		w.silent(stageMetricAbsent, n-1), w.silent(stageMetricAbsent, n+w.wait(stageMetricAbsent)-1), w.fires(stageMetricAbsent, n+wait+2))
	c.pace = everyScrape
	return c
}

// backout shows the guards of backout itself and of what carries its alerts.
func (w *watch) backout() []testCase {
	wait := w.wait(backoutDown)
	n := w.sim.Aligned(wait + 2*w.sim.Coarse + 2)
	human := func(reason string) series.Input {
		return ownSeries("backout_needs_human", map[string]string{"service": w.pb.Service, "reason": reason}, backoutJob, series.Stretch{N: w.sim.Coarse, Absent: true}, series.Stretch{From: 1, N: w.sim.Coarse})
	}
	blind := func(reason string, runs ...series.Stretch) series.Input {
		return ownSeries("backout_blind", map[string]string{"service": w.pb.Service, "reason": reason}, backoutJob, runs...)
	}
	return []testCase{
		w.test(backoutDown+": fires if no backout is scraped", []series.Input{ownSeries("up", nil, backoutJob, series.Stretch{From: 1, N: n}, series.Stretch{From: 0, N: n})},
			w.silent(backoutDown, n-1), w.silent(backoutDown, n+wait-1), w.fires(backoutDown, 2*n-1)),
		w.test(backoutDown+": fires if it cannot read its store", []series.Input{
			ownSeries("up", nil, backoutJob, series.Stretch{From: 1, N: 2 * n}), ownSeries("backout_store_up", nil, backoutJob, series.Stretch{From: 1, N: n}, series.Stretch{From: 0, N: n}),
		}, w.silent(backoutDown, n-1), w.fires(backoutDown, 2*n-1)),
		w.test(replicaDown+": silent while both are up or both down, fires if one of two is down", []series.Input{
			replicaUp("one", series.Stretch{From: 1, N: 3 * n}), replicaUp("two", series.Stretch{From: 1, N: n}, series.Stretch{From: 0, N: 2 * n}),
		}, w.silent(replicaDown, n-1), w.fires(replicaDown, 2*n-1), w.silent(backoutDown, 2*n-1)),
		w.test(realmUnheld+": fires if no replica acts", []series.Input{
			ownSeries("backout_realm_unheld", map[string]string{"service": w.pb.Service}, backoutJob, series.Stretch{From: 0, N: n}, series.Stretch{From: 1, N: n}),
		}, w.silent(realmUnheld, n-1), w.fires(realmUnheld, 2*n-1)),
		w.test(replicasDiffer+": fires if they do for long", []series.Input{
			ownSeries("backout_replicas_differ", map[string]string{"service": w.pb.Service}, backoutJob, series.Stretch{From: 0, N: n}, series.Stretch{From: 1, N: n + w.sim.Aligned(w.wait(replicasDiffer))}),
		}, w.silent(replicasDiffer, n-1), w.fires(replicasDiffer, 2*n+w.sim.Aligned(w.wait(replicasDiffer))-1)),
		w.test(backoutBlind+": fires if Prometheus does not answer it", []series.Input{
			blind("watchdog", series.Stretch{From: 0, N: 2 * w.sim.Coarse}), blind("prometheus", series.Stretch{From: 0, N: w.sim.Coarse}, series.Stretch{From: 1, N: w.sim.Coarse}),
		}, w.silent(backoutBlind, w.sim.Coarse-1), w.fires(backoutBlind, w.sim.Coarse+1, "reason", "prometheus")),
		w.test(messagesPending+": silent at 10m, fires beyond", []series.Input{
			ownSeries("backout_outbox_oldest_seconds", map[string]string{"channel": "slack"}, backoutJob, series.Stretch{From: pendingLong.Seconds(), N: w.sim.Coarse}, series.Stretch{From: pendingLong.Seconds() + 1, N: w.sim.Coarse}),
		}, w.silent(messagesPending, w.sim.Coarse-1), w.fires(messagesPending, w.sim.Coarse+1)),
		w.test(messagesDropped+": fires if one was dropped", []series.Input{
			ownSeries("backout_outbox_deliveries_total", map[string]string{"channel": "slack", "result": "dropped"}, backoutJob, series.Stretch{From: 0, N: w.sim.Coarse}, series.Stretch{From: 1, N: w.sim.Coarse}),
			ownSeries("backout_outbox_deliveries_total", map[string]string{"channel": "slack", "result": "failed"}, backoutJob, series.Stretch{From: 0, By: 1, N: 2 * w.sim.Coarse}),
		}, w.silent(messagesDropped, w.sim.Coarse-1), w.fires(messagesDropped, 2*w.sim.Coarse-1, "channel", "slack")),
		w.test(remediationHeld+": fires if an incident waits for a person", []series.Input{human("approval")},
			w.silent(remediationHeld, w.sim.Coarse-1), w.fires(remediationHeld, w.sim.Coarse+1, "reason", "approval"), w.silent(remediationFailed, w.sim.Coarse+1)),
		w.test(remediationFailed+": fires if a step failed", []series.Input{human("step_failed")},
			w.silent(remediationFailed, w.sim.Coarse-1), w.fires(remediationFailed, w.sim.Coarse+1, "reason", "step_failed"), w.silent(remediationHeld, w.sim.Coarse+1)),
		w.frozen(),
		w.failing(""), w.failing(successSuffix),
		{
			Name: watchdog + ": always fires", Interval: w.pb.ScrapeInterval,
			Checks: []exprCheck{w.fires(watchdog, 1), {Expr: "absent(" + query.SelectorOf("ALERTS", "alertname", watchdog, "severity", none) + ")", At: model.Duration(w.every), Samples: []sample{}}},
		},
	}
}

// failing shows the guard of rules that fail, in one of the service's groups.
func (w *watch) failing(suffix string) testCase {
	name := w.pb.Service + suffix
	failures := func(group string, runs ...series.Stretch) series.Input {
		return ownSeries("prometheus_rule_evaluation_failures_total", map[string]string{"rule_group": "/etc/prometheus/rules/" + group + ".rules.yml;" + group}, "prometheus", runs...)
	}
	return w.test(fmt.Sprintf("%s: fires if a rule of the group %s failed", ruleEvaluationFailures, name), []series.Input{
		failures(name, series.Stretch{N: w.sim.Coarse}, series.Stretch{From: 1, N: 2 * w.sim.Coarse}),
		failures(w.pb.Service+"-another", series.Stretch{From: 0, By: 1, N: 3 * w.sim.Coarse}),
	}, w.silent(ruleEvaluationFailures, w.sim.Coarse-1), w.fires(ruleEvaluationFailures, 2*w.sim.Coarse))
}

// frozen shows the guard of a long freeze: frozen for half a day, thawed for a
// moment, then frozen for more than a day.
func (w *watch) frozen() testCase {
	half := int(12 * time.Hour / slowly)
	alert := w.rules[frozenOverADay]
	return testCase{
		Name: frozenOverADay + ": fires a day after the last thaw", Interval: model.Duration(slowly), pace: slow,
		Series: []series.Input{ownSeries("backout_frozen", map[string]string{"service": w.pb.Service}, backoutJob,
			series.Stretch{From: 1, N: half}, series.Stretch{From: 0, N: 1}, series.Stretch{From: 1, N: 2*half + 12})},
		Checks: []exprCheck{silent(alert, 2*half+6, slowly), silent(alert, 3*half-3, slowly), fires(alert, 3*half+6, slowly)},
	}
}
