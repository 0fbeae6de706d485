package wrongtoken

import (
	"fmt"
	"log/slog"
	"testing"
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
	last := delayOf(Free)
	if last != 0 {
		t.Errorf("a typing error waits %s", last)
	}
	for count := Free + 1; count < 1000; count++ {
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
