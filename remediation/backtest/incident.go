package backtest

import (
	"context"

	"github.com/prometheus/common/model"

	"github.com/locotoki/backout/remediation"
	"github.com/locotoki/backout/remediation/audit"
	"github.com/locotoki/backout/remediation/view"
)

// incidents tells what the engine has done, from its audit log.
func (r *replay) incidents(ctx context.Context) (out []view.BacktestIncident, err error) {
	err = r.store.View(ctx, func(tx remediation.Tx) error {
		all, err := tx.Incidents(remediation.IncidentFilter{Service: r.pb.Service})
		if err != nil {
			return err
		}
		out = []view.BacktestIncident{}
		for _, inc := range all {
			entries, err := tx.Entries(audit.Filter{Incident: inc.ID})
			if err != nil {
				return err
			}
			out = append(out, incidentOf(inc, entries))
		}
		return nil
	})
	return out, err
}

// incidentOf reads an incident's log.
func incidentOf(inc *remediation.Incident, entries []audit.Entry) view.BacktestIncident {
	v := view.BacktestIncident{
		ID: inc.ID, Triggers: []string{}, Opened: inc.Opened.UTC(), State: inc.State, Steps: []view.BacktestStep{}, Held: []view.BacktestHold{},
	}
	for _, t := range inc.Triggers {
		v.Triggers = append(v.Triggers, t.Trigger)
	}
	if inc.State == remediation.Closed {
		v.Closed = inc.Closed
	}
	for _, e := range entries {
		after := model.Duration(e.Time.Sub(inc.Opened))
		text := func(key string) string { s, _ := e.Detail[key].(string); return s }
		switch e.Kind {
		case audit.KindIntent:
			v.Confirmed = true
			v.Steps = append(v.Steps, view.BacktestStep{Step: e.Step, After: after})
		case audit.KindHeld:
			reason := remediation.Reason(text("reason"))
			if reason == remediation.HoldApproval {
				v.Confirmed = true
				v.Steps = append(v.Steps, view.BacktestStep{Step: e.Step, After: after, Asked: true})
				continue
			}
			v.Held = append(v.Held, view.BacktestHold{Reason: reason, Step: e.Step, After: after, Why: text("why")})
		case audit.KindRecovered:
			if v.Recovered == nil {
				v.Recovered = &after
			}
		case audit.KindReopened:
			v.Reopened++
		case audit.KindNotified:
			if v.Exhausted == nil && view.PageReason(e) == string(remediation.Exhausted) {
				v.Exhausted = &after
			}
		}
	}
	v.Words = v.Describe()
	return v
}

// rolledBack counts the incidents in which a trigger took part and a step would have run.
func rolledBack(all []view.BacktestIncident, trigger string) (n int) {
	for _, inc := range all {
		ran := false
		for _, s := range inc.Steps {
			ran = ran || !s.Asked
		}
		for _, t := range inc.Triggers {
			if t == trigger && ran {
				n++
			}
		}
	}
	return n
}
