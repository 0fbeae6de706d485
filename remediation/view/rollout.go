package view

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/prometheus/common/model"

	"github.com/locotoki/backout/alerts"
	"github.com/locotoki/backout/remediation"
)

// TimelineOf gives the playbook's days their dates: T is the start day.
func TimelineOf(b *alerts.Playbook, r remediation.Rollout) []TimelineDay {
	out := []TimelineDay{}
	for _, t := range b.Timeline {
		day := TimelineDay{Day: t.Day, Activity: t.Activity, Owner: t.Owner}
		days, err := strconv.Atoi(strings.TrimPrefix(t.Day, "T"))
		if t.Day == "T" {
			days, err = 0, nil
		}
		if err == nil && r.Started != nil { // without a start there is no T
			day.Date = r.Started.UTC().AddDate(0, 0, days).Format(time.DateOnly)
		}
		out = append(out, day)
	}
	return out
}

// Worse returns the worse of the two: a criterion over its own window, or
// over the whole of a stage that has lasted for so long.
func (v CriterionView) Worse(whole CriterionView, lasted time.Duration) CriterionView {
	nearer := whole.Value == nil || v.Value != nil && (v.Bound == "below") == (*whole.Value > *v.Value) && *whole.Value != *v.Value
	if v.Value == nil || !nearer {
		return v
	}
	whole.Over = model.Duration(lasted.Round(time.Second)).String()
	return whole
}

// Words names a criterion, with its time span if that is not its own window.
func (v CriterionView) Words() string {
	if v.Over == "" {
		return v.Name
	}
	return v.Name + " over the stage (" + v.Over + ")"
}

// expect notes next to an incident's steps how long they took when their plan was
// rehearsed.
func (v *IncidentView) expect(tx remediation.Tx, inc *remediation.Incident) error {
	all, err := tx.Rehearsals(inc.Service)
	if err != nil || len(all) == 0 {
		return err
	}
	for i := range inc.Steps {
		s := &inc.Steps[i]
		for _, r := range all {
			if r.Plan != s.Plan {
				continue
			}
			at := slices.IndexFunc(r.Steps, func(was remediation.RehearsedStep) bool {
				return was.Tried && was.Status == remediation.Pass && was.Index == s.PlanIndex && was.Action == s.Action && was.Target == s.Target
			})
			if at < 0 {
				continue
			}
			v.Steps[i].Expected, v.Steps[i].Rehearsed = remediation.Took(r.Steps[at].Took), UTC(&r.Finished)
			if s.Risk == alerts.Lossy {
				v.Steps[i].Evidence = r.Steps[at].Evidence
			}
		}
	}
	return nil
}

// ExpectedSpan is how long the step took when it was rehearsed, as people write it.
func (s StepView) ExpectedSpan() string {
	d, err := model.ParseDuration(s.Expected)
	if err != nil {
		return s.Expected
	}
	return remediation.Span(d)
}

// ExpectedWords says how long a step took when it was rehearsed, "" if that is unknown.
func (s StepView) ExpectedWords() string {
	if s.Expected == "" || s.Rehearsed == nil || s.State != remediation.StepPending && s.State != remediation.StepWaiting && s.State != remediation.StepIntent {
		return ""
	}
	return fmt.Sprintf("took %s when rehearsed on %s", s.Expected, s.Rehearsed.UTC().Format("2 Jan 2006"))
}
