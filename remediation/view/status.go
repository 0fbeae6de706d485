package view

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/locotoki/backout/hint"
	"github.com/locotoki/backout/remediation"
)

// StatusLine is one subject of a server's status. Person: somebody must act on it.
type StatusLine struct {
	Subject string `json:"subject"`
	Text    string `json:"text"`
	Person  bool   `json:"needs_person"`
	// Short is what a headline says instead of a long Text, "" where Text is short.
	Short string `json:"-"`
}

// Status is the overview with a line for each subject: what the command status prints,
// the API answers, and the console shows first.
type Status struct {
	Overview
	Lines []StatusLine `json:"lines"`
}

// longPending is how long a message may wait before a person should look, as in the
// alert BackoutMessagesPending.
const longPending = 10 * time.Minute

// longDown is how long a replica may be away before a person should look, as in the alert
// BackoutReplicaDown.
const longDown = 2 * time.Minute

// longUnsure is how long the status shows a closed incident whose change may be in place.
const longUnsure = 24 * time.Hour

// VerifyEvery is how often the audit log is verified while backout runs.
const VerifyEvery = 24 * time.Hour

const (
	// ShownServices is how many services have lines of their own, whatever they do; of more,
	// only those where something goes on.
	ShownServices = 50
	// shownLost is how many of those whose monitoring is lost have a line then, besides those
	// where something goes on.
	shownLost = 5
)

// NewStatus puts an overview into lines.
func NewStatus(o Overview) Status {
	s := Status{Overview: o, Lines: []StatusLine{}}
	add := func(person bool, subject, format string, args ...any) {
		s.Lines = append(s.Lines, StatusLine{Subject: subject, Text: fmt.Sprintf(format, args...), Person: person})
	}
	if o.Mode == remediation.Act {
		add(false, "mode", "act: steps run")
	} else {
		add(false, "mode", "%s: decides and records, runs no step", o.Mode)
	}
	if r := o.NotReloaded; r != nil {
		message, _ := hint.Cut(r.Error)
		message, _, _ = strings.Cut(message, "\n")
		words := "the configuration could not be reloaded: " + message
		if r.Runs != nil {
			words += "; backout runs with what was loaded at " + remediation.Moment(*r.Runs)
		}
		add(true, "configuration", "%s", words)
		s.Lines[len(s.Lines)-1].Short = "could not be reloaded"
	}
	for _, r := range o.Replicas {
		words := "acts in no realm"
		if len(r.Realms) > 0 {
			realms := make([]string, len(r.Realms))
			for i, realm := range r.Realms {
				realms[i] = RealmWords(realm)
			}
			words = "acts in " + strings.Join(realms, ", ")
		}
		switch {
		case r.Stopped:
			words = "stopped " + remediation.Distance(o.Time, r.Seen)
		case !r.Live:
			words = "not seen since " + remediation.Distance(o.Time, r.Seen)
		case !r.Monitoring:
			words += "; Prometheus does not answer it"
		}
		if r.Live && r.Differs != "" {
			words += "; " + r.Differs
		}
		add(!r.Live && !r.Stopped && o.Time.Sub(r.Seen) > longDown || r.Live && r.Differs != "", "replica "+r.Name, "%s", words)
	}
	for _, u := range o.Unheld {
		add(true, RealmWords(u.Realm), "no replica acts here: nothing is done for %s", remediation.Few(u.Services))
	}
	if len(o.Freezes) == 0 {
		add(false, "freezes", "none")
	}
	for _, f := range o.Freezes {
		add(false, "freeze", "%s", freezeWords(f, o.Time))
	}
	calm, lostOnes, more, notReady := 0, 0, 0, 0
	for _, sv := range o.Services {
		lost, words := o.Monitoring(sv)
		if lost {
			lostOnes++
		}
		switch many := len(o.Services) > ShownServices && !sv.GoesOn(); {
		case many && !lost && len(sv.NotReady) > 0:
			notReady++
			continue
		case many && !lost:
			calm++
			continue
		case many && lostOnes > shownLost:
			more++
			continue
		}
		add(lost, sv.Service, "monitoring: %s", words)
		for _, u := range sv.Unheard {
			add(true, sv.Service, "%s: %s", u.words(), u.alertWords())
		}
		for _, why := range sv.NotReady {
			message, try := hint.Cut(why)
			if try != "" {
				message += " (try: " + try + ")"
			}
			add(true, sv.Service, "target not ready, a step could not run now: %s", message)
			s.Lines[len(s.Lines)-1].Short = "a target is not ready"
		}
		if runs := sv.RunsWords(o.Time); runs != "" {
			add(false, sv.Service, "runs: %s", runs)
		}
		add(false, sv.Service, "rollout: %s", sv.RolloutWords())
		for _, sig := range sv.Signals {
			if sig.Raised != nil {
				add(false, sv.Service, "signal: %s, raised by %s %s", sig.Name, sig.Raised.By, remediation.Distance(o.Time, sig.Raised.Since))
			}
		}
		example := ""
		if sv.Example {
			example = ", the built-in example: serve got no --playbook.file"
		}
		add(false, sv.Service, "playbook: sha256 %.12s%s", sv.Playbook, example)
	}
	if more > 0 {
		add(true, remediation.Counted(more, "more service"), "monitoring: lost")
	}
	if notReady > 0 {
		add(true, remediation.Counted(notReady, "more service"), "target not ready: see the server's log")
	}
	if calm > 0 {
		add(false, remediation.Counted(calm, "service"), "monitoring: not lost; rollout: none active; signals: none")
	}
	if len(o.Services) == 0 {
		add(true, "playbooks", "none is loaded: backout handles no alert")
	}
	if len(o.Incidents) == 0 {
		add(false, "incidents", "none open")
	}
	shown := map[Needed]bool{}
	for _, v := range o.Incidents {
		var why []string
		for _, n := range o.Needed {
			if n.Incident == v.ID {
				shown[n] = true
				why = append(why, n.Reason)
			}
		}
		words := waitsFor(v, o.Time)
		if len(why) > 0 {
			words += " (needs a person: " + strings.Join(why, ", ") + ")"
		}
		watched := o.onlyWatched(v)
		if watched {
			words += " (needs a person: " + onlyObserves + ")"
		}
		add(watched || len(why) > 0, v.ID, "%s: %s", v.Service, words)
	}
	for _, n := range o.Needed {
		switch {
		case shown[n]:
		case n.Incident == "":
			add(true, n.Service, "needs a person: %s", n.Reason)
		default:
			add(true, n.Incident, "%s: needs a person: %s", n.Service, n.Reason)
		}
	}
	for _, v := range o.Recent {
		if o.unsure(v) {
			add(true, v.ID, "%s: closed: %s Look at the target, or restore the incident.", v.Service, strings.Join(v.MayBe(), " "))
			s.Lines[len(s.Lines)-1].Short = "closed, and a change may be in place"
		}
	}
	switch since := o.UndeliveredSince; {
	case o.Undelivered == 0:
		add(false, "messages", "none waiting")
	case since == nil:
		add(false, "messages", "%s waiting", remediation.Counted(o.Undelivered, "message"))
	default:
		add(o.Time.Sub(*since) > longPending, "messages", "%s waiting, the oldest from %s", remediation.Counted(o.Undelivered, "message"), remediation.Distance(o.Time, *since))
	}
	if o.Dropped > 0 && o.DroppedLast != nil {
		add(true, "messages", "%s dropped in the last day, the last %s: pass them on by hand, see backout audit list --kind=notified",
			remediation.Counted(o.Dropped, "message"), remediation.Distance(o.Time, *o.DroppedLast))
	}
	head := fmt.Sprintf("entry %d, hash %.12s", o.HeadSeq, o.HeadHash)
	switch a := o.Audited; {
	case a == nil:
		add(false, "audit log", "%s, not verified yet", head)
	case a.OK && o.Time.Sub(a.Time) > 2*VerifyEvery:
		add(true, "audit log", "%s, last verified %s, and not since: see the server's log", head, remediation.Distance(o.Time, a.Time))
	case a.OK:
		add(false, "audit log", "%s, verified %s", head, remediation.Distance(o.Time, a.Time))
	default:
		add(true, "audit log", "%s, broken when verified %s: run backout audit verify", head, remediation.Distance(o.Time, a.Time))
	}
	return s
}

// NeedsPerson lists the lines that somebody must act on.
func (s Status) NeedsPerson() (out []StatusLine) {
	for _, l := range s.Lines {
		if l.Person {
			out = append(out, l)
		}
	}
	return out
}

// Headline says what is wrong, not how much of it: the first thing that needs a person,
// else the gravest incident; and its tone, as a Story has it.
func (s Status) Headline() (words, tone string) {
	for _, n := range s.Needed {
		for _, v := range s.Incidents {
			if v.ID == n.Incident {
				words, _ := headline(v)
				words = n.Service + ": " + lower(words)
				if n.Reason != string(v.Reason) && n.Reason != string(v.State) {
					words += " (needs a person: " + n.Reason + ")" // which the state does not say
				}
				return words, "bad"
			}
		}
	}
	for _, v := range s.Incidents {
		if s.onlyWatched(v) {
			return v.Service + ": " + onlyObserves, "bad"
		}
	}
	for _, sv := range s.Services { // also where monitoring is lost
		for _, u := range sv.Unheard {
			return sv.Service + ": " + u.words(), "bad"
		}
	}
	var lost []string
	for _, sv := range s.Services {
		if is, _ := s.Monitoring(sv); is {
			lost = append(lost, sv.Service)
		}
	}
	switch len(lost) {
	case 0:
	case 1:
		return lost[0] + ": monitoring lost", "bad"
	default:
		return remediation.Counted(len(lost), "service") + ": monitoring lost", "bad"
	}
	for _, want := range []string{"bad", "wait", "", "good"} {
		for _, l := range s.NeedsPerson() {
			if want == "" { // an open incident comes first
				return l.Subject + ": " + cmp.Or(l.Short, l.Text), "bad"
			}
		}
		for _, v := range s.Incidents {
			if words, tone := headline(v); tone == want {
				return v.Service + ": " + lower(words), tone
			}
		}
	}
	return "Nothing needs a person", "good"
}

// onlyObserves is what a person has to know of a breach that only observe mode leaves alone.
// Nobody is paged for it.
const onlyObserves = "a breach, and backout only observes"

// onlyWatched reports whether an incident's breach goes on because backout only observes,
// and nobody has claimed it.
func (o Overview) onlyWatched(v IncidentView) bool {
	return o.Mode == remediation.Observe && v.State == remediation.Waiting && v.Reason == remediation.HoldMode && v.ClaimedBy == "" && !v.Drill
}

// unsure reports whether nobody knows what a closed incident left in place. It ends a day
// after the close, or with the next rollout.
func (o Overview) unsure(v IncidentView) bool {
	if v.Closed == nil || o.Time.Sub(*v.Closed) > longUnsure || !slices.ContainsFunc(v.Steps, v.MayBeInPlace) {
		return false
	}
	return !slices.ContainsFunc(o.Services, func(sv ServiceNow) bool {
		return sv.Service == v.Service && sv.Rollout.Started != nil && sv.Rollout.Started.After(*v.Closed)
	})
}

// lower begins a sentence in the middle of another.
func lower(s string) string { return strings.ToLower(s[:1]) + s[1:] }

func freezeWords(f remediation.Freeze, now time.Time) string {
	of, what, until := f.Service, "no steps, no promotions", "until thawed"
	if of == "" {
		of = "every service"
	}
	if f.Scope == remediation.ScopePromotions {
		what = "no promotions"
	}
	if f.Until != nil {
		until = "ends " + remediation.Distance(now, *f.Until)
	}
	words := fmt.Sprintf("%s: %s, %s", of, what, until)
	if f.By != "" {
		words += ", by " + f.By
	}
	return words + ": " + f.Reason
}

// GoesOn reports whether a rollout is active, held or not, or a signal is raised.
func (sv ServiceNow) GoesOn() bool {
	return sv.Rollout.Active() || slices.ContainsFunc(sv.Signals, func(g SignalNow) bool { return g.Raised != nil })
}

// Monitoring reports whether backout would not hear of a breach of a service, and says why, or
// how it is.
func (o Overview) Monitoring(sv ServiceNow) (lost bool, words string) {
	words = o.watchdogWords(sv)
	switch {
	case sv.PrometheusAway != nil:
		return true, "lost: Prometheus stopped answering " + remediation.Distance(o.Time, *sv.PrometheusAway)
	case sv.watchdogLost(o.Time):
		return true, "lost: " + words
	case sv.WatchdogHeard:
		return false, "healthy, " + words
	}
	return false, words
}

// watchdogLost reports whether the watchdog was not heard for too long. What was refused only
// explains that: anybody can post without a token.
func (sv ServiceNow) watchdogLost(now time.Time) bool {
	return sv.Watchdog != nil && now.Sub(*sv.Watchdog) > sv.WatchdogMaxAge
}

// watchdogWords says when the watchdog's alert came last and, where that is not as it should
// be, what is known of the reason.
func (o Overview) watchdogWords(sv ServiceNow) string {
	if sv.Watchdog == nil {
		return "no watchdog alert yet"
	}
	words := "the last watchdog alert came " + remediation.Distance(o.Time, *sv.Watchdog)
	if !sv.WatchdogHeard {
		words = "no watchdog alert since the first start " + remediation.Distance(o.Time, *sv.Watchdog)
	}
	if why, try := o.NoWatchdog(sv); why != "" {
		words += ": " + why
		if try != "" {
			words += " (try: " + try + ")"
		}
	}
	return words
}

// NoWatchdog says why a service's watchdog is not heard and what to do about it, "" where it
// is, or may soon be, or nothing is known of it.
func (o Overview) NoWatchdog(sv ServiceNow) (why, try string) {
	// The generated configuration repeats it five times in that time.
	soon := 2 * sv.WatchdogMaxAge / 5
	listened := o.Time.Sub(o.Arrivals.Since)
	route := "load the rule Watchdog of " + sv.Service + " into Prometheus, and give Alertmanager the second route of generated/deploy/alertmanager.yml"
	switch r := o.Arrivals.Refused; {
	case sv.Watchdog == nil:
	case r != nil && (!sv.WatchdogHeard || r.Last.After(*sv.Watchdog)):
		return r.Words(), remediation.HintToken
	case sv.WatchdogHeard:
	case listened < soon && sv.watchdogLost(o.Time): // it was before this start, too
	case listened < soon:
		return "the first can take " + remediation.Span(soon) + " after a start", ""
	case o.Arrivals.Accepted:
		return "other alerts arrive", route
	default:
		why = "Alertmanager has sent nothing to this replica since it started " + remediation.Distance(o.Time, o.Arrivals.Since)
		if o.shared() { // what others were sent is not known here
			return why, route
		}
		return why, remediation.HintSilent
	}
	return "", ""
}

// shared reports whether several replicas are alive.
func (o Overview) shared() bool {
	live := 0
	for _, r := range o.Replicas {
		if r.Live {
			live++
		}
	}
	return live > 1
}

// RolloutWords is one line: "v2 active, stage alpha, 1% of traffic"; "v2 being rolled back
// by inc-2, its stage was alpha"; "v2 rolled back"; "none".
func (sv ServiceNow) RolloutWords() string {
	r := sv.Rollout
	if r.State == remediation.RolloutNone || r.State == "" {
		return remediation.RolloutNone
	}
	words := r.Release + " " + sv.StateWords(r)
	switch {
	case r.Stage == remediation.StageNone || r.Stage == "":
	case sv.BackingOut:
		return words + ", its stage was " + r.Stage
	default:
		words += ", stage " + r.Stage
	}
	words += sv.StillRuns(r)
	if sv.Traffic != "" {
		words += ", " + remediation.Share(sv.Traffic) + " of traffic"
	}
	if r.Held {
		words += ", held"
	}
	return words
}

// waitsFor says what an open incident is doing, and what comes next.
func waitsFor(v IncidentView, now time.Time) string {
	words, _ := headline(v)
	if n := v.Next; n != nil && n.Step != "" {
		words += "; next " + v.StepName(n.Step)
		if n.At != nil {
			words += " " + remediation.Distance(now, *n.At)
		}
		if strings.HasSuffix(n.What, "if the breach continues") {
			words += ", only if the breach continues"
		}
	}
	if v.CallAt != nil && v.CallAt.After(now) {
		what := "the breach is not acted on"
		switch {
		case v.RestoringFor != "" || v.AbortedBy != "":
			what = "the plan does not continue"
		case v.Reason == remediation.HoldUnconfirmed || v.Reason == remediation.HoldNoData:
			what = "it is unknown whether there is a breach"
		}
		words += fmt.Sprintf("; %s: if that lasts, a person is called %s", what, remediation.Distance(now, *v.CallAt))
	}
	return words
}
