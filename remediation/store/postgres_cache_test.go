package store

import "testing"

func TestDifferentQueriesHaveDifferentKeys(t *testing.T) {
	seen := map[string]int{}
	for i, values := range [][]any{
		nil, {nil}, {nil, nil}, {""}, {"", ""}, {`", "`}, {`"}`}, {"\x00"}, {"a", "b"}, {"a b"}, {"1"}, {[]byte("1")}, {[]string{"1"}}, {[]string{"1", ""}}, {[]string{"1"}, ""},
		{int64(1)}, {int64(0xD800)}, {int64(0xD801)}, {int64(0xFFFD)}, {int64(0x110000)}, {int64(1795953600_000000000)}, {int64(1795953600_000000001)}, {int64(-1)},
	} {
		k := key("SELECT ?", values)
		if other, ok := seen[k]; ok {
			t.Errorf("%#v has the key of query %d", values, other)
		}
		seen[k] = i
	}
}
