package engine_test

import (
	"context"
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/locotoki/backout/remediation"
	"github.com/locotoki/backout/remediation/view"
)

// fakeHistory answers every range query with the same points, and keeps the question.
type fakeHistory struct {
	points   []remediation.Point
	err      error
	expr     string
	from, to time.Time
	step     time.Duration
	until    []time.Time // the limits of the queries that have one
}

func (h *fakeHistory) QueryRange(ctx context.Context, expr string, from, to time.Time, step time.Duration) ([]remediation.Point, error) {
	h.expr, h.from, h.to, h.step = expr, from, to, step
	if until, ok := ctx.Deadline(); ok {
		h.until = append(h.until, until)
	}
	return h.points, h.err
}

// plot runs an incident through to its close and draws it.
func plotted(t *testing.T, h *fakeHistory) (*harness, string) {
	t.Helper()
	w := newHarness(t)
	if h != nil {
		w.history = h
		w.start()
	}
	id := w.open()
	w.cured("error_rate")
	w.pass(4 * time.Minute)
	w.calm("error_rate")
	w.pass(10 * time.Minute)
	w.is(id, remediation.Closed, "")
	w.pass(time.Hour)
	return w, id
}

func TestAPlotAsksForTheTriggersOwnExpressionAroundTheIncident(t *testing.T) {
	opened := time.Date(2026, 11, 22, 3, 0, 0, 0, time.UTC)
	h := &fakeHistory{points: []remediation.Point{{Time: opened, Value: 5}}}
	w, id := plotted(t, h)
	p, err := w.engine.Plot(w.ctx, id, "")
	w.must(err)
	if h.expr != w.prom.expr.Triggers["error_rate"].Value {
		t.Errorf("asked for %q", h.expr)
	}
	closed := *w.incident(id).Closed
	if p.Trigger != "error_rate" || p.Unit != "ratio" || p.Threshold != 0.01 || !p.Above || p.Note != "" || len(p.Points) != 1 {
		t.Errorf("plot is %+v", p)
	}
	if want := opened.Add(-15 * time.Minute); h.from.After(want) || h.from.Before(want.Add(-h.step)) || !p.From.Equal(h.from) {
		t.Errorf("begins at %s, want the trigger's window before the incident", h.from)
	}
	if !h.to.Equal(closed.Add(5*time.Minute)) || !p.To.Equal(h.to) {
		t.Errorf("ends at %s, closed at %s", h.to, closed)
	}
	if n := h.to.Sub(h.from) / h.step; n > 241 || h.step != 15*time.Second || time.Duration(p.Step) != h.step {
		t.Errorf("step %s gives %d points", h.step, n)
	}
	var marks []string
	for _, m := range p.Marks {
		marks = append(marks, m.Label)
	}
	if got := strings.Join(marks, " "); got != "opened 1-flag_off recovered closed" {
		t.Errorf("marks are %q", got)
	}
}

// What was worst may have been so while a step ran, when no poll looked; a recovery value is over
// another window, and what lies before the incident is another's.
func TestTheWorstValueIsOfTheIncidentAndOfTheTriggersOwnExpression(t *testing.T) {
	opened := time.Date(2026, 11, 22, 3, 0, 0, 0, time.UTC)
	at := func(d time.Duration, v float64) remediation.Point {
		return remediation.Point{Time: opened.Add(d), Value: v}
	}
	for name, tc := range map[string]struct {
		history *fakeHistory
		want    float64
	}{
		"as Prometheus recorded it": {&fakeHistory{points: []remediation.Point{at(-time.Minute, 99), at(0, 5), at(time.Minute, 9), at(3*time.Minute, 8), at(2*time.Hour, 50)}}, 9},
		"as the polls saw it":       {&fakeHistory{err: remediation.ErrNoAnswer}, 7},
		"with nobody to ask":        {nil, 7},
	} {
		t.Run(name, func(t *testing.T) {
			w := newHarness(t)
			if tc.history != nil {
				w.history = tc.history
				w.start()
			}
			id := w.open()
			if v := w.incident(id); v.Triggers[0].Worst != nil {
				t.Errorf("open, and its worst is %g", *v.Triggers[0].Worst)
			}
			w.prom.value["error_rate"], w.prom.recovery["error_rate"] = 7, 80
			w.pass(4 * time.Minute)
			w.cured("error_rate")
			w.pass(2 * time.Minute)
			w.calm("error_rate")
			w.pass(10 * time.Minute)
			w.is(id, remediation.Closed, "")
			v := w.incident(id)
			if got := v.Triggers[0].Worst; got == nil || *got != tc.want {
				t.Fatalf("the worst is %v, want %g", got, tc.want)
			}
			if tc.history == nil || tc.history.err != nil {
				return
			}
			p, err := w.engine.Plot(w.ctx, id, "")
			w.must(err)
			if pt, found := p.Worst(); !found || pt.Value != tc.want {
				t.Errorf("the plot's worst is %v, want %g", pt, tc.want)
			}
			tc.history.points = []remediation.Point{at(18*time.Minute, 12)}
			w.breach("error_rate")
			w.post("resolved", "error_rate", "fp1")
			w.fire("error_rate", "fp1")
			w.cured("error_rate")
			w.pass(4 * time.Minute)
			w.calm("error_rate")
			w.pass(10 * time.Minute)
			w.is(id, remediation.Closed, "")
			if v = w.incident(id); v.Triggers[0].Worst == nil || *v.Triggers[0].Worst != 12 {
				t.Errorf("reopened and closed again, the worst is %v", v.Triggers[0].Worst)
			}
		})
	}
}

func TestTheWorstValuesOfAllTriggersAreAskedForWithinOneLimit(t *testing.T) {
	h := &fakeHistory{err: remediation.ErrNoAnswer}
	w := newHarness(t)
	w.history = h
	w.start()
	id := w.open()
	w.fire("latency", "fp2")
	w.must(w.change(id, view.Close, ""))
	w.tick()
	if len(h.until) != 2 || !h.until[0].Equal(h.until[1]) {
		t.Errorf("the limits of two triggers' queries are %v, want one", h.until)
	}
}

func TestAnIncidentThatAnEarlierVersionClosedHasTheWorstValueOfTheLog(t *testing.T) {
	w, id := plotted(t, nil)
	w.must(w.store.Update(w.ctx, func(tx remediation.Tx) error {
		inc, err := tx.Incident(id)
		w.must(err)
		inc.Triggers[0].Worst = nil
		return tx.PutIncident(inc)
	}))
	if got := w.incident(id).Triggers[0].Worst; got == nil || *got != 5 {
		t.Errorf("the worst is %v, want the log's", got)
	}
}

func TestAPlotOfALongIncidentHasNoMorePoints(t *testing.T) {
	h := &fakeHistory{points: []remediation.Point{{}}}
	w := newHarness(t)
	w.history = h
	w.start()
	id := w.open()
	w.must(w.change(id, view.Claim, ""))
	w.now = w.now.Add(30 * 24 * time.Hour)
	_, err := w.engine.Plot(w.ctx, id, "error_rate")
	w.must(err)
	if n := h.to.Sub(h.from) / h.step; n > 241 || n < 120 || h.step%(15*time.Second) != 0 {
		t.Errorf("step %s gives %d points", h.step, n)
	}
	if !h.to.Equal(w.now) {
		t.Errorf("an open incident's plot ends at %s, want now", h.to)
	}
}

func TestWherePrometheusHasNothingAPlotShowsTheEvidenceAndSaysSo(t *testing.T) {
	for name, tc := range map[string]struct {
		history *fakeHistory
		says    string
	}{
		"nobody to ask":     {nil, "from the audit log"},
		"no answer":         {&fakeHistory{err: errors.New("connection refused")}, "cannot query Prometheus (connection refused)"},
		"retention is over": {&fakeHistory{}, "has no values for this time"},
	} {
		t.Run(name, func(t *testing.T) {
			w, id := plotted(t, tc.history)
			p, err := w.engine.Plot(w.ctx, id, "error_rate")
			w.must(err)
			if !strings.Contains(p.Note, tc.says) || p.Step != 0 || p.Unit != "ratio" {
				t.Errorf("plot says %q, step %s", p.Note, p.Step)
			}
			// 5 confirmed the breach, 0 is what settling, recovery and close saw.
			if len(p.Points) < 3 || p.Points[0].Value != 5 || p.Points[len(p.Points)-1].Value != 0 {
				t.Errorf("points are %v", p.Points)
			}
			if len(p.Marks) != 4 {
				t.Errorf("marks are %v", p.Marks)
			}
		})
	}
}

func TestWhatHasNoExpressionHasNoPlot(t *testing.T) {
	w, id := plotted(t, nil)
	for _, of := range [][2]string{{"inc-99", ""}, {id, "latency"}, {id, "breach_of_trust"}} {
		_, err := w.engine.Plot(w.ctx, of[0], of[1])
		refused(t, err, remediation.Missing)
	}
}

func TestAServicesPlotEndsNowAndIsAskedForOnceAScrape(t *testing.T) {
	h := &fakeHistory{points: []remediation.Point{{Value: 0.02}}}
	w := newHarness(t)
	w.history = h
	w.start()
	p, err := w.engine.ServicePlot(w.ctx, "shop", "error_rate")
	w.must(err)
	if h.expr != w.prom.expr.Triggers["error_rate"].Value || !p.To.Equal(w.now) || p.To.Sub(p.From) != view.ServiceSpan || p.Threshold != 0.01 || !p.Above || p.Unit != "ratio" {
		t.Errorf("asked for %q, plot is %+v", h.expr, p)
	}
	h.err = errors.New("connection refused")
	if _, err := w.engine.ServicePlot(w.ctx, "shop", "error_rate"); err != nil {
		t.Errorf("asked again within the same scrape: %v", err)
	}
	w.now = w.now.Add(15 * time.Second)
	if _, err := w.engine.ServicePlot(w.ctx, "shop", "error_rate"); err == nil {
		t.Error("not asked again after a scrape")
	}
	for _, missing := range [][2]string{{"gone", "error_rate"}, {"shop", "gone"}} {
		var refused *remediation.RefusedError
		if _, err := w.engine.ServicePlot(w.ctx, missing[0], missing[1]); !errors.As(err, &refused) {
			t.Errorf("plot of %v: %v", missing, err)
		}
	}
}

func TestTheOverviewSaysThatATriggerIsBeyondItsBoundAndNoIncidentIsOpen(t *testing.T) {
	h := &fakeHistory{}
	w := newHarness(t)
	w.history = h
	w.start()
	beyond := func(values ...float64) (n int) {
		w.pass(20 * time.Second) // the last plot is too old
		h.points = nil
		for i, v := range values {
			h.points = append(h.points, remediation.Point{Time: w.now.Add(time.Duration(i+1-len(values)) * 15 * time.Second), Value: v})
		}
		o, err := w.engine.Overview(w.ctx)
		w.must(err)
		for _, u := range o.Services[0].Unheard {
			if u.Trigger == "error_rate" {
				n++
			}
		}
		return n
	}
	for name, tc := range map[string]struct {
		values []float64
		want   int
	}{
		"for two minutes":              {[]float64{0, 5, 5, 5, 5, 5, 5, 5, 5, 5}, 1},
		"for less than an alert needs": {[]float64{5, 5, 5, 5, 0, 5, 5, 5, 5}, 0},
		"until a moment ago":           {[]float64{5, 5, 5, 5, 5, 5, 5, 5, 5, 0}, 0},
		"unknown":                      {nil, 0},
	} {
		if got := beyond(tc.values...); got != tc.want {
			t.Errorf("%s: shown %d times", name, got)
		}
	}
	id := w.open()
	if beyond(5, 5, 5, 5, 5, 5, 5, 5, 5, 5) != 0 {
		t.Errorf("it is shown though %s is open", id)
	}
	w.must(w.change(id, view.Close, ""))
	if beyond(5, 5, 5, 5, 5, 5, 5, 5, 5, 5) != 1 {
		t.Error("a breach whose incident was closed by hand is hidden")
	}
}

func TestTheOverviewSaysWhatBecameOfTheAlertOfABreach(t *testing.T) {
	for name, tc := range map[string]struct {
		what func(w *harness)
		want string
	}{
		"none came": {func(*harness) {}, ""},
		"it is held": {func(w *harness) { w.post("firing", "error_rate", "fp1", "rollout", "v3") },
			`its alert arrived and is held: the alert is about release "v3", and the playbook of shop about v2 (try: generate and load its rules again)`},
		"it was held": {func(w *harness) {
			w.post("firing", "error_rate", "fp1", "rollout", "v3")
			w.post("resolved", "error_rate", "fp1", "rollout", "v3")
		}, ""},
		"another trigger's is held": {func(w *harness) { w.post("firing", "latency", "fp1", "rollout", "v3") }, ""},
		"its incident was closed by hand": {func(w *harness) {
			w.must(w.change(w.open(), view.Close, ""))
			w.post("firing", "error_rate", "fp1")
		}, "its alert belongs to inc-1, which a person closed"},
	} {
		t.Run(name, func(t *testing.T) {
			h := &fakeHistory{}
			w := newHarness(t)
			w.history = h
			w.start()
			tc.what(w)
			for i := range 12 {
				h.points = append(h.points, remediation.Point{Time: w.now.Add(time.Duration(i-11) * 15 * time.Second), Value: 5})
			}
			o, err := w.engine.Overview(w.ctx)
			w.must(err)
			i := slices.IndexFunc(o.Services[0].Unheard, func(u view.Unheard) bool { return u.Trigger == "error_rate" })
			if i < 0 || o.Services[0].Unheard[i].Why != tc.want {
				t.Errorf("shown is %+v, want %q", o.Services[0].Unheard, tc.want)
			}
		})
	}
}

// The long window shows a breach that is over for as long as it looks back.
func TestAnOverviewKnowsABreachThatWasHeardByItsIncident(t *testing.T) {
	h := &fakeHistory{}
	w := newHarness(t)
	w.history = h
	w.start()
	shown := func() bool {
		h.points = nil
		for i := range 12 {
			h.points = append(h.points, remediation.Point{Time: w.now.Add(time.Duration(i-11) * 15 * time.Second), Value: 5})
		}
		o, err := w.engine.Overview(w.ctx)
		w.must(err)
		return slices.ContainsFunc(o.Services[0].Unheard, func(u view.Unheard) bool { return u.Trigger == "error_rate" })
	}
	id := w.open()
	w.cured("error_rate")
	for range 60 {
		if w.incident(id).State == remediation.Recovered {
			break
		}
		w.pass(30 * time.Second)
	}
	w.is(id, remediation.Recovered, "")
	w.must(w.change(id, view.Close, ""))
	w.pass(20 * time.Second)
	if shown() {
		t.Error("what was closed as over is shown as never heard of")
	}
	w.pass(20 * time.Minute)
	if !shown() {
		t.Error("what is beyond its bound after that is hidden")
	}
}

// With a confidence the value is the nearer end of an interval: next to the measured share it
// would read as a contradiction.
func TestTheEndOfAnIntervalIsNotShownAsTheMeasuredShare(t *testing.T) {
	w := newHarness(t, func(src string) string {
		return strings.Replace(src, "window: 15m, min_volume: 100,", "window: 15m, min_volume: 100, confidence: 0.95,", 1)
	})
	w.history = &fakeHistory{points: []remediation.Point{{Time: w.now, Value: 0.5419}}}
	w.start()
	w.declare("alpha")
	w.breach("error_rate")
	all, err := w.engine.Rollouts(w.ctx)
	w.must(err)
	const said = "trigger error_rate is breaching: 500% (at least, with 95% confidence), threshold 1%"
	if !slices.ContainsFunc(all[0].Gates, func(g remediation.GateResult) bool { return g.Why == said }) {
		t.Errorf("the gates say %+v", all[0].Gates)
	}
	const estimate = "at least, with 95% confidence"
	v := w.incident(w.fire("error_rate", "fp1"))
	p, err := w.engine.ServicePlot(w.ctx, "shop", "error_rate")
	w.must(err)
	if b := view.BrokenOf(p); v.Triggers[0].Estimate != estimate || b.Estimate != estimate || b.Value != "54.19%" {
		t.Errorf("the incident says %q, the plot %q of %s", v.Triggers[0].Estimate, b.Estimate, b.Value)
	}
	if p, err = w.engine.ServicePlot(w.ctx, "shop", "latency"); err != nil || p.Estimate != "" {
		t.Errorf("without a confidence it says %q (%v)", p.Estimate, err)
	}
}
