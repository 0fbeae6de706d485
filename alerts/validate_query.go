package alerts

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/promql/parser"
)

// promql is the parser without the experimental functions: what Prometheus
// 2.42 and 3.x take without a flag.
func promql() parser.Parser { return parser.NewParser(parser.Options{}) }

func (v *validator) selectors() {
	for _, name := range slices.Sorted(maps.Keys(v.pb.Selectors)) {
		path, s := key("selectors", name), v.pb.Selectors[name]
		switch {
		case !identifier.re.MatchString(name) || name == windowVariable || name == minVolumeVariable:
			v.at(path, fmt.Sprintf("selectors: %q cannot be a selector's name", name), "write "+identifier.says+"; $window and $min_volume are taken")
		case strings.TrimSpace(s) == "":
			v.at(path, path+" is empty: it would select everything", `write label matchers, such as endpoint=~"/analytics.*"`)
		default:
			if _, err := promql().ParseMetricSelector("{" + s + "}"); err != nil {
				v.at(path, fmt.Sprintf("%s is not a list of label matchers: %s", path, parseError(err)), `write it without braces, such as endpoint=~"/analytics.*"`)
			}
		}
	}
}

// expression reports a PromQL expression that Prometheus would not take.
func (v *validator) expression(path, what, query string) {
	for _, m := range variable.FindAllStringSubmatch(query, -1) {
		name := m[1]
		_, ok := v.pb.Selectors[name]
		if ok || name == windowVariable || name == minVolumeVariable || v.isBad("selectors") || v.isBad(key("selectors", name)) {
			continue
		}
		names := append(slices.Sorted(maps.Keys(v.pb.Selectors)), windowVariable, minVolumeVariable)
		v.spoil(path, v.pos.line(path), fmt.Sprintf("%s: unknown variable $%s", what, name), OneOf(name, names))
	}
	if path == "alive" && uses(query, windowVariable) {
		v.at(path, "alive holds $window, which only indicators have", "write a fixed range, such as [2m]")
	}
	if v.selectorsBad() {
		return
	}
	expr, err := v.pb.parse(query)
	if err != nil {
		v.at(path, fmt.Sprintf("%s is not PromQL: %s", what, parseError(err)), "try it in Prometheus with the variables filled in")
		return
	}
	if t := expr.Type(); t != parser.ValueTypeVector && t != parser.ValueTypeScalar {
		v.at(path, fmt.Sprintf("%s gives a %s, not one sample", what, t), "write an expression that gives one sample, such as sum(increase(x[$window]))")
		return
	}
	parser.Inspect(expr, func(n parser.Node, _ []parser.Node) error {
		if s, ok := n.(*parser.VectorSelector); ok {
			for _, m := range s.LabelMatchers {
				if !model.LegacyValidation.IsValidLabelName(m.Name) ||
					m.Name == model.MetricNameLabel && m.Type == labels.MatchEqual && !model.LegacyValidation.IsValidMetricName(m.Value) {
					v.at(path, fmt.Sprintf("%s: the name in %s is not valid before Prometheus 3", what, m), "use metrics and labels of letters, digits, _ and :")
				}
			}
		}
		return nil
	})
}

func (v *validator) selectorsBad() bool {
	for path := range v.bad {
		if path == "selectors" || strings.HasPrefix(path, "selectors.") {
			return true
		}
	}
	return false
}

// parse parses a query with plain values for its variables.
func (p *Playbook) parse(query string) (parser.Expr, error) {
	return promql().ParseExpr(p.Expand(query, 5*time.Minute, 1))
}

// parseError puts a parser's error on one line.
func parseError(err error) string {
	return strings.Join(strings.Fields(err.Error()), " ")
}
