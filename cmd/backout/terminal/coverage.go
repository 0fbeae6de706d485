package terminal

import (
	"fmt"
	"strings"

	"github.com/locotoki/backout/remediation"
	"github.com/locotoki/backout/rules"
)

// Covered is a line of the playbook and what implements it, in at most 80 columns.
func Covered(l rules.Covered) string {
	var b strings.Builder
	b.WriteString(Wrap("", l.Line))
	for _, part := range [][2]string{
		{"rule", l.Rule}, {"fires in", testName(l, l.Fires)}, {"silent in", silentText(l)},
		{"route", strings.Join(l.Route, ", ")}, {"plan", planText(l)}, {"rehearsed", rehearsedText(l)}, {"MISSING", strings.Join(l.Missing, ", ")},
	} {
		if part[1] != "" {
			text := strings.TrimLeft(Wrap("             ", part[1]), " ")
			fmt.Fprintf(&b, "  %-10s %s", part[0], text)
		}
	}
	return b.String()
}

// testName is a generated test's name without the rule's, which has its own column.
func testName(l rules.Covered, name string) string { return strings.TrimPrefix(name, l.Rule+": ") }

// silentText: one test often shows both sides of a threshold.
func silentText(l rules.Covered) string {
	if l.Silent != "" && l.Silent == l.Fires {
		return "the same"
	}
	return testName(l, l.Silent)
}

func planText(l rules.Covered) string {
	if l.Kind == "alert" {
		return "none, it only warns"
	}
	return l.Plan
}

func rehearsedText(l rules.Covered) string {
	switch {
	case l.Kind == "alert":
		return ""
	case l.RehearsalUnknown:
		return "not asked: --url or --storage.dsn reads it"
	case l.Rehearsed == nil:
		return "never"
	}
	return remediation.Moment(*l.Rehearsed)
}

// Coverage is the coverage in Markdown.
func Coverage(lines []rules.Covered) string {
	var b strings.Builder
	b.WriteString("\n| the playbook says | rule | fires in the test | silent in the test | goes to | plan | rehearsed |\n|---|---|---|---|---|---|---|\n")
	for _, l := range lines {
		plan, when := planText(l), rehearsedText(l)
		if l.Kind == "alert" {
			plan, when = "only warns", ""
		}
		cells := []string{l.Line, "`" + l.Rule + "`", testName(l, l.Fires), silentText(l), strings.Join(l.Route, ", "), plan, when}
		for i, c := range cells {
			cells[i] = strings.ReplaceAll(CleanLines(c), "|", `\|`)
		}
		fmt.Fprintf(&b, "| %s |\n", strings.Join(cells, " | "))
	}
	return b.String() + "\n"
}
