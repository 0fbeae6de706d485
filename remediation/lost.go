package remediation

import (
	"cmp"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strings"
	"unicode/utf8"
)

// LostWhat is a part of a database that can be lost.
type LostWhat string

// The parts.
const (
	LostTable  LostWhat = "table"
	LostColumn LostWhat = "column"
	LostRows   LostWhat = "rows" // of a table that is still there
)

// Lost is what a step lost of one table.
type Lost struct {
	What   LostWhat `json:"what"`
	Schema string   `json:"schema"`
	Table  string   `json:"table"`
	Column string   `json:"column,omitempty"`
	// Rows are those of the table, or those of them that are lost.
	Rows int64 `json:"rows"`
}

func (l Lost) String() string {
	table := l.Schema + "." + l.Table
	switch l.What {
	case LostColumn:
		return fmt.Sprintf("column %s.%s in %s", table, l.Column, Counted(l.Rows, "row"))
	case LostRows:
		return Counted(l.Rows, "row") + " of " + table
	}
	return fmt.Sprintf("table %s (%s)", table, Counted(l.Rows, "row"))
}

// listedLost is how much of what was lost is said, and in how many characters: where a text is
// bounded, the snapshot, which is named after it, must not be cut off.
const (
	listedLost = 10
	lostLong   = 200
)

// LostWords say what was lost, at least the first of it.
func LostWords(all []Lost) string {
	var words string
	for i, l := range all {
		next := l.String()
		if i > 0 {
			next = words + ", " + next
		}
		if i == listedLost || i > 0 && utf8.RuneCountInString(next) > lostLong {
			return fmt.Sprintf("%s, and %d more", words, len(all)-i)
		}
		words = next
	}
	return words
}

// WayBack is a command with which a person gets lost data back, and what it does.
type WayBack struct{ Does, Command string }

// WaysBack lead from the snapshot of a database to what a step lost of it. The last one
// replaces the database, the ones before it change none: an error may name the first alone.
// The database's address is in dsnFile, "" if that is not known; database, "" if not known,
// is only its name.
func WaysBack(path, dsnFile, database string, lost []Lost) (ways []WayBack) {
	toFile := func(does, name string, gone func(Lost) bool) {
		tables := map[string][]string{} // by schema
		for _, l := range lost {
			if gone(l) {
				tables[l.Schema] = append(tables[l.Schema], " --table="+shellWord(l.Table))
			}
		}
		file, from := shellWord(strings.TrimSuffix(path, ".dump")+name), shellWord(path)
		var commands []string
		// pg_restore takes each table from each schema that it is given, so it is given one.
		for _, schema := range slices.Sorted(maps.Keys(tables)) {
			slices.Sort(tables[schema])
			to := file
			if len(tables) > 1 {
				to = "-"
			}
			commands = append(commands, "pg_restore --schema="+shellWord(schema)+strings.Join(slices.Compact(tables[schema]), "")+" --file="+to+" "+from)
		}
		command := strings.Join(commands, " && ")
		switch {
		case len(lost) == 0:
			command = "pg_restore --file=" + file + " " + from
		case len(commands) == 0:
			return
		case len(commands) > 1:
			command = "(" + command + ") >" + file
		}
		ways = append(ways, WayBack{"Write " + does + " to a file as SQL. This changes no database.", command})
	}
	if len(lost) == 0 {
		toFile("the snapshot", ".sql", nil)
	} else {
		toFile("the lost tables", "-lost.sql", func(l Lost) bool { return l.What == LostTable })
		toFile("the tables that lost columns or rows", "-changed.sql", func(l Lost) bool { return l.What != LostTable })
	}
	to, also := shellWord(cmp.Or(database, "DATABASE")), " Add the database's host and user."
	if dsnFile != "" {
		to, also = `"$(cat `+shellWord(dsnFile)+`)"`, ""
	}
	return append(ways, WayBack{"Replace the whole database with the snapshot. Rows written since the snapshot are lost." + also,
		"pg_restore --clean --if-exists --single-transaction --dbname=" + to + " " + shellWord(path)})
}

var plainWord = regexp.MustCompile(`^[\w@%+=:,./-]+$`)

// shellWord is a text as a shell takes it for one word, in quotes only where it needs them.
func shellWord(text string) string {
	if plainWord.MatchString(text) {
		return text
	}
	return "'" + strings.ReplaceAll(text, "'", `'\''`) + "'"
}
