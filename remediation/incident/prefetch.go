package incident

import (
	"context"

	"github.com/locotoki/backout/remediation"
	"github.com/locotoki/backout/remediation/plan"
)

// prefetch is what is asked while Prometheus is asked for the condition: before the
// first step of an incident, time counts most. All of it is without effect, and
// the gates and the action ask again before anything is done.
type prefetch struct {
	step       string
	done       chan struct{}
	silencedBy string
	unasked    string
	silenceErr error
	look       remediation.Look
	lookErr    error
}

// startPrefetch begins to ask; nil where the next step is not the first that acts.
// The caller waits for it.
func (e *Responder) startPrefetch(ctx context.Context, b *plan.Plan, inc *remediation.Incident) *prefetch {
	s := inc.Next()
	if inc.Intended || e.Mode != remediation.Act || s == nil {
		return nil
	}
	a := &prefetch{step: s.ID(), done: make(chan struct{})}
	go func() {
		defer close(a.done)
		// The silence last: one that is set during a look that takes long holds.
		a.look, a.lookErr = e.look(ctx, b, inc, s)
		a.silencedBy, a.unasked, a.silenceErr = e.Silenced(ctx, inc)
	}()
	return a
}

func (a *prefetch) wait() {
	if a != nil {
		<-a.done
	}
}

// isFor reports whether the answers are about step s, and waits for them.
func (a *prefetch) isFor(s *remediation.Step) bool {
	if a == nil || a.step != s.ID() {
		return false
	}
	<-a.done
	return true
}
