package incident

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/locotoki/backout/alerts"
	"github.com/locotoki/backout/remediation"
	"github.com/locotoki/backout/remediation/gate"
	"github.com/locotoki/backout/remediation/plan"
)

// lookAgain is how long a look at a target is good enough for what would be done: a look can cost the
// service something, as a count of its tables does.
const lookAgain = 5 * time.Minute

// observedLook is what a look at a step's target saw.
type observedLook struct {
	remediation.Look
	err error
	at  time.Time
}

// observedLooks are the latest looks, by incident and step.
type observedLooks struct {
	mu     sync.Mutex
	latest map[string]observedLook
}

// lookAtAll looks at the targets of all steps that are left, for would.
func (e *Responder) lookAtAll(ctx context.Context, b *plan.Plan, inc *remediation.Incident) map[string]observedLook {
	now, all := e.Now(), &e.observed
	key := func(s *remediation.Step) string { return inc.ID + "/" + s.ID() }
	all.mu.Lock()
	maps.DeleteFunc(all.latest, func(_ string, l observedLook) bool { return now.Sub(l.at) >= lookAgain })
	looks := map[string]observedLook{}
	var wg sync.WaitGroup
	for i := range inc.Steps {
		s := &inc.Steps[i]
		if !s.Open() || s.Tells {
			continue
		}
		if l, seen := all.latest[key(s)]; seen {
			looks[s.ID()] = l
			continue
		}
		wg.Go(func() {
			look, err := e.look(ctx, b, inc, s)
			all.mu.Lock()
			defer all.mu.Unlock()
			l := observedLook{look, err, now}
			looks[s.ID()], all.latest[key(s)] = l, l
		})
	}
	all.mu.Unlock()
	wg.Wait()
	return looks
}

// would says what each step that is left would do if backout acted: one sentence a
// step, in the order in which they would run, with everything that would hold it. In
// observe mode nothing runs, so that the first hold would otherwise be all that is ever
// seen of a plan. A step that would run counts in the limits of those after it, which
// come when its settle time is over.
func (c *change) would(q gate.Input, looks map[string]observedLook) ([]string, error) {
	var open, tells []*remediation.Step
	for i := range c.Inc.Steps {
		switch s := &c.Inc.Steps[i]; {
		case !s.Open():
		case s.Tells:
			tells = append(tells, s)
		default:
			open = append(open, s)
		}
	}
	slices.SortStableFunc(open, func(a, b *remediation.Step) int { return int(a.Risk) - int(b.Risk) }) // as next picks them
	out := []string{}
	tell := func(before *remediation.Step) error {
		for _, s := range tells {
			if before != nil && (s.Plan != before.Plan || s.PlanIndex >= before.PlanIndex) {
				continue
			}
			words, err := c.wouldTell(s, q)
			if err != nil {
				return err
			}
			out = append(out, words)
		}
		tells = slices.DeleteFunc(tells, func(s *remediation.Step) bool {
			return before == nil || s.Plan == before.Plan && s.PlanIndex < before.PlanIndex
		})
		return nil
	}
	at, ran := c.Now, []remediation.Effect{}
	for _, s := range open {
		if err := tell(s); err != nil {
			return nil, err
		}
		then, sq := c.Suppose(ran, at), q
		sq.Step = s
		all, _, err := then.Gates(sq)
		if err != nil {
			return nil, err
		}
		words, runs := c.wouldDo(s, all, looks[s.ID()])
		if len(ran) > 0 {
			words += ", if the breach continues"
		}
		out = append(out, s.ID()+" would "+words)
		if runs {
			ran = append(ran, remediation.Effect{Time: at, Service: c.Inc.Service, Action: s.Action, Target: s.Target, Incident: c.Inc.ID, Step: s.ID(), Outcome: remediation.EffectDone})
			at = at.Add(s.Settle)
		}
	}
	return out, tell(nil)
}

// wouldDo says what becomes of a step; runs: it would change its target.
func (c *change) wouldDo(s *remediation.Step, all []remediation.GateResult, look observedLook) (words string, runs bool) {
	approval := ""
	var held []string
	for _, g := range all {
		switch {
		case g.OK:
		case g.Reason == remediation.HoldApproval:
			approval = "wait for a commander's approval"
		case g.Gate == "mode" && (s.Risk != alerts.Lossy || c.e.NoLossy == ""):
		case g.Gate == "mode":
			held = append(held, c.e.NoLossy)
		default:
			held = append(held, g.Why)
		}
	}
	switch {
	case len(held) > 0 && approval != "":
		return "be held (" + strings.Join(held, "; ") + "), then " + approval, false
	case len(held) > 0:
		return "be held: " + strings.Join(held, "; "), false
	case look.err != nil:
		return fmt.Sprintf("run, but backout cannot look at its target: %v", look.err), true
	case look.Position == remediation.Wanted:
		return "change nothing: its target is already in the wanted state", false
	case approval != "":
		return approval, true // as if it were given
	}
	return "run", true
}

// wouldTell says what a step that only tells people something would do.
func (c *change) wouldTell(s *remediation.Step, q gate.Input) (string, error) {
	q.Step = s
	confirmation, err := c.Confirmation(q)
	if err != nil {
		return "", err
	}
	var held []string
	for _, g := range []remediation.GateResult{c.Claim(), gate.Silence(q), confirmation} {
		if !g.OK {
			held = append(held, g.Why)
		}
	}
	if len(held) > 0 {
		return s.ID() + " would be held: " + strings.Join(held, "; "), nil
	}
	step, err := c.Plan.PlanStep(s)
	if err != nil {
		return "", err
	}
	kind, ok := c.Plan.Kinds[s.Action].(remediation.Communicator)
	if !ok {
		return "", fmt.Errorf("step %s: %s announces nothing", s.ID(), s.Action)
	}
	a := kind.Announce(c.Plan.Playbook, step.Params)
	return fmt.Sprintf("%s would announce %s: %s", s.ID(), strings.ReplaceAll(string(a.Status), "_", " "), strings.Join(a.Components, ", ")), nil
}
