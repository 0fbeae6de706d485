package store

import (
	"database/sql"
	"database/sql/driver"
	"fmt"
)

// row is one row's values; they are valid until the next one is read.
type row []driver.Value

// scan copies the values. A value of another type than its destination is an
// error: the schema's tables are strict. What is kept as it is, such as JSON, is
// read into bytes.
func (r row) scan(dest ...any) error {
	if len(dest) != len(r) {
		return fmt.Errorf("%d columns for %d destinations", len(r), len(dest))
	}
	for i, v := range r {
		ok := false
		switch d := dest[i].(type) {
		case *int64:
			*d, ok = v.(int64)
		case *int:
			var n int64
			n, ok = v.(int64)
			*d = int(n)
		case *bool:
			var n int64
			n, ok = v.(int64)
			*d = n != 0
		case *string:
			*d, ok = textOf(v)
		case *[]byte:
			*d, ok = bytesOf(v)
		case *sql.NullInt64:
			d.Int64, d.Valid = v.(int64)
			ok = d.Valid || v == nil
		}
		if !ok {
			return fmt.Errorf("column %d holds a %T for a %T", i+1, v, dest[i])
		}
	}
	return nil
}

func textOf(v driver.Value) (s string, ok bool) {
	switch v := v.(type) {
	case string:
		return v, true
	case escaped:
		s, err := v.text()
		return s, err == nil
	}
	return "", false
}

func bytesOf(v driver.Value) (b []byte, ok bool) {
	switch v := v.(type) {
	case []byte:
		return v, true
	case string: // '' in a query
		return []byte(v), true
	case escaped:
		return []byte(v), true
	}
	return nil, false
}
