package storetest

import (
	"context"
	"errors"
	"fmt"
	"reflect"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/locotoki/backout/remediation"
	"github.com/locotoki/backout/remediation/audit"
)

var errMine = errors.New("my own error")

var transactionTests = []test{
	{"a failed Update leaves nothing and gives its own error", func(s *suite) {
		s.put("shop")
		err := s.store.Update(s.ctx, func(tx remediation.Tx) error {
			return errors.Join(
				appendEntry(tx, "lost"),
				tx.PutIncident(&remediation.Incident{Service: "lost", State: remediation.Confirming}),
				tx.PutAlert(remediation.AlertState{Fingerprint: "lost", Incident: "inc-1", Active: true}),
				tx.PutEffect(remediation.Effect{Incident: "lost", Step: "1"}),
				tx.PutFreeze(remediation.Freeze{Service: "lost"}),
				tx.PutRollout(remediation.Rollout{Service: "lost"}),
				tx.PutBeat(remediation.Beat{Service: "lost"}),
				tx.PutPlaybook("lost", nil),
				tx.PutPublicIncident(remediation.PublicIncident{Incident: "lost"}),
				tx.PutMessage(&remediation.Message{Channel: "lost"}),
				errMine,
			)
		})
		if !errors.Is(err, errMine) {
			s.Fatalf("Update answered %v, want its function's error", err)
		}
		check := func(tx remediation.Tx) error {
			incs, err1 := tx.Incidents(remediation.IncidentFilter{})
			_, err2 := tx.Alert("lost")
			active, _, err3 := tx.ActiveAlerts("inc-1")
			effects, err4 := tx.Effects("", noon.AddDate(-9, 0, 0))
			freezes, err5 := tx.Freezes()
			rollouts, err6 := tx.Rollouts()
			beats, err7 := tx.Beats()
			_, err8 := tx.Playbook("lost")
			seq, hash, err9 := tx.Head()
			public, err10 := tx.PublicIncidents(time.Time{})
			pending, err11 := tx.PendingMessages()
			if err := errors.Join(err1, err3, err4, err5, err6, err7, err9, err10, err11); err != nil {
				return err
			}
			if len(incs) != 1 || active != 0 || len(effects)+len(freezes)+len(rollouts)+len(beats)+len(public)+len(pending) > 0 || seq != 0 || hash != audit.ZeroHash ||
				!errors.Is(err2, remediation.ErrNotFound) || !errors.Is(err8, remediation.ErrNotFound) {
				return fmt.Errorf("something is left: %v, alert %w, %d active, %v, %v, %v, %v, %v, %v, playbook %w, head %d",
					incs, err2, active, effects, freezes, rollouts, beats, public, pending, err8, seq)
			}
			return nil
		}
		s.both(check)
		s.update(func(tx remediation.Tx) error { return appendEntry(tx, "after") })
		if n := s.chain(); n != 1 {
			s.Fatalf("the log has %d entries, want 1", n)
		}
	}},
	{"an Update reads what it wrote, and what those before it wrote", func(s *suite) {
		s.update(func(tx remediation.Tx) error { return appendEntry(tx, "first") })
		s.update(func(tx remediation.Tx) error {
			if err := appendEntry(tx, "second"); err != nil {
				return err
			}
			es, err := tx.Entries(audit.Filter{})
			if err != nil {
				return err
			}
			if seq, hash, err := tx.Head(); len(es) != 2 || seq != 2 || err != nil || hash != es[1].Hash {
				return fmt.Errorf("%d entries, head %d %s (%w)", len(es), seq, hash, err)
			}
			return nil
		})
	}},
	{"Updates at the same time fail alone", func(s *suite) {
		const calls = 400
		var wg sync.WaitGroup
		var mu sync.Mutex
		var want []string
		for i := range calls {
			wg.Add(1)
			go func() {
				defer wg.Done()
				name := fmt.Sprint("call ", i)
				err := s.store.Update(s.ctx, func(tx remediation.Tx) error {
					if err := appendEntry(tx, name); err != nil {
						return err
					}
					if err := tx.PutBeat(remediation.Beat{Service: name}); err != nil {
						return err
					}
					if err := tx.PutAlert(remediation.AlertState{Fingerprint: name, Incident: "inc-1", Active: true}); err != nil {
						return err
					}
					if i%3 == 0 {
						return fmt.Errorf("%s: %w", name, errMine)
					}
					return nil
				})
				switch {
				case i%3 == 0 && (!errors.Is(err, errMine) || err.Error() != name+": my own error"):
					s.Errorf("%s: %v, want its own error", name, err)
				case i%3 != 0 && err != nil:
					s.Errorf("%s: %v", name, err)
				case i%3 != 0:
					mu.Lock()
					want = append(want, name)
					mu.Unlock()
				}
			}()
		}
		wg.Wait()
		if n := s.chain(); n != int64(len(want)) {
			s.Fatalf("the log has %d entries, want %d", n, len(want))
		}
		got := s.actors()
		slices.Sort(got)
		slices.Sort(want)
		if !slices.Equal(got, want) {
			s.Fatalf("the log has the entries of %v, want %v", got, want)
		}
		s.both(func(tx remediation.Tx) error {
			beats, err := tx.Beats()
			if err != nil {
				return err
			}
			n, _, err := tx.ActiveAlerts("inc-1")
			if len(beats) != len(want) || n != len(want) {
				return fmt.Errorf("%d beats and %d active alerts, want %d (%w)", len(beats), n, len(want), err)
			}
			return err
		})
	}},
	{"a panic in an Update reaches its caller and leaves nothing", func(s *suite) {
		func() {
			defer func() {
				if r := recover(); r != any("mine") {
					s.Errorf("recovered %v, want the function's panic", r)
				}
			}()
			err := s.store.Update(s.ctx, func(tx remediation.Tx) error {
				if err := appendEntry(tx, "lost"); err != nil {
					return err
				}
				panic("mine")
			})
			s.Errorf("Update returned %v after a panic", err)
		}()
		done := make(chan struct{})
		go func() {
			defer close(done)
			err := s.store.Update(s.ctx, func(tx remediation.Tx) error {
				if err := appendEntry(tx, "lost"); err != nil {
					return err
				}
				runtime.Goexit()
				return nil
			})
			s.Errorf("Update returned %v after its goroutine ended", err)
		}()
		<-done
		s.update(func(tx remediation.Tx) error { return appendEntry(tx, "kept") })
		if got := s.actors(); !slices.Equal(got, []string{"kept"}) {
			s.Fatalf("the log has %v", got)
		}
		s.chain()
	}},
	{"a View sees one moment, while Updates go on", func(s *suite) {
		s.update(func(tx remediation.Tx) error { return appendEntry(tx, "before") })
		s.view(func(tx remediation.Tx) error {
			for range 3 {
				seq, _, err := tx.Head()
				if err != nil {
					return err
				}
				if seq != 1 {
					return fmt.Errorf("the head moved to %d within a View", seq)
				}
				if err := s.store.Update(s.ctx, func(tx remediation.Tx) error { return appendEntry(tx, "meanwhile") }); err != nil {
					return err
				}
			}
			return nil
		})
		if n := s.chain(); n != 4 {
			s.Fatalf("the log has %d entries, want 4", n)
		}
	}},
	{"a View does not write", func(s *suite) {
		inc := s.put("shop")
		writes := map[string]func(tx remediation.Tx) error{
			"Append":       func(tx remediation.Tx) error { return appendEntry(tx, "x") },
			"PutIncident":  func(tx remediation.Tx) error { return tx.PutIncident(inc) },
			"PutAlert":     func(tx remediation.Tx) error { return tx.PutAlert(remediation.AlertState{Fingerprint: "x"}) },
			"PutEffect":    func(tx remediation.Tx) error { return tx.PutEffect(remediation.Effect{Incident: "x"}) },
			"PutFreeze":    func(tx remediation.Tx) error { return tx.PutFreeze(remediation.Freeze{}) },
			"DeleteFreeze": func(tx remediation.Tx) error { return tx.DeleteFreeze("", "all") },
			"PutRollout":   func(tx remediation.Tx) error { return tx.PutRollout(remediation.Rollout{Service: "x"}) },
			"PutBeat":      func(tx remediation.Tx) error { return tx.PutBeat(remediation.Beat{Service: "x"}) },
			"PutPlaybook":  func(tx remediation.Tx) error { return tx.PutPlaybook("x", []byte("x")) },

			"PutPublicIncident": func(tx remediation.Tx) error { return tx.PutPublicIncident(remediation.PublicIncident{Incident: "x"}) },
			"PutMessage":        func(tx remediation.Tx) error { return tx.PutMessage(&remediation.Message{Channel: "x"}) },
			"DeleteMessage":     func(tx remediation.Tx) error { return tx.DeleteMessage(1) },
		}
		for name, write := range writes {
			if err := s.store.View(s.ctx, write); err == nil {
				s.Errorf("%s worked in a View", name)
			}
		}
		if n := s.chain(); n != 0 {
			s.Fatalf("the log has %d entries", n)
		}
	}},
	{"a transaction is not used after its function", func(s *suite) {
		var old remediation.Tx
		s.update(func(tx remediation.Tx) error { old = tx; return nil })
		if err := appendEntry(old, "late"); err == nil {
			s.Error("appended to an Update that is over")
		}
		s.view(func(tx remediation.Tx) error { old = tx; return nil })
		if _, err := old.Freezes(); err == nil {
			s.Error("read in a View that is over")
		}
		s.chain()
	}},
	{"hooks run after the commit, in order, and not without it", func(s *suite) {
		var ran []string
		after := func(name string) func() { return func() { ran = append(ran, name) } }
		s.update(func(tx remediation.Tx) error {
			tx.OnCommit(func() { ran = append(ran, fmt.Sprint("of ", s.actors())) })
			tx.OnCommit(after("second"))
			if len(ran) > 0 {
				s.Error("it ran inside the transaction")
			}
			return appendEntry(tx, "kept")
		})
		err := s.store.Update(s.ctx, func(tx remediation.Tx) error {
			tx.OnCommit(after("failed"))
			return errors.Join(appendEntry(tx, "lost"), errMine)
		})
		if !errors.Is(err, errMine) {
			s.Errorf("Update answered %v", err)
		}
		func() {
			defer func() { _ = recover() }()
			_ = s.store.Update(s.ctx, func(tx remediation.Tx) error { tx.OnCommit(after("panicked")); panic("mine") })
		}()
		s.view(func(tx remediation.Tx) error { tx.OnCommit(after("view")); return nil })
		var old remediation.Tx
		s.update(func(tx remediation.Tx) error { old = tx; return nil })
		old.OnCommit(after("late"))
		if want := []string{"of [kept]", "second"}; !slices.Equal(ran, want) {
			s.Errorf("ran %q, want %q", ran, want)
		}
	}},
	{"hooks of Updates at the same time run once for each that committed", func(s *suite) {
		const calls = 200
		var wg sync.WaitGroup
		var ran [calls]atomic.Int32
		for i := range calls {
			wg.Go(func() {
				err := s.store.Update(s.ctx, func(tx remediation.Tx) error {
					tx.OnCommit(func() { ran[i].Add(1) })
					if err := appendEntry(tx, "x"); err != nil || i%3 != 0 {
						return err
					}
					return errMine
				})
				want := int32(1)
				if i%3 == 0 {
					want = 0
				}
				if n := ran[i].Load(); n != want { // before Update returned
					s.Errorf("Update %d (%v): its hook ran %d times, want %d", i, err, n, want)
				}
			})
		}
		wg.Wait()
	}},
	{"a hook may write", func(s *suite) {
		s.update(func(tx remediation.Tx) error {
			tx.OnCommit(func() { s.update(func(tx remediation.Tx) error { return appendEntry(tx, "after") }) })
			return appendEntry(tx, "first")
		})
		if got := s.actors(); !slices.Equal(got, []string{"first", "after"}) {
			s.Errorf("the log has %v", got)
		}
	}},
	{"a transaction knows what it has appended, and nothing else", func(s *suite) {
		s.update(func(tx remediation.Tx) error { return appendEntry(tx, "before") })
		s.update(func(tx remediation.Tx) error {
			var want []audit.Entry
			for range 2 {
				if got := tx.Appended(); !reflect.DeepEqual(got, want) {
					return fmt.Errorf("appended %+v, want %+v", got, want)
				}
				e, err := tx.Append(audit.Entry{Time: noon, Kind: audit.KindStarted, Detail: map[string]any{"n": 1}})
				if err != nil {
					return err
				}
				want = append(want, e)
			}
			if _, err := tx.Append(audit.Entry{Detail: map[string]any{"n": 0.5}}); err == nil {
				return errors.New("a float was appended")
			}
			if got := tx.Appended(); !reflect.DeepEqual(got, want) {
				return fmt.Errorf("appended %+v, want %+v", got, want)
			}
			return nil
		})
		s.view(func(tx remediation.Tx) error {
			if got := tx.Appended(); len(got) > 0 {
				return fmt.Errorf("a View has appended %+v", got)
			}
			return nil
		})
	}},
	{"a View gives its function's error, and ends with its panic", func(s *suite) {
		if err := s.store.View(s.ctx, func(remediation.Tx) error { return errMine }); !errors.Is(err, errMine) {
			s.Fatalf("View answered %v", err)
		}
		for range 20 {
			func() {
				defer func() {
					if recover() == nil {
						s.Error("the panic was lost")
					}
				}()
				s.must(s.store.View(s.ctx, func(remediation.Tx) error { panic("mine") }))
			}()
		}
		s.chain()
	}},
	{"a context that is over before its turn drops the call", func(s *suite) {
		over, cancel := context.WithCancel(s.ctx)
		cancel()
		ran := false
		fn := func(remediation.Tx) error { ran = true; return nil }
		if err := s.store.Update(over, fn); !errors.Is(err, context.Canceled) || ran {
			s.Errorf("Update: %v, ran %v", err, ran)
		}
		// One Update is running; the next waits behind it and gives up.
		waiting, giveUp := context.WithCancel(s.ctx)
		var inner error
		s.update(func(tx remediation.Tx) error {
			done := make(chan struct{})
			go func() {
				defer close(done)
				inner = s.store.Update(waiting, fn)
			}()
			giveUp()
			<-done
			return appendEntry(tx, "running")
		})
		if !errors.Is(inner, context.Canceled) || ran {
			s.Errorf("the waiting Update: %v, ran %v", inner, ran)
		}
		if got := s.actors(); !slices.Equal(got, []string{"running"}) {
			s.Errorf("the log has %v", got)
		}
	}},
	{"a context that ends while its Update runs does not hide what became of it", func(s *suite) {
		ctx, cancel := context.WithCancel(s.ctx)
		err := s.store.Update(ctx, func(tx remediation.Tx) error {
			cancel()
			return appendEntry(tx, "kept")
		})
		if err != nil {
			s.Errorf("Update answered %v, though it committed", err)
		}
		if got := s.actors(); !slices.Equal(got, []string{"kept"}) {
			s.Errorf("the log has %v", got)
		}
	}},
	{"a closed store refuses", func(s *suite) {
		s.must(s.store.Close())
		if err := s.store.Update(s.ctx, func(remediation.Tx) error { return nil }); err == nil {
			s.Error("Update worked on a closed store")
		}
		if err := s.store.View(s.ctx, func(remediation.Tx) error { return nil }); err == nil {
			s.Error("View worked on a closed store")
		}
		s.store = s.open(s.T, s.dir)
	}},
	{"closing answers every Update truly", func(s *suite) {
		var wg sync.WaitGroup
		var answered atomic.Int64
		begun := make(chan struct{}, 64)
		for range 16 {
			wg.Add(1)
			go func() {
				defer wg.Done()
				for {
					err := s.store.Update(s.ctx, func(tx remediation.Tx) error { return appendEntry(tx, "x") })
					if err != nil {
						return
					}
					answered.Add(1)
					select {
					case begun <- struct{}{}:
					default:
					}
				}
			}()
		}
		for range cap(begun) {
			<-begun
		}
		s.must(s.store.Close())
		wg.Wait()
		s.store = s.open(s.T, s.dir)
		if n := s.chain(); n != answered.Load() {
			s.Fatalf("%d Updates were answered, the log has %d entries", answered.Load(), n)
		}
	}},
}
