package scenario

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/prometheus/prometheus/model/labels"

	"github.com/locotoki/backout/rules"
)

// alertmanager groups alerts as the generated configuration does, and posts to backout:
// what backout gets is a group of one alert. It implements remediation.Alertmanager:
// nothing is silenced.
type alertmanager struct {
	post   func(ctx context.Context, body []byte) error
	groups map[uint64]*alertGroup
}

// alertGroup is one alert as Alertmanager has it.
type alertGroup struct {
	labels map[string]string
	pace   rules.Pace
	// began is when the alert came, ends when it stops firing if nobody sends it again.
	began, ends time.Time
	// next is when the group is looked at, posted when backout heard of it last, firing
	// what it heard then.
	next, posted time.Time
	firing       bool
}

// Silenced implements remediation.Alertmanager.
func (am *alertmanager) Silenced(_ context.Context, fingerprints []string) (map[string]bool, error) {
	known := map[string]bool{}
	for _, fp := range fingerprints {
		known[fp] = false
	}
	return known, nil
}

// receive takes an alert that Prometheus or a person sends.
func (am *alertmanager) receive(a sentAlert, now time.Time) {
	hash := a.labels.Hash()
	if g := am.groups[hash]; g != nil {
		g.ends = a.ends
	} else if a.ends.After(now) {
		am.groups[hash] = &alertGroup{labels: a.labels.Map(), pace: a.pace, began: now, ends: a.ends, next: now.Add(time.Duration(a.pace.GroupWait))}
	}
}

// flush posts what is due. A group is told of again when its alert has stopped or
// started, or after the repeat interval.
func (am *alertmanager) flush(ctx context.Context, now time.Time) error {
	for _, hash := range slices.Sorted(maps.Keys(am.groups)) {
		g := am.groups[hash]
		if g.next.After(now) {
			continue
		}
		g.next = now.Add(time.Duration(g.pace.GroupInterval))
		firing := g.ends.After(now)
		if firing != g.firing || firing && now.Sub(g.posted) >= time.Duration(g.pace.RepeatInterval) {
			g.firing, g.posted = firing, now
			body, err := g.body(hash)
			if err != nil {
				return err
			}
			if err := am.post(ctx, body); err != nil {
				return fmt.Errorf("post alert %s: %w", g.labels["alertname"], err)
			}
		}
		if !firing {
			delete(am.groups, hash)
		}
	}
	return nil
}

// due is when the next group is looked at; zero: there is none.
func (am *alertmanager) due() (next time.Time) {
	for _, g := range am.groups {
		next = sooner(next, g.next)
	}
	return next
}

// sooner returns the sooner of two moments, of which the zero one is none.
func sooner(a, b time.Time) time.Time {
	if a.IsZero() || !b.IsZero() && b.Before(a) {
		return b
	}
	return a
}

// body is what Alertmanager's webhook posts of the group.
func (g *alertGroup) body(hash uint64) ([]byte, error) {
	status, ends := "firing", time.Time{}
	if !g.firing {
		status, ends = "resolved", g.ends
	}
	return json.Marshal(map[string]any{
		"version": "4", "receiver": "backout", "status": status, "truncatedAlerts": 0,
		"groupKey": fmt.Sprintf("{}/{}:%s", labels.FromMap(g.labels)), "groupLabels": g.labels, "commonLabels": g.labels, "commonAnnotations": map[string]string{},
		"alerts": []any{map[string]any{
			"status": status, "labels": g.labels, "annotations": map[string]string{}, "startsAt": g.began.UTC(), "endsAt": ends.UTC(), "fingerprint": fmt.Sprintf("%016x", hash),
		}},
	})
}
