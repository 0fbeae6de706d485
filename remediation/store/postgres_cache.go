package store

import (
	"fmt"
	"regexp"
	"slices"
)

// maxCached is the largest number of rows that is kept of a query.
const maxCached = 32

// cache answers what was read in this transaction already. Behind the head's lock
// nothing changes but by this transaction: Updates that share it ask for the same
// rollouts and incidents, and a round trip costs as much as all else of one. A query that
// names no table, as of the clock, is asked each time.
type cache map[string]cached

type cached struct {
	pgStatement
	values []any
	rows   []row
	// shared: it answered more than one question.
	shared bool
}

// maxAhead bounds what begin asks ahead.
const maxAhead = 8

// shared are the queries that answered more than one question: the calls of the next
// transaction are likely to ask the same, so begin asks it in the round trip that it takes
// anyway.
func (c cache) shared() (ahead []cached) {
	for _, known := range c {
		if known.shared && len(ahead) < maxAhead {
			ahead = append(ahead, cached{pgStatement: known.pgStatement, values: known.values})
		}
	}
	return ahead
}

// key tells apart what was asked: %#v writes every type that pgValues makes in full (%q
// writes a number as a character, and most numbers as the same one).
func key(text string, values []any) string { return fmt.Sprintf("%s\x00%#v", text, values) }

// written drops what was read of the tables that a statement changes.
func (c cache) written(tables []string) {
	for k, known := range c {
		if slices.ContainsFunc(known.tables, func(t string) bool { return slices.Contains(tables, t) }) {
			delete(c, k)
		}
	}
}

// named finds the tables in a statement of ours, and not a function such as in extract(epoch
// FROM clock_timestamp()).
var named = regexp.MustCompile(`\b(?:FROM|INTO|UPDATE|JOIN) ([a-z_]+)(?:[^a-z_(]|$)`)

// statement is a query with its placeholders as PostgreSQL has them, and its tables.
type pgStatement struct {
	text   string
	tables []string
}

func newStatement(query string) pgStatement {
	s := pgStatement{text: numbered(query)}
	for _, m := range named.FindAllStringSubmatch(query, -1) {
		s.tables = append(s.tables, m[1])
	}
	return s
}
