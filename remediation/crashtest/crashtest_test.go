package crashtest

import (
	"flag"
	"slices"
	"strconv"
	"testing"
)

// through returns the points of a way that has length of them, up to the first
// one beyond it.
func through(t *testing.T, short string, length int) (points []int) {
	t.Helper()
	was := flag.Lookup("test.short").Value.String()
	defer func() { set(t, was) }()
	set(t, short)
	for n := range Points(t) {
		points = append(points, n)
		if n >= length {
			break
		}
	}
	return points
}

func set(t *testing.T, short string) {
	t.Helper()
	if err := flag.Set("test.short", short); err != nil {
		t.Fatal(err)
	}
}

func TestTheLongRunHasEveryPoint(t *testing.T) {
	if got := through(t, "false", 4); !slices.Equal(got, []int{0, 1, 2, 3, 4}) {
		t.Errorf("points %v", got)
	}
}

func TestTheShortRunHasTheFirstPointAndASampleThatItsSeedRepeats(t *testing.T) {
	met := map[int]bool{}
	for seed := range 100 {
		t.Setenv("BACKOUT_SEED", strconv.Itoa(seed))
		got := through(t, "true", 40)
		if again := through(t, "true", 40); !slices.Equal(got, again) {
			t.Fatalf("seed %d: points %v, then %v", seed, got, again)
		}
		if got[0] != 0 || len(got) < 40/(2*gap) || len(got) > 25 {
			t.Fatalf("seed %d: points %v", seed, got)
		}
		for _, n := range got {
			met[n] = true
		}
	}
	for n := range 40 {
		if !met[n] {
			t.Errorf("no seed of 100 meets point %d", n)
		}
	}
}

func TestOneIsDrawnInTheShortRunAndEachByOneOfTheSeeds(t *testing.T) {
	was := flag.Lookup("test.short").Value.String()
	defer func() { set(t, was) }()
	all := []int{0, 1, 2}
	if set(t, "false"); !slices.Equal(Draw(t, all), all) {
		t.Errorf("the long run draws %v", Draw(t, all))
	}
	set(t, "true")
	met := map[int]bool{}
	for seed := range 100 {
		t.Setenv("BACKOUT_SEED", strconv.Itoa(seed))
		got := Draw(t, all)
		if len(got) != 1 || !slices.Equal(got, Draw(t, all)) {
			t.Fatalf("seed %d draws %v, then %v", seed, got, Draw(t, all))
		}
		met[got[0]] = true
	}
	if len(met) != len(all) {
		t.Errorf("100 seeds draw only %v", met)
	}
}
