package preflight

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/prometheus/common/model"

	"github.com/locotoki/backout/remediation"
	"github.com/locotoki/backout/remediation/plan"
	"github.com/locotoki/backout/rules"
)

// rulesLoaded compares what Prometheus has loaded with the playbook's rules.
func (e *Checker) rulesLoaded(ctx context.Context, b *plan.Plan, _ string) remediation.Result {
	want, err := b.Generated()
	if err != nil {
		return remediation.ResultOf(err)
	}
	have, err := e.runner.sources.Rules(ctx)
	if err != nil {
		return remediation.ResultOf(err)
	}
	return compareRules(b.Service, want, have)
}

const regenerate = "backout rules generate, load the file into Prometheus, and reload it"

// compareRules names the first rule that differs. A rule is known by its group, its
// name and its labels.
func compareRules(service string, want, have []remediation.LoadedRule) remediation.Result {
	have = slices.Clone(have)
	for i := range have {
		have[i].Group = rules.GroupOf(have[i].Group) // --max-rules-per-group makes parts of it
		have[i].Labels = maps.Clone(have[i].Labels)
		delete(have[i].Labels, rules.NamespaceLabel) // a PrometheusRule's alerts have it
	}
	all := slices.Clone(have)
	for _, w := range want {
		i := slices.IndexFunc(have, func(h remediation.LoadedRule) bool {
			return h.Group == w.Group && h.Name == w.Name && h.Alert == w.Alert && maps.Equal(h.Labels, w.Labels)
		})
		if i < 0 {
			if !slices.ContainsFunc(all, func(h remediation.LoadedRule) bool { return h.Group == w.Group }) {
				return remediation.Failed(fmt.Sprintf("Prometheus has no rule group %s", w.Group), regenerate)
			}
			return remediation.Failed(fmt.Sprintf("Prometheus has no rule %s", w.Describe()), regenerate)
		}
		h := have[i]
		have = slices.Delete(have, i, i+1)
		switch {
		case normal(h.Expr) != normal(w.Expr):
			return remediation.Failed(fmt.Sprintf("the rule %s differs: Prometheus has the expression %s", w.Describe(), oneLine(h.Expr)), regenerate)
		case h.For != w.For:
			return remediation.Failed(fmt.Sprintf("the rule %s differs: Prometheus has for: %s, not %s", w.Describe(), model.Duration(h.For), model.Duration(w.For)), regenerate)
		case !maps.Equal(h.Annotations, w.Annotations):
			return remediation.Failed(fmt.Sprintf("the rule %s differs in its annotations", w.Describe()), regenerate)
		case h.Error != "":
			return remediation.Failed(fmt.Sprintf("the rule %s cannot be evaluated: %s", w.Describe(), h.Error), "check Prometheus's Rules page")
		}
	}
	for _, h := range have {
		if h.Group == service {
			return remediation.Failed(fmt.Sprintf("Prometheus has the rule %s, which is not from the playbook", h.Describe()), regenerate)
		}
	}
	return remediation.Passed(fmt.Sprintf("all %d rules of %s are loaded as generated and none fails", len(want), service))
}

// normal is an expression as any version of Prometheus writes it.
func normal(expr string) string {
	parsed, err := remediation.PromQL().ParseExpr(expr)
	if err != nil {
		return oneLine(expr)
	}
	return parsed.String()
}

func oneLine(text string) string { return strings.Join(strings.Fields(text), " ") }
