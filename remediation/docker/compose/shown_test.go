package compose

import (
	"os"
	"testing"

	"go.yaml.in/yaml/v3"
)

// docker's TestEachShownKeySurvivesACopy copies the containers of these services.
func TestEachShownKeyHasASample(t *testing.T) {
	raw, err := os.ReadFile("testdata/shown-keys.yaml")
	if err != nil {
		t.Fatal(err)
	}
	var samples map[string]map[string]any
	if err := yaml.Unmarshal(raw, &samples); err != nil {
		t.Fatal(err)
	}
	covered := map[string]bool{}
	for _, sample := range samples {
		for key := range sample {
			covered[key] = true
		}
	}
	for _, key := range shownKeys {
		if !covered[key] {
			t.Errorf("no sample has the key %s", key)
		}
	}
}
