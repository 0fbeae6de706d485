package receiver

import (
	"slices"
	"strings"
	"testing"

	"github.com/locotoki/backout/receiver/config"
)

func TestAPreflightIsAskedForByACommanderAndReadByAViewer(t *testing.T) {
	b := newBench(t, token(t, "eve", config.Commander), token(t, "vic", config.Viewer))
	for _, path := range []string{"/api/v1/preflight", "/api/v1/preflight/sign"} {
		if w := b.do(as(request("POST", path, `{"reason":"why"}`), "vic")); w.Code != 403 {
			t.Errorf("a viewer posts %s: %d %s", path, w.Code, w.Body)
		}
	}
	if len(b.service.changes) != 0 {
		t.Errorf("a viewer changed %v", b.service.changes)
	}
	if w := b.do(as(request("GET", "/api/v1/preflight?service=shop", ""), "vic")); w.Code != 200 ||
		!strings.Contains(w.Body.String(), `"items":[]`) || !strings.Contains(w.Body.String(), `"missing":[]`) {
		t.Errorf("a viewer reads: %d %s", w.Code, w.Body)
	}
	if w := b.do(as(request("POST", "/api/v1/preflight", `{"service":"shop"}`), "eve")); w.Code != 200 || !strings.Contains(w.Body.String(), `"running":true`) {
		t.Errorf("a commander starts: %d %s", w.Code, w.Body)
	}
	if w := b.do(as(request("POST", "/api/v1/preflight/sign", `{"service":"shop","item":"team/dba","by":"Ada","reason":"it is me"}`), "eve")); w.Code != 200 {
		t.Errorf("a commander signs: %d %s", w.Code, w.Body)
	}
	if w := b.do(as(request("POST", "/api/v1/preflight/sign", `{"item":"team/dba","by":"Ada"}`), "eve")); w.Code != 400 {
		t.Errorf("without a reason: %d %s", w.Code, w.Body)
	}
	want := []string{"preflight shop eve ", "sign shop team/dba Ada eve it is me"}
	if !slices.Equal(b.service.changes, want) {
		t.Errorf("changes are %q, want %q", b.service.changes, want)
	}
}
