package rules

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/prometheus/common/model"

	"github.com/locotoki/backout/alerts"
	"github.com/locotoki/backout/rules/query"
)

// Covered is one bound of a playbook, and what implements it.
type Covered struct {
	// Line is the bound as the playbook has it, Kind "alert", "trigger" or "signal".
	Line string `json:"line"`
	Kind string `json:"kind"`
	Name string `json:"name"`
	// Rule is the alerting rule; Fires and Silent are generated tests in which it
	// fires and in which it does not.
	Rule   string `json:"rule"`
	Fires  string `json:"fires"`
	Silent string `json:"silent"`
	// Route are the receivers that Alertmanager's generated routes lead to.
	Route []string `json:"route"`
	// Plan is "" if an alert threshold only warns.
	Plan string `json:"plan,omitempty"`
	// Rehearsed is when the plan was last rehearsed; nil is never, or not known.
	Rehearsed *time.Time `json:"rehearsed,omitempty"`
	// RehearsalUnknown: nothing was asked for rehearsals.
	RehearsalUnknown bool `json:"rehearsal_unknown,omitempty"`
	// Missing names what is missing.
	Missing []string `json:"missing,omitempty"`
}

// Rehearsals are the times at which plans were rehearsed, by the plan's name; nil is not
// known.
type Rehearsals map[string]time.Time

// Coverage lists a valid playbook's bounds: each needs a rule, a test that fires and
// one that does not, a route and, if it rolls back, a plan. A plan that was never
// rehearsed is reported, but not as missing.
func Coverage(pb *alerts.Playbook, rehearsed Rehearsals) ([]Covered, error) {
	g, err := groupOf(pb)
	if err != nil {
		return nil, fmt.Errorf("generate rules of %s: %w", pb.Service, err)
	}
	cases, _, err := casesOf(pb)
	if err != nil {
		return nil, fmt.Errorf("generate the rules' tests: %w", err)
	}
	root, err := routes(pb)
	if err != nil {
		return nil, fmt.Errorf("read Alertmanager's routes: %w", err)
	}
	return coverageOf(pb, g.Rules, cases, root, rehearsed)
}

func coverageOf(pb *alerts.Playbook, made []rule, cases []testCase, root amRoute, rehearsed Rehearsals) ([]Covered, error) {
	var all []Covered
	add := func(c Covered, alert, label, value string) error {
		i := slices.IndexFunc(made, func(r rule) bool { return r.Alert == alert && r.Labels[label] == value })
		if i < 0 {
			c.Missing = append(c.Missing, "rule", "test that fires", "test that does not", "route")
		} else if err := c.see(made[i], cases, root); err != nil {
			return err
		}
		all = append(all, c)
		return nil
	}
	for i := range pb.Indicators {
		ind := &pb.Indicators[i]
		if ind.Alert == nil {
			continue
		}
		b := query.OfAlert(ind.Alert)
		c := Covered{Kind: "alert", Name: ind.Name, Line: fmt.Sprintf("%s %s: alert", ind.Name, b.Words(ind.Unit))}
		if len(pb.Dashboards) > 0 && pb.Board(ind) == "" {
			c.Missing = append(c.Missing, "dashboard")
		}
		if err := add(c, alertName(ind, b), "indicator", ind.Name); err != nil {
			return nil, err
		}
	}
	for i := range pb.Triggers {
		t := &pb.Triggers[i]
		c := Covered{Kind: "trigger", Name: t.Name, Line: lineOf(pb, t), Plan: t.Plan, RehearsalUnknown: rehearsed == nil}
		if t.Signal != "" {
			c.Kind = "signal"
		}
		if plan := pb.Plan(t.Plan); plan == nil || len(plan.Steps) == 0 {
			c.Missing = append(c.Missing, "plan")
		} else if at, ok := rehearsed[t.Plan]; ok {
			c.Rehearsed = &at
		}
		if err := add(c, rollbackAlert(t), "trigger", t.Name); err != nil {
			return nil, err
		}
	}
	return all, nil
}

// lineOf is a trigger in words.
func lineOf(pb *alerts.Playbook, t *alerts.Trigger) string {
	if t.Signal != "" {
		return fmt.Sprintf("signal %s: rollback", t.Signal)
	}
	line := t.Indicator + " " + query.OfTrigger(t).Words(pb.Indicator(t.Indicator).Unit)
	if stages := pb.StagesOf(t.Name); len(stages) > 0 {
		line += " in " + strings.Join(stages, ", ")
	}
	return line + ": rollback"
}

// see records the rule, what the tests expect of it, and where its alert is sent.
func (c *Covered) see(r rule, cases []testCase, root amRoute) (err error) {
	c.Rule = r.Alert
	firesAs, silentAs := firing(r), silent(r, 0, 0).Expr
	for i := range cases {
		for _, check := range cases[i].Checks {
			switch {
			case check.Expr == firesAs && len(check.Samples) > 0 && c.Fires == "":
				c.Fires = cases[i].Name
			case check.Expr == silentAs && c.Silent == "":
				c.Silent = cases[i].Name
			}
		}
	}
	lbs := map[string]string{"alertname": r.Alert}
	for k, v := range r.Labels {
		lbs[k] = v
	}
	if c.Route, err = root.receivers(lbs); err != nil {
		return fmt.Errorf("route of %s: %w", r.Alert, err)
	}
	for what, missing := range map[string]bool{
		"test that fires": c.Fires == "", "test that does not": c.Silent == "", "route": len(c.Route) == 0,
		"route to " + toBackout: c.Kind != "alert" && !slices.Contains(c.Route, toBackout),
	} {
		if missing {
			c.Missing = append(c.Missing, what)
		}
	}
	slices.Sort(c.Missing)
	return nil
}

// receivers are those that an alert reaches, as Alertmanager goes through its
// routes: the first that matches and, where it says continue, the next ones;
// the parent's if none does.
func (r *amRoute) receivers(lbs map[string]string) ([]string, error) {
	var to []string
	for i := range r.Routes {
		child := &r.Routes[i]
		ok, err := child.matches(lbs)
		if err != nil {
			return nil, err
		}
		if !ok {
			continue
		}
		more, err := child.receivers(lbs)
		if err != nil {
			return nil, err
		}
		to = append(to, more...)
		if !child.Continue {
			break
		}
	}
	if len(to) == 0 && r.Receiver != "" {
		to = []string{r.Receiver}
	}
	return to, nil
}

func (r *amRoute) matches(lbs map[string]string) (bool, error) {
	for _, text := range r.Matchers {
		// The matchers that are generated are written alike in both languages; the
		// second one is needed since a selector must have one that is not empty.
		ms, err := query.Parser().ParseMetricSelector("{" + text + `,__name__="x"}`)
		if err != nil {
			return false, fmt.Errorf("read the matcher %s: %w", text, err)
		}
		for _, m := range ms {
			if m.Name != model.MetricNameLabel && !m.Matches(lbs[m.Name]) {
				return false, nil
			}
		}
	}
	return true, nil
}
