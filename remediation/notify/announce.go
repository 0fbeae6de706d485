package notify

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"

	"github.com/locotoki/backout/alerts"
	"github.com/locotoki/backout/remediation"
	"github.com/locotoki/backout/remediation/audit"
	"github.com/locotoki/backout/remediation/gate"
	"github.com/locotoki/backout/remediation/plan"
)

// errKeptBack: what a step would tell is not to be told now.
var errKeptBack = errors.New("kept back")

// TellAhead tells what the plan has come to tell, before its next real step. It
// returns the incident as it is then.
//
// A step that tells is over with the transaction that hands it to the outbox, and
// holds nothing. It is kept back only where telling would be wrong: in observe mode,
// while a person has claimed the incident or silenced its alerts, and while nobody
// has seen the condition to be true. The same gates then hold the real step, which
// the plan goes on to all the same.
func (e *Notifier) TellAhead(ctx context.Context, b *plan.Plan, inc *remediation.Incident, q gate.Input) (*remediation.Incident, error) {
	for {
		s := inc.ToTell()
		if s == nil || inc.Unhandled() != nil {
			return inc, nil
		}
		err := e.change(ctx, b, inc, func(c *change) error { return c.tell(c.Inc.Step(s.ID()), q) })
		if errors.Is(err, errKeptBack) {
			return inc, nil
		}
		if err != nil {
			return nil, err
		}
		e.Outbox.WakeUp()
		if inc, _, err = e.Read(ctx, inc.ID, s.ID()); err != nil {
			return nil, err
		}
	}
}

// tell carries a step that tells out.
func (c *change) tell(s *remediation.Step, q gate.Input) error {
	q.Step = s
	confirmation, err := c.Confirmation(q)
	if err != nil {
		return err
	}
	for _, g := range []remediation.GateResult{c.Mode(s), c.Claim(), gate.Silence(q), confirmation} {
		if !g.OK {
			return errKeptBack
		}
	}
	step, err := c.Plan.PlanStep(s)
	if err != nil {
		return err
	}
	kind, ok := c.Plan.Kinds[s.Action].(remediation.Communicator)
	if !ok {
		return fmt.Errorf("step %s: %s announces nothing", s.ID(), s.Action)
	}
	a := kind.Announce(c.Plan.Playbook, step.Params)
	p, err := c.public(a.Components)
	if err != nil {
		return err
	}
	untrue, err := c.untrue(s, p, a, q)
	if err != nil {
		return err
	}
	p.Trouble(a.Components, a.Status)
	s.State, s.Started, s.Finished, s.Verified = remediation.StepDone, &c.Now, &c.Now, true
	detail := map[string]any{"target": s.Target}
	if untrue != "" {
		s.State, s.Error, detail["why"] = remediation.StepSkipped, untrue, untrue
	} else if p.Sayable() {
		if a.Words == "" {
			a.Words = c.words(p, remediation.PublicIdentified)
		}
		if err := c.publish(p, remediation.PublicIdentified, a.Words, s); err != nil {
			return err
		}
		maps.Copy(detail, told(p))
	} else { // no failure of telling holds the plan
		s.State, s.Error = remediation.StepSkipped, fmt.Sprintf("invalid component status %q", a.Status)
		detail["error"] = s.Error
	}
	detail["outcome"] = string(s.State)
	c.Tx.OnCommit(c.e.Metrics.Steps.WithLabelValues(s.Action, string(s.State)).Inc)
	return c.Audit(audit.KindOutcome, remediation.ActorEngine, s, detail)
}

// untrue says why what a step would tell is not so, which skips it; errKeptBack
// where it may become so. A rollout that is aborted without a breach troubles no
// customer. The first update says that there is a problem; later ones, in the
// playbook's own words, say what is done about it: they wait until the step that
// they come before may run, and are skipped with it.
func (c *change) untrue(s *remediation.Step, p *remediation.PublicIncident, a remediation.Announcement, q gate.Input) (string, error) {
	if c.Inc.Aborting() && len(c.Inc.Triggers) == 0 {
		return "the rollout is aborted without a breach: no problem to announce", nil
	}
	if len(p.Updates) == 0 || a.Words == "" {
		return "", nil
	}
	for i := range c.Inc.Steps {
		f := &c.Inc.Steps[i]
		if f.Tells || f.Plan != s.Plan || f.PlanIndex < s.PlanIndex {
			continue
		}
		switch {
		case f.State == remediation.StepSkipped:
			return f.ID() + " is skipped, and the text mentions it", nil
		case !f.Open():
			return "", nil
		}
		q.Step = f
		_, closed, err := c.Gates(q)
		if err == nil && closed != nil {
			err = errKeptBack
		}
		return "", err
	}
	return "", nil
}

// follow takes what the public was told on with the incident's life. Where
// nothing was told, nothing is.
func (c *change) follow(status remediation.PublicStatus) error {
	if c.Inc.Drill {
		return nil
	}
	p, err := c.Tx.PublicIncident(c.Inc.ID)
	if errors.Is(err, remediation.ErrNotFound) {
		return nil
	}
	if err != nil || p.Status == status || (p.Status == remediation.PublicResolved) != (status == remediation.PublicInvestigating) {
		return err
	}
	words := c.words(&p, status)
	for i := range p.Components {
		switch k := &p.Components[i]; status {
		case remediation.PublicResolved:
			k.Status = remediation.Operational
		case remediation.PublicIdentified:
			k.Status = k.Trouble
		}
	}
	if err := c.publish(&p, status, words, nil); err != nil {
		return err
	}
	detail := told(&p)
	detail["channel"] = ownPage
	return c.Audit(audit.KindNotified, remediation.ActorEngine, nil, detail)
}

// ownPage is the channel's name for the built-in status page, which shows what
// the store has.
const ownPage = "page"

// told is an update for the audit log.
func told(p *remediation.PublicIncident) map[string]any {
	u := p.Updates[len(p.Updates)-1]
	components := make([]any, len(p.Components))
	for i, k := range p.Components {
		components[i] = k.Name + ": " + string(k.Status)
	}
	return map[string]any{"status": string(u.Status), "words": u.Words, "components": components, "update": int64(u.Number)}
}

// public is what the public was told so far; for an incident of which nothing
// was, it is begun.
func (c *change) public(components []string) (*remediation.PublicIncident, error) {
	p, err := c.Tx.PublicIncident(c.Inc.ID)
	if errors.Is(err, remediation.ErrNotFound) {
		p, err = remediation.PublicIncident{Incident: c.Inc.ID, Service: c.Inc.Service, Created: c.Now, Components: []remediation.PublicComponent{}}, nil
		if p.Name = c.pages().Title; p.Name == "" {
			p.Name = "Problems with " + remediation.Names(components, c.Inc.Service)
		}
	}
	return &p, err
}

// publish adds an update, and hands it to every status page, and to mail where that
// was begun.
func (c *change) publish(p *remediation.PublicIncident, status remediation.PublicStatus, words string, s *remediation.Step) error {
	p.Status, p.Updated, p.Resolved = status, c.Now, nil
	if status == remediation.PublicResolved {
		p.Resolved = &c.Now
	}
	u := remediation.PublicUpdate{Number: len(p.Updates) + 1, Time: c.Now, Status: status, Words: words}
	p.Updates = append(p.Updates, u)
	if err := c.Tx.PutPublicIncident(*p); err != nil {
		return err
	}
	body, err := json.Marshal(c.message(p))
	if err != nil {
		return fmt.Errorf("encode update %d of incident %s: %w", u.Number, c.Inc.ID, err)
	}
	for _, ch := range c.e.statusPages {
		m := remediation.Message{
			Channel: ch.Name(), Key: c.Inc.ID, Service: c.Inc.Service, Incident: c.Inc.ID,
			What: fmt.Sprintf("update %d: %s", u.Number, status), Body: body, Created: c.Now, Next: c.Now,
		}
		if s != nil {
			m.Step = s.ID()
		}
		if err := c.Tx.PutMessage(&m); err != nil {
			return err
		}
	}
	return c.mailUpdate(p, s)
}

// message is what channels are told of the newest update.
func (c *change) message(p *remediation.PublicIncident) remediation.PublicMessage {
	return remediation.PublicMessage{
		Key:  fmt.Sprintf("%s/%s@%d", c.Inc.Service, c.Inc.ID, c.Inc.Opened.Unix()),
		Name: p.Name, Impact: p.Impact, Components: p.Components, Update: p.Updates[len(p.Updates)-1],
		NotifySubscribers: c.pages().NotifySubscribers,
	}
}

// words are the playbook's for a status, or a sentence of ours: for customers, so
// that none of what happens inside is in it.
func (c *change) words(p *remediation.PublicIncident, status remediation.PublicStatus) string {
	concerned := make([]string, len(p.Components))
	for i, k := range p.Components {
		concerned[i] = k.Name
	}
	what := remediation.Names(concerned, c.Inc.Service)
	again := len(p.Updates) > 0 && p.Status != remediation.PublicIdentified
	m := c.pages().Messages
	own, ours := "", ""
	switch status {
	case remediation.PublicInvestigating:
		own, ours = m.Investigating, "The problem with %s may have come back. We are looking into it."
	case remediation.PublicIdentified:
		own, ours = m.Identified, "There is a problem with %s. We are working on it."
		if again {
			ours = "The problem with %s has come back. We are working on it."
		}
	case remediation.PublicMonitoring:
		own, ours = m.Monitoring, "The problem with %s has stopped. We are still watching it."
	case remediation.PublicResolved:
		own, ours = m.Resolved, "The problem with %s is solved."
	}
	if own != "" {
		return own
	}
	return fmt.Sprintf(ours, what)
}

// pages is what the playbook says of status pages.
func (c *change) pages() alerts.StatusPage {
	if m := c.Plan.Communications; m != nil && m.StatusPage != nil {
		return *m.StatusPage
	}
	return alerts.StatusPage{}
}
