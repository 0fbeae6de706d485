package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/locotoki/backout/cmd/backout/terminal"
)

// result is what one run of the program left.
type result struct {
	status         int
	stdout, stderr string
}

// backout runs the program in this process with an environment of its own.
func backout(t *testing.T, env map[string]string, args ...string) result {
	t.Helper()
	return backoutUntil(t, "", env, args...)
}

// backoutUntil is backout that is asked to stop once it has printed words,
// where they are not empty.
func backoutUntil(t *testing.T, words string, env map[string]string, args ...string) result {
	t.Helper()
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	stdout, stderr := printed{words: words, stop: stop}, bytes.Buffer{}
	var environ []string
	for name, value := range env {
		environ = append(environ, name+"="+value)
	}
	c := newCommands(environ, &stdout, &stderr)
	c.now = func() time.Time { return time.Date(2026, 1, 2, 15, 5, 0, 0, time.UTC) }
	c.every = time.Millisecond
	status := c.exec(ctx, args)
	return result{status, stdout.text.String(), stderr.String()}
}

// printed is what was printed so far.
type printed struct {
	text  bytes.Buffer
	words string
	stop  func()
}

// Write implements io.Writer.
func (p *printed) Write(b []byte) (int, error) {
	n, err := p.text.Write(b)
	if p.words != "" && strings.Contains(p.text.String(), p.words) {
		p.stop()
	}
	return n, err
}

// exchange is a request that a test expects, and the answer to it.
type exchange struct {
	request string // "METHOD path?query"
	body    string // JSON that the request carries; "" for none
	status  int
	answer  string
}

// server answers the exchanges in their order, and fails the test on anything
// else. Every request must carry the token, or none where it is "".
func server(t *testing.T, token string, exchanges ...exchange) string {
	t.Helper()
	next := 0
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if next == len(exchanges) {
			t.Errorf("unexpected request %s %s", r.Method, r.URL)
			w.WriteHeader(http.StatusTeapot)
			return
		}
		e := exchanges[next]
		next++
		if got := r.Method + " " + r.URL.String(); got != e.request {
			t.Errorf("request %d is %s, want %s", next, got, e.request)
		}
		body, err := io.ReadAll(r.Body)
		if err != nil {
			t.Error(err)
		}
		if !sameJSON(string(body), e.body) {
			t.Errorf("%s carries %s, want %s", e.request, body, e.body)
		}
		if ct := r.Header.Get("Content-Type"); r.Method != http.MethodGet && ct != "application/json" {
			t.Errorf("%s has content type %q", e.request, ct)
		}
		want := ""
		if token != "" {
			want = "Bearer " + token
		}
		if got := r.Header.Get("Authorization"); got != want {
			t.Errorf("%s has authorization %q, want %q", e.request, got, want)
		}
		w.Header().Set("Content-Type", "application/json; charset=utf-8")
		w.WriteHeader(e.status)
		if _, err := io.WriteString(w, e.answer); err != nil {
			t.Error(err)
		}
	}))
	t.Cleanup(func() {
		srv.Close()
		if next < len(exchanges) {
			t.Errorf("%d of %d requests were never made", len(exchanges)-next, len(exchanges))
		}
	})
	return srv.URL
}

func sameJSON(got, want string) bool {
	if got == "" || want == "" {
		return got == want
	}
	var g, w any
	if json.Unmarshal([]byte(got), &g) != nil || json.Unmarshal([]byte(want), &w) != nil {
		return false
	}
	return fmt.Sprint(g) == fmt.Sprint(w) // maps print in key order
}

func tokenFile(t *testing.T) string {
	t.Helper()
	name := filepath.Join(t.TempDir(), "token")
	if err := os.WriteFile(name, []byte("s3cret\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	return name
}

// said reports whether text holds words, wherever its lines are broken.
func said(text, words string) bool {
	return strings.Contains(strings.Join(strings.Fields(text), " "), words)
}

// fits checks that every line can be read on a terminal of 80 columns, but for
// words that cannot be broken.
func fits(t *testing.T, text string) {
	t.Helper()
	for _, line := range strings.Split(text, "\n") {
		if utf8.RuneCountInString(line) > terminal.Columns && len(strings.Fields(line)) > 1 {
			t.Errorf("%d columns: %s", utf8.RuneCountInString(line), line)
		}
	}
}
