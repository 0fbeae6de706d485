package remediation

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"

	"github.com/locotoki/backout/alerts"
)

// Runtime says what a playbook's service runs at the moment.
type Runtime interface {
	// Running looks at the service; it has no effect and takes a few seconds at
	// most. What cannot be seen of it is left empty; the error says why nothing
	// could be seen.
	Running(ctx context.Context, pb *alerts.Playbook) (Running, error)
}

// Running is what a service ran when it was looked at.
type Running struct {
	Seen time.Time `json:"seen"`
	// Up counts the replicas that run and are not unhealthy, Total all there are.
	Up    int `json:"up"`
	Total int `json:"total"`
	// Image is the image's name as the replicas were made from it, Version the
	// version that they name, or the tag where they name none. Each is "" where it
	// is not known or where two replicas differ.
	Image   string `json:"image,omitempty"`
	Version string `json:"version,omitempty"`
	// Flags are the playbook's flags, in its order. A flag that nobody names is
	// left out.
	Flags []RunningFlag `json:"flags,omitempty"`
	// Replicas are the single ones, by name.
	Replicas []RunningReplica `json:"replicas,omitempty"`
}

// RunningFlag is one flag's value.
type RunningFlag struct {
	Name string `json:"name"`
	// Value is "" where two replicas differ.
	Value string `json:"value"`
	// Served is true where the service itself named the value, and false where it
	// is what its containers were started with.
	Served bool `json:"served"`
	// Differs is true where two replicas have different values.
	Differs bool `json:"differs,omitempty"`
}

// RunningReplica is one replica of a service.
type RunningReplica struct {
	Name string `json:"name"`
	// State is the engine's word: running, exited, paused, restarting, created,
	// dead; or unhealthy, where it runs and its own healthcheck fails.
	State   string `json:"state"`
	Up      bool   `json:"up"`
	Image   string `json:"image"`
	Version string `json:"version,omitempty"`
}

// String says it on one line: "v3.3.2 on 2 of 2, NEW_PRICING=false".
func (r Running) String() string {
	if r.Total == 0 {
		return "nothing"
	}
	what := r.Version
	if what == "" {
		what = r.Image
	}
	if what == "" {
		what = "different versions"
	}
	var b strings.Builder
	fmt.Fprintf(&b, "%s on %d of %d", what, r.Up, r.Total)
	for _, f := range r.Flags {
		if f.Differs {
			fmt.Fprintf(&b, ", %s differs", f.Name)
		} else {
			fmt.Fprintf(&b, ", %s=%s", f.Name, f.Value)
		}
	}
	return b.String()
}

// runtimes asks the Runtime, and remembers what it said for a moment: a page that
// several people look at asks once.
type runtimes struct {
	ask  Runtime
	mu   sync.Mutex
	last map[string]*runtimeAnswer
}

type runtimeAnswer struct {
	mu      sync.Mutex // held while the service is looked at
	running Running
	err     error
	at      time.Time // when it was seen
}

const (
	// runningFresh is how long an answer is taken for the present.
	runningFresh = 5 * time.Second
	// runningTimeout bounds one look.
	runningTimeout = 10 * time.Second
)

// Running says what a service runs, as it was seen at most five seconds ago. The
// error says why it could not be seen.
func (e *Engine) Running(ctx context.Context, service string) (Running, error) {
	if e.runtime.ask == nil {
		return Running{}, errors.New("nothing can be asked what runs")
	}
	b := e.bookOf(service)
	if b == nil {
		return Running{}, fmt.Errorf("no playbook for service %q", service)
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
	if now := e.now(); a.at.IsZero() || now.Sub(a.at) >= runningFresh || now.Before(a.at) {
		// One who goes away does not spoil the answer of those who wait for it.
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), runningTimeout)
		defer cancel()
		a.running, a.err = e.runtime.ask.Running(ctx, b.Playbook)
		a.at = e.now()
		a.running.Seen = a.at
	}
	return a.running, a.err
}

// RunsView is what a service runs, as a view shows it beside what was declared and
// done: Runs, or why that cannot be seen.
type RunsView struct {
	Runs        *Running `json:"runs,omitempty"`
	RunsUnknown string   `json:"runs_unknown,omitempty"`
}

// RunsWords is one line: "v1.0.0 on 2 of 2, FEATURE_X=0, seen 4s ago"; "" where nothing
// was asked.
func (v RunsView) RunsWords(now time.Time) string {
	switch {
	case v.Runs != nil:
		return fmt.Sprintf("%s, seen %s", v.Runs, Distance(now, v.Runs.Seen))
	case v.RunsUnknown != "":
		return "unknown: " + v.RunsUnknown
	}
	return ""
}

// runsPatience is how long a page waits to hear what runs.
const runsPatience = 2 * time.Second

// runs is Running for a page, which must not wait for an engine that hangs.
func (e *Engine) runs(service string) RunsView {
	if e.runtime.ask == nil || e.bookOf(service) == nil {
		return RunsView{}
	}
	seen := make(chan RunsView, 1)
	go func() {
		r, err := e.Running(context.Background(), service)
		if err != nil {
			seen <- RunsView{RunsUnknown: err.Error()}
			return
		}
		seen <- RunsView{Runs: &r}
	}()
	select {
	case v := <-seen:
		return v
	case <-time.After(runsPatience):
		return RunsView{RunsUnknown: fmt.Sprintf("the target did not answer within %s", runsPatience)}
	}
}
