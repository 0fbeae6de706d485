package receiver

import (
	"bufio"
	"net/http"
	"net/http/httptest"
	"net/url"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/locotoki/backout/receiver/config"
	"github.com/locotoki/backout/remediation"
	"github.com/locotoki/backout/remediation/audit"
	"github.com/locotoki/backout/remediation/view"
)

// harmless checks that a page holds nothing live of what was put into it.
func harmless(t *testing.T, body string) {
	t.Helper()
	// What a form sends back, and an address, is as it is, escaped: it is not shown.
	body = regexp.MustCompile(` value="[^"]*"`).ReplaceAllString(body, "")
	for _, live := range []string{"<script>alert", "<img src=x", "\u202e", "\u200f", "\x1b", "\x00", "javascript:alert(1)\"", strings.Repeat("x", 9000)} {
		if strings.Contains(body, live) {
			t.Errorf("the page holds %.40q as it is", live)
		}
	}
	if !strings.Contains(body, "&lt;script&gt;alert(1)") || !strings.Contains(body, "[U&#43;202E]") {
		t.Errorf("the page does not show what was put into it as text: %.3000s", body)
	}
}

func TestHostileValuesShowAsPlainTextOnEveryPage(t *testing.T) {
	evil := `<script>alert(1)</script><img src=x onerror=alert(1)>"'` + "\u202e\u200f\x1b[31m\x00" + strings.Repeat("x", 10_000)
	now := time.Date(2026, 11, 22, 3, 0, 0, 0, time.UTC)
	v := 5.0
	b := newBench(t, token(t, "eve", config.Commander))
	inc := view.IncidentView{
		ID: "inc-1", Service: evil, Rollout: evil, State: remediation.Waiting, Reason: remediation.HoldApproval, Why: evil, Opened: now, Until: &now,
		Triggers:  []view.TriggerView{{Trigger: evil, Fingerprint: evil, Active: true, Value: &v}},
		Steps:     []view.StepView{{ID: evil, Action: evil, Target: evil, Risk: evil, State: remediation.StepState(evil), Started: &now}},
		Next:      &view.Next{Step: evil, What: evil, Unless: []string{evil}},
		ClaimedBy: evil,
	}
	b.service.incidents = []view.IncidentView{inc}
	b.service.overview = view.Overview{
		Time: now, Incidents: b.service.incidents, Recent: b.service.incidents, Freezes: []remediation.Freeze{{Service: evil, By: evil, Reason: evil, Scope: "all"}},
		Services: []view.ServiceNow{{Service: evil, Stages: []string{evil}, Call: "javascript:alert(1)", Runbook: "javascript:alert(1)", Playbook: evil, Losses: []view.Loss{{Action: evil, Target: evil, What: evil}},
			Triggers: []view.TriggerNow{{Name: evil, Dashboard: "javascript:alert(1)"}},
			Signals:  []view.SignalNow{{Name: evil}, {Name: evil, Raised: &remediation.Signal{Service: evil, Name: evil, By: evil, Reason: evil, Since: now}}}, Limits: []view.LimitLeft{{Action: evil}},
			Rollout: remediation.Rollout{Service: evil, Release: evil, Stage: evil, State: evil}}},
		HeadHash: evil,
	}
	b.service.rollouts = []view.RolloutView{{Rollout: b.service.overview.Services[0].Rollout, Criteria: []view.CriterionView{{Name: evil, Bound: evil}},
		Next: evil, Traffic: evil, Gates: []remediation.GateResult{{Gate: evil, Why: evil}},
		Timeline: []view.TimelineDay{{Day: evil, Date: evil, Activity: evil, Owner: evil}}}}
	b.service.entries = []audit.Entry{
		{Seq: 2, Time: now, Kind: "held", Actor: evil, Service: evil, Incident: "inc-1", Step: evil, Hash: evil, Detail: map[string]any{
			"reason": evil, "why": evil, "gates": []any{map[string]any{"gate": evil, "ok": false, "why": evil}}, "before": map[string]any{"a": evil}, evil: evil,
		}},
		{Seq: 1, Time: now, Kind: audit.Kind(evil), Actor: evil, Service: evil, Incident: evil, Step: evil, Detail: map[string]any{}},
	}
	b.service.plot = view.Plot{Note: evil, Points: []remediation.Point{{Time: now, Value: 1}}, Marks: []view.Mark{{Time: now, Label: evil}}}
	b.service.preflight = remediation.PreflightView{Release: evil, Missing: []string{evil}, Items: []remediation.PreflightItem{
		{ID: evil, Name: evil, Owner: evil, Result: remediation.Unknown(evil, evil)}, {ID: evil, Name: evil, Result: remediation.Passed(evil)},
		{ID: evil, Name: evil, Signed: &remediation.Signature{By: evil, Reason: evil}}}}
	for _, path := range []string{"/", "/incidents/inc-1", "/incidents", "/audit", "/rollout", "/playbook", "/audit?text=" + url.QueryEscape("<script>alert(1)</script>\u202e")} {
		r := as(request("GET", path, ""), "eve")
		r.Header.Set("Accept", "text/html")
		w := b.do(r)
		if w.Code != http.StatusOK {
			t.Errorf("%s answers %d: %s", path, w.Code, w.Body)
			continue
		}
		t.Run(path, func(t *testing.T) { harmless(t, w.Body.String()) })
	}
}

func TestHostileValuesShowAsPlainTextWhereSomethingIsRefusedOrDone(t *testing.T) {
	evil := `<script>alert(1)</script><img src=x onerror=alert(1)>"'` + "\u202e\u200f\x1b[31m" + strings.Repeat("x", 300)
	s := newTestService(t)
	id := s.breach()
	refused := s.send("/incidents/"+id+"/approve", "/", "eve", url.Values{"reason": {evil}, "step": {evil}})
	if refused.Code < 400 {
		t.Error("a step of that name answers", refused.Code)
	}
	harmless(t, refused.Body.String())
	// What is quoted in an error shows its odd characters as Go writes them.
	harmless(t, strings.ReplaceAll(s.browse("/audit?from="+url.QueryEscape(evil), "eve").Body.String(), `\u202e`, "[U&#43;202E]"))
	done := s.send("/incidents/"+id+"/claim", "/", "eve", url.Values{"reason": {evil}})
	if done.Code != http.StatusSeeOther {
		t.Fatal(done.Code, done.Body)
	}
	harmless(t, s.page(strings.TrimSuffix(done.Header().Get("Location"), "#result"), "eve"))
	harmless(t, s.page("/audit?kind=claimed", "eve"))
	if w := s.send("/freeze", "/", "eve", url.Values{"service": {"shop"}, "reason": {evil}}); w.Code != http.StatusSeeOther {
		t.Fatal(w.Code, w.Body)
	}
	harmless(t, s.page("/", "eve"))
	harmless(t, s.page("/rollout", "eve"))
}

func TestEveryPageHasAStrictPolicyAndIsNotKept(t *testing.T) {
	s := newTestService(t)
	id := s.breach()
	for _, path := range []string{"/", "/incidents/" + id, "/incidents", "/audit", "/rollout", "/playbook", "/incidents/none", "/nowhere"} {
		h := s.browse(path, "eve").Header()
		csp := h.Get("Content-Security-Policy")
		for _, want := range []string{"default-src 'none'", "script-src 'self'", "style-src 'self'", "frame-ancestors 'none'", "form-action 'self'", "base-uri 'none'"} {
			if !strings.Contains(csp, want) {
				t.Errorf("%s: the policy %q lacks %s", path, csp, want)
			}
		}
		if strings.Contains(csp, "unsafe") || h.Get("Cache-Control") != "no-store" || h.Get("X-Content-Type-Options") != "nosniff" || h.Get("Referrer-Policy") != "same-origin" {
			t.Errorf("%s: %v", path, h)
		}
	}
	for name := range s.pages.Files {
		w := s.browse("/static/"+name, "")
		if w.Code != http.StatusOK || !strings.Contains(w.Header().Get("Cache-Control"), "immutable") {
			t.Errorf("%s answers %d %v", name, w.Code, w.Header())
		}
	}
	if w := s.browse("/static/console.css", ""); w.Code != http.StatusNotFound {
		t.Errorf("a name without its hash answers %d", w.Code)
	}
}

func TestThePagesAreForThoseWhoMayRead(t *testing.T) {
	s := newTestService(t)
	for _, path := range []string{"/", "/audit", "/audit/export", "/rollout", "/playbook", "/incidents", "/incidents/inc-1", "/events"} {
		for name, want := range map[string]int{"": http.StatusUnauthorized, "am": http.StatusForbidden, "nobody": http.StatusUnauthorized} {
			w := s.browse(path, name)
			if w.Code != want || !strings.Contains(w.Header().Get("Content-Type"), "text/html") {
				t.Errorf("GET %s as %q answers %d %s", path, name, w.Code, w.Header().Get("Content-Type"))
			}
			if want == http.StatusUnauthorized && !strings.HasPrefix(w.Header().Get("WWW-Authenticate"), "Basic ") {
				t.Errorf("GET %s as %q asks for no password", path, name)
			}
		}
	}
}

func TestAViewerSeesNoForm(t *testing.T) {
	s := newTestService(t)
	id := s.breach()
	s.asks(id)
	for _, path := range []string{"/", "/incidents/" + id} {
		if page := s.page(path, "ann"); strings.Contains(page, `method="post"`) || strings.Contains(page, "csrf") || !strings.Contains(page, "A commander can") {
			t.Errorf("%s shows a viewer a form, or does not say who can", path)
		}
	}
}

func TestAFormCountsOnlyFromThisSiteWithTheTokenOfWhoWasShownIt(t *testing.T) {
	s := newTestService(t)
	fresh := func() string { return csrfField.FindStringSubmatch(s.page("/", "eve"))[1] }
	old := fresh()
	freeze := func(name, csrf string, edit ...func(*http.Request)) int {
		return s.send("/freeze", "/", name, url.Values{"service": {"shop"}, "reason": {"r"}, "csrf": {csrf}}, edit...).Code
	}
	header := func(k, v string) func(*http.Request) { return func(r *http.Request) { r.Header.Set(k, v) } }
	for what, code := range map[string]int{
		"no token":        freeze("eve", ""),
		"another token":   freeze("eve", strings.Repeat("A", len(old))),
		"no base64":       freeze("eve", "%%%"),
		"another's":       freeze("eve", s.csrf.token("ann", s.clock())),
		"another process": freeze("eve", csrf{[]byte("another key, as long as it should")}.token("eve", s.clock())),
		"of the future":   freeze("eve", s.csrf.token("eve", s.clock().Add(time.Hour))),
		"a viewer":        freeze("ann", s.csrf.token("ann", s.clock())),
		"alertmanager":    freeze("am", s.csrf.token("am", s.clock())),
		"another origin":  freeze("eve", fresh(), header("Origin", "http://evil.example.com")),
		"a null origin":   freeze("eve", fresh(), header("Origin", "null")),
		"cross-site":      freeze("eve", fresh(), header("Sec-Fetch-Site", "cross-site")),
		"same site":       freeze("eve", fresh(), header("Sec-Fetch-Site", "same-site")),
		"another host":    freeze("eve", fresh(), func(r *http.Request) { r.Host = "evil.example.com" }),
	} {
		if code != http.StatusForbidden {
			t.Errorf("%s answers %d, want 403", what, code)
		}
	}
	if code := freeze("eve", fresh(), header("Content-Type", "text/plain")); code != http.StatusUnsupportedMediaType {
		t.Errorf("a form as text/plain answers %d", code)
	}
	if list, err := s.engine.Freezes(t.Context()); err != nil || len(list) != 0 {
		t.Fatal("a refused form froze something:", list, err)
	}
	s.pass(13 * time.Hour)
	if code := freeze("eve", old); code != http.StatusForbidden {
		t.Errorf("a form of 13 hours ago answers %d", code)
	}
	if code := freeze("eve", fresh()); code != http.StatusSeeOther {
		t.Errorf("the form itself answers %d", code)
	}
}

func TestWithoutTokensThePagesShowAndChangeNothing(t *testing.T) {
	b := newBench(t)
	r := request("GET", "/", "")
	r.Header.Set("Accept", "text/html")
	if w := b.do(r); w.Code != http.StatusOK || strings.Contains(w.Body.String(), "<form") {
		t.Error(w.Code, w.Body)
	}
	post := request("POST", "/freeze", "service=&reason=r&csrf="+b.csrf.token("", time.Now()))
	post.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	if w := b.do(post); w.Code != http.StatusForbidden || len(b.service.changes) != 0 {
		t.Error(w.Code, b.service.changes)
	}
}

func TestAChangeLeadsBackToPagesOfThisSiteOnly(t *testing.T) {
	s := newTestService(t)
	for _, target := range []string{"//evil.example.com", "https://evil.example.com/", "/\\evil.example.com", "/audit", "/incidents/../x", "/%0d%0aX: y"} {
		w := s.send("/freeze", "/", "eve", url.Values{"service": {"shop"}, "reason": {"r"}, "back": {target}})
		if at := w.Header().Get("Location"); w.Code != http.StatusSeeOther || !strings.HasPrefix(at, "/?done=") {
			t.Errorf("back to %q leads to %d %q", target, w.Code, at)
		}
	}
}

func TestAStreamTellsOfAChangeAndEndsWithTheServer(t *testing.T) {
	s := newTestService(t)
	server := httptest.NewServer(s)
	defer server.Close()
	r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, server.URL+"/events", nil)
	if err != nil {
		t.Fatal(err)
	}
	r.SetBasicAuth("ann", "ann-secret")
	resp, err := server.Client().Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if ct := resp.Header.Get("Content-Type"); resp.StatusCode != http.StatusOK || !strings.HasPrefix(ct, "text/event-stream") {
		t.Fatal(resp.StatusCode, ct)
	}
	lines := bufio.NewScanner(resp.Body)
	next := func(want string) string {
		t.Helper()
		event := ""
		for lines.Scan() {
			if e, ok := strings.CutPrefix(lines.Text(), "event: "); ok {
				event = e
			}
			if data, ok := strings.CutPrefix(lines.Text(), "data: "); ok {
				if event != want {
					t.Fatalf("the event is %q, want %q", event, want)
				}
				return data
			}
		}
		t.Fatal("the stream ended:", lines.Err())
		return ""
	}
	first := next("hello")
	if page := s.page("/", "ann"); !strings.Contains(page, `data-stamp="`+first+`"`) {
		t.Error("the page and the stream do not speak of the same state")
	}
	s.breach()
	if next("change") == first {
		t.Error("a change has the stamp of what was before")
	}
	s.end.Do(func() { close(s.ending) })
	for lines.Scan() {
	}
	if err := lines.Err(); err != nil {
		t.Error("the stream was cut off:", err)
	}
}

func TestAnExportIsWhatTheCommandWrites(t *testing.T) {
	s := newTestService(t)
	id := s.breach()
	entries, err := s.engine.Entries(t.Context(), audit.Filter{Incident: id})
	if err != nil {
		t.Fatal(err)
	}
	want := ""
	for _, e := range entries {
		line, err := e.MarshalJSON()
		if err != nil {
			t.Fatal(err)
		}
		want += string(line) + "\n"
	}
	w := s.browse("/audit/export?incident="+id, "ann")
	if w.Code != http.StatusOK || w.Body.String() != want || !strings.Contains(w.Header().Get("Content-Disposition"), "attachment") {
		t.Errorf("%d %v\n%s\nwant\n%s", w.Code, w.Header(), w.Body, want)
	}
}

func TestTheAuditPageSaysWhereItsChainIsBroken(t *testing.T) {
	s := newTestService(t)
	s.breach()
	entries, err := s.engine.Entries(t.Context(), audit.Filter{})
	if err != nil {
		t.Fatal(err)
	}
	b := newBench(t)
	for i := len(entries) - 1; i >= 0; i-- {
		b.service.entries = append(b.service.entries, entries[i])
	}
	if body := b.do(request("GET", "/audit", "")).Body.String(); !strings.Contains(body, "and each entry links to the one before") {
		t.Error("a whole chain is not said to be whole")
	}
	b.service.entries[2].Actor = "mallory"
	if body := b.do(request("GET", "/audit", "")).Body.String(); !strings.Contains(body, "Broken at entry") {
		t.Error("a forged entry is not noticed")
	}
}

func TestManyStreamsLookAsOftenAsOne(t *testing.T) {
	b := newBench(t)
	looks := 0
	b.service.look = func() { looks++ }
	for range 20 {
		if _, err := b.stamp(t.Context(), time.Hour); err != nil {
			t.Fatal(err)
		}
	}
	if looks != 1 {
		t.Errorf("20 streams looked %d times within the time of one look", looks)
	}
	// A page that is loaded anew sees what is so now.
	if _, err := b.stamp(t.Context(), 0); err != nil || looks != 2 {
		t.Errorf("a stream that begins was told what another saw before: %d looks, %v", looks, err)
	}
}
