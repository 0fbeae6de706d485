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

// answers remembers what was asked of another system for a moment: a page that several
// people look at asks once.
type answers[T any] struct {
	mu   sync.Mutex
	last map[string]*answer[T]
}

type answer[T any] struct {
	mu    sync.Mutex // held while it is asked
	value T
	err   error
	at    time.Time // when it was asked
}

// get returns the answer of that name, and asks again if it is as old as fresh.
func (a *answers[T]) get(name string, now func() time.Time, fresh time.Duration, ask func() (T, error)) (T, error) {
	a.mu.Lock()
	if a.last == nil {
		a.last = map[string]*answer[T]{}
	}
	one := a.last[name]
	if one == nil {
		one = &answer[T]{}
		a.last[name] = one
	}
	a.mu.Unlock()
	one.mu.Lock()
	defer one.mu.Unlock()
	if t := now(); one.at.IsZero() || t.Sub(one.at) >= fresh || t.Before(one.at) {
		one.value, one.err = ask()
		one.at = now()
	}
	return one.value, one.err
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
	if e.runtime == nil {
		return remediation.Running{}, errors.New("no target reports what runs")
	}
	b := e.PlanOf(service)
	if b == nil {
		return remediation.Running{}, fmt.Errorf("no playbook for service %q", service)
	}
	return e.running.get(service, e.Now, runningFresh, func() (remediation.Running, error) {
		// One who goes away does not spoil the answer of those who wait for it.
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), runningTimeout)
		defer cancel()
		r, err := e.runtime.Running(ctx, b.Playbook)
		r.Seen = e.Now()
		return r, err
	})
}

// runsPatience is how long a page waits to hear what runs.
const runsPatience = 2 * time.Second

// runs is Running for a page, which must not wait for an engine that hangs.
func (e *Engine) runs(service string) view.RunsView {
	if e.runtime == nil || e.PlanOf(service) == nil {
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
