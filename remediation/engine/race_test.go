//go:build race

package engine_test

// raced: the race detector judges the engine on the store that serve has, SQLite.
const raced = true
