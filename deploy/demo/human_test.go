package demo

import (
	"context"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/locotoki/backout/remediation"
	"github.com/locotoki/backout/remediation/audit"
	"github.com/locotoki/backout/remediation/crashtest"
	"github.com/locotoki/backout/remediation/view"
)

// TestAStepDuringWhichAPersonChangesTheTargetEndsOrIsHandedOver runs docker-compose by hand while a step is
// at work, at any moment of it. A step that fails because of that is handed to the
// human, who claims and releases the incident; in the end all is as the plan wants it.
func TestAStepDuringWhichAPersonChangesTheTargetEndsOrIsHandedOver(t *testing.T) {
	t.Parallel()
	s := breachingStack(t, "meddled", steps("image_retag"))
	ctx := t.Context()
	random, l := chance(t), &log{stack: s}
	failed := 0
	meddle := func(action string, take time.Duration) {
		left := crashtest.Rounds(3)
		for way, do := range map[string]func(){
			// What fails in the midst of it, a human does again.
			"up -d": func() { t.Logf("up -d: %v", s.compose(ctx, "up", "-d")) },
			"down":  func() { t.Logf("down: %v", s.compose(ctx, "down")) },
			"an edit of .env and up -d": func() {
				must(t, s.setEnv("FEATURE_CROSS_PLATFORM", "1"))
				t.Logf("up -d: %v", s.compose(ctx, "up", "-d"))
			},
		} {
			s.startOver(t, action)
			must(t, l.refresh(ctx))
			seen := len(l.entries)
			inc := s.breached(t)
			if action == "schema_rollback" {
				s.approve(t)
			}
			begun := s.nextOf(t, l, seen, audit.KindIntent, action)
			<-time.After(time.Until(begun.Time.Add(time.Duration(random.Int64N(int64(take))))))
			do()
			until(t, "the project is started by hand", s.up)
			failed += s.untilDone(t, inc.ID)
			until(t, "the project is started by hand", s.up)

			s.wantOneContainer(t, oldVersion)
			env, _, err := s.inspect(ctx)
			must(t, err)
			if strings.HasPrefix(way, "an edit") != (env["FEATURE_CROSS_PLATFORM"] == "1") {
				t.Errorf("after %s in the midst of %s, FEATURE_CROSS_PLATFORM is %q", way, action, env["FEATURE_CROSS_PLATFORM"])
			}
			if action == "schema_rollback" {
				s.wantSchema(t, oldVersion)
				s.untilWritten(t)
			}
			s.over(t, inc.ID)
			if t.Failed() {
				t.Fatalf("after %s in the midst of %s", way, action)
			}
			if left--; left == 0 {
				break // with -short one way of the three, another each time
			}
		}
	}
	meddle("image_retag", 2*time.Second)
	s.take(t, steps("schema_rollback"))
	meddle("schema_rollback", time.Second)
	t.Logf("%d steps failed and were tried again", failed)
	_, err := s.verify(ctx)
	must(t, err)
}

// startOver puts everything where a step finds it.
func (s *stack) startOver(t *testing.T, action string) {
	t.Helper()
	must(t, s.setFlag("0"))
	must(t, s.setEnv("FEATURE_CROSS_PLATFORM", "0"))
	if action == "image_retag" {
		must(t, s.engine.tag(t.Context(), s.image+":"+newVersion, s.image+":latest"))
	}
	must(t, s.upAnew(t.Context()))
	must(t, s.migrate(t.Context()))
}

// upAnew starts the project with what is set now. Where docker-compose was too
// slow to tell backout its hash, an up -d would leave the container as it is.
func (s *stack) upAnew(ctx context.Context) error {
	if err := s.compose(ctx, "up", "-d", "--force-recreate"); err != nil {
		return err
	}
	return s.untilHealthy(ctx)
}

// untilDone waits until the incident's only step is done, claiming and releasing
// the incident whenever it has failed, and returns how often it had.
func (s *stack) untilDone(t *testing.T, id string) (failed int) {
	t.Helper()
	until(t, "the step is done", func(ctx context.Context) error {
		inc, err := s.openIncident(ctx)
		if err != nil {
			return err
		}
		step := inc.Steps[0]
		if inc.State == remediation.Waiting && inc.Reason == remediation.HoldStepFailed {
			failed++
			t.Logf("failed: %s", inc.Why)
			_, err := s.command(ctx, "incident", "claim", id)
			if err == nil {
				_, err = s.command(ctx, "incident", "release", id)
			}
			if err != nil {
				return fatal(err)
			}
		}
		if inc.State == remediation.Waiting && inc.Reason == remediation.HoldApproval {
			if _, err := s.command(ctx, "approve", id, step.ID, "--reason=again"); err != nil {
				return err
			}
		}
		if inc.State == remediation.Acting || inc.State == remediation.Confirming || step.State != remediation.StepDone && step.State != remediation.StepNoChange {
			return fmt.Errorf("the incident is %s (%s: %s), its step %s", inc.State, inc.Reason, inc.Why, step.State)
		}
		return nil
	})
	return failed
}

// What a human does to the project by hand.

// setEnv edits one setting of .env.
func (s *stack) setEnv(name, value string) error {
	file := s.path("project", ".env")
	text, err := os.ReadFile(file)
	if err != nil {
		return err
	}
	lines := strings.SplitAfter(string(text), "\n")
	found := false
	for i, line := range lines {
		if strings.HasPrefix(line, name+"=") {
			lines[i], found = name+"="+value+"\n", true
		}
	}
	if !found {
		return fmt.Errorf("%s has no %s", file, name)
	}
	return os.WriteFile(file, []byte(strings.Join(lines, "")), 0o600)
}

// addToEnv adds to .env's end.
func (s *stack) addToEnv(text string) error {
	f, err := os.OpenFile(s.path("project", ".env"), os.O_APPEND|os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	defer f.Close()
	_, err = f.WriteString(text)
	return err
}

// openIncident returns the one incident that is open.
func (s *stack) openIncident(ctx context.Context) (view.IncidentView, error) {
	var answer struct{ Incidents []view.IncidentView }
	if err := s.ask(ctx, "backout", "/api/v1/incidents?status=open", &answer); err != nil {
		return view.IncidentView{}, err
	}
	if n := len(answer.Incidents); n != 1 {
		return view.IncidentView{}, fmt.Errorf("%d incidents are open, not 1", n)
	}
	return answer.Incidents[0], nil
}
