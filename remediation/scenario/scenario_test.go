package scenario_test

import (
	"path/filepath"
	"testing"
	"time"

	"github.com/locotoki/backout/receiver"
	"github.com/locotoki/backout/remediation/scenario"
)

func TestTheBuiltInPlaybooksScenariosGoAsExpected(t *testing.T) {
	files, err := filepath.Glob("../../testdata/scenarios/*.yaml")
	if err != nil || len(files) < 1 {
		t.Fatalf("%d scenarios: %v", len(files), err)
	}
	for _, file := range files {
		t.Run(filepath.Base(file), func(t *testing.T) {
			sc, err := scenario.Load(file)
			if err != nil {
				t.Fatal(err)
			}
			began := time.Now()
			res, err := sc.Run(t.Context(), receiver.Decode)
			if err != nil {
				t.Fatal(err)
			}
			t.Logf("%s: %s in %s", res.Name, res.Length, time.Since(began))
			for _, m := range res.Story {
				t.Logf("%8s %-12s %s: %s", m.At, m.Actor, m.Title, m.Why)
			}
			for _, f := range res.Failures {
				t.Errorf("%s:%d: at %s: want %s, found %s, later %v", file, f.Line, f.At, f.Expected, f.Found, f.Later)
			}
		})
	}
}
