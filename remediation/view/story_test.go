package view_test

import (
	"strings"
	"testing"
	"time"

	"github.com/locotoki/backout/remediation"
	"github.com/locotoki/backout/remediation/audit"
	"github.com/locotoki/backout/remediation/view"
)

func TestAStoryOfAnEndSaysWhoClosedItAndWhatMayBeInPlace(t *testing.T) {
	measured, signal := []view.TriggerView{{Trigger: "error_rate"}}, []view.TriggerView{{Trigger: "breach", Signal: "leak"}}
	ran := time.Date(2026, 11, 22, 3, 0, 0, 0, time.UTC)
	step := func(s view.StepView) []view.StepView { s.ID, s.Started = "1-flag_off", &ran; return []view.StepView{s} }
	const (
		failed  = "1-flag_off failed and could not be undone: its change may be in place."
		doubted = "1-flag_off is in doubt: its change may be in place."
	)
	for name, tc := range map[string]struct {
		v                view.IncidentView
		headline, helped string
		restorable       bool
	}{
		"over": {
			view.IncidentView{State: remediation.Closed, Steps: step(view.StepView{State: remediation.StepDone})},
			"Closed", "It is over. The last step was 1-flag_off.", true,
		},
		"over without a step": {view.IncidentView{State: remediation.Closed}, "Closed", "It is over, without a step by backout.", false},
		"closed in doubt": {
			view.IncidentView{State: remediation.Closed, ByHand: true, Steps: step(view.StepView{State: remediation.StepInDoubt})},
			"Closed by a person before backout saw the breach end", "A person closed it before backout saw the breach end. " + doubted, true,
		},
		"closed in the breach": {
			view.IncidentView{State: remediation.Closed, ByHand: true, Steps: step(view.StepView{State: remediation.StepDone})},
			"Closed by a person before backout saw the breach end", "A person closed it before backout saw the breach end. The last step was 1-flag_off.", true,
		},
		"closed in the breach, frozen": {
			view.IncidentView{State: remediation.Closed, ByHand: true},
			"Closed by a person before backout saw the breach end", "A person closed it before backout saw the breach end, without a step by backout.", false,
		},
		"closed while a signal is raised": {
			view.IncidentView{State: remediation.Closed, ByHand: true, Triggers: signal},
			"Closed by a person while its signal was raised", "A person closed it while its signal was raised, without a step by backout.", false,
		},
		"over, though a step failed": {
			view.IncidentView{State: remediation.Closed, Steps: step(view.StepView{State: remediation.StepFailed})},
			"Closed: a change may be in place", "It is over. " + failed, false,
		},
		"over, though a restore failed": {
			view.IncidentView{State: remediation.Closed, Steps: step(view.StepView{State: remediation.StepFailed, NotPutBack: true})},
			"Closed: a change may be in place", "It is over. 1-flag_off could not be put back: its change may be in place.", true,
		},
		"recovered, though a step failed": {
			view.IncidentView{State: remediation.Recovered, Steps: step(view.StepView{State: remediation.StepFailed})},
			"Recovered: still watching", "The breach stopped. " + failed, false,
		},
		"a step failed": {
			view.IncidentView{State: remediation.Waiting, Reason: remediation.HoldStepFailed, Steps: step(view.StepView{State: remediation.StepFailed})},
			"On hold: a step failed", "No: " + failed, false,
		},
		"a step runs again": {
			view.IncidentView{State: remediation.Confirming, Steps: step(view.StepView{State: remediation.StepPending, Left: true})},
			"Checking whether the breach is real", "Unknown. 1-flag_off was tried and is to run again: its change may be in place.", false,
		},
		"a step is in doubt": {
			view.IncidentView{State: remediation.Acting, Reason: remediation.HoldTarget, Steps: step(view.StepView{State: remediation.StepIntent})},
			"In doubt: the target of 1-flag_off cannot be inspected",
			"Unknown: the target of 1-flag_off cannot be inspected. This needs a person. " + doubted, false,
		},
		"a step is unverified": {
			view.IncidentView{State: remediation.Acting, Reason: remediation.HoldTarget, ClaimedBy: "ann", Steps: step(view.StepView{State: remediation.StepDone})},
			"In doubt, claimed by ann: the change by 1-flag_off cannot be verified",
			"Unknown: the change by 1-flag_off cannot be verified. This needs a person.", false,
		},
		"a step runs": {
			view.IncidentView{State: remediation.Acting, Steps: step(view.StepView{State: remediation.StepIntent})},
			"A step is running", "Not known yet: 1-flag_off is running.", false,
		},
		"a step that tells failed": {
			view.IncidentView{State: remediation.Closed, Steps: step(view.StepView{State: remediation.StepFailed, Tells: true})},
			"Closed", "It is over, without a step by backout.", false,
		},
	} {
		if tc.v.Triggers == nil {
			tc.v.Triggers = measured
		}
		s := view.NewStory(tc.v, view.ServiceNow{}, ran)
		if s.Headline != tc.headline || s.Helped != tc.helped || s.Restorable != tc.restorable {
			t.Errorf("%s: it says %q and %q, restorable %v; want %q and %q, %v", name, s.Headline, s.Helped, s.Restorable, tc.headline, tc.helped, tc.restorable)
		}
	}
}

func TestAStepInDoubtHoldsInItsOwnWords(t *testing.T) {
	v := view.IncidentView{State: remediation.Acting, Reason: remediation.HoldTarget, Steps: []view.StepView{{ID: "1-flag_off", State: remediation.StepIntent}}}
	s := view.NewStory(v, view.ServiceNow{}, time.Time{})
	if s.Why != "the target of 1-flag_off cannot be inspected" || !strings.Contains(s.WhyEnds, "by itself once the target can be inspected") {
		t.Errorf("it holds because %q, and ends: %q", s.Why, s.WhyEnds)
	}
}

func TestWhatCanBeClosedIsWhatRunsNoStep(t *testing.T) {
	for want, all := range map[bool][]view.IncidentView{
		true: {
			{State: remediation.Waiting}, {State: remediation.Exhausted}, {State: remediation.Settling, ClaimedBy: "ann"},
			{State: remediation.Acting, Reason: remediation.HoldTarget},
		},
		false: {{State: remediation.Acting, ClaimedBy: "ann"}, {State: remediation.Recovered}, {State: remediation.Closed}},
	} {
		for _, v := range all {
			if v.Closable() != want {
				t.Errorf("%s (%s), claimed by %q: closable is %v", v.State, v.Reason, v.ClaimedBy, !want)
			}
		}
	}
}

func TestOnlyARecoveryThatLastedIsOne(t *testing.T) {
	entries := func(kinds ...audit.Kind) func(audit.Kind) *audit.Entry {
		return func(kind audit.Kind) (last *audit.Entry) {
			for i, k := range kinds {
				if k == kind {
					last = &audit.Entry{Seq: int64(i), Kind: k}
				}
			}
			return last
		}
	}
	for name, tc := range map[string]struct {
		v     view.IncidentView
		kinds []audit.Kind
		want  bool
	}{
		"over":                    {view.IncidentView{State: remediation.Closed}, []audit.Kind{audit.KindRecovered, audit.KindClosed}, true},
		"still watched":           {view.IncidentView{State: remediation.Recovered}, []audit.Kind{audit.KindEscalated, audit.KindRecovered}, true},
		"while it is restored":    {view.IncidentView{State: remediation.Acting, RestoringFor: "ann"}, []audit.Kind{audit.KindRecovered}, true},
		"it came back":            {view.IncidentView{State: remediation.Closed}, []audit.Kind{audit.KindRecovered, audit.KindEscalated, audit.KindClosed}, false},
		"it was reopened":         {view.IncidentView{State: remediation.Closed}, []audit.Kind{audit.KindRecovered, audit.KindReopened, audit.KindClosed}, false},
		"no step was left":        {view.IncidentView{State: remediation.Exhausted}, []audit.Kind{audit.KindRecovered}, false},
		"closed in the breach":    {view.IncidentView{State: remediation.Closed, ByHand: true}, []audit.Kind{audit.KindRecovered, audit.KindClosed}, false},
		"there was none":          {view.IncidentView{State: remediation.Closed}, []audit.Kind{audit.KindClosed}, false},
		"it came back, and ended": {view.IncidentView{State: remediation.Closed}, []audit.Kind{audit.KindRecovered, audit.KindEscalated, audit.KindRecovered}, true},
	} {
		if e, lasted := tc.v.Recovery(entries(tc.kinds...)); lasted != tc.want || lasted && e == nil {
			t.Errorf("%s: lasted is %v", name, lasted)
		}
	}
}

func TestATimelineSaysWhatBecameOfARestore(t *testing.T) {
	for want, e := range map[string]audit.Entry{
		"human Restore started":                          {Kind: audit.KindRestored, Detail: map[string]any{"state": "begun", "next": "2-image_retag"}},
		"human Restore forced":                           {Kind: audit.KindRestored, Detail: map[string]any{"state": "forced"}},
		"human Restored":                                 {Kind: audit.KindRestored, Detail: map[string]any{"state": "done"}},
		"bad Could not be restored: 2-image_retag":       {Kind: audit.KindRestored, Step: "2-image_retag", Detail: map[string]any{"state": "failed"}},
		"human Approved 3-schema_rollback":               {Kind: audit.KindApproved, Step: "3-schema_rollback", Detail: map[string]any{}},
		"human Approved 3-schema_rollback over cooldown": {Kind: audit.KindApproved, Step: "3-schema_rollback", Detail: map[string]any{"gate": "cooldown"}},
		"human Denied 3-schema_rollback":                 {Kind: audit.KindDenied, Actor: "eve", Step: "3-schema_rollback"},
		"bad Not approved in time: 3-schema_rollback":    {Kind: audit.KindDenied, Actor: remediation.ActorEngine, Step: "3-schema_rollback"},
	} {
		if ev := view.Describe(e); ev.Tone+" "+ev.Title != want {
			t.Errorf("%s %v is titled %q (%s), want %q", e.Kind, e.Detail, ev.Title, ev.Tone, want)
		}
	}
}

func TestAStatusShowsForADayWhatAClosedIncidentMayHaveLeft(t *testing.T) {
	now := time.Date(2026, 11, 22, 3, 0, 0, 0, time.UTC)
	ago := func(d time.Duration) *time.Time { at := now.Add(-d); return &at }
	left := []view.StepView{{ID: "1-flag_off", State: remediation.StepInDoubt}}
	for name, tc := range map[string]struct {
		closed  *time.Time
		steps   []view.StepView
		rollout *time.Time
		want    bool
	}{
		"in doubt":            {ago(time.Hour), left, ago(2 * time.Hour), true},
		"a day ago":           {ago(25 * time.Hour), left, nil, false},
		"a new rollout since": {ago(time.Hour), left, ago(time.Minute), false},
		"done":                {ago(time.Hour), []view.StepView{{ID: "1-flag_off", State: remediation.StepDone}}, nil, false},
	} {
		s := view.NewStatus(view.Overview{
			Time: now, Services: []view.ServiceNow{{Service: "shop", Rollout: remediation.Rollout{Started: tc.rollout}}},
			Recent: []view.IncidentView{{ID: "inc-1", Service: "shop", State: remediation.Closed, Closed: tc.closed, Steps: tc.steps}},
		})
		text := ""
		for _, l := range s.NeedsPerson() {
			text += l.Subject + ": " + l.Text
		}
		words, _ := s.Headline()
		shown := text == "inc-1: shop: closed: 1-flag_off is in doubt: its change may be in place. Look at the target, or restore the incident." &&
			words == "inc-1: closed, and a change may be in place"
		if shown != tc.want || !tc.want && text != "" {
			t.Errorf("%s: a person is needed for %q, and the headline is %q", name, text, words)
		}
	}
}

func TestAStatusSaysWhatBecameOfAnAlertThatOpenedNothing(t *testing.T) {
	for why, want := range map[string]string{
		"":                              "its alert did not arrive, or is silenced",
		"its alert arrived and is held": "its alert arrived and is held",
	} {
		o := view.Overview{Services: []view.ServiceNow{{Service: "shop", Unheard: []view.Unheard{{Trigger: "hits", Why: why}}}}}
		said := ""
		for _, l := range view.NewStatus(o).Lines {
			said += l.Text + "\n"
		}
		if !strings.Contains(said, "no incident is open: "+want+"\n") {
			t.Errorf("it says\n%s", said)
		}
	}
}
