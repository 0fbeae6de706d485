package notify

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/locotoki/backout/remediation"
	"github.com/locotoki/backout/remediation/audit"
	"github.com/locotoki/backout/remediation/lease"
	"github.com/locotoki/backout/remediation/ledger"
)

const (
	// deliverTimeout bounds one delivery.
	deliverTimeout = time.Minute
	// retryFirst doubles with each attempt, up to retryMost.
	retryFirst = 2 * time.Second
	retryMost  = 5 * time.Minute
	// longestRest bounds what a channel may ask for by RetryAfter.
	longestRest = time.Hour
)

// Outbox delivers messages, each channel independently: a slow or failed channel delays
// no other, and never a step.
type Outbox struct {
	Channels []remediation.Channel
	// Poke wakes the worker of the channel with the same index.
	Poke []chan struct{}

	mu sync.Mutex
	// tried holds what came of messages that could not be recorded, by their ID.
	tried map[int64]tried
}

// tried is a try to deliver a message whose outcome is not in the store yet: it is
// recorded before anything is tried again, so that a full disk repeats no message.
type tried struct {
	receipt string
	failure error
	cutOff  bool
}

func newOutbox(channels []remediation.Channel) (*Outbox, error) {
	o := &Outbox{Channels: channels, tried: map[int64]tried{}}
	seen := map[string]bool{}
	for _, ch := range channels {
		if ch.Name() == "" || seen[ch.Name()] {
			return nil, fmt.Errorf("two channels are named %q, or one is not named at all", ch.Name())
		}
		seen[ch.Name()] = true
		o.Poke = append(o.Poke, make(chan struct{}, 1))
	}
	return o, nil
}

// WakeUp tells the workers that a message may have come.
func (o *Outbox) WakeUp() {
	for _, p := range o.Poke {
		select {
		case p <- struct{}{}:
		default:
		}
	}
}

// restOf is until when a channel wants to be left alone, by every replica.
func restOf(tx remediation.Tx, channel string) (until time.Time, err error) {
	text, err := tx.Kept(restKey(channel))
	if errors.Is(err, remediation.ErrNotFound) {
		return time.Time{}, nil
	}
	if err == nil {
		err = until.UnmarshalText(text)
	}
	return until, err
}

func restKey(channel string) string { return "rest/" + channel }

// letRest keeps it.
func letRest(tx remediation.Tx, channel string, until time.Time) error {
	text, err := until.UTC().MarshalText()
	if err != nil {
		return err
	}
	return tx.PutKept(restKey(channel), text)
}

// DropUnknown drops messages for channels that no longer exist: delivered much later,
// they would be wrong. others are channels that another replica has.
func (e *Notifier) DropUnknown(tx remediation.Tx, others []string) error {
	pending, err := tx.PendingMessages()
	if err != nil {
		return err
	}
	for _, ch := range e.Outbox.Channels {
		delete(pending, ch.Name())
	}
	for _, name := range others {
		delete(pending, name)
	}
	for channel, left := range pending {
		for left > 0 {
			heads, err := tx.FirstMessages(channel)
			if err != nil {
				return err
			}
			for _, m := range heads {
				if err := e.settleMessage(tx, m, remediation.OutcomeDropped, errors.New("the channel is no longer configured")); err != nil {
					return err
				}
			}
			left -= max(len(heads), 1)
		}
	}
	return nil
}

// receiptOf is what a channel last returned for a key, "" where it never did.
func receiptOf(tx remediation.Tx, channel, key string) (string, error) {
	r, err := tx.Receipt(channel, key)
	if errors.Is(err, remediation.ErrNotFound) {
		return "", nil
	}
	return r, err
}

// settleMessage takes a message out of the outbox and records what became of it.
func (e *Notifier) settleMessage(tx remediation.Tx, m remediation.Message, outcome string, failure error) error {
	if err := tx.DeleteMessage(m.ID); err != nil {
		return err
	}
	if m.Unrecorded && failure == nil {
		return nil
	}
	detail := map[string]any{"channel": m.Channel, "what": m.What, "attempts": m.Attempts, "outcome": outcome}
	if failure != nil {
		detail["error"] = failure.Error()
	}
	return e.Append(tx, audit.Entry{Kind: audit.KindNotified, Actor: remediation.ActorEngine, Service: m.Service, Incident: m.Incident, Step: m.Step, Detail: detail})
}

// outboxEvery is the longest a worker waits before it looks again, outboxShared where
// other replicas write messages too: they wake nobody here.
const (
	outboxEvery  = time.Minute
	outboxShared = time.Second
)

// DeliverTo delivers by one channel until ctx ends.
func (e *Notifier) DeliverTo(ctx context.Context, ch remediation.Channel, poke <-chan struct{}) error {
	most := outboxEvery
	if lease.From(ctx) != nil {
		most = outboxShared
	}
	for ctx.Err() == nil {
		next, err := e.deliverDue(ctx, ch)
		wait := most
		switch {
		case err != nil && ctx.Err() == nil:
			e.Log.Error("cannot read or write the outbox; retrying", "channel", ch.Name(), "err", err)
			ledger.Pause(ctx, time.Second)
			continue
		case !next.IsZero():
			wait = min(max(next.Sub(e.Now()), 0), most)
		}
		timer := time.NewTimer(wait)
		select {
		case <-ctx.Done():
		case <-poke:
		case <-timer.C:
		}
		timer.Stop()
	}
	return nil
}

// DeliverEach delivers what is due on every channel, and returns when something
// is due next: of that, and of what was known to be due at next.
func (e *Notifier) DeliverEach(ctx context.Context, next time.Time) (time.Time, error) {
	for _, ch := range e.Outbox.Channels {
		due, err := e.deliverDue(ctx, ch)
		if err != nil {
			return time.Time{}, err
		}
		if !due.IsZero() && (next.IsZero() || due.Before(next)) {
			next = due
		}
	}
	return next, nil
}

// deliverDue delivers what is due on one channel, and returns when something is
// due next (zero: nothing is left). A message that fails holds those behind it of
// the same key, and no others.
func (e *Notifier) deliverDue(ctx context.Context, ch remediation.Channel) (next time.Time, err error) {
	for ctx.Err() == nil {
		var rest time.Time
		var heads []remediation.Message
		err := e.Store.View(ctx, func(tx remediation.Tx) (err error) {
			if rest, err = restOf(tx, ch.Name()); err != nil {
				return err
			}
			heads, err = tx.FirstMessages(ch.Name())
			for i := range heads {
				if err == nil {
					heads[i].Receipt, err = receiptOf(tx, heads[i].Channel, heads[i].Key)
				}
			}
			return err
		})
		if err != nil {
			return time.Time{}, err
		}
		// As below: no rest is longer, so that one was written by a clock that was set since.
		if wait := rest.Sub(e.Now()); wait > 0 && wait <= longestRest {
			if len(heads) == 0 {
				return time.Time{}, nil
			}
			return rest, nil
		}
		next = time.Time{}
		tried := false
		for _, m := range heads {
			// What is further off than any wait was written by a clock that was set since.
			if wait := m.Next.Sub(e.Now()); wait > 0 && wait <= retryMost {
				if next.IsZero() || m.Next.Before(next) {
					next = m.Next
				}
				continue
			}
			tried = true
			rests, err := e.deliver(ctx, ch, m)
			if err != nil {
				return time.Time{}, err
			}
			if rests {
				break
			}
		}
		if !tried {
			return next, nil
		}
	}
	return time.Time{}, ctx.Err()
}

// deliver tries one message once and records what came of it. A try that the
// end of the process cuts off does not count: it is repeated after the start. rests: the
// channel wants to be left alone.
func (e *Notifier) deliver(ctx context.Context, ch remediation.Channel, m remediation.Message) (rests bool, err error) {
	try, again := e.Outbox.lastTry(m.ID)
	if !again {
		bound, unbind := lease.Bound(ctx)
		dctx, cancel := context.WithTimeout(bound, deliverTimeout)
		var receipt string
		failure := e.Safely("channel "+ch.Name(), func() (err error) {
			if bound.Err() != nil { // another replica delivers by it now
				return context.Cause(bound)
			}
			receipt, err = ch.Deliver(dctx, m)
			return err
		})
		try = tried{receipt, failure, failure != nil && bound.Err() != nil}
		cancel()
		unbind()
		e.Outbox.keepTry(m.ID, try)
	}
	err = e.recordTry(ctx, m, try, again)
	if err == nil || try.cutOff || errors.Is(err, lease.ErrLost) { // what is lost is another's to deliver
		e.Outbox.forgetTry(m.ID)
	}
	return errors.As(try.failure, new(*remediation.RetryAfterError)), err
}

func (o *Outbox) lastTry(id int64) (tried, bool) {
	o.mu.Lock()
	defer o.mu.Unlock()
	t, ok := o.tried[id]
	return t, ok
}

func (o *Outbox) keepTry(id int64, t tried) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.tried[id] = t
}

func (o *Outbox) forgetTry(id int64) {
	o.mu.Lock()
	defer o.mu.Unlock()
	delete(o.tried, id)
}

// recordTry records what came of a try; again: it could not be recorded before.
func (e *Notifier) recordTry(ctx context.Context, m remediation.Message, try tried, again bool) error {
	receipt, failure, cutOff := try.receipt, try.failure, try.cutOff
	if cutOff && receipt == "" {
		return ctx.Err()
	}
	var wait *remediation.RetryAfterError
	var never *remediation.UndeliverableError
	result := remediation.OutcomeDelivered
	switch {
	case errors.As(failure, &never):
		result = remediation.OutcomeDropped
		e.Log.Log(ctx, levelOnce(slog.LevelError, again), "message dropped: it cannot be delivered", "channel", m.Channel, "incident", m.Incident, "what", m.What, "err", failure)
	case failure != nil:
		result = remediation.OutcomeFailed
		e.Log.Log(ctx, levelOnce(slog.LevelWarn, again), "message not delivered; retrying", "channel", m.Channel, "incident", m.Incident, "what", m.What,
			"attempt", m.Attempts+1, "err", failure)
	}
	err := e.Store.Update(context.WithoutCancel(ctx), func(tx remediation.Tx) error {
		if receipt != "" {
			if err := tx.PutReceipt(m.Channel, m.Key, receipt); err != nil || cutOff {
				return err
			}
		}
		m, err := tx.Message(m.ID)
		if errors.Is(err, remediation.ErrNotFound) {
			return nil
		}
		if err != nil {
			return err
		}
		if errors.As(failure, &wait) {
			if err := letRest(tx, m.Channel, e.Now().Add(min(max(wait.After, 0), longestRest))); err != nil {
				return err
			}
		}
		m.Attempts++
		if result == remediation.OutcomeFailed {
			m.Error, m.Next = failure.Error(), e.Now().Add(backoff(m.Attempts))
			return tx.PutMessage(&m)
		}
		return e.settleMessage(tx, m, result, failure)
	})
	if err == nil && cutOff {
		err = ctx.Err()
	}
	if err != nil {
		return err
	}
	e.Metrics.Deliveries.WithLabelValues(m.Channel, result).Inc()
	return nil
}

// levelOnce is the level of a log line that may have been written already.
func levelOnce(l slog.Level, again bool) slog.Level {
	if again {
		return slog.LevelDebug
	}
	return l
}

// backoff is how long to wait after a number of failed attempts: twice as long
// each time, less a random part, so that not all come back together.
func backoff(attempts int) time.Duration {
	d := retryMost
	if shift := attempts - 1; shift < 8 {
		d = min(retryFirst<<shift, retryMost)
	}
	return d/2 + rand.N(d/2)
}
