// Package scenario runs a playbook on made-up series, and checks what backout does.
//
// All that decides is the real thing: the playbook's generated rules on Prometheus's query
// engine, the engine on its SQLite store, the kinds of actions with their checks and
// targets. What is made up is around it: the clock, Prometheus's scrapes and evaluations,
// Alertmanager's groups, and targets that hold their state in memory.
//
// At one moment things happen in this order: the scenario's events, the scrape, the rules'
// evaluation, Alertmanager's notifications, the engine's turn, the expectations. So an
// event at 4m is in force for what the rules find at 4m. A scenario gives the same result
// on each run.
//
// cmd/backout runs scenarios for backout test.
package scenario
