package store

import (
	"context"
	"crypto/sha256"
	"database/sql/driver"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/locotoki/backout/hint"
	"github.com/locotoki/backout/remediation"
)

// Copied is what Copy took over.
type Copied struct {
	// Rows are those of each table.
	Rows map[string]int64
	// Seq and Hash are the audit log's last entry.
	Seq  int64
	Hash string
}

// ErrNotEmpty: the database that is copied to has rows already.
var ErrNotEmpty = errors.New("it is not empty")

// table is what Copy takes over of one; its first columns up to the key order it.
type table struct {
	name    string
	key     string
	columns string
}

// tables are all of them but those of PostgreSQL's own: the head, the leases, the version.
func tables() []table {
	return []table{
		{"incidents", "n", "n, service, drill, open, running, paging, wake, version, body"},
		{"alerts", "n", "n, fingerprint, incident, service, trigger, active, last_seen"},
		{"alert_totals", "incident", "incident, active"},
		{"audit", "seq", "seq, kind, service, incident, hash, entry"},
		{"effects", "n", "n, incident, step, time, service, action, target, outcome"},
		{"freezes", "service, scope", "service, scope, body"},
		{"rollouts", "service", "service, promoting, body"},
		{"beats", "service", "service, last, lost, away, heard"},
		{"playbooks", "hash", "hash, source"},
		{"public_incidents", "n", "n, incident, resolved, body"},
		{"outbox", "n", "n, channel, key, body"},
		{"receipts", "channel, key", "channel, key, value"},
		{"preflights", "service", "service, body"},
		{"signals", "service, name", "service, name, body"},
		{"rehearsals", "service, plan", "service, plan, body"},
		{"replicas", "id", "id, body"},
		{"realms", "realm", "realm, holder, epoch, until"},
		{"kept", "name", "name, secret"},
		{"once", "kind, key", "kind, key, until"},
	}
}

// Copy copies everything from one store to an empty one, in one transaction, and reads
// it back before that commits: every value, and every byte of the audit log, is as it
// was. said is told how far it is. Both stores are this server's alone, so that nothing
// is written meanwhile.
func Copy(ctx context.Context, from, to *Store, said func(table string, rows int64)) (Copied, error) {
	done := Copied{Rows: map[string]int64{}}
	err := from.view(ctx, func(source *tx) error {
		return to.Update(ctx, func(x remediation.Tx) error {
			target := x.(*tx)
			var err error
			if err = target.c.copying(); err != nil {
				return err
			}
			if *target.head, err = source.c.lastHead(); err != nil {
				return err
			}
			done.Seq, done.Hash = target.head.seq, target.head.hash
			for _, t := range tables() {
				if done.Rows[t.name], err = t.copy(ctx, source, target, said); err != nil {
					return fmt.Errorf("copy %s: %w", t.name, err)
				}
			}
			return target.c.copied(*target.head)
		})
	})
	if err != nil {
		return Copied{}, fmt.Errorf("copy %s to %s: %w", from.db, to.db, err)
	}
	return done, nil
}

func (t table) copy(ctx context.Context, source, target *tx, said func(string, int64)) (int64, error) {
	columns := strings.Split(t.columns, ", ")
	var there int
	switch err := target.row("SELECT 1 FROM "+t.name+" LIMIT 1", nil, &there); {
	case err == nil:
		return 0, hint.Add(ErrNotEmpty, "an empty database, or another schema: search_path=NAME")
	case !errors.Is(err, remediation.ErrNotFound):
		return 0, err
	}
	insert := "INSERT INTO " + t.name + " (" + t.columns + ") VALUES (?" + strings.Repeat(", ?", len(columns)-1) + ")"
	was := newSum(columns)
	err := source.rows(t.all(), nil, func(r row) error {
		values, err := was.add(r)
		if err != nil {
			return err
		}
		if was.rows%1000 == 0 {
			said(t.name, was.rows)
			if err := ctx.Err(); err != nil {
				return err
			}
		}
		return target.exec(insert, values...)
	})
	if err != nil {
		return 0, err
	}
	is := newSum(columns)
	err = target.rows(t.all(), nil, func(r row) error {
		_, err := is.add(r)
		return err
	})
	if err == nil && (is.rows != was.rows || is.sum != was.sum) {
		err = fmt.Errorf("%d rows do not read back as they were (%d rows)", was.rows, is.rows)
	}
	return was.rows, err
}

func (t table) all() string {
	return "SELECT " + t.columns + " FROM " + t.name + " ORDER BY " + t.key
}

// sum is a checksum over the values of a table, the same for both databases, in
// whichever order each keeps its rows: all rows' checksums, added bit by bit.
type sum struct {
	columns []string
	rows    int64
	sum     [sha256.Size]byte
}

func newSum(columns []string) *sum { return &sum{columns: columns} }

// add adds a row, and returns its values as exec takes them.
func (s *sum) add(r row) ([]any, error) {
	values, all := make([]any, len(r)), sha256.New()
	for i, v := range r {
		var err error
		if values[i], err = portable(s.columns[i], v); err != nil {
			return nil, err
		}
		text := fmt.Sprint(values[i])
		if b, ok := values[i].([]byte); ok {
			text = string(b)
		}
		if _, err := fmt.Fprintf(all, "%T %d %s\n", values[i], len(text), text); err != nil {
			return nil, err
		}
	}
	for i, b := range all.Sum(nil) {
		s.sum[i] ^= b
	}
	s.rows++
	return values, nil
}

// portable is a value as the other database takes it: what is kept as it is as bytes.
func portable(column string, v driver.Value) (any, error) {
	switch v.(type) {
	case nil, int64:
		return v, nil
	}
	if column == "body" || column == "entry" || column == "source" || column == "secret" {
		b, ok := bytesOf(v)
		if !ok {
			return nil, fmt.Errorf("column %s holds a %T", column, v)
		}
		return slices.Clone(b), nil
	}
	s, ok := textOf(v)
	if !ok {
		return nil, fmt.Errorf("column %s holds a %T", column, v)
	}
	return s, nil
}
