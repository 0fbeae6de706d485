// Package crashtest chooses the points at which a test cuts backout off: each of
// them in the long run, and a sample in the short one. The conformance suites of
// actions and stores use it, and so do the tests of the engine and of the actions.
// Other tests with many cases of one kind draw theirs by it.
package crashtest

import (
	"iter"
	"math/rand/v2"
	"os"
	"strconv"
	"testing"
)

// most is the number of points after which a test that never gets through fails.
const most = 200

// gap is the mean distance of two points of a sample.
const gap = 8

// Sampled reports whether this is the short run, which draws samples.
func Sampled() bool { return testing.Short() }

// Rounds is how many of a test's rounds there are to be: all, or with -short about an
// eighth.
func Rounds(all int) int {
	if Sampled() {
		return (all + gap - 1) / gap
	}
	return all
}

// Draw returns all of what a test could do, or with -short one of it. A failing test
// logs the seed, as Points does.
func Draw[T any](t testing.TB, all []T) []T {
	t.Helper()
	if !Sampled() || len(all) == 0 {
		return all
	}
	i := random(t).IntN(len(all))
	return all[i : i+1]
}

// random is drawn anew in each run; BACKOUT_SEED=N draws the same again.
func random(t testing.TB) *rand.Rand {
	t.Helper()
	seed := rand.Uint64()
	if s := os.Getenv("BACKOUT_SEED"); s != "" {
		var err error
		if seed, err = strconv.ParseUint(s, 10, 64); err != nil {
			t.Fatalf("BACKOUT_SEED: %v", err)
		}
	}
	t.Logf("a sample; the same again: BACKOUT_SEED=%d", seed)
	return rand.New(rand.NewPCG(seed, 0))
}

// Points yields the points of one way through the code, from 0. The caller cuts
// off at the point that it is given, and leaves the loop when the way ended
// before it.
//
// With -short it is a sample: the first point, and of the others about one in
// eight. A failing test logs the seed, and BACKOUT_SEED=N draws the same sample.
func Points(t testing.TB) iter.Seq[int] {
	t.Helper()
	step := func() int { return 1 }
	if Sampled() {
		r := random(t)
		step = func() int { return 1 + r.IntN(2*gap-1) }
	}
	return func(yield func(int) bool) {
		for n := 0; n < most; n += step() {
			if !yield(n) {
				return
			}
		}
		t.Fatalf("still not through at point %d", most)
	}
}
