package storetest

import (
	"errors"
	"fmt"
	"reflect"
	"time"

	"github.com/locotoki/backout/remediation"
)

var replicaTests = []test{
	{"replicas are kept by their runs, the last description wins", func(s *suite) {
		of := func(id string, mode remediation.Mode) remediation.Replica {
			return remediation.Replica{
				ID: id, Name: "web \u2028", Version: "1", Mode: mode, Started: noon, Seen: noon.Add(1), Until: noon.Add(2), Playbooks: map[string]string{"shop": "hash"},
				Channels: []string{"slack"}, Answered: noon.Add(3), Why: "why",
			}
		}
		s.update(func(tx remediation.Tx) error {
			return errors.Join(tx.PutReplica(of("b", remediation.Observe)), tx.PutReplica(of("a", remediation.Act)), tx.PutReplica(of("c", remediation.Act)),
				tx.PutReplica(of("b", remediation.Act)), tx.DeleteReplica("c"), tx.DeleteReplica("never"))
		})
		s.both(func(tx remediation.Tx) error {
			got, err := tx.Replicas()
			if want := []remediation.Replica{of("a", remediation.Act), of("b", remediation.Act)}; err == nil && !reflect.DeepEqual(got, want) {
				err = fmt.Errorf("got %+v, want %+v", got, want)
			}
			return err
		})
	}},
	{"a lease is kept by its realm", func(s *suite) {
		s.update(func(tx remediation.Tx) error {
			if _, err := tx.Lease(""); !errors.Is(err, remediation.ErrNotFound) {
				return fmt.Errorf("before the first: %w", err)
			}
			return errors.Join(tx.PutLease(remediation.Lease{Realm: "host:a", Holder: "a", Epoch: 1, Until: noon}),
				tx.PutLease(remediation.Lease{Holder: "a", Epoch: 7}), tx.PutLease(remediation.Lease{Realm: "host:a", Holder: "b", Epoch: 1 << 40, Until: noon.Add(1)}))
		})
		s.both(func(tx remediation.Tx) error {
			want := []remediation.Lease{{Holder: "a", Epoch: 7}, {Realm: "host:a", Holder: "b", Epoch: 1 << 40, Until: noon.Add(1)}}
			all, err := tx.Leases()
			if err == nil && !reflect.DeepEqual(all, want) {
				err = fmt.Errorf("got %+v, want %+v", all, want)
			}
			one, oneErr := tx.Lease("host:a")
			if oneErr == nil && !reflect.DeepEqual(one, want[1]) {
				oneErr = fmt.Errorf("got %+v, want %+v", one, want[1])
			}
			return errors.Join(err, oneErr)
		})
	}},
	{"the store's clock goes on", func(s *suite) {
		var last time.Time
		for range 3 {
			s.both(func(tx remediation.Tx) error {
				now, err := tx.Now()
				if err == nil && (now.Before(last) || now.Location() != time.UTC) {
					err = fmt.Errorf("it is %s after %s", now, last)
				}
				last = now
				return err
			})
		}
	}},
	{"the clock goes on within a transaction", func(s *suite) {
		s.both(func(tx remediation.Tx) error {
			first, err := tx.Now()
			now := first
			for limit := time.Now().Add(10 * time.Second); err == nil && !now.After(first); {
				if time.Now().After(limit) {
					return fmt.Errorf("it stays at %s", first)
				}
				now, err = tx.Now()
			}
			return err
		})
	}},
	{"a value is kept as it was put", func(s *suite) {
		value := []byte("a\x00\xff<&>")
		s.update(func(tx remediation.Tx) error {
			if _, err := tx.Kept("key"); !errors.Is(err, remediation.ErrNotFound) {
				return fmt.Errorf("before the first: %w", err)
			}
			return errors.Join(tx.PutKept("key", []byte("first")), tx.PutKept("key", value), tx.PutKept("empty", nil))
		})
		s.both(func(tx remediation.Tx) error {
			got, err := tx.Kept("key")
			empty, emptyErr := tx.Kept("empty")
			if err == nil && (!reflect.DeepEqual(got, value) || len(empty) > 0) {
				err = fmt.Errorf("got %q and %q", got, empty)
			}
			return errors.Join(err, emptyErr)
		})
	}},
	{"what comes again is known until it is too old, and no more than so many", func(s *suite) {
		once := func(kind, key string, keep time.Duration, want bool, wantErr error) {
			s.Helper()
			var first bool
			err := s.store.Update(s.ctx, func(tx remediation.Tx) error {
				now, err := tx.Now()
				if err != nil {
					return err
				}
				first, err = tx.Once(kind, key, now.Add(keep), 2)
				return err
			})
			if first != want || !errors.Is(err, wantErr) {
				s.Errorf("%s %s: first %v, %v", kind, key, first, err)
			}
		}
		once("slack", "a\x00", time.Hour, true, nil)
		once("slack", "a\x00", time.Hour, false, nil)
		once("other", "a\x00", time.Hour, true, nil)
		s.reopen()
		once("slack", "a\x00", time.Hour, false, nil)
		once("slack", "old", -time.Second, true, nil)
		once("slack", "b", time.Hour, true, nil)
		once("slack", "c", time.Hour, false, remediation.ErrFull)
		once("slack", "b", time.Hour, false, nil)
		once("clock", "a", 5*365*24*time.Hour, true, nil) // as a clock that was set wrong writes it
		once("clock", "b", 5*365*24*time.Hour, true, nil)
		once("clock", "c", time.Hour, true, nil)
		once("clock", "a", time.Hour, true, nil)
		once("clock", "c", time.Hour, false, nil)
	}},
}
