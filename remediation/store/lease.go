package store

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"os"
	"sync/atomic"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/locotoki/backout/hint"
)

// leaseTime is how long a server that is gone keeps others out.
const leaseTime = 5 * time.Second

// ErrTakenOver: another server writes this database now. This one was stopped or cut
// off for longer than its lease.
var ErrTakenOver = errors.New("another server has taken this database over")

// lease is a server's right to act in a realm. The database alone reads a clock. A
// change of holder begins an epoch, and happens only behind the lock of the audit
// log's head, behind which every transaction asks for its own epoch first (pgConn.begin):
// nothing that an earlier holder writes can come after what a later one wrote.
type lease struct {
	db     *postgres
	realm  string
	holder string
	epoch  atomic.Int64

	lost  chan struct{} // closed when another has it
	noted atomic.Bool   // lost is closed
	stop  context.CancelFunc
	done  chan struct{} // closed when it is not renewed any more
}

const (
	// leaseHeld asks behind the head's lock.
	leaseHeld = "SELECT EXISTS (SELECT 1 FROM leases WHERE realm = $1 AND holder = $2 AND epoch = $3 AND until > clock_timestamp())"
	// leaseTake takes a lease that is ours, free or over; no row where it is another's.
	leaseTake = `INSERT INTO leases AS l (realm, holder, epoch, until) VALUES ($1, $2, 1, clock_timestamp() + $3 * interval '1 second')
		ON CONFLICT (realm) DO UPDATE SET holder = excluded.holder, until = excluded.until,
			epoch = CASE WHEN l.holder = excluded.holder AND l.until > clock_timestamp() THEN l.epoch ELSE l.epoch + 1 END
		WHERE l.holder = excluded.holder OR l.until <= clock_timestamp() RETURNING epoch`
	leaseRenew = `UPDATE leases SET until = clock_timestamp() + $4 * interval '1 second'
		WHERE realm = $1 AND holder = $2 AND epoch = $3 AND until > clock_timestamp()`
	leaseLeft    = "SELECT holder, until::text, extract(epoch FROM until - clock_timestamp())::float8 FROM leases WHERE realm = $1"
	leaseRelease = "UPDATE leases SET until = clock_timestamp() WHERE realm = $1 AND holder = $2 AND epoch = $3"
)

// takeLease takes the lease of the whole database. The lease of a server that crashed
// runs out, which is waited for; one that is renewed meanwhile is a running server's.
func takeLease(ctx context.Context, p *postgres) (*lease, error) {
	host, err := os.Hostname()
	if err != nil {
		return nil, fmt.Errorf("this machine's name: %w", err)
	}
	l := &lease{
		db: p, holder: fmt.Sprintf("%s, pid %d (%s)", host, os.Getpid(), rand.Text()[:8]),
		lost: make(chan struct{}), done: make(chan struct{}),
	}
	c, err := p.dial(ctx, toWrite)
	if err != nil {
		return nil, err
	}
	failed := func(err error) (*lease, error) { return nil, errors.Join(ended(ctx, err), c.close()) }
	var first string
	for {
		err := l.take(ctx, c.c)
		if err == nil {
			break
		}
		if !errors.Is(err, ErrTakenOver) {
			return failed(err)
		}
		var holder, until string
		var left float64
		if err := c.c.QueryRow(ctx, leaseLeft, l.realm).Scan(&holder, &until, &left); err != nil {
			return failed(fmt.Errorf("read the lease: %w", err))
		}
		if first == "" {
			first = until
		}
		if until != first {
			err := hint.Add(fmt.Errorf("the database is in use by the server on %s", holder), "stop it first, or use another database or search_path with --storage.dsn")
			return nil, errors.Join(err, c.close())
		}
		select {
		case <-time.After(min(time.Duration(max(left, 0)*float64(time.Second))+time.Millisecond, 100*time.Millisecond)):
		case <-ctx.Done():
			return nil, errors.Join(fmt.Errorf("wait for the lease of %s: %w", holder, context.Cause(ctx)), c.close())
		}
	}
	ctx, l.stop = context.WithCancel(context.WithoutCancel(ctx))
	go l.keep(ctx, c)
	return l, nil
}

// take takes the lease, or begins an epoch of it: ErrTakenOver where it is another's.
func (l *lease) take(ctx context.Context, c *pgx.Conn) error {
	return pgx.BeginFunc(ctx, c, func(tx pgx.Tx) error {
		if _, err := tx.Exec(ctx, lockHead); err != nil {
			return err
		}
		return l.takeBehindLock(ctx, c)
	})
}

func (l *lease) takeBehindLock(ctx context.Context, c *pgx.Conn) error {
	var epoch int64
	err := c.QueryRow(ctx, leaseTake, l.realm, l.holder, l.db.leaseTime.Seconds()).Scan(&epoch)
	if errors.Is(err, pgx.ErrNoRows) {
		if l.epoch.Load() > 0 && l.noted.CompareAndSwap(false, true) {
			close(l.lost)
		}
		return ErrTakenOver
	}
	if err != nil {
		return fmt.Errorf("take the lease: %w", err)
	}
	l.epoch.Store(epoch)
	return nil
}

// keep renews the lease until ctx ends, and connects anew where the connection is lost.
func (l *lease) keep(ctx context.Context, c *pgConn) {
	defer close(l.done)
	tick := time.NewTicker(l.db.leaseTime / 4)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			if c != nil {
				_ = c.close()
			}
			return
		case <-tick.C:
		}
		if c == nil {
			c, _ = l.db.dial(ctx, toWrite) // the next tick tries again
		}
		if c != nil && l.renew(ctx, c.c) != nil && !errors.Is(ctx.Err(), context.Canceled) {
			_ = c.close()
			c = nil
		}
	}
}

func (l *lease) renew(ctx context.Context, c *pgx.Conn) error {
	ctx, cancel := context.WithTimeout(ctx, l.db.leaseTime)
	defer cancel()
	done, err := c.Exec(ctx, leaseRenew, l.realm, l.holder, l.epoch.Load(), l.db.leaseTime.Seconds())
	if err == nil && done.RowsAffected() == 0 {
		err = l.take(ctx, c)
	}
	return err
}

// release ends the lease, so that the next server need not wait. What a server that
// does not answer keeps of it runs out.
func (l *lease) release() error {
	l.stop()
	<-l.done
	ctx, cancel := context.WithTimeout(context.Background(), l.db.leaseTime)
	defer cancel()
	c, err := l.db.dial(ctx, toWrite)
	if err != nil {
		return nil //nolint:nilerr // it runs out by itself
	}
	_, err = c.c.Exec(ctx, leaseRelease, l.realm, l.holder, l.epoch.Load())
	return errors.Join(err, c.close())
}
