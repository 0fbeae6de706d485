package remediation

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/locotoki/backout/alerts"
	"github.com/locotoki/backout/rules"
)

// book is a playbook made ready to be carried out.
type book struct {
	*alerts.Playbook
	expr  rules.Expressions
	kinds map[string]ActionKind
}

func newBook(pb *alerts.Playbook, kinds []ActionKind) (*book, error) {
	expr, err := rules.ExpressionsOf(pb)
	if err != nil {
		return nil, fmt.Errorf("expressions of playbook %s: %w", pb.Service, err)
	}
	b := &book{Playbook: pb, expr: expr, kinds: map[string]ActionKind{}}
	for _, k := range kinds {
		b.kinds[k.Name()] = k
	}
	return b, nil
}

// poll is S: the distance of two polls.
func (b *book) poll() time.Duration { return time.Duration(b.ScrapeInterval) }

// settleStart is W+2S over the attached triggers: before that, a recovery
// window still holds samples from before the step.
func (b *book) settleStart(inc *Incident) time.Duration {
	return b.recoveryWindow(inc) + 2*b.poll()
}

// settleTime is how long a step is given: its own settle time, or what the
// attached triggers' recovery windows need at least.
func (b *book) settleTime(inc *Incident, s *Step) time.Duration {
	return max(s.Settle, 2*b.recoveryWindow(inc)+4*b.poll())
}

func (b *book) recoveryWindow(inc *Incident) (w time.Duration) {
	for _, t := range inc.Triggers {
		w = max(w, b.expr.Triggers[t.Trigger].RecoveryWindow)
	}
	return w
}

// planStep returns the playbook's step that s was copied from.
func (b *book) planStep(s *Step) (alerts.Step, error) {
	plan := b.Plan(s.Plan)
	if plan == nil || s.PlanIndex >= len(plan.Steps) {
		return alerts.Step{}, fmt.Errorf("step %s: playbook has no step %d in plan %q", s.ID(), s.PlanIndex+1, s.Plan)
	}
	return plan.Steps[s.PlanIndex], nil
}

// bind returns the action that s stands for.
func (b *book) bind(s *Step) (Action, error) {
	step, err := b.planStep(s)
	if err != nil {
		return nil, err
	}
	kind := b.kinds[step.Action]
	if kind == nil {
		return nil, fmt.Errorf("step %s: no such kind of action: %s", s.ID(), step.Action)
	}
	return kind.Bind(b.Playbook, step.Params)
}

// addPlan adds the steps of the named plan that the incident does not have
// yet, and returns the ids of those added. A step is the same where action,
// target and parameters are; one that the incident has takes over whatever this plan
// says more strictly.
func (b *book) addPlan(inc *Incident, name string) ([]string, error) {
	plan := b.Plan(name)
	if plan == nil {
		return nil, fmt.Errorf("playbook %s has no plan %q", b.Service, name)
	}
	has, err := b.steps(inc)
	if err != nil {
		return nil, err
	}
	var added []string
	for i, s := range plan.Steps {
		kind := b.kinds[s.Action]
		if kind == nil {
			return nil, fmt.Errorf("plan %s: no such kind of action: %s", name, s.Action)
		}
		target := kind.Target(b.Playbook, s.Params)
		k, err := identity(s, target)
		if err != nil {
			return nil, err
		}
		if n := has[k]; n > 0 {
			inc.Steps[n-1].stricter(s)
			continue
		}
		step := Step{
			Number: len(inc.Steps) + 1, Action: s.Action, Target: target, Risk: kind.Risk(), State: StepPending,
			Plan: name, PlanIndex: i,
			Settle: time.Duration(s.Settle), Timeout: time.Duration(s.Timeout), OnFailure: s.OnFailure,
		}
		_, step.Tells = kind.(Communicator)
		if s.Approval != nil {
			step.Approve = time.Duration(s.Approval.Timeout)
		}
		inc.Steps = append(inc.Steps, step)
		added = append(added, step.ID())
	}
	return added, nil
}

// stricter makes a step that may still run at least as careful as another plan
// wants it: an approval that either wants, the shorter time to give it and to run,
// the longer time to settle, and a stop where either plan stops.
func (s *Step) stricter(other alerts.Step) {
	if !s.open() {
		return
	}
	s.Settle = max(s.Settle, time.Duration(other.Settle))
	s.Timeout = shorter(s.Timeout, time.Duration(other.Timeout))
	if other.Approval != nil {
		s.Approve = shorter(s.Approve, time.Duration(other.Approval.Timeout))
	}
	if other.OnFailure != alerts.OnFailureNext {
		s.OnFailure = other.OnFailure
	}
}

// shorter returns the shorter of two times, of which 0 is none.
func shorter(a, b time.Duration) time.Duration {
	if a == 0 || b != 0 && b < a {
		return b
	}
	return a
}

// listed returns the numbers of the incident's steps that a plan has.
func (b *book) listed(inc *Incident, name string) ([]int, error) {
	plan := b.Plan(name)
	if plan == nil {
		return nil, fmt.Errorf("playbook %s has no plan %q", b.Service, name)
	}
	has, err := b.steps(inc)
	if err != nil {
		return nil, err
	}
	var out []int
	for _, s := range plan.Steps {
		k, err := identity(s, b.kinds[s.Action].Target(b.Playbook, s.Params))
		if err != nil {
			return nil, err
		}
		if has[k] > 0 {
			out = append(out, has[k])
		}
	}
	return out, nil
}

// steps are the numbers of the incident's steps by their identity.
func (b *book) steps(inc *Incident) (map[string]int, error) {
	out := map[string]int{}
	for i := range inc.Steps {
		s, err := b.planStep(&inc.Steps[i])
		if err != nil {
			return nil, err
		}
		k, err := identity(s, inc.Steps[i].Target)
		if err != nil {
			return nil, err
		}
		out[k] = inc.Steps[i].Number
	}
	return out, nil
}

func identity(s alerts.Step, target string) (string, error) {
	params, err := json.Marshal(s.Params)
	if err != nil {
		return "", fmt.Errorf("encode parameters of %s: %w", s.Action, err)
	}
	return s.Action + "\x00" + target + "\x00" + string(params), nil
}

// next returns the step that acts next: of those that may still run, the one
// of the lowest risk, then the one added first; while a rollout is aborted, of the
// listed plans' first ones. nil: none is left. What only
// tells people something is passed over: toTell.
func (inc *Incident) next() *Step {
	var n *Step
	for i := range inc.Steps {
		s := &inc.Steps[i]
		if s.Tells || !s.open() || inc.aborting() && (!inc.Abort.lists(s) || inc.comesLater(s)) {
			continue
		}
		if n == nil || s.Risk < n.Risk {
			n = s
		}
	}
	return n
}

// comesLater tells whether a listed step of the same plan is to run before s.
func (inc *Incident) comesLater(s *Step) bool {
	return slices.ContainsFunc(inc.Steps, func(b Step) bool {
		return !b.Tells && b.open() && inc.Abort.lists(&b) && b.Plan == s.Plan && b.Number < s.Number
	})
}

// open tells whether a step may still run.
func (s *Step) open() bool { return s.State == StepPending || s.State == StepWaiting }

// toTell returns the step that tells people something next: one whose plan has
// come to it, since no step before it is left to act. nil: there is none.
func (inc *Incident) toTell() *Step {
	for i := range inc.Steps {
		s := &inc.Steps[i]
		if s.Tells && s.open() && !slices.ContainsFunc(inc.Steps, func(b Step) bool {
			return b.open() && !b.Tells && b.Plan == s.Plan && b.PlanIndex < s.PlanIndex
		}) {
			return s
		}
	}
	return nil
}

// unhandled returns a step that failed and that neither the plan nor a human
// let the ladder go past, or nil.
func (inc *Incident) unhandled() *Step {
	next := inc.next()
	for i := range inc.Steps {
		s := &inc.Steps[i]
		if s.State == StepFailed || s.State == StepUndone &&
			(s.OnFailure != alerts.OnFailureNext || next != nil && next.Risk == alerts.Lossy) {
			return s
		}
	}
	return nil
}

// running returns the step whose effect or verification is under way, or nil.
func (inc *Incident) running() *Step {
	for i := range inc.Steps {
		s := &inc.Steps[i]
		if s.State == StepIntent || (s.State == StepDone && !s.Verified) {
			return s
		}
	}
	return nil
}

// step returns the step with an id, or nil.
func (inc *Incident) step(id string) *Step {
	for i := range inc.Steps {
		if inc.Steps[i].ID() == id {
			return &inc.Steps[i]
		}
	}
	return nil
}

// changed tells whether a step of this incident changed its target, or may have.
func (inc *Incident) changed() bool {
	return slices.ContainsFunc(inc.Steps, func(s Step) bool {
		return !s.Tells && (s.State == StepDone || s.State == StepFailed || s.State == StepInDoubt)
	})
}

// lastRun returns the step that settled or failed last, or nil.
func (inc *Incident) lastRun() *Step {
	var last *Step
	for i := range inc.Steps {
		s := &inc.Steps[i]
		if s.Finished != nil && !s.Tells && s.State != StepSkipped && (last == nil || !s.Finished.Before(*last.Finished)) {
			last = s
		}
	}
	return last
}

// trigger returns the attached trigger's state, or nil.
func (inc *Incident) trigger(name string) *TriggerState {
	for i := range inc.Triggers {
		if inc.Triggers[i].Trigger == name {
			return &inc.Triggers[i]
		}
	}
	return nil
}

// unreadableError: a stored playbook cannot be carried out any more.
type unreadableError struct{ cause error }

// Error implements error.
func (e *unreadableError) Error() string { return "its playbook cannot be read: " + e.cause.Error() }

func (e *unreadableError) Unwrap() error { return e.cause }

// bookFor returns the playbook that an incident was opened with. It is an
// *unreadableError where that is gone, is not what its hash says, or cannot be
// understood any more, as after an upgrade.
func (e *Engine) bookFor(ctx context.Context, inc *Incident) (*book, error) {
	e.mu.Lock()
	b := e.byHash[inc.PlaybookHash]
	e.mu.Unlock()
	if b != nil {
		return b, nil
	}
	var src []byte
	err := e.store.View(ctx, func(tx Tx) (err error) {
		src, err = tx.Playbook(inc.PlaybookHash)
		return err
	})
	if errors.Is(err, ErrNotFound) {
		return nil, &unreadableError{err}
	}
	if err != nil {
		return nil, fmt.Errorf("read playbook %s of incident %s: %w", inc.PlaybookHash, inc.ID, err)
	}
	if sum := sha256.Sum256(src); hex.EncodeToString(sum[:]) != inc.PlaybookHash {
		return nil, &unreadableError{fmt.Errorf("it was changed in the database: its hash is %x, and the incident was opened with %s", sum, inc.PlaybookHash)}
	}
	pb, err := alerts.Parse("playbook of "+inc.ID, src, alertKinds(e.kinds))
	if err != nil {
		return nil, &unreadableError{err}
	}
	if b, err = newBook(pb, e.kinds); err != nil {
		return nil, &unreadableError{err}
	}
	e.mu.Lock()
	e.byHash[inc.PlaybookHash] = b
	e.mu.Unlock()
	return b, nil
}

// noBook stands for a playbook that cannot be read, where a human acts: there is
// no plan in it, and nobody to be told.
func noBook(inc *Incident) *book {
	return &book{Playbook: &alerts.Playbook{Service: inc.Service}}
}

// unreadable calls a human for an incident whose playbook cannot be read: it
// goes no further by itself.
func (e *Engine) unreadable(ctx context.Context, inc *Incident, cause *unreadableError) error {
	e.log.Error("an incident cannot go on by itself", "incident", inc.ID, "err", cause)
	err := e.change(ctx, noBook(inc), inc, func(c *change) error {
		if c.inc.State == Closed {
			c.inc.Wake = time.Time{} // nothing is left to do
			return nil
		}
		c.inc.Wake = c.now.Add(unreadableAgain)
		c.inc.Why = cause.Error() + "; act by hand, then claim and close it"
		return c.page(pageStuck, c.inc.Why)
	})
	if errors.Is(err, ErrStale) { // it is looked at again
		return nil
	}
	return err
}

// unreadableAgain is how soon an unreadable playbook is tried again.
const unreadableAgain = time.Minute

func alertKinds(kinds []ActionKind) []alerts.ActionKind {
	out := make([]alerts.ActionKind, len(kinds))
	for i, k := range kinds {
		out[i] = k
	}
	return out
}
