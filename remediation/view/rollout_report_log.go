package view

import (
	"encoding/json"
	"errors"
	"slices"
	"time"

	"github.com/locotoki/backout/remediation"
	"github.com/locotoki/backout/remediation/audit"
	"github.com/locotoki/backout/remediation/plan"
)

// ReadLog adds what the store and the audit log know about a rollout.
func (o *RolloutReport) ReadLog(tx remediation.Tx, b *plan.Plan, r remediation.Rollout) error {
	o.Release, o.Previous, o.State, o.Stage, o.Started = r.Release, r.Previous, r.State, r.Stage, UTC(r.Started)
	// Entries keep microseconds.
	since := r.Started.UTC().Truncate(time.Microsecond)
	head, _, err := tx.Head()
	if err != nil {
		return err
	}
	first, err := audit.FirstAt(tx, since, head)
	if err != nil {
		return err
	}
	of := func(kind audit.Kind) ([]audit.Entry, error) {
		f := audit.Filter{Service: o.Service, Kind: kind, After: first - 1, Newest: true, Limit: reportEntries}
		reach, err := tx.Reach(f, audit.MaxIndexed)
		if err != nil {
			return nil, err
		}
		f.After = max(f.After, reach-1)
		list, err := tx.Entries(f)
		o.Cut = o.Cut || len(list) == reportEntries || reach > first
		return list, err
	}
	intents, err := of(audit.KindIntent)
	if err != nil {
		return err
	}
	outcomes, err := of(audit.KindOutcome) // of a promotion whose target was as wanted already
	if err != nil {
		return err
	}
	entries, err := of(audit.KindStage)
	if err != nil {
		return err
	}
	judged := append(intents, outcomes...)
	slices.SortStableFunc(judged, func(a, b audit.Entry) int { return int(a.Seq - b.Seq) })
	for _, en := range entries {
		if detailOf(en, "release") == r.Release {
			o.stageEntry(b, en, judged)
		}
	}
	signals, err := of(audit.KindSignal)
	if err != nil {
		return err
	}
	for _, en := range signals {
		raised, _ := en.Detail["raised"].(bool)
		o.Signals = append(o.Signals, ReportedSignal{
			Time: en.Time.UTC(), Signal: detailOf(en, "signal"), Raised: raised, By: en.Actor, Why: detailOf(en, "reason"),
		})
	}
	return o.incidents(tx, since)
}

// detailOf returns the first of an entry's texts under the keys that is not empty.
func detailOf(en audit.Entry, keys ...string) string {
	for _, k := range keys {
		if s, ok := en.Detail[k].(string); ok && s != "" {
			return s
		}
	}
	return ""
}

// stageEntry takes one entry of the rollout's way.
func (o *RolloutReport) stageEntry(b *plan.Plan, en audit.Entry, judged []audit.Entry) {
	at, stage, why := en.Time.UTC(), detailOf(en, "stage"), detailOf(en, "reason", "why")
	if what := detailOf(en, "promotion"); what != "" { // the stage stays as it was
		o.Holds = append(o.Holds, ReportedHold{What: "promotion " + what, From: at, To: &at, By: en.Actor, Why: why})
		return
	}
	o.hold(en, at, why)
	switch state := detailOf(en, "state"); {
	case state == remediation.RolloutActive || state == remediation.RolloutSoaking:
		// A restored rollout goes on.
		o.Ended, o.EndedBy, o.EndedWhy = nil, "", ""
	case o.Ended == nil:
		o.leave(at)
		o.Ended, o.EndedBy, o.EndedWhy = &at, en.Actor, why
		return
	default:
		return
	}
	if n := len(o.Stages); stage == remediation.StageNone || n > 0 && o.Stages[n-1].Stage == stage && o.Stages[n-1].To == nil {
		return
	}
	o.leave(at)
	st := ReportedStage{Stage: stage, Traffic: detailOf(en, "traffic"), From: at, By: en.Actor, Why: why, Judged: []remediation.GateResult{}, Forced: []string{}}
	if s := b.Stage(stage); s != nil && st.Traffic == "" {
		st.Traffic = s.Traffic
	}
	if len(o.Stages) == 0 {
		o.StartedBy, o.Why = en.Actor, why
		o.Declared, _ = en.Detail["declared"].(bool)
	}
	for i := len(judged) - 1; i >= 0; i-- {
		j := judged[i]
		if j.Seq < en.Seq && (j.Step == "promote-"+stage || j.Step == "start-"+stage) && j.Detail["gates"] != nil {
			st.Judged, st.Forced = gatesOf(j.Detail["gates"]), textsOf(j.Detail["forced"])
			break
		}
	}
	o.Stages = append(o.Stages, st)
}

// leave ends the last stage.
func (o *RolloutReport) leave(at time.Time) {
	if n := len(o.Stages); n > 0 && o.Stages[n-1].To == nil {
		o.Stages[n-1].To = &at
	}
}

// hold notes a hold's beginning and end.
func (o *RolloutReport) hold(en audit.Entry, at time.Time, why string) {
	held, _ := en.Detail["held"].(bool)
	var open *ReportedHold
	for i := range o.Holds {
		if o.Holds[i].To == nil {
			open = &o.Holds[i]
		}
	}
	switch {
	case held && open == nil:
		o.Holds = append(o.Holds, ReportedHold{What: "held", From: at, By: en.Actor, Why: why})
	case !held && open != nil:
		open.To = &at
	}
}

// gatesOf reads gates as stageRows wrote them.
func gatesOf(v any) []remediation.GateResult {
	out := []remediation.GateResult{}
	rows, err := json.Marshal(v)
	if err == nil {
		err = json.Unmarshal(rows, &out)
	}
	if err != nil {
		return []remediation.GateResult{}
	}
	return out
}

func textsOf(v any) []string {
	out := []string{}
	list, _ := v.([]any)
	for _, x := range list {
		if s, ok := x.(string); ok {
			out = append(out, s)
		}
	}
	return out
}

// incidents are those that were opened since the rollout began, and before it ended.
func (o *RolloutReport) incidents(tx remediation.Tx, since time.Time) error {
	real := false
	all, err := tx.Incidents(remediation.IncidentFilter{Service: o.Service, Drill: &real, Newest: true, Limit: reportIncidents})
	if err != nil {
		return err
	}
	o.Cut = o.Cut || len(all) == reportIncidents && !all[0].Opened.Before(since)
	for _, inc := range all {
		if inc.Opened.Before(since) || o.Ended != nil && inc.Opened.After(*o.Ended) {
			continue
		}
		v, err := OfIncident(tx, inc)
		if err != nil {
			return err
		}
		one := ReportedIncident{ID: v.ID, Triggers: []string{}, AbortedBy: v.AbortedBy, Opened: v.Opened, Closed: v.Closed, State: v.State, Steps: v.Steps}
		for _, t := range v.Triggers {
			if !slices.Contains(one.Triggers, t.Trigger) {
				one.Triggers = append(one.Triggers, t.Trigger)
			}
		}
		recovered, lasted := v.Recovery(func(kind audit.Kind) *audit.Entry {
			newest, readErr := tx.Entries(audit.Filter{Incident: inc.ID, Kind: kind, Newest: true, Limit: 1})
			if err = errors.Join(err, readErr); len(newest) == 0 {
				return nil
			}
			return &newest[0]
		})
		if err != nil {
			return err
		}
		if lasted {
			one.Recovered = UTC(&recovered.Time)
		}
		o.Incidents = append(o.Incidents, one)
	}
	return nil
}
