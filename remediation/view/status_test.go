package view_test

import (
	"cmp"
	"encoding/json"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/locotoki/backout/alerts"
	"github.com/locotoki/backout/remediation"
	"github.com/locotoki/backout/remediation/audit"
	"github.com/locotoki/backout/remediation/view"
)

func TestAStatusMarksExactlyWhatNeedsAPerson(t *testing.T) {
	now := time.Date(2026, 11, 22, 3, 10, 0, 0, time.UTC)
	ago := func(d time.Duration) *time.Time { at := now.Add(-d); return &at }
	quiet := func() view.Overview {
		return view.Overview{
			Time: now, Mode: remediation.Act, HeadSeq: 7, HeadHash: strings.Repeat("ab", 32), Audited: &view.Audited{OK: true, Time: *ago(time.Hour)},
			Services: []view.ServiceNow{{Service: "shop", Playbook: strings.Repeat("cd", 32), Watchdog: ago(12 * time.Second), WatchdogHeard: true, WatchdogMaxAge: 5 * time.Minute}},
		}
	}
	for name, tc := range map[string]struct {
		change func(o *view.Overview)
		want   string // the only line that needs a person; "" for none
	}{
		"all is well": {func(*view.Overview) {}, ""},
		"observe mode and a freeze are decisions of people": {func(o *view.Overview) {
			o.Mode, o.Freezes = remediation.Observe, []remediation.Freeze{{Scope: remediation.ScopeAll, By: "eve", Reason: "move"}}
		}, ""},
		"the built-in example":     {func(o *view.Overview) { o.Services[0].Example = true }, ""},
		"a message waits a minute": {func(o *view.Overview) { o.Undelivered, o.UndeliveredSince = 1, ago(time.Minute) }, ""},
		"a message waits an hour": {func(o *view.Overview) { o.Undelivered, o.UndeliveredSince = 2, ago(time.Hour) },
			"messages: 2 messages waiting, the oldest from 1 h ago"},
		"a message was dropped": {func(o *view.Overview) { o.Dropped, o.DroppedLast = 2, ago(3*time.Hour) },
			"messages: 2 messages dropped in the last day, the last 3 h ago: pass them on by hand, see backout audit list --kind=notified"},
		"a replica restarts": {func(o *view.Overview) { o.Replicas = []view.ReplicaNow{{Name: "b", Seen: *ago(time.Minute)}} }, ""},
		"a replica is down": {func(o *view.Overview) { o.Replicas = []view.ReplicaNow{{Name: "b", Seen: *ago(3 * time.Minute)}} },
			"replica b: not seen since 3 min ago"},
		"Prometheus is away": {func(o *view.Overview) { o.Services[0].PrometheusAway = ago(6 * time.Minute) },
			"shop: monitoring: lost: Prometheus stopped answering 6 min ago"},
		"the watchdog is old": {func(o *view.Overview) { o.Services[0].Watchdog = ago(6 * time.Minute) },
			"shop: monitoring: lost: the last watchdog alert came 6 min ago"},
		"no watchdog alert came since the first start": {func(o *view.Overview) {
			o.Services[0].Watchdog, o.Services[0].WatchdogHeard, o.Arrivals.Since = ago(6*time.Minute), false, *ago(6 * time.Minute)
		},
			"shop: monitoring: lost: no watchdog alert since the first start 6 min ago: Alertmanager has sent nothing to this replica since it started 6 min ago (try: " + remediation.HintSilent + ")"},
		"no watchdog alert came to any of two replicas": {func(o *view.Overview) {
			o.Services[0].Watchdog, o.Services[0].WatchdogHeard, o.Arrivals.Since = ago(6*time.Minute), false, *ago(6 * time.Minute)
			o.Replicas = []view.ReplicaNow{{Name: "a", Live: true}, {Name: "b", Live: true}}
		},
			"shop: monitoring: lost: no watchdog alert since the first start 6 min ago: Alertmanager has sent nothing to this replica since it started 6 min ago (try: load the rule Watchdog of shop into Prometheus, and give Alertmanager the second route of generated/deploy/alertmanager.yml)"},
		"no watchdog alert came before a restart either": {func(o *view.Overview) {
			o.Services[0].Watchdog, o.Services[0].WatchdogHeard, o.Arrivals.Since = ago(48*time.Hour), false, *ago(10 * time.Second)
		}, "shop: monitoring: lost: no watchdog alert since the first start 2 d ago"},
		"what a stranger posts before the first watchdog decides nothing": {func(o *view.Overview) {
			o.Services[0].Watchdog, o.Services[0].WatchdogHeard, o.Arrivals.Since = ago(40*time.Second), false, *ago(40 * time.Second)
			o.Arrivals.Refused = &remediation.RefusedArrivals{Count: 1, First: *ago(time.Second), Last: *ago(time.Second), From: "10.0.0.7", Result: "unauthorized"}
		}, ""},
		"other alerts came, but no watchdog": {func(o *view.Overview) {
			o.Services[0].Watchdog, o.Services[0].WatchdogHeard = ago(6*time.Minute), false
			o.Arrivals = remediation.Arrivals{Since: *ago(6 * time.Minute), Accepted: true}
		},
			"shop: monitoring: lost: no watchdog alert since the first start 6 min ago: other alerts arrive (try: load the rule Watchdog of shop into Prometheus, and give Alertmanager the second route of generated/deploy/alertmanager.yml)"},
		"no watchdog could come yet": {func(o *view.Overview) {
			o.Services[0].Watchdog, o.Services[0].WatchdogHeard, o.Arrivals.Since = ago(40*time.Second), false, *ago(40 * time.Second)
		}, ""},
		"notifications were refused from the first on": {func(o *view.Overview) {
			o.Services[0].Watchdog, o.Services[0].WatchdogHeard = ago(6*time.Minute), false
			o.Arrivals = remediation.Arrivals{Since: *ago(6 * time.Minute), Refused: &remediation.RefusedArrivals{Count: 6, First: *ago(time.Minute), Last: *ago(time.Second), From: "127.0.0.1", Result: "unauthorized"}}
		},
			"shop: monitoring: lost: no watchdog alert since the first start 6 min ago: 6 notifications were refused (unauthorized) since 22 Nov 2026 03:09:00 UTC, the last from 127.0.0.1 (try: " + remediation.HintToken + ")"},
		"notifications were refused once the token was another": {func(o *view.Overview) {
			o.Services[0].Watchdog = ago(6 * time.Minute)
			o.Arrivals.Refused = &remediation.RefusedArrivals{Count: 1, First: *ago(time.Minute), Last: *ago(time.Minute), From: "10.0.0.7", Result: "forbidden"}
		},
			"shop: monitoring: lost: the last watchdog alert came 6 min ago: 1 notification was refused (forbidden) at 22 Nov 2026 03:09:00 UTC, from 10.0.0.7 (try: " + remediation.HintToken + ")"},
		"what a stranger posts concerns nobody while the watchdog is heard": {func(o *view.Overview) {
			o.Arrivals.Refused = &remediation.RefusedArrivals{Count: 1, First: *ago(time.Second), Last: *ago(time.Second), From: "10.0.0.7", Result: "unauthorized"}
		}, ""},
		"the audit log is broken": {func(o *view.Overview) { o.Audited.OK = false },
			"audit log: entry 7, hash abababababab, broken when verified 1 h ago: run backout audit verify"},
		"the audit log was verified long ago": {func(o *view.Overview) { o.Audited.Time = *ago(72 * time.Hour) },
			"audit log: entry 7, hash abababababab, last verified 3 d ago, and not since: see the server's log"},
		"no replica acts for many services": {func(o *view.Overview) {
			o.Unheld = []view.UnheldNow{{Realm: "host:web-1", Services: strings.Split("abcdefg", "")}}
		}, "host:web-1: no replica acts here: nothing is done for a, b, c, d, e and 2 more"},
		"no playbook": {func(o *view.Overview) { o.Services = nil }, "playbooks: none is loaded: backout handles no alert"},
		"an incident waits for an approval": {func(o *view.Overview) {
			o.Incidents = []view.IncidentView{{ID: "inc-1", Service: "shop", State: remediation.Waiting, Reason: remediation.HoldApproval,
				Next: &view.Next{Step: "4-schema_rollback", At: ago(-30 * time.Minute)}}}
			o.Needed = []view.Needed{{Service: "shop", Reason: "approval", Incident: "inc-1"}}
		}, "inc-1: shop: Waiting for approval; next 4-schema_rollback in 30 min (needs a person: approval)"},
		"a breach that observe mode leaves alone": {func(o *view.Overview) {
			o.Mode = remediation.Observe
			o.Incidents = []view.IncidentView{{ID: "inc-1", Service: "shop", State: remediation.Waiting, Reason: remediation.HoldMode},
				{ID: "inc-2", Service: "blog", State: remediation.Waiting, Reason: remediation.HoldMode, ClaimedBy: "eve"},
				{ID: "inc-3", Service: "blog", State: remediation.Waiting, Reason: remediation.HoldMode, Drill: true}}
		}, "inc-1: shop: On hold: backout only observes (needs a person: a breach, and backout only observes)"},
		"a breach of which no alert came": {func(o *view.Overview) {
			o.Services[0].Unheard = []view.Unheard{{Trigger: "hits", Value: 0.5, Threshold: 0.6, Unit: alerts.Ratio}}
		}, "shop: hits is at 50%, under its bound of 60%, and no incident is open: its alert did not arrive, or is silenced"},
		"a reload that failed": {func(o *view.Overview) {
			o.NotReloaded = &view.NotReloaded{Error: "shop.yaml:3: unknown key\nshop.yaml:9: another", Time: now, Runs: ago(time.Hour)}
		}, "configuration: the configuration could not be reloaded: shop.yaml:3: unknown key; backout runs with what was loaded at 22 Nov 2026 02:10:00 UTC"},
		"an incident that somebody claimed": {func(o *view.Overview) {
			o.Incidents = []view.IncidentView{{ID: "inc-1", Service: "shop", State: remediation.Waiting, Reason: remediation.HoldApproval, ClaimedBy: "eve"}}
		}, ""},
		"a closed incident whose breach goes on": {func(o *view.Overview) {
			o.Needed = []view.Needed{{Service: "shop", Reason: "no_data", Incident: "inc-3"}}
		}, "inc-3: shop: needs a person: no_data"},
		"a job without an incident is stuck": {func(o *view.Overview) { o.Needed = []view.Needed{{Service: "shop", Reason: "stuck"}} },
			"shop: needs a person: stuck"},
	} {
		t.Run(name, func(t *testing.T) {
			o := quiet()
			tc.change(&o)
			var got []string
			for _, l := range view.NewStatus(o).NeedsPerson() {
				got = append(got, l.Subject+": "+l.Text)
			}
			if strings.Join(got, "\n") != tc.want {
				t.Errorf("a person is needed for\n%s\nwant\n%s", strings.Join(got, "\n"), tc.want)
			}
		})
	}
}

func TestTheHeadlineSaysTheGravestOfWhatIsWrong(t *testing.T) {
	now := time.Date(2026, 11, 22, 3, 10, 0, 0, time.UTC)
	away := now.Add(-6 * time.Minute)
	asks := view.IncidentView{ID: "inc-1", Service: "shop", State: remediation.Waiting, Reason: remediation.HoldApproval}
	settles := view.IncidentView{ID: "inc-2", Service: "blog", State: remediation.Settling, Steps: []view.StepView{{State: remediation.StepDone}}}
	for want, o := range map[string]view.Overview{
		"good Nothing needs a person":                           {Services: []view.ServiceNow{{Service: "shop"}}},
		"bad shop: waiting for approval":                        {Incidents: []view.IncidentView{settles, asks}, Services: []view.ServiceNow{{Service: "blog", PrometheusAway: &away}}, Needed: []view.Needed{{Service: "shop", Reason: "approval", Incident: "inc-1"}}},
		"bad blog: monitoring lost":                             {Incidents: []view.IncidentView{settles}, Services: []view.ServiceNow{{Service: "blog", PrometheusAway: &away}}},
		"wait blog: a step has run: watching whether it helped": {Incidents: []view.IncidentView{settles}, Services: []view.ServiceNow{{Service: "blog"}}},
		"bad shop: a breach, and backout only observes": {Mode: remediation.Observe, Incidents: []view.IncidentView{settles,
			{ID: "inc-1", Service: "shop", State: remediation.Waiting, Reason: remediation.HoldMode}}, Services: []view.ServiceNow{{Service: "blog"}, {Service: "shop"}}},
		"bad shop: error_rate is at 9.2%, over its bound of 1%, and no incident is open": {Services: []view.ServiceNow{{Service: "blog", PrometheusAway: &away},
			{Service: "shop", Unheard: []view.Unheard{{Trigger: "error_rate", Value: 0.092, Threshold: 0.01, Above: true, Unit: alerts.Ratio}}}}},
		"bad shop: a target is not ready":                          {Services: []view.ServiceNow{{Service: "shop", NotReady: []string{"image: a long story"}}}},
		"bad mail: a step is running":                              {Incidents: []view.IncidentView{{ID: "inc-4", Service: "mail", State: remediation.Acting}}, Services: []view.ServiceNow{{Service: "shop", NotReady: []string{"image: a long story"}}}},
		"bad playbooks: none is loaded: backout handles no alert":  {},
		"bad messages: 1 message waiting, the oldest from 1 h ago": {Services: []view.ServiceNow{{Service: "shop"}}, Undelivered: 1, UndeliveredSince: hourBefore(now)},
	} {
		o.Time, o.Mode = now, cmp.Or(o.Mode, remediation.Act)
		if words, tone := view.NewStatus(o).Headline(); tone+" "+words != want {
			t.Errorf("the headline is %s %q, want %q", tone, words, want)
		}
	}
}

func hourBefore(t time.Time) *time.Time { t = t.Add(-time.Hour); return &t }

func TestAStatusSaysThatThePlaybookIsTheBuiltInExample(t *testing.T) {
	for _, example := range []bool{true, false} {
		said := ""
		for _, l := range view.NewStatus(view.Overview{Services: []view.ServiceNow{{Service: "shop", Playbook: "0123", Example: example}}}).Lines {
			said += l.Text + "\n"
		}
		if strings.Contains(said, "0123, the built-in example: serve got no --playbook.file\n") != example {
			t.Errorf("example %v:\n%s", example, said)
		}
	}
}

func TestWhatAnEntrySaysOfARolloutIsWhatHappened(t *testing.T) {
	for want, detail := range map[string]map[string]any{
		"Rollout v2 alpha":                           {},
		"Abort ordered: v2":                          {"abort": "begun"},
		"Rollout v2 alpha, held":                     {"held": true},
		"Rollout v2 alpha, resumed":                  {"held": false},
		"Rollout v2 alpha, not promoted":             {"promotion": "refused", "held": true},
		"Rollout v2 to beta failed, traffic unknown": {"promotion": "failed", "to": "beta", "held": true},
	} {
		detail["release"], detail["state"], detail["stage"] = "v2", remediation.RolloutActive, "alpha"
		if got := view.Describe(audit.Entry{Kind: audit.KindStage, Detail: detail}).Title; got != want {
			t.Errorf("the title is %q, want %q", got, want)
		}
	}
}

func TestARolloutThatIsOverIsSaidToBe(t *testing.T) {
	for state, want := range map[string]string{remediation.RolloutRolledBack: "Rollout v2 rolled back", remediation.RolloutAborted: "Rollout v2 aborted"} {
		e := audit.Entry{Kind: audit.KindStage, Detail: map[string]any{"release": "v2", "state": state, "stage": remediation.StageNone}}
		if got := view.Describe(e).Title; got != want {
			t.Errorf("the title is %q, want %q", got, want)
		}
	}
	sv := view.ServiceNow{Rollout: remediation.Rollout{Release: "v2", State: remediation.RolloutRolledBack, Stage: remediation.StageNone}}
	if got := sv.RolloutWords(); got != "v2 rolled back" {
		t.Errorf("the status says %q", got)
	}
}

func TestAnOrderedRollbackIsNotSaidToBeConfirmed(t *testing.T) {
	v := view.IncidentView{ID: "inc-1", State: remediation.Confirming, AbortedBy: "oncall"}
	if got := view.NewStory(v, view.ServiceNow{}, time.Time{}).Headline; got != "Rollback ordered by oncall: about to continue" {
		t.Errorf("the headline is %q", got)
	}
	v.Triggers = []view.TriggerView{{Trigger: "error_rate"}, {Trigger: "p95"}, {Trigger: "error_rate"}}
	if got := v.Cause(); got != "error_rate, p95" || v.Ordered() {
		t.Errorf("the cause is %q", got)
	}
}

func TestAStatusNamesTheUndoThatComesNext(t *testing.T) {
	at := time.Date(2026, 11, 22, 3, 10, 0, 0, time.UTC)
	line := func(v view.IncidentView) string {
		v.ID, v.Service = "inc-1", "shop"
		for _, l := range view.NewStatus(view.Overview{Time: at, Incidents: []view.IncidentView{v}}).Lines {
			if l.Subject == v.ID {
				return l.Text
			}
		}
		return ""
	}
	for want, v := range map[string]view.IncidentView{
		"shop: Restore on hold: rate limit reached; next undo of 1-flag_off": {
			State: remediation.Waiting, Reason: remediation.HoldRateLimit, RestoringFor: "oncall", Next: &view.Next{Step: "1-flag_off", What: "oncall ordered the restore"},
		},
		"shop: A step has run: watching whether it helped; next 2-image_retag in 2 min, only if the breach continues": {
			State: remediation.Settling, Steps: []view.StepView{{State: remediation.StepDone}},
			Next: &view.Next{Step: "2-image_retag", What: "it runs then if the breach continues", At: hourBefore(at.Add(62 * time.Minute))},
		},
	} {
		if got := line(v); got != want {
			t.Errorf("the status says %q, want %q", got, want)
		}
	}
}

func TestAnOrderedUndoIsNoFailureInTheTimeline(t *testing.T) {
	e := audit.Entry{Kind: audit.KindOutcome, Step: "2-image_retag", Detail: map[string]any{"undo": true, "outcome": "undone"}}
	if got := view.Describe(e).Tone; got != "human" {
		t.Errorf("an ordered undo has the tone %q", got)
	}
	e.Detail["error"] = "health is 503"
	if got := view.Describe(e).Tone; got != "bad" {
		t.Errorf("the undo of a failed step has the tone %q", got)
	}
}

func TestAnImageThatStillRunsAfterARollbackIsSaid(t *testing.T) {
	sv := view.ServiceNow{Rollout: remediation.Rollout{Release: "2.4.0", State: remediation.RolloutRolledBack, Stage: remediation.StageNone}}
	sv.Runs = &remediation.Running{Version: "2.4.0"}
	if got := sv.RolloutWords(); got != "2.4.0 rolled back; its image still runs" {
		t.Errorf("the status says %q", got)
	}
	if sv.Runs.Version = "2.3.0"; sv.RolloutWords() != "2.4.0 rolled back" {
		t.Errorf("the status says %q", sv.RolloutWords())
	}
}

// outcomes is a transaction that has only these entries.
type outcomes struct {
	remediation.Tx
	entries []audit.Entry
}

func (tx outcomes) Entries(audit.Filter) ([]audit.Entry, error) { return tx.entries, nil }

func TestTheSnapshotOfAStepIsThatOfItsLastOutcome(t *testing.T) {
	of := func(step, path string) audit.Entry {
		return audit.Entry{Step: step, Kind: audit.KindOutcome, Detail: map[string]any{"after": map[string]any{
			"database": "shop", "dsn_file": "/etc/shop.dsn",
			"lost": []any{map[string]any{"what": "table", "schema": "public", "table": "positions", "rows": json.Number("229")}}, "dump": map[string]any{"path": path, "size": json.Number("3145728"), "sha256": "cafe"},
		}}}
	}
	tx := outcomes{entries: []audit.Entry{of("3-schema_rollback", "/s/1"), of("3-schema_rollback", "/s/2"), of("4-other", "/s/3"), {Step: "3-schema_rollback"}}}
	got, err := view.SnapshotOf(tx, "inc-1", "3-schema_rollback")
	if want := (view.Snapshot{Path: "/s/2", Size: 3 << 20, SHA256: "cafe", Database: "shop", DSNFile: "/etc/shop.dsn",
		Lost: []remediation.Lost{{What: remediation.LostTable, Schema: "public", Table: "positions", Rows: 229}}}); err != nil || got == nil || !reflect.DeepEqual(*got, want) {
		t.Errorf("the snapshot is %+v, %v", got, err)
	}
	if got := view.Describe(tx.entries[1]).Why; got != "lost: table public.positions (229 rows)" {
		t.Errorf("the timeline says why: %q", got)
	}
	if got, err := view.SnapshotOf(tx, "inc-1", "1-flag_off"); got != nil || err != nil {
		t.Errorf("a step without a snapshot has %+v, %v", got, err)
	}
}

// Nobody has to act on a hold that may end by itself, but everybody can see that nothing is done.
func TestALineOfAnIncidentOnHoldSaysWhenAPersonIsCalled(t *testing.T) {
	now := time.Date(2026, 11, 22, 3, 10, 0, 0, time.UTC)
	at := now.Add(80 * time.Second)
	for reason, want := range map[remediation.Reason]string{
		remediation.HoldNoRollout:   "shop: On hold: the release is not being rolled out; the breach is not acted on: if that lasts, a person is called in 1 min 20 s",
		remediation.HoldUnconfirmed: "shop: On hold: Prometheus does not confirm the breach; it is unknown whether there is a breach: if that lasts, a person is called in 1 min 20 s",
	} {
		v := view.IncidentView{ID: "inc-1", Service: "shop", State: remediation.Waiting, Reason: reason, CallAt: &at}
		for _, l := range view.NewStatus(view.Overview{Time: now, Mode: remediation.Act, Incidents: []view.IncidentView{v}}).Lines {
			if l.Subject == "inc-1" && (l.Text != want || l.Person) {
				t.Errorf("needs a person: %t, %q, want %q", l.Person, l.Text, want)
			}
		}
	}
}
