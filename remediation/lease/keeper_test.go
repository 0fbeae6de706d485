package lease_test

import (
	"context"
	"errors"
	"log/slog"
	"path/filepath"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/locotoki/backout/remediation"
	"github.com/locotoki/backout/remediation/lease"
	"github.com/locotoki/backout/remediation/store"
)

func TestACallEndsWhereTheMachineWasSuspendedForLongerThanTheLease(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		st, err := store.Open(t.Context(), "sqlite:"+filepath.Join(t.TempDir(), "backout.db"))
		if err != nil {
			t.Fatal(err)
		}
		defer st.Close() //nolint:errcheck // nothing is left to write
		began := time.Now()
		var suspended atomic.Int64
		acts := make(chan context.Context, 9)
		k := &lease.Keeper{
			Store: st, Length: 9 * time.Second, ID: "a", Name: "a", Log: slog.New(slog.DiscardHandler),
			Boot:   func() time.Duration { return time.Since(began) + time.Duration(suspended.Load()) },
			Self:   func() remediation.Replica { return remediation.Replica{} },
			Realms: func() []string { return []string{""} },
			Act: func(ctx context.Context, _ string) {
				acts <- ctx
				<-ctx.Done()
			},
		}
		ctx, stop := context.WithCancel(t.Context())
		ended := make(chan error, 1)
		go func() { ended <- k.Run(ctx) }()
		under := <-acts
		time.Sleep(time.Minute) // it is renewed
		call, end := lease.Bound(context.WithoutCancel(under))
		defer end()
		time.Sleep(time.Second)
		synctest.Wait()
		if call.Err() != nil {
			t.Fatalf("a call under a lease in force: %v", context.Cause(call))
		}
		suspended.Store(int64(time.Minute))
		next, end := lease.Bound(context.WithoutCancel(under))
		defer end()
		if !errors.Is(context.Cause(next), lease.ErrLost) {
			t.Error("a call begins under a lease that lapsed meanwhile")
		}
		time.Sleep(time.Second)
		synctest.Wait()
		if !errors.Is(context.Cause(call), lease.ErrLost) {
			t.Error("a call goes on under a lease that lapsed meanwhile")
		}
		<-acts // it takes the lease again
		stop()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
}

func TestARealmThatIsNotLeftAfterAllIsActedInAgainWithinAStep(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		st, err := store.Open(t.Context(), "sqlite:"+filepath.Join(t.TempDir(), "backout.db"))
		if err != nil {
			t.Fatal(err)
		}
		defer st.Close() //nolint:errcheck // nothing is left to write
		other := remediation.Replica{ID: "b", Name: "b", Realms: []string{""}, Until: time.Now().Add(time.Hour)}
		if err := st.Update(t.Context(), func(tx remediation.Tx) error { return tx.PutReplica(other) }); err != nil {
			t.Fatal(err)
		}
		var unfit atomic.Bool
		acts, step := make(chan context.Context, 9), make(chan struct{})
		k := &lease.Keeper{
			Store: st, Length: 9 * time.Second, ID: "a", Name: "a", Log: slog.New(slog.DiscardHandler),
			Boot:   func() time.Duration { return time.Duration(time.Now().UnixNano()) },
			Self:   func() remediation.Replica { return remediation.Replica{Realms: []string{""}} },
			Realms: func() []string { return []string{""} },
			Unfit: func(_ remediation.Replica, others []remediation.Replica) (string, []remediation.Replica) {
				if unfit.Load() {
					return "no answer", others
				}
				return "", nil
			},
			Act: func(ctx context.Context, _ string) {
				acts <- ctx
				<-ctx.Done()
				<-step
			},
		}
		ctx, stop := context.WithCancel(t.Context())
		ended := make(chan error, 1)
		go func() { ended <- k.Run(ctx) }()
		is := func(when string, fit bool, working, holds int, holder string) {
			t.Helper()
			unfit.Store(!fit)
			time.Sleep(time.Minute)
			synctest.Wait()
			if n := len(acts); n != working {
				t.Fatalf("%s: Act was called %d times, not %d", when, n, working)
			}
			if held := k.Holds(); len(held) != holds {
				t.Errorf("%s: it holds %q", when, held)
			}
			if err := st.View(t.Context(), func(tx remediation.Tx) error {
				now, err := tx.Now()
				if err != nil {
					return err
				}
				l, err := tx.Lease("")
				if l.Holder != holder && holder != "" || (holder != "") != l.Until.After(now) || l.Epoch > 2 {
					t.Errorf("%s: the lease is %+v", when, l)
				}
				return err
			}); err != nil {
				t.Error(err)
			}
		}
		is("at first", true, 1, 1, "a")
		first := <-acts
		is("left within a step", false, 0, 0, "a")
		if first.Err() == nil {
			t.Error("left within a step: it goes on to begin steps")
		}
		is("not left after all", true, 1, 1, "a")
		again := <-acts
		step <- struct{}{} // the first one's ends
		is("the step ended", true, 0, 1, "a")
		if again.Err() != nil {
			t.Errorf("the step ended: nothing begins any more: %v", context.Cause(again))
		}
		is("left once more", false, 0, 0, "a")
		step <- struct{}{}
		is("left, and nothing runs", false, 0, 0, "")
		is("fit again", true, 1, 1, "a")
		close(step)
		stop()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
}

func TestTheLongestLeaseIsWaitedForWhereTwoDiffer(t *testing.T) {
	for theirs, wait := range map[time.Duration]time.Duration{time.Minute: time.Minute, 3 * time.Second: 9 * time.Second, 0: 9 * time.Second} {
		synctest.Test(t, func(t *testing.T) {
			st, err := store.Open(t.Context(), "sqlite:"+filepath.Join(t.TempDir(), "backout.db"))
			if err != nil {
				t.Fatal(err)
			}
			defer st.Close() //nolint:errcheck // nothing is left to write
			acts := make(chan context.Context, 1)
			k := &lease.Keeper{
				Store: st, Length: 9 * time.Second, ID: "a", Name: "a", Log: slog.New(slog.DiscardHandler),
				Boot:   func() time.Duration { return time.Duration(time.Now().UnixNano()) },
				Self:   func() remediation.Replica { return remediation.Replica{} },
				Realms: func() []string { return []string{""} },
				Act: func(ctx context.Context, _ string) {
					acts <- ctx
					<-ctx.Done()
				},
			}
			// The first one is cut off in the middle of a call, and its lease lapses.
			if err := st.Update(t.Context(), func(tx remediation.Tx) error {
				now := time.Now()
				err := tx.PutReplica(remediation.Replica{ID: "b", Seen: now.Add(-theirs), Until: now, Lease: theirs})
				return errors.Join(err, tx.PutLease(remediation.Lease{Holder: "b", Epoch: 1, Until: now.Add(-time.Nanosecond)}))
			}); err != nil {
				t.Fatal(err)
			}
			ctx, stop := context.WithCancel(t.Context())
			ended := make(chan error, 1)
			go func() { ended <- k.Run(ctx) }()
			if got := lease.From(<-acts).Unsettled(); got != wait {
				t.Errorf("after a lease of %s, it waits %s for requests under way, not %s", theirs, got, wait)
			}
			var row remediation.Replica
			if err := st.View(t.Context(), func(tx remediation.Tx) error {
				all, err := tx.Replicas()
				row = all[0]
				return err
			}); err != nil || row.Lease != 9*time.Second {
				t.Errorf("its row is %+v (%v)", row, err)
			}
			stop()
			if err := <-ended; err != nil {
				t.Error(err)
			}
		})
	}
}
