package receiver

import (
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/locotoki/backout/remediation"
	"github.com/locotoki/backout/remediation/audit"
)

const vulnerability = "critical-security-vulnerability"

func TestASignalIsRaisedAndClearedOnTheRolloutsPage(t *testing.T) {
	s := newTestService(t)
	form := func(verb string) string { return `action="/signals/` + verb + `"` }
	page := s.page("/rollout", "eve")
	if strings.Count(page, form("raise")) != 2 || strings.Contains(page, form("clear")) || !strings.Contains(page, vulnerability+" is not raised.") {
		t.Errorf("the page does not offer the playbook's two signals: %s", page)
	}
	if i := strings.Index(page, form("raise")); strings.Contains(page[i:i+600], `class="stop"`) {
		t.Error("the button is red, which is for an abort")
	}
	send := func(verb, reason string) string {
		t.Helper()
		w := s.send("/signals/"+verb, "/rollout", "eve", url.Values{"service": {"shop"}, "signal": {vulnerability}, "reason": {reason}, "back": {"/rollout"}})
		if w.Code != http.StatusSeeOther || !strings.HasPrefix(w.Header().Get("Location"), "/rollout?done=") {
			t.Fatalf("%s answers %d to %s: %s", verb, w.Code, w.Header().Get("Location"), w.Body)
		}
		return s.page(strings.TrimSuffix(w.Header().Get("Location"), "#result"), "eve")
	}
	page = send("raise", "CVE-2026-4711")
	s.pass(3 * time.Minute)
	for _, want := range []string{"raised signal " + vulnerability + " of shop", vulnerability + " is raised", "By <bdi>eve</bdi>", "<q>CVE-2026-4711</q>", form("clear")} {
		if !strings.Contains(page, want) {
			t.Errorf("%q is not on the page: %s", want, page)
		}
	}
	page = send("raise", "another reason")
	if !strings.Contains(page, "changed nothing: signal "+vulnerability+" of shop was raised already, by eve") || !strings.Contains(page, "<q>CVE-2026-4711</q>") || !strings.Contains(page, "3 min ago") {
		t.Errorf("a second raise is not said to change nothing: %s", page)
	}
	page = send("clear", "it is mended")
	if !strings.Contains(page, "cleared signal "+vulnerability+" of shop") || strings.Contains(page, form("clear")) {
		t.Errorf("the page does not say that it is cleared: %s", page)
	}
	entries, err := s.engine.Entries(t.Context(), audit.Filter{Kind: audit.KindSignal})
	if err != nil || len(entries) != 2 || entries[0].Actor != "eve" || entries[1].Detail["reason"] != "it is mended" {
		t.Errorf("%+v %v", entries, err)
	}
	w := s.send("/signals/clear", "/rollout", "eve", url.Values{"service": {"shop"}, "signal": {vulnerability}, "reason": {"again"}})
	if w.Code != http.StatusConflict || !strings.Contains(w.Body.String(), "is not raised") {
		t.Errorf("answers %d: %s", w.Code, w.Body)
	}
}

func TestAViewerSeesWhoRaisedASignalAndNoForm(t *testing.T) {
	s := newTestService(t)
	must[remediation.Signal](t)(s.engine.RaiseSignal(t.Context(), "shop", "data-integrity", "eve", "orders are doubled"))
	page := s.page("/rollout", "ann")
	if !strings.Contains(page, "<q>orders are doubled</q>") || !strings.Contains(page, "A commander can raise and clear them") || strings.Contains(page, "/signals/") {
		t.Error(page)
	}
}

func TestAFormOfASignalThatIsNotUnderstoodRaisesNothing(t *testing.T) {
	s := newTestService(t)
	whole := func(edit ...string) url.Values {
		form := url.Values{"service": {"shop"}, "signal": {vulnerability}, "reason": {"r"}}
		for i := 0; i < len(edit); i += 2 {
			form.Set(edit[i], edit[i+1])
		}
		return form
	}
	for name, tc := range map[string]struct {
		verb string
		form url.Values
		want int
	}{
		"no reason":            {"raise", whole("reason", ""), http.StatusBadRequest},
		"no service":           {"raise", whole("service", ""), http.StatusBadRequest},
		"no signal":            {"raise", whole("signal", ""), http.StatusBadRequest},
		"an unknown field":     {"raise", whole("force", "yes"), http.StatusBadRequest},
		"an unknown verb":      {"lower", whole(), http.StatusNotFound},
		"an unknown signal":    {"raise", whole("signal", "../freeze"), http.StatusNotFound},
		"another's service":    {"raise", whole("service", "bank"), http.StatusNotFound},
		"a forged token":       {"raise", whole("csrf", "forged"), http.StatusForbidden},
		"one that is not up":   {"clear", whole(), http.StatusConflict},
		"two of the same name": {"raise", url.Values{"service": {"shop"}, "signal": {vulnerability, "data-integrity"}, "reason": {"r"}}, http.StatusBadRequest},
	} {
		if w := s.send("/signals/"+tc.verb, "/rollout", "eve", tc.form); w.Code != tc.want {
			t.Errorf("%s answers %d, want %d: %s", name, w.Code, tc.want, w.Body)
		}
	}
	for _, name := range []string{"ann", "am"} {
		w := s.send("/signals/raise", "/rollout", name, whole("csrf", s.csrf.token(name, s.clock())))
		if w.Code != http.StatusForbidden {
			t.Errorf("%s's form answers %d", name, w.Code)
		}
	}
	w := s.send("/signals/raise", "/rollout", "eve", whole(), func(r *http.Request) { r.Header.Set("Origin", "https://evil.example.com") })
	if w.Code != http.StatusForbidden {
		t.Errorf("a form of another site answers %d", w.Code)
	}
	o, err := s.engine.Overview(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for _, g := range o.Services[0].Signals {
		if g.Raised != nil {
			t.Errorf("%s is raised by %s", g.Name, g.Raised.By)
		}
	}
}
