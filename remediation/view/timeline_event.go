package view

import (
	"fmt"
	"strings"

	"github.com/locotoki/backout/remediation"
	"github.com/locotoki/backout/remediation/audit"
)

// TimelineEvent is an audit entry in words, as a timeline shows it.
type TimelineEvent struct {
	audit.Entry
	// Title says what happened, Why the reason that the entry gives; Tone is for
	// its colour: bad, wait, good, act, human, over or none.
	Title, Tone, Why string
}

// Describe puts an entry into words.
func Describe(e audit.Entry) TimelineEvent {
	words, ok := kindWords[e.Kind]
	if !ok {
		words = [2]string{string(e.Kind), ""}
	}
	ev := TimelineEvent{Entry: e, Title: words[0], Tone: words[1]}
	text := func(key string) string { s, _ := e.Detail[key].(string); return s }
	subject := e.Step
	switch e.Kind {
	case audit.KindOpened, audit.KindAttached, audit.KindReopened, audit.KindResolved:
		if subject = text("trigger"); subject == "" && e.Kind == audit.KindOpened { // by an abort
			ev.Title = "Incident opened"
		}
	case audit.KindApproved:
		if gate := text("gate"); gate != "" { // which answers no other question about the step
			subject += " over " + gate
		}
	case audit.KindDenied:
		if e.Actor == remediation.ActorEngine {
			ev.Title, ev.Tone = "Not approved in time:", "bad"
		}
	case audit.KindRestored:
		switch text("state") {
		case "begun":
			ev.Title = "Restore started"
		case "forced":
			ev.Title = "Restore forced"
		case "failed":
			ev.Title, ev.Tone = "Could not be restored:", "bad"
		}
	case audit.KindHeld:
		subject, _ = HoldWords(remediation.Reason(text("reason")))
	case audit.KindPlanned:
		subject = listed(e.Detail["steps"])
	case audit.KindOutcome:
		subject = strings.TrimSpace(e.Step + " " + strings.ReplaceAll(text("outcome"), "_", " "))
		switch remediation.StepState(text("outcome")) {
		case remediation.StepDone, remediation.StepNoChange:
			ev.Tone = "good"
		case remediation.StepFailed, remediation.StepUndone, remediation.StepInDoubt:
			ev.Tone = "bad"
		}
		if e.Detail["undo"] == true && text("outcome") == string(remediation.StepUndone) && text("error") == "" {
			ev.Tone = "human" // ordered: nothing failed
		}
	case audit.KindSettled:
		subject = strings.ReplaceAll(text("verdict"), "_", " ")
	case audit.KindNotified:
		subject = text("what")
		if subject == "" {
			subject = text("status")
		}
		switch {
		case PageReason(e) != "":
			ev.Title, ev.Tone, subject = "Needs a person:", "bad", strings.ReplaceAll(PageReason(e), "_", " ")
		case Undelivered(e):
			ev.Title, ev.Tone = "Not delivered by "+text("channel")+":", "bad"
		case subject == "":
			ev.Title = "People notified"
		}
	case audit.KindEscalated:
		if subject == "" {
			ev.Title = "Needs a person"
		}
	case audit.KindBlind:
		if text("what") == remediation.BlindPrometheus {
			ev.Title = "Prometheus"
		}
		if blind, _ := e.Detail["blind"].(bool); blind {
			subject = "lost: no monitoring"
		} else {
			subject, ev.Tone = "is back", "good"
		}
	case audit.KindSignal:
		word := "cleared"
		if raised, _ := e.Detail["raised"].(bool); raised {
			word, ev.Tone = "raised", "bad"
		}
		subject = text("signal") + " " + word
	case audit.KindFrozen, audit.KindThawed:
		if subject = e.Service; subject == "" {
			subject = "all services"
		}
		if text("scope") == remediation.ScopePromotions { // steps back go on
			subject += ", promotions only"
		}
	case audit.KindStarted:
		if reload, _ := e.Detail["reload"].(bool); reload {
			ev.Title, ev.Tone = "Configuration and playbooks reloaded", "human"
			ev.Why = listed(e.Detail["changed"])
		}
	case audit.KindLease:
		verb := " acts in "
		if e.Detail["state"] != "taken" {
			verb = " gives up "
		}
		subject = text("replica") + verb + RealmWords(text("realm"))
		if from := text("from"); from != "" {
			subject += ", after " + from
		}
	case audit.KindStage:
		where := text("stage")
		if where == remediation.StageNone { // it is over
			where = strings.ReplaceAll(text("state"), "_", " ")
		}
		subject = strings.TrimSpace(text("release") + " " + where)
		held, told := e.Detail["held"].(bool)
		switch {
		case text("abort") != "": // nothing is rolled back yet
			ev.Title, subject = "Abort ordered:", text("release")
		case text("promotion") == string(remediation.StepFailed): // and the rollout may be in the stage all the same
			subject = text("release") + " to " + text("to") + " failed, traffic unknown"
		case text("promotion") != "" && text("stage") != remediation.StageNone:
			subject += ", not promoted"
		case held:
			subject += ", held"
		case told:
			subject += ", resumed"
		}
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
	if lost := lostOf(e); e.Kind == audit.KindOutcome && len(lost) > 0 {
		ev.Why = strings.TrimPrefix(ev.Why+"; lost: "+remediation.LostWords(lost), "; ")
	}
	return ev
}

// PageReason returns why an entry calls a person, "" if it does not.
func PageReason(e audit.Entry) string {
	if _, ok := e.Detail["metric"]; e.Kind != audit.KindNotified || !ok {
		return ""
	}
	reason, _ := e.Detail["reason"].(string)
	return reason
}

// Undelivered reports whether an entry is about a message that was given up.
func Undelivered(e audit.Entry) bool {
	return e.Kind == audit.KindNotified && e.Detail["outcome"] == remediation.OutcomeDropped
}

// kindWords are the title and tone of each kind of entry.
var kindWords = map[audit.Kind][2]string{
	audit.KindReceived:    {"Notification received", ""},
	audit.KindDuplicate:   {"Repeated", ""},
	audit.KindOpened:      {"Incident opened by", "bad"},
	audit.KindAttached:    {"Another alert joined:", "bad"},
	audit.KindPlanned:     {"Planned:", ""},
	audit.KindHeld:        {"Did not act:", "wait"},
	audit.KindApproved:    {"Approved", "human"},
	audit.KindDenied:      {"Denied", "human"},
	audit.KindIntent:      {"Started", "act"},
	audit.KindOutcome:     {"Outcome:", "act"},
	audit.KindInDoubt:     {"In doubt:", "bad"},
	audit.KindVerified:    {"Verified", "good"},
	audit.KindSettled:     {"Watched:", ""},
	audit.KindEscalated:   {"Next step:", "bad"},
	audit.KindRecovered:   {"Recovered", "good"},
	audit.KindResolved:    {"Resolved in Alertmanager:", ""},
	audit.KindClosed:      {"Closed", "over"},
	audit.KindReopened:    {"Reopened by", "bad"},
	audit.KindClaimed:     {"Claimed", "human"},
	audit.KindReleased:    {"Released", "human"},
	audit.KindRestored:    {"Restored", "human"},
	audit.KindFrozen:      {"Frozen", "human"},
	audit.KindThawed:      {"Thawed", "human"},
	audit.KindSignal:      {"Signal", "human"},
	audit.KindStage:       {"Rollout", "human"},
	audit.KindNotified:    {"Notified:", ""},
	audit.KindDrift:       {"Changed outside backout:", "bad"},
	audit.KindBlind:       {"Watchdog", "bad"},
	audit.KindLease:       {"Replica", ""},
	audit.KindLateOutcome: {"Reported too late by a replica:", "bad"},
	audit.KindCheckpoint:  {"Log pruned before this entry", ""},
	audit.KindStarted:     {"backout started", ""},
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
