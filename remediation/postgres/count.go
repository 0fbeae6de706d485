package postgres

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
)

// rows are a table's. Estimated ones are the server's own.
type rows struct {
	Table     string `json:"table"`
	Rows      int64  `json:"rows"`
	Estimated yesNo  `json:"estimated,omitempty"`
}

// smallTable is the size up to which a look, which must not take long, counts
// the rows of a table itself.
const smallTable = 32 << 20

type table struct {
	name     pgx.Identifier
	size     int64
	estimate int64
}

func (t table) String() string { return strings.Join(t.name, ".") }

// tables returns the tables whose rows are counted, but for Flyway's own.
func (w *work) tables(ctx context.Context, q querier) ([]table, error) {
	found, err := q.Query(ctx, `SELECT n.nspname, c.relname, pg_table_size(c.oid), greatest(c.reltuples, 0)::bigint
		FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
		WHERE c.relkind = 'r' AND c.relpersistence <> 't' AND n.nspname !~ '^(pg_|information_schema$)' AND c.relname <> $1
			AND ($2::text[] IS NULL OR c.relname = ANY ($2) OR n.nspname || '.' || c.relname = ANY ($2))
		ORDER BY 1, 2`, historyTable, w.spec.Tables)
	if err != nil {
		return nil, fmt.Errorf("list tables: %w", err)
	}
	var all []table
	var schema, name string
	var size, estimate int64
	_, err = pgx.ForEachRow(found, []any{&schema, &name, &size, &estimate}, func() error {
		all = append(all, table{pgx.Identifier{schema, name}, size, estimate})
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("list tables: %w", err)
	}
	return all, nil
}

func count(ctx context.Context, q querier, t table) (rows, error) {
	r := rows{Table: t.String()}
	if err := q.QueryRow(ctx, "SELECT count(*) FROM "+t.name.Sanitize()).Scan(&r.Rows); err != nil {
		return rows{}, fmt.Errorf("count rows of %s: %w", t, err)
	}
	return r, nil
}

// glance counts what is quick to count, and takes the server's word for the rest.
func (w *work) glance(ctx context.Context) ([]rows, error) {
	all, err := w.tables(ctx, w.conn)
	if err != nil {
		return nil, err
	}
	counted := []rows{}
	for _, t := range all {
		r := rows{Table: t.String(), Rows: t.estimate, Estimated: "yes"}
		if t.size <= smallTable {
			if r, err = count(ctx, w.conn, t); err != nil {
				return nil, err
			}
		}
		counted = append(counted, r)
	}
	return counted, nil
}

// countAll counts every row.
func (w *work) countAll(ctx context.Context, q querier) ([]rows, error) {
	all, err := w.tables(ctx, q)
	if err != nil {
		return nil, err
	}
	counted := []rows{}
	for _, t := range all {
		r, err := count(ctx, q, t)
		if err != nil {
			return nil, err
		}
		counted = append(counted, r)
	}
	return counted, nil
}

// What the server says where a table is gone.
const (
	noTable  = "42P01"
	noSchema = "3F000"
)

// mark is how many rows a relation had, and how many of them were written since
// a transaction that was the oldest one then.
type mark struct {
	Relation string `json:"relation"`
	Since    string `json:"since"`
	Rows     int64  `json:"rows"`
	Newer    int64  `json:"newer"`
}

// catalogs are where a schema itself is written.
func catalogs() []table {
	var all []table
	for _, name := range []string{
		"pg_namespace", "pg_class", "pg_attribute", "pg_attrdef", "pg_constraint", "pg_index", "pg_inherits", "pg_proc", "pg_trigger",
		"pg_type", "pg_enum", "pg_rewrite", "pg_policy", "pg_extension", "pg_collation", "pg_operator", "pg_aggregate", "pg_cast",
	} {
		all = append(all, table{name: pgx.Identifier{"pg_catalog", name}})
	}
	return all
}

// marks notes what the database is like, so that unchanged can tell later
// whether anything was committed since. Only sequences are not looked at.
func (w *work) marks(ctx context.Context) ([]mark, error) {
	var since string
	if err := w.conn.QueryRow(ctx, "SELECT (txid_snapshot_xmin(txid_current_snapshot()) % 4294967296)::text").Scan(&since); err != nil {
		return nil, fmt.Errorf("note what the database is like: %w", err)
	}
	all := *w
	all.rollback = &rollback{} // whichever tables are to be counted
	tables, err := all.tables(ctx, w.conn)
	if err != nil {
		return nil, err
	}
	var found []mark
	for _, t := range append(catalogs(), tables...) {
		m := mark{Relation: t.name.Sanitize(), Since: since}
		if err := w.measure(ctx, &m); err != nil {
			return nil, err
		}
		found = append(found, m)
	}
	return found, nil
}

func (w *work) measure(ctx context.Context, m *mark) error {
	err := w.conn.QueryRow(ctx, "SELECT count(*), count(*) FILTER (WHERE age(xmin) <= age($1::text::xid)) FROM "+m.Relation, m.Since).Scan(&m.Rows, &m.Newer)
	if err != nil {
		return fmt.Errorf("note what %s is like: %w", m.Relation, err)
	}
	return nil
}

// unchanged reports whether nothing was committed since the marks were made. A
// table that is gone, or new, shows in the catalogs.
func (w *work) unchanged(ctx context.Context) (bool, error) {
	for _, before := range w.m.Mark {
		now := before
		if err := w.measure(ctx, &now); err != nil {
			var refusal *pgconn.PgError
			if errors.As(err, &refusal) && (refusal.Code == noTable || refusal.Code == noSchema) {
				return false, nil
			}
			return false, err
		}
		if now != before {
			return false, nil
		}
	}
	return len(w.m.Mark) > 0, nil
}
