package main

import (
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/locotoki/backout/remediation"
	"github.com/locotoki/backout/remediation/engine"
	"github.com/locotoki/backout/remediation/store/memory"
	"github.com/locotoki/backout/remediation/view"
)

func TestStatusShowsAReloadThatFailedUntilOneSucceeds(t *testing.T) {
	e, err := engine.New(t.Context(), engine.Options{Store: memory.New(), Mode: remediation.Observe, Now: time.Now, Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	broken, none := filepath.Join(t.TempDir(), "shop.yaml"), ""
	if err := os.WriteFile(broken, []byte("service: [\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	files := []string{broken}
	r := &reloader{flags: settingsFlags{configFile: &none, playbookFlags: playbookFlags{playbookFiles: &files}}, engine: e}
	shown := func() (text string) {
		o, err := e.Overview(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		for _, l := range view.NewStatus(o).NeedsPerson() {
			if l.Subject == "configuration" {
				text += l.Text
			}
		}
		return text
	}
	if got := shown(); got != "" {
		t.Errorf("before any reload it shows %q", got)
	}
	if r.reload(t.Context(), "") == nil {
		t.Fatal("a broken playbook was taken over")
	}
	if got := shown(); !strings.Contains(got, broken) || !strings.Contains(got, "; backout runs with what was loaded at ") {
		t.Errorf("it shows %q", got)
	}
	if e.NoteReload(nil); shown() != "" {
		t.Error("it shows a failure that is over")
	}
}
