package preflight

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/locotoki/backout/alerts"
	"github.com/locotoki/backout/remediation"
	"github.com/locotoki/backout/remediation/plan"
)

// proofs are all that can be proved of a playbook, in the order in which it is
// tried: what is quick, and touches nothing, first.
func (e *Checker) proofs(b *plan.Plan) []remediation.Proof {
	all := slices.Concat(
		e.ruleProofs(b), e.scrapeProofs(b), e.queryProofs(b), e.bucketProofs(b), e.lagProofs(b), e.clockProofs(), e.rehearsedProofs(b),
		e.channelProofs(b), e.dashboardProofs(b), actionProofs(b), e.routeProofs(b),
	)
	var out []remediation.Proof
	for _, p := range all {
		if !slices.ContainsFunc(out, func(have remediation.Proof) bool { return have.ID == p.ID }) {
			out = append(out, p)
		}
	}
	return out
}

// provable is a step of a playbook whose target is not another step's.
type provable struct {
	step   alerts.Step
	kind   remediation.ActionKind
	action remediation.Action // nil where err is not
	err    error
}

// provables returns the steps that change something.
func provables(b *plan.Plan) []provable {
	var out []provable
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
			found := provable{step: s, kind: kind, err: err}
			if err == nil {
				found.action, found.err = kind.Bind(b.Playbook, s.Params)
			}
			out = append(out, found)
		}
	}
	return out
}

// actionProofs are what the kinds of actions prove of their own.
func actionProofs(b *plan.Plan) []remediation.Proof {
	var out []remediation.Proof
	for _, s := range provables(b) {
		out = append(out, s.proofs(b.Playbook)...)
	}
	return out
}

func (s provable) proofs(b *alerts.Playbook) []remediation.Proof {
	name := s.kind.Name()
	broken := func(err error) []remediation.Proof {
		return []remediation.Proof{{ID: name + "/possible", Name: name + " can be carried out", Prove: func(context.Context) remediation.Finding {
			return remediation.FindingOf(err)
		}}}
	}
	if s.err != nil {
		return broken(s.err)
	}
	if kind, ok := s.kind.(remediation.ProvingKind); ok {
		all, err := kind.Proofs(b, s.step.Params)
		if err != nil {
			return broken(err)
		}
		return all
	}
	if prover, ok := s.action.(remediation.Prover); ok {
		return prover.Proofs()
	}
	target := s.kind.Target(b, s.step.Params)
	return []remediation.Proof{{ID: name + "/" + remediation.Slug(target), Name: name + " can act on " + target, Prove: func(ctx context.Context) remediation.Finding {
		return remediation.LookProof(ctx, s.action)
	}}}
}

// channelProofs ask every channel whether it would deliver.
func (e *Checker) channelProofs(b *plan.Plan) []remediation.Proof {
	var out []remediation.Proof
	for _, ch := range e.channels {
		out = append(out, remediation.Proof{ID: "channel/" + remediation.Slug(ch.Name()), Name: ch.Name() + " accepts messages", Prove: func(ctx context.Context) remediation.Finding {
			return accepts(ctx, ch)
		}})
	}
	wants := b.Communications != nil && b.Communications.SlackChannel != ""
	if wants && !slices.ContainsFunc(e.channels, func(ch remediation.Channel) bool { return ch.Name() == "slack" }) {
		out = append(out, remediation.Proof{ID: "channel/slack", Name: "slack accepts messages", Prove: func(context.Context) remediation.Finding {
			return remediation.Unknown("the playbook names "+b.Communications.SlackChannel+", but backout is not connected to Slack",
				"check that Alertmanager's own Slack receiver works")
		}})
	}
	return out
}

// accepts asks a channel whether it would deliver.
func accepts(ctx context.Context, ch remediation.Channel) remediation.Finding {
	a, ok := ch.(remediation.Accepter)
	if !ok {
		return remediation.Unknown(ch.Name()+" cannot be checked without sending a message", "check that its last message arrived")
	}
	if err := a.Accepts(ctx); err != nil {
		return remediation.FindingOf(err)
	}
	return remediation.Passed(ch.Name() + " answers and accepts the credentials")
}

// dashboardProofs ask whether the dashboards are there.
func (e *Checker) dashboardProofs(b *plan.Plan) []remediation.Proof {
	var out []remediation.Proof
	for name, address := range b.Dashboards {
		out = append(out, remediation.Proof{ID: "dashboard/" + remediation.Slug(name), Name: "the dashboard " + name + " is there", Prove: func(ctx context.Context) remediation.Finding {
			return e.page(ctx, address)
		}})
	}
	slices.SortFunc(out, func(a, b remediation.Proof) int { return strings.Compare(a.ID, b.ID) })
	return out
}

func (e *Checker) page(ctx context.Context, address string) remediation.Finding {
	around := e.proving.around
	if around == nil {
		return noSurroundings()
	}
	const look = "open it in a browser, and sign it off"
	status, err := around.Page(ctx, address)
	switch {
	case err != nil:
		return remediation.Unknown("it cannot be reached from here: "+err.Error(), look).Because(err.Error())
	case status/100 == 2:
		return remediation.Passed(fmt.Sprintf("%s answers %d", address, status))
	case status == 404 || status == 410:
		return remediation.Failed(fmt.Sprintf("%s answers %d", address, status), "import the dashboard, or fix dashboards: in the playbook")
	}
	return remediation.Unknown(fmt.Sprintf("%s answers %d: the dashboard is visible only after login", address, status), look)
}

func noSurroundings() remediation.Finding {
	const why = "nothing is configured to check this"
	return remediation.Unknown(why, "start backout serve with prometheus: and alertmanager:").Because(why)
}
