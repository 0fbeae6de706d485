package backtest

import (
	"math"
	"slices"
	"testing"
	"time"

	"github.com/locotoki/backout/alerts"
	"github.com/locotoki/backout/rules"
)

var nan = math.NaN()

func seriesOf(values ...float64) *series {
	return &series{grid: grid{15 * time.Second, 100, 100 + int64(len(values)) - 1}, values: values}
}

func above(threshold float64) *rules.Replayed {
	return &rules.Replayed{Above: true, Threshold: threshold}
}

func TestAnAlertFiresWhileItsValueIsBeyondTheThreshold(t *testing.T) {
	inf := math.Inf(1)
	for name, tc := range map[string]struct {
		rule   *rules.Replayed
		values []float64
		want   [][2]int64
		worst  float64
	}{
		"the threshold itself is not beyond": {above(1), []float64{1, 1, 1}, nil, 0},
		"each evaluation counts":             {above(1), []float64{0, 2, 0, 3, 4}, [][2]int64{{101, 102}, {103, 105}}, 4},
		"no value resolves":                  {above(1), []float64{2, nan, 2}, [][2]int64{{100, 101}, {102, 103}}, 2},
		"infinity fires":                     {above(1), []float64{0, inf, 0}, [][2]int64{{101, 102}}, inf},
		"below":                              {&rules.Replayed{Threshold: 0.6}, []float64{0.7, 0.5, 0.4, 0.6}, [][2]int64{{101, 103}}, 0.4},
		"for: fires that much later":         {&rules.Replayed{Above: true, For: 30 * time.Second}, []float64{1, 1, 1, 1, 0, 1, 1, 0}, [][2]int64{{102, 104}}, 1},
	} {
		t.Run(name, func(t *testing.T) {
			got := firings(tc.rule, seriesOf(tc.values...))
			var ends [][2]int64
			for _, f := range got {
				ends = append(ends, [2]int64{f.from, f.to})
			}
			if !slices.Equal(ends, tc.want) {
				t.Fatalf("fires %v, want %v", ends, tc.want)
			}
			if n := len(got); n > 0 && got[n-1].worst != tc.worst {
				t.Errorf("worst is %g, want %g", got[n-1].worst, tc.worst)
			}
		})
	}
}

func TestTheWayUpToAFiringAndDownIsNoMiss(t *testing.T) {
	r := above(10)
	r.Window = 15 * time.Second
	s := seriesOf(7, 1, 1, 9, 11, 9.5, 8.5, 1, nan)
	if i := nearest(r, s, firings(r, s)); i != 100 {
		t.Errorf("nearest is %d, want 100", i)
	}
	if i := nearest(r, seriesOf(nan, 11, 12), nil); i != -1 {
		t.Errorf("of no value within the threshold: %d", i)
	}
}

func TestAProposalLeavesOutTheShortFiringsOnly(t *testing.T) {
	const minute = time.Minute
	long := []float64{0, 0.02, 0.05, 0.05, 0.05, 0.05, 0}
	brief := []float64{0, 0.0132, 0, 0.0117, 0}
	both := append(slices.Clone(brief), long...)
	counts := func(n int, busy, quiet float64) *series {
		v := make([]float64, n)
		for i := range v {
			if v[i] = busy; i < len(brief) && brief[i] > 0 {
				v[i] = quiet
			}
		}
		return seriesOf(v...)
	}
	r := above(0.01)
	r.MinVolume = 500
	measured := func(above bool, threshold float64, unit alerts.Unit, buckets ...float64) *rules.Replayed {
		return &rules.Replayed{Above: above, Threshold: threshold, Unit: unit, Buckets: buckets}
	}
	for name, tc := range map[string]struct {
		rule              *rules.Replayed
		values            []float64
		volume            *series
		bound, volumeFrom float64 // 0: none
	}{
		"both":                                  {r, both, counts(len(both), 2000, 830), 0.014, 840},
		"the volume that others need too":       {r, both, counts(len(both), 830, 830), 0.014, 0},
		"a bound that loses a long one":         {r, append(slices.Clone(brief), 0, 0.012, 0.012, 0.012, 0.012, 0.012, 0), nil, 0, 0},
		"a bound that would be another trigger": {r, []float64{0, 0.3, 0}, nil, 0, 0},
		"any event is a breach":                 {above(0), []float64{0, 1, 0}, nil, 0, 0},
		"a bound that leaves a long one's end":  {r, append(slices.Clone(brief), 0, 0.012, 0.012, 0.012, 0.012, 0.012, 0.05, 0), nil, 0, 0},
		"between two buckets":                   {measured(true, 0.75, alerts.Seconds, 0.5, 0.75, 1.2, 2), []float64{0, 0.81, 0}, nil, 1.2, 0},
		"on a bucket":                           {measured(true, 0.75, alerts.Seconds, 0.5, 0.75, 1.2, 2), []float64{0, 1.2, 0}, nil, 1.2, 0},
		"the last bucket":                       {measured(true, 0.75, alerts.Seconds, 0.5, 0.75, 1.2), []float64{0, 0.81, 0}, nil, 0, 0},
		"beyond the last bucket":                {measured(true, 0.75, alerts.Seconds, 0.5, 0.75), []float64{0, 0.81, 0}, nil, 0, 0},
		"below, between two buckets":            {measured(false, 0.75, alerts.Seconds, 0.5, 0.75, 1.2), []float64{1, 0.7, 1}, nil, 0.5, 0},
		"below the first bucket":                {measured(false, 0.75, alerts.Seconds, 0.5, 0.75), []float64{1, 0.4, 1}, nil, 0, 0},
		"all of it":                             {measured(true, 0.6, alerts.Ratio), []float64{0, 0.996, 0}, nil, 0, 0},
		"100%":                                  {measured(true, 60, alerts.Percent), []float64{0, 99.8, 0}, nil, 0, 0},
		"more than 100% of a core":              {measured(true, 150, alerts.Percent), []float64{0, 180, 0}, nil, 180, 0},
		"below":                                 {&rules.Replayed{Threshold: 0.6}, []float64{0.7, 0.583, 0.7}, nil, 0.58, 0},
	} {
		t.Run(name, func(t *testing.T) {
			s := seriesOf(tc.values...)
			p := propose(tc.rule, s, firings(tc.rule, s), minute, tc.volume)
			if p == nil {
				t.Fatal("nothing is proposed")
			}
			value := func(v *float64) float64 {
				if v == nil {
					return 0
				}
				return *v
			}
			if value(p.Threshold) != tc.bound || value(p.MinVolume) != tc.volumeFrom {
				t.Errorf("proposes %g and %g, want %g and %g", value(p.Threshold), value(p.MinVolume), tc.bound, tc.volumeFrom)
			}
		})
	}
	for name, values := range map[string][]float64{
		"no short firing": long, "the data ended it": {0, 0.05, nan, 0}, "the data begins with it": {0.05, 0},
	} {
		s := seriesOf(values...)
		if p := propose(r, s, firings(r, s), minute, nil); p != nil {
			t.Errorf("%s: %+v", name, p)
		}
	}
}

func TestARecordedStageIsCarriedForAnHour(t *testing.T) {
	pb := twoStages(t)
	hour := int(time.Hour / (15 * time.Second))
	values := []float64{0, 1, 1}
	for range hour {
		values = append(values, nan)
	}
	values = append(values, 2, 2, 0)
	for range hour + 10 {
		values = append(values, nan)
	}
	s := seriesOf(values...)
	stays, recorded := staysOf(pb, s)
	want := []rules.Stay{
		{Stage: "alpha", From: s.at(101), To: s.at(103 + int64(hour))},
		{Stage: "beta", From: s.at(103 + int64(hour)), To: s.at(105 + int64(hour))},
	}
	if !recorded || !slices.Equal(stays, want) {
		t.Errorf("recorded %v: %v, want %v", recorded, stays, want)
	}
	if _, recorded := staysOf(pb, seriesOf(nan, nan)); recorded {
		t.Error("nothing was recorded")
	}
	long := []float64{1}
	for range 2 * hour {
		long = append(long, nan)
	}
	if stays, _ = staysOf(pb, seriesOf(long...)); len(stays) != 1 || stays[0].To.Sub(stays[0].From) != time.Hour+15*time.Second {
		t.Errorf("a stage that nobody exports any more: %v", stays)
	}
}

func TestAStagesTriggerIsAskedForWithinItsStageOnly(t *testing.T) {
	at := func(d time.Duration) time.Time { return day.Add(d) }
	stays := []rules.Stay{
		{Stage: "alpha", From: at(-48 * time.Hour), To: at(-47 * time.Hour)},
		{Stage: "alpha", From: at(time.Hour + 7*time.Second), To: at(2*time.Hour + time.Second)},
		{Stage: "gamma", From: at(2*time.Hour + time.Second), To: at(3 * time.Hour)},
		{Stage: "beta", From: at(3 * time.Hour), To: at(4 * time.Hour)},
		{Stage: "alpha", From: at(23 * time.Hour), To: at(30 * time.Hour)},
	}
	g := gridOf(day, at(24*time.Hour-time.Second), 15*time.Second)
	a := &rules.Replayed{Stages: []string{"alpha", "gamma"}}
	parts := within(a, stays, g)
	if len(parts) != 2 {
		t.Errorf("asked for in the parts %+v", parts)
	}
	for i := g.first; i <= g.last; i++ {
		asked := slices.ContainsFunc(parts, func(p grid) bool { return i >= p.first && i <= p.last })
		if on := slices.Contains(a.Stages, stageAt(stays, g.at(i))); on != asked {
			t.Fatalf("at %s in the stage %v, asked %v", g.at(i), on, asked)
		}
	}
	if parts := within(&rules.Replayed{}, stays, g); len(parts) != 1 || parts[0] != g {
		t.Errorf("without stages: %+v", parts)
	}
}
