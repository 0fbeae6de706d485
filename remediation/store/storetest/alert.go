package storetest

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/locotoki/backout/remediation"
)

var alertTests = []test{
	{"an alert reads back as it was put, whatever its texts", func(s *suite) {
		var want []remediation.AlertState
		for i, x := range odd {
			want = append(want, remediation.AlertState{
				Fingerprint: fmt.Sprint(i) + x, Incident: x, Service: x, Trigger: x, Active: i%2 == 0, LastSeen: noon.Add(time.Duration(i)),
			})
		}
		want = append(want, remediation.AlertState{Fingerprint: "never seen"})
		s.update(func(tx remediation.Tx) error {
			for _, a := range want {
				if err := tx.PutAlert(a); err != nil {
					return err
				}
			}
			return nil
		})
		s.both(func(tx remediation.Tx) error {
			for _, a := range want {
				got, err := tx.Alert(a.Fingerprint)
				if err != nil || got != a {
					return fmt.Errorf("put %+v, got %+v (%w)", a, got, err)
				}
				if of, err := tx.Alerts(a.Incident); err != nil || !slices.Contains(of, a) {
					return fmt.Errorf("alerts of %q: %v (%w)", a.Incident, of, err)
				}
			}
			if _, err := tx.Alert("nobody"); !errors.Is(err, remediation.ErrNotFound) {
				return fmt.Errorf("an unknown fingerprint: %w", err)
			}
			return nil
		})
	}},
	{"alerts that an Update was said to read are as they are, and as what was put since", func(s *suite) {
		put := func(fp, incident string) remediation.AlertState {
			return remediation.AlertState{Fingerprint: fp, Incident: incident, Service: "shop", Trigger: "t", Active: true, LastSeen: noon}
		}
		old, moved := put("a\x00\\", "inc-1"), put("b", "inc-1")
		s.update(func(tx remediation.Tx) error { return errors.Join(tx.PutAlert(old), tx.PutAlert(moved)) })
		check := func(tx remediation.Tx, want map[string]*remediation.AlertState) error {
			for fp, a := range want {
				got, err := tx.Alert(fp)
				if a == nil && !errors.Is(err, remediation.ErrNotFound) || a != nil && (err != nil || got != *a) {
					return fmt.Errorf("alert %q is %+v (%w), want %+v", fp, got, err, a)
				}
			}
			return nil
		}
		fresh, renewed := put("c", "inc-2"), put("b", "inc-2")
		s.update(func(tx remediation.Tx) error {
			if err := check(tx, map[string]*remediation.AlertState{"a\x00\\": &old, "b": &moved, "c": nil, "d": nil}); err != nil {
				return err
			}
			if err := errors.Join(tx.PutAlert(fresh), tx.PutAlert(renewed)); err != nil {
				return err
			}
			return check(tx, map[string]*remediation.AlertState{"a\x00\\": &old, "b": &renewed, "c": &fresh, "d": nil})
		}, "a\x00\\", "b", "c", "d")
		s.both(func(tx remediation.Tx) error {
			for incident, want := range map[string]int{"inc-1": 1, "inc-2": 2} {
				if n, _, err := tx.ActiveAlerts(incident); n != want || err != nil {
					return fmt.Errorf("%s has %d active alerts, want %d (%w)", incident, n, want, err)
				}
			}
			return check(tx, map[string]*remediation.AlertState{"a\x00\\": &old, "b": &renewed, "c": &fresh, "d": nil})
		})
	}},
	{"an Update reads again what it wrote, whatever it had read before", func(s *suite) {
		s.put("shop")
		s.update(func(tx remediation.Tx) error {
			for n := range 3 {
				open, err := tx.Incidents(remediation.IncidentFilter{Open: true})
				if err != nil || len(open) != 1+n {
					return fmt.Errorf("%d open incidents, want %d (%w)", len(open), 1+n, err)
				}
				inc, err := tx.Incident("inc-1")
				if err != nil || inc.Why != strings.Repeat("x", n) {
					return fmt.Errorf("inc-1 says %q after %d changes (%w)", inc.Why, n, err)
				}
				inc.Why += "x"
				if err := errors.Join(tx.PutIncident(inc), tx.PutIncident(&remediation.Incident{Service: fmt.Sprint(n), State: remediation.Confirming})); err != nil {
					return err
				}
			}
			return nil
		})
	}},
	{"an incident's alerts are listed in the order in which they were first put", func(s *suite) {
		for _, fp := range []string{"c", "a", "b", "a", "c"} {
			s.update(func(tx remediation.Tx) error {
				return tx.PutAlert(remediation.AlertState{Fingerprint: fp, Incident: "inc-1", LastSeen: noon.Add(-time.Hour)})
			})
		}
		s.update(func(tx remediation.Tx) error {
			return tx.PutAlert(remediation.AlertState{Fingerprint: "b", Incident: "inc-1", Active: true, LastSeen: noon.Add(-2 * time.Hour)})
		})
		s.both(func(tx remediation.Tx) error {
			all, err := tx.Alerts("inc-1")
			fps := []string{}
			for _, a := range all {
				fps = append(fps, a.Fingerprint)
			}
			if !slices.Equal(fps, []string{"c", "a", "b"}) {
				return fmt.Errorf("got %v (%w)", fps, err)
			}
			return err
		})
	}},
	{"active alerts are counted through every change", func(s *suite) {
		put := func(fp, incident string, active bool, seen time.Time) func(remediation.Tx) error {
			return func(tx remediation.Tx) error {
				return tx.PutAlert(remediation.AlertState{Fingerprint: fp, Incident: incident, Active: active, LastSeen: seen})
			}
		}
		is := func(incident string, n int, seen time.Time) func(tx remediation.Tx) error {
			return func(tx remediation.Tx) error {
				got, last, err := tx.ActiveAlerts(incident)
				if got != n || !last.Equal(seen) || last.IsZero() != seen.IsZero() {
					return fmt.Errorf("%s has %d active, last seen %s, want %d, %s (%w)", incident, got, last, n, seen, err)
				}
				return err
			}
		}
		later := noon.Add(time.Minute)
		for i, step := range []struct {
			do, then func(remediation.Tx) error
		}{
			{nil, is("inc-1", 0, time.Time{})},
			{put("a", "inc-1", true, noon), is("inc-1", 1, noon)},
			{put("a", "inc-1", true, later), is("inc-1", 1, later)},
			{put("b", "inc-1", true, noon), is("inc-1", 2, later)},
			{put("c", "inc-1", false, noon), is("inc-1", 2, later)},
			{put("a", "inc-1", false, later), is("inc-1", 1, later)},
			{put("a", "inc-2", true, later), is("inc-1", 1, noon)}, // it moved
			{nil, is("inc-2", 1, later)},
			{put("b", "inc-2", false, noon), is("inc-1", 0, noon)},
			{put("c", "", true, later), is("inc-1", 0, time.Time{})},
			{nil, is("inc-2", 1, later)},
			{put("a", "inc-2", true, noon.Add(-time.Hour)), is("inc-2", 1, noon)}, // seen earlier than thought
		} {
			// Within the Update, and after it.
			s.update(func(tx remediation.Tx) error {
				if step.do != nil {
					if err := step.do(tx); err != nil {
						return err
					}
				}
				if err := step.then(tx); err != nil {
					return fmt.Errorf("step %d, within its Update: %w", i, err)
				}
				return nil
			})
			s.both(step.then)
		}
	}},
	{"one Update may change one alert often", func(s *suite) {
		s.update(func(tx remediation.Tx) error {
			for i := range 10 {
				a := remediation.AlertState{Fingerprint: "a", Incident: fmt.Sprint("inc-", i%3), Active: i%4 != 0, LastSeen: noon}
				if err := tx.PutAlert(a); err != nil {
					return err
				}
				if got, err := tx.Alert("a"); err != nil || got != a {
					return fmt.Errorf("round %d: %+v (%w)", i, got, err)
				}
				for k := range 3 {
					want := 0
					if k == i%3 && a.Active {
						want = 1
					}
					if n, _, err := tx.ActiveAlerts(fmt.Sprint("inc-", k)); err != nil || n != want {
						return fmt.Errorf("round %d: inc-%d has %d active, want %d (%w)", i, k, n, want, err)
					}
				}
			}
			return nil
		})
	}},
}
