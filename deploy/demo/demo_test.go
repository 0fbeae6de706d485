package demo

import (
	"bytes"
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
)

// watched is what a demo says; seen is closed when it has said a text.
type watched struct {
	mu   sync.Mutex
	said bytes.Buffer
	text string
	seen chan struct{}
}

func (w *watched) Write(p []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	before := strings.Contains(w.said.String(), w.text)
	n, err := w.said.Write(p)
	if !before && strings.Contains(w.said.String(), w.text) {
		close(w.seen)
	}
	return n, err
}

func TestAnInterruptedDemoLeavesNothingBehind(t *testing.T) {
	t.Parallel()
	for scenario, at := range map[string]string{"errors": "posted", "canary": "not started"} {
		t.Run(scenario, func(t *testing.T) {
			t.Parallel()
			interruptDemo(t, scenario, at)
		})
	}
}

// interruptDemo ends a demo once it has said a text. What the canary does after its
// text is a rehearsal, which is waited for until it has started a container aside.
func interruptDemo(t *testing.T, scenario, at string) {
	o := Options{
		Dir: filepath.Join(shared.dir, "interrupted-"+scenario), Backout: shared.backout, DockerHost: shared.engine.host, Env: os.Getenv,
		Scenario: scenario, Until: LastStage,
	}
	out := &watched{text: at, seen: make(chan struct{})}
	o.Out = out
	set, _, err := o.settings(t.Context())
	must(t, err)
	ctx, interrupt := context.WithCancel(t.Context())
	defer interrupt()
	ended := make(chan error, 1)
	go func() { ended <- Run(ctx, o) }()
	select {
	case <-out.seen:
	case err := <-ended:
		t.Fatalf("it ended by itself: %v, after:\n%s", err, out.said.String())
	}
	s := &stack{settings: set}
	if scenario == "canary" {
		until(t, "something is started aside", func(ctx context.Context) error {
			n, err := (&proving{stack: s, t: t}).aside(ctx)
			if err == nil && n == 0 {
				err = errors.New("nothing is yet")
			}
			return err
		})
	}
	interrupt()
	if err := <-ended; !errors.Is(err, context.Canceled) {
		t.Errorf("it ended with %v", err)
	}

	if n, err := (&proving{stack: s, t: t}).aside(t.Context()); n > 0 || err != nil {
		t.Errorf("it leaves %d containers that were started aside: %v", n, err)
	}
	list, err := s.engine.containers(t.Context(), s.project)
	must(t, err)
	tags, err := s.engine.tags(t.Context(), s.image)
	must(t, err)
	if len(list) > 0 || len(tags) > 0 {
		t.Errorf("it leaves the containers %v and the images %v", list, tags)
	}
	if _, err := os.Stat(s.dir); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("its folder: %v", err)
	}
	databases, roles, err := s.inCluster(t.Context())
	must(t, err)
	if databases+roles > 0 {
		t.Errorf("it leaves %d databases and %d roles", databases, roles)
	}
}
