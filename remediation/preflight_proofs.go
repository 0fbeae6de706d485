package remediation

import (
	"context"
	"fmt"
	"slices"

	"github.com/locotoki/backout/alerts"
)

// proofs are all that can be proved of a playbook, in the order in which it is
// tried: what is quick, and touches nothing, first.
func (e *Engine) proofs(b *book) []Proof {
	all := slices.Concat(
		e.ruleProofs(b), e.scrapeProofs(b), e.queryProofs(b), e.bucketProofs(b), e.lagProofs(b), e.clockProofs(), e.rehearsedProofs(b),
		e.channelProofs(b), e.dashboardProofs(b), actionProofs(b), e.routeProofs(b),
	)
	var out []Proof
	for _, p := range all {
		if !slices.ContainsFunc(out, func(have Proof) bool { return have.ID == p.ID }) {
			out = append(out, p)
		}
	}
	return out
}

// provable is a step of a playbook whose target is not another step's.
type provable struct {
	step   alerts.Step
	kind   ActionKind
	action Action // nil where err is not
	err    error
}

// provables returns the steps that change something.
func provables(b *book) []provable {
	var out []provable
	seen := map[string]bool{}
	for _, p := range b.Plans {
		for _, s := range p.Steps {
			kind := b.kinds[s.Action]
			if _, tells := kind.(Communicator); kind == nil || tells {
				continue
			}
			id, err := identity(s, kind.Target(b.Playbook, s.Params))
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
func actionProofs(b *book) []Proof {
	var out []Proof
	for _, s := range provables(b) {
		out = append(out, s.proofs(b.Playbook)...)
	}
	return out
}

func (s provable) proofs(b *alerts.Playbook) []Proof {
	name := s.kind.Name()
	broken := func(err error) []Proof {
		return []Proof{{ID: name + "/possible", Name: name + " can be carried out", Prove: func(context.Context) Finding {
			return FindingOf(err)
		}}}
	}
	if s.err != nil {
		return broken(s.err)
	}
	if kind, ok := s.kind.(ProvingKind); ok {
		all, err := kind.Proofs(b, s.step.Params)
		if err != nil {
			return broken(err)
		}
		return all
	}
	if prover, ok := s.action.(Prover); ok {
		return prover.Proofs()
	}
	target := s.kind.Target(b, s.step.Params)
	return []Proof{{ID: name + "/" + slug(target), Name: name + " can act on " + target, Prove: func(ctx context.Context) Finding {
		return LookProof(ctx, s.action)
	}}}
}

// LookProof is what a look at an action's target comes to.
func LookProof(ctx context.Context, a Action) Finding {
	look, err := a.Look(ctx, "preflight")
	if err != nil {
		return FindingOf(err)
	}
	if look.Position == HalfWay {
		return Failed("the target stands half-way between two states", "bring it into one of them by hand")
	}
	return Passed("the target can be acted on; it is " + string(look.Position))
}

// channelProofs ask every channel whether it would deliver.
func (e *Engine) channelProofs(b *book) []Proof {
	var out []Proof
	for _, ch := range e.outbox.channels {
		out = append(out, Proof{ID: "channel/" + slug(ch.Name()), Name: ch.Name() + " accepts messages", Prove: func(ctx context.Context) Finding {
			return accepts(ctx, ch)
		}})
	}
	wants := b.Communications != nil && b.Communications.SlackChannel != ""
	if wants && !slices.ContainsFunc(e.outbox.channels, func(ch Channel) bool { return ch.Name() == "slack" }) {
		out = append(out, Proof{ID: "channel/slack", Name: "slack accepts messages", Prove: func(context.Context) Finding {
			return Unknown("the playbook names "+b.Communications.SlackChannel+", and backout itself is not connected to Slack",
				"see that Alertmanager's own Slack receiver works")
		}})
	}
	return out
}

// accepts asks a channel whether it would deliver.
func accepts(ctx context.Context, ch Channel) Finding {
	a, ok := ch.(Accepter)
	if !ok {
		return Unknown(ch.Name()+" cannot be asked without telling somebody something", "look whether its last message came")
	}
	if err := a.Accepts(ctx); err != nil {
		return FindingOf(err)
	}
	return Passed(ch.Name() + " answers, and takes the credentials")
}

// dashboardProofs ask whether the dashboards are there.
func (e *Engine) dashboardProofs(b *book) []Proof {
	var out []Proof
	for name, address := range b.Dashboards {
		out = append(out, Proof{ID: "dashboard/" + slug(name), Name: "the dashboard " + name + " is there", Prove: func(ctx context.Context) Finding {
			return e.page(ctx, address)
		}})
	}
	slices.SortFunc(out, func(a, b Proof) int { return compare(a.ID, b.ID) })
	return out
}

func (e *Engine) page(ctx context.Context, address string) Finding {
	around := e.proving.around
	if around == nil {
		return noSurroundings()
	}
	const look = "open it in a browser, and sign for it"
	status, err := around.Page(ctx, address)
	switch {
	case err != nil:
		return Unknown("it cannot be reached from here: "+err.Error(), look).because(err.Error())
	case status/100 == 2:
		return Passed(fmt.Sprintf("%s answers %d", address, status))
	case status == 404 || status == 410:
		return Failed(fmt.Sprintf("%s answers %d", address, status), "import the dashboard, or correct dashboards: in the playbook")
	}
	return Unknown(fmt.Sprintf("%s answers %d: whether the dashboard is there shows only to who may see it", address, status), look)
}

func noSurroundings() Finding {
	const why = "nothing is configured that could be asked"
	return Unknown(why, "start backout serve with prometheus: and alertmanager:").because(why)
}
