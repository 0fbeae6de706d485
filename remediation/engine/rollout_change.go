package engine

import (
	"context"

	"github.com/locotoki/backout/remediation"
	"github.com/locotoki/backout/remediation/view"
)

// ChangeRollout carries out what a person decided about a rollout.
func (e *Engine) ChangeRollout(ctx context.Context, in remediation.RolloutChange) (view.RolloutView, error) {
	if in.Reason == "" {
		return view.RolloutView{}, remediation.Refuse(remediation.Invalid, "a reason is required")
	}
	b, err := e.OnePlan(in.Service)
	if err != nil {
		return view.RolloutView{}, err
	}
	switch in.Verb {
	case remediation.RolloutPromote:
		return e.Promoter.Promote(ctx, b, in)
	case remediation.RolloutHold:
		return e.Promoter.HoldRollout(ctx, b, in)
	case remediation.RolloutResume:
		return e.Promoter.ResumeRollout(ctx, b, in)
	case remediation.RolloutFinish:
		return e.Promoter.FinishRollout(ctx, b, in)
	case remediation.RolloutAbort:
		if e.Mode != remediation.Act {
			return view.RolloutView{}, remediation.Refuse(remediation.Conflict, "backout runs with --mode=observe and changes nothing; switch the release off by hand")
		}
		return e.Promoter.OnRollout(ctx, b, func(tx remediation.Tx, r *remediation.Rollout) error {
			return e.Responder.AbortRollout(tx, b, r, in)
		})
	}
	return view.RolloutView{}, remediation.Refuse(remediation.Invalid, "unknown rollout action %q", in.Verb)
}
