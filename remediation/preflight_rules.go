package remediation

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/promql/parser"
	"go.yaml.in/yaml/v3"

	"github.com/locotoki/backout/rules"
)

// generated are the rules that the playbook stands for, in their order.
func (b *book) generated() ([]LoadedRule, error) {
	made, err := rules.Rules(b.Playbook)
	if err != nil {
		return nil, err
	}
	var file struct {
		Groups []struct {
			Name  string `yaml:"name"`
			Rules []struct {
				Record      string            `yaml:"record"`
				Alert       string            `yaml:"alert"`
				Expr        string            `yaml:"expr"`
				For         model.Duration    `yaml:"for"`
				Labels      map[string]string `yaml:"labels"`
				Annotations map[string]string `yaml:"annotations"`
			} `yaml:"rules"`
		} `yaml:"groups"`
	}
	if err := yaml.Unmarshal(made.Content, &file); err != nil {
		return nil, fmt.Errorf("read %s: %w", made.Name, err)
	}
	var out []LoadedRule
	for _, g := range file.Groups {
		for _, r := range g.Rules {
			out = append(out, LoadedRule{
				Group: g.Name, Name: r.Record + r.Alert, Alert: r.Alert != "", Expr: r.Expr, For: time.Duration(r.For),
				Labels: r.Labels, Annotations: r.Annotations,
			})
		}
	}
	return out, nil
}

// ruleProofs compare what Prometheus has loaded with what the playbook stands for.
func (e *Engine) ruleProofs(b *book) []Proof {
	return []Proof{{ID: "prometheus/rules", Name: "the generated rules are what Prometheus has loaded", Prove: func(ctx context.Context) Finding {
		if e.proving.around == nil {
			return noSurroundings()
		}
		want, err := b.generated()
		if err != nil {
			return FindingOf(err)
		}
		have, err := e.proving.around.Rules(ctx)
		if err != nil {
			return FindingOf(err)
		}
		return compareRules(b.Service, want, have)
	}}}
}

const regenerate = "backout rules generate, load the file into Prometheus, and reload it"

// compareRules names the first rule that differs. A rule is known by its group, its
// name and its labels.
func compareRules(service string, want, have []LoadedRule) Finding {
	have = slices.Clone(have)
	for i := range have {
		have[i].Group = rules.GroupOf(have[i].Group) // --max-rules-per-group makes parts of it
	}
	all := slices.Clone(have)
	for _, w := range want {
		i := slices.IndexFunc(have, func(h LoadedRule) bool {
			return h.Group == w.Group && h.Name == w.Name && h.Alert == w.Alert && maps.Equal(h.Labels, w.Labels)
		})
		if i < 0 {
			if !slices.ContainsFunc(all, func(h LoadedRule) bool { return h.Group == w.Group }) {
				return Failed(fmt.Sprintf("Prometheus has no rule group %s", w.Group), regenerate)
			}
			return Failed(fmt.Sprintf("Prometheus has no rule %s", w.describe()), regenerate)
		}
		h := have[i]
		have = slices.Delete(have, i, i+1)
		switch {
		case normal(h.Expr) != normal(w.Expr):
			return Failed(fmt.Sprintf("the rule %s differs: Prometheus has the expression %s", w.describe(), oneLine(h.Expr)), regenerate)
		case h.For != w.For:
			return Failed(fmt.Sprintf("the rule %s differs: Prometheus has for: %s, not %s", w.describe(), model.Duration(h.For), model.Duration(w.For)), regenerate)
		case !maps.Equal(h.Annotations, w.Annotations):
			return Failed(fmt.Sprintf("the rule %s differs in its annotations", w.describe()), regenerate)
		case h.Error != "":
			return Failed(fmt.Sprintf("the rule %s cannot be evaluated: %s", w.describe(), h.Error), "look at Prometheus's Rules page")
		}
	}
	for _, h := range have {
		if h.Group == service {
			return Failed(fmt.Sprintf("Prometheus has the rule %s, which the playbook does not stand for", h.describe()), regenerate)
		}
	}
	return Passed(fmt.Sprintf("all %d rules of %s are loaded as generated, and none fails", len(want), service))
}

// describe names a rule by what tells it from its neighbours.
func (r LoadedRule) describe() string {
	for _, label := range []string{"trigger", "indicator"} {
		if v := r.Labels[label]; v != "" {
			return fmt.Sprintf("%s (%s %s)", r.Name, label, v)
		}
	}
	return r.Name
}

// normal is an expression as any version of Prometheus writes it.
func normal(expr string) string {
	parsed, err := promQL().ParseExpr(expr)
	if err != nil {
		return oneLine(expr)
	}
	return parsed.String()
}

func promQL() parser.Parser { return parser.NewParser(parser.Options{}) }

func oneLine(text string) string { return strings.Join(strings.Fields(text), " ") }
