package store

import (
	"database/sql"
	"errors"
	"fmt"
	"time"

	"github.com/locotoki/backout/remediation"
)

// Now implements remediation.ReplicaTable. One process writes a SQLite file, so its clock
// is the store's.
func (t *tx) Now() (time.Time, error) {
	clock := t.c.dialect().clock
	if clock == "" {
		return time.Now().UTC(), t.usable()
	}
	var micros int64
	if err := t.row(clock, nil, &micros); err != nil {
		return time.Time{}, fmt.Errorf("read the database's clock: %w", err)
	}
	return time.UnixMicro(micros).UTC(), nil
}

// Replicas implements remediation.ReplicaTable.
func (t *tx) Replicas() ([]remediation.Replica, error) {
	return bodies[remediation.Replica](t, "replicas", "SELECT body FROM replicas ORDER BY id")
}

// PutReplica implements remediation.ReplicaTable.
func (t *tx) PutReplica(r remediation.Replica) error {
	return t.put("replica "+r.ID, r, "INSERT INTO replicas (id, body) VALUES (?, ?) ON CONFLICT (id) DO UPDATE SET body = excluded.body", r.ID)
}

// DeleteReplica implements remediation.ReplicaTable; deleting what is not there is not an
// error.
func (t *tx) DeleteReplica(id string) error {
	return t.remove("replica "+id, "DELETE FROM replicas WHERE id = ?", id)
}

// Lease implements remediation.ReplicaTable.
func (t *tx) Lease(realm string) (l remediation.Lease, err error) {
	var until sql.NullInt64
	if err := t.row("SELECT realm, holder, epoch, until FROM realms WHERE realm = ?", []any{realm}, &l.Realm, &l.Holder, &l.Epoch, &until); err != nil {
		return remediation.Lease{}, fmt.Errorf("lease of realm %.80q: %w", realm, err)
	}
	l.Until = moment(until)
	return l, nil
}

// Leases implements remediation.ReplicaTable.
func (t *tx) Leases() ([]remediation.Lease, error) {
	out := []remediation.Lease{}
	err := t.rows("SELECT realm, holder, epoch, until FROM realms ORDER BY realm", nil, func(r row) error {
		var l remediation.Lease
		var until sql.NullInt64
		err := r.scan(&l.Realm, &l.Holder, &l.Epoch, &until)
		l.Until = moment(until)
		out = append(out, l)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("list leases: %w", err)
	}
	return out, nil
}

// PutLease implements remediation.ReplicaTable.
func (t *tx) PutLease(l remediation.Lease) error {
	until, err := nanos(l.Until)
	if err == nil {
		err = t.exec(`INSERT INTO realms (realm, holder, epoch, until) VALUES (?, ?, ?, ?)
			ON CONFLICT (realm) DO UPDATE SET holder = excluded.holder, epoch = excluded.epoch, until = excluded.until`, l.Realm, l.Holder, l.Epoch, until)
	}
	if err != nil {
		return fmt.Errorf("put lease of realm %.80q: %w", l.Realm, err)
	}
	return nil
}

// Kept implements remediation.KeptTable.
func (t *tx) Kept(name string) (value []byte, err error) {
	if err := t.row("SELECT secret FROM kept WHERE name = ?", []any{name}, &value); err != nil {
		return nil, fmt.Errorf("kept value %.80q: %w", name, err)
	}
	return value, nil
}

// PutKept implements remediation.KeptTable.
func (t *tx) PutKept(name string, value []byte) error {
	if value == nil {
		value = []byte{}
	}
	if err := t.exec("INSERT INTO kept (name, secret) VALUES (?, ?) ON CONFLICT (name) DO UPDATE SET secret = excluded.secret", name, value); err != nil {
		return fmt.Errorf("keep value %.80q: %w", name, err)
	}
	return nil
}

// Once implements remediation.KeptTable.
func (t *tx) Once(kind, key string, until time.Time, limit int) (first bool, err error) {
	now, err := t.Now()
	if err != nil {
		return false, err
	}
	fail := func(err error) (bool, error) { return false, fmt.Errorf("remember a %.80s: %w", kind, err) }
	if err := t.exec("DELETE FROM once WHERE kind = ? AND until <= ?", kind, now.UnixNano()); err != nil {
		return fail(err)
	}
	if keep := until.Sub(now); keep > 0 { // a clock that was set since wrote what lies further ahead
		if err := t.exec("DELETE FROM once WHERE kind = ? AND until > ?", kind, until.Add(keep).UnixNano()); err != nil {
			return fail(err)
		}
	}
	var n int
	err = t.row("SELECT 1 FROM once WHERE kind = ? AND key = ?", []any{kind, key}, &n)
	if err == nil || !errors.Is(err, remediation.ErrNotFound) {
		return false, err
	}
	if err := t.row("SELECT count(*) FROM once WHERE kind = ?", []any{kind}, &n); err != nil {
		return fail(err)
	}
	if n >= limit {
		return fail(remediation.ErrFull)
	}
	if err := t.exec("INSERT INTO once (kind, key, until) VALUES (?, ?, ?)", kind, key, until.UnixNano()); err != nil {
		return fail(err)
	}
	return true, nil
}
