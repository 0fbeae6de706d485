package store

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"errors"
	"fmt"
	"io"
	"net"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/locotoki/backout/remediation"
)

const (
	// answerTimeout bounds how long an answer of the server is waited for; a reader waits
	// so long for each row.
	answerTimeout = 15 * time.Second
	// maxQueued and maxQueuedBytes bound what is sent together.
	maxQueued      = 256
	maxQueuedBytes = 4 << 20
)

// pgConn is one connection. Statements that answer no rows wait for the next one that
// does, or for the commit, and are sent together with it: a small transaction then
// takes a round trip for each read, one to begin and one to commit.
type pgConn struct {
	db *postgres
	c  *pgx.Conn
	// unlimited: an answer may take as long as it does.
	unlimited bool
	// reads: nothing is written, and each row of an answer may take answerTimeout. silence
	// ends what waits for the next one.
	reads   bool
	silence *time.Timer
	queries map[string]pgStatement
	// read is what this transaction has read; nil where it only reads.
	read  cache
	ahead []cached // what the next begin asks
	head  head     // as begin found it
	queue []queued
	bytes int // in the queue, about
	// mark is where in the queue the savepoint is; -1: it was sent, or there is none.
	mark int
	risk string // as Store.Risk has it
}

type queued struct {
	query  string
	args   []any
	tables []string
}

var _ conn = (*pgConn)(nil)

// limited bounds one exchange with the server: nothing else would end it where the
// network takes everything and answers nothing, or the server's host is gone.
func (c *pgConn) limited(ctx context.Context) (context.Context, context.CancelFunc) {
	switch {
	case c.unlimited:
		return ctx, func() {}
	case !c.reads:
		return context.WithTimeoutCause(ctx, c.db.patience, errUnanswered)
	}
	ctx, cancel := context.WithCancelCause(ctx)
	c.silence = time.AfterFunc(c.db.patience, func() { cancel(errUnanswered) })
	return ctx, func() {
		c.silence.Stop()
		cancel(nil)
	}
}

// errUnanswered: what limited bounds took longer.
var errUnanswered = errors.New("the server took too long to answer")

// away marks err, of an exchange that ctx bounded, where the server did not answer it or
// answers no longer on this connection.
func (c *pgConn) away(ctx context.Context, err error) error {
	if err != nil && errors.Is(context.Cause(ctx), errUnanswered) {
		err = fmt.Errorf("%w: %w", errUnanswered, err) // it may be the server's own, which was asked to end it
	}
	if err != nil && c.c.IsClosed() || transient(err) {
		return remediation.StoreAway(err)
	}
	return err
}

// transient reports whether err may be over in a moment: the network's, a limit of ours, or
// a server that starts, stops or has no room for one more. A wrong password or a missing
// database needs a person. Codes: PostgreSQL's appendix A.
func transient(err error) bool {
	var answer *pgconn.PgError
	switch {
	case errors.Is(err, errUnanswered):
		return true
	case errors.As(err, &answer):
		return slices.ContainsFunc([]string{"08", "53", "57P"}, func(class string) bool { return strings.HasPrefix(answer.Code, class) })
	}
	return errors.As(err, new(net.Error)) || errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF)
}

// waited reports whether the server ended a statement after the limits that dial sets.
func waited(err error) bool {
	var answer *pgconn.PgError
	return errors.As(err, &answer) && (answer.Code == lockTimeout || answer.Code == statementTimeout)
}

const (
	lockTimeout      = "55P03"
	statementTimeout = "57014"
)

// lockHead is where every transaction that writes starts: the one that has this row's lock
// is the one writer.
const lockHead = "SELECT seq, hash, incident, message FROM audit_head FOR UPDATE"

// begin locks the head, and checks behind the lock that the lease is still ours.
func (c *pgConn) begin() (head, error) {
	c.unlimited = false
	ctx, cancel := c.limited(context.Background())
	defer cancel()
	var h head
	held := true
	b := &pgx.Batch{}
	b.Queue("BEGIN ISOLATION LEVEL READ COMMITTED")
	b.Queue(lockHead).QueryRow(func(r pgx.Row) error { return r.Scan(&h.seq, &h.hash, &h.incident, &h.message) })
	lease := c.db.lease
	if lease != nil {
		b.Queue(leaseHeld, lease.realm, lease.holder, lease.epoch.Load()).QueryRow(func(r pgx.Row) error { return r.Scan(&held) })
	}
	read := cache{}
	for _, q := range c.ahead {
		b.Queue(q.text, q.values...).Query(func(answer pgx.Rows) error {
			err := eachRow(answer, func(r row) error {
				if len(q.rows) <= maxCached {
					q.rows = append(q.rows, r)
				}
				return nil
			})
			if len(q.rows) <= maxCached {
				read[key(q.text, q.values)] = q
			}
			return err
		})
	}
	c.ahead = nil
	err := c.c.SendBatch(ctx, b).Close()
	if err == nil && !held {
		err = lease.takeBehindLock(ctx, c.c)
	}
	if waited(err) {
		err = fmt.Errorf("%w: %w", errUnanswered, err)
	}
	if err != nil {
		return head{}, errors.Join(c.away(ctx, err), c.rollback())
	}
	c.head, c.read = h, read
	return h, nil
}

func (c *pgConn) beginReading() error {
	ctx, cancel := c.limited(context.Background())
	defer cancel()
	_, err := c.c.Exec(ctx, "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY")
	return c.away(ctx, err)
}

func (c *pgConn) exec(ctx context.Context, query string, args ...any) error {
	values, err := pgValues(args)
	if err != nil {
		return err
	}
	s := c.statement(query)
	c.read.written(s.tables)
	c.queue = append(c.queue, queued{s.text, values, s.tables})
	for _, v := range values {
		switch v := v.(type) {
		case string:
			c.bytes += len(v)
		case []byte:
			c.bytes += len(v)
		}
	}
	if len(c.queue) < maxQueued && c.bytes < maxQueuedBytes {
		return nil
	}
	return c.send(ctx, nil)
}

func (c *pgConn) query(ctx context.Context, query string, args []any, each func(row) error) error {
	values, err := pgValues(args)
	if err != nil {
		return err
	}
	s := c.statement(query)
	asked := ""
	if c.read != nil && len(s.tables) > 0 {
		asked = key(s.text, values)
		if known, ok := c.read[asked]; ok {
			known.shared = true
			c.read[asked] = known
			for _, r := range known.rows {
				if err := each(r); err != nil {
					return err
				}
			}
			return nil
		}
	}
	rows, all := []row(nil), 0
	err = c.send(ctx, func(b *pgx.Batch) {
		b.Queue(s.text, values...).Query(func(answer pgx.Rows) error {
			return eachRow(answer, func(r row) error {
				if all++; asked != "" && all <= maxCached {
					rows = append(rows, r)
				}
				if c.reads { // what each does is not the server's time
					c.silence.Stop()
					defer c.silence.Reset(c.db.patience)
				}
				return each(r)
			})
		})
	})
	if err == nil && asked != "" && all <= maxCached {
		c.read[asked] = cached{pgStatement: s, values: values, rows: rows}
	}
	return err
}

// send sends what is queued, and what more adds to it, in one round trip.
func (c *pgConn) send(ctx context.Context, more func(*pgx.Batch)) error {
	ctx, cancel := c.limited(ctx)
	defer cancel()
	b := &pgx.Batch{}
	queue, err := merged(c.queue, func(query string) ([]string, error) { return c.types(ctx, query) })
	if err != nil {
		return c.away(ctx, err)
	}
	for _, q := range queue {
		b.Queue(q.query, q.args...)
	}
	if more != nil {
		more(b)
	}
	c.forget()
	err = c.c.SendBatch(ctx, b).Close()
	if c.reads {
		return c.away(ctx, err)
	}
	return err // of what was written may have been committed
}

// types are those of a statement's placeholders, which the server is asked for once.
func (c *pgConn) types(ctx context.Context, query string) ([]string, error) {
	prepared, err := c.c.Prepare(ctx, query, query)
	if err != nil {
		return nil, err
	}
	names := make([]string, len(prepared.ParamOIDs))
	for i, oid := range prepared.ParamOIDs {
		known, ok := c.c.TypeMap().TypeForOID(oid)
		if !ok {
			return nil, fmt.Errorf("placeholder %d has the unknown type %d", i+1, oid)
		}
		names[i] = known.Name
	}
	return names, nil
}

// forget empties the queue.
func (c *pgConn) forget() {
	clear(c.queue)
	c.queue, c.bytes, c.mark = c.queue[:0], 0, -1
}

func (c *pgConn) savepoint() error {
	c.mark = len(c.queue)
	c.queue = append(c.queue, queued{query: "SAVEPOINT part"})
	return nil
}

func (c *pgConn) keep() error {
	if c.mark < 0 {
		c.queue = append(c.queue, queued{query: "RELEASE part"})
		return nil
	}
	c.queue = append(c.queue[:c.mark], c.queue[c.mark+1:]...)
	c.mark = -1
	return nil
}

func (c *pgConn) discard() error {
	clear(c.read)
	if c.mark < 0 {
		c.queue = append(c.queue, queued{query: "ROLLBACK TO part"}, queued{query: "RELEASE part"})
		return nil
	}
	c.queue, c.mark = c.queue[:c.mark], -1
	return nil
}

// commit sends what is queued, the new head and the commit together.
func (c *pgConn) commit(h head) error {
	c.ahead = c.read.shared()
	if h != c.head {
		c.queue = append(c.queue, queued{query: "UPDATE audit_head SET seq = $1, hash = $2, incident = $3, message = $4", args: []any{h.seq, h.hash, h.incident, h.message}})
	}
	return c.send(context.Background(), func(b *pgx.Batch) {
		b.Queue("COMMIT").Exec(func(done pgconn.CommandTag) error {
			if done.String() != "COMMIT" { // so it answers where a statement before had failed
				return fmt.Errorf("the server answered COMMIT with %s", done)
			}
			return nil
		})
	})
}

// rollback leaves a connection that cannot be used further where the server does not
// answer.
func (c *pgConn) rollback() error {
	clear(c.read)
	c.forget()
	if c.c.IsClosed() {
		return nil
	}
	ctx, cancel := context.WithTimeout(context.Background(), c.db.patience)
	defer cancel()
	_, err := c.c.Exec(ctx, "ROLLBACK")
	return err
}

func (c *pgConn) lastHead() (h head, err error) {
	ctx, cancel := c.limited(context.Background())
	defer cancel()
	err = c.c.QueryRow(ctx, "SELECT seq, hash, incident, message FROM audit_head").Scan(&h.seq, &h.hash, &h.incident, &h.message)
	return h, err
}

// copying lifts the limits of time for this transaction.
func (c *pgConn) copying() error {
	c.unlimited = true
	return c.exec(context.Background(), "SELECT set_config('statement_timeout', '0', true), set_config('idle_in_transaction_session_timeout', '0', true)")
}

// copied lets the numbers that PostgreSQL gives continue after those that were copied.
func (c *pgConn) copied(head) error {
	for _, table := range []string{"alerts", "effects", "public_incidents"} {
		err := c.exec(context.Background(), "SELECT setval(pg_get_serial_sequence('"+table+"', 'n'), max(n)) FROM "+table+" HAVING max(n) IS NOT NULL")
		if err != nil {
			return err
		}
	}
	return nil
}

func (c *pgConn) dialect() dialect {
	return dialect{
		clock:     "SELECT (extract(epoch FROM clock_timestamp()) * 1000000)::bigint",
		contains:  `strpos(lower(entry), lower(?::text COLLATE "C")) > 0`,
		ofService: "left(service, 200) = left(?, 200) AND service = ?",
		anyOf:     "fingerprint = ANY(?)",
		linger:    time.Millisecond,
	}
}

func (c *pgConn) close() error {
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	_ = c.c.Close(ctx) // what was not committed is not to be
	return nil
}

// statement prepares a query's text once.
func (c *pgConn) statement(query string) pgStatement {
	s, ok := c.queries[query]
	if !ok {
		s = newStatement(query)
		c.queries[query] = s
	}
	return s
}

// numbered writes $1, $2 for the placeholders ?, and $1 for ?1.
func numbered(query string) string {
	var b strings.Builder
	n := 0
	before, rest, found := strings.Cut(query, "?")
	for ; found; before, rest, found = strings.Cut(rest, "?") {
		b.WriteString(before + "$")
		if rest == "" || rest[0] < '0' || rest[0] > '9' {
			n++
			b.WriteString(strconv.Itoa(n))
		}
	}
	b.WriteString(before)
	return b.String()
}

// pgValues gives values the types that pgx takes for the columns.
func pgValues(args []any) ([]any, error) {
	out := make([]any, len(args))
	for i, a := range args {
		switch v := a.(type) {
		case nil, int64:
			out[i] = v
		case int:
			out[i] = int64(v)
		case bool:
			out[i] = int64(0)
			if v {
				out[i] = int64(1)
			}
		case string:
			out[i] = string(escape(v))
		case []byte:
			out[i] = v
		case []string:
			all := make([]string, len(v))
			for j, s := range v {
				all[j] = string(escape(s))
			}
			out[i] = all
		case sql.NullInt64:
			if v.Valid {
				out[i] = v.Int64
			}
		default:
			return nil, fmt.Errorf("argument %d is a %T", i+1, a)
		}
	}
	return out, nil
}

func eachRow(rows pgx.Rows, each func(row) error) error {
	for rows.Next() {
		values, err := rows.Values()
		if err != nil {
			return err
		}
		r := make(row, len(values))
		for i, v := range values {
			r[i] = goValue(v)
		}
		if err := each(r); err != nil {
			return err
		}
	}
	return rows.Err()
}

func goValue(v any) driver.Value {
	switch v := v.(type) {
	case int16:
		return int64(v)
	case int32:
		return int64(v)
	case string:
		return escaped(v)
	}
	return v
}
