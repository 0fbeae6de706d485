package view

import (
	"time"

	"github.com/locotoki/backout/remediation"
	"github.com/locotoki/backout/remediation/plan"
)

// RolloutReport is all that is known of a service's present or last rollout, in the
// order in which people ask about it.
type RolloutReport struct {
	Service  string     `json:"service"`
	Release  string     `json:"release"`
	Previous string     `json:"previous"`
	State    string     `json:"state"`
	Stage    string     `json:"stage"`
	Made     time.Time  `json:"made"`
	Started  *time.Time `json:"started"`
	// Ended is nil while the rollout goes on.
	Ended *time.Time `json:"ended"`
	// StartedBy and Why are who started it, and what for; Declared: people set its
	// traffic, and backout only noted it.
	StartedBy string `json:"started_by"`
	Why       string `json:"why"`
	Declared  bool   `json:"declared"`
	// EndedBy and EndedWhy are of its end.
	EndedBy  string `json:"ended_by"`
	EndedWhy string `json:"ended_why"`
	// Cut says that the log holds more of it than was read: the newest part is here.
	Cut       bool                      `json:"cut"`
	Stages    []ReportedStage           `json:"stages"`
	Holds     []ReportedHold            `json:"holds"`
	Incidents []ReportedIncident        `json:"incidents"`
	Signals   []ReportedSignal          `json:"signals"`
	Success   []remediation.SuccessView `json:"success"`
	Smoke     []remediation.Check       `json:"smoke"`
	// Tasks are people's, from the validation after the deployment on.
	Tasks    []remediation.PreflightItem `json:"tasks"`
	Timeline []ReportedDay               `json:"timeline"`
}

// ReportedStage is the time that a rollout was in one stage.
type ReportedStage struct {
	Stage   string     `json:"stage"`
	Traffic string     `json:"traffic"`
	From    time.Time  `json:"from"`
	To      *time.Time `json:"to"` // nil while it goes on
	// By is who led it into the stage, and Why what for.
	By  string `json:"by"`
	Why string `json:"why"`
	// Judged is what the gates said when it was led into the stage, Forced those that
	// were closed.
	Judged []remediation.GateResult `json:"judged"`
	Forced []string                 `json:"forced"`
}

// ReportedHold is a time in which a rollout was held, or a promotion that was refused or
// failed.
type ReportedHold struct {
	What string     `json:"what"`
	From time.Time  `json:"from"`
	To   *time.Time `json:"to"`
	By   string     `json:"by"`
	Why  string     `json:"why"`
}

// ReportedIncident is an incident that was opened during a rollout.
type ReportedIncident struct {
	ID       string   `json:"id"`
	Triggers []string `json:"triggers"`
	// AbortedBy is who ordered the rollout to be backed out, "" where nobody did.
	AbortedBy string            `json:"aborted_by,omitempty"`
	Opened    time.Time         `json:"opened"`
	Closed    *time.Time        `json:"closed"`
	State     remediation.State `json:"state"`
	// Steps say what each step came to.
	Steps []StepView `json:"steps"`
	// Recovered is when the breach was seen to have stopped for the last time; nil where it
	// came back, or a person closed the incident before.
	Recovered *time.Time `json:"recovered"`
}

// Cause is IncidentView's.
func (inc ReportedIncident) Cause() string { return cause(inc.Triggers, inc.AbortedBy) }

// ReportedSignal is a signal's raising or clearing.
type ReportedSignal struct {
	Time   time.Time `json:"time"`
	Signal string    `json:"signal"`
	Raised bool      `json:"raised"`
	By     string    `json:"by"`
	Why    string    `json:"why"`
}

// ReportedDay is one day of the playbook's timeline: when it was planned, and when it
// was done, if known.
type ReportedDay struct {
	TimelineDay
	Done string `json:"done"`
	By   string `json:"by"`
}

// The most that a report reads: entries of one kind, and incidents.
const (
	reportEntries   = 1000
	reportIncidents = 100
)

// AddTasks are what people do from the validation after the deployment on.
func (o *RolloutReport) AddTasks(b *plan.Plan, kept remediation.Preflight) {
	for _, it := range append(remediation.Validation(b.Playbook), remediation.ItemsOf(b.Playbook, "after/")...) {
		it.Take(kept.Signed(b.Playbook, it, o.Release))
		o.Tasks = append(o.Tasks, it)
	}
}

// AddTimeline adds to the planned days those on which something is known to have
// been done: a stage began, or someone signed.
func (o *RolloutReport) AddTimeline(b *plan.Plan, kept remediation.Preflight) {
	items := remediation.ItemsOf(b.Playbook, "timeline/")
	for i, d := range TimelineOf(b.Playbook, remediation.Rollout{Started: o.Started}) {
		day := ReportedDay{TimelineDay: d}
		if s := kept.Signed(b.Playbook, items[i], o.Release); s != nil {
			day.Done, day.By = s.Time.UTC().Format(time.DateOnly), s.By
		} else if st := o.began(b, d); st != nil {
			day.Done, day.By = st.From.UTC().Format(time.DateOnly), st.By
		}
		o.Timeline = append(o.Timeline, day)
	}
}

// began returns the first stay in the stage that a day of the timeline is planned
// for, by the durations of the stages before it.
func (o *RolloutReport) began(b *plan.Plan, d TimelineDay) *ReportedStage {
	if o.Started == nil || d.Date == "" {
		return nil
	}
	planned := *o.Started
	for _, s := range b.Stages {
		if planned.UTC().Format(time.DateOnly) == d.Date {
			for i := range o.Stages {
				if o.Stages[i].Stage == s.Name {
					return &o.Stages[i]
				}
			}
			return nil
		}
		planned = planned.Add(time.Duration(s.Duration))
	}
	return nil
}
