package receiver

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/common/model"

	"github.com/locotoki/backout/hint"
	"github.com/locotoki/backout/receiver/config"
	"github.com/locotoki/backout/remediation"
	"github.com/locotoki/backout/remediation/view"
)

// look is one page of the console in one state: what someone sees who opens it then.
type look struct {
	name   string
	status int
	header http.Header
	body   string
}

func taken(name string, w *httptest.ResponseRecorder) look {
	return look{name, w.Code, w.Header(), w.Body.String()}
}

// looks are the pages in all the states that they can be in, each made by an engine
// that came to it by itself.
func looks(t testing.TB) (all []look) {
	t.Helper()
	all = append(all, nowLooks(t)...)
	for name, make := range incidentStates {
		s := newTestService(t)
		id := make(t, s)
		all = append(all, taken("incident-"+name, s.browse("/incidents/"+id, "eve")))
		if name == "approval" || name == "closed" {
			all = append(all, taken("incident-"+name+"-viewer", s.browse("/incidents/"+id, "ann")))
		}
	}
	all = append(all, auditLooks(t)...)
	all = append(all, listLooks(t)...)
	all = append(all, rolloutLooks(t)...)
	return append(all, errorLooks(t)...)
}

// must is for what a state needs to come about.
func must[T any](t testing.TB) func(T, error) T {
	return func(v T, err error) T {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
}

func (s *testService) verb(id string, v view.Verb, step, reason string) {
	s.t.Helper()
	must[view.IncidentView](s.t)(s.engine.ChangeIncident(s.t.Context(), id, v, step, "eve", reason))
}

// rehearsed notes a rehearsal of the plan, two days ago.
func (s *testService) rehearsed() {
	s.t.Helper()
	at := s.clock().Add(-48 * time.Hour)
	err := s.store.Update(s.t.Context(), func(tx remediation.Tx) error {
		return tx.PutRehearsal(remediation.Rehearsal{Service: "shop", Plan: "ladder", Finished: at, Steps: []remediation.RehearsedStep{{
			Action: "schema_rollback", Target: "compose:/srv/shop/shop#schema_rollback", Index: 3, Tried: true,
			RehearsedPart: remediation.RehearsedPart{
				Result: remediation.Passed("2 scripts ran and were rolled back; a snapshot of 1.2 GiB was taken in /var/lib/backout/snapshots within 41 s, read back and deleted"),
				Took:   model.Duration(95 * time.Second),
			},
		}}})
	})
	if err != nil {
		s.t.Fatal(err)
	}
}

// incidentStates bring an incident into each of its states.
var incidentStates = map[string]func(t testing.TB, s *testService) string{
	"confirming": func(t testing.TB, s *testService) string {
		s.beat()
		s.declare()
		return must[remediation.Accepted](t)(s.engine.Accept(t.Context(), firing("fp1"))).Incidents[0]
	},
	"unconfirmed": func(t testing.TB, s *testService) string {
		s.beat()
		s.declare()
		s.reads(0.002, 0.002)
		id := s.fire("fp1")
		s.pass(time.Minute)
		return id
	},
	"settling": func(_ testing.TB, s *testService) string {
		id := s.breach()
		s.pass(90 * time.Second)
		return id
	},
	"approval": func(_ testing.TB, s *testService) string {
		s.rehearsed()
		id := s.breach()
		s.asks(id)
		return id
	},
	"failed": func(_ testing.TB, s *testService) string {
		s.targets["flag_off"] = &serviceTarget{fail: hint.Add(errors.New("write /srv/shop/.env: no space left on device"), "free some, then claim and release")}
		id := s.breach()
		s.pass(time.Minute)
		return id
	},
	"exhausted": func(_ testing.TB, s *testService) string {
		id := s.breach()
		s.asks(id)
		s.verb(id, view.Deny, "4-schema_rollback", "the schema stays")
		s.pass(time.Minute)
		return id
	},
	"recovered": recovered,
	"closed": func(t testing.TB, s *testService) string {
		id := recovered(t, s)
		s.reads(0.0004, 0.0004)
		s.pass(10 * time.Minute)
		return id
	},
	"drill": func(_ testing.TB, s *testService) string {
		s.beat()
		s.declare()
		s.reads(0.031, 0.034)
		return s.fire("fp-drill", "drill", "true")
	},
	"claimed": func(_ testing.TB, s *testService) string {
		id := s.breach()
		s.verb(id, view.Claim, "", "I look at the database first")
		s.pass(7 * time.Minute)
		return id
	},
	"restored": func(t testing.TB, s *testService) string {
		id := recovered(t, s)
		must[view.IncidentView](t)(s.engine.Restore(t.Context(), id, view.RestoreRequest{Actor: "eve", Reason: "v2.0.1 is out", Force: true}))
		s.pass(time.Minute)
		return id
	},
	"frozen": func(t testing.TB, s *testService) string {
		until := s.clock().Add(time.Hour)
		must[remediation.Freeze](t)(s.engine.PutFreeze(t.Context(), remediation.Freeze{Service: "shop", Scope: "all", By: "eve", Reason: "a migration runs until four", Until: &until}))
		id := s.breach()
		s.pass(time.Minute)
		return id
	},
}

func recovered(_ testing.TB, s *testService) string {
	id := s.breach()
	s.reads(0.031, 0.0004)
	s.pass(4 * time.Minute)
	return id
}

func firing(fingerprint string) remediation.Notification {
	return remediation.Notification{Receiver: "backout", GroupKey: "{}", Alerts: []remediation.Alert{{
		Status: "firing", Fingerprint: fingerprint,
		Labels: map[string]string{"alertname": "Rollback", "service": "shop", "trigger": "error_rate", "rollout": "v2"},
	}}}
}

func nowLooks(t testing.TB) (all []look) {
	s := newTestService(t)
	all = append(all, taken("now-first", s.browse("/", "eve")))
	s.beat()
	all = append(all, taken("now-calm", s.browse("/", "eve")))
	s.pass(9 * time.Minute)
	all = append(all, taken("now-blind", s.browse("/", "eve")))
	s.away = remediation.ErrNoAnswer
	s.pass(9 * time.Minute)
	s.beat()
	all = append(all, taken("now-no-prometheus", s.browse("/", "eve")))

	s = newTestService(t)
	id := s.breach()
	s.pass(90 * time.Second)
	all = append(all, taken("now-one", s.browse("/", "eve")))
	must[remediation.Freeze](t)(s.engine.PutFreeze(t.Context(), remediation.Freeze{Scope: "all", By: "eve", Reason: "the change board said so"}))
	s.pass(10 * time.Second)
	all = append(all, taken("now-frozen", s.browse("/", "eve")), taken("now-frozen-viewer", s.browse("/", "ann")))
	must[[]remediation.Freeze](t)(s.engine.Thaw(t.Context(), "", "eve", "over"))
	s.asks(id)
	all = append(all, taken("now-asking", s.browse("/", "eve")), taken("now-asking-viewer", s.browse("/", "ann")))
	b := newBench(t, token(t, "eve", config.Commander))
	b.service.overview = crowd(12)
	r := as(request("GET", "/", ""), "eve")
	r.Header.Set("Accept", "text/html")
	all = append(all, taken("now-many", b.do(r)))
	b.service.overview = thousand()
	return append(all, taken("now-thousand", b.do(r)))
}

// crowd is an overview of n services, each with an incident.
func crowd(n int) view.Overview {
	now := time.Date(2026, 11, 22, 3, 0, 0, 0, time.UTC)
	o := view.Overview{Time: now, Mode: remediation.Act, HeadSeq: 4711, HeadHash: strings.Repeat("ab", 32)}
	for i := range n {
		name := fmt.Sprintf("service-%02d", i)
		ran, soon := now.Add(-time.Duration(i+1)*time.Minute), now.Add(time.Duration(i)*37*time.Second)
		value := 0.01 + float64(i)/300
		inc := view.IncidentView{
			ID: fmt.Sprintf("inc-%d", i+1), Service: name, Rollout: "v2.0.0", Opened: now.Add(-time.Duration(i*3+2) * time.Minute),
			State:    []remediation.State{remediation.Confirming, remediation.Acting, remediation.Settling, remediation.Waiting, remediation.Recovered, remediation.Exhausted}[i%6],
			Triggers: []view.TriggerView{{Trigger: "error_rate", Fingerprint: "fp", Active: true, Threshold: 0.01, Value: &value}},
			Steps: []view.StepView{
				{ID: "1-flag_off", Action: "flag_off", Target: "compose:/srv/" + name + "/" + name + "#FEATURE_ANALYTICS_ENABLED", Risk: "reversible", State: remediation.StepDone, Started: &ran, Finished: &ran},
				{ID: "2-image_retag", Action: "image_retag", Target: "compose:/srv/" + name + "/" + name, Risk: "disruptive", State: remediation.StepPending},
			},
			Next: &view.Next{Step: "2-image_retag", At: &soon, What: "it runs then if the breach continues", Unless: []string{"someone claims the incident"}},
		}
		switch inc.State {
		case remediation.Waiting:
			inc.Reason, inc.Why = remediation.HoldRateLimit, "6 steps on "+name+" within 1h, 6 are allowed"
		case remediation.Exhausted:
			inc.Next = nil
		}
		if i == n-1 {
			inc.ClaimedBy = "eve"
		}
		o.Incidents = append(o.Incidents, inc)
		beat := now.Add(-20 * time.Second)
		o.Services = append(o.Services, view.ServiceNow{
			Service: name, Stages: []string{"alpha", "beta"}, Traffic: "0.1", Watchdog: &beat, WatchdogMaxAge: 5 * time.Minute,
			Limits:   []view.LimitLeft{{Action: "flag_off", Left: 0, Most: 3}, {Action: "image_retag", Left: 2, Most: 3}},
			Triggers: []view.TriggerNow{{Name: "error_rate", Unit: "ratio", Above: true, Severity: 2}},
			Rollout:  remediation.Rollout{Service: name, Release: "v2.0.0", Previous: "v1.0.0", State: remediation.RolloutActive, Stage: "beta"},
		})
	}
	return o
}

func auditLooks(t testing.TB) []look {
	empty := newBench(t, token(t, "eve", config.Commander))
	r := as(request("GET", "/audit", ""), "eve")
	r.Header.Set("Accept", "text/html")
	none := taken("audit-empty", empty.do(r))
	s := newTestService(t)
	s.asks(s.breach())
	at := func(name, query string) look { return taken(name, s.browse("/audit"+query, "eve")) }
	return []look{
		none, at("audit-all", ""), at("audit-filtered", "?kind=held&service=shop"), at("audit-nothing", "?text=nowhere&kind=denied"),
		at("audit-hostile", "?text="+url.QueryEscape(`<script>alert(1)</script>`+"\u202e"+strings.Repeat("W", 100))),
		at("audit-unknown", "?service=gone&incident=inc-404"), at("audit-bad", "?from=yesterday"),
	}
}

// listLooks are the pages of all incidents and of the playbook.
func listLooks(t testing.TB) []look {
	empty := newBench(t, token(t, "eve", config.Commander))
	r := as(request("GET", "/playbook", ""), "eve")
	r.Header.Set("Accept", "text/html")
	none := taken("playbook-none", empty.do(r))
	s := newTestService(t)
	incidentStates["closed"](t, s)
	s.pass(2 * time.Hour)
	s.asks(s.breach())
	at := func(name, path string) look { return taken(name, s.browse(path, "eve")) }
	p := newTestService(t)
	p.begin(t)
	running := taken("playbook-running", p.browse("/playbook", "eve"))
	p.tester.answer(p.Server, replayed(p.clock(), ""), nil)
	p.pass(3 * time.Hour)
	told := taken("playbook-backtest", p.browse("/playbook", "eve"))
	told.body = strings.ReplaceAll(told.body, `<details class="card tone-bad"`, `<details open class="card tone-bad"`)
	p.begin(t)
	p.tester.answer(p.Server, nil, fmt.Errorf("prometheus at http://127.0.0.1:9090: %w: connection refused", remediation.ErrNoAnswer))
	failed := taken("playbook-failed", p.browse("/playbook", "eve"))
	return []look{
		none, running, told, failed, at("incidents-all", "/incidents"), at("incidents-nothing", "/incidents?state=closed&text=nowhere"), at("incidents-bad", "/incidents?state=odd"),
		at("playbook", "/playbook"), at("playbook-unknown", "/playbook?service=gone"),
	}
}

// preflighted is the page of a rollout that is about to start.
func preflighted(t testing.TB, edit ...func(*view.RolloutView)) look {
	b := newBench(t, token(t, "eve", config.Commander))
	now := time.Date(2026, 11, 22, 3, 0, 0, 0, time.UTC)
	ended := now.Add(-7 * time.Minute)
	b.service.overview = view.Overview{Time: now, Mode: remediation.Act, Services: []view.ServiceNow{{Service: "shop", Stages: []string{"alpha", "beta"}}}}
	b.service.rollouts = []view.RolloutView{{Rollout: remediation.Rollout{Service: "shop", Release: "v2", State: remediation.RolloutNone}}}
	for _, e := range edit {
		e(&b.service.rollouts[0])
	}
	b.service.preflight = remediation.PreflightView{
		Release: "v2", Finished: &ended, Missing: []string{"image_retag/previous_image failed: no image shop:v1", "2 sign-offs are missing"},
		Items: []remediation.PreflightItem{
			{ID: "target/health", Name: "the service answers its health check", Before: true, Result: remediation.Passed("200 in 12 ms")},
			{ID: "image_retag/previous_image", Name: "the previous image is there", Before: true, Result: remediation.Failed("no image shop:v1", "docker pull shop:v1")},
			{ID: "clock/prometheus", Name: "Prometheus's clock agrees", Before: true, Result: remediation.Unknown("Prometheus does not answer", "start it")},
			{ID: "people/load-test", Name: "the load test passed", Owner: "QA", Before: true, Result: remediation.Unknown("", ""), Lapsed: "the sign-off by eve lapsed with the rollback of v2"},
			{ID: "people/on-call", Name: "someone is on call", Owner: "SRE", Before: true, Result: remediation.Unknown("", ""), Signed: &remediation.Signature{By: "eve", Reason: "eve until Monday"}},
		},
	}
	r := as(request("GET", "/rollout", ""), "eve")
	r.Header.Set("Accept", "text/html")
	return taken("rollout-preflight", b.do(r))
}

func rolloutLooks(t testing.TB) (all []look) {
	s := newTestService(t)
	all = append(all, taken("rollout-none", s.browse("/rollout", "eve")), preflighted(t))
	s.beat()
	s.declare()
	s.pass(3 * time.Hour)
	all = append(all, taken("rollout-active", s.browse("/rollout", "eve")), taken("rollout-active-viewer", s.browse("/rollout", "ann")))
	must[remediation.Signal](t)(s.engine.RaiseSignal(t.Context(), "shop", "critical-security-vulnerability", "eve", "CVE-2026-4711 is in the image, and is being used"))
	s.pass(90 * time.Second)
	all = append(all, taken("rollout-signal", s.browse("/rollout", "eve")), taken("rollout-signal-viewer", s.browse("/rollout", "ann")))
	opened := taken("rollout-signal-opened", s.browse("/rollout", "eve"))
	opened.body = strings.ReplaceAll(opened.body, `<details id="signal-`, `<details open id="signal-`)
	all = append(all, opened)
	s = newTestService(t)
	s.asks(s.breach())
	all = append(all, taken("rollout-incident", s.browse("/rollout", "eve")))
	s = newTestService(t)
	incidentStates["closed"](t, s)
	return append(all, taken("rollout-rolled-back", s.browse("/rollout", "eve")))
}

func errorLooks(t testing.TB) []look {
	s := newTestService(t)
	id := s.breach()
	conflict := s.send("/incidents/"+id+"/approve", "/", "eve", url.Values{
		"reason": {"the snapshot was restored on staging and is good"}, "step": {"4-schema_rollback"}, "back": {"/incidents/" + id},
	})
	token := csrfField.FindStringSubmatch(s.page("/", "eve"))[1]
	forbidden := s.send("/freeze", "/", "ann", url.Values{"service": {"shop"}, "reason": {"I would like to"}, "csrf": {token}})
	broken := newBench(t)
	broken.service.err = errors.New("read the store: disk I/O error")
	r := request("GET", "/", "")
	r.Header.Set("Accept", "text/html")
	return []look{
		taken("error-401", s.browse("/", "")), taken("error-403", forbidden), taken("error-404", s.browse("/incidents/inc-99", "eve")),
		taken("error-404-address", s.browse("/nowhere", "ann")), taken("error-409", conflict), taken("error-500", broken.do(r)),
	}
}

// statusLooks are those of the public page.
func statusLooks(t testing.TB) (all []look) {
	at := func(s *testService, name string) look {
		return taken("status-"+name, visit(t, public(t, s.engine, s.clock), "GET", "/status"))
	}
	s := newTestService(t)
	all = append(all, at(s, "calm"))
	s.breach()
	s.pass(time.Minute)
	all = append(all, at(s, "trouble"))
	s.reads(0, 0)
	s.pass(4 * time.Minute)
	all = append(all, at(s, "monitoring"))
	s.pass(20 * time.Minute)
	return append(all, at(s, "history"))
}

// TestEveryStateSaysWhatACommanderAsks holds the words of the first screen: what is
// going on, whether it helped, what comes next, how to stop it.
func TestEveryStateSaysWhatACommanderAsks(t *testing.T) {
	want := map[string][]string{
		"confirming":  {"Checking whether the breach is real", "no value yet, trigger is above 1%", "it runs as soon as Prometheus confirms the breach"},
		"unconfirmed": {"On hold: Prometheus does not confirm the breach", "Nothing has been done yet.", "It continues by itself once Prometheus confirms the breach."},
		"settling":    {"A step has run: watching whether it helped", "Not known yet: 2-flag_off has run", "<strong>3-image_retag</strong>, <strong class=\"countdown\">"},
		"approval":    {"Waiting for approval", "Without an answer it is <strong>skipped</strong>", "Not enough: the breach continues after 3-image_retag.", "Approve 4-schema_rollback"},
		"failed":      {"On hold: a step failed", "No: 2-flag_off failed and was undone.", "again once a commander has claimed the incident, fixed the cause and released it", "no space left on device"},
		"exhausted":   {"Remediation failed: needs a person", "No: the steps that ran did not help, and 4-schema_rollback was skipped.", "No steps are left."},
		"recovered":   {"Recovered: still watching", "Yes: the breach stopped after 2-flag_off.", "it runs if the breach comes back before the incident closes"},
		"closed":      {">Closed<", "It is over. The last step was 2-flag_off.", "Nothing: it is closed.", "Restore: put back what was changed"},
		"drill":       {"The drill is over", "drill: nothing is applied", "This is a drill: nothing is applied and nobody is notified."},
		"claimed":     {"Claimed by eve: no step runs", "it would come next, if the incident were not claimed", "Release: give it back to backout"},
		"restored":    {"Closed: the changes were restored", "It is over, and eve had the changes restored.", "put back at "},
		"frozen":      {"On hold: steps are frozen", "Frozen: <bdi>shop</bdi>", "a migration runs until four", "Thaw shop"},
	}
	for name, bring := range incidentStates {
		t.Run(name, func(t *testing.T) {
			s := newTestService(t)
			id := bring(t, s)
			for _, name := range []string{"eve", "ann"} {
				page := s.page("/incidents/"+id, name)
				for _, words := range want[t.Name()[strings.LastIndex(t.Name(), "/")+1:]] {
					change := strings.HasPrefix(words, "Approve ") || strings.HasPrefix(words, "Release: ") || strings.HasPrefix(words, "Restore: ") || strings.HasPrefix(words, "Thaw ")
					if strings.Contains(page, words) == (change && name == "ann") {
						t.Errorf("the page for %s and the words %q", name, words)
					}
				}
			}
		})
	}
	if len(want) != len(incidentStates) {
		t.Errorf("%d states have words, there are %d", len(want), len(incidentStates))
	}
}

func TestEveryOtherPageIsAsTheGoldenFilesSay(t *testing.T) {
	golden := map[string]bool{
		"now-blind": true, "now-no-prometheus": true, "now-frozen": true, "now-many": true, "audit-empty": true, "rollout-none": true, "rollout-preflight": true, "incidents-all": true, "playbook": true, "playbook-backtest": true, "playbook-running": true,
		"error-401": true, "error-403": true, "error-409": true, "error-500": true, "status-history": true,
	}
	for _, l := range append(append(append(nowLooks(t), append(auditLooks(t), listLooks(t)...)...), append(rolloutLooks(t), errorLooks(t)...)...), statusLooks(t)...) {
		if golden[l.name] {
			body := l.body
			if l.name == "audit-empty" || l.name == "error-500" { // of a server without a clock of its own
				body = momentField.ReplaceAllString(body, "MOMENT")
			}
			goldenPage(t, "look-"+l.name+".html", body)
			delete(golden, l.name)
		}
	}
	for name := range golden {
		t.Errorf("there is no look %s", name)
	}
}

var momentField = regexp.MustCompile(`data-now="[0-9]+"|<time[^>]*>[^<]*</time>`)

// Each state's headline on the page of many incidents, and the time that it takes.
func TestAHundredOpenIncidentsShowAtOnceTheGravestFirst(t *testing.T) {
	b := newBench(t, token(t, "eve", config.Commander))
	b.service.overview = crowd(100)
	r := as(request("GET", "/", ""), "eve")
	r.Header.Set("Accept", "text/html")
	begun := time.Now()
	w := b.do(r)
	took := time.Since(begun)
	body := w.Body.String()
	if w.Code != http.StatusOK {
		t.Fatalf("answered %d: %s", w.Code, b.log)
	}
	if took > 2*time.Second || len(body) > 2<<20 || strings.Count(body, "<article") != fewServices || !strings.Contains(body, "75 more services: an incident is open") {
		t.Errorf("took %s for %d bytes with %d incidents", took, len(body), strings.Count(body, "<article"))
	}
	list := body[strings.Index(body, `<ul class="crowd"`):strings.Index(body, "<article")]
	if strings.Count(list, "<li") != 100 || strings.LastIndex(list, "tone-bad") > strings.Index(list, "tone-good") {
		t.Error("the list of all of them is not in the order of their gravity")
	}
}

func TestAStepOverTheLimitOfItsRealmCanBeApprovedOnItsPage(t *testing.T) {
	b := newBench(t, token(t, "eve", config.Commander))
	o := crowd(1)
	inc := o.Incidents[0]
	inc.OverLimit = inc.Next.Step
	b.service.overview, b.service.incidents = o, []view.IncidentView{inc}
	inc.State, inc.Reason, inc.ClaimedBy, inc.OverGate = remediation.Waiting, remediation.HoldBlastRadius, "", remediation.GateRealm
	b.service.overview.Incidents, b.service.incidents = []view.IncidentView{inc}, []view.IncidentView{inc}
	for _, path := range []string{"/incidents/" + inc.ID, "/"} {
		r := as(request("GET", path, ""), "eve")
		r.Header.Set("Accept", "text/html")
		body := b.do(r).Body.String()
		if !strings.Contains(body, `action="/incidents/`+inc.ID+`/approve"`) || !strings.Contains(body, `name="step" value="`+inc.OverLimit+`"`) || !strings.Contains(body, `name="over" value="`+inc.OverGate+`"`) {
			t.Errorf("there is no form to approve it on %s:\n%s", path, body)
		}
		if !strings.Contains(body, "On hold: as many other services of its realm were rolled back") || !strings.Contains(body, "or when a commander approves "+inc.OverLimit) {
			t.Errorf("%s does not say what holds it:\n%s", path, body)
		}
	}
}

// thousand is an overview of 1,000 services: three have an open incident, two are lost.
func thousand() view.Overview {
	o := crowd(3)
	beat, stale := o.Time.Add(-20*time.Second), o.Time.Add(-time.Hour)
	for i := range 997 {
		s := view.ServiceNow{Service: fmt.Sprintf("svc-%04d", i), Watchdog: &beat, WatchdogHeard: true, WatchdogMaxAge: 5 * time.Minute, Playbook: "0123"}
		if i < 2 {
			s.Watchdog = &stale
		}
		o.Services = append(o.Services, s)
	}
	return o
}

func TestAThousandServicesAreReadAtOnceWhatNeedsAPersonFirst(t *testing.T) {
	b := newBench(t, token(t, "eve", config.Commander))
	at := func(o view.Overview) string {
		b.service.overview = o
		r := as(request("GET", "/", ""), "eve")
		r.Header.Set("Accept", "text/html")
		return b.do(r).Body.String()
	}
	body := at(thousand())
	if n := strings.Count(body, "<article"); n != 5 || !strings.Contains(body, "995 more services: no open incident") {
		t.Errorf("%d cards, and the rest is not folded", n)
	}
	if len(body) > 400<<10 || strings.Contains(body, "svc-0500: ") || strings.Count(body, "svc-0500</bdi>") != 1 {
		t.Errorf("%d bytes; a calm service takes more than a line", len(body))
	}
	head := body[:strings.Index(body, "<article")]
	if !strings.Contains(head, "2 services: monitoring lost") || !strings.Contains(head, "Freeze all services") {
		t.Errorf("what is wrong and the switch are not at the top:\n%s", head)
	}
	o := thousand()
	stale := o.Time.Add(-time.Hour)
	for i := range o.Services {
		o.Services[i].Watchdog = &stale
	}
	body = at(o)
	if n := strings.Count(body, "<article"); n != fewServices || !strings.Contains(body, "1000 services: monitoring lost") ||
		!strings.Contains(body, "more services: monitoring lost") || !strings.Contains(body[:strings.Index(body, "<details")], "<bdi>995 more services</bdi>") {
		t.Errorf("%d cards where all are lost:\n%.3000s", n, body)
	}
	if body = at(crowd(300)); !strings.Contains(body, "200 more open incidents") || strings.Count(body, `href="#h-`) > fewServices {
		t.Error("300 open incidents are all listed, or lead to cards that are not there")
	}
}

func TestWhereAllAreLostNoIncidentRolloutOrSignalIsHiddenAmongThem(t *testing.T) {
	b := newBench(t, token(t, "eve", config.Commander))
	o := thousand()
	stale := o.Time.Add(-time.Hour)
	for i := range o.Services {
		o.Services[i].Watchdog = &stale
	}
	o.Services[500].Rollout = remediation.Rollout{Release: "v9", State: remediation.RolloutActive, Held: true}
	o.Services[700].Signals = []view.SignalNow{{Name: "wrong_prices", Raised: &remediation.Signal{Name: "wrong_prices", By: "ann", Since: stale}}}
	waits := o.Incidents[0]
	waits.ID, waits.Service, waits.State, waits.Reason = "inc-900", o.Services[900].Service, remediation.Waiting, remediation.HoldApproval
	o.Incidents = append(o.Incidents, waits)
	at := func() string {
		b.service.overview = o
		r := as(request("GET", "/", ""), "eve")
		r.Header.Set("Accept", "text/html")
		return b.do(r).Body.String()
	}
	body := at()
	cards := body[strings.Index(body, "<article"):strings.LastIndex(body, "</article>")]
	for _, want := range []string{`id="h-inc-900"`, "v9 active, held", "wrong_prices, raised by ann"} {
		if !strings.Contains(cards, want) {
			t.Errorf("no card has %q", want)
		}
	}
	for _, want := range []string{o.Services[500].Service + "</bdi></strong> rollout: v9 active, held", o.Services[700].Service + "</bdi></strong> signal: wrong_prices", "<bdi>993 more services</bdi></strong> monitoring: lost"} {
		if !strings.Contains(body, want) {
			t.Errorf("no line says %q", want)
		}
	}
	// More incidents than cards.
	o.Incidents = nil
	for i := range 30 {
		inc := waits
		inc.ID, inc.Service = fmt.Sprintf("inc-%d", 900+i), o.Services[900+i].Service
		o.Incidents = append(o.Incidents, inc)
	}
	if body = at(); strings.Count(body, `href="/incidents/inc-929"`) != 2 { // in the list of all, and where it is folded
		t.Error("nothing leads to an incident without a card")
	}
	for i := range o.Services {
		o.Services[i].Watchdog, o.Services[i].Rollout = &o.Time, remediation.Rollout{Release: "v9", State: remediation.RolloutActive}
	}
	if body = at(); !strings.Contains(body, "more services: a rollout or a signal is active") || strings.Contains(body, "more services: no open incident") {
		t.Error("a rollout is folded as if nothing went on")
	}
}

// BenchmarkNowPage is what the page "now" costs with a hundred open incidents.
func BenchmarkNowPage(b *testing.B) {
	s := newBench(b, token(b, "eve", config.Commander))
	s.service.overview = crowd(100)
	for b.Loop() {
		r := as(request("GET", "/", ""), "eve")
		r.Header.Set("Accept", "text/html")
		if w := s.do(r); w.Code != http.StatusOK {
			b.Fatal(w.Code)
		}
	}
}

var stampField = regexp.MustCompile(`data-stamp="[0-9a-f]+"`)

// replay serves looks at /NAME, as they were taken, with what they load.
func replay(t testing.TB, all []look, files http.Handler) string {
	t.Helper()
	mux := http.NewServeMux()
	mux.Handle("/static/", files)
	// What is shown is never out of date.
	mux.HandleFunc("/events", func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "text/event-stream")
		if _, err := fmt.Fprint(w, "retry: 600000\nevent: hello\ndata: STAMP\n\n"); err != nil {
			return // the page was left
		}
		if f, ok := w.(http.Flusher); ok {
			f.Flush()
		}
		<-r.Context().Done()
	})
	for _, l := range all {
		mux.HandleFunc("/"+l.name, func(w http.ResponseWriter, _ *http.Request) {
			for k, v := range l.header {
				if k != "Www-Authenticate" {
					w.Header()[k] = v
				}
			}
			w.WriteHeader(l.status)
			if _, err := fmt.Fprint(w, stampField.ReplaceAllString(l.body, `data-stamp="STAMP"`)); err != nil {
				t.Logf("%s: %v", l.name, err)
			}
		})
	}
	server := httptest.NewUnstartedServer(mux)
	ctx, cancel := context.WithCancel(context.Background())
	server.Config.BaseContext = func(net.Listener) context.Context { return ctx }
	server.Start()
	t.Cleanup(func() { cancel(); server.Close() })
	return server.URL
}

func TestAHeldRestoreIsShownAsAnUndoFirstAndNothingOfItAsAFailure(t *testing.T) {
	b := newBench(t, token(t, "eve", config.Commander))
	o := crowd(1)
	inc := o.Incidents[0]
	inc.State, inc.Reason, inc.ClaimedBy, inc.RestoringFor, inc.OverLimit, inc.OverGate = remediation.Waiting, remediation.HoldRateLimit, "", "oncall", "1-flag_off", "per_service"
	inc.Next = &view.Next{Step: "1-flag_off", What: "oncall ordered the restore"}
	inc.Steps[1].State, inc.Steps[1].PutBack = remediation.StepUndone, true
	b.service.overview.Incidents, b.service.incidents = []view.IncidentView{inc}, []view.IncidentView{inc}
	b.service.overview.Services = o.Services
	for _, path := range []string{"/incidents/" + inc.ID, "/"} {
		r := as(request("GET", path, ""), "eve")
		r.Header.Set("Accept", "text/html")
		body := b.do(r).Body.String()
		for _, want := range []string{"Approve over the limit: undo of 1-flag_off</summary>", "<strong>undo of 1-flag_off</strong>", "step-back", `class="first"`} {
			if !strings.Contains(body, want) {
				t.Errorf("%s does not have %q", path, want)
			}
		}
		if strings.Contains(body, "step-undone") {
			t.Errorf("%s shows the ordered undo as a failure", path)
		}
		if over, claim := strings.Index(body, "Approve over the limit"), strings.Index(body, `id="do-claim"`); claim >= 0 && over > claim {
			t.Errorf("%s has the needed button behind the claim", path)
		}
	}
}

func TestAnOrderedIncidentThatIsOverReadsAsASentenceInTheList(t *testing.T) {
	b := newBench(t, token(t, "eve", config.Commander))
	o := crowd(1)
	inc := o.Incidents[0]
	inc.State, inc.Triggers, inc.AbortedBy, inc.RestoredBy, inc.Next = remediation.Closed, nil, "oncall", "oncall", nil
	inc.Closed = &inc.Opened
	inc.Steps[1].Risk, inc.Steps[0].LostData = "lossy", true
	inc.Steps[0].Snapshot = &view.Snapshot{Path: "/var/lib/backout/shop.dump", SHA256: "cafe",
		Lost: []remediation.Lost{{What: remediation.LostTable, Schema: "public", Table: "positions", Rows: 229}}}
	b.service.overview, b.service.incidents = o, []view.IncidentView{inc}
	at := func(path string) string {
		r := as(request("GET", path, ""), "eve")
		r.Header.Set("Accept", "text/html")
		return b.do(r).Body.String()
	}
	if body := at("/incidents"); !strings.Contains(body, "It is over, and oncall") || strings.Contains(body, "<br>. ") {
		t.Errorf("the list is\n%s", body)
	}
	page := at("/incidents/" + inc.ID)
	for _, want := range []string{
		"lost data: table public.positions (229 rows); the snapshot is /var/lib/backout/shop.dump, SHA-256 cafe", "Rows written since the snapshot are lost.",
		"<code>pg_restore --schema=public --table=positions --file=/var/lib/backout/shop-lost.sql /var/lib/backout/shop.dump</code>", "never run",
	} {
		if !strings.Contains(page, want) {
			t.Errorf("the page does not say %q", want)
		}
	}
	if strings.Contains(page, `class="risk">lossy`) {
		t.Error("a step that never ran is shown as a risk")
	}
}
