package demo

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/locotoki/backout/remediation"
	"github.com/locotoki/backout/remediation/audit"
	"github.com/locotoki/backout/remediation/crashtest"
	"github.com/locotoki/backout/remediation/view"
)

// latestKill is the longest time from the first notification to the kill: on a
// machine that is not busy, an incident is opened and its step verified within it.
const latestKill = 1200 * time.Millisecond

func TestKilledAtAnyMomentBackoutLosesNothingAndDoesNothingTwice(t *testing.T) {
	t.Parallel()
	s := newTestStack(t, "killed", func(set *settings) { set.limits, set.plan = manyBreaches, steps("flag_off") })
	ctx := t.Context()
	s.breaching(t)

	random := chance(t)
	kills := crashtest.Rounds(25) // each in another incident
	l := &log{stack: s}
	var accepted []string
	hit := map[string]int{}
	for i := range kills {
		after := time.Duration(random.Int64N(int64(latestKill)))
		r := s.killRound(t, l, i, after)
		accepted = append(accepted, r.accepted...)
		hit[r.moment]++
		if t.Failed() {
			t.Fatalf("in round %d, killed %s after the first notification", i, after)
		}
	}

	must(t, l.refresh(ctx))
	known := map[string]bool{}
	for i := range l.entries {
		if e := &l.entries[i]; e.Kind == audit.KindReceived {
			for _, f := range instances(e) {
				known[f] = true
			}
		}
	}
	lost := 0
	for _, f := range accepted {
		if !known[f] {
			lost++
			t.Errorf("alert %s was answered 200 and is in no received entry", f)
		}
	}
	t.Logf("%d alerts accepted over %d kills (%v), %d lost, %d audit entries", len(accepted), kills, hit, lost, len(l.entries))
	if len(accepted) < kills {
		t.Errorf("only %d alerts were accepted: this proves little", len(accepted))
	}
	said, err := s.verify(ctx)
	must(t, err)
	t.Log(strings.TrimSpace(said))
}

// killed is what a round gave.
type killed struct {
	accepted []string // the alerts that were answered 200
	moment   string   // which part of the step the kill hit
}

// killRound opens one incident, kills backout after a while, and sees the
// incident's step carried out once.
func (s *stack) killRound(t *testing.T, l *log, round int, after time.Duration) killed {
	t.Helper()
	ctx := t.Context()
	must(t, s.flagOn(ctx))
	created := s.creations(t)
	st := s.stream(fmt.Sprintf("round%d", round), 4, 20*time.Millisecond)
	defer st.stop()
	select {
	case <-st.first:
	case <-ctx.Done():
		t.Fatal(ctx.Err())
	}
	select {
	case <-time.After(after):
	case <-s.serve.done:
		t.Fatalf("backout ended by itself: %v", s.serve.err)
	}
	at := time.Now()
	must(t, s.serve.kill())
	must(t, s.startBackout(ctx))

	inc := s.untilStepVerified(t)
	st.stop()
	wantFlag(t, s, "0")
	must(t, l.refresh(ctx))
	if n := effects(l, inc.ID); n != 1 {
		t.Errorf("incident %s has %d effects of its step, not 1", inc.ID, n)
	}
	if n := created(); n != 1 {
		t.Errorf("%d containers were created for one step of incident %s", n, inc.ID)
	}
	list, err := s.engine.containers(ctx, s.project)
	must(t, err)
	if len(list) != 1 {
		t.Errorf("%d containers are left, not 1: %v", len(list), list)
	}
	if _, err := s.command(ctx, "incident", "close", inc.ID, "--reason=the round is over"); err != nil {
		t.Error(err)
	}
	return killed{st.accepted, moment(l, inc.ID, at)}
}

// moment says how far an incident's step had come at a time.
func moment(l *log, incident string, at time.Time) string {
	last := "before the intent"
	for i := range l.entries {
		e := &l.entries[i]
		if e.Incident != incident || e.Time.After(at) {
			continue
		}
		switch e.Kind {
		case audit.KindIntent:
			last = "after the intent"
		case audit.KindOutcome:
			last = "after the outcome"
		case audit.KindVerified:
			last = "after the verification"
		}
	}
	return last
}

// flagOn turns the flag on the way an operator does.
func (s *stack) flagOn(ctx context.Context) error {
	if err := s.setFlag("1"); err != nil {
		return err
	}
	if err := s.upAnew(ctx); err != nil {
		return err
	}
	value, err := s.flag(ctx)
	if err == nil && value != "1" {
		err = fmt.Errorf("the flag is %q after docker-compose up -d", value)
	}
	return err
}

// setFlag edits .env, which a container started later takes over.
func (s *stack) setFlag(value string) error { return s.setEnv(flagName, value) }

// untilStepVerified waits until the open incident's first step is done and verified.
func (s *stack) untilStepVerified(t testing.TB) view.IncidentView {
	t.Helper()
	var inc view.IncidentView
	until(t, "the step is verified", func(ctx context.Context) error {
		var err error
		if inc, err = s.openIncident(ctx); err != nil {
			return err
		}
		if inc.State == remediation.Confirming || inc.State == remediation.Acting || inc.Steps[0].State != remediation.StepDone {
			return fmt.Errorf("incident %s is %s (%s: %s), its step %s", inc.ID, inc.State, inc.Reason, inc.Why, inc.Steps[0].State)
		}
		return nil
	})
	return inc
}

// effects counts the outcomes of an incident that changed its target.
func effects(l *log, incident string) (n int) {
	for i := range l.entries {
		if e := &l.entries[i]; e.Incident == incident && e.Kind == audit.KindOutcome && text(e, "outcome") == string(remediation.StepDone) {
			n++
		}
	}
	return n
}

// instances are the values of that label in a received entry: each alert of a
// stream has its own.
func instances(e *audit.Entry) (out []string) {
	rows, _ := e.Detail["alerts"].([]any)
	for _, r := range rows {
		row, _ := r.(map[string]any)
		labels, _ := row["labels"].([]any)
		for _, l := range labels {
			if pair, ok := l.([]any); ok && len(pair) == 2 && pair[0] == "instance" {
				out = append(out, fmt.Sprint(pair[1]))
			}
		}
	}
	return out
}

// creations counts, from now on, the containers that the engine makes for the
// project, and returns how many there are once there is one. It listens all the
// while: the engine remembers its last 256 events only, those of all tests.
func (s *stack) creations(t *testing.T) (count func() int64) {
	t.Helper()
	filter := fmt.Sprintf(`{"label":[%q],"type":["container"],"event":["create"]}`, "com.docker.compose.project="+s.project)
	body, err := s.engine.open(t.Context(), "/events", url.Values{"filters": {filter}})
	must(t, err)
	t.Cleanup(func() { body.Close() }) //nolint:errcheck // what was heard is counted
	var n atomic.Int64
	go func() {
		lines := bufio.NewScanner(body)
		for lines.Scan() {
			n.Add(1)
		}
	}()
	return func() int64 {
		t.Helper()
		until(t, "a container is created", func(context.Context) error {
			if n.Load() == 0 {
				return errors.New("none was")
			}
			return nil
		})
		return n.Load()
	}
}

// open asks for an answer that goes on until ctx ends or it is closed.
func (e *engine) open(ctx context.Context, path string, query url.Values) (io.ReadCloser, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, e.base+apiVersion+path+"?"+query.Encode(), http.NoBody)
	if err != nil {
		return nil, err
	}
	res, err := e.client.Do(req)
	if err != nil {
		return nil, fmt.Errorf("docker engine at %s: %w", e.host, err)
	}
	if res.StatusCode != http.StatusOK {
		res.Body.Close() //nolint:errcheck // it is an error already
		return nil, &engineError{status: res.StatusCode, text: fmt.Sprintf("docker engine: GET %s: %s", path, res.Status)}
	}
	return res.Body, nil
}
