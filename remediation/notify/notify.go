// Package notify informs people: the public status page and its followers, the team's
// channel, customers by mail, customer support by a brief, and the keepers of the audit
// log's head. A message is put in the outbox in the same transaction as the change that it
// reports, and delivered afterwards; no step waits for it.
package notify

import (
	"context"
	"slices"
	"sync"
	"time"

	"github.com/locotoki/backout/remediation"
	"github.com/locotoki/backout/remediation/gate"
	"github.com/locotoki/backout/remediation/ledger"
	"github.com/locotoki/backout/remediation/plan"
)

// Notifier puts messages in the outbox, and delivers them.
type Notifier struct {
	*gate.Gates
	Outbox *Outbox
	// statusPages, team and mail are the outbox's channels, by what they take; so are
	// the webhooks.
	statusPages, team, mail []remediation.Channel
	webhooks                []Webhook

	mu sync.Mutex
	// loggedHead is what the process's log was last told of the audit log's end.
	loggedHead reportedHead
}

// Channels are those of a notifier, each named once.
type Channels struct {
	StatusPages, Team, Mail []remediation.Channel
	Webhooks                []Webhook
}

// New returns a notifier by these channels. What is written from now on is reported to the
// team and to the webhooks.
func New(g *gate.Gates, ch Channels) (*Notifier, error) {
	all := slices.Concat(ch.StatusPages, ch.Team, ch.Mail)
	for _, w := range ch.Webhooks {
		all = append(all, w)
	}
	out, err := newOutbox(all)
	if err != nil {
		return nil, err
	}
	e := &Notifier{Gates: g, Outbox: out, statusPages: ch.StatusPages, team: ch.Team, mail: ch.Mail, webhooks: ch.Webhooks}
	g.BeforeCommit(func(tx remediation.Tx) error {
		if err := e.notifyTeam(tx); err != nil {
			return err
		}
		return e.notifyWebhooks(tx)
	})
	return e, nil
}

// Follow publishes what the incident's life adds to the public incident. It publishes
// nothing if nothing was published before.
func (e *Notifier) Follow(c *gate.Change, status remediation.PublicStatus) error {
	return (&change{c, e}).follow(status)
}

// change is a transaction on an incident that people are told of.
type change struct {
	*gate.Change
	e *Notifier
}

func (e *Notifier) on(tx remediation.Tx, b *plan.Plan, inc *remediation.Incident, now time.Time) *change {
	return &change{e.On(tx, b, inc, now), e}
}

func (e *Notifier) change(ctx context.Context, b *plan.Plan, seen *remediation.Incident, fn func(*change) error) error {
	return e.Change(ctx, b, seen, func(c *ledger.Change) error { return fn(&change{e.With(c), e}) })
}
