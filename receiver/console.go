package receiver

import (
	"context"
	"errors"
	"html/template"
	"net/http"
	"slices"
	"time"

	"github.com/labstack/echo/v4"

	"github.com/locotoki/backout/receiver/page"
	"github.com/locotoki/backout/receiver/report"
	"github.com/locotoki/backout/remediation"
	"github.com/locotoki/backout/remediation/audit"
	"github.com/locotoki/backout/remediation/view"
)

const (
	// firstEvents and lastEvents are what an incident's page shows of its timeline.
	firstEvents = 40
	lastEvents  = 160
	// plotBudget is how long a page waits for its plots.
	plotBudget = 1500 * time.Millisecond
)

// incidentPage tells one incident whole.
func (s *Server) incidentPage(c echo.Context, _ string) error {
	if _, err := query(c, "done", "trigger"); err != nil {
		return err
	}
	ctx, id := c.Request().Context(), c.Param("id")
	o, err := s.incidents.Overview(ctx)
	if err != nil {
		return err
	}
	v, err := s.incidents.Incident(ctx, id)
	if err != nil {
		return err
	}
	events, skipped, err := s.timeLine(ctx, id)
	if err != nil {
		return err
	}
	f, err := s.liveFrame(c, "Incident "+remediation.Plain(id, 40), o)
	if err != nil {
		return err
	}
	data := struct {
		frame
		view.Story
		Now           time.Time // of the two above
		Events, Holds []page.Event
		Skipped       bool
		Plot, Upright template.HTML // the same for a desk and for a phone
		Marks         []view.Mark   // by the numbers of the plot for a phone
		PlotNote      string
		PlotOf        string
		Freezes       []remediation.Freeze
		Abortable     bool
		Brief         string
	}{frame: f, Story: storyOf(v, o), Now: o.Time, Events: events, Skipped: skipped}
	for _, e := range events {
		if e.Kind == audit.KindHeld {
			data.Holds = append(data.Holds, e)
		}
	}
	slices.Reverse(data.Holds)
	data.Freezes, data.Abortable = freezesOf(o, v.Service), abortable(v, o)
	data.Brief = s.briefOf(ctx, v)
	plot, of, note := s.plotOf(ctx, id, c.QueryParam("trigger"))
	if data.PlotOf, data.PlotNote = of, note; plot != nil {
		data.Plot, data.Upright = report.PlotSVG(*plot, report.Wide), report.PlotSVG(*plot, report.Narrow)
		data.Marks = plot.Marks
	}
	return s.showPage(c, http.StatusOK, "incident", data)
}

// abortable reports whether a commander can order from an incident's page that the
// rollout be aborted: one is active, and no step is in the middle of something.
func abortable(v view.IncidentView, o view.Overview) bool {
	sv, _ := serviceOf(o, v.Service)
	active := sv.Rollout.State == remediation.RolloutActive || sv.Rollout.State == remediation.RolloutSoaking
	if !active || sv.Rollout.Release != v.Rollout || v.Drill || v.State == remediation.Closed || v.AbortedBy != "" {
		return false
	}
	return !slices.ContainsFunc(v.Steps, func(s view.StepView) bool { return s.State == remediation.StepIntent })
}

// freezesOf are the freezes that concern a service.
func freezesOf(o view.Overview, service string) (out []remediation.Freeze) {
	for _, f := range o.Freezes {
		if f.Service == "" || f.Service == service {
			out = append(out, f)
		}
	}
	return out
}

// plotOf returns the plot of a trigger of an incident (its first if trigger is empty), or
// says why there is none: a page does not wait long for a Prometheus that hangs.
func (s *Server) plotOf(ctx context.Context, id, trigger string) (plot *view.Plot, of, note string) {
	ctx, cancel := context.WithTimeout(ctx, plotBudget)
	defer cancel()
	p, err := s.incidents.Plot(ctx, id, trigger)
	var refused *remediation.RefusedError
	switch {
	case errors.As(err, &refused):
		return nil, trigger, withHint(refused.Message, err)
	case ctx.Err() != nil:
		return nil, trigger, "Prometheus takes too long to answer. The rest of this page is complete."
	case err != nil:
		s.logger.Warn("cannot draw the plot", "incident", id, "err", err)
		return nil, trigger, "The plot cannot be drawn. See the server's log."
	case len(p.Points) == 0:
		return nil, p.Trigger, "No values to plot: neither Prometheus nor the audit log has any."
	}
	return &p, p.Trigger, p.Note
}

// timeLine is an incident's audit entries, oldest first; skipped: there are more
// between the first and the last ones.
func (s *Server) timeLine(ctx context.Context, id string) (events []page.Event, skipped bool, err error) {
	newest, err := s.auditLog.Entries(ctx, audit.Filter{Incident: id, Newest: true, Limit: lastEvents})
	if err != nil {
		return nil, false, err
	}
	var first []audit.Entry
	if len(newest) == lastEvents {
		if first, err = s.auditLog.Entries(ctx, audit.Filter{Incident: id, Limit: firstEvents, Before: newest[0].Seq}); err != nil {
			return nil, false, err
		}
		skipped = len(first) == firstEvents
	}
	for _, e := range append(first, newest...) {
		events = append(events, page.NewEvent(e))
	}
	return events, skipped, nil
}

// rolloutPage shows every service's rollout and how its stage does.
func (s *Server) rolloutPage(c echo.Context, _ string) error {
	if _, err := query(c, "done"); err != nil {
		return err
	}
	ctx := c.Request().Context()
	o, err := s.incidents.Overview(ctx)
	if err != nil {
		return err
	}
	all, err := s.rollouts.Rollouts(ctx)
	if err != nil {
		return err
	}
	type rollout struct {
		view.RolloutView
		Stages   []string
		Traffic  string
		Criteria []criterion
		Open     []view.IncidentView
		Freezes  []remediation.Freeze
		Met      int
		// Active: it can be promoted, held or aborted. Missing are the gates that are closed.
		Active    bool
		Missing   []remediation.GateResult
		Signals   []view.SignalNow
		Preflight preflightNow
	}
	f, err := s.liveFrame(c, "Rollout", o)
	if err != nil {
		return err
	}
	data := struct {
		frame
		Rollouts []rollout
	}{frame: f}
	for _, r := range all {
		one := rollout{RolloutView: r, Active: r.State == remediation.RolloutActive || r.State == remediation.RolloutSoaking}
		for _, g := range r.Gates {
			if !g.OK {
				one.Missing = append(one.Missing, g)
			}
		}
		sv, _ := serviceOf(o, r.Service)
		one.Stages, one.Traffic, one.Signals = sv.Stages, sv.Traffic, sv.Signals
		for _, inc := range o.Incidents {
			if inc.Service == r.Service && !inc.Drill {
				one.Open = append(one.Open, inc)
			}
		}
		one.Freezes = freezesOf(o, r.Service)
		p, err := s.preflights.Preflight(ctx, r.Service)
		if err != nil {
			return err
		}
		one.Preflight = newPreflight(p)
		for _, cr := range r.Criteria {
			one.Criteria = append(one.Criteria, newCriterion(cr))
			if cr.OK {
				one.Met++
			}
		}
		data.Rollouts = append(data.Rollouts, one)
	}
	return s.showPage(c, http.StatusOK, "rollout", data)
}

type criterion struct {
	Name, Value, Threshold string
	OK                     bool
}

func newCriterion(cr view.CriterionView) criterion {
	out := criterion{Name: cr.Words(), Value: "no data", Threshold: cr.Bound + " " + remediation.Measure(cr.Threshold, cr.Unit), OK: cr.OK}
	if cr.Value != nil {
		out.Value = remediation.Measure(*cr.Value, cr.Unit)
	}
	return out
}
