package remediation

import (
	"context"
	"slices"
	"time"
)

// Search asks for one page of the audit log, newest first. Zero fields ask for
// anything.
type Search struct {
	Service, Incident string
	Kind              Kind
	// Text stands somewhere in the entry.
	Text string
	// From and To bound the entries' times; To itself is left out.
	From, To time.Time
	// Before is the Seq that the page before ended with, 0 for the first page.
	Before int64
	Limit  int
}

// Found is one page of the audit log.
type Found struct {
	// Entries are newest first.
	Entries []Entry
	// Before goes on where this page ended; 0: there is no more.
	Before int64
	// Searched is the oldest Seq that was looked at. A page that is not full and has a
	// Before was cut off there, so that no search takes long; SearchedAt is its time then.
	Searched   int64
	SearchedAt time.Time
	HeadSeq    int64
	HeadHash   string
}

// searchMost is how many entries a search looks through that no index answers alone;
// searchIndexed is how many where an index leads to them, one here and one there, which
// costs twice as much. Going through a million takes seconds, and an index of the texts
// (SQLite's FTS5 by trigrams, filled with each entry) makes a notification cost four times
// as much: so a search that finds little ends there, says so, and the next page goes on.
const (
	searchMost    = 12_000
	searchIndexed = 6_000
)

// Search implements Service.
func (e *Engine) Search(ctx context.Context, q Search) (f Found, err error) {
	err = e.store.View(ctx, func(tx Tx) error {
		f, err = SearchLog(tx, q)
		return err
	})
	return f, err
}

// SearchLog looks one page up in any store. One condition is answered by an index;
// more of them, and a text, by looking through what one index finds, at most searchMost
// entries of it.
func SearchLog(tx Tx, q Search) (Found, error) {
	f := Found{Entries: []Entry{}}
	var err error
	if f.HeadSeq, f.HeadHash, err = tx.Head(); err != nil {
		return Found{}, err
	}
	top, bottom, err := bounds(tx, q, f.HeadSeq)
	if err != nil || top <= bottom {
		return f, err
	}
	filter := EntryFilter{
		Service: q.Service, Incident: q.Incident, Kind: q.Kind, Text: q.Text, Before: top, Newest: true, Limit: q.Limit + 1, Bytes: PageBytes,
	}
	floor := bottom
	if conditions := q.conditions(); q.Text != "" || conditions > 1 {
		most := searchMost
		if conditions > 0 {
			most = searchIndexed
		}
		reach, err := tx.Reach(filter, most)
		if err != nil {
			return Found{}, err
		}
		floor = max(bottom, reach)
	}
	filter.After = floor - 1
	if f.Entries, err = tx.Entries(filter); err != nil {
		return Found{}, err
	}
	slices.Reverse(f.Entries)
	f.Searched = floor
	switch {
	case len(f.Entries) > q.Limit:
		f.Entries = f.Entries[:q.Limit]
		f.Before = f.Entries[q.Limit-1].Seq
		f.Searched = f.Before
	case len(f.Entries) > 0 && f.cutShort(tx, filter):
		f.Before = f.Entries[len(f.Entries)-1].Seq
		f.Searched = f.Before
	case floor > bottom:
		f.Before = floor
		last, err := tx.Entries(EntryFilter{After: floor - 1, Limit: 1})
		if err != nil {
			return Found{}, err
		}
		for _, e := range last {
			f.SearchedAt = e.Time
		}
	}
	return f, nil
}

// cutShort reports whether large entries ended a page before it was full.
func (f *Found) cutShort(tx Tx, filter EntryFilter) bool {
	filter.Before, filter.Limit = f.Entries[len(f.Entries)-1].Seq, 1
	more, err := tx.Entries(filter)
	return err == nil && len(more) > 0
}

// conditions counts those that an index answers.
func (q Search) conditions() (n int) {
	for _, s := range []string{q.Service, q.Incident, string(q.Kind)} {
		if s != "" {
			n++
		}
	}
	return n
}

// bounds are the Seqs that q asks for: from bottom on, below top.
func bounds(tx Tx, q Search, head int64) (top, bottom int64, err error) {
	top, bottom = head+1, 1
	if !q.To.IsZero() {
		if top, err = firstAt(tx, q.To, head); err != nil {
			return 0, 0, err
		}
	}
	if !q.From.IsZero() {
		if bottom, err = firstAt(tx, q.From, head); err != nil {
			return 0, 0, err
		}
	}
	if q.Before > 0 {
		top = min(top, q.Before)
	}
	return top, bottom, nil
}

// firstAt is the Seq of the first entry at or after t, head+1 where there is
// none. Entries are written in the order of their times, but for a clock that
// was set back.
func firstAt(tx Tx, t time.Time, head int64) (int64, error) {
	low, high := int64(1), head+1
	for low < high {
		middle := low + (high-low)/2
		one, err := tx.Entries(EntryFilter{After: middle - 1, Limit: 1})
		if err != nil {
			return 0, err
		}
		if len(one) == 0 || !one[0].Time.Before(t) {
			high = middle
		} else {
			low = one[0].Seq + 1
		}
	}
	return low, nil
}
