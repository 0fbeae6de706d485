package draft

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/common/model"
)

func TestBoundsAreOnBucketsAndAbovePeak(t *testing.T) {
	buckets := []float64{1, 2, 3, 5, 8} // a quantile never exceeds 8
	for _, c := range []struct {
		p99, peak              float64
		target, alert, trigger float64
		high                   bool
	}{
		{0.9, 0, 1, 2, 3, true},
		{0.9, 2.5, 1, 3, 5, true},
		{1.9, 0, 2, 3, 5, true},
		{2.9, 0, 0, 3, 5, true},
		{1.9, 2.5, 2, 3, 5, true},
		{2.5, 2.9, 0, 3, 5, true},
		{1.2, 3.5, 0, 3, 5, false}, // only the trigger is above 3.5
		{4, 0, 0, 3, 5, false},
		{1.2, 7, 0, 3, 5, false},
	} {
		target, alert, trigger, high := onBuckets(buckets, c.p99, c.peak)
		if target != c.target || alert != c.alert || trigger != c.trigger || high != c.high {
			t.Errorf("p99 %g, peak %g: target %g, alert %g, trigger %g, high %v; want %+v", c.p99, c.peak, target, alert, trigger, high, c)
		}
		if high && alert < c.peak {
			t.Errorf("p99 %g: the alert %g is below the peak %g", c.p99, alert, c.peak)
		}
	}
}

// errNoTargets is what Thanos answers for its targets.
var errNoTargets = errors.New("404 Not Found")

func (*limited) ScrapeIntervals(context.Context) (map[string]time.Duration, error) {
	return nil, errNoTargets
}

func (counts) ScrapeIntervals(context.Context) (map[string]time.Duration, error) {
	return map[string]time.Duration{"other": time.Second}, nil
}

// limited refuses some queries, as a Prometheus does with --query.max-samples.
type limited struct {
	refuses string
	asked   []string
}

func (l *limited) Vector(_ context.Context, expr string) (model.Vector, error) {
	l.asked = append(l.asked, expr)
	if strings.Contains(expr, l.refuses) {
		return nil, errors.New("query processing would load too many samples into memory")
	}
	return model.Vector{{Value: model.SampleValue(1e5 * len(l.asked))}}, nil
}

func TestAPeakThatPrometheusRefusesIsAskedForMoreCoarsely(t *testing.T) {
	l := &limited{refuses: "[7d:1m]"}
	a := &asker{prometheus: l}
	if w := a.week(t.Context(), "x", traffic{}); a.err != nil || !w.known || w.highest != 4e5 || !strings.HasSuffix(l.asked[3], "[7d:10m])") {
		t.Errorf("%+v after %q: %v", w, l.asked, a.err)
	}
	a = &asker{prometheus: &limited{refuses: "[7d:"}}
	if a.week(t.Context(), "x", traffic{}); a.err == nil {
		t.Error("a Prometheus that answers nothing is no error")
	}
}

// counts answers how many samples a target has.
type counts float64

func (n counts) Vector(context.Context, string) (model.Vector, error) {
	if n < 0 {
		return nil, nil
	}
	return model.Vector{{Value: model.SampleValue(n)}}, nil
}

func TestScrapeIntervalsAreKnownWhereTheSamplesShowThem(t *testing.T) {
	for _, c := range []struct {
		samples counts
		want    string
		known   bool
	}{
		{120, "5s", true}, {121, "5s", true}, {60, "10s", true}, {40, "15s", true}, {39, "15s", true}, {30, "20s", true}, {20, "30s", true}, {21, "30s", true},
		{10, "1m", true}, {11, "1m", true}, {9, "1m", true}, {5, "2m", true}, {6, "2m", true},
		{2, "5m", false}, {3, "5m", false}, {13, "46s", false}, {14, "43s", false}, {600, "1s", false}, {-1, "15s", false},
	} {
		a := &asker{prometheus: c.samples}
		if got, known := a.scrape(t.Context(), "shop", "x"); got.String() != c.want || known != c.known {
			t.Errorf("%g samples in 10 minutes: %s, known %v; want %s, %v", float64(c.samples), got, known, c.want, c.known)
		}
	}
}

func TestTheSchemaIsThatOfTheRelease(t *testing.T) {
	for version, at := range map[string]string{"v1.2.3": "v1.2.3", "v1.2.3-rc.1": "v1.2.3-rc.1", "v1.2.3-5-gae07fc8": "main", "v1.2.3-dirty": "main", "ae07fc8": "main", "": "main"} {
		if got := schemaURL(version); !strings.Contains(got, "/backout/"+at+"/docs/") {
			t.Errorf("%q: %s", version, got)
		}
	}
}

func TestABoundSaysHowFarItsValuesGoBack(t *testing.T) {
	const day = 24 * time.Hour
	for since, want := range map[time.Duration]string{
		0: "in the last 7 days", 7*day - 10*time.Minute: "in the last 7 days", 3 * day: "in the last 3 days (all there is)",
		2 * time.Hour: "in the last 2 h (all there is)", 20 * time.Minute: "in the last 20 min (all there is)", time.Second: "in the last 1 min (all there is)",
	} {
		got := (week{known: true, since: since}).reason(percent, 1)
		if little := since > 0 && since < day; !strings.HasPrefix(got, want+" 99%") || strings.Contains(got, "; too little to know what is usual: run init again after a day") != little {
			t.Errorf("%s: %s", since, got)
		}
	}
}
