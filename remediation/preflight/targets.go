package preflight

import (
	"context"

	"github.com/locotoki/backout/alerts"
	"github.com/locotoki/backout/remediation"
	"github.com/locotoki/backout/remediation/plan"
)

// checkable is a step of a playbook whose target is not another step's.
type checkable struct {
	step   alerts.Step
	kind   remediation.ActionKind
	action remediation.Action // nil where err is not
	err    error
}

// checkables returns the steps that change something.
func checkables(b *plan.Plan) []checkable {
	var out []checkable
	seen := map[string]bool{}
	for _, p := range b.Plans {
		for _, s := range p.Steps {
			kind := b.Kinds[s.Action]
			if _, tells := kind.(remediation.Communicator); kind == nil || tells {
				continue
			}
			id, err := remediation.Identity(s, kind.Target(b.Playbook, s.Params))
			if err == nil && seen[id] {
				continue
			}
			seen[id] = true
			found := checkable{step: s, kind: kind, err: err}
			if err == nil {
				found.action, found.err = kind.Bind(b.Playbook, s.Params)
			}
			out = append(out, found)
		}
	}
	return out
}

// actionChecks are what the kinds of actions check of their own.
func actionChecks(b *plan.Plan) []remediation.PreflightCheck {
	var out []remediation.PreflightCheck
	for _, s := range checkables(b) {
		out = append(out, s.checks(b.Playbook)...)
	}
	return out
}

func (s checkable) checks(b *alerts.Playbook) []remediation.PreflightCheck {
	name := s.kind.Name()
	broken := func(err error) []remediation.PreflightCheck {
		return []remediation.PreflightCheck{{ID: name + "/possible", Name: name + " can be carried out", Run: func(context.Context) remediation.Result {
			return remediation.ResultOf(err)
		}}}
	}
	if s.err != nil {
		return broken(s.err)
	}
	if kind, ok := s.kind.(remediation.CheckingKind); ok {
		all, err := kind.Checks(b, s.step.Params)
		if err != nil {
			return broken(err)
		}
		return all
	}
	if prover, ok := s.action.(remediation.SelfChecking); ok {
		return prover.Checks()
	}
	target := s.kind.Target(b, s.step.Params)
	return []remediation.PreflightCheck{{ID: name + "/" + remediation.Slug(target), Name: name + " can act on " + target, Run: func(ctx context.Context) remediation.Result {
		return remediation.LookCheck(ctx, s.action)
	}}}
}
