package postgres

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/locotoki/backout/hint"
)

// historyTable is the name of Flyway's table.
const historyTable = "flyway_schema_history"

// history is what Flyway's table says of a schema.
type history struct {
	table    pgx.Identifier
	rows     []historyRow // versions that were ever applied or undone, as they came
	applied  []historyRow // versions that are applied now, as they came
	lastRank int
}

type historyRow struct {
	rank        int
	version     version
	versionText string
	kind        string // SQL, UNDO_SQL, BASELINE, ...
	script      string
	checksum    *int32
}

// querier is a connection or a transaction on it.
type querier interface {
	Query(ctx context.Context, sql string, args ...any) (pgx.Rows, error)
	QueryRow(ctx context.Context, sql string, args ...any) pgx.Row
}

// execer is one that can write, too.
type execer interface {
	Exec(ctx context.Context, sql string, args ...any) (pgconn.CommandTag, error)
}

// readHistory reads Flyway's table. It keeps the rows of versions that were
// undone, so the present version is not its highest one.
func readHistory(ctx context.Context, q querier) (*history, error) {
	table, err := findHistory(ctx, q)
	if err != nil {
		return nil, err
	}
	h := &history{table: table}
	rows, err := q.Query(ctx, "SELECT installed_rank, coalesce(version, ''), type, script, checksum, success FROM "+
		table.Sanitize()+" ORDER BY installed_rank")
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", table.Sanitize(), err)
	}
	var r historyRow
	var success bool
	_, err = pgx.ForEachRow(rows, []any{&r.rank, &r.versionText, &r.kind, &r.script, &r.checksum, &success}, func() error {
		h.lastRank = r.rank
		if !success {
			return failedRow(r)
		}
		if r.versionText == "" { // repeatable scripts, and the row of a schema that Flyway made
			return nil
		}
		var err error
		if r.version, err = parseVersion(r.versionText); err != nil {
			return fmt.Errorf("row %d of %s: %w", r.rank, historyTable, err)
		}
		h.rows = append(h.rows, r)
		same := func(a historyRow) bool { return a.version.compare(r.version) == 0 }
		h.applied = slices.DeleteFunc(h.applied, same)
		if !strings.HasPrefix(r.kind, "UNDO") && r.kind != "DELETE" {
			h.applied = append(h.applied, r)
		}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", table.Sanitize(), err)
	}
	return h, nil
}

func failedRow(r historyRow) error {
	what := "version " + r.versionText + " was being applied"
	if strings.HasPrefix(r.kind, "UNDO") {
		what = "version " + r.versionText + " was being undone"
	}
	return hint.Add(fmt.Errorf("row %d says that %s by %s and failed: how far it got is unknown, so neither its script nor its undo script may run", r.rank, what, r.script),
		"bring the schema to one version by hand, then flyway repair")
}

// findHistory finds the table where the role's search path leads, else the only
// one that there is.
func findHistory(ctx context.Context, q querier) (pgx.Identifier, error) {
	rows, err := q.Query(ctx, `SELECT n.nspname, coalesce(c.oid = to_regclass($1), false) FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
		WHERE c.relname = $1 AND c.relkind IN ('r', 'p') ORDER BY 2 DESC, 1`, historyTable)
	if err != nil {
		return nil, fmt.Errorf("look for %s: %w", historyTable, err)
	}
	var schemas []string
	var schema string
	var reached, first bool
	_, err = pgx.ForEachRow(rows, []any{&schema, &reached}, func() error {
		first = first || reached
		schemas = append(schemas, schema)
		return nil
	})
	switch {
	case err != nil:
		return nil, fmt.Errorf("look for %s: %w", historyTable, err)
	case len(schemas) == 0:
		return nil, hint.Add(fmt.Errorf("the database has no %s: Flyway does not keep its schema", historyTable), "command and wanted instead of flyway")
	case len(schemas) > 1 && !first:
		return nil, hint.Add(fmt.Errorf("%s is in several schemas (%s)", historyTable, strings.Join(schemas, ", ")), "ALTER ROLE ... SET search_path")
	}
	return pgx.Identifier{schemas[0], historyTable}, nil
}

// above returns the versions above target that are applied.
func (h *history) above(target version) []historyRow {
	var rows []historyRow
	for _, r := range h.applied {
		if r.version.compare(target) > 0 {
			rows = append(rows, r)
		}
	}
	return rows
}

// known reports whether a version was ever applied.
func (h *history) known(v version) bool {
	return slices.ContainsFunc(h.rows, func(r historyRow) bool { return r.version.compare(v) == 0 })
}

func (h *history) isApplied(v version) bool {
	return slices.ContainsFunc(h.applied, func(r historyRow) bool { return r.version.compare(v) == 0 })
}

// current is the highest version that is applied, as it is written, "" for none.
func (h *history) current() string {
	if len(h.applied) == 0 {
		return ""
	}
	return slices.MaxFunc(h.applied, func(a, b historyRow) int { return a.version.compare(b.version) }).versionText
}

// check says why a schema with this history cannot go back to target.
func (h *history) check(target version, text string) error {
	switch {
	case len(h.rows) == 0:
		return hint.Add(errors.New("no version was ever applied to this database"), "check which database dsn_file names")
	case !h.known(target):
		return hint.Add(fmt.Errorf("version %s was never applied to this database, which is at %s", text, h.current()), "check flyway.version")
	case len(h.above(target)) > 0 && !h.isApplied(target):
		return hint.Add(fmt.Errorf("version %s is not applied, though %s is", text, h.current()), "check flyway.version")
	}
	return nil
}

// undone writes the row that Flyway writes for an undo script.
func (h *history) undone(ctx context.Context, tx execer, s script, took time.Duration) error {
	h.lastRank++
	_, err := tx.Exec(ctx, "INSERT INTO "+h.table.Sanitize()+` (installed_rank, version, description, type, script, checksum, installed_by, execution_time, success)
		VALUES ($1, $2, $3, 'UNDO_SQL', $4, $5, current_user, $6, true)`,
		h.lastRank, s.versionText, s.description, s.path, s.checksum, took.Milliseconds())
	if err != nil {
		return fmt.Errorf("write %s: %w", h.table.Sanitize(), err)
	}
	return nil
}
