package report

import (
	"strings"
	"testing"
	"time"

	"github.com/locotoki/backout/remediation"
	"github.com/locotoki/backout/remediation/audit"
	"github.com/locotoki/backout/remediation/view"
)

// ended is an incident of one step that a person closed after this long, with this log between.
func ended(step view.StepView, write func(s *told)) *told {
	s := aLadder()
	s.entries = s.entries[:2]
	closed := plotOpened.Add(20 * time.Minute)
	s.incident.Closed, s.incident.ByHand, s.incident.Steps = &closed, true, []view.StepView{step}
	write(s)
	s.log(20*time.Minute, audit.KindClosed, "oncall", "", map[string]any{"reason": "taken over"})
	return s
}

func TestAReportOfAnIncidentThatWasClosedInDoubt(t *testing.T) {
	s := ended(view.StepView{ID: "1-flag_off", State: remediation.StepInDoubt}, func(s *told) {
		s.log(time.Minute, audit.KindIntent, "engine", "1-flag_off", nil)
		s.log(2*time.Minute, audit.KindInDoubt, "engine", "1-flag_off", map[string]any{"error": "no route to host"})
		s.log(20*time.Minute, audit.KindOutcome, "engine", "1-flag_off", map[string]any{"outcome": "in_doubt"})
	})
	says(t, s, []string{
		"1-flag_off is in doubt: its change may be in place.", "closed at 03:20:00 by a person, before backout saw the breach end: taken over.",
		"A person closed the incident before backout saw the breach end. Is it over?",
	}, []string{"No change of backout", "No effect, or failed", "changed nothing", "The breach stopped"})

	s.entries = s.entries[:4] // while it is in doubt
	s.incident.State, s.incident.Reason, s.incident.Closed, s.incident.ByHand = remediation.Acting, remediation.HoldTarget, nil, false
	s.incident.Steps[0].State = remediation.StepIntent
	says(t, s, []string{"1-flag_off is in doubt: its change may be in place."}, []string{"No change of backout", "No effect, or failed"})

	s.entries = s.entries[:3] // while it runs
	s.incident.Reason = ""
	says(t, s, []string{"Running, without an outcome yet: 1-flag_off."}, []string{"No change of backout", "No effect, or failed"})
}

func TestAReportOfAStepThatCouldNotBeUndone(t *testing.T) {
	s := ended(view.StepView{ID: "1-flag_off", State: remediation.StepFailed}, func(s *told) {
		s.log(time.Minute, audit.KindIntent, "engine", "1-flag_off", nil)
		s.log(2*time.Minute, audit.KindIntent, "engine", "1-flag_off", map[string]any{"undo": true, "error": "health is 503"})
		s.log(3*time.Minute, audit.KindOutcome, "engine", "1-flag_off", map[string]any{"undo": true, "error": "health is 503", "undo_error": "timeout", "outcome": "failed"})
	})
	s.incident.ByHand = false
	says(t, s, []string{
		"1-flag_off failed and could not be undone: its change may be in place.", "1-flag_off could not be undone. What state is its target in?",
	}, []string{"No change of backout", "No effect, or failed", "changed nothing"})
}

func TestAReportCountsNoRecoveryThatDidNotLast(t *testing.T) {
	s := ended(view.StepView{ID: "1-flag_off", State: remediation.StepDone}, func(s *told) {
		s.log(time.Minute, audit.KindIntent, "engine", "1-flag_off", nil)
		s.log(time.Minute, audit.KindOutcome, "engine", "1-flag_off", map[string]any{"outcome": "done"})
		s.log(4*time.Minute, audit.KindRecovered, "engine", "", nil)
		s.log(8*time.Minute, audit.KindEscalated, "engine", "2-image_retag", nil)
	})
	closedBy := []string{"| intent to recovered | not known | closed by a person before backout saw the breach end |"}
	says(t, s, closedBy, []string{"The breach stopped", "The breach ended"})
	s.entries = s.entries[:len(s.entries)-2] // no next step came, and the value was beyond its bound again
	says(t, s, closedBy, []string{"The breach stopped"})

	s.incident.ByHand = false
	says(t, s, []string{"The breach stopped at 03:04:00", "| intent to recovered | 3 min |"}, nil)
	s.log(8*time.Minute, audit.KindReopened, "engine", "", nil)
	says(t, s, []string{"the recovery of 03:04:00 did not last"}, []string{"The breach stopped"})
}

func TestAReportOfAFrozenIncidentThatWasClosedInTheBreachDoesNotSayThatItEnded(t *testing.T) {
	s := ended(view.StepView{ID: "1-flag_off", State: remediation.StepPending}, func(s *told) {
		s.log(time.Minute, audit.KindHeld, "engine", "1-flag_off", map[string]any{"reason": "frozen"})
	})
	says(t, s, []string{"No change of backout is left in place.", "Is it over?"}, []string{"The breach ended"})
}

func TestAReportNamesWhatPeopleDecided(t *testing.T) {
	s := aLadder()
	s.log(20*time.Minute, audit.KindRestored, "oncall", "", map[string]any{"state": "begun"})
	s.log(21*time.Minute, audit.KindRestored, "oncall", "2-image_retag", map[string]any{"state": "failed", "error": "no such image"})
	s.log(22*time.Minute, audit.KindApproved, "oncall", "3-schema_rollback", map[string]any{"gate": "cooldown"})
	got := ""
	for _, d := range reportOf(t, s).People {
		got += d.What + "\n"
	}
	if want := "Restore started\nCould not be restored: 2-image_retag\nApproved 3-schema_rollback over cooldown\n"; !strings.HasSuffix(got, want) {
		t.Errorf("people decided\n%swant at the end\n%s", got, want)
	}
}

// says checks what a report holds, and what it does not.
func says(t *testing.T, s *told, want, not []string) {
	t.Helper()
	text := strings.ReplaceAll(string(reportOf(t, s).Markdown(nil)), "\\", "")
	for _, w := range want {
		if !strings.Contains(text, w) {
			t.Errorf("it does not say %q:\n%s", w, text)
		}
	}
	for _, w := range not {
		if strings.Contains(text, w) {
			t.Errorf("it says %q:\n%s", w, text)
		}
	}
}
