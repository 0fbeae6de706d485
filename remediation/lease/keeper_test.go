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
		st, err := store.Open("sqlite:" + filepath.Join(t.TempDir(), "backout.db"))
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
