package storetest

import (
	"encoding/json"
	"errors"
	"fmt"
	"reflect"
	"slices"
	"time"

	"github.com/locotoki/backout/alerts"
	"github.com/locotoki/backout/remediation"
)

func incidentIDs(incs []*remediation.Incident) []string {
	out := []string{}
	for _, inc := range incs {
		out = append(out, inc.ID)
	}
	return out
}

// full is a new incident with a value in every field.
func full() *remediation.Incident {
	inc := &remediation.Incident{}
	fill(reflect.ValueOf(inc).Elem())
	inc.ID, inc.Version = "", 0
	return inc
}

// fill sets a value and all that is in it to something that is not zero; a pointer to a
// type of within, which encloses it, stays nil.
func fill(v reflect.Value, within ...reflect.Type) {
	switch v.Addr().Interface().(type) {
	case *time.Time:
		v.Set(reflect.ValueOf(noon))
		return
	case *json.RawMessage:
		v.Set(reflect.ValueOf(json.RawMessage(`{"a":[1,"<\u0000>"]}`)))
		return
	}
	switch v.Kind() {
	case reflect.String:
		v.SetString("a\x00<\u2028>")
	case reflect.Bool:
		v.SetBool(true)
	case reflect.Int, reflect.Int64:
		v.SetInt(3)
	case reflect.Float64:
		v.SetFloat(0.1 + 0.2)
	case reflect.Pointer:
		if slices.Contains(within, v.Type().Elem()) {
			return
		}
		v.Set(reflect.New(v.Type().Elem()))
		fill(v.Elem(), within...)
	case reflect.Slice:
		v.Set(reflect.MakeSlice(v.Type(), 2, 2))
		for i := range v.Len() {
			fill(v.Index(i), within...)
		}
	case reflect.Struct:
		within = append(slices.Clone(within), v.Type())
		for i := range v.NumField() {
			fill(v.Field(i), within...)
		}
	default:
		panic("the suite does not fill a " + v.Type().String())
	}
}

var incidentTests = []test{
	{"an incident reads back as it was put", func(s *suite) {
		inc := full()
		s.update(func(tx remediation.Tx) error { return tx.PutIncident(inc) })
		if inc.ID != "inc-1" || inc.Version != 1 {
			s.Fatalf("the new incident is %q version %d", inc.ID, inc.Version)
		}
		s.both(func(tx remediation.Tx) error {
			got, err := tx.Incident("inc-1")
			if err != nil {
				return err
			}
			if !reflect.DeepEqual(got, inc) {
				return fmt.Errorf("put %+v, got %+v", inc, got)
			}
			all, err := tx.Incidents(remediation.IncidentFilter{Service: inc.Service})
			if err != nil || len(all) != 1 || !reflect.DeepEqual(all[0], inc) {
				return fmt.Errorf("listed %v (%w)", all, err)
			}
			return nil
		})
	}},
	{"running are the open incidents of which a step runs", func(s *suite) {
		running := func(state remediation.StepState, verified bool) func(*remediation.Incident) {
			return func(inc *remediation.Incident) {
				inc.Steps = []remediation.Step{{State: state, Verified: verified, Risk: alerts.Reversible}}
			}
		}
		s.put("waits")
		ended := s.put("ended", running(remediation.StepIntent, false))
		first, second := s.put("intent", running(remediation.StepIntent, false)), s.put("unverified", running(remediation.StepDone, false))
		s.put("verified", running(remediation.StepDone, true))
		s.put("closed", running(remediation.StepIntent, false), closed)
		s.update(func(tx remediation.Tx) error {
			ended.Steps[0].State = remediation.StepFailed
			return tx.PutIncident(ended)
		})
		s.both(func(tx remediation.Tx) error {
			got, err := tx.Running()
			if want := []string{first.ID, second.ID}; !slices.Equal(incidentIDs(got), want) {
				return fmt.Errorf("got %v, want %v (%w)", incidentIDs(got), want, err)
			}
			return err
		})
	}},
	{"paging are the newest incidents that need a person", func(s *suite) {
		paged := func(inc *remediation.Incident) { inc.Paged = []string{"stuck"} }
		s.put("calm")
		s.put("past", paged, closed)
		s.put("past", closed)
		last := s.put("last", paged, closed)
		s.put("last", paged, func(inc *remediation.Incident) { inc.Drill = true })
		waits := s.put("waits", func(inc *remediation.Incident) { inc.State, inc.Reason = remediation.Waiting, remediation.HoldApproval })
		s.put("claimed", paged, func(inc *remediation.Incident) { inc.ClaimedBy = "eve" })
		over := s.put("over", paged)
		s.update(func(tx remediation.Tx) error { over.Paged = nil; return tx.PutIncident(over) })
		s.both(func(tx remediation.Tx) error {
			got, err := tx.Paging()
			if want := []string{last.ID, waits.ID}; !slices.Equal(incidentIDs(got), want) {
				return fmt.Errorf("got %v, want %v (%w)", incidentIDs(got), want, err)
			}
			return err
		})
	}},
	{"what the caller does to an incident after putting it stays with the caller", func(s *suite) {
		inc := s.put("shop", func(inc *remediation.Incident) { inc.Paged = []string{"a"} })
		inc.Paged[0] = "b"
		s.view(func(tx remediation.Tx) error {
			got, err := tx.Incident(inc.ID)
			if err == nil && got.Paged[0] != "a" {
				err = errors.New("the stored incident changed")
			}
			return err
		})
	}},
	{"ids count up and are never given twice", func(s *suite) {
		for i := 1; i <= 12; i++ {
			if inc := s.put("shop", closed); inc.ID != fmt.Sprint("inc-", i) {
				s.Fatalf("incident %d is %q", i, inc.ID)
			}
		}
		s.reopen()
		if inc := s.put("shop"); inc.ID != "inc-13" {
			s.Fatalf("after reopening: %q", inc.ID)
		}
	}},
	{"a stale version is refused", func(s *suite) {
		inc := s.put("shop")
		mine, theirs := *inc, *inc
		s.update(func(tx remediation.Tx) error { theirs.Why = "theirs"; return tx.PutIncident(&theirs) })
		if theirs.Version != 2 {
			s.Fatalf("version %d after the second write", theirs.Version)
		}
		err := s.store.Update(s.ctx, func(tx remediation.Tx) error {
			if err := appendEntry(tx, "lost"); err != nil {
				return err
			}
			mine.Why = "mine"
			return tx.PutIncident(&mine)
		})
		if !errors.Is(err, remediation.ErrStale) || mine.Version != 1 {
			s.Fatalf("the stale write: %v, version %d", err, mine.Version)
		}
		s.both(func(tx remediation.Tx) error {
			got, err := tx.Incident(inc.ID)
			if err == nil && got.Why != "theirs" {
				err = fmt.Errorf("stored is %q", got.Why)
			}
			return err
		})
		if n := s.chain(); n != 0 {
			s.Fatal("the failed Update left an entry")
		}
	}},
	{"a stale version found by the function itself leaves the rest of its work", func(s *suite) {
		inc := s.put("shop")
		s.update(func(tx remediation.Tx) error {
			stale := *inc
			stale.Version = 7
			if err := tx.PutIncident(&stale); !errors.Is(err, remediation.ErrStale) {
				return fmt.Errorf("got %w, want stale", err)
			}
			return appendEntry(tx, "kept")
		})
		if n := s.chain(); n != 1 {
			s.Fatalf("%d entries", n)
		}
	}},
	{"a service has one open incident, and one for its drill", func(s *suite) {
		first := s.put("shop")
		s.put("shop", func(inc *remediation.Incident) { inc.Drill = true })
		s.put("other")
		second := func() error {
			return s.store.Update(s.ctx, func(tx remediation.Tx) error {
				return tx.PutIncident(&remediation.Incident{Service: "shop", State: remediation.Confirming})
			})
		}
		if err := second(); err == nil {
			s.Fatal("a second open incident was taken")
		}
		closed(first)
		s.update(func(tx remediation.Tx) error { return tx.PutIncident(first) })
		s.must(second())
		first.State, first.Closed = remediation.Waiting, nil
		if err := s.store.Update(s.ctx, func(tx remediation.Tx) error { return tx.PutIncident(first) }); err == nil {
			s.Fatal("a second incident was reopened")
		}
		s.view(func(tx remediation.Tx) error {
			open, err := tx.Incidents(remediation.IncidentFilter{Open: true})
			if ids := incidentIDs(open); !slices.Equal(ids, []string{"inc-2", "inc-3", "inc-4"}) {
				return fmt.Errorf("open are %v (%w)", ids, err)
			}
			return err
		})
	}},
	{"an unknown incident is not found", func(s *suite) {
		s.put("shop")
		for _, id := range []string{"", "inc-2", "inc-0", "inc-01", "inc--1", "1", "INC-1", "inc-1 ", "inc-99999999999999999999"} {
			err := s.store.View(s.ctx, func(tx remediation.Tx) error { _, err := tx.Incident(id); return err })
			if !errors.Is(err, remediation.ErrNotFound) {
				s.Errorf("incident %q: %v", id, err)
			}
		}
		err := s.store.Update(s.ctx, func(tx remediation.Tx) error {
			return tx.PutIncident(&remediation.Incident{ID: "inc-9", Version: 3, Service: "x", State: remediation.Confirming})
		})
		if !errors.Is(err, remediation.ErrNotFound) {
			s.Errorf("putting an unknown one: %v", err)
		}
	}},
	{"incidents are filtered, ordered and bounded", func(s *suite) {
		drill := func(inc *remediation.Incident) { inc.Drill = true }
		s.put("a", closed)        // 1
		s.put("a", closed, drill) // 2
		s.put("b", closed)        // 3
		for range 7 {
			s.put("c", closed) // 4 to 10
		}
		s.put("a")        // 11
		s.put("a", drill) // 12
		s.put("b")        // 13
		yes, no := true, false
		for _, c := range []struct {
			f    remediation.IncidentFilter
			want []int
		}{
			{remediation.IncidentFilter{}, []int{1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13}},
			{remediation.IncidentFilter{Service: "a"}, []int{1, 2, 11, 12}},
			{remediation.IncidentFilter{Service: "nobody"}, nil},
			{remediation.IncidentFilter{Service: "a", Drill: &no}, []int{1, 11}},
			{remediation.IncidentFilter{Drill: &yes}, []int{2, 12}},
			{remediation.IncidentFilter{Open: true}, []int{11, 12, 13}},
			{remediation.IncidentFilter{Closed: true, Service: "b"}, []int{3}},
			{remediation.IncidentFilter{Open: true, Closed: true, Service: "b"}, []int{3, 13}},
			{remediation.IncidentFilter{After: "inc-9"}, []int{10, 11, 12, 13}},
			{remediation.IncidentFilter{After: "inc-9", Limit: 2}, []int{10, 11}},
			{remediation.IncidentFilter{Limit: 2}, []int{1, 2}},
			{remediation.IncidentFilter{Limit: 2, Newest: true}, []int{12, 13}},
			{remediation.IncidentFilter{Newest: true, Service: "a", Drill: &no, Limit: 1}, []int{11}},
			{remediation.IncidentFilter{Newest: true, After: "inc-11"}, []int{12, 13}},
			{remediation.IncidentFilter{Before: "inc-4"}, []int{1, 2, 3}},
			{remediation.IncidentFilter{Newest: true, Before: "inc-4", Limit: 2}, []int{2, 3}},
			{remediation.IncidentFilter{After: "inc-2", Before: "inc-4"}, []int{3}},
		} {
			s.view(func(tx remediation.Tx) error {
				got, err := tx.Incidents(c.f)
				want := []string{}
				for _, n := range c.want {
					want = append(want, fmt.Sprint("inc-", n))
				}
				if ids := incidentIDs(got); !slices.Equal(ids, want) {
					s.Errorf("%+v: %v, want %v", c.f, ids, want)
				}
				return err
			})
		}
	}},
	{"due are those whose time has come, the next one is told", func(s *suite) {
		wake := func(t time.Time) func(*remediation.Incident) {
			return func(inc *remediation.Incident) { inc.Wake = t }
		}
		s.put("a", wake(noon.Add(time.Nanosecond)))
		s.put("b", wake(noon))
		s.put("c", wake(noon.Add(-time.Hour)))
		s.put("d", wake(time.Time{}))
		s.put("e", wake(noon.Add(time.Hour)))
		moved := s.put("f", wake(noon))
		s.update(func(tx remediation.Tx) error { moved.Wake = noon.Add(2 * time.Hour); return tx.PutIncident(moved) })
		check := func(now time.Time, want []string, wantNext time.Time) func(tx remediation.Tx) error {
			return func(tx remediation.Tx) error {
				ids, next, err := tx.Due(now)
				slices.Sort(ids)
				if !slices.Equal(ids, want) || !next.Equal(wantNext) || next.IsZero() != wantNext.IsZero() {
					return fmt.Errorf("at %s due are %v, next %s (%w)", now, ids, next, err)
				}
				return err
			}
		}
		s.both(check(noon, []string{"inc-2", "inc-3"}, noon.Add(time.Nanosecond)))
		s.both(check(noon.Add(time.Hour), []string{"inc-1", "inc-2", "inc-3", "inc-5"}, noon.Add(2*time.Hour)))
		s.both(check(noon.Add(24*time.Hour), []string{"inc-1", "inc-2", "inc-3", "inc-5", "inc-6"}, time.Time{}))
		s.both(check(noon.Add(-24*time.Hour), nil, noon.Add(-time.Hour)))
	}},
}
