package alerts_test

import (
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/locotoki/backout/alerts"
)

func TestAPhaseBlocksWhatItSaysOrElseWhatItsDayMeans(t *testing.T) {
	smallest, err := os.ReadFile(filepath.Join("..", "testdata", "playbooks", "good", "smallest.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	for when, want := range map[string]alerts.Blocks{
		"":                               alerts.BlocksStart,
		"when: T-7 days":                 alerts.BlocksStart,
		"when: day -3":                   alerts.BlocksStart,
		"when: The week before":          alerts.BlocksStart,
		"when: t-1":                      alerts.BlocksStart,
		"when: T-7":                      alerts.BlocksStart,
		"when: T+10":                     alerts.BlocksFinish,
		"when: T":                        alerts.BlocksNothing,
		"when: Day 0":                    alerts.BlocksNothing,
		"when: T + 9":                    alerts.BlocksFinish,
		"when: T+9":                      alerts.BlocksFinish,
		"when: Day 0 + X days":           alerts.BlocksFinish,
		"when: Day 3":                    alerts.BlocksFinish,
		"when: Days 8-14":                alerts.BlocksFinish,
		"when: T - 7 days":               alerts.BlocksStart,
		"when: Days -7 to -1":            alerts.BlocksStart,
		"when: T-7, blocks: finish":      alerts.BlocksFinish,
		"when: T+9, blocks: start":       alerts.BlocksStart,
		"when: T+9, blocks: nothing":     alerts.BlocksNothing,
		"when: After it, blocks: finish": alerts.BlocksFinish,
	} {
		pb, err := alerts.Parse("p.yaml", append(slices.Clip(smallest), "\nphases: [{name: Some, tasks: [{name: Work}], "+when+"}]\n"...), kinds())
		if err != nil {
			t.Fatalf("%q: %v", when, err)
		}
		if got := pb.Phases[0].Blocks; got != want {
			t.Errorf("%q blocks %s, want %s", when, got, want)
		}
	}
}

func TestOnlyADayBeforeTheRolloutsBlocksTheStart(t *testing.T) {
	for day, want := range map[string]bool{"T-1": true, "T": false, "T+1": false} {
		if got := (alerts.TimelineEntry{Day: day}).BeforeStart(); got != want {
			t.Errorf("%s is before the start: %t, want %t", day, got, want)
		}
	}
}
