package audit

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"
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
	canonical = sealed.encode(withoutHash)
	sealed.Hash = SumOf(canonical)
	return sealed, canonical, nil
}

// Canonical returns the bytes that Hash is the sum of, nil for an entry that has
// none; Normal says why.
func (e Entry) Canonical() []byte {
	n, err := e.Normal()
	if err != nil {
		return nil
	}
	return n.encode(withoutHash)
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
func (e Entry) MarshalJSON() ([]byte, error) {
	n, err := e.Normal()
	if err != nil {
		return nil, err
	}
	return n.encode(withHash), nil
}

// hashKey says whether an encoded entry has its key "hash".
type hashKey int

const (
	withoutHash hashKey = iota + 1
	withHash
)

// encode writes an entry that is in normal form.
func (n Entry) encode(hash hashKey) []byte {
	b := make([]byte, 0, 1024)
	b = appendString(append(b, `{"action":`...), n.Action)
	b = appendString(append(b, `,"actor":`...), n.Actor)
	b = appendMap(append(b, `,"detail":`...), n.Detail)
	if hash == withHash {
		b = appendString(append(b, `,"hash":`...), n.Hash)
	}
	b = appendString(append(b, `,"incident":`...), n.Incident)
	b = appendString(append(b, `,"kind":`...), string(n.Kind))
	b = appendString(append(b, `,"prev":`...), n.Prev)
	b = strconv.AppendInt(append(b, `,"seq":`...), n.Seq, 10)
	b = appendString(append(b, `,"service":`...), n.Service)
	b = appendString(append(b, `,"step":`...), n.Step)
	b = append(b, `,"time":"`...)
	b = n.Time.AppendFormat(b, timeFormat)
	return append(b, '"', '}')
}

// entryKeys are the keys of an entry; in stored bytes "hash" is not among them.
var entryKeys = []string{"action", "actor", "detail", "hash", "incident", "kind", "prev", "seq", "service", "step", "time"}

// UnmarshalJSON reads an entry as MarshalJSON writes it; spaces, the order of
// keys and other escapes of strings do not matter. Keys that are missing or
// unknown, and values that have no canonical form, are errors: what was hashed
// can then not be told.
func (e *Entry) UnmarshalJSON(b []byte) error {
	var keys map[string]json.RawMessage
	if err := json.Unmarshal(b, &keys); err != nil {
		return fmt.Errorf("audit entry: %w", err)
	}
	for _, k := range entryKeys {
		if v, ok := keys[k]; !ok || string(v) == "null" {
			return fmt.Errorf("audit entry: no key %q", k)
		}
	}
	if len(keys) != len(entryKeys) {
		var odd []string
		for k := range keys {
			if !slices.Contains(entryKeys, k) {
				odd = append(odd, k)
			}
		}
		slices.Sort(odd)
		return fmt.Errorf("audit entry: unknown keys %q", odd)
	}
	var hash string
	if err := json.Unmarshal(keys["hash"], &hash); err != nil {
		return fmt.Errorf("audit entry: hash: %w", err)
	}
	return e.decode(b, hash)
}

// ParseEntry reads canonical bytes, as a store keeps them, and the hash kept
// beside them. It fails unless they are the very bytes that the entry's
// Canonical gives; it does not check the hash.
func ParseEntry(canonical []byte, hash string) (Entry, error) {
	var e Entry
	if err := e.decode(canonical, hash); err != nil {
		return Entry{}, err
	}
	if !bytes.Equal(e.encode(withoutHash), canonical) {
		return Entry{}, fmt.Errorf("audit entry %d: its bytes are not in canonical form", e.Seq)
	}
	return e, nil
}

// decode reads an entry's keys but for hash.
func (e *Entry) decode(b []byte, hash string) error {
	var in struct {
		Action, Actor, Incident, Kind, Prev, Service, Step, Time string
		Seq                                                      int64
		Detail                                                   map[string]any
	}
	dec := json.NewDecoder(bytes.NewReader(b))
	dec.UseNumber()
	if err := dec.Decode(&in); err != nil {
		return fmt.Errorf("audit entry: %w", err)
	}
	t, err := time.Parse(timeFormat, in.Time)
	if err != nil || !strings.HasSuffix(in.Time, "Z") {
		return fmt.Errorf("audit entry %d: time %q is not written like %s", in.Seq, in.Time, timeFormat)
	}
	read, err := Entry{
		Seq: in.Seq, Time: t, Kind: Kind(in.Kind), Actor: in.Actor, Service: in.Service, Incident: in.Incident,
		Step: in.Step, Action: in.Action, Detail: in.Detail, Prev: in.Prev, Hash: hash,
	}.Normal()
	if err != nil {
		return err
	}
	*e = read
	return nil
}
