package backtest

import (
	"context"
	"errors"
	"math"
	"sync"
	"testing"
	"time"

	"github.com/locotoki/backout/remediation"
)

// source answers by a function.
type source func(ctx context.Context, expr string, from, to time.Time, step time.Duration) ([]remediation.Point, error)

func (s source) Samples(ctx context.Context, expr string, from, to time.Time, step time.Duration) ([]remediation.Point, error) {
	return s(ctx, expr, from, to, step)
}

// The chunks of one expression are asked two at a time; what is whole begins after the
// newest one that failed, whichever ended first.
func TestOneExpressionIsAskedTwoChunksAtATime(t *testing.T) {
	g := gridOf(day, day.Add(6*24*time.Hour-time.Second), 15*time.Second)
	broken := day.Add(3 * 24 * time.Hour)
	var mu sync.Mutex
	asked := 0
	both, newer := make(chan struct{}), make(chan struct{})
	f := newFetcher(&Options{Now: time.Now, Source: source(func(ctx context.Context, _ string, from, _ time.Time, _ time.Duration) ([]remediation.Point, error) {
		mu.Lock()
		if asked++; asked == 2 {
			close(both)
		}
		mu.Unlock()
		select {
		case <-both: // the first waits for the second
		case <-time.After(time.Minute):
			return nil, errors.New("asked one at a time")
		}
		switch {
		case from.Equal(broken):
			<-newer
			return nil, remediation.ErrNoAnswer
		case from.Equal(broken.Add(24 * time.Hour)):
			close(newer)
		}
		return []remediation.Point{{Time: from, Value: 1}}, nil
	})})
	l := lineOf("x", g)
	whole, err := f.fetchAll(t.Context(), g, []*line{l}, func(int, int) {})
	if !errors.Is(err, remediation.ErrNoAnswer) || !g.at(whole).Equal(broken.Add(24*time.Hour)) {
		t.Errorf("whole from %s: %v", g.at(whole), err)
	}
	for at := g.at(whole); !at.After(g.at(g.last)); at = at.Add(24 * time.Hour) {
		if v, ok := l.value(at); !ok || math.IsNaN(v) {
			t.Errorf("no value at %s", at)
		}
	}
}
