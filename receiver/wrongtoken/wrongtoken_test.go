package wrongtoken

import (
	"context"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

func TestOneHomeIsOneAddressAndAFloodOfAddressesIsOne(t *testing.T) {
	w, err := New(prometheus.NewRegistry(), slog.New(slog.DiscardHandler), time.Now)
	if err != nil {
		t.Fatal(err)
	}
	for i := range 20 {
		w.count(addressOf(fmt.Sprintf("[2001:db8:0:1::%x]:1", i)))
	}
	if got := w.count(addressOf("[2001:db8:0:1:ffff::1]:1")); got != 21 {
		t.Errorf("the 21st of a /64 is number %d", got)
	}
	for i := range maxAddresses {
		w.count(fmt.Sprint(i))
	}
	if n := w.count("another"); n < 2 {
		t.Errorf("beyond all that are remembered: number %d", n)
	}
}

func TestWrongTokensWaitLongerAndLonger(t *testing.T) {
	last := delayOf(free)
	if last != 0 {
		t.Errorf("a typing error waits %s", last)
	}
	for count := free + 1; count < 1000; count++ {
		d := delayOf(count)
		if d <= 0 || d < last || d > longestDelay {
			t.Fatalf("number %d waits %s after %s", count, d, last)
		}
		last = d
	}
	if last != longestDelay {
		t.Errorf("the last waits %s", last)
	}
}

func TestAWrongTokenWaitsWhileThereIsRoomAndItsClientIsThere(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w, err := New(prometheus.NewRegistry(), slog.New(slog.DiscardHandler), time.Now)
		if err != nil {
			t.Fatal(err)
		}
		takes := func(what string, ctx context.Context, want time.Duration) {
			t.Helper()
			from := time.Now()
			w.Came(httptest.NewRequestWithContext(ctx, http.MethodGet, "/", nil))
			if got := time.Since(from); got != want {
				t.Errorf("%s waits %s, want %s", what, got, want)
			}
		}
		for range free {
			takes("a typing error", t.Context(), 0)
		}
		takes("the next one", t.Context(), firstDelay)
		gone, leave := context.WithCancel(t.Context())
		leave()
		takes("one whose client left", gone, 0)
		var waiting sync.WaitGroup
		for range maxWaiting {
			waiting.Go(func() { w.Came(httptest.NewRequest(http.MethodGet, "/", nil)) })
		}
		synctest.Wait()
		takes("one more than may wait", t.Context(), 0)
		waiting.Wait()
	})
}
