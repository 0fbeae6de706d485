package demo

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/locotoki/backout/remediation"
	"github.com/locotoki/backout/remediation/view"
)

// breachingStack returns a stack with a breach that nothing ends, and no
// Alertmanager: the test posts in its place.
func breachingStack(t *testing.T, name string, p plan) *stack {
	t.Helper()
	s := newTestStack(t, name, func(set *settings) { set.limits, set.plan = manyBreaches, p })
	s.breaching(t)
	return s
}

// breaching starts all but Alertmanager, and breaks the service for good.
func (s *stack) breaching(t *testing.T) {
	t.Helper()
	ctx := t.Context()
	must(t, s.up(ctx))
	must(t, s.startPrometheus(ctx))
	must(t, s.startBackout(ctx))
	must(t, s.declare(ctx))
	breakNow(t, s, everythingFails)
	until(t, "the breach is measured", func(ctx context.Context) error {
		got, _, err := s.query(ctx, `backout:trigger_value{trigger="error_rate"} > bool 0.01`)
		if err == nil && got != "1" {
			err = fmt.Errorf("beyond the threshold: %q", got)
		}
		return err
	})
}

// breached posts the breach as a new one and returns its incident.
func (s *stack) breached(t *testing.T) view.IncidentView {
	t.Helper()
	body, err := notification(breach(), fmt.Sprintf("%d", time.Now().UnixNano()))
	must(t, err)
	must(t, s.post(t.Context(), s.client, body))
	inc, err := s.openIncident(t.Context())
	must(t, err)
	return inc
}

// over ends an incident by hand, and declares the rollout anew where that has rolled it back.
func (s *stack) over(t *testing.T, id string) {
	t.Helper()
	ctx := t.Context()
	_, err := s.command(ctx, "incident", "close", id, "--reason=seen")
	must(t, err)
	var answer struct{ Rollouts []remediation.Rollout }
	must(t, s.ask(ctx, "backout", "/api/v1/rollout", &answer))
	for _, r := range answer.Rollouts {
		if r.State == remediation.RolloutActive {
			return
		}
	}
	must(t, s.declare(ctx))
}

// take gives the next incidents another plan.
func (s *stack) take(t *testing.T, p plan) {
	t.Helper()
	s.plan = p
	must(t, s.write("playbook.yaml", "playbook.yaml"))
	req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, s.url("backout")+"/-/reload", bytes.NewReader([]byte("{}")))
	must(t, err)
	req.Header.Set("Content-Type", "application/json")
	req.Header.Set("Authorization", "Bearer "+s.token["demo"])
	res, err := s.client.Do(req)
	must(t, err)
	defer res.Body.Close()
	if res.StatusCode != http.StatusOK {
		t.Fatalf("reload: %s", res.Status)
	}
}

// untilAsked waits until the open incident waits for an answer, and returns its id and step.
func (s *stack) untilAsked(t *testing.T) (id, step string) {
	t.Helper()
	inc := s.untilWaiting(t, remediation.HoldApproval)
	return inc.ID, inc.Next.Step
}

// untilWaiting waits until the open incident waits for a reason.
func (s *stack) untilWaiting(t *testing.T, reason remediation.Reason) view.IncidentView {
	t.Helper()
	var inc view.IncidentView
	until(t, fmt.Sprintf("held for reason %q", reason), func(ctx context.Context) (err error) {
		if inc, err = s.openIncident(ctx); err == nil && (inc.State != remediation.Waiting || inc.Reason != reason) {
			err = fmt.Errorf("the incident is %s (%s: %s)", inc.State, inc.Reason, inc.Why)
		}
		return err
	})
	return inc
}

func (s *stack) approve(t *testing.T) {
	t.Helper()
	id, step := s.untilAsked(t)
	_, err := s.command(t.Context(), "approve", id, step, "--reason=go ahead")
	must(t, err)
}

// TestASchemaThatMustNotBeTouchedIsNot goes through what refuses a schema's
// rollback, on one stack: after each, all is as it was.
func TestASchemaThatMustNotBeTouchedIsNot(t *testing.T) {
	t.Parallel()
	s := breachingStack(t, "refused", plan{Actions: []string{"schema_rollback"}, Approval: "2s"})
	ctx := t.Context()
	undo := s.path("migrations", "U2.0.0__rollback_trends.sql")
	away := s.path("away.sql")
	untouched := func(t *testing.T) {
		t.Helper()
		s.wantSchema(t, newVersion)
		n, err := s.rows(ctx, "SELECT count(*) FROM trend_totals")
		if err != nil || n == 0 {
			t.Errorf("the totals have %d rows: %v", n, err)
		}
		if n, err := s.rows(ctx, "SELECT count(*) FROM pg_roles WHERE rolname = '"+s.role()+"' AND rolcanlogin"); err != nil || n != 1 {
			t.Errorf("the application cannot log in: %d, %v", n, err)
		}
		if left, err := filepath.Glob(s.path("snapshots", "*")); err != nil || len(left) > 0 {
			t.Errorf("there are snapshots: %v, %v", left, err)
		}
		s.untilAnswered(t, "/basic/views", http.StatusOK)
	}

	t.Run("nobody's answer is a no", func(t *testing.T) {
		s.breached(t)
		s.untilWaiting(t, remediation.HoldApproval)
		inc := s.untilExhausted(t, "schema_rollback")
		untouched(t)
		s.over(t, inc.ID)
	})
	s.take(t, steps("schema_rollback"))
	for _, c := range []struct {
		name       string
		make, mend func() error
		why        []string
	}{
		{
			name: "the code that runs needs the newer schema",
			make: func() error { return nil }, mend: func() error { return nil },
			why: []string{"does not tolerate the older schema"},
		},
		{
			name: "an undo script is missing",
			make: func() error { return os.Rename(undo, away) }, mend: func() error { return os.Rename(away, undo) },
			why: []string{"2.0.0", "no undo script"},
		},
		{
			name: "an undo script is empty",
			make: func() error {
				return errors.Join(os.Rename(undo, away), os.WriteFile(undo, []byte("-- later\n"), 0o600))
			},
			mend: func() error { return os.Rename(away, undo) },
			why:  []string{"U2.0.0__rollback_trends.sql", "empty"},
		},
		{
			name: "a migration has failed half-way",
			make: func() error {
				return s.execute(ctx, `INSERT INTO flyway_schema_history (installed_rank, version, description, type, script, installed_by, execution_time, success)
					VALUES (99, '2.1.0', 'more', 'SQL', 'V2.1.0__more.sql', 'x', 1, false)`)
			},
			mend: func() error { return s.execute(ctx, "DELETE FROM flyway_schema_history WHERE installed_rank = 99") },
			why:  []string{"2.1.0", "failed"},
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			must(t, c.make())
			s.breached(t)
			s.approve(t)
			inc := s.untilWaiting(t, remediation.HoldTarget)
			for _, words := range c.why {
				if !strings.Contains(inc.Why, words) {
					t.Errorf("the incident says %q, without %q", inc.Why, words)
				}
			}
			must(t, c.mend())
			untouched(t)
			s.over(t, inc.ID)
		})
	}
}
