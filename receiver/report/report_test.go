package report

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/locotoki/backout/receiver/golden"
	"github.com/locotoki/backout/remediation"
	"github.com/locotoki/backout/remediation/audit"
	"github.com/locotoki/backout/remediation/view"
)

// told is a source of one incident and its log, a page at a time.
type told struct {
	incident view.IncidentView
	entries  []audit.Entry
	plot     func(trigger string) (view.Plot, error)
}

func (s *told) Incident(context.Context, string) (view.IncidentView, error) {
	return s.incident, nil
}

func (s *told) Entries(_ context.Context, f audit.Filter) (out []audit.Entry, _ error) {
	for _, e := range s.entries {
		if e.Seq > f.After && (f.Incident == "" || e.Incident == f.Incident) && (f.Kind == "" || e.Kind == f.Kind) && len(out) < f.Limit {
			out = append(out, e)
		}
	}
	return out, nil
}

func (s *told) Plot(_ context.Context, _, trigger string) (view.Plot, error) {
	return s.plot(trigger)
}

// log adds an entry of the incident, that long after it was opened.
func (s *told) log(after time.Duration, kind audit.Kind, actor, step string, detail map[string]any) {
	if detail == nil {
		detail = map[string]any{}
	}
	e := audit.Entry{
		Seq: int64(len(s.entries) + 41), Time: plotOpened.Add(after), Kind: kind, Actor: actor, Service: "social-intel",
		Incident: "inc-7", Step: step, Detail: detail, Hash: strings.Repeat("ab", 32),
	}
	if kind == audit.KindFrozen || kind == audit.KindThawed {
		e.Incident = ""
	}
	s.entries = append(s.entries, e)
}

// aLadder is an incident that took two steps, the second of which failed at first.
func aLadder() *told {
	at := func(d time.Duration) *time.Time { t := plotOpened.Add(d); return &t }
	s := &told{incident: view.IncidentView{
		ID: "inc-7", Service: "social-intel", Rollout: "v2.0.0", State: remediation.Closed, Opened: plotOpened, Closed: at(24 * time.Minute),
		Triggers: []view.TriggerView{{Trigger: "error_rate", Fingerprint: "af1", Threshold: 0.01}, {Trigger: "error_rate", Fingerprint: "af2"}, {Trigger: "breach_of_trust"}},
	}, plot: func(trigger string) (view.Plot, error) {
		if trigger != "error_rate" {
			return view.Plot{}, errors.New("no expression")
		}
		return breachPlot(), nil
	}}
	const m = time.Minute
	measured := func(value string, more ...any) map[string]any {
		d := map[string]any{"trigger": "error_rate", "threshold": "0.01", "value": value, "expr": `sum(increase(errors[15m])) / sum(increase(requests[15m]))`}
		for i := 0; i+1 < len(more); i += 2 {
			d[more[i].(string)] = more[i+1]
		}
		return d
	}
	engine := "engine"
	s.log(0, audit.KindOpened, "alertmanager", "", map[string]any{"trigger": "error_rate", "fingerprint": "af1"})
	s.log(0, audit.KindPlanned, engine, "", map[string]any{"steps": []any{"1-flag_off", "2-image_retag", "3-schema_rollback"}, "plan": "ladder"})
	s.log(20*time.Millisecond, audit.KindHeld, engine, "1-flag_off", measured("0.025", "reason", "frozen", "why", "every service is frozen by eve: db move", "until", "2026-11-22T04:00:00Z"))
	s.log(90*time.Second, audit.KindThawed, "oncall", "", map[string]any{"scope": "all", "reason": "db move is over"})
	s.log(95*time.Second, audit.KindIntent, engine, "1-flag_off", measured("0.03", "target", "compose:/srv/social-intel:FEATURE_ANALYTICS_ENABLED", "before", map[string]any{"flag": "1"}))
	s.log(97*time.Second, audit.KindOutcome, engine, "1-flag_off", map[string]any{"outcome": "done", "after": map[string]any{"flag": "0"}})
	s.log(98*time.Second, audit.KindVerified, engine, "1-flag_off", nil)
	s.log(7*m, audit.KindSettled, engine, "1-flag_off", map[string]any{"verdict": "breaching", "triggers": []any{map[string]any{"trigger": "error_rate", "value": "0.02", "threshold": "0.01", "verdict": "breaching"}}})
	s.log(7*m, audit.KindIntent, engine, "2-image_retag", measured("0.02", "target", "compose:/srv/social-intel"))
	s.log(7*m+3*time.Second, audit.KindIntent, engine, "2-image_retag", map[string]any{"undo": true, "target": "compose:/srv/social-intel", "error": "verify: health is 503", "after": map[string]any{"image": "sha256:aa"}})
	s.log(7*m+5*time.Second, audit.KindOutcome, engine, "2-image_retag", map[string]any{"undo": true, "outcome": "undone", "error": "verify: health is 503"})
	s.log(7*m+5*time.Second, audit.KindHeld, engine, "", measured("0.02", "reason", "step_failed", "why", "2-image_retag failed"))
	s.log(8*m, audit.KindClaimed, "oncall", "", map[string]any{"reason": "looking at @the image"})
	s.log(9*m, audit.KindReleased, "oncall", "", map[string]any{"reason": "registry was full"})
	s.log(9*m, audit.KindIntent, engine, "2-image_retag", measured("0.018", "target", "compose:/srv/social-intel"))
	s.log(9*m+4*time.Second, audit.KindOutcome, engine, "2-image_retag", map[string]any{"outcome": "done"})
	s.log(10*m, audit.KindDrift, engine, "1-flag_off", map[string]any{"target": "compose:/srv/social-intel:FEATURE_ANALYTICS_ENABLED", "why": "the flag is on again"})
	s.log(14*m, audit.KindRecovered, engine, "", map[string]any{"triggers": []any{map[string]any{"trigger": "error_rate", "value": "0.001", "threshold": "0.01", "verdict": "stopped"}}})
	s.log(15*m, audit.KindDenied, engine, "3-schema_rollback", map[string]any{"reason": "nobody answered within 30m"})
	s.log(24*m, audit.KindClosed, engine, "", map[string]any{"reason": "recovered", "why": "no trigger's expression has been true for 5m"})
	s.log(25*m, audit.KindFrozen, "oncall", "", map[string]any{"scope": "all", "reason": "after the incident"})
	return s
}

func reportOf(t *testing.T, s *told) *Report {
	t.Helper()
	r, err := New(t.Context(), s, "inc-7", plotOpened.Add(time.Hour))
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func TestAReportTellsTheIncident(t *testing.T) {
	r := reportOf(t, aLadder())
	golden.Compare(t, "report.md", r.Markdown([]string{"inc (7)-error_rate.svg"}))
	golden.Compare(t, "report-terminal.md", r.Markdown(nil))
}

func TestAReportMeasuresFromBreachToPostToIntentToRecovery(t *testing.T) {
	got := map[string]string{}
	for _, d := range reportOf(t, aLadder()).Durations {
		got[d.Name] = "-"
		if d.Took != nil {
			got[d.Name] = d.Took.String()
		}
	}
	// The plot is beyond 1% from 2:56:15 on, its first point there.
	want := map[string]string{"breach to post": "3m45s", "post to intent": "1m35s", "intent to recovered": "12m25s", "opened to closed": "24m"}
	for name := range want {
		if got[name] != want[name] {
			t.Errorf("%s took %s, want %s", name, got[name], want[name])
		}
	}

	s := aLadder()
	s.incident.Closed = nil
	s.entries = s.entries[:3]
	p := breachPlot()
	p.Step = 0
	s.plot = func(string) (view.Plot, error) { return p, nil }
	for _, d := range reportOf(t, s).Durations {
		if d.Took != nil || d.Note == "" {
			t.Errorf("%s took %v (%s), and nothing is known of it", d.Name, d.Took, d.Note)
		}
	}
}

func TestAReportMeasuresFromTheFirstValueAndFromAReopening(t *testing.T) {
	took := func(s *told, name string) string {
		for _, d := range reportOf(t, s).Durations {
			if d.Name == name && d.Took != nil {
				return d.Took.String()
			}
		}
		return "-"
	}
	s := aLadder()
	p := breachPlot()
	first := slices.IndexFunc(p.Points, func(pt remediation.Point) bool { return pt.Value > p.Threshold })
	p.Points = p.Points[first:] // the series begins with the breach
	s.plot = func(string) (view.Plot, error) { return p, nil }
	if got := took(s, "breach to post"); got != "3m45s" {
		t.Errorf("breach to post took %s", got)
	}
	intent := slices.IndexFunc(s.entries, func(e audit.Entry) bool { return e.Kind == audit.KindIntent })
	again := s.entries[intent]
	again.Kind, again.Time = audit.KindReopened, again.Time.Add(-5*time.Second)
	s.entries = slices.Insert(s.entries, intent, again)
	if got := took(s, "post to intent"); got != "5s" {
		t.Errorf("the alert that reopened it was acted on after %s", got)
	}
}

func TestAReportAsksWhatTheLogLeavesOpen(t *testing.T) {
	all := strings.Join(reportOf(t, aLadder()).Questions, "\n")
	for _, want := range []string{
		"A freeze held steps", "Why did 2-image_retag fail (verify: health is 503)", "Nobody approved 3-schema_rollback in time",
		"Who changed compose:/srv/social-intel:FEATURE_ANALYTICS_ENABLED outside backout",
	} {
		if strings.Count(all, want) != 1 {
			t.Errorf("%q is not asked once in:\n%s", want, all)
		}
	}
	s := aLadder()
	s.incident.State, s.incident.Closed = remediation.Exhausted, nil
	s.log(26*time.Minute, audit.KindInDoubt, "engine", "2-image_retag", map[string]any{"error": "cut off"})
	s.log(26*time.Minute, audit.KindReopened, "alertmanager", "", nil)
	s.log(26*time.Minute, audit.KindBlind, "engine", "", map[string]any{"blind": true})
	all = strings.Join(reportOf(t, s).Questions, "\n")
	for _, want := range []string{"was in doubt (cut off)", "was reopened", "Watchdog alerts stopped", "Every step was tried"} {
		if !strings.Contains(all, want) {
			t.Errorf("%q is not asked in:\n%s", want, all)
		}
	}
}

func TestAReportOfAnAbortNamesWhoOrderedIt(t *testing.T) {
	s := aLadder()
	s.incident.Triggers, s.incident.AbortedBy = nil, "oncall"
	r := reportOf(t, s)
	if !strings.Contains(r.Summary[0], "incident ordered by oncall.") {
		t.Errorf("it begins %q", r.Summary[0])
	}
	if all := strings.Join(r.Questions, "\n"); strings.Contains(all, "What caused the breach") {
		t.Errorf("it asks\n%s", all)
	}
}

func TestAReportHoldsNoFreezeOfAnotherTime(t *testing.T) {
	r := reportOf(t, aLadder())
	has := func(kind audit.Kind) bool {
		return slices.ContainsFunc(r.Entries, func(e audit.Entry) bool { return e.Kind == kind })
	}
	if !has(audit.KindThawed) || has(audit.KindFrozen) {
		t.Error("the thaw of the incident's time and no freeze after it is wanted")
	}
}

func TestAReportReadsALongLogToItsEnd(t *testing.T) {
	s := aLadder()
	for range 2*pageLimit + 5 {
		s.log(25*time.Minute, audit.KindResolved, "alertmanager", "", map[string]any{"trigger": "error_rate"})
	}
	if n := len(reportOf(t, s).Entries); n < 2*pageLimit+5 {
		t.Errorf("%d entries", n)
	}
}

func TestAReportLeavesOutEmptyListsOfATargetsState(t *testing.T) {
	s := aLadder()
	for i := range s.entries {
		if e := &s.entries[i]; e.Detail["before"] != nil {
			e.Detail["before"] = map[string]any{"image": "kept-state", "replicas": []any{}, "note": nil}
		}
	}
	text := string(reportOf(t, s).Markdown(nil))
	if !strings.Contains(text, "kept-state") || strings.Contains(text, `"replicas"`) || strings.Contains(text, `"note"`) {
		t.Errorf("the report is\n%s", text)
	}
}

func TestNothingFromOutsideIsMarkdown(t *testing.T) {
	hostile := "a|b `c` ``` **d** [e](http://f) <img src=x onerror=alert(1)> ![g](h) @everyone #1 &lt; :boom: \n# i\n\n---\n```\n\x1b[2J\u202e\x00" + strings.Repeat("x", 10_000)
	s := aLadder()
	s.incident.Service, s.incident.Rollout = hostile, hostile
	for i := range s.incident.Triggers {
		s.incident.Triggers[i].Trigger = hostile
	}
	s.plot = func(string) (view.Plot, error) {
		p := breachPlot()
		p.Trigger, p.Note, p.Marks[0].Label = hostile, hostile, hostile
		return p, nil
	}
	for i := range s.entries {
		e := &s.entries[i]
		e.Actor, e.Service, e.Step = hostile, s.incident.Service, hostile
		for k, v := range e.Detail {
			if _, ok := v.(string); ok && k != "outcome" && k != "reason" {
				e.Detail[k] = hostile
			}
		}
		e.Detail["before"] = map[string]any{"flag": hostile}
	}
	text := string(reportOf(t, s).Markdown([]string{"inc-7.svg"}))
	if strings.ContainsAny(text, "\x1b\u202e\x00") || len(text) > 300<<10 {
		t.Errorf("control characters, or %d bytes", len(text))
	}
	for i, line := range strings.Split(outsideCode(text), "\n") {
		for _, bad := range []string{"<img", "**d", "[e](", "![g]", "@everyone", "#1", "http://", "&lt", ":boom:"} {
			if strings.Contains(line, bad) && !strings.Contains(line, `\`+bad) {
				t.Errorf("line %d has %q: %.200s", i+1, bad, line)
			}
		}
		if strings.HasPrefix(line, "# i") || strings.HasPrefix(line, "---") {
			t.Errorf("line %d begins a block: %.200s", i+1, line)
		}
	}
	for _, row := range strings.Split(text, "\n") {
		if strings.HasPrefix(row, "| 4") && strings.Count(strings.ReplaceAll(row, `\|`, ""), "|") != 6 && strings.Count(strings.ReplaceAll(row, `\|`, ""), "|") != 9 {
			t.Errorf("a cell ends early: %.300s", row)
		}
	}
}

// outsideCode is Markdown without what is in its code spans and blocks.
func outsideCode(text string) string {
	var out strings.Builder
	fence := ""
	for _, line := range strings.Split(text, "\n") {
		switch {
		case fence != "":
			if strings.TrimSpace(line) == fence {
				fence = ""
			}
			continue
		case strings.HasPrefix(line, "```"):
			fence = line[:len(line)-len(strings.TrimLeft(line, "`"))]
			continue
		}
		for line != "" {
			switch {
			case line[0] == '\\' && len(line) > 1:
				out.WriteString(line[:2])
				line = line[2:]
			case line[0] == '`':
				run := line[:len(line)-len(strings.TrimLeft(line, "`"))]
				rest := line[len(run):]
				end := closing(rest, run)
				if end < 0 {
					panic(fmt.Sprintf("a code span has no end: %.200q", line))
				}
				line = rest[end+len(run):]
			default:
				out.WriteByte(line[0])
				line = line[1:]
			}
		}
		out.WriteByte('\n')
	}
	return out.String()
}

// closing returns where a run of exactly these backticks is, or -1.
func closing(s, run string) int {
	for i := 0; i < len(s); {
		n := len(s[i:]) - len(strings.TrimLeft(s[i:], "`"))
		if n == len(run) {
			return i
		}
		i += max(n, 1)
	}
	return -1
}

func TestAReportSaysThatAGraveIncidentAsksForACall(t *testing.T) {
	s := aLadder()
	if text := string(reportOf(t, s).Markdown(nil)); strings.Contains(text, "incident call") {
		t.Error("an incident that is not grave asks for a call")
	}
	s.incident.IncidentCall = &remediation.CallView{Severity: 3, URL: "https://meet.example.com/a_b"}
	if text := string(reportOf(t, s).Markdown(nil)); !strings.Contains(text, `- Its severity, 3, calls for an incident call: https\://meet.example.com/a\_b.`) {
		t.Errorf("the report does not say where the call is:\n%.1500s", text)
	}
}

func TestABreachThatBeganBetweenTwoPointsTookAtMostUntilTheLastGoodOne(t *testing.T) {
	s := aLadder()
	p := breachPlot()
	for i := range p.Points {
		if !p.Points[i].Time.After(plotOpened) {
			p.Points[i].Value = 0.0035
		}
	}
	p.Points = slices.DeleteFunc(p.Points, func(pt remediation.Point) bool { return pt.Time.Equal(plotOpened) })
	s.plot = func(string) (view.Plot, error) { return p, nil }
	if d := reportOf(t, s).Durations[0]; d.Name != "breach to post" || d.Took == nil || d.Took.String() != "15s" || d.Note != "at most: error_rate, by Prometheus every 15 s" {
		t.Errorf("it says %+v", d)
	}
	for i := range p.Points {
		p.Points[i].Value = 0.0035
	}
	if d := reportOf(t, s).Durations[0]; d.Took != nil || !strings.Contains(d.Note, "error_rate was within its threshold") {
		t.Errorf("it says %+v", d)
	}
}

func TestAReportOfAnOrderOrASignalHasNoBreach(t *testing.T) {
	for name, triggers := range map[string][]view.TriggerView{"order": nil, "signal": {{Trigger: "security", Signal: "critical"}}} {
		s := aLadder()
		s.incident.Triggers, s.incident.AbortedBy = triggers, "oncall"
		if d := reportOf(t, s).Durations[0]; d.Name == "breach to post" {
			t.Errorf("%s: it says %+v", name, d)
		}
	}
}

func TestAReportSaysWhatWasLostAndWhereTheSnapshotIs(t *testing.T) {
	s := aLadder()
	s.incident.Steps = []view.StepView{{ID: "2-image_retag", Risk: "lossy", State: remediation.StepDone, LostData: true, Snapshot: &view.Snapshot{Path: "/var/lib/backout/shop.dump", Size: 2048, SHA256: "cafe", DSNFile: "/etc/backout/shop.dsn",
		Lost: []remediation.Lost{{What: remediation.LostTable, Schema: "public", Table: "positions", Rows: 229}}}}}
	r := reportOf(t, s)
	text := string(r.Markdown(nil))
	if n := strings.Count(text, "lost data: table public.positions (229 rows); the snapshot is /var/lib/backout/shop.dump, 2 KiB, SHA-256 cafe"); n != 2 {
		t.Errorf("the summary and what was done say it %d times:\n%s", n, text)
	}
	// A command is a block of its own, to be copied as it is.
	for _, block := range []string{
		"This changes no database.\n\n```sh\npg_restore --schema=public --table=positions --file=/var/lib/backout/shop-lost.sql /var/lib/backout/shop.dump\n```\n",
		"Rows written since the snapshot are lost.\n\n```sh\npg_restore --clean --if-exists --single-transaction --dbname=\"$(cat /etc/backout/shop.dsn)\" /var/lib/backout/shop.dump\n```\n",
	} {
		if strings.Count(text, block) != 1 {
			t.Errorf("it lacks\n%s\nin\n%s", block, text)
		}
	}
	if q := strings.Join(r.Questions, "\n"); !strings.Contains(q, "2-image_retag lost data. What of it is needed again from the snapshot /var/lib/backout/shop.dump?") {
		t.Errorf("it asks\n%s", q)
	}
	if sum := strings.Join(r.Summary, "\n"); !strings.Contains(sum, "2-image_retag lost data: table public.positions (229 rows); the snapshot is ") {
		t.Errorf("the summary is\n%s", sum)
	}
}

func TestAReportOfManyLostTablesKeepsTheSnapshot(t *testing.T) {
	var lost []remediation.Lost
	for i := range 10 {
		lost = append(lost, remediation.Lost{What: remediation.LostTable, Schema: "analytics", Table: fmt.Sprintf("recommendations-by-channel-and-day-%d", i), Rows: 1000})
	}
	snapshot := "/var/lib/backout/snapshots/shop-inc-12_3-schema-rollback@1700000000-1.dump"
	hash := strings.Repeat("cafe", 16)
	for _, c := range []struct {
		lost []remediation.Lost
		dir  string
		says int // in the summary and in what was done
	}{
		{lost, "", 2},
		{[]remediation.Lost{{What: remediation.LostColumn, Schema: strings.Repeat("s", 63), Table: strings.Repeat("t", 63), Column: strings.Repeat("c", 63), Rows: 1 << 40}}, "", 2},
		{lost, "/" + strings.Repeat("d", 200), 1},
	} {
		s := aLadder()
		s.incident.Steps = []view.StepView{{ID: "2-image_retag", Risk: "lossy", State: remediation.StepFailed, LostData: true, Snapshot: &view.Snapshot{Path: c.dir + snapshot, Size: 2000000, SHA256: hash, Lost: c.lost}}}
		text := strings.NewReplacer("`@`", "@", `\_`, "_").Replace(string(reportOf(t, s).Markdown(nil)))
		if n := strings.Count(text, "the snapshot is "+c.dir+snapshot+", 1.907 MiB, SHA-256 "+hash); n != c.says {
			t.Errorf("the whole snapshot is named %d times:\n%s", n, text)
		}
		if len(c.lost) == 10 && !strings.Contains(text, "day-2 (1000 rows), and 7 more") {
			t.Errorf("it does not say that there are more:\n%s", text)
		}
	}
}

func TestACommandInAnErrorCanBeCopiedFromTheReport(t *testing.T) {
	s := aLadder()
	s.log(11*time.Minute, audit.KindOutcome, "engine", "3-schema_rollback", map[string]any{
		"outcome": "failed", "error": `role shop_app cannot log in; try: ALTER ROLE "shop_app" LOGIN`,
	})
	text := string(reportOf(t, s).Markdown(nil))
	if !strings.Contains(text, "role shop\\_app cannot log in; try: `ALTER ROLE \"shop_app\" LOGIN`") {
		t.Errorf("the command is not code in\n%s", text)
	}
}
