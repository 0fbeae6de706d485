package storetest

import (
	"errors"
	"fmt"
	"reflect"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/locotoki/backout/remediation"
	"github.com/locotoki/backout/remediation/audit"
)

var auditTests = []test{
	{"an entry reads back as it was appended, whatever its texts", func(s *suite) {
		var want []audit.Entry
		s.update(func(tx remediation.Tx) error {
			for _, x := range append(odd, "bad \xff utf-8 \xed\xa0\x80") {
				e, err := tx.Append(audit.Entry{
					Time: noon.In(time.FixedZone("", 3600)), Kind: audit.KindReceived, Actor: x, Service: x, Incident: x, Step: x, Action: x,
					Detail: map[string]any{"text": x, "number": 1 << 60, "list": []any{x, true, nil, []any{[]any{x, x}}}, "when": noon},
				})
				if err != nil {
					return err
				}
				want = append(want, e)
			}
			return nil
		})
		for i, e := range want {
			if e.Seq != int64(i+1) || e.Hash != e.Sum() || !e.Time.Equal(noon.Truncate(time.Microsecond)) {
				s.Fatalf("entry %d was answered as %+v", i, e)
			}
		}
		s.both(func(tx remediation.Tx) error {
			got, err := tx.Entries(audit.Filter{})
			if err != nil {
				return err
			}
			if !reflect.DeepEqual(got, want) {
				return fmt.Errorf("appended %+v, read %+v", want, got)
			}
			for _, e := range want {
				if e.Incident == "" {
					continue
				}
				of, err := tx.Entries(audit.Filter{Incident: e.Incident})
				if err != nil || len(of) != 1 || of[0].Seq != e.Seq {
					return fmt.Errorf("entries of incident %q: %v (%w)", e.Incident, of, err)
				}
			}
			return nil
		})
		s.chain()
	}},
	{"an empty log has a head of zeros", func(s *suite) {
		s.both(func(tx remediation.Tx) error {
			seq, hash, err := tx.Head()
			if seq != 0 || hash != audit.ZeroHash {
				return fmt.Errorf("head %d %q (%w)", seq, hash, err)
			}
			return err
		})
	}},
	{"a detail without a canonical form is refused, and the log goes on", func(s *suite) {
		for name, d := range map[string]any{"float": 0.5, "nested float": []any{map[string]any{"a": 1.5}}, "key": map[string]any{"ä": 1}, "struct": struct{ A int }{1}} {
			s.update(func(tx remediation.Tx) error {
				if _, err := tx.Append(audit.Entry{Time: noon, Kind: audit.KindHeld, Detail: map[string]any{"x": d}}); err == nil {
					return fmt.Errorf("%s was appended", name)
				}
				return appendEntry(tx, name)
			})
		}
		if n := s.chain(); n != 4 {
			s.Fatalf("%d entries, want 4", n)
		}
	}},
	{"the chain has no gap when many append at once and some fail", func(s *suite) {
		var wg sync.WaitGroup
		for range 8 {
			wg.Add(1)
			go func() {
				defer wg.Done()
				for i := range 40 {
					err := s.store.Update(s.ctx, func(tx remediation.Tx) error {
						for range 1 + i%3 {
							if err := appendEntry(tx, "x"); err != nil {
								return err
							}
						}
						if i%4 == 0 {
							return errMine
						}
						return nil
					})
					if i%4 != 0 && err != nil || i%4 == 0 && !errors.Is(err, errMine) {
						s.Errorf("Update %d: %v", i, err)
					}
				}
			}()
		}
		wg.Wait()
		want := int64(0)
		for i := range 40 {
			if i%4 != 0 {
				want += int64(8 * (1 + i%3))
			}
		}
		if n := s.chain(); n != want {
			s.Fatalf("%d entries, want %d", n, want)
		}
		s.reopen()
		s.update(func(tx remediation.Tx) error { return appendEntry(tx, "after") })
		if n := s.chain(); n != want+1 {
			s.Fatalf("%d entries after reopening, want %d", n, want+1)
		}
	}},
	{"entries are filtered, ordered and bounded", func(s *suite) {
		s.update(func(tx remediation.Tx) error {
			for i := range 24 {
				_, err := tx.Append(audit.Entry{
					Time: noon, Kind: []audit.Kind{audit.KindReceived, audit.KindIntent}[i%2],
					Service: []string{"", "a", "b"}[i%3], Incident: []string{"", "inc-1", "inc-2", "inc-11"}[i/6],
				})
				if err != nil {
					return err
				}
			}
			return nil
		})
		for _, f := range []audit.Filter{
			{}, {Incident: "inc-1"}, {Incident: "inc-9"}, {Service: "a"}, {Kind: audit.KindIntent}, {Kind: "nothing"}, {Service: "a", Kind: audit.KindIntent},
			{Incident: "inc-2", Kind: audit.KindReceived}, {Incident: "inc-2", Service: "b"}, {Incident: "inc-1", Service: "b", Kind: audit.KindIntent},
			{After: 20}, {After: 24}, {After: -5}, {Incident: "inc-1", After: 9}, {Kind: audit.KindIntent, After: 7},
			{Before: 5}, {Before: 1}, {Before: 99}, {After: 4, Before: 9}, {Service: "a", Before: 12}, {Text: "INC-1"}, {Text: "inc-_"}, {Text: "%"},
			{Text: "inc-1", Kind: audit.KindIntent, Before: 20},
		} {
			for _, limit := range []int{0, 1, 3, 100} {
				for _, newest := range []bool{false, true} {
					f := f
					f.Limit, f.Newest = limit, newest
					var want []int64
					for i := range 24 {
						e := audit.Entry{Kind: []audit.Kind{audit.KindReceived, audit.KindIntent}[i%2],
							Service: []string{"", "a", "b"}[i%3], Incident: []string{"", "inc-1", "inc-2", "inc-11"}[i/6]}
						if (f.Kind == "" || f.Kind == e.Kind) && (f.Service == "" || f.Service == e.Service) &&
							(f.Incident == "" || f.Incident == e.Incident) && int64(i+1) > f.After && (f.Before == 0 || int64(i+1) < f.Before) &&
							strings.Contains(strings.ToLower(e.Incident), strings.ToLower(f.Text)) {
							want = append(want, int64(i+1))
						}
					}
					if limit > 0 && len(want) > limit && newest {
						want = want[len(want)-limit:]
					} else if limit > 0 && len(want) > limit {
						want = want[:limit]
					}
					s.view(func(tx remediation.Tx) error {
						es, err := tx.Entries(f)
						var got []int64
						for _, e := range es {
							got = append(got, e.Seq)
						}
						if !slices.Equal(got, want) {
							s.Errorf("%+v: %v, want %v", f, got, want)
						}
						return err
					})
				}
			}
		}
	}},
	{"a search reaches back as far as an index finds so many entries", func(s *suite) {
		s.update(func(tx remediation.Tx) error {
			for i := range 24 {
				_, err := tx.Append(audit.Entry{
					Time: noon, Kind: []audit.Kind{audit.KindReceived, audit.KindIntent}[i%2], Service: []string{"", "a", "b"}[i%3],
				})
				if err != nil {
					return err
				}
			}
			return nil
		})
		s.both(func(tx remediation.Tx) error {
			for _, f := range []audit.Filter{{}, {Service: "a"}, {Kind: audit.KindIntent}, {Service: "a", Kind: audit.KindIntent}, {Incident: "none"}} {
				for _, f.Before = range []int64{0, 1, 2, 13, 25} {
					for _, n := range []int{1, 3, 8, 12, 24, 100} {
						seq, err := tx.Reach(f, n)
						if err != nil {
							return err
						}
						within := f
						within.After = seq - 1
						found, err := tx.Entries(within)
						if err != nil {
							return err
						}
						all, err := tx.Entries(f)
						if err != nil {
							return err
						}
						one := f.Service == "" || f.Kind == "" // the one condition finds all of them
						switch {
						case len(found) > n, one && len(found) != min(n, len(all)), seq < 0, seq > 24:
							s.Errorf("%d entries of %+v reach back to %d: %d of %d", n, f, seq, len(found), len(all))
						}
					}
				}
			}
			return nil
		})
	}},
}
