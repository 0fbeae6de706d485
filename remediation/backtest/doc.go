// Package backtest replays a playbook over the past of a Prometheus: which of its alerts
// would have fired, and what backout would have done about them.
//
// The values come from range queries of the generated expressions at the rules' own
// interval; recordings are computed from their definitions (rules.Replay), so that none
// of them needs to exist. Firings follow from the values as Prometheus's rules have it.
// What backout would have done is not modelled: the engine itself runs on a store of its
// own, with a clock that follows the past, a Prometheus that answers from it, and targets
// that nothing changes. Its limits, cooldown, approvals and reopening are the real ones.
//
// The command and the console call Run. A step changes no value of the past: the report
// tells how the breach went without help, not how it would have gone with it.
package backtest
