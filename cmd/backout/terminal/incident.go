package terminal

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/locotoki/backout/alerts"
	"github.com/locotoki/backout/remediation"
	"github.com/locotoki/backout/remediation/view"
)

// Incidents is a list of incidents for people.
func Incidents(list []view.IncidentView, scr Screen) string {
	if len(list) == 0 {
		return "No incidents.\n"
	}
	rows := [][]string{{"INCIDENT", "SERVICE", "STATE", "OPENED (UTC)", "TRIGGERS"}}
	tones := map[[2]int]tone{}
	for _, inc := range list {
		state := string(inc.State)
		if inc.Reason != "" {
			state += ", " + string(inc.Reason)
		}
		if inc.Drill {
			state = "drill, " + state
		}
		tones[[2]int{len(rows), 2}] = stateTone(inc.State)
		rows = append(rows, []string{
			scr.Cell(inc.ID, 10), scr.Cell(inc.Service, 12), scr.Cell(state, 18), MomentShort(inc.Opened), scr.Cell(inc.Cause(), 13),
		})
	}
	return table(rows, scr, tones) + "\nDetails: backout incident show ID\n"
}

// Incident is one incident for a person at night: what happened, what it
// means, what was done, what comes next, how to stop it.
func Incident(inc view.IncidentView, now time.Time, scr Screen) string {
	var b strings.Builder
	fmt.Fprintf(&b, "Incident %s", Clean(inc.ID))
	if inc.Drill {
		b.WriteString(" (a drill: nothing is applied)")
	}
	b.WriteString("\n\n")
	line := func(name, format string, args ...any) { incidentLine(&b, name, format, args...) }
	line("service", "%s, release %s", inc.Service, orDash(inc.Rollout))
	line("state", "%s: %s", inc.State, meaning(inc))
	if runs := inc.RunsWords(now); runs != "" {
		line("runs", "%s", runs)
	}
	state := b.String()
	b.Reset()
	word := Clean(string(inc.State))
	b.WriteString(strings.Replace(state, "state     "+word, "state     "+scr.paint(stateTone(inc.State), word), 1))
	holdText(&b, inc, now)
	if inc.ClaimedBy != "" {
		line("claimed", "by %s: %s", inc.ClaimedBy, inc.ClaimWords())
	}
	line("opened", "%s", remediation.MomentFrom(now, inc.Opened))
	if k := inc.IncidentCall; k != nil && inc.Closed == nil {
		if k.URL != "" {
			line("call", "severity %d: join the incident call", k.Severity)
			fmt.Fprintf(&b, "            %s\n", Clean(k.URL)) // whole, to be opened
		} else {
			line("call", "severity %d: start an incident call", k.Severity)
		}
	}
	if inc.Closed != nil {
		line("closed", "%s", remediation.MomentFrom(now, *inc.Closed))
	}
	triggersText(&b, inc)
	stepsText(&b, inc, now, scr)
	if inc.State != remediation.Closed {
		b.WriteString(handsText(inc))
	}
	return b.String()
}

func incidentLine(b *strings.Builder, name, format string, args ...any) {
	text := Wrap(strings.Repeat(" ", 12), fmt.Sprintf(format, args...))
	fmt.Fprintf(b, "  %-10s%s", name, strings.TrimPrefix(text, strings.Repeat(" ", 12)))
}

// holdText says why no step runs, and until when.
func holdText(b *strings.Builder, inc view.IncidentView, now time.Time) {
	if inc.Reason != "" {
		why := string(inc.Reason)
		if inc.Why != "" {
			why += ": " + inc.Why
		}
		incidentLine(b, "why", "%s", why)
	}
	if inc.Until != nil {
		incidentLine(b, "until", "%s", remediation.MomentFrom(now, *inc.Until))
	}
}

// Approved says what an approval does, over a limit if over is not "", and how to watch the
// step: the incident in the answer is as it was before the step could run.
func Approved(inc view.IncidentView, step, over string) string {
	asks, lossy, loses := false, false, ""
	for _, s := range inc.Steps {
		if s.ID == step {
			asks, lossy = s.NeedsApproval, s.Risk == alerts.Lossy.String()
			loses = s.Loses
		}
	}
	text := fmt.Sprintf("Approved %s of %s", inc.StepName(step), inc.ID)
	switch {
	case over != "":
		text += " over " + over
	case loses != "":
		text += ", which can lose " + loses
	case lossy:
		text += ", which can lose data"
	}
	watch := "To watch it:\n  backout incident show " + Clean(inc.ID) + " --follow\n"
	if over != "" && asks {
		return Wrap("", text+". If nothing else holds it, it then asks for its own approval.") + watch
	}
	return Wrap("", text+". If nothing else holds it, it runs within seconds.") + watch
}

// AbortHeld says that an abort's order has rolled nothing back yet, since something holds it;
// "" if a step has run or nothing holds it.
func AbortHeld(inc view.IncidentView, now time.Time) string {
	if inc.State != remediation.Waiting || slices.ContainsFunc(inc.Steps, func(s view.StepView) bool { return s.Started != nil && !s.Tells }) {
		return ""
	}
	text := "The abort is on hold: nothing was rolled back yet: " + cmp.Or(inc.Why, string(inc.Reason))
	if inc.Until != nil {
		text += ", until " + remediation.MomentFrom(now, *inc.Until)
	}
	if inc.OverLimit == "" {
		return Wrap("", text) + "\n"
	}
	return Wrap("", text+". To let it run over the limit:") +
		"  " + remediation.OverCommand(Clean(inc.ID), Clean(inc.OverLimit), Clean(inc.OverGate)) + "\n\n"
}

// Outlook is an incident's state, what holds it, and what comes next.
func Outlook(inc view.IncidentView, now time.Time) string {
	var b strings.Builder
	incidentLine(&b, "incident", "%s", inc.ID)
	incidentLine(&b, "state", "%s: %s", inc.State, meaning(inc))
	holdText(&b, inc, now)
	nextText(&b, inc, now)
	return b.String()
}

// maxTriggers is how many alerts are listed, so that a flood does not hide the rest.
const maxTriggers = 10

func triggersText(b *strings.Builder, inc view.IncidentView) {
	b.WriteString("\nWhat fired\n")
	for i, t := range inc.Triggers {
		if i == maxTriggers {
			fmt.Fprintf(b, "  and %d more; --output=json lists them\n", len(inc.Triggers)-i)
			return
		}
		state := "resolved"
		if t.Active {
			state = "firing"
		}
		if t.Signal != "" {
			b.WriteString(Wrap("  ", fmt.Sprintf("%s: %s, raised by a person: signal %s", t.Trigger, state, t.Signal)))
			continue
		}
		if t.Worst != nil {
			state += ", worst value seen " + remediation.Measure(*t.Worst, t.Unit)
		}
		last := "none"
		if t.Value != nil {
			last = remediation.Estimated(remediation.Measure(*t.Value, t.Unit), t.Estimate)
		}
		b.WriteString(Wrap("  ", fmt.Sprintf("%s: %s, last value %s, threshold %s", t.Trigger, state, last, remediation.Measure(t.Threshold, t.Unit))))
	}
	switch {
	case inc.Ordered():
		b.WriteString(Wrap("  ", "nothing: the rollback was "+inc.Cause()))
	case len(inc.Triggers) == 0:
		b.WriteString("  no longer known\n")
	}
}

func stepsText(b *strings.Builder, inc view.IncidentView, now time.Time, scr Screen) {
	b.WriteString("\nSteps\n")
	for _, s := range inc.Steps {
		when := ""
		switch {
		case s.Started != nil && s.Finished != nil:
			when = fmt.Sprintf("%s to %s UTC", s.Started.UTC().Format("15:04:05"), s.Finished.UTC().Format("15:04:05"))
		case s.Started != nil:
			when = "since " + s.Started.UTC().Format("15:04:05") + " UTC"
		}
		state := scr.Cell(inc.StateOf(s), 10)
		pad := strings.Repeat(" ", max(10-Width(state), 0))
		text := fmt.Sprintf("  %-20s  %s%s  %-10s  %s", scr.Cell(s.ID, 20), scr.paint(stepTone(s), state), pad, scr.Cell(s.Risk, 10), when)
		b.WriteString(strings.TrimRight(text, " ") + "\n" + Wrap("      ", s.Target))
		if inc.MayBeInPlace(s) {
			b.WriteString(Wrap("      ", "its change may be in place: look at the target"))
		}
		if s.Changed != nil {
			b.WriteString(Wrap("      ", "changed outside backout since "+remediation.MomentFrom(now, *s.Changed)))
		}
		if words := s.LostWords(); words != "" {
			b.WriteString(Wrap("      ", words))
		}
		for _, way := range s.WaysBack() { // a command stays on one line, to be copied
			b.WriteString(Wrap("      ", way.Does) + "        " + Clean(way.Command) + "\n")
		}
		if words := s.ExpectedWords(); words != "" {
			b.WriteString(Wrap("      ", words))
		}
		if s.Loses != "" && !inc.Asks(s) { // what asks says it at the question
			b.WriteString(Wrap("      ", "can lose "+s.Loses))
		}
	}
	if len(inc.Steps) == 0 {
		b.WriteString("  no steps yet\n")
	}
	if len(inc.Would) > 0 {
		b.WriteString("\nWhat backout would do with --mode=act\n")
		for _, w := range inc.Would {
			b.WriteString(Hanging("  - ", w))
		}
	}
	nextText(b, inc, now)
}

// nextText says what comes next, and what would stop it.
func nextText(b *strings.Builder, inc view.IncidentView, now time.Time) {
	b.WriteString("\n")
	switch {
	case inc.State == remediation.Closed:
		b.WriteString("Next: nothing. The incident is closed.\n")
	case inc.Next == nil && inc.Stuck != "":
		b.WriteString(Wrap("", fmt.Sprintf("Next: %s again, %s.", inc.Stuck, inc.Again())))
	case inc.Next == nil:
		b.WriteString("Next: nothing. No step is left.\n")
	case inc.Next.At != nil && inc.Next.At.After(now):
		b.WriteString(Wrap("", fmt.Sprintf("Next: %s, not before %s: %s.",
			inc.StepName(inc.Next.Step), remediation.MomentFrom(now, *inc.Next.At), inc.Next.What)))
	default:
		b.WriteString(Wrap("", fmt.Sprintf("Next: %s: %s.", inc.StepName(inc.Next.Step), inc.Next.What)))
	}
	if inc.Next != nil {
		for i, u := range inc.Next.Unless {
			word := "unless"
			if i > 0 {
				word = "or"
			}
			b.WriteString(Wrap("  ", word+" "+u))
		}
	}
}

// handsText is what a person can do now, as commands to copy.
func handsText(inc view.IncidentView) string {
	var b strings.Builder
	command := func(what, command string) { fmt.Fprintf(&b, "  %s:\n    %s\n", what, command) }
	id, service := Clean(inc.ID), Clean(inc.Service)
	if inc.State == remediation.Waiting && inc.Reason == remediation.HoldApproval && inc.Next != nil {
		b.WriteString("\nIt needs an approval\n")
		step := Clean(inc.Next.Step)
		for _, s := range inc.Steps {
			if inc.Asks(s) {
				b.WriteString(atStake(s))
			}
		}
		command("yes", fmt.Sprintf("backout approve %s %s --reason=WHY", id, step))
		command("deny, skip this step", fmt.Sprintf("backout deny %s %s --reason=WHY", id, step))
	}
	if inc.OverLimit != "" {
		b.WriteString("\n" + Wrap("", "A commander can let it run over the limit: "+inc.StepName(inc.OverLimit)))
		command("yes", remediation.OverCommand(id, Clean(inc.OverLimit), Clean(inc.OverGate)))
	}
	b.WriteString("\nTo stop it or take over\n")
	if len(inc.FrozenBy) == 0 {
		command("block further steps for this service", fmt.Sprintf("backout freeze --service=%s --reason=WHY", service))
	}
	holds := ""
	if inc.State == remediation.Waiting && inc.Reason == remediation.HoldFrozen {
		holds = ", which holds it"
	}
	for _, f := range inc.FrozenBy {
		command("end the freeze of "+EveryOr(f.Service)+holds, ThawCommand(f))
	}
	if inc.ClaimedBy == "" {
		command("take this incident over", "backout incident claim "+id)
	} else {
		command("give it back to backout", "backout incident release "+id)
	}
	if inc.Closable() {
		command("close it once you fixed it", "backout incident close "+id)
	}
	return b.String()
}

// atStake says of a step that asks for an approval what can be lost and how its rehearsal
// went, as the console does.
func atStake(s view.StepView) string {
	lost := s.Loses
	if lost == "" {
		if lost = s.Risk; s.Risk == alerts.Lossy.String() {
			lost += ": data can be lost"
		}
	}
	rehearsed := "never: how long it takes and the snapshot's size are not known"
	if s.Rehearsed != nil {
		rehearsed = fmt.Sprintf("took %s on %s", s.ExpectedSpan(), remediation.Moment(*s.Rehearsed))
		if s.Evidence != "" {
			rehearsed += "; " + s.Evidence
		}
	}
	return Hanging("  lost       ", lost+" ("+s.Target+")") + Hanging("  rehearsed  ", rehearsed)
}

// meaning explains a state.
func meaning(inc view.IncidentView) string {
	switch inc.State {
	case remediation.Confirming:
		if inc.Ordered() {
			return "backout is about to continue the rollback, " + inc.Cause()
		}
		return "backout is confirming the alert with Prometheus"
	case remediation.Acting:
		if inc.RestoringFor != "" {
			return "what was changed is being restored, for " + inc.RestoringFor
		}
		if doubt := inc.Doubt(); doubt != "" {
			return "in doubt: " + doubt + ". backout looks again until it can. No other step runs"
		}
		return "a step is running"
	case remediation.Settling:
		return "a step has run; backout is watching whether it was enough"
	case remediation.Waiting:
		return "on hold: no step runs"
	case remediation.Recovered:
		if len(inc.Triggers) > 0 && !slices.ContainsFunc(inc.Triggers, func(t view.TriggerView) bool { return t.Signal == "" }) {
			if skipped := inc.Skipped(); len(skipped) > 0 {
				return "skipped: " + strings.Join(skipped, ", ") + "; it waits until the signal is cleared"
			}
			return "all steps are done; it waits until the signal is cleared"
		}
		return "the breach stopped; backout keeps watching for a while"
	case remediation.Exhausted:
		if inc.NothingRan() {
			return "no step ran: each was denied, or nobody answered in time; this needs a person"
		}
		return "remediation failed and the breach continues: this needs a person"
	case remediation.Closed:
		if inc.ByHand {
			return "a person closed it " + inc.ByHandWords()
		}
		return "the incident is over"
	}
	return "unknown state; this command may be older than the server"
}

func orDash(s string) string {
	if s == "" {
		return "-"
	}
	return s
}
