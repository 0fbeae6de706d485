// Package view is what pages, commands, messages and reports show: incidents and
// rollouts as the API gives them, the overview, an incident's story and timeline, a
// plot, a rollout's report. It is made of rows and audit entries alone; the engine
// adds what only Prometheus or a target can tell.
package view
