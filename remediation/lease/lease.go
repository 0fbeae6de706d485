// Package lease decides which of several replicas acts in a realm. A lease is a row of the
// store, taken and renewed by the store's clock; each taking counts its epoch up, and
// Fence refuses every transaction of an epoch that is over. What it relies on:
//
//   - Transactions that write are serial, so that a fence that was open stays so until its
//     transaction has ended.
//   - A process may stop anywhere, for any time, and go on. It counts its lease from before
//     it asked for it, so it knows it to be lost before the store's clock lets another take
//     it: its calls to targets end then (Bound). A machine may be suspended, which stops the
//     clock of timers, so each call also asks a clock that goes on: before it begins, and
//     every lookEvery.
//   - A request that a target already has cannot be taken back. It has arrived within the
//     length of one more lease of its sender: until then a new holder does not conclude from an untouched
//     target that nothing was done (Hold.Unsettled).
//
// model_test.go explores what can happen between two replicas, one target and a crash or a
// pause anywhere, and shows that each of these rules is needed.
package lease

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/locotoki/backout/remediation"
)

// ErrLost: another replica acts in the realm, or may do so by now.
var ErrLost = errors.New("the lease is lost: another replica acts here")

// Rows is what of a transaction leases need.
type Rows interface {
	Now() (time.Time, error)
	Lease(realm string) (remediation.Lease, error)
	PutLease(l remediation.Lease) error
}

// Take renews holder's lease of a realm where epoch is the one it has, takes a free or
// lapsed one with a new epoch, and otherwise returns ErrLost and the lease as it is. was
// is the lease before.
func Take(tx Rows, realm, holder string, epoch int64, length time.Duration) (l, was remediation.Lease, err error) {
	now, err := tx.Now()
	if err != nil {
		return remediation.Lease{}, remediation.Lease{}, err
	}
	was, err = tx.Lease(realm)
	if err != nil && !errors.Is(err, remediation.ErrNotFound) {
		return remediation.Lease{}, remediation.Lease{}, err
	}
	l = remediation.Lease{Realm: realm, Holder: holder, Epoch: was.Epoch, Until: now.Add(length)}
	switch renewed := was.Holder == holder && was.Epoch == epoch; {
	case was.Until.After(now) && was.Holder != holder:
		return was, was, ErrLost
	case !was.Until.After(now) || !renewed:
		l.Epoch++ // also its own that it does not hold any more: what it began then may have been seen as cut off
	}
	return l, was, tx.PutLease(l)
}

// Release lets a lease end now, where it is still the holder's.
func Release(tx Rows, realm, holder string, epoch int64) error {
	if err := Check(tx, realm, holder, epoch); err != nil {
		return err
	}
	now, err := tx.Now()
	if err != nil {
		return err
	}
	return tx.PutLease(remediation.Lease{Realm: realm, Holder: holder, Epoch: epoch, Until: now})
}

// Check returns ErrLost where an epoch of a realm is over, or its lease has lapsed. That
// nobody has taken it yet changes nothing: a call that ended with the lease may still have
// an effect, and what its holder then sees of the target proves nothing.
func Check(tx Rows, realm, holder string, epoch int64) error {
	l, err := tx.Lease(realm)
	if err != nil && !errors.Is(err, remediation.ErrNotFound) {
		return err
	}
	now, err := tx.Now()
	if err != nil {
		return err
	}
	if l.Holder != holder || l.Epoch != epoch || !l.Until.After(now) {
		return fmt.Errorf("realm %q, epoch %d: %w", realm, epoch, ErrLost)
	}
	return nil
}

// Hold is a lease as its holder knows it.
type Hold struct {
	Realm, Holder string
	// Name is the holder's for people.
	Name  string
	Epoch int64
	// settles is when nothing that an earlier holder sent can arrive any more.
	settles time.Time

	lost chan struct{}
	once sync.Once

	// until is when it ends by boot, a clock that goes on while the machine is suspended;
	// 0: it ends by its keeper's timer only.
	until atomic.Int64
	boot  func() time.Duration
}

// lookEvery is how often a call to a target looks whether its lease has lapsed while the
// machine was suspended.
const lookEvery = 200 * time.Millisecond

// lapsed ends the hold where its lease is over, and reports whether it is.
func (h *Hold) lapsed() bool {
	until := h.until.Load()
	if until == 0 || h.boot() < time.Duration(until) {
		return false
	}
	h.Lose()
	return true
}

// NewHold is a lease that was just taken; wait is for how long an earlier holder's
// requests may still arrive.
func NewHold(l remediation.Lease, name string, wait time.Duration) *Hold {
	return &Hold{Realm: l.Realm, Holder: l.Holder, Name: name, Epoch: l.Epoch, settles: time.Now().Add(wait), lost: make(chan struct{})}
}

// Lose ends the hold, for this process; nothing is written.
func (h *Hold) Lose() { h.once.Do(func() { close(h.lost) }) }

// Unsettled is for how much longer a request of an earlier holder may arrive at its
// target, 0 where none can.
func (h *Hold) Unsettled() time.Duration {
	if h == nil {
		return 0
	}
	return max(time.Until(h.settles), 0)
}

// EpochOf is the epoch under which ctx works, 0 where the store has one process only.
func EpochOf(ctx context.Context) int64 {
	if h := From(ctx); h != nil {
		return h.Epoch
	}
	return 0
}

type key struct{}

// With is ctx for what is done under a lease: it ends when the lease is lost, and Fence
// checks its transactions.
func With(ctx context.Context, h *Hold) (context.Context, context.CancelFunc) {
	return bound(context.WithValue(ctx, key{}, h), nil)
}

// From returns the hold under which ctx works, nil where it works under none.
func From(ctx context.Context) *Hold {
	h, _ := ctx.Value(key{}).(*Hold)
	return h
}

// Bound is ctx that also ends with the lease it works under, even if it was detached from
// its parent's end (context.WithoutCancel). A call to a target is made with it.
func Bound(ctx context.Context) (context.Context, context.CancelFunc) {
	h := From(ctx)
	if h == nil || h.lapsed() {
		return bound(ctx, nil)
	}
	look := time.NewTicker(lookEvery)
	ctx, cancel := bound(ctx, look.C)
	return ctx, func() {
		look.Stop()
		cancel()
	}
}

// bound is Bound, which looks at each look whether the lease has lapsed.
func bound(ctx context.Context, look <-chan time.Time) (context.Context, context.CancelFunc) {
	bound, cancel := context.WithCancelCause(ctx)
	h := From(ctx)
	if h == nil {
		return bound, func() { cancel(nil) }
	}
	select {
	case <-h.lost:
		cancel(ErrLost)
		return bound, func() {}
	default:
	}
	go func() {
		for {
			select {
			case <-look:
				h.lapsed()
			case <-h.lost:
				cancel(ErrLost)
				return
			case <-bound.Done():
				return
			}
		}
	}()
	return bound, func() { cancel(nil) }
}

// Fence returns a store whose Updates under a lease fail with ErrLost, and write nothing,
// once the lease is another's. Updates under none are as before: a notification, an
// approval or a form is every replica's to take.
func Fence(s remediation.Store) remediation.Store { return fenced{s} }

type fenced struct{ remediation.Store }

// Update implements remediation.Store.
func (f fenced) Update(ctx context.Context, fn func(tx remediation.Tx) error) error {
	return lostBy(ctx, f.Store.Update(ctx, behind(ctx, fn)))
}

// UpdateAlerts implements remediation.AlertReader.
func (f fenced) UpdateAlerts(ctx context.Context, fingerprints []string, fn func(tx remediation.Tx) error) error {
	return lostBy(ctx, remediation.UpdateAlerts(ctx, f.Store, fingerprints, behind(ctx, fn)))
}

// behind is fn behind the fence of ctx's lease.
func behind(ctx context.Context, fn func(tx remediation.Tx) error) func(tx remediation.Tx) error {
	h := From(ctx)
	if h == nil {
		return fn
	}
	return func(tx remediation.Tx) error {
		if err := Check(tx, h.Realm, h.Holder, h.Epoch); err != nil {
			return err
		}
		return fn(tx)
	}
}

// lostBy ends the lease of ctx where err says that it is lost.
func lostBy(ctx context.Context, err error) error {
	if h := From(ctx); h != nil && errors.Is(err, ErrLost) {
		h.Lose()
	}
	return err
}

// Outside is ctx for what a holder that lost its lease still has to say: its transactions
// are not fenced.
func Outside(ctx context.Context) context.Context {
	return context.WithValue(context.WithoutCancel(ctx), key{}, (*Hold)(nil))
}
