package engine

import (
	"context"

	"github.com/locotoki/backout/hint"
	"github.com/locotoki/backout/remediation"
	"github.com/locotoki/backout/remediation/view"
)

// RolloutReport is all that is known of a service's present or last rollout.
func (e *Engine) RolloutReport(ctx context.Context, service string) (view.RolloutReport, error) {
	b, err := e.OnePlan(service)
	if err != nil {
		return view.RolloutReport{}, err
	}
	out := view.RolloutReport{
		Service: b.Service, Made: e.Now().UTC(), Stages: []view.ReportedStage{}, Holds: []view.ReportedHold{}, Incidents: []view.ReportedIncident{},
		Signals: []view.ReportedSignal{}, Tasks: []remediation.PreflightItem{}, Timeline: []view.ReportedDay{},
	}
	var kept remediation.Preflight
	err = e.Store.View(ctx, func(tx remediation.Tx) error {
		r, err := remediation.RolloutOf(tx, b.Service)
		if err != nil {
			return err
		}
		if r.Started == nil {
			return hint.Add(remediation.Refuse(remediation.Missing, "there was no rollout of %s yet", b.Service), "backout rollout start --service=%s", b.Service)
		}
		b = e.ShownPlan(tx, b, r)
		if kept, err = remediation.PreflightOf(tx, b.Service); err != nil {
			return err
		}
		return out.ReadLog(tx, b, r)
	})
	if err != nil {
		return view.RolloutReport{}, err
	}
	out.AddTasks(b, kept)
	out.AddTimeline(b, kept)
	out.Success = e.Promoter.Success(ctx, b, kept, out.Release)
	out.Smoke = b.Smoke(ctx)
	return out, nil
}
