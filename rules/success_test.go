package rules_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"go.yaml.in/yaml/v3"
)

// successTests bring the default playbook's measured criteria to both sides of
// their thresholds, at one sample in five minutes.
const successTests = `
rule_files: [success.rules.yml]
evaluation_interval: 1h
tests:
  - name: within both
    interval: 5m
    input_series:
      - {series: 'si_requests_total{job="social-intel",endpoint="/analytics",status="success"}', values: '0+9995x2300'}
      - {series: 'si_requests_total{job="social-intel",endpoint="/analytics",status="server_error"}', values: '0+ERRORSx2300'}
    promql_expr_test:
      - expr: backout:success_criterion{service="social-intel",criterion="Error rate < 0.1% sustained over 7 days"} < bool on (service, criterion) backout:success_threshold
        eval_time: 7d12h
        exp_samples: [{labels: '{criterion="Error rate < 0.1% sustained over 7 days",service="social-intel"}', value: MET}]
      - expr: count(backout:success_criterion{service="social-intel"})
        eval_time: 0s
        exp_samples: []
`

func TestSuccessCriteriaAreRecordedWithTheirThresholds(t *testing.T) {
	var all struct{ Groups []any }
	if err := yaml.Unmarshal([]byte(generate(t, nil)["rules/social-intel.rules.yml"]), &all); err != nil {
		t.Fatal(err)
	}
	alone, err := yaml.Marshal(map[string]any{"groups": all.Groups[1:]}) // the others are not for eight days at a time
	if err != nil {
		t.Fatal(err)
	}
	dir := write(t, map[string]string{"success.rules.yml": string(alone)})
	for name, tc := range map[string]struct{ errors, met string }{
		"just below": {"9", "1"}, // 9 of 10004
		"just above": {"11", "0"},
	} {
		for _, promtool := range promtools {
			t.Run(name+"/"+promtool, func(t *testing.T) {
				file := filepath.Join(dir, strings.ReplaceAll(name+promtool, " ", "-")+".test.yml")
				text := strings.NewReplacer("ERRORS", tc.errors, "MET", tc.met).Replace(successTests)
				if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
					t.Fatal(err)
				}
				if out, ok := tool(t, promtool, "test", "rules", file); !ok {
					t.Error(out)
				}
			})
		}
	}
}

func TestOnlyMeasuredSuccessCriteriaAreRecorded(t *testing.T) {
	f := rulesOf(t, generate(t, nil)["rules/social-intel.rules.yml"])
	g := f.Groups[1]
	if g.Interval != "5m" || len(g.Rules) != 4 {
		t.Fatalf("%d rules every %s, want a value and a threshold of two criteria every 5m", len(g.Rules), g.Interval)
	}
	for i, r := range g.Rules {
		want := []string{"backout:success_criterion", "backout:success_threshold"}[i%2]
		if r.Record != want || r.Labels["service"] != "social-intel" || r.Labels["criterion"] == "" {
			t.Errorf("rule %d is %+v", i, r)
		}
	}
	small := smallPlaybook()
	if n := len(rulesOf(t, generate(t, small)["rules/"+small.Service+".rules.yml"]).Groups); n != 1 {
		t.Errorf("without success criteria there are %d groups", n)
	}
}
