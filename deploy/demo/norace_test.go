//go:build !race

package demo

// raceFlags are none: the tests, or the benchmarks, run without the race detector.
var raceFlags []string
