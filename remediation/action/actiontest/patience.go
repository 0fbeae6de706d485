package actiontest

import (
	"context"
	"testing"
	"time"
)

// patience is a context that waits for an answer until Expire is called with it
// or one derived from it, or for longest. Either way it ends as a deadline does.
type patience struct {
	context.Context
	end  context.CancelFunc
	over chan struct{}
}

// longest is how long a fixture may take until it calls Expire.
const longest = 3 * time.Minute

type patienceKey struct{}

func waiting(t *testing.T) *patience {
	ctx, end := context.WithTimeout(t.Context(), longest)
	t.Cleanup(end)
	p := &patience{Context: ctx, end: end, over: make(chan struct{})}
	context.AfterFunc(ctx, func() { close(p.over) })
	return p
}

func (p *patience) Done() <-chan struct{} { return p.over }

func (p *patience) Err() error {
	select {
	case <-p.over:
		return context.DeadlineExceeded
	default:
		return nil
	}
}

func (p *patience) Value(key any) any {
	if key == (patienceKey{}) {
		return p
	}
	return p.Context.Value(key)
}

// Expire lets the deadline of the suite's context pass. A fixture calls it where
// the effect of a call that meets Hang has happened.
func Expire(ctx context.Context) {
	if p, ok := ctx.Value(patienceKey{}).(*patience); ok {
		p.end()
	}
}

// Unanswered expires ctx and returns the error of that: the whole of what a
// fixture's call does whose answer never arrives.
func Unanswered(ctx context.Context) error {
	Expire(ctx)
	<-ctx.Done()
	return ctx.Err()
}
