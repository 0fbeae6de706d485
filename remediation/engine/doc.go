// Package engine carries out playbooks: it accepts notifications, opens incidents, and
// runs a plan step by step, each step behind its gates.
//
// The shortest way through it: Engine.Accept commits a notification and what it
// opens or attaches to; confirm asks Prometheus whether it is true; tryStep checks the
// gates, looks at the target and commits an intent; runStep applies, records the
// outcome and verifies; settle waits until the recovery expressions show whether it
// helped; watchRecovered closes the incident or continues with the plan.
//
// Waiting incidents are rows with a wake time; what must survive the process is in
// the store. A new Engine on the same store continues where the last one stopped.
package engine
