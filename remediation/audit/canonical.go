package audit

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"time"

	"github.com/go-json-experiment/json/jsontext"
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
	sealed.Hash = SumOf(canonical)
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
		return e.Hash // its content is not there to be summed
	}
	b := e.Canonical()
	if b == nil {
		return ""
	}
	return SumOf(b)
}

// SumOf returns the lower-case hexadecimal SHA-256 of an entry's canonical bytes.
func SumOf(canonical []byte) string {
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
