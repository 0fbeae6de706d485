package engine_test

import (
	"log/slog"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/locotoki/backout/alerts"
	"github.com/locotoki/backout/remediation"
	"github.com/locotoki/backout/remediation/action"
	"github.com/locotoki/backout/remediation/engine"
	"github.com/locotoki/backout/rules"
)

// keeper keeps flags, each of which is a target of the harness's.
type keeper struct {
	w    *harness
	name string
}

func (k keeper) FlagOff(_ alerts.Target, f alerts.Flag) (remediation.Action, error) {
	return k.w.target(k.name + " " + f.Name), nil
}

// newFlagHarness is a service with two flags, one of which LaunchDarkly keeps. Slow
// inference (error_rate stands for it) turns the smaller one off first.
func newFlagHarness(t *testing.T) *harness {
	t.Helper()
	w := newHarness(t)
	src := playbook
	for old, new := range map[string]string{
		`  - {name: FEATURE_A, off: "0", default: "0", fallback: none}
`: `  - {name: FEATURE_ALL, off: "0", default: "0", fallback: none}
  - {name: FEATURE_RECOMMENDATIONS, off: "0", default: "0", fallback: none, launchdarkly: {project: shop, environment: production, key: recommendations}}
`,
		"{action: flag_off, settle: 5m}": "{action: flag_off, flag: FEATURE_ALL, settle: 5m}",
		"min_volume: 13}, plan: ladder":  "min_volume: 13}, plan: inference",
		"plans:\n": `plans:
  - name: inference
    steps:
      - {action: flag_off, flag: FEATURE_RECOMMENDATIONS, settle: 5m}
      - {action: flag_off, flag: FEATURE_ALL, settle: 5m}
      - {action: image_retag, settle: 5m}
`,
		"per_target: 3/1h": "per_target: 1/1h",
	} {
		if !strings.Contains(src, old) {
			t.Fatalf("%q is not in the playbook", old)
		}
		src = strings.ReplaceAll(src, old, new)
	}
	kinds := slices.DeleteFunc(w.kinds(), func(k remediation.ActionKind) bool { return k.Name() == "flag_off" })
	for _, k := range action.Kinds(action.Tools{Flags: keeper{w, "compose"}, LaunchDarkly: keeper{w, "launchdarkly"}}) {
		if k.Name() == "flag_off" {
			kinds = append(kinds, k)
		}
	}
	var listed []alerts.ActionKind
	for _, k := range kinds {
		listed = append(listed, k)
	}
	pb, err := alerts.Parse("shop.yaml", []byte(src), listed)
	w.must(err)
	w.pb = pb
	w.prom.expr, err = rules.ExpressionsOf(pb)
	w.must(err)
	w.engine, err = engine.New(w.ctx, engine.Options{
		Store: w.store, Playbooks: []*alerts.Playbook{pb}, Kinds: kinds, Prometheus: w.prom, Alertmanager: w.am,
		Mode: w.mode, Now: func() time.Time { return w.now }, Logger: slog.New(slog.DiscardHandler),
	})
	w.must(err)
	return w
}

const (
	smaller = "launchdarkly FEATURE_RECOMMENDATIONS"
	master  = "compose FEATURE_ALL"
)

func TestOneFeatureIsTurnedOffAndWaitedForBeforeTheMasterFlag(t *testing.T) {
	w := newFlagHarness(t)
	id := w.open()
	w.steps(id, remediation.StepDone, remediation.StepPending, remediation.StepPending)
	if w.target(smaller).effects != 1 || w.target(master).effects != 0 {
		t.Fatalf("effects: %d and %d", w.target(smaller).effects, w.target(master).effects)
	}
	w.is(id, remediation.Settling, "")
	w.pass(4*time.Minute + 50*time.Second)
	w.steps(id, remediation.StepDone, remediation.StepPending, remediation.StepPending)
	w.pass(time.Minute) // its settle time is over and the breach goes on: within the cooldown of flag_off on the other target
	w.steps(id, remediation.StepDone, remediation.StepDone, remediation.StepPending)
	if w.target(smaller).effects != 1 || w.target(master).effects != 1 {
		t.Fatalf("effects: %d and %d", w.target(smaller).effects, w.target(master).effects)
	}
	var targets []string
	for _, s := range w.incident(id).Steps {
		targets = append(targets, s.ID+" "+s.Target)
	}
	if want := []string{"1-flag_off launchdarkly:shop/production/recommendations", "2-flag_off compose:/srv/shop/shop:FEATURE_ALL", "3-image_retag fake:image_retag"}; !slices.Equal(targets, want) {
		t.Errorf("steps %q, want %q", targets, want)
	}
	w.cured("error_rate")
	w.pass(4 * time.Minute)
	w.is(id, remediation.Recovered, "")
	w.steps(id, remediation.StepDone, remediation.StepDone, remediation.StepPending)
}

func TestTheMasterFlagStaysOnWhereTheSmallerOneHelped(t *testing.T) {
	w := newFlagHarness(t)
	id := w.open()
	w.cured("error_rate")
	w.pass(10 * time.Minute)
	w.is(id, remediation.Recovered, "")
	if w.target(smaller).effects != 1 || w.target(master).effects != 0 {
		t.Errorf("effects: %d and %d", w.target(smaller).effects, w.target(master).effects)
	}
}

func TestTheLimitsOfOneFlagAreNotThoseOfAnother(t *testing.T) {
	w := newFlagHarness(t)
	id := w.open()
	w.calm("error_rate")
	w.post("resolved", "error_rate", "fp1")
	w.pass(15 * time.Minute)
	w.is(id, remediation.Closed, "")
	// Someone turns both on again; the smaller one has had its one effect this hour.
	w.target(smaller).position = remediation.Untouched
	w.declare("alpha")
	w.breach("latency")
	id = w.fire("latency", "fp2") // its plan has the master flag alone
	w.pass(time.Minute)
	if w.target(master).effects != 1 {
		t.Fatalf("the master flag is held by the other's limit: %v", w.log(id))
	}
	w.breach("error_rate")
	w.fire("error_rate", "fp3")
	w.pass(6 * time.Minute)
	if w.target(smaller).effects != 1 {
		t.Errorf("the smaller flag was switched twice within 1/1h: %v", w.log(id))
	}
	w.is(id, remediation.Waiting, remediation.HoldRateLimit)
}
