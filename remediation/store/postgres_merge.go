package store

import (
	"fmt"
	"slices"
	"strings"
)

// merged makes one INSERT with many rows of several with one: a statement costs the
// server more than a row. The INSERTs of a table are merged if nothing else that is
// queued touches it, and nothing is undone in between; they keep their order. types are those
// of a statement's placeholders.
func merged(queue []queued, types func(query string) ([]string, error)) ([]queued, error) {
	if slices.ContainsFunc(queue, func(q queued) bool { return len(q.tables) == 0 && !strings.HasPrefix(q.query, "UPDATE audit_head") }) {
		return queue, nil // savepoints
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
		if len(rows) == 1 {
			out = append(out, q)
			continue
		}
		columns, err := types(q.query)
		if err != nil {
			return nil, err
		}
		out = append(out, many(rows, columns))
	}
	return out, nil
}

// many is one INSERT with the rows of several: an array for each column, so that its text,
// which the server prepares, is the same for any number of rows.
func many(rows []queued, columns []string) queued {
	arrays, args := make([]string, len(columns)), make([]any, len(columns))
	for i, column := range columns {
		values := make([]any, len(rows))
		for j, r := range rows {
			values[j] = r.args[i]
		}
		arrays[i], args[i] = fmt.Sprintf("$%d::%s[]", i+1, column), values
	}
	into, _, _ := strings.Cut(rows[0].query, "VALUES ")
	return queued{query: into + "SELECT * FROM unnest(" + strings.Join(arrays, ", ") + ")", args: args, tables: rows[0].tables}
}
