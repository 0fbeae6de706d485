package statuspage

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/locotoki/backout/remediation"
)

const (
	pageID = "kctbh9vrtdwd"
	apiKey = "89a229ce-1a8d-4a8f-9f5e-hush"
)

// fake is Statuspage's API as documented. What it does not know fails the test.
type fake struct {
	t   *testing.T
	url string

	mu         sync.Mutex
	now        time.Time
	last       time.Time // of the last request
	components []component
	incidents  []*fakeIncident
	requests   []string // method and path
	// answers, by the number of the request from now on (the first is 1): what to
	// do instead of, or after, what was asked.
	answers map[int]answer
	slow    int // requests that came too soon
}

// fakeIncident is one as the API answers it.
type fakeIncident struct {
	ID       string                       `json:"id"`
	Name     string                       `json:"name"`
	Status   string                       `json:"status"`
	Impact   string                       `json:"impact"`
	Metadata map[string]map[string]string `json:"metadata"`
	Updates  []fakeUpdate                 `json:"incident_updates"`
	notified []bool
}

type fakeUpdate struct {
	Status string `json:"status"`
	Body   string `json:"body"`
}

// answer is how a request goes wrong.
type answer struct {
	code       int // 0: the connection is cut
	text       string
	retryAfter string
	location   string
	// effect: what was asked is done nevertheless.
	effect bool
	// first, where set, happens before the request is looked at.
	first func(f *fake)
}

func newFake(t *testing.T, components ...string) *fake {
	t.Helper()
	f := &fake{t: t, now: time.Date(2026, 11, 22, 3, 0, 0, 0, time.UTC), answers: map[int]answer{}}
	for i, name := range components {
		f.components = append(f.components, component{ID: fmt.Sprintf("cmp%d", i+1), Name: name, Status: remediation.Operational})
	}
	s := httptest.NewServer(f)
	t.Cleanup(s.Close)
	f.url = s.URL
	return f
}

// client is a page that lives by the fake's clock.
func (f *fake) client(transport http.RoundTripper, log *bytes.Buffer) *Page {
	f.t.Helper()
	p, err := New(Options{
		URL: f.url, Page: pageID, Key: apiKey, Transport: transport, Now: f.clock, Wait: f.wait, Logger: logger(log),
	})
	if err != nil {
		f.t.Fatal(err)
	}
	return p
}

func (f *fake) clock() time.Time {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.now
}

func (f *fake) pass(d time.Duration) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.now = f.now.Add(d)
}

// then says how the nth request from now on goes wrong.
func (f *fake) then(n int, a answer) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.answers[len(f.requests)+n] = a
}

func (f *fake) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.requests = append(f.requests, r.Method+" "+strings.TrimPrefix(r.URL.Path, "/v1/pages/"+pageID))
	a, odd := f.answers[len(f.requests)]
	if a.first != nil {
		a.first(f)
		odd = false
	}
	if !f.last.IsZero() && f.now.Sub(f.last) < time.Second {
		f.slow++
		w.Header().Set("Retry-After", "1")
		say(w, 420, map[string]string{"error": "Too many requests"})
		return
	}
	f.last = f.now
	code, body := http.StatusOK, any(nil)
	if !odd || a.effect {
		code, body = f.serve(r)
	}
	switch {
	case !odd:
		say(w, code, body)
	case a.code == 0:
		conn, _, err := w.(http.Hijacker).Hijack()
		if err != nil {
			f.t.Error(err)
			return
		}
		conn.Close()
	default:
		if a.retryAfter != "" {
			w.Header().Set("Retry-After", a.retryAfter)
		}
		if a.location != "" {
			w.Header().Set("Location", a.location)
		}
		w.WriteHeader(a.code)
		if _, err := io.WriteString(w, a.text); err != nil {
			f.t.Error(err)
		}
	}
}

func say(w http.ResponseWriter, code int, body any) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(code)
	_ = json.NewEncoder(w).Encode(body) // a client that is gone has no use for it
}

type fault struct {
	Error any `json:"error"`
}

func (f *fake) serve(r *http.Request) (int, any) {
	if r.Header.Get("Authorization") != "OAuth "+apiKey {
		return http.StatusUnauthorized, fault{"Could not authenticate"}
	}
	path, ok := strings.CutPrefix(r.URL.Path, "/v1/pages/"+pageID)
	if !ok {
		return http.StatusNotFound, fault{"Not found"}
	}
	id := path[strings.LastIndex(path, "/")+1:]
	switch route := r.Method + " " + path; {
	case route == "GET /components":
		return f.list(r, len(f.components), func(i int) any { return f.components[i] })
	case route == "GET /incidents/unresolved":
		open := []*fakeIncident{}
		for _, in := range f.incidents {
			if in.Status != "resolved" {
				open = append(open, in)
			}
		}
		return f.list(r, len(open), func(i int) any { return open[i] })
	case route == "POST /incidents":
		in := &fakeIncident{ID: fmt.Sprintf("inc%d", len(f.incidents)+1)}
		if code, body := f.write(r, in, "name"); code != 0 {
			return code, body
		}
		f.incidents = append([]*fakeIncident{in}, f.incidents...)
		return http.StatusCreated, in
	case strings.HasPrefix(route, "PATCH /incidents/"):
		for _, in := range f.incidents {
			if in.ID == id {
				if in.Status == "resolved" {
					return http.StatusUnprocessableEntity, fault{[]string{"it is resolved"}}
				}
				if code, body := f.write(r, in); code != 0 {
					return code, body
				}
				return http.StatusOK, in
			}
		}
		return http.StatusNotFound, fault{"Not found"}
	case strings.HasPrefix(route, "PATCH /components/"):
		var in struct {
			Component struct {
				Status remediation.ComponentStatus `json:"status"`
			} `json:"component"`
		}
		if !f.decode(r, &in) || !f.set(id, in.Component.Status) {
			return http.StatusUnprocessableEntity, fault{"bad component"}
		}
		return http.StatusOK, map[string]string{"id": id}
	}
	f.t.Errorf("no such address: %s %s", r.Method, r.URL)
	return http.StatusNotFound, fault{"Not found"}
}

// list answers one page of a list.
func (f *fake) list(r *http.Request, n int, at func(int) any) (int, any) {
	q := r.URL.Query()
	page, err1 := strconv.Atoi(q.Get("page"))
	per, err2 := strconv.Atoi(q.Get("per_page"))
	if err1 != nil || err2 != nil || page < 1 || per < 1 || per > 100 || len(q) != 2 {
		f.t.Errorf("the list is asked for with %q", r.URL.RawQuery)
	}
	out := []any{}
	for i := (page - 1) * per; i < min(page*per, n); i++ {
		out = append(out, at(i))
	}
	return http.StatusOK, out
}

// decode refuses what the API does not document.
func (f *fake) decode(r *http.Request, into any) bool {
	if got := r.Header.Get("Content-Type"); got != "application/json" {
		f.t.Errorf("%s %s has the content type %q", r.Method, r.URL.Path, got)
	}
	dec := json.NewDecoder(r.Body)
	dec.DisallowUnknownFields()
	if err := dec.Decode(into); err != nil {
		f.t.Errorf("%s %s: %v", r.Method, r.URL.Path, err)
		return false
	}
	return true
}

// write takes an incident's body over; need are the keys that it must have
// besides those that backout always sends.
func (f *fake) write(r *http.Request, into *fakeIncident, need ...string) (int, any) {
	var in struct {
		Incident struct {
			Name       *string                                `json:"name"`
			Status     string                                 `json:"status"`
			Body       string                                 `json:"body"`
			IDs        []string                               `json:"component_ids"`
			Components map[string]remediation.ComponentStatus `json:"components"`
			Impact     string                                 `json:"impact_override"`
			Notify     *bool                                  `json:"deliver_notifications"`
			Metadata   map[string]map[string]string           `json:"metadata"` // objects only
		} `json:"incident"`
	}
	if !f.decode(r, &in) {
		return http.StatusBadRequest, fault{"bad request"}
	}
	x := in.Incident
	if (x.Name != nil) != slices.Contains(need, "name") || x.Notify == nil || x.Body == "" || len(x.Metadata) != 1 {
		f.t.Errorf("%s %s: %+v", r.Method, r.URL.Path, x)
	}
	if !slices.Contains([]string{"investigating", "identified", "monitoring", "resolved"}, x.Status) ||
		!slices.Contains([]string{"none", "minor", "major", "critical"}, x.Impact) {
		return http.StatusUnprocessableEntity, fault{[]string{"status or impact_override is unknown"}}
	}
	if x.Name != nil {
		if n := len([]rune(*x.Name)); n == 0 || n > 255 {
			return http.StatusUnprocessableEntity, fault{[]string{"name is too long"}}
		}
		into.Name = *x.Name
	}
	for id := range x.Components {
		if !slices.Contains(x.IDs, id) || f.component(id) == nil {
			return http.StatusUnprocessableEntity, fault{[]string{"component " + id + " is unknown"}}
		}
	}
	for id, status := range x.Components {
		f.set(id, status)
	}
	into.Status, into.Impact, into.Metadata = x.Status, x.Impact, x.Metadata
	into.Updates = append(into.Updates, fakeUpdate{x.Status, x.Body})
	into.notified = append(into.notified, *x.Notify)
	return 0, nil
}

func (f *fake) component(id string) *component {
	for i := range f.components {
		if f.components[i].ID == id {
			return &f.components[i]
		}
	}
	return nil
}

func (f *fake) set(id string, status remediation.ComponentStatus) bool {
	c := f.component(id)
	if c == nil || !slices.Contains(remediation.ComponentStatuses(), status) {
		return false
	}
	c.Status = status
	return true
}
