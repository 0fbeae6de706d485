package engine

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/locotoki/backout/remediation"
	"github.com/locotoki/backout/remediation/view"
)

// runtimes asks the Runtime, and remembers what it said for a moment: a page that
// several people look at asks once.
type runtimes struct {
	ask  remediation.Runtime
	mu   sync.Mutex
	last map[string]*runtimeAnswer
}

type runtimeAnswer struct {
	mu      sync.Mutex // held while the service is looked at
	running remediation.Running
	err     error
	at      time.Time // when it was seen
}

const (
	// runningFresh is how long an answer is taken for the present.
	runningFresh = 5 * time.Second
	// runningTimeout bounds one look.
	runningTimeout = 10 * time.Second
)

// Running returns what a service ran at most five seconds ago. The error says why that
// is unknown.
func (e *Engine) Running(ctx context.Context, service string) (remediation.Running, error) {
	if e.runtime.ask == nil {
		return remediation.Running{}, errors.New("no target reports what runs")
	}
	b := e.PlanOf(service)
	if b == nil {
		return remediation.Running{}, fmt.Errorf("no playbook for service %q", service)
	}
	e.runtime.mu.Lock()
	if e.runtime.last == nil {
		e.runtime.last = map[string]*runtimeAnswer{}
	}
	a := e.runtime.last[service]
	if a == nil {
		a = &runtimeAnswer{}
		e.runtime.last[service] = a
	}
	e.runtime.mu.Unlock()
	a.mu.Lock()
	defer a.mu.Unlock()
	if now := e.Now(); a.at.IsZero() || now.Sub(a.at) >= runningFresh || now.Before(a.at) {
		// One who goes away does not spoil the answer of those who wait for it.
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), runningTimeout)
		defer cancel()
		a.running, a.err = e.runtime.ask.Running(ctx, b.Playbook)
		a.at = e.Now()
		a.running.Seen = a.at
	}
	return a.running, a.err
}

// runsPatience is how long a page waits to hear what runs.
const runsPatience = 2 * time.Second

// runs is Running for a page, which must not wait for an engine that hangs.
func (e *Engine) runs(service string) view.RunsView {
	if e.runtime.ask == nil || e.PlanOf(service) == nil {
		return view.RunsView{}
	}
	seen := make(chan view.RunsView, 1)
	go func() {
		r, err := e.Running(context.Background(), service)
		if err != nil {
			seen <- view.RunsView{RunsUnknown: err.Error()}
			return
		}
		seen <- view.RunsView{Runs: &r}
	}()
	select {
	case v := <-seen:
		return v
	case <-time.After(runsPatience):
		return view.RunsView{RunsUnknown: fmt.Sprintf("the target did not answer within %s", remediation.Span(runsPatience))}
	}
}
