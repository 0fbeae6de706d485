// Package rules derives from a playbook the expressions that the engine evaluates
// (ExpressionsOf) and the generated files (Generate): recording and alerting rules,
// their promtool tests, Alertmanager's configuration and Grafana's dashboards.
//
// Invariants of what it returns:
//   - the same playbook gives the same bytes;
//   - the engine's expressions are the ones that the recording rules hold;
//   - Prometheus 2.42 and 3.x both accept it;
//   - a recovery expression never depends on a stage or on a recording.
package rules

import (
	"fmt"
	"time"

	"github.com/prometheus/prometheus/promql/parser"

	"github.com/locotoki/backout/alerts"
	"github.com/locotoki/backout/hint"
	"github.com/locotoki/backout/rules/query"
)

// Expressions are the PromQL expressions that a running engine evaluates for a
// service: exactly those of the generated recording rules, sent to /api/v1/query for
// the current time.
type Expressions struct {
	// Alive is 1 while a target of the service is up and the service has traffic,
	// 0 or empty otherwise.
	Alive string
	// Age is how many seconds ago the newest `up` sample was taken, by
	// Prometheus's own clock; empty if there is none.
	Age string
	// Up is how many targets of the service are up; 0 if there is none.
	Up string
	// Targets selects the up series of the service's targets.
	Targets string
	// Triggers holds one entry for every trigger that has an indicator.
	Triggers map[string]TriggerExpressions
}

// TriggerExpressions are the two expressions of a trigger, both without the
// comparison, and what they are compared with.
type TriggerExpressions struct {
	// Value reads recordings if the trigger counts only in some stages.
	Value string
	// Recovery does not depend on the stage.
	Recovery string
	// Threshold and Above: beyond means value > Threshold (or < if not Above).
	Threshold float64
	Above     bool
	// RecoveryThreshold is what Recovery is compared with, Threshold by default.
	RecoveryThreshold float64
	// Events is how many events Recovery had, before its volume guard: 0 means no
	// events, no value means unknown. "": no events do not show that the service is well.
	Events string
	// Stages are those in which the trigger counts; none: all.
	Stages []string
	// Window is how far Value looks back, RecoveryWindow (W) how far Recovery does.
	Window         time.Duration
	RecoveryWindow time.Duration
}

// ExpressionsOf returns the expressions of a valid playbook.
func ExpressionsOf(pb *alerts.Playbook) (Expressions, error) {
	alive, err := aliveOf(pb)
	if err != nil {
		return Expressions{}, err
	}
	targets := query.Targets(pb)
	x := Expressions{
		Alive:    alive,
		Age:      fmt.Sprintf("time() - max(timestamp(%s))", targets),
		Up:       fmt.Sprintf("count(%s == 1) or vector(0)", targets),
		Targets:  targets,
		Triggers: map[string]TriggerExpressions{},
	}
	for i := range pb.Triggers {
		t := &pb.Triggers[i]
		if t.Signal != "" {
			continue
		}
		j, err := judge(pb, t)
		if err != nil {
			return Expressions{}, err
		}
		x.Triggers[t.Name] = j.TriggerExpressions
	}
	return x, nil
}

// judgement is how one trigger is evaluated.
type judgement struct {
	TriggerExpressions
	// gates are the recordings that Value reads; none for a trigger that
	// counts in every stage.
	gates []rule
}

// judge returns a trigger's expressions.
func judge(pb *alerts.Playbook, t *alerts.Trigger) (judgement, error) {
	b := query.OfTrigger(t)
	j := judgement{TriggerExpressions: TriggerExpressions{Threshold: b.Threshold, Above: b.Above, RecoveryThreshold: t.RecoveryBound()}}
	q, err := query.Of(pb, t.Indicator, b)
	if err != nil {
		return judgement{}, fmt.Errorf("trigger %s: %w", t.Name, err)
	}
	if stages := pb.StagesOf(t.Name); len(stages) > 0 {
		j.Value, j.gates, err = gated(q, pb, t, stages)
	} else {
		j.Value, j.Window, err = q.Value()
	}
	if err != nil {
		return judgement{}, fmt.Errorf("trigger %s: %w", t.Name, err)
	}
	if j.Window == 0 {
		j.Window = t.Span()
	}
	if j.Recovery, j.RecoveryWindow, err = q.Recovery(t.Recovery); err != nil {
		return judgement{}, fmt.Errorf("trigger %s: %w", t.Name, err)
	}
	j.Stages = pb.StagesOf(t.Name)
	if j.Events, err = q.Events(time.Duration(t.Recovery.Window)); err != nil {
		return judgement{}, fmt.Errorf("trigger %s: %w", t.Name, err)
	}
	return j, nil
}

// UpAt is how many targets of the service were up at a moment: 0 if there were
// some and none was up, no value if Prometheus has no samples of that moment.
func (x Expressions) UpAt(at time.Time) string {
	return fmt.Sprintf("count(%[1]s @ %[2]d == 1) or 0 * count(%[1]s @ %[2]d)", x.Targets, at.Unix())
}

// UpNow is UpAt the moment at which it is evaluated.
func (x Expressions) UpNow() string {
	return fmt.Sprintf("count(%[1]s == 1) or 0 * count(%[1]s)", x.Targets)
}

// DownNow is how many of the service's targets are down: while none is, KeptSince is UpAt,
// or 0 where that has no value.
func (x Expressions) DownNow() string { return fmt.Sprintf("count(%s == 0) or vector(0)", x.Targets) }

// Fresh has a value while Age is at most d: a range query answers it ten times as fast.
// 3.x has none at exactly d.
func (x Expressions) Fresh(d time.Duration) string {
	return fmt.Sprintf("count(%[1]s and count_over_time(%[1]s[%[2]s]))", x.Targets, query.Duration(d))
}

// KeptSince is how many of the targets of the service that were up at a moment are not
// down now.
func (x Expressions) KeptSince(at time.Time) string {
	return fmt.Sprintf("count((%s @ %d == 1) unless (%s == 0)) or vector(0)", x.Targets, at.Unix(), x.Targets)
}

// aliveOf is the playbook's alive expression as 1 or 0: 0 while no target of the
// service is up, and 0 rather than empty while it has no series. One target may be
// down: the others may serve, and a job may have targets of other services.
func aliveOf(pb *alerts.Playbook) (string, error) {
	text := pb.Expand(pb.Alive, 0, 0)
	expr, err := query.Parse(text)
	if err != nil {
		return "", fmt.Errorf("alive: %w", err)
	}
	up := fmt.Sprintf("max(%s)", query.Targets(pb))
	alive := query.Single("max", text)
	if filters(expr) { // what passes a filter is its own value, whatever that is
		alive = fmt.Sprintf("(count(%s) > bool 0)", text)
	}
	return fmt.Sprintf("(%s == bool 1) * %s or 0 * %s", up, alive, up), nil
}

// filters reports whether an expression means yes by having a value, as x > 0 does,
// and not by being 1, as x > bool 0 does.
func filters(expr parser.Expr) bool {
	switch e := expr.(type) {
	case *parser.ParenExpr:
		return filters(e.Expr)
	case *parser.BinaryExpr:
		if e.Op.IsComparisonOperator() {
			return !e.ReturnBool
		}
		// and, unless keep values of their left side; or has those of both.
		return e.Op.IsSetOperator() && filters(e.LHS) || e.Op == parser.LOR && filters(e.RHS)
	}
	return false
}

// checkAlive refuses an alive expression that looks back longer than a trigger's
// recovery does: it would still be 1 when the recovery has no samples left.
func checkAlive(pb *alerts.Playbook) error {
	back, err := query.Lookback(pb.Expand(pb.Alive, 0, 0))
	if err != nil {
		return fmt.Errorf("alive: %w", err)
	}
	if least := pb.Bridge(); back > 0 && back < least {
		return hint.Add(fmt.Errorf("alive looks back %s, which is less than four scrapes: one that fails would end it", query.Duration(back)),
			"a range of %s in alive", query.Duration(least))
	}
	for i := range pb.Triggers {
		t := &pb.Triggers[i]
		if t.Signal != "" {
			continue
		}
		j, err := judge(pb, t)
		if err != nil {
			return err
		}
		if back > j.RecoveryWindow {
			return hint.Add(fmt.Errorf("alive looks back %s, longer than the recovery of trigger %s (%s): a service that hangs would look alive and recovered", query.Duration(back), t.Name, query.Duration(j.RecoveryWindow)),
				"a range of %s in alive", query.Duration(j.RecoveryWindow))
		}
	}
	return nil
}
