package memory

import (
	"encoding/json"
	"reflect"
	"testing"
	"time"

	"github.com/locotoki/backout/remediation"
)

// copies checks that a type has only what copyOf copies.
func copies(t *testing.T, of reflect.Type, seen map[reflect.Type]bool) {
	if seen[of] || of == reflect.TypeFor[time.Time]() {
		return
	}
	seen[of] = true
	switch of.Kind() {
	case reflect.Pointer, reflect.Slice, reflect.Map:
		copies(t, of.Elem(), seen)
	case reflect.Struct:
		for i := range of.NumField() {
			if !of.Field(i).IsExported() {
				t.Errorf("%s.%s is not exported", of, of.Field(i).Name)
			}
			copies(t, of.Field(i).Type, seen)
		}
	case reflect.Interface, reflect.Array, reflect.Chan, reflect.Func, reflect.UnsafePointer:
		t.Errorf("%s is not copied in depth", of)
	}
}

func TestRowsAreCopiedInDepth(t *testing.T) {
	seen := map[reflect.Type]bool{}
	for i, of := 0, reflect.TypeFor[state](); i < of.NumField(); i++ {
		row := of.Field(i).Type
		if row.Kind() == reflect.Slice {
			row = row.Elem()
		}
		if row != reflect.TypeFor[logged]() { // it is never changed, and read by its bytes
			copies(t, row, seen)
		}
	}
}

// fill puts something into everything, down to a depth: types may hold themselves.
func fill(v reflect.Value, depth int) {
	if depth == 0 {
		return
	}
	depth--
	switch v.Kind() {
	case reflect.Pointer:
		v.Set(reflect.New(v.Type().Elem()))
		fill(v.Elem(), depth)
	case reflect.Slice:
		if v.Type() == reflect.TypeFor[json.RawMessage]() {
			v.SetBytes([]byte(`{"a":1}`))
			return
		}
		v.Set(reflect.MakeSlice(v.Type(), 2, 2))
		fill(v.Index(0), depth)
		fill(v.Index(1), depth)
	case reflect.Map:
		v.Set(reflect.MakeMap(v.Type()))
		key, value := reflect.New(v.Type().Key()).Elem(), reflect.New(v.Type().Elem()).Elem()
		fill(key, depth)
		fill(value, depth)
		v.SetMapIndex(key, value)
	case reflect.Struct:
		if v.Type() == reflect.TypeFor[time.Time]() {
			v.Set(reflect.ValueOf(time.Date(2026, 1, 2, 3, 4, 5, 6, time.UTC)))
			return
		}
		for i := range v.NumField() {
			fill(v.Field(i), depth)
		}
	case reflect.String:
		v.SetString("x")
	case reflect.Bool:
		v.SetBool(true)
	case reflect.Int, reflect.Int64:
		v.SetInt(7)
	case reflect.Float64:
		v.SetFloat(0.5)
	}
}

func TestACopyOfAnIncidentSharesNothing(t *testing.T) {
	var a, b remediation.Incident
	fill(reflect.ValueOf(&a).Elem(), 9)
	fill(reflect.ValueOf(&b).Elem(), 9)
	one := copyOf(&a)
	if !reflect.DeepEqual(*one, b) {
		t.Errorf("the copy is %+v", one)
	}
	scribble(reflect.ValueOf(&a).Elem())
	if !reflect.DeepEqual(*one, b) {
		t.Error("the copy changes with the other")
	}
	if empty := copyOf(&remediation.Incident{}); !reflect.DeepEqual(*empty, remediation.Incident{}) {
		t.Errorf("of nothing: %+v", empty)
	}
}

// scribble changes all that is reached.
func scribble(v reflect.Value) {
	switch v.Kind() {
	case reflect.Pointer:
		if !v.IsNil() {
			scribble(v.Elem())
		}
	case reflect.Slice:
		for i := range v.Len() {
			scribble(v.Index(i))
		}
	case reflect.Map:
		v.Clear()
	case reflect.Struct:
		if v.Type() != reflect.TypeFor[time.Time]() {
			for i := range v.NumField() {
				scribble(v.Field(i))
			}
			return
		}
		v.SetZero()
	default:
		v.SetZero()
	}
}
