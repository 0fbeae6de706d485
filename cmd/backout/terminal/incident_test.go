package terminal

import (
	"strings"
	"testing"
	"time"

	"github.com/locotoki/backout/remediation"
	"github.com/locotoki/backout/remediation/view"
)

func TestAnIncidentOfASignalIsNotShownAsMeasured(t *testing.T) {
	inc := view.IncidentView{
		ID: "inc-1", Service: "shop", State: remediation.Recovered,
		Triggers: []view.TriggerView{{Trigger: "security", Signal: "critical-security-vulnerability", Active: true}},
	}
	text := Incident(inc, time.Time{}, Screen{})
	for _, word := range []string{"threshold", "last value", "the breach stopped"} {
		if strings.Contains(text, word) {
			t.Errorf("it says %q:\n%s", word, text)
		}
	}
	if !strings.Contains(text, "raised by a person") {
		t.Errorf("it does not say whose word it is:\n%s", text)
	}
}

func TestAClaimDoesNotSayThatARunningStepIsStopped(t *testing.T) {
	inc := view.IncidentView{ID: "inc-1", Service: "shop", State: remediation.Acting, ClaimedBy: "ann"}
	if text := Incident(inc, time.Time{}, Screen{}); !strings.Contains(text, "after the running one") {
		t.Errorf("a claim of a running step:\n%s", text)
	}
}
