package rollout

import "github.com/locotoki/backout/remediation"

// smokeGates are the smoke checks as gates of a rollout's end.
func smokeGates(checks []remediation.Check) []remediation.GateResult {
	var all []remediation.GateResult
	for _, c := range checks {
		if c.OK {
			all = append(all, remediation.GateOpen("smoke "+c.Name, c.Detail))
		} else {
			all = append(all, remediation.GateClosed("smoke "+c.Name, "smoke test %s failed: %s", c.Name, c.Detail))
		}
	}
	return all
}
