package store

import (
	"context"
	"errors"
	"fmt"

	"github.com/locotoki/backout/hint"
)

// sqliteMigrations are the steps of a SQLite file's schema.
func sqliteMigrations() []migration { return migrations("sqlite") }

// applicationID marks a SQLite file as backout's: "bkot".
const applicationID = 0x626b6f74

// migrate brings the schema up to date, each step in a transaction that also
// counts the version up: a crash leaves a whole version behind.
func migrate(c *sqliteConn, steps []migration) error {
	have, err := schemaVersion(c, steps)
	if err != nil {
		return err
	}
	for i := have; i < len(steps); i++ {
		script := fmt.Sprintf("BEGIN IMMEDIATE;\n%s\n;PRAGMA application_id = %d; PRAGMA user_version = %d; COMMIT",
			steps[i].sql, applicationID, i+1)
		if err := c.script(script); err != nil {
			err = fmt.Errorf("bring the schema from version %d to %d (%s): %w", i, i+1, steps[i].name, err)
			if rerr := c.script("ROLLBACK"); rerr != nil {
				err = errors.Join(err, rerr)
			}
			return err
		}
	}
	return nil
}

// checkSQLite refuses any schema but the newest, for reading.
func checkSQLite(c *sqliteConn, steps []migration) error {
	have, err := schemaVersion(c, steps)
	if err != nil {
		return err
	}
	return notOlder(have, steps)
}

// schemaVersion returns how many steps were taken; an error where the file is
// not backout's or is newer than this program.
func schemaVersion(c *sqliteConn, steps []migration) (int, error) {
	var id, version, objects int
	for query, v := range map[string]*int{
		"PRAGMA application_id": &id, "PRAGMA user_version": &version, "SELECT count(*) FROM sqlite_schema": &objects,
	} {
		if err := c.query(context.Background(), query, nil, func(r row) error { return r.scan(v) }); err != nil {
			return 0, fmt.Errorf("read the schema's version: %w", err)
		}
	}
	if id != applicationID && (objects > 0 || version > 0) {
		return 0, hint.Add(errors.New("this SQLite file is another program's"), "another path in --storage.dsn")
	}
	return version, notNewer(version, steps)
}
