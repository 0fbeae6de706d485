package receiver

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/locotoki/backout/receiver/config"
	"github.com/locotoki/backout/remediation"
	"github.com/locotoki/backout/remediation/audit"
	"github.com/locotoki/backout/remediation/view"
)

func TestIncidentsAreListedInPages(t *testing.T) {
	b := newBench(t)
	wantOK(t, b.do(request("GET", "/api/v1/incidents", "")), `{"incidents":[]}`)
	for i := range 5 {
		b.service.incidents = append(b.service.incidents, view.IncidentView{ID: fmt.Sprintf("inc-%d", i+1)})
	}
	page := func(q string) (ids []string, next string) {
		t.Helper()
		w := b.do(request("GET", "/api/v1/incidents"+q, ""))
		var got struct {
			Incidents []view.IncidentView
			Next      string
		}
		if err := json.Unmarshal(w.Body.Bytes(), &got); err != nil || w.Code != 200 {
			t.Fatalf("%d %s: %v", w.Code, w.Body, err)
		}
		for _, inc := range got.Incidents {
			ids = append(ids, inc.ID)
		}
		return ids, got.Next
	}
	if ids, next := page("?limit=2"); fmt.Sprint(ids) != "[inc-1 inc-2]" || next != "inc-2" {
		t.Errorf("first page %v, next %q", ids, next)
	}
	if ids, next := page("?limit=5"); len(ids) != 5 || next != "" {
		t.Errorf("all of them: %v, next %q", ids, next)
	}
	page("?status=open&service=s&after=inc-2")
	if f := b.service.incidentFilter; !f.Open || f.Closed || f.Service != "s" || f.After != "inc-2" || f.Limit != 101 {
		t.Errorf("asked for %+v", f)
	}
	page("?limit=5000")
	if f := b.service.incidentFilter; f.Limit != 1001 {
		t.Errorf("asked for %+v", f)
	}
	page("?status=closed&limit=99999999999999999999")
	if f := b.service.incidentFilter; f.Open || !f.Closed || f.Limit != 1001 {
		t.Errorf("asked for %+v", f)
	}
}

func TestAnIncidentIsShownWithoutNullLists(t *testing.T) {
	b := newBench(t)
	b.service.incidents = []view.IncidentView{{ID: "inc-1", State: remediation.Confirming}}
	w := b.do(request("GET", "/api/v1/incidents/inc-1", ""))
	for _, part := range []string{`"id":"inc-1"`, `"state":"confirming"`, `"triggers":[]`, `"steps":[]`, `"next":null`} {
		if !strings.Contains(w.Body.String(), part) {
			t.Errorf("%s lacks %s", w.Body, part)
		}
	}
	wantError(t, b.do(request("GET", "/api/v1/incidents/inc-9", "")), http.StatusNotFound, "there is no incident inc-9")
}

func TestTheRolloutOfAnUnknownServiceIsRefusedAsItsIncidentsAre(t *testing.T) {
	b := newBench(t)
	wantError(t, b.do(request("GET", "/api/v1/rollout?service=nosuch", "")), http.StatusNotFound, `unknown service "nosuch"; try: one of a, b`)
}

func TestAnAskThatIsNotUnderstoodIsRefused(t *testing.T) {
	for path, words := range map[string]string{
		"/api/v1/incidents?status=opne":         `status "opne" is neither open nor closed`,
		"/api/v1/incidents?stauts=open":         `unknown parameter "stauts"`,
		"/api/v1/incidents?limit=0":             `limit "0"`,
		"/api/v1/incidents?limit=-1":            `limit "-1"`,
		"/api/v1/incidents?limit=x":             `limit "x"`,
		"/api/v1/incidents?service=a&service=b": "appears twice",
		"/api/v1/incidents?service=%zz":         "malformed query",
		"/api/v1/incidents/inc-1?x=1":           "unknown parameter",
		"/api/v1/audit?after=x":                 `after "x"`,
		"/api/v1/audit?after=-1":                `after "-1"`,
		"/api/v1/audit?step=1":                  "unknown parameter",
		"/api/v1/audit/head?x=1":                "unknown parameter",
		"/api/v1/freeze?service=x":              "unknown parameter",
		"/api/v1/status?service=x":              "unknown parameter",
		"/api/v1/rollout?stage=x":               "unknown parameter",
	} {
		wantError(t, newBench(t).do(request("GET", path, "")), http.StatusBadRequest, words)
	}
}

func TestAChangeReachesTheEngineWithItsActorAndReason(t *testing.T) {
	for _, tc := range []struct{ method, path, body, want string }{
		{"POST", "/api/v1/incidents/inc-1/approve", `{"step":"3-schema_rollback","reason":" yes "}`, "inc-1 approve 3-schema_rollback oncall yes"},
		{"POST", "/api/v1/incidents/inc-1/approve", `{"step":"3-schema_rollback","over":"realm","reason":"yes"}`, "inc-1 approve over realm 3-schema_rollback oncall yes"},
		{"POST", "/api/v1/incidents/inc-1/approve", `{"step":"3-schema_rollback","question":"q7","reason":"yes"}`, "inc-1 approve q7 3-schema_rollback oncall yes"},
		{"POST", "/api/v1/incidents/inc-1/deny", `{"step":"3-schema_rollback","reason":"no"}`, "inc-1 deny 3-schema_rollback oncall no"},
		{"POST", "/api/v1/incidents/inc-1/claim", `{"reason":"mine"}`, "inc-1 claim  oncall mine"},
		{"POST", "/api/v1/incidents/inc-1/release", `{"reason":"done"}`, "inc-1 release  oncall done"},
		{"POST", "/api/v1/incidents/inc-1/close", `{"reason":"over"}`, "inc-1 close  oncall over"},
		{"POST", "/api/v1/incidents/inc-1/restore", `{"reason":"false alarm"}`, "inc-1 restore false oncall false alarm"},
		{"POST", "/api/v1/incidents/inc-1/restore", `{"reason":"r","force":true}`, "inc-1 restore true oncall r"},
		{"PUT", "/api/v1/freeze", `{"service":"s","scope":"promotions","reason":"r"}`, "freeze s promotions oncall r"},
		{"PUT", "/api/v1/freeze", `{"service":"","scope":"all","until":null,"by":"somebody else","reason":"r"}`, "freeze  all oncall r"},
		{"PUT", "/api/v1/freeze", `{"reason":"r"}`, "freeze  all oncall r"},
		{"DELETE", "/api/v1/freeze?service=s&reason=all+clear", "", "thaw s oncall all clear"},
		{"DELETE", "/api/v1/freeze?service=&reason=r", "", "thaw  oncall r"},
		{"POST", "/api/v1/signals/p1-error?service=s", `{"reason":"everything is on fire"}`, "raise s p1-error oncall everything is on fire"},
		{"DELETE", "/api/v1/signals/p1-error", `{"reason":"it is out"}`, "clear  p1-error oncall it is out"},
		{"POST", "/api/v1/signals/p1%2Derror%252F", `{"reason":"r"}`, "raise  p1-error%2F oncall r"},
		{"POST", "/api/v1/incidents/inc%2D1/claim", `{"reason":"mine"}`, "inc-1 claim  oncall mine"},
		{"POST", "/api/v1/rollout/start", `{"service":"s","release":"v2","stage":"alpha","declare":true,"reason":"go"}`, "declare s v2 alpha oncall go"},
		{"POST", "/api/v1/rollout/start", `{"service":"s","release":"v2","auto":true,"reason":"go"}`, "start s v2  oncall go true, wait s"},
		{"POST", "/api/v1/rollout/promote", `{"service":"s","force":true,"reason":"go"}`, "rollout promote s oncall go true"},
		{"POST", "/api/v1/rollout/hold", `{"reason":"r"}`, "rollout hold  oncall r false"},
		{"POST", "/api/v1/rollout/resume", `{"reason":"r"}`, "rollout resume  oncall r false"},
		{"POST", "/api/v1/rollout/finish", `{"reason":"r","force":true}`, "rollout finish  oncall r true"},
		{"POST", "/api/v1/rollout/abort", `{"service":"s","reason":"r"}`, "rollout abort s oncall r false"},
	} {
		b := newBench(t, token(t, "oncall", config.Commander))
		w := b.do(as(request(tc.method, tc.path, tc.body), "oncall"))
		if w.Code != 200 || strings.Join(b.service.changes, ", ") != tc.want {
			t.Errorf("%s %s: %d %s; changes %q; want %q", tc.method, tc.path, w.Code, w.Body, b.service.changes, tc.want)
		}
	}
}

func TestAChangeThatIsNotUnderstoodChangesNothing(t *testing.T) {
	const restore = "/api/v1/incidents/inc-1/restore"
	const claim, approve, freeze, start = "/api/v1/incidents/inc-1/claim", "/api/v1/incidents/inc-1/approve", "/api/v1/freeze", "/api/v1/rollout/start"
	for _, tc := range []struct {
		method, path, body string
		status             int
		words              string
	}{
		{"POST", claim, "", 400, "the body is empty"},
		{"POST", claim, "{}", 400, "reason is required"},
		{"POST", claim, `{"reason":" \n "}`, 400, "reason is required"},
		{"POST", claim, `{"reason":"` + strings.Repeat("x", maxReason+1) + `"}`, 400, "longer than 4096 bytes"},
		{"POST", claim, `{"reason":"r","step":"1-x"}`, 400, `unknown field "step"`},
		{"POST", claim, `{"reason":"r"} {}`, 400, "there is more text after the object"},
		{"POST", claim, `{"reason":"r"`, 400, "unexpected EOF"},
		{"POST", claim, `{"reason":5}`, 400, "reason cannot be a JSON number"},
		{"POST", claim, `["r"]`, 400, "cannot be a JSON array"},
		{"POST", claim, `{"reason":"` + strings.Repeat("x", maxChange) + `"}`, 413, "larger than 64 KiB"},
		{"POST", restore, `{"force":true}`, 400, "reason is required"},
		{"POST", restore, `{"reason":"r","force":"yes"}`, 400, "force cannot be a JSON string"},
		{"POST", approve, `{"reason":"r"}`, 400, "step is required"},
		{"POST", approve, `{"step":"1-x"}`, 400, "reason is required"},
		{"PUT", freeze, `{"scope":"all"}`, 400, "reason is required"},
		{"PUT", freeze, `{"reason":"r","scpoe":"all"}`, 400, `unknown field "scpoe"`},
		{"PUT", freeze, `{"reason":"r","until":"tomorrow"}`, 400, "tomorrow"},
		{"DELETE", freeze + "?service=s", "", 400, "reason is required"},
		{"DELETE", freeze + "?sevrice=s&reason=r", "", 400, `unknown parameter "sevrice"`},
		{"POST", start, `{"stage":"alpha","declare":true,"auto":true,"reason":"r"}`, 400, "promoted by hand"},
		{"POST", "/api/v1/rollout/promote", `{"force":true}`, 400, "reason is required"},
		{"POST", "/api/v1/rollout/hold", `{"reason":"r","force":true}`, 400, "hold cannot be forced"},
		{"POST", "/api/v1/rollout/abort", `{"reason":"r","stage":"alpha"}`, 400, `unknown field "stage"`},
		{"POST", start, `{"stage":"alpha","declare":true}`, 400, "reason is required"},
		{"POST", start, `{"stage":"alpha","declare":true,"reason":"r","force":true}`, 400, `unknown field "force"`},
	} {
		b := newBench(t, token(t, "oncall", config.Commander))
		wantError(t, b.do(as(request(tc.method, tc.path, tc.body), "oncall")), tc.status, tc.words)
		if len(b.service.changes) != 0 {
			t.Errorf("%s %s %.40s changed %v", tc.method, tc.path, tc.body, b.service.changes)
		}
	}
}

func TestAFreezeIsAnsweredAsItIs(t *testing.T) {
	b := newBench(t, token(t, "oncall", config.Commander))
	wantOK(t, b.do(as(request("GET", "/api/v1/freeze", ""), "oncall")), `{"freezes":[]}`)
	b.do(as(request("PUT", "/api/v1/freeze", `{"until":"2030-01-02T03:04:05+02:00","since":"2020-01-01T00:00:00Z","reason":"r"}`), "oncall"))
	if f := b.service.freeze; f.Until == nil || !f.Until.Equal(time.Date(2030, 1, 2, 1, 4, 5, 0, time.UTC)) || !f.Since.IsZero() {
		t.Errorf("the engine was asked for %+v", f)
	}
	wantOK(t, b.do(as(request("DELETE", "/api/v1/freeze?reason=r", ""), "oncall")), `{"freezes":[]}`)
}

func TestRolloutsAreListedByService(t *testing.T) {
	b := newBench(t)
	for query, want := range map[string]int{"": 2, "?service=a": 1} {
		var got struct {
			Rollouts []map[string]any `json:"rollouts"`
		}
		w := b.do(request("GET", "/api/v1/rollout"+query, ""))
		if err := json.Unmarshal(w.Body.Bytes(), &got); err != nil || got.Rollouts == nil || len(got.Rollouts) != want {
			t.Errorf("%q: %s, %v", query, w.Body, err)
		}
		for _, r := range got.Rollouts {
			if _, isList := r["criteria"].([]any); !isList || r["service"] == nil {
				t.Errorf("%q: %v", query, r)
			}
		}
	}
}

func TestTheAuditLogIsListedAsItIsHashed(t *testing.T) {
	b := newBench(t)
	wantOK(t, b.do(request("GET", "/api/v1/audit", "")), `{"entries":[],"next":0}`)
	wantOK(t, b.do(request("GET", "/api/v1/audit?after=41", "")), `{"entries":[],"next":41}`)
	at := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	b.service.entries = []audit.Entry{
		{Seq: 8, Time: at, Kind: audit.KindOpened, Actor: "engine", Detail: map[string]any{"reason": "<a & b>\u2028"}},
		{Seq: 9, Time: at, Kind: audit.KindClosed, Actor: "engine", Detail: map[string]any{}},
	}
	w := b.do(request("GET", "/api/v1/audit?incident=inc-1&service=s&kind=opened&after=7&limit=2", ""))
	if f := b.service.entryFilter; f != (audit.Filter{Incident: "inc-1", Service: "s", Kind: "opened", After: 7, Limit: 2}) {
		t.Errorf("asked for %+v", f)
	}
	var got struct {
		Entries []json.RawMessage `json:"entries"`
		Next    int64             `json:"next"`
	}
	if err := json.Unmarshal(w.Body.Bytes(), &got); err != nil || len(got.Entries) != 2 || got.Next != 9 {
		t.Fatalf("%s: %v", w.Body, err)
	}
	for _, part := range []string{"\"<a & b>\u2028\"", `"time":"2026-01-02T03:04:05.000000Z"`, `"seq":8`} {
		if !strings.Contains(string(got.Entries[0]), part) {
			t.Errorf("%s lacks %q", got.Entries[0], part)
		}
	}
	wantOK(t, b.do(request("GET", "/api/v1/audit/head", "")), `{"seq":7,"hash":"abc"}`)
}

func TestARefusalOfTheEngineHasItsStatus(t *testing.T) {
	for _, tc := range []struct {
		err    error
		status int
		words  string
	}{
		{&remediation.RefusedError{Refusal: remediation.Invalid, Message: "wrong scope"}, 400, "wrong scope"},
		{&remediation.RefusedError{Refusal: remediation.Missing, Message: "no such thing"}, 404, "no such thing"},
		{&remediation.RefusedError{Refusal: remediation.Conflict, Message: "closed already"}, 409, "closed already"},
		{fmt.Errorf("wrapped: %w", &remediation.RefusedError{Refusal: remediation.Conflict, Message: "closed already"}), 409, "closed already"},
		{errors.New("disk full at /secret"), 500, "internal error"},
		{fmt.Errorf("wrapped: %w", remediation.StoreAway(errors.New("dial /secret"))), 503, "the database does not answer: try again in a moment"},
		{&remediation.RefusedError{Refusal: 77, Message: "?"}, 500, ""},
	} {
		b := newBench(t, token(t, "oncall", config.Commander))
		b.service.err = tc.err
		for _, a := range addresses() {
			if a.need == postNotification || strings.HasPrefix(a.path, "/-/") {
				continue
			}
			w := httptest.NewRecorder()
			b.Server.ServeHTTP(w, as(request(a.method, a.path, a.body), "oncall")) // the engine gives each address only some of these
			wantError(t, w, tc.status, tc.words)
			if strings.Contains(w.Body.String(), "secret") {
				t.Errorf("%s tells too much: %s", a.path, w.Body)
			}
		}
	}
}

func TestWhatIsNotThereIsAJSONError(t *testing.T) {
	b := newBench(t, token(t, "oncall", config.Commander))
	for _, tc := range []struct {
		method, path string
		status       int
		words        string
	}{
		{"GET", "/nowhere", 404, "there is no GET /nowhere"},
		{"POST", "/api/v1/signals", 404, "there is no POST"},
		{"GET", "/api/v1/webhook/alertmanager", 405, "GET is not allowed for /api/v1/webhook/alertmanager"},
		{"POST", "/api/v1/incidents", 405, "method POST is not allowed"},
		{"GET", "/-/reload", 405, "method GET is not allowed"},
	} {
		w := b.do(as(request(tc.method, tc.path, ""), "oncall"))
		wantError(t, w, tc.status, tc.words)
		if tc.status == 405 && w.Header().Get("Allow") == "" {
			t.Errorf("%s %s: no Allow", tc.method, tc.path)
		}
	}
}

func TestReadyTellsNobodyWhyNotButTheLog(t *testing.T) {
	b := newBench(t)
	b.service.err = errors.New("cannot open /secret/path")
	w := b.do(request("GET", "/-/ready", ""))
	wantError(t, w, http.StatusServiceUnavailable, "not ready")
	if strings.Contains(w.Body.String(), "secret") || !strings.Contains(b.log.String(), "/secret/path") {
		t.Errorf("answered %s; log %s", w.Body, b.log)
	}
	if w := b.do(request("GET", "/-/healthy", "")); w.Code != http.StatusOK {
		t.Errorf("healthy: %d", w.Code)
	}
}

func TestAReloadThatFailsSaysWhy(t *testing.T) {
	b := newBench(t, token(t, "oncall", config.Commander))
	wantOK(t, b.do(as(request("POST", "/-/reload", ""), "oncall")), `{"reloaded":true}`)
	b.reloadErr = errors.New(`playbook.yaml:3: unknown key "trigers"; try: triggers`)
	wantError(t, b.do(as(request("POST", "/-/reload", ""), "oncall")), http.StatusInternalServerError, "playbook.yaml:3:")
	if b.reloads != 2 {
		t.Errorf("%d reloads", b.reloads)
	}
}

func TestAnswersAreNeitherKeptNorGuessedAt(t *testing.T) {
	w := newBench(t).do(request("GET", "/api/v1/incidents?service="+url.QueryEscape("<script>"), ""))
	if h := w.Header(); h.Get("Cache-Control") != "no-store" || h.Get("X-Content-Type-Options") != "nosniff" {
		t.Errorf("headers %v", h)
	}
}
