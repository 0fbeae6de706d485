package draft

import (
	"context"
	"errors"
	"strings"
	"testing"

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
	return model.Vector{{Value: model.SampleValue(len(l.asked))}}, nil
}

func TestAPeakThatPrometheusRefusesIsAskedForMoreCoarsely(t *testing.T) {
	l := &limited{refuses: "[7d:1m]"}
	a := &asker{prometheus: l}
	if w := a.week(t.Context(), "x", traffic{}); a.err != nil || !w.known || w.highest != 3 || !strings.HasSuffix(l.asked[2], "[7d:10m])") {
		t.Errorf("%+v after %q: %v", w, l.asked, a.err)
	}
	a = &asker{prometheus: &limited{refuses: "[7d:"}}
	if a.week(t.Context(), "x", traffic{}); a.err == nil {
		t.Error("a Prometheus that answers nothing is no error")
	}
}
