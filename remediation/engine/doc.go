// Package engine carries playbooks out: it takes notifications in, opens incidents,
// and runs a plan step by step, each step behind its gates.
//
// The shortest way through it: Engine.Accept commits a notification and what it
// opens or attaches to; confirm asks Prometheus whether it is true; tryStep asks the
// gates, looks at the target and commits an intent; runStep applies, records the
// outcome and verifies; settle waits until the recovery expressions say whether it
// helped; watchRecovered closes, or goes on with the plan.
//
// Waiting incidents are rows with a wake time; what must outlive the process is in
// the store. A new Engine on the same store goes on where the last one was cut off.
package engine
