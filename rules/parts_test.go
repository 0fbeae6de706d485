package rules_test

import (
	"fmt"
	"maps"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/locotoki/backout/alerts"
	"github.com/locotoki/backout/rules"
)

// parts generates a playbook's files with so many rules in a group at most.
func parts(t *testing.T, pb *alerts.Playbook, most int) map[string]string {
	t.Helper()
	files, err := rules.Settings{MaxRulesPerGroup: most}.Generate(pb)
	if err != nil {
		t.Fatal(err)
	}
	byName := map[string]string{}
	for _, f := range files {
		byName[f.Name] = string(f.Content)
	}
	return byName
}

func TestNoGroupHasMoreRulesThanItMay(t *testing.T) {
	const name = "rules/social-intel.rules.yml"
	whole := map[string]int{}
	for _, g := range rulesOf(t, generate(t, nil)[name]).Groups {
		for _, r := range g.Rules {
			whole[fmt.Sprintf("%s %s", g.Name, fmt.Sprint(r))]++
		}
	}
	files, err := rules.Settings{MaxRulesPerGroup: 20}.Deployed(defaultPlaybook(t))
	if err != nil {
		t.Fatal(err)
	}
	i := slices.IndexFunc(files, func(f rules.File) bool { return f.Name == name })
	made, names := map[string]int{}, map[string]bool{}
	for _, g := range rulesOf(t, string(files[i].Content)).Groups {
		if len(g.Rules) > 20 || names[g.Name] {
			t.Errorf("the group %s has %d rules, or is there twice", g.Name, len(g.Rules))
		}
		names[g.Name] = true
		for _, r := range g.Rules {
			made[fmt.Sprintf("%s %s", rules.GroupOf(g.Name), fmt.Sprint(r))]++
		}
	}
	if !maps.Equal(whole, made) {
		t.Error("the parts have other rules than the whole")
	}
	if len(names) < 4 || !names["social-intel"] || !names["social-intel:2"] {
		t.Errorf("the groups are %v", slices.Sorted(maps.Keys(names)))
	}
}

func TestATriggersRulesAreNotTakenApart(t *testing.T) {
	_, err := rules.Settings{MaxRulesPerGroup: 1}.Deployed(defaultPlaybook(t))
	if err == nil || !strings.Contains(err.Error(), "belong into one group, which may have 1") {
		t.Errorf("the error is %v", err)
	}
}

func TestTheGeneratedTestsPassOnRulesInParts(t *testing.T) {
	t.Parallel()
	files := parts(t, smallPlaybook(), 8)
	if !strings.Contains(files["rules/social-intel.test.yml"], "group_eval_order: [social-intel, 'social-intel:2', ") {
		t.Error("the tests do not say in which order the groups are evaluated")
	}
	for _, name := range []string{"RollbackGammaErrorRate: counts only", "RollbackGammaErrorRate: recovered", "RollbackDbCpu: silent just inside", "StageMetricAbsent"} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			dir := write(t, map[string]string{"one.test.yml": only(t, files, name), "social-intel.rules.yml": files["rules/social-intel.rules.yml"]})
			for _, promtool := range promtools {
				if out, ok := tool(t, promtool, "test", "rules", filepath.Join(dir, "one.test.yml")); !ok {
					t.Errorf("%s: %s", promtool, out)
				}
			}
		})
	}
}
