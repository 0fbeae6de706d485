package receiver

import (
	"context"
	"io"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/locotoki/backout/receiver/config"
)

func TestTheLongestWaitingConnectionMakesRoom(t *testing.T) {
	b := &budget{max: 2, open: map[net.Conn]*use{}}
	open := func() net.Conn {
		ours, theirs := net.Pipe()
		t.Cleanup(func() { _, _ = ours.Close(), theirs.Close() })
		return ours
	}
	closed := func(c net.Conn) bool { return c.SetDeadline(time.Time{}) != nil }
	busy, first, second, third := open(), open(), open(), open()
	b.state(busy, http.StateNew)
	b.state(busy, http.StateActive)
	b.answer(busy, 1)
	b.state(first, http.StateNew)
	b.state(first, http.StateActive) // a first byte, and no more
	b.state(second, http.StateNew)
	if closed(busy) || !closed(first) || closed(second) {
		t.Errorf("closed: busy %v, first %v, second %v", closed(busy), closed(first), closed(second))
	}
	b.state(second, http.StateActive)
	b.answer(second, 1)
	b.state(third, http.StateNew)
	if closed(busy) || closed(second) || !closed(third) {
		t.Error("one that is being answered was closed for a new one")
	}
	b.answer(busy, -1)
	fourth := open()
	b.state(fourth, http.StateNew)
	if !closed(busy) || closed(fourth) {
		t.Error("one that was answered did not make room")
	}
}

// dials opens connections that send no request, beginning one where begun is set.
func dials(t *testing.T, address, begun string, n int) (all []net.Conn) {
	t.Helper()
	for range n {
		c, err := net.Dial("tcp", address)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = c.Close() })
		_, _ = io.WriteString(c, begun)
		all = append(all, c)
	}
	return all
}

func TestIdleClientsTakeNeitherTheWebhookNorThePageDown(t *testing.T) {
	b := newBench(t)
	address, _ := b.serve(t, "")
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := newTestService(t)
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- ServePublic(ctx, public(t, s.engine, s.clock), slog.New(slog.DiscardHandler), l) }()
	defer func() {
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	}()
	first := dials(t, l.Addr().String(), "G", 1)[0]
	dials(t, l.Addr().String(), "G", maxPublicConnections+20)
	dials(t, address, "POST /api/v1/webhook/alertmanager HTTP/1.1\r\n", maxConnections+20)
	if err := first.SetDeadline(time.Now().Add(readHeaderTimeout / 2)); err != nil {
		t.Fatal(err)
	}
	if _, err := first.Read(make([]byte, 1)); err == nil || strings.Contains(err.Error(), "timeout") {
		t.Errorf("the first connection of too many was not closed: %v", err)
	}
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}, Timeout: readHeaderTimeout / 2}
	for _, ask := range []func() (*http.Response, error){
		func() (*http.Response, error) { return client.Get("http://" + l.Addr().String() + "/status") },
		func() (*http.Response, error) {
			return client.Post("http://"+address+"/api/v1/webhook/alertmanager", "application/json", strings.NewReader(oneAlert))
		},
	} {
		resp, err := ask()
		if err != nil {
			t.Fatal(err)
		}
		if text := drain(t, resp); resp.StatusCode != http.StatusOK {
			t.Errorf("answered %d %s", resp.StatusCode, text)
		}
	}
}

// That they are slowed, package wrongtoken tests.
func TestWrongTokensAreCountedAndLoggedAndTheRightOneIsNot(t *testing.T) {
	b := newBench(t, token(t, "ann", config.Viewer))
	for range 11 {
		if w := b.do(as(request("GET", "/api/v1/incidents", ""), "bob")); w.Code != http.StatusUnauthorized {
			t.Fatalf("a wrong token: %d", w.Code)
		}
	}
	if w := b.do(as(request("GET", "/api/v1/incidents", ""), "ann")); w.Code != http.StatusOK {
		t.Errorf("the right token of the same address: %d", w.Code)
	}
	if w := b.do(request("GET", "/api/v1/incidents", "")); w.Code != http.StatusUnauthorized {
		t.Errorf("no token: %d", w.Code)
	}
	if got := b.do(request("GET", "/metrics", "")).Body.String(); !strings.Contains(got, "backout_wrong_tokens_total 11\n") {
		t.Error("the metrics do not count them")
	}
	log := b.log.String()
	if n := strings.Count(log, `msg="wrong token"`); n != 4 || !strings.Contains(log, "address=192.0.2.1 ") || strings.Contains(log, "bob-secret") {
		t.Errorf("%d lines in the log:\n%s", n, log)
	}
}

func TestHEADAnswersAsGETDoesWithoutTheBody(t *testing.T) {
	s := newTestService(t)
	b := newBench(t, token(t, "ann", config.Viewer))
	address, _ := b.serve(t, "")
	for _, path := range []string{"/", "/audit", "/api/v1/incidents", "/metrics", "/-/healthy", "/none"} {
		ask := func(method string) (int, string, string) {
			r, err := http.NewRequestWithContext(t.Context(), method, "http://"+address+path, nil)
			if err != nil {
				t.Fatal(err)
			}
			resp, err := new(http.Client).Do(as(r, "ann"))
			if err != nil {
				t.Fatal(err)
			}
			return resp.StatusCode, resp.Header.Get("Content-Type"), drain(t, resp)
		}
		wantCode, wantType, _ := ask("GET")
		code, kind, body := ask("HEAD")
		if code != wantCode || kind != wantType || body != "" {
			t.Errorf("HEAD %s: %d %s %q; GET: %d %s", path, code, kind, body, wantCode, wantType)
		}
	}
	if w := visit(t, public(t, s.engine, s.clock), "HEAD", "/status"); w.Code != http.StatusOK {
		t.Errorf("HEAD of the public page: %d", w.Code)
	}
	if w := b.do(as(request("HEAD", "/events", ""), "ann")); w.Code != http.StatusMethodNotAllowed {
		t.Errorf("HEAD of a stream: %d", w.Code)
	}
}
