package rules_test

import (
	"strings"
	"testing"

	"github.com/locotoki/backout/alerts"
)

// Alertmanager reads one file, whatever the number of services.
func TestPlaybooksThatTellTheSamePeopleShareAlertmanagersConfiguration(t *testing.T) {
	ours, err := alerts.Default(kinds)
	if err != nil {
		t.Fatal(err)
	}
	ours.Service, ours.Job, ours.Dashboards = "shop", "shop", nil
	theirs, shared := generate(t, nil), 0
	for name, content := range generate(t, ours) {
		other, ok := theirs[name]
		if !ok {
			continue
		}
		if shared++; other != content {
			a, _, _ := strings.Cut(content, "\n")
			b, _, _ := strings.Cut(other, "\n")
			t.Errorf("%s differs: %q and %q", name, a, b)
		}
	}
	if shared == 0 || theirs["deploy/alertmanager.yml"] == "" {
		t.Errorf("%d files are shared", shared)
	}
}
