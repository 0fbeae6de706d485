// Package engine puts the parts together: it loads playbooks, gives each due incident
// and promotion to its part, runs the housekeeping, and answers what pages and metrics
// ask of several parts at once.
//
// The path of a POST to its audit entry, file by file: receiver/webhook.go, access.go,
// body.go and notification/decode.go, incident/accept.go, ledger/ledger.go, notify/team.go (what the
// team is told goes into the same transaction), store/writer.go and audit.go, and
// audit/normal.go.
//
// The path of a firing alert to the change of its target: duty.go here, incident/incident.go,
// confirm.go, gate/samples.go, incident/act.go, gate/gate.go, ledger/change.go,
// incident/step.go, operation/operation.go, plan/plan.go, and the kind of action
// (action/flag_off.go, docker/flag.go).
//
// Waiting incidents are rows with a wake time; what must survive the process is in
// the store. A new Engine on the same store continues where the last one stopped.
package engine
