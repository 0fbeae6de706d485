package rules_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/locotoki/backout/alerts"
	"github.com/locotoki/backout/rules"
)

func coverage(t *testing.T, pb *alerts.Playbook, rehearsed rules.Rehearsals) []rules.Covered {
	t.Helper()
	lines, err := rules.Coverage(pb, rehearsed)
	if err != nil {
		t.Fatal(err)
	}
	return lines
}

func TestNothingIsMissingInTheDefaultPlaybook(t *testing.T) {
	pb, all := defaultPlaybook(t), ""
	for name, text := range generate(t, nil) {
		if strings.HasSuffix(name, ".test.yml") {
			all += strings.ReplaceAll(text, "''", "'")
		}
	}
	lines := coverage(t, pb, nil)
	if len(lines) != 7+11 {
		t.Errorf("%d lines, want the 7 alert thresholds and the 11 triggers", len(lines))
	}
	for _, l := range lines {
		if len(l.Missing) != 0 || l.Rehearsed != nil {
			t.Errorf("%s: %+v", l.Line, l)
		}
		for _, name := range []string{l.Fires, l.Silent} {
			if !strings.HasPrefix(name, l.Rule+": ") || !strings.Contains(all, name) {
				t.Errorf("%s: no generated test is called %q", l.Line, name)
			}
		}
		if (l.Plan == "ladder") != (l.Kind != "alert") {
			t.Errorf("%s has the plan %q", l.Line, l.Plan)
		}
	}
}

func TestTheRoutesOfTheCoverageAreThoseThatAmtoolFinds(t *testing.T) {
	for _, page := range []alerts.Page{alerts.PageAlways, alerts.PageNever} {
		pb := smallPlaybook()
		pb.Communications = &alerts.Communications{Page: page}
		path := filepath.Join(t.TempDir(), "alertmanager.yml")
		if err := os.WriteFile(path, []byte(generate(t, pb)["deploy/alertmanager.yml"]), 0o600); err != nil {
			t.Fatal(err)
		}
		seen := map[string]bool{}
		for _, l := range coverage(t, pb, nil) {
			if seen[l.Kind] {
				continue // the routes know only severity and trigger
			}
			seen[l.Kind] = true
			labels := []string{"alertname=" + l.Rule, "service=social-intel", "severity=critical", "trigger=" + l.Name}
			if l.Kind == "alert" {
				labels = []string{"alertname=" + l.Rule, "service=social-intel", "severity=warning", "indicator=" + l.Name}
			}
			out, ok := tool(t, "amtool", append([]string{"config", "routes", "test", "--config.file=" + path}, labels...)...)
			said := strings.Split(strings.TrimSpace(out), "\n")
			if got := strings.Join(l.Route, ","); !ok || said[len(said)-1] != got {
				t.Errorf("%s goes to %s, and amtool says %s", l.Rule, got, out)
			}
		}
		if len(seen) != 3 {
			t.Errorf("only %v were looked at", seen)
		}
	}
}

func TestAPlanThatWasRehearsedSaysWhen(t *testing.T) {
	at := time.Date(2026, 11, 20, 9, 0, 0, 0, time.UTC)
	for _, l := range coverage(t, defaultPlaybook(t), rules.Rehearsals{"ladder": at}) {
		if (l.Rehearsed != nil && l.Rehearsed.Equal(at)) != (l.Kind != "alert") {
			t.Errorf("%s was rehearsed %v", l.Line, l.Rehearsed)
		}
	}
}

func TestAPlanWithoutStepsAndAnIndicatorOnNoDashboardAreMissed(t *testing.T) {
	pb := smallPlaybook() // its plan has no steps
	pb.Dashboards = map[string]string{"Elsewhere": "https://grafana.example.com/d/elsewhere"}
	for _, l := range coverage(t, pb, nil) {
		want := "plan"
		if l.Kind == "alert" {
			want = "dashboard"
		}
		if strings.Join(l.Missing, ",") != want {
			t.Errorf("%s misses %v, want %s", l.Line, l.Missing, want)
		}
	}
}
