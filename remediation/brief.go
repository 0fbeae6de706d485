package remediation

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/locotoki/backout/alerts"
	"github.com/locotoki/backout/remediation/audit"
)

// Brief is what customer support is told of an open incident.
type Brief struct {
	Incident string `json:"incident"`
	Service  string `json:"service"`
	// Owner is who tells it on, "" where the playbook does not say.
	Owner string `json:"owner"`
	// Text is plain text to copy.
	Text string `json:"text"`
}

// FlagSwitch marks a kind whose steps switch a flag off.
type FlagSwitch interface {
	ActionKind
	// SwitchesOff names the flag that a step with these parameters switches off.
	SwitchesOff(params any) string
}

const (
	// mostFact bounds a fact in a brief, mostBriefLine a line of it, in characters.
	mostFact      = 5000
	mostBriefLine = 6000
)

// Brief implements Service. It says what the public is told, and nothing of what
// happens inside; a drill, or an incident that is closed, has none.
func (e *Engine) Brief(ctx context.Context, id string) (Brief, error) {
	var inc *Incident
	var public *PublicIncident
	var v IncidentView
	err := e.store.View(ctx, func(tx Tx) (err error) {
		inc, err = tx.Incident(id)
		if errors.Is(err, ErrNotFound) {
			return refuse(Missing, "there is no incident %s", id)
		}
		if err != nil {
			return err
		}
		if v, err = viewOf(tx, inc); err != nil {
			return err
		}
		p, err := tx.PublicIncident(id)
		if errors.Is(err, ErrNotFound) {
			return nil
		}
		public = &p
		return err
	})
	if err != nil {
		return Brief{}, err
	}
	switch {
	case inc.Drill:
		return Brief{}, refuse(Conflict, "incident %s is a drill: customers see nothing of it", id)
	case inc.State == Closed:
		return Brief{}, refuse(Conflict, "incident %s is closed: customer support needs no brief of it", id)
	}
	b, err := e.bookFor(ctx, inc)
	if err != nil {
		return Brief{}, err
	}
	facts, support := briefOf(b, inc, v, public, e.now())
	out := Brief{Incident: inc.ID, Service: inc.Service, Owner: facts.Owner}
	if out.Text, err = support.Render(facts); err != nil { // tried when it was loaded, but not with these facts
		e.log.Error("the support brief's template does not render; the built-in one stands in", "incident", id, "err", err)
		if out.Text, err = (*alerts.SupportBrief)(nil).Render(facts); err != nil {
			return Brief{}, err
		}
	}
	lines := strings.Split(strings.ReplaceAll(out.Text, "\t", " "), "\n")
	for i := range lines {
		lines[i] = strings.TrimRight(Plain(lines[i], mostBriefLine), " ")
	}
	out.Text = strings.Join(lines, "\n")
	return out, nil
}

// briefOf collects what a brief may say; public is nil where the public was told nothing.
func briefOf(b *book, inc *Incident, v IncidentView, public *PublicIncident, now time.Time) (alerts.Brief, *alerts.SupportBrief) {
	var support *alerts.SupportBrief
	f := alerts.Brief{Service: inc.Service, Incident: inc.ID, Next: "As soon as something changes."}
	if c := b.Communications; c != nil {
		if support = c.SupportBrief; support != nil {
			f.Owner, f.Points = Plain(support.Owner, mostFact), support.Points
		}
		if c.StatusPage != nil {
			f.Page = Plain(c.StatusPage.URL, mostFact)
		}
	}
	if public != nil {
		u := public.Updates[len(public.Updates)-1]
		f.Told, f.Title, f.Since = true, Plain(public.Name, mostFact), briefMoment(public.Created)
		f.Status, f.Words = string(public.Status), Plain(u.Words, mostFact)
		for _, c := range public.Components {
			f.Components = append(f.Components, alerts.BriefComponent{Name: Plain(c.Name, mostFact), Status: strings.ReplaceAll(string(c.Status), "_", " ")})
		}
	}
	for i := range inc.Steps {
		if flag := b.switchedOff(&inc.Steps[i]); flag != nil && v.Steps[i].Changed == nil {
			feature := flag.Description
			if feature == "" {
				feature = flag.Name
			}
			f.Fallbacks = append(f.Fallbacks, alerts.BriefFallback{
				Feature: Plain(feature, mostFact), Flag: flag.Name, Instead: Plain(flag.Fallback, mostFact),
			})
		}
	}
	if n := nextOf(inc); n != nil && n.At != nil && n.At.After(now) {
		f.Next = "At about " + briefMoment(*n.At) + ", or as soon as something changes."
	}
	return f, support
}

// switchedOff is the flag that a step has switched off, or found off; nil: none.
func (b *book) switchedOff(s *Step) *alerts.Flag {
	if s.State != StepDone && s.State != StepNoChange {
		return nil
	}
	kind, ok := b.kinds[s.Action].(FlagSwitch)
	if !ok {
		return nil
	}
	step, err := b.planStep(s)
	if err != nil {
		return nil
	}
	return b.Flag(kind.SwitchesOff(step.Params))
}

func briefMoment(t time.Time) string { return t.UTC().Format("2 January 2006, 15:04 UTC") }

// briefReady is what the team reads with the first public update, "" where the
// playbook has no support brief.
func (b *book) briefReady(en audit.Entry) string {
	if en.Kind != audit.KindOutcome || fmt.Sprint(en.Detail["update"]) != "1" || b.Communications.SupportBrief == nil {
		return ""
	}
	return "Support brief is ready: backout incident brief " + en.Incident
}
