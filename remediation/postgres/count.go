package postgres

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/locotoki/backout/hint"
	"github.com/locotoki/backout/remediation"
)

// rows are a table's. Estimated ones are the server's own.
type rows struct {
	Table     string `json:"table"`
	Rows      int64  `json:"rows"`
	Estimated yesNo  `json:"estimated,omitempty"`
	// What tells in the manifest whether the table and its columns are still there: its
	// schema and name, none for an extension's, and its columns as "NUMBER NAME", whose
	// number outlives a renaming.
	Name    pgx.Identifier `json:"name,omitempty"`
	OID     uint32         `json:"oid,omitempty"`
	Columns []string       `json:"columns,omitempty"`
}

// bareRows are rows without what only the manifest needs.
func bareRows(all []rows) []rows {
	plain := slices.Clone(all)
	for i, r := range all {
		plain[i] = rows{Table: r.Table, Rows: r.Rows, Estimated: r.Estimated}
	}
	return plain
}

// lost says what of before is not there after. What was renamed is still there, and so is a
// table that was made anew by the old name.
func lost(before, after []rows) []remediation.Lost {
	var all []remediation.Lost
	if after == nil || slices.ContainsFunc(after, func(a rows) bool { return a.OID == 0 }) { // not known, or by an older release
		return nil
	}
	for _, b := range before {
		if b.Name == nil { // an extension's, which the snapshot leaves out
			continue
		}
		i := slices.IndexFunc(after, func(a rows) bool { return a.OID == b.OID })
		if i < 0 {
			i = slices.IndexFunc(after, func(a rows) bool { return a.Table == b.Table })
		}
		l := remediation.Lost{What: remediation.LostTable, Schema: b.Name[0], Table: b.Name[1], Rows: b.Rows}
		if i < 0 {
			all = append(all, l)
			continue
		}
		a := after[i]
		for _, column := range b.Columns {
			_, name, _ := strings.Cut(column, " ")
			still := slices.ContainsFunc(a.Columns, func(c string) bool {
				_, n, _ := strings.Cut(c, " ")
				return n == name
			})
			if a.OID == b.OID && !still {
				number, _, _ := strings.Cut(column, " ")
				still = slices.ContainsFunc(a.Columns, func(c string) bool { return strings.HasPrefix(c, number+" ") })
			}
			if !still {
				c := l
				c.What, c.Column = remediation.LostColumn, name
				all = append(all, c)
			}
		}
		if a.Rows < b.Rows {
			l.What, l.Rows = remediation.LostRows, b.Rows-a.Rows
			all = append(all, l)
		}
	}
	return all
}

// smallTable is the size up to which a look, which must not take long, counts
// the rows of a table itself.
const smallTable = 32 << 20

type table struct {
	name      pgx.Identifier
	size      int64
	estimate  int64
	extension bool // it belongs to an extension, and pg_dump leaves its rows out
	oid       uint32
	columns   []string // "NUMBER NAME", without those that are computed
}

func (t table) String() string { return strings.Join(t.name, ".") }

// tables returns the tables whose rows are counted, but for Flyway's own.
func (w *work) tables(ctx context.Context, q querier) ([]table, error) {
	found, err := q.Query(ctx, `SELECT n.nspname, c.relname, pg_table_size(c.oid), greatest(c.reltuples, 0)::bigint,
			EXISTS (SELECT FROM pg_depend d WHERE d.classid = 'pg_class'::regclass AND d.objid = c.oid AND d.deptype = 'e'),
			c.oid, ARRAY(SELECT a.attnum || ' ' || a.attname FROM pg_attribute a
				WHERE a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped AND a.attgenerated = '' ORDER BY a.attnum)
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
	var oid uint32
	var columns []string
	_, err = pgx.ForEachRow(found, []any{&schema, &name, &size, &estimate, &extension, &oid, &columns}, func() error {
		all = append(all, table{pgx.Identifier{schema, name}, size, estimate, extension, oid, slices.Clone(columns)})
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

// unhurried lifts statement_timeout in a session while do counts, as pg_dump does in its own.
// The step's limit still ends it.
func unhurried(ctx context.Context, conn *pgx.Conn, do func() error) error {
	if err := change(ctx, conn, "SET statement_timeout = 0"); err != nil {
		return fmt.Errorf("set statement_timeout: %w", err)
	}
	err := do()
	if conn.IsClosed() || conn.PgConn().TxStatus() == 'E' {
		return err // nothing more is asked there, and the rollback takes it back
	}
	if rerr := change(ctx, conn, "RESET statement_timeout"); rerr != nil && err == nil {
		return fmt.Errorf("reset statement_timeout: %w", rerr)
	}
	return err
}

// countAll counts every row.
func (w *work) countAll(ctx context.Context, conn *pgx.Conn) ([]rows, error) {
	counted := []rows{}
	err := unhurried(ctx, conn, func() error {
		all, err := w.tables(ctx, conn)
		if err != nil {
			return err
		}
		for _, t := range all {
			r, err := count(ctx, conn, t)
			if err != nil {
				return err
			}
			if r.OID, r.Columns = t.oid, t.columns; !t.extension {
				r.Name = t.name
			}
			counted = append(counted, r)
		}
		return nil
	})
	if err != nil {
		return nil, err
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

// catalogs are where a schema itself is written, without the temporary tables of sessions
// and what REFRESH MATERIALIZED VIEW writes: the view's storage, with its indexes and its
// TOAST table. A view that is new or gone shows in pg_rewrite. The column is the table that
// a row belongs to, or its schema.
func catalogs() []string {
	const temporary = "SELECT oid FROM pg_catalog.pg_namespace WHERE nspname ~ '^pg_(toast_)?temp_'"
	const refreshed = "SELECT u FROM pg_catalog.pg_class, unnest(ARRAY[oid, reltoastrelid]) u WHERE relkind = 'm' AND u <> 0"
	stored := func(column string) string {
		return " AND " + column + " NOT IN (" + refreshed + " UNION ALL SELECT indexrelid FROM pg_catalog.pg_index WHERE indrelid IN (" + refreshed + "))"
	}
	refresh := map[string]string{
		"pg_class": stored("oid"), "pg_attribute": stored("attrelid"), "pg_index": stored("indrelid"),
		"pg_type": " AND typnamespace <> 'pg_toast'::pg_catalog.regnamespace", // until PostgreSQL 13
	}
	var all []string
	for _, c := range [][2]string{
		{"pg_namespace", "oid"}, {"pg_class", "relnamespace"}, {"pg_constraint", "connamespace"}, {"pg_proc", "pronamespace"}, {"pg_type", "typnamespace"},
	} {
		all = append(all, "pg_catalog."+c[0]+" WHERE "+c[1]+" NOT IN ("+temporary+")"+refresh[c[0]])
	}
	for _, c := range [][2]string{
		{"pg_attribute", "attrelid"}, {"pg_attrdef", "adrelid"}, {"pg_index", "indrelid"}, {"pg_inherits", "inhrelid"},
		{"pg_trigger", "tgrelid"}, {"pg_rewrite", "ev_class"}, {"pg_policy", "polrelid"},
	} {
		all = append(all, "pg_catalog."+c[0]+" WHERE "+c[1]+" NOT IN (SELECT oid FROM pg_catalog.pg_class WHERE relnamespace IN ("+temporary+"))"+refresh[c[0]])
	}
	for _, name := range []string{"pg_enum", "pg_extension", "pg_collation", "pg_operator", "pg_aggregate", "pg_cast"} {
		all = append(all, "pg_catalog."+name)
	}
	return all
}

// marks notes what the database is like, so that written can tell later whether anything
// was committed since to the schema or to the tables that are named; none: to all. Only
// sequences, and tables that belong to an extension, are not looked at.
func (w *work) marks(ctx context.Context, named []string) ([]mark, error) {
	var since string
	if err := w.conn.QueryRow(ctx, "SELECT (txid_snapshot_xmin(txid_current_snapshot()) % 4294967296)::text").Scan(&since); err != nil {
		return nil, fmt.Errorf("note what the database is like: %w", err)
	}
	these := *w
	these.rollback = &rollback{spec: remediation.SchemaRollback{Tables: named}}
	var found []mark
	err := unhurried(ctx, w.conn, func() error {
		tables, err := these.tables(ctx, w.conn)
		if err != nil {
			return err
		}
		relations := catalogs()
		for _, t := range tables {
			if !t.extension {
				relations = append(relations, t.name.Sanitize())
			}
		}
		for _, r := range relations {
			m := mark{Relation: r, Since: since}
			if err := w.measure(ctx, &m); err != nil {
				return err
			}
			found = append(found, m)
		}
		return nil
	})
	return found, err
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
func (w *work) written(ctx context.Context) (names []string, err error) {
	err = unhurried(ctx, w.conn, func() error {
		names, err = w.compare(ctx)
		return err
	})
	return names, err
}

func (w *work) compare(ctx context.Context) ([]string, error) {
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

// unwritten refuses where the snapshot lacks what was written since: the scripts would lose
// it for good. Who wrote it is not known.
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
	names := make([]string, len(others))
	for i, o := range others {
		names[i] = o.Role
	}
	var add string // a superuser cannot be cut off
	err = w.conn.QueryRow(ctx, "SELECT coalesce(string_agg(rolname, ', ' ORDER BY rolname), '') FROM pg_roles WHERE NOT rolsuper AND rolname = ANY ($1::text[])", names).Scan(&add)
	if err != nil {
		return fmt.Errorf("look for roles that can be cut off: %w", err)
	}
	who, try := "", "stop what writes there"
	if len(names) > 0 {
		who = " (other roles with sessions now: " + strings.Join(names, ", ") + ")"
	}
	if add != "" {
		try += ", or if it is one of these roles, add it to application_roles: " + add
	}
	return hint.Add(definite("something wrote to %s after the snapshot began, and the snapshot may lack it%s", strings.Join(written, ", "), who), "%s", try)
}
