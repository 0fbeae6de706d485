package rules_test

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/promql/parser"
	"go.yaml.in/yaml/v3"

	"github.com/locotoki/backout/remediation/crashtest"
)

// promtoolAgrees runs the generated tests whose names are wanted with both promtools; with
// -short, each file's with one of them.
func promtoolAgrees(t *testing.T, files map[string]string, wanted func(name string) bool) {
	t.Helper()
	for _, file := range testFiles {
		paths := lean(t, files, file, wanted)
		if len(paths) == 0 {
			continue
		}
		for _, promtool := range crashtest.Draw(t, promtools) {
			t.Run(promtool+"/"+file, func(t *testing.T) {
				t.Parallel()
				if out, ok := tool(t, promtool, append([]string{"test", "rules"}, paths...)...); !ok {
					t.Error(out)
				}
			})
		}
	}
}

// lean writes the wanted cases of a test file, each with no other rules than those
// that it reads, on the way: promtool evaluates all rules of a file for each case,
// which took nine tenths of the time. It returns the paths of the test files.
func lean(t *testing.T, files map[string]string, file string, wanted func(name string) bool) (paths []string) {
	t.Helper()
	var all struct {
		Groups []map[string]any
	}
	if err := yaml.Unmarshal([]byte(files["rules/social-intel.rules.yml"]), &all); err != nil {
		t.Fatal(err)
	}
	var tests map[string]any
	if err := yaml.Unmarshal([]byte(files["rules/"+file]), &tests); err != nil {
		t.Fatal(err)
	}
	// Cases of the same rules share a file.
	bundles := map[string][]any{}
	for _, one := range tests["tests"].([]any) {
		if c := one.(map[string]any); wanted(c["name"].(string)) {
			rules := leanRules(t, all.Groups, c)
			bundles[rules] = append(bundles[rules], one)
		}
	}
	dir := t.TempDir()
	for rules, cases := range bundles {
		n := len(paths)
		tests["tests"], tests["rule_files"] = cases, []string{fmt.Sprintf("%d.rules.yml", n)}
		text, err := yaml.Marshal(tests)
		if err != nil {
			t.Fatal(err)
		}
		paths = append(paths, filepath.Join(dir, fmt.Sprintf("%d.test.yml", n)))
		for path, content := range map[string]string{paths[n]: string(text), filepath.Join(dir, fmt.Sprintf("%d.rules.yml", n)): rules} {
			if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
				t.Fatal(err)
			}
		}
	}
	return paths
}

// leanRules are the rules that a case's checks read, and those that these read, as a
// rule file.
func leanRules(t *testing.T, groups []map[string]any, testCase map[string]any) string {
	t.Helper()
	var rules []map[string]any
	for _, g := range groups {
		for _, r := range g["rules"].([]any) {
			rules = append(rules, r.(map[string]any))
		}
	}
	needed := map[int]bool{}
	var read func(expr string)
	read = func(expr string) {
		parsed, err := parser.NewParser(parser.Options{}).ParseExpr(expr)
		if err != nil {
			t.Fatal(err)
		}
		parser.Inspect(parsed, func(n parser.Node, _ []parser.Node) error {
			if s, ok := n.(*parser.VectorSelector); ok {
				for i, r := range rules {
					if !needed[i] && makes(r, s) {
						needed[i] = true
						read(fmt.Sprint(r["expr"]))
					}
				}
			}
			return nil
		})
	}
	for _, check := range testCase["promql_expr_test"].([]any) {
		read(fmt.Sprint(check.(map[string]any)["expr"]))
	}
	var kept []map[string]any
	i := 0
	for _, g := range groups {
		lean := map[string]any{"name": g["name"], "interval": g["interval"]}
		var own []any
		for _, r := range g["rules"].([]any) {
			if needed[i] {
				own = append(own, r)
			}
			i++
		}
		if len(own) > 0 {
			lean["rules"] = own
			kept = append(kept, lean)
		}
	}
	text, err := yaml.Marshal(map[string]any{"groups": kept})
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// makes reports whether a rule can make series that a selector reads.
func makes(r map[string]any, s *parser.VectorSelector) bool {
	own := map[string]string{"__name__": fmt.Sprint(r["record"])}
	if alert, ok := r["alert"]; ok {
		own["__name__"], own["alertname"] = "ALERTS", fmt.Sprint(alert)
	}
	if own["__name__"] != s.Name {
		return false
	}
	static, _ := r["labels"].(map[string]any)
	for k, v := range static {
		if text := fmt.Sprint(v); !strings.Contains(text, "{{") {
			own[k] = text
		}
	}
	return !slices.ContainsFunc(s.LabelMatchers, func(m *labels.Matcher) bool {
		v, told := own[m.Name]
		return told && !m.Matches(v)
	})
}
