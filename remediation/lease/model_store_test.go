package lease_test

import (
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strconv"
	"testing"
	"time"

	"github.com/locotoki/backout/remediation"
	"github.com/locotoki/backout/remediation/audit"
	"github.com/locotoki/backout/remediation/crashtest"
	"github.com/locotoki/backout/remediation/lease"
	"github.com/locotoki/backout/remediation/store"
	"github.com/locotoki/backout/remediation/store/storetest"
)

// onStore does the model's transactions on a real database, by one store or, in PostgreSQL,
// by two: each run of a replica has one of them.
type onStore struct {
	t      *testing.T
	stores []remediation.Store
}

// of is the store of a replica's run.
func (d onStore) of(id byte) remediation.Store { return d.stores[int(id)%len(d.stores)] }

// name is a replica's run in the store.
func name(id byte) string { return string(rune('a' + id)) }

func (d onStore) take(holder, epoch byte) (got byte, err error) {
	err = d.of(holder).Update(d.t.Context(), func(tx remediation.Tx) error {
		l, _, err := lease.Take(tx, "", name(holder), int64(epoch), time.Hour)
		got = byte(l.Epoch)
		return err
	})
	return got, err
}

// lapse lets the lease end now, as time does.
func (d onStore) lapse() {
	err := d.of(0).Update(d.t.Context(), func(tx remediation.Tx) error {
		now, err := tx.Now()
		if err != nil {
			return err
		}
		l, err := tx.Lease("")
		if err != nil {
			return err
		}
		l.Until = now
		return tx.PutLease(l)
	})
	if err != nil {
		d.t.Fatal(err)
	}
}

func (d onStore) write(holder, epoch byte, kind audit.Kind) error {
	ctx := d.t.Context()
	if holder > 0 { // else it is appended outside of a lease
		var end func()
		ctx, end = lease.With(ctx, lease.NewHold(remediation.Lease{Holder: name(holder), Epoch: int64(epoch)}, "", 0))
		defer end()
	}
	return lease.Fence(d.of(holder)).Update(ctx, func(tx remediation.Tx) error {
		_, err := tx.Append(audit.Entry{Kind: kind, Time: epoch0, Detail: map[string]any{"epoch": int64(epoch)}})
		return err
	})
}

// walk takes a random way through the model, and does the same on the store.
func walk(r *rand.Rand, d onStore) (way []string, err error) {
	s, ru := start(), protocol()
	for range 80 {
		moves := ru.moves(s)
		if len(moves) == 0 {
			return way, nil
		}
		m := moves[r.IntN(len(moves))]
		way = append(way, m.name)
		if err := m.on(d); err != nil {
			return way, err
		}
		s = m.to
	}
	return way, nil
}

func TestAStoreDoesWhatTheModelSays(t *testing.T) {
	seed := rand.Uint64()
	if v := os.Getenv("BACKOUT_SEED"); v != "" {
		var err error
		if seed, err = strconv.ParseUint(v, 10, 64); err != nil {
			t.Fatal(err)
		}
	}
	t.Logf("the same again: BACKOUT_SEED=%d", seed)
	r := rand.New(rand.NewPCG(seed, 0))
	for name, open := range map[string]func(t *testing.T) []remediation.Store{
		"SQLite": func(t *testing.T) []remediation.Store {
			st, err := store.Open(t.Context(), "sqlite:"+filepath.Join(t.TempDir(), "backout.db"))
			if err != nil {
				t.Fatal(err)
			}
			return []remediation.Store{st}
		},
		"PostgreSQL": func(t *testing.T) (two []remediation.Store) {
			dsn := storetest.Postgres(t)
			for range 2 {
				st, err := store.OpenShared(t.Context(), dsn)
				if err != nil {
					t.Fatal(err)
				}
				two = append(two, st)
			}
			return two
		},
	} {
		t.Run(name, func(t *testing.T) {
			for i := range crashtest.Rounds(200) {
				d := onStore{t, open(t)}
				way, err := walk(r, d)
				if err == nil {
					err = d.of(0).View(t.Context(), inOrder)
				}
				for _, st := range d.stores {
					if cerr := st.Close(); cerr != nil {
						t.Error(cerr)
					}
				}
				if err != nil {
					t.Fatalf("walk %d: %v, after %q", i, err, way)
				}
			}
		})
	}
}

// inOrder finds an entry of an old epoch behind one of a newer; a late outcome says itself
// that it is late.
func inOrder(tx remediation.Tx) error {
	all, err := tx.Entries(audit.Filter{})
	if err != nil {
		return err
	}
	last := int64(0)
	for _, en := range all {
		if en.Kind == audit.KindLateOutcome {
			continue
		}
		epoch, err := strconv.ParseInt(fmt.Sprint(en.Detail["epoch"]), 10, 64)
		if err != nil || epoch < last {
			return fmt.Errorf("entry %d is of epoch %v, behind one of %d", en.Seq, en.Detail["epoch"], last)
		}
		last = epoch
	}
	return nil
}
