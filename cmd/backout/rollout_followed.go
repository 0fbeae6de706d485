package main

import (
	"fmt"
	"slices"
	"strings"
	"time"

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

// follow is what was seen of one stage of one rollout.
type follow struct {
	followed
	began time.Time
	// view is the rollout when last seen; looks counts those at the stage itself.
	view     view.RolloutView
	looks    int
	entered  *time.Time // when the stage began
	criteria []*followedCriterion
	holds    []*followedHold
	// lastText is what was lacking when the stage was last seen.
	lastText string
	// told is what the last line was about.
	told   string
	toldAt time.Time
	// end is how the following ended, nil while it continues.
	end error
}

// followedCriterion is one criterion over all polls.
type followedCriterion struct {
	Name      string   `json:"name"`
	Bound     string   `json:"bound,omitempty"`
	Threshold float64  `json:"threshold"`
	Worst     *float64 `json:"worst"`
	Last      *float64 `json:"last"`
	OK        bool     `json:"ok"`
	// Looks counts how often it was asked, Unmet how often it was not met, NoValue
	// how often it had no value.
	Looks   int `json:"looks"`
	Unmet   int `json:"unmet"`
	NoValue int `json:"no_value"`
}

// followedHold is a gate that was seen closed.
type followedHold struct {
	Gate string `json:"gate"`
	// Why is what it said last, between Since, when it was first seen shut, and
	// Until, when it was last seen so. Times counts how often it shut.
	Why   string    `json:"why"`
	Since time.Time `json:"since"`
	Until time.Time `json:"until"`
	Times int       `json:"times"`
	Shut  bool      `json:"shut"`
}

func (b *follow) watching() bool { return b.view.Service != "" }

// see records one poll.
func (b *follow) see(r view.RolloutView, now time.Time) {
	if b.stage == "" && active(r) {
		b.stage = r.Stage
	}
	b.service, b.view = r.Service, r
	if r.Stage != b.stage || !active(r) {
		return
	}
	b.looks++
	b.entered = r.StageSince
	for _, cr := range r.Criteria {
		b.criterion(cr)
	}
	for _, h := range b.holds {
		if !slices.ContainsFunc(r.Gates, func(g remediation.StageGate) bool { return !g.OK && g.Gate == h.Gate }) {
			h.Shut = false
		}
	}
	for _, g := range r.Gates {
		if !g.OK && g.Gate != gateDuration && g.Gate != gateMode && !strings.HasPrefix(g.Gate, gateCriterion) {
			b.hold(g, now)
		}
	}
}

func (b *follow) criterion(cr view.CriterionView) {
	i := slices.IndexFunc(b.criteria, func(x *followedCriterion) bool { return x.Name == cr.Name && x.Bound == cr.Bound })
	if i < 0 {
		i = len(b.criteria)
		b.criteria = append(b.criteria, &followedCriterion{Name: cr.Name, Bound: cr.Bound})
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

func (b *follow) hold(g remediation.StageGate, now time.Time) {
	i := slices.IndexFunc(b.holds, func(h *followedHold) bool { return h.Gate == g.Gate })
	if i < 0 {
		i = len(b.holds)
		b.holds = append(b.holds, &followedHold{Gate: g.Gate, Since: now.UTC()})
	}
	h := b.holds[i]
	if !h.Shut {
		h.Times++
	}
	h.Shut, h.Why, h.Until = true, g.Why, now.UTC()
}

// lacking says what the stage still lacks, "" if nothing.
func (b *follow) lacking(now time.Time) string {
	r, complete := b.view, true
	left := "it has lasted"
	var bad, shut []string
	for _, cr := range r.Criteria {
		if !cr.OK {
			bad = append(bad, fmt.Sprintf("%s %s", cr.Name, terminal.ValueOr(cr.Value, "has no value")))
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
				left = fmt.Sprintf("%s left, until %s", strings.TrimPrefix(terminal.Distance(now, *r.PromotableAt), "in "), terminal.Moment(*r.PromotableAt))
			}
		case strings.HasPrefix(g.Gate, gateCriterion):
			complete = false
		default:
			complete = false
			shut = append(shut, fmt.Sprintf("%s (%s)", g.Gate, g.Why))
		}
	}
	if len(r.Gates) == 0 { // the server could not ask them
		complete = false
		shut = append(shut, "all, since the server does not report its gates")
	}
	if complete {
		b.lastText = ""
		return ""
	}
	b.lastText = left + "; " + met
	if len(shut) > 0 {
		b.lastText += "; shut: " + strings.Join(shut, "; ")
	}
	return b.lastText
}

// gist is a line without the parts that change with time alone.
func (b *follow) gist() string {
	r := b.view
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
func (b *follow) next(result string) string {
	r := b.view
	observes := slices.ContainsFunc(r.Gates, func(g remediation.StageGate) bool { return g.Gate == gateMode && !g.OK })
	switch {
	case r.Incident != "":
		return "backout incident show " + r.Incident
	case result != resultPassed || r.Stage != b.stage || !active(r):
		return "backout rollout status"
	case r.Next == "":
		return "backout rollout finish"
	case observes:
		return fmt.Sprintf("backout only observes: set the traffic of stage %s by hand, then run backout rollout start --declare --stage=%s", r.Next, r.Next)
	case r.Auto:
		return fmt.Sprintf("nothing: it is promoted to stage %s automatically", r.Next)
	}
	return "backout rollout promote, to stage " + r.Next
}

// bakeResult is the last line of --follow in JSON.
type bakeResult struct {
	Result   string               `json:"result"`
	Why      string               `json:"why"`
	Service  string               `json:"service"`
	Release  string               `json:"release"`
	Stage    string               `json:"stage"`
	Entered  *time.Time           `json:"stage_since"`
	From     time.Time            `json:"watched_from"`
	To       time.Time            `json:"watched_until"`
	Looks    int                  `json:"looks"`
	Criteria []*followedCriterion `json:"criteria"`
	Holds    []*followedHold      `json:"holds"`
	Next     string               `json:"next"`
}

// summary says what was seen of the stage, and what comes next.
func (c *commands) summary(b *follow, result, text string) error {
	now := c.now().UTC()
	if b.output == outputJSON {
		return c.printJSONLine(bakeResult{
			Result: result, Why: text, Service: b.service, Release: b.named(), Stage: b.stage, Entered: b.entered, From: b.began.UTC(), To: now, Looks: b.looks,
			Criteria: append([]*followedCriterion{}, b.criteria...), Holds: append([]*followedHold{}, b.holds...), Next: b.next(result),
		})
	}
	var s strings.Builder
	s.WriteString("\n" + terminal.Wrap("", fmt.Sprintf("%s %s: %s", b.service, b.named(), text)))
	if b.looks > 0 && b.entered != nil {
		fmt.Fprintf(&s, "  stage       %s, since %s (%s)\n", c.screen().Cell(b.stage, 20), terminal.Moment(*b.entered), terminal.Distance(now, *b.entered))
	}
	fmt.Fprintf(&s, "  watched     %s to %s UTC\n", terminal.MomentShort(b.began), terminal.MomentShort(now))
	for _, x := range b.criteria {
		s.WriteString(terminal.Hanging("  criterion   ", x.text()))
	}
	for _, h := range b.holds {
		s.WriteString(terminal.Hanging("  hold        ", h.text()))
	}
	if b.looks > 0 && len(b.holds) == 0 {
		s.WriteString("  holds       none seen\n")
	}
	s.WriteString(terminal.Hanging("  then        ", b.next(result)))
	return c.print(s.String())
}

// named is the release that is watched, or the requested one.
func (b *follow) named() string {
	if b.release != "" {
		return b.release
	}
	return b.view.Release
}

func (x *followedCriterion) text() string {
	word := "not met"
	if x.OK {
		word = "met"
	}
	text := fmt.Sprintf("%s: %s; worst %s, last %s, must be %s %s", x.Name, word,
		terminal.ValueOr(x.Worst, "none"), terminal.ValueOr(x.Last, "none"), x.Bound, terminal.Number(x.Threshold))
	if x.NoValue > 0 {
		text += fmt.Sprintf("; no value in %d of %d polls", x.NoValue, x.Looks)
	}
	if n := x.Unmet - x.NoValue; n > 0 {
		text += fmt.Sprintf("; beyond it in %d of %d", n, x.Looks)
	}
	return text
}

func (h *followedHold) text() string {
	text := fmt.Sprintf("%s, %s to %s UTC", h.Gate, terminal.MomentShort(h.Since), terminal.MomentShort(h.Until))
	if h.Times > 1 {
		text += fmt.Sprintf(", %d times", h.Times)
	}
	if h.Shut {
		text += ", still"
	}
	return text + ": " + h.Why
}
