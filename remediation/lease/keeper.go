package lease

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/locotoki/backout/remediation"
)

const (
	// beats is how often in its length a lease is renewed, at least; beatEvery bounds the
	// time between, and so how late it is noticed that another's has lapsed.
	beats     = 3
	beatEvery = 1500 * time.Millisecond
	// margin is the part of its length before whose end a holder gives a lease up that it
	// could not renew.
	margin = 5
	// remembered is for how long the row of a replica that is gone stays: until then what
	// only it knew, such as a channel, is not taken for abolished.
	remembered = time.Hour
)

// Keeper takes and renews the leases of one replica, and has it act in the realms that it
// holds.
type Keeper struct {
	Store remediation.Store
	// Length is that of a lease: another replica takes over so long after its holder's last
	// renewal.
	Length time.Duration
	// Boot is a clock that nobody sets and that goes on while the machine is suspended, such
	// as BootTime.
	Boot func() time.Duration
	// ID and Name are the replica's.
	ID, Name string
	// Self is the replica's row as it is now, but for Seen and Until.
	Self func() remediation.Replica
	// Realms are those in which the replica can act, in the order in which they are taken.
	Realms func() []string
	// Unfit says why others had better act, and which; "" where nothing speaks for that. It
	// is asked in the transaction that renews the leases. A realm in which none of them can
	// act is kept.
	Unfit func(me remediation.Replica, others []remediation.Replica) (why string, fit []remediation.Replica)
	// Act acts in a realm until ctx ends, and has then brought to its end what it began. It
	// is called again where a realm is not left to another after all, also while an earlier
	// call still brings something to its end.
	Act func(ctx context.Context, realm string)
	// Changed, where set, writes with a lease that changes hands.
	Changed func(tx remediation.Tx, l, was remediation.Lease, why string) error
	Log     *slog.Logger

	mu   sync.Mutex
	held map[string]*holding
}

// holding is a realm in which this replica acts, or ceases to.
type holding struct {
	*Hold
	timer *time.Timer
	// acts is how many calls of Act have not returned; ended is closed once none is left.
	acts  int
	ended chan struct{}
	// quit has Act begin nothing more, and return. left: it was called, since another is to
	// act here.
	quit context.CancelFunc
	left bool
}

func (h *holding) winding() bool {
	select {
	case <-h.lost:
		return true
	default:
		return false
	}
}

// Run keeps the leases until ctx ends; then each realm's work is ended, and its lease
// given up, so that another replica need not wait for it to lapse.
func (k *Keeper) Run(ctx context.Context) error {
	k.mu.Lock()
	k.held = map[string]*holding{}
	k.mu.Unlock()
	ticker := time.NewTicker(k.every())
	defer ticker.Stop()
	for {
		if err := k.beat(ctx); err != nil && ctx.Err() == nil {
			k.Log.Warn("cannot renew the leases; retrying", "err", err)
		}
		select {
		case <-ctx.Done():
			return k.stop(ctx)
		case <-ticker.C:
		}
	}
}

func (k *Keeper) every() time.Duration { return min(k.Length/beats, beatEvery) }

// Holds returns the realms in which this replica acts now, without those that it hands
// over.
func (k *Keeper) Holds() []string {
	k.mu.Lock()
	defer k.mu.Unlock()
	var out []string
	for realm, h := range k.held {
		if !h.left && !h.winding() {
			out = append(out, realm)
		}
	}
	slices.Sort(out)
	return out
}

// epochs returns the epochs under which this replica holds realms, and forgets what is
// over. A realm whose work is being ended is neither renewed nor taken: another may have
// it sooner. One that was left to another is ready for it once nothing runs there: each
// step has a limit of its own, and needs no Prometheus to reach its outcome.
func (k *Keeper) epochs() (held map[string]int64, ending, ready map[string]bool) {
	k.mu.Lock()
	defer k.mu.Unlock()
	held, ending, ready = map[string]int64{}, map[string]bool{}, map[string]bool{}
	for realm, h := range k.held {
		switch {
		case h.winding() && h.acts == 0:
			h.timer.Stop()
			delete(k.held, realm)
		case h.winding():
			ending[realm] = true
		default:
			held[realm], ready[realm] = h.Epoch, h.left && h.acts == 0
		}
	}
	return held, ending, ready
}

// leave has the work in those realms end that another replica is to act in, and begins it
// again in those that are not left after all: the other one is gone, or no better.
func (k *Keeper) leave(ctx context.Context, others map[string]bool) {
	k.mu.Lock()
	defer k.mu.Unlock()
	for realm, h := range k.held {
		switch {
		case h.winding() || h.left == others[realm]:
		case h.left:
			k.act(ctx, h)
		default:
			h.left = true
			h.quit()
		}
	}
}

// act begins to act in a realm that is held.
func (k *Keeper) act(ctx context.Context, h *holding) {
	under, end := With(ctx, h.Hold)
	h.quit, h.left = end, false
	if h.acts++; h.acts == 1 {
		h.ended = make(chan struct{})
	}
	go func() {
		defer end()
		k.Act(under, h.Realm)
		k.mu.Lock()
		defer k.mu.Unlock()
		if h.acts--; h.acts > 0 {
			return
		}
		close(h.ended)
		if !h.left {
			h.Lose()
		}
	}()
}

// beat writes the replica's row, and takes or renews what it can act in.
func (k *Keeper) beat(ctx context.Context) error {
	held, ending, ready := k.epochs()
	var got map[string]remediation.Lease
	var waits map[string]time.Duration
	var others map[string]bool
	before, boot := time.Now(), k.Boot() // the lease is counted from before the store's clock was read
	bounded, cancel := context.WithTimeout(ctx, k.Length)
	defer cancel()
	err := k.Store.Update(bounded, func(tx remediation.Tx) error {
		got, waits, others = map[string]remediation.Lease{}, map[string]time.Duration{}, map[string]bool{}
		now, err := tx.Now()
		if err != nil {
			return err
		}
		all, err := tx.Replicas()
		if err != nil {
			return err
		}
		me := k.Self()
		me.ID, me.Name, me.Seen, me.Until, me.Lease = k.ID, k.Name, now, now.Add(k.Length), k.Length
		lengths := map[string]time.Duration{}
		for _, o := range all {
			lengths[o.ID] = o.Lease
			if o.ID == k.ID {
				me.Started = o.Started
			} else if now.Sub(o.Until) > remembered {
				if err := tx.DeleteReplica(o.ID); err != nil {
					return err
				}
			}
		}
		if me.Started.IsZero() {
			me.Started = now
		}
		if err := tx.PutReplica(me); err != nil {
			return err
		}
		all = slices.DeleteFunc(all, func(o remediation.Replica) bool { return o.ID == k.ID || !o.Live(now) })
		why, fit := k.unfit(me, all)
		for _, realm := range k.Realms() {
			if ending[realm] {
				continue
			}
			if slices.ContainsFunc(fit, func(o remediation.Replica) bool { return slices.Contains(o.Realms, realm) }) {
				others[realm] = true
				if held[realm] == 0 {
					continue
				}
				if ready[realm] {
					if err := k.giveUp(tx, realm, held[realm], why); err != nil {
						return err
					}
					continue
				}
			}
			l, was, err := Take(tx, realm, k.ID, held[realm], k.Length)
			if errors.Is(err, ErrLost) {
				continue
			}
			if err != nil {
				return fmt.Errorf("take realm %q: %w", realm, err)
			}
			got[realm] = l
			if l.Epoch == was.Epoch {
				continue
			}
			// What the holder before sent arrives within the length of its lease, not ours.
			if wait := max(k.Length, lengths[was.Holder]); was.Epoch > 0 && was.Until.Add(wait).After(now) {
				waits[realm] = wait
			}
			if err := k.changed(tx, l, was, ""); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return err
	}
	k.settle(ctx, before, boot, got, waits)
	k.leave(ctx, others)
	return nil
}

func (k *Keeper) unfit(me remediation.Replica, others []remediation.Replica) (why string, fit []remediation.Replica) {
	if k.Unfit == nil || len(others) == 0 {
		return "", nil
	}
	return k.Unfit(me, others)
}

func (k *Keeper) changed(tx remediation.Tx, l, was remediation.Lease, why string) error {
	if k.Changed == nil {
		return nil
	}
	return k.Changed(tx, l, was, why)
}

// giveUp ends a lease before its time. Its work ends after that: until then another waits,
// as after a lease that lapsed.
func (k *Keeper) giveUp(tx remediation.Tx, realm string, epoch int64, why string) error {
	was, err := tx.Lease(realm)
	if err != nil {
		return err
	}
	if err := Release(tx, realm, k.ID, epoch); err != nil {
		if errors.Is(err, ErrLost) {
			return nil
		}
		return err
	}
	return k.changed(tx, remediation.Lease{Realm: realm, Epoch: epoch}, was, why)
}

// settle begins to act where a lease was taken, and ends it where one was not renewed.
// waits are for how long requests of an earlier holder may still arrive.
func (k *Keeper) settle(ctx context.Context, before time.Time, boot time.Duration, got map[string]remediation.Lease, waits map[string]time.Duration) {
	k.mu.Lock()
	defer k.mu.Unlock()
	left, until := time.Until(before.Add(k.Length-k.Length/margin)), boot+k.Length-k.Length/margin
	for realm, h := range k.held {
		switch l, ok := got[realm]; {
		case ok && l.Epoch == h.Epoch:
			h.until.Store(int64(until))
			h.timer.Reset(left)
		default:
			h.Lose()
		}
	}
	for realm, l := range got {
		if k.held[realm] != nil {
			continue // renewed, or lost and being ended
		}
		h := &holding{Hold: NewHold(l, k.Name, waits[realm])}
		h.boot = k.Boot
		h.until.Store(int64(until))
		h.timer = time.AfterFunc(left, h.Lose)
		k.held[realm] = h
		k.act(ctx, h)
	}
}

// stop waits for the work to end while it renews the leases of what goes on, and gives
// each up.
func (k *Keeper) stop(ctx context.Context) error {
	ctx = context.WithoutCancel(ctx)
	var failed error
	ticker := time.NewTicker(k.every())
	defer ticker.Stop()
	for {
		k.mu.Lock()
		all := maps.Clone(k.held)
		k.mu.Unlock()
		if len(all) == 0 {
			break
		}
		for realm, h := range all {
			select {
			case <-h.ended:
			case <-ticker.C:
				if err := k.renew(ctx, all); err != nil {
					k.Log.Warn("cannot renew the leases; retrying", "err", err)
				}
				continue
			}
			h.timer.Stop()
			k.mu.Lock()
			delete(k.held, realm)
			k.mu.Unlock()
			bounded, cancel := context.WithTimeout(ctx, k.Length)
			err := k.Store.Update(bounded, func(tx remediation.Tx) error { return k.giveUp(tx, realm, h.Epoch, "it stops") })
			cancel()
			if err != nil { // the lease runs out by itself, and the others' work goes on meanwhile
				failed = errors.Join(failed, fmt.Errorf("give realm %q up: %w", realm, err))
			}
		}
	}
	return errors.Join(failed, k.gone(ctx))
}

// renew keeps what is still worked on.
func (k *Keeper) renew(ctx context.Context, all map[string]*holding) error {
	before, boot := time.Now(), k.Boot()
	bounded, cancel := context.WithTimeout(ctx, k.Length)
	defer cancel()
	var renewed []*holding
	err := k.Store.Update(bounded, func(tx remediation.Tx) error {
		renewed = nil
		for realm, h := range all {
			if h.winding() {
				continue
			}
			if err := Check(tx, realm, k.ID, h.Epoch); errors.Is(err, ErrLost) {
				continue
			} else if err != nil {
				return err
			}
			if _, _, err := Take(tx, realm, k.ID, h.Epoch, k.Length); err != nil {
				return err
			}
			renewed = append(renewed, h)
		}
		return nil
	})
	for _, h := range renewed {
		h.until.Store(int64(boot + k.Length - k.Length/margin))
		h.timer.Reset(time.Until(before.Add(k.Length - k.Length/margin)))
	}
	return err
}

// gone says that this replica is gone; its row stays for a while, for what it knew.
func (k *Keeper) gone(ctx context.Context) error {
	return k.Store.Update(ctx, func(tx remediation.Tx) error {
		now, err := tx.Now()
		if err != nil {
			return err
		}
		all, err := tx.Replicas()
		if err != nil {
			return err
		}
		for _, r := range all {
			if r.ID == k.ID {
				r.Seen, r.Until = now, now
				return tx.PutReplica(r)
			}
		}
		return nil
	})
}
