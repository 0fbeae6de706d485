package rules_test

import (
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/alertmanager/timeinterval"
	"go.yaml.in/yaml/v3"

	"github.com/locotoki/backout/alerts"
)

// paged is a playbook that pages at some time, with business hours in Vienna.
func paged(page alerts.Page) *alerts.Playbook {
	pb := smallPlaybook()
	pb.Communications = &alerts.Communications{
		Page: page, SlackChannel: "#incidents",
		BusinessHours: &alerts.BusinessHours{
			TimeZone: "Europe/Vienna", From: "09:00", To: "17:00",
			Days: []alerts.Weekday{alerts.Monday, alerts.Tuesday, alerts.Wednesday, alerts.Thursday, alerts.Friday},
		},
	}
	return pb
}

// receivers asks Alertmanager's own tool where an alert goes by a configuration.
func receivers(t *testing.T, config string, labels map[string]string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "alertmanager.yml")
	if err := os.WriteFile(path, []byte(config), 0o600); err != nil {
		t.Fatal(err)
	}
	args := []string{"config", "routes", "test", "--config.file=" + path}
	for _, name := range slices.Sorted(maps.Keys(labels)) {
		args = append(args, name+"="+labels[name])
	}
	out, ok := tool(t, "amtool", args...)
	if !ok {
		t.Fatalf("amtool: %s", out)
	}
	lines := strings.Split(strings.TrimSpace(out), "\n") // a warning about its own flags may come first
	return lines[len(lines)-1]
}

// mutedAt tells whether the pager is muted at a time, by Alertmanager's own code.
func mutedAt(t *testing.T, config string, at time.Time) bool {
	t.Helper()
	var cfg struct {
		Route struct {
			Routes []struct {
				Receiver string
				Mute     []string `yaml:"mute_time_intervals"`
			}
		}
		Times []struct {
			Name      string
			Intervals []timeinterval.TimeInterval `yaml:"time_intervals"`
		} `yaml:"time_intervals"`
	}
	if err := yaml.Unmarshal([]byte(config), &cfg); err != nil {
		t.Fatal(err)
	}
	known := map[string][]timeinterval.TimeInterval{}
	for _, k := range cfg.Times {
		known[k.Name] = k.Intervals
	}
	var mute []string
	for _, r := range cfg.Route.Routes {
		if r.Receiver == "pager" {
			mute = append(mute, r.Mute...)
		} else if len(r.Mute) > 0 {
			t.Errorf("the route to %s is muted", r.Receiver)
		}
	}
	muted, _, err := timeinterval.NewIntervener(known).Mutes(mute, at)
	if err != nil {
		t.Fatal(err)
	}
	return muted
}

func TestTheEngineerOnCallIsPagedAtTheTimesThatThePlaybookSays(t *testing.T) {
	critical := map[string]string{"alertname": "RemediationFailed", "service": "social-intel", "severity": "critical"}
	trigger := map[string]string{"alertname": "RollbackErrorRate", "service": "social-intel", "severity": "critical", "trigger": "error_rate"}
	warning := map[string]string{"alertname": "ErrorRateHigh", "service": "social-intel", "severity": "warning"}
	// In winter Vienna is an hour ahead of UTC: the hours are 08:00 to 16:00 there.
	times := map[string]time.Time{
		"monday at ten":            time.Date(2026, 11, 23, 9, 0, 0, 0, time.UTC),
		"monday at nine":           time.Date(2026, 11, 23, 8, 0, 0, 0, time.UTC),
		"monday, a minute to nine": time.Date(2026, 11, 23, 7, 59, 0, 0, time.UTC),
		"friday at five":           time.Date(2026, 11, 27, 16, 0, 0, 0, time.UTC),
		"saturday at noon":         time.Date(2026, 11, 28, 11, 0, 0, 0, time.UTC),
		"sunday at three":          time.Date(2026, 11, 22, 2, 0, 0, 0, time.UTC),
	}
	for page, want := range map[alerts.Page]struct {
		to    string
		muted []string
	}{
		alerts.PageAfterHours: {"slack,pager", []string{"monday at nine", "monday at ten"}},
		alerts.PageAlways:     {"slack,pager", nil},
		alerts.PageNever:      {"slack", nil},
	} {
		t.Run(string(page), func(t *testing.T) {
			config := generate(t, paged(page))["deploy/alertmanager.yml"]
			if got := receivers(t, config, critical); got != want.to {
				t.Errorf("what is critical goes to %s, want %s", got, want.to)
			}
			if got := receivers(t, config, trigger); got != "backout,"+want.to {
				t.Errorf("a trigger goes to %s, want backout first, then %s", got, want.to)
			}
			if got := receivers(t, config, warning); got != "slack" {
				t.Errorf("a warning goes to %s, and pages nobody", got)
			}
			var muted []string
			for name, at := range times {
				if mutedAt(t, config, at) {
					muted = append(muted, name)
				}
			}
			slices.Sort(muted)
			if !slices.Equal(muted, want.muted) {
				t.Errorf("the pager is muted %q, want %q", muted, want.muted)
			}
			if has := strings.Contains(config, "pagerduty_configs"); has != (page != alerts.PageNever) {
				t.Errorf("PagerDuty is configured: %t", has)
			}
		})
	}
}

func TestARemediationThatIsHeldOrFailedPages(t *testing.T) {
	files := generate(t, paged(alerts.PageAfterHours))
	var rules struct {
		Groups []struct {
			Rules []struct {
				Alert, Expr string
				Labels      map[string]string
			}
		}
	}
	if err := yaml.Unmarshal([]byte(files["rules/social-intel.rules.yml"]), &rules); err != nil {
		t.Fatal(err)
	}
	found := 0
	for _, g := range rules.Groups {
		for _, r := range g.Rules {
			if !slices.Contains([]string{"RemediationHeld", "RemediationFailed", "BackoutDown"}, r.Alert) {
				continue
			}
			found++
			if !strings.Contains(r.Expr, "backout") {
				t.Errorf("%s does not look at backout's own metrics: %s", r.Alert, r.Expr)
			}
			labels := maps.Clone(r.Labels)
			labels["alertname"] = r.Alert
			if labels["trigger"] != "" {
				t.Errorf("%s would roll something back", r.Alert)
			}
			if got := receivers(t, files["deploy/alertmanager.yml"], labels); got != "slack,pager" {
				t.Errorf("%s goes to %s, want slack,pager", r.Alert, got)
			}
		}
	}
	if found != 3 {
		t.Errorf("%d of the three guards were generated", found)
	}
}
