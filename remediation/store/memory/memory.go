// Package memory is a store that ends with the process: backtests and scenarios run the
// engine on one. It takes a tenth of the time of a database.
//
// A state of the store is never changed once it is committed: an Update works on its own
// copy of the tables that it writes, and a View keeps the state it began with. Rows are
// copied on their way in and out, since callers change what they have.
package memory

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/locotoki/backout/remediation"
	"github.com/locotoki/backout/remediation/audit"
)

var (
	errClosed   = errors.New("the store is closed")
	errReadOnly = errors.New("the transaction is read-only")
	// errOver: a transaction was used after its function had returned.
	errOver = errors.New("the transaction is over")
)

// Store is a remediation.Store in memory.
type Store struct {
	latest  atomic.Pointer[state]
	turn    chan struct{} // held by the Update that runs
	closing chan struct{}
	once    sync.Once
}

var _ remediation.Store = (*Store)(nil)

// New returns an empty store.
func New() *Store {
	s := &Store{turn: make(chan struct{}, 1), closing: make(chan struct{})}
	s.latest.Store(&state{})
	return s
}

// state is all tables at one moment; each is in the order in which its rows were first put.
type state struct {
	incidents  []*remediation.Incident // "inc-N" is at N-1
	alerts     []remediation.AlertState
	log        []logged
	effects    []remediation.Effect
	freezes    []remediation.Freeze
	signals    []remediation.Signal
	rollouts   []remediation.Rollout
	beats      []remediation.Beat
	playbooks  []playbook
	public     []remediation.PublicIncident
	outbox     []remediation.Message
	messages   int64 // the last message's ID
	receipts   []receipt
	preflights []remediation.Preflight
	rehearsals []remediation.Rehearsal
	replicas   []remediation.Replica
	leases     []remediation.Lease
	kept       []kept
	onces      []once
}

// logged is an audit entry: its bytes, and what it is found by.
type logged struct {
	kind              audit.Kind
	service, incident string
	hash              string
	canonical         []byte
}

// playbook, receipt, kept and once are the rows that the domain has no type for.
type playbook struct {
	Hash   string
	Source []byte
}

type receipt struct{ Channel, Key, Value string }

type kept struct {
	Name  string
	Value []byte
}

type once struct {
	Kind, Key string
	Until     time.Time
}

// Update implements remediation.Store. A call whose ctx ends before its turn is dropped.
func (s *Store) Update(ctx context.Context, fn func(remediation.Tx) error) error {
	committed, err := s.update(ctx, fn)
	for _, fn := range committed {
		fn()
	}
	return err
}

func (s *Store) update(ctx context.Context, fn func(remediation.Tx) error) (committed []func(), err error) {
	if err := context.Cause(ctx); err != nil {
		return nil, fmt.Errorf("wait for the store: %w", err)
	}
	select {
	case s.turn <- struct{}{}:
	case <-ctx.Done():
		return nil, fmt.Errorf("wait for the store: %w", context.Cause(ctx))
	case <-s.closing:
		return nil, errClosed
	}
	defer func() { <-s.turn }()
	if s.isClosed() {
		return nil, errClosed
	}
	next := *s.latest.Load()
	t := &tx{state: &next, write: true}
	defer func() { t.over = true }()
	if err := fn(t); err != nil {
		return nil, err
	}
	s.latest.Store(&next)
	return t.committed, nil
}

// View implements remediation.Store.
func (s *Store) View(ctx context.Context, fn func(remediation.Tx) error) error {
	if s.isClosed() {
		return errClosed
	}
	if err := context.Cause(ctx); err != nil {
		return fmt.Errorf("wait for the store: %w", err)
	}
	t := &tx{state: s.latest.Load()}
	defer func() { t.over = true }()
	return fn(t)
}

func (s *Store) isClosed() bool {
	select {
	case <-s.closing:
		return true
	default:
		return false
	}
}

// Close waits for the Update that runs.
func (s *Store) Close() error {
	s.once.Do(func() {
		s.turn <- struct{}{}
		close(s.closing)
		<-s.turn
	})
	return nil
}

// tx is one transaction.
type tx struct {
	*state
	write, over bool
	appended    []audit.Entry
	committed   []func()
}

var _ remediation.Tx = (*tx)(nil)

// OnCommit implements remediation.Tx.
func (t *tx) OnCommit(fn func()) {
	if t.write && !t.over {
		t.committed = append(t.committed, fn)
	}
}

func (t *tx) usable() error {
	if t.over {
		return errOver
	}
	return nil
}

func (t *tx) writable() error {
	if !t.write && !t.over {
		return errReadOnly
	}
	return t.usable()
}

// get returns a copy of the row that is asked for.
func get[T any](t *tx, rows []T, is func(*T) bool) (T, error) {
	var none T
	if err := t.usable(); err != nil {
		return none, err
	}
	for i := range rows {
		if is(&rows[i]) {
			return *copyOf(&rows[i]), nil
		}
	}
	return none, remediation.ErrNotFound
}

// list returns copies of the rows that match, in an order; nil: that of the table.
func list[T any](t *tx, rows []T, matches func(*T) bool, order func(a, b T) int) ([]T, error) {
	out := []T{}
	if err := t.usable(); err != nil {
		return nil, err
	}
	for i := range rows {
		if matches(&rows[i]) {
			out = append(out, *copyOf(&rows[i]))
		}
	}
	if order != nil {
		slices.SortStableFunc(out, order)
	}
	return out, nil
}

func all[T any](*T) bool { return true }

// put replaces a row, or adds one.
func put[T any](t *tx, rows *[]T, is func(*T) bool, v T) error {
	if err := t.writable(); err != nil {
		return err
	}
	*rows = slices.Clone(*rows)
	v = *copyOf(&v)
	for i := range *rows {
		if is(&(*rows)[i]) {
			(*rows)[i] = v
			return nil
		}
	}
	*rows = append(*rows, v)
	return nil
}

// remove deletes the rows that match; none is not an error.
func remove[T any](t *tx, rows *[]T, is func(*T) bool) error {
	if err := t.writable(); err != nil {
		return err
	}
	kept := make([]T, 0, len(*rows))
	for i := range *rows {
		if !is(&(*rows)[i]) {
			kept = append(kept, (*rows)[i])
		}
	}
	*rows = kept
	return nil
}
