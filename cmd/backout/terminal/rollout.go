package terminal

import (
	"fmt"
	"strings"
	"time"

	"github.com/locotoki/backout/remediation"
	"github.com/locotoki/backout/remediation/view"
)

// Rollout is a rollout for people.
func Rollout(r view.RolloutView, now time.Time, scr Screen) string {
	var b strings.Builder
	b.WriteString(Wrap("", fmt.Sprintf("%s: %s", r.Service, rolloutState(r))))
	if runs := r.RunsWords(now); runs != "" {
		b.WriteString(Hanging("  runs        ", runs))
	}
	if r.Started != nil {
		fmt.Fprintf(&b, "  started     %s\n", remediation.MomentFrom(now, *r.Started))
	}
	if r.StageSince != nil && r.Active() {
		fmt.Fprintf(&b, "  this stage  since %s\n", remediation.MomentFrom(now, *r.StageSince))
	}
	if p := r.Promotion; p != nil {
		b.WriteString(Wrap("  ", fmt.Sprintf("under way: the traffic is being set to %s, for stage %s, by %s", p.Value, p.To, p.By)))
	}
	if r.PromotableAt != nil {
		what := "next stage "
		if r.Next == "" && len(r.Gates) > 0 {
			what = "its end    "
		}
		fmt.Fprintf(&b, "  %s not before %s\n", what, remediation.MomentFrom(now, *r.PromotableAt))
	}
	if r.Auto {
		b.WriteString("  promoted    automatically, as soon as nothing is missing\n")
	}
	b.WriteString(criteriaText(r))
	b.WriteString(missingText(r))
	if len(r.Timeline) > 0 && r.Started != nil {
		b.WriteString("\n  Timeline (T is the day of the start)\n")
		for _, d := range r.Timeline {
			mark := " "
			if d.Date != "" && d.Date <= now.UTC().Format(time.DateOnly) {
				mark = "*"
			}
			fmt.Fprintf(&b, "  %s %-5s %-10s  %-38s %s\n", mark, scr.Cell(d.Day, 5), scr.Cell(d.Date, 10), scr.Cell(d.Activity, 38), scr.Cell(d.Owner, 18))
		}
	}
	return b.String()
}

// criteriaText is one line for each criterion of the stage.
func criteriaText(r view.RolloutView) string {
	var b strings.Builder
	for _, cr := range r.Criteria {
		word := "not met"
		if cr.OK {
			word = "met"
		}
		if cr.Value == nil {
			word = "no value"
		}
		bound := "bound"
		if cr.Bound != "" {
			bound = "must be " + cr.Bound
		}
		b.WriteString(Wrap("  ", fmt.Sprintf("%s: %s (value %s, %s %s)", cr.Words(), word, ValueOr(cr.Value, cr.Unit, "none"), bound, remediation.Measure(cr.Threshold, cr.Unit))))
	}
	return b.String()
}

// missingText says what is missing for the next stage, or for the rollout's end.
func missingText(r view.RolloutView) string {
	if len(r.Gates) == 0 {
		return ""
	}
	what := "stage " + r.Next
	if r.Next == "" {
		what = "its end"
	}
	var b strings.Builder
	for _, g := range r.Gates {
		if !g.OK {
			b.WriteString(Hanging("  - ", g.Why))
		}
	}
	if b.Len() == 0 {
		return Wrap("  ", "nothing is missing for "+what)
	}
	return Wrap("  ", "missing for "+what+":") + b.String()
}

// Hanging is wrap with a bullet before the first line.
func Hanging(mark, text string) string {
	indent := strings.Repeat(" ", len(mark))
	return mark + strings.TrimPrefix(Wrap(indent, text), indent)
}

func rolloutState(r view.RolloutView) string {
	held := ""
	if r.Held {
		held = ", held"
	}
	traffic := ""
	if r.Traffic != "" {
		traffic = fmt.Sprintf(" (%s of traffic)", remediation.Share(r.Traffic))
	}
	if r.BackingOut {
		return fmt.Sprintf("release %s is %s, to %s; its stage was %s%s", r.Release, r.StateWords(r.Rollout), orDash(r.Previous), r.Stage, traffic)
	}
	switch r.State {
	case remediation.RolloutNone:
		return "no rollout. Flags can be turned off; images and schemas are left alone"
	case remediation.RolloutActive:
		return fmt.Sprintf("release %s is being rolled out, stage %s%s%s; a rollback leads to %s", r.Release, r.Stage, traffic, held, orDash(r.Previous))
	case remediation.RolloutSoaking:
		return fmt.Sprintf("release %s is fully rolled out and soaking, stage %s%s%s; a rollback leads to %s", r.Release, r.Stage, traffic, held, orDash(r.Previous))
	}
	return fmt.Sprintf("release %s: %s%s", r.Release, r.StateWords(r.Rollout), r.StillRuns(r.Rollout))
}
