package demo

import (
	"context"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/locotoki/backout/deploy/demo/breakage"
	"github.com/locotoki/backout/hint"
)

// scenario is one way to break the service.
type scenario struct {
	name   string
	what   string // what is wrong from now on
	breach func(ctx context.Context, s *stack) error
	// probe is a path of the service that is well before the breach and not
	// after it: it fails, or takes this long.
	probe string
	slow  time.Duration
	// trigger and threshold are those of the demo's playbook; measure and show
	// say what it measures the way people do.
	trigger, threshold, measure string
	show                        func(value float64) string
	window                      string // over which it is measured
	// cure is the action that ends the breach; those before it do not.
	cure string
	// canary: the demo starts the rollout itself and brings it to its second stage,
	// where the breach is a criterion of that stage. Without it a rollout is declared.
	canary bool
	// kubernetes: the service is a Deployment of three pods.
	kubernetes bool
}

// scenarios are ordered by how many steps of the plan they need; canary starts a
// rollout first, and kubernetes is the first one in a cluster.
func scenarios() []scenario {
	return []scenario{
		{
			name: "errors", what: "half of the analytics requests fail from now on",
			breach: breakingWith(breakage.Breakage{Errors: 0.5}), probe: "/analytics/trends",
			trigger: "error_rate", threshold: "0.01", measure: "error rate", show: percent, window: "15 s",
			cure: "flag_off",
		},
		{
			name: "latency", what: "analytics requests take 1.2 s from now on",
			breach: breakingWith(breakage.Breakage{Latency: slowAnswer}), probe: "/analytics/trends", slow: slowAnswer,
			trigger: "p95_latency", threshold: "0.75", measure: "p95 latency", show: seconds, window: "15 s",
			cure: "flag_off",
		},
		{
			name: "image", what: "half of the analytics requests to v2.0.0 fail from now on, whether the flag is on or off",
			breach: breakingWith(breakage.Breakage{Errors: 0.5, DespiteFlag: true, Version: newVersion}), probe: "/analytics/trends",
			trigger: "error_rate", threshold: "0.01", measure: "error rate", show: percent, window: "15 s",
			cure: "image_retag",
		},
		{
			name: "schema", what: "a channel goes viral: v2.0.0's schema keeps the total of its views in an integer, which overflows; no view can be written",
			breach: func(ctx context.Context, s *stack) error { return s.goViral(ctx) }, probe: "/basic/views",
			trigger: "error_rate", threshold: "0.01", measure: "error rate", show: percent, window: "15 s",
			cure: "schema_rollback",
		},
		{
			name: "canary", what: "the 10% of analytics requests that use v2.0.0's feature take 1.2 s from now on",
			breach: breakingWith(breakage.Breakage{Latency: slowAnswer}), probe: "/analytics/trends", slow: slowAnswer,
			trigger: "beta_p95", threshold: "0.75", measure: "p95 latency", show: seconds, window: "10 s",
			cure: "flag_off", canary: true,
		},
		{
			name: "kubernetes", what: "half of the analytics requests to each of the three pods fail from now on",
			breach: breakingWith(breakage.Breakage{Errors: 0.5}), probe: "/analytics/trends",
			trigger: "error_rate", threshold: "0.01", measure: "error rate", show: percent, window: "15 s",
			cure: "flag_off", kubernetes: true,
		},
	}
}

const slowAnswer = 1200 * time.Millisecond

// The two versions of the demo's rollout, as its playbook has them.
const (
	newVersion = "v2.0.0"
	oldVersion = "v1.0.0"
)

func breakingWith(b breakage.Breakage) func(context.Context, *stack) error {
	return func(_ context.Context, s *stack) error { return s.breakWith(b) }
}

func percent(v float64) string { return fmt.Sprintf("%.1f%%", v*100) }
func seconds(v float64) string { return fmt.Sprintf("%.2f s", v) }

// Scenarios are the names of the ways in which the demo can break its service.
func Scenarios() []string {
	var names []string
	for _, sc := range scenarios() {
		names = append(names, sc.name)
	}
	return names
}

func scenarioOf(name string) (scenario, error) {
	all := scenarios()
	i := slices.IndexFunc(all, func(sc scenario) bool { return sc.name == name })
	if i < 0 {
		return scenario{}, hint.Add(fmt.Errorf("unknown scenario %q", name), "one of %s", strings.Join(Scenarios(), ", "))
	}
	return all[i], nil
}

// value writes what was measured for a person.
func (sc scenario) value(text string) string {
	v, err := strconv.ParseFloat(text, 64)
	if err != nil {
		return text
	}
	return sc.show(v)
}
