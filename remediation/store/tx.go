package store

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"time"

	"github.com/locotoki/backout/remediation"
	"github.com/locotoki/backout/remediation/audit"
)

// tx is one transaction, or one call's part of it.
type tx struct {
	ctx   context.Context
	c     conn
	write bool
	head  *head // nil where write is false
	// appended are this part's audit entries.
	appended []audit.Entry
	// places are alerts read or put; totals this part's changes to the numbers
	// of active alerts, batchTotals those of the parts before it.
	places map[string]place
	// ahead are alerts that were read before the batch ran, and not put since; nil: there
	// is none.
	ahead       map[string]*remediation.AlertState
	totals      totals
	batchTotals totals
	// alone tells that nothing before it shares the transaction.
	alone bool
	wrote bool
	over  bool
	// committed are to run once the transaction is on disk.
	committed []func()
	// fault is the first statement's that failed. Nothing runs after it, since
	// SQLite may have rolled everything back, and a statement would then commit
	// by itself.
	fault error
}

var _ remediation.Tx = (*tx)(nil)

// errOver: a transaction was used after its function had returned.
var errOver = errors.New("the transaction is over")

// errEnough ends the reading of rows: what was wanted is read.
var errEnough = errors.New("enough")

func (t *tx) usable() error {
	if t.over {
		return errOver
	}
	return t.fault
}

// OnCommit implements remediation.Tx.
func (t *tx) OnCommit(fn func()) {
	if t.write && !t.over {
		t.committed = append(t.committed, fn)
	}
}

// exec runs a statement that writes.
func (t *tx) exec(query string, args ...any) error {
	if err := t.usable(); err != nil {
		return err
	}
	if !t.write {
		return ErrReadOnly
	}
	if !t.wrote {
		if !t.alone {
			if err := t.c.savepoint(); err != nil {
				t.fault = err
				return err
			}
		}
		t.wrote = true
	}
	t.fault = t.c.exec(t.ctx, query, args...)
	return t.fault
}

// row reads one row into dest; ErrNotFound where there is none.
func (t *tx) row(query string, args []any, dest ...any) error {
	found := false
	err := t.rows(query, args, func(r row) error {
		found = true
		return r.scan(dest...)
	})
	if err == nil && !found {
		err = remediation.ErrNotFound
	}
	return err
}

// rows calls each for every row.
func (t *tx) rows(query string, args []any, each func(row) error) error {
	if err := t.usable(); err != nil {
		return err
	}
	if err := t.c.query(t.ctx, query, args, each); !errors.Is(err, errEnough) {
		t.fault = err
	}
	return t.fault
}

// keep makes the call's part one with the transaction.
func (t *tx) keep() error {
	if !t.wrote || t.alone {
		return nil
	}
	return t.c.keep()
}

// discard rolls the call's part back.
func (t *tx) discard() error {
	if !t.wrote || t.alone {
		return nil
	}
	return t.c.discard()
}

// nanos is how a time is kept: NULL for the zero time.
func nanos(t time.Time) (sql.NullInt64, error) {
	if t.IsZero() {
		return sql.NullInt64{}, nil
	}
	n := t.UnixNano()
	if !time.Unix(0, n).Equal(t) {
		return sql.NullInt64{}, fmt.Errorf("the time %s cannot be kept: its year is not within 1678 to 2261", t)
	}
	return sql.NullInt64{Int64: n, Valid: true}, nil
}

// moment reads what nanos wrote.
func moment(n sql.NullInt64) time.Time {
	if !n.Valid {
		return time.Time{}
	}
	return time.Unix(0, n.Int64).UTC()
}
