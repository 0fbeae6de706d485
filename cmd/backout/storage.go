package main

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"reflect"
	"slices"
	"strings"

	"github.com/alecthomas/kingpin/v2"

	"github.com/locotoki/backout/remediation"
	"github.com/locotoki/backout/remediation/store"
)

func (c *commands) addStorage() {
	storage := c.app.Command("storage", "Copy backout's own database, or prepare it. See docs/postgresql.md.")
	c.addStorageCopy(storage)
	c.addStorageMigrate(storage)
}

// copied is the answer of storage copy.
type copied struct {
	Rows map[string]int64 `json:"rows"`
	Head head             `json:"head"`
}

func (c *commands) addStorageCopy(parent *kingpin.CmdClause) {
	clause := parent.Command("copy", "Copy everything to an empty database, such as from SQLite to PostgreSQL, and compare every value. "+
		"The audit log stays the same byte for byte. Stop serve first.")
	from := clause.Flag("from", "The database to copy. It is brought up to this program's schema, and not changed otherwise.").PlaceHolder("DSN").Required().String()
	to := clause.Flag("to", "The empty database.").PlaceHolder("DSN").Required().String()
	output := c.outputFlag(clause, reflect.TypeFor[copied]())
	c.add(clause, func(ctx context.Context) (err error) {
		if err := errors.Join(withoutPassword("from", *from), withoutPassword("to", *to)); err != nil {
			return err
		}
		source, err := store.OpenExisting(ctx, *from)
		if err != nil {
			return wrong("", "--from: %w", err)
		}
		defer func() { err = closing(source, err) }()
		target, err := store.Open(ctx, *to)
		if err != nil {
			return wrong("", "--to: %w", err)
		}
		defer func() { err = closing(target, err) }()
		if err := errors.Join(withoutServer(ctx, source), withoutServer(ctx, target)); err != nil {
			return err
		}
		work := c.progress()
		done, err := store.Copy(ctx, source, target, func(table string, rows int64) { work.Say("%s: row %d", table, rows) })
		work.Done()
		if errors.Is(err, store.ErrNotEmpty) {
			return negative("", "%w", err)
		}
		if err != nil {
			return err
		}
		answer := copied{done.Rows, head{done.Seq, done.Hash}}
		if *output == outputJSON {
			return c.printJSON(answer)
		}
		return c.print(answer.words(*to))
	})
}

// words say what was copied, and what comes next.
func (d copied) words(to string) string {
	var b strings.Builder
	for _, table := range slices.Sorted(maps.Keys(d.Rows)) {
		if n := d.Rows[table]; n > 0 {
			fmt.Fprintf(&b, "%-17s %s\n", table, remediation.Counted(n, "row"))
		}
	}
	fmt.Fprintf(&b, "Copied and compared. Both logs end with %s.\nNext: start serve with --storage.dsn=%s\n", d.Head, to)
	return b.String()
}

// migrated is the answer of storage migrate.
type migrated struct {
	UpToDate bool `json:"up_to_date"`
}

func (c *commands) addStorageMigrate(parent *kingpin.CmdClause) {
	clause := parent.Command("migrate", "Create the database's tables or bring them up to this program's schema, as serve does when it starts. "+
		"Needed only if serve's role may not change tables.")
	dsn := clause.Flag("storage.dsn", "The database, with a role that owns its schema.").PlaceHolder("DSN").Required().String()
	output := c.outputFlag(clause, reflect.TypeFor[migrated]())
	c.add(clause, func(ctx context.Context) error {
		s, err := openForServing(ctx, *dsn, "")
		if err != nil {
			return err
		}
		return closing(s, c.answer(*output, migrated{true}, "The schema is up to date.\n", true))
	})
}
