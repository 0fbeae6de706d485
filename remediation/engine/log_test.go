package engine_test

import (
	"bytes"
	"encoding/json"
	"log/slog"
	"testing"
	"time"

	"github.com/locotoki/backout/remediation"
	"github.com/locotoki/backout/remediation/audit"
)

// logLines are serve's log of audit entries, by seq.
func logLines(t *testing.T, log []byte) map[int64]map[string]any {
	t.Helper()
	out := map[int64]map[string]any{}
	for line := range bytes.Lines(log) {
		var m map[string]any
		if err := json.Unmarshal(line, &m); err != nil {
			t.Fatal(err)
		}
		if seq, ok := m["seq"].(float64); ok && m["msg"] == "audit" {
			if out[int64(seq)] != nil {
				t.Errorf("two lines for entry %d", int64(seq))
			}
			out[int64(seq)] = m
		}
	}
	return out
}

func TestServesLogHasTheValuesThatDecided(t *testing.T) {
	var log bytes.Buffer
	w := newHarness(t)
	w.logger = slog.NewJSONHandler(&log, &slog.HandlerOptions{Level: slog.LevelDebug})
	w.start()
	w.prom.recovery["error_rate"] = 0 // confirmed by one expression only, for a while
	w.declare("alpha")
	w.prom.value["error_rate"] = 5
	id := w.fire("error_rate", "fp1")
	w.breach("error_rate")
	w.pass(12 * time.Minute)
	w.calm("error_rate")
	w.post("resolved", "error_rate", "fp1")
	w.pass(20 * time.Minute)
	w.is(id, remediation.Closed, "")
	w.must(w.restore(id))
	w.tick()

	got, seen := logLines(t, log.Bytes()), map[audit.Kind]bool{}
	undo := false
	for _, e := range w.entries("") {
		line := got[e.Seq]
		if e.Kind == audit.KindStarted {
			continue // before the log was kept
		}
		if line == nil || line["kind"] != string(e.Kind) {
			t.Errorf("entry %d (%s) has the line %v", e.Seq, e.Kind, line)
			continue
		}
		if rows, ok := e.Detail["triggers"].([]any); ok && len(rows) > 0 {
			seen[e.Kind] = true
			for _, key := range []string{"trigger", "value", "threshold"} {
				if want := rows[0].(map[string]any)[key]; line[key] != want {
					t.Errorf("entry %d (%s): %s is %v in the log, %v in the audit log", e.Seq, e.Kind, key, line[key], want)
				}
			}
		}
		for _, key := range []string{"target", "undo"} {
			if line[key] != e.Detail[key] {
				t.Errorf("entry %d (%s): %s is %v in the log, %v in the audit log", e.Seq, e.Kind, key, line[key], e.Detail[key])
			}
		}
		undo = undo || e.Kind == audit.KindIntent && line["undo"] == true
	}
	for _, kind := range []audit.Kind{audit.KindSettled, audit.KindRecovered, audit.KindClosed} {
		if !seen[kind] {
			t.Errorf("no %s with values of triggers was written", kind)
		}
	}
	if !undo {
		t.Error("no intent of an undo was written")
	}
}
