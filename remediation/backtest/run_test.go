package backtest

import (
	"context"
	"errors"
	"fmt"
	"math"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/locotoki/backout/alerts"
	"github.com/locotoki/backout/hint"
	"github.com/locotoki/backout/remediation"
	"github.com/locotoki/backout/remediation/action"
	"github.com/locotoki/backout/remediation/view"
	"github.com/locotoki/backout/rules"
)

// shop has one trigger for all stages and one for alpha, and two steps and a lossy one.
const shop = `
service: shop
release: {version: v2, previous: v1}
job: shop
scrape_interval: 15s
alive: sum(increase(requests_total[2m])) > bool 0
target:
  compose: {project_dir: /srv/shop, service: shop}
  probe: {health: http://127.0.0.1:9000/health/, timeout: 30s}
flags:
  - {name: FEATURE_A, off: "0", default: "0", fallback: none}
indicators:
  - name: error_rate
    query: sum(increase(errors_total[$window])) / (sum(increase(requests_total[$window])) >= $min_volume)
    unit: ratio
    alert: {above: 0.005, window: 5m, min_volume: 50}
triggers:
  - {name: error_rate, indicator: error_rate, above: 0.01, window: 15m, min_volume: 100, recovery: {window: 2m, min_volume: 13}, plan: ladder}
  - {name: alpha_errors, indicator: error_rate, above: 0.02, window: 10m, min_volume: 100, recovery: {window: 2m, min_volume: 13}, plan: ladder}
stages:
  - {name: alpha, traffic: "0.01", duration: 1d, rollback: [alpha_errors]}
  - {name: beta, traffic: "1", duration: 3d}
plans:
  - name: ladder
    steps:
      - {action: flag_off, flag: FEATURE_A, settle: 5m}
      - {action: image_retag, settle: 5m}
limits: {per_target: 3/1h, per_service: 6/1h, blast_radius: 6/10m, cooldown: 1h, breaker: 3, reopen_within: 10m, close_after: 5m}
warmup: 1m
watchdog: {max_age: 5m}
`

func twoStages(t testing.TB) *alerts.Playbook {
	t.Helper()
	var kinds []alerts.ActionKind
	for _, k := range action.Kinds(action.Tools{}) {
		kinds = append(kinds, k)
	}
	pb, err := alerts.Parse("shop.yaml", []byte(shop), kinds)
	if err != nil {
		t.Fatal(err)
	}
	return pb
}

// made is a source whose values tests choose by what the expression holds.
type made struct {
	// value is the error rate at a moment, by both windows; NaN is none.
	value func(t time.Time) float64
	// volume, where set, is how many requests each window had.
	volume func(t time.Time) float64
	stage  func(t time.Time) float64 // the recorded stage's number; nil: not recorded
	// fails, where set, is asked before each answer.
	fails func(expr string, from, to time.Time) error
	// panics, where set, is in the expressions that it panics at.
	panics string
	// down is how many targets are down; all of them were up whenever an incident opened.
	down float64

	queries, longest atomic.Int64
	mu               sync.Mutex
	running, most    int
	asked            map[string]int
}

func (m *made) Samples(_ context.Context, expr string, from, to time.Time, step time.Duration) ([]remediation.Point, error) {
	m.queries.Add(1)
	m.mu.Lock()
	if m.asked == nil {
		m.asked = map[string]int{}
	}
	m.asked[expr]++
	m.running++
	m.most = max(m.most, m.running)
	m.mu.Unlock()
	defer func() {
		m.mu.Lock()
		m.running--
		m.mu.Unlock()
	}()
	n := int64(to.Sub(from)/step) + 1
	if n > m.longest.Load() {
		m.longest.Store(n)
	}
	if m.panics != "" && strings.Contains(expr, m.panics) {
		panic("made")
	}
	if m.fails != nil {
		if err := m.fails(expr, from, to); err != nil {
			return nil, err
		}
	}
	var out []remediation.Point
	for at := from; !at.After(to); at = at.Add(step) {
		v := m.at(expr, at)
		if !math.IsNaN(v) {
			out = append(out, remediation.Point{Time: at, Value: v})
		}
	}
	return out, nil
}

func (m *made) at(expr string, t time.Time) float64 {
	switch {
	case strings.HasPrefix(expr, "max(0 * (rollout_stage"):
		if m.stage == nil {
			return math.NaN()
		}
		return m.stage(t)
	case strings.HasPrefix(expr, "count(up") && strings.HasSuffix(expr, " == 0) or vector(0)"):
		return m.down
	case strings.HasPrefix(expr, "time()"): // the age of the newest scrape
		return 5
	case strings.Contains(expr, "errors_total"):
		return m.value(t)
	case m.volume != nil && strings.HasPrefix(expr, "sum(sum(increase(requests_total"):
		return m.volume(t)
	}
	return 1 // alive, up, as many targets as before, vector(1)
}

var day = time.Date(2026, 11, 2, 0, 0, 0, 0, time.UTC)

// during is a rate of 5% in the given times, each two offsets, and of 0.1% else.
func during(times ...time.Duration) func(time.Time) float64 {
	return func(t time.Time) float64 {
		for i := 0; i < len(times); i += 2 {
			if d := t.Sub(day); d >= times[i] && d < times[i+1] {
				return 0.05
			}
		}
		return 0.001
	}
}

func options(t testing.TB, m *made) Options {
	t.Helper()
	return Options{
		Playbook: twoStages(t), Kinds: action.Kinds(action.Tools{}), Source: m, SourceName: "made", From: day, To: day.Add(24 * time.Hour),
		Now: func() time.Time { return day.AddDate(0, 0, 10) },
	}
}

func mustRun(t testing.TB, o Options) *view.Backtest {
	t.Helper()
	r, err := Run(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func alertNamed(t testing.TB, r *view.Backtest, name string) *view.BacktestAlert {
	t.Helper()
	for i := range r.Alerts {
		if r.Alerts[i].Name() == name {
			return &r.Alerts[i]
		}
	}
	t.Fatalf("no alert %s", name)
	return nil
}

func TestABreachIsToldAsIfNoStepHadHelped(t *testing.T) {
	o := options(t, &made{value: during(time.Hour, 2*time.Hour, 10*time.Hour, 10*time.Hour+4*time.Minute)})
	r := mustRun(t, o)
	if len(r.Incidents) != 2 {
		t.Fatalf("incidents are %+v", r.Incidents)
	}
	for i, want := range []string{
		"would have run 1-flag_off immediately; would have run 2-image_retag after 5 min; would have needed a person after 10 min: no step left",
		"would have run 1-flag_off immediately; ended by itself after 4 min 30 s",
	} {
		got := r.Incidents[i].Words
		if i == 0 {
			got, _, _ = strings.Cut(got, "; ended") // by itself, an hour later
		}
		if !strings.HasPrefix(got, strings.Split(want, "; would have needed")[0]) {
			t.Errorf("incident %d: %s\nwant %s", i+1, got, want)
		}
	}
	first := r.Incidents[0]
	if first.Exhausted == nil || time.Duration(*first.Exhausted) < 9*time.Minute || first.Recovered == nil || time.Duration(*first.Recovered) < time.Hour {
		t.Errorf("the first was exhausted after %v and recovered after %v", first.Exhausted, first.Recovered)
	}
	if a := alertNamed(t, r, "error_rate"); len(a.Firings) != 2 || a.Firings[0].Incident != "inc-1" || a.Firings[1].Incident != "inc-2" {
		t.Errorf("firings are %+v", a.Firings)
	}
	if r.StagesFrom != view.StagesUnknown || alertNamed(t, r, "alpha_errors").Judged != 0 {
		t.Errorf("without a recorded stage: %s, %+v", r.StagesFrom, alertNamed(t, r, "alpha_errors"))
	}
}

// What each poll asks about the service's targets follows from few queries, however many
// incidents there are; only which targets are down must be asked for each.
func TestAnIncidentsTargetsAreAskedForOnlyWhileOneIsDown(t *testing.T) {
	breaches := []time.Duration{}
	for i := range 8 {
		breaches = append(breaches, time.Duration(3*i)*time.Hour, time.Duration(3*i)*time.Hour+20*time.Minute)
	}
	words := map[float64]string{}
	for _, down := range []float64{0, 1} {
		m := &made{value: during(breaches...), down: down}
		r := mustRun(t, options(t, m))
		ofOne, ofAll := 0, 0
		for expr, n := range m.asked {
			switch {
			case expr == "vector(1)", strings.Contains(expr, "@") && !strings.Contains(expr, "unless"):
				t.Errorf("asked %d times: %s", n, expr)
			case strings.Contains(expr, "@"):
				ofOne += n
			case strings.Contains(expr, "up{"):
				ofAll += n
			}
		}
		if len(r.Incidents) != 8 || ofAll > 10 || (ofOne > 0) != (down > 0) {
			t.Errorf("%g down: %d incidents, %d queries about one, %d about all", down, len(r.Incidents), ofOne, ofAll)
		}
		for _, inc := range r.Incidents {
			words[down] += inc.Words + "\n"
		}
	}
	if words[0] != words[1] { // this source says that as many as before are up
		t.Errorf("none down:\n%s\none down:\n%s", words[0], words[1])
	}
}

func TestLimitsAndReopeningAreInForce(t *testing.T) {
	// Twice within reopen_within, then within the cooldown of the first rollback.
	o := options(t, &made{value: during(60*time.Minute, 63*time.Minute, 75*time.Minute, 78*time.Minute, 105*time.Minute, 110*time.Minute)})
	r := mustRun(t, o)
	if len(r.Incidents) != 2 || r.Incidents[0].Reopened != 1 {
		t.Fatalf("incidents are %+v", r.Incidents)
	}
	held := r.Incidents[1]
	if len(held.Held) == 0 || held.Held[0].Reason != remediation.HoldCooldown || len(held.Steps) > 0 ||
		held.Words != "no step would have run; held immediately: cooling down after the last change of the target; over after 5 min 30 s" {
		t.Errorf("the second incident: %s (%+v)", held.Words, held)
	}
}

func TestAStagesTriggerCountsInItsStage(t *testing.T) {
	in := func(from, to time.Duration) func(time.Time) float64 {
		return func(t time.Time) float64 {
			if d := t.Sub(day); d >= from && d < to {
				return 1
			}
			return 2
		}
	}
	m := &made{value: during(time.Hour, 2*time.Hour), stage: in(0, 6*time.Hour)}
	r := mustRun(t, options(t, m))
	a := alertNamed(t, r, "alpha_errors")
	if r.StagesFrom != view.StagesRecorded || time.Duration(a.Judged) != 6*time.Hour || len(a.Firings) == 0 {
		t.Errorf("%s: judged %s, %d firings", r.StagesFrom, a.Judged, len(a.Firings))
	}
	o := options(t, m)
	o.Stage = "beta"
	if a := alertNamed(t, mustRun(t, o), "alpha_errors"); a.Judged != 0 || len(a.Firings) > 0 {
		t.Errorf("in another stage: judged %s, %d firings", a.Judged, len(a.Firings))
	}
	o = options(t, m)
	stays, err := ReadRollouts(o.Playbook, []byte("- {stages: [{stage: alpha, from: 2026-11-02T03:00:00Z}, {stage: beta, from: 2026-11-02T05:00:00Z}], ended: 2026-11-02T09:00:00Z}"))
	if err != nil {
		t.Fatal(err)
	}
	o.Rollouts = stays
	if r = mustRun(t, o); r.StagesFrom != view.StagesAssumed || time.Duration(alertNamed(t, r, "alpha_errors").Judged) != 2*time.Hour || len(r.Stages) != 2 {
		t.Errorf("assumed: %+v", r.Stages)
	}
}

func TestAListOfRolloutsIsRefusedWithAllMistakes(t *testing.T) {
	_, err := ReadRollouts(twoStages(t), []byte("- {stages: [{stage: gamma, from: 2026-11-02T03:00:00Z}]}\n- {ended: 2026-11-02T03:00:00Z}\n- {stages: [{stage: alpha, from: 2026-11-03T03:00:00Z}], ended: 2026-11-02T03:00:00Z}"))
	for _, want := range []string{"rollout 1: ended is missing", `no stage "gamma"`, "rollout 2: it has no stages", "rollout 3: stage alpha begins"} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("error %v does not say %q", err, want)
		}
	}
	if _, err := ReadRollouts(twoStages(t), []byte("- {stagse: []}")); err == nil {
		t.Error("an unknown key is taken")
	}
}

func TestTheLoadIsBounded(t *testing.T) {
	m := &made{value: during()}
	o := options(t, m)
	o.To = day.AddDate(0, 0, 9)
	mustRun(t, o)
	if m.most > 2 || m.longest.Load() >= 11_000 {
		t.Errorf("%d queries at a time, the longest of %d points", m.most, m.longest.Load())
	}
	began := time.Now()
	m = &made{value: during(), fails: func(string, time.Time, time.Time) error { time.Sleep(2 * time.Millisecond); return nil }}
	o = options(t, m)
	o.MaxLoad = 0.2
	mustRun(t, o)
	if m.most > 1 || time.Since(began) < time.Duration(m.queries.Load())*8*time.Millisecond {
		t.Errorf("with a load of 0.2: %d at a time, %d queries in %s", m.most, m.queries.Load(), time.Since(began))
	}
}

func TestChunksAreShortAtAnyStep(t *testing.T) {
	for _, step := range []time.Duration{time.Second, 7 * time.Second, 15 * time.Second, time.Minute, 2 * 24 * time.Hour} {
		g := gridOf(day, day.AddDate(0, 0, 30), step)
		next := g.first
		for _, c := range chunks(g) {
			if c.len() >= 11_000 || c.len() < 1 || c.first != next {
				t.Fatalf("step %s: chunk %+v after %d", step, c, next)
			}
			next = c.last + 1
		}
		if next != g.last+1 {
			t.Errorf("step %s: the chunks end at %d, not at %d", step, next-1, g.last)
		}
	}
}

func TestWhatPrometheusCannotAnswerIsAskedInHalves(t *testing.T) {
	m := &made{value: during(time.Hour, 2*time.Hour)}
	whole := mustRun(t, options(t, m))
	for _, err := range []error{remediation.ErrExecution, remediation.ErrTooSlow} {
		m.fails = func(expr string, from, to time.Time) error {
			if to.Sub(from) > 7*time.Hour && expr != "vector(1)" { // which loads none: it shows that the server answers
				return fmt.Errorf("%w: it would load too many samples", err)
			}
			return nil
		}
		parts := mustRun(t, options(t, m))
		if a, b := alertNamed(t, whole, "error_rate"), alertNamed(t, parts, "error_rate"); len(b.Firings) != 1 || !a.Firings[0].From.Equal(b.Firings[0].From) || len(parts.Gaps) > 0 {
			t.Errorf("whole %+v, in parts %+v", a.Firings, b.Firings)
		}
	}
}

// One alert's expression has no answer at noon; the others, and the rest of the day, have.
func TestWhatHasNoAnswerIsAGapOfItsAlertOnly(t *testing.T) {
	noon := day.Add(12 * time.Hour)
	m := &made{value: during(time.Hour, 2*time.Hour)}
	m.fails = func(expr string, from, to time.Time) error {
		if strings.Contains(expr, "errors_total[5m]") && !from.After(noon) && !to.Before(noon) {
			return fmt.Errorf("%w: many-to-many", remediation.ErrExecution)
		}
		return nil
	}
	o := options(t, m)
	cache, err := OpenCache(t.TempDir(), day)
	if err != nil {
		t.Fatal(err)
	}
	o.Cache = cache
	for _, run := range []string{"first", "with a cache"} {
		r := mustRun(t, o)
		a, other := alertNamed(t, r, "alert of error_rate"), alertNamed(t, r, "error_rate")
		if len(r.Gaps) != 1 || r.Gaps[0].Of != a.Name() || r.Gaps[0].From.After(noon) || !r.Gaps[0].To.After(noon) || !strings.HasSuffix(r.Gaps[0].Why, "many-to-many") {
			t.Fatalf("%s: gaps are %+v", run, r.Gaps)
		}
		if lost := time.Duration(a.Unanswered); lost != r.Gaps[0].To.Sub(r.Gaps[0].From) || a.NoData != a.Unanswered || lost > 2*time.Hour || len(a.Firings) != 1 ||
			!strings.Contains(a.Verdict, "could not evaluate it for 1 h 30 min") {
			t.Errorf("%s: without an answer for %s: %s", run, lost, a.Verdict)
		}
		if other.NoData > 0 || len(other.Firings) != 1 || len(r.Incidents) != 1 || r.Missing != "" {
			t.Errorf("%s: the other trigger: %+v", run, other)
		}
	}
}

// What each poll would ask of that time has no answer either, as it had none then.
func TestTheReplayMeetsTheSameGaps(t *testing.T) {
	m := &made{value: during(time.Hour, 2*time.Hour)}
	m.fails = func(expr string, _, _ time.Time) error {
		if strings.Contains(expr, "errors_total[2m]") { // the recovery
			return fmt.Errorf("%w: many-to-many", remediation.ErrExecution)
		}
		return nil
	}
	r := mustRun(t, options(t, m))
	if len(r.Gaps) == 0 || r.Gaps[0].Of != "the replay" || len(r.Incidents) != 1 || r.Incidents[0].Recovered != nil {
		t.Errorf("gaps %+v, incidents %+v", r.Gaps, r.Incidents)
	}
}

// An expression that takes too long is given up for all of the time; a server that
// answers nothing at all ends the run.
func TestWhatIsTooSlowIsNotAskedAgainAndAgain(t *testing.T) {
	slow := func(only string) *made {
		return &made{value: during(), fails: func(expr string, _, _ time.Time) error {
			if strings.Contains(expr, only) {
				return remediation.ErrTooSlow
			}
			return nil
		}}
	}
	m := slow("errors_total[5m]")
	o := options(t, m)
	o.MaxLoad = 1 // with two, both may have begun on it
	o.To = day.AddDate(0, 0, 9)
	r := mustRun(t, o)
	asked := 0
	for expr, n := range m.asked {
		if strings.Contains(expr, "errors_total[5m]") {
			asked += n
		}
	}
	if a := alertNamed(t, r, "alert of error_rate"); asked > 6 || len(r.Gaps) != 1 || !a.Blind() || alertNamed(t, r, "error_rate").NoData > 0 {
		t.Errorf("asked %d times, gaps %+v", asked, r.Gaps)
	}
	m = slow("")
	o = options(t, m)
	o.To = day.Add(23 * time.Hour) // which no short query is the first for
	if _, err := Run(t.Context(), o); !errors.Is(err, remediation.ErrTooSlow) || m.queries.Load() > 2*MaxLoad {
		t.Errorf("of a server that hangs: %v after %d queries", err, m.queries.Load())
	}
}

func TestAnErrorThatIsNotTheRangesEndsTheRun(t *testing.T) {
	for _, err := range []error{errors.New("parse error"), fmt.Errorf("%w: 401 Unauthorized", remediation.ErrNoAnswer)} {
		m := &made{value: during(), fails: func(string, time.Time, time.Time) error { return err }}
		o := options(t, m)
		o.To = day.AddDate(0, 0, 9)
		if _, got := Run(t.Context(), o); !errors.Is(got, err) || m.queries.Load() > 2 {
			t.Errorf("%v: %v after %d queries", err, got, m.queries.Load())
		}
	}
}

// Whatever is interrupted, what was finished before stays.
func TestAnInterruptedReplayGivesWhatWasReplayed(t *testing.T) {
	brief := []time.Duration{}
	for i := range 6 {
		brief = append(brief, time.Duration(3*i+1)*time.Hour, time.Duration(3*i+1)*time.Hour+90*time.Second)
	}
	for _, tc := range []struct {
		at        string // in the progress that it is interrupted at
		missing   string
		incidents func(n int) bool
	}{
		{"replay: 10 of 24 hours", "interrupted: what backout would have done was replayed until 2026-11-02T10:", func(n int) bool { return n >= 3 && n < 6 }},
		{"volumes: ", "interrupted: not every short firing has a proposal", func(n int) bool { return n == 6 }},
	} {
		ctx, cancel := context.WithCancel(t.Context())
		o := options(t, &made{value: during(brief...)})
		o.Progress = func(p Progress) {
			if strings.HasPrefix(p.String(), tc.at) {
				cancel()
			}
		}
		r, err := Run(ctx, o)
		if err != nil {
			t.Fatal(err)
		}
		known := map[string]bool{}
		for _, inc := range r.Incidents {
			known[inc.ID] = true
		}
		if !strings.HasPrefix(r.Missing, tc.missing) || !tc.incidents(len(known)) {
			t.Errorf("%s: %q, %d incidents", tc.at, r.Missing, len(known))
		}
		for i, f := range alertNamed(t, r, "error_rate").Firings {
			if f.Incident != "" && !known[f.Incident] || f.Incident == "" && i < len(known) {
				t.Errorf("%s: firing %d names incident %q", tc.at, i+1, f.Incident)
			}
		}
		cancel()
	}
}

func TestAnHourOfValuesInADayIsTooLittleToConclude(t *testing.T) {
	m := &made{value: func(t time.Time) float64 {
		if t.Sub(day) < time.Hour {
			return 0.001
		}
		return math.NaN()
	}}
	const want = "error_rate would not have fired in the 1 h in which it had a value; its nearest value was 0.1%, 10% of its bound: too little to conclude."
	if got := alertNamed(t, mustRun(t, options(t, m)), "error_rate").Verdict; !strings.HasPrefix(got, want) {
		t.Errorf("says %q", got)
	}
}

// A service without requests and one that is not scraped both have no value: the volume
// tells them apart, and is read only for the days that lack values.
func TestTooFewEventsAreNotMissingSeries(t *testing.T) {
	from := func(a, b time.Duration, t time.Time) bool { return t.Sub(day) >= a && t.Sub(day) < b }
	m := &made{volume: func(t time.Time) float64 {
		switch {
		case from(30*time.Hour, 33*time.Hour, t):
			return 7
		case from(33*time.Hour, 35*time.Hour, t):
			return math.NaN()
		}
		return 1000
	}}
	m.value = func(t time.Time) float64 {
		if from(30*time.Hour, 35*time.Hour, t) {
			return math.NaN()
		}
		return 0.001
	}
	o := options(t, m)
	o.To = day.AddDate(0, 0, 6)
	a := alertNamed(t, mustRun(t, o), "error_rate")
	if time.Duration(a.NoData) != 5*time.Hour || time.Duration(a.BelowVolume) != 3*time.Hour || a.NoDataWords() != "5 h (3 h of it below min_volume)" {
		t.Errorf("no data for %s, below the volume for %s: %s", a.NoData, a.BelowVolume, a.NoDataWords())
	}
	for expr, n := range m.asked {
		if strings.HasPrefix(expr, "sum(sum(increase(requests_total[15m]") && n != 1 {
			t.Errorf("the volume is asked %d times: %s", n, expr)
		}
	}
	m.value = func(time.Time) float64 { return math.NaN() }
	m.volume = func(time.Time) float64 { return 7 }
	if got := alertNamed(t, mustRun(t, options(t, m)), "error_rate").Verdict; got != "error_rate never had min_volume events: it can protect nothing. Lower min_volume." {
		t.Errorf("says %q", got)
	}
	o = options(t, m) // a stage's events are counted within the stage, which no volume of all time tells
	o.Stage = "alpha"
	if a := alertNamed(t, mustRun(t, o), "alpha_errors"); a.BelowVolume != 0 || a.NoData == 0 {
		t.Errorf("a stage's trigger was below its volume for %s of %s", a.BelowVolume, a.NoData)
	}
}

func TestACacheInMemoryIsBounded(t *testing.T) {
	c := NewMemoryCache()
	m := &made{value: during()}
	o := options(t, m)
	o.Cache, o.Stage = c, "beta"
	mustRun(t, o)
	before := m.queries.Load()
	if mustRun(t, o); m.queries.Load() != before {
		t.Errorf("%d queries again", m.queries.Load()-before)
	}
	for _, key := range []string{"a", "b", "b", "c"} {
		c.hold(key, make([]byte, maxMemory/2))
	}
	if len(c.memory) > 2 || c.size > maxMemory {
		t.Errorf("it holds %d chunks, %d bytes", len(c.memory), c.size)
	}
}

func TestTheTimeIsWithinThePastAndHasAnEvaluation(t *testing.T) {
	o := options(t, &made{value: during()})
	now := o.Now()
	o.From, o.To = now.Add(-time.Hour), now.Add(time.Hour)
	r := mustRun(t, o)
	if a := alertNamed(t, r, "error_rate"); r.To.After(now) || a.NoData > 0 || time.Duration(a.Judged) > time.Hour+time.Minute {
		t.Errorf("until %s of %s: judged %s, without data %s", r.To, now, a.Judged, a.NoData)
	}
	for words, span := range map[string][2]time.Time{
		"is in the future":   {now.Add(time.Hour), now.Add(2 * time.Hour)},
		"no evaluation lies": {now.Add(-14 * time.Second), now.Add(-10 * time.Second)},
	} {
		o.From, o.To = span[0], span[1]
		_, err := Run(t.Context(), o)
		if message, try := hint.Of(err); !strings.Contains(message, words) || !strings.Contains(try, "--from") {
			t.Errorf("%v: %v", span, err)
		}
	}
}

func TestAStageThatNeverWasIsExplainedByWhereStagesComeFrom(t *testing.T) {
	none := func(time.Time) float64 { return 0 }
	for words, edit := range map[string]func(*Options, *made){
		"it counts in the stage alpha only, and another one was given.": func(o *Options, _ *made) { o.Stage = "beta" },
		"no assumed rollout was in its stage alpha at that time.": func(o *Options, _ *made) {
			o.Rollouts = []rules.Stay{{Stage: "beta", From: day, To: day.Add(time.Hour)}}
		},
		"no recorded rollout was in its stage alpha at that time. Use backout backtest with --stage=alpha.":            func(_ *Options, m *made) { m.stage = none },
		"no rollout is known to have been in its stage alpha. Use backout backtest with --stage or --assume-rollouts.": func(*Options, *made) {},
	} {
		m := &made{value: during()}
		o := options(t, m)
		edit(&o, m)
		if got := alertNamed(t, mustRun(t, o), "alpha_errors").Verdict; got != "alpha_errors was not judged: "+words {
			t.Errorf("says %q", got)
		}
	}
}

func TestAnInterruptedBacktestGivesWhatThereIsAndGoesOn(t *testing.T) {
	cache, err := OpenCache(t.TempDir(), day)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	m := &made{value: during(5*24*time.Hour+time.Hour, 5*24*time.Hour+2*time.Hour)}
	o := options(t, m)
	// One query at a time, or a slow first one could leave no chunk whole.
	o.Cache, o.To, o.Stage, o.MaxLoad = cache, day.AddDate(0, 0, 6), "beta", 1
	o.Progress = func(p Progress) {
		if p.Done == 8 { // of 21: two chunks of three expressions are whole
			cancel()
		}
	}
	r, err := Run(ctx, o)
	if err != nil {
		t.Fatal(err)
	}
	if r.Missing == "" || !r.From.After(day.AddDate(0, 0, 2)) || len(alertNamed(t, r, "error_rate").Firings) != 1 || len(r.Incidents) > 0 {
		t.Errorf("interrupted: %q from %s, %+v", r.Missing, r.From, r.Verdict)
	}
	if !strings.HasSuffix(r.Missing, "; the next run continues here") {
		t.Errorf("with a cache: %q", r.Missing)
	}
	keepsNothing := options(t, m)
	keepsNothing.To, keepsNothing.Stage, keepsNothing.MaxLoad = o.To, o.Stage, o.MaxLoad
	stopped, stop := context.WithCancel(t.Context())
	keepsNothing.Progress = func(p Progress) {
		if p.Done == 8 {
			stop()
		}
	}
	if r, err := Run(stopped, keepsNothing); err != nil || !strings.HasSuffix(r.Missing, "was not replayed") {
		t.Errorf("without a cache: %+v, %v", r, err)
	}
	before := m.queries.Load()
	o = options(t, m)
	o.Cache, o.To, o.Stage = cache, day.AddDate(0, 0, 6), "beta"
	if r = mustRun(t, o); r.Missing != "" || !r.From.Equal(day) || len(r.Incidents) != 1 {
		t.Errorf("the next run: %q from %s", r.Missing, r.From)
	}
	again := m.queries.Load()
	o = options(t, m)
	o.Cache, o.To, o.Stage = cache, day.AddDate(0, 0, 6), "beta"
	mustRun(t, o)
	known := m.queries.Load()
	o = options(t, m)
	o.Cache, o.To, o.Stage, o.Identity = cache, day.AddDate(0, 0, 6), "beta", "another tenant"
	if mustRun(t, o); m.queries.Load()-known < 15 {
		t.Errorf("another tenant was asked %d times: it is told the first one's values", m.queries.Load()-known)
	}
	if known-again > 3 || again-before < 5 { // the last chunk, of one evaluation, is no whole day but as old
		t.Errorf("%d queries, then %d for what is cached", again-before, known-again)
	}
}

// A panic in a goroutine of the backtest would end the server.
func TestAPanicIsAnError(t *testing.T) {
	for where, in := range map[string]string{"while values are fetched": "errors_total", "while incidents are replayed": "up{"} {
		m := &made{value: during(time.Hour, 2*time.Hour), panics: in}
		var p *panicError
		if _, err := Run(t.Context(), options(t, m)); !errors.As(err, &p) || err.Error() != "internal error: made" || !strings.Contains(p.Stack(), "Samples") {
			t.Errorf("%s: %v", where, err)
		}
	}
}

func TestAChunkThatWasDamagedIsFetchedAgain(t *testing.T) {
	cache, err := OpenCache(t.TempDir(), day)
	if err != nil {
		t.Fatal(err)
	}
	g := grid{15 * time.Second, 0, 99}
	key := keyOf("made", "x", g)
	values := newSeries(g).values
	values[7] = 3
	if err := cache.write(key, values); err != nil {
		t.Fatal(err)
	}
	read := newSeries(g).values
	if !cache.read(key, read) || read[7] != 3 || !math.IsNaN(read[8]) {
		t.Errorf("read %v", read[:10])
	}
	if cache.read(key, newSeries(grid{15 * time.Second, 0, 98}).values) || cache.read(key, newSeries(grid{15 * time.Second, 0, 100}).values) {
		t.Error("a chunk of another length is read")
	}
	if err := cache.write(key, values[:50]); err != nil {
		t.Fatal(err)
	}
	if cache.read(key, read) {
		t.Error("a chunk that is cut off is read")
	}
}

func TestWhatIsYoungIsAskedAgain(t *testing.T) {
	m := &made{value: during()}
	o := options(t, m)
	cache, err := OpenCache(t.TempDir(), day)
	if err != nil {
		t.Fatal(err)
	}
	o.Cache, o.Stage = cache, "beta"
	o.To = day.Add(25 * time.Hour)
	o.Now = func() time.Time { return o.To.Add(30 * time.Minute) }
	mustRun(t, o)
	before := m.queries.Load()
	mustRun(t, o)
	if again := m.queries.Load() - before; again != 2 { // the last chunk of both expressions
		t.Errorf("%d queries for what may still change", again)
	}
}
