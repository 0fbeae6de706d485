package view

import (
	"cmp"
	"slices"
	"strings"
	"time"

	"github.com/locotoki/backout/alerts"
	"github.com/locotoki/backout/remediation"
)

// Story is an incident as a commander reads it: what broke, what was done, whether it
// helped, what comes next.
type Story struct {
	IncidentView
	Now time.Time
	// State in a few words, and Tone for its colour: bad, wait, good or over.
	Headline, Tone string
	Broke          []Broken
	// More is how many alerts there are beyond those in Broke.
	More   int
	Done   []StepView
	Helped string
	// Asks: a step waits for a yes or no. Undoable: something can be put back.
	Asks, Restorable bool
	// Asked is the step that waits for the answer, Loses what it can lose.
	Asked StepView
	Loses string
	// Why says in words why no step runs; WhyEnds how that ends.
	Why, WhyEnds string
	// Severity is the highest of its triggers'; StartCall: it is grave enough for
	// a call, which Call is the address of, where the playbook has one.
	Severity  int
	StartCall bool
	Call      string
	// Runbook is the address of what people do in an incident, or "".
	Runbook string
}

// Broken is one trigger: its last value against its threshold.
type Broken struct {
	Trigger, Value, Bound string
	// Estimate is a TriggerView's, "" where there is no value.
	Estimate string
	// Dashboard is the address of its indicator's dashboard, or "".
	Dashboard      string
	Active, Beyond bool
	// Worst is the worst value of an incident that is over, "" where it is not known.
	Worst string
	// Shown: the same value is shown above.
	Shown bool
	// Observed is when Value was read. Unanswered: Prometheus does not answer, so that
	// nobody knows what it is now.
	Observed   *time.Time
	Unanswered bool
	Alerts     int
}

// OverAsks reports that the step which a limit holds can lose data, or asks for an approval
// of its own.
func (s Story) OverAsks() bool {
	return slices.ContainsFunc(s.Steps, func(st StepView) bool {
		return st.ID == s.OverLimit && (st.NeedsApproval || st.Risk == alerts.Lossy.String())
	})
}

// Dashboards are those of what broke, each once.
func (s Story) Dashboards() (out []Broken) {
	for _, b := range s.Broke {
		if b.Dashboard != "" && !slices.ContainsFunc(out, func(o Broken) bool { return o.Dashboard == b.Dashboard }) {
			out = append(out, b)
		}
	}
	return out
}

// Measured reports whether a metric is the trigger, and no person.
func (b Broken) Measured() bool { return b.Value != aSignal }

// aSignal is the value of a trigger that a person raised.
const aSignal = "a signal"

// BrokenOf reads a plot's last value against its threshold.
func BrokenOf(p Plot) Broken {
	t := TriggerView{Trigger: p.Trigger, Threshold: p.Threshold}
	if n := len(p.Points); n > 0 && p.To.Sub(p.Points[n-1].Time) < 2*time.Duration(p.Step) {
		t.Value = &p.Points[n-1].Value
	}
	return newBroken(t, ServiceNow{Triggers: []TriggerNow{{Name: p.Trigger, Unit: p.Unit, Above: p.Above, Estimate: p.Estimate}}})
}

// shownTriggers is how many triggers are listed before the rest is counted.
const shownTriggers = 8

// NewStory describes v at the time now; service is what is known of its service.
func NewStory(v IncidentView, service ServiceNow, now time.Time) Story {
	s := Story{IncidentView: v, Now: now, Runbook: service.Runbook}
	for _, t := range v.Triggers {
		for _, k := range service.Triggers {
			if k.Name == t.Trigger {
				s.Severity = max(s.Severity, k.Severity)
			}
		}
	}
	if s.Severity = cmp.Or(s.Severity, alerts.DefaultSeverity); service.CallAbove != nil && s.Severity > *service.CallAbove {
		s.StartCall, s.Call = true, service.Call
	}
	for _, t := range v.Triggers {
		i := slices.IndexFunc(s.Broke, func(b Broken) bool { return b.Trigger == t.Trigger })
		if i < 0 {
			if len(s.Broke) == shownTriggers {
				s.More++
				continue
			}
			i = len(s.Broke)
			s.Broke = append(s.Broke, newBroken(t, service))
		}
		s.Broke[i].Alerts++
		s.Broke[i].Active = s.Broke[i].Active || t.Active
	}
	for _, st := range v.Steps {
		if st.Started != nil || st.State == remediation.StepSkipped {
			s.Done = append(s.Done, st)
			undoable := st.State == remediation.StepDone || st.State == remediation.StepInDoubt || st.NotPutBack || st.Left
			s.Restorable = s.Restorable || undoable && !slices.Contains(service.Tells, st.Action)
		}
	}
	s.Asks = v.State == remediation.Waiting && v.Reason == remediation.HoldApproval && v.Next != nil
	if i := slices.IndexFunc(v.Steps, func(st StepView) bool { return s.Asks && st.ID == v.Next.Step }); i >= 0 {
		s.Asked = v.Steps[i]
		for _, l := range service.Losses {
			if l.Action == s.Asked.Action && l.Target == s.Asked.Target {
				s.Loses = l.What
			}
		}
	}
	s.Restorable = s.Restorable && !v.Drill && (v.State == remediation.Recovered || v.State == remediation.Closed)
	s.Headline, s.Tone = headline(v)
	var acted []StepView
	for _, st := range s.Done {
		if !slices.Contains(service.Tells, st.Action) {
			acted = append(acted, st)
		}
	}
	s.Helped = helped(v, acted)
	for _, sentence := range v.MayBe() {
		if !strings.Contains(s.Helped, sentence) {
			s.Helped += " " + sentence
		}
	}
	if v.State != remediation.Closed && v.Reason != "" {
		s.Why, s.WhyEnds = v.holdWords()
	}
	return s
}

func newBroken(t TriggerView, s ServiceNow) Broken {
	if t.Signal != "" {
		return Broken{Trigger: t.Trigger, Value: aSignal, Bound: "raised by a person"}
	}
	b := Broken{Trigger: t.Trigger, Value: "no value", Observed: t.Observed, Unanswered: t.Unanswered || s.PrometheusAway != nil}
	var known TriggerNow
	for _, k := range s.Triggers {
		if k.Name == t.Trigger {
			known, b.Dashboard = k, k.Dashboard
			b.Bound = "above "
			if !k.Above {
				b.Bound = "below "
			}
		}
	}
	b.Bound += remediation.Measure(t.Threshold, known.Unit)
	if t.Value != nil {
		b.Value, b.Estimate = remediation.Measure(*t.Value, known.Unit), known.Estimate
		if t.Worst != nil {
			b.Worst = remediation.Measure(*t.Worst, known.Unit)
		}
		b.Beyond = known.Name != "" && (*t.Value > t.Threshold) == known.Above && *t.Value != t.Threshold
	}
	return b
}

// headline is the state as one says it, and its colour.
func headline(v IncidentView) (words, tone string) {
	if doubt := v.Doubt(); doubt != "" {
		if v.ClaimedBy != "" {
			return "In doubt, claimed by " + v.ClaimedBy + ": " + doubt, "bad"
		}
		return "In doubt: " + doubt, "bad"
	}
	if v.ClaimedBy != "" && v.State != remediation.Closed {
		switch v.State {
		case remediation.Acting: // a claim does not break off what has begun
			return "Claimed by " + v.ClaimedBy + ": no step runs after the current one", "bad"
		case remediation.Recovered:
			return "Recovered, and claimed by " + v.ClaimedBy + ": no step runs", "good"
		}
		return "Claimed by " + v.ClaimedBy + ": no step runs", "wait"
	}
	switch v.State {
	case remediation.Confirming:
		if v.Ordered() {
			return "Rollback " + v.Cause() + ": about to continue", "bad"
		}
		return "Checking whether the breach is real", "bad"
	case remediation.Acting:
		if v.RestoringFor != "" {
			return "Restoring what was changed, for " + v.RestoringFor, "wait"
		}
		return "A step is running", "bad"
	case remediation.Settling:
		if !slices.ContainsFunc(v.Steps, func(s StepView) bool { return s.State == remediation.StepDone || v.MayBeInPlace(s) }) {
			return "No change was needed: watching whether the breach ends", "wait"
		}
		return "A step has run: watching whether it helped", "wait"
	case remediation.Waiting:
		if v.Reason == remediation.HoldApproval {
			return "Waiting for approval", "bad"
		}
		means, _ := v.holdWords()
		if v.RestoringFor != "" {
			return "Restore on hold: " + means, "bad"
		}
		return "On hold: " + means, "bad"
	case remediation.Recovered:
		if len(v.Triggers) > 0 && !v.judged() {
			if len(v.Skipped()) > 0 {
				return "Steps were skipped: waiting for the signal to be cleared", "wait"
			}
			return "Done: waiting for the signal to be cleared", "wait"
		}
		return "Recovered: still watching", "good"
	case remediation.Exhausted:
		if v.NothingRan() {
			return "No step ran: needs a person", "bad"
		}
		return "Remediation failed: needs a person", "bad"
	case remediation.Closed:
		if v.Reason == remediation.HoldUnconfirmed {
			return "Closed: there was no breach", "over"
		}
		if v.Drill {
			return "The drill is over", "over"
		}
		if v.RestoredBy != "" {
			return "Closed: the changes were restored", "over"
		}
		if v.ByHand {
			return "Closed by a person " + v.ByHandWords(), "over"
		}
		if slices.ContainsFunc(v.Steps, v.MayBeInPlace) {
			return "Closed: a change may be in place", "over"
		}
		return "Closed", "over"
	}
	return string(v.State), "wait"
}

// judged reports whether a metric says how it is; else a person raised it, and
// nothing is known of what it is about.
func (v *IncidentView) judged() bool {
	return slices.ContainsFunc(v.Triggers, func(t TriggerView) bool { return t.Signal == "" })
}

// helped answers whether what was done has helped.
func helped(v IncidentView, ran []StepView) string {
	last, failed := "", ""
	maybe := slices.ContainsFunc(v.Steps, v.MayBeInPlace)
	for _, st := range ran {
		switch st.State {
		case remediation.StepDone, remediation.StepIntent:
			last = st.ID
		case remediation.StepFailed:
			failed = st.ID + " failed and could not be undone: its change may be in place."
			if st.NotPutBack {
				failed = st.ID + " could not be put back: its change may be in place."
			}
		case remediation.StepUndone:
			if st.PutBack {
				continue
			}
			failed = st.ID + " failed and was undone."
		case remediation.StepInDoubt:
			failed = st.ID + " was interrupted: checking whether it was done."
		}
	}
	if v.Drill {
		return "This is a drill: nothing is applied and nobody is notified."
	}
	if v.RestoringFor != "" {
		return "The incident's changes are being put back, as " + v.RestoringFor + " ordered."
	}
	if v.State == remediation.Waiting && v.Reason == remediation.HoldStepFailed && failed != "" {
		if last != "" && v.judged() {
			failed += " The breach continues after " + last + "."
		}
		return "No: " + failed
	}
	if !v.judged() && v.State != remediation.Acting && v.State != remediation.Closed && v.State != remediation.Exhausted {
		if last == "" && maybe {
			return "No metric shows it."
		}
		if last == "" {
			return "backout has changed nothing, and no metric shows the effect."
		}
		return "No metric shows it. The last completed step is " + last + "."
	}
	switch v.State {
	case remediation.Recovered:
		if last == "" && maybe {
			return "The breach stopped."
		}
		if last == "" {
			return "The breach stopped without a step by backout."
		}
		return "Yes: the breach stopped after " + last + "."
	case remediation.Closed:
		switch {
		case v.Reason == remediation.HoldUnconfirmed:
			return "Nothing to do: Prometheus did not confirm the breach."
		case v.RestoredBy != "":
			return "It is over, and " + v.RestoredBy + " had the changes restored."
		}
		ended := "It is over"
		if v.ByHand {
			ended = "A person closed it " + v.ByHandWords()
		}
		switch {
		case last != "":
			return ended + ". The last step was " + last + "."
		case maybe:
			return ended + "."
		}
		return ended + ", without a step by backout."
	case remediation.Settling:
		if last == "" && !maybe {
			return "Nothing changed: the target was already in the wanted state. Watching the indicator."
		}
		if last == "" {
			return "Not known yet. Watching the indicator."
		}
		return "Not known yet: " + last + " has run. Watching the indicator."
	case remediation.Exhausted:
		if v.NothingRan() {
			return "Nothing was changed: each step was denied, or nobody answered in time. This needs a person."
		}
		if i := slices.IndexFunc(v.Steps, func(s StepView) bool { return s.State == remediation.StepSkipped }); i >= 0 {
			return "No: the steps that ran did not help, and " + v.Steps[i].ID + " was skipped. This needs a person."
		}
		return "No: every step was tried and none helped. This needs a person."
	case remediation.Acting:
		switch doubt := v.Doubt(); {
		case doubt != "":
			return "Unknown: " + doubt + ". This needs a person."
		case last != "":
			return "Not known yet: " + last + " is running."
		}
	}
	if last == "" && maybe {
		return "Unknown."
	}
	if last == "" {
		return "Nothing has been done yet."
	}
	if v.Reason == remediation.HoldNoData || v.Reason == remediation.HoldUnconfirmed {
		return "Unknown whether " + last + " helped."
	}
	return "Not enough: the breach continues after " + last + "."
}

// holdWords are HoldWords, and tell the limit of a realm from that of all services, and that
// the step which a limit holds asks for an approval next.
func (v IncidentView) holdWords() (means, ends string) {
	if doubt := v.Doubt(); doubt != "" {
		return doubt, "It continues by itself once the target can be inspected. If that cannot be fixed, close the incident and look at the target yourself."
	}
	means, ends = HoldWords(v.Reason)
	if v.Reason.IsLimit() && slices.ContainsFunc(v.Steps, func(s StepView) bool {
		return s.NeedsApproval && (s.ID == v.OverLimit || v.OverLimit == "" && v.Next != nil && s.ID == v.Next.Step)
	}) {
		ends = strings.Replace(ends, "It continues by itself when", "When", 1)
		ends = strings.Replace(ends, "It continues by itself after", "After", 1)
		ends = strings.TrimSuffix(ends, ".") + ", it asks for its approval."
	}
	if v.OverLimit == "" {
		return means, ends
	}
	if v.OverGate == remediation.GateRealm {
		means = "as many other services of its realm were rolled back as the limit allows"
	}
	return means, strings.TrimSuffix(ends, ".") + ", or when a commander approves " + strings.Replace(v.StepName(v.OverLimit), "undo", "the undo", 1) + "."
}

// HoldWords says what a reason means, and what ends the hold.
func HoldWords(r remediation.Reason) (means, ends string) {
	switch r {
	case remediation.HoldMode:
		return "backout only observes", "Start it with --mode=act to let it act."
	case remediation.HoldFrozen:
		return "steps are frozen", "Thaw it, or wait until the freeze ends."
	case remediation.HoldClaimed:
		return "someone has claimed the incident", "Release the claim to continue."
	case remediation.HoldSilenced:
		return "its alerts are silenced in Alertmanager", "Expire the silence there."
	case remediation.HoldNoRollout:
		return "the release is not being rolled out", "Declare the rollout, or end that of the other release."
	case remediation.HoldUnconfirmed:
		return "Prometheus does not confirm the breach", "It continues by itself once Prometheus confirms the breach."
	case remediation.HoldNoData:
		return "Prometheus does not show whether there is a breach", "It continues by itself once Prometheus shows a breach, or its end. Check the service and Prometheus."
	case remediation.HoldApproval:
		return "the next step needs a commander's approval", "Approve or deny it here."
	case remediation.HoldRateLimit:
		return "rate limit reached", "It continues by itself when the limit's window has passed."
	case remediation.HoldBlastRadius:
		return "rate limit across all services reached", "It continues by itself when the limit's window has passed."
	case remediation.HoldCooldown:
		return "cooling down after the last change of the target", "It continues by itself after the cooldown."
	case remediation.HoldBreaker:
		return "too many steps in a row have failed", "Claim the incident, fix the cause, then release it."
	case remediation.HoldTarget:
		return "the target is not in the state that the step needs", "Fix the target, then claim and release the incident."
	case remediation.HoldUnknownTrigger:
		return "the trigger is not in the playbook", "Fix the playbook or the rule."
	case remediation.HoldStepFailed:
		return "a step failed", "Claim the incident, fix the cause, then release it to retry."
	case remediation.HoldReplicas:
		return "the replicas of backout have different playbooks or modes", "Give them the same ones. It then continues by itself."
	}
	return string(r), ""
}
