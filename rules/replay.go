package rules

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/prometheus/prometheus/promql/parser"

	"github.com/locotoki/backout/alerts"
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
	return fmt.Sprintf("its recordings are computed as subqueries at multiples of %s, and the rules' own evaluations lie up to %s before or after those", duration(r.step), duration(r.step))
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
		b := alertBound(ind.Alert)
		made, err := indicatorRules(pb, ind)
		if err != nil {
			return nil, fmt.Errorf("indicator %s: %w", ind.Name, err)
		}
		q, err := queryOf(pb, ind.Name, b)
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
		q, err := queryOf(pb, t.Indicator, triggerBound(t))
		if err != nil {
			return nil, fmt.Errorf("trigger %s: %w", t.Name, err)
		}
		r, err := replayed(q, made)
		if err != nil {
			return nil, fmt.Errorf("trigger %s: %w", t.Name, err)
		}
		r.Trigger, r.Stages = t.Name, pb.StagesOf(t.Name)
		all = append(all, r)
	}
	return all, nil
}

// replayed takes apart the rules of one alert: the recording that it compares, the
// alert itself, and the recordings that the first one reads.
func replayed(q *query, made []rule) (Replayed, error) {
	r := Replayed{
		Indicator: q.Name, Unit: q.Unit, Threshold: q.threshold, Above: q.above, Window: q.span(), MinVolume: q.minVolume,
		gates: map[string]string{}, step: time.Duration(q.pb.ScrapeInterval),
	}
	for _, m := range made {
		switch {
		case m.Alert != "":
			r.Alert, r.For = m.Alert, time.Duration(m.For)
		case m.Record == triggerRecording || m.Record == indicatorRecording:
			r.value = m.Expr
		case m.Record != recoveryRecording:
			r.gates[m.Record] = m.Expr
		}
	}
	if r.MinVolume > 0 && len(r.Stages) == 0 { // a stage's guard counts within the stage
		var err error
		if r.Volume, err = q.events(time.Duration(q.window)); err != nil {
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
	back, err := lookback(r.value)
	if err != nil {
		return 0, err
	}
	var most time.Duration
	for _, text := range r.gates {
		d, err := lookback(text)
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
	parts := []string{fmt.Sprintf("0 * (%s == 1)", selectorOf(stageMetric, "service", pb.Service, "stage", "none"))}
	for i, s := range pb.Stages {
		parts = append(parts, fmt.Sprintf("%d * (%s == 1)", i+1, selectorOf(stageMetric, "service", pb.Service, "stage", s.Name)))
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
	expr, err := parse(text)
	if err != nil {
		return "", err
	}
	var edits []edit
	for _, s := range selectorsOf(expr) {
		with, err := in.selector(s, shift)
		if err != nil {
			return "", err
		}
		if with == "" {
			continue
		}
		at := s.vector.PositionRange()
		if s.matrix != nil {
			at = s.matrix.PositionRange()
		}
		edits = append(edits, edit{int(at.Start), int(at.End), with})
	}
	return apply(text, edits), nil
}

// selector returns what stands for one selector, "" where it stays.
func (in inliner) selector(s selector, shift time.Duration) (string, error) {
	offset := s.vector.OriginalOffset + shift
	text := ""
	switch gate, ok := in.gates[s.vector.Name]; {
	case s.vector.Name == stageRecording:
		return fmt.Sprintf("(%s)", in.present(offset)), nil
	case s.vector.Name == stageMetric && !in.recorded:
		text = in.share()
	case ok && s.matrix == nil:
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
		text = (&parser.VectorSelector{Name: s.vector.Name, LabelMatchers: s.vector.LabelMatchers}).String()
		if s.matrix != nil {
			text += fmt.Sprintf("[%s]", duration(s.matrix.Range))
		}
		return fmt.Sprintf("%s offset %s", text, duration(offset)), nil
	}
	over := in.step
	if s.matrix != nil {
		over = s.matrix.Range
	}
	text = fmt.Sprintf("(%s)[%s:%s]", text, duration(over), duration(in.step))
	if s.matrix != nil && offset != 0 {
		text += " offset " + duration(offset)
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
