package store

import (
	"bytes"
	"reflect"
	"sync"
	"time"

	"github.com/locotoki/backout/remediation"
)

// decoded keeps the incidents that were decoded last, with their bytes: a replay reads the
// same row several times a poll, and decoding is most of what that takes. The nil *decoded
// keeps none.
type decoded struct {
	mu   sync.Mutex
	rows map[int64]decodedRow
}

type decodedRow struct {
	body []byte
	inc  *remediation.Incident // nobody else has it
}

// maxDecoded is how many incidents are kept; the open ones are few.
const maxDecoded = 32

// incident returns a copy of what was decoded from the same bytes, nil where nothing was.
func (d *decoded) incident(n int64, body []byte) *remediation.Incident {
	if d == nil {
		return nil
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if r, ok := d.rows[n]; ok && bytes.Equal(r.body, body) {
		return copyOf(r.inc)
	}
	return nil
}

// keep keeps a copy of an incident.
func (d *decoded) keep(n int64, body []byte, inc *remediation.Incident) {
	if d == nil {
		return
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if len(d.rows) >= maxDecoded {
		clear(d.rows)
	}
	d.rows[n] = decodedRow{bytes.Clone(body), copyOf(inc)}
}

// copyOf copies a value of exported fields with all that it points to.
func copyOf[T any](v *T) *T {
	out := new(T)
	copyInto(reflect.ValueOf(out).Elem(), reflect.ValueOf(v).Elem())
	return out
}

func copyInto(to, from reflect.Value) {
	to.Set(from)
	switch from.Kind() {
	case reflect.Pointer:
		if !from.IsNil() {
			to.Set(reflect.New(from.Type().Elem()))
			copyInto(to.Elem(), from.Elem())
		}
	case reflect.Slice:
		if !from.IsNil() {
			to.Set(reflect.MakeSlice(from.Type(), from.Len(), from.Len()))
			if k := from.Type().Elem().Kind(); k == reflect.Uint8 || k == reflect.String {
				reflect.Copy(to, from)
				return
			}
			for i := range from.Len() {
				copyInto(to.Index(i), from.Index(i))
			}
		}
	case reflect.Map:
		if !from.IsNil() {
			to.Set(reflect.MakeMapWithSize(from.Type(), from.Len()))
			for each := from.MapRange(); each.Next(); {
				value := reflect.New(from.Type().Elem()).Elem()
				copyInto(value, each.Value())
				to.SetMapIndex(each.Key(), value)
			}
		}
	case reflect.Struct:
		if from.Type() == reflect.TypeFor[time.Time]() {
			return
		}
		for i := range from.NumField() {
			copyInto(to.Field(i), from.Field(i))
		}
	}
}
