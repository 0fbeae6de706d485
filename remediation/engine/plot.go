package engine

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/prometheus/common/model"

	"github.com/locotoki/backout/hint"
	"github.com/locotoki/backout/remediation"
	"github.com/locotoki/backout/remediation/audit"
	"github.com/locotoki/backout/remediation/view"
)

// Plot shows one of an incident's triggers around it. The line is Prometheus's; if it cannot be queried or has no
// values left, the plot has the audit log's values.
func (e *Engine) Plot(ctx context.Context, id, trigger string) (view.Plot, error) {
	var p view.Plot
	var inc *remediation.Incident
	err := e.Store.View(ctx, func(tx remediation.Tx) (err error) {
		if p, err = view.PlotOfLog(tx, id, trigger, e.Now()); err == nil {
			inc, err = tx.Incident(id)
		}
		return err
	})
	if err != nil {
		return view.Plot{}, err
	}
	b, err := e.PlanFor(ctx, inc)
	if err != nil {
		p.Note = fmt.Sprintf("Prometheus was not queried (%v): %s", err, view.OfTheLog)
		return p, nil
	}
	p.Unit, p.Estimate = b.UnitOf(p.Trigger), b.EstimateOf(p.Trigger)
	if e.history == nil {
		return p, nil
	}
	x := b.Expr.Triggers[p.Trigger]
	line := p
	line.From = inc.Opened.Add(-min(max(x.Window, view.PlotLead), view.PlotLeadMost)).UTC()
	step := view.PlotStep(p.To.Sub(line.From), b.Poll())
	line.From = line.From.Truncate(step)
	line.Step, line.Note = model.Duration(step), ""
	line.Points, err = e.history.QueryRange(ctx, x.Value, line.From, line.To, step)
	switch {
	case ctx.Err() != nil:
		return view.Plot{}, fmt.Errorf("plot of %s: %w", id, ctx.Err())
	case err != nil:
		p.Note = fmt.Sprintf("cannot query Prometheus (%v): %s", err, view.OfTheLog)
		return p, nil
	case len(line.Points) == 0:
		p.Note = "Prometheus has no values for this time: " + view.OfTheLog
		return p, nil
	}
	return line, nil
}

// heardWithin is how long an alert may take to arrive, next to two evaluations of its rule.
const heardWithin = time.Minute

// unheard lists the triggers of a service that have been beyond their bounds for longer
// than an alert needs to arrive, of those for which Prometheus answers soon enough.
func (e *Engine) unheard(service string) []view.Unheard {
	b := e.PlanOf(service)
	if b == nil || e.history == nil {
		return nil
	}
	var mu sync.Mutex // guards all
	var all []view.Unheard
	var looks sync.WaitGroup
	for _, t := range b.Triggers {
		if t.Signal != "" {
			continue
		}
		looks.Go(func() {
			p, err := e.ServicePlot(context.Background(), service, t.Name)
			if err != nil {
				e.Log.Debug("cannot compare a trigger's value with its bound", "service", service, "trigger", t.Name, "err", err)
				return
			}
			since := p.BeyondSince()
			if since.IsZero() || p.To.Sub(since) <= heardWithin+2*b.Poll() || e.wasHeard(service, t.Name, p.To.Add(-time.Duration(t.Window+t.Recovery.Window))) {
				return
			}
			why := e.alertOf(service, t.Name)
			mu.Lock()
			defer mu.Unlock()
			all = append(all, view.Unheard{Why: why, Trigger: p.Trigger, Value: p.Points[len(p.Points)-1].Value, Threshold: p.Threshold, Above: p.Above, Unit: p.Unit, Estimate: p.Estimate, Since: since.UTC()})
		})
	}
	done := make(chan struct{})
	go func() { looks.Wait(); close(done) }()
	select {
	case <-done:
	case <-time.After(runsPatience):
	}
	mu.Lock()
	defer mu.Unlock()
	slices.SortFunc(all, func(a, b view.Unheard) int { return strings.Compare(a.Trigger, b.Trigger) })
	return slices.Clone(all)
}

// wasHeard reports whether an incident of the trigger was closed as over since a moment: the
// trigger's long window shows what was before.
func (e *Engine) wasHeard(service, trigger string, since time.Time) (heard bool) {
	err := e.Store.View(context.Background(), func(tx remediation.Tx) error {
		last, err := tx.Incidents(remediation.IncidentFilter{Service: service, Closed: true, Newest: true, Limit: view.ShownRecent})
		for _, inc := range last {
			heard = heard || !inc.Drill && !inc.ByHand && inc.Closed.After(since) && inc.Trigger(trigger) != nil
		}
		return err
	})
	return heard || err != nil
}

// heldRead is how many held alerts of a service alertOf looks back.
const heldRead = 100

// alertOf says what became of a trigger's alert that fires and opened no incident: it is held,
// or its incident is closed. "": no such alert is known.
func (e *Engine) alertOf(service, trigger string) (why string) {
	err := e.Store.View(context.Background(), func(tx remediation.Tx) error {
		firing := func(incident string) (fingerprint string, err error) {
			all, err := tx.Alerts(incident)
			for _, a := range all {
				if a.Active && a.Service == service && a.Trigger == trigger {
					fingerprint = a.Fingerprint
				}
			}
			return fingerprint, err
		}
		real := false
		last, err := tx.Incidents(remediation.IncidentFilter{Service: service, Closed: true, Newest: true, Drill: &real, Limit: view.ShownRecent})
		if err != nil {
			return err
		}
		for _, inc := range last {
			if inc.Trigger(trigger) == nil {
				continue
			}
			if fingerprint, err := firing(inc.ID); err != nil {
				return err
			} else if fingerprint == "" {
				continue
			}
			switch why = "its alert belongs to " + inc.ID + ", which is closed"; {
			case inc.Restored != "":
				why = "its alert belongs to " + inc.ID + ", which " + inc.Restored + " restored"
			case inc.ByHand:
				why = "its alert belongs to " + inc.ID + ", which a person closed"
			}
		}
		fingerprint, err := firing("")
		if err != nil || fingerprint == "" {
			return err
		}
		why = "its alert arrived and is held"
		held, err := tx.Entries(audit.Filter{Kind: audit.KindHeld, Service: service, Newest: true, Limit: heldRead})
		for _, en := range held {
			if text, _ := en.Detail["why"].(string); text != "" && en.Detail["fingerprint"] == fingerprint {
				message, try := hint.Cut(text)
				if why = "its alert arrived and is held: " + message; try != "" {
					why += " (try: " + try + ")"
				}
			}
		}
		return err
	})
	if err != nil {
		e.Log.Debug("cannot look up a trigger's alert", "service", service, "trigger", trigger, "err", err)
	}
	return why
}

// plotTimeout bounds one query for a service's plot.
const plotTimeout = 10 * time.Second

// ServicePlot shows one of a service's triggers up to now; it asks Prometheus once per scrape interval.
func (e *Engine) ServicePlot(ctx context.Context, service, trigger string) (view.Plot, error) {
	b := e.PlanOf(service)
	if b == nil {
		return view.Plot{}, remediation.Refuse(remediation.Missing, "no playbook for service %q", service)
	}
	x, ok := b.Expr.Triggers[trigger]
	if !ok {
		return view.Plot{}, remediation.Refuse(remediation.Missing, "service %s has no trigger %s with an expression", service, trigger)
	}
	if e.history == nil {
		return view.Plot{}, remediation.Refuse(remediation.Missing, "no Prometheus is configured")
	}
	return e.plots.get(service+"/"+trigger+"/"+b.Hash, e.Now, b.Poll(), func() (view.Plot, error) {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), plotTimeout)
		defer cancel()
		to := e.Now().UTC()
		step := view.PlotStep(view.ServiceSpan, b.Poll())
		p := view.Plot{
			Service: service, Trigger: trigger, Threshold: x.Threshold, Above: x.Above,
			From: to.Add(-view.ServiceSpan), To: to, Step: model.Duration(step), Marks: []view.Mark{}, Unit: b.UnitOf(trigger), Estimate: b.EstimateOf(trigger),
		}
		var err error
		p.Points, err = e.history.QueryRange(ctx, x.Value, p.From, p.To, step)
		return p, err
	})
}
