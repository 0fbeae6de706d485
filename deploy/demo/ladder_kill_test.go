package demo

import (
	"bytes"
	"context"
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/locotoki/backout/remediation/audit"
	"github.com/locotoki/backout/remediation/crashtest"
	"github.com/locotoki/backout/remediation/view"
)

// killsOfAStep is how often backout is killed in the midst of each of the two
// steps that change more than a flag.
const killsOfAStep = 8

// midst kills backout at a moment between the intent and the verification of a
// step's next run, starts it again, and waits until that step is verified. take
// is how long the step takes when nothing is killed; 0: nothing is killed, and the time is returned.
func (s *stack) midst(t *testing.T, l *log, action string, random *rand.Rand, take time.Duration) (took time.Duration, inc view.IncidentView, hit string) {
	t.Helper()
	must(t, l.refresh(t.Context()))
	seen := len(l.entries)
	inc = s.breached(t)
	if action == "schema_rollback" {
		s.approve(t)
	}
	begun := s.nextOf(t, l, seen, audit.KindIntent, action)
	hit = "not killed"
	if take > 0 {
		after := time.Duration(random.Int64N(int64(take)))
		select {
		case <-time.After(time.Until(begun.Time.Add(after))):
		case <-s.serve.done:
			t.Fatalf("backout ended by itself: %v", s.serve.err)
		}
		at := time.Now()
		must(t, s.serve.kill())
		must(t, s.startBackout(t.Context()))
		must(t, l.refresh(t.Context()))
		hit = moment(l, inc.ID, at)
	}
	verified := s.nextOf(t, l, seen, audit.KindVerified, action)
	return verified.Time.Sub(begun.Time), inc, hit
}

// nextOf waits for an entry after the first so many.
func (s *stack) nextOf(t *testing.T, l *log, seen int, kind audit.Kind, action string) *audit.Entry {
	t.Helper()
	var e *audit.Entry
	err := await(t.Context(), generous, 10*time.Millisecond, func(ctx context.Context) error {
		if err := l.refresh(ctx); err != nil {
			return err
		}
		fresh := log{entries: l.entries[seen:]}
		if e = fresh.find(func(e *audit.Entry) bool { return e.Kind == kind && e.Action == action }); e != nil {
			return nil
		}
		last := "nothing"
		if n := len(fresh.entries); n > 0 {
			last = fmt.Sprintf("%s %v", fresh.entries[n-1].Kind, fresh.entries[n-1].Detail)
		}
		return fmt.Errorf("the last of %d new entries is %s", len(fresh.entries), last)
	})
	if err != nil {
		t.Fatalf("%s of %s: %v", kind, action, err)
	}
	return e
}

// chance is where the moments of a test come from.
func chance(t *testing.T) *rand.Rand {
	t.Helper()
	seed := uint64(time.Now().UnixNano())
	t.Logf("moments of the kills: seed %d", seed)
	return rand.New(rand.NewPCG(seed, 0))
}

func TestKilledInTheMidstOfAnImagesChangeBackoutMakesItOnce(t *testing.T) {
	t.Parallel()
	s := breachingStack(t, "kill-image", steps("image_retag"))
	ctx := t.Context()
	random, l := chance(t), &log{stack: s}
	var take time.Duration
	hits := map[string]int{}
	for round := range 1 + crashtest.Rounds(killsOfAStep) {
		must(t, s.engine.tag(ctx, s.image+":"+newVersion, s.image+":latest"))
		must(t, s.setFlag("0"))
		must(t, s.upAnew(ctx))
		created := s.creations(t)
		took, inc, hit := s.midst(t, l, "image_retag", random, take)
		if round == 0 || took < take {
			take = took
		}
		hits[hit]++
		s.wantOneContainer(t, oldVersion)
		if n := effects(l, inc.ID); n != 1 {
			t.Errorf("incident %s has %d effects of its step, not 1", inc.ID, n)
		}
		if n := created(); n != 1 {
			t.Errorf("%d containers were created for one step of incident %s", n, inc.ID)
		}
		if latest, err := s.engine.imageID(ctx, s.image+":latest"); err != nil || latest != s.idOf(t, oldVersion) {
			t.Errorf("latest is image %s: %v", latest, err)
		}
		s.over(t, inc.ID)
		if t.Failed() {
			t.Fatalf("in round %d (%s)", round, hit)
		}
	}
	t.Logf("the change takes %s; the kills came %v", take, hits)
	_, err := s.verify(ctx)
	must(t, err)
}

func TestKilledInTheMidstOfASchemasRollbackBackoutEndsIt(t *testing.T) {
	t.Parallel()
	s := newTestStack(t, "kill-schema", func(set *settings) { set.limits, set.plan = manyBreaches, steps("schema_rollback") })
	ctx := t.Context()
	// The older code, which runs on both schemas.
	must(t, s.engine.tag(ctx, s.image+":"+oldVersion, s.image+":latest"))
	must(t, s.setFlag("0"))
	s.breaching(t)
	random, l := chance(t), &log{stack: s}
	var take time.Duration
	hits := map[string]int{}
	for round := range 1 + crashtest.Rounds(killsOfAStep) {
		must(t, s.migrate(ctx))
		took, inc, hit := s.midst(t, l, "schema_rollback", random, take)
		if round == 0 || took < take {
			take = took
		}
		hits[hit]++
		s.wantReady(t)
		if n := effects(l, inc.ID); n != 1 {
			t.Errorf("incident %s has %d effects of its step, not 1", inc.ID, n)
		}
		s.wantSchema(t, oldVersion)
		if n, err := s.rows(ctx, "SELECT count(*) FROM flyway_schema_history WHERE type = 'UNDO_SQL'"); err != nil || n != round+1 {
			t.Errorf("the undo script ran %d times in %d rounds: %v", n, round+1, err)
		}
		s.wantSnapshot(t, l)
		s.untilWritten(t)
		if n, err := s.rows(ctx, "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND application_name LIKE 'backout%'"); err != nil || n > 0 {
			t.Errorf("%d sessions of backout are left: %v", n, err)
		}
		s.over(t, inc.ID)
		if t.Failed() {
			t.Fatalf("in round %d (%s)", round, hit)
		}
	}
	t.Logf("the rollback takes %s; the kills came %v", take, hits)
	_, err := s.verify(ctx)
	must(t, err)
}

// wantReady fails where the status says of a target that no step could act on it now.
func (s *stack) wantReady(t *testing.T) {
	t.Helper()
	var o view.Overview
	must(t, s.ask(t.Context(), "backout", "/api/v1/status", &o))
	for _, sv := range o.Services {
		if len(sv.NotReady) > 0 {
			t.Errorf("%s is not ready: %q", sv.Service, sv.NotReady)
		}
	}
}

// untilWritten waits until the service writes to its database.
func (s *stack) untilWritten(t *testing.T) {
	t.Helper()
	before, err := s.rows(t.Context(), "SELECT count(*) FROM views")
	must(t, err)
	until(t, "the service writes", func(ctx context.Context) error {
		now, err := s.rows(ctx, "SELECT count(*) FROM views")
		if err == nil && now <= before {
			err = fmt.Errorf("there are %d rows, as before", now)
		}
		return err
	})
}

// idOf is the image of one of the two versions.
func (s *stack) idOf(t *testing.T, version string) string {
	t.Helper()
	id, err := s.engine.imageID(t.Context(), s.image+":"+version)
	must(t, err)
	return id
}

func TestKilledDuringEachStepBackoutStillRunsTheWholePlan(t *testing.T) {
	t.Parallel()
	s := runningStack(t, "kill-ladder", asUsual)
	sc, err := scenarioOf("schema")
	must(t, err)
	var said bytes.Buffer
	st := &story{scenario: sc, stack: s, out: &printer{out: &said}, log: &log{stack: s}, within: generous}
	ctx, end := context.WithCancel(t.Context())
	killed := make(chan int, 1)
	random := chance(t)
	go func() { killed <- s.killNowAndThen(ctx, random) }()
	err = st.tell(t.Context())
	end()
	t.Logf("killed %d times; what the demo says:\n%s", <-killed, said.String())
	must(t, err)

	// A step that was cut off before it did anything is begun again: its intent stands there twice.
	s.wantEach(t, st.log, audit.KindVerified, []string{"flag_off", "image_retag", "schema_rollback"})
	if n := effects(st.log, st.incident) - 2; n != 3 { // the status page was told twice
		t.Errorf("%d effects of three steps", n)
	}
	s.wantOneContainer(t, oldVersion)
	s.wantSchema(t, oldVersion)
	s.wantSnapshot(t, st.log)
}

// killsOfALadder are how often backout is killed at most on its way up: without a
// limit, a slow machine would never let it finish a step.
const killsOfALadder = 12

// killNowAndThen kills backout and starts it again, now and then, until ctx ends. It lets
// a step that was cut off end: one that is cut off twice before it does anything is undone.
func (s *stack) killNowAndThen(ctx context.Context, random *rand.Rand) (n int) {
	l := &log{stack: s}
	for n < killsOfALadder {
		select {
		case <-ctx.Done():
			return n
		case <-time.After(time.Second + time.Duration(random.Int64N(int64(6*time.Second)))):
		}
		if err := l.refresh(ctx); err != nil || l.cutOff() {
			continue
		}
		if s.serve.kill() != nil || s.startBackout(context.WithoutCancel(ctx)) != nil {
			return -1
		}
		n++
	}
	return n
}

// cutOff reports whether the last step that was cut off has no outcome yet.
func (l *log) cutOff() (is bool) {
	for i := range l.entries {
		switch l.entries[i].Kind {
		case audit.KindInDoubt:
			is = true
		case audit.KindOutcome:
			is = false
		}
	}
	return is
}
