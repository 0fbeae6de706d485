package demo

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"time"

	"github.com/locotoki/backout/remediation"
	"github.com/locotoki/backout/remediation/view"
)

// measured waits until the service has been measured for long enough that every
// query of the canary's playbook has a value.
func (s *stack) measured(ctx context.Context) error {
	return await(ctx, readyWithin, 200*time.Millisecond, func(ctx context.Context) error {
		for expr, want := range map[string]string{
			fmt.Sprintf("backout:alive{service=%q}", s.service):                  "1",
			fmt.Sprintf("count_over_time(up{job=%q}[1m]) >= bool 12", s.service): "1",
		} {
			if got, _, err := s.query(ctx, expr); err != nil || got != want {
				return errors.Join(fmt.Errorf("%s is %q in Prometheus, not %s", expr, got, want), err)
			}
		}
		return nil
	})
}

// runPreflight runs a preflight, as a release engineer would.
func (s *stack) runPreflight(ctx context.Context) error {
	_, err := s.command(ctx, "preflight", "--service="+s.service, "--reason=before the rollout")
	return err
}

// preflight is the result of the last preflight.
func (s *stack) preflight(ctx context.Context) (v remediation.PreflightView, err error) {
	err = s.ask(ctx, "backout", "/api/v1/preflight?service="+url.QueryEscape(s.service), &v)
	return v, err
}

// sign signs off an item of the preflight.
func (s *stack) sign(ctx context.Context, item, reason string) error {
	_, err := s.command(ctx, "preflight", "sign", item, "--service="+s.service, "--by=Ada", "--reason="+reason)
	return err
}

// begin starts the rollout, once the watchdog has been heard for the first time.
func (s *stack) begin(ctx context.Context, flags ...string) error {
	args := append([]string{"rollout", "start", "--service=" + s.service, "--reason=the demo's rollout"}, flags...)
	return await(ctx, readyWithin, time.Second, func(ctx context.Context) error {
		_, err := s.command(ctx, args...)
		return err
	})
}

// rollout is the state of the service's rollout.
func (s *stack) rollout(ctx context.Context) (view.RolloutView, error) {
	var answer struct{ Rollouts []view.RolloutView }
	if err := s.ask(ctx, "backout", "/api/v1/rollout", &answer); err != nil {
		return view.RolloutView{}, err
	}
	for _, r := range answer.Rollouts {
		if r.Service == s.service {
			return r, nil
		}
	}
	return view.RolloutView{}, fmt.Errorf("backout knows no rollout of %s", s.service)
}
