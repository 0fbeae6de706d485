package scenario

import (
	"bytes"
	"fmt"
	"maps"
	"slices"
	"strings"
	"text/template"
	"time"

	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/model/rulefmt"
	"github.com/prometheus/prometheus/promql"
	"github.com/prometheus/prometheus/promql/parser"

	"github.com/locotoki/backout/alerts"
	"github.com/locotoki/backout/rules"
)

// group is a group of rules, which are evaluated one after the other.
type group struct {
	every time.Duration
	next  time.Time
	rules []*rule
}

// rule is a generated rule.
type rule struct {
	rulefmt.Rule
	labels map[string]string
	// pace is how Alertmanager sends its alerts to backout; heard: it does.
	pace  rules.Pace
	heard bool
	// reads are the metrics that the expression reads; steady: it depends on nothing else,
	// such as the time of day. silent: it gave nothing at its last evaluation.
	reads          []string
	steady, silent bool
	// recorded are the series that a recording gave at its last evaluation.
	recorded map[*recorded]bool
	// active are the alerts of an alerting rule, by their labels.
	active map[uint64]*alert
}

// alert is one alert of a rule.
type alert struct {
	labels labels.Labels
	// since is when it became active, fired when it began to fire (zero: pending),
	// kept when its condition ended while it keeps firing.
	since, fired, kept time.Time
	// sent is when Alertmanager heard of it last.
	sent time.Time
}

// heard returns the groups without the rules of which backout hears nothing: alerts that
// Alertmanager sends to people only, and recordings that no other rule reads.
func heard(pb *alerts.Playbook, all []rulefmt.RuleGroup) ([]group, error) {
	groups := make([]group, len(all))
	for i, g := range all {
		groups[i] = group{every: time.Duration(g.Interval), next: began}
		for _, r := range g.Rules {
			made, err := newRule(pb, r)
			if err != nil {
				return nil, err
			}
			groups[i].rules = append(groups[i].rules, made)
		}
	}
	for more := true; more; {
		more = false
		read := map[string]bool{}
		for _, g := range groups {
			for _, r := range g.rules {
				for _, name := range r.reads {
					read[name] = read[name] || r.heard
				}
			}
		}
		for _, g := range groups {
			for _, r := range g.rules {
				if !r.heard && read[r.Record] {
					r.heard, more = true, true
				}
			}
		}
	}
	for i := range groups {
		groups[i].rules = slices.DeleteFunc(groups[i].rules, func(r *rule) bool { return !r.heard })
	}
	return groups, nil
}

// newRule expands the templates of a rule's labels: the generated ones have no variables.
func newRule(pb *alerts.Playbook, r rulefmt.Rule) (*rule, error) {
	made := &rule{Rule: r, labels: map[string]string{}, recorded: map[*recorded]bool{}, active: map[uint64]*alert{}}
	for name, text := range r.Labels {
		if r.Alert != "" && strings.Contains(text, "{{") {
			t, err := template.New(name).Parse(text)
			var b bytes.Buffer
			if err == nil {
				err = t.Execute(&b, nil)
			}
			if err != nil {
				return nil, fmt.Errorf("label %s of alert %s: %w", name, r.Alert, err)
			}
			text = b.String()
		}
		made.labels[name] = text
	}
	expr, err := parser.NewParser(parser.Options{}).ParseExpr(r.Expr)
	if err != nil {
		return nil, fmt.Errorf("rule %s%s: %w", r.Record, r.Alert, err)
	}
	made.reads, made.steady = metricsOf(expr)
	if r.Alert != "" {
		set := maps.Clone(made.labels)
		set[model.AlertNameLabel] = r.Alert
		made.pace, made.heard, err = rules.PaceOf(pb, set)
	}
	return made, err
}

// metricsOf returns the metrics that an expression reads, and whether its value depends
// on nothing else.
func metricsOf(expr parser.Expr) (names []string, steady bool) {
	steady = true
	parser.Inspect(expr, func(n parser.Node, _ []parser.Node) error {
		switch n := n.(type) {
		case *parser.VectorSelector:
			i := slices.IndexFunc(n.LabelMatchers, func(m *labels.Matcher) bool {
				return m.Name == model.MetricNameLabel && m.Type == labels.MatchEqual
			})
			if steady = steady && i >= 0; i >= 0 {
				names = append(names, n.LabelMatchers[i].Value)
			}
		case *parser.Call: // time(), hour() and the like
			steady = steady && len(n.Args) > 0
		}
		return nil
	})
	return names, steady && len(names) > 0
}

// record writes a recording's samples, and ends the series that it no longer has.
func (p *prometheus) record(r *rule, vector promql.Vector, now time.Time) {
	fresh := map[*recorded]bool{}
	for _, sample := range vector {
		b := labels.NewBuilder(sample.Metric).Set(model.MetricNameLabel, r.Record)
		for name, text := range r.labels {
			b.Set(name, text)
		}
		s := p.seriesOf(b.Labels())
		s.add(now, sample.F)
		fresh[s] = true
	}
	for s := range r.recorded {
		if !fresh[s] {
			s.end(now)
		}
	}
	r.recorded = fresh
}

// alert brings the rule's alerts up to date.
func (r *rule) alert(vector promql.Vector, now time.Time) {
	beyond := map[uint64]bool{}
	for _, sample := range vector {
		b := labels.NewBuilder(sample.Metric).Del(model.MetricNameLabel)
		for name, text := range r.labels {
			b.Set(name, text)
		}
		l := b.Set(model.AlertNameLabel, r.Alert).Labels()
		beyond[l.Hash()] = true
		if r.active[l.Hash()] == nil {
			r.active[l.Hash()] = &alert{labels: l, since: now}
		}
	}
	for hash, a := range r.active {
		switch {
		case beyond[hash]:
			a.kept = time.Time{}
			if a.fired.IsZero() && now.Sub(a.since) >= time.Duration(r.For) {
				a.fired = now
			}
		case a.fired.IsZero():
			delete(r.active, hash)
		case a.kept.IsZero():
			a.kept = now
		}
	}
}

const (
	// resendDelay is how often Prometheus sends an alert that keeps firing, and
	// resends how many of those may be lost before Alertmanager takes it as resolved.
	resendDelay = time.Minute
	resends     = 4
)

// sentAlert is an alert on its way to Alertmanager: it fires until ends.
type sentAlert struct {
	labels labels.Labels
	ends   time.Time
	pace   rules.Pace
}

// send returns the alerts that are due to be sent, and forgets those that are over.
func (r *rule) send(now time.Time) (out []sentAlert) {
	for _, hash := range slices.Sorted(maps.Keys(r.active)) {
		a := r.active[hash]
		switch {
		case a.fired.IsZero():
		case !a.kept.IsZero() && now.Sub(a.kept) >= time.Duration(r.KeepFiringFor):
			out = append(out, sentAlert{a.labels, now, r.pace})
			delete(r.active, hash)
		case a.sent.IsZero() || now.Sub(a.sent) >= resendDelay:
			out = append(out, sentAlert{a.labels, now.Add(resends * resendDelay), r.pace})
			a.sent = now
		}
	}
	return out
}
