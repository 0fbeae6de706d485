package receiver

import (
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/locotoki/backout/remediation"
)

func TestTheRolloutsPageHasItsFormsForACommanderOnly(t *testing.T) {
	s := newTestService(t)
	s.declare()
	s.beat()
	for verb, shown := range map[string]bool{"promote": true, "hold": true, "abort": true, "resume": false, "finish": false} {
		action := `action="/rollout/` + verb + `"`
		if strings.Contains(s.page("/rollout", "eve"), action) != shown {
			t.Errorf("the form of %s is shown: %t", verb, !shown)
		}
		if strings.Contains(s.page("/rollout", "ann"), action) {
			t.Errorf("a viewer is shown the form of %s", verb)
		}
	}
	w := s.send("/rollout/hold", "/rollout", "eve", url.Values{"service": {"shop"}, "reason": {"marketing"}, "back": {"/rollout"}})
	if w.Code != http.StatusSeeOther || !strings.HasPrefix(w.Header().Get("Location"), "/rollout?done=") {
		t.Fatalf("answers %d to %s: %s", w.Code, w.Header().Get("Location"), w.Body)
	}
	page := s.page(strings.TrimSuffix(w.Header().Get("Location"), "#result"), "eve")
	if !strings.Contains(page, "held the rollout of shop") || !strings.Contains(page, `action="/rollout/resume"`) || strings.Contains(page, `action="/rollout/hold"`) {
		t.Error("the page does not say that it is held")
	}
	w = s.send("/rollout/promote", "/rollout", "eve", url.Values{"service": {"shop"}, "reason": {"now"}})
	if w.Code != http.StatusConflict || !strings.Contains(w.Body.String(), "is not promoted to beta") {
		t.Errorf("answers %d: %s", w.Code, w.Body)
	}
}

func TestAFormOfTheRolloutThatIsNotUnderstoodChangesNothing(t *testing.T) {
	s := newTestService(t)
	s.declare()
	for path, form := range map[string]url.Values{
		"/rollout/hold":    {"service": {"shop"}},
		"/rollout/resume":  {"reason": {"r"}},
		"/rollout/start":   {"service": {"shop"}, "reason": {"r"}},
		"/rollout/abort":   {"service": {"shop"}, "reason": {"r"}, "stage": {"alpha"}},
		"/rollout/promote": {"service": {"shop"}, "reason": {"r"}, "csrf": {"forged"}},
	} {
		if w := s.send(path, "/rollout", "eve", form); w.Code < 400 || w.Code >= 500 {
			t.Errorf("POST %s answers %d", path, w.Code)
		}
	}
	if w := s.send("/rollout/abort", "/rollout", "eve", url.Values{"service": {"shop"}, "reason": {"r"}},
		func(r *http.Request) { r.SetBasicAuth("ann", "ann-secret") }); w.Code != http.StatusForbidden {
		t.Errorf("a viewer's abort answers %d", w.Code)
	}
	if all, err := s.engine.Rollouts(t.Context()); err != nil || all[0].Held || all[0].Incident != "" {
		t.Errorf("%+v %v", all, err)
	}
}

func TestARolloutIsAbortedFromAnIncidentsPage(t *testing.T) {
	s := newTestService(t)
	id := s.breach()
	s.pass(time.Second)
	const form = `action="/rollout/abort"`
	if !strings.Contains(s.page("/incidents/"+id, "eve"), form) || strings.Contains(s.page("/incidents/"+id, "ann"), form) {
		t.Fatal("the red button is not for a commander, or not for them alone")
	}
	w := s.send("/rollout/abort", "/incidents/"+id, "eve", url.Values{"service": {"shop"}, "reason": {"enough"}, "back": {""}})
	if w.Code != http.StatusSeeOther || !strings.HasPrefix(w.Header().Get("Location"), "/incidents/"+id+"?done=") {
		t.Fatalf("answers %d to %s: %s", w.Code, w.Header().Get("Location"), w.Body)
	}
	s.pass(time.Second)
	v, err := s.engine.Incident(t.Context(), id)
	if err != nil || v.AbortedBy != "eve" || v.Reason != remediation.HoldApproval {
		t.Fatalf("%+v %v", v, err)
	}
	page := s.page("/incidents/"+id, "eve")
	if strings.Contains(page, form) {
		t.Error("what is aborted can be aborted again")
	}
}

func TestAnIncidentWithoutAlertsSaysWhoOrderedIt(t *testing.T) {
	s := newTestService(t)
	s.declare()
	w := s.send("/rollout/abort", "/rollout", "eve", url.Values{"service": {"shop"}, "reason": {"wrong build"}})
	if w.Code != http.StatusSeeOther || !strings.HasPrefix(w.Header().Get("Location"), "/incidents/inc-1?done=") {
		t.Fatalf("answers %d to %s: %s", w.Code, w.Header().Get("Location"), w.Body)
	}
	s.pass(time.Second)
	if page := s.page("/incidents/inc-1", "ann"); !strings.Contains(page, "<bdi>eve</bdi> aborted the rollout") || !strings.Contains(page, "wrong build") {
		t.Errorf("the page does not say who ordered what: %s", page)
	}
}
