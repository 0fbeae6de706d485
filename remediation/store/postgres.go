package store

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgconn/ctxwatch"

	"github.com/locotoki/backout/hint"
	"github.com/locotoki/backout/remediation"
)

// postgres is a schema of a PostgreSQL database.
type postgres struct {
	config *pgx.ConnConfig
	schema string
	// lease is what keeps other servers out; nil for reading, and where several write.
	lease     *lease
	leaseTime time.Duration
	// patience is answerTimeout, but for tests.
	patience time.Duration
	// shared: other stores write it too.
	shared bool
	// risk is what makes a commit less than durable, "" where nothing does.
	risk string
}

var _ database = (*postgres)(nil)

// sharing is who may write a database.
type sharing int

const (
	alone  sharing = iota + 1
	shared         // with other stores: the head's lock orders what they write
)

// sharedIdle is how long a process that was stopped in the middle of a transaction keeps
// the head's lock from the others: no longer than the shortest lease.
const sharedIdle = 3 * time.Second

func (p *postgres) open(ctx context.Context, steps []migration, s sharing) (*Store, error) {
	p.shared = s == shared
	w, err := p.dial(ctx, toWrite)
	if err != nil {
		return nil, err
	}
	err = migratePostgres(ctx, w, steps)
	if err == nil && s == alone {
		p.lease, err = takeLease(ctx, p)
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("%s: %w", p, err), w.close())
	}
	p.risk = w.risk
	st := newStore(p)
	st.w = w
	go st.writer()
	return st, nil
}

// release implements database.
func (p *postgres) release() error {
	if p.lease == nil {
		return nil
	}
	return p.lease.release()
}

// checkSchema implements database.
func (p *postgres) checkSchema(c conn) error {
	have, err := postgresVersion(context.Background(), c.(*pgConn), postgresMigrations())
	if err != nil {
		return err
	}
	return notOlder(have, postgresMigrations())
}

// connect implements database.
func (p *postgres) connect(ctx context.Context, u use) (conn, error) {
	c, err := p.dial(ctx, u)
	if transient(err) {
		return nil, remediation.StoreAway(err)
	}
	if err != nil {
		return nil, err
	}
	return c, nil
}

func (p *postgres) dial(ctx context.Context, u use) (*pgConn, error) {
	config := p.config.Copy()
	config.RuntimeParams = map[string]string{
		// What is asked again and again has its plan from when the tables were small, and there is an index for it: a storm
		// of alerts would read the whole table for each commit.
		"enable_seqscan":   "off",
		"application_name": "backout",
		"client_encoding":  "UTF8",
		// pg_temp comes last: no temporary table stands for one of ours.
		"search_path":                 p.schema + ", pg_temp",
		"standard_conforming_strings": "on",
	}
	if u == toRead {
		config.RuntimeParams["default_transaction_read_only"] = "on"
		// The server ends a query whose reader has gone.
		config.BuildContextWatcherHandler = func(c *pgconn.PgConn) ctxwatch.Handler {
			return &pgconn.CancelRequestContextWatcherHandler{Conn: c, DeadlineDelay: time.Second}
		}
	} else {
		limit := fmt.Sprint(answerTimeout.Milliseconds())
		config.RuntimeParams["lock_timeout"] = limit
		config.RuntimeParams["statement_timeout"] = limit
		// A server that was stopped in the middle gives the head's lock back.
		if p.shared { // the others wait for it
			limit = fmt.Sprint(sharedIdle.Milliseconds())
		}
		config.RuntimeParams["idle_in_transaction_session_timeout"] = limit
	}
	pc, err := pgx.ConnectConfig(ctx, config)
	if err != nil {
		return nil, fmt.Errorf("connect to %s: %w", p, ended(ctx, err))
	}
	c := &pgConn{db: p, c: pc, reads: u == toRead, queries: map[string]pgStatement{}, mark: -1}
	if err := c.prepare(ctx); err != nil {
		return nil, errors.Join(fmt.Errorf("%s: %w", p, ended(ctx, err)), c.close())
	}
	return c, nil
}

// ended adds to an error that the time of ctx was over, where only a closed connection or a
// timeout of the network is told. The network may notice before ctx does.
func ended(ctx context.Context, err error) error {
	cause := context.Cause(ctx)
	if end, limited := ctx.Deadline(); cause == nil && limited && !time.Now().Before(end) {
		cause = context.DeadlineExceeded
	}
	if cause == nil || errors.Is(err, cause) {
		return err
	}
	return fmt.Errorf("%w: %w", cause, err)
}

// prepare refuses a database that would change texts, and makes sure that a commit
// waits for the disk.
func (c *pgConn) prepare(ctx context.Context) error {
	var encoding string
	var commit *string
	ctx, cancel := c.limited(ctx)
	defer cancel()
	err := c.c.QueryRow(ctx, `SELECT current_setting('server_encoding'),
		CASE WHEN current_setting('synchronous_commit') IN ('off', 'local') THEN set_config('synchronous_commit', 'on', false) END,
		concat_ws(', ', CASE WHEN current_setting('fsync') = 'off' THEN 'fsync is off' END,
			CASE WHEN current_setting('full_page_writes') = 'off' THEN 'full_page_writes is off' END)`).Scan(&encoding, &commit, &c.risk)
	if err != nil {
		return fmt.Errorf("read its settings: %w", c.away(ctx, err))
	}
	if encoding != "UTF8" {
		return hint.Add(fmt.Errorf("its encoding is %s", encoding), "a database of its own: CREATE DATABASE backout ENCODING 'UTF8' TEMPLATE template0")
	}
	return nil
}

// Risk says which setting of the database makes a commit less than durable, "" if none
// does.
func (s *Store) Risk() string {
	if p, ok := s.db.(*postgres); ok {
		return p.risk
	}
	return ""
}
