package remediation

import (
	"fmt"
	"strings"
)

// Telling is an audit entry as a time line tells it.
type Telling struct {
	Entry
	// Title says what happened, Why the reason that the entry gives; Tone is for
	// its colour: bad, wait, good, act, human, over or none.
	Title, Tone, Why string
}

// Tell puts an entry into words.
func Tell(e Entry) Telling {
	words, ok := kindWords[e.Kind]
	if !ok {
		words = [2]string{string(e.Kind), ""}
	}
	ev := Telling{Entry: e, Title: words[0], Tone: words[1]}
	text := func(key string) string { s, _ := e.Detail[key].(string); return s }
	subject := e.Step
	switch e.Kind {
	case KindOpened, KindAttached, KindReopened, KindResolved:
		subject = text("trigger")
	case KindHeld:
		subject, _ = HoldWords(Reason(text("reason")))
	case KindPlanned:
		subject = listed(e.Detail["steps"])
	case KindOutcome:
		subject = strings.TrimSpace(e.Step + " " + strings.ReplaceAll(text("outcome"), "_", " "))
		switch StepState(text("outcome")) {
		case StepDone, StepNoChange:
			ev.Tone = "good"
		case StepFailed, StepUndone, StepInDoubt:
			ev.Tone = "bad"
		}
	case KindSettled:
		subject = strings.ReplaceAll(text("verdict"), "_", " ")
	case KindNotified:
		subject = text("what")
		if subject == "" {
			subject = text("status")
		}
		switch {
		case e.pages() != "":
			ev.Title, ev.Tone, subject = "Needs a human:", "bad", strings.ReplaceAll(e.pages(), "_", " ")
		case e.undelivered():
			ev.Title, ev.Tone = "Not told by "+text("channel")+":", "bad"
		case subject == "":
			ev.Title = "People were told"
		}
	case KindEscalated:
		if subject == "" {
			ev.Title = "Needs a human"
		}
	case KindBlind:
		if text("what") == blindPrometheus {
			ev.Title = "Prometheus"
		}
		if blind, _ := e.Detail["blind"].(bool); blind {
			subject = "is away: backout is blind"
		} else {
			subject, ev.Tone = "is back", "good"
		}
	case KindSignal:
		word := "cleared"
		if raised, _ := e.Detail["raised"].(bool); raised {
			word, ev.Tone = "raised", "bad"
		}
		subject = text("signal") + " " + word
	case KindFrozen, KindThawed:
		if subject = e.Service; subject == "" {
			subject = "every service"
		}
		if text("scope") == ScopePromotions { // steps back go on
			subject += ", its promotions only"
		}
	case KindStarted:
		if reload, _ := e.Detail["reload"].(bool); reload {
			ev.Title, ev.Tone = "Configuration and playbooks reloaded", "human"
			ev.Why = listed(e.Detail["changed"])
		}
	case KindStage:
		subject = strings.TrimSpace(text("release") + " " + text("stage"))
	}
	if undo, _ := e.Detail["undo"].(bool); undo {
		ev.Title = "Undo, " + strings.ToLower(ev.Title[:1]) + ev.Title[1:]
	}
	ev.Title = strings.TrimSpace(ev.Title + " " + subject)
	for _, key := range []string{"error", "why", "words", "reason"} {
		if ev.Why != "" {
			break
		}
		ev.Why = text(key)
	}
	return ev
}

// pages is the reason for which an entry calls a human, "" where it calls nobody.
func (e Entry) pages() string {
	if _, ok := e.Detail["metric"]; e.Kind != KindNotified || !ok {
		return ""
	}
	reason, _ := e.Detail["reason"].(string)
	return reason
}

// undelivered tells whether an entry is of a message that was given up.
func (e Entry) undelivered() bool {
	return e.Kind == KindNotified && e.Detail["outcome"] == outcomeDropped
}

// kindWords are the kinds of entries as a time line tells them.
var kindWords = map[Kind][2]string{
	KindReceived:   {"Notification received", ""},
	KindDuplicate:  {"The same again", ""},
	KindOpened:     {"Incident opened by", "bad"},
	KindAttached:   {"Another alert joined:", "bad"},
	KindPlanned:    {"Planned:", ""},
	KindHeld:       {"Did not act:", "wait"},
	KindApproved:   {"Approved", "human"},
	KindDenied:     {"Denied", "human"},
	KindIntent:     {"Begins", "act"},
	KindOutcome:    {"Outcome:", "act"},
	KindInDoubt:    {"In doubt:", "bad"},
	KindVerified:   {"Verified", "good"},
	KindSettled:    {"Watched:", ""},
	KindEscalated:  {"Goes on to", "bad"},
	KindRecovered:  {"Recovered", "good"},
	KindResolved:   {"Alertmanager says resolved:", ""},
	KindClosed:     {"Closed", "over"},
	KindReopened:   {"Reopened by", "bad"},
	KindClaimed:    {"Claimed", "human"},
	KindReleased:   {"Released", "human"},
	KindRestored:   {"Restored", "human"},
	KindFrozen:     {"Frozen", "human"},
	KindThawed:     {"Thawed", "human"},
	KindSignal:     {"Signal", "human"},
	KindStage:      {"Rollout", "human"},
	KindNotified:   {"Told:", ""},
	KindDrift:      {"Changed behind our back:", "bad"},
	KindBlind:      {"Watchdog", "bad"},
	KindCheckpoint: {"Log pruned up to here", ""},
	KindStarted:    {"backout started", ""},
}

// listed joins a list of strings from an entry's detail.
func listed(v any) string {
	all, _ := v.([]any)
	words := make([]string, len(all))
	for i, w := range all {
		words[i] = fmt.Sprint(w)
	}
	return strings.Join(words, ", ")
}
