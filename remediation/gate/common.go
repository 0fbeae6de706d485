package gate

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/locotoki/backout/remediation"
	"github.com/locotoki/backout/remediation/plan"
)

// These gates hold a rollback's step and a rollout's way forward alike.

// ActMode is closed in observe mode.
func (e *Gates) ActMode() remediation.GateResult {
	if e.Mode != remediation.Act {
		return remediation.GateResult{Gate: "mode", Reason: remediation.HoldMode, Why: "backout runs with --mode=observe and changes nothing"}
	}
	return remediation.GateOpen("mode", "")
}

// Frozen is closed while a freeze of one of the scopes holds the service, or every service.
func (e *Gates) Frozen(tx remediation.Tx, service string, scopes ...string) (remediation.GateResult, error) {
	freezes, err := e.FreezesIn(tx)
	if err != nil {
		return remediation.GateResult{}, err
	}
	for _, f := range freezes {
		if slices.Contains(scopes, f.Scope) && (f.Service == "" || f.Service == service) {
			return remediation.GateResult{Gate: "freeze", Reason: remediation.HoldFrozen, Until: f.Until,
				Why: fmt.Sprintf("%s is frozen (%s) by %s: %s", cmp.Or(f.Service, "every service"), f.Scope, f.By, f.Reason)}, nil
		}
	}
	return remediation.GateOpen("freeze", ""), nil
}

// Agreed is closed while live replicas differ about a service. A process that shares its
// store with no other has no such gate.
func (e *Gates) Agreed(tx remediation.Tx, service string, now time.Time) ([]remediation.GateResult, error) {
	switch differ, several, err := e.Disagree(tx, service, now); {
	case err != nil || !several:
		return nil, err
	case differ != "":
		return []remediation.GateResult{{Gate: "replicas", Reason: remediation.HoldReplicas, Why: differ}}, nil
	}
	return []remediation.GateResult{remediation.GateOpen("replicas", "")}, nil
}

// Watchdog is closed while no alert would be seen: the watchdog was not heard recently, or
// Prometheus does not answer. It holds a rollout's way forward, and no rollback.
func (e *Gates) Watchdog(tx remediation.Tx, b *plan.Plan) (remediation.GateResult, error) {
	beat, err := remediation.BeatOf(tx, b.Service)
	if err != nil {
		return remediation.GateResult{}, err
	}
	age := e.Now().Sub(beat.Last)
	var lost []string // both, where both are away
	if beat.Lost || age > time.Duration(b.Watchdog.MaxAge) {
		lost = append(lost, fmt.Sprintf("no watchdog alert for %s: alerts may not reach backout", remediation.Span(age)))
	}
	if !beat.Away.IsZero() {
		lost = append(lost, fmt.Sprintf("Prometheus has not answered since %s: monitoring is lost", remediation.Moment(beat.Away)))
	}
	if len(lost) > 0 {
		return remediation.GateClosed("watchdog", "%s", strings.Join(lost, "; ")), nil
	}
	return remediation.GateOpen("watchdog", ""), nil
}
