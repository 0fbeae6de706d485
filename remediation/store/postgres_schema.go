package store

import (
	"context"
	"errors"
	"fmt"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/locotoki/backout/hint"
)

// postgresMigrations are the steps of a PostgreSQL schema.
func postgresMigrations() []migration { return migrations("postgres") }

// noPrivilege is PostgreSQL's code for what a role may not do.
const noPrivilege = "42501"

// migratePostgres brings the schema up to date in one transaction. An advisory lock
// lets one server at a time do it; a crash leaves the version before.
func migratePostgres(ctx context.Context, c *pgConn, steps []migration) error {
	have, err := postgresVersion(ctx, c, steps)
	if err != nil || have == len(steps) {
		return err
	}
	err = pgx.BeginFunc(ctx, c.c, func(tx pgx.Tx) error {
		if _, err := tx.Exec(ctx, "SELECT pg_advisory_xact_lock(hashtextextended('backout schema ' || $1, 0))", c.db.schema); err != nil {
			return fmt.Errorf("wait for another server's change of the schema: %w", err)
		}
		if have, err = postgresVersion(ctx, c, steps); err != nil {
			return err
		}
		if have == 0 {
			if err := createSchema(ctx, tx, c.db.schema); err != nil {
				return err
			}
		}
		for i := have; i < len(steps); i++ {
			if _, err := tx.Conn().PgConn().Exec(ctx, steps[i].sql).ReadAll(); err != nil {
				return fmt.Errorf("bring the schema from version %d to %d (%s): %w", i, i+1, steps[i].name, err)
			}
		}
		_, err = tx.Exec(ctx, "UPDATE schema_version SET version = $1", len(steps))
		return err
	})
	if refusal := (*pgconn.PgError)(nil); errors.As(err, &refusal) && refusal.Code == noPrivilege {
		if have > 0 {
			return hint.Add(err, "backout storage migrate, with the role that owns the schema")
		}
		return hint.Add(err, "as an administrator: CREATE SCHEMA %s AUTHORIZATION %s", c.db.schema, pgx.Identifier{c.db.config.User}.Sanitize())
	}
	return err
}

// createSchema makes the schema where there is none, and the table of its version.
func createSchema(ctx context.Context, tx pgx.Tx, name string) error {
	var there bool
	if err := tx.QueryRow(ctx, "SELECT to_regnamespace($1) IS NOT NULL", name).Scan(&there); err != nil {
		return fmt.Errorf("look for schema %s: %w", name, err)
	}
	if !there {
		if _, err := tx.Exec(ctx, "CREATE SCHEMA "+name); err != nil {
			return fmt.Errorf("create schema %s: %w", name, err)
		}
	}
	_, err := tx.Conn().PgConn().Exec(ctx, "CREATE TABLE "+name+".schema_version (version bigint NOT NULL); INSERT INTO "+name+".schema_version VALUES (0)").ReadAll()
	if err != nil {
		return fmt.Errorf("create the tables in schema %s: %w", name, err)
	}
	return nil
}

// postgresVersion returns how many steps were taken; an error where the schema is not
// backout's or is newer than this program.
func postgresVersion(ctx context.Context, c *pgConn, steps []migration) (version int, err error) {
	var ours, others bool
	err = c.c.QueryRow(ctx, `SELECT coalesce(bool_or(relname = 'schema_version'), false), coalesce(bool_or(relname <> 'schema_version'), false)
		FROM pg_class WHERE relnamespace = to_regnamespace($1) AND relkind IN ('r', 'v', 'p', 'm')`, c.db.schema).Scan(&ours, &others)
	if err == nil && !ours && others {
		return 0, hint.Add(fmt.Errorf("schema %s is another program's", c.db.schema), "another schema: search_path=NAME in the dsn")
	}
	if err == nil && ours {
		err = c.c.QueryRow(ctx, "SELECT version FROM "+c.db.schema+".schema_version").Scan(&version)
	}
	if err != nil {
		return 0, fmt.Errorf("read the schema's version: %w", err)
	}
	return version, notNewer(version, steps)
}
