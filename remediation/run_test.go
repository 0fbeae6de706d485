package remediation_test

import (
	"context"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/locotoki/backout/remediation"
)

// running runs fn beside the engine's own Run, in a bubble whose time goes by
// only while everything waits. set prepares the world before Run begins.
func running(t *testing.T, set func(w *world), fn func(w *world), edit ...func(string) string) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, edit...)
		w.clock = time.Now
		if set != nil {
			set(w)
		}
		w.start()
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan error, 1)
		go func() { ended <- w.engine.Run(ctx) }()
		fn(w)
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
}

// settles waits until the engine has done all that is to be done now.
func settles() { synctest.Wait() }

func TestTheTeamHearsOfAStepWhileItRuns(t *testing.T) {
	c := &chat{}
	running(t, func(w *world) { w.team = []remediation.Channel{c} }, func(w *world) {
		w.declare("alpha")
		w.breach("error_rate")
		begun, goOn := make(chan struct{}), make(chan struct{})
		// The second step: a timer begins it, and nothing else wakes the outbox.
		w.target("image_retag").duringApply = func() { close(begun); <-goOn }
		w.post("firing", "error_rate", "fp1")
		<-begun
		settles()
		c.mu.Lock()
		n := len(c.got)
		last := c.got[n-1]
		c.mu.Unlock()
		if last.Story == nil || last.Story.State != remediation.Acting {
			t.Errorf("while the step runs the team was told last %+v", last)
		}
		close(goOn)
		settles()
		if titles := c.told(); !slices.Contains(titles, "Outcome: 2-image_retag done") {
			t.Errorf("the team was told %q", titles)
		}
	}, replace("max_age: 5m", "max_age: 1h"), func(s string) string { return s + "communications: {slack_channel: \"#incidents\"}\n" })
}
