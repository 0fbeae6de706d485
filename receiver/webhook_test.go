package receiver

import (
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"html"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/alertmanager/template"

	"github.com/locotoki/backout/receiver/notification"
	"github.com/locotoki/backout/remediation"
)

const oneAlert = `{"version":"4","groupKey":"g","receiver":"r","alerts":[{"status":"firing","labels":{"alertname":"A","service":"s","trigger":"t"},"fingerprint":"00000000000000aa"}]}`

func TestBothGenerationsOfAlertmanagerAreUnderstood(t *testing.T) {
	for _, tc := range []struct {
		file      string
		statuses  []string
		truncated uint64
	}{
		{"am025-single-firing-1.json", []string{"firing"}, 0},
		{"am034-single-firing-1.json", []string{"firing"}, 0},
		{"am025-single-resolved-1.json", []string{"resolved"}, 0},
		{"am034-single-resolved-1.json", []string{"resolved"}, 0},
		{"am025-grouped-firing-1.json", []string{"firing", "firing", "firing"}, 0},
		{"am034-grouped-firing-1.json", []string{"firing", "firing", "firing"}, 0},
		{"am025-grouped-resolved-1.json", []string{"resolved", "resolved", "resolved"}, 0},
		{"am034-grouped-resolved-1.json", []string{"resolved", "resolved", "resolved"}, 0},
		{"am025-repeat-firing-1.json", []string{"firing"}, 0},
		{"am025-repeat-firing-2.json", []string{"firing"}, 0},
		{"am034-repeat-firing-1.json", []string{"firing"}, 0},
		{"am034-repeat-firing-2.json", []string{"firing"}, 0},
		{"am025-truncated-firing-1.json", []string{"firing", "firing"}, 3},
		{"am034-truncated-firing-1.json", []string{"firing", "firing"}, 3},
		{"am025-unicode-firing-1.json", []string{"firing"}, 0},
		{"am034-unicode-firing-1.json", []string{"firing"}, 0},
	} {
		t.Run(tc.file, func(t *testing.T) {
			b, body := newBench(t), payload(t, tc.file)
			wantOK(t, b.post(body), fmt.Sprintf(`{"accepted":%d,"duplicates":0,"incidents":[]}`, len(tc.statuses)))
			if len(b.service.took()) != 1 {
				t.Fatalf("%d notifications were committed", len(b.service.took()))
			}
			got := b.service.took()[0]
			var sent struct {
				template.Data
				GroupKey string `json:"groupKey"`
			}
			if err := json.Unmarshal([]byte(body), &sent); err != nil {
				t.Fatal(err)
			}
			if got.Receiver != sent.Receiver || got.GroupKey != sent.GroupKey || got.Truncated != tc.truncated {
				t.Errorf("decoded %q %q %d", got.Receiver, got.GroupKey, got.Truncated)
			}
			if len(got.Alerts) != len(tc.statuses) {
				t.Fatalf("decoded %d alerts", len(got.Alerts))
			}
			for i, a := range got.Alerts {
				want := sent.Alerts[i]
				if a.Status != tc.statuses[i] || a.Fingerprint != want.Fingerprint || fmt.Sprint(a.Labels) != fmt.Sprint(map[string]string(want.Labels)) {
					t.Errorf("alert %d is %+v; sent was %+v", i, a, want)
				}
				if fp := notification.Fingerprint(a.Labels); fp != want.Fingerprint {
					t.Errorf("the fingerprint of its labels is %s; Alertmanager says %s", fp, want.Fingerprint)
				}
			}
			if b.counted(resultAccepted) != 1 || strings.Contains(b.log.String(), "malformed alerts") {
				t.Errorf("accepted counts %v; log: %s", b.counted(resultAccepted), b.log)
			}
		})
	}
}

func TestEveryPayloadIsInATest(t *testing.T) {
	files, err := filepath.Glob("../testdata/payloads/*.json")
	if err != nil || len(files) != 17 {
		t.Fatalf("%d payloads (%v): 16 are in TestBothGenerationsOfAlertmanagerAreUnderstood, 1 in TestABodyThatIsNoNotificationIsRefusedWithTheCause; add the new ones", len(files), err)
	}
}

func TestABodyThatIsNoNotificationIsRefusedWithTheCause(t *testing.T) {
	for name, tc := range map[string]struct{ body, words string }{
		"custom payload":      {payload(t, "am034-custom-payload-na-1.json"), "lacks version, alerts, groupKey; the likely cause is a custom payload:"},
		"empty":               {"", "malformed"},
		"no JSON":             {"hello", "malformed JSON at byte 1"},
		"cut off":             {oneAlert[:40], "malformed JSON at byte 40"},
		"trailing":            {oneAlert + "{}", "malformed JSON"},
		"null":                {"null", "lacks version, alerts, groupKey"},
		"a list":              {"[1]", "the body cannot be a JSON array"},
		"a string":            {`"x"`, "the body cannot be a JSON string"},
		"no version":          {`{"groupKey":"g","alerts":[]}`, "lacks version;"},
		"no alerts":           {`{"groupKey":"g","version":"4"}`, "lacks alerts;"},
		"null alerts":         {`{"groupKey":"g","version":"4","alerts":null}`, "lacks alerts;"},
		"no group key":        {`{"version":"4","alerts":[]}`, "lacks groupKey;"},
		"version 3":           {`{"version":"3","groupKey":"g","alerts":[]}`, `version is "3"`},
		"version is a number": {`{"version":4,"groupKey":"g","alerts":[]}`, "version cannot be a JSON number"},
		"alerts is an object": {`{"version":"4","groupKey":"g","alerts":{}}`, "alerts cannot be a JSON object"},
		"too deep":            {`{"version":"4","groupKey":"g","alerts":` + strings.Repeat("[", 20000) + strings.Repeat("]", 20000) + `}`, "malformed JSON"},
		"negative truncation": {`{"version":"4","groupKey":"g","alerts":[],"truncatedAlerts":-1}`, "truncatedAlerts cannot be a JSON number"},
	} {
		t.Run(name, func(t *testing.T) {
			b := newBench(t)
			wantError(t, b.post(tc.body), http.StatusBadRequest, tc.words)
			if n := len(b.service.took()); n != 0 {
				t.Errorf("%d notifications were committed", n)
			}
			if b.counted(resultMalformed) != 1 {
				t.Error("it was not counted as malformed")
			}
		})
	}
}

func TestAnInvalidAlertIsRecordedAndTheOthersAreKept(t *testing.T) {
	const good = `{"status":"firing","labels":{"alertname":"Good","service":"s"},"fingerprint":"00000000000000aa"}`
	const goodPrint = "58632418bac3448d"
	long := strings.Repeat("x", 1<<20)
	sum := fmt.Sprintf("%x", sha256.Sum256([]byte(long)))
	for name, tc := range map[string]struct {
		alert string
		want  remediation.Alert
		odd   string
	}{
		"an unknown status":    {`{"status":"suppressed","labels":{"a":"b"},"fingerprint":"1"}`, remediation.Alert{Status: "suppressed", Labels: map[string]string{"a": "b"}}, "neither firing nor resolved"},
		"no status":            {`{"labels":{"a":"b"},"fingerprint":"1"}`, remediation.Alert{Labels: map[string]string{"a": "b"}}, "neither firing nor resolved"},
		"a status of no text":  {`{"status":1,"labels":{"a":"b"},"fingerprint":"1"}`, remediation.Alert{Labels: map[string]string{"a": "b"}}, "status cannot be a JSON number"},
		"no labels":            {`{"status":"firing"}`, remediation.Alert{Status: "firing", Labels: map[string]string{}}, "no labels"},
		"labels are a list":    {`{"status":"firing","labels":[1],"fingerprint":"1"}`, remediation.Alert{Status: "firing", Labels: map[string]string{}}, "labels cannot be a JSON array"},
		"a label is a number":  {`{"status":"firing","labels":{"a":"b","n":5},"fingerprint":"1"}`, remediation.Alert{Status: "firing", Labels: map[string]string{"a": "b", "n": ""}}, "labels cannot be a JSON number"},
		"no object":            {`5`, remediation.Alert{Labels: map[string]string{}}, "the body cannot be a JSON number"},
		"null":                 {`null`, remediation.Alert{Labels: map[string]string{}}, "neither firing nor resolved"},
		"a broken time":        {`{"status":"firing","labels":{"a":"b"},"fingerprint":"1","startsAt":"yesterday"}`, remediation.Alert{Status: "firing", Labels: map[string]string{"a": "b"}}, ""},
		"no fingerprint":       {`{"status":"firing","labels":{"a":"b"}}`, remediation.Alert{Status: "firing", Labels: map[string]string{"a": "b"}}, ""},
		"no service, no name":  {`{"status":"firing","labels":{"trigger":"t"},"fingerprint":"1"}`, remediation.Alert{Status: "firing", Labels: map[string]string{"trigger": "t"}}, ""},
		"NUL and U+2028":       {`{"status":"firing","labels":{"a":"x\u0000y\u2028z` + "\u2028" + `"},"fingerprint":"1"}`, remediation.Alert{Status: "firing", Labels: map[string]string{"a": "x\x00y\u2028z\u2028"}}, ""},
		"half a surrogate":     {`{"status":"firing","labels":{"a":"\ud800"},"fingerprint":"1"}`, remediation.Alert{Status: "firing", Labels: map[string]string{"a": "\ufffd"}}, ""},
		"no UTF-8":             {"{\"status\":\"firing\",\"labels\":{\"a\":\"\xff\"},\"fingerprint\":\"1\"}", remediation.Alert{Status: "firing", Labels: map[string]string{"a": "\ufffd"}}, ""},
		"a repeated status":    {`{"status":"firing","status":"resolved","labels":{"a":"b"},"fingerprint":"1"}`, remediation.Alert{Status: "resolved", Labels: map[string]string{"a": "b"}}, ""},
		"repeated labels":      {`{"status":"firing","labels":{"a":"b","c":"d"},"labels":{"a":"x"},"fingerprint":"1"}`, remediation.Alert{Status: "firing", Labels: map[string]string{"a": "x", "c": "d"}}, ""},
		"a key nobody knows":   {`{"status":"firing","labels":{"a":"b"},"fingerprint":"1","new":{"x":[1]}}`, remediation.Alert{Status: "firing", Labels: map[string]string{"a": "b"}}, ""},
		"a very long label":    {`{"status":"firing","labels":{"a":"` + long + `"},"fingerprint":"1"}`, remediation.Alert{Status: "firing", Fingerprint: notification.Fingerprint(map[string]string{"a": long}), Labels: map[string]string{"a": long[:4096] + "... (1048576 bytes, sha256 " + sum + ")"}}, ""},
		"a very long name":     {`{"status":"firing","labels":{"` + long + `":"b"},"fingerprint":"1"}`, remediation.Alert{Status: "firing", Fingerprint: notification.Fingerprint(map[string]string{long: "b"}), Labels: map[string]string{long[:256] + "... (1048576 bytes, sha256 " + sum + ")": "b"}}, ""},
		"a very long status":   {`{"status":"` + long + `","labels":{"a":"b"}}`, remediation.Alert{Status: long[:64] + "... (1048576 bytes, sha256 " + sum + ")", Labels: map[string]string{"a": "b"}}, "neither firing nor resolved"},
		"very many labels":     {manyLabels(1000), remediation.Alert{Status: "firing", Labels: fewLabels(64)}, "more than 64 labels"},
		"acted on, but late":   {strings.Replace(manyLabels(1000), "}}", `,"rollout":"v2","service":"s","trigger":"t"}}`, 1), remediation.Alert{Status: "firing", Labels: withLabels(fewLabels(64), "rollout", "v2", "service", "s", "trigger", "t")}, "more than 64 labels"},
		"the same fingerprint": {good, remediation.Alert{Status: "firing", Labels: map[string]string{"alertname": "Good", "service": "s"}}, ""},
	} {
		t.Run(name, func(t *testing.T) {
			b := newBench(t)
			w := b.post(`{"version":"4","groupKey":"g","alerts":[` + good + "," + tc.alert + "," + good + `]}`)
			wantOK(t, w, `{"accepted":3,"duplicates":0,"incidents":[]}`)
			alerts := b.service.took()[0].Alerts
			for _, i := range []int{0, 2} {
				if a := alerts[i]; a.Status != "firing" || a.Labels["alertname"] != "Good" || a.Fingerprint != goodPrint {
					t.Errorf("the good alert beside it became %+v", a)
				}
			}
			if tc.want.Fingerprint == "" { // what the body says it is, is not believed
				tc.want.Fingerprint = notification.Fingerprint(tc.want.Labels)
			}
			if fmt.Sprint(alerts[1]) != fmt.Sprint(tc.want) || alerts[1].Labels == nil {
				t.Errorf("it became %+v; want %+v", alerts[1], tc.want)
			}
			if logged := strings.Contains(b.log.String(), "malformed alerts"); logged != (tc.odd != "") {
				t.Errorf("logged as odd: %v; log %s", logged, b.log)
			}
			if !strings.Contains(b.log.String(), tc.odd) {
				t.Errorf("the log does not say %q: %s", tc.odd, b.log)
			}
		})
	}
}

func TestOfRepeatedKeysTheLastWinsAndNoTwoAlertsAreMixed(t *testing.T) {
	b := newBench(t)
	wantOK(t, b.post(`{"version":"3","version":"4","groupKey":"g",
		"alerts":[{"status":"firing","labels":{"trigger":"t","service":"s"},"fingerprint":"1"},{"status":"firing","labels":{"a":"b"}}],
		"alerts":[{"status":"resolved","labels":{"x":"y"},"fingerprint":"2"}]}`), `{"accepted":1,"duplicates":0,"incidents":[]}`)
	got := b.service.took()[0].Alerts
	want := []remediation.Alert{{Status: "resolved", Fingerprint: notification.Fingerprint(map[string]string{"x": "y"}), Labels: map[string]string{"x": "y"}}}
	if fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("decoded %+v", got)
	}
}

// fewLabels are n labels, manyLabels an alert with them.
func fewLabels(n int) map[string]string {
	out := map[string]string{}
	for i := range n {
		out[fmt.Sprintf("l%03d", i)] = "v"
	}
	return out
}

func withLabels(labels map[string]string, more ...string) map[string]string {
	for i := 0; i+1 < len(more); i += 2 {
		labels[more[i]] = more[i+1]
	}
	return labels
}

func manyLabels(n int) string {
	var s strings.Builder
	for i := range n {
		fmt.Fprintf(&s, `,"l%03d":"v"`, i)
	}
	return `{"status":"firing","labels":{` + s.String()[1:] + `}}`
}

func TestWhatANotificationBecomesIsBounded(t *testing.T) {
	few := `{"version":"4","groupKey":"g","alerts":[`
	for name, tc := range map[string]struct {
		body   string
		status int
		words  string
	}{
		"as many alerts as are taken in":  {few + strings.Repeat("{},", notification.MaxAlerts-1) + "{}]}", http.StatusOK, ""},
		"one more":                        {few + strings.Repeat("{},", notification.MaxAlerts) + "{}]}", http.StatusRequestEntityTooLarge, "more than 10000 alerts"},
		"millions":                        {few + strings.Repeat("{},", 2_500_000) + "{}]}", http.StatusRequestEntityTooLarge, "more than 10000 alerts"},
		"too many labels in all":          {few + strings.Repeat(manyLabels(64)+",", 4000) + "{}]}", http.StatusRequestEntityTooLarge, "more than 200000 labels"},
		"many lists, of which one counts": {`{"version":"4","groupKey":"g",` + strings.Repeat(`"alerts":[{}],`, 500_000) + `"alerts":[]}`, http.StatusOK, ""},
	} {
		t.Run(name, func(t *testing.T) {
			b := newBench(t)
			w := b.post(tc.body)
			if w.Code != tc.status || !strings.Contains(w.Body.String(), tc.words) {
				t.Errorf("answered %d %.300s", w.Code, w.Body)
			}
			if took := len(b.service.took()); (took == 1) != (tc.status == http.StatusOK) {
				t.Errorf("%d notifications were committed", took)
			}
			if len(b.log.String()) > 4096 {
				t.Errorf("the log has %d bytes of it", len(b.log.String()))
			}
		})
	}
}

func TestOneLargeBodyAtATimeIsTakenIn(t *testing.T) {
	b := newBench(t)
	b.bodies.large <- struct{}{} // another has the turn
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	large := &body{data: make([]byte, largeBody), from: b.bodies}
	if err := large.turn(ctx); !errors.Is(err, errBusy) {
		t.Errorf("a large body got its turn beside another: %v", err)
	}
	if err := (&body{data: make([]byte, largeBody-1), from: b.bodies}).turn(ctx); err != nil {
		t.Errorf("a small body waits for large ones: %v", err)
	}
	<-b.bodies.large
	if err := large.turn(t.Context()); err != nil {
		t.Error(err)
	}
	large.release()
	if len(b.bodies.large) != 0 {
		t.Error("the turn was not given back")
	}
}

func TestAnEmptyGroupIsAccepted(t *testing.T) {
	b := newBench(t)
	wantOK(t, b.post(`{"version":"4","groupKey":"g","alerts":[]}`), `{"accepted":0,"duplicates":0,"incidents":[]}`)
	if len(b.service.took()) != 1 {
		t.Error("it was not committed")
	}
}

// manyAlerts is a body of n alerts.
func manyAlerts(n int) string {
	var s strings.Builder
	s.WriteString(`{"version":"4","groupKey":"g","alerts":[`)
	for i := range n {
		if i > 0 {
			s.WriteByte(',')
		}
		fmt.Fprintf(&s, `{"status":"firing","labels":{"alertname":"A","instance":"i%d","service":"s"},"annotations":{"summary":"%s"},"fingerprint":"%016x"}`, i, strings.Repeat("x", 200), i)
	}
	s.WriteString(`]}`)
	return s.String()
}

func TestFiveThousandAlertsInOneBodyAreAllAccepted(t *testing.T) {
	b := newBench(t)
	wantOK(t, b.post(manyAlerts(5000)), `{"accepted":5000,"duplicates":0,"incidents":[]}`)
	seen := map[string]bool{}
	for _, a := range b.service.took()[0].Alerts {
		seen[a.Fingerprint] = true
	}
	if len(seen) != 5000 {
		t.Errorf("%d different alerts were committed", len(seen))
	}
	if used := b.bodies.used.Load(); used != 0 {
		t.Errorf("%d bytes are still reserved", used)
	}
}

func TestANineMebibyteBodyIsTooLarge(t *testing.T) {
	large := strings.Repeat(" ", 9<<20)
	for name, body := range map[string]io.Reader{
		"its length announced": strings.NewReader(large),
		"in chunks":            io.MultiReader(strings.NewReader(large)),
	} {
		t.Run(name, func(t *testing.T) {
			b := newBench(t)
			srv := httptest.NewServer(b)
			defer srv.Close()
			for range 2 { // the connection stays of use
				resp, err := http.Post(srv.URL+"/api/v1/webhook/alertmanager", "application/json", body)
				if err != nil {
					t.Fatal(err)
				}
				if text := drain(t, resp); resp.StatusCode != http.StatusRequestEntityTooLarge || !strings.Contains(text, `"error":"the body is larger than 8 MiB"`) {
					t.Errorf("answered %d %s", resp.StatusCode, text)
				}
				body = strings.NewReader(large)
			}
			if b.counted(resultTooLarge) != 2 || len(b.service.took()) != 0 || b.bodies.used.Load() != 0 {
				t.Errorf("counted %v, committed %d, reserved %d", b.counted(resultTooLarge), len(b.service.took()), b.bodies.used.Load())
			}
		})
	}
}

// TestAClientThatSendsBeforeItReadsSeesTheRefusal: such a one gets a broken
// connection where the server closes without reading.
func TestAClientThatSendsBeforeItReadsSeesTheRefusal(t *testing.T) {
	b := newBench(t)
	srv := httptest.NewServer(b)
	defer srv.Close()
	conn, err := net.Dial("tcp", srv.Listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := conn.Close(); err != nil {
			t.Error(err)
		}
	}()
	if _, err := fmt.Fprintf(conn, "POST /api/v1/webhook/alertmanager HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\nConnection: close\r\n\r\n", 9<<20); err != nil {
		t.Fatal(err)
	}
	if _, err := io.CopyN(conn, spaces{}, 9<<20); err != nil {
		t.Fatalf("the connection broke while sending: %v", err)
	}
	answer, err := io.ReadAll(conn)
	if err != nil || !strings.HasPrefix(string(answer), "HTTP/1.1 413 ") {
		t.Errorf("read %.60q, %v", answer, err)
	}
}

type spaces struct{}

func (spaces) Read(p []byte) (int, error) {
	for i := range p {
		p[i] = ' '
	}
	return len(p), nil
}

func TestABodyOfExactlyTheLimitIsRead(t *testing.T) {
	for _, n := range []int{firstRead - 1, firstRead, firstRead + 1, 4*firstRead + 7, maxBody - 1, maxBody} {
		b := newBench(t)
		body := oneAlert + strings.Repeat(" ", n-len(oneAlert))
		if w := b.post(body); w.Code != http.StatusOK {
			t.Errorf("%d bytes: %d %s", n, w.Code, w.Body)
		}
		r := request("POST", "/api/v1/webhook/alertmanager", body)
		r.ContentLength = -1 // in chunks
		if w := b.do(r); w.Code != http.StatusOK || b.bodies.used.Load() != 0 {
			t.Errorf("%d bytes in chunks: %d %s; %d reserved", n, w.Code, w.Body, b.bodies.used.Load())
		}
	}
	b := newBench(t)
	r := request("POST", "/api/v1/webhook/alertmanager", oneAlert+strings.Repeat(" ", maxBody+1-len(oneAlert)))
	r.ContentLength = -1
	wantError(t, b.do(r), http.StatusRequestEntityTooLarge, "larger than 8 MiB")
}

func TestTooManyBytesInFlightAnswer503UntilSomeAreDone(t *testing.T) {
	b := newBench(t)
	b.bodies = newBodies(maxBody, 3*firstRead)
	entered, leave := make(chan struct{}), make(chan struct{})
	b.service.accept = func(context.Context) error { entered <- struct{}{}; <-leave; return nil }

	done := make(chan *httptest.ResponseRecorder)
	for range 3 {
		go func() { done <- b.post(oneAlert) }()
	}
	for range 3 {
		<-entered
	}
	w := b.post(oneAlert)
	wantError(t, w, http.StatusServiceUnavailable, "too many notifications in flight")
	if w.Header().Get("Retry-After") == "" || b.counted(resultBusy) != 1 {
		t.Errorf("headers %v, counted %v", w.Header(), b.counted(resultBusy))
	}
	close(leave)
	for range 3 {
		if w := <-done; w.Code != http.StatusOK {
			t.Errorf("one that was in flight got %d %s", w.Code, w.Body)
		}
	}
	go func() { <-entered }()
	if w := b.post(oneAlert); w.Code != http.StatusOK {
		t.Errorf("after that: %d %s", w.Code, w.Body)
	}
	if used := b.bodies.used.Load(); used != 0 {
		t.Errorf("%d bytes are still reserved", used)
	}
}

func TestABodyThatGrowsPastTheBoundIsGivenBack(t *testing.T) {
	b := newBench(t)
	b.bodies = newBodies(maxBody, 5*firstRead)
	wantError(t, b.post(strings.Repeat(" ", 5*firstRead)), http.StatusServiceUnavailable, "in flight")
	if used := b.bodies.used.Load(); used != 0 {
		t.Errorf("%d bytes are still reserved", used)
	}
	if w := b.post(oneAlert); w.Code != http.StatusOK {
		t.Errorf("a small one after it: %d %s", w.Code, w.Body)
	}
}

func TestAClientThatAnnouncesMuchAndSendsLittleHoldsLittle(t *testing.T) {
	b := newBench(t)
	pr, pw := io.Pipe()
	r := httptest.NewRequest(http.MethodPost, "/api/v1/webhook/alertmanager", pr)
	r.ContentLength = maxBody
	done := make(chan *httptest.ResponseRecorder)
	go func() { done <- b.do(r) }()
	if _, err := pw.Write([]byte("{")); err != nil {
		t.Fatal(err)
	}
	if used := b.bodies.used.Load(); used != firstRead {
		t.Errorf("it holds %d bytes", used)
	}
	if err := pw.CloseWithError(io.ErrUnexpectedEOF); err != nil {
		t.Fatal(err)
	}
	wantError(t, <-done, http.StatusServiceUnavailable, "not committed")
	if b.bodies.used.Load() != 0 || len(b.service.took()) != 0 || b.counted(resultUnavailable) != 1 {
		t.Errorf("reserved %d, committed %d", b.bodies.used.Load(), len(b.service.took()))
	}
}

func TestWhatIsNotCommittedIsAnswered503(t *testing.T) {
	for name, err := range map[string]error{
		"a full disk":        errors.New("disk full at /secret/path"),
		"a refusal":          &remediation.RefusedError{Refusal: remediation.Invalid, Message: "no"},
		"a commit that hung": context.DeadlineExceeded,
	} {
		t.Run(name, func(t *testing.T) {
			b := newBench(t)
			b.service.accept = func(ctx context.Context) error {
				if _, bounded := ctx.Deadline(); !bounded {
					t.Error("Accept is not bounded in time")
				}
				return err
			}
			w := b.post(oneAlert)
			wantError(t, w, http.StatusServiceUnavailable, "not committed, send it again")
			if strings.Contains(w.Body.String(), "secret") || !strings.Contains(b.log.String(), err.Error()) {
				t.Errorf("the cause belongs into the log only: %s; log %s", w.Body, b.log)
			}
			if b.counted(resultUnavailable) != 1 || b.counted(resultAccepted) != 0 {
				t.Error("it was not counted as unavailable")
			}
		})
	}
}

func TestAPanicCostsOneRequest(t *testing.T) {
	b := newBench(t)
	b.service.accept = func(context.Context) error { panic("boom") }
	wantError(t, b.post(oneAlert), http.StatusInternalServerError, "internal error")
	if !strings.Contains(b.log.String(), "boom") || b.bodies.used.Load() != 0 {
		t.Errorf("reserved %d; log %s", b.bodies.used.Load(), b.log)
	}
	b.service.accept = nil
	if w := b.post(oneAlert); w.Code != http.StatusOK {
		t.Errorf("the next one: %d %s", w.Code, w.Body)
	}
}

func TestEveryResultIsAMetricFromTheStart(t *testing.T) {
	b := newBench(t)
	w := b.do(request("GET", "/metrics", ""))
	for _, r := range []string{"accepted", "malformed", "too_large", "busy", "unavailable", "unauthorized", "forbidden"} {
		if line := `backout_notifications_total{result="` + r + `"} 0`; !slices.Contains(strings.Split(w.Body.String(), "\n"), line) {
			t.Errorf("missing: %s", line)
		}
	}
}

func BenchmarkWebhook(b *testing.B) {
	s := newBench(b)
	s.service.accept = func(context.Context) error { return nil }
	s.logger = slog.New(slog.DiscardHandler)
	body := payload(b, "am034-grouped-firing-1.json")
	b.ReportAllocs()
	for b.Loop() {
		if w := s.post(body); w.Code != http.StatusOK {
			b.Fatal(w.Body)
		}
	}
}

// What a wrong token keeps away is known here alone: the status says so, and not that a route
// is missing.
func TestTheStatusSaysThatNotificationsAreRefused(t *testing.T) {
	s := newTestService(t)
	post := func(name string, labels string) {
		t.Helper()
		r := request("POST", "/api/v1/webhook/alertmanager", strings.Replace(oneAlert, `"alertname":"A","service":"s","trigger":"t"`, labels, 1))
		r.Header.Set("Authorization", "Bearer "+name+"-secret")
		s.ServeHTTP(httptest.NewRecorder(), r)
	}
	says := func(want string) {
		t.Helper()
		page := s.page("/", "ann")
		w := s.browse("/api/v1/status", "ann")
		if !strings.Contains(w.Body.String(), want) {
			t.Errorf("%q is not said in %s", want, w.Body)
		}
		if words := html.UnescapeString(page); !strings.Contains(words, want) {
			t.Errorf("%q is not said on the page: %s", want, words)
		}
	}
	says("the first can take 2 min after a start")
	s.pass(10 * time.Second)
	post("old", `"alertname":"Watchdog","service":"shop"`)
	says("1 notification was refused (unauthorized) at 22 Nov 2026 03:00:10 UTC, from 192.0.2.1")
	s.pass(10 * time.Second)
	post("ann", `"alertname":"Watchdog","service":"shop"`)
	says("2 notifications were refused (forbidden) since 22 Nov 2026 03:00:10 UTC, the last from 192.0.2.1")
	s.pass(3 * time.Minute)
	post("am", `"alertname":"Other","service":"shop"`)
	says("other alerts arrive")
	post("am", `"alertname":"Watchdog","service":"shop"`)
	if w := s.browse("/api/v1/status", "ann"); !strings.Contains(w.Body.String(), `monitoring: healthy, the last watchdog alert came now"`) {
		t.Error(w.Body)
	}
}
