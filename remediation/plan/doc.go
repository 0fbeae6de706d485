// Package plan compiles a playbook for the engine: each plan's steps in order, each
// step bound to its kind of action, each trigger's expressions. It reads nothing else,
// and its plans never change.
package plan
