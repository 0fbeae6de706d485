package preflight

import (
	"strings"
	"testing"
	"time"

	"github.com/locotoki/backout/alerts"
	"github.com/locotoki/backout/remediation"
)

func TestTheFirstRuleThatDiffersIsNamed(t *testing.T) {
	want := func() []remediation.LoadedRule {
		return []remediation.LoadedRule{
			{Group: "shop", Name: "backout:alive", Expr: "up  ==\n bool 1", Labels: map[string]string{"service": "shop"}},
			{Group: "shop", Name: "RollbackErrors", Alert: true, Expr: `sum by (le) (x{le="1"}) > 0.01`, For: time.Minute,
				Labels: map[string]string{"trigger": "error_rate"}, Annotations: map[string]string{"summary": "s"}},
			{Group: "shop", Name: "Watchdog", Alert: true, Expr: "vector(1)"},
		}
	}
	for name, c := range map[string]struct {
		edit   func(have []remediation.LoadedRule) []remediation.LoadedRule
		result remediation.Status
		word   string
	}{
		"the same, written otherwise": {func(h []remediation.LoadedRule) []remediation.LoadedRule {
			h[0].Expr, h[1].Expr = "up == bool 1", `sum(x{le="1"}) by(le)>0.01`
			return append(h, remediation.LoadedRule{Group: "other", Name: "theirs", Expr: "1"})
		}, remediation.Pass, "all 3 rules"},
		"from a PrometheusRule": {func(h []remediation.LoadedRule) []remediation.LoadedRule {
			h[1].Labels["namespace"], h[2].Labels = "shop", map[string]string{"namespace": "shop"}
			return h
		}, remediation.Pass, "all 3 rules"},
		"nothing":        {func([]remediation.LoadedRule) []remediation.LoadedRule { return nil }, remediation.Fail, "no rule group shop"},
		"one is missing": {func(h []remediation.LoadedRule) []remediation.LoadedRule { return h[:2] }, remediation.Fail, "no rule Watchdog"},
		"an expression": {func(h []remediation.LoadedRule) []remediation.LoadedRule {
			h[1].Expr = `sum by (le) (x{le="1"}) > 0.02`
			return h
		}, remediation.Fail, "RollbackErrors (trigger error_rate) differs: Prometheus has the expression sum"},
		"a duration":     {func(h []remediation.LoadedRule) []remediation.LoadedRule { h[1].For = time.Second; return h }, remediation.Fail, "has for: 1s, not 1m"},
		"a label":        {func(h []remediation.LoadedRule) []remediation.LoadedRule { h[1].Labels = nil; return h }, remediation.Fail, "no rule RollbackErrors"},
		"an annotation":  {func(h []remediation.LoadedRule) []remediation.LoadedRule { h[1].Annotations = nil; return h }, remediation.Fail, "differs in its annotations"},
		"one that fails": {func(h []remediation.LoadedRule) []remediation.LoadedRule { h[2].Error = "many-to-many"; return h }, remediation.Fail, "Watchdog cannot be evaluated: many-to-many"},
		"one more": {func(h []remediation.LoadedRule) []remediation.LoadedRule {
			return append(h, remediation.LoadedRule{Group: "shop", Name: "theirs"})
		}, remediation.Fail, "theirs, which is not from the playbook"},
		"one twice":             {func(h []remediation.LoadedRule) []remediation.LoadedRule { return append(h, h[0]) }, remediation.Fail, "backout:alive, which is not from the playbook"},
		"a recording, no alert": {func(h []remediation.LoadedRule) []remediation.LoadedRule { h[2].Alert = false; return h }, remediation.Fail, "no rule Watchdog"},
	} {
		t.Run(name, func(t *testing.T) {
			f := compareRules("shop", want(), c.edit(want()))
			if f.Status != c.result || !strings.Contains(f.Evidence, c.word) || (f.Next == "") != (f.Status == remediation.Pass) {
				t.Errorf("it came to %+v; want %s, with %q", f, c.result, c.word)
			}
		})
	}
}

func TestAThresholdFitsAHistogramWhereABucketEnds(t *testing.T) {
	for name, c := range map[string]struct {
		le         []string
		thresholds []float64
		declared   []float64
		result     remediation.Status
		word       string
	}{
		"at bounds":                {[]string{"0.5", "1.0", "+Inf"}, []float64{0.5, 1}, nil, remediation.Pass, ""},
		"as the playbook says":     {[]string{"1", "0.5", "+Inf"}, []float64{0.5}, []float64{1, 0.5}, remediation.Pass, ""},
		"between two":              {[]string{"0.4", "0.8", "+Inf"}, []float64{0.75}, nil, remediation.CannotTell, "0.75 (between 0.4 and 0.8)"},
		"below the first":          {[]string{"0.4", "+Inf"}, []float64{0.1}, nil, remediation.CannotTell, "0.1 (below 0.4)"},
		"above the last":           {[]string{"0.4", "0.8", "+Inf"}, []float64{0.8, 2}, nil, remediation.Fail, "no quantile can exceed 0.8, but the threshold is 2"},
		"not as the playbook says": {[]string{"0.4", "+Inf"}, []float64{0.4}, []float64{0.5}, remediation.Fail, "the playbook has 0.5"},
		"no buckets":               {[]string{"+Inf"}, []float64{0.4}, nil, remediation.CannotTell, "no buckets"},
	} {
		t.Run(name, func(t *testing.T) {
			f := fits(&alerts.Indicator{Buckets: c.declared}, c.thresholds, c.le, 1, "x_bucket")
			if f.Status != c.result || !strings.Contains(f.Evidence, c.word) {
				t.Errorf("it came to %+v; want %s, with %q", f, c.result, c.word)
			}
		})
	}
}

func TestBucketsAreConvertedToTheIndicatorsUnit(t *testing.T) {
	ind := &alerts.Indicator{Buckets: []float64{50, 500, 1100}}
	if f := fits(ind, []float64{500, 1100}, []string{"0.05", "0.5", "1.1", "+Inf"}, 1000, "x_bucket"); f.Status != remediation.Pass {
		t.Errorf("it came to %+v", f)
	}
}

func TestPiecesOfWorkHaveNamesThatAreEasyToType(t *testing.T) {
	pb := &alerts.Playbook{}
	pb.Checklist = []alerts.ChecklistItem{{Item: "Go/No-go: decided?", Owner: "a"}, {Item: "go no go decided", Owner: "b"}, {Item: "äöü", Owner: "c"}}
	pb.Team = []alerts.Member{{Role: "Rollout Lead", Name: "Ada"}}
	pb.PostRollout = []alerts.Task{{Name: "n", Items: []string{strings.Repeat("word ", 40)}}}
	var ids []string
	for _, it := range remediation.PeoplesItems(pb) {
		ids = append(ids, it.ID)
	}
	got := strings.Join(ids, " ")
	want := "team/rollout-lead checklist/go-no-go-decided checklist/go-no-go-decided-2 checklist/item after/" + strings.TrimSuffix(strings.Repeat("word-", 12), "-")
	if got != want {
		t.Errorf("ids are %s, want %s", got, want)
	}
	if last := remediation.PeoplesItems(pb)[4]; last.Owner != "Ada (Rollout Lead)" || last.Before {
		t.Errorf("what comes after is %+v", last)
	}
}
