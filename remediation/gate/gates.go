// Package gate decides whether something may be done now. Every gate of a rollback's step
// is here, with those that hold a rollout's way forward too; a stage's own criteria are
// in rollout. So are the limits, the lock of a target, and the samples of Prometheus that
// a decision rests on. Gates are closed by default: what cannot be asked does not pass, except
// where the playbook says so.
//
// Change is the transaction on an incident that asks them: what it answers, and the
// intent that it allows, are written together or not at all.
package gate

import (
	"sync"
	"time"

	"github.com/locotoki/backout/remediation"
	"github.com/locotoki/backout/remediation/ledger"
	"github.com/locotoki/backout/remediation/plan"
)

// Gates asks what lies outside of a transaction: samples, silences, folders.
type Gates struct {
	*ledger.Ledger
	// folders are the targets' project folders without symbolic links, by their names.
	folders sync.Map
}

// Change is a transaction on one incident, and asks its gates.
type Change struct {
	*ledger.Change
	e *Gates
	// supposed are effects that the limits count as if they had happened.
	supposed []remediation.Effect
}

// On is a transaction on an incident that tx has read.
func (e *Gates) On(tx remediation.Tx, b *plan.Plan, inc *remediation.Incident, now time.Time) *Change {
	return e.With(e.Ledger.On(tx, b, inc, now))
}

// With asks gates within a transaction that has begun.
func (e *Gates) With(c *ledger.Change) *Change { return &Change{Change: c, e: e} }

// Suppose is the change at a later moment, as if those effects had happened.
func (c *Change) Suppose(effects []remediation.Effect, now time.Time) *Change {
	later := *c.Change
	later.Now = now
	return &Change{Change: &later, e: c.e, supposed: effects}
}
