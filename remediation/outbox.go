package remediation

import (
	"context"
	"encoding/json"
	"time"
)

// Message is one thing to tell through one channel. It is written with the state
// change that it tells of, and stays in the outbox until it is delivered or can
// never be.
type Message struct {
	// ID counts up; messages of one channel and key are delivered in its order.
	ID      int64  `json:"-"`
	Channel string `json:"channel"`
	Key     string `json:"key"`
	// Service, Incident and Step are what it is about; What says it in a few
	// words, for the audit log.
	Service  string `json:"service"`
	Incident string `json:"incident"`
	Step     string `json:"step,omitempty"`
	What     string `json:"what"`
	// Unrecorded: that it was delivered is not worth an audit entry; that it could
	// not be is.
	Unrecorded bool `json:"unrecorded,omitempty"`
	// Receipt is what the channel last returned for the key; "" where it never did.
	Receipt string `json:"-"`
	// Body is what the channel understands.
	Body    json.RawMessage `json:"body"`
	Created time.Time       `json:"created"`
	// Attempts counts the tries that failed, Error is the last one's, Next when
	// it is tried again.
	Attempts int       `json:"attempts,omitempty"`
	Error    string    `json:"error,omitempty"`
	Next     time.Time `json:"next"`
}

// Channel carries messages to people: a status page, a chat, mail. What it
// returns nil for was delivered. An error wrapped by Undeliverable will not get
// better by trying again, one wrapped by RetryAfter not before its time; any
// other is tried again. A message may come twice (after a crash, say): the
// channel sees to it that it has the effect of once.
type Channel interface {
	// Name is unique, and stays the same across restarts.
	Name() string
	// Deliver returns what it wants to know with the key's next message: where in
	// a chat it is, say. "" keeps what it returned before; what comes with an
	// error is kept too.
	Deliver(ctx context.Context, m Message) (receipt string, err error)
}

// Undeliverable marks an error that retrying does not fix.
func Undeliverable(err error) error { return &UndeliverableError{err} }

// UndeliverableError is what Undeliverable returns.
type UndeliverableError struct{ error }

// Undeliverable tells the error from others, for callers who do not need its type.
func (e *UndeliverableError) Undeliverable() {}

func (e *UndeliverableError) Unwrap() error { return e.error }

// RetryAfter marks an error of a channel that asked to wait.
func RetryAfter(d time.Duration, err error) error { return &RetryAfterError{err, d} }

// RetryAfterError is what RetryAfter returns.
type RetryAfterError struct {
	error
	After time.Duration
}

// RetryAfter is how long the channel wants to be left alone.
func (e *RetryAfterError) RetryAfter() time.Duration { return e.After }

func (e *RetryAfterError) Unwrap() error { return e.error }

// The outcomes of a try to deliver a message; one that is dropped can never be.
const (
	OutcomeDelivered = "delivered"
	OutcomeFailed    = "failed"
	OutcomeDropped   = "dropped"
)
