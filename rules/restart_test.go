package rules_test

import (
	"strings"
	"testing"
)

// A backout that restarts within the first minutes of a stage may have another
// instance, whose only samples are those of the stage.
func TestARestartOfBackoutDoesNotMakeAStageLookOlder(t *testing.T) {
	t.Parallel()
	files := generate(t, smallPlaybook())
	files["rules/social-intel.test.yml"] = `evaluation_interval: 15s
tests:
  - name: backout restarts a minute after gamma begins
    interval: 15s
    input_series:
      - {series: 'rollout_stage{service="social-intel",stage="none",instance="a"}', values: 1x39 0x3 stale}
      - {series: 'rollout_stage{service="social-intel",stage="gamma",instance="a"}', values: 0x39 1x3 stale}
      - {series: 'rollout_stage{service="social-intel",stage="none",instance="b"}', values: _x44 0x80}
      - {series: 'rollout_stage{service="social-intel",stage="gamma",instance="b"}', values: _x44 1x80}
      - {series: 'si_requests_total{job="social-intel",instance="a",status="success"}', values: 0+992x130}
      - {series: 'si_requests_total{job="social-intel",instance="a",status="error"}', values: 0+8x130}
    promql_expr_test:
      - {expr: 'ALERTS{alertname="RollbackGammaErrorRate"}', eval_time: 12m, exp_samples: []}
      - {expr: 'count(ALERTS{alertname="RollbackGammaErrorRate"})', eval_time: 15m, exp_samples: [{labels: '{}', value: 1}]}
`
	promtoolAgrees(t, files, func(name string) bool { return strings.HasPrefix(name, "backout restarts") })
}
