package receiver

import (
	"strings"
	"testing"

	"github.com/locotoki/backout/receiver/config"
	"github.com/locotoki/backout/remediation"
)

func TestARolloutsReportIsReadByAViewer(t *testing.T) {
	b := newBench(t, token(t, "vic", config.Viewer))
	if w := b.do(as(request("GET", "/api/v1/rollout/report?service=shop", ""), "vic")); w.Code != 200 || !strings.Contains(w.Body.String(), `"service":"shop","release":"v2"`) {
		t.Errorf("a viewer reads: %d %s", w.Code, w.Body)
	}
	if w := b.do(request("GET", "/api/v1/rollout/report", "")); w.Code != 401 {
		t.Errorf("nobody reads: %d %s", w.Code, w.Body)
	}
	if w := b.do(as(request("GET", "/api/v1/rollout/report?release=v2", ""), "vic")); w.Code != 400 {
		t.Errorf("an unknown parameter: %d %s", w.Code, w.Body)
	}
	b.service.err = &remediation.RefusedError{Refusal: remediation.Missing, Message: "there was no rollout"}
	if w := b.do(as(request("GET", "/api/v1/rollout/report", ""), "vic")); w.Code != 404 {
		t.Errorf("without a rollout: %d %s", w.Code, w.Body)
	}
}
