// Package plan makes of a playbook what the engine works with: each plan's steps in
// order, each step bound to its kind of action, each trigger's expressions. It looks
// at nothing outside, and its plans never change.
package plan
