//go:build race

package demo

// raceFlags build backout the way the tests are built: with the race detector.
var raceFlags = []string{"-race"}
