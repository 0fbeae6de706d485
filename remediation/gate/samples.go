package gate

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"sync"
	"time"

	"github.com/prometheus/common/model"

	"github.com/locotoki/backout/hint"
	"github.com/locotoki/backout/remediation"
	"github.com/locotoki/backout/remediation/plan"
)

// Samples is what the engine knows about an incident's triggers when it decides.
type Samples struct {
	// Values holds a reading for each attached trigger that has an expression.
	Values map[string]remediation.Sample
	// recovery tells which expressions gave the values. Own are then those of the triggers'
	// own expressions, where they were read with them.
	recovery bool
	Own      map[string]remediation.Sample
	// Blind says why no recovery reading can be trusted; "" where they can.
	Blind string
	// missing says what the service lacks, so that calm proves nothing; "" where
	// that is nothing. A breach is one all the same.
	missing string
	// quiet holds the triggers without a value whose events were counted: none.
	// thin says of others without a value why that proves nothing.
	quiet map[string]bool
	thin  map[string]string
	// Over holds the triggers that do not count, and why: they belong to another stage, and
	// were never confirmed in it.
	Over map[string]string
	// at is when the expressions were asked, every how long after that an answer of
	// the recovery expressions can be another, gap how long after it a row of polls ends.
	at    time.Time
	Every time.Duration
	gap   time.Duration
}

// leastGap is the least Samples.gap: a slow answer is none.
const leastGap = time.Minute

// ReadValues reads each attached trigger's own value.
func (e *Gates) ReadValues(ctx context.Context, b *plan.Plan, inc *remediation.Incident) (Samples, error) {
	over, err := e.stageOver(ctx, b, inc)
	if err != nil {
		return Samples{}, err
	}
	exprs := map[string]string{}
	for _, t := range inc.Triggers {
		if x, ok := b.Expr.Triggers[t.Trigger]; ok {
			exprs[t.Trigger] = x.Value
		}
	}
	return Samples{Values: e.Query(ctx, exprs), Over: over, at: e.Now()}, nil
}

// stageOver returns why attached triggers do not count: they belong to other stages
// than the incident's, and have not been confirmed in their own. What drains from
// their window then is about a stage that has passed, and their recovery value knows no
// stage. The stage of a rollout that the incident ended is the one it ended in.
func (e *Gates) stageOver(ctx context.Context, b *plan.Plan, inc *remediation.Incident) (over map[string]string, err error) {
	err = e.Store.View(ctx, func(tx remediation.Tx) error {
		r, err := remediation.RolloutOf(tx, inc.Service)
		if err != nil {
			return err
		}
		if inc.RolledBack != nil && (!r.Active() || r.Release != inc.Release) { // unless it was declared again
			r = *inc.RolledBack
		}
		over = map[string]string{}
		for _, t := range inc.Triggers {
			stages := b.Expr.Triggers[t.Trigger].Stages
			if len(stages) > 0 && !t.Confirmed && !slices.Contains(stages, r.Stage) {
				over[t.Trigger] = fmt.Sprintf("trigger %s applies in stage %s only, and the stage is %s", t.Trigger, remediation.Names(stages, ""), r.Stage)
			}
		}
		return nil
	})
	return over, err
}

// PollRecovery reads each attached trigger's recovery value, whether the service is
// alive and freshly scraped, and whether the targets that were up when the incident
// opened still are.
func (e *Gates) PollRecovery(ctx context.Context, b *plan.Plan, inc *remediation.Incident) (Samples, error) {
	over, err := e.stageOver(ctx, b, inc)
	if err != nil {
		return Samples{}, err
	}
	const age, alive, up, then, kept = "\x00age", "\x00alive", "\x00up", "\x00then", "\x00kept" // no trigger is named so
	service := map[string]string{
		age: b.Expr.Age, alive: b.Expr.Alive, up: b.Expr.Up, then: b.Expr.UpAt(inc.Opened), kept: b.Expr.KeptSince(inc.Opened),
	}
	exprs := maps.Clone(service)
	for _, t := range inc.Triggers {
		if x, ok := b.Expr.Triggers[t.Trigger]; ok {
			exprs[t.Trigger] = x.Recovery
		}
	}
	ev := Samples{recovery: true, Over: over, at: e.Now(), Every: b.Poll(), gap: max(remediation.Certain*b.Poll(), leastGap)}
	got := e.Query(ctx, exprs)
	ev.Values = got
	switch a, u := got[age], got[up]; {
	case a.Err != nil:
		ev.Blind = a.Err.Error()
	case u.Err != nil:
		ev.Blind = u.Err.Error()
	case a.Value == nil:
		ev.Blind = "Prometheus has no series " + b.Expr.Targets
	case *a.Value > 2*b.Poll().Seconds():
		ev.Blind = fmt.Sprintf("the newest scrape of job %s is %.0f s old", b.Job, *a.Value)
	case u.Value == nil || *u.Value < 1:
		ev.Blind = fmt.Sprintf("service %s is not alive: no target of job %s is up", b.Service, b.Job)
	default:
		ev.missing = shortfall(b, got[alive], got[then], got[kept], *u.Value)
	}
	for name := range service {
		delete(got, name)
	}
	if ev.Blind == "" {
		e.countEvents(ctx, b, inc, &ev)
	}
	return ev, nil
}

// shortfall says what a service with so many targets up lacks, "" for nothing.
func shortfall(b *plan.Plan, alive, then, kept remediation.Sample, up float64) string {
	for _, r := range []remediation.Sample{alive, then, kept} {
		if r.Err != nil {
			return r.Err.Error()
		}
	}
	if then.Value == nil {
		return "Prometheus has no samples of when the incident opened: which targets were up then is unknown"
	}
	was := *then.Value
	switch gone := was - min(valueOr(kept.Value, 0), up); {
	case gone == 1:
		return fmt.Sprintf("1 of %.0f targets is down", was)
	case gone > 1:
		return fmt.Sprintf("%.0f of %.0f targets are down", gone, was)
	case valueOr(alive.Value, 0) != 1:
		return fmt.Sprintf("service %s is not alive: its alive expression is false", b.Service)
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
func (e *Gates) countEvents(ctx context.Context, b *plan.Plan, inc *remediation.Incident, ev *Samples) {
	ev.quiet, ev.thin = map[string]bool{}, map[string]string{}
	exprs := map[string]string{}
	for _, t := range inc.Triggers {
		r, ok := ev.Values[t.Trigger]
		if !ok || r.Err != nil || r.Value != nil {
			continue
		}
		if exprs[t.Trigger] = b.Expr.Triggers[t.Trigger].Events; exprs[t.Trigger] == "" {
			delete(exprs, t.Trigger)
			ev.thin[t.Trigger] = hint.Text(fmt.Sprintf("trigger %s has no value, for an unknown reason", t.Trigger), "check that its exporter is up")
		}
	}
	for name, r := range e.Query(ctx, exprs) {
		switch {
		case r.Err != nil:
			ev.thin[name] = fmt.Sprintf("trigger %s: %v", name, r.Err)
		case r.Value == nil:
			ev.thin[name] = fmt.Sprintf("trigger %s has no value, and its exporter is down", name)
		case *r.Value > 0:
			ev.thin[name] = fmt.Sprintf("trigger %s has too few events to judge: %.3g in %s", name, *r.Value, remediation.Span(b.Expr.Triggers[name].RecoveryWindow))
		default:
			ev.quiet[name] = true
		}
	}
}

// Unknown says why the poll does not show whether a trigger is calm, "" if each is calm
// or breaching.
func (ev Samples) Unknown(inc *remediation.Incident) string {
	if ev.Blind != "" {
		return ev.Blind
	}
	for i := range inc.Triggers {
		t := &inc.Triggers[i]
		if r, ok := ev.Values[t.Trigger]; ok && ev.Over[t.Trigger] == "" && ev.Verdict(t) == remediation.Blind {
			if r.Err != nil {
				return fmt.Sprintf("trigger %s: %v", t.Trigger, r.Err)
			}
			if r.Value == nil && ev.thin[t.Trigger] != "" {
				return ev.thin[t.Trigger]
			}
			return ev.missing
		}
	}
	return ""
}

// Verdict is what the poll says about one trigger. A breach needs a fresh value; calm
// needs every expected sample.
func (ev Samples) Verdict(t *remediation.TriggerState) remediation.Verdict {
	switch r := ev.Values[t.Trigger]; {
	case ev.Blind != "" || r.Err != nil:
		return remediation.Blind
	case r.Value != nil && ev.exceeds(t, *r.Value):
		return remediation.Breaching
	case ev.missing != "" || r.Value == nil && !ev.quiet[t.Trigger]:
		return remediation.Blind
	case r.Value == nil:
		return remediation.Quiet
	}
	return remediation.Stopped
}

// Query sends all expressions together.
func (e *Gates) Query(ctx context.Context, exprs map[string]string) map[string]remediation.Sample {
	var mu sync.Mutex
	var wg sync.WaitGroup
	out := make(map[string]remediation.Sample, len(exprs))
	for name, expr := range exprs {
		wg.Add(1)
		go func() {
			defer wg.Done()
			v, ok, err := e.Prometheus.Query(ctx, expr)
			r := remediation.Sample{Err: err}
			if err == nil && ok {
				r.Value = &v
			}
			mu.Lock()
			out[name] = r
			mu.Unlock()
		}()
	}
	wg.Wait()
	return out
}

// Bound is the threshold for the poll's value of a trigger.
func (ev Samples) Bound(t *remediation.TriggerState) float64 {
	if ev.recovery && t.RecoveryThreshold != nil {
		return *t.RecoveryThreshold
	}
	return t.Threshold
}

func (ev Samples) exceeds(t *remediation.TriggerState, v float64) bool {
	return t.Outside(v, ev.Bound(t))
}

// Note stores the samples' values in the incident, for people to see.
func (ev Samples) Note(inc *remediation.Incident) {
	own := ev.Own
	if !ev.recovery {
		own = ev.Values
	}
	for i := range inc.Triggers {
		t := &inc.Triggers[i]
		if v := remediation.Finite(own[t.Trigger].Value); v != nil {
			t.See(*v)
		}
		if r, ok := ev.Values[t.Trigger]; ok {
			t.Unanswered = errors.Is(r.Err, remediation.ErrNoAnswer)
			if t.Value = remediation.Finite(r.Value); t.Value != nil {
				t.Observed = ev.at
			}
		}
	}
}

// Count takes a poll of the recovery expressions into the incident's counters. A
// poll that comes sooner than S after the one before, since an alert or a person
// made the engine look, sees the same samples: it can end a row, and not lengthen it.
// After a time without polls, as over a restart, the counting begins anew.
func (ev Samples) Count(inc *remediation.Incident) {
	ev.Note(inc)
	more := 1
	switch d := ev.at.Sub(inc.Polled); {
	case d >= 0 && d < ev.Every:
		more = 0
	case ev.gap > 0 && d > ev.gap:
		inc.ResetPolls()
		inc.SettlePolls, inc.SettleMore = 0, 0
		fallthrough
	default:
		inc.Polled = ev.at
	}
	for i := range inc.Triggers {
		t := &inc.Triggers[i]
		if _, ok := ev.Values[t.Trigger]; !ok {
			continue
		}
		t.Over = ev.Over[t.Trigger] != ""
		switch t.Verdict = ev.Verdict(t); {
		case t.Over && t.Verdict == remediation.Breaching:
			t.Breaching, t.Calm = 0, 0
		case t.Verdict == remediation.Breaching:
			t.Breaching, t.Calm = max(t.Breaching+more, 1), 0
		case t.Verdict == remediation.Blind:
			t.Breaching, t.Calm = 0, 0
		default:
			t.Breaching, t.Calm = 0, max(t.Calm+more, 1)
		}
	}
}

// Beyond returns a counted trigger whose sample exceeds its threshold, or nil.
func (ev Samples) Beyond(inc *remediation.Incident) *remediation.TriggerState {
	for i := range inc.Triggers {
		t := &inc.Triggers[i]
		if r := ev.Values[t.Trigger]; ev.Over[t.Trigger] == "" && r.Err == nil && r.Value != nil && ev.exceeds(t, *r.Value) {
			return t
		}
	}
	return nil
}

// Aside says why a trigger does not count, "" where each does.
func (ev Samples) Aside() string {
	for _, name := range slices.Sorted(maps.Keys(ev.Over)) {
		return ev.Over[name]
	}
	return ""
}

// OnlyAside is Aside where no trigger with an expression counts.
func (ev Samples) OnlyAside(inc *remediation.Incident) string {
	for _, t := range inc.Triggers {
		if t.Signal == "" && ev.Over[t.Trigger] == "" {
			return ""
		}
	}
	return ev.Aside()
}

// Failed returns an error of the readings: one that is an answer (a wrong
// query) before one that is none.
func (ev Samples) Failed() (err error) {
	for _, r := range ev.Values {
		if r.Err != nil && (err == nil || errors.Is(err, remediation.ErrNoAnswer)) {
			err = r.Err
		}
	}
	return err
}

// Silent returns the counted triggers without a value: that alone is neither breach nor
// calm.
func (ev Samples) Silent(inc *remediation.Incident) (out []*remediation.TriggerState) {
	for i := range inc.Triggers {
		t := &inc.Triggers[i]
		if r, ok := ev.Values[t.Trigger]; ok && ev.Over[t.Trigger] == "" && r.Err == nil && r.Value == nil {
			out = append(out, t)
		}
	}
	return out
}

// Empty reports whether no sample has a value.
func (ev Samples) Empty() bool {
	for _, r := range ev.Values {
		if r.Value != nil {
			return false
		}
	}
	return true
}

// Detail puts the evidence for trigger t into an audit entry's detail.
func (ev Samples) Detail(b *plan.Plan, t *remediation.TriggerState, d map[string]any) map[string]any {
	if t == nil {
		return d
	}
	d["trigger"] = t.Trigger
	d["threshold"] = remediation.Decimal(ev.Bound(t))
	x := b.Expr.Triggers[t.Trigger]
	if d["expr"] = x.Value; ev.recovery {
		d["expr"] = x.Recovery
	}
	if r := ev.Values[t.Trigger]; r.Value != nil {
		d["value"] = remediation.Decimal(*r.Value)
	}
	return d
}

// All puts the value of every trigger into an audit entry's detail.
func (ev Samples) All(inc *remediation.Incident, d map[string]any) map[string]any {
	rows := []any{}
	for _, t := range inc.Triggers {
		r, ok := ev.Values[t.Trigger]
		if !ok {
			continue
		}
		row := map[string]any{"trigger": t.Trigger, "threshold": remediation.Decimal(ev.Bound(&t))}
		if over := ev.Over[t.Trigger]; over != "" {
			row["why"] = over
		} else if ev.recovery {
			row["verdict"] = string(ev.Verdict(&t))
		}
		if r.Value != nil {
			row["value"] = remediation.Decimal(*r.Value)
		}
		if r.Err != nil {
			row["error"] = r.Err.Error()
		}
		rows = append(rows, row)
	}
	d["triggers"] = rows
	if why := ev.Unknown(inc); ev.recovery && why != "" {
		d["why"] = why
	}
	return d
}

// OwnSeries looks whether a metric of backout's own came back with its label service:
// stages and signals are rules' inputs. A target label of that name takes its place. It
// looks back as far as the rules do, so that a restart a moment ago is not a failure.
func (e *Gates) OwnSeries(ctx context.Context, metric string, b *plan.Plan) remediation.Result {
	service := b.Service
	count := func(label string) (bool, error) {
		_, ok, err := e.Prometheus.Query(ctx, fmt.Sprintf("count(last_over_time(%s{%s=%s}[%s]))", metric, label, strconv.Quote(service), model.Duration(b.Bridge())))
		return ok, err
	}
	has, err := count("service")
	if err != nil {
		return remediation.ResultOf(err)
	}
	if has {
		return remediation.Passed(fmt.Sprintf("%s of %s is present", metric, service))
	}
	if has, err = count("exported_service"); err == nil && has {
		return remediation.Failed(fmt.Sprintf("a target label service replaced backout's own: Prometheus has %s with exported_service=%q, which no rule reads", metric, service),
			"set honor_labels: true on the job that scrapes backout, and reload Prometheus")
	}
	return remediation.Failed(fmt.Sprintf("Prometheus has no %s of %s: no rule of a stage or a signal can fire", metric, service), "let Prometheus scrape backout's /metrics, with honor_labels: true; if its playbook was loaded a moment ago, ask again after a scrape")
}
