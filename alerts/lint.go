package alerts

import (
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/prometheus/common/model"

	"github.com/locotoki/backout/hint"
)

// ProblemAt is a problem of the value at a path, such as target.compose.project_dir, with
// the file and the line that it has there.
func (p *Playbook) ProblemAt(path, message, try string) Problem {
	return Problem{File: p.pos.file, Line: p.pos.line(path), Message: message, Try: try}
}

// Warnings returns what is allowed but rarely intended, sorted by line. A
// Playbook that Load returned may have any number of them.
func (p *Playbook) Warnings() []Problem {
	l := &linter{report: &report{pos: p.pos}, pb: p}
	l.series("alive", p.Alive)
	for i := range p.Indicators {
		l.indicator(&p.Indicators[i], item("indicators", i))
	}
	for i := range p.Triggers {
		l.trigger(&p.Triggers[i], item("triggers", i))
	}
	l.stages()
	for i := range p.Plans {
		l.plan(&p.Plans[i], item("plans", i))
	}
	l.dashboards()
	l.people()
	return l.list.Sorted()
}

// linter collects warnings.
type linter struct {
	*report
	pb *Playbook
}

// number writes a threshold as people do: 0.75, not 7.5e-01.
func number(f float64) string { return strconv.FormatFloat(f, 'f', -1, 64) }

func (l *linter) indicator(ind *Indicator, path string) {
	l.series(key(path, "query"), ind.Query)
	if ind.Target != nil {
		l.value(ind, key(path, "target"), "the target", *ind.Target)
	}
	if a := ind.Alert; a != nil {
		above := a.Above != nil
		at, bound := key(path, "alert.below"), a.Below
		if above {
			at, bound = key(path, "alert.above"), a.Above
		}
		l.value(ind, at, "the alert threshold", *bound)
		if t := ind.Target; t != nil && (above && *bound < *t || !above && *bound > *t) {
			l.at(at, fmt.Sprintf("%s alerts at %s while its target of %s is still met", ind.Name, number(*bound), number(*t)), "move the alert threshold beyond the target")
		}
		l.guard(ind, key(path, "alert"), a.Window, a.MinVolume)
	}
	if ind.Alert == nil && ind.Target == nil && !l.used(ind.Name) {
		l.at(path, fmt.Sprintf("nothing uses the indicator %s", ind.Name), "give it an alert, a trigger or a criterion, or leave it out")
	}
}

// used reports whether a trigger or a criterion names the indicator.
func (l *linter) used(indicator string) bool {
	of := func(c Criterion) bool { return c.Indicator == indicator }
	if slices.ContainsFunc(l.pb.Triggers, func(t Trigger) bool { return t.Indicator == indicator }) {
		return true
	}
	for _, s := range l.pb.Stages {
		if slices.ContainsFunc(s.Success, of) {
			return true
		}
	}
	for _, a := range l.pb.SuccessCriteria {
		if slices.ContainsFunc(a.Criteria, func(c SuccessCriterion) bool { return c.Measure != nil && of(*c.Measure) }) {
			return true
		}
	}
	return false
}

// value warns about a bound that the indicator cannot measure well.
func (l *linter) value(ind *Indicator, path, what string, bound float64) {
	if ind.Unit == Ratio && (bound < 0 || bound > 1) {
		l.at(path, fmt.Sprintf("%s of %s is %s, but a ratio is between 0 and 1", what, ind.Name, number(bound)), fmt.Sprintf("write %s, or unit: percent", number(bound/100)))
	}
	n := len(ind.Buckets)
	if n == 0 {
		return
	}
	if last := ind.Buckets[n-1]; bound >= last {
		l.at(path, fmt.Sprintf("%s of %s is %s, and its last bucket is %s: a quantile above that is reported as that", what, ind.Name, number(bound), number(last)), fmt.Sprintf("give the histogram a bucket above %s", number(bound)))
		return
	}
	if !slices.Contains(ind.Buckets, bound) {
		i, _ := slices.BinarySearch(ind.Buckets, bound)
		between := "below the first bucket, " + number(ind.Buckets[0])
		if i > 0 {
			between = fmt.Sprintf("between the buckets %s and %s", number(ind.Buckets[i-1]), number(ind.Buckets[i]))
		}
		l.at(path, fmt.Sprintf("%s of %s is %s, %s: the value there is an interpolation", what, ind.Name, number(bound), between), fmt.Sprintf("give the histogram a bucket of %s, or move the threshold to a bucket", number(bound)))
	}
}

// guard warns about a window that few requests can decide.
func (l *linter) guard(ind *Indicator, path string, window model.Duration, minVolume float64) {
	if window == 0 {
		return
	}
	switch has := uses(ind.Query, minVolumeVariable); {
	case has && minVolume == 0:
		l.at(path, fmt.Sprintf("%s has no min_volume: one request can decide it", path), "write the minimum number of requests, such as min_volume: 100")
	case !has && minVolume > 0:
		l.at(key(path, "min_volume"), fmt.Sprintf("%s does nothing: the query of %s holds no $min_volume", key(path, "min_volume"), ind.Name), "put it into the query: ... >= $min_volume")
	}
	if least := 4 * l.pb.ScrapeIntervalOf(ind); window < least {
		l.at(key(path, "window"), fmt.Sprintf("%s (%s) is shorter than four scrapes (%s): one lost scrape leaves it empty", key(path, "window"), window, least), "write at least "+least.String())
	}
}

// leastEvents is how many events must decide: a service at half of the threshold
// has that many by chance in fewer than one of twenty windows.
const leastEvents = 10

// events warns about a share that a few requests decide.
func (l *linter) events(t *Trigger, ind *Indicator, path string) {
	share, above := t.Bound()
	switch ind.Unit {
	case Percent:
		share /= 100
	case Ratio:
	default:
		return
	}
	if !above {
		share = 1 - share
	}
	if share <= 0 || share >= 1 || t.MinVolume <= 0 || t.Confidence > 0 || !uses(ind.Query, minVolumeVariable) {
		return
	}
	if n := share * t.MinVolume; n < leastEvents-1e-9 {
		l.at(key(path, "min_volume"), fmt.Sprintf("%s decides on about %s (min_volume %s, threshold %s): chance alone rolls a healthy release back", t.Name, Counted(math.Round(10*n)/10, "event"), number(t.MinVolume), number(share)),
			fmt.Sprintf("min_volume: %s, which is %d events; or a longer window; or confidence: 0.95", number(math.Ceil(leastEvents/share-1e-9)), leastEvents))
	}
}

// Counted is a number with its noun: "1 entry", "2 entries", "2.5 events", "0 steps".
func Counted[N int | int64 | float64](n N, noun string) string {
	if n != 1 {
		if short, y := strings.CutSuffix(noun, "y"); y && !strings.HasSuffix(short, "a") && !strings.HasSuffix(short, "e") && !strings.HasSuffix(short, "o") {
			noun = short + "ie"
		}
		noun += "s"
	}
	return number(float64(n)) + " " + noun
}

func (l *linter) trigger(t *Trigger, path string) {
	if t.Signal != "" {
		return
	}
	ind := l.pb.Indicator(t.Indicator)
	bound, above := t.Bound()
	l.events(t, ind, path)
	at := key(path, "below")
	if above {
		at = key(path, "above")
	}
	l.value(ind, at, "the threshold", bound)
	l.guard(ind, path, t.Window, t.MinVolume)
	if a := ind.Alert; a != nil {
		switch {
		case above && a.Above != nil && bound <= *a.Above:
			l.at(at, fmt.Sprintf("the trigger %s rolls back above %s, which is not beyond the alert threshold of %s, %s", t.Name, number(bound), ind.Name, number(*a.Above)), "move the alert threshold nearer to the target than the trigger's")
		case !above && a.Below != nil && bound >= *a.Below:
			l.at(at, fmt.Sprintf("the trigger %s rolls back below %s, which is not beyond the alert threshold of %s, %s", t.Name, number(bound), ind.Name, number(*a.Below)), "move the alert threshold nearer to the target than the trigger's")
		}
	}
	if w := t.Recovery.Window; time.Duration(w) > t.Span() {
		l.at(key(path, "recovery.window"), fmt.Sprintf("the recovery window of %s (%s) is longer than the trigger's own window (%s)", t.Name, w, model.Duration(t.Span())), "write a shorter one, so that a recovery shows sooner")
	}
	for _, name := range l.pb.StagesOf(t.Name) {
		if s := l.pb.Stage(name); time.Duration(s.Duration) < t.Span() {
			l.at(path, fmt.Sprintf("the trigger %s looks back %s, longer than its stage %s lasts (%s)", t.Name, model.Duration(t.Span()), name, s.Duration), "shorten the window, or lengthen the stage")
		}
	}
}

func (l *linter) stages() {
	measured, always := false, false
	for _, t := range l.pb.Triggers {
		if t.Signal == "" {
			measured = true
			always = always || len(l.pb.StagesOf(t.Name)) == 0
		}
	}
	if measured && !always {
		l.at("triggers", "every measured trigger counts only in its stage: outside these stages nothing rolls back automatically", "add a trigger that no stage lists under rollback")
	}
	for i, s := range l.pb.Stages {
		if m := l.pb.Master(); m != nil {
			if _, err := m.ValueIn(&s); err != nil {
				at := key(item("stages", i), "traffic")
				problem, try := hint.Of(err)
				l.at(at, fmt.Sprintf("%s: %s", at, problem), try)
			}
		}
		for j, c := range s.Success {
			l.criterion(c, item(key(item("stages", i), "success"), j))
		}
	}
	for i, a := range l.pb.SuccessCriteria {
		for j, c := range a.Criteria {
			if c.Measure != nil {
				l.criterion(*c.Measure, key(item(key(item("success_criteria", i), "criteria"), j), "measure"))
			}
		}
	}
}

func (l *linter) criterion(c Criterion, path string) {
	at, bound := key(path, "below"), c.Below
	if c.Above != nil {
		at, bound = key(path, "above"), c.Above
	}
	ind := l.pb.Indicator(c.Indicator)
	if ind.Target != nil && *ind.Target == *bound {
		return // said of the target
	}
	l.value(ind, at, "the criterion", *bound)
}

func (l *linter) plan(plan *Plan, path string) {
	if !slices.ContainsFunc(l.pb.Triggers, func(t Trigger) bool { return t.Plan == plan.Name }) {
		l.at(path, fmt.Sprintf("no trigger uses the plan %s", plan.Name), "name it in a trigger, or leave it out")
	}
	effects, worst := 0, Reversible
	for j, s := range plan.Steps {
		if !s.communicates {
			effects++
		}
		if s.Risk < worst {
			l.at(item(key(path, "steps"), j), fmt.Sprintf("%s is %s and comes after a %s step, but runs before it: the pending step with the lowest risk runs next", s.Action, s.Risk, worst), "write the steps in the order of their risk")
		}
		worst = max(worst, s.Risk)
	}
	if r := l.pb.Limits.PerService; effects > r.Count {
		l.at(path, fmt.Sprintf("the plan %s has %d steps that change something, and limits.per_service (%s) lets %d run", plan.Name, effects, r, r.Count), "raise the limit, or shorten the plan")
	}
}

// people warns where the generated Alertmanager configuration calls no person.
func (l *linter) people() {
	if c := l.pb.Communications; c == nil || c.SlackChannel == "" && c.Page == PageNever {
		l.at("communications.slack_channel", "nobody is called when a rollback is held or fails, or when backout is down: the generated Alertmanager configuration sends these alerts to the receiver nobody",
			`communications: {slack_channel: "#NAME", page: always}, or another receiver in your own configuration of Alertmanager`)
	}
}

// dashboards warns about unknown names, once each.
func (l *linter) dashboards() {
	if len(l.pb.Dashboards) == 0 || len(l.pb.DashboardAliases) > 0 {
		return // without a list there is nothing to miss, with aliases it is an error
	}
	seen := map[string]bool{}
	for i, ind := range l.pb.Indicators {
		if _, ok := l.pb.Dashboards[ind.Dashboard]; ok || ind.Dashboard == "" || seen[ind.Dashboard] {
			continue
		}
		seen[ind.Dashboard] = true
		l.at(key(item("indicators", i), "dashboard"), fmt.Sprintf("the dashboard %q has no address under dashboards", ind.Dashboard), "add it there, name one that is listed there, or map it under dashboard_aliases")
	}
}
