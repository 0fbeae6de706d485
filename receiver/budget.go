package receiver

import (
	"net"
	"net/http"
	"sync"
	"syscall"
)

// The connections that one listener may hold at a time, where the process may open
// that many files; the rest is for the store, the engine and the other listener.
const (
	maxConnections       = 512
	maxPublicConnections = 256
)

// budget bounds the connections of one listener. Once there are too many, the one
// that has been idle for longest is closed, so that clients that say nothing keep
// no notification out.
type budget struct {
	max int

	mu   sync.Mutex
	turn uint64
	idle map[net.Conn]uint64 // by when it became idle; 0: it is at work
}

// newBudget allows max connections, or a quarter of the files that the process may open.
func newBudget(max int) *budget {
	var files syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &files); err == nil && files.Cur/4 < uint64(max) {
		max = int(files.Cur / 4)
	}
	return &budget{max: max, idle: map[net.Conn]uint64{}}
}

// state is a http.Server's ConnState.
func (b *budget) state(c net.Conn, s http.ConnState) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.turn++
	switch s {
	case http.StateNew, http.StateIdle:
		b.idle[c] = b.turn
	case http.StateActive:
		b.idle[c] = 0
	case http.StateHijacked, http.StateClosed:
		delete(b.idle, c)
	}
	if s != http.StateNew || len(b.idle) <= b.max {
		return
	}
	oldest := c // nobody else is idle: the new one goes
	for other, since := range b.idle {
		if since > 0 && since < b.idle[oldest] {
			oldest = other
		}
	}
	delete(b.idle, oldest)
	_ = oldest.Close() // its server hears of it by itself
}
