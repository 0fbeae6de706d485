package rules_test

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"go.yaml.in/yaml/v3"

	"github.com/locotoki/backout/alerts"
)

// promtools are Debian's promtool and the current one.
var promtools = []string{"promtool", "promtool3"}

// tool runs a program and returns what it says, and whether it was content.
func tool(t *testing.T, name string, args ...string) (string, bool) {
	t.Helper()
	path, err := exec.LookPath(name)
	if err != nil {
		t.Fatalf("%s is not in PATH: run the tests by make test, which fetches it", name)
	}
	out, err := exec.Command(path, args...).CombinedOutput()
	return string(out), err == nil
}

// write puts the generated files of rules/ into a folder of the test's own.
func write(t *testing.T, files map[string]string) string {
	t.Helper()
	dir := t.TempDir()
	for name, content := range files {
		if err := os.WriteFile(filepath.Join(dir, filepath.Base(name)), []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

var testFiles = []string{"social-intel.test.yml", "social-intel.coarse.test.yml", "social-intel.slow.test.yml"}

func TestBothGenerationsOfPromtoolPassOnTheGeneratedFiles(t *testing.T) {
	for name, pb := range map[string]*alerts.Playbook{"small": smallPlaybook(), "default": defaultPlaybook(t)} {
		dir := write(t, generate(t, pb))
		for _, promtool := range promtools {
			t.Run(name+"/"+promtool+"/rules", func(t *testing.T) {
				if out, ok := tool(t, promtool, "check", "rules", filepath.Join(dir, "social-intel.rules.yml")); !ok {
					t.Error(out)
				}
			})
			for _, file := range testFiles {
				t.Run(name+"/"+promtool+"/"+file, func(t *testing.T) {
					t.Parallel()
					if out, ok := tool(t, promtool, "test", "rules", filepath.Join(dir, file)); !ok {
						t.Error(out)
					}
				})
			}
		}
	}
}

func TestAlertmanagerTakesTheRoutesWithRollbacksFirst(t *testing.T) {
	small := smallPlaybook()
	never := smallPlaybook()
	never.Communications = &alerts.Communications{Page: alerts.PageNever, SlackChannel: "#ops"}
	for name, pb := range map[string]*alerts.Playbook{"small": small, "never paged": never, "default": defaultPlaybook(t)} {
		text := generate(t, pb)["deploy/alertmanager.yml"]
		path := filepath.Join(t.TempDir(), "alertmanager.yml")
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if out, ok := tool(t, "amtool", "check-config", path); !ok {
			t.Errorf("%s: %s", name, out)
		}
		var cfg struct {
			Route struct {
				Routes []struct {
					Receiver  string
					Matchers  []string
					GroupBy   []string `yaml:"group_by"`
					GroupWait string   `yaml:"group_wait"`
					Continue  bool
				}
			}
			Inhibit []any `yaml:"inhibit_rules"`
		}
		if err := yaml.Unmarshal([]byte(text), &cfg); err != nil {
			t.Fatal(err)
		}
		if len(cfg.Inhibit) != 0 {
			t.Errorf("%s: something is inhibited, so its end would never be sent", name)
		}
		if got := fmt.Sprint(cfg.Route.Routes[0]); got != `{backout [trigger!=""] [...] 0s true}` {
			t.Errorf("%s: the first route is %s", name, got)
		}
	}
}

func TestAlertsGoWhereTheyShould(t *testing.T) {
	path := filepath.Join(t.TempDir(), "alertmanager.yml")
	if err := os.WriteFile(path, []byte(generate(t, defaultPlaybook(t))["deploy/alertmanager.yml"]), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct{ labels, receivers string }{
		{"alertname=RollbackErrorRate severity=critical service=social-intel trigger=error_rate", "backout,slack,pager"},
		{"alertname=ErrorRateHigh severity=warning service=social-intel", "slack"},
		{"alertname=BackoutDown severity=critical service=social-intel", "slack,pager"},
		{"alertname=Watchdog severity=none service=social-intel", "backout"},
		{"alertname=RollbackElsewhere severity=critical service=another trigger=x", "backout,slack,pager"},
	} {
		out, ok := tool(t, "amtool", append([]string{"config", "routes", "test", "--config.file=" + path}, strings.Fields(c.labels)...)...)
		lines := strings.Split(strings.TrimSpace(out), "\n") // a warning about its own flags may come first
		if !ok || lines[len(lines)-1] != c.receivers {
			t.Errorf("%s goes to %s, want %s", c.labels, out, c.receivers)
		}
	}
}

// Each of these faults was once made in rules like these. A generated test
// finds it.
func TestTheGeneratedTestsFindFaultsInTheRules(t *testing.T) {
	files := generate(t, smallPlaybook())
	good := files["rules/social-intel.rules.yml"]
	const stage = `and on () backout:stage{service="social-intel",stage=~"gamma|delta"}`
	for _, c := range []struct{ name, old, new, file string }{
		{"no volume guard", ">= 100)", ">= 0)", "coarse"},
		{"the recovery is gated by the stage", "[2m])) >= 13)\n", "[2m])) >= 13) and on () backout:stage{stage=\"gamma\"}\n", "coarse"},
		{"the trigger's window judges the recovery", "[2m]))", "[15m]))", "coarse"},
		{"one sample above is enough", "min_over_time(db_cpu[10m])", "max_over_time(db_cpu[10m])", "coarse"},
		{"one good sample is a cure", "max_over_time(db_cpu[2m])", "min_over_time(db_cpu[2m])", "coarse"},
		{"the error series is needed for a value", " or 0 * sum(increase(si_requests_total[2m]))", "", "coarse"},
		{"alive does not look at up", `(min(up{job="social-intel"}) == bool 1) * `, "", "coarse"},
		{"the threshold is off", "> 0.01\n", "> 0.0112\n", "coarse"},
		{"the bound's side is wrong", "> 85\n", "< 85\n", "coarse"},
		{"samples from before the stage count", stage, "", ""},
		{"an instant value from before the stage counts", `and on () backout:stage{service="social-intel",stage="delta"}`, "", ""},
		{"a restart of backout ends the stage", "{service=\"social-intel\"}[1m])) == 1", "{service=\"social-intel\"}[15s])) == 1", ""},
		{"too short a wait for the absence of a stage", "for: 5m", "for: 1m", ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			if !strings.Contains(good, c.old) {
				t.Fatalf("the rules hold no %q", c.old)
			}
			bad := map[string]string{}
			for name, content := range files {
				bad[name] = content
			}
			bad["rules/social-intel.rules.yml"] = strings.ReplaceAll(good, c.old, c.new)
			file := "social-intel.test.yml"
			if c.file != "" {
				file = "social-intel." + c.file + ".test.yml"
			}
			out, ok := tool(t, "promtool", "test", "rules", filepath.Join(write(t, bad), file))
			if ok {
				t.Error("no generated test found it")
			}
			if strings.Contains(out, "rule_files") || strings.Contains(out, "parse error") || strings.Contains(out, "could not parse") {
				t.Errorf("the fault is none of meaning: %s", out)
			}
		})
	}
}
