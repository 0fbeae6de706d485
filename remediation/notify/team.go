package notify

import (
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/locotoki/backout/remediation"
	"github.com/locotoki/backout/remediation/audit"
	"github.com/locotoki/backout/remediation/ledger"
	"github.com/locotoki/backout/remediation/view"
)

// Which of an incident's audit entries its team gets. An alert that turns out to be
// nothing starts no message: only opensThread does; addsToThread follows once there
// is one; updatesStory only brings the incident's state up to date.
var (
	opensThread  = []audit.Kind{audit.KindHeld, audit.KindOutcome, audit.KindInDoubt, audit.KindEscalated, audit.KindClaimed, audit.KindDrift, audit.KindRestored}
	addsToThread = []audit.Kind{
		audit.KindAttached, audit.KindApproved, audit.KindDenied, audit.KindRecovered, audit.KindClosed, audit.KindReopened, audit.KindReleased, audit.KindNotified, audit.KindSignal,
	}
	updatesStory = []audit.Kind{audit.KindIntent, audit.KindVerified, audit.KindSettled}
	// withoutIncident are sent for a service; what is in doubt then is a promotion.
	withoutIncident = []audit.Kind{audit.KindHeld, audit.KindFrozen, audit.KindThawed, audit.KindSignal, audit.KindStage, audit.KindInDoubt, audit.KindBlind, audit.KindDrift}
)

// notifyTeam puts a message for each incident, and each service, that the entries of
// a transaction tell something about.
func (e *Notifier) notifyTeam(tx remediation.Tx) error {
	if len(e.team) == 0 {
		return nil
	}
	entries := tx.Appended()
	var done []string
	for i, first := range entries {
		about := first.Incident
		if about == "" {
			about = "service/" + first.Service
		}
		if slices.Contains(done, about) {
			continue
		}
		done = append(done, about)
		same := slices.DeleteFunc(slices.Clone(entries[i:]), func(en audit.Entry) bool {
			return en.Incident != first.Incident || en.Service != first.Service && first.Incident == ""
		})
		var err error
		if first.Incident == "" {
			err = e.notifyOfService(tx, first.Service, same)
		} else {
			err = e.notifyOfIncident(tx, first.Incident, same)
		}
		if err != nil {
			return fmt.Errorf("notify the team about %s: %w", about, err)
		}
	}
	return nil
}

// notifyOfIncident puts messages about what is new in one incident.
func (e *Notifier) notifyOfIncident(tx remediation.Tx, id string, entries []audit.Entry) error {
	begins, moves := false, false
	var sources []audit.Entry // of m.Told
	m := view.TeamMessage{}
	for _, en := range entries {
		starts := slices.Contains(opensThread, en.Kind) && en.Detail["reason"] != string(remediation.HoldUnconfirmed) || view.PageReason(en) != ""
		begins = begins || starts || en.Kind == audit.KindIntent
		moves = moves || slices.Contains(updatesStory, en.Kind)
		notified := en.Kind == audit.KindNotified && (!e.forTeam(en) || saidBy(entries, en))
		if (starts || slices.Contains(addsToThread, en.Kind)) && !notified {
			m.Told = append(m.Told, lineOf(en))
			sources = append(sources, en)
		}
	}
	if len(m.Told) == 0 && !moves {
		return nil
	}
	inc, err := tx.Incident(id)
	if err != nil || inc.Drill {
		return err
	}
	b := e.PlanOf(inc.Service)
	if b == nil { // a reload has left it out, which concerns later incidents
		if b, err = e.PlanIn(tx, inc); errors.As(err, new(*ledger.UnreadableError)) {
			return nil
		} else if err != nil {
			return err
		}
	}
	if b.TeamChannel() == "" {
		return nil
	}
	for i := range m.Told {
		if ready := b.BriefReady(sources[i]); ready != "" {
			m.Told[i].Why = strings.TrimSpace(m.Told[i].Why + " " + ready)
		}
	}
	for _, ch := range e.team {
		_, err := tx.Receipt(ch.Name(), id)
		told := err == nil
		if err != nil && !errors.Is(err, remediation.ErrNotFound) {
			return err
		}
		if !told && !begins {
			continue
		}
		if m.Story == nil {
			v, err := view.OfIncident(tx, inc)
			if err != nil {
				return err
			}
			story := view.NewStory(v, view.NewServiceNow(b), e.Now().UTC())
			story.Triggers = nil // up to a thousand alerts: Broke counts them
			m.Channel, m.Story = b.TeamChannel(), &story
		}
		if !told { // from now on it is: the channel's own receipt replaces this one
			if err := tx.PutReceipt(ch.Name(), id, ""); err != nil {
				return err
			}
		}
		err = e.putTeamMessage(tx, ch, m, remediation.Message{
			Key: id, Service: inc.Service, Incident: id, What: "the incident: " + story(m), Unrecorded: told,
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// forTeam reports whether a notification that is in the log concerns the team: that a person
// is called, what the public was told, who is written to, and what others than the team
// itself could not be told. What channels delivered is for the audit log.
func (e *Notifier) forTeam(en audit.Entry) bool {
	_, delivered := en.Detail["outcome"]
	switch {
	case view.PageReason(en) != "":
		return true
	case view.Undelivered(en): // of its own channel it would have to hear by that channel
		return !slices.ContainsFunc(e.team, func(ch remediation.Channel) bool { return ch.Name() == en.Detail["channel"] })
	}
	return !delivered && (en.Detail["channel"] == ownPage || en.Detail["channel"] == byMail)
}

// saidBy reports whether a hold in the same transaction says what the page would.
func saidBy(entries []audit.Entry, page audit.Entry) bool {
	return view.PageReason(page) != "" && slices.ContainsFunc(entries, func(en audit.Entry) bool {
		return en.Kind == audit.KindHeld && en.Detail["reason"] == page.Detail["reason"]
	})
}

// story is what a message is about, for the audit log.
func story(m view.TeamMessage) string {
	if len(m.Told) > 0 {
		return m.Told[0].Title
	}
	return m.Story.Headline
}

// notifyOfService puts messages to those who run a service, or all services, about
// what concerns no incident.
func (e *Notifier) notifyOfService(tx remediation.Tx, service string, entries []audit.Entry) error {
	var told []remediation.TeamLine
	for _, en := range entries {
		if slices.Contains(withoutIncident, en.Kind) {
			told = append(told, lineOf(en))
		}
	}
	if len(told) == 0 {
		return nil
	}
	return e.notifyChannels(tx, service, told)
}

// notifyChannels puts a message to those who run a service ("": every service), one
// where they share a channel.
func (e *Notifier) notifyChannels(tx remediation.Tx, service string, told []remediation.TeamLine) error {
	var channels []string
	for _, b := range e.Plans() {
		if c := b.TeamChannel(); c != "" && (service == "" || b.Service == service) && !slices.Contains(channels, c) {
			channels = append(channels, c)
		}
	}
	slices.Sort(channels)
	for _, c := range channels {
		for _, ch := range e.team {
			m := view.TeamMessage{Channel: c, Told: told}
			err := e.putTeamMessage(tx, ch, m, remediation.Message{Key: "service/" + service, Service: service, What: story(m), Unrecorded: true})
			if err != nil {
				return err
			}
		}
	}
	return nil
}

func (e *Notifier) putTeamMessage(tx remediation.Tx, ch remediation.Channel, m view.TeamMessage, out remediation.Message) error {
	var err error
	if out.Body, err = json.Marshal(m); err != nil {
		return fmt.Errorf("encode message: %w", err)
	}
	out.Channel, out.Created, out.Next = ch.Name(), e.Now(), e.Now()
	if err := tx.PutMessage(&out); err != nil {
		return err
	}
	tx.OnCommit(e.Outbox.WakeUp)
	return nil
}

func lineOf(e audit.Entry) remediation.TeamLine {
	t := view.Describe(e)
	return remediation.TeamLine{
		Kind: e.Kind, Time: e.Time, Actor: e.Actor, Title: t.Title, Tone: t.Tone, Why: t.Why, Seq: e.Seq, Hash: e.Hash,
	}
}
