package storetest

import (
	"bytes"
	"errors"
	"fmt"
	"reflect"
	"slices"
	"time"

	"github.com/locotoki/backout/remediation"
)

var serviceTests = []test{
	{"effects are kept by incident and step, the last one wins", func(s *suite) {
		e := func(incident, step, service string, at time.Duration, outcome remediation.EffectOutcome) remediation.Effect {
			return remediation.Effect{Time: noon.Add(at), Service: service, Action: "flag_off", Target: "t\x00", Incident: incident, Step: step, Outcome: outcome}
		}
		put := func(es ...remediation.Effect) {
			s.update(func(tx remediation.Tx) error {
				for _, e := range es {
					if err := tx.PutEffect(e); err != nil {
						return err
					}
				}
				return nil
			})
		}
		put(e("inc-1", "1-x", "a", 3, remediation.EffectRunning), e("inc-1", "2-x", "a", 1, remediation.EffectDone),
			e("inc-2", "1-x", "b", 2, remediation.EffectFailed))
		put(e("inc-1", "1-x", "a", 4, remediation.EffectDone))
		for _, c := range []struct {
			service string
			since   time.Time
			want    []remediation.Effect
		}{
			{"", time.Time{}, []remediation.Effect{e("inc-1", "2-x", "a", 1, "done"), e("inc-2", "1-x", "b", 2, "failed"), e("inc-1", "1-x", "a", 4, "done")}},
			{"", noon.Add(2), []remediation.Effect{e("inc-2", "1-x", "b", 2, "failed"), e("inc-1", "1-x", "a", 4, "done")}},
			{"a", noon.Add(2), []remediation.Effect{e("inc-1", "1-x", "a", 4, "done")}},
			{"a", noon.Add(5), nil},
			{"c", time.Time{}, nil},
		} {
			s.both(func(tx remediation.Tx) error {
				got, err := tx.Effects(c.service, c.since)
				if !slices.Equal(got, c.want) {
					return fmt.Errorf("effects of %q since %s: %+v, want %+v (%w)", c.service, c.since, got, c.want, err)
				}
				return err
			})
		}
		for _, c := range []struct {
			service string
			most    int
			want    []remediation.Effect
		}{
			{"a", 9, []remediation.Effect{e("inc-1", "1-x", "a", 4, "done"), e("inc-1", "2-x", "a", 1, "done")}},
			{"a", 1, []remediation.Effect{e("inc-1", "1-x", "a", 4, "done")}},
			{"c", 9, nil},
		} {
			s.both(func(tx remediation.Tx) error {
				var got []remediation.Effect
				err := tx.EffectsBack(c.service, func(e remediation.Effect) bool {
					got = append(got, e)
					return len(got) < c.most
				})
				if _, herr := tx.Effects("", noon); !slices.Equal(got, c.want) || herr != nil {
					return fmt.Errorf("the last %d effects of %q: %+v, want %+v (%w, then %w)", c.most, c.service, got, c.want, err, herr)
				}
				return err
			})
		}
	}},
	{"one transaction reads effects since different moments", func(s *suite) {
		ef := func(step string, ago time.Duration) remediation.Effect {
			return remediation.Effect{Time: noon.Add(-ago), Service: "a", Action: "flag_off", Incident: "inc-1", Step: step, Outcome: "done"}
		}
		old, late := ef("1-x", 30*time.Minute), ef("2-x", time.Minute)
		s.update(func(tx remediation.Tx) error { return errors.Join(tx.PutEffect(old), tx.PutEffect(late)) })
		s.both(func(tx remediation.Tx) error {
			for since, want := range map[time.Duration][]remediation.Effect{10 * time.Minute: {late}, time.Hour: {old, late}, time.Second: nil} {
				for _, service := range []string{"", "a"} {
					if got, err := tx.Effects(service, noon.Add(-since)); err != nil || !slices.Equal(got, want) {
						return fmt.Errorf("effects of %q in the last %s: %+v, want %+v (%w)", service, since, got, want, err)
					}
				}
			}
			return nil
		})
	}},
	{"freezes are kept by service and scope", func(s *suite) {
		until := noon.AddDate(5000, 0, 0)
		all := []remediation.Freeze{
			{Service: "", Scope: "all", By: "eve", Reason: "a\x00b", Since: noon},
			{Service: "", Scope: "promotions", Until: &until, By: "eve", Since: noon},
			{Service: "shop\x00", Scope: "all", Until: &until, Since: noon},
		}
		s.update(func(tx remediation.Tx) error {
			return errors.Join(tx.PutFreeze(all[1]), tx.PutFreeze(remediation.Freeze{Scope: "all", Reason: "replaced"}), tx.PutFreeze(all[2]), tx.PutFreeze(all[0]),
				tx.PutFreeze(remediation.Freeze{Service: "gone", Scope: "all"}), tx.DeleteFreeze("gone", "all"), tx.DeleteFreeze("shop", "all"), tx.DeleteFreeze("", "nothing"))
		})
		s.both(func(tx remediation.Tx) error {
			got, err := tx.Freezes()
			if !reflect.DeepEqual(got, all) {
				return fmt.Errorf("got %+v, want %+v (%w)", got, all, err)
			}
			return err
		})
	}},
	{"signals are kept by service and name", func(s *suite) {
		all := []remediation.Signal{
			{Service: "", Name: "a\x00", By: "eve", Reason: "a\x00b", Since: noon},
			{Service: "shop\x00", Name: "a", By: "eve", Since: noon},
			{Service: "shop\x00", Name: "b"},
		}
		s.update(func(tx remediation.Tx) error {
			return errors.Join(tx.PutSignal(all[2]), tx.PutSignal(remediation.Signal{Service: "shop\x00", Name: "a", By: "replaced"}), tx.PutSignal(all[1]), tx.PutSignal(all[0]),
				tx.PutSignal(remediation.Signal{Service: "gone", Name: "a"}), tx.DeleteSignal("gone", "a"), tx.DeleteSignal("shop", "a"))
		})
		s.both(func(tx remediation.Tx) error {
			got, err := tx.Signals()
			if !reflect.DeepEqual(got, all) {
				return fmt.Errorf("got %+v, want %+v (%w)", got, all, err)
			}
			for _, want := range all {
				if one, err := tx.Signal(want.Service, want.Name); err != nil || one != want {
					return fmt.Errorf("got %+v, want %+v (%w)", one, want, err)
				}
			}
			if _, oneErr := tx.Signal("gone", "a"); !errors.Is(oneErr, remediation.ErrNotFound) {
				return fmt.Errorf("one that is gone: %w", oneErr)
			}
			return err
		})
	}},
	{"rollouts are kept by service", func(s *suite) {
		at := noon
		all := []remediation.Rollout{
			{Service: "a\x00", Release: "v2", Previous: "v1", State: "active", Stage: "alpha", Held: true, Started: &at, StageSince: &at},
			{Service: "b", State: "none", Stage: "none"},
		}
		s.update(func(tx remediation.Tx) error {
			return errors.Join(tx.PutRollout(all[1]), tx.PutRollout(remediation.Rollout{Service: "a\x00"}), tx.PutRollout(all[0]))
		})
		s.both(func(tx remediation.Tx) error {
			got, err := tx.Rollouts()
			if !reflect.DeepEqual(got, all) {
				return fmt.Errorf("got %+v, want %+v (%w)", got, all, err)
			}
			for _, want := range all {
				if one, err := tx.Rollout(want.Service); err != nil || !reflect.DeepEqual(one, want) {
					return fmt.Errorf("got %+v, want %+v (%w)", one, want, err)
				}
			}
			if _, oneErr := tx.Rollout("a"); !errors.Is(oneErr, remediation.ErrNotFound) {
				return fmt.Errorf("one that was never put: %w", oneErr)
			}
			return err
		})
	}},
	{"promoting are the rollouts with a promotion", func(s *suite) {
		moving := func(service string) remediation.Rollout {
			return remediation.Rollout{Service: service, State: "active", Promotion: &remediation.Promotion{To: "full"}}
		}
		s.update(func(tx remediation.Tx) error {
			return errors.Join(tx.PutRollout(moving("c")), tx.PutRollout(moving("b")), tx.PutRollout(moving("a")),
				tx.PutRollout(remediation.Rollout{Service: "b", State: "active"}), tx.PutRollout(remediation.Rollout{Service: "d", State: "active"}))
		})
		s.both(func(tx remediation.Tx) error {
			got, err := tx.Promoting()
			if want := []remediation.Rollout{moving("a"), moving("c")}; !reflect.DeepEqual(got, want) {
				return fmt.Errorf("got %+v, want %+v (%w)", got, want, err)
			}
			return err
		})
	}},
	{"beats are kept by service", func(s *suite) {
		all := []remediation.Beat{{Service: "a\x00", Last: noon, Heard: true}, {Service: "b", Lost: true, Away: noon}}
		s.update(func(tx remediation.Tx) error {
			return errors.Join(tx.PutBeat(all[1]), tx.PutBeat(remediation.Beat{Service: "a\x00", Lost: true}), tx.PutBeat(all[0]))
		})
		s.both(func(tx remediation.Tx) error {
			got, err := tx.Beats()
			if !slices.Equal(got, all) {
				return fmt.Errorf("got %+v, want %+v (%w)", got, all, err)
			}
			for _, want := range all {
				if one, err := tx.Beat(want.Service); err != nil || one != want {
					return fmt.Errorf("got %+v, want %+v (%w)", one, want, err)
				}
			}
			if _, oneErr := tx.Beat("a"); !errors.Is(oneErr, remediation.ErrNotFound) {
				return fmt.Errorf("one that was never put: %w", oneErr)
			}
			return err
		})
	}},
	{"a playbook's source is kept byte for byte", func(s *suite) {
		sources := map[string][]byte{"h1": []byte("a: \x00\xff\r\n"), "h2": {}, "h3": bytes.Repeat([]byte("x"), 1<<20)}
		for range 2 { // twice is as good as once
			s.update(func(tx remediation.Tx) error {
				for h, b := range sources {
					if err := tx.PutPlaybook(h, b); err != nil {
						return err
					}
				}
				return nil
			})
		}
		s.both(func(tx remediation.Tx) error {
			for h, want := range sources {
				if got, err := tx.Playbook(h); err != nil || !bytes.Equal(got, want) {
					return fmt.Errorf("playbook %s: %d bytes (%w)", h, len(got), err)
				}
			}
			if _, err := tx.Playbook("h4"); !errors.Is(err, remediation.ErrNotFound) {
				return fmt.Errorf("an unknown playbook: %w", err)
			}
			return nil
		})
	}},
}
