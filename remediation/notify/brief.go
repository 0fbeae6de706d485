package notify

import (
	"cmp"
	"context"
	"errors"
	"strings"
	"time"

	"github.com/locotoki/backout/alerts"
	"github.com/locotoki/backout/remediation"
	"github.com/locotoki/backout/remediation/plan"
	"github.com/locotoki/backout/remediation/view"
)

const (
	// mostFact bounds a fact in a brief, mostBriefLine a line of it, in characters.
	mostFact      = 5000
	mostBriefLine = 6000
)

// Brief is what customer support is told of an open incident. It says what the public knows, and nothing internal; a drill
// or a closed incident has none.
func (e *Notifier) Brief(ctx context.Context, id string) (remediation.Brief, error) {
	var inc *remediation.Incident
	var public *remediation.PublicIncident
	var v view.IncidentView
	err := e.Store.View(ctx, func(tx remediation.Tx) (err error) {
		inc, err = tx.Incident(id)
		if errors.Is(err, remediation.ErrNotFound) {
			return remediation.NoIncident(id)
		}
		if err != nil {
			return err
		}
		if v, err = view.OfIncident(tx, inc); err != nil {
			return err
		}
		p, err := tx.PublicIncident(id)
		if errors.Is(err, remediation.ErrNotFound) {
			return nil
		}
		public = &p
		return err
	})
	if err != nil {
		return remediation.Brief{}, err
	}
	switch {
	case inc.Drill:
		return remediation.Brief{}, remediation.Refuse(remediation.Conflict, "incident %s is a drill: customers are not affected", id)
	case inc.State == remediation.Closed:
		return remediation.Brief{}, remediation.Refuse(remediation.Conflict, "incident %s is closed: there is no brief for it", id)
	}
	b, err := e.PlanFor(ctx, inc)
	if err != nil {
		return remediation.Brief{}, err
	}
	facts, support := briefOf(b, inc, v, public, e.Now())
	out := remediation.Brief{Incident: inc.ID, Service: inc.Service, Owner: facts.Owner}
	if out.Text, err = support.Render(facts); err != nil { // tried when it was loaded, but not with these facts
		e.Log.Error("cannot render the support brief's template; using the built-in one", "incident", id, "err", err)
		if out.Text, err = (*alerts.SupportBrief)(nil).Render(facts); err != nil {
			return remediation.Brief{}, err
		}
	}
	lines := strings.Split(strings.ReplaceAll(out.Text, "\t", " "), "\n")
	for i := range lines {
		lines[i] = strings.TrimRight(remediation.Plain(lines[i], mostBriefLine), " ")
	}
	out.Text = strings.Join(lines, "\n")
	return out, nil
}

// briefOf collects what a brief may say; public is nil where the public was told nothing.
func briefOf(b *plan.Plan, inc *remediation.Incident, v view.IncidentView, public *remediation.PublicIncident, now time.Time) (alerts.Brief, *alerts.SupportBrief) {
	var support *alerts.SupportBrief
	f := alerts.Brief{Service: inc.Service, Incident: inc.ID, Next: "As soon as something changes."}
	if c := b.Communications; c != nil {
		if support = c.SupportBrief; support != nil {
			f.Owner, f.Points = remediation.Plain(support.Owner, mostFact), support.Points
		}
		if c.StatusPage != nil {
			f.Page = remediation.Plain(c.StatusPage.URL, mostFact)
		}
	}
	if public != nil {
		u := public.Updates[len(public.Updates)-1]
		f.Told, f.Title, f.Since = true, remediation.Plain(public.Name, mostFact), briefMoment(public.Created)
		f.Status, f.Words = string(public.Status), remediation.Plain(u.Words, mostFact)
		for _, c := range public.Components {
			f.Components = append(f.Components, alerts.BriefComponent{Name: remediation.Plain(c.Name, mostFact), Status: strings.ReplaceAll(string(c.Status), "_", " ")})
		}
	}
	for i := range inc.Steps {
		if flag := b.SwitchedOff(&inc.Steps[i]); flag != nil && v.Steps[i].Changed == nil {
			feature := flag.Description
			if feature == "" {
				feature = flag.Name
			}
			f.Fallbacks = append(f.Fallbacks, alerts.BriefFallback{
				Feature: remediation.Plain(feature, mostFact), Flag: flag.Name, Instead: remediation.Plain(cmp.Or(flag.Fallback, "the playbook does not say what customers get instead"), mostFact),
			})
		}
	}
	if n := view.NextOf(inc, nil); n != nil && n.At != nil && n.At.After(now) {
		f.Next = "At about " + briefMoment(*n.At) + ", or as soon as something changes."
	}
	return f, support
}

func briefMoment(t time.Time) string { return t.UTC().Format("2 January 2006, 15:04 UTC") }
