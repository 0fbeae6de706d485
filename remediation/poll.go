package remediation

import (
	"context"
	"errors"
	"fmt"
	"math"
	"strconv"
	"sync"
	"time"
)

// Verdict is what one poll says of one trigger.
type Verdict string

// The verdicts. A trigger has stopped, or is quiet, once calmPolls polls
// running say so; a single Breaching one is enough where a deadline asks.
const (
	Breaching Verdict = "breaching" // the recovery value is beyond the threshold
	Stopped   Verdict = "stopped"   // it is within the threshold
	Quiet     Verdict = "quiet"     // it has no value while the service is alive
	Blind     Verdict = "blind"     // no answer, stale samples, or the service is not alive
)

// polls in a row make a verdict certain.
const certain = 3

// reading is what Prometheus said of one expression: a value, nothing, or an error.
type reading struct {
	value *float64
	err   error
}

// evidence is what the engine knows of an incident's triggers when it decides.
type evidence struct {
	// values holds a reading for each attached trigger that has an expression.
	values map[string]reading
	// recovery tells which expressions gave the values.
	recovery bool
	// blind says why the recovery readings cannot be trusted; "" where they can.
	blind string
	// at is when the recovery expressions were asked, every how long after that
	// an answer can be another.
	at    time.Time
	every time.Duration
}

// readValues asks for each attached trigger's own value.
func (e *Engine) readValues(ctx context.Context, b *book, inc *Incident) evidence {
	exprs := map[string]string{}
	for _, t := range inc.Triggers {
		if x, ok := b.expr.Triggers[t.Trigger]; ok {
			exprs[t.Trigger] = x.Value
		}
	}
	return evidence{values: e.query(ctx, exprs)}
}

// pollRecovery asks for each attached trigger's recovery value, and whether
// the service is alive and freshly scraped.
func (e *Engine) pollRecovery(ctx context.Context, b *book, inc *Incident) evidence {
	const age, alive = "\x00age", "\x00alive" // no trigger is named so
	exprs := map[string]string{age: b.expr.Age, alive: b.expr.Alive}
	for _, t := range inc.Triggers {
		if x, ok := b.expr.Triggers[t.Trigger]; ok {
			exprs[t.Trigger] = x.Recovery
		}
	}
	ev := evidence{recovery: true, at: e.now(), every: b.poll()}
	got := e.query(ctx, exprs)
	ev.values = got
	switch a, up := got[age], got[alive]; {
	case a.err != nil:
		ev.blind = a.err.Error()
	case up.err != nil:
		ev.blind = up.err.Error()
	case a.value == nil:
		ev.blind = fmt.Sprintf("Prometheus has no up series for job %s", b.Job)
	case *a.value > 2*b.poll().Seconds():
		ev.blind = fmt.Sprintf("the newest scrape of job %s is %.0fs old", b.Job, *a.value)
	case up.value == nil || *up.value != 1:
		ev.blind = fmt.Sprintf("service %s is not alive", b.Service)
	}
	delete(got, age)
	delete(got, alive)
	if ev.blind == "" {
		for name, r := range got {
			if r.err != nil {
				ev.blind = fmt.Sprintf("trigger %s: %v", name, r.err)
			}
		}
	}
	return ev
}

// query asks all expressions at once.
func (e *Engine) query(ctx context.Context, exprs map[string]string) map[string]reading {
	var mu sync.Mutex
	var wg sync.WaitGroup
	out := make(map[string]reading, len(exprs))
	for name, expr := range exprs {
		wg.Add(1)
		go func() {
			defer wg.Done()
			v, ok, err := e.prometheus.Query(ctx, expr)
			r := reading{err: err}
			if err == nil && ok {
				r.value = &v
			}
			mu.Lock()
			out[name] = r
			mu.Unlock()
		}()
	}
	wg.Wait()
	return out
}

// beyond tells whether a value is beyond a trigger's threshold.
func (t *TriggerState) beyond(v float64) bool {
	if t.Above {
		return v > t.Threshold
	}
	return v < t.Threshold
}

// note keeps the readings' values in the incident, for people to see.
func (ev evidence) note(inc *Incident) {
	for i := range inc.Triggers {
		t := &inc.Triggers[i]
		if r, ok := ev.values[t.Trigger]; ok {
			t.Value = finite(r.value)
		}
	}
}

// finite leaves infinity out, which JSON does not have; the audit log holds it as text.
func finite(v *float64) *float64 {
	if v == nil || math.IsInf(*v, 0) {
		return nil
	}
	return v
}

// count takes a poll of the recovery expressions into the incident's counters. A
// poll that comes sooner than S after the one before, since an alert or a human
// made the engine look, sees the same samples: it can end a row, and not lengthen it.
func (ev evidence) count(inc *Incident) {
	ev.note(inc)
	more := 1
	if d := ev.at.Sub(inc.Polled); d >= 0 && d < ev.every {
		more = 0
	} else {
		inc.Polled = ev.at
	}
	for i := range inc.Triggers {
		t := &inc.Triggers[i]
		r, ok := ev.values[t.Trigger]
		if !ok {
			continue
		}
		switch {
		case ev.blind != "":
			t.Verdict, t.Breaching, t.Calm = Blind, 0, 0
		case r.value == nil:
			t.Verdict, t.Breaching, t.Calm = Quiet, 0, max(t.Calm+more, 1)
		case t.beyond(*r.value):
			t.Verdict, t.Breaching, t.Calm = Breaching, max(t.Breaching+more, 1), 0
		default:
			t.Verdict, t.Breaching, t.Calm = Stopped, 0, max(t.Calm+more, 1)
		}
	}
}

// resetPolls forgets the counters: what was polled before a step says nothing
// about what comes after it.
func (inc *Incident) resetPolls() {
	for i := range inc.Triggers {
		t := &inc.Triggers[i]
		t.Verdict, t.Breaching, t.Calm = "", 0, 0
	}
}

// calm tells whether every trigger with an expression has been stopped or
// quiet for long enough.
func (inc *Incident) calm() bool {
	n := 0
	for _, t := range inc.Triggers {
		if t.Signal != "" {
			continue
		}
		if t.Calm < certain {
			return false
		}
		n++
	}
	return n > 0
}

// breaching returns a trigger that was breaching in the last n polls, or nil.
func (inc *Incident) breaching(n int) *TriggerState {
	for i := range inc.Triggers {
		if inc.Triggers[i].Breaching >= n {
			return &inc.Triggers[i]
		}
	}
	return nil
}

// beyond returns a trigger whose reading is beyond its threshold, or nil.
func (ev evidence) beyond(inc *Incident) *TriggerState {
	for i := range inc.Triggers {
		t := &inc.Triggers[i]
		if r := ev.values[t.Trigger]; r.err == nil && r.value != nil && t.beyond(*r.value) {
			return t
		}
	}
	return nil
}

// failed returns an error of the readings: one that is an answer (a wrong
// query) before one that is none.
func (ev evidence) failed() (err error) {
	for _, r := range ev.values {
		if r.err != nil && (err == nil || errors.Is(err, ErrNoAnswer)) {
			err = r.err
		}
	}
	return err
}

// empty tells whether no reading has a value.
func (ev evidence) empty() bool {
	for _, r := range ev.values {
		if r.value != nil {
			return false
		}
	}
	return true
}

// detail puts the evidence for trigger t into an audit entry's detail.
func (ev evidence) detail(b *book, t *TriggerState, d map[string]any) map[string]any {
	if t == nil {
		return d
	}
	d["trigger"] = t.Trigger
	d["threshold"] = decimal(t.Threshold)
	x := b.expr.Triggers[t.Trigger]
	if d["expr"] = x.Value; ev.recovery {
		d["expr"] = x.Recovery
	}
	if r := ev.values[t.Trigger]; r.value != nil {
		d["value"] = decimal(*r.value)
	}
	return d
}

// all puts the value of every trigger into an audit entry's detail.
func (ev evidence) all(inc *Incident, d map[string]any) map[string]any {
	rows := []any{}
	for _, t := range inc.Triggers {
		r, ok := ev.values[t.Trigger]
		if !ok {
			continue
		}
		row := map[string]any{"trigger": t.Trigger, "threshold": decimal(t.Threshold)}
		if t.Verdict != "" {
			row["verdict"] = string(t.Verdict)
		}
		if r.value != nil {
			row["value"] = decimal(*r.value)
		}
		if r.err != nil {
			row["error"] = r.err.Error()
		}
		rows = append(rows, row)
	}
	d["triggers"] = rows
	if ev.blind != "" {
		d["why"] = ev.blind
	}
	return d
}

// decimal writes a measured value the way the audit log holds it.
func decimal(v float64) string { return strconv.FormatFloat(v, 'f', -1, 64) }
