package audit

import (
	"bytes"
	"crypto/sha256"
	"encoding"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"reflect"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/go-json-experiment/json/jsontext"
	"github.com/prometheus/common/model"
)

// Normal returns the entry as the log holds it: the time in UTC, cut to
// microseconds; invalid UTF-8 replaced; numbers of detail as json.Number. It
// fails where detail holds what has no canonical form, such as a float.
func (e Entry) Normal() (Entry, error) {
	var err error
	if e.Time, err = normalTime(e.Time); err != nil {
		return Entry{}, fmt.Errorf("audit entry of kind %q: %w", e.Kind, err)
	}
	if e.Detail, err = normalDetail(e.Detail); err != nil {
		return Entry{}, fmt.Errorf("audit entry of kind %q: %w", e.Kind, err)
	}
	e.Kind = Kind(normalString(string(e.Kind)))
	for _, s := range []*string{&e.Actor, &e.Service, &e.Incident, &e.Step, &e.Action, &e.Prev, &e.Hash} {
		*s = normalString(*s)
	}
	return e, nil
}

// Seal makes e the entry that follows the given head: it gives it Seq, Prev and
// Hash, and returns it in normal form with its canonical bytes.
func (e Entry) Seal(seq int64, hash string) (sealed Entry, canonical []byte, err error) {
	e.Seq, e.Prev, e.Hash = seq+1, hash, ""
	if sealed, err = e.Normal(); err != nil {
		return Entry{}, nil, err
	}
	if canonical, err = sealed.encode(withoutHash); err != nil {
		return Entry{}, nil, err
	}
	sealed.Hash = sumOf(canonical)
	return sealed, canonical, nil
}

// Canonical returns the bytes that Hash is the sum of, nil for an entry that has
// none; Normal says why.
func (e Entry) Canonical() []byte {
	b, err := e.normalBytes(withoutHash)
	if err != nil {
		return nil
	}
	return b
}

// Sum returns what Hash must be: the lower-case hexadecimal SHA-256 of
// Canonical. It is "", which no Hash is, for an entry that has no such form.
func (e Entry) Sum() string {
	if e.Omitted() {
		return e.sum
	}
	b := e.Canonical()
	if b == nil {
		return ""
	}
	return sumOf(b)
}

// sumOf returns the lower-case hexadecimal SHA-256 of an entry's canonical bytes.
func sumOf(canonical []byte) string {
	sum := sha256.Sum256(canonical)
	return hex.EncodeToString(sum[:])
}

// MarshalJSON returns the canonical form with "hash" in its place: a line of an
// export. json.Marshal and an Encoder that escapes HTML rewrite its strings;
// the JSON then means the same, but its bytes are not what was hashed.
func (e Entry) MarshalJSON() ([]byte, error) { return e.normalBytes(withHash) }

func (e Entry) normalBytes(hash hashKey) ([]byte, error) {
	n, err := e.Normal()
	if err != nil {
		return nil, err
	}
	return n.encode(hash)
}

// hashKey says whether an encoded entry has its key "hash".
type hashKey int

const (
	withoutHash hashKey = iota + 1
	withHash
)

// fields are an entry's, without its methods.
type fields Entry

// object is an entry as it is written; its own fields take the place of the
// embedded ones.
type object struct {
	fields
	Time string  `json:"time"`
	Hash *string `json:"hash,omitempty"`
}

// encode writes an entry that is in normal form.
func (n Entry) encode(hash hashKey) ([]byte, error) {
	o := object{fields: fields(n), Time: n.Time.Format(timeFormat)}
	if hash == withHash {
		o.Hash = &n.Hash
	}
	b, err := json.Marshal(o)
	if err != nil {
		return nil, fmt.Errorf("audit entry %d: %w", n.Seq, err)
	}
	return canonicalize(b)
}

// canonicalize rewrites JSON as RFC 8785 says, except that numbers stay as they are:
// it would round an integer beyond 2^53. A name that an object has twice and invalid
// UTF-8 are errors.
func canonicalize(b []byte) ([]byte, error) {
	v := jsontext.Value(b)
	err := v.Canonicalize(jsontext.CanonicalizeRawInts(false), jsontext.CanonicalizeRawFloats(false))
	if err != nil {
		return nil, fmt.Errorf("audit entry: %w", err)
	}
	return v, nil
}

// UnmarshalJSON reads an entry as MarshalJSON writes it; spaces, the order of
// keys and other escapes of strings do not matter. Keys that are missing, unknown
// or written twice, and values that have no canonical form, are errors: nobody
// could tell what was hashed.
func (e *Entry) UnmarshalJSON(b []byte) error {
	b, err := canonicalize(bytes.Clone(b))
	if err != nil {
		return err
	}
	return e.decode(b, withHash)
}

// ParseEntry reads canonical bytes, as a store keeps them, and the hash kept
// next to them. It fails unless they are the very bytes that the entry's
// Canonical gives; it does not check the hash.
func ParseEntry(canonical []byte, hash string) (Entry, error) {
	var e Entry
	if err := e.decode(canonical, withoutHash); err != nil {
		return Entry{}, err
	}
	e.Hash = hash
	return e, nil
}

// decode reads what encode writes, and nothing else.
func (e *Entry) decode(b []byte, hash hashKey) error {
	var o object
	dec := json.NewDecoder(bytes.NewReader(b))
	dec.UseNumber()
	dec.DisallowUnknownFields()
	if err := dec.Decode(&o); err != nil {
		return fmt.Errorf("audit entry: %w", err)
	}
	read := Entry(o.fields)
	var err error
	if read.Time, err = time.Parse(timeFormat, o.Time); err != nil {
		return fmt.Errorf("audit entry %d: time %q is not written like %s", read.Seq, o.Time, timeFormat)
	}
	if o.Hash != nil {
		read.Hash = *o.Hash
	}
	if read, err = read.Normal(); err != nil {
		return err
	}
	again, err := read.encode(hash)
	if err != nil {
		return err
	}
	if !bytes.Equal(again, b) {
		return fmt.Errorf("audit entry %d: not in canonical form, or its keys are not those of an entry", read.Seq)
	}
	*e = read
	return nil
}

// timeFormat is how an entry's time is written.
const timeFormat = "2006-01-02T15:04:05.000000Z"

const (
	maxDigits = 1000 // of an integer; Python refuses to read over 4,300
	maxDepth  = 32   // of detail
)

// errFloat: languages print such a number differently, so it has no canonical form.
var errFloat = errors.New("not an integer; write measured values as decimal strings")

// normalString replaces each byte that is not part of valid UTF-8 by U+FFFD.
func normalString(s string) string {
	if utf8.ValidString(s) {
		return s
	}
	var b strings.Builder
	for _, r := range s { // gives U+FFFD for each such byte
		b.WriteRune(r)
	}
	return b.String()
}

// normalTime cuts a time to what an entry holds.
func normalTime(t time.Time) (time.Time, error) {
	t = t.UTC().Truncate(time.Microsecond)
	if y := t.Year(); y < 0 || y > 9999 {
		return t, fmt.Errorf("time: the year %d has no four digits", y)
	}
	return t, nil
}

// normalDetail returns detail in the types that reading an entry back gives:
// string, json.Number, bool, nil, []any and map[string]any.
func normalDetail(d map[string]any) (map[string]any, error) {
	out, err := normalMap(d, 1)
	if err != nil {
		return nil, fmt.Errorf("detail%w", err)
	}
	return out, nil
}

// normalValue returns one value of detail in normal form. An error begins with
// the path to the value.
func normalValue(v any, depth int) (any, error) {
	if depth > maxDepth {
		return nil, fmt.Errorf(": nested more than %d deep", maxDepth)
	}
	switch v := v.(type) {
	case nil:
		return nil, nil
	case bool:
		return v, nil
	case string:
		return normalString(v), nil
	case json.Number:
		return normalNumber(v)
	case time.Time:
		return v.UTC().Format(time.RFC3339Nano), nil
	case *time.Time:
		if v == nil {
			return nil, nil
		}
		return v.UTC().Format(time.RFC3339Nano), nil
	case time.Duration:
		return model.Duration(v).String(), nil
	case json.RawMessage:
		return normalRaw(v, depth)
	case map[string]any:
		return normalMap(v, depth)
	case map[string]string:
		return normalMap(v, depth)
	case []any:
		return normalList(v, depth)
	case []string:
		return normalList(v, depth)
	case []map[string]any:
		return normalList(v, depth)
	}
	return normalOther(v, depth)
}

func normalMap[V any](m map[string]V, depth int) (map[string]any, error) {
	out := make(map[string]any, len(m))
	for k, v := range m {
		for i := range len(k) {
			if k[i] >= utf8.RuneSelf {
				return nil, fmt.Errorf(".%q: a key that is not ASCII; write labels as [[name,value],...]", k)
			}
		}
		n, err := normalValue(v, depth+1)
		if err != nil {
			return nil, fmt.Errorf(".%s%w", k, err)
		}
		out[k] = n
	}
	return out, nil
}

func normalList[V any](l []V, depth int) ([]any, error) {
	out := make([]any, len(l))
	for i, v := range l {
		n, err := normalValue(v, depth+1)
		if err != nil {
			return nil, fmt.Errorf("[%d]%w", i, err)
		}
		out[i] = n
	}
	return out, nil
}

// normalRaw decodes JSON that someone else wrote; none at all is null.
func normalRaw(raw json.RawMessage, depth int) (any, error) {
	if len(raw) == 0 {
		return nil, nil
	}
	dec := json.NewDecoder(bytes.NewReader(raw))
	dec.UseNumber()
	var v any
	if err := dec.Decode(&v); err != nil {
		return nil, fmt.Errorf(": decode JSON: %w", err)
	}
	if _, err := dec.Token(); !errors.Is(err, io.EOF) {
		return nil, errors.New(": decode JSON: more than one value")
	}
	return normalValue(v, depth)
}

// normalNumber checks that a number is an integer and rids it of "-0".
func normalNumber(n json.Number) (any, error) {
	s := string(n)
	digits := strings.TrimPrefix(s, "-")
	switch {
	case digits == "" || strings.Trim(digits, "0123456789") != "" || (len(digits) > 1 && digits[0] == '0'):
		return nil, fmt.Errorf(": %.40q: %w", s, errFloat)
	case len(digits) > maxDigits:
		return nil, fmt.Errorf(": an integer of over %d digits", maxDigits)
	case digits == "0":
		return json.Number("0"), nil
	}
	return n, nil
}

// normalOther takes the types that are rarer: what writes itself as text or
// JSON, such as a risk class, and named or sized types. A struct must be made a
// map by who knows which of its fields are measured values.
func normalOther(v any, depth int) (any, error) {
	switch v.(type) {
	case json.Marshaler, encoding.TextMarshaler:
		raw, err := json.Marshal(v)
		if err != nil {
			return nil, fmt.Errorf(": %w", err)
		}
		return normalRaw(raw, depth)
	}
	r := reflect.ValueOf(v)
	switch r.Kind() {
	case reflect.String:
		return normalString(r.String()), nil
	case reflect.Bool:
		return r.Bool(), nil
	case reflect.Int, reflect.Int8, reflect.Int16, reflect.Int32, reflect.Int64:
		return json.Number(strconv.FormatInt(r.Int(), 10)), nil
	case reflect.Uint, reflect.Uint8, reflect.Uint16, reflect.Uint32, reflect.Uint64:
		return json.Number(strconv.FormatUint(r.Uint(), 10)), nil
	case reflect.Float32, reflect.Float64:
		return nil, fmt.Errorf(": %v: %w", v, errFloat)
	case reflect.Pointer:
		if r.IsNil() {
			return nil, nil
		}
		return normalValue(r.Elem().Interface(), depth+1)
	case reflect.Slice:
		if r.Type().Elem().Kind() == reflect.Uint8 {
			break
		}
		l := make([]any, r.Len())
		for i := range l {
			l[i] = r.Index(i).Interface()
		}
		return normalList(l, depth)
	case reflect.Map:
		if r.Type().Key().Kind() != reflect.String {
			break
		}
		m := make(map[string]any, r.Len())
		for it := r.MapRange(); it.Next(); {
			m[it.Key().String()] = it.Value().Interface()
		}
		return normalMap(m, depth)
	}
	return nil, fmt.Errorf(": a %T has no canonical form; give strings, integers, booleans, lists and maps of them", v)
}
