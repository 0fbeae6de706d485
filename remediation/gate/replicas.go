package gate

import (
	"cmp"
	"fmt"
	"time"

	"github.com/locotoki/backout/remediation"
)

// Disagree says in which way the live replicas differ about a service, "" where they do
// not; several tells that there is more than one. They differ while a playbook is being
// rolled out to them, and for good where one was forgotten: which of two playbooks holds,
// only a person knows, so nothing is done by either.
func (e *Gates) Disagree(tx remediation.Tx, service string, now time.Time) (differ string, several bool, err error) {
	live, err := remediation.LiveReplicas(tx, now)
	if err != nil {
		return "", false, err
	}
	differ, several = Differ(live, service)
	return differ, several, nil
}

// Differ is Disagree for live replicas that were read already.
func Differ(live []remediation.Replica, service string) (differ string, several bool) {
	if len(live) < 2 {
		return "", false
	}
	first := live[0]
	for _, r := range live[1:] {
		switch {
		case r.Mode != first.Mode:
			return fmt.Sprintf("replica %s runs with --mode=%s, %s with --mode=%s: start both in the same mode", first.Name, first.Mode, r.Name, r.Mode), true
		case r.Playbooks[service] != first.Playbooks[service]:
			return fmt.Sprintf("replicas %s and %s have different playbooks of %s (%s and %s): give both the same one and reload them",
				first.Name, r.Name, service, shortHash(first.Playbooks[service]), shortHash(r.Playbooks[service])), true
		}
	}
	return "", true
}

// shortHash is enough of a playbook's hash to tell it from another.
func shortHash(hash string) string { return cmp.Or(hash[:min(len(hash), 12)], "none") }
