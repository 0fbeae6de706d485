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
	if text := Incident(inc, time.Time{}, Screen{}); !strings.Contains(text, "the running step ends first") {
		t.Errorf("a claim of a running step:\n%s", text)
	}
}

func TestAStepThatIsToBeUndoneIsNotNamedAsOneThatRuns(t *testing.T) {
	until := time.Date(2026, 11, 22, 4, 0, 0, 0, time.UTC)
	inc := view.IncidentView{
		ID: "inc-1", Service: "shop", State: remediation.Waiting, Reason: remediation.HoldRateLimit, Until: &until, RestoringFor: "oncall",
		OverLimit: "1-flag_off", OverGate: "per_service", Next: &view.Next{Step: "1-flag_off", What: "oncall ordered the restore"},
		Steps: []view.StepView{{ID: "1-flag_off", State: remediation.StepDone}, {ID: "2-image_retag", State: remediation.StepUndone, PutBack: true}},
	}
	text := Incident(inc, until, Screen{})
	for _, want := range []string{"Next: undo of 1-flag_off: oncall ordered", "over the limit: undo of 1-flag_off\n", "put back", "backout approve inc-1 1-flag_off --over=per_service"} {
		if !strings.Contains(text, want) {
			t.Errorf("%q is not in\n%s", want, text)
		}
	}
	if got := stepTone(inc.Steps[1]); got != plain {
		t.Errorf("what was ordered has tone %v", got)
	}
	if got := Approved(inc, "1-flag_off", "per_service"); !strings.HasPrefix(got, "Approved undo of 1-flag_off of inc-1 over per_service. ") {
		t.Errorf("the approval reads %q", got)
	}
}

func TestWhatWasLostIsShownWithItsSnapshot(t *testing.T) {
	inc := view.IncidentView{ID: "inc-1", Service: "shop", State: remediation.Closed, Steps: []view.StepView{
		{ID: "3-schema_rollback", Risk: "lossy", State: remediation.StepDone, LostData: true, Snapshot: &view.Snapshot{
			Path: "/var/lib/backout/shop.dump", Size: 3 << 20, SHA256: strings.Repeat("ab", 32), Database: "shop",
		}},
		{ID: "4-status_page", State: remediation.StepPending},
	}}
	text := strings.Join(strings.Fields(Incident(inc, time.Time{}, Screen{})), " ")
	for _, want := range []string{
		"lost data: the snapshot is /var/lib/backout/shop.dump, 3 MiB, SHA-256 " + strings.Repeat("ab", 32),
		"This changes no database. pg_restore --file=/var/lib/backout/shop.sql /var/lib/backout/shop.dump Replace the whole database",
		"Rows written since the snapshot are lost. Add the database's host and user. pg_restore --clean --if-exists --single-transaction --dbname=shop /var/lib/backout/shop.dump", "4-status_page never run",
	} {
		if !strings.Contains(text, want) {
			t.Errorf("%q is not in\n%s", want, text)
		}
	}
	inc.Steps[0].Snapshot.DSNFile = "/etc/backout/shop.dsn"
	inc.Steps[0].Snapshot.Lost = []remediation.Lost{{What: remediation.LostTable, Schema: "public", Table: "live positions", Rows: 229}}
	text = Incident(inc, time.Time{}, Screen{})
	for _, line := range []string{ // each whole, to be copied
		`pg_restore --clean --if-exists --single-transaction --dbname="$(cat /etc/backout/shop.dsn)" /var/lib/backout/shop.dump`,
		`pg_restore --schema=public --table='live positions' --file=/var/lib/backout/shop-lost.sql /var/lib/backout/shop.dump`,
	} {
		if !strings.Contains(text, "\n        "+line+"\n") {
			t.Errorf("no line is %s:\n%s", line, text)
		}
	}
	if text := strings.Join(strings.Fields(text), " "); !strings.Contains(text, "lost data: table public.live positions (229 rows); the snapshot is ") {
		t.Errorf("it does not say what was lost:\n%s", text)
	}
}

func TestWhatAsksSaysWhatIsAtStake(t *testing.T) {
	rehearsed := time.Date(2026, 11, 21, 3, 0, 0, 0, time.UTC)
	inc := view.IncidentView{
		ID: "inc-1", Service: "shop", State: remediation.Waiting, Reason: remediation.HoldApproval, Next: &view.Next{Step: "3-schema_rollback"},
		Steps: []view.StepView{{ID: "3-schema_rollback", Target: "schema:shop", Risk: "lossy", State: remediation.StepWaiting, Loses: "what only the schema after version 1 can hold"}},
	}
	says := func(want ...string) {
		t.Helper()
		text := strings.Join(strings.Fields(Incident(inc, rehearsed, Screen{})), " ")
		for _, w := range want {
			if !strings.Contains(text, w) {
				t.Errorf("%q is not in\n%s", w, text)
			}
		}
	}
	says("It needs an approval lost what only the schema after version 1 can hold (schema:shop) rehearsed never: how long it takes and the snapshot's size are not known yes:")
	inc.Steps[0].Rehearsed, inc.Steps[0].Expected, inc.Steps[0].Evidence = &rehearsed, "1m40s", "snapshot of 2 KiB in /var/snapshots"
	says("rehearsed took 1 min 40 s on 21 Nov 2026 03:00:00 UTC; snapshot of 2 KiB in /var/snapshots yes:")
	inc.Reason, inc.FrozenBy = remediation.HoldFrozen, []remediation.Freeze{{Scope: remediation.ScopeAll}, {Service: "shop", Scope: remediation.ScopeAll}}
	says("can lose what only the schema after version 1 can hold", "end the freeze of every service, which holds it: backout thaw --reason=WHY",
		"end the freeze of service shop, which holds it: backout thaw --service=shop --reason=WHY")
	if text := Incident(inc, rehearsed, Screen{}); strings.Contains(text, "backout freeze") {
		t.Errorf("a frozen service can be frozen:\n%s", text)
	}
	for _, state := range []remediation.State{remediation.Settling, remediation.Recovered} {
		inc.State, inc.Reason = state, ""
		if text := Incident(inc, rehearsed, Screen{}); strings.Contains(text, "which holds it") || !strings.Contains(text, "end the freeze of service shop:") {
			t.Errorf("%s, and it says of the freeze:\n%s", state, text)
		}
	}
}

func TestAnApprovalSaysWhatItDoes(t *testing.T) {
	inc := view.IncidentView{ID: "inc-8", Steps: []view.StepView{{ID: "3-schema_rollback", Risk: "lossy", NeedsApproval: true}}}
	got := strings.Join(strings.Fields(Approved(inc, "3-schema_rollback", "blast_radius")), " ")
	if got != "Approved 3-schema_rollback of inc-8 over blast_radius. If nothing else holds it, it then asks for its own approval. To watch it: backout incident show inc-8 --follow" {
		t.Error(got)
	}
	inc.Steps[0].NeedsApproval = false
	got = strings.Join(strings.Fields(Approved(inc, "3-schema_rollback", "")), " ")
	if got != "Approved 3-schema_rollback of inc-8, which can lose data. If nothing else holds it, it runs within seconds. To watch it: backout incident show inc-8 --follow" {
		t.Error(got)
	}
	inc.Steps[0].Loses = "what only the schema after version 1 can hold"
	if got = strings.Join(strings.Fields(Approved(inc, "3-schema_rollback", "")), " "); !strings.Contains(got, "which can lose what only the schema after version 1 can hold. If") {
		t.Error(got)
	}
}

func TestAnAbortThatIsHeldSaysThatNothingWasRolledBack(t *testing.T) {
	now := time.Date(2026, 11, 22, 3, 0, 0, 0, time.UTC)
	until := now.Add(time.Hour)
	inc := view.IncidentView{
		ID: "inc-8", State: remediation.Waiting, Reason: remediation.HoldRateLimit, Why: "6 steps on shop within 1h, 6 are allowed", Until: &until,
		OverLimit: "1-flag_off", OverGate: "per_service", Steps: []view.StepView{{ID: "1-flag_off"}, {ID: "2-status_page", Tells: true, Started: &now}},
	}
	text := AbortHeld(inc, now)
	if !strings.HasPrefix(text, "The abort is on hold: nothing was rolled back yet: 6 steps") || !strings.Contains(text, "22 Nov 2026 04:00:00 UTC") ||
		!strings.Contains(text, "\n  backout approve inc-8 1-flag_off --over=per_service --reason=WHY\n") {
		t.Errorf("it says\n%s", text)
	}
	inc.Steps[0].Started = &now
	if text := AbortHeld(inc, now); text != "" {
		t.Errorf("a step has run, and it says\n%s", text)
	}
}

func TestAStepInDoubtIsShownWithWhatAPersonCanDo(t *testing.T) {
	inc := view.IncidentView{
		ID: "inc-1", Service: "shop", State: remediation.Acting, Reason: remediation.HoldTarget, ClaimedBy: "ann",
		Steps: []view.StepView{{ID: "1-flag_off", State: remediation.StepIntent}},
	}
	text := strings.Join(strings.Fields(Incident(inc, time.Time{}, Screen{})), " ")
	for _, want := range []string{
		"in doubt: the target of 1-flag_off cannot be inspected. backout looks again", "its change may be in place",
		"by ann: no step runs until it is released", "backout incident close inc-1",
	} {
		if !strings.Contains(text, want) {
			t.Errorf("%q is not in\n%s", want, text)
		}
	}
	inc.Reason = ""
	if text := Incident(inc, time.Time{}, Screen{}); strings.Contains(text, "incident close") || strings.Contains(text, "may be in place") {
		t.Errorf("a step runs, which no close ends:\n%s", text)
	}
}

func TestAClosedIncidentIsOverOnlyIfItWasSeenToBe(t *testing.T) {
	inc := view.IncidentView{ID: "inc-1", State: remediation.Closed, Triggers: []view.TriggerView{{Trigger: "error_rate", Active: true}}}
	for byHand, want := range map[bool]string{true: "closed: a person closed it before backout saw the breach end", false: "closed: the incident is over"} {
		inc.ByHand = byHand
		if text := Incident(inc, time.Time{}, Screen{}); !strings.Contains(text, want) {
			t.Errorf("it does not say %q:\n%s", want, text)
		}
	}
}

func TestARehearsalThatLeavesSomethingUnknownNamesTheSignOff(t *testing.T) {
	r := remediation.Rehearsal{Service: "shop", Plan: "rollback", Steps: []remediation.RehearsedStep{{ID: "1-flag_off"}}}
	r.Steps[0].Status = remediation.CannotTell
	r.Drill.Status = remediation.Pass
	const want = "\n  backout preflight sign rehearsal/rollback --service=shop --reason=WHY\n"
	if text := RehearsalEnd(r); !strings.HasSuffix(text, want) {
		t.Errorf("it ends with\n%s", text)
	}
	r.Steps[0].Status = remediation.Fail
	if text := RehearsalEnd(r); strings.Contains(text, "preflight sign") {
		t.Errorf("a failure can be signed off:\n%s", text)
	}
}
