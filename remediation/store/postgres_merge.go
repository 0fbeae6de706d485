package store

import (
	"slices"
	"strconv"
	"strings"
)

// mergeSizes are how many rows a merged INSERT has: few, so that there are few
// statements to prepare.
var mergeSizes = []int{32, 8, 2, 1}

// merged makes one INSERT with many rows of several with one: a statement costs the
// server more than a row. The INSERTs of a table are merged if nothing else that is
// queued touches it, and nothing is undone in between; they keep their order.
func merged(queue []queued) []queued {
	if slices.ContainsFunc(queue, func(q queued) bool { return len(q.tables) == 0 && !strings.HasPrefix(q.query, "UPDATE audit_head") }) {
		return queue // savepoints
	}
	same := map[string][]queued{} // by table; nil where its statements are not all the same INSERT
	for _, q := range queue {
		for _, t := range q.tables {
			before, seen := same[t]
			switch {
			case !seen && len(q.tables) == 1 && strings.HasPrefix(q.query, "INSERT ") && strings.HasSuffix(q.query, ")") && !strings.Contains(q.query, "ON CONFLICT"),
				len(before) > 0 && before[0].query == q.query:
				same[t] = append(before, q)
			default:
				same[t] = nil
			}
		}
	}
	var out []queued
	for _, q := range queue {
		if len(q.tables) != 1 || same[q.tables[0]] == nil {
			out = append(out, q)
			continue
		}
		rows := same[q.tables[0]]
		if len(rows) == 0 {
			continue // merged already
		}
		same[q.tables[0]] = []queued{}
		for len(rows) > 0 {
			size := mergeSizes[slices.IndexFunc(mergeSizes, func(n int) bool { return n <= len(rows) })]
			out = append(out, many(rows[:size]))
			rows = rows[size:]
		}
	}
	return out
}

// many is one INSERT with the rows of several.
func many(rows []queued) queued {
	if len(rows) == 1 {
		return rows[0]
	}
	into, _, _ := strings.Cut(rows[0].query, "VALUES ")
	var text strings.Builder
	text.WriteString(into + "VALUES ")
	var args []any
	for i, r := range rows {
		if i > 0 {
			text.WriteString(", ")
		}
		text.WriteByte('(')
		for j, a := range r.args {
			if j > 0 {
				text.WriteString(", ")
			}
			args = append(args, a)
			text.WriteString("$" + strconv.Itoa(len(args)))
		}
		text.WriteByte(')')
	}
	return queued{query: text.String(), args: args, tables: rows[0].tables}
}
