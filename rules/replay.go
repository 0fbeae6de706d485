package rules

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/prometheus/prometheus/promql/parser"

	"github.com/locotoki/backout/alerts"
	"github.com/locotoki/backout/rules/query"
)

// StageCarried is for how long a stage is known after the last scrape of backout.
const StageCarried = stageCarried

// Stay is a time that a rollout was in one stage; To is not part of it.
type Stay struct {
	Stage    string
	From, To time.Time
}

// Replayed is an alert of a playbook, as range queries over past data evaluate it: no
// recording of the playbook's rules needs to exist.
type Replayed struct {
	// Alert is the rule's name.
	Alert string
	// Trigger is "" for an alert threshold, Indicator for a signal.
	Trigger, Indicator string
	Unit               alerts.Unit
	// The alert fires where its value is above Threshold (or below it if not Above).
	Threshold float64
	Above     bool
	// Buckets are the bounds between which the value is an interpolation; none: unknown.
	Buckets []float64
	// For is how long it must be true before it fires.
	For time.Duration
	// Window is how far the value looks back.
	Window time.Duration
	// MinVolume is its volume guard, 0 where it has none; Volume is the expression of how
	// many events the window had before that guard, "" where nobody knows.
	MinVolume float64
	Volume    string
	// Stages are those in which it counts; none: all.
	Stages []string

	value string
	// gates are the recordings that value reads, by name.
	gates map[string]string
	step  time.Duration
}

// Approximate says why values can differ from those of the rules, by up to one
// evaluation; "" where they are the same at the same moment.
func (r *Replayed) Approximate() string {
	if len(r.gates) == 0 {
		return ""
	}
	return fmt.Sprintf("its recordings are computed as subqueries at multiples of %s, and the rules' own evaluations lie up to %s before or after those", query.Duration(r.step), query.Duration(r.step))
}

// Replay returns the alerts of a playbook: the alert thresholds, then the triggers.
// Guards and success criteria are not among them.
func Replay(pb *alerts.Playbook) ([]Replayed, error) {
	var all []Replayed
	for i := range pb.Indicators {
		ind := &pb.Indicators[i]
		if ind.Alert == nil {
			continue
		}
		b := query.OfAlert(ind.Alert)
		made, err := indicatorRules(pb, ind)
		if err != nil {
			return nil, fmt.Errorf("indicator %s: %w", ind.Name, err)
		}
		q, err := query.Of(pb, ind.Name, b)
		if err != nil {
			return nil, fmt.Errorf("indicator %s: %w", ind.Name, err)
		}
		r, err := replayed(q, made)
		if err != nil {
			return nil, fmt.Errorf("indicator %s: %w", ind.Name, err)
		}
		all = append(all, r)
	}
	for i := range pb.Triggers {
		t := &pb.Triggers[i]
		made, err := triggerRules(pb, t)
		if err != nil {
			return nil, err
		}
		if t.Signal != "" {
			value, _, _ := strings.Cut(made[0].Expr, " == ")
			all = append(all, Replayed{Alert: made[0].Alert, Trigger: t.Name, Above: true, For: time.Duration(made[0].For), Window: pb.Bridge(), value: value})
			continue
		}
		q, err := query.Of(pb, t.Indicator, query.OfTrigger(t))
		if err != nil {
			return nil, fmt.Errorf("trigger %s: %w", t.Name, err)
		}
		r, err := replayed(q, made)
		if err != nil {
			return nil, fmt.Errorf("trigger %s: %w", t.Name, err)
		}
		r.Trigger, r.Stages = t.Name, pb.StagesOf(t.Name)
		if len(r.Stages) > 0 {
			r.Volume = "" // a stage's guard counts within the stage
		}
		all = append(all, r)
	}
	return all, nil
}

// replayed takes apart the rules of one alert: the recording that it compares, the
// alert itself, and the recordings that the first one reads.
func replayed(q *query.Query, made []rule) (Replayed, error) {
	r := Replayed{
		Indicator: q.Name, Unit: q.Unit, Threshold: q.Threshold, Above: q.Above, Buckets: q.Buckets, Window: q.Span(), MinVolume: q.MinVolume,
		gates: map[string]string{}, step: time.Duration(q.Playbook.ScrapeInterval),
	}
	for _, m := range made {
		switch {
		case m.Alert != "":
			r.Alert, r.For = m.Alert, time.Duration(m.For)
		case m.Record == query.TriggerRecording || m.Record == indicatorRecording:
			r.value = m.Expr
		case m.Record != recoveryRecording:
			r.gates[m.Record] = m.Expr
		}
	}
	if r.MinVolume > 0 {
		var err error
		if r.Volume, err = q.Events(time.Duration(q.Window)); err != nil {
			return Replayed{}, err
		}
	}
	return r, nil
}

// Value is the expression that is compared with the threshold, for a range query from
// one moment to another. recorded tells that Prometheus has rollout_stage of that time;
// else stays stand for it.
func (r *Replayed) Value(from, to time.Time, stays []Stay, recorded bool) (string, error) {
	if len(r.Stages) == 0 {
		return r.value, nil
	}
	back, err := r.reach()
	if err != nil {
		return "", err
	}
	in := inliner{gates: r.gates, step: r.step, recorded: recorded}
	for _, s := range stays {
		if !slices.Contains(r.Stages, s.Stage) || !s.From.Before(to) || !s.To.After(from.Add(-back)) {
			continue
		}
		// What lies outside makes no difference, and would make every query another one.
		in.on = append(in.on, [2]int64{max(s.From.Unix(), from.Add(-back).Unix()), min(s.To.Unix(), to.Unix()+1)})
	}
	if len(in.on) == 0 {
		return "", nil
	}
	return in.inline(r.value, 0)
}

// reach is how far the value looks back, through its recordings.
func (r *Replayed) reach() (time.Duration, error) {
	back, err := query.Lookback(r.value)
	if err != nil {
		return 0, err
	}
	var most time.Duration
	for _, text := range r.gates {
		d, err := query.Lookback(text)
		if err != nil {
			return 0, err
		}
		most = max(most, d)
	}
	return back + most, nil
}

// StageIndex is the expression of the recorded stage's number: 0 for none, then the
// playbook's stages from 1; no value while backout is not scraped.
func StageIndex(pb *alerts.Playbook) string {
	parts := []string{fmt.Sprintf("0 * (%s == 1)", query.SelectorOf(stageMetric, "service", pb.Service, "stage", "none"))}
	for i, s := range pb.Stages {
		parts = append(parts, fmt.Sprintf("%d * (%s == 1)", i+1, query.SelectorOf(stageMetric, "service", pb.Service, "stage", s.Name)))
	}
	return fmt.Sprintf("max(%s)", strings.Join(parts, " or "))
}

// inliner replaces recordings by what they are computed from.
type inliner struct {
	gates    map[string]string
	step     time.Duration
	recorded bool
	// on are the times in the stage, in seconds.
	on [][2]int64
}

// inline returns text without recordings, as it was shift ago.
func (in inliner) inline(text string, shift time.Duration) (string, error) {
	expr, err := query.Parse(text)
	if err != nil {
		return "", err
	}
	var edits []query.Edit
	for _, s := range query.SelectorsOf(expr) {
		with, err := in.selector(s, shift)
		if err != nil {
			return "", err
		}
		if with == "" {
			continue
		}
		at := s.Vector.PositionRange()
		if s.Matrix != nil {
			at = s.Matrix.PositionRange()
		}
		edits = append(edits, query.Edit{Start: int(at.Start), End: int(at.End), With: with})
	}
	return query.Apply(text, edits), nil
}

// selector returns what stands for one selector, "" where it stays.
func (in inliner) selector(s query.Selector, shift time.Duration) (string, error) {
	offset := s.Vector.OriginalOffset + shift
	text := ""
	switch gate, ok := in.gates[s.Vector.Name]; {
	case s.Vector.Name == stageRecording:
		return fmt.Sprintf("(%s)", in.present(offset)), nil
	case s.Vector.Name == stageMetric && !in.recorded:
		text = in.share()
	case ok && s.Matrix == nil:
		inner, err := in.inline(gate, offset)
		return fmt.Sprintf("(%s)", inner), err
	case ok:
		inner, err := in.inline(gate, 0)
		if err != nil {
			return "", err
		}
		text = inner
	case shift == 0:
		return "", nil
	default:
		text = (&parser.VectorSelector{Name: s.Vector.Name, LabelMatchers: s.Vector.LabelMatchers}).String()
		if s.Matrix != nil {
			text += fmt.Sprintf("[%s]", query.Duration(s.Matrix.Range))
		}
		return fmt.Sprintf("%s offset %s", text, query.Duration(offset)), nil
	}
	over := in.step
	if s.Matrix != nil {
		over = s.Matrix.Range
	}
	text = fmt.Sprintf("(%s)[%s:%s]", text, query.Duration(over), query.Duration(in.step))
	if s.Matrix != nil && offset != 0 {
		text += " offset " + query.Duration(offset)
	}
	return text, nil
}

// present has a value while the stage was on, shift ago.
func (in inliner) present(shift time.Duration) string {
	parts := make([]string, len(in.on))
	for i, t := range in.on {
		d := int64(shift / time.Second)
		parts[i] = fmt.Sprintf("vector(time()) >= %d < %d", t[0]+d, t[1]+d)
	}
	return strings.Join(parts, " or ")
}

// share is 1 while the stage was on, and 0 else.
func (in inliner) share() string {
	parts := make([]string, len(in.on))
	for i, t := range in.on {
		parts[i] = fmt.Sprintf("(vector(time()) >= bool %d) * (vector(time()) < bool %d)", t[0], t[1])
	}
	return strings.Join(parts, " + ")
}

// Key is the same for alerts whose values are.
func (r *Replayed) Key() string {
	if len(r.Stages) == 0 {
		return r.value
	}
	return r.Alert
}
