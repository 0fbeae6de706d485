package notify

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/locotoki/backout/alerts"
	"github.com/locotoki/backout/remediation"
	"github.com/locotoki/backout/remediation/audit"
	"github.com/locotoki/backout/remediation/plan"
)

// byMail is the channel's name in the entries that decide on mail.
const byMail = "mail"

// mailed is what was decided about an incident's mail; the zero value: nothing yet.
type mailed struct {
	// First is the first update that went by mail, 0 where none did.
	First int `json:"first"`
	// Kept: the team was told that no mail goes out, and why.
	Kept bool `json:"kept,omitempty"`
}

// MailLong writes to those whom the playbook names once an incident has lasted for
// as long as it says, counted from its opening.
//
// Customers read it, so it says what the public page says, and nothing else does:
// only an incident that the public was told of, and that is not resolved for it, is
// mailed. The first mail carries the newest update, and each further one follows by
// publish until it is resolved. Where the public was told nothing (in observe mode,
// under a claim, without a status_page step) or no mail server is configured, no
// customer is written to: the audit log and the team say so once, and that a person
// may want to. Should the public be told later, the mail goes out then.
//
// What was decided is kept with the decision, so that neither a restart nor a reopened
// incident mails anything twice.
func (e *Notifier) MailLong(ctx context.Context) error {
	var open []*remediation.Incident
	err := e.Store.View(ctx, func(tx remediation.Tx) (err error) {
		real := false
		open, err = tx.Incidents(remediation.IncidentFilter{Open: true, Drill: &real})
		return err
	})
	if err != nil {
		return fmt.Errorf("mail of long incidents: %w", err)
	}
	for _, inc := range open {
		if err := e.mailOf(ctx, inc); err != nil && ctx.Err() == nil {
			e.Log.Error("cannot decide whether to mail an incident; retrying", "incident", inc.ID, "err", err)
		}
	}
	return nil
}

// mailOf decides whether an open incident's first mail goes out now.
func (e *Notifier) mailOf(ctx context.Context, inc *remediation.Incident) error {
	b, err := e.PlanFor(ctx, inc)
	if err != nil {
		return err
	}
	if m := b.Mail(); m == nil || e.Now().Sub(inc.Opened) < time.Duration(m.After) {
		return nil
	}
	what := mailed{}
	err = e.Store.View(ctx, func(tx remediation.Tx) (err error) {
		what, err = e.mailToDo(tx, inc.ID)
		return err
	})
	if err != nil || what == (mailed{}) {
		return err
	}
	return e.mailFirst(ctx, b, inc.ID)
}

// mailToDo is what is to be decided now about an incident that has lasted too long;
// zero: nothing.
func (e *Notifier) mailToDo(tx remediation.Tx, id string) (mailed, error) {
	was, err := mailedOf(tx, id)
	if err != nil || was.First > 0 {
		return mailed{}, err
	}
	p, err := tx.PublicIncident(id)
	told := err == nil && p.Status != remediation.PublicResolved
	switch {
	case err != nil && !errors.Is(err, remediation.ErrNotFound):
		return mailed{}, err
	case told && len(e.mail) > 0:
		return mailed{First: len(p.Updates)}, nil
	case !was.Kept:
		return mailed{Kept: true}, nil
	}
	return mailed{}, nil
}

// mailFirst decides about an incident's first mail.
func (e *Notifier) mailFirst(ctx context.Context, b *plan.Plan, id string) error {
	return e.Store.Update(ctx, func(tx remediation.Tx) error {
		inc, err := tx.Incident(id)
		if err != nil || inc.State == remediation.Closed {
			return err
		}
		what, err := e.mailToDo(tx, id)
		if err != nil || what == (mailed{}) {
			return err
		}
		raw, err := json.Marshal(what)
		if err != nil {
			return fmt.Errorf("encode mail state: %w", err)
		}
		if err := tx.PutReceipt(remediation.ActorEngine, byMail+"/"+id, string(raw)); err != nil {
			return err
		}
		c := e.on(tx, b, inc, e.Now())
		m := b.Mail()
		detail := map[string]any{"channel": byMail, "to": addresses(m)}
		if what.First == 0 {
			detail["what"] = "the team: no mail to customers, although the incident lasts longer than " + remediation.Span(m.After)
			detail["why"] = "nothing was published on the status page, and mail only repeats it; write to customers yourself if they are affected"
			if len(e.mail) == 0 {
				detail["why"] = "no mail server is configured; write to customers yourself, or set mail: in the configuration"
			}
			return c.Audit(audit.KindNotified, remediation.ActorEngine, nil, detail)
		}
		p, err := tx.PublicIncident(id)
		if err != nil {
			return err
		}
		detail["what"] = fmt.Sprintf("customers by mail: the incident lasts longer than %s", remediation.Span(m.After))
		detail["update"] = int64(what.First)
		if err := c.Audit(audit.KindNotified, remediation.ActorEngine, nil, detail); err != nil {
			return err
		}
		return c.putMail(&p, what.First, nil)
	})
}

// mailUpdate hands an update that was just published to mail, where earlier ones
// of the incident went there.
func (c *change) mailUpdate(p *remediation.PublicIncident, s *remediation.Step) error {
	was, err := mailedOf(c.Tx, c.Inc.ID)
	if err != nil || was.First == 0 || c.Plan.Mail() == nil {
		return err
	}
	return c.putMail(p, was.First, s)
}

// putMail puts the newest update in the outbox, once for each address.
func (c *change) putMail(p *remediation.PublicIncident, first int, s *remediation.Step) error {
	u := p.Updates[len(p.Updates)-1]
	body := c.message(p)
	for _, ch := range c.e.mail {
		for _, to := range addresses(c.Plan.Mail()) {
			body.Mail = &remediation.PublicMail{To: to.(string), First: first, Since: p.Created.UTC(), Page: c.pages().URL}
			raw, err := json.Marshal(body)
			if err != nil {
				return fmt.Errorf("encode mail of incident %s: %w", c.Inc.ID, err)
			}
			m := remediation.Message{
				Channel: ch.Name(), Key: c.Inc.ID + "/" + to.(string), Service: c.Inc.Service, Incident: c.Inc.ID,
				What: fmt.Sprintf("update %d to %s: %s", u.Number, to, u.Status), Body: raw, Created: c.Now, Next: c.Now,
			}
			if s != nil {
				m.Step = s.ID()
			}
			if err := c.Tx.PutMessage(&m); err != nil {
				return err
			}
		}
	}
	c.Tx.OnCommit(c.e.Outbox.WakeUp)
	return nil
}

func mailedOf(tx remediation.Tx, id string) (m mailed, err error) {
	raw, err := receiptOf(tx, remediation.ActorEngine, byMail+"/"+id)
	if err == nil && raw != "" {
		err = json.Unmarshal([]byte(raw), &m)
	}
	return m, err
}

// addresses are those that are written to, each once, for the audit log.
func addresses(m *alerts.Mail) (out []any) {
	for _, to := range m.To {
		if !slices.Contains(out, any(to)) {
			out = append(out, to)
		}
	}
	return out
}
