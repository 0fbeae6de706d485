// Package actiontest is the conformance suite for actions: what the engine relies
// on, whatever an action changes.
//
// It also has Board, an action on nothing but memory that can be made to fail at
// any point.
package actiontest

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/locotoki/backout/alerts"
	"github.com/locotoki/backout/remediation"
	"github.com/locotoki/backout/remediation/crashtest"
)

// Fixture is one action on one target, untouched.
type Fixture struct {
	Action remediation.Action
	// Risk is the kind's: what is reversible is done to a target that changed
	// in between, anything else is refused.
	Risk alerts.Risk
	// State describes all that Undo is to restore. Ours and another's hand give
	// the same text for the same state.
	State func(t *testing.T) string
	// Effects counts the changes made to the target so far, by anybody.
	Effects func(t *testing.T) int
	// Meddle changes the target as somebody else would, from any state to one
	// that is not wanted.
	Meddle func(t *testing.T)
	// Cut returns the same action with its n-th outside call that changes
	// something (from 0) meeting a fault. fired reports afterwards
	// whether there was such a call.
	Cut func(t *testing.T, n int, f Fault) (a remediation.Action, fired func() bool)
	// Secrets are texts near the target that must never be told.
	Secrets []string
	// Lost and Reset are a lossy action's. Lost reports whether the effect that
	// cannot be undone has happened; Reset brings the target back to untouched, as a
	// person would.
	Lost  func(t *testing.T) bool
	Reset func(t *testing.T)
}

// Fault is what happens to one outside call.
type Fault string

// The faults.
const (
	Before Fault = "cut before the effect" // the call never arrives
	After  Fault = "cut after the effect"  // its answer never arrives
	Hang   Fault = "no answer"             // the effect happens, and Unanswered waits for the context's end
)

// part is one statement of the suite.
type part struct {
	name string
	run  func(*testing.T, *run)
}

// whole are the parts that let the action come to its end, cuts those that cut it off, at
// one point after the other.
var (
	whole = []part{
		{"looking changes nothing", lookingChangesNothing},
		{"applying twice changes once", applyingTwiceChangesOnce},
		{"undo restores, and twice is as once", undoRestores},
		{"undo before anything was done changes nothing", undoOfNothing},
		{"a target that changed in between is looked at again", changedInBetween},
		{"a timeout leaves doubt that looking resolves", timeout},
	}
	cuts = []part{
		{"a cut-off apply is rolled forward from every point", func(t *testing.T, r *run) { cutOff(t, r, forward) }},
		{"a cut-off apply is undone from every point", func(t *testing.T, r *run) { cutOff(t, r, back) }},
		{"a cut-off undo is undone again", cutOffUndo},
	}
)

// Run runs the suite over an action that undo restores; setup makes a fresh
// target for each part of it.
func Run(t *testing.T, setup func(t *testing.T) *Fixture) {
	runParts(t, setup, false, slices.Concat(whole, cuts))
}

// RunSample is Run for one of several ways to the same target, each of which takes
// seconds: with -short, one part of either kind is drawn.
func RunSample(t *testing.T, setup func(t *testing.T) *Fixture) {
	runParts(t, setup, false, slices.Concat(crashtest.Draw(t, whole), crashtest.Draw(t, cuts)))
}

func runParts(t *testing.T, setup func(t *testing.T) *Fixture, lossy bool, parts []part) {
	for _, p := range parts {
		t.Run(p.name, func(t *testing.T) {
			r := &run{Fixture: setup(t)}
			if (r.Risk == alerts.Lossy) != lossy || (r.Lost != nil) != lossy || (r.Reset != nil) != lossy {
				t.Fatal("a lossy action has Lost and Reset and is given to RunLossy, any other to Run")
			}
			p.run(t, r)
			for _, said := range r.said {
				for _, s := range r.Secrets {
					if strings.Contains(said, s) {
						t.Errorf("a secret was told: %s", said)
					}
				}
			}
		})
	}
}

// run is a fixture and everything its action said.
type run struct {
	*Fixture
	said []string
	ops  int
}

// op returns a fresh operation's id, in the engine's form.
func (r *run) op() string {
	r.ops++
	return fmt.Sprintf("inc-%d/1-test@1700000000", r.ops)
}

func (r *run) hear(err error) error {
	if err != nil {
		r.said = append(r.said, err.Error())
	}
	return err
}

func (r *run) look(t *testing.T, op string) remediation.Look {
	t.Helper()
	look, err := r.Action.Look(t.Context(), op)
	if r.hear(err) != nil {
		t.Fatalf("look: %v", err)
	}
	r.said = append(r.said, string(look.Snapshot))
	if err := onlyWhatAuditTakes(look.Snapshot); err != nil {
		t.Fatalf("snapshot %s: %v", look.Snapshot, err)
	}
	return look
}

func (r *run) expect(t *testing.T, op string, want remediation.Position) remediation.Look {
	t.Helper()
	look := r.look(t, op)
	if look.Position != want {
		t.Fatalf("position is %s, want %s; state:\n%s", look.Position, want, r.State(t))
	}
	return look
}

func (r *run) apply(t *testing.T, op string, before json.RawMessage) {
	t.Helper()
	if err := r.hear(r.Action.Apply(t.Context(), op, before)); err != nil {
		t.Fatalf("apply: %v", err)
	}
	r.expect(t, op, remediation.Wanted)
	if err := r.hear(r.Action.Verify(t.Context(), op)); err != nil {
		t.Fatalf("verify: %v", err)
	}
}

func (r *run) undo(t *testing.T, op string, before json.RawMessage, want string) {
	t.Helper()
	if err := r.hear(r.Action.Undo(t.Context(), op, before)); err != nil {
		t.Fatalf("undo: %v", err)
	}
	if got := r.State(t); got != want {
		t.Fatalf("undo left\n%s\nwant\n%s", got, want)
	}
}

// onlyWhatAuditTakes refuses what the canonical form of an audit entry lacks.
func onlyWhatAuditTakes(raw json.RawMessage) error {
	d := json.NewDecoder(strings.NewReader(string(raw)))
	d.UseNumber()
	var v any
	if err := d.Decode(&v); err != nil {
		return err
	}
	var walk func(v any) error
	walk = func(v any) error {
		switch v := v.(type) {
		case map[string]any:
			for k, e := range v {
				if err := walk(e); err != nil {
					return fmt.Errorf("%s: %w", k, err)
				}
			}
		case []any:
			for _, e := range v {
				if err := walk(e); err != nil {
					return err
				}
			}
		case string:
		case json.Number:
			if strings.ContainsAny(v.String(), ".eE") {
				return fmt.Errorf("%s is not an integer", v)
			}
		default:
			return fmt.Errorf("%v is not an integer, string, array or object", v)
		}
		return nil
	}
	return walk(v)
}

func lookingChangesNothing(t *testing.T, r *run) {
	op := r.op()
	state, effects := r.State(t), r.Effects(t)
	first := r.expect(t, op, remediation.Untouched)
	second := r.expect(t, op, remediation.Untouched)
	if string(first.Snapshot) != string(second.Snapshot) {
		t.Errorf("two looks differ:\n%s\n%s", first.Snapshot, second.Snapshot)
	}
	if got := r.State(t); got != state || r.Effects(t) != effects {
		t.Errorf("looking changed\n%s\nto\n%s", state, got)
	}
}

func applyingTwiceChangesOnce(t *testing.T, r *run) {
	op := r.op()
	before := r.expect(t, op, remediation.Untouched).Snapshot
	r.apply(t, op, before)
	state, effects := r.State(t), r.Effects(t)
	r.apply(t, op, before)
	if got := r.State(t); got != state {
		t.Errorf("applied again, it became\n%s\nfrom\n%s", got, state)
	}
	if n := r.Effects(t); n != effects {
		t.Errorf("applied again, it changed %d more", n-effects)
	}
	r.expect(t, r.op(), remediation.Wanted) // for another operation too
}

func undoRestores(t *testing.T, r *run) {
	op, state := r.op(), r.State(t)
	before := r.look(t, op).Snapshot
	r.apply(t, op, before)
	r.undo(t, op, before, state)
	effects := r.Effects(t)
	r.undo(t, op, before, state)
	if n := r.Effects(t); n != effects {
		t.Errorf("undone again, it changed %d more", n-effects)
	}
	r.expect(t, r.op(), remediation.Untouched)
}

func undoOfNothing(t *testing.T, r *run) {
	op, state, effects := r.op(), r.State(t), r.Effects(t)
	r.undo(t, op, r.look(t, op).Snapshot, state)
	if n := r.Effects(t); n != effects {
		t.Errorf("it changed %d", n-effects)
	}
}

func changedInBetween(t *testing.T, r *run) {
	op := r.op()
	before := r.look(t, op).Snapshot
	r.Meddle(t)
	if r.Risk == alerts.Reversible {
		r.apply(t, op, before)
	} else {
		refusesWhatChanged(t, r, op, before)
	}

	op = r.op()
	r.Meddle(t)
	look := r.look(t, op)
	if look.Position == remediation.Wanted {
		t.Fatal("somebody turned it back, and it still counts as wanted")
	}
	r.apply(t, op, look.Snapshot)
}

func refusesWhatChanged(t *testing.T, r *run, op string, before json.RawMessage) {
	t.Helper()
	state := r.State(t)
	err := r.hear(r.Action.Apply(t.Context(), op, before))
	if err == nil {
		t.Fatal("a target that changed in between was changed")
	}
	if errors.Is(err, context.DeadlineExceeded) {
		t.Fatalf("the refusal leaves doubt: %v", err)
	}
	if got := r.State(t); got != state {
		t.Fatalf("the refusal changed\n%s\nto\n%s", state, got)
	}
}

// forward and back resolve a cut-off operation; both leave the target as it was
// before the operation, for the next.
func forward(t *testing.T, r *run, op string, before json.RawMessage, state string) {
	t.Helper()
	if look := r.look(t, op); look.Position != remediation.Wanted {
		if look.Position == remediation.Untouched {
			before = look.Snapshot // the engine begins again
		}
		r.apply(t, op, before)
	}
	r.backToUntouched(t, op, before, state)
}

func back(t *testing.T, r *run, op string, before json.RawMessage, state string) {
	t.Helper()
	r.look(t, op)
	r.backToUntouched(t, op, before, state)
	if look := r.look(t, r.op()); look.Position != remediation.Untouched {
		t.Fatalf("after undo the position is %s", look.Position)
	}
}

// faultAt is the n-th fault of a series that meets every state there is between
// two outside calls: cut before a call is the same as cut after the one before.
func faultAt(n int) (call int, f Fault) {
	if n == 0 {
		return 0, Before
	}
	return n - 1, After
}

func cutOff(t *testing.T, r *run, resolve func(*testing.T, *run, string, json.RawMessage, string)) {
	state := r.State(t)
	for n := range crashtest.Points(t) {
		op := r.op()
		before := r.look(t, op).Snapshot
		call, fault := faultAt(n)
		a, fired := r.Cut(t, call, fault)
		err := r.hear(a.Apply(t.Context(), op, before))
		if !fired() {
			if err != nil {
				t.Fatalf("apply without a fault: %v", err)
			}
			if n < 2 {
				t.Fatal("apply makes no outside call")
			}
			return
		}
		if !t.Run(fmt.Sprintf("call %d %s", call, fault), func(t *testing.T) { resolve(t, r, op, before, state) }) {
			return
		}
	}
}

func cutOffUndo(t *testing.T, r *run) {
	undoCutOff(t, r, func(op string, before json.RawMessage) { r.apply(t, op, before) })
}

// undoCutOff undoes what apply did, again and again, cut off at each of its calls.
func undoCutOff(t *testing.T, r *run, apply func(op string, before json.RawMessage)) {
	t.Helper()
	state := r.State(t)
	for n := range crashtest.Points(t) {
		op := r.op()
		before := r.look(t, op).Snapshot
		apply(op, before)
		call, fault := faultAt(n)
		a, fired := r.Cut(t, call, fault)
		err := r.hear(a.Undo(t.Context(), op, before))
		if !fired() && err != nil {
			t.Fatalf("undo without a fault: %v", err)
		}
		if !t.Run(fmt.Sprintf("call %d %s", call, fault), func(t *testing.T) { r.undo(t, op, before, state) }) || !fired() {
			return
		}
	}
}

func timeout(t *testing.T, r *run) {
	op, state := r.op(), r.State(t)
	before := r.look(t, op).Snapshot
	a, fired := r.Cut(t, 0, Hang)
	err := r.hear(a.Apply(waiting(t), op, before))
	if err == nil || !fired() {
		t.Fatalf("apply ended with %v though its call was never answered", err)
	}
	if !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("the error does not tell of the deadline, so it would not count as in doubt: %v", err)
	}
	forward(t, r, op, before, state)
}
