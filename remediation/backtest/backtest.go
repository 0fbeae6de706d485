package backtest

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"math"
	"slices"
	"sync"
	"time"

	"github.com/prometheus/common/model"

	"github.com/locotoki/backout/alerts"
	"github.com/locotoki/backout/hint"
	"github.com/locotoki/backout/remediation"
	"github.com/locotoki/backout/remediation/view"
	"github.com/locotoki/backout/rules"
)

// Options are what a backtest is made of.
type Options struct {
	Playbook *alerts.Playbook
	// Kinds name the steps' targets; their actions are never run.
	Kinds  []remediation.ActionKind
	Source Source
	// SourceName is the source's address, of which the cache keeps answers.
	SourceName string
	// Identity tells apart who asks it: another tenant gets other answers. It holds no secret.
	Identity string
	// From and To are the first and the last evaluation, rounded to the rules' interval.
	From, To time.Time
	// Stage is the stage of all of the time, Rollouts are past rollouts; without either,
	// what Prometheus has recorded counts.
	Stage    string
	Rollouts []rules.Stay
	// MaxLoad is how many queries run at a time on average, from MinLoad to MaxLoad; 0 is
	// MaxLoad.
	MaxLoad float64
	Cache   *Cache
	Now     func() time.Time
	// Progress, where set, is told what is done.
	Progress func(p Progress)

	plain bool // ask everything, with the engine's duties: see past
}

// Progress is how far one part of a backtest is: Done of All, counted in Unit.
type Progress struct {
	Doing     string
	Done, All int
	Unit      string
}

// String is such as "values: 12 of 98 queries".
func (p Progress) String() string {
	return fmt.Sprintf("%s: %d of %d %s", p.Doing, p.Done, p.All, p.Unit)
}

// queries tells of the queries of one part.
func (r *run) queries(doing string) func(done, all int) {
	return func(done, all int) { r.Progress(Progress{doing, done, all, "queries"}) }
}

// check returns what is wrong with the options. What lies in the future is left out.
func (o *Options) check() error {
	now, step := o.Now(), time.Duration(o.Playbook.ScrapeInterval)
	if o.To.After(now) {
		o.To = now
	}
	switch {
	case o.From.After(now):
		return hint.Add(fmt.Errorf("from %s is in the future", o.From.UTC().Format(time.RFC3339)), "--from=7d")
	case !o.From.Before(o.To):
		return fmt.Errorf("from %s is not before to %s", o.From.UTC().Format(time.RFC3339), o.To.UTC().Format(time.RFC3339))
	case gridOf(o.From, o.To, step).len() == 0:
		return hint.Add(fmt.Errorf("no evaluation lies between %s and %s: the rules are evaluated every %s", o.From.UTC().Format(time.RFC3339), o.To.UTC().Format(time.RFC3339), o.Playbook.ScrapeInterval), "an earlier --from")
	case o.Stage != "" && len(o.Rollouts) > 0:
		return errors.New("a stage and past rollouts cannot both be given")
	case o.Stage != "" && o.Playbook.Stage(o.Stage) == nil:
		return fmt.Errorf("the playbook of %s has no stage %q; its stages are %s", o.Playbook.Service, o.Stage, remediation.Names(remediation.StageNames(o.Playbook), "none"))
	case o.MaxLoad != 0 && (o.MaxLoad < MinLoad || o.MaxLoad > MaxLoad):
		return fmt.Errorf("load %g is not from %g to %g", o.MaxLoad, MinLoad, MaxLoad)
	}
	return nil
}

// run is one backtest under way.
type run struct {
	Options
	fetch *fetcher
	grid
	report   *view.Backtest
	stays    []rules.Stay
	replayed []rules.Replayed
	// lines are the alerts' values; nil: a stage's trigger, where no stage is known.
	lines []*line
	fired [][]firing
}

// Run replays a playbook. Where ctx ends before the end, it returns what there is, and
// Missing says what is not; an error where there is nothing.
func Run(ctx context.Context, o Options) (*view.Backtest, error) {
	if err := o.check(); err != nil {
		return nil, err
	}
	if o.Progress == nil {
		o.Progress = func(Progress) {}
	}
	r := &run{Options: o, fetch: newFetcher(&o), grid: gridOf(o.From, o.To, time.Duration(o.Playbook.ScrapeInterval))}
	r.report = &view.Backtest{
		Service: o.Playbook.Service, Release: o.Playbook.Release.Version, Playbook: o.Playbook.Hash, Made: o.Now().UTC(), Step: o.Playbook.ScrapeInterval,
		Stages: []view.BacktestStage{}, Gaps: []view.BacktestGap{}, Alerts: []view.BacktestAlert{}, Incidents: []view.BacktestIncident{}, Verdict: []string{},
	}
	var err error
	if r.replayed, err = rules.Replay(o.Playbook); err != nil {
		return nil, err
	}
	if err := r.findStages(ctx); err != nil {
		return nil, err
	}
	if err := r.fetchValues(ctx); err != nil {
		return nil, err
	}
	r.judge()
	if err := r.finish(ctx); err != nil {
		return nil, err
	}
	return r.report, nil
}

// findStages fills stays.
func (r *run) findStages(ctx context.Context) error {
	from, to := r.at(r.first), r.at(r.last+1)
	switch {
	case r.Stage != "":
		r.report.StagesFrom = view.StagesGiven
		r.stays = []rules.Stay{{Stage: r.Stage, From: from.AddDate(0, 0, -7), To: to}} // it was on in every window
	case len(r.Rollouts) > 0:
		r.report.StagesFrom, r.stays = view.StagesAssumed, r.Rollouts
	default:
		r.report.StagesFrom = view.StagesUnknown
		if len(r.Playbook.Stages) == 0 {
			return nil
		}
		g := r.grid
		g.first -= int64(rules.StageCarried / r.step)
		index := lineOf(rules.StageIndex(r.Playbook), g)
		_, err := r.fetch.fetchAll(ctx, g, []*line{index}, r.queries("stages"))
		if err != nil {
			return err
		}
		r.gaps("rollout_stage", index.gaps)
		if stays, recorded := staysOf(r.Playbook, index.series); recorded {
			r.report.StagesFrom, r.stays = view.StagesRecorded, stays
		}
	}
	for _, s := range r.stays {
		if s.To.After(from) && s.From.Before(to) {
			r.report.Stages = append(r.report.Stages, view.BacktestStage{Stage: s.Stage, From: later(s.From, from), To: sooner(s.To, to)})
		}
	}
	return nil
}

func later(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}

func sooner(a, b time.Time) time.Time {
	if a.Before(b) {
		return a
	}
	return b
}

// fetchValues fills lines. What is not fetched is left out of the grid.
func (r *run) fetchValues(ctx context.Context) error {
	known := map[string]*line{}
	var distinct []*line
	r.lines = make([]*line, len(r.replayed))
	for i := range r.replayed {
		a := &r.replayed[i]
		if len(a.Stages) > 0 && len(r.stays) == 0 {
			continue
		}
		key := a.Key()
		if known[key] == nil {
			known[key] = &line{expr: func(from, to time.Time) (string, error) {
				return a.Value(from, to, r.stays, r.report.StagesFrom == view.StagesRecorded)
			}, within: func(g grid) []grid { return within(a, r.stays, g) }, series: newSeries(r.grid)}
			distinct = append(distinct, known[key])
		}
		r.lines[i] = known[key]
	}
	whole, err := r.fetch.fetchAll(ctx, r.grid, distinct, r.queries("values"))
	switch {
	case err != nil && (ctx.Err() == nil || whole > r.last):
		return err
	case err != nil:
		r.report.Missing = fmt.Sprintf("interrupted: only what follows %s was read, and what backout would have done was not replayed", r.at(whole).Format(time.RFC3339)) + r.continues()
	}
	r.first = whole
	for _, l := range distinct {
		l.series = l.since(whole)
	}
	r.report.From, r.report.To = r.at(r.first), r.at(r.last)
	return nil
}

// continues says that what was fetched is kept for the next run, where it is.
func (r *run) continues() string {
	if r.Cache == nil {
		return ""
	}
	return "; the next run continues here"
}

// gaps lists what Prometheus could not evaluate, the first one first; those that follow
// each other are one.
func (r *run) gaps(of string, all []gap) {
	slices.SortFunc(all, func(a, b gap) int { return cmp.Compare(a.from, b.from) })
	for _, g := range all {
		v := view.BacktestGap{Of: of, From: r.at(g.from), To: r.at(g.to), Why: g.why.Error()}
		if n := len(r.report.Gaps); n > 0 {
			if last := &r.report.Gaps[n-1]; last.Of == of && !v.From.After(last.To) && last.Why == v.Why {
				last.To = later(last.To, v.To)
				continue
			}
		}
		r.report.Gaps = append(r.report.Gaps, v)
	}
}

// judge fills the alerts, but for what needs more queries.
func (r *run) judge() {
	r.fired = make([][]firing, len(r.replayed))
	for i := range r.replayed {
		a := &r.replayed[i]
		v := view.BacktestAlert{
			Alert: a.Alert, Trigger: a.Trigger, Indicator: a.Indicator, Unit: a.Unit, Threshold: a.Threshold, Above: a.Above,
			Window: model.Duration(a.Window), MinVolume: a.MinVolume, Stages: append([]string{}, a.Stages...), Approximate: a.Approximate(),
			Firings: []view.BacktestFiring{},
		}
		if l := r.lines[i]; l != nil {
			r.fired[i] = firings(a, l.series)
			r.measure(&v, a, l.series, r.fired[i])
			r.gaps(v.Name(), l.gaps)
			for _, f := range r.fired[i] {
				v.Firings = append(v.Firings, firingView(f, r.grid))
			}
		}
		v.Plot = r.plot(&v, r.lines[i])
		r.report.Alerts = append(r.report.Alerts, v)
	}
}

func firingView(f firing, g grid) view.BacktestFiring {
	v := view.BacktestFiring{From: g.at(f.from), Lasted: model.Duration(g.span(int(f.to - f.from))), Worst: remediation.Finite(&f.worst)}
	if f.to <= g.last {
		to := g.at(f.to)
		v.To = &to
	}
	return v
}

// measure counts the evaluations, and finds the nearest miss.
func (r *run) measure(v *view.BacktestAlert, a *rules.Replayed, s *series, fired []firing) {
	judged, silent, unanswered := 0, 0, 0
	for i := s.first; i <= s.last; i++ {
		if len(a.Stages) > 0 && !slices.Contains(a.Stages, stageAt(r.stays, s.at(i))) {
			continue
		}
		judged++
		if math.IsNaN(s.values[i-s.first]) {
			silent++
			if s.failed(s.at(i)) != nil {
				unanswered++
			}
		}
	}
	v.Judged, v.NoData, v.Unanswered = model.Duration(s.span(judged)), model.Duration(s.span(silent)), model.Duration(s.span(unanswered))
	if a.Indicator == "" {
		v.NoData = 0 // a signal that nobody exports was not raised
		return
	}
	if i := nearest(a, s, fired); i >= 0 {
		value := s.values[i-s.first]
		v.Nearest = &view.BacktestValue{Time: s.at(i), Value: value, Percent: view.PercentOf(value, a.Threshold, a.Above)}
	}
}

// plot has the worst value of each part of the time.
func (r *run) plot(v *view.BacktestAlert, l *line) view.Plot {
	step := view.PlotStep(r.span(r.len()), r.step)
	p := view.Plot{
		Incident: r.Playbook.Service, Trigger: v.Name(), Unit: v.Unit, Threshold: v.Threshold, Above: v.Above,
		From: r.at(r.first), To: r.at(r.last), Step: model.Duration(step), Points: []remediation.Point{}, Marks: []view.Mark{},
	}
	if l == nil {
		return p
	}
	size := int64(step / r.step)
	for i := l.first; i <= l.last; i += size {
		at, worst := i, math.NaN()
		for j := i; j < min(i+size, l.last+1); j++ {
			value := l.values[j-l.first]
			if !math.IsInf(value, 0) && !math.IsNaN(value) && (math.IsNaN(worst) || (value > worst) == v.Above) {
				at, worst = j, value
			}
		}
		if !math.IsNaN(worst) {
			p.Points = append(p.Points, remediation.Point{Time: l.at(at), Value: worst})
		}
	}
	return p
}

// finish replays the engine and writes the verdict. Without all values there is none of
// the first.
func (r *run) finish(ctx context.Context) error {
	replayed := false
	if r.report.Missing == "" {
		until, err := r.replay(ctx)
		replayed = err == nil
		missing := "what backout would have done was not replayed"
		if !until.IsZero() {
			missing = fmt.Sprintf("what backout would have done was replayed until %s only", until.Format(time.RFC3339))
		}
		if replayed {
			missing = "not every short firing has a proposal, nor each lack of data its reason"
			err = r.explain(ctx)
		}
		switch {
		case err != nil && ctx.Err() == nil:
			return err
		case err != nil:
			r.report.Missing = "interrupted: " + missing + r.continues()
		}
	}
	for i := range r.report.Alerts {
		a := &r.report.Alerts[i]
		back := -1
		if replayed {
			back = rolledBack(r.report.Incidents, a.Trigger)
		}
		a.Verdict = verdict(a, back, r.span(r.len()), r.report.StagesFrom)
	}
	view.SortAlerts(r.report.Alerts)
	for _, a := range r.report.Alerts {
		r.report.Verdict = append(r.report.Verdict, a.Verdict)
	}
	return nil
}

// explain looks for what leaves out short firings, and tells where an alert without a
// value had too few events. The volume that this takes is read only for such alerts.
func (r *run) explain(ctx context.Context) error {
	volumes := map[string]*series{} // by expression: alerts share them
	for i := range r.report.Alerts {
		a, v := &r.replayed[i], &r.report.Alerts[i]
		if a.Indicator == "" || r.lines[i] == nil {
			continue
		}
		s := r.lines[i].series
		below := shortAlert
		if t := r.Playbook.Trigger(a.Trigger); t != nil {
			below = time.Duration(t.Recovery.Window)
		}
		brief, _ := short(r.fired[i], below, s)
		volume := volumes[a.Volume]
		if volume == nil && a.Volume != "" && (len(brief) > 0 || v.NoData > v.Unanswered) {
			l := lineOf(a.Volume, r.grid)
			if len(brief) == 0 { // a part of it is enough
				l.within = s.silent
			}
			if _, err := r.fetch.fetchAll(ctx, r.grid, []*line{l}, r.queries("volumes")); err != nil {
				return err
			}
			if volume = l.series; len(brief) > 0 {
				volumes[a.Volume] = volume
			}
		}
		if volume != nil {
			v.BelowVolume = model.Duration(s.span(quiet(a, s, volume)))
		}
		if len(brief) > 0 {
			v.Proposal = propose(a, s, r.fired[i], below, volume)
		}
	}
	return nil
}

// quiet counts the evaluations without a value that had fewer events than the guard asks for.
func quiet(a *rules.Replayed, s, volume *series) (n int) {
	for i, v := range s.values {
		if math.IsNaN(v) && volume.values[i] < a.MinVolume && s.failed(s.at(s.first+int64(i))) == nil {
			n++
		}
	}
	return n
}

// replay fills the incidents. Where ctx ends, they are what was replayed until the
// returned moment.
func (r *run) replay(ctx context.Context) (until time.Time, err error) {
	x, err := rules.ExpressionsOf(r.Playbook)
	if err != nil {
		return until, err
	}
	asking, cancel := context.WithCancel(ctx)
	var ahead sync.WaitGroup
	defer ahead.Wait()
	defer cancel()
	p := newPast(asking, r.fetch, x, r.grid, r.plain)
	byTrigger := map[string][]firing{}
	for i := range r.replayed {
		if a := &r.replayed[i]; a.Trigger != "" && a.Indicator != "" && r.lines[i] != nil {
			byTrigger[a.Trigger] = r.fired[i]
			p.values[x.Triggers[a.Trigger].Value] = r.lines[i].series
		}
	}
	events := eventsOf(byTrigger, r.grid)
	if len(events) == 0 {
		return until, nil
	}
	e, err := newReplay(ctx, &r.Options, p, r.stays, r.report.StagesFrom == view.StagesUnknown)
	if err != nil {
		return until, err
	}
	if !r.plain {
		ahead.Go(func() { p.fail(safely(func() error { return p.prefetch(events) })) })
	}
	e.progress = func(at time.Time) {
		r.Progress(Progress{"replay", int(at.Sub(r.at(r.first)) / time.Hour), int(r.span(r.len()) / time.Hour), "hours"})
	}
	replayed := e.run(ctx, events, r.at(r.last))
	cancel()
	ahead.Wait()
	if replayed != nil && ctx.Err() == nil {
		return until, replayed
	}
	if r.report.Incidents, err = e.incidents(context.WithoutCancel(ctx)); err != nil {
		return until, err
	}
	r.gaps("the replay", p.gaps())
	for i := range r.report.Alerts {
		a := &r.report.Alerts[i]
		for j := range a.Firings {
			a.Firings[j].Incident = e.concerned[firingKey{a.Trigger, a.Firings[j].From.UnixMilli()}]
		}
	}
	return p.clock(), replayed
}
