package audit

import (
	"slices"
	"time"
)

// Log is an audit log that is read; a transaction of a store is one.
type Log interface {
	// Entries returns those that match, oldest first.
	Entries(f Filter) ([]Entry, error)
	// Reach returns how far back n entries go that one condition of f finds by an index,
	// counted from f.Before, or from the end where that is 0: the Seq of the last of them,
	// 0 where there are fewer. It bounds what Entries with f has to look at.
	Reach(f Filter, n int) (seq int64, err error)
	// Head returns the last entry's Seq and Hash; 0 and ZeroHash where empty.
	Head() (seq int64, hash string, err error)
}

// Filter selects entries; the zero value selects all.
type Filter struct {
	Incident string
	Service  string
	Kind     Kind
	// After selects entries with a greater Seq, Before (where not 0) those with a
	// smaller one.
	After, Before int64
	// Text selects entries whose canonical bytes contain it; ASCII letters match in
	// either case.
	Text  string
	Limit int // 0: no limit
	// Bytes, where not 0, ends the list with the entry that brings it to so many.
	Bytes int
	// Newest returns the newest Limit entries instead, still oldest first.
	Newest bool
}

// Query asks for one page of the log, newest first. Zero fields ask for anything.
type Query struct {
	Service, Incident string
	Kind              Kind
	// Text is as in Filter.
	Text string
	// From and To bound the entries' times; To itself is left out.
	From, To time.Time
	// Before is the Seq that the page before ended with, 0 for the first page.
	Before int64
	Limit  int
}

// Page is what a Query finds.
type Page struct {
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

// How many entries a search looks through at most: MaxIndexed where an index leads to
// them, scattered over the log, which costs twice as much as maxScanned in a row. Going
// through a million takes seconds, and an index of the texts (SQLite's FTS5 by trigrams,
// filled with each entry) makes a notification cost four times as much: so a search that
// finds little ends there, says so, and the next page goes on.
const (
	maxScanned = 12_000
	MaxIndexed = 6_000
)

// Search looks one page up in any log. One condition is answered by an index;
// more of them, and a text, by looking through what one index finds, at most maxScanned
// entries of it.
func Search(log Log, q Query) (Page, error) {
	p := Page{Entries: []Entry{}}
	var err error
	if p.HeadSeq, p.HeadHash, err = log.Head(); err != nil {
		return Page{}, err
	}
	top, bottom, err := bounds(log, q, p.HeadSeq)
	if err != nil || top <= bottom {
		return p, err
	}
	filter := Filter{
		Service: q.Service, Incident: q.Incident, Kind: q.Kind, Text: q.Text, Before: top, Newest: true, Limit: q.Limit + 1, Bytes: PageBytes,
	}
	floor := bottom
	if conditions := q.conditions(); q.Text != "" || conditions > 1 {
		most := maxScanned
		if conditions > 0 {
			most = MaxIndexed
		}
		reach, err := log.Reach(filter, most)
		if err != nil {
			return Page{}, err
		}
		floor = max(bottom, reach)
	}
	filter.After = floor - 1
	if p.Entries, err = log.Entries(filter); err != nil {
		return Page{}, err
	}
	slices.Reverse(p.Entries)
	p.Searched = floor
	switch {
	case len(p.Entries) > q.Limit:
		p.Entries = p.Entries[:q.Limit]
		p.Before = p.Entries[q.Limit-1].Seq
		p.Searched = p.Before
	case len(p.Entries) > 0 && p.cutShort(log, filter):
		p.Before = p.Entries[len(p.Entries)-1].Seq
		p.Searched = p.Before
	case floor > bottom:
		p.Before = floor
		last, err := log.Entries(Filter{After: floor - 1, Limit: 1})
		if err != nil {
			return Page{}, err
		}
		for _, e := range last {
			p.SearchedAt = e.Time
		}
	}
	return p, nil
}

// cutShort reports whether large entries ended a page before it was full.
func (p *Page) cutShort(log Log, filter Filter) bool {
	filter.Before, filter.Limit = p.Entries[len(p.Entries)-1].Seq, 1
	more, err := log.Entries(filter)
	return err == nil && len(more) > 0
}

// conditions counts those that an index answers.
func (q Query) conditions() (n int) {
	for _, s := range []string{q.Service, q.Incident, string(q.Kind)} {
		if s != "" {
			n++
		}
	}
	return n
}

// bounds are the Seqs that q asks for: from bottom on, below top.
func bounds(log Log, q Query, head int64) (top, bottom int64, err error) {
	top, bottom = head+1, 1
	if !q.To.IsZero() {
		if top, err = FirstAt(log, q.To, head); err != nil {
			return 0, 0, err
		}
	}
	if !q.From.IsZero() {
		if bottom, err = FirstAt(log, q.From, head); err != nil {
			return 0, 0, err
		}
	}
	if q.Before > 0 {
		top = min(top, q.Before)
	}
	return top, bottom, nil
}

// FirstAt is the Seq of the first entry at or after t, head+1 where there is none.
// Entries are in the order of their times, unless a clock was set back.
func FirstAt(log Log, t time.Time, head int64) (int64, error) {
	low, high := int64(1), head+1
	for low < high {
		middle := low + (high-low)/2
		one, err := log.Entries(Filter{After: middle - 1, Limit: 1})
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
