// Package audit is backout's tamper-evident log: its entries, the bytes they are
// hashed in, the chain that links them, and the search through them. The engine
// appends, a store keeps the bytes, and the receiver and the commands read. The
// package imports no other package of backout.
//
// # Canonical form
//
// An entry's hash is the lower-case hexadecimal SHA-256 of its canonical bytes.
// They are one JSON object in UTF-8, without spaces and without a line end:
//
//	{"action":S,"actor":S,"detail":O,"incident":S,"kind":S,"prev":S,"seq":I,"service":S,"step":S,"time":T}
//
// This is RFC 8785 with two differences: integers keep all their digits, and other
// numbers are refused. So
//   - object keys are ASCII, sorted by their bytes, none of them twice;
//   - a string S escapes only `"`, `\` and U+0000 to U+001F: the short forms
//     \" \\ \b \t \n \f \r, otherwise \u00xx in lower-case hexadecimal. All else is
//     raw UTF-8: U+007F, U+2028, <, > and & too. Each byte that was not part of valid
//     UTF-8 has been replaced by U+FFFD;
//   - a number I is an integer of up to 1,000 digits, without fraction, exponent,
//     leading zeros or "-0". Measured values are strings;
//   - detail O holds strings, integers, true, false, null, arrays and objects,
//     nested at most 32 deep;
//   - the time T is RFC 3339 in UTC with six digits of microseconds and a Z:
//     "2026-11-22T03:00:00.000000Z".
//
// Python writes the same bytes for the entry without its key "hash":
//
//	json.dumps(entry, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()
//
// Stored bytes that are anything else are refused. As JSON (a line of an export,
// the API) an entry is the same object with "hash" in its place after "detail".
//
// # Chain
//
// Entries are numbered 1, 2, 3, ... without a gap. An entry's prev is the hash of
// the entry before it, 64 zeros for the first, and prev is part of what is hashed.
// So a reader who knows a later hash can tell that nothing before it was changed,
// removed or inserted. Only a reader who knows a head from elsewhere can tell that
// the end was cut off.
//
// A checkpoint is an ordinary entry whose detail names the entry before it once
// more: {"hash": its prev, "seq": its seq - 1}. Pruning removes all entries before
// a checkpoint and nothing else, so a log begins either with seq 1 and 64 zeros,
// or with a checkpoint. Pruning changes no hash.
package audit

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"time"
)

// Entry is one entry of the audit log. All keys are always present; a key
// that does not apply is "" (detail: {}).
type Entry struct {
	Seq      int64     `json:"seq"`
	Time     time.Time `json:"time"`
	Kind     Kind      `json:"kind"`
	Actor    string    `json:"actor"`
	Service  string    `json:"service"`
	Incident string    `json:"incident"`
	Step     string    `json:"step"`
	Action   string    `json:"action"`
	// Detail holds strings, integers, booleans, null, arrays and objects with
	// ASCII keys; measured values are decimal strings.
	Detail map[string]any `json:"detail"`
	Prev   string         `json:"prev"`
	Hash   string         `json:"hash"`
	// omitted is how many bytes the entry has, where it is too large to be read, and sum
	// what they hash to.
	omitted int64
	sum     string
}

// MaxEntry is how many bytes of an entry are read. Versions before this one wrote
// larger ones; to read such a one would take many times its bytes.
const MaxEntry = 4 << 20

// PageBytes bounds how many bytes of entries are read at once, for a list or an export.
const PageBytes = 4 << 20

// Piece is how many bytes of an entry of more than MaxEntry bytes are read at a time.
const Piece = 1 << 20

// OmittedEntry stands for a stored entry of more than MaxEntry bytes, which was read a
// piece at a time: tail is its end, at least a Piece, sum the lower-case hexadecimal SHA-256
// of all of them. Who acted, and its detail, are left out.
func OmittedEntry(tail []byte, size int64, sum, hash string) (Entry, error) {
	// The keys are in order, and no string has a quotation mark of its own.
	i := bytes.LastIndex(tail, []byte(`,"incident":"`))
	if i < 0 {
		return Entry{}, errors.New("its end is not that of an entry")
	}
	tail[i] = '{'
	var o object
	if err := json.Unmarshal(tail[i:], &o); err != nil {
		return Entry{}, fmt.Errorf("its end is not that of an entry: %w", err)
	}
	e := Entry(o.fields)
	var err error
	if e.Time, err = time.Parse(timeFormat, o.Time); err != nil {
		return Entry{}, fmt.Errorf("its end is not that of an entry: %w", err)
	}
	e.Hash, e.omitted, e.sum = hash, size, sum
	e.Detail = map[string]any{"omitted_bytes": size, "why": "this entry is too large to be read, so its content is left out"}
	return e, nil
}

// Omitted reports whether the entry's content was left out.
func (e Entry) Omitted() bool { return e.omitted > 0 }
