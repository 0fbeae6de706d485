package view_test

import (
	"strings"
	"testing"
	"time"

	"github.com/locotoki/backout/remediation"
	"github.com/locotoki/backout/remediation/view"
)

// An order of which nothing ran knows of no breach, and must not report one.
func TestAnOrderThatWasDeniedIsNoBreachThatContinues(t *testing.T) {
	signal := view.TriggerView{Trigger: "breach_of_trust", Signal: "critical"}
	schema := view.StepView{ID: "1-schema_rollback", State: remediation.StepSkipped}
	for name, c := range map[string]struct {
		v          view.IncidentView
		nothing    bool
		wantStatus string
	}{
		"an abort": {view.IncidentView{State: remediation.Exhausted, Steps: []view.StepView{schema}}, true, "No step ran: needs a person"},
		"a signal": {view.IncidentView{State: remediation.Exhausted, Triggers: []view.TriggerView{signal}, Steps: []view.StepView{schema}}, true, "No step ran: needs a person"},
		"an abort whose first step failed": {view.IncidentView{State: remediation.Exhausted, Steps: []view.StepView{
			{ID: "1-flag_off", State: remediation.StepUndone}, schema}}, false, "Remediation failed: needs a person"},
		"an abort that told people": {view.IncidentView{State: remediation.Exhausted, Steps: []view.StepView{
			{ID: "1-status_page", State: remediation.StepDone, Tells: true}, schema}}, true, "No step ran: needs a person"},
		"a metric's breach": {view.IncidentView{State: remediation.Exhausted, Triggers: []view.TriggerView{{Trigger: "error_rate"}}, Steps: []view.StepView{schema}}, false, "Remediation failed: needs a person"},
		"a step of it was denied": {view.IncidentView{State: remediation.Recovered, Triggers: []view.TriggerView{signal}, Steps: []view.StepView{
			{ID: "1-flag_off", State: remediation.StepDone}, {ID: "2-schema_rollback", State: remediation.StepSkipped}}}, false, "Steps were skipped: waiting for the signal to be cleared"},
	} {
		t.Run(name, func(t *testing.T) {
			story := view.NewStory(c.v, view.ServiceNow{}, time.Date(2026, 11, 30, 3, 0, 0, 0, time.UTC))
			status := story.Headline
			if status != c.wantStatus || c.v.NothingRan() != c.nothing || len(c.v.Skipped()) != 1 {
				t.Errorf("%q, nothing ran %t, skipped %v", status, c.v.NothingRan(), c.v.Skipped())
			}
			if c.nothing && strings.Contains(strings.ToLower(status), "breach") {
				t.Errorf("%q", status)
			}
		})
	}
}
