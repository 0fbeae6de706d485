package main

import (
	"context"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
)

// TestAnInterruptedCommandSaysWhatGoesOn interrupts commands as Ctrl-C does, before the
// server answers, and while it works.
func TestAnInterruptedCommandSaysWhatGoesOn(t *testing.T) {
	const item = `{"id":"a/b","name":"it works","owner":"","before":true,"result":"pass","evidence":"yes","signed":null}`
	running := `{"service":"shop","release":"v2","running":true,"left":3,"by":"eve","started":"2026-11-22T03:00:00Z","finished":null,"items":[` + item + `],"missing":[]}`
	for name, c := range map[string]struct {
		args   []string
		path   string
		answer string // "": none
		want   string
	}{
		"a preflight": {[]string{"preflight"}, "/api/v1/preflight", running,
			"backout: stopped waiting; the server continues\ntry: backout preflight show --service=shop\n"},
		"a preflight that is asked for": {[]string{"preflight", "--service=shop"}, "/api/v1/preflight", "",
			"backout: stopped waiting; the server had not answered, and may have begun\ntry: backout preflight show --service=shop\n"},
		"a rehearsal that is asked for": {[]string{"rehearse"}, "/api/v1/rehearse", "",
			"backout: stopped waiting; the server had not answered, and may have begun\ntry: backout rehearse show\n"},
		"a rollout that is asked for": {[]string{"rollout", "start", "--service=shop", "--reason=r"}, "/api/v1/rollout/start", "",
			"backout: stopped waiting; the server had not answered, and may have begun\ntry: backout rollout status --service=shop\n"},
		"an approval": {[]string{"approve", "inc-1", "1-flag_off", "--reason=r"}, "/api/v1/incidents/inc-1/approve", "",
			"backout: interrupted before the answer came; the server may have made the change\ntry: backout audit tail\n"},
		"a list": {[]string{"incident", "list"}, "/api/v1/incidents", "", "backout: interrupted\n"},
	} {
		t.Run(name, func(t *testing.T) {
			ctx, stop := context.WithCancel(t.Context())
			defer stop()
			srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				if r.URL.Path != c.path {
					t.Errorf("unexpected request %s", r.URL)
				}
				if _, err := io.Copy(io.Discard, r.Body); err != nil { // what ends the request is seen after its body
					t.Error(err)
				}
				if c.answer == "" || r.Method == http.MethodGet {
					stop()
					<-r.Context().Done()
					return
				}
				if _, err := w.Write([]byte(c.answer)); err != nil {
					t.Error(err)
				}
			}))
			defer srv.Close()
			var stdout, stderr strings.Builder
			status := run(ctx, append(c.args, "--url="+srv.URL), nil, &stdout, &stderr)
			if status != statusWrong || stderr.String() != c.want {
				t.Errorf("exit %d:\n%s%s", status, stdout.String(), stderr.String())
			}
		})
	}
}

func TestAnInterruptedVerifySaysSo(t *testing.T) {
	ctx, stop := context.WithCancel(t.Context())
	stop()
	var stdout, stderr strings.Builder
	status := run(ctx, []string{"verify", "--version=v9", "--playbook.file=../../testdata/playbooks/good/smallest.yaml"}, nil, &stdout, &stderr)
	if status != statusWrong || stderr.String() != "backout: interrupted\n" {
		t.Errorf("exit %d:\n%s%s", status, stdout.String(), stderr.String())
	}
}
