package store

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	"github.com/locotoki/backout/remediation"
)

// call is one Update on its way. The writer hands it the transaction, and fn
// runs in the goroutine of who called Update: a panic or a Goexit of fn stays
// there.
type call struct {
	ctx    context.Context
	reads  []string    // fingerprints of alerts
	taken  atomic.Bool // by the writer, or by its caller to drop it
	turn   chan *tx    // nil: there is no transaction, answer says why
	ran    chan error  // what fn returned
	answer chan error  // what became of it
}

// errAbandoned: fn panicked or ended its goroutine.
var errAbandoned = errors.New("the transaction was abandoned by a panic")

// Update implements remediation.Store. A call whose ctx ends before its turn is
// dropped, with ctx's error; from then on ctx is not looked at, and the answer
// tells what became of the transaction. fn must not call Update.
//
// After a commit that failed (a full disk, say) all Updates that shared it get
// the error, and the next one begins afresh.
func (s *Store) Update(ctx context.Context, fn func(remediation.Tx) error) error {
	return s.UpdateAlerts(ctx, nil, fn)
}

// UpdateAlerts implements remediation.AlertReader.
func (s *Store) UpdateAlerts(ctx context.Context, reads []string, fn func(remediation.Tx) error) error {
	if s.readOnly {
		return fmt.Errorf("update %s: %w", s.db, ErrReadOnly)
	}
	c := &call{ctx: ctx, reads: reads, turn: make(chan *tx, 1), ran: make(chan error, 1), answer: make(chan error, 1)}
	select {
	case <-s.closing:
		return ErrClosed
	default:
	}
	select {
	case s.queue <- c:
	case <-ctx.Done():
		return fmt.Errorf("wait for the store: %w", context.Cause(ctx))
	case <-s.closing:
		return ErrClosed
	}
	var t *tx
	select {
	case t = <-c.turn:
	case <-ctx.Done():
		if c.taken.CompareAndSwap(false, true) {
			return fmt.Errorf("wait for the store: %w", context.Cause(ctx))
		}
		t = <-c.turn
	case <-s.stopped:
		if c.taken.CompareAndSwap(false, true) {
			return ErrClosed
		}
		t = <-c.turn
	}
	if t != nil {
		c.run(t, fn)
	}
	err := <-c.answer
	if err != nil || t == nil {
		return err
	}
	for _, fn := range t.committed {
		fn()
	}
	return nil
}

// run runs fn and tells the writer how it ended, in whichever way it did.
func (c *call) run(t *tx, fn func(remediation.Tx) error) {
	err := errAbandoned
	defer func() {
		t.over = true
		c.ran <- err
	}()
	err = fn(t)
}

// writer commits until the store is closed.
func (s *Store) writer() {
	defer close(s.stopped)
	for {
		select {
		case <-s.closing:
			return
		case c := <-s.queue:
			s.group(c)
		}
	}
}

// group runs the calls that wait, and commits them together.
func (s *Store) group(c *call) {
	b := batch{s: s, end: time.Now().Add(s.maxWait)}
	defer func() { s.shared = len(b.calls) }()
	for calls := b.gather(c); len(calls) > 0; calls = b.waiting() {
		err := b.begin()
		if err == nil {
			calls = b.waiting(calls...) // what came while the lock was waited for
			err = b.readAhead(calls)
		}
		for _, c := range calls {
			if !c.taken.CompareAndSwap(false, true) {
				continue
			}
			if err != nil {
				c.refuse(err)
				continue
			}
			b.take(c)
		}
	}
	b.commit()
}

// point is a moment in the life of a batch.
type point string

const (
	pointBegun     point = "begun"     // nothing is written yet
	pointRan       point = "ran"       // one more call has run
	pointCommit    point = "commit"    // all have
	pointCommitted point = "committed" // it is durable, and nobody was told
	pointAnswered  point = "answered"
)

func (s *Store) pass(p point) {
	if s.at != nil {
		s.at(p)
	}
}

// batch is one group commit.
type batch struct {
	s     *Store
	end   time.Time
	begun bool
	head  head    // of the audit log, as the calls so far left it
	calls []*call // those that succeeded so far
	// totals are the alert counts that they changed.
	totals totals
	// ahead are alerts that were read before their calls ran; nil: there is none.
	ahead map[string]*remediation.AlertState
}

// waiting adds the calls that wait, while the batch has room.
func (b *batch) waiting(calls ...*call) []*call {
	for len(b.calls)+len(calls) < maxCalls && (len(calls) > 0 || !time.Now().After(b.end)) {
		select {
		case c := <-b.s.queue:
			calls = append(calls, c)
			continue
		default:
		}
		break
	}
	return calls
}

// gather is waiting for the first calls of a batch: those that the last commit answered come
// again in a moment, and one commit then serves them all.
func (b *batch) gather(c *call) []*call {
	linger := time.NewTimer(max(b.s.linger, b.s.w.dialect().linger))
	defer linger.Stop()
	calls := b.waiting(c)
	for len(calls) < b.s.shared {
		select {
		case c := <-b.s.queue:
			calls = append(calls, c)
		case <-linger.C:
			return calls
		}
	}
	return calls
}

// readAhead reads the alerts that calls will ask for in one round trip. What was read
// and not put since is still so: no other writer is at work.
func (b *batch) readAhead(calls []*call) error {
	words := b.s.w.dialect()
	if words.anyOf == "" {
		return nil
	}
	var reads []string
	for _, c := range calls {
		reads = append(reads, c.reads...)
	}
	if len(reads) < 2 {
		return nil
	}
	found := map[string]*remediation.AlertState{}
	t := &tx{ctx: context.Background(), c: b.s.w}
	err := t.rows("SELECT fingerprint, incident, service, trigger, active, last_seen FROM alerts WHERE "+words.anyOf, []any{reads}, func(r row) error {
		var a remediation.AlertState
		var seen sql.NullInt64
		err := r.scan(&a.Fingerprint, &a.Incident, &a.Service, &a.Trigger, &a.Active, &seen)
		a.LastSeen = moment(seen)
		found[a.Fingerprint] = &a
		return err
	})
	if err != nil {
		err = fmt.Errorf("read %d alerts: %w", len(reads), err)
		b.undo(err)
		return err
	}
	b.ahead = map[string]*remediation.AlertState{}
	for _, fp := range reads {
		b.ahead[fp] = found[fp]
	}
	return nil
}

// refuse answers a call that gets no transaction.
func (c *call) refuse(err error) {
	c.answer <- err
	c.turn <- nil
}

// take runs one call.
func (b *batch) take(c *call) {
	if err := c.ctx.Err(); err != nil {
		c.refuse(fmt.Errorf("wait for the store: %w", context.Cause(c.ctx)))
		return
	}
	if err := b.begin(); err != nil {
		c.refuse(err)
		return
	}
	// The first call has nothing before it to spare: all is rolled back where
	// it fails. Later ones get a savepoint with their first write.
	head := b.head
	t := &tx{
		ctx: context.Background(), c: b.s.w, write: true, head: &b.head, batchTotals: b.totals, ahead: b.ahead, alone: len(b.calls) == 0,
	}
	c.turn <- t
	err := <-c.ran
	b.s.pass(pointRan)
	if err == nil && t.fault == nil {
		if err = t.keep(); err == nil {
			b.calls = append(b.calls, c)
			for incident, n := range t.totals {
				b.totals.add(incident, n)
			}
			return
		}
		t.fault = err
	}
	b.head = head
	switch {
	case t.fault != nil:
		// A statement failed, whatever fn made of it. SQLite may have rolled all
		// of the transaction back (it may where the disk is full), and what came
		// next would begin another; PostgreSQL does nothing more in it. The batch
		// ends here.
		if err == nil {
			err = t.fault
		}
		b.undo(err)
	case t.alone && t.wrote:
		b.undo(err)
	default:
		if rerr := t.discard(); rerr != nil {
			b.undo(rerr)
		}
	}
	c.answer <- err
}

// begin begins the transaction, where that was not done yet.
func (b *batch) begin() error {
	if b.begun {
		return nil
	}
	h, err := b.s.begin()
	if err != nil {
		return fmt.Errorf("begin transaction: %w", err)
	}
	b.begun, b.head = true, h
	b.s.pass(pointBegun)
	return nil
}

// begin is where every transaction that writes starts. Behind the conn's begin no
// other writer is at work.
func (s *Store) begin() (head, error) {
	h, err := s.w.begin()
	if err == nil || errors.Is(err, ErrTakenOver) {
		return h, err
	}
	// The connection was lost, or is in a state that it should not be in.
	ctx := context.Background()
	cerr := s.w.close()
	w, rerr := s.db.connect(ctx, toWrite)
	if rerr != nil {
		return head{}, errors.Join(err, cerr, rerr)
	}
	s.w = w
	return w.begin()
}

// undo rolls the whole batch back; the calls that had succeeded get cause.
func (b *batch) undo(cause error) {
	// It fails where SQLite has rolled back already. If it failed otherwise, the
	// next BEGIN will.
	_ = b.s.w.rollback()
	b.begun = false
	for _, c := range b.calls {
		c.answer <- fmt.Errorf("the commit shared with others failed: %w", cause)
	}
	b.calls, b.totals, b.ahead = nil, nil, nil
}

// commit makes the calls durable and tells them.
func (b *batch) commit() {
	if !b.begun {
		return
	}
	if len(b.calls) == 0 {
		b.undo(nil)
		return
	}
	b.s.pass(pointCommit)
	err := b.totals.write(b.s.w)
	if err == nil {
		err = b.s.w.commit(b.head)
	}
	if err != nil {
		b.undo(fmt.Errorf("commit: %w", err))
		return
	}
	b.s.pass(pointCommitted)
	for _, c := range b.calls {
		c.answer <- nil
	}
	b.s.pass(pointAnswered)
}
