package config

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/locotoki/backout/alerts"
)

func TestLimitsOfRealms(t *testing.T) {
	load := func(t *testing.T, text string) (*Config, error) {
		file := filepath.Join(t.TempDir(), "backout.yml")
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return Load(file)
	}
	cfg, err := load(t, "limits: [{services: 5/10m}, {realm: host:web-1, services: 2/1h}, {realm: default, services: 1/1h}, {realm: cluster, services: 1/1h}, {realm: cluster:prod, services: 3/1d}]")
	want := []Limit{
		{"", alerts.Rate{Count: 5, Window: 10 * time.Minute}}, {"host:web-1", alerts.Rate{Count: 2, Window: time.Hour}}, {"default", alerts.Rate{Count: 1, Window: time.Hour}},
		{"cluster", alerts.Rate{Count: 1, Window: time.Hour}}, {"cluster:prod", alerts.Rate{Count: 3, Window: 24 * time.Hour}},
	}
	if err != nil || !slices.Equal(cfg.Limits, want) {
		t.Fatalf("got %+v, %v; want %+v", cfg, err, want)
	}
	for text, words := range map[string]string{
		"limits: [{services: many}]":                   "a limit's services must be a count and a duration",
		"limits: [{services: 0/10m}]":                  "a limit's services must be a count and a duration",
		"limits: [{realm: host:web-1}]":                "a limit needs services",
		"limits: [{realm: web-1, services: 1/1m}]":     `invalid realm "web-1" of a limit`,
		"limits: [{realm: 'host:', services: 1/1m}]":   `invalid realm "host:" of a limit`,
		"limits: [{services: 1/1m}, {services: 2/1m}]": "two limits of realm",
		"limits: [{services: 1/1m, steps: 2/1m}]":      `unknown key "steps"`,
		"limits: {services: 1/1m}":                     "limits must be a list",
	} {
		if _, err := load(t, text); err == nil || !strings.Contains(err.Error(), words) {
			t.Errorf("%s: %v, want %q", text, err, words)
		}
	}
}
