// Package engine puts the parts together: it loads playbooks, gives each due incident
// and promotion to its part, runs the housekeeping, and answers what pages and metrics
// ask of several parts at once.
//
// The path of a POST to its audit entry, file by file:
//
//   - receiver/webhook.go: the handler
//   - receiver/access.go: whether its token may post
//   - receiver/body.go: its bytes, within bounds
//   - receiver/notification/decode.go: its alerts
//   - remediation/incident/accept.go: the transaction, and the entry to write in it
//   - remediation/ledger/ledger.go: the entry's time
//   - remediation/store/writer.go: the group commit
//   - remediation/store/audit.go: the entry's row
//   - remediation/audit/canonical.go: its bytes and its hash
//
// Two files see the transaction pass and leave the entry as it is: notify/team.go adds
// what the team is told, and lease/lease.go fences it where several replicas write.
//
// The path of a firing alert to the change of its target, from the row that Accept left
// behind:
//
//   - remediation/engine/duty.go: the incident is due
//   - remediation/incident/incident.go: what its state asks for
//   - remediation/ledger/plans.go: its compiled plan
//   - remediation/incident/confirm.go: whether the breach is real
//   - remediation/gate/samples.go: the indicator's values
//   - remediation/incident/prefetch.go: meanwhile, a look at the target
//   - remediation/incident/act.go: the next step and its intent
//   - remediation/gate/gate.go: every gate
//   - remediation/ledger/change.go: the transaction on the incident
//   - remediation/incident/step.go: the step as an operation
//   - remediation/operation/operation.go: apply, within its time limit
//   - remediation/plan/plan.go: the step's action
//   - remediation/action/flag_off.go: the kind of action
//   - remediation/docker/flag.go: Apply
//
// Waiting incidents are rows with a wake time; what must survive the process is in
// the store. A new Engine on the same store continues where the last one stopped.
package engine
