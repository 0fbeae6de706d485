package rules_test

import (
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/alertmanager/timeinterval"
	"github.com/prometheus/common/model"
	"go.yaml.in/yaml/v3"

	"github.com/locotoki/backout/alerts"
	"github.com/locotoki/backout/rules"
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

// mutedAt reports whether the pager of high urgency is muted at a time, by
// Alertmanager's own code.
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
		alerts.PageAfterHours: {"slack,pager-low-urgency,pager", []string{"monday at nine", "monday at ten"}},
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
	var loaded struct {
		Groups []struct {
			Rules []struct {
				Alert, Expr string
				Labels      map[string]string
			}
		}
	}
	if err := yaml.Unmarshal([]byte(files["rules/social-intel.rules.yml"]), &loaded); err != nil {
		t.Fatal(err)
	}
	found := 0
	for _, g := range loaded.Groups {
		for _, r := range g.Rules {
			if !slices.Contains([]string{"RemediationHeld", "RemediationFailed", "BackoutDown", "BackoutAuditBroken"}, r.Alert) {
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
			if got := receivers(t, files["deploy/alertmanager.yml"], labels); got != "slack,pager-low-urgency,pager" {
				t.Errorf("%s goes to %s, want slack and both pagers", r.Alert, got)
			}
		}
	}
	if found != 4 {
		t.Errorf("%d of the four guards were generated", found)
	}
}

// Alertmanager sends no end of an alert through a route that is muted. PagerDuty
// knows an alert by the route's matchers and the group's labels, so a route beside
// it that is alike and never muted sends the end for both.
func TestAPageThatEndsInBusinessHoursEndsAtThePager(t *testing.T) {
	config := generate(t, paged(alerts.PageAfterHours))["deploy/alertmanager.yml"]
	var cfg struct {
		Route struct {
			Routes []struct {
				Receiver string
				Mute     []string       `yaml:"mute_time_intervals"`
				Wait     model.Duration `yaml:"group_wait"`
				Rest     map[string]any `yaml:",inline"`
			}
		}
		Receivers []struct {
			Name      string
			PagerDuty []struct {
				Severity     string
				SendResolved *bool `yaml:"send_resolved"` // true, where it is not there
			} `yaml:"pagerduty_configs"`
		}
	}
	if err := yaml.Unmarshal([]byte(config), &cfg); err != nil {
		t.Fatal(err)
	}
	severity := map[string]string{}
	for _, r := range cfg.Receivers {
		for _, p := range r.PagerDuty {
			if p.SendResolved != nil {
				t.Errorf("%s may send no end", r.Name)
			}
			severity[r.Name] = p.Severity
		}
	}
	if !maps.Equal(severity, map[string]string{"pager-low-urgency": "warning", "pager": "critical"}) {
		t.Errorf("the pagers' severities are %v", severity)
	}
	var keys []string
	var waits []model.Duration
	for _, r := range cfg.Route.Routes {
		if severity[r.Receiver] == "" {
			continue
		}
		if muted := len(r.Mute) > 0; muted != (r.Receiver == "pager") {
			t.Errorf("the route to %s is muted: %t", r.Receiver, muted)
		}
		delete(r.Rest, "continue")
		keys, waits = append(keys, fmt.Sprint(r.Rest)), append(waits, r.Wait)
	}
	if len(keys) != 2 || keys[0] != keys[1] {
		t.Errorf("PagerDuty would take the two for different alerts: %q", keys)
	}
	if len(waits) != 2 || waits[0] >= waits[1] {
		t.Errorf("after %v the low urgency does not come first", waits)
	}
}

func TestOnlyThoseWhomThePlaybookNamesAreTold(t *testing.T) {
	critical := map[string]string{"alertname": "RemediationFailed", "service": "social-intel", "severity": "critical"}
	for name, tc := range map[string]struct {
		told *alerts.Communications
		to   string
	}{
		"nobody":     {nil, "nobody"},
		"slack":      {&alerts.Communications{SlackChannel: "#ops", Page: alerts.PageNever}, "slack"},
		"the pager":  {&alerts.Communications{Page: alerts.PageAlways}, "pager"},
		"both":       {&alerts.Communications{SlackChannel: "#ops", Page: alerts.PageAlways}, "slack,pager"},
		"mail alone": {&alerts.Communications{Mail: &alerts.Mail{}, Page: alerts.PageNever}, "nobody"},
	} {
		t.Run(name, func(t *testing.T) {
			pb := smallPlaybook()
			pb.Communications = tc.told
			config := generate(t, pb)["deploy/alertmanager.yml"]
			if got := receivers(t, config, critical); got != tc.to {
				t.Errorf("what is critical goes to %s, want %s", got, tc.to)
			}
			for word, named := range map[string]bool{"slack": strings.Contains(tc.to, "slack"), "pagerduty": strings.Contains(tc.to, "pager")} {
				if strings.Contains(config[strings.Index(config, "route:"):], word) != named {
					t.Errorf("%s is configured: %t", word, !named)
				}
			}
		})
	}
}

func TestAlertmanagerFindsBackoutWhereTheSettingsSay(t *testing.T) {
	files, err := rules.Settings{WebhookURL: "https://backout.example.com/hook", TokenFile: "/run/secrets/token"}.Deployed(paged(alerts.PageAlways))
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range files {
		if f.Name != "deploy/alertmanager.yml" {
			continue
		}
		for _, want := range []string{"url: https://backout.example.com/hook\n", "credentials_file: /run/secrets/token\n", "routing_key_file: /run/secrets/pagerduty.key\n", "api_url_file: /run/secrets/slack.url\n"} {
			if !strings.Contains(string(f.Content), want) {
				t.Errorf("%q is not in %s", want, f.Content)
			}
		}
	}
}
