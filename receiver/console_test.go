package receiver

import (
	"net/http"
	"net/http/httptest"
	"net/url"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/net/html"

	"github.com/locotoki/backout/receiver/golden"
	"github.com/locotoki/backout/remediation/audit"
)

// browse asks for a page as a browser does.
func (s *testService) browse(path, name string) *httptest.ResponseRecorder {
	r := httptest.NewRequest(http.MethodGet, path, nil)
	r.Host = "127.0.0.1:9099"
	r.Header.Set("Accept", "text/html,application/xhtml+xml")
	if name != "" {
		r.SetBasicAuth(name, name+"-secret")
	}
	w := httptest.NewRecorder()
	s.ServeHTTP(w, r)
	return w
}

var csrfField = regexp.MustCompile(`name="csrf" value="([^"]+)"`)

// page is a page that is there, as that user sees it, without the template's line breaks.
func (s *testService) page(path, name string) string {
	s.t.Helper()
	w := s.browse(path, name)
	if w.Code != http.StatusOK {
		s.t.Fatalf("GET %s as %s answers %d: %s", path, name, w.Code, w.Body)
	}
	return unbroken(w.Body.String())
}

var brokenLine = regexp.MustCompile(`(?s)<pre.*?</pre>|\s*\n\s*`)

// unbroken is a page without the line breaks of its template.
func unbroken(page string) string {
	marked := brokenLine.ReplaceAllStringFunc(page, func(found string) string {
		if strings.HasPrefix(found, "<pre") {
			return found
		}
		return "\x00"
	})
	return strings.NewReplacer(">\x00<", "><", "\x00", " ").Replace(marked)
}

// send posts a form as the browser does that shows path.
func (s *testService) send(path, from, name string, form url.Values, edit ...func(*http.Request)) *httptest.ResponseRecorder {
	s.t.Helper()
	if !form.Has("csrf") {
		m := csrfField.FindStringSubmatch(s.page(from, name))
		if m == nil {
			s.t.Fatalf("%s has no form for %s", from, name)
		}
		form.Set("csrf", m[1])
	}
	r := httptest.NewRequest(http.MethodPost, path, strings.NewReader(form.Encode()))
	r.Host = "127.0.0.1:9099"
	r.Header.Set("Accept", "text/html")
	r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	r.Header.Set("Origin", "http://127.0.0.1:9099")
	r.Header.Set("Sec-Fetch-Site", "same-origin")
	r.SetBasicAuth(name, name+"-secret")
	for _, e := range edit {
		e(r)
	}
	w := httptest.NewRecorder()
	s.ServeHTTP(w, r)
	return w
}

// goldenPage compares a page's structure, names and values with the file of that name.
// Wording, and what changes from run to run, is left out: other tests look for sentences.
func goldenPage(t *testing.T, name, got string) {
	t.Helper()
	got = csrfField.ReplaceAllString(got, `name="csrf" value="TOKEN"`)
	got = regexp.MustCompile(`/static/([a-z]+)-[0-9a-f]{12}\.`).ReplaceAllString(got, "/static/$1-HASH.")
	got = regexp.MustCompile(`[0-9a-f]{64}`).ReplaceAllString(got, "HASH")
	got = regexp.MustCompile(`data-stamp="[0-9a-f]+"`).ReplaceAllString(got, `data-stamp="STAMP"`)
	got = regexp.MustCompile(`(hash|HASH|:)( <code>|)[0-9a-f]{12}`).ReplaceAllString(got, "${1}${2}HASH")
	golden.Compare(t, name, []byte(structureOf(got)))
}

var spoken = regexp.MustCompile(`\b(aria-label|title|alt|placeholder|data-confirm)="[^"]*"`)

// inline are the tags that begin no line of a golden file.
var inline = []string{"a", "bdi", "strong", "small", "span", "code", "time", "br", "q"}

// structureOf is a page's tags and values, however the template breaks its lines. An
// ellipsis stands for wording. Words with a digit are values and stay, as do names, code
// and times.
func structureOf(page string) string {
	var b strings.Builder
	verbatim := 0
	for z := html.NewTokenizer(strings.NewReader(page)); ; {
		kind := z.Next()
		token := strings.Join(strings.Fields(string(z.Raw())), " ")
		switch {
		case kind == html.ErrorToken:
			return b.String() + "\n"
		case kind == html.TextToken && verbatim == 0:
			token = valuesOf(token)
		default:
			token = spoken.ReplaceAllString(token, `$1="…"`)
			raw, _ := z.TagName()
			name := string(raw)
			switch name {
			case "bdi", "code", "time", "script", "style":
				if kind == html.StartTagToken {
					verbatim++
				} else {
					verbatim--
				}
			}
			if (kind == html.StartTagToken || kind == html.SelfClosingTagToken) && b.Len() > 0 && !slices.Contains(inline, name) {
				b.WriteByte('\n')
			}
		}
		b.WriteString(token)
	}
}

func valuesOf(text string) string {
	kept := strings.Fields(text)
	for i, w := range kept {
		if !strings.ContainsAny(w, "0123456789") {
			kept[i] = "…"
		}
	}
	return strings.Join(slices.Compact(kept), " ")
}

func TestThePagesAreAsTheGoldenFilesSay(t *testing.T) {
	s := newTestService(t)
	goldenPage(t, "now-empty.html", s.page("/", "eve"))
	id := s.breach()
	s.pass(90 * time.Second)
	goldenPage(t, "now-settling.html", s.page("/", "eve"))
	goldenPage(t, "now-viewer.html", s.page("/", "ann"))
	s.asks(id)
	goldenPage(t, "now-asking.html", s.page("/", "eve"))
	goldenPage(t, "incident-asking.html", s.page("/incidents/"+id, "eve"))
	goldenPage(t, "rollout.html", s.page("/rollout", "ann"))
	goldenPage(t, "audit.html", s.page("/audit", "ann"))
	goldenPage(t, "audit-nothing.html", s.page("/audit?text=nowhere-to-be-found", "ann"))
	goldenPage(t, "error-missing.html", s.browse("/incidents/inc-99", "ann").Body.String())
}

func TestACommanderApprovesDeniesClaimsReleasesClosesAndRestoresOnTheIncidentsPage(t *testing.T) {
	s := newTestService(t)
	id := s.breach()
	at := "/incidents/" + id
	change := func(verb string, form url.Values, words string) {
		t.Helper()
		w := s.send(at+"/"+verb, at, "eve", form)
		if w.Code != http.StatusSeeOther || !strings.HasPrefix(w.Header().Get("Location"), at+"?done=") {
			t.Fatalf("%s answers %d to %q: %s", verb, w.Code, w.Header().Get("Location"), w.Body)
		}
		told := strings.TrimSuffix(w.Header().Get("Location"), "#result")
		page := s.page(told, "eve")
		if !strings.Contains(page, "eve "+words) || !strings.Contains(page, "<q>"+form.Get("reason")+"</q>") {
			t.Errorf("the page after %s does not tell %q with its reason", verb, words)
		}
		if strings.Contains(s.page(told, "ann"), "eve "+words) {
			t.Errorf("somebody else is told of %s as their own change", verb)
		}
	}
	change("claim", url.Values{"reason": {"I look at it"}}, "claimed "+id+": no step runs until it is released")
	change("release", url.Values{"reason": {"nothing found"}}, "released "+id)
	s.asks(id)
	change("deny", url.Values{"reason": {"the schema stays"}, "step": {"4-schema_rollback"}}, "denied 4-schema_rollback")
	s.reads(0, 0)
	change("close", url.Values{"reason": {"mended"}}, "closed "+id)
	change("restore", url.Values{"reason": {"v3 is out"}, "force": {"yes"}}, "started to restore")

	entries, err := s.engine.Entries(t.Context(), audit.Filter{Incident: id})
	if err != nil {
		t.Fatal(err)
	}
	why := map[audit.Kind]string{}
	for _, e := range entries {
		if e.Actor == "eve" {
			why[e.Kind], _ = e.Detail["reason"].(string)
		}
	}
	for kind, want := range map[audit.Kind]string{
		"claimed": "I look at it", "released": "nothing found", "denied": "the schema stays", "closed": "mended",
	} {
		if why[kind] != want {
			t.Errorf("the audit log holds %q as eve's reason for %s, want %q", why[kind], kind, want)
		}
	}
}

func TestAClaimDuringAStepSaysThatTheStepEndsFirst(t *testing.T) {
	s := newTestService(t)
	page := ""
	s.targets["flag_off"] = &serviceTarget{during: func() {
		w := s.send("/incidents/inc-1/claim", "/incidents/inc-1", "eve", url.Values{"reason": {"I look at it"}})
		page = s.page(strings.TrimSuffix(w.Header().Get("Location"), "#result"), "eve")
	}}
	s.breach()
	if want := "eve claimed inc-1: the running step ends first, then no step runs until it is released"; !strings.Contains(page, want) {
		t.Errorf("the page does not hold %q:\n%s", want, page)
	}
}

var questionField = regexp.MustCompile(`name="question" value="([^"]+)"`)

func TestAnApprovalOnTheNowPageLetsTheStepRun(t *testing.T) {
	s := newTestService(t)
	id := s.breach()
	s.asks(id)
	question := questionField.FindStringSubmatch(s.page("/", "eve"))
	if question == nil {
		t.Fatal("the form does not name the request that it answers")
	}
	form := url.Values{"reason": {"restored on staging"}, "step": {"4-schema_rollback"}, "back": {"/"}, "question": {"2020-01-02T03:04:05Z"}}
	if w := s.send("/incidents/"+id+"/approve", "/", "eve", form); w.Code != http.StatusConflict || !strings.Contains(w.Body.String(), "answers an earlier request") {
		t.Error("from a page of before:", w.Code, w.Body)
	}
	form.Set("question", question[1])
	w := s.send("/incidents/"+id+"/approve", "/", "eve", form)
	if w.Code != http.StatusSeeOther || !strings.HasPrefix(w.Header().Get("Location"), "/?done=") {
		t.Fatal(w.Code, w.Header(), w.Body)
	}
	s.pass(15 * time.Second)
	if !s.targets["schema_rollback"].changed {
		t.Error("the approved step did not run")
	}
}

func TestAFreezeAndItsThawComeFromTheNowPage(t *testing.T) {
	s := newTestService(t)
	w := s.send("/freeze", "/", "eve", url.Values{"service": {"shop"}, "scope": {"all"}, "for": {"1h"}, "reason": {"<b>fire</b> drill"}})
	if w.Code != http.StatusSeeOther {
		t.Fatal(w.Code, w.Body)
	}
	page := s.page(strings.TrimSuffix(w.Header().Get("Location"), "#result"), "eve")
	for _, want := range []string{"eve froze all steps of shop until 22 Nov 04:00:00 UTC", "&lt;b&gt;fire&lt;/b&gt; drill", "Frozen: <bdi>shop</bdi>", `action="/thaw"`} {
		if !strings.Contains(page, want) {
			t.Errorf("the page does not hold %q", want)
		}
	}
	w = s.send("/freeze", "/", "eve", url.Values{"service": {"shop"}, "scope": {"all"}, "for": {"10m"}, "reason": {"shorter"}})
	page = s.page(strings.TrimSuffix(w.Header().Get("Location"), "#result"), "eve")
	if want := "eve left the longer freeze by eve in force: all steps of shop until 22 Nov 04:00:00 UTC"; !strings.Contains(page, want) {
		t.Errorf("a shorter freeze: the page does not hold %q", want)
	}
	if w = s.send("/thaw", "/", "eve", url.Values{"service": {"shop"}, "reason": {"over"}}); w.Code != http.StatusSeeOther {
		t.Fatal(w.Code, w.Body)
	}
	if strings.Contains(s.page("/", "eve"), "Frozen:") {
		t.Error("the page still shows the freeze")
	}
}

func TestAFormThatNamesNoServiceFreezesNothing(t *testing.T) {
	s := newTestService(t)
	w := s.send("/freeze", "/", "eve", url.Values{"reason": {"r"}})
	if w.Code != http.StatusBadRequest {
		t.Error(w.Code, w.Body)
	}
	if w = s.send("/thaw", "/", "eve", url.Values{"reason": {"r"}}); w.Code != http.StatusBadRequest {
		t.Error(w.Code, w.Body)
	}
	if list, err := s.engine.Freezes(t.Context()); err != nil || len(list) != 0 {
		t.Error(list, err)
	}
}

func TestARefusedChangeSaysSoAndKeepsTheWords(t *testing.T) {
	s := newTestService(t)
	id := s.breach()
	w := s.send("/incidents/"+id+"/approve", "/", "eve", url.Values{"reason": {"long thoughts"}, "step": {"2-flag_off"}, "back": {"/incidents/" + id}})
	body := w.Body.String()
	for _, want := range []string{"Nothing was changed", "is not waiting for approval", "<q>long thoughts</q>", `href="/incidents/` + id + `"`} {
		if w.Code != http.StatusConflict || !strings.Contains(body, want) {
			t.Errorf("%d without %q: %s", w.Code, want, body)
		}
	}
	if w = s.send("/incidents/"+id+"/claim", "/", "eve", url.Values{"reason": {" "}}); w.Code != http.StatusBadRequest {
		t.Error("a change without a reason answers", w.Code)
	}
}
