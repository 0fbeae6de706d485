package receiver

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/url"
	"path/filepath"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/getkin/kin-openapi/openapi3"

	"github.com/locotoki/backout/docs"
	"github.com/locotoki/backout/receiver/config"
	"github.com/locotoki/backout/receiver/notification"
	"github.com/locotoki/backout/remediation"
	"github.com/locotoki/backout/remediation/audit"
	"github.com/locotoki/backout/remediation/view"
)

// The router's own list and the document have the same addresses: none is added apart from
// operations.
func TestEveryRouteIsDescribed(t *testing.T) {
	var doc struct {
		Paths map[string]map[string]json.RawMessage
	}
	if err := json.Unmarshal([]byte(docs.OpenAPI), &doc); err != nil {
		t.Fatal(err)
	}
	var have, said []string
	for _, r := range newBench(t).echo.Routes() {
		have = append(have, r.Method+" "+regexp.MustCompile(`:(\w+)`).ReplaceAllString(r.Path, "{$1}"))
	}
	for path, methods := range doc.Paths {
		for method := range methods {
			if method != "servers" && !strings.HasPrefix(path, "/status") { // of the other listener
				said = append(said, strings.ToUpper(method)+" "+path)
			}
		}
	}
	slices.Sort(have)
	slices.Sort(said)
	if !slices.Equal(have, said) {
		t.Errorf("the server has\n%s\nand docs/reference/openapi.json\n%s", strings.Join(have, "\n"), strings.Join(said, "\n"))
	}
}

func TestTheOpenAPIDocumentIsValidAndServed(t *testing.T) {
	doc, err := openapi3.NewLoader().LoadFromData([]byte(docs.OpenAPI))
	if err == nil {
		err = doc.Validate(t.Context())
	}
	if err != nil {
		t.Error(err)
	}
	b := newBench(t, token(t, "ann", config.Viewer))
	w := b.do(as(request("GET", "/api/v1/openapi.json", ""), "ann"))
	if w.Code != http.StatusOK || w.Body.String() != docs.OpenAPI {
		t.Errorf("answers %d %.200s", w.Code, w.Body)
	}
}

// fill puts something into what the engine answers.
func (b *bench) fill() {
	now := time.Date(2026, 11, 22, 3, 0, 0, 0, time.UTC)
	inc := view.NonNil(view.IncidentView{ID: "inc-1", Service: "a", State: remediation.Waiting, Reason: remediation.HoldApproval, Opened: now})
	b.service.incidents = []view.IncidentView{inc}
	b.service.entries = []audit.Entry{{Seq: 1, Time: now, Kind: audit.KindHeld, Actor: "engine", Detail: map[string]any{}, Hash: audit.ZeroHash, Prev: audit.ZeroHash}}
	b.service.overview = view.Overview{
		Time: now, Mode: remediation.Act, Incidents: b.service.incidents, Recent: []view.IncidentView{}, Freezes: []remediation.Freeze{},
		Services: []view.ServiceNow{}, Needed: []view.Needed{{Service: "a", Reason: "approval", Incident: "inc-1"}},
	}
	b.service.plot = view.Plot{Points: []remediation.Point{{Time: now, Value: 1}}, Marks: []view.Mark{{Time: now, Kind: audit.KindOpened}}}
	b.service.public = view.PublicPage{Components: []view.PublicPart{{Name: "Shop", Status: remediation.Operational}}}
}

// bodyOf is the smallest JSON that a type of request takes: what is required.
func bodyOf(t *testing.T, body reflect.Type) string {
	if body == reflect.TypeFor[notification.Body]() {
		return payload(t, "am034-single-firing-1.json")
	}
	values := map[string]string{}
	for i := range body.NumField() {
		if name, options, _ := strings.Cut(body.Field(i).Tag.Get("json"), ","); options == "" {
			values[name] = map[string]string{"step": "1-flag_off", "item": "tests", "reason": "why"}[name]
		}
	}
	text, err := json.Marshal(values)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// ask is a request to an operation that succeeds.
func (b *bench) ask(t *testing.T, o Operation) *http.Request {
	path := strings.NewReplacer("{id}", "inc-1", "{name}", "p1-error").Replace(o.Path)
	form := url.Values{"reason": {"why"}, "service": {"a"}, "csrf": {b.csrf.token("eve", b.now())}}
	switch o.Path {
	case "/incidents/{id}/{verb}":
		path = "/incidents/inc-1/claim"
		form.Del("service")
	case "/rollout/{verb}":
		path = "/rollout/hold"
	case "/preflight/{verb}":
		path = "/preflight/run"
	case "/signals/{verb}":
		path = "/signals/raise"
		form.Set("signal", "p1-error")
	case "/playbook/backtest":
		form.Del("reason")
	case "/static/{file}":
		for name := range b.pages.Files {
			path = "/static/" + name
		}
	}
	body := ""
	switch {
	case o.Form:
		body = form.Encode()
	case o.Body != nil:
		body = bodyOf(t, o.Body)
	}
	for _, q := range o.Query {
		if q.Required {
			path += "?" + q.Name + "=why"
		}
	}
	r := request(o.Method, path, body)
	if o.Form {
		r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	}
	if o.Page {
		r.Header.Set("Accept", "text/html")
	}
	return as(r, "eve")
}

// Each operation gives each of the answers that the document has for it; that it gives no
// other is checked for every exchange of every test, by byContract.
func TestEveryOperationGivesEachAnswerThatIsDescribed(t *testing.T) {
	for _, o := range Operations() {
		if o.Group == "slack" { // its requests are signed: slack_test.go
			continue
		}
		for _, status := range append([]int{max(o.Status, http.StatusOK)}, o.Refusals...) {
			t.Run(fmt.Sprintf("%s %s %d", o.Method, o.Path, status), func(t *testing.T) {
				b := newBench(t, token(t, "eve", config.Commander), token(t, "ann", config.Viewer), token(t, "am", config.Alertmanager))
				b.fill()
				if w := b.get(t, o, status); w.Code != status {
					t.Errorf("answers %d %.500s", w.Code, w.Body)
				}
			})
		}
	}
}

// get makes an operation answer with a status.
func (b *bench) get(t *testing.T, o Operation, status int) *httptest.ResponseRecorder {
	r := b.ask(t, o)
	replaced := func(path, body string) *http.Request {
		n := httptest.NewRequest(r.Method, path, strings.NewReader(body))
		n.Host, n.Header = r.Host, r.Header
		return n
	}
	switch status {
	case http.StatusBadRequest:
		switch {
		case o.Form:
			r = replaced(r.URL.String(), "csrf="+b.csrf.token("eve", b.now()))
		case o.Body != nil:
			r = replaced(r.URL.String(), `{"undescribed":1}`)
		default:
			r = replaced(r.URL.Path+"?undescribed=1", "")
		}
	case http.StatusUnauthorized:
		r.Header.Del("Authorization")
	case http.StatusForbidden:
		other := "ann"
		if o.Role == config.Viewer {
			other = "am"
		}
		as(r, other)
	case http.StatusNotFound:
		b.service.err = &remediation.RefusedError{Refusal: remediation.Missing, Message: "there is none"}
		if strings.Contains(o.Path, "{file}") {
			r = replaced("/static/none", "")
		}
		b.service.public = view.PublicPage{}
	case http.StatusConflict:
		b.service.err = &remediation.RefusedError{Refusal: remediation.Conflict, Message: "not now"}
	case http.StatusRequestEntityTooLarge:
		r = replaced(r.URL.String(), `{"reason":"`+strings.Repeat("x", maxBody)+`"}`)
	case http.StatusUnsupportedMediaType:
		r.Header.Set("Content-Type", "text/plain")
	case http.StatusInternalServerError:
		b.service.err, b.reloadErr = errors.New("the disk is full"), errors.New("the playbook is wrong")
		b.service.accept = func(context.Context) error { panic("a fault of ours") }
	case http.StatusServiceUnavailable:
		b.service.err = remediation.StoreAway(errors.New("the disk is full"))
		b.service.accept = func(context.Context) error { return b.service.err }
		b.streams.Store(eventsMost)
	}
	if o.Public {
		if status == http.StatusNotFound {
			b.service.err = nil
		}
		return visit(t, public(t, b.service, time.Now), o.Method, o.Path)
	}
	if o.Media == "text/event-stream" && status == http.StatusOK {
		b.end.Do(func() { close(b.ending) }) // else it has no end
	}
	w := b.do(r)
	if status == http.StatusBadRequest && o.Body == nil && !o.Form && w.Code == status {
		b.wantParameters(t, o, w.Body.String())
	}
	return w
}

var knownParameters = regexp.MustCompile(`known: \[([^\]]*)\]`)

// wantParameters compares the parameters that a refusal lists with those that are described.
func (b *bench) wantParameters(t *testing.T, o Operation, refusal string) {
	t.Helper()
	m := knownParameters.FindStringSubmatch(refusal)
	if m == nil {
		t.Fatalf("the refusal lists no parameters: %s", refusal)
	}
	have := strings.FieldsFunc(m[1], func(r rune) bool { return r == ',' || r == ' ' })
	var said []string
	for _, q := range o.Query {
		said = append(said, q.Name)
	}
	slices.Sort(have)
	slices.Sort(said)
	if !slices.Equal(have, said) {
		t.Errorf("takes the parameters %v, and the document has %v", have, said)
	}
}

// An exchange that the document does not describe is seen.
func TestTheContractSeesWhatIsNotDescribed(t *testing.T) {
	for name, tc := range map[string]struct {
		method, path, body string
		status             int
		answer             string
	}{
		"a field":               {"GET", "/api/v1/audit/head", "", 200, `{"seq":1,"hash":"a","more":1}`},
		"a field that lacks":    {"GET", "/api/v1/audit/head", "", 200, `{"seq":1}`},
		"another type":          {"GET", "/api/v1/audit/head", "", 200, `{"seq":"1","hash":"a"}`},
		"null for a list":       {"GET", "/api/v1/freeze", "", 200, `{"freezes":null}`},
		"a value":               {"GET", "/api/v1/audit", "", 200, `{"entries":[{"seq":1,"time":"2026-11-22T03:00:00Z","kind":"new","actor":"a","service":"","incident":"","step":"","action":"","detail":{},"prev":"","hash":""}],"next":1}`},
		"a status":              {"GET", "/api/v1/audit/head", "", 409, `{"error":"no"}`},
		"an error's field":      {"GET", "/api/v1/audit/head", "", 400, `{"error":"no","code":1}`},
		"a route":               {"GET", "/api/v2/new", "", 200, `{}`},
		"a route's refusal":     {"GET", "/api/v2/new", "", 400, `{"error":"no"}`},
		"a method":              {"PATCH", "/api/v1/freeze", "{}", 200, `{}`},
		"a key of the request":  {"POST", "/api/v1/rehearse", `{"plan":"ladder","more":1}`, 200, `{"service":"","playbook":"","running":false,"left":0,"plans":[],"by":"","started":null,"rehearsals":[]}`},
		"what a request lacks":  {"POST", "/api/v1/rollout/hold", `{}`, 400, `{"eror":"no"}`},
		"a media type":          {"GET", "/metrics", "", 200, `{}`},
		"an accepted parameter": {"GET", "/api/v1/incidents?status=odd", "", 200, `{"incidents":[]}`},
	} {
		w := httptest.NewRecorder()
		w.Header().Set("Content-Type", "application/json; charset=utf-8")
		e := &exchange{ResponseWriter: w}
		e.WriteHeader(tc.status)
		if _, err := e.Write([]byte(tc.answer)); err != nil {
			t.Fatal(err)
		}
		if undescribed(t, request(tc.method, tc.path, tc.body), e) == nil {
			t.Errorf("%s passes", name)
		}
	}
}

// What Alertmanager of each generation sends is described.
func TestTheWebhooksBodyIsDescribed(t *testing.T) {
	c, err := described()
	if err != nil {
		t.Fatal(err)
	}
	files, err := filepath.Glob("../testdata/payloads/am*-*.json")
	if err != nil || len(files) < 10 {
		t.Fatal(files, err)
	}
	for _, name := range files {
		if name = filepath.Base(name); strings.Contains(name, "custom") { // which is refused
			continue
		}
		if err := c.body(c.Paths["/api/v1/webhook/alertmanager"]["POST"].RequestBody.Content, "application/json", []byte(payload(t, name))); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}
