package store

import (
	"context"
	"embed"
	"errors"
	"fmt"
	"io/fs"
	"slices"

	"github.com/locotoki/backout/hint"
)

//go:embed migrations/*.sql
var migrationFiles embed.FS

// migration is one step of the schema; the first leads to version 1.
type migration struct{ name, sql string }

// migrations returns all steps in the order of their files' names. A step that
// was released is never changed.
func migrations() []migration {
	names, err := fs.Glob(migrationFiles, "migrations/*.sql")
	if err != nil {
		panic(err) // the pattern is a constant
	}
	slices.Sort(names)
	out := make([]migration, len(names))
	for i, n := range names {
		b, err := migrationFiles.ReadFile(n)
		if err != nil {
			panic(err) // it is in this very program
		}
		out[i] = migration{name: n, sql: string(b)}
	}
	return out
}

// applicationID marks a SQLite file as backout's: "bkot".
const applicationID = 0x626b6f74

// migrate brings the schema up to date, each step in a transaction that also
// counts the version up: a crash leaves a whole version behind.
func migrate(c *conn, steps []migration) error {
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

// checkSchema refuses any schema but the newest, for reading.
func checkSchema(c *conn, steps []migration) error {
	have, err := schemaVersion(c, steps)
	if err == nil && have < len(steps) {
		err = hint.Add(fmt.Errorf("its schema has version %d, this program needs %d", have, len(steps)), "start backout serve on it once")
	}
	return err
}

// schemaVersion returns how many steps were taken; an error where the file is
// not backout's or is newer than this program.
func schemaVersion(c *conn, steps []migration) (int, error) {
	var id, version, objects int
	for query, v := range map[string]*int{
		"PRAGMA application_id": &id, "PRAGMA user_version": &version, "SELECT count(*) FROM sqlite_schema": &objects,
	} {
		if err := c.query(context.Background(), query, nil, func(r row) error { return r.scan(v) }); err != nil {
			return 0, fmt.Errorf("read the schema's version: %w", err)
		}
	}
	switch {
	case id != applicationID && (objects > 0 || version > 0):
		return 0, hint.Add(errors.New("this SQLite file is another program's"), "another path in --storage.dsn")
	case version > len(steps):
		return 0, hint.Add(fmt.Errorf("its schema has version %d, this program knows %d", version, len(steps)), "the newer backout that wrote it")
	}
	return version, nil
}
