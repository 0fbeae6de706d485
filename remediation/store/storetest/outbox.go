package storetest

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"reflect"
	"slices"
	"time"

	"github.com/locotoki/backout/remediation"
)

// message adds one and returns its id.
func (s *suite) message(channel, key string) (id int64) {
	s.Helper()
	s.update(func(tx remediation.Tx) error {
		m := remediation.Message{Channel: channel, Key: key, Body: json.RawMessage(`{}`), Created: noon, Next: noon}
		err := tx.PutMessage(&m)
		id = m.ID
		return err
	})
	return id
}

// first checks which messages are the next to be delivered.
func first(channel string, want ...int64) func(remediation.Tx) error {
	return func(tx remediation.Tx) error {
		ms, err := tx.FirstMessages(channel)
		got := []int64{}
		for _, m := range ms {
			got = append(got, m.ID)
		}
		if err != nil || !slices.Equal(got, want) {
			return fmt.Errorf("the first messages of %q are %v, want %v (%w)", channel, got, want, err)
		}
		return nil
	}
}

var outboxTests = []test{
	{"what a channel returned is kept by its key, and the last one wins", func(s *suite) {
		for _, x := range odd {
			s.update(func(tx remediation.Tx) error {
				if _, err := tx.Receipt(x, x); !errors.Is(err, remediation.ErrNotFound) {
					return fmt.Errorf("a receipt that nobody gave: %w", err)
				}
				return errors.Join(tx.PutReceipt(x, x, "first"), tx.PutReceipt(x, x, x), tx.PutReceipt(x, "other"+x, "other"))
			})
			s.both(func(tx remediation.Tx) error {
				if got, err := tx.Receipt(x, x); err != nil || got != x {
					return fmt.Errorf("the receipt is %q, want %q (%w)", got, x, err)
				}
				return nil
			})
		}
	}},
	{"a message reads back as it was put, whatever its texts", func(s *suite) {
		want := map[int64]remediation.Message{}
		for _, x := range append(slices.Clone(odd), "full") {
			m := remediation.Message{}
			fill(reflect.ValueOf(&m).Elem())
			m.ID, m.Channel, m.Key, m.What, m.Receipt = 0, x, x, x, ""
			s.update(func(tx remediation.Tx) error { return tx.PutMessage(&m) })
			want[m.ID] = m
		}
		s.both(func(tx remediation.Tx) error {
			for id, m := range want {
				if got, err := tx.Message(id); err != nil || !reflect.DeepEqual(got, m) {
					return fmt.Errorf("put %+v, got %+v (%w)", m, got, err)
				}
				if got, err := tx.FirstMessages(m.Channel); err != nil || len(got) != 1 || !reflect.DeepEqual(got[0], m) {
					return fmt.Errorf("the first messages of %q: %+v (%w)", m.Channel, got, err)
				}
			}
			if _, err := tx.Message(999); !errors.Is(err, remediation.ErrNotFound) {
				return fmt.Errorf("an unknown message: %w", err)
			}
			return nil
		})
	}},
	{"the message of a key that was put first is the next one, and its place is kept while it is changed", func(s *suite) {
		a1, b1, a2, c1 := s.message("far", "a"), s.message("far", "b"), s.message("far", "a"), s.message("near", "a")
		if a1 != 1 || b1 != 2 || a2 != 3 || c1 != 4 {
			s.Fatalf("ids %d %d %d %d", a1, b1, a2, c1)
		}
		s.both(first("far", a1, b1))
		s.both(first("near", c1))
		s.both(first("nowhere"))
		s.update(func(tx remediation.Tx) error {
			m, err := tx.Message(a1)
			if err != nil {
				return err
			}
			m.Attempts, m.Error, m.Next = 3, "down", noon.Add(time.Hour)
			return tx.PutMessage(&m)
		})
		s.both(first("far", a1, b1))
		s.view(func(tx remediation.Tx) error {
			m, err := tx.Message(a1)
			if m.Attempts != 3 || m.Error != "down" || !m.Next.Equal(noon.Add(time.Hour)) {
				return fmt.Errorf("got %+v (%w)", m, err)
			}
			return err
		})
		s.update(func(tx remediation.Tx) error { return tx.DeleteMessage(a1) })
		s.both(first("far", b1, a2))
		s.both(func(tx remediation.Tx) error {
			got, err := tx.PendingMessages()
			if !maps.Equal(got, map[string]int{"far": 2, "near": 1}) {
				return fmt.Errorf("%v are pending (%w)", got, err)
			}
			return err
		})
	}},
	{"a message that is gone stays gone, and its id is not given again", func(s *suite) {
		id := s.message("far", "a")
		s.update(func(tx remediation.Tx) error { return errors.Join(tx.DeleteMessage(id), tx.DeleteMessage(id)) })
		err := s.store.Update(s.ctx, func(tx remediation.Tx) error { return tx.PutMessage(&remediation.Message{ID: id, Channel: "far"}) })
		if !errors.Is(err, remediation.ErrNotFound) {
			s.Fatalf("it was put again: %v", err)
		}
		s.both(first("far"))
		if again := s.message("far", "a"); again <= id {
			s.Fatalf("the next id is %d after %d", again, id)
		}
	}},
	{"what the public was told reads back as it was put", func(s *suite) {
		want := map[string]remediation.PublicIncident{}
		for i, x := range odd {
			p := remediation.PublicIncident{}
			fill(reflect.ValueOf(&p).Elem())
			p.Incident, p.Name = fmt.Sprint(i)+x, x
			s.update(func(tx remediation.Tx) error { return tx.PutPublicIncident(p) })
			want[p.Incident] = p
		}
		s.both(func(tx remediation.Tx) error {
			for id, p := range want {
				if got, err := tx.PublicIncident(id); err != nil || !reflect.DeepEqual(got, p) {
					return fmt.Errorf("put %+v, got %+v (%w)", p, got, err)
				}
			}
			if _, err := tx.PublicIncident("nothing"); !errors.Is(err, remediation.ErrNotFound) {
				return fmt.Errorf("an unknown incident: %w", err)
			}
			return nil
		})
	}},
	{"public incidents are those that go on and those resolved lately, in their order", func(s *suite) {
		put := func(id string, resolved *time.Time) {
			s.update(func(tx remediation.Tx) error {
				return tx.PutPublicIncident(remediation.PublicIncident{Incident: id, Resolved: resolved})
			})
		}
		early, late := noon.Add(-time.Hour), noon
		put("c", nil)
		put("a", &early)
		put("b", &late)
		put("c", nil)
		put("d", nil)
		for since, want := range map[time.Time][]string{
			{}:                    {"c", "a", "b", "d"},
			early:                 {"c", "a", "b", "d"},
			early.Add(1):          {"c", "b", "d"},
			noon:                  {"c", "b", "d"},
			noon.Add(time.Second): {"c", "d"},
		} {
			s.both(func(tx remediation.Tx) error {
				all, err := tx.PublicIncidents(since)
				var got []string
				for _, p := range all {
					got = append(got, p.Incident)
				}
				if !slices.Equal(got, want) {
					return fmt.Errorf("since %s: %v, want %v (%w)", since, got, want, err)
				}
				return err
			})
		}
		put("c", &late) // resolved, and reopened
		put("c", nil)
		s.both(func(tx remediation.Tx) error {
			all, err := tx.PublicIncidents(noon.Add(time.Second))
			if len(all) != 2 || all[0].Incident != "c" {
				return fmt.Errorf("after reopening: %+v (%w)", all, err)
			}
			return err
		})
	}},
}
