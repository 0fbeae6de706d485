package engine_test

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/locotoki/backout/alerts"
	"github.com/locotoki/backout/remediation"
)

// seen is a Runtime that answers what it holds, and never where block is set.
type seen struct {
	running remediation.Running
	err     error
	block   chan struct{}
}

func (s *seen) Running(ctx context.Context, _ *alerts.Playbook) (remediation.Running, error) {
	if s.block != nil {
		<-s.block
	}
	return s.running, s.err
}

func TestEveryViewSaysWhatRunsAndNoneWaitsLongForIt(t *testing.T) {
	runtime := &seen{running: remediation.Running{Up: 2, Total: 2, Version: "v1.0.0", Flags: []remediation.RunningFlag{{Name: "FEATURE_X", Value: "0", Served: true}}}}
	w := newHarness(t)
	w.runtime = runtime
	w.start()
	id := w.open()
	const want = "v1.0.0 on 2 of 2, FEATURE_X=0, checked now"
	views := func() []string {
		o, err := w.engine.Overview(w.ctx)
		w.must(err)
		r, err := w.engine.Rollouts(w.ctx)
		w.must(err)
		return []string{w.incident(id).RunsWords(w.now), o.Services[0].RunsWords(w.now), r[0].RunsWords(w.now)}
	}
	for _, got := range views() {
		if got != want {
			t.Errorf("it runs %q, want %q", got, want)
		}
	}
	w.now = w.now.Add(6 * time.Second)
	runtime.err = errors.New("no engine answers")
	for _, got := range views() {
		if got != "unknown: no engine answers" {
			t.Errorf("it runs %q", got)
		}
	}
	w.now = w.now.Add(6 * time.Second)
	runtime.block = make(chan struct{})
	defer close(runtime.block)
	if got := w.incident(id).RunsWords(w.now); got != "unknown: the target did not answer within 2 s" {
		t.Errorf("it runs %q", got)
	}
}
