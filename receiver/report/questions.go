package report

import (
	"fmt"
	"slices"
	"strings"

	"github.com/prometheus/common/model"

	"github.com/locotoki/backout/remediation"
	"github.com/locotoki/backout/remediation/audit"
	"github.com/locotoki/backout/remediation/view"
)

// summary tells the incident in a few sentences.
func (r *Report) summary() {
	inc := r.Incident
	say := func(format string, args ...any) { r.Summary = append(r.Summary, fmt.Sprintf(format, args...)) }
	kind := "incident"
	if inc.Drill {
		kind = "drill: nothing was applied"
	}
	say("%s of service %s, release %s: %s %s.", inc.ID, inc.Service, dash(inc.Rollout), kind, openedBy(inc))
	var done, back, not, runs []string
	for _, a := range r.Actions {
		if r.unsure(a.Step) {
			continue
		}
		switch outcome := remediation.StepState(a.Outcome); {
		case outcome == remediation.StepDone && !a.Undo:
			done = append(done, a.Step)
		case outcome == remediation.StepUndone && a.Undo:
			back = append(back, a.Step)
		case outcome == "" && inc.Closed == nil:
			runs = append(runs, a.Step)
		case a.Undo:
			not = append(not, "undo of "+a.Step+" ("+dash(strings.ReplaceAll(a.Outcome, "_", " "))+")")
		default:
			not = append(not, a.Step+" ("+dash(strings.ReplaceAll(a.Outcome, "_", " "))+")")
		}
	}
	switch {
	case len(done) > 0:
		say("backout did %s.", strings.Join(done, ", "))
	case len(runs)+len(inc.MayBe()) == 0:
		say("No change of backout is left in place.")
	}
	for _, sentence := range inc.MayBe() {
		say("%s", sentence)
	}
	if len(runs) > 0 {
		say("Running, without an outcome yet: %s.", strings.Join(runs, ", "))
	}
	if len(not) > 0 {
		say("No effect, or failed: %s.", strings.Join(not, ", "))
	}
	if len(back) > 0 {
		say("Restored: %s.", strings.Join(back, ", "))
	}
	if after := r.inVain(); len(after) > 0 {
		say("The breach continued after %s.", strings.Join(after, ", "))
	}
	for _, s := range inc.Steps {
		if lost := s.LostWords(); lost != "" {
			say("%s %s.", s.ID, lost)
		}
	}
	recovered, _ := r.recovered()
	switch {
	case recovered != nil && inc.Closed != nil:
		say("The breach stopped at %s; the incident was closed at %s.", r.at(recovered.Time), r.at(*inc.Closed))
	case inc.Closed != nil:
		why := ""
		if e := r.last(audit.KindClosed); e != nil {
			why = ": " + detailText(*e, "why", "reason")
		}
		by := ""
		if inc.ByHand {
			by = " by a person, " + inc.ByHandWords()
		}
		say("The incident was closed at %s%s%s.", r.at(*inc.Closed), by, strings.TrimSuffix(why, ": "))
	default:
		say("The incident is not over: its state is %s%s.", inc.State, because(inc))
	}
	if k := inc.IncidentCall; k != nil {
		where := ""
		if k.URL != "" {
			where = ": " + k.URL
		}
		say("Its severity, %d, calls for an incident call%s.", k.Severity, where)
	}
	if n := len(r.Holds); n > 0 {
		say("Steps were held %s; see what was held and why.", times(n))
	}
}

// unsure reports whether it is not known what became of a step's change.
func (r *Report) unsure(step string) bool {
	return slices.ContainsFunc(r.Incident.Steps, func(s view.StepView) bool { return s.ID == step && r.Incident.MayBeInPlace(s) })
}

func because(inc view.IncidentView) string {
	if inc.Reason == "" {
		return ""
	}
	return " (" + string(inc.Reason) + ")"
}

func openedBy(inc view.IncidentView) string {
	switch cause := inc.Cause(); {
	case cause == "":
		return "of a trigger that is no longer known"
	case inc.Ordered():
		return cause
	default:
		return "opened by " + cause
	}
}

func times(n int) string {
	if n == 1 {
		return "once"
	}
	return fmt.Sprintf("%d times", n)
}

func dash(s string) string {
	if s == "" {
		return "-"
	}
	return s
}

// holdQuestions are what a hold leaves to ask.
var holdQuestions = map[remediation.Reason]string{
	remediation.HoldMode:           "backout only observed. Should it have acted?",
	remediation.HoldFrozen:         "A freeze held steps. Was it meant to hold these?",
	remediation.HoldSilenced:       "A silence held steps. Did its author know that it would?",
	remediation.HoldNoRollout:      "No rollout of the release was declared, so steps were held. Why not?",
	remediation.HoldUnconfirmed:    "The alert and its expression disagreed, so steps were held. Is the rule right?",
	remediation.HoldNoData:         "Prometheus did not show whether there was a breach. Why not?",
	remediation.HoldRateLimit:      "A rate limit held steps. Is it right?",
	remediation.HoldBlastRadius:    "The blast radius held steps. Is it right, and why did so much run at once?",
	remediation.HoldCooldown:       "A cooldown held steps. Why was the same change needed again so soon?",
	remediation.HoldBreaker:        "The breaker held steps. What made so many fail in a row?",
	remediation.HoldTarget:         "A target was not in the state that its step needs. Why?",
	remediation.HoldUnknownTrigger: "The playbook did not know a trigger. Which of the two is wrong?",
	remediation.HoldReplicas:       "The replicas of backout differed, so steps were held. Why?",
}

// inVain are the steps after which the breach was seen to go on.
func (r *Report) inVain() (after []string) {
	last := ""
	for _, e := range r.Entries {
		switch verdict, _ := e.Detail["verdict"].(string); {
		case e.Kind == audit.KindVerified:
			last = e.Step
		case e.Kind == audit.KindSettled && verdict == "breaching" && last != "" && !slices.Contains(after, last):
			after = append(after, last)
		}
	}
	return after
}

// questions are what the log leaves open.
func (r *Report) questions() {
	r.Questions = []string{}
	if !r.Incident.Ordered() {
		r.Questions = append(r.Questions, "What caused the breach? backout does not know.")
	}
	ask := func(format string, args ...any) {
		if q := fmt.Sprintf(format, args...); !slices.Contains(r.Questions, q) {
			r.Questions = append(r.Questions, q)
		}
	}
	for _, e := range r.Entries {
		switch e.Kind {
		case audit.KindHeld:
			if q := holdQuestions[remediation.Reason(detailText(e, "reason"))]; q != "" {
				ask("%s", q)
			}
		case audit.KindIntent:
			if why := detailText(e, "error"); why != "" && e.Detail["undo"] == true {
				ask("Why did %s fail (%s)?", e.Step, why)
			}
		case audit.KindOutcome:
			switch failed := detailText(e, "outcome") == string(remediation.StepFailed); {
			case failed && e.Detail["undo"] == true:
				ask("%s could not be restored (%s). What state is its target in?", e.Step, dash(detailText(e, "undo_error", "error")))
			case failed:
				ask("Why did %s fail (%s)?", e.Step, dash(detailText(e, "error", "why")))
			}
		case audit.KindInDoubt:
			ask("%s was in doubt (%s). Is its target in the state that the log says?", e.Step, dash(detailText(e, "error", "why")))
		case audit.KindDrift:
			ask("Who changed %s outside backout (%s)?", dash(detailText(e, "target")), dash(detailText(e, "why")))
		case audit.KindDenied:
			if e.Actor == "engine" {
				ask("Nobody approved %s in time (%s). Who should have answered?", e.Step, dash(detailText(e, "reason")))
			}
		case audit.KindReopened:
			ask("The incident was reopened. Why did the breach come back?")
		case audit.KindBlind:
			if e.Detail["blind"] == true {
				ask("Watchdog alerts stopped during the incident. Was monitoring down?")
			}
		case audit.KindNotified:
			if detailText(e, "reason") == "still_true" {
				ask("The trigger's own expression stayed true after recovery. Is its window too long?")
			}
		}
	}
	r.questionsOfTheEnd(ask)
}

func (r *Report) questionsOfTheEnd(ask func(string, ...any)) {
	inc := r.Incident
	for _, s := range inc.Steps {
		if inc.MayBeInPlace(s) && s.State == remediation.StepFailed && !s.NotPutBack { // the log's entries ask about the others
			ask("%s could not be undone. What state is its target in?", s.ID)
		}
	}
	worked := len(inc.MayBe()) > 0 || slices.ContainsFunc(r.Actions, func(a Action) bool { return !a.Undo && a.Outcome == string(remediation.StepDone) })
	switch {
	case inc.NothingRan():
		ask("No step ran: each was denied, or nobody answered in time. Is the order still wanted?")
	case inc.State == remediation.Exhausted:
		ask("Every step was tried and the breach continues. What else can be done?")
	case inc.Closed == nil:
		ask("The incident is not over. What is still to be done?")
	case inc.ByHand:
		ask("A person closed the incident %s. Is it over?", inc.ByHandWords())
	case !worked && !inc.Ordered() && inc.Reason != remediation.HoldUnconfirmed && !inc.Drill:
		ask("The breach ended, but backout changed nothing. What ended it?")
	}
	for _, s := range inc.Steps {
		switch {
		case !s.LostData:
		case s.Snapshot == nil:
			ask("%s %s, and the log names no snapshot. What of it is needed?", s.ID, s.Lost())
		default:
			ask("%s %s. What of it is needed again from the snapshot %s?", s.ID, s.Lost(), s.Snapshot.Path)
		}
	}
	for _, d := range r.Durations {
		if d.Name == "breach to post" && d.Took != nil && *d.Took > model.Duration(alertsLate) {
			ask("The alert came %s after the breach began. Is its window longer than needed?", remediation.Span(*d.Took))
		}
	}
}
