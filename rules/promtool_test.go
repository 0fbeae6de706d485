package rules_test

import (
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"go.yaml.in/yaml/v3"

	"github.com/locotoki/backout/alerts"
	"github.com/locotoki/backout/remediation/crashtest"
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
	cmd := exec.Command(path, args...)
	cmd.Env = append(os.Environ(), "GOGC=800") // each test of promtool makes a database anew: some of its time is collecting them
	out, err := cmd.CombinedOutput()
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
	t.Parallel()
	files := generate(t, nil)
	dir := write(t, files)
	for _, promtool := range promtools {
		t.Run(promtool+"/rules", func(t *testing.T) {
			if out, ok := tool(t, promtool, "check", "rules", filepath.Join(dir, "social-intel.rules.yml")); !ok {
				t.Error(out)
			}
		})
	}
	promtoolAgrees(t, files, func(string) bool { return true })
	// And as people run it, each case with all rules.
	t.Run("whole", func(t *testing.T) {
		t.Parallel()
		const file = "rules/social-intel.coarse.test.yml"
		var tests map[string]any
		if err := yaml.Unmarshal([]byte(files[file]), &tests); err != nil {
			t.Fatal(err)
		}
		all := tests["tests"].([]any)
		var cases []any
		for n := range crashtest.Points(t) {
			if n >= len(all) {
				break
			}
			cases = append(cases, all[n])
		}
		tests["tests"] = cases
		text, err := yaml.Marshal(tests)
		if err != nil {
			t.Fatal(err)
		}
		files := maps.Clone(files)
		files[file] = string(text)
		if out, ok := tool(t, "promtool", "test", "rules", filepath.Join(write(t, files), filepath.Base(file))); !ok {
			t.Error(out)
		}
	})
}

// aboutBounds chooses the cases of triggers and of indicators; those of backout's own
// guards are the same in every playbook.
func aboutBounds(name string) bool {
	return strings.HasPrefix(name, "Rollback") || strings.HasPrefix(name, "IndicatorAbsent") || strings.Contains(name, "its threshold")
}

func TestAlertmanagerTakesTheRoutesWithRollbacksFirst(t *testing.T) {
	small := smallPlaybook()
	never := smallPlaybook()
	never.Communications = &alerts.Communications{Page: alerts.PageNever, SlackChannel: "#ops"}
	for name, pb := range map[string]*alerts.Playbook{"small": small, "never paged": never, "default": nil} {
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
	if err := os.WriteFile(path, []byte(generate(t, nil)["deploy/alertmanager.yml"]), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct{ labels, receivers string }{
		{"alertname=RollbackErrorRate severity=critical service=social-intel trigger=error_rate", "backout,slack,pager-low-urgency,pager"},
		{"alertname=ErrorRateHigh severity=warning service=social-intel", "slack"},
		{"alertname=BackoutDown severity=critical service=social-intel", "slack,pager-low-urgency,pager"},
		{"alertname=Watchdog severity=none service=social-intel", "backout"},
		{"alertname=RollbackElsewhere severity=critical service=another trigger=x", "backout,slack,pager-low-urgency,pager"},
	} {
		out, ok := tool(t, "amtool", append([]string{"config", "routes", "test", "--config.file=" + path}, strings.Fields(c.labels)...)...)
		lines := strings.Split(strings.TrimSpace(out), "\n") // a warning about its own flags may come first
		if !ok || lines[len(lines)-1] != c.receivers {
			t.Errorf("%s goes to %s, want %s", c.labels, out, c.receivers)
		}
	}
}

// Each of these faults is easily made in rules like these. The generated test
// that is named finds it, and passes without it.
func TestTheGeneratedTestsFindFaultsInTheRules(t *testing.T) {
	t.Parallel()
	files := generate(t, smallPlaybook())
	const rulesFile = "rules/social-intel.rules.yml"
	good := files[rulesFile]
	faults := []struct{ name, old, new, finder string }{
		{"no volume guard", ">= 100)", ">= 0)", "RollbackErrorRate: silent with a little less"},
		{"no volume guard in the stage", ">= 100)", ">= 0)", "RollbackGammaErrorRate: silent with a little less"},
		{"no volume guard of the recovery", ">= 13)", ">= 0)", "RollbackErrorRate: too few"},
		{"the recovery is gated by the stage", "[2m])) >= 13)\n", "[2m])) >= 13) and on () backout:stage{stage=\"gamma\"}\n", "RollbackGammaErrorRate: not recovered"},
		{"the trigger's window judges the recovery", "[2m]))", "[15m]))", "RollbackErrorRate: recovered"},
		{"one sample above is enough", "min_over_time(db_cpu[10m])", "max_over_time(db_cpu[10m])", "RollbackDbCpu: silent just inside"},
		{"one good sample is a cure", "max_over_time(db_cpu[2m])", "min_over_time(db_cpu[2m])", "RollbackDbCpu: one good sample"},
		{"the error series is needed for a value", " or 0 * sum(increase(si_requests_total[2m]))", "", "RollbackErrorRate: recovered"},
		{"alive does not look at up", `(max(up{job="social-intel"}) == bool 1) * `, "", "ServiceDown: fires if it is not scraped"},
		{"the threshold is a little too high", "> 0.01\n", "> 0.0112\n", "RollbackErrorRate: silent just inside"},
		{"the bound has the wrong side", "> 85\n", "< 85\n", "RollbackDbCpu: silent just inside"},
		{"samples from before the stage count", `and on () backout:stage{service="social-intel",stage=~"gamma|delta"}`, "", "RollbackGammaErrorRate: counts only"},
		{"an instant value from before the stage counts", `and on () backout:stage{service="social-intel",stage="delta"}`, "", "RollbackDeltaCpu: counts only"},
		{"a restart of backout ends the stage", `last_over_time(rollout_stage{service="social-intel"}[1h])`, `last_over_time(rollout_stage{service="social-intel"}[15s])`, "StageMetricAbsent"},
		{"the absence of a stage is told too early", "for: 5m", "for: 1m", "StageMetricAbsent"},
		{"a day of freeze is not looked at as a whole", "min_over_time(backout_frozen", "last_over_time(backout_frozen", "FrozenOverADay"},
	}
	// found are the tests of a fault's finder, on the given rules.
	found := func(t *testing.T, rules string, finders ...string) []string {
		t.Helper()
		with := maps.Clone(files)
		with[rulesFile] = rules
		var paths []string
		for _, file := range testFiles {
			paths = append(paths, lean(t, with, file, func(name string) bool {
				return slices.ContainsFunc(finders, func(finder string) bool { return strings.HasPrefix(name, finder) })
			})...)
		}
		return paths
	}
	var finders []string
	for _, c := range faults {
		finders = append(finders, c.finder)
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			bad := strings.ReplaceAll(good, c.old, c.new)
			if bad == good {
				t.Fatalf("the rules hold no %q", c.old)
			}
			dir := write(t, map[string]string{rulesFile: bad})
			if out, ok := tool(t, "promtool", "check", "rules", filepath.Join(dir, "social-intel.rules.yml")); !ok {
				t.Fatalf("the fault is not one of meaning: %s", out)
			}
			paths := found(t, bad, c.finder)
			if len(paths) == 0 {
				t.Fatalf("no generated test is called %q", c.finder)
			}
			if _, ok := tool(t, "promtool", append([]string{"test", "rules"}, paths...)...); ok {
				t.Errorf("%q does not find it", c.finder)
			}
		})
	}
	t.Run("no fault", func(t *testing.T) {
		t.Parallel()
		if out, ok := tool(t, "promtool", append([]string{"test", "rules"}, found(t, good, finders...)...)...); !ok {
			t.Error(out)
		}
	})
}

// only is the test file that holds the tests of the given name, with them alone.
func only(t *testing.T, files map[string]string, name string) string {
	t.Helper()
	for _, file := range testFiles {
		var all map[string]any
		if err := yaml.Unmarshal([]byte(files["rules/"+file]), &all); err != nil {
			t.Fatal(err)
		}
		var kept []any
		tests, _ := all["tests"].([]any)
		for _, one := range tests {
			if test, _ := one.(map[string]any); strings.HasPrefix(fmt.Sprint(test["name"]), name) {
				kept = append(kept, one)
			}
		}
		if len(kept) == 0 {
			continue
		}
		all["tests"] = kept
		text, err := yaml.Marshal(all)
		if err != nil {
			t.Fatal(err)
		}
		return string(text)
	}
	t.Fatalf("no generated test is called %q", name)
	return ""
}
