package store

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/locotoki/backout/remediation"
	"github.com/locotoki/backout/remediation/audit"
)

// lastEntry is the end of the audit log.
const lastEntry = "SELECT seq, hash FROM audit ORDER BY seq DESC LIMIT 1"

// Head implements remediation.AuditTable.
func (t *tx) Head() (seq int64, hash string, err error) {
	if t.head != nil {
		if err := t.usable(); err != nil {
			return 0, "", err
		}
		return t.head.seq, t.head.hash, nil
	}
	hash = audit.ZeroHash
	err = t.row(lastEntry, nil, &seq, &hash)
	if err != nil && !errors.Is(err, remediation.ErrNotFound) {
		return 0, "", fmt.Errorf("audit head: %w", err)
	}
	return seq, hash, nil
}

// Append implements remediation.AuditTable. The entry returned is in normal
// form: its numbers are json.Number.
func (t *tx) Append(e audit.Entry) (audit.Entry, error) {
	if err := t.usable(); err != nil {
		return audit.Entry{}, err
	}
	if !t.write {
		return audit.Entry{}, ErrReadOnly
	}
	e, canonical, err := e.Seal(t.head.seq, t.head.hash)
	if err != nil {
		return audit.Entry{}, fmt.Errorf("append: %w", err)
	}
	err = t.exec("INSERT INTO audit (seq, kind, service, incident, hash, entry) VALUES (?, ?, ?, ?, ?, ?)",
		e.Seq, string(e.Kind), e.Service, e.Incident, e.Hash, canonical)
	if err != nil {
		return audit.Entry{}, fmt.Errorf("append audit entry %d: %w", e.Seq, err)
	}
	t.head.seq, t.head.hash = e.Seq, e.Hash
	t.appended = append(t.appended, e)
	return e, nil
}

// Appended implements remediation.AuditTable.
func (t *tx) Appended() []audit.Entry { return slices.Clone(t.appended) }

// Entries implements remediation.AuditTable. It fails on an entry whose
// columns are not those of its bytes.
func (t *tx) Entries(f audit.Filter) ([]audit.Entry, error) {
	out := []audit.Entry{}
	large := map[int]stored{} // by the place in out
	err := t.eachEntry(f, func(s stored) error {
		if s.size > audit.MaxEntry {
			large[len(out)] = s
			out = append(out, audit.Entry{})
			return nil
		}
		e, err := s.entry(audit.ParseEntry(s.canonical, s.hash))
		out = append(out, e)
		return err
	})
	for i := range out {
		s, ok := large[i]
		if !ok {
			continue
		}
		e, broken := t.readLarge(s)
		if broken != nil { // before what err is about
			err = broken
			break
		}
		out[i] = e
	}
	if err != nil {
		return nil, fmt.Errorf("read the audit log: %w", err)
	}
	if f.Newest {
		slices.Reverse(out)
	}
	return out, nil
}

// columns are what an entry is read from; one that is too large is not read.
var columns = fmt.Sprintf("SELECT seq, kind, service, incident, hash, octet_length(entry), CASE WHEN octet_length(entry) <= %d THEN entry ELSE '' END FROM audit", audit.MaxEntry)

// eachEntry calls each for the entries that match, newest first where f says so.
func (t *tx) eachEntry(f audit.Filter, each func(stored) error) error {
	q := query{from: columns, words: t.c.dialect()}
	q.byIndex(f, func(column, value string) { q.where("'' || "+column+" = ?", value) })
	if f.After > 0 {
		q.where("seq > ?", f.After)
	}
	if f.Before > 0 {
		q.where("seq < ?", f.Before)
	}
	if f.Text != "" {
		// As bytes, since it is part of what is kept as it is.
		q.where(fmt.Sprintf("CASE WHEN octet_length(entry) <= %d THEN %s ELSE 1 = 0 END", audit.MaxEntry, q.words.contains), []byte(f.Text))
	}
	size := 0
	return t.rows(q.text("seq", f.Newest, f.Limit), q.args, func(r row) error {
		var s stored
		err := r.scan(&s.seq, &s.kind, &s.service, &s.incident, &s.hash, &s.size, &s.canonical)
		if err == nil {
			err = each(s)
		}
		if size += len(s.canonical); err == nil && f.Bytes > 0 && size >= f.Bytes {
			return errEnough
		}
		return err
	})
}

// byIndex adds the condition of f that finds the fewest entries: its index answers
// in the order of seq. The others are for the caller, who hides their columns from
// SQLite's planner by an expression.
func (q *query) byIndex(f audit.Filter, other func(column, value string)) (indexed bool) {
	for _, c := range []struct{ column, value, found string }{
		{"incident", f.Incident, "incident = ? AND incident <> ''"},
		{"kind", string(f.Kind), "kind = ?"},
		{"service", f.Service, q.words.ofService + " AND service <> ''"},
	} {
		switch {
		case c.value == "":
		case indexed:
			other(c.column, c.value)
		default:
			q.where(c.found, slices.Repeat([]any{c.value}, strings.Count(c.found, "?"))...)
			indexed = true
		}
	}
	return indexed
}

// Reach implements remediation.AuditTable. It reads the index alone.
func (t *tx) Reach(f audit.Filter, n int) (seq int64, err error) {
	q := query{from: "SELECT seq FROM audit", words: t.c.dialect()}
	indexed := q.byIndex(f, func(string, string) {})
	if !indexed { // the log itself: its Seqs have no gaps
		before := f.Before
		if before == 0 {
			head, _, err := t.Head()
			if err != nil {
				return 0, err
			}
			before = head + 1
		}
		return max(before-int64(n), 0), nil
	}
	if f.Before > 0 {
		q.where("seq < ?", f.Before)
	}
	err = t.row(q.text("seq", true, 1)+" OFFSET ?", append(q.args, n-1), &seq)
	if err != nil && !errors.Is(err, remediation.ErrNotFound) {
		return 0, fmt.Errorf("read how far the audit log's index goes back: %w", err)
	}
	return seq, nil
}

// stored is a row of the audit log. The bytes of an entry that is too large are not read
// with it.
type stored struct {
	seq, size                     int64
	kind, service, incident, hash string
	canonical                     []byte
}

// entry is what was read of the entry's bytes, unless its columns are not those of them.
func (s stored) entry(e audit.Entry, err error) (audit.Entry, error) {
	switch {
	case err != nil:
		return audit.Entry{}, &audit.BrokenChainError{Seq: s.seq, Why: err.Error()}
	case e.Seq != s.seq || string(e.Kind) != s.kind || e.Service != s.service || e.Incident != s.incident:
		return audit.Entry{}, &audit.BrokenChainError{
			Seq: s.seq, Why: "the columns it is found by were changed: they are not those of its bytes",
		}
	}
	return e, nil
}

// readLarge reads an entry that is too large for memory, a piece at a time.
func (t *tx) readLarge(s stored) (audit.Entry, error) {
	sum := sha256.New()
	var tail []byte
	for at := int64(0); at < s.size; at += audit.Piece {
		var piece []byte
		if err := t.row("SELECT substr(entry, ?, ?) FROM audit WHERE seq = ?", []any{at + 1, audit.Piece, s.seq}, &piece); err != nil {
			return audit.Entry{}, fmt.Errorf("entry %d: %w", s.seq, err)
		}
		sum.Write(piece)
		tail = append(tail[max(0, len(tail)-audit.Piece):], piece...)
	}
	return s.entry(audit.OmittedEntry(tail, s.size, hex.EncodeToString(sum.Sum(nil)), s.hash))
}
