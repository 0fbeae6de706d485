package store

import (
	"fmt"
	"testing"
)

func TestInsertsAreMergedWhereTheirOrderDoesNotMatter(t *testing.T) {
	insert := func(table string, n int) queued {
		return queued{"INSERT INTO " + table + " (n, x) VALUES ($1, $2)", []any{n, table}, []string{table}}
	}
	types := func(string) ([]string, error) { return []string{"int8", "text"}, nil }
	update := queued{"UPDATE b SET x = $1", []any{1}, []string{"b"}}
	head := queued{query: "UPDATE audit_head SET seq = $1"}
	for name, c := range map[string]struct {
		queue []queued
		want  string
	}{
		"nothing": {nil, "[]"},
		"one":     {[]queued{insert("a", 1)}, "[{INSERT INTO a (n, x) VALUES ($1, $2) [1 a] [a]}]"},
		"two tables in turns": {
			[]queued{insert("a", 1), insert("b", 1), insert("a", 2), insert("b", 2), head},
			"[{INSERT INTO a (n, x) SELECT * FROM unnest($1::int8[], $2::text[]) [[1 2] [a a]] [a]} {INSERT INTO b (n, x) SELECT * FROM unnest($1::int8[], $2::text[]) [[1 2] [b b]] [b]} {UPDATE audit_head SET seq = $1 [] []}]",
		},
		"three": {
			[]queued{insert("a", 1), insert("a", 2), insert("a", 3)},
			"[{INSERT INTO a (n, x) SELECT * FROM unnest($1::int8[], $2::text[]) [[1 2 3] [a a a]] [a]}]",
		},
	} {
		if got, err := merged(c.queue, types); err != nil || fmt.Sprint(got) != c.want {
			t.Errorf("%s: %v, want %s (%v)", name, got, c.want, err)
		}
	}
	for name, queue := range map[string][]queued{
		"an update of the table": {insert("b", 1), update, insert("b", 2)},
		"an update before":       {update, insert("b", 1), insert("b", 2)},
		"a savepoint":            {insert("a", 1), {query: "SAVEPOINT part"}, insert("a", 2)},
		"an upsert":              {{"INSERT INTO a (n) VALUES ($1) ON CONFLICT (n) DO UPDATE SET n = (1)", []any{1}, []string{"a"}}, {"INSERT INTO a (n) VALUES ($1) ON CONFLICT (n) DO UPDATE SET n = (1)", []any{1}, []string{"a"}}},
		"another insert":         {insert("a", 1), {"INSERT INTO a (n) VALUES ($1)", []any{2}, []string{"a"}}, insert("a", 3)},
	} {
		if got, err := merged(queue, types); err != nil || fmt.Sprint(got) != fmt.Sprint(queue) {
			t.Errorf("%s: %v, want %v (%v)", name, got, queue, err)
		}
	}
}
