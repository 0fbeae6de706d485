package remediation

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"math"
	"slices"
	"strconv"
	"sync"
	"time"

	"github.com/prometheus/common/model"
)

// Verdict is what one poll says of one trigger.
type Verdict string

// The verdicts. A trigger has stopped, or is quiet, once calmPolls polls
// running say so; a single Breaching one is enough where a deadline asks.
const (
	Breaching Verdict = "breaching" // the recovery value is beyond the threshold
	Stopped   Verdict = "stopped"   // it is within the threshold
	Quiet     Verdict = "quiet"     // it has no value, since there were no events to judge
	Blind     Verdict = "blind"     // no answer, stale samples, or calm that a target is missing from
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
	// blind says why no recovery reading can be trusted; "" where they can.
	blind string
	// missing says what the service lacks, so that calm proves nothing; "" where
	// that is nothing. A breach is one all the same.
	missing string
	// quiet holds the triggers without a value whose events were counted: none.
	// thin says of others without a value why that proves nothing.
	quiet map[string]bool
	thin  map[string]string
	// over holds the triggers that no longer count: their stage is over, and they
	// were never confirmed in it.
	over map[string]string
	// at is when the recovery expressions were asked, every how long after that
	// an answer can be another.
	at    time.Time
	every time.Duration
}

// readValues asks for each attached trigger's own value.
func (e *Engine) readValues(ctx context.Context, b *book, inc *Incident) (evidence, error) {
	over, err := e.stageOver(ctx, b, inc)
	if err != nil {
		return evidence{}, err
	}
	exprs := map[string]string{}
	for _, t := range inc.Triggers {
		if x, ok := b.expr.Triggers[t.Trigger]; ok {
			exprs[t.Trigger] = x.Value
		}
	}
	return evidence{values: e.query(ctx, exprs), over: over}, nil
}

// stageOver returns why attached triggers do not count: they belong to other stages
// than the present one, and have not been confirmed in their own. What drains from
// their window then is about a stage that has passed.
func (e *Engine) stageOver(ctx context.Context, b *book, inc *Incident) (over map[string]string, err error) {
	err = e.store.View(ctx, func(tx Tx) error {
		r, err := rolloutOf(tx, inc.Service)
		if err != nil {
			return err
		}
		over = map[string]string{}
		for _, t := range inc.Triggers {
			stages := b.expr.Triggers[t.Trigger].Stages
			if len(stages) > 0 && !t.Confirmed && !inc.Ran && !slices.Contains(stages, r.Stage) {
				over[t.Trigger] = fmt.Sprintf("trigger %s counts in stage %s only, and the stage is %s", t.Trigger, names(stages, ""), r.Stage)
			}
		}
		return nil
	})
	return over, err
}

// pollRecovery asks for each attached trigger's recovery value, whether the
// service is alive and freshly scraped, and whether the targets are there that
// were up when the incident opened.
func (e *Engine) pollRecovery(ctx context.Context, b *book, inc *Incident) evidence {
	const age, alive, up, then, kept = "\x00age", "\x00alive", "\x00up", "\x00then", "\x00kept" // no trigger is named so
	service := map[string]string{
		age: b.expr.Age, alive: b.expr.Alive, up: b.expr.Up, then: b.expr.UpAt(inc.Opened), kept: b.expr.KeptSince(inc.Opened),
	}
	exprs := maps.Clone(service)
	for _, t := range inc.Triggers {
		if x, ok := b.expr.Triggers[t.Trigger]; ok {
			exprs[t.Trigger] = x.Recovery
		}
	}
	ev := evidence{recovery: true, at: e.now(), every: b.poll()}
	got := e.query(ctx, exprs)
	ev.values = got
	switch a, u := got[age], got[up]; {
	case a.err != nil:
		ev.blind = a.err.Error()
	case u.err != nil:
		ev.blind = u.err.Error()
	case a.value == nil:
		ev.blind = fmt.Sprintf("Prometheus has no up series for job %s", b.Job)
	case *a.value > 2*b.poll().Seconds():
		ev.blind = fmt.Sprintf("the newest scrape of job %s is %.0fs old", b.Job, *a.value)
	case u.value == nil || *u.value < 1:
		ev.blind = fmt.Sprintf("service %s is not alive: no target of job %s is up", b.Service, b.Job)
	default:
		ev.missing = shortfall(b, got[alive], got[then], got[kept], *u.value)
	}
	for name := range service {
		delete(got, name)
	}
	if ev.blind == "" {
		e.countEvents(ctx, b, inc, &ev)
	}
	return ev
}

// shortfall says what a service with so many targets up lacks, "" for nothing.
func shortfall(b *book, alive, then, kept reading, up float64) string {
	for _, r := range []reading{alive, then, kept} {
		if r.err != nil {
			return r.err.Error()
		}
	}
	if then.value == nil {
		return "Prometheus has no samples of when the incident opened: which targets were up then is not known"
	}
	was := *then.value
	switch gone := was - min(valueOr(kept.value, 0), up); {
	case gone == 1:
		return fmt.Sprintf("1 of %.0f targets is down", was)
	case gone > 1:
		return fmt.Sprintf("%.0f of %.0f targets are down", gone, was)
	case valueOr(alive.value, 0) != 1:
		return fmt.Sprintf("service %s is not alive: its alive expression says no", b.Service)
	}
	return ""
}

func valueOr(v *float64, other float64) float64 {
	if v == nil {
		return other
	}
	return *v
}

// countEvents tells silence from ignorance, for the triggers without a value: quiet
// are those of which Prometheus knows that there were no events to judge.
func (e *Engine) countEvents(ctx context.Context, b *book, inc *Incident, ev *evidence) {
	ev.quiet, ev.thin = map[string]bool{}, map[string]string{}
	exprs := map[string]string{}
	for _, t := range inc.Triggers {
		r, ok := ev.values[t.Trigger]
		if !ok || r.err != nil || r.value != nil {
			continue
		}
		if exprs[t.Trigger] = b.expr.Triggers[t.Trigger].Events; exprs[t.Trigger] == "" {
			delete(exprs, t.Trigger)
			ev.thin[t.Trigger] = fmt.Sprintf("trigger %s has no value, and nobody knows why: is what exports it up?", t.Trigger)
		}
	}
	for name, r := range e.query(ctx, exprs) {
		switch {
		case r.err != nil:
			ev.thin[name] = fmt.Sprintf("trigger %s: %v", name, r.err)
		case r.value == nil:
			ev.thin[name] = fmt.Sprintf("trigger %s has no value, and what exports it is not up", name)
		case *r.value > 0:
			ev.thin[name] = fmt.Sprintf("trigger %s has too few events to judge: %.3g in %s", name, *r.value, model.Duration(b.expr.Triggers[name].RecoveryWindow))
		default:
			ev.quiet[name] = true
		}
	}
}

// unknown says why the poll leaves it open whether a trigger is calm, "" where
// each of them is calm or breaching.
func (ev evidence) unknown(inc *Incident) string {
	if ev.blind != "" {
		return ev.blind
	}
	for i := range inc.Triggers {
		t := &inc.Triggers[i]
		if r, ok := ev.values[t.Trigger]; ok && ev.verdict(t) == Blind {
			if r.err != nil {
				return fmt.Sprintf("trigger %s: %v", t.Trigger, r.err)
			}
			if r.value == nil && ev.thin[t.Trigger] != "" {
				return ev.thin[t.Trigger]
			}
			return ev.missing
		}
	}
	return ""
}

// verdict is what the poll says of one trigger. A breach needs a fresh value; calm
// needs all that was there to be seen.
func (ev evidence) verdict(t *TriggerState) Verdict {
	switch r := ev.values[t.Trigger]; {
	case ev.blind != "" || r.err != nil:
		return Blind
	case r.value != nil && ev.exceeds(t, *r.value):
		return Breaching
	case ev.missing != "" || r.value == nil && !ev.quiet[t.Trigger]:
		return Blind
	case r.value == nil:
		return Quiet
	}
	return Stopped
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
func (t *TriggerState) beyond(v float64) bool { return t.outside(v, t.Threshold) }

func (t *TriggerState) outside(v, bound float64) bool {
	if t.Above {
		return v > bound
	}
	return v < bound
}

// bound is what the poll's value of a trigger is compared with.
func (ev evidence) bound(t *TriggerState) float64 {
	if ev.recovery && t.RecoveryThreshold != nil {
		return *t.RecoveryThreshold
	}
	return t.Threshold
}

func (ev evidence) exceeds(t *TriggerState, v float64) bool { return t.outside(v, ev.bound(t)) }

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
		if _, ok := ev.values[t.Trigger]; !ok {
			continue
		}
		switch t.Verdict = ev.verdict(t); t.Verdict {
		case Breaching:
			t.Breaching, t.Calm = max(t.Breaching+more, 1), 0
		case Blind:
			t.Breaching, t.Calm = 0, 0
		default:
			t.Breaching, t.Calm = 0, max(t.Calm+more, 1)
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

// beyond returns a trigger that counts whose reading is beyond its threshold, or nil.
func (ev evidence) beyond(inc *Incident) *TriggerState {
	for i := range inc.Triggers {
		t := &inc.Triggers[i]
		if r := ev.values[t.Trigger]; ev.over[t.Trigger] == "" && r.err == nil && r.value != nil && ev.exceeds(t, *r.value) {
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

// silent returns the triggers that count and whose reading has no value: that alone
// says neither breach nor calm.
func (ev evidence) silent(inc *Incident) (out []*TriggerState) {
	for i := range inc.Triggers {
		t := &inc.Triggers[i]
		if r, ok := ev.values[t.Trigger]; ok && ev.over[t.Trigger] == "" && r.err == nil && r.value == nil {
			out = append(out, t)
		}
	}
	return out
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
	d["threshold"] = decimal(ev.bound(t))
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
		row := map[string]any{"trigger": t.Trigger, "threshold": decimal(ev.bound(&t))}
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
	if why := ev.unknown(inc); ev.recovery && why != "" {
		d["why"] = why
	}
	return d
}

// decimal writes a measured value the way the audit log holds it.
func decimal(v float64) string { return strconv.FormatFloat(v, 'f', -1, 64) }
