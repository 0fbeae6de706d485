package actiontest

import (
	"context"
	"encoding/json"
	"errors"
	"os"
	"strings"
	"testing"

	"github.com/locotoki/backout/alerts"
	"github.com/locotoki/backout/remediation"
)

// RunLossy runs the suite over an action that loses what nothing brings back:
// until then undo restores, and after it refuses and names the snapshot.
func RunLossy(t *testing.T, setup func(t *testing.T) *Fixture) {
	runParts(t, setup, true, []part{
		{"looking changes nothing", lookingChangesNothing},
		{"applying twice changes once", applyingTwiceChangesOnce},
		{"undo after the loss refuses and names the snapshot", undoOfLoss},
		{"undo before anything was done changes nothing", undoOfNothing},
		{"a target that changed in between is refused", changedInBetween},
		{"a cut-off apply is rolled forward from every point", func(t *testing.T, r *run) { cutOff(t, r, forward) }},
		{"a cut-off apply is undone from every point before the loss", func(t *testing.T, r *run) { cutOff(t, r, back) }},
		{"a cut-off undo is undone again", cutOffUndoBeforeLoss},
		{"a timeout leaves doubt that looking resolves", timeout},
		{"a timeout of the loss itself is resolved by looking", timeoutOfLoss},
	})
}

func undoOfLoss(t *testing.T, r *run) {
	op := r.op()
	before := r.look(t, op).Snapshot
	r.apply(t, op, before)
	if !r.Lost(t) {
		t.Fatal("apply lost nothing")
	}
	r.undoRefuses(t, op, before)
}

// cutOffUndoBeforeLoss undoes from the point at which there is most to undo.
func cutOffUndoBeforeLoss(t *testing.T, r *run) {
	last := r.lastBeforeLoss(t)
	undoCutOff(t, r, func(op string, before json.RawMessage) { r.applyCut(t, op, before, last) })
}

// backToUntouched undoes an operation. Where that is not to be had any more, it
// sees that undo says so, and brings the target back as a human would.
func (r *run) backToUntouched(t *testing.T, op string, before json.RawMessage, state string) {
	t.Helper()
	if r.Risk != alerts.Lossy || !r.Lost(t) {
		r.undo(t, op, before, state)
		return
	}
	r.undoRefuses(t, op, before)
	r.Reset(t)
	if got := r.State(t); got != state {
		t.Fatalf("reset left\n%s\nwant\n%s", got, state)
	}
}

// undoRefuses sees that undo brings no data back, and says each time where the
// snapshot is. From wherever the operation was cut off, the target is left as an
// operation leaves it that was not.
func (r *run) undoRefuses(t *testing.T, op string, before json.RawMessage) {
	t.Helper()
	refusal := func() {
		t.Helper()
		err := r.hear(r.Action.Undo(t.Context(), op, before))
		if err == nil {
			t.Fatal("undo says that it restored what was lost")
		}
		if errors.Is(err, context.DeadlineExceeded) {
			t.Fatalf("the refusal leaves doubt: %v", err)
		}
		var told struct {
			Dump struct {
				Path string `json:"path"`
			} `json:"dump"`
		}
		raw := r.expect(t, op, remediation.Wanted).Snapshot
		if err := json.Unmarshal(raw, &told); err != nil {
			t.Fatal(err)
		}
		if _, missing := os.Stat(told.Dump.Path); missing != nil || !strings.Contains(err.Error(), told.Dump.Path) {
			t.Fatalf("undo does not name the snapshot %q (%v): %v", told.Dump.Path, missing, err)
		}
	}
	refusal()
	if err := r.hear(r.Action.Verify(t.Context(), op)); err != nil {
		t.Fatalf("verify: %v", err)
	}
	state, effects := r.State(t), r.Effects(t)
	refusal()
	if got := r.State(t); got != state || r.Effects(t) != effects {
		t.Fatalf("refused again, it changed\n%s\nto\n%s", state, got)
	}
	r.expect(t, r.op(), remediation.Wanted)
}

// applyCut applies with one call cut off after its effect.
func (r *run) applyCut(t *testing.T, op string, before json.RawMessage, call int) {
	t.Helper()
	a, fired := r.Cut(t, call, After)
	if err := r.hear(a.Apply(t.Context(), op, before)); err == nil || !fired() {
		t.Fatalf("apply ended with %v though call %d was cut off", err, call)
	}
}

// lastBeforeLoss finds the last call of apply after which nothing is lost yet.
func (r *run) lastBeforeLoss(t *testing.T) int {
	t.Helper()
	state := r.State(t)
	for n := 0; ; n++ {
		op := r.op()
		before := r.look(t, op).Snapshot
		r.applyCut(t, op, before, n)
		lost := r.Lost(t)
		r.backToUntouched(t, op, before, state)
		if lost {
			if n == 0 {
				t.Fatal("the first call of apply already loses something: nothing is prepared before it")
			}
			return n - 1
		}
	}
}

// timeoutOfLoss lets the very call that loses data go unanswered.
func timeoutOfLoss(t *testing.T, r *run) {
	state := r.State(t)
	call := r.lastBeforeLoss(t) + 1
	op := r.op()
	before := r.look(t, op).Snapshot
	a, fired := r.Cut(t, call, Hang)
	err := r.hear(a.Apply(waiting(t), op, before))
	switch {
	case err == nil || !fired():
		t.Fatalf("apply ended with %v though call %d was never answered", err, call)
	case !errors.Is(err, context.DeadlineExceeded):
		t.Errorf("the error does not tell of the deadline, so it would not count as in doubt: %v", err)
	case !r.Lost(t):
		t.Fatalf("call %d had no effect", call)
	}
	forward(t, r, op, before, state)
}
