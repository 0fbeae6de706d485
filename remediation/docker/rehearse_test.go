package docker

import (
	"strings"
	"testing"

	"github.com/locotoki/backout/remediation"
)

// rehearse rehearses an action, after which the service is as it was.
func (w *harness) rehearse(a remediation.Action) remediation.Result {
	w.Helper()
	before := w.state()
	f := a.(remediation.Rehearser).Rehearse(w.Context())
	if after := w.state(); after != before {
		w.Errorf("the rehearsal changed the service:\n%s", diff(before, after))
	}
	if n := w.startedAside(); n > 0 {
		w.Errorf("%d containers are left", n)
	}
	return f
}

func TestFlagAndImageAreRehearsedAsideAndLeaveNothing(t *testing.T) {
	w := imageHarness(t, versionOne)
	w.start("1")
	if f := w.rehearse(w.action()); f.Status != remediation.Pass || !strings.Contains(f.Evidence, "serves FLAG as off") {
		t.Errorf("the flag came to %+v", f)
	}
	if f := w.rehearse(w.retag(nil)); f.Status != remediation.Pass || !strings.Contains(f.Evidence, "works, and was removed") {
		t.Errorf("the image came to %+v", f)
	}
	w.untag("v1.0.0")
	if f := w.rehearse(w.retag(nil)); f.Status != remediation.Fail || !strings.Contains(f.Evidence, "there is no image") || f.Next == "" {
		t.Errorf("without the image it came to %+v", f)
	}
}
