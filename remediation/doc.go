// Package remediation is what backout is for: it takes notifications in, opens
// incidents, and carries a playbook's plan out step by step, each behind its
// gates, with an audit log that shows what was done and why.
//
// The shortest way through it: Engine.Accept commits a notification and what it
// opens or attaches to; confirm asks Prometheus whether it is true; tryStep asks
// the gates, looks at the target and commits an intent; runStep applies, records
// the outcome and verifies; settle waits until the recovery expressions say
// whether it helped; watchRecovered closes, or climbs the ladder again.
//
// Its invariants: an intent is committed before its effect, and the outcome
// after it, with the next state; an intent without an outcome is looked at, and
// never acted on blindly; nothing acts against a gate; no step follows another
// unless the breach is seen to go on; a state, its audit entries and its limits
// change in one transaction. What must outlive the process is in the Store, and
// waiting incidents are rows with a wake time.
package remediation
