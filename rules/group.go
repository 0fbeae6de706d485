package rules

import (
	"cmp"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/prometheus/common/model"

	"github.com/locotoki/backout/alerts"
	"github.com/locotoki/backout/hint"
	"github.com/locotoki/backout/rules/query"
)

// ruleFile, group and rule are a rule file of Prometheus, in the keys that
// Prometheus 2.42 knows.
type ruleFile struct {
	Groups []group `yaml:"groups"`
}

type group struct {
	Name     string         `yaml:"name"`
	Interval model.Duration `yaml:"interval"`
	Rules    []rule         `yaml:"rules"`
}

type rule struct {
	Record      string            `yaml:"record,omitempty"`
	Alert       string            `yaml:"alert,omitempty"`
	Expr        string            `yaml:"expr"`
	For         model.Duration    `yaml:"for,omitempty"`
	Labels      map[string]string `yaml:"labels,omitempty"`
	Annotations map[string]string `yaml:"annotations,omitempty"`
}

// The recordings' names. Each has the label service, and trigger or indicator.
const (
	aliveRecording     = "backout:alive"
	recoveryRecording  = "backout:recovery_value"
	indicatorRecording = "backout:indicator_value"
)

// The severities.
const (
	critical = "critical"
	warning  = "warning"
	none     = "none"
)

// partSeparator precedes the number of a part of a group. No service has it
// in its name.
const partSeparator = ":"

// groupOf returns a service's rules: one group, since rules of different
// groups see each other an evaluation late, and since the watchdog then shows
// that they are evaluated.
func groupOf(pb *alerts.Playbook) (group, error) {
	units, err := unitsOf(pb)
	if err != nil {
		return group{}, fmt.Errorf("generate rules of %s: %w", pb.Service, err)
	}
	return group{Name: pb.Service, Interval: pb.ScrapeInterval, Rules: slices.Concat(units...)}, nil
}

// unitsOf returns a service's rules in those parts that must not be taken apart,
// since their rules read each other's recordings over a range.
func unitsOf(pb *alerts.Playbook) ([][]rule, error) {
	alive, err := aliveOf(pb)
	if err != nil {
		return nil, err
	}
	first := []rule{{Record: aliveRecording, Expr: alive, Labels: map[string]string{"service": pb.Service}}}
	if len(pb.Stages) > 0 {
		first = append(first, stageRule(pb))
	}
	units := [][]rule{first}
	for i := range pb.Indicators {
		more, err := indicatorRules(pb, &pb.Indicators[i])
		if err != nil {
			return nil, fmt.Errorf("indicator %s: %w", pb.Indicators[i].Name, err)
		}
		units = append(units, more)
	}
	for i := range pb.Triggers {
		more, err := triggerRules(pb, &pb.Triggers[i])
		if err != nil {
			return nil, err
		}
		units = append(units, more)
	}
	guards, err := guardsOf(pb)
	if err != nil {
		return nil, err
	}
	for _, gd := range guards {
		units = append(units, []rule{gd.rule})
	}
	return units, nil
}

// groups returns a service's groups: its rules, and its success criteria where
// some are measured; each in parts if there is a most for a group.
func (s Settings) groups(pb *alerts.Playbook) ([]group, error) {
	g, err := groupOf(pb)
	if err != nil {
		return nil, err
	}
	groups := []group{g}
	if s.MaxRulesPerGroup > 0 && len(g.Rules) > s.MaxRulesPerGroup {
		units, err := unitsOf(pb)
		if err != nil {
			return nil, err
		}
		// What reads the stage is the nearest to the group that records it.
		slices.SortStableFunc(units[1:], func(a, b []rule) int { return readsStage(b) - readsStage(a) })
		if groups, err = s.split(g, units); err != nil {
			return nil, err
		}
	}
	success, err := successOf(pb)
	if err != nil {
		return nil, fmt.Errorf("generate the success criteria of %s: %w", pb.Service, err)
	}
	if success == nil {
		return groups, nil
	}
	parts := []group{*success}
	if s.MaxRulesPerGroup > 0 && len(success.Rules) > s.MaxRulesPerGroup {
		if parts, err = s.split(*success, slices.Collect(slices.Chunk(success.Rules, 2))); err != nil {
			return nil, err
		}
	}
	return append(groups, parts...), nil
}

// readsStage is 1 where one of the rules reads the stage's recording.
func readsStage(unit []rule) int {
	if slices.ContainsFunc(unit, func(r rule) bool { return strings.Contains(r.Expr, stageRecording+"{") }) {
		return 1
	}
	return 0
}

// split puts the units into groups, in their order. The first one keeps the name.
func (s Settings) split(whole group, units [][]rule) ([]group, error) {
	var parts []group
	for _, unit := range units {
		if len(unit) == 0 {
			continue
		}
		if len(unit) > s.MaxRulesPerGroup {
			most := len(slices.MaxFunc(units, func(a, b []rule) int { return len(a) - len(b) }))
			return nil, hint.Add(fmt.Errorf("the %d rules about %s belong into one group, which may have %d", len(unit), unit[len(unit)-1].about(), s.MaxRulesPerGroup),
				"--max-rules-per-group=%d, or more", most)
		}
		if n := len(parts); n == 0 || len(parts[n-1].Rules)+len(unit) > s.MaxRulesPerGroup {
			part := group{Name: whole.Name, Interval: whole.Interval}
			if n > 0 {
				part.Name += partSeparator + strconv.Itoa(n+1)
			}
			parts = append(parts, part)
		}
		last := &parts[len(parts)-1]
		last.Rules = append(last.Rules, unit...)
	}
	return parts, nil
}

// about is what a rule is about, in a message.
func (r rule) about() string {
	return cmp.Or(r.Labels["trigger"], r.Labels["indicator"], r.Labels["criterion"], r.Record, r.Alert)
}

// GroupOf is the name of the group that a part of it, by its name, belongs to.
func GroupOf(part string) string {
	if whole, number, ok := strings.Cut(part, partSeparator); ok {
		if _, err := strconv.Atoi(number); err == nil {
			return whole
		}
	}
	return part
}

// indicatorRules are an indicator's alert threshold, if it has one.
func indicatorRules(pb *alerts.Playbook, ind *alerts.Indicator) ([]rule, error) {
	a := ind.Alert
	if a == nil {
		return nil, nil
	}
	b := query.OfAlert(a)
	q, err := query.Of(pb, ind.Name, b)
	if err != nil {
		return nil, err
	}
	value, _, err := q.Value()
	if err != nil {
		return nil, err
	}
	labels := map[string]string{"service": pb.Service, "indicator": ind.Name}
	note := notes(pb, ind)
	note["summary"] = escape(fmt.Sprintf("%s: %s is %s", pb.Service, ind.Name, b.Words(ind.Unit)))
	note["description"] = measured(ind.Unit, b) + escape(query.Sentence(ind.Description)+" Nothing is rolled back because of this alert.")
	return []rule{
		{Record: indicatorRecording, Expr: value, Labels: labels},
		{
			Alert:       alertName(ind, b),
			Expr:        fmt.Sprintf("%s %s", query.SelectorOf(indicatorRecording, "service", pb.Service, "indicator", ind.Name), b.Comparison()),
			Labels:      map[string]string{"service": pb.Service, "indicator": ind.Name, "severity": warning},
			Annotations: note,
		},
	}, nil
}

func alertName(ind *alerts.Indicator, b query.Bound) string {
	if b.Above {
		return camel(ind.Name) + "High"
	}
	return camel(ind.Name) + "Low"
}

// triggerRules are a trigger's recordings and its alert, which is the one that
// backout acts on.
func triggerRules(pb *alerts.Playbook, t *alerts.Trigger) ([]rule, error) {
	alert := rule{
		Alert: rollbackAlert(t),
		Labels: map[string]string{
			"service": pb.Service, "trigger": t.Name, "rollout": escape(pb.Release.Version), "severity": critical,
		},
	}
	ind := pb.Indicator(t.Indicator)
	note := notes(pb, ind)
	plan := fmt.Sprintf(" backout runs the plan %s.", t.Plan)
	if stages := pb.StagesOf(t.Name); len(stages) > 0 {
		plan = fmt.Sprintf(" It counts only in the stage %s.%s", strings.Join(stages, ", "), plan)
	}
	note["summary"] = escape(fmt.Sprintf("%s: rollback of %s: %s", pb.Service, pb.Release.Version, t.Name))
	alert.Annotations = note
	if t.Signal != "" {
		note["description"] = escape(fmt.Sprintf("A person raised the signal %s.%s%s", t.Signal, query.Sentence(t.Description), plan))
		alert.Expr = fmt.Sprintf("max(last_over_time(%s[%s])) == 1", query.SelectorOf("rollout_signal", "service", pb.Service, "signal", t.Signal), query.Duration(pb.Bridge()))
		return []rule{alert}, nil
	}
	j, err := judge(pb, t)
	if err != nil {
		return nil, err
	}
	b := query.OfTrigger(t)
	note["description"] = measured(ind.Unit, b) + escape(query.Sentence(t.Description)+plan)
	alert.Expr = fmt.Sprintf("%s %s", query.SelectorOf(query.TriggerRecording, "service", pb.Service, "trigger", t.Name), b.Comparison())
	labels := map[string]string{"service": pb.Service, "trigger": t.Name}
	return append(j.gates,
		rule{Record: query.TriggerRecording, Expr: j.Value, Labels: labels},
		alert,
		rule{Record: recoveryRecording, Expr: j.Recovery, Labels: labels},
	), nil
}

func rollbackAlert(t *alerts.Trigger) string { return "Rollback" + camel(t.Name) }

// camel makes ErrorRate of error_rate.
func camel(name string) string {
	var b strings.Builder
	for _, w := range strings.FieldsFunc(name, func(r rune) bool { return r == '_' || r == '-' || r == '.' }) {
		b.WriteString(strings.ToUpper(w[:1]) + w[1:])
	}
	return b.String()
}
