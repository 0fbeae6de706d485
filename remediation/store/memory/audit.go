package memory

import (
	"bytes"
	"fmt"
	"slices"

	"github.com/locotoki/backout/remediation/audit"
)

// Head implements remediation.AuditTable.
func (t *tx) Head() (seq int64, hash string, err error) {
	if n := len(t.log); n > 0 {
		return int64(n), t.log[n-1].hash, t.usable()
	}
	return 0, audit.ZeroHash, t.usable()
}

// Append implements remediation.AuditTable. The entry returned is in normal form: its
// numbers are json.Number.
func (t *tx) Append(e audit.Entry) (audit.Entry, error) {
	if err := t.writable(); err != nil {
		return audit.Entry{}, err
	}
	seq, hash, err := t.Head()
	if err != nil {
		return audit.Entry{}, err
	}
	e, canonical, err := e.Seal(seq, hash)
	if err != nil {
		return audit.Entry{}, fmt.Errorf("append: %w", err)
	}
	// An Update that failed left room behind the entries, which nobody reads.
	t.log = append(t.log, logged{e.Kind, e.Service, e.Incident, e.Hash, canonical})
	t.appended = append(t.appended, e)
	return e, nil
}

// Appended implements remediation.AuditTable.
func (t *tx) Appended() []audit.Entry { return slices.Clone(t.appended) }

// Entries implements remediation.AuditTable.
func (t *tx) Entries(f audit.Filter) ([]audit.Entry, error) {
	if err := t.usable(); err != nil {
		return nil, err
	}
	out, size := []audit.Entry{}, 0
	first, last := max(f.After+1, 1), int64(len(t.log))
	if f.Before > 0 {
		last = min(last, f.Before-1)
	}
	text := lower([]byte(f.Text))
	for i := range max(last-first+1, 0) {
		seq := first + i
		if f.Newest {
			seq = last - i
		}
		l := t.log[seq-1]
		if f.Incident != "" && l.incident != f.Incident || f.Kind != "" && l.kind != f.Kind || f.Service != "" && l.service != f.Service ||
			len(text) > 0 && !bytes.Contains(lower(l.canonical), text) {
			continue
		}
		e, err := audit.ParseEntry(l.canonical, l.hash)
		if err != nil {
			return nil, fmt.Errorf("read the audit log: %w", err)
		}
		out = append(out, e)
		if size += len(l.canonical); f.Limit > 0 && len(out) == f.Limit || f.Bytes > 0 && size >= f.Bytes {
			break
		}
	}
	if f.Newest {
		slices.Reverse(out)
	}
	return out, nil
}

// lower makes ASCII letters small, and leaves all else.
func lower(b []byte) []byte {
	out := bytes.Clone(b)
	for i, c := range out {
		if c >= 'A' && c <= 'Z' {
			out[i] += 'a' - 'A'
		}
	}
	return out
}

// Reach implements remediation.AuditTable.
func (t *tx) Reach(f audit.Filter, n int) (seq int64, err error) {
	last := int64(len(t.log))
	if f.Before > 0 {
		last = min(last, f.Before-1)
	}
	for seq := last; seq > 0; seq-- {
		l := t.log[seq-1]
		switch {
		case f.Incident != "" && l.incident != f.Incident:
		case f.Incident == "" && f.Kind != "" && l.kind != f.Kind:
		case f.Incident == "" && f.Kind == "" && f.Service != "" && l.service != f.Service:
		default:
			if n--; n == 0 {
				return seq, t.usable()
			}
		}
	}
	return 0, t.usable()
}
