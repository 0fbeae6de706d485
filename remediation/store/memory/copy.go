package memory

import (
	"reflect"
	"sync"
	"time"
)

// copyOf copies a value of exported fields with all that it points to.
func copyOf[T any](v *T) *T {
	out := new(T)
	*out = *v
	if own := unsharer(reflect.TypeFor[T]()); own != nil {
		own(reflect.ValueOf(out).Elem())
	}
	return out
}

// unshare gives a value its own copy of what it points to.
type unshare func(v reflect.Value)

// unsharers are those of the types met so far.
var unsharers sync.Map

// unsharer returns a type's, nil where an assignment copies all of a value.
func unsharer(of reflect.Type) unshare {
	if known, ok := unsharers.Load(of); ok {
		return known.(unshare)
	}
	var own unshare
	switch of.Kind() {
	case reflect.Pointer:
		own = unsharePointer
	case reflect.Slice:
		own = unshareSlice
	case reflect.Map:
		own = unshareMap
	case reflect.Struct:
		own = unsharerOfFields(of)
	}
	unsharers.Store(of, own)
	return own
}

func unsharerOfFields(of reflect.Type) unshare {
	var index []int
	var each []unshare
	for i := 0; of != reflect.TypeFor[time.Time]() && i < of.NumField(); i++ {
		if own := unsharer(of.Field(i).Type); own != nil {
			index, each = append(index, i), append(each, own)
		}
	}
	if len(index) == 0 {
		return nil
	}
	return func(v reflect.Value) {
		for n, i := range index {
			each[n](v.Field(i))
		}
	}
}

func unsharePointer(v reflect.Value) {
	if v.IsNil() {
		return
	}
	copied := reflect.New(v.Type().Elem())
	copied.Elem().Set(v.Elem())
	v.Set(copied)
	if own := unsharer(v.Type().Elem()); own != nil {
		own(copied.Elem())
	}
}

func unshareSlice(v reflect.Value) {
	if v.IsNil() {
		return
	}
	copied := reflect.MakeSlice(v.Type(), v.Len(), v.Len())
	reflect.Copy(copied, v)
	v.Set(copied)
	if own := unsharer(v.Type().Elem()); own != nil {
		for i := range copied.Len() {
			own(copied.Index(i))
		}
	}
}

func unshareMap(v reflect.Value) {
	if v.IsNil() {
		return
	}
	copied := reflect.MakeMapWithSize(v.Type(), v.Len())
	own := unsharer(v.Type().Elem())
	for each := v.MapRange(); each.Next(); {
		value := reflect.New(v.Type().Elem()).Elem()
		if value.Set(each.Value()); own != nil {
			own(value)
		}
		copied.SetMapIndex(each.Key(), value)
	}
	v.Set(copied)
}
