package storetest

import (
	"errors"
	"fmt"
	"slices"
	"sync"
	"testing"

	"github.com/locotoki/backout/remediation"
	"github.com/locotoki/backout/remediation/audit"
)

// RunShared runs the suite of what holds where several stores write one database at the
// same time. open opens two on the same one, which is new each time.
func RunShared(t *testing.T, open func(t *testing.T) (one, two remediation.Store)) {
	for _, c := range []struct {
		name string
		run  func(s *suite, two remediation.Store)
	}{
		{"two that write at the same time leave one chain, no gap and no lost update", interleaved},
		{"a View of one sees one moment while the other writes", viewedBeside},
		{"an Update of one sees what the other wrote before it", seenBeside},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := &suite{T: t, ctx: t.Context()}
			var two remediation.Store
			s.store, two = open(t)
			defer func() { s.must(errors.Join(s.store.Close(), two.Close())) }()
			c.run(s, two)
		})
	}
}

// interleaved adds to a beat that has no version, and gives numbers, from both.
func interleaved(s *suite, two remediation.Store) {
	const writers, each = 8, 40
	count := func(tx remediation.Tx) error {
		var n int64
		value, err := tx.Receipt("counter", "n")
		if err == nil {
			_, err = fmt.Sscan(value, &n)
		} else if errors.Is(err, remediation.ErrNotFound) {
			err = nil
		}
		return errors.Join(err, tx.PutReceipt("counter", "n", fmt.Sprint(n+1)))
	}
	var wg sync.WaitGroup
	for w := range writers {
		for name, store := range map[string]remediation.Store{"one": s.store, "two": two} {
			wg.Go(func() {
				for i := range each {
					who := fmt.Sprintf("%s-%d-%d", name, w, i)
					err := store.Update(s.ctx, func(tx remediation.Tx) error {
						if err := errors.Join(appendEntry(tx, who), count(tx)); err != nil {
							return err
						}
						if err := tx.PutAlert(remediation.AlertState{Fingerprint: who, Incident: "inc-1", Active: true}); err != nil {
							return err
						}
						if i%5 == 4 {
							return errMine
						}
						return errors.Join(
							tx.PutIncident(&remediation.Incident{Service: who, State: remediation.Confirming, Opened: noon}),
							tx.PutMessage(&remediation.Message{Channel: "far", Key: who}))
					})
					if (i%5 == 4) != errors.Is(err, errMine) || i%5 != 4 && err != nil {
						s.Errorf("%s: %v", who, err)
					}
				}
			})
		}
	}
	wg.Wait()
	const want = 2 * writers * each * 4 / 5
	if n := s.chain(); n != want {
		s.Errorf("the log has %d entries, want %d", n, want)
	}
	for _, store := range []remediation.Store{s.store, two} {
		s.must(store.View(s.ctx, func(tx remediation.Tx) error {
			value, err := tx.Receipt("counter", "n")
			if err != nil {
				return err
			}
			active, _, err := tx.ActiveAlerts("inc-1")
			if err != nil {
				return err
			}
			incidents, err := tx.Incidents(remediation.IncidentFilter{})
			if err != nil {
				return err
			}
			messages, err := tx.FirstMessages("far")
			if err != nil {
				return err
			}
			if value != fmt.Sprint(want) || active != want || len(incidents) != want || len(messages) != want {
				return fmt.Errorf("counted %s, %d alerts, %d incidents, %d messages; want %d of each", value, active, len(incidents), len(messages), want)
			}
			for i, inc := range incidents {
				if inc.ID != fmt.Sprint("inc-", i+1) || messages[i].ID != int64(i+1) {
					return fmt.Errorf("number %d is %s and message %d", i+1, inc.ID, messages[i].ID)
				}
			}
			return nil
		}))
	}
}

func viewedBeside(s *suite, two remediation.Store) {
	s.update(func(tx remediation.Tx) error { return appendEntry(tx, "before") })
	s.view(func(tx remediation.Tx) error {
		for range 3 {
			entries, err := tx.Entries(audit.Filter{})
			if err != nil {
				return err
			}
			seq, _, err := tx.Head()
			if err != nil {
				return err
			}
			if len(entries) != 1 || seq != 1 {
				return fmt.Errorf("%d entries, head %d within a View", len(entries), seq)
			}
			if err := two.Update(s.ctx, func(tx remediation.Tx) error { return appendEntry(tx, "meanwhile") }); err != nil {
				return err
			}
		}
		return nil
	})
	if got := s.actors(); !slices.Equal(got, []string{"before", "meanwhile", "meanwhile", "meanwhile"}) {
		s.Errorf("the log has %v", got)
	}
}

func seenBeside(s *suite, two remediation.Store) {
	stores := []remediation.Store{s.store, two}
	for i := range 20 {
		s.must(stores[i%2].Update(s.ctx, func(tx remediation.Tx) error {
			beats, err := tx.Beats()
			if err != nil {
				return err
			}
			seq, _, err := tx.Head()
			if err != nil || len(beats) != i || seq != int64(i) {
				return fmt.Errorf("Update %d: %d beats, head %d (%w)", i, len(beats), seq, err)
			}
			return errors.Join(appendEntry(tx, "x"), tx.PutBeat(remediation.Beat{Service: fmt.Sprint(i), Last: noon}))
		}))
	}
}
