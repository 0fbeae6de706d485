package webhook

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/locotoki/backout/remediation"
)

const secret = "a secret of the receiver"

// receiver answers with code, and keeps the last request.
type receiver struct {
	code   int
	header http.Header
	body   []byte
	retry  string
	calls  int
}

func (r *receiver) ServeHTTP(w http.ResponseWriter, req *http.Request) {
	r.calls++
	r.header = req.Header
	r.body, _ = io.ReadAll(req.Body)
	if r.retry != "" {
		w.Header().Set("Retry-After", r.retry)
	}
	if r.code >= 300 && r.code < 400 {
		w.Header().Set("Location", "/elsewhere")
	}
	w.WriteHeader(r.code)
}

func newHook(t *testing.T, r *receiver, secret string) (*Hook, *httptest.Server) {
	t.Helper()
	s := httptest.NewServer(r)
	t.Cleanup(s.Close)
	h, err := New(Options{Name: "ops", URL: s.URL + "/hush", Secret: secret, Transport: http.DefaultTransport, Now: time.Now})
	if err != nil {
		t.Fatal(err)
	}
	return h, s
}

var entry = remediation.Message{What: "17-061f08545d27", Body: []byte(`{"kind":"held","seq":17,"why":"<ü> & \"x\""}`)}

// checkScript is the receiver's check that the documentation has.
func checkScript(t *testing.T, secret string) (dir string) {
	t.Helper()
	page, err := os.ReadFile("../../../docs/communications.md")
	if err != nil {
		t.Fatal(err)
	}
	m := regexp.MustCompile("(?s)```python check.py\n(.*?)```").FindSubmatch(page)
	if m == nil {
		t.Fatal("docs/communications.md has no check.py")
	}
	dir = t.TempDir()
	for name, content := range map[string][]byte{"check.py": m[1], "webhook.secret": []byte(secret + "\n")} {
		if err := os.WriteFile(filepath.Join(dir, name), content, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

func TestTheDocumentedCheckTakesWhatIsSentAndNothingElse(t *testing.T) {
	for _, secret := range []string{secret, "whsec_" + base64.StdEncoding.EncodeToString([]byte(secret))} {
		t.Run(secret[:6], func(t *testing.T) { takesOnlyWhatIsSent(t, secret) })
	}
}

func takesOnlyWhatIsSent(t *testing.T, secret string) {
	t.Helper()
	r := &receiver{code: http.StatusNoContent}
	h, _ := newHook(t, r, secret)
	if _, err := h.Deliver(t.Context(), entry); err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(r.body, entry.Body) || r.header.Get("Content-Type") != "application/json" {
		t.Fatalf("it was sent %s as %s", r.body, r.header.Get("Content-Type"))
	}
	dir := checkScript(t, secret)
	accepts := func(change func(header map[string]string, body *string)) bool {
		header, body := map[string]string{}, string(r.body)
		for _, name := range []string{"webhook-id", "webhook-timestamp", "webhook-signature"} {
			header[name] = r.header.Get(name)
		}
		change(header, &body)
		as, err := json.Marshal(header)
		if err != nil {
			t.Fatal(err)
		}
		cmd := exec.CommandContext(t.Context(), "python3", "-c", "import sys,json,check; sys.exit(0 if check.check(json.loads(sys.argv[1]), sys.stdin.buffer.read()) else 7)", string(as))
		cmd.Dir, cmd.Stdin = dir, strings.NewReader(body)
		out, err := cmd.CombinedOutput()
		var exit *exec.ExitError
		if err != nil && (!errors.As(err, &exit) || exit.ExitCode() != 7) {
			t.Fatalf("%v: %s", err, out)
		}
		return err == nil
	}
	if !accepts(func(map[string]string, *string) {}) {
		t.Error("what was sent is refused")
	}
	for name, change := range map[string]func(header map[string]string, body *string){
		"another body":  func(_ map[string]string, body *string) { *body = strings.Replace(*body, "held", "done", 1) },
		"another entry": func(h map[string]string, _ *string) { h["webhook-id"] = "18-061f08545d27" },
		"an old time":   func(h map[string]string, _ *string) { h["webhook-timestamp"] = "1795316400" },
		"no signature":  func(h map[string]string, _ *string) { h["webhook-signature"] = "v1," },
	} {
		if accepts(change) {
			t.Errorf("%s is accepted", name)
		}
	}
}

func TestAStandardWebhooksSecretIsDecoded(t *testing.T) {
	r := &receiver{code: http.StatusOK}
	plain, _ := newHook(t, r, "abc")
	plain.now = func() time.Time { return time.Unix(1795316400, 0) }
	if _, err := plain.Deliver(t.Context(), entry); err != nil {
		t.Fatal(err)
	}
	want := r.header.Get("webhook-signature")
	encoded, _ := newHook(t, r, "whsec_YWJj")
	encoded.now = plain.now
	if _, err := encoded.Deliver(t.Context(), entry); err != nil || r.header.Get("webhook-signature") != want {
		t.Errorf("whsec_YWJj signs %q, abc %q (%v)", r.header.Get("webhook-signature"), want, err)
	}
	if _, err := New(Options{Name: "ops", Secret: "whsec_?"}); err == nil {
		t.Error("a secret that is not base64 is taken")
	}
}

func TestWhatTheReceiverAnswersDecides(t *testing.T) {
	for code, want := range map[int]string{200: "done", 204: "done", 302: "again", 400: "never", 401: "again", 404: "again", 408: "again", 410: "never", 413: "never", 422: "never", 429: "again", 500: "again", 503: "again"} {
		r := &receiver{code: code}
		h, _ := newHook(t, r, secret)
		_, err := h.Deliver(t.Context(), entry)
		var never *remediation.UndeliverableError
		got := "again"
		if errors.As(err, &never) {
			got = "never"
		}
		if err == nil {
			got = "done"
		}
		if got != want || r.calls != 1 {
			t.Errorf("%d: %s after %d requests, want %s (%v)", code, got, r.calls, want, err)
		}
	}
	h, _ := newHook(t, &receiver{code: 429, retry: "7"}, secret)
	_, err := h.Deliver(t.Context(), entry)
	var wait *remediation.RetryAfterError
	if !errors.As(err, &wait) || wait.After != 7*time.Second {
		t.Errorf("a receiver that asks for 7 s gets %v", err)
	}
}

func TestNoErrorHasTheAddress(t *testing.T) {
	h, s := newHook(t, &receiver{}, secret)
	s.Close()
	if _, err := h.Deliver(t.Context(), entry); err == nil || strings.Contains(err.Error(), "hush") {
		t.Errorf("got %v", err)
	}
}
