package receiver

import (
	"net"
	"net/http"
	"testing"
	"time"
)

func TestTheLongestIdleConnectionMakesRoom(t *testing.T) {
	b := &budget{max: 2, idle: map[net.Conn]uint64{}}
	open := func() (ours, theirs net.Conn) {
		ours, theirs = net.Pipe()
		t.Cleanup(func() { _ = ours.Close() })
		return ours, theirs
	}
	closed := func(c net.Conn) bool { return c.SetDeadline(time.Time{}) != nil }
	busy, _ := open()
	first, _ := open()
	second, _ := open()
	b.state(busy, http.StateNew)
	b.state(busy, http.StateActive)
	b.state(first, http.StateNew)
	b.state(second, http.StateNew)
	if closed(busy) || !closed(first) || closed(second) {
		t.Errorf("closed: busy %v, first %v, second %v", closed(busy), closed(first), closed(second))
	}
	b.state(second, http.StateActive)
	third, _ := open()
	b.state(third, http.StateNew)
	if closed(busy) || closed(second) || !closed(third) {
		t.Error("one at work was closed for a new one")
	}
}

func TestWrongTokensWaitLongerAndLonger(t *testing.T) {
	last := wrongDelay(wrongFree)
	if last != 0 {
		t.Errorf("a typing error waits %s", last)
	}
	for count := wrongFree + 1; count < 1000; count++ {
		d := wrongDelay(count)
		if d <= 0 || d < last || d > wrongLongest {
			t.Fatalf("the %d. waits %s after %s", count, d, last)
		}
		last = d
	}
	if last != wrongLongest {
		t.Errorf("the last waits %s", last)
	}
}
