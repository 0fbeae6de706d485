package receiver

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/locotoki/backout/remediation"
)

// story is an incident as a commander asks for it: what broke, what was done,
// whether it helped, what comes next.
type story struct {
	remediation.IncidentView
	Now time.Time
	// State in a few words, and Tone for its colour: bad, wait, good or over.
	Headline, Tone string
	Broke          []brokeLine
	// More is how many alerts there are beyond those in Broke.
	More   int
	Done   []remediation.StepView
	Helped string
	// Asks: a step waits for a yes or no. Undoable: something can be put back.
	Asks, Restorable bool
	// Why says in words why no step runs; WhyEnds how that ends.
	Why, WhyEnds string
	Call         string
}

// brokeLine is one trigger: its last value against its threshold.
type brokeLine struct {
	Trigger, Value, Bound string
	Active, Beyond        bool
	Alerts                int
}

// shownTriggers is how many triggers are listed before the rest is counted.
const shownTriggers = 8

func newStory(v remediation.IncidentView, o remediation.Overview) story {
	s := story{IncidentView: v, Now: o.Time}
	now, _ := serviceOf(o, v.Service)
	s.Call = now.Call
	for _, t := range v.Triggers {
		i := slices.IndexFunc(s.Broke, func(b brokeLine) bool { return b.Trigger == t.Trigger })
		if i < 0 {
			if len(s.Broke) == shownTriggers {
				s.More++
				continue
			}
			i = len(s.Broke)
			s.Broke = append(s.Broke, newBroke(t, now))
		}
		s.Broke[i].Alerts++
		s.Broke[i].Active = s.Broke[i].Active || t.Active
	}
	for _, st := range v.Steps {
		if st.Started != nil || st.State == remediation.StepSkipped {
			s.Done = append(s.Done, st)
			s.Restorable = s.Restorable || (st.State == remediation.StepDone && !slices.Contains(now.Tells, st.Action))
		}
	}
	s.Asks = v.State == remediation.Waiting && v.Reason == remediation.HoldApproval && v.Next != nil
	s.Restorable = s.Restorable && !v.Drill && (v.State == remediation.Recovered || v.State == remediation.Closed)
	s.Headline, s.Tone = headline(v)
	var acted []remediation.StepView
	for _, st := range s.Done {
		if !slices.Contains(now.Tells, st.Action) {
			acted = append(acted, st)
		}
	}
	s.Helped = helped(v, acted)
	if v.State != remediation.Closed && v.Reason != "" {
		s.Why, s.WhyEnds = holdWords(v.Reason)
	}
	return s
}

func serviceOf(o remediation.Overview, name string) (remediation.ServiceNow, bool) {
	for _, s := range o.Services {
		if s.Service == name {
			return s, true
		}
	}
	return remediation.ServiceNow{}, false
}

func newBroke(t remediation.TriggerView, s remediation.ServiceNow) brokeLine {
	b := brokeLine{Trigger: t.Trigger, Value: "no value"}
	var known remediation.TriggerNow
	for _, k := range s.Triggers {
		if k.Name == t.Trigger {
			known = k
			b.Bound = "above "
			if !k.Above {
				b.Bound = "below "
			}
		}
	}
	b.Bound += measure(t.Threshold, known.Unit)
	if t.Value != nil {
		b.Value = measure(*t.Value, known.Unit)
		b.Beyond = known.Name != "" && (*t.Value > t.Threshold) == known.Above && *t.Value != t.Threshold
	}
	return b
}

// headline is the state as one says it, and its colour.
func headline(v remediation.IncidentView) (words, tone string) {
	if v.ClaimedBy != "" && v.State != remediation.Closed {
		return "Claimed by " + v.ClaimedBy + ": no step runs", "wait"
	}
	switch v.State {
	case remediation.Confirming:
		return "Checking whether the alert is true", "bad"
	case remediation.Acting:
		return "A step is running", "bad"
	case remediation.Settling:
		return "A step has run: watching whether it helped", "wait"
	case remediation.Waiting:
		if v.Reason == remediation.HoldApproval {
			return "Waits for your yes or no", "bad"
		}
		return "On hold: no step runs", "bad"
	case remediation.Recovered:
		return "Recovered: still being watched", "good"
	case remediation.Exhausted:
		return "Every step was tried: this needs a human", "bad"
	case remediation.Closed:
		if v.Reason == remediation.HoldUnconfirmed {
			return "Closed: there was no breach", "over"
		}
		return "Closed", "over"
	}
	return string(v.State), "wait"
}

// helped answers whether what was done has helped.
func helped(v remediation.IncidentView, ran []remediation.StepView) string {
	last := ""
	for _, st := range ran {
		if st.State == remediation.StepDone || st.State == remediation.StepIntent {
			last = st.ID
		}
	}
	switch v.State {
	case remediation.Recovered:
		if last == "" {
			return "The breach has stopped without a step of backout."
		}
		return "Yes: the breach stopped after " + last + "."
	case remediation.Closed:
		switch {
		case v.Reason == remediation.HoldUnconfirmed:
			return "There was nothing to help: Prometheus did not confirm the breach."
		case last == "":
			return "It is over, without a step of backout."
		}
		return "It is over. The last step was " + last + "."
	case remediation.Settling:
		return "Not known yet: " + last + " has run, and the indicator is being watched."
	case remediation.Exhausted:
		return "No: nothing that could be done has helped. This needs a human."
	case remediation.Acting:
		if last != "" {
			return "Not known yet: " + last + " is running."
		}
	}
	if last == "" {
		return "Nothing has been done yet."
	}
	switch v.Reason {
	case remediation.HoldNoData, remediation.HoldUnconfirmed:
		return "It cannot be told whether " + last + " has helped."
	case remediation.HoldStepFailed:
		return "No: a step failed after " + last + "."
	}
	return "Not enough: the breach goes on after " + last + "."
}

// holdWords say what a reason means, and what ends it.
func holdWords(r remediation.Reason) (means, ends string) {
	switch r {
	case remediation.HoldMode:
		return "backout only observes", "Start it with --mode=act to let it act."
	case remediation.HoldFrozen:
		return "steps are frozen", "Thaw it, or let the freeze run out."
	case remediation.HoldClaimed:
		return "somebody has claimed the incident", "Whoever has it releases it."
	case remediation.HoldSilenced:
		return "its alerts are silenced in Alertmanager", "Expire the silence in Alertmanager."
	case remediation.HoldNoRollout:
		return "the release is not being rolled out", "Declare the rollout: backout rollout start --declare."
	case remediation.HoldUnconfirmed:
		return "Prometheus does not confirm the breach", "It goes on by itself if Prometheus sees the breach."
	case remediation.HoldNoData:
		return "Prometheus has no data to tell", "It goes on by itself once there is data. Look at the service and at Prometheus."
	case remediation.HoldApproval:
		return "the next step needs a commander's approval", "Approve or deny it here."
	case remediation.HoldRateLimit:
		return "there were too many steps of late", "It goes on by itself when the limit's window has passed."
	case remediation.HoldBlastRadius:
		return "there were too many steps on all services of late", "It goes on by itself when the limit's window has passed."
	case remediation.HoldCooldown:
		return "the same was done to the same target a moment ago", "It goes on by itself after the cooldown."
	case remediation.HoldBreaker:
		return "too many steps in a row have failed", "Claim the incident, mend the cause, release it."
	case remediation.HoldTarget:
		return "the target is not as the step needs it", "Mend the target; then claim and release."
	case remediation.HoldUnknownTrigger:
		return "the playbook does not know the trigger", "Correct the playbook or the rule."
	case remediation.HoldStepFailed:
		return "a step failed", "Claim the incident, mend the cause, release it to try again."
	}
	return string(r), ""
}

// moment of the incident's time line.
type event struct {
	remediation.Entry
	Title, Tone, Why string
	Evidence         []evidenceLine
}

// evidenceLine is one key of an entry's detail.
type evidenceLine struct {
	Key, Value string
	// Gates, where the key is that, and Long, where the value is JSON.
	Gates []gateLine
	Long  bool
}

type gateLine struct {
	Gate, Why string
	Open      bool
}

// kindWords are the kinds of entries as a time line tells them.
var kindWords = map[remediation.Kind][2]string{
	remediation.KindReceived:    {"Notification received", ""},
	remediation.KindDuplicate:   {"The same again", ""},
	remediation.KindOpened:      {"Incident opened by", "bad"},
	remediation.KindAttached:    {"Another alert joined:", "bad"},
	remediation.KindPlanned:     {"Planned:", ""},
	remediation.KindHeld:        {"Did not act:", "wait"},
	remediation.KindApproved:    {"Approved", "human"},
	remediation.KindDenied:      {"Denied", "human"},
	remediation.KindIntent:      {"Begins", "act"},
	remediation.KindOutcome:     {"Outcome:", "act"},
	remediation.KindInDoubt:     {"In doubt:", "bad"},
	remediation.KindVerified:    {"Verified", "good"},
	remediation.KindSettled:     {"Watched:", ""},
	remediation.KindEscalated:   {"Goes on to", "bad"},
	remediation.KindRecovered:   {"Recovered", "good"},
	remediation.KindResolved:    {"Alertmanager says resolved:", ""},
	remediation.KindClosed:      {"Closed", "over"},
	remediation.KindReopened:    {"Reopened by", "bad"},
	remediation.KindClaimed:     {"Claimed", "human"},
	remediation.KindReleased:    {"Released", "human"},
	remediation.KindRestored:    {"Restored", "human"},
	remediation.KindFrozen:      {"Frozen", "human"},
	remediation.KindThawed:      {"Thawed", "human"},
	remediation.KindSignal:      {"Signal", "human"},
	remediation.KindStage:       {"Rollout", "human"},
	remediation.KindNotified:    {"Told:", ""},
	remediation.KindLateOutcome: {"Outcome, late:", "bad"},
	remediation.KindDrift:       {"Changed behind our back:", "bad"},
	remediation.KindBlind:       {"Watchdog", "bad"},
	remediation.KindCheckpoint:  {"Log pruned up to here", ""},
	remediation.KindStarted:     {"backout started", ""},
}

func newEvent(e remediation.Entry) event {
	words, ok := kindWords[e.Kind]
	if !ok {
		words = [2]string{string(e.Kind), ""}
	}
	ev := event{Entry: e, Title: words[0], Tone: words[1]}
	text := func(key string) string { s, _ := e.Detail[key].(string); return s }
	subject := e.Step
	switch e.Kind {
	case remediation.KindOpened, remediation.KindAttached, remediation.KindReopened, remediation.KindResolved:
		subject = text("trigger")
	case remediation.KindHeld:
		subject, _ = holdWords(remediation.Reason(text("reason")))
	case remediation.KindPlanned:
		subject = list(e.Detail["steps"])
	case remediation.KindOutcome, remediation.KindLateOutcome:
		subject = strings.TrimSpace(e.Step + " " + strings.ReplaceAll(text("outcome"), "_", " "))
		switch remediation.StepState(text("outcome")) {
		case remediation.StepDone, remediation.StepNoChange:
			ev.Tone = "good"
		case remediation.StepFailed, remediation.StepUndone, remediation.StepInDoubt:
			ev.Tone = "bad"
		}
	case remediation.KindSettled:
		subject = strings.ReplaceAll(text("verdict"), "_", " ")
	case remediation.KindNotified:
		subject = text("what")
		if subject == "" {
			subject = text("status")
		}
	case remediation.KindEscalated:
		if subject == "" {
			ev.Title = "Needs a human"
		}
	case remediation.KindFrozen, remediation.KindThawed:
		if subject = e.Service; subject == "" {
			subject = "every service"
		}
	case remediation.KindStage:
		subject = strings.TrimSpace(text("release") + " " + text("stage"))
	}
	if undo, _ := e.Detail["undo"].(bool); undo {
		ev.Title = "Undo, " + strings.ToLower(ev.Title[:1]) + ev.Title[1:]
	}
	ev.Title = strings.TrimSpace(ev.Title + " " + subject)
	for _, key := range []string{"error", "why", "words", "reason"} {
		if ev.Why = text(key); ev.Why != "" {
			break
		}
	}
	ev.Evidence = evidenceOf(e.Detail)
	return ev
}

// list joins a list of strings from an entry's detail.
func list(v any) string {
	all, _ := v.([]any)
	words := make([]string, len(all))
	for i, w := range all {
		words[i] = fmt.Sprint(w)
	}
	return strings.Join(words, ", ")
}
