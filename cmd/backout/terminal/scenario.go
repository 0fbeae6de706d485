package terminal

import (
	"fmt"
	"strings"

	"github.com/prometheus/common/model"

	"github.com/locotoki/backout/remediation"
	"github.com/locotoki/backout/remediation/scenario"
)

// Scenarios is one line per scenario that passed, and the story of each other one; with
// stories, of each.
func Scenarios(results []*scenario.Result, stories bool, scr Screen) string {
	var b strings.Builder
	failed := 0
	for _, r := range results {
		b.WriteString(scenarioText(r, stories, scr))
		if !r.OK() {
			failed++
		}
	}
	all := remediation.Counted(len(results), "scenario")
	if failed > 0 {
		return b.String() + scr.paint(bad, fmt.Sprintf("%d of %s failed", failed, all)) + "\n"
	}
	return b.String() + scr.paint(good, all+" passed") + "\n"
}

// scenarioText is how one scenario went: one line if all was as expected, otherwise what
// was not, and what had happened until then.
func scenarioText(r *scenario.Result, story bool, scr Screen) string {
	var b strings.Builder
	mark := scr.paint(good, "ok  ")
	if !r.OK() {
		mark = scr.paint(bad, "FAIL")
	}
	fmt.Fprintf(&b, "%s  %s\n", mark, Clean(r.Name))
	until := model.Duration(0)
	for _, f := range r.Failures {
		fmt.Fprintf(&b, "\n  %s:%d: at %s\n", Clean(r.File), f.Line, f.At)
		b.WriteString(Hanging("    expected  ", f.Expected))
		b.WriteString(Hanging("    found     ", f.Found))
		if until = max(until, f.At); f.Later != nil {
			until = max(until, *f.Later)
			fmt.Fprintf(&b, "    It became so at %s.\n", *f.Later)
		}
	}
	if !r.OK() && !story {
		fmt.Fprintf(&b, "\n  What happened until %s\n", until)
	}
	if !r.OK() || story {
		if story {
			until = r.Length
		}
		b.WriteString(storyText(r.Story, until, scr) + "\n")
	}
	return b.String()
}

// storyText tells what happened until then, one moment per line.
func storyText(story []scenario.Moment, until model.Duration, scr Screen) string {
	var b strings.Builder
	last := ""
	for _, m := range story {
		if m.At > until {
			break
		}
		at := m.At.String()
		if at == last { // said once
			at = ""
		} else {
			last = at
		}
		text := m.Title
		if m.Actor != "" && m.Actor != remediation.ActorEngine && m.Actor != remediation.ActorAlertmanager {
			text += " by " + m.Actor
		}
		if m.Measured != "" {
			text += " (" + m.Measured + ")"
		}
		if m.Why != "" {
			text += ": " + m.Why
		}
		line := Hanging(fmt.Sprintf("  %8s  ", at), text)
		tones := map[string]tone{"bad": bad, "wait": attention, "good": good}
		b.WriteString(strings.Replace(line, m.Title, scr.paint(tones[m.Tone], m.Title), 1))
	}
	if len(story) == 0 {
		b.WriteString("            Nothing: no alert reached backout.\n")
	}
	return b.String()
}
