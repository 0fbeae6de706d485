// Package follow is what `backout rollout status --follow` saw of one stage, poll by poll:
// whether it still lacks something, how it ended, and the summary. cmd/backout polls,
// prints and decides on the exit status.
package follow

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/locotoki/backout/alerts"
	"github.com/locotoki/backout/cmd/backout/terminal"
	"github.com/locotoki/backout/remediation"
	"github.com/locotoki/backout/remediation/view"
)

// The gates that --follow handles itself: the first two are reported with the criteria
// and the time left. The mode says what backout may change, not how the stage does: in
// observe mode, people set the traffic.
const (
	gateDuration  = "duration"
	gateCriterion = "criterion "
	gateMode      = "mode"
)

// Stage is what was seen of one stage of one rollout.
type Stage struct {
	Options
	Began time.Time
	// View is the rollout when last seen; Looks counts those at the stage itself.
	View     view.RolloutView
	Looks    int
	Entered  *time.Time // when the stage began
	criteria []*FollowedCriterion
	holds    []*FollowedHold
	// LastText is what was lacking when the stage was last seen.
	LastText string
	// Told is what the last line was about.
	Told   string
	ToldAt time.Time
	// End is how the following ended, nil while it continues.
	End error
}

// FollowedCriterion is one criterion over all polls.
type FollowedCriterion struct {
	Name      string   `json:"name"`
	Bound     string   `json:"bound,omitempty"`
	Threshold float64  `json:"threshold"`
	Worst     *float64 `json:"worst"`
	Last      *float64 `json:"last"`
	OK        bool     `json:"ok"`
	// Unit is the indicator's, "" where Name is none's.
	Unit alerts.Unit `json:"unit,omitempty"`
	// Looks counts how often it was asked, Unmet how often it was not met, NoValue
	// how often it had no value.
	Looks   int `json:"looks"`
	Unmet   int `json:"unmet"`
	NoValue int `json:"no_value"`
}

// FollowedHold is a gate that was seen closed.
type FollowedHold struct {
	Gate string `json:"gate"`
	// Why is what it said last, between Since, when it was first seen closed, and
	// Until, when it was last seen so. Times counts how often it closed.
	Why    string    `json:"why"`
	Since  time.Time `json:"since"`
	Until  time.Time `json:"until"`
	Times  int       `json:"times"`
	Closed bool      `json:"shut"`
}

// Watching reports whether a rollout is followed.
func (b *Stage) Watching() bool { return b.View.Service != "" }

// See records one poll.
func (b *Stage) See(r view.RolloutView, now time.Time) {
	if b.Stage == "" && active(r) {
		b.Stage = r.Stage
	}
	b.Service, b.View = r.Service, r
	if r.Stage != b.Stage || !active(r) {
		return
	}
	b.Looks++
	b.Entered = r.StageSince
	for _, cr := range r.Criteria {
		b.criterion(cr)
	}
	for _, h := range b.holds {
		if !slices.ContainsFunc(r.Gates, func(g remediation.GateResult) bool { return !g.OK && g.Gate == h.Gate }) {
			h.Closed = false
		}
	}
	for _, g := range r.Gates {
		if !g.OK && g.Gate != gateDuration && g.Gate != gateMode && !strings.HasPrefix(g.Gate, gateCriterion) {
			b.hold(g, now)
		}
	}
}

func (b *Stage) criterion(cr view.CriterionView) {
	i := slices.IndexFunc(b.criteria, func(x *FollowedCriterion) bool { return x.Name == cr.Name && x.Bound == cr.Bound })
	if i < 0 {
		i = len(b.criteria)
		b.criteria = append(b.criteria, &FollowedCriterion{Name: cr.Name, Bound: cr.Bound, Unit: cr.Unit})
	}
	x := b.criteria[i]
	x.Threshold, x.Last, x.OK = cr.Threshold, cr.Value, cr.OK
	x.Looks++
	if !cr.OK {
		x.Unmet++
	}
	switch {
	case cr.Value == nil:
		x.NoValue++
	case x.Worst == nil || cr.Bound == "above" && *cr.Value < *x.Worst || cr.Bound != "above" && *cr.Value > *x.Worst:
		x.Worst = cr.Value
	}
}

func (b *Stage) hold(g remediation.GateResult, now time.Time) {
	i := slices.IndexFunc(b.holds, func(h *FollowedHold) bool { return h.Gate == g.Gate })
	if i < 0 {
		i = len(b.holds)
		b.holds = append(b.holds, &FollowedHold{Gate: g.Gate, Since: now.UTC()})
	}
	h := b.holds[i]
	if !h.Closed {
		h.Times++
	}
	h.Closed, h.Why, h.Until = true, g.Why, now.UTC()
}

// Lacking says what the stage still lacks, "" if nothing.
func (b *Stage) Lacking(now time.Time) string {
	r, complete := b.View, true
	left := "it has lasted"
	var bad, closed []string
	for _, cr := range r.Criteria {
		if !cr.OK {
			bad = append(bad, fmt.Sprintf("%s %s", cr.Name, terminal.ValueOr(cr.Value, cr.Unit, "has no value")))
		}
	}
	met := fmt.Sprintf("%d of %d criteria met", len(r.Criteria)-len(bad), len(r.Criteria))
	if len(bad) > 0 {
		complete = false
		met += " (not: " + strings.Join(bad, ", ") + ")"
	}
	for _, g := range r.Gates {
		switch {
		case g.OK || g.Gate == gateMode:
		case g.Gate == gateDuration:
			complete, left = false, g.Why
			if r.PromotableAt != nil && r.PromotableAt.After(now) {
				left = fmt.Sprintf("%s left, until %s", strings.TrimPrefix(remediation.Distance(now, *r.PromotableAt), "in "), remediation.Moment(*r.PromotableAt))
			}
		case strings.HasPrefix(g.Gate, gateCriterion):
			complete = false
		default:
			complete = false
			closed = append(closed, fmt.Sprintf("%s (%s)", g.Gate, g.Why))
		}
	}
	if len(r.Gates) == 0 { // the server could not ask them
		complete = false
		closed = append(closed, "all, since the server does not report its gates")
	}
	if complete {
		b.LastText = ""
		return ""
	}
	b.LastText = left + "; " + met
	if len(closed) > 0 {
		b.LastText += "; closed: " + strings.Join(closed, "; ")
	}
	return b.LastText
}

// Gist is a line without the parts that change with time alone.
func (b *Stage) Gist() string {
	r := b.View
	what := fmt.Sprint(r.State, r.Stage, r.Held, r.Promotion != nil)
	for _, cr := range r.Criteria {
		what += fmt.Sprint(cr.Name, cr.OK, cr.Value == nil)
	}
	for _, g := range r.Gates {
		what += fmt.Sprint(g.Gate, g.OK)
	}
	return what
}

// next is what to do after a result.
func (b *Stage) next(result string) string {
	r := b.View
	observes := slices.ContainsFunc(r.Gates, func(g remediation.GateResult) bool { return g.Gate == gateMode && !g.OK })
	switch {
	case r.Incident != "":
		return "backout incident show " + r.Incident
	case result != ResultPassed || r.Stage != b.Stage || !active(r):
		return "backout rollout status"
	case r.Next == "":
		return "backout rollout finish --service=" + r.Service
	case observes:
		return fmt.Sprintf("backout only observes: set the traffic of stage %s by hand, then run %s", r.Next, alerts.DeclareCommand(r.Service, r.Next))
	case r.Auto:
		return fmt.Sprintf("nothing: it is promoted to stage %s automatically", r.Next)
	}
	return "backout rollout promote --service=" + r.Service + ", to stage " + r.Next
}

// Summary is the last line of --follow in JSON.
type Summary struct {
	Result   string               `json:"result"`
	Why      string               `json:"why"`
	Service  string               `json:"service"`
	Release  string               `json:"release"`
	Stage    string               `json:"stage"`
	Entered  *time.Time           `json:"stage_since"`
	From     time.Time            `json:"watched_from"`
	To       time.Time            `json:"watched_until"`
	Looks    int                  `json:"looks"`
	Criteria []*FollowedCriterion `json:"criteria"`
	Holds    []*FollowedHold      `json:"holds"`
	Next     string               `json:"next"`
}

// Summary says what was seen of the stage, and what comes next.
func (b *Stage) Summary(result, why string, now time.Time) Summary {
	return Summary{
		Result: result, Why: why, Service: b.Service, Release: b.named(), Stage: b.Stage, Entered: b.Entered, From: b.Began.UTC(), To: now.UTC(), Looks: b.Looks,
		Criteria: append([]*FollowedCriterion{}, b.criteria...), Holds: append([]*FollowedHold{}, b.holds...), Next: b.next(result),
	}
}

// Text is the summary for people.
func (r Summary) Text(screen terminal.Screen) string {
	var s strings.Builder
	s.WriteString("\n" + terminal.Wrap("", fmt.Sprintf("%s %s: %s", r.Service, r.Release, r.Why)))
	if r.Looks > 0 && r.Entered != nil {
		fmt.Fprintf(&s, "  stage       %s, since %s\n", screen.Cell(r.Stage, 20), remediation.MomentFrom(r.To, *r.Entered))
	}
	fmt.Fprintf(&s, "  watched     %s to %s UTC\n", terminal.MomentShort(r.From), terminal.MomentShort(r.To))
	for _, x := range r.Criteria {
		s.WriteString(terminal.Hanging("  criterion   ", x.text()))
	}
	for _, h := range r.Holds {
		s.WriteString(terminal.Hanging("  hold        ", h.text()))
	}
	if r.Looks > 0 && len(r.Holds) == 0 {
		s.WriteString("  holds       none seen\n")
	}
	s.WriteString(terminal.Hanging("  then        ", r.Next))
	return s.String()
}

// named is the release that is watched, or the requested one.
func (b *Stage) named() string {
	if b.Release != "" {
		return b.Release
	}
	return b.View.Release
}

func (x *FollowedCriterion) text() string {
	word := "not met"
	if x.OK {
		word = "met"
	}
	text := fmt.Sprintf("%s: %s; worst %s, last %s, must be %s %s", x.Name, word,
		terminal.ValueOr(x.Worst, x.Unit, "none"), terminal.ValueOr(x.Last, x.Unit, "none"), x.Bound, remediation.Measure(x.Threshold, x.Unit))
	if x.NoValue > 0 {
		text += fmt.Sprintf("; no value in %d of %d polls", x.NoValue, x.Looks)
	}
	if n := x.Unmet - x.NoValue; n > 0 {
		text += fmt.Sprintf("; beyond it in %d of %d", n, x.Looks)
	}
	return text
}

func (h *FollowedHold) text() string {
	text := fmt.Sprintf("%s, %s to %s UTC", h.Gate, terminal.MomentShort(h.Since), terminal.MomentShort(h.Until))
	if h.Times > 1 {
		text += fmt.Sprintf(", %d times", h.Times)
	}
	if h.Closed {
		text += ", still"
	}
	return text + ": " + h.Why
}

// Options says which stage to watch, and for how long at most.
type Options struct {
	Service, Stage, Release string
	// Timeout is 0 if there is none.
	Timeout time.Duration
	Output  string
}

// The results of --follow, as in its last line of JSON.
const (
	ResultPassed  = "passed"
	ResultFailed  = "failed"
	ResultTimeout = "timeout"
	ResultStopped = "stopped"
)

// StageWords is a stage as people read it.
func StageWords(stage string) string {
	if stage == "" {
		return "the stage"
	}
	return "stage " + stage
}

// Lost says why a stage cannot be watched, or not any more; "" if it can. A pipeline
// does not wait for a rollout that was over before, unless it names the release.
func (b *Stage) Lost(r view.RolloutView) string {
	state := strings.ReplaceAll(r.State, "_", " ")
	going := active(r) || r.State == remediation.RolloutDone
	switch {
	case b.Watching() && r.Release != b.View.Release:
		return fmt.Sprintf("release %s of %s replaced %s, which you watched: it is %s", r.Release, r.Service, b.View.Release, state)
	case b.Watching() && going && !same(r.Started, b.View.Started):
		return fmt.Sprintf("the rollout of %s %s was started again: the one you watched is over", r.Service, r.Release)
	case b.Watching() && !going:
		return fmt.Sprintf("release %s of %s is %s", r.Release, r.Service, state)
	case r.State == remediation.RolloutNone:
		return fmt.Sprintf("no rollout of %s is active", r.Service)
	case b.Release != "" && r.Release != b.Release:
		return fmt.Sprintf("release %s of %s is not being rolled out: %s is %s", b.Release, r.Service, r.Release, state)
	case !going || r.State == remediation.RolloutDone && b.Release == "" && !b.Watching():
		return fmt.Sprintf("no rollout of %s is active: release %s is %s", r.Service, r.Release, state)
	case active(r) && r.Incident != "":
		return fmt.Sprintf("incident %s of %s is open: backout incident show %s", r.Incident, r.Service, r.Incident)
	}
	return ""
}

func active(r view.RolloutView) bool {
	return r.State == remediation.RolloutActive || r.State == remediation.RolloutSoaking
}

func same(a, b *time.Time) bool {
	return a == nil && b == nil || a != nil && b != nil && a.Equal(*b)
}

// Passed reports whether a rollout has left a stage.
func Passed(stage string, r view.RolloutView) bool {
	return r.State == remediation.RolloutDone || slices.Index(r.Stages, stage) < slices.Index(r.Stages, r.Stage)
}

// Where says at which point a rollout is.
func Where(r view.RolloutView) string {
	if r.State == remediation.RolloutDone {
		return "done"
	}
	return "in stage " + r.Stage
}

// Left says how a stage was left.
func (b *Stage) Left(r view.RolloutView) string {
	text := fmt.Sprintf("%s is over: the rollout is %s", StageWords(b.Stage), Where(r))
	switch {
	case b.Looks == 0:
		text += "; none of it was seen"
	case b.LastText != "":
		text += "; when the stage was last seen, " + b.LastText
	}
	return text
}
