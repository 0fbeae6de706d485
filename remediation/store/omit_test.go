package store

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/locotoki/backout/remediation"
	"github.com/locotoki/backout/remediation/audit"
)

// appended appends an entry with that much text in it.
func appended(t *testing.T, s *Store, bytes int) {
	t.Helper()
	err := s.Update(t.Context(), func(tx remediation.Tx) error {
		_, err := tx.Append(audit.Entry{Kind: audit.KindReceived, Actor: "alertmanager", Time: time.Unix(1e9, 0), Detail: map[string]any{
			"alerts": strings.Repeat("x", bytes),
		}})
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
}

func TestAListIsBoundedInBytesAndLosesNothing(t *testing.T) { onBoth(t, boundedList) }

func boundedList(t *testing.T, dsn string) {
	s := openBatching(t, dsn)
	for range 10 {
		appended(t, s, 1000)
	}
	var seen []int64
	for f := (audit.Filter{Limit: 100, Bytes: 2500}); ; {
		var page []audit.Entry
		err := s.View(t.Context(), func(tx remediation.Tx) (err error) {
			page, err = tx.Entries(f)
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
		if len(page) == 0 {
			break
		}
		if len(page) > 3 {
			t.Errorf("a page has %d entries", len(page))
		}
		for _, e := range page {
			seen = append(seen, e.Seq)
			f.After = e.Seq
		}
	}
	if fmt.Sprint(seen) != "[1 2 3 4 5 6 7 8 9 10]" {
		t.Errorf("the pages have %v", seen)
	}
	// A list that ended early leaves its transaction usable.
	err := s.View(t.Context(), func(tx remediation.Tx) error {
		if _, err := tx.Entries(audit.Filter{Bytes: 1}); err != nil {
			return err
		}
		_, _, err := tx.Head()
		return err
	})
	if err != nil {
		t.Error(err)
	}
}

func TestAnEntryTooLargeToReadIsLeftOut(t *testing.T) { onBoth(t, tooLarge) }

func tooLarge(t *testing.T, dsn string) {
	s := openBatching(t, dsn)
	appended(t, s, 10)
	appended(t, s, audit.MaxEntry+audit.Piece/2)
	appended(t, s, 10)
	err := s.View(t.Context(), func(tx remediation.Tx) error {
		all, err := tx.Entries(audit.Filter{})
		if err != nil {
			return err
		}
		if len(all) != 3 || !all[1].Omitted() || all[0].Omitted() || all[1].Time.IsZero() || fmt.Sprint(all[1].Detail["omitted_bytes"]) == "0" {
			t.Errorf("read %d entries, of the second %.300v", len(all), all[1])
		}
		if b, err := all[1].MarshalJSON(); err != nil || len(b) > 1000 {
			t.Errorf("it is shown with %d bytes: %v", len(b), err)
		}
		found, err := audit.Search(tx, audit.Query{Text: "xxx", Limit: 50})
		if len(found.Entries) != 2 {
			t.Errorf("a search found %d entries", len(found.Entries))
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	if seq, _, err := verify(t, s); seq != 3 || err != nil {
		t.Errorf("verified up to %d: %v", seq, err)
	}
}
