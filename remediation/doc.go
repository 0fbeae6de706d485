// Package remediation is backout's domain: incidents, their steps, rollouts,
// signals and preflights as rows, what can be asked of a row alone, and the ports
// to everything outside (Action, Store with Tx, Prometheus, Alertmanager, Channel).
//
// Package engine works with it: it takes notifications in, and carries a playbook's
// plan out step by step. The adapters (docker, postgres, launchdarkly, unleash, store, comms,
// observe) implement its ports and never import each other.
//
// What the engine keeps to, and every port must allow: an intent is committed
// before its effect, and the outcome after it, with the next state; an intent
// without an outcome is looked at, and never acted on blindly; nothing acts against
// a gate; no step follows another unless the breach continues; a state, its audit
// entries and its limits change in one transaction.
package remediation
