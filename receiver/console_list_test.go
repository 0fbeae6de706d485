package receiver

import (
	"fmt"
	"net/http"
	"net/url"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/locotoki/backout/receiver/config"
	"github.com/locotoki/backout/remediation"
	"github.com/locotoki/backout/remediation/view"
)

var (
	listedIncident = regexp.MustCompile(`<li class="tone-[a-z]+"><a href="/incidents/(inc-[0-9]+)">`)
	older          = regexp.MustCompile(`rel="next" href="([^"]+)"`)
)

// list is what the page of incidents shows, and the address of the older ones.
func (s *testService) list(path string) (ids []string, next string) {
	s.t.Helper()
	page := s.page(path, "ann")
	for _, m := range listedIncident.FindAllStringSubmatch(page, -1) {
		ids = append(ids, m[1])
	}
	if m := older.FindStringSubmatch(page); m != nil {
		next = strings.ReplaceAll(m[1], "&amp;", "&")
	}
	return ids, next
}

// past stores n closed incidents, of which every tenth was of release v1.
func (s *testService) past(n int) {
	s.t.Helper()
	err := s.store.Update(s.t.Context(), func(tx remediation.Tx) error {
		for i := range n {
			at := s.clock().Add(time.Duration(i-n) * time.Hour)
			inc := &remediation.Incident{Service: "shop", State: remediation.Closed, Opened: at, Closed: &at, Release: "v2"}
			if i%10 == 0 {
				inc.Release = "v1"
			}
			if err := tx.PutIncident(inc); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		s.t.Fatal(err)
	}
}

func TestTheIncidentsPageListsTheNewestFirstPageByPage(t *testing.T) {
	s := newTestService(t)
	s.past(2*incidentPageSize + 3)
	open := s.breach()
	var all []string
	pages := 0
	for next := "/incidents"; next != ""; pages++ {
		var ids []string
		ids, next = s.list(next)
		all = append(all, ids...)
	}
	var want []string
	for n := 2*incidentPageSize + 4; n > 0; n-- {
		want = append(want, fmt.Sprint("inc-", n))
	}
	if !slices.Equal(all, want) || pages != 3 || open != want[0] {
		t.Errorf("%d pages list %v", pages, all)
	}
	for path, want := range map[string]int{"/incidents?state=open": 1, "/incidents?state=closed": incidentPageSize, "/incidents?service=shop": incidentPageSize} {
		if ids, _ := s.list(path); len(ids) != want || path == "/incidents?state=open" && ids[0] != open {
			t.Errorf("%s lists %v", path, ids)
		}
	}
	for path, want := range map[string]int{"/incidents?state=odd": 400, "/incidents?text=" + strings.Repeat("x", 201): 400, "/incidents?what=1": 400, "/incidents?service=gone": 404, "/incidents?before=nothing": 400} {
		if w := s.browse(path, "ann"); w.Code != want {
			t.Errorf("%.40s answers %d, want %d", path, w.Code, want)
		}
	}
}

func TestASearchOfIncidentsFindsWhatTheListSaysAndSaysHowFarItWent(t *testing.T) {
	s := newTestService(t)
	s.past(searchedIncidents + 40)
	ids, next := s.list("/incidents?text=RELEASE%20V1")
	if len(ids) != 0 || next == "" {
		t.Errorf("what is not shown as one text was found: %v", ids)
	}
	if ids, next = s.list("/incidents?text=V1"); len(ids) != incidentPageSize || next == "" {
		t.Fatalf("found %v", ids)
	}
	if ids, next = s.list("/incidents?text=nowhere"); len(ids) != 0 || next != fmt.Sprintf("/incidents?before=inc-%d&text=nowhere", 41) {
		t.Fatalf("found %v, then %q", ids, next)
	}
	if ids, next = s.list(next); len(ids) != 0 || next != "" {
		t.Errorf("further back it found %v, then %q", ids, next)
	}
}

func TestThePlaybookPageSaysBoundsInPeoplesUnitsAndHoldsTheRules(t *testing.T) {
	page := newTestService(t).page("/playbook", "ann")
	for _, want := range []string{
		"above 1% over 15 min, with 100 requests or more", "above 1% over 2 min, with 13 requests or more", "below 0.1% over 1 h", "alpha</bdi>: 1% of traffic",
		"needs approval within 30 min", "3 steps in 1 h", "a person raises it", "alert: RollbackErrorRate",
	} {
		if !strings.Contains(page, want) {
			t.Errorf("the page does not say %q", want)
		}
	}
}

func TestAPreflightIsRunAndSignedAndARolloutStartedOnTheRolloutPage(t *testing.T) {
	b := newBench(t, token(t, "eve", config.Commander), token(t, "ann", config.Viewer))
	l := preflighted(t)
	for _, want := range []string{"Not ready to start.", "no image shop:v1", "Try: docker pull shop:v1", "2 sign-offs are missing", `action="/preflight/run"`, `action="/rollout/start"`} {
		if !strings.Contains(l.body, want) {
			t.Errorf("the page does not say %q", want)
		}
	}
	active := preflighted(t, func(r *view.RolloutView) { r.State = remediation.RolloutActive })
	if !strings.Contains(active.body, "Its rollout has started.") || strings.Contains(active.body, "Not ready to start") {
		t.Error("under an active rollout the page judges whether it could start:", active.body)
	}
	other := preflighted(t, func(r *view.RolloutView) { r.State, r.Release = remediation.RolloutActive, "v7" })
	if !strings.Contains(other.body, "It cannot start before the rollout of <bdi>v7</bdi> has ended.") {
		t.Error("the page does not say that another release has to end first:", other.body)
	}
	if n := strings.Count(l.body, `action="/preflight/sign"`); n != 2 {
		t.Errorf("%d items can be signed, want the unknown one and the open one", n)
	}
	s := &testService{Server: b.Server, t: t}
	b.service.rollouts = []view.RolloutView{{Rollout: remediation.Rollout{Service: "shop", State: remediation.RolloutNone}}}
	for path, form := range map[string]url.Values{
		"/preflight/run":  {"service": {"shop"}, "reason": {"v2 tonight"}},
		"/preflight/sign": {"service": {"shop"}, "item": {"people/load-test"}, "reason": {"passed at noon"}},
		"/rollout/start":  {"service": {"shop"}, "release": {"v7"}, "reason": {"all is signed"}},
	} {
		if w := s.send(path, "/rollout", "eve", form); w.Code != http.StatusSeeOther || !strings.HasPrefix(w.Header().Get("Location"), "/rollout?done=") {
			t.Errorf("%s answers %d: %s", path, w.Code, w.Body)
		}
		for _, less := range []string{"service", "release", "reason"} {
			if !form.Has(less) {
				continue
			}
			short := url.Values{"csrf": form["csrf"]}
			for k, v := range form {
				if k != less {
					short[k] = v
				}
			}
			if w := s.send(path, "/rollout", "eve", short); w.Code != http.StatusBadRequest {
				t.Errorf("%s without a %s answers %d", path, less, w.Code)
			}
		}
		form.Set("csrf", "wrong")
		if w := s.send(path, "/rollout", "eve", form); w.Code != http.StatusForbidden {
			t.Errorf("%s with a wrong token answers %d", path, w.Code)
		}
	}
	if w := s.send("/preflight/forget", "/rollout", "eve", url.Values{"service": {"shop"}, "reason": {"r"}}); w.Code != http.StatusNotFound {
		t.Error("an unknown verb answers", w.Code)
	}
	if len(b.service.changes) != 3 || !slices.ContainsFunc(b.service.changes, func(c string) bool { return strings.HasPrefix(c, "start shop v7 ") }) {
		t.Errorf("the engine was asked for %v", b.service.changes)
	}
}

// TestAnIncidentThatNeedsAPersonBeginsWithWhatAPersonDoes holds the order of the first
// screen: claim, runbook, dashboard, abort; then the question, whose first button is the
// one that loses nothing.
func TestAnIncidentThatNeedsAPersonBeginsWithWhatAPersonDoes(t *testing.T) {
	s := newTestService(t)
	s.rehearsed()
	id := s.breach()
	s.asks(id)
	for _, path := range []string{"/incidents/" + id, "/"} {
		page := s.page(path, "eve")
		at := 0
		for _, next := range []string{
			`id="do-claim"`, `href="https://wiki.example.com/shop/rollback"`, `href="https://grafana.example.com/d/shop"`, `id="do-abort-0"`, `id="ask-` + id, "Lost", "can hold",
			"1 min 35 s", "a snapshot of 1.2 GiB was taken in /var/lib/backout/snapshots", "error_rate</bdi> now", "3.4%", "<button>Deny", `<button class="no yes"`, "What broke",
		} {
			if path == "/" && at == 0 && !strings.HasPrefix(next, `id="ask`) {
				continue // on the page of the incident
			}
			i := strings.Index(page[at:], next)
			if i < 0 {
				t.Fatalf("%s: %q does not come after what it must follow", path, next)
			}
			at += i
		}
	}
}
