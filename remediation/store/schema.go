package store

import (
	"embed"
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

// notOlder refuses a schema that reading cannot bring up to date.
func notOlder(version int, steps []migration) error {
	if version < len(steps) {
		return hint.Add(fmt.Errorf("its schema has version %d, this program needs %d", version, len(steps)), "start backout serve on it once")
	}
	return nil
}
