package engine_test

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/common/model"
	"go.yaml.in/yaml/v3"

	"github.com/locotoki/backout/alerts"
	"github.com/locotoki/backout/remediation"
	"github.com/locotoki/backout/remediation/audit"
	"github.com/locotoki/backout/remediation/engine"
	"github.com/locotoki/backout/rules"
)

// work is what people do around the shop's rollout.
const work = `
checklist:
  - {item: Security sign-off, owner: Security, notes: Penetration test results reviewed}
phases:
  - {name: Preparation, when: T-7 days, tasks: [{name: Database, items: [Add read replicas]}]}
  - {name: Validation, when: Day 0 + X days, tasks: [{name: Smoke tests, items: [Look at the dashboards]}]}
timeline:
  - {day: T-3, activity: Go/No-go decision meeting, owner: Leadership}
  - {day: T-7, activity: Preparation, owner: DevOps}
  - {day: T+10, activity: Launch announcement, owner: Marketing}
post_rollout:
  - {name: Knowledge sharing, items: [Document lessons learned]}
team:
  - {role: Rollout Lead, name: Ada}
`

// around is a Prometheus and an Alertmanager as a preflight sees them.
type around struct {
	mu    sync.Mutex
	rules []remediation.LoadedRule
	ahead time.Duration
	away  bool
	mute  bool
	// unreachable, where set, is why nothing answers.
	unreachable func() error
	// intervals, where set, are how often Prometheus scrapes its jobs.
	intervals map[string]time.Duration
	deaf      bool
	// meanwhile runs while the rules are asked for, where set.
	meanwhile func()
	engine    func() *engine.Engine
}

func (a *around) Rules(context.Context) ([]remediation.LoadedRule, error) {
	if a.meanwhile != nil {
		a.meanwhile()
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.unreachable != nil {
		return nil, a.unreachable()
	}
	if a.away {
		return nil, fmt.Errorf("prometheus: %w", remediation.ErrNoAnswer)
	}
	return a.rules, nil
}

func (a *around) LabelValues(_ context.Context, _, label string) ([]string, error) {
	if label == "job" {
		return []string{"shop"}, nil
	}
	return []string{"0.25", "0.75", "+Inf"}, nil
}

func (a *around) ScrapeIntervals(context.Context) (map[string]time.Duration, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.intervals != nil {
		return a.intervals, nil
	}
	return map[string]time.Duration{"shop": 15 * time.Second}, nil
}

func (a *around) Clocks(context.Context) []remediation.Clock {
	a.mu.Lock()
	defer a.mu.Unlock()
	return []remediation.Clock{{Of: "prometheus", Ahead: a.ahead}}
}

// RaiseAlert is an Alertmanager that routes to the engine, if it is not deaf. Its clock is the engine's.
func (a *around) RaiseAlert(ctx context.Context, labels map[string]string, until time.Time) error {
	if lasts := until.Sub(a.engine().Now()); lasts <= 0 || lasts > 2*time.Minute {
		return fmt.Errorf("the alert ends after %s", lasts)
	}
	if a.deaf {
		return nil
	}
	set := model.LabelSet{}
	for k, v := range labels {
		set[model.LabelName(k)] = model.LabelValue(v)
	}
	_, err := a.engine().Accept(ctx, remediation.Notification{Receiver: "backout", GroupKey: "{}", Alerts: []remediation.Alert{
		{Status: "firing", Fingerprint: set.Fingerprint().String(), Labels: labels},
	}})
	return err
}

func (a *around) Page(context.Context, string) (int, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.unreachable != nil {
		return 0, a.unreachable()
	}
	return 200, nil
}

// alwaysOne is a Prometheus in which every expression has a value, unless it is mute.
type alwaysOne struct{ around *around }

func (p alwaysOne) Query(context.Context, string) (float64, bool, error) {
	p.around.mu.Lock()
	defer p.around.mu.Unlock()
	if p.around.unreachable != nil {
		return 0, false, p.around.unreachable()
	}
	if p.around.mute {
		return 0, false, fmt.Errorf("prometheus: %w", remediation.ErrNoAnswer)
	}
	return 1, true, nil
}

// provingHarness is the shop with an engine that can ask what lies around it.
type provingHarness struct {
	*harness
	around *around
}

func newProvingHarness(t *testing.T) *provingHarness {
	t.Helper()
	p := newUnrehearsedHarness(t)
	p.rehearsed(remediation.Pass)
	return p
}

// newUnrehearsedHarness is newProvingHarness without any rehearsal.
func newUnrehearsedHarness(t *testing.T) *provingHarness {
	t.Helper()
	w := newHarness(t, func(s string) string { return s + work })
	p := &provingHarness{harness: w, around: &around{rules: loaded(t, w.pb)}}
	p.around.engine = func() *engine.Engine { return p.engine }
	p.restart()
	return p
}

// rehearsed lets both plans have been rehearsed now.
func (p *provingHarness) rehearsed(result remediation.Status) {
	p.t.Helper()
	for _, plan := range []string{"ladder", "longer"} {
		p.must(p.store.Update(p.ctx, func(tx remediation.Tx) error {
			part := remediation.RehearsedPart{Result: remediation.Result{Status: result, Evidence: "as the test says"}}
			return tx.PutRehearsal(remediation.Rehearsal{Service: "shop", Plan: plan, Playbook: p.pb.Hash, Finished: p.now, Status: result, Drill: part})
		}))
	}
}

// restart puts a new engine on the store.
func (p *provingHarness) restart() {
	p.t.Helper()
	p.start()
	var err error
	p.engine, err = engine.New(p.ctx, engine.Options{
		Store: p.store, Playbooks: []*alerts.Playbook{p.pb}, Kinds: p.kinds(), Prometheus: alwaysOne{p.around}, Alertmanager: p.am, Mode: p.mode,
		Sources: p.around, DrillPatience: time.Second, Now: func() time.Time { return p.now }, Logger: slog.New(slog.DiscardHandler),
	})
	p.must(err)
}

// loaded are a playbook's rules as Prometheus would have them.
func loaded(t *testing.T, pb *alerts.Playbook) (out []remediation.LoadedRule) {
	t.Helper()
	files, err := rules.Settings{}.Generate(pb)
	if err != nil {
		t.Fatal(err)
	}
	var file struct {
		Groups []struct {
			Name  string
			Rules []struct {
				Record, Alert, Expr string
				For                 model.Duration
				Labels, Annotations map[string]string
			}
		}
	}
	if err := yaml.Unmarshal(files[0].Content, &file); err != nil {
		t.Fatal(err)
	}
	for _, g := range file.Groups {
		for _, r := range g.Rules {
			out = append(out, remediation.LoadedRule{
				Group: g.Name, Name: r.Record + r.Alert, Alert: r.Alert != "", Expr: r.Expr, For: time.Duration(r.For), Labels: r.Labels, Annotations: r.Annotations,
			})
		}
	}
	return out
}

// preflight runs one to its end.
func (p *provingHarness) preflight() remediation.PreflightView {
	p.t.Helper()
	ctx, stop := context.WithCancel(p.ctx)
	ended := make(chan error, 1)
	_, err := p.engine.StartPreflight(ctx, "", "eve", "because")
	p.must(err)
	if _, err := p.engine.StartPreflight(ctx, "shop", "eve", "again"); !refusedAs(err, remediation.Conflict) {
		p.t.Errorf("a second one beside it: %v", err)
	}
	go func() { ended <- p.engine.Run(ctx) }()
	defer func() { stop(); p.must(<-ended) }()
	for end := time.Now().Add(time.Minute); ; {
		v, err := p.engine.Preflight(ctx, "shop")
		p.must(err)
		if !v.Running {
			return v
		}
		if time.Now().After(end) {
			p.t.Fatalf("the preflight does not end: %+v", v)
		}
		time.Sleep(time.Millisecond)
	}
}

func refusedAs(err error, r remediation.Refusal) bool {
	var refused *remediation.RefusedError
	return errors.As(err, &refused) && refused.Refusal == r
}

func (p *provingHarness) sign(item string) error {
	_, err := p.engine.SignPreflight(p.ctx, remediation.SignRequest{Item: item, By: "Ada", Actor: "eve", Reason: "report 17"})
	return err
}

// misses checks what a rollout would not start for: one word for each, in order.
func (p *provingHarness) misses(want ...string) {
	p.t.Helper()
	v, err := p.engine.Preflight(p.ctx, "")
	p.must(err)
	ok := len(v.Missing) == len(want)
	for i := range v.Missing {
		ok = ok && strings.Contains(v.Missing[i], want[i])
	}
	if !ok {
		p.t.Errorf("missing is\n  %s\nwant\n  %s", strings.Join(v.Missing, "\n  "), strings.Join(want, "\n  "))
	}
}

var unsigned = []string{"team/rollout-lead ", "checklist/security-sign-off ", "phase/add-read-replicas ", "timeline/go-no-go-decision-meeting ", "timeline/preparation "}

func TestARolloutWantsAPreflightAndEverySignatureBeforeIt(t *testing.T) {
	p := newProvingHarness(t)
	p.misses(append([]string{"no preflight was run"}, unsigned...)...)
	v := p.preflight()
	for _, it := range v.Items {
		if it.Owner == "" && it.Status != remediation.Pass {
			t.Errorf("%s came to %s: %s", it.ID, it.Status, it.Evidence)
		}
	}
	p.misses(unsigned...)
	for _, item := range unsigned {
		p.must(p.sign(strings.TrimSpace(item)))
	}
	p.misses()
	p.must(p.sign("after/document-lessons-learned")) // later, and yet it can be said

	p.restart()
	p.misses()

	p.now = p.now.Add(24*time.Hour + time.Minute)
	p.misses("over 24 h ago")
	p.preflight()
	p.misses()

	es, err := p.engine.Entries(p.ctx, audit.Filter{Kind: audit.KindApproved})
	p.must(err)
	if len(es) != 6 || es[1].Actor != "eve" || es[1].Detail["item"] != "checklist/security-sign-off" || es[1].Detail["by"] != "Ada" || es[1].Detail["release"] != "v2" {
		t.Errorf("the audit log has %d signatures: %+v", len(es), es)
	}
	es, err = p.engine.Entries(p.ctx, audit.Filter{Kind: audit.KindVerified})
	p.must(err)
	if len(es) != 2 || es[0].Actor != "eve" || es[0].Detail["what"] != "preflight" {
		t.Errorf("the audit log has %d preflights: %+v", len(es), es)
	}
}

func TestAPreflightCountsForItsPlaybookAndItsReleaseOnly(t *testing.T) {
	p := newProvingHarness(t)
	p.preflight()
	for _, item := range unsigned {
		p.must(p.sign(strings.TrimSpace(item)))
	}
	again := func(edit func(string) string) {
		t.Helper()
		var kinds []alerts.ActionKind
		for _, k := range p.kinds() {
			kinds = append(kinds, k)
		}
		pb, err := alerts.Parse("shop.yaml", []byte(edit(playbook+work)), kinds)
		p.must(err)
		p.must(p.engine.Reload(p.ctx, []*alerts.Playbook{pb}, remediation.Reloaded{}))
	}
	again(func(s string) string { return s + "# another comment\n" })
	p.misses("the playbook has changed")
	again(replace("version: v2", "version: v3"))
	p.misses(append([]string{"the last preflight was of release v2, not of v3"}, unsigned...)...)
	v, err := p.engine.Preflight(p.ctx, "shop")
	p.must(err)
	for _, it := range v.Items {
		if it.Owner == "" {
			t.Errorf("%s is shown for %s, which it was not checked for", it.ID, v.Release)
		}
	}
	if v.Release != "v3" || v.Finished != nil {
		t.Errorf("shown: release %s, finished %v", v.Release, v.Finished)
	}
}

func TestAPreflightStepsAsideForAnIncident(t *testing.T) {
	p := newProvingHarness(t)
	p.around.meanwhile = func() { p.post("firing", "error_rate", "fp1") }
	p.preflight()
	v, err := p.engine.Preflight(p.ctx, "shop")
	p.must(err)
	aside := 0
	for _, it := range v.Items {
		switch {
		case it.Owner != "" || it.ID == "prometheus/rules":
		case it.Status != remediation.CannotTell || !strings.Contains(it.Evidence, "inc-1 was opened meanwhile"):
			t.Errorf("%s beside an incident: %s, %s", it.ID, it.Status, it.Evidence)
		default:
			aside++
		}
	}
	if aside < 5 {
		t.Errorf("%d proofs stepped aside", aside)
	}
}

func TestAFailedItemCannotBeSignedOff(t *testing.T) {
	p := newProvingHarness(t)
	for _, item := range unsigned {
		p.must(p.sign(strings.TrimSpace(item)))
	}
	p.around.away = true
	p.preflight()
	p.misses("prometheus/rules could not be checked")
	if err := p.sign("clock/skew"); !refusedAs(err, remediation.Conflict) {
		t.Errorf("what passed is signed for: %v", err)
	}
	p.must(p.sign("prometheus/rules"))
	p.misses()

	p.around.away, p.around.rules, p.around.ahead = false, nil, -2*time.Second
	p.preflight()
	p.misses("prometheus/rules failed: Prometheus has no rule group shop", "clock/skew failed")
	for _, item := range []string{"prometheus/rules", "clock/skew"} {
		if err := p.sign(item); !refusedAs(err, remediation.Conflict) {
			t.Errorf("%s is signed for though it failed: %v", item, err)
		}
	}
	if err := p.sign("none/such"); !refusedAs(err, remediation.Missing) {
		t.Errorf("an item that is none: %v", err)
	}
	if _, err := p.engine.SignPreflight(p.ctx, remediation.SignRequest{Item: "team/rollout-lead", Actor: "eve"}); !refusedAs(err, remediation.Invalid) {
		t.Errorf("without a reason: %v", err)
	}
}

func TestOneCauseIsSignedOffOnce(t *testing.T) {
	p := newProvingHarness(t)
	for _, item := range unsigned {
		p.must(p.sign(strings.TrimSpace(item)))
	}
	p.around.mute, p.around.away = true, true
	p.preflight()
	p.misses("prometheus/rules, prometheus/own, query/alive, query/error_rate, query/latency could not be checked: prometheus: no answer")
	p.must(p.sign("query/error_rate"))
	p.misses()
	signed := 0
	v, err := p.engine.Preflight(p.ctx, "shop")
	p.must(err)
	for _, it := range v.Items {
		if it.Signed != nil && it.Signed.Item == "query/error_rate" {
			signed++
		}
	}
	if signed != 5 {
		t.Errorf("%d of the five proofs are shown as signed for", signed)
	}
	p.around.away = false // what was signed for is still so of the queries
	p.preflight()
	p.misses()
	p.must(p.engine.Reload(p.ctx, []*alerts.Playbook{p.parse(playbook + work + "# another\n")}, remediation.Reloaded{}))
	p.preflight()
	p.misses(append([]string{"prometheus/own, query/alive, query/error_rate, query/latency could not be checked", "rehearsal/ladder", "rehearsal/longer"}, unsigned...)...)
}

func TestOneExpiredCertificateIsSignedOffOnceWheneverItIsSeen(t *testing.T) {
	p := newProvingHarness(t)
	p.pb = p.parse(playbook + work + "dashboards: {slo: 'https://grafana.example/d/slo'}\n")
	p.restart()
	p.rehearsed(remediation.Pass)
	for _, item := range unsigned {
		p.must(p.sign(strings.TrimSpace(item)))
	}
	seen := 0
	p.around.unreachable = func() error {
		seen++
		return fmt.Errorf("%w: %w", remediation.ErrNoAnswer, x509.CertificateInvalidError{Reason: x509.Expired, Detail: fmt.Sprintf("current time %s is after 2026-11-21T00:00:00Z",
			p.now.Add(time.Duration(seen)*time.Second).Format(time.RFC3339))})
	}
	p.preflight()
	p.misses("dashboard/slo")
	p.must(p.sign("dashboard/slo"))
	p.misses()
	p.now = p.now.Add(24 * time.Hour)
	p.preflight()
	p.misses()
}

func TestADrillAlertThatDoesNotComeBackFails(t *testing.T) {
	p := newProvingHarness(t)
	p.around.deaf = true
	fails := func(evidence, next string) {
		t.Helper()
		for _, it := range p.preflight().Items {
			if it.ID == "alertmanager/routes" && (it.Status != remediation.Fail || !strings.Contains(it.Evidence, "breach_of_trust, error_rate, latency") ||
				!strings.Contains(it.Evidence, evidence) || !strings.HasPrefix(it.Next, next)) {
				t.Errorf("it came to %s: %s; try %s", it.Status, it.Evidence, it.Next)
			}
		}
	}
	fails("nor any other notification to this replica since it started", remediation.HintSilent)
	alive := func(until time.Time) {
		p.must(p.store.Update(p.ctx, func(tx remediation.Tx) error {
			return errors.Join(tx.PutReplica(remediation.Replica{ID: "a", Name: "a", Until: until}), tx.PutReplica(remediation.Replica{ID: "b", Name: "b", Until: until}))
		}))
	}
	alive(p.now.Add(time.Hour))
	fails("nor any other notification to this replica since it started", "route trigger")
	alive(p.now)
	p.engine.NoteRefused("10.0.0.7", "unauthorized")
	fails("1 notification was refused (unauthorized)", remediation.HintToken)
	p.engine.NoteAccepted()
	fails("though other notifications have", "route trigger")
	if open, err := p.engine.Incidents(p.ctx, remediation.IncidentFilter{Open: true}); err != nil || len(open) > 0 {
		t.Errorf("open are %v (%v)", open, err)
	}
}

func TestADrillOfAPreflightDoesNothingButComeBack(t *testing.T) {
	p := newProvingHarness(t)
	p.preflight()
	all, err := p.engine.Incidents(p.ctx, remediation.IncidentFilter{})
	p.must(err)
	if len(all) == 0 {
		t.Fatal("no drill came back")
	}
	for _, inc := range all {
		if !inc.Drill {
			t.Errorf("incident %s is not a drill", inc.ID)
		}
	}
	for kind, target := range p.targets {
		if target.effects > 0 {
			t.Errorf("%s was carried out", kind)
		}
	}
}

func TestNoPreflightGetsInTheWayOfAnIncident(t *testing.T) {
	p := newProvingHarness(t)
	id := p.open()
	_, err := p.engine.StartPreflight(p.ctx, "", "eve", "")
	if !refusedAs(err, remediation.Conflict) || !strings.Contains(err.Error(), id) {
		t.Errorf("with %s open: %v", id, err)
	}
}

func TestAPreflightWantsEachPlanRehearsedByItsPlaybookWithin30Days(t *testing.T) {
	p := newProvingHarness(t)
	found := func() (f remediation.Result) {
		t.Helper()
		for _, it := range p.preflight().Items {
			if it.ID == "rehearsal/ladder" {
				f = it.Result
			}
		}
		return f
	}
	wants := func(result remediation.Status, word string) {
		t.Helper()
		if f := found(); f.Status != result || !strings.Contains(f.Evidence, word) || result != remediation.Pass && !strings.Contains(f.Next, "backout rehearse --plan=ladder") {
			t.Errorf("it came to %+v; want %s, with %q", f, result, word)
		}
	}
	wants(remediation.Pass, "rehearsed on 22 Nov 2026 03:00 UTC")
	p.now = p.now.Add(30*24*time.Hour + time.Second)
	wants(remediation.CannotTell, "over 30 days ago")
	p.rehearsed(remediation.CannotTell)
	wants(remediation.CannotTell, "left something unknown: the drill alert: as the test says")
	p.rehearsed(remediation.Fail)
	wants(remediation.Fail, "failed: the drill alert: as the test says")
	if err := p.sign("rehearsal/ladder"); !refusedAs(err, remediation.Conflict) {
		t.Errorf("a rehearsal that failed is signed for: %v", err)
	}
	p.rehearsed(remediation.Pass)
	p.must(p.store.Update(p.ctx, func(tx remediation.Tx) error {
		return tx.PutRehearsal(remediation.Rehearsal{Service: "shop", Plan: "ladder", Playbook: "another", Finished: p.now, Status: remediation.Pass})
	}))
	wants(remediation.CannotTell, "the playbook has changed")
	p.must(p.sign("rehearsal/ladder"))
}

func TestARehearsalStaysSignedOffWhileTheSameIsUnknown(t *testing.T) {
	p := newProvingHarness(t)
	const read, tried = "the fallback cannot be observed", "the tables are in use"
	rehearsed := func(unknown ...remediation.Result) *remediation.PreflightItem {
		t.Helper()
		p.now = p.now.Add(24 * time.Hour)
		r := remediation.Rehearsal{Service: "shop", Plan: "ladder", Playbook: p.pb.Hash, Finished: p.now}
		r.Drill.Result = remediation.Passed("the drill alert took " + p.now.String())
		for i, u := range unknown {
			r.Steps = append(r.Steps, remediation.RehearsedStep{ID: fmt.Sprintf("%d-step", i+1), RehearsedPart: remediation.RehearsedPart{Result: u}})
		}
		r.Judge()
		p.must(p.store.Update(p.ctx, func(tx remediation.Tx) error { return tx.PutRehearsal(r) }))
		for _, it := range p.preflight().Items {
			if it.ID == "rehearsal/ladder" {
				return &it
			}
		}
		t.Fatal("no item")
		return nil
	}
	took := func(unknown string) remediation.Result {
		return remediation.Trial(p.ctx, func(context.Context) remediation.Result { return remediation.Passed("took " + p.now.String()) },
			func(context.Context) remediation.Result { return remediation.Unknown(unknown, "") })
	}
	it := rehearsed(took(read))
	if day := p.now.Format("2 Jan 2006 15:04 UTC"); !strings.Contains(it.Evidence, day) || !strings.Contains(it.Evidence, "1-step: took") {
		t.Errorf("it says %q", it.Evidence)
	}
	p.must(p.sign(it.ID))
	for _, c := range []struct {
		unknown []remediation.Result
		counts  bool
	}{
		{[]remediation.Result{took(read)}, true},
		{[]remediation.Result{took(tried)}, false},
		{[]remediation.Result{took(read), took(tried)}, false},
		{[]remediation.Result{took(read), remediation.Passed("x")}, true},
		{[]remediation.Result{remediation.Passed("x"), took(read)}, false},
	} {
		if it := rehearsed(c.unknown...); (it.Signed != nil) != c.counts || it.Status != remediation.CannotTell {
			t.Errorf("signed off: %t, want %t: %s", it.Signed != nil, c.counts, it.Evidence)
		}
	}
}

func TestAPreflightComparesHowOftenPrometheusScrapes(t *testing.T) {
	p := newProvingHarness(t)
	for _, c := range []struct {
		intervals map[string]time.Duration
		result    remediation.Status
		want      string
	}{
		{nil, remediation.Pass, "shop every 15s"},
		{map[string]time.Duration{"shop": 5 * time.Second}, remediation.Pass, "shop every 5s"},
		{map[string]time.Duration{"shop": time.Minute}, remediation.Fail, "error_rate: the job shop is scraped every 1m, and the playbook says 15s"},
		{map[string]time.Duration{"other": time.Minute}, remediation.CannotTell, "does not scrape the jobs shop itself"},
	} {
		p.around.mu.Lock()
		p.around.intervals = c.intervals
		p.around.mu.Unlock()
		found := false
		for _, it := range p.preflight().Items {
			if it.ID == "prometheus/intervals" {
				found = true
				if it.Status != c.result || !strings.Contains(it.Evidence, c.want) {
					t.Errorf("%v: it came to %s: %s", c.intervals, it.Status, it.Evidence)
				}
			}
		}
		if !found {
			t.Fatal("the intervals are not looked at")
		}
	}
}

func TestASignOffLapsesWithARollbackAndIsOpenAgain(t *testing.T) {
	p := newProvingHarness(t)
	p.around.mute, p.around.away = true, true
	p.preflight()
	all := append([]string{"query/error_rate"}, unsigned...)
	for _, item := range all {
		p.must(p.sign(strings.TrimSpace(item)))
	}
	p.must(p.sign("after/document-lessons-learned"))
	p.misses()
	rolledBack := remediation.Rollout{Service: "shop", Release: "v2", State: remediation.RolloutRolledBack, StageSince: &p.now}
	p.must(p.store.Update(p.ctx, func(tx remediation.Tx) error { return tx.PutRollout(rolledBack) }))

	const why = "the sign-off by Ada lapsed with the rollback of v2"
	open := func() map[string]remediation.PreflightItem {
		t.Helper()
		v, err := p.engine.Preflight(p.ctx, "shop")
		p.must(err)
		out := map[string]remediation.PreflightItem{}
		for _, it := range v.Items {
			if it.Signed == nil && it.Status != remediation.Pass {
				out[it.ID] = it
			}
			if it.Lapsed != "" && it.Signed != nil {
				t.Errorf("%s is signed off and lapsed", it.ID)
			}
		}
		return out
	}
	v, err := p.engine.Preflight(p.ctx, "shop")
	p.must(err)
	for _, m := range v.Missing {
		if !strings.Contains(m, why) {
			t.Errorf("missing, without why: %s", m)
		}
	}
	now := open()
	for _, item := range append(all, "after/document-lessons-learned") {
		id := strings.TrimSpace(item)
		command := "backout preflight sign " + id + " --service=shop --by=NAME --reason=WHY"
		if it, ok := now[id]; !ok || it.Lapsed != why || !strings.HasSuffix(it.Next, command) || strings.Contains(it.Evidence, "nobody") {
			t.Errorf("%s is open: %t: %+v", id, ok, it)
		}
	}
	if len(v.Missing) != len(all) {
		t.Errorf("missing: %q", v.Missing)
	}
	// Another item of the cause that was signed off before is enough now.
	p.now = p.now.Add(time.Second)
	p.must(p.sign("query/latency"))
	for _, item := range unsigned {
		p.must(p.sign(strings.TrimSpace(item)))
	}
	p.misses()
	if left := open(); len(left) != 3 { // those that a start does not ask for
		t.Errorf("open are %v", left)
	}
	// What has lapsed stays so in the next rollout of the release.
	_, err = p.engine.DeclareRollout(p.ctx, "shop", "", "", "eve", "because")
	p.must(err)
	if _, still := open()["after/document-lessons-learned"]; !still {
		t.Error("a sign-off from before the rollback counts for the next rollout")
	}
	p.misses()
}

func TestARehearsalCountsWithoutAnotherPreflight(t *testing.T) {
	p := newUnrehearsedHarness(t)
	p.preflight()
	for _, item := range unsigned {
		p.must(p.sign(strings.TrimSpace(item)))
	}
	p.misses("rehearsal/ladder could not be checked: never rehearsed", "rehearsal/longer")
	p.now = p.now.Add(time.Minute)
	p.rehearsed(remediation.Pass)
	p.misses()
	if err := p.sign("rehearsal/ladder"); !refusedAs(err, remediation.Conflict) {
		t.Errorf("a rehearsal that passed is signed off: %v", err)
	}
	p.now = p.now.Add(time.Minute)
	p.rehearsed(remediation.Fail)
	p.misses("rehearsal/ladder failed", "rehearsal/longer failed")
}
