package remediation

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"strings"

	"github.com/locotoki/backout/alerts"
	"github.com/locotoki/backout/remediation/audit"
)

// Announcement is what a step tells the public.
type Announcement struct {
	// Components are names as the page shows them.
	Components []string
	// Status is theirs from now on; "" leaves it as it is.
	Status ComponentStatus
	// Words are for customers; "" stands for the playbook's, or for ours.
	Words string
}

// errKeptBack: what a step would tell is not to be told now.
var errKeptBack = errors.New("kept back")

// tellAhead tells what the plan has come to tell, before its next real step. It
// returns the incident as it is then.
//
// A step that tells is over with the transaction that hands it to the outbox, and
// holds nothing. It is kept back only where telling would be wrong: in observe mode,
// while a human has claimed the incident or silenced its alerts, and while nobody
// has seen the condition to be true. The same gates then hold the real step, which
// the plan goes on to all the same.
func (e *Engine) tellAhead(ctx context.Context, b *book, inc *Incident, q question) (*Incident, error) {
	for {
		s := inc.toTell()
		if s == nil || inc.unhandled() != nil {
			return inc, nil
		}
		err := e.change(ctx, b, inc, func(c *change) error { return c.tell(c.inc.step(s.ID()), q) })
		if errors.Is(err, errKeptBack) {
			return inc, nil
		}
		if err != nil {
			return nil, err
		}
		e.outbox.wakeUp()
		if inc, _, err = e.read(ctx, inc.ID, s.ID()); err != nil {
			return nil, err
		}
	}
}

// tell carries a step that tells out.
func (c *change) tell(s *Step, q question) error {
	q.step = s
	confirmation, err := c.confirmation(q)
	if err != nil {
		return err
	}
	for _, g := range []gateResult{c.mode(s), c.claim(), silence(q), confirmation} {
		if g.reason != "" {
			return errKeptBack
		}
	}
	step, err := c.b.planStep(s)
	if err != nil {
		return err
	}
	kind, ok := c.b.kinds[s.Action].(Communicator)
	if !ok {
		return fmt.Errorf("step %s: %s tells nothing", s.ID(), s.Action)
	}
	a := kind.Announce(c.b.Playbook, step.Params)
	p, err := c.public(a.Components)
	if err != nil {
		return err
	}
	untrue, err := c.untrue(s, p, a, q)
	if err != nil {
		return err
	}
	p.trouble(a.Components, a.Status)
	s.State, s.Started, s.Finished, s.Verified = StepDone, &c.now, &c.now, true
	detail := map[string]any{"target": s.Target}
	if untrue != "" {
		s.State, s.Error, detail["why"] = StepSkipped, untrue, untrue
	} else if p.sayable() {
		if a.Words == "" {
			a.Words = c.words(p, PublicIdentified)
		}
		if err := c.publish(p, PublicIdentified, a.Words, s); err != nil {
			return err
		}
		maps.Copy(detail, told(p))
	} else { // no failure of telling holds the plan
		s.State, s.Error = StepSkipped, fmt.Sprintf("%q is no status of a component", a.Status)
		detail["error"] = s.Error
	}
	detail["outcome"] = string(s.State)
	c.tx.OnCommit(c.e.metrics.steps.WithLabelValues(s.Action, string(s.State)).Inc)
	return c.audit(audit.KindOutcome, actorEngine, s, detail)
}

// untrue says why what a step would tell is not so, which skips it; errKeptBack
// where it may become so. A rollout that is aborted without a breach troubles no
// customer. The first update says that there is a problem; later ones, in the
// playbook's own words, say what is done about it: they wait until the step that
// they come before may run, and are skipped with it.
func (c *change) untrue(s *Step, p *PublicIncident, a Announcement, q question) (string, error) {
	if c.inc.aborting() && len(c.inc.Triggers) == 0 {
		return "the rollout is aborted without a breach: there is no trouble to tell of", nil
	}
	if len(p.Updates) == 0 || a.Words == "" {
		return "", nil
	}
	for i := range c.inc.Steps {
		f := &c.inc.Steps[i]
		if f.Tells || f.Plan != s.Plan || f.PlanIndex < s.PlanIndex {
			continue
		}
		switch {
		case f.State == StepSkipped:
			return f.ID() + " is skipped, which it speaks of", nil
		case !f.open():
			return "", nil
		}
		q.step = f
		_, closed, err := c.gates(q)
		if err == nil && closed != nil {
			err = errKeptBack
		}
		return "", err
	}
	return "", nil
}

// follow takes what the public was told on with the incident's life. Where
// nothing was told, nothing is.
func (c *change) follow(status PublicStatus) error {
	if c.inc.Drill {
		return nil
	}
	p, err := c.tx.PublicIncident(c.inc.ID)
	if errors.Is(err, ErrNotFound) {
		return nil
	}
	if err != nil || p.Status == status || (p.Status == PublicResolved) != (status == PublicInvestigating) {
		return err
	}
	words := c.words(&p, status)
	for i := range p.Components {
		switch k := &p.Components[i]; status {
		case PublicResolved:
			k.Status = Operational
		case PublicIdentified:
			k.Status = k.Trouble
		}
	}
	if err := c.publish(&p, status, words, nil); err != nil {
		return err
	}
	detail := told(&p)
	detail["channel"] = ownPage
	return c.audit(audit.KindNotified, actorEngine, nil, detail)
}

// ownPage is the channel's name for the built-in status page, which shows what
// the store has.
const ownPage = "page"

// told is an update for the audit log.
func told(p *PublicIncident) map[string]any {
	u := p.Updates[len(p.Updates)-1]
	components := make([]any, len(p.Components))
	for i, k := range p.Components {
		components[i] = k.Name + ": " + string(k.Status)
	}
	return map[string]any{"status": string(u.Status), "words": u.Words, "components": components, "update": int64(u.Number)}
}

// public is what the public was told so far; for an incident of which nothing
// was, it is begun.
func (c *change) public(components []string) (*PublicIncident, error) {
	p, err := c.tx.PublicIncident(c.inc.ID)
	if errors.Is(err, ErrNotFound) {
		p, err = PublicIncident{Incident: c.inc.ID, Service: c.inc.Service, Created: c.now, Components: []PublicComponent{}}, nil
		if p.Name = c.pages().Title; p.Name == "" {
			p.Name = "Problems with " + names(components, c.inc.Service)
		}
	}
	return &p, err
}

// publish adds an update, and hands it to every status page, and to mail where that
// was begun.
func (c *change) publish(p *PublicIncident, status PublicStatus, words string, s *Step) error {
	p.Status, p.Updated, p.Resolved = status, c.now, nil
	if status == PublicResolved {
		p.Resolved = &c.now
	}
	u := PublicUpdate{Number: len(p.Updates) + 1, Time: c.now, Status: status, Words: words}
	p.Updates = append(p.Updates, u)
	if err := c.tx.PutPublicIncident(*p); err != nil {
		return err
	}
	body, err := json.Marshal(c.message(p))
	if err != nil {
		return fmt.Errorf("encode update %d of incident %s: %w", u.Number, c.inc.ID, err)
	}
	for _, ch := range c.e.statusPages {
		m := Message{
			Channel: ch.Name(), Key: c.inc.ID, Service: c.inc.Service, Incident: c.inc.ID,
			What: fmt.Sprintf("update %d: %s", u.Number, status), Body: body, Created: c.now, Next: c.now,
		}
		if s != nil {
			m.Step = s.ID()
		}
		if err := c.tx.PutMessage(&m); err != nil {
			return err
		}
	}
	return c.mailUpdate(p, s)
}

// message is what channels are told of the newest update.
func (c *change) message(p *PublicIncident) PublicMessage {
	return PublicMessage{
		Key:  fmt.Sprintf("%s/%s@%d", c.inc.Service, c.inc.ID, c.inc.Opened.Unix()),
		Name: p.Name, Impact: p.Impact, Components: p.Components, Update: p.Updates[len(p.Updates)-1],
		NotifySubscribers: c.pages().NotifySubscribers,
	}
}

// words are the playbook's for a status, or a sentence of ours: for customers, so
// that nothing of what happens inside is in it.
func (c *change) words(p *PublicIncident, status PublicStatus) string {
	concerned := make([]string, len(p.Components))
	for i, k := range p.Components {
		concerned[i] = k.Name
	}
	what := names(concerned, c.inc.Service)
	again := len(p.Updates) > 0 && p.Status != PublicIdentified
	m := c.pages().Messages
	own, ours := "", ""
	switch status {
	case PublicInvestigating:
		own, ours = m.Investigating, "The problem with %s may have come back. We are looking into it."
	case PublicIdentified:
		own, ours = m.Identified, "There is a problem with %s. We are working on it."
		if again {
			ours = "The problem with %s has come back. We are working on it."
		}
	case PublicMonitoring:
		own, ours = m.Monitoring, "The problem with %s has stopped. We keep watching it."
	case PublicResolved:
		own, ours = m.Resolved, "The problem with %s is solved."
	}
	if own != "" {
		return own
	}
	return fmt.Sprintf(ours, what)
}

// pages is what the playbook says of status pages.
func (c *change) pages() alerts.StatusPage {
	if m := c.b.Communications; m != nil && m.StatusPage != nil {
		return *m.StatusPage
	}
	return alerts.StatusPage{}
}

// names lists components as a sentence does; instead stands for none.
func names(list []string, instead string) string {
	switch n := len(list); n {
	case 0:
		return instead
	case 1:
		return list[0]
	default:
		return strings.Join(list[:n-1], ", ") + " and " + list[n-1]
	}
}
