package notification

import (
	"encoding/json"
	"os"
	"path/filepath"
	"testing"
)

// FuzzDecode: whatever comes in, each element of alerts comes out as one alert
// that can be recorded, or the whole is refused.
func FuzzDecode(f *testing.F) {
	files, err := filepath.Glob("../../testdata/payloads/*.json")
	if err != nil || len(files) == 0 {
		f.Fatalf("no payloads: %v", err)
	}
	for _, file := range files {
		body, err := os.ReadFile(file)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(body)
	}
	for _, s := range []string{"", "null", `{"version":"4","groupKey":"g","alerts":[null,5,{},{"status":1},{"labels":{"a":null}}]}`, `{"alerts":[1],"ALERTS":[2,3],"version":"4","groupKey":"\u0000"}`} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		n, _, err := Decode(data)
		if err != nil {
			if err.Error() == "" {
				t.Error("a refusal without a word")
			}
			return
		}
		var elements struct {
			Alerts []any `json:"alerts"`
		}
		if err := json.Unmarshal(data, &elements); err != nil {
			t.Fatalf("it took what is no JSON: %v", err)
		}
		if len(n.Alerts) != len(elements.Alerts) {
			t.Errorf("%d alerts of %d", len(n.Alerts), len(elements.Alerts))
		}
		for i, a := range n.Alerts {
			if a.Fingerprint == "" || a.Labels == nil {
				t.Errorf("alert %d cannot be recorded: %+v", i, a)
			}
		}
		if n.GroupKey == "" {
			t.Error("no group key")
		}
	})
}
