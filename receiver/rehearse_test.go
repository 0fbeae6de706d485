package receiver

import (
	"slices"
	"strings"
	"testing"
)

func TestARehearsalIsAskedForByACommanderAndReadByAViewer(t *testing.T) {
	b := newBench(t, token(t, "eve", Commander), token(t, "vic", Viewer))
	if w := b.do(as(request("POST", "/api/v1/rehearse", `{"reason":"why"}`), "vic")); w.Code != 403 || len(b.service.changes) != 0 {
		t.Errorf("a viewer starts: %d %s; changes %v", w.Code, w.Body, b.service.changes)
	}
	if w := b.do(as(request("GET", "/api/v1/rehearse?service=shop", ""), "vic")); w.Code != 200 ||
		!strings.Contains(w.Body.String(), `"rehearsals":[]`) || !strings.Contains(w.Body.String(), `"plans":[]`) {
		t.Errorf("a viewer reads: %d %s", w.Code, w.Body)
	}
	if w := b.do(as(request("POST", "/api/v1/rehearse", `{"service":"shop","plan":"ladder","reason":"before T-3"}`), "eve")); w.Code != 200 ||
		!strings.Contains(w.Body.String(), `"running":true`) {
		t.Errorf("a commander starts: %d %s", w.Code, w.Body)
	}
	if w := b.do(as(request("POST", "/api/v1/rehearse", `{"plans":["ladder"]}`), "eve")); w.Code != 400 {
		t.Errorf("an unknown key: %d %s", w.Code, w.Body)
	}
	if w := b.do(as(request("GET", "/api/v1/rehearse?plan=ladder", ""), "vic")); w.Code != 400 {
		t.Errorf("an unknown parameter: %d %s", w.Code, w.Body)
	}
	if want := []string{"rehearse shop ladder eve before T-3"}; !slices.Equal(b.service.changes, want) {
		t.Errorf("changes are %q, want %q", b.service.changes, want)
	}
}
