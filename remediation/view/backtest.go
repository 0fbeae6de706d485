package view

import (
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/prometheus/common/model"

	"github.com/locotoki/backout/alerts"
	"github.com/locotoki/backout/remediation"
)

// Backtest is what a playbook would have done over a past time.
type Backtest struct {
	Service string `json:"service"`
	Release string `json:"release"`
	// Playbook is the lower-case hex SHA-256 of the playbook's file.
	Playbook string    `json:"playbook"`
	Made     time.Time `json:"made"`
	From     time.Time `json:"from"`
	To       time.Time `json:"to"`
	// Step is the distance of two evaluations, as the rules have it.
	Step model.Duration `json:"step"`
	// Missing says what was asked for and is not here; "" where all of it is.
	Missing string `json:"missing"`
	// StagesFrom says where Stages come from.
	StagesFrom StagesFrom      `json:"stages_from"`
	Stages     []BacktestStage `json:"stages"`
	// Gaps are what Prometheus could not evaluate; they count as no data.
	Gaps      []BacktestGap      `json:"gaps"`
	Alerts    []BacktestAlert    `json:"alerts"`
	Incidents []BacktestIncident `json:"incidents"`
	// Verdict is one sentence for each alert, in their order: what to do first comes first.
	Verdict []string `json:"verdict"`
}

// StagesFrom is where a backtest's stages come from.
type StagesFrom string

// The sources of stages.
const (
	StagesRecorded StagesFrom = "recorded" // by backout's rollout_stage in Prometheus
	StagesGiven    StagesFrom = "given"    // one stage for all of the time
	StagesAssumed  StagesFrom = "assumed"  // a list of rollouts
	StagesUnknown  StagesFrom = "unknown"  // none of these: a stage's triggers are left out
)

// BacktestStage is a time that a rollout was in a stage.
type BacktestStage struct {
	Stage string    `json:"stage"`
	From  time.Time `json:"from"`
	To    time.Time `json:"to"`
}

// BacktestGap is a time at which an expression could not be evaluated.
type BacktestGap struct {
	// Of is the alert's name, rollout_stage, or the replay for what polls ask.
	Of   string    `json:"of"`
	From time.Time `json:"from"`
	// To is the first evaluation after it.
	To  time.Time `json:"to"`
	Why string    `json:"why"`
}

// BacktestAlert is one trigger or alert threshold.
type BacktestAlert struct {
	// Alert is its rule's name; Trigger is "" for an alert threshold, Indicator for a
	// signal.
	Alert     string         `json:"alert"`
	Trigger   string         `json:"trigger"`
	Indicator string         `json:"indicator"`
	Unit      alerts.Unit    `json:"unit"`
	Threshold float64        `json:"threshold"`
	Above     bool           `json:"above"`
	Window    model.Duration `json:"window"`
	MinVolume float64        `json:"min_volume"`
	// Stages are those in which it counts; none: all.
	Stages []string `json:"stages"`
	// Approximate says why its firings can lie up to one evaluation away from those of the
	// rules; "" where the same moments were evaluated alike.
	Approximate string `json:"approximate"`
	// Judged is for how long it counted, NoData for how much of that it had no value, and
	// Unanswered for how much of NoData Prometheus could not evaluate it. BelowVolume is how
	// much of NoData had fewer events than MinVolume; for a stage's trigger that is unknown,
	// and 0.
	Judged      model.Duration   `json:"judged"`
	NoData      model.Duration   `json:"no_data"`
	Unanswered  model.Duration   `json:"unanswered"`
	BelowVolume model.Duration   `json:"below_volume"`
	Firings     []BacktestFiring `json:"firings"`
	// Nearest is the value that came nearest to the threshold without firing, nil where
	// there was none.
	Nearest *BacktestValue `json:"nearest"`
	// Proposal is what would leave out the short firings, nil where nothing is proposed.
	Proposal *BacktestProposal `json:"proposal"`
	Verdict  string            `json:"verdict"`
	// Plot has the worst value of each part of the time.
	Plot Plot `json:"plot"`
}

// Name is the trigger's name, or the indicator's for an alert threshold.
func (a *BacktestAlert) Name() string {
	if a.Trigger != "" {
		return a.Trigger
	}
	return "alert of " + a.Indicator
}

// Blind reports that it had no value at any time, so it can protect nothing.
func (a *BacktestAlert) Blind() bool {
	return a.Indicator != "" && a.Judged > 0 && a.NoData == a.Judged
}

// SortAlerts puts first what to look at first: triggers that fired, then those without
// any value, then thresholds that warned; what did not fire comes last. Within these, the
// playbook's order is kept.
func SortAlerts(all []BacktestAlert) {
	rank := func(a BacktestAlert) int {
		switch {
		case a.Trigger != "" && len(a.Firings) > 0:
			return 0
		case a.Trigger != "" && a.Blind():
			return 1
		case len(a.Firings) > 0 || a.Blind():
			return 2
		case a.Trigger != "":
			return 3
		}
		return 4
	}
	slices.SortStableFunc(all, func(a, b BacktestAlert) int { return rank(a) - rank(b) })
}

// BacktestFiring is a time during which an alert would have fired.
type BacktestFiring struct {
	From time.Time `json:"from"`
	// To is its first evaluation that was not true, nil where it fired to the end.
	To     *time.Time     `json:"to"`
	Lasted model.Duration `json:"lasted"`
	// Worst is nil where that was infinite.
	Worst *float64 `json:"worst"`
	// Incident is what it would have opened or joined, "" for an alert threshold.
	Incident string `json:"incident"`
}

// BacktestValue is a value and its share of the threshold, in per cent; 100 is the
// threshold itself, on either side of it. Percent is nil for a threshold of 0.
type BacktestValue struct {
	Time    time.Time `json:"time"`
	Value   float64   `json:"value"`
	Percent *float64  `json:"percent"`
}

// PercentOf is a value's share of a threshold, as in BacktestValue.
func PercentOf(v, threshold float64, above bool) *float64 {
	p := v / threshold * 100
	if !above {
		p = threshold / v * 100
	}
	if math.IsNaN(p) || math.IsInf(p, 0) {
		return nil
	}
	return &p
}

// BacktestProposal is a change to a trigger or alert that leaves out its short firings.
// Each of the two does so alone; nil is one that the data does not support.
type BacktestProposal struct {
	// Short is how many firings were shorter than Below.
	Short     int            `json:"short"`
	Below     model.Duration `json:"below"`
	Threshold *float64       `json:"threshold"`
	// Left is how many firings the new threshold leaves.
	Left      int      `json:"left"`
	MinVolume *float64 `json:"min_volume"`
	// LeftByVolume is the same for the new volume.
	LeftByVolume int `json:"left_by_volume"`
}

// BacktestIncident is what backout would have done about the firings of one incident,
// if no step had changed anything. Its durations count from when it opened.
type BacktestIncident struct {
	ID       string     `json:"id"`
	Triggers []string   `json:"triggers"`
	Opened   time.Time  `json:"opened"`
	Closed   *time.Time `json:"closed"`
	// State is the last one that was replayed.
	State remediation.State `json:"state"`
	// Confirmed: the polls showed the breach, and the first step would have run.
	Confirmed bool           `json:"confirmed"`
	Steps     []BacktestStep `json:"steps"`
	Held      []BacktestHold `json:"held"`
	// Recovered is after how long the recovery expression first showed that the breach
	// had ended, Exhausted after how long no step was left; nil: never.
	Recovered *model.Duration `json:"recovered"`
	Exhausted *model.Duration `json:"exhausted"`
	// Reopened is how often it was reopened.
	Reopened int `json:"reopened"`
	// Words say all of this in a sentence.
	Words string `json:"words"`
}

// BacktestStep is a step that would have run, or whose approval would have been asked.
type BacktestStep struct {
	Step  string         `json:"step"`
	After model.Duration `json:"after"`
	// Asked: it waited for an approval that nobody gave.
	Asked bool `json:"asked"`
}

// BacktestHold is a gate that would have held a step.
type BacktestHold struct {
	Reason remediation.Reason `json:"reason"`
	Step   string             `json:"step"`
	After  model.Duration     `json:"after"`
	Why    string             `json:"why"`
}

// Describe says in a sentence what would have been done.
func (i *BacktestIncident) Describe() string {
	var said []string
	asked := map[string]bool{}
	for _, s := range i.Steps {
		if s.Asked && asked[s.Step] {
			continue // the polls in between made the question a new one
		}
		asked[s.Step] = s.Asked
		after := afterWords(s.After)
		switch {
		case s.Asked:
			said = append(said, fmt.Sprintf("would have asked for approval of %s %s", s.Step, after))
		default:
			said = append(said, fmt.Sprintf("would have run %s %s", s.Step, after))
		}
	}
	if !i.Confirmed {
		said = append(said, "no step would have run: the polls did not confirm the breach")
		for _, h := range i.Held {
			if h.Reason != remediation.HoldUnconfirmed && h.Reason != remediation.HoldNoData {
				said[len(said)-1] = "no step would have run"
			}
		}
	}
	for _, h := range i.Held {
		if h.Reason != remediation.HoldUnconfirmed && h.Reason != remediation.HoldApproval {
			words, _ := HoldWords(h.Reason)
			said = append(said, fmt.Sprintf("held %s: %s", afterWords(h.After), words))
		}
	}
	if i.Reopened > 0 {
		said = append(said, "reopened "+remediation.Counted(i.Reopened, "time"))
	}
	switch {
	case i.Recovered != nil:
		said = append(said, "ended by itself after "+remediation.Span(*i.Recovered))
	case i.Exhausted != nil:
		said = append(said, fmt.Sprintf("would have needed a person after %s: no step left", remediation.Span(*i.Exhausted)))
	case i.Closed != nil:
		said = append(said, "over after "+remediation.Span(i.Closed.Sub(i.Opened)))
	default:
		said = append(said, "not over at the end of the replay")
	}
	return strings.Join(said, "; ")
}

func afterWords(d model.Duration) string {
	if d == 0 {
		return "immediately"
	}
	return "after " + remediation.Span(d)
}

// Share writes a share of a threshold, in per cent.
func Share(p float64) string { return strconv.FormatFloat(math.Round(p*10)/10, 'f', -1, 64) + "%" }

// Rows are a backtest's alerts as a table, its head first.
func (b *Backtest) Rows() [][]string {
	rows := [][]string{{"alert", "fired", "longest", "nearest", "no data", "counted"}}
	for i := range b.Alerts {
		a := &b.Alerts[i]
		longest, nearest := "-", "-"
		var most model.Duration
		for _, f := range a.Firings {
			most = max(most, f.Lasted)
			longest = remediation.Span(most)
		}
		if a.Nearest != nil && a.Nearest.Percent != nil {
			nearest = Share(*a.Nearest.Percent)
		}
		rows = append(rows, []string{a.Name(), fmt.Sprint(len(a.Firings)), longest, nearest, spanOrDash(a.NoData), spanOrDash(a.Judged)})
	}
	return rows
}

func spanOrDash(d model.Duration) string {
	if d == 0 {
		return "-"
	}
	return remediation.Span(d)
}

// StagesWords says where the stages come from.
func (b *Backtest) StagesWords() string {
	words := map[StagesFrom]string{
		StagesRecorded: "The stages are those that Prometheus has recorded",
		StagesGiven:    "All of the time counts as the stage",
		StagesAssumed:  "The stages are those of --assume-rollouts",
		StagesUnknown:  "Prometheus has no rollout_stage of this time, so no trigger of a stage was judged, and a rollout counts as active",
	}[b.StagesFrom]
	if b.StagesFrom == StagesGiven && len(b.Stages) > 0 {
		return words + " " + b.Stages[0].Stage + "."
	}
	if n := len(b.Stages); n > 0 {
		words += fmt.Sprintf(": %s", remediation.Counted(n, "stay"))
	}
	return words + "."
}

// Bound is what the alert compares, in words.
func (a *BacktestAlert) Bound() string {
	if a.Indicator == "" {
		return "raised by a person"
	}
	side := "below"
	if a.Above {
		side = "above"
	}
	return fmt.Sprintf("%s %s over %s", side, remediation.Measure(a.Threshold, a.Unit), remediation.Span(a.Window))
}

// Miss is the nearest miss and its share of the bound, "" where there was none.
func (a *BacktestAlert) Miss() string {
	if a.Nearest == nil {
		return ""
	}
	value := remediation.Measure(a.Nearest.Value, a.Unit)
	if p := a.Nearest.Percent; p != nil {
		value += ", " + Share(*p) + " of the bound"
	}
	return value
}

// Note says how exact the firings' times are, "" where they are those of the rules.
func (a *BacktestAlert) Note() string {
	if a.Approximate == "" {
		return ""
	}
	return "each time is exact to one evaluation: " + a.Approximate
}

// WorstWords is a firing's worst value.
func (a *BacktestAlert) WorstWords(f BacktestFiring) string {
	if f.Worst == nil {
		return "infinite"
	}
	return remediation.Measure(*f.Worst, a.Unit)
}

// NoDataWords says for how long it had no value and why, "" where it always had one.
func (a *BacktestAlert) NoDataWords() string {
	if a.NoData == 0 {
		return ""
	}
	words := remediation.Span(a.NoData)
	if a.BelowVolume > 0 {
		words += fmt.Sprintf(" (%s of it below min_volume)", remediation.Span(a.BelowVolume))
	}
	return words
}
