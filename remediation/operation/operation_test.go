package operation

import (
	"context"
	"encoding/json"
	"errors"
	"testing"
	"time"

	"github.com/locotoki/backout/remediation"
	"github.com/locotoki/backout/remediation/gate"
	"github.com/locotoki/backout/remediation/ledger"
)

// restored is an action that is put back, and then looked at.
type restored struct {
	remediation.Action
	look error
}

func (restored) Restore(context.Context, string, json.RawMessage) error { return nil }

func (a restored) Look(context.Context, string) (remediation.Look, error) {
	return remediation.Look{Position: remediation.Untouched}, a.look
}

// outcome notes how an undo came out.
type outcome struct {
	Journal
	err error
}

func (*outcome) Limit(Phase) time.Duration                    { return time.Minute }
func (*outcome) Undoing(context.Context, error) (bool, error) { return true, nil }
func (o *outcome) Undone(_ context.Context, err error) error  { o.err = err; return nil }

// A target on which no step may begin, as one that a second folder's containers share, can be put back.
func TestARestoreOfATargetOnWhichNoStepMayBeginIsDone(t *testing.T) {
	for name, c := range map[string]struct {
		look    error
		inDoubt bool
	}{
		"no step may begin":       {remediation.Unfit(errors.New("two folders")), false},
		"the look shows nothing":  {errors.New("no engine"), true},
		"the target is as it was": {nil, false},
	} {
		var o outcome
		op := Operation{Restore: true, Bind: func() (remediation.Action, error) { return restored{look: c.look}, nil }}
		if err := Revert(t.Context(), &gate.Gates{Ledger: &ledger.Ledger{}}, op, &o, nil); err != nil {
			t.Fatal(err)
		}
		if remediation.IsInDoubt(o.err) != c.inDoubt || !c.inDoubt && o.err != nil {
			t.Errorf("%s: %v", name, o.err)
		}
	}
}
