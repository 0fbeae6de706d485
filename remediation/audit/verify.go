package audit

import (
	"cmp"
	"errors"
	"fmt"
)

// pageLimit is how many entries Pages asks for at once.
const pageLimit = 500

// Pages hands all entries after a seq to fn, a page at a time. read answers as
// Log.Entries does. Where it returns a *BrokenChainError, the entries before the
// broken one come first.
func Pages(read func(Filter) ([]Entry, error), after int64, fn func([]Entry) error) error {
	for {
		page, err := read(Filter{After: after, Limit: pageLimit, Bytes: PageBytes})
		var broken *BrokenChainError
		if errors.As(err, &broken) {
			good, rerr := read(Filter{After: after, Before: broken.Seq, Limit: pageLimit})
			if rerr != nil || len(good) == 0 {
				return err
			}
			return cmp.Or(fn(good), err)
		}
		if err != nil || len(page) == 0 {
			return err
		}
		last := page[len(page)-1].Seq
		if last <= after {
			return fmt.Errorf("entries after %d: the answer ends with %d", after, last)
		}
		if err := fn(page); err != nil {
			return err
		}
		after = last
	}
}

// Verify checks a whole log and returns its last good entry. read answers as
// Log.Entries does. A *BrokenChainError says where the log is broken.
func Verify(read func(Filter) ([]Entry, error)) (seq int64, hash string, err error) {
	var chain Chain
	err = Pages(read, 0, func(entries []Entry) error {
		for _, e := range entries {
			if err := chain.Add(e); err != nil {
				return err
			}
		}
		return nil
	})
	seq, hash = chain.Head()
	return seq, hash, err
}
