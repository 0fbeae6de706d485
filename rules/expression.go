// Package rules derives from a playbook what Prometheus and Alertmanager are
// told: the expressions by which the engine judges (ExpressionsOf), and the
// generated files (Generate), which are the recording and alerting rules, the
// promtool tests that prove them, and Alertmanager's configuration.
//
// Invariants of what it returns:
//   - the same playbook gives the same bytes;
//   - the engine's expressions are the ones that the recording rules hold;
//   - Prometheus 2.42 and 3.x both take it;
//   - a recovery expression never depends on a stage or on a recording.
package rules

import (
	"fmt"
	"strconv"
	"time"

	"github.com/locotoki/backout/alerts"
)

// Expressions are the PromQL expressions by which a running engine judges a
// service: the very ones the generated recording rules hold, sent to
// /api/v1/query at the present time.
type Expressions struct {
	// Alive is 1 while the service is scraped and has traffic, 0 or empty otherwise.
	Alive string
	// Age is how many seconds ago the newest `up` sample was taken, by
	// Prometheus's own clock; empty where there is none.
	Age string
	// Triggers holds one entry for every trigger that has an indicator.
	Triggers map[string]TriggerExpressions
}

// TriggerExpressions are the two expressions of a trigger, both without the
// comparison, and what they are compared with.
type TriggerExpressions struct {
	// Value reads recordings where the trigger counts only in some stages.
	Value string
	// Recovery stands on its own, whatever the stage.
	Recovery string
	// Threshold and Above: beyond means value > Threshold (or < where not Above).
	Threshold float64
	Above     bool
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
	x := Expressions{
		Alive:    alive,
		Age:      fmt.Sprintf("time() - max(timestamp(up{job=%s}))", strconv.Quote(pb.Job)),
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

// judgement is how one trigger is judged.
type judgement struct {
	TriggerExpressions
	// gates are the recordings that Value reads; none for a trigger that
	// counts in every stage.
	gates []rule
}

// judge returns a trigger's expressions.
func judge(pb *alerts.Playbook, t *alerts.Trigger) (judgement, error) {
	threshold, above := t.Bound()
	j := judgement{TriggerExpressions: TriggerExpressions{Threshold: threshold, Above: above}}
	q, err := queryOf(pb, t.Indicator, bound{threshold: threshold, above: above, window: t.Window, sustained: t.Sustained, minVolume: t.MinVolume})
	if err != nil {
		return judgement{}, fmt.Errorf("trigger %s: %w", t.Name, err)
	}
	if stages := pb.StagesOf(t.Name); len(stages) > 0 {
		j.Value, j.gates, err = q.gated(pb, t, stages)
	} else {
		j.Value, j.Window, err = q.value()
	}
	if err != nil {
		return judgement{}, fmt.Errorf("trigger %s: %w", t.Name, err)
	}
	if j.Window == 0 {
		j.Window = t.Span()
	}
	if j.Recovery, j.RecoveryWindow, err = q.recovery(t.Recovery); err != nil {
		return judgement{}, fmt.Errorf("trigger %s: %w", t.Name, err)
	}
	return j, nil
}

// aliveOf is the playbook's alive expression, held to 0 while a target is
// down, and 0 rather than empty while it has no series.
func aliveOf(pb *alerts.Playbook) (string, error) {
	text := pb.Expand(pb.Alive, 0, 0)
	if _, err := parse(text); err != nil {
		return "", fmt.Errorf("alive: %w", err)
	}
	up := fmt.Sprintf("min(up{job=%s})", strconv.Quote(pb.Job))
	return fmt.Sprintf("(%s == bool 1) * %s or 0 * %s", up, single("max", text), up), nil
}
