package postgres

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/locotoki/backout/hint"
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
	name      pgx.Identifier
	size      int64
	estimate  int64
	extension bool // it belongs to an extension, and pg_dump leaves its rows out
}

func (t table) String() string { return strings.Join(t.name, ".") }

// tables returns the tables whose rows are counted, but for Flyway's own.
func (w *work) tables(ctx context.Context, q querier) ([]table, error) {
	found, err := q.Query(ctx, `SELECT n.nspname, c.relname, pg_table_size(c.oid), greatest(c.reltuples, 0)::bigint,
			EXISTS (SELECT FROM pg_depend d WHERE d.classid = 'pg_class'::regclass AND d.objid = c.oid AND d.deptype = 'e')
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
	var extension bool
	_, err = pgx.ForEachRow(found, []any{&schema, &name, &size, &estimate, &extension}, func() error {
		all = append(all, table{pgx.Identifier{schema, name}, size, estimate, extension})
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
	Relation string `json:"relation"` // as it is written after FROM
	Since    string `json:"since"`
	Rows     int64  `json:"rows"`
	Newer    int64  `json:"newer"`
}

// catalogs are where a schema itself is written, without the temporary tables of
// sessions: the column is the table that a row belongs to, or its schema.
func catalogs() []string {
	const temporary = "SELECT oid FROM pg_catalog.pg_namespace WHERE nspname ~ '^pg_(toast_)?temp_'"
	var all []string
	for _, c := range [][2]string{
		{"pg_namespace", "oid"}, {"pg_class", "relnamespace"}, {"pg_constraint", "connamespace"}, {"pg_proc", "pronamespace"}, {"pg_type", "typnamespace"},
	} {
		all = append(all, "pg_catalog."+c[0]+" WHERE "+c[1]+" NOT IN ("+temporary+")")
	}
	for _, c := range [][2]string{
		{"pg_attribute", "attrelid"}, {"pg_attrdef", "adrelid"}, {"pg_index", "indrelid"}, {"pg_inherits", "inhrelid"},
		{"pg_trigger", "tgrelid"}, {"pg_rewrite", "ev_class"}, {"pg_policy", "polrelid"},
	} {
		all = append(all, "pg_catalog."+c[0]+" WHERE "+c[1]+" NOT IN (SELECT oid FROM pg_catalog.pg_class WHERE relnamespace IN ("+temporary+"))")
	}
	for _, name := range []string{"pg_enum", "pg_extension", "pg_collation", "pg_operator", "pg_aggregate", "pg_cast"} {
		all = append(all, "pg_catalog."+name)
	}
	return all
}

// marks notes what the database is like, so that unchanged can tell later
// whether anything was committed since. Only sequences, and tables that belong to an
// extension, are not looked at.
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
	relations := catalogs()
	for _, t := range tables {
		if !t.extension {
			relations = append(relations, t.name.Sanitize())
		}
	}
	var found []mark
	for _, r := range relations {
		m := mark{Relation: r, Since: since}
		if err := w.measure(ctx, &m); err != nil {
			return nil, err
		}
		found = append(found, m)
	}
	return found, nil
}

func (w *work) measure(ctx context.Context, m *mark) error {
	// A frozen row of 2^31 transactions ago has an age below 0.
	err := w.conn.QueryRow(ctx, "SELECT count(*), count(*) FILTER (WHERE age(xmin) BETWEEN 0 AND age($1::text::xid)) FROM "+m.Relation, m.Since).Scan(&m.Rows, &m.Newer)
	if err != nil {
		return fmt.Errorf("note what %s is like: %w", m.Relation, err)
	}
	return nil
}

// unchanged reports whether nothing was committed since the marks were made.
func (w *work) unchanged(ctx context.Context) (bool, error) {
	written, err := w.written(ctx)
	return err == nil && len(written) == 0 && len(w.m.Mark) > 0, err
}

// written names what was committed to since the marks were made: tables, else the schema,
// whose catalogs show a table that is gone, or new.
func (w *work) written(ctx context.Context) ([]string, error) {
	var tables []string
	schema := false
	for _, before := range w.m.Mark {
		now := before
		err := w.measure(ctx, &now)
		var refusal *pgconn.PgError
		if gone := errors.As(err, &refusal) && (refusal.Code == noTable || refusal.Code == noSchema); err != nil && !gone {
			return nil, err
		}
		if err == nil && now == before {
			continue
		}
		name, _, _ := strings.Cut(strings.ReplaceAll(before.Relation, `"`, ""), " WHERE ")
		if strings.HasPrefix(name, "pg_catalog.") {
			schema = true
		} else {
			tables = append(tables, name)
		}
	}
	if schema && len(tables) == 0 {
		return []string{"the schema itself"}, nil
	}
	return tables, nil
}

// unwritten refuses where the snapshot lacks what another role has written since: the
// scripts would lose it for good.
func (w *work) unwritten(ctx context.Context) error {
	if w.m.Phase == changing {
		return nil // by our own hand
	}
	written, err := w.written(ctx)
	if err != nil || len(written) == 0 {
		return err
	}
	others, err := w.otherRoles(ctx)
	if err != nil {
		return err
	}
	who := "none now"
	if len(others) > 0 {
		names := make([]string, len(others))
		for i, o := range others {
			names[i] = o.Role
		}
		who = strings.Join(names, ", ")
	}
	return hint.Add(definite("another role changed %s since the snapshot began, and the snapshot may lack it (other roles with sessions: %s)", strings.Join(written, ", "), who),
		"stop what writes there, or add its role to application_roles")
}
