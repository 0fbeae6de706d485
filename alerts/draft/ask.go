package draft

import (
	"context"
	"fmt"
	"math"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/prometheus/common/model"

	"github.com/locotoki/backout/alerts"
)

// asker asks Prometheus, until it fails once.
type asker struct {
	prometheus Prometheus
	playbook   alerts.Playbook // with the selector own, to fill in queries
	err        error
}

func (a *asker) vector(ctx context.Context, expr string) model.Vector {
	if a.err != nil {
		return nil
	}
	v, err := a.prometheus.Vector(ctx, expr)
	a.err = err
	return v
}

// value is an expression's one value.
func (a *asker) value(ctx context.Context, expr string) (float64, bool) {
	v := a.vector(ctx, expr)
	if len(v) != 1 || math.IsNaN(float64(v[0].Value)) || math.IsInf(float64(v[0].Value), 0) {
		return 0, false
	}
	return float64(v[0].Value), true
}

// labels are the values of a label, sorted.
func (a *asker) labels(ctx context.Context, label, expr string) []string {
	var all []string
	for _, s := range a.vector(ctx, fmt.Sprintf("group by (%s) (%s)", label, expr)) {
		if v := string(s.Metric[model.LabelName(label)]); v != "" {
			all = append(all, v)
		}
	}
	slices.Sort(all)
	return all
}

// NoJobError is a Prometheus that answers, and has no job of the service.
type NoJobError struct {
	// Named is the job that the caller named, "" if none.
	Named string
	// Jobs are those that Prometheus has, in words.
	Jobs string
}

func (e *NoJobError) Error() string {
	if e.Named != "" {
		return fmt.Sprintf("Prometheus has no job %s; it has %s", e.Named, e.Jobs)
	}
	return "none of Prometheus's jobs seems to scrape the service; it has " + e.Jobs
}

// ask fills in what Prometheus knows, or guesses it.
func (d *document) ask(ctx context.Context) (noAnswer, err error) {
	if d.Prometheus != nil {
		a := &asker{prometheus: d.Prometheus}
		d.found(ctx, a)
		if ctx.Err() != nil {
			return nil, ctx.Err()
		}
		if a.err == nil {
			d.Asked = fmt.Sprintf("Values are from %s, asked at %s UTC for the 7 days before.", oneLine(d.Address), d.Now.UTC().Format("2006-01-02 15:04"))
			if d.Job.Missing() {
				return &NoJobError{Named: d.Options.Job, Jobs: cut(d.Jobs, "none")}, nil
			}
			return nil, nil
		}
		noAnswer = a.err
		d.Asked = fmt.Sprintf("Prometheus gave no answer (%s), so metrics and bounds are guessed.", oneLine(a.err.Error()))
	} else {
		d.Asked = "Prometheus was not asked (--prometheus), so metrics and bounds are guessed."
	}
	d.guess()
	return noAnswer, nil
}

// guess is what holds without Prometheus: the commonest metrics.
func (d *document) guess() {
	const why = "Prometheus gave no value"
	d.Job, d.Up, d.Jobs = guessed(d.Service.Name, why), "", nil
	if d.Options.Job != "" {
		d.Job = known(d.Options.Job)
	}
	d.Own = known("job=" + strconv.Quote(d.Job.value))
	d.Scrape = guessed("15s", why)
	usual := detectors()[0]
	d.Program, d.Resources = usual.program, nil
	d.Alive = guessed(usual.alive("2m"), "the metric of %s", usual.program)
	errors, latency := errorSignal(usual, week{}, traffic{}), latencySignal(usual.histograms[0], nil, week{}, traffic{})
	d.Signals = []signal{errors, latency}
}

// found asks which metrics the service has, and which values they had.
func (d *document) found(ctx context.Context, a *asker) {
	if !d.target(ctx, a) {
		const why = "it needs the job"
		d.Own, d.Alive, d.Scrape = missing(`label matchers of the service's series, such as 'job="shop"'; %s`, why), missing("an expression that is 1 while the service has traffic; %s", why), guessed("15s", why)
		return
	}
	scrape, ok := a.scrape(ctx, d.Job.value, d.Own.value)
	d.Scrape = known(scrape.String())
	if !ok {
		d.Scrape = guessed(scrape.String(), "the number of samples in 10 minutes does not show it")
	}
	a.playbook.Selectors = map[string]string{"own": d.Own.value}
	c, ok := a.detector(ctx, d.Own.value)
	d.resources(ctx, a, scrape)
	if !ok {
		var known []string
		for _, c := range detectors() {
			name, _, _ := strings.Cut(c.requests, "{")
			known = append(known, name)
		}
		slices.Sort(known)
		d.Alive = missing("an expression that is 1 while the service has traffic, such as sum(increase(requests_total[2m])) > bool 0; the job has none of %s", strings.Join(slices.Compact(known), ", "))
		return
	}
	d.Program = c.program
	d.Alive = known(c.alive(max(2*minute, 4*scrape).String()))
	t := a.traffic(ctx, c)
	d.Signals = append(d.Signals, errorSignal(c, a.week(ctx, c.errorRate(), t), t))
	if h, buckets, ok := a.latency(ctx, c); ok {
		query := h.p95()
		if h.noBuckets {
			query = h.mean()
		}
		d.Signals = append(d.Signals, latencySignal(h, buckets, a.week(ctx, query, t), t))
	}
}

// detector finds the metrics of the series that have these matchers.
func (a *asker) detector(ctx context.Context, own string) (detector, bool) {
	playbook := alerts.Playbook{Selectors: map[string]string{"own": own}}
	all := detectors()
	i := slices.IndexFunc(all, func(c detector) bool {
		_, ok := a.value(ctx, playbook.Expand(c.present, 0, 0))
		return ok
	})
	if i < 0 {
		return detector{}, false
	}
	return all[i], true
}

// target finds the job of the service, and the matchers of its series.
func (d *document) target(ctx context.Context, a *asker) bool {
	name := regexp.QuoteMeta(d.Service.Name)
	equal := func(label, value string) string { return label + "=" + strconv.Quote(value) }
	like := func(label, pattern string) string { return label + "=~" + strconv.Quote(pattern) }
	candidates := []string{equal("job", d.Service.Name)}
	for _, label := range []string{"service", "app", "container", "container_label_com_docker_compose_service"} {
		candidates = append(candidates, equal(label, d.Service.Name))
	}
	candidates = append(candidates, like("instance", name+"(:[0-9]+)?"), like("job", ".*"+name+".*"))
	byPort := len(candidates) // another program may have the same port: its metrics must be known
	var ports []string
	for _, p := range d.Service.Ports {
		ports = append(ports, p.all()...)
	}
	if len(ports) > 0 {
		candidates = append(candidates, like("instance", ".+:("+strings.Join(ports, "|")+")"))
	}
	if d.Options.Job != "" {
		candidates = []string{equal("job", d.Options.Job)}
	}
	for i, c := range candidates {
		jobs := a.labels(ctx, "job", "up{"+c+"}")
		if i > 0 {
			known := func(job string) bool {
				_, ok := a.detector(ctx, equal("job", job)+","+c)
				return ok
			}
			switch first := slices.IndexFunc(jobs, known); {
			case first > 0:
				jobs[0], jobs[first] = jobs[first], jobs[0]
			case first < 0 && i >= byPort:
				continue
			}
		}
		if len(jobs) == 0 {
			continue
		}
		job := equal("job", jobs[0])
		d.Job = known(jobs[0])
		switch {
		case len(jobs) > 1:
			d.Job = guessed(jobs[0], "its targets match %s, as do those of %s", c, strings.Join(jobs[1:], ", "))
		case i > 0:
			d.Job = guessed(jobs[0], "its targets match %s", c)
		}
		d.Own = known(job)
		all, _ := a.value(ctx, "count(up{"+job+"})")
		if own, _ := a.value(ctx, "count(up{"+job+","+c+"})"); own != all {
			d.Own, d.Up = known(job+","+c), c
		}
		return true
	}
	d.Jobs = a.labels(ctx, "job", "up")
	d.Job = missing("the Prometheus job that scrapes the service; Prometheus has %s; then run init again with --job=NAME", cut(d.Jobs, "no job"))
	return false
}

// cut lists at most ten names.
func cut(names []string, none string) string {
	const most = 10
	switch {
	case len(names) == 0:
		return none
	case len(names) > most:
		return strings.Join(names[:most], ", ") + " and " + alerts.Counted(len(names)-most, "other")
	}
	return strings.Join(names, ", ")
}

// scrape finds how often targets are scraped: by the list of targets, or else by the
// samples of the last 10 minutes and of a target that was there before; ok is false if it is
// a guess. One sample more or less may be in that time.
func (a *asker) scrape(ctx context.Context, job, up string) (interval model.Duration, ok bool) {
	const second = model.Duration(time.Second)
	if intervals, err := a.prometheus.ScrapeIntervals(ctx); err == nil && intervals[job] > 0 {
		return model.Duration(intervals[job]), true
	}
	n, ok := a.value(ctx, "max(count_over_time(up{"+up+"}[10m]) and (up{"+up+"} offset 10m))")
	if !ok || n < 1 {
		return 15 * second, false
	}
	best, measured := 0.0, 600/n
	for _, s := range []float64{5, 10, 15, 20, 30, 60, 120, 300} {
		if 600/(n+1) <= s && s*(n-1) <= 600 && math.Abs(s-measured) < math.Abs(best-measured) {
			best = s
		}
	}
	if best == 0 {
		return model.Duration(math.Round(measured)) * second, false
	}
	return model.Duration(best) * second, n >= 5
}

// latency finds the first of a detector's histograms that there is, with its buckets.
func (a *asker) latency(ctx context.Context, c detector) (h histogram, buckets []float64, ok bool) {
	for _, h = range c.histograms {
		buckets = nil
		for _, le := range a.labels(ctx, "le", a.playbook.Expand(h.name+"_bucket{$own}", 0, 0)) {
			if f, err := strconv.ParseFloat(le, 64); err == nil && !math.IsInf(f, 0) {
				buckets = append(buckets, f)
			}
		}
		if slices.Sort(buckets); len(buckets) > 2 {
			return h, slices.Compact(buckets), true
		}
	}
	for _, h = range c.histograms {
		if _, ok := a.value(ctx, a.playbook.Expand("count("+h.name+"_count{$own})", 0, 0)); ok {
			h.noBuckets = true
			return h, nil, true
		}
	}
	return histogram{}, nil, false
}

// resources finds the resources that have values now.
func (d *document) resources(ctx context.Context, a *asker, scrape model.Duration) {
	for _, r := range resources() {
		r.matchers = strings.ReplaceAll(r.matchers, "SERVICE", d.Service.Name)
		jobs := a.labels(ctx, "job", r.metric+"{"+r.matchers+"}")
		if len(jobs) == 0 {
			continue
		}
		job := "job=" + strconv.Quote(jobs[0])
		r.Matchers = strings.TrimSuffix(job+","+r.matchers, ",")
		own, ok := a.scrape(ctx, jobs[0], job)
		if own = max(own, scrape); ok && own > scrape {
			r.Scrape = own.String()
		}
		r.Query = strings.ReplaceAll(r.Query, "RANGE", max(2*minute, 4*own).String())
		a.playbook.Selectors[r.Selector] = r.Matchers
		if _, ok := a.value(ctx, a.playbook.Expand(r.Query, 0, 0)); !ok {
			continue
		}
		r.bound(a.week(ctx, r.Query, traffic{}))
		d.Resources = append(d.Resources, r)
	}
}

// Selectors are the resources' selectors, each once.
func (d *document) Selectors() []resource {
	var all []resource
	for _, r := range d.Resources {
		if !slices.ContainsFunc(all, func(o resource) bool { return o.Selector == r.Selector }) {
			all = append(all, r)
		}
	}
	return all
}
