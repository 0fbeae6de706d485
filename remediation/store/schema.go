package store

import (
	"embed"
	"errors"
	"fmt"
	"io/fs"
	"slices"

	"github.com/locotoki/backout/hint"
)

//go:embed migrations/*/*.sql
var migrationFiles embed.FS

// migration is one step of the schema; the first leads to version 1.
type migration struct{ name, sql string }

// migrations returns all steps of a database in the order of their files' names. A
// step that was released is never changed.
func migrations(of string) []migration {
	names, err := fs.Glob(migrationFiles, "migrations/"+of+"/*.sql")
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

// notNewer refuses a schema that a newer program wrote.
func notNewer(version int, steps []migration) error {
	if version > len(steps) {
		return hint.Add(fmt.Errorf("its schema has version %d, this program knows %d", version, len(steps)), "the newer backout that wrote it")
	}
	return nil
}

// errOlder: Open would bring the schema up to date.
var errOlder = errors.New("its schema is older than this program")

// errUnused is about a database that no server has run on.
func errUnused() error {
	return hint.Add(errors.New("backout has not written to it yet"), "the --storage.dsn that backout serve runs with")
}

// notOlder refuses a schema that reading cannot bring up to date.
func notOlder(version int, steps []migration) error {
	switch {
	case version == 0:
		return errUnused()
	case version < len(steps):
		return hint.Add(fmt.Errorf("%w: version %d, %d is needed", errOlder, version, len(steps)), "start backout serve on it once")
	}
	return nil
}
